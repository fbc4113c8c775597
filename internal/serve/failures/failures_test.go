// SPDX-License-Identifier: Apache-2.0

package failures

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/load"
)

var start = time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)

func attempt(name string, at time.Duration) *load.Attempt {
	return &load.Attempt{
		Kind: load.ProgLoad, Time: start.Add(at), Outcome: load.Failed, Errno: 22, FailedStage: load.Verifier,
		Process: load.Process{PID: 7, Comm: "agent"}, Program: &load.Program{Name: name, Type: "kprobe", Insns: 5}, Group: "g" + name,
		Diagnosis: &load.Diagnosis{Rule: "VER001", Cause: "a cause"}, Evidence: load.Evidence{Harden: -1},
	}
}

func status(t *Table) (s nodereport.Status) {
	t.Put(&s, nil)
	return s
}

func TestCounts(t *testing.T) {
	table := New()
	pod := nodereport.Workload{PodUID: "a"}
	f, first := table.Add(attempt("p", 0), pod)
	qt.Check(t, qt.IsTrue(first))
	qt.Check(t, qt.Equals(f.Count, 1))
	f, first = table.Add(attempt("p", time.Second), pod)
	qt.Check(t, qt.IsFalse(first))
	qt.Check(t, qt.Equals(f.Count, 2))
	_, first = table.Add(attempt("p", time.Second), nodereport.Workload{PodUID: "b"})
	qt.Check(t, qt.IsTrue(first), qt.Commentf("another pod"))
	other := attempt("p", 2*time.Second)
	other.Program.Insns++
	_, first = table.Add(other, pod)
	qt.Check(t, qt.IsTrue(first), qt.Commentf("another program"))
	s := status(table)
	qt.Assert(t, qt.HasLen(s.Failures, 3))
	qt.Check(t, qt.Equals(s.Failing, 3))
	qt.Check(t, qt.Equals(s.Failures[0].Program.Insns, 6)) // the last seen
	got, ok := table.Of("gp")
	qt.Check(t, qt.IsTrue(ok))
	qt.Check(t, qt.Equals(got.ID, s.Failures[0].ID))
}

// A failure is over when its process is gone and nothing of it was seen for a while, and not
// before. One that comes back is new.
func TestOver(t *testing.T) {
	table := New()
	table.Add(attempt("p", 0), nodereport.Workload{})
	gone := func(int, string) bool { return true }
	lives := func(pid int, comm string) bool { return pid != 7 || comm != "agent" }
	qt.Check(t, qt.HasLen(table.Over(start.Add(quiet-1), gone), 0))
	qt.Check(t, qt.HasLen(table.Over(start.Add(quiet), lives), 0))
	qt.Check(t, qt.HasLen(table.Over(start.Add(quiet), gone), 1))
	qt.Check(t, qt.HasLen(table.Over(start.Add(quiet), gone), 0))
	s := status(table)
	qt.Check(t, qt.Equals(s.Failing, 0))
	qt.Check(t, qt.IsTrue(s.Failures[0].Over))
	f, first := table.Add(attempt("p", time.Hour), nodereport.Workload{})
	qt.Check(t, qt.IsTrue(first))
	qt.Check(t, qt.IsFalse(f.Over))
	qt.Check(t, qt.Equals(f.Count, 2))
}

// What a report says is where the next table begins, and no count is lost on the way.
func TestResume(t *testing.T) {
	table := New()
	for i := range 3 {
		table.Add(attempt(fmt.Sprint(i), time.Duration(i)), nodereport.Workload{Owner: "x.service"})
	}
	was := status(table)
	again := New()
	again.Resume(&was)
	qt.Check(t, qt.DeepEquals(status(again).Failures[0].ID, was.Failures[0].ID))
	f, first := again.Add(attempt("1", time.Minute), nodereport.Workload{Owner: "x.service"})
	qt.Check(t, qt.IsFalse(first))
	qt.Check(t, qt.Equals(f.Count, 2))
}

// Settings that were changed since a failure are told with it.
func TestSettings(t *testing.T) {
	table := New()
	a := attempt("p", 0)
	a.Evidence.Harden = 2
	table.Add(a, nodereport.Workload{})
	var s nodereport.Status
	table.Put(&s, map[string]string{"net.core.bpf_jit_harden": "2"})
	qt.Check(t, qt.HasLen(s.Failures[0].Settings, 0))
	table.Put(&s, map[string]string{"net.core.bpf_jit_harden": "0"})
	qt.Check(t, qt.DeepEquals(s.Failures[0].Settings, map[string]string{"net.core.bpf_jit_harden": "2"}))
}

// Pods get their names late.
func TestName(t *testing.T) {
	table := New()
	table.Add(attempt("p", 0), nodereport.Workload{PodUID: "u"})
	name := func(w nodereport.Workload) nodereport.Workload { w.Pod = "pod-" + w.PodUID; return w }
	qt.Check(t, qt.IsTrue(table.Name(name)))
	qt.Check(t, qt.IsFalse(table.Name(name)))
	qt.Check(t, qt.Equals(status(table).Failures[0].Pod, "pod-u"))
}

// Hostile loaders: every name another one, and as long as it gets. What is held is bounded, and the
// counts add up.
func TestHostile(t *testing.T) {
	table := New()
	const attempts = 3000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	long := strings.Repeat("\xffé", 4096)
	for i := range attempts {
		a := attempt(fmt.Sprint(i, long), time.Duration(i))
		a.Process.Comm, a.Diagnosis.Cause, a.Group = long+"c", long+"d", fmt.Sprint(i)
		table.Add(a, nodereport.Workload{PodUID: fmt.Sprint(i) + long, Container: long + "e"})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	held := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	s := status(table)
	qt.Check(t, qt.HasLen(s.Failures, maxKinds))
	qt.Check(t, qt.Equals(s.Dropped, attempts-maxKinds))
	qt.Check(t, qt.IsTrue(held < 2<<20), qt.Commentf("%d bytes", held))
	runtime.KeepAlive(table)
}

// 100,000 identical failures take no more memory than one.
func TestIdentical(t *testing.T) {
	table := New()
	a := attempt("p", 0)
	table.Add(a, nodereport.Workload{})
	allocated := testing.AllocsPerRun(1000, func() { table.Add(a, nodereport.Workload{}) })
	for range 100_000 {
		table.Add(a, nodereport.Workload{})
	}
	s := status(table)
	qt.Assert(t, qt.HasLen(s.Failures, 1))
	qt.Check(t, qt.Equals(s.Failures[0].Count, 100_000+1001+1))
	qt.Check(t, qt.IsTrue(allocated < 60), qt.Commentf("%v", allocated))
	qt.Check(t, qt.HasLen(table.groups, 1))
}
