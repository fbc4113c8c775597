// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// TestKernelsStorm: fifty threads on two processors, every attempt right.
func TestKernelsStorm(t *testing.T) {
	vmtest.RunIn(t, vmtest.Oldest(), "^TestGuestStorm$", vm.Machine{
		CPUs: 2, Sysctls: map[string]string{"net.core.bpf_jit_harden": "2"}, Timeout: 6 * time.Minute,
	})
}

func TestGuestStorm(t *testing.T) {
	vmtest.Guest(t)
	for _, b := range []string{"fentry", "kprobe"} {
		t.Run(b, func(t *testing.T) { storm(t, b) })
	}
}

func storm(t *testing.T, backend string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := capture.Open(ctx, capture.Options{Backend: backend, OnlyFollowed: true, Node: *node.Host(), Tool: "test"})
	qt.Assert(t, qt.IsNil(err))
	defer c.Close()
	var records []trace.Record
	read := make(chan error, 1)
	go func() {
		for {
			r, err := c.Next()
			if err != nil {
				read <- err
				return
			}
			records = append(records, r)
		}
	}()
	p, err := failing.StartStorm(ctx)
	qt.Assert(t, qt.IsNil(err))
	if err := c.Follow(p.PID()); err != nil {
		p.Kill()
		t.Fatal(err)
	}
	loads, err := p.Go()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(c.Close()))
	qt.Assert(t, qt.ErrorIs(<-read, io.EOF))
	// Where the kernel preempts programs (7.x) ends are missed, those of loads by libraries that
	// look what the kernel can do too. The loads of the storm are all looked for below.
	recursive := func(r trace.Record) bool { return r.Loss != nil && strings.HasPrefix(r.Loss.Mechanism, "recursion") }
	missed := slices.ContainsFunc(records, recursive)
	for _, r := range records {
		if r.Loss != nil && !recursive(r) && !(missed && r.Loss.Mechanism == trace.LostLoads) {
			t.Errorf("lost %d by %s", r.Loss.Count, r.Loss.Mechanism)
		}
	}
	h := c.Header()
	compareStorm(t, loads, conclude(&h, records))
}

// compareStorm holds every attempt against what the kernel told the thread that made it.
func compareStorm(t *testing.T, loads []failing.StormLoad, attempts []*load.Attempt) {
	byTID := map[int]failing.StormLoad{}
	for _, l := range loads {
		byTID[l.TID] = l
	}
	seen := map[int]int{}
	together, holes := 0, 0
	for _, a := range attempts {
		l, ours := byTID[a.Process.TID]
		if a.FeatureProbe != "" || a.Kind == load.MapCreate && a.Outcome == load.Loaded { // cilium/ebpf's, on whichever thread it began
			continue
		}
		if !ours {
			t.Errorf("an attempt of thread %d, which loads nothing: %s", a.Process.TID, describe(a))
			continue
		}
		seen[l.TID]++
		if a.Incomplete {
			holes++
			t.Logf("%s is marked incomplete: %v", l.Load, a.IncompleteWhy)
		}
		if wrong := stormWrong(&l, a); wrong != "" {
			t.Errorf("%s: it was said that it %s: %s; the kernel said %s", l.Load, describe(a), wrong, l.Result)
		}
		for _, call := range a.Evidence.Calls[:max(len(a.Evidence.Calls)-1, 0)] {
			// One of a pair that came after the other had failed is a second try, and right to be
			// folded, but only then.
			other := loads[l.Thread^1]
			last := a.Evidence.Calls[len(a.Evidence.Calls)-1]
			if !l.Pair || call.Time.Add(call.Duration).After(last.Time) {
				t.Errorf("%s: folded with a call that it is not a retry of", l.Load)
			}
			seen[other.TID]++
		}
	}
	for _, l := range loads {
		if seen[l.TID] != 1 {
			t.Errorf("%s, thread %d: seen %d times", l.Load, l.TID, seen[l.TID])
		}
		if l.Pair && l.Thread%2 == 0 {
			if o := loads[l.Thread^1]; l.Start < o.End && o.Start < l.End {
				together++
			}
		}
	}
	// Where the kernel preempts programs (7.x) one may miss a run. That is said, of every attempt
	// that it may have belonged to, and it must not become the rule.
	qt.Check(t, qt.IsTrue(holes <= len(loads)/2), qt.Commentf("%d attempts are incomplete", holes))
	// Otherwise nothing was proven about two threads with one program.
	qt.Check(t, qt.IsTrue(together >= 2), qt.Commentf("%d pairs ran together", together))
	t.Logf("%d attempts; %d pairs ran together", len(attempts), together)
}

