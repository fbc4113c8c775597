// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// tests are the test functions of the module, each with its packages.
func tests(t *testing.T) map[string][]string {
	t.Helper()
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)\w*)\(`)
	found := map[string][]string{}
	for _, name := range files(t) {
		if !strings.HasSuffix(name, "_test.go") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(root, name))
		qt.Assert(t, qt.IsNil(err))
		for _, m := range function.FindAllStringSubmatch(string(b), -1) {
			found[m[1]] = append(found[m[1]], path.Dir(name))
		}
	}
	qt.Assert(t, qt.IsTrue(len(found) > 500))
	return found
}

// TestNamedTestsExist: a promise in the documents rests on the test that it names. Where the name
// comes with a package, it is one of that package's.
func TestNamedTestsExist(t *testing.T) {
	all := tests(t)
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Z0-9]\\w*)(?:/[^`]*)?`(?: \\(([a-z]\\w*(?:/\\w+)+)\\))?")
	checked := 0
	for _, name := range files(t) {
		if filepath.Ext(name) != ".md" || isTestdata(name) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(root, name))
		qt.Assert(t, qt.IsNil(err))
		for _, m := range named.FindAllStringSubmatch(string(b), -1) {
			checked++
			switch in := all[m[1]]; {
			case in == nil && !strings.HasSuffix(m[1], "Xxx"): // a form, not a test
				t.Errorf("%s names %s, which does not exist", name, m[1])
			case m[2] != "" && !slices.Contains(in, m[2]):
				t.Errorf("%s names %s of %s; it is in %s", name, m[1], m[2], strings.Join(in, ", "))
			}
		}
	}
	qt.Check(t, qt.IsTrue(checked > 150))
}

// TestFuzzTargetsAreDocumented: each fuzz target has its figure in docs/security.md, and the figure
// is of a target that exists.
func TestFuzzTargetsAreDocumented(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "docs/security.md"))
	qt.Assert(t, qt.IsNil(err))
	rows := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` `(Fuzz\\w+)` \\| [0-9]").FindAllStringSubmatch(string(b), -1) {
		rows[m[1]+" "+m[2]] = true
	}
	targets := map[string]bool{}
	for name, in := range tests(t) {
		for _, p := range in {
			if strings.HasPrefix(name, "Fuzz") {
				targets[p+" "+name] = true
			}
		}
	}
	qt.Check(t, qt.DeepEquals(slices.Sorted(maps.Keys(rows)), slices.Sorted(maps.Keys(targets))))
}
