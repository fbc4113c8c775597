// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

const module = "github.com/bpfwhy/bpfwhy/"

// pure are the packages that need no kernel, with what each may import of this module.
var pure = map[string][]string{
	"insn":              {},
	"node":              {"internal/sysctl"}, // on Linux
	"load":              {"insn"},
	"verifierlog":       {},
	"blinding":          {"insn"},
	"rewrite":           {"insn", "blinding"},
	"explain":           {"insn", "load", "node", "verifierlog", "blinding", "internal/jitonly"},
	"internal/jitonly":  {"insn"},
	"internal/trace":    {"insn", "load", "node"},
	"internal/enrich":   {"load"},
	"internal/redact":   {"insn"},
	"internal/assemble": {"insn", "load", "node", "verifierlog", "blinding", "internal/trace", "internal/enrich", "internal/redact"},
	"internal/repeat":   {"insn", "load"},
	"internal/object":   {"insn", "blinding", "rewrite"},
	"internal/check":    {"insn", "blinding", "internal/jitonly", "internal/object"},
	"internal/render":   {"insn", "load", "node", "explain", "internal/trace", "internal/check", "internal/object"},

	"httpprobe/event":    {},
	"httpprobe/http1":    {"httpprobe/event"},
	"httpprobe/streams":  {"httpprobe/event", "httpprobe/http1"},
	"httpprobe/metrics":  {"httpprobe/event", "httpprobe/http1", "httpprobe/streams"},
	"httpprobe/document": {"httpprobe/streams", "httpprobe/metrics"},
	"httpprobe/table":    {"httpprobe/http1", "httpprobe/streams", "internal/render"},
}

// edge are the packages that may touch the kernel's BPF through cilium/ebpf.
var edge = []string{"loader", "internal/capture", "internal/patient", "internal/corpus", "internal/bench", "internal/probe", "internal/verbatim", "httpprobe/sources"}

type pkg struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	qt.Assert(t, qt.IsNil(err))
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else {
			qt.Assert(t, qt.IsNil(err))
		}
		all = append(all, p)
	}
	qt.Assert(t, qt.IsTrue(len(all) > len(pure)))
	return all
}

func TestImports(t *testing.T) {
	seen := 0
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		allowed, isPure := pure[name]
		if isPure {
			seen++
		}
		for _, imported := range p.Imports {
			own, inModule := strings.CutPrefix(imported, module)
			switch {
			case isPure && inModule:
				qt.Check(t, qt.IsTrue(slices.Contains(allowed, own)), qt.Commentf("%s imports %s", name, own))
			case strings.HasPrefix(imported, "github.com/cilium/ebpf"):
				ok := slices.ContainsFunc(edge, func(e string) bool { return name == e || strings.HasPrefix(name, e+"/") })
				qt.Check(t, qt.IsTrue(ok), qt.Commentf("%s imports %s", name, imported))
			}
		}
	}
	qt.Assert(t, qt.Equals(seen, len(pure)))
}

// Programs are loaded to look at them, and never run: an interpreted one could crash the machine (internal/jitonly). Tests that run what they
// load run what is compiled, or in a machine of the lab.
func TestNothingRunsPrograms(t *testing.T) {
	runs := regexp.MustCompile(`PROG_TEST_RUN|PROG_RUN\b|ebpf\.RunOptions|\.Benchmark\(`)
	files := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if runs.MatchString(line) && !strings.Contains(path, "explain/errnotable.go") { // which has the name of the command
				t.Errorf("%s: %s", path, line)
			}
		}
		return nil
	})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(files > 100))
}
