// SPDX-License-Identifier: Apache-2.0

package story

import (
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/load"
)

var start = time.Unix(1000, 0)

func at(pid int, after time.Duration, kind load.Kind, errno int) *load.Attempt {
	a := &load.Attempt{Kind: kind, Time: start.Add(after), Process: load.Process{PID: pid, Comm: "agent"}, Outcome: load.Loaded, Errno: errno}
	if errno != 0 {
		a.Outcome, a.ErrnoName = load.Failed, "E"
		a.Diagnosis = &load.Diagnosis{Rule: "ATT001"}
	}
	return a
}

// TestStart: an agent that loads three programs and attaches two of them, beside another process.
func TestStart(t *testing.T) {
	table := New(everything)
	table.Add(at(1, 0, load.MapCreate, 0))
	for range 3 {
		table.Add(at(1, time.Second, load.ProgLoad, 0))
	}
	probe := at(1, time.Second, load.ProgLoad, 22)
	probe.FeatureProbe = "have_name"
	table.Add(probe)
	table.Add(at(2, time.Second, load.ProgLoad, 13)) // alone: its own line says it all
	table.Add(at(1, 2*time.Second, load.LinkCreate, 0))
	table.Add(at(1, 2*time.Second, load.RawTPOpen, 0))
	failed := at(1, 2*time.Second, load.PerfEventSetBPF, 13)
	failed.Attach = &load.Attach{Program: &load.AttachProgram{Name: "on_exec"}, Target: &load.AttachTarget{Kind: "tracepoint", Name: "sched/sched_process_exec"}}
	table.Add(failed)

	qt.Check(t, qt.HasLen(table.Due(start.Add(2*time.Second+Quiet-1)), 0))
	now := start.Add(2*time.Second + Quiet)
	told := table.Due(now)
	qt.Assert(t, qt.HasLen(told, 1))
	s := told[0]
	qt.Check(t, qt.Equals(s.Process.PID, 1))
	qt.Check(t, qt.Equals(s.Time, now))
	qt.Check(t, qt.Equals(s.Last.Sub(s.First), 2*time.Second))
	qt.Check(t, qt.Equals(s.Maps, load.Tally{OK: 1, Of: 1}))
	qt.Check(t, qt.Equals(s.Programs, load.Tally{OK: 3, Of: 3}))
	qt.Check(t, qt.Equals(s.Attached, load.Tally{OK: 2, Of: 3}))
	qt.Check(t, qt.DeepEquals(s.Failures, []load.StoryFailure{{Of: load.PerfEventSetBPF, Name: "on_exec", Target: "sched/sched_process_exec",
		Errno: 13, ErrnoName: "E", Rule: "ATT001"}}))
	qt.Check(t, qt.HasLen(table.Flush(now), 0))
}

// TestBounds: neither many processes nor many failures nor long names grow the table, and each
// process is told of.
func TestBounds(t *testing.T) {
	table := New(everything)
	told := 0
	for pid := range 3 * maxStories {
		for range 2 * maxFailures {
			a := at(pid, time.Duration(pid)*time.Millisecond, load.ProgLoad, 22)
			a.Program = &load.Program{Name: strings.Repeat("x", 10*maxText)}
			table.Add(a)
		}
		qt.Assert(t, qt.IsTrue(len(table.stories) <= maxStories && table.recent.Len() <= maxStories))
		for _, s := range table.Due(start) {
			told++
			qt.Check(t, qt.HasLen(s.Failures, maxFailures))
			qt.Check(t, qt.Equals(s.MoreFailures, maxFailures))
			qt.Check(t, qt.HasLen(s.Failures[0].Name, maxText))
		}
	}
	qt.Check(t, qt.Equals(told+len(table.Flush(start)), 3*maxStories))
}

// everything is a node on which each function is watched.
func everything(load.Function) bool { return true }

func loaded(id int, name, typ string, insns int) *load.Attempt {
	a := at(1, 0, load.ProgLoad, 0)
	a.Program = &load.Program{ID: id, Name: name, Type: typ, Insns: insns}
	return a
}

