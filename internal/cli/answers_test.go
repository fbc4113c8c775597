// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/tools/txtar"
)

// fixture is something recorded, and what is asked of it.
type fixture struct {
	name  string // the last two parts of its path, which packages that move leave alone
	args  []string
	stdin string
}

// recordings are all traces and logs, explained.
func recordings(t *testing.T) (list []fixture) {
	var files []string
	for _, pattern := range []string{"../demo/testdata/traces/*/*.trace", "../../verifierlog/testdata/*.log"} {
		files = append(files, glob(t, pattern)...)
	}
	slices.Sort(files)
	for _, f := range files {
		list = append(list, fixture{name: short(f), args: []string{"explain", f}})
	}
	for _, f := range glob(t, "../../verifierlog/testdata/*.txtar") {
		a, err := txtar.ParseFile(f)
		qt.Assert(t, qt.IsNil(err))
		for _, log := range a.Files {
			list = append(list, fixture{short(f) + "/" + log.Name, []string{"explain", "-"}, string(log.Data)})
		}
	}
	return list
}

// objects are all committed objects, checked.
func objects(t *testing.T) (list []fixture) {
	for _, pattern := range []string{"../objects/object/testdata/*.o", "../demo/failing/testdata/*.o", "../../loader/testdata/*.o", "../objects/check/testdata/*.o"} {
		for _, f := range glob(t, pattern) {
			list = append(list, fixture{name: short(f), args: []string{"check", f}})
		}
	}
	return list
}

func glob(t *testing.T, pattern string) []string {
	files, err := filepath.Glob(pattern)
	qt.Assert(t, qt.IsNil(err))
	return files
}

func short(path string) string {
	return filepath.Base(filepath.Dir(path)) + "/" + filepath.Base(path)
}

// answersVar names the file to which TestWriteAnswers writes.
const answersVar = "BPFWHY_ANSWERS"

// TestWriteAnswers writes all that is said of every fixture, as text and as JSON, and each exit
// status. It is for [TestOtherMachine], which runs it on another machine too: one process for all,
// because to start one under emulation takes half a second.
func TestWriteAnswers(t *testing.T) {
	to := os.Getenv(answersVar)
	if to == "" {
		t.Skip("asked for by TestOtherMachine")
	}
	f, err := os.Create(to)
	qt.Assert(t, qt.IsNil(err))
	writeAnswers(t, f)
	qt.Assert(t, qt.IsNil(f.Close()))
}

func writeAnswers(t *testing.T, w io.Writer) {
	asked := 0
	ask := func(x fixture, args ...string) {
		asked++
		args = append(slices.Clone(x.args), args...)
		out, status := inProcess(t, x.stdin, args...)
		fmt.Fprintf(w, "== %s: %s\n%s== status %d\n", x.name, strings.Join(args, " "), out, status)
	}
	for _, x := range recordings(t) {
		ask(x)
		ask(x, "--json")
	}
	for _, x := range objects(t) {
		ask(x)
		ask(x, "--format=json")
		ask(x, "--format=sarif")
		ask(fixture{name: x.name, args: []string{"fix", "--dry-run", x.args[1]}})
	}
	// Of each kernel one trace, beside one of the next kernel.
	var before string
	for _, dir := range glob(t, "../demo/testdata/traces/*") {
		traces := glob(t, dir+"/*.trace")
		if before != "" {
			x := fixture{name: short(dir), args: []string{"node", "diff", before, "--trace", traces[0]}}
			ask(x)
			ask(x, "--json")
		}
		before = traces[0]
	}
	qt.Assert(t, qt.IsTrue(asked > 500), qt.Commentf("%d", asked))
}

// inProcess runs the command line in this process, and returns what it writes to its standard
// output and error.
func inProcess(t *testing.T, stdin string, args ...string) (out string, status int) {
	in, err := os.CreateTemp(t.TempDir(), "")
	qt.Assert(t, qt.IsNil(err))
	defer in.Close()
	_, err = in.WriteString(stdin)
	qt.Assert(t, qt.IsNil(err))
	_, err = in.Seek(0, io.SeekStart)
	qt.Assert(t, qt.IsNil(err))
	said, err := os.CreateTemp(t.TempDir(), "")
	qt.Assert(t, qt.IsNil(err))
	defer said.Close()
	status = Main(context.Background(), append([]string{"bpfwhy"}, args...), in, said, said)
	b, err := os.ReadFile(said.Name())
	qt.Assert(t, qt.IsNil(err))
	return string(b), status
}
