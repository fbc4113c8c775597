// SPDX-License-Identifier: Apache-2.0

// Package repeat tells failures that are alike once and counts them from then on, within a bound of
// memory. It is pure.
package repeat

import (
	"container/list"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/load"
)

// Bounds of the table. When it is full, the group that was seen the longest time ago is told and
// forgotten: should it come back, it is new once more.
const (
	maxGroups = 1024
	maxBytes  = 2 << 20
	// Memory bounds the heap that a table takes: strings, and the structs around them.
	Memory = maxBytes + maxGroups*entryBytes
)

// entryBytes are those of one group without its strings, with its places in the map and the list.
const entryBytes = 1024

// How long the repeats of a group are counted before a summary tells of them: at first soon, then
// twice as long each time.
const (
	firstWait = time.Second
	maxWait   = time.Minute
)

// Table holds the groups of failures that were told. It is not safe for concurrent use.
type Table struct {
	groups map[string]*list.Element // of *group, by id
	recent *list.List               // the last seen first
	bytes  int
	ready  []load.Summary // of groups that made room
}

type group struct {
	load.Summary
	wait time.Duration
	size int
}

// New returns an empty table.
func New() *Table { return &Table{groups: make(map[string]*list.Element), recent: list.New()} }

// Add takes a finding, names its group, and reports whether it is a repeat: one like it was told
// already, and it is counted.
func (t *Table) Add(a *load.Attempt) bool {
	a.Group = groupOf(a)
	if e := t.groups[a.Group]; e != nil {
		t.recent.MoveToFront(e)
		t.count(e.Value.(*group), a)
		return true
	}
	g := &group{Summary: load.Summary{
		Schema: load.Schema, Kind: load.KindSummary, Of: a.Kind, Group: a.Group, Process: a.Process, Program: a.Program, Map: a.Map,
		Outcome: a.Outcome, Errno: a.Errno, ErrnoName: a.ErrnoName, FailedStage: a.FailedStage,
	}, wait: firstWait}
	if a.Diagnosis != nil {
		g.Rule = a.Diagnosis.Rule
	}
	g.size = g.bytes()
	t.groups[a.Group] = t.recent.PushFront(g)
	t.bytes += g.size
	for len(t.groups) > maxGroups || t.bytes > maxBytes && len(t.groups) > 1 {
		t.forgetOldest()
	}
	return false
}

func (t *Table) count(g *group, a *load.Attempt) {
	if g.Repeats == 0 || a.Time.Before(g.First) {
		g.First = a.Time
	}
	if g.Repeats == 0 || a.Time.After(g.Last) {
		g.Last = a.Time
	}
	g.Repeats++
	g.Retries += uint64(max(a.Retries, 0))
	if a.Incomplete {
		g.Incomplete++
	}
	g.Process, g.Program, g.Map = a.Process, a.Program, a.Map
	size := g.bytes()
	t.bytes += size - g.size
	g.size = size
}

func (t *Table) forgetOldest() {
	e := t.recent.Back()
	g := t.recent.Remove(e).(*group)
	delete(t.groups, g.Group)
	t.bytes -= g.size
	if g.Repeats > 0 {
		t.ready = append(t.ready, g.Summary)
	}
}

// Due returns a summary of each group whose repeats have waited long enough, and of those that had
// to make room.
func (t *Table) Due(now time.Time) []load.Summary {
	return t.take(now, func(g *group) bool { return now.Sub(g.First) >= g.wait })
}

// Flush returns a summary of every group that has repeats.
func (t *Table) Flush(now time.Time) []load.Summary {
	return t.take(now, func(*group) bool { return true })
}

func (t *Table) take(now time.Time, due func(*group) bool) []load.Summary {
	out := t.ready
	t.ready = nil
	for e := t.recent.Back(); e != nil; e = e.Prev() {
		g := e.Value.(*group)
		if g.Repeats == 0 || !due(g) {
			continue
		}
		out = append(out, g.Summary)
		g.Repeats, g.Retries, g.Incomplete, g.First, g.Last = 0, 0, 0, time.Time{}, time.Time{}
		g.wait = min(2*g.wait, maxWait)
	}
	for i := range out {
		out[i].Time = now
	}
	return out
}

// bytes are those of a group's strings.
func (g *group) bytes() int {
	p := &g.Process
	n := len(g.Group) + len(p.Comm) + len(p.Exe) + len(p.Container) + len(g.ErrnoName) + len(g.Rule)
	for _, c := range p.Cgroups {
		n += len(c.Name)
	}
	if g.Program != nil {
		n += len(g.Program.Name) + len(g.Program.Type) + len(g.Program.AttachType) + len(g.Program.License) + len(g.Program.Tag)
	}
	if g.Map != nil {
		n += len(g.Map.Name) + len(g.Map.Type)
	}
	return n
}

// groupOf is the same for attempts that are alike: cause, program, target, process group. Of a
// program the tag is taken, in which descriptors do not count, as every process has its own.
func groupOf(a *load.Attempt) string {
	h := sha256.New()
	put(h, a.Kind, a.Outcome, a.Errno, a.FailedStage)
	if a.Diagnosis != nil {
		put(h, a.Diagnosis.Rule)
	}
	if p := a.Program; p != nil {
		put(h, p.Name, p.Type, p.AttachType, p.Insns, insn.TagSHA1(a.Evidence.Insns), a.Evidence.Filter)
	}
	if m := a.Map; m != nil {
		put(h, *m)
	}
	if at := a.Attach; at != nil {
		put(h, at.Type, at.Flags, at.Message)
		if at.Program != nil {
			put(h, at.Program.Name, at.Program.Type, at.Program.AttachType, at.Program.Tag)
		}
		if on := at.Target; on != nil { // without its id: that of a map is another in each process
			put(h, on.Kind, on.Name, on.Path, on.Offset)
		}
	}
	p := &a.Process
	put(h, p.Comm, p.Exe, p.UID, p.GID, p.Container)
	for _, c := range p.Cgroups {
		put(h, c)
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}

// put writes values so that where one ends and the next begins cannot be mistaken.
func put(h hash.Hash, values ...any) {
	for _, v := range values {
		s := fmt.Sprintf("%v", v)
		fmt.Fprintf(h, "%d:", len(s))
		io.WriteString(h, s)
	}
}