func attached(kind load.Kind, id int) *load.Attempt {
	a := at(1, 0, kind, 0)
	a.Attach = &load.Attach{Program: &load.AttachProgram{ID: id}}
	return a
}

func told(t *testing.T, watched func(load.Function) bool, attempts ...*load.Attempt) load.Story {
	t.Helper()
	table := New(watched)
	for _, a := range attempts {
		table.Add(a)
	}
	list := table.Flush(start)
	qt.Assert(t, qt.HasLen(list, 1))
	return list[0]
}

// TestUnattached: what was loaded and then neither attached nor pinned is named, with the ways to
// attach it that nothing shows.
func TestUnattached(t *testing.T) {
	start := []*load.Attempt{loaded(1, "enter", "kprobe", 9), loaded(2, "exit", "kprobe", 9), loaded(3, "count", "xdp", 9), loaded(4, "kept", "lsm", 9),
		attached(load.PerfEventSetBPF, 1), attached(load.ObjPin, 4)}
	s := told(t, everything, start...)
	qt.Check(t, qt.DeepEquals(s.Unattached, []string{"exit", "count"}))
	qt.Check(t, qt.HasLen(s.Unseen, 0))
	s = told(t, func(f load.Function) bool { return f != load.FnPerfEvent }, start...)
	qt.Check(t, qt.DeepEquals(s.Unseen, []load.Kind{load.PerfEventSetBPF}))
	s = told(t, func(f load.Function) bool { return f != load.FnTCFilter }, append(start, loaded(5, "shape", "sched_cls", 9))...)
	qt.Check(t, qt.DeepEquals(s.Unseen, []load.Kind{load.TCAttach}))
	// Which one was attached last is not known: it may have been any of them.
	s = told(t, everything, append(start, attached(load.LinkCreate, 0))...)
	qt.Check(t, qt.HasLen(s.Unattached, 0))
	var many []*load.Attempt
	for id := range 2 * maxPrograms {
		many = append(many, loaded(id+1, "p", "xdp", 9))
	}
	s = told(t, everything, many...)
	qt.Check(t, qt.HasLen(s.Unattached, maxUnattached))
	qt.Check(t, qt.Equals(s.MoreUnattached, maxPrograms-maxUnattached))
}

// TestTrivial: programs with which a loader tries the kernel are counted apart, with what they are
// attached to. A program as short that decides something is somebody's.
func TestTrivial(t *testing.T) {
	s := told(t, everything, loaded(1, "", "socket_filter", 2), loaded(2, "ksys_read", "kprobe", 2), attached(load.LinkCreate, 2),
		loaded(3, "drop_all", "socket_filter", 2), loaded(4, "", "xdp", 2), attached(load.LinkCreate, 4), attached(load.LinkCreate, 4), loaded(5, "real", "kprobe", 3))
	qt.Check(t, qt.Equals(s.Trivial, 2))
	qt.Check(t, qt.Equals(s.Programs, load.Tally{OK: 3, Of: 3}))
	qt.Check(t, qt.Equals(s.Attached, load.Tally{OK: 2, Of: 2}))
	qt.Check(t, qt.DeepEquals(s.Unattached, []string{"drop_all", "real"}))
}

// TestTargets: an event or a probe that could not be made is a program that is not attached; one
// that was made counts when the program is attached to it.
func TestTargets(t *testing.T) {
	s := told(t, everything, loaded(1, "a", "kprobe", 9), loaded(2, "b", "kprobe", 9), at(1, 0, load.PerfEventOpen, 0), attached(load.PerfEventSetBPF, 1),
		at(1, 0, load.PerfEventOpen, 2), at(1, 0, load.ProbeDefine, 17))
	qt.Check(t, qt.Equals(s.Attached, load.Tally{OK: 1, Of: 3}))
	qt.Check(t, qt.HasLen(s.Failures, 2))
}
