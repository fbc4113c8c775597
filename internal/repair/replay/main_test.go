// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/watch/diagnose"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

func TestMain(m *testing.M) {
	guardian.Main()
	Main()
	os.Exit(m.Run())
}

// recorded reads a trace: its attempts, explained, and its node.
func recorded(t testing.TB, name string) ([]*load.Attempt, *node.Profile) {
	t.Helper()
	f, err := os.Open(name)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	r, err := trace.NewReader(f)
	qt.Assert(t, qt.IsNil(err))
	n := r.Header().Node
	var all []*load.Attempt
	for a, err := range diagnose.Attempts(r.Header(), diagnose.File(r)) {
		qt.Assert(t, qt.IsNil(err))
		all = append(all, a)
	}
	return all, &n
}

// finding is the program load that a trace of a case is about.
func finding(t testing.TB, name string) (*load.Attempt, *node.Profile) {
	t.Helper()
	all, n := recorded(t, name)
	for _, a := range all {
		if a.Finding() && a.Kind == load.ProgLoad {
			return a, n
		}
	}
	t.Fatalf("%s: nothing failed", name)
	return nil, nil
}

// replayed proves the finding of a trace on this machine and draws the conclusions.
func replayed(t testing.TB, name string) *load.Attempt {
	t.Helper()
	a, n := finding(t, name)
	descriptors := open(t)
	_, err := Prove(t.Context(), a, Options{Recorded: n, Here: node.Host()})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(open(t), descriptors))
	conclude(a, n)
	t.Logf("%s: %s %s", name, a.Replay.Verdict, a.Replay.Why)
	return a
}

// open is how many descriptors this process has.
func open(t testing.TB) int {
	list, err := os.ReadDir("/proc/self/fd")
	qt.Assert(t, qt.IsNil(err))
	return len(list)
}

func traceOf(kernel, name string) string {
	return filepath.Join("..", "..", "demo", "testdata", "traces", kernel, name+".trace")
}

func conclude(a *load.Attempt, n *node.Profile) { explain.Conclude(a, n) }
