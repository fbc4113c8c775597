// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-quicktest/qt"
)

// columns is how wide comments and prose are at most.
const columns = 100

// notYet names the folders whose comments or prose are wider, a line for each. A folder that has
// become narrow must go from it.
const notYet = "testdata/columns.txt"

func TestColumns(t *testing.T) {
	list, err := os.ReadFile(notYet)
	qt.Assert(t, qt.IsNil(err))
	allowed := strings.Fields(string(list))
	wide := map[string]bool{}
	read := 0
	for _, name := range files(t) {
		if isTestdata(name) {
			continue
		}
		text, err := prose(filepath.Join(root, name))
		qt.Assert(t, qt.IsNil(err))
		if text == nil {
			continue
		}
		read++
		folder := path.Dir(name)
		for number, line := range text {
			if utf8.RuneCountInString(line) <= columns || unbroken(line) {
				continue
			}
			wide[folder] = true
			if !slices.Contains(allowed, folder) {
				t.Errorf("%s:%d: more than %d columns: %s", name, number, columns, line)
			}
		}
	}
	qt.Assert(t, qt.IsTrue(read > 300))
	for _, folder := range allowed {
		qt.Check(t, qt.IsTrue(wide[folder]), qt.Commentf("%s is narrow now: take it out of %s", folder, notYet))
	}
}

// prose returns the lines of a file that somebody wrote to be read, by number; nil for files that
// have none. Go's comments, and those of C that have a line of their own; the paragraphs of
// Markdown, but for tables and what stands as it is.
func prose(name string) (map[int]string, error) {
	read := map[string]func(string, []byte) (map[int]string, error){".go": goComments, ".c": cComments, ".h": cComments, ".md": paragraphs}[filepath.Ext(name)]
	if read == nil {
		return nil, nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return read(name, b)
}

func goComments(name string, b []byte) (map[int]string, error) {
	lines := map[int]string{}
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, b, parser.ParseComments)
	if err != nil || ast.IsGenerated(f) {
		return lines, err
	}
	source := strings.Split(string(b), "\n")
	for _, group := range f.Comments {
		for _, c := range group.List {
			at := set.Position(c.Pos())
			if code := source[at.Line-1][:at.Column-1]; strings.TrimSpace(code) != "" || strings.HasPrefix(c.Text, "//go:") {
				continue // behind code, which has its own width
			}
			for i := at.Line; i <= set.Position(c.End()).Line; i++ {
				if !strings.Contains(source[i-1], "//\t") && !strings.Contains(source[i-1], "//    ") { // what stands as it is
					lines[i] = strings.ReplaceAll(source[i-1], "\t", "    ")
				}
			}
		}
	}
	return lines, nil
}

func cComments(_ string, b []byte) (map[int]string, error) {
	lines := map[int]string{}
	open := false
	for i, line := range strings.Split(string(b), "\n") {
		text := strings.TrimSpace(line)
		if open || strings.HasPrefix(text, "//") || strings.HasPrefix(text, "/*") {
			lines[i+1] = strings.ReplaceAll(line, "\t", "        ")
			open = !strings.HasPrefix(text, "//") && !strings.Contains(text, "*/")
		}
	}
	return lines, nil
}

func paragraphs(_ string, b []byte) (map[int]string, error) {
	lines := map[int]string{}
	if bytes.HasPrefix(b, []byte("<!-- Generated")) {
		return lines, nil
	}
	fenced := false
	for i, line := range strings.Split(string(b), "\n") {
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			fenced = !fenced
		case fenced, strings.HasPrefix(line, "    "), strings.HasPrefix(line, "|"):
		default:
			lines[i+1] = line
		}
	}
	return lines, nil
}

// unbroken is a line of one long word, such as an address.
func unbroken(line string) bool {
	words := strings.Fields(strings.TrimLeft(line, "/ *-\t"))
	return len(words) <= 1
}
