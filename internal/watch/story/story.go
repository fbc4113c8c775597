// SPDX-License-Identifier: Apache-2.0

// Package story sums up what each loader did: how many of its maps, programs and attachments
// worked, and which calls failed. It is pure.
package story

import (
	"cmp"
	"container/list"
	"slices"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/load"
)

// Bounds. When the table is full, the story of the process that was quiet for the longest ends.
const (
	maxStories  = 32
	maxFailures = 8
	// maxText is how much of a name is kept, in bytes.
	maxText = 128
	// Memory bounds the heap that a table takes.
	Memory = maxStories * (2<<10 + maxFailures*(2*maxText+256) + maxPrograms*programSize)
)

// Quiet is how long a process makes no call before its story is told.
const Quiet = 3 * time.Second

// Table holds the stories under way. It is not safe for concurrent use.
type Table struct {
	watched func(load.Function) bool
	stories map[int]*list.Element // of *account, by process
	recent  *list.List            // the last active first
	ready   []load.Story          // of processes that made room
}

// account is a story under way.
type account struct {
	load.Story
	programs programs
}

// New returns an empty table. watched says which functions are watched on the node.
func New(watched func(load.Function) bool) *Table {
	return &Table{watched: watched, stories: make(map[int]*list.Element), recent: list.New()}
}

// Add takes an attempt with its diagnosis, be it healthy or not.
func (t *Table) Add(a *load.Attempt) {
	if a.FeatureProbe != "" {
		return
	}
	s := t.of(a)
	if end := a.Time.Add(a.DurationNS); end.After(s.Last) {
		s.Last = end
	}
	if a.Time.Before(s.First) {
		s.First = a.Time
	}
	if a.Outcome == load.Failed {
		if n := tally(s, a.Kind); n != nil {
			n.Of++
		}
		fail(s, a)
		return
	}
	if tries(a) {
		s.Trivial++
		s.programs.remember(a.Program, true)
		return
	}
	trivial, decides := s.programs.tried(a)
	if trivial {
		return
	}
	if decides {
		s.Trivial--
		s.Programs.Of++
		s.Programs.OK++
	}
	s.programs.add(a)
	if n := tally(s, a.Kind); n != nil && !makesTarget(a.Kind) {
		n.Of++
		n.OK++
	}
	if a.Outcome == load.LoadedNotJITed {
		s.NotJITed++
	}
}

// of returns the story of the attempt's process, a new one if there is none.
func (t *Table) of(a *load.Attempt) *account {
	if e := t.stories[a.Process.PID]; e != nil {
		t.recent.MoveToFront(e)
		return e.Value.(*account)
	}
	if len(t.stories) >= maxStories {
		t.end(t.recent.Back())
	}
	s := &account{Story: load.Story{Schema: load.Schema, Kind: load.KindStory, Process: a.Process, First: a.Time, Last: a.Time}}
	t.stories[a.Process.PID] = t.recent.PushFront(s)
	return s
}

func (t *Table) end(e *list.Element) {
	s := t.recent.Remove(e).(*account)
	delete(t.stories, s.Process.PID)
	if worthTelling(s) {
		s.programs.tell(&s.Story, t.watched)
		t.ready = append(t.ready, s.Story)
	}
}

// worthTelling leaves out what the lines of a load and its map tell as well.
func worthTelling(s *account) bool {
	return s.Maps.Of+s.Programs.Of+s.Attached.Of+s.Pinned.Of > 2
}

// tally is where calls of a kind are counted, nil for those that only count when they fail.
func tally(s *account, k load.Kind) *load.Tally {
	switch k {
	case load.MapCreate:
		return &s.Maps
	case load.ProgLoad, load.Seccomp, load.SocketFilter:
		return &s.Programs
	case load.LinkCreate, load.ProgAttach, load.RawTPOpen, load.PerfEventSetBPF, load.XDPAttach, load.TCAttach, load.SocketAttach,
		load.PerfEventOpen, load.ProbeDefine:
		return &s.Attached
	case load.ObjPin:
		return &s.Pinned
	}
	return nil
}

// makesTarget reports the kinds that only make what a program is attached to: where one works, the
// attaching that follows is what counts.
func makesTarget(k load.Kind) bool { return k == load.PerfEventOpen || k == load.ProbeDefine }

func fail(s *account, a *load.Attempt) {
	if len(s.Failures) == maxFailures {
		s.MoreFailures++
		return
	}
	f := load.StoryFailure{Of: a.Kind, Errno: a.Errno, ErrnoName: a.ErrnoName}
	switch {
	case a.Program != nil:
		f.Name = a.Program.Name
	case a.Attach != nil && a.Attach.Program != nil:
		f.Name = a.Attach.Program.Name
	case a.Map != nil:
		f.Name = a.Map.Name
	}
	if a.Attach != nil && a.Attach.Target != nil {
		f.Target = cmp.Or(a.Attach.Target.Name, a.Attach.Target.Path, a.Attach.Target.Kind)
	}
	if a.Diagnosis != nil {
		f.Rule, f.Title = a.Diagnosis.Rule, a.Diagnosis.Title
	}
	f.Name, f.Target = cut(f.Name), cut(f.Target)
	s.Failures = append(s.Failures, f)
}

func cut(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxText)], "") }

// Due returns the stories of processes that have been quiet.
func (t *Table) Due(now time.Time) []load.Story {
	return t.take(now, func(s *account) bool { return now.Sub(s.Last) >= Quiet })
}

// Flush returns the stories of all processes.
func (t *Table) Flush(now time.Time) []load.Story {
	return t.take(now, func(*account) bool { return true })
}

func (t *Table) take(now time.Time, due func(*account) bool) []load.Story {
	for e := t.recent.Back(); e != nil; {
		before := e.Prev()
		if due(e.Value.(*account)) {
			t.end(e)
		}
		e = before
	}
	out := t.ready
	t.ready = nil
	for i := range out {
		out[i].Time = now
	}
	slices.SortStableFunc(out, func(a, b load.Story) int { return a.First.Compare(b.First) })
	return out
}
