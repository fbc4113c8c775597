// SPDX-License-Identifier: Apache-2.0

package rights_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/go-quicktest/qt"
)

var update = flag.Bool("update", false, "write the tables into docs/cli.md and README.md")

// TestDocs: the tables of the documents are those of the code, and no document has a list of its
// own for attaching.
func TestDocs(t *testing.T) {
	const begin, end = "<!-- rights -->\n", "<!-- end -->\n"
	for file, table := range map[string]string{"docs/cli.md": rights.Markdown(), "README.md": rights.Short()} {
		file = filepath.Join("../../..", file)
		b, err := os.ReadFile(file)
		qt.Assert(t, qt.IsNil(err))
		head, rest, ok := strings.Cut(string(b), begin)
		qt.Assert(t, qt.IsTrue(ok), qt.Commentf("%s", file))
		_, tail, ok := strings.Cut(rest, end)
		qt.Assert(t, qt.IsTrue(ok), qt.Commentf("%s", file))
		want := head + begin + table + end + tail
		if *update {
			qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(want), 0o644)))
			continue
		}
		qt.Check(t, qt.Equals(string(b), want), qt.Commentf("go test ./internal/hostinfo/rights -run TestDocs -update"))
	}
	docs, err := filepath.Glob("../../../docs/*.md")
	qt.Assert(t, qt.IsNil(err))
	for _, f := range append(docs, "../../../README.md") {
		b, err := os.ReadFile(f)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsFalse(strings.Contains(string(b), "CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN")), qt.Commentf("%s", f))
	}
}