// stormWrong says what is wrong with an attempt, "" if nothing.
func stormWrong(l *failing.StormLoad, a *load.Attempt) string {
	want := Expect{Outcome: load.Loaded, Errno: l.Errno, Rule: l.Rule}
	switch {
	case l.Errno != 0:
		want.Outcome = load.Failed
	case l.JITed != nil && !*l.JITed:
		want.Outcome = load.LoadedNotJITed
	}
	if l.Rule == "BLIND" {
		want.Rule, want.Stage = "BLIND001", load.Blinding
		if want.Outcome == load.LoadedNotJITed {
			want.Rule = "BLIND003"
		}
		if a.Jump == nil || a.Jump.From != failing.FarFrom {
			return "the jump is not named"
		}
	} else {
		want.Stage = stormStages[l.Rule]
	}
	if l.Errno == eagain {
		want.Rule, want.Stage = "VER201", load.Verifier
	}
	rule := ""
	if a.Diagnosis != nil {
		rule = a.Diagnosis.Rule
	}
	got := Expect{Outcome: a.Outcome, Errno: a.Errno, Stage: a.FailedStage, Rule: rule}
	if got != want {
		return fmt.Sprintf("expected that it %s", want)
	}
	// A policy stops the call before anybody reads which program it is about.
	if l.Rule != "PERM006" && (a.Program == nil || a.Program.Name != l.Load) {
		return "that is another program"
	}
	return ""
}

const eagain = 11

// stormStages is where each failure of a storm belongs: docs/stages.md.
var stormStages = map[string]load.Stage{
	"VER001": load.Verifier, "VER002": load.Verifier, "VER003": load.Verifier, "VER011": load.Verifier, "REQ002": load.Verifier,
	"FEAT002": load.Verifier, "FEAT006": load.Verifier, "REQ004": load.Verifier, "PERM001": load.Permission, "PERM006": load.Request,
}

// The test itself notices what it is there for.
func TestStormNotices(t *testing.T) {
	l := failing.StormLoad{Rule: "VER001", Result: failing.Result{Load: "t17_13_VER001", Errno: 13}}
	right := load.Attempt{Kind: load.ProgLoad, Outcome: load.Failed, Errno: 13, FailedStage: load.Verifier,
		Program: &load.Program{Name: l.Load}, Diagnosis: &load.Diagnosis{Rule: "VER001"}}
	qt.Assert(t, qt.Equals(stormWrong(&l, &right), ""))
	wrong := []func(a *load.Attempt){
		func(a *load.Attempt) { a.Errno = 22 },
		func(a *load.Attempt) { a.Program = &load.Program{Name: "t33_13_VER001"} },
		func(a *load.Attempt) { a.Diagnosis = &load.Diagnosis{Rule: "VER002"} },
		func(a *load.Attempt) { a.Diagnosis = nil },
		func(a *load.Attempt) { a.Outcome = load.LoadedNotJITed },
	}
	qt.Check(t, qt.IsFalse(slices.ContainsFunc(wrong, func(spoil func(*load.Attempt)) bool {
		a := right
		spoil(&a)
		return stormWrong(&l, &a) == ""
	})))
}
