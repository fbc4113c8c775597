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

var update = flag.Bool("update", false, "write the table into docs/cli.md")

// TestDocs: the table of the documents is that of the code, and no document has a list of its own
// for attaching.
func TestDocs(t *testing.T) {
	const file, begin, end = "../../../docs/cli.md", "<!-- rights -->\n", "<!-- end -->\n"
	b, err := os.ReadFile(file)
	qt.Assert(t, qt.IsNil(err))
	head, rest, ok := strings.Cut(string(b), begin)
	qt.Assert(t, qt.IsTrue(ok))
	_, tail, ok := strings.Cut(rest, end)
	qt.Assert(t, qt.IsTrue(ok))
	want := head + begin + rights.Markdown() + end + tail
	if *update {
		qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(want), 0o644)))
		return
	}
	qt.Check(t, qt.Equals(string(b), want), qt.Commentf("go test ./internal/hostinfo/rights -run TestDocs -update"))
	docs, err := filepath.Glob("../../../docs/*.md")
	qt.Assert(t, qt.IsNil(err))
	for _, f := range append(docs, "../../../README.md") {
		b, err := os.ReadFile(f)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsFalse(strings.Contains(string(b), "CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN")), qt.Commentf("%s", f))
	}
}
