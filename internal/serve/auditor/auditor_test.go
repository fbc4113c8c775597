// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package auditor

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/audit"
)

func program(name string, fate audit.Outcome, margin int) audit.Program {
	return audit.Program{Name: name, Tag: "t", Owners: []audit.Owner{{Comm: "agent"}}, At2: audit.Fate{Outcome: fate, Margin: &margin}}
}

// What breaks comes first, and what cannot break is counted alone.
func TestCondense(t *testing.T) {
	r := &audit.Report{Programs: []audit.Program{
		program("near", audit.JITed, 3), program("breaks", audit.Fails, -2), program("free", audit.JITed, 32767),
		{Name: "unread", At2: audit.Fate{Outcome: audit.Unknown}},
	}}
	r.Summary.At1 = map[audit.Outcome]int{audit.JITed: 4}
	r.Summary.At2 = map[audit.Outcome]int{audit.JITed: 2, audit.Fails: 1, audit.Unknown: 1}
	a := condense(r)
	qt.Check(t, qt.DeepEquals(a.Worst, []fleet.Worst{
		{Program: "breaks", Tag: "t", Owner: "agent", Margin: -2}, {Program: "near", Tag: "t", Owner: "agent", Margin: 3},
	}))
	qt.Check(t, qt.DeepEquals(a.Harden1, map[string]int{"jited": 4}))
	qt.Check(t, qt.DeepEquals(a.Harden2, map[string]int{"jited": 2, "fails": 1, "unknown": 1}))
}

// However many programs with whatever names there are, what is said is small.
func TestCondenseHostile(t *testing.T) {
	r := &audit.Report{}
	for i := range 10_000 {
		p := program(fmt.Sprint(i, strings.Repeat("\xff", 1000)), audit.JITed, i)
		p.Owners[0].Comm = p.Name
		r.Programs = append(r.Programs, p)
	}
	a := condense(r)
	qt.Check(t, qt.HasLen(a.Worst, maxWorst))
	b, err := json.Marshal(a)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(len(b) < maxSaid/8), qt.Commentf("%d", len(b)))
	var l limited
	_, err = l.Write(make([]byte, maxSaid))
	qt.Check(t, qt.IsNil(err))
	_, err = l.Write([]byte{0})
	qt.Check(t, qt.IsNotNil(err))
}
