// SPDX-License-Identifier: Apache-2.0

package repeat

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/go-quicktest/qt"
)

var start = time.Date(2026, 11, 29, 1, 0, 0, 0, time.UTC)

func failure(at time.Duration) *load.Attempt {
	return &load.Attempt{
		Kind: load.ProgLoad, Time: start.Add(at), Outcome: load.Failed, Errno: 13, ErrnoName: "EACCES", FailedStage: load.Verifier, Retries: 1,
		Process:   load.Process{PID: int(at), TID: int(at), Comm: "agent", Exe: "/agent", Cgroups: []load.Cgroup{{Version: 2, ID: 7, Name: "pod1"}}},
		Program:   &load.Program{Name: "p", Type: "xdp", Insns: 3},
		Diagnosis: &load.Diagnosis{Rule: "VER001"},
		Evidence: load.Evidence{Insns: []insn.Instruction{
			{Code: insn.OpcodeLoadImm64, Src: insn.PseudoMapFD, Imm: int32(at)}, {}, {Code: insn.OpcodeExit}}},
	}
}

func TestCounts(t *testing.T) {
	table := New()
	first := failure(0)
	qt.Assert(t, qt.IsFalse(table.Add(first)))
	qt.Check(t, qt.Matches(first.Group, `[0-9a-f]{12}`))
	qt.Check(t, qt.HasLen(table.Due(start.Add(time.Hour)), 0)) // it was told, and came once
	for i := range 3 {
		again := failure(time.Duration(i+1) * time.Second) // another process, and another descriptor of its map
		again.Incomplete = i == 1
		qt.Check(t, qt.IsTrue(table.Add(again)))
		qt.Check(t, qt.Equals(again.Group, first.Group))
	}
	qt.Check(t, qt.HasLen(table.Due(start.Add(time.Second+firstWait-1)), 0))
	now := start.Add(time.Second + firstWait)
	due := table.Due(now)
	qt.Assert(t, qt.HasLen(due, 1))
	s := due[0]
	qt.Check(t, qt.Equals(s.Repeats, 3))
	qt.Check(t, qt.Equals(s.Retries, 3))
	qt.Check(t, qt.Equals(s.Incomplete, 1))
	qt.Check(t, qt.Equals(s.First, start.Add(time.Second)))
	qt.Check(t, qt.Equals(s.Last, start.Add(3*time.Second)))
	qt.Check(t, qt.Equals(s.Time, now))
	qt.Check(t, qt.Equals(s.Process.PID, int(3*time.Second)))
	qt.Check(t, qt.Equals(s.Rule, "VER001"))
	qt.Check(t, qt.HasLen(table.Flush(now), 0)) // each is counted once
	qt.Check(t, qt.IsTrue(table.Add(failure(time.Minute))))
	qt.Check(t, qt.HasLen(table.Due(start.Add(time.Minute+firstWait)), 0)) // it comes again and again: less often told
	rest := table.Flush(now)
	qt.Assert(t, qt.HasLen(rest, 1))
	qt.Check(t, qt.Equals(rest[0].Repeats, 1))
	qt.Check(t, qt.Equals(rest[0].First, start.Add(time.Minute)))
}

// What differs in cause, program or process group is told again.
func TestApart(t *testing.T) {
	table := New()
	table.Add(failure(0))
	for name, change := range map[string]func(a *load.Attempt){
		"errno":         func(a *load.Attempt) { a.Errno = 22 },
		"rule":          func(a *load.Attempt) { a.Diagnosis.Rule = "VER002" },
		"no rule":       func(a *load.Attempt) { a.Diagnosis = nil },
		"stage":         func(a *load.Attempt) { a.FailedStage = load.JIT },
		"outcome":       func(a *load.Attempt) { a.Outcome = load.LoadedNotJITed },
		"kind":          func(a *load.Attempt) { a.Kind = load.MapCreate },
		"name":          func(a *load.Attempt) { a.Program.Name = "q" },
		"name and type": func(a *load.Attempt) { a.Program.Name, a.Program.Type = "px", "dp" },
		"code":          func(a *load.Attempt) { a.Evidence.Insns[2].Off = 1 },
		"map":           func(a *load.Attempt) { a.Map = &load.Map{Name: "m"} },
		"comm":          func(a *load.Attempt) { a.Process.Comm = "other" },
		"exe":           func(a *load.Attempt) { a.Process.Exe = "/other" },
		"user":          func(a *load.Attempt) { a.Process.UID = 1 },
		"control group": func(a *load.Attempt) { a.Process.Cgroups[0].ID = 8 },
	} {
		a := failure(0)
		change(a)
		qt.Check(t, qt.IsFalse(table.Add(a)), qt.Commentf("%s", name))
	}
	qt.Check(t, qt.IsTrue(table.Add(failure(9))))
}

// TestBound: whatever comes, the table stays within its bound, and nothing that it counted is
// forgotten.
// Attachments are alike when program and target are.
func TestAttachments(t *testing.T) {
	attach := func(program, device string, id uint64) *load.Attempt {
		a := failure(0)
		a.Kind, a.Program, a.Evidence.Insns = load.LinkCreate, nil, nil
		a.Attach = &load.Attach{Program: &load.AttachProgram{ID: int(id), Name: program}, Target: &load.AttachTarget{Kind: "netdev", Name: device, ID: id}}
		return a
	}
	table := New()
	qt.Check(t, qt.IsFalse(table.Add(attach("p", "eth0", 2))))
	qt.Check(t, qt.IsTrue(table.Add(attach("p", "eth0", 3)))) // the same in another namespace
	qt.Check(t, qt.IsFalse(table.Add(attach("p", "eth1", 2))))
	qt.Check(t, qt.IsFalse(table.Add(attach("q", "eth0", 2))))
}

func TestBound(t *testing.T) {
	var before, after runtime.MemStats
	table := New()
	runtime.GC()
	runtime.ReadMemStats(&before)
	fed, told, counted := 0, 0, uint64(0)
	for i := range 2 * maxGroups {
		for range 3 {
			a := failure(time.Duration(i))
			a.Process.Comm = fmt.Sprintf("agent%d", i)
			a.Process.Exe = strings.Repeat("x", 4000) + fmt.Sprint(i)
			a.Process.Cgroups = []load.Cgroup{{Version: 2, ID: uint64(i), Name: strings.Repeat("y", 1000)}, {Version: 1, Name: strings.Repeat("z", 1000)}}
			fed++
			if !table.Add(a) {
				told++
			}
		}
		for _, s := range table.Due(start) {
			counted += s.Repeats
		}
		if table.bytes > maxBytes || len(table.groups) > maxGroups || table.recent.Len() != len(table.groups) {
			t.Fatalf("%d groups, %d bytes", len(table.groups), table.bytes)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	held := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	qt.Check(t, qt.IsTrue(held < Memory), qt.Commentf("%d bytes", held))
	for _, s := range table.Flush(start) {
		counted += s.Repeats
	}
	qt.Check(t, qt.Equals(told+int(counted), fed))
	t.Logf("%d told, %d counted, of %d; %d KiB of %d held", told, counted, fed, held>>10, Memory>>10)
	runtime.KeepAlive(table)
}
