// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"go.yaml.in/yaml/v3"
)

// TestYAMLForUsers: people paste what the documents show. A block of YAML is marked, so that it can
// be told from others, and it can be read.
func TestYAMLForUsers(t *testing.T) {
	read := 0
	for _, name := range files(t) {
		if filepath.Ext(name) != ".md" || path.Dir(name) != "docs" && name != "README.md" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(root, name))
		qt.Assert(t, qt.IsNil(err))
		for _, block := range blocks(string(b)) {
			marked := block.language == "yaml"
			if !marked && !isYAML(block.text) {
				continue
			}
			if !marked && !bytes.HasPrefix(b, []byte("<!-- Generated")) {
				t.Errorf("%s:%d: YAML that is not marked as ```yaml", name, block.line)
			}
			read++
			if err := readYAML(block.text); err != nil {
				t.Errorf("%s:%d: %v", name, block.line, err)
			}
		}
	}
	qt.Check(t, qt.IsTrue(read >= 5), qt.Commentf("%d blocks of YAML", read))
}

func TestYAMLIsTold(t *testing.T) {
	got := blocks("text\n\n    - a: 1\n      b: 2\n\n    c\n\n```yaml\nd: 1\n\ne: 2\n```\n* item\n\n   ```\n   f\n   ```\n")
	want := []block{
		{line: 3, text: "- a: 1\n  b: 2\n"}, {line: 6, text: "c\n"},
		{line: 9, language: "yaml", text: "d: 1\n\ne: 2\n"}, {line: 16, text: "f\n"},
	}
	qt.Check(t, qt.IsTrue(slices.Equal(got, want)), qt.Commentf("%q", got))
	for text, want := range map[string]bool{
		"# file.yaml\nstate: /var/lib\n":        true,
		"- run: make\n":                         true,
		"machine:\n  sysctls:\n":                true,
		"initContainers:   # a comment\n- a: 1": true,
		"kubectl get pods\n":                    false,
		"FAILED  far_jump: -524 ENOTSUPP\n":     false,
		"null-map-value  311: bpf(cmd 0)\n":     false,
		"[settings.kernel.sysctl]\n\"a\" = 1\n": false,
	} {
		qt.Check(t, qt.Equals(isYAML(text), want), qt.Commentf("%q", text))
	}
	qt.Check(t, qt.IsNil(readYAML("a: 1\n---\nb: 2\n")))
	qt.Check(t, qt.IsNotNil(readYAML("a: 1\n---\n- b: 2 c: 3\n")))
	qt.Check(t, qt.IsNotNil(readYAML("only words\n")))
}

// A block is what a document shows as it stands.
type block struct {
	line     int
	language string
	text     string
}

// blocks are those between fences, and those that are indented by four spaces.
func blocks(document string) (found []block) {
	fence := regexp.MustCompile("^( *)```(\\w*)$")
	var open *block // between fences
	var margin string
	indented := false
	for i, line := range strings.Split(document, "\n") {
		if m := fence.FindStringSubmatch(line); m != nil {
			if open != nil {
				found = append(found, *open)
				open = nil
			} else {
				open, margin = &block{line: i + 2, language: m[2]}, m[1]
			}
			indented = false
			continue
		}
		text, ok := strings.CutPrefix(line, "    ")
		switch {
		case open != nil:
			open.text += strings.TrimPrefix(line, margin) + "\n"
		case ok && indented:
			found[len(found)-1].text += text + "\n"
		case ok:
			found = append(found, block{line: i + 1, text: text + "\n"})
		}
		indented = ok && open == nil
	}
	return found
}

// isYAML tells by the first line that is not a comment: a key, or an item with one.
func isYAML(text string) bool {
	return regexp.MustCompile(`\A(?:#.*\n)*(?:- )?[A-Za-z][\w.-]*:(?: +\S.*)?\n`).MatchString(text)
}

// readYAML reads all documents of a text. Each is more than a word: a mapping or a list.
func readYAML(text string) error {
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var v any
		switch err := d.Decode(&v); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		switch v.(type) {
		case map[string]any, []any:
		default:
			return errors.New("neither a mapping nor a list")
		}
	}
}
