// SPDX-License-Identifier: Apache-2.0

// Package failures counts the failures of a node by what failed and whose it is, within a bound of
// memory. It is pure.
package failures

import (
	"cmp"
	"container/list"
	"slices"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/load"
)

// Bounds. A kind that finds no room makes that one go which was not seen for the longest time.
const (
	maxKinds  = 256
	maxGroups = 2048
	maxText   = 256 // bytes of each name, which are the loaders'
)

// quiet is how long nothing of a failure must be seen before it is over, if its process is gone
// too. A pod that crashes in a loop starts again after five minutes at most.
const quiet = 15 * time.Minute

// Table counts failures. It is not safe for concurrent use.
type Table struct {
	kinds   map[key]*list.Element // of *kind
	recent  *list.List            // the last seen first
	groups  map[string]*kind      // by the groups of package repeat
	dropped uint64
}

// key tells the failures of a node apart.
type key struct{ id, workload string }

type kind struct {
	nodereport.Failure
	key
	pid  int // of the last one
	comm string
}

// New returns an empty table.
func New() *Table {
	return &Table{kinds: map[key]*list.Element{}, recent: list.New(), groups: map[string]*kind{}}
}

// Resume takes the failures of an earlier report. Their processes are not known.
func (t *Table) Resume(s *nodereport.Status) {
	for _, f := range slices.Backward(s.Failures[:min(len(s.Failures), maxKinds)]) {
		k := &kind{Failure: f, key: key{f.ID, identity(&f.Workload)}}
		if t.kinds[k.key] == nil {
			t.kinds[k.key] = t.recent.PushFront(k)
		}
	}
	t.dropped += s.Dropped
}

// Add counts a finding with its diagnosis, and reports whether it is the first of its kind.
func (t *Table) Add(a *load.Attempt, w nodereport.Workload) (f nodereport.Failure, first bool) {
	one := fleet.FailureOf(a)
	k := t.find(key{one.ID, identity(&w)})
	if k == nil {
		first = true
		k = &kind{Failure: nodereport.Failure{Failure: bounded(one)}, key: key{one.ID, strings.Clone(identity(&w))}}
		k.Count, k.First = 0, a.Time
		t.kinds[k.key] = t.recent.PushFront(k)
		t.forget()
	}
	first = first || k.Over // it fails again
	k.Count++
	if a.Time.Before(k.First) {
		k.First = a.Time
	}
	if a.Time.After(k.Last) {
		k.Last = a.Time
	}
	k.Over, k.Workload, k.Settings = false, boundedWorkload(w), a.Evidence.Settings()
	k.pid, k.comm = a.Process.PID, cut(a.Process.Comm)
	if a.Group != "" {
		if len(t.groups) >= maxGroups {
			clear(t.groups) // summaries of old groups are told without their totals
		}
		t.groups[a.Group] = k
	}
	return k.Failure, first
}

// find returns a kind, which then is the last seen.
func (t *Table) find(k key) *kind {
	e := t.kinds[k]
	if e == nil {
		return nil
	}
	t.recent.MoveToFront(e)
	return e.Value.(*kind)
}

func (t *Table) forget() {
	for len(t.kinds) > maxKinds {
		k := t.recent.Remove(t.recent.Back()).(*kind)
		delete(t.kinds, k.key)
		t.dropped += uint64(max(k.Count, 0))
		*k = kind{} // which groups may still know
	}
}

// Of returns the failure that a group of package repeat is of.
func (t *Table) Of(group string) (nodereport.Failure, bool) {
	k := t.groups[group]
	if k == nil || k.id == "" {
		return nodereport.Failure{}, false
	}
	return k.Failure, true
}

// Over returns the failures that have come to an end. gone says whether a process with a name has
// ended.
func (t *Table) Over(now time.Time, gone func(pid int, comm string) bool) (list []nodereport.Failure) {
	for e := t.recent.Back(); e != nil; e = e.Prev() {
		k := e.Value.(*kind)
		if k.Over || now.Sub(k.Last) < quiet || k.pid != 0 && !gone(k.pid, k.comm) {
			continue
		}
		k.Over = true
		list = append(list, k.Failure)
	}
	return list
}

// Works returns the failures of a program that have come to an end, since a workload has loaded it.
func (t *Table) Works(p fleet.Program, w nodereport.Workload) (list []nodereport.Failure) {
	for e := t.recent.Back(); e != nil; e = e.Prev() {
		k := e.Value.(*kind)
		if !k.Over && k.Kind == load.ProgLoad && k.Program == p && k.key.workload == identity(&w) {
			k.Over = true
			list = append(list, k.Failure)
		}
	}
	return list
}

// Name gives the failures of workloads that had no name the one that they have by now, and reports
// whether that changed any.
func (t *Table) Name(name func(nodereport.Workload) nodereport.Workload) (changed bool) {
	for e := t.recent.Front(); e != nil; e = e.Next() {
		k := e.Value.(*kind)
		if k.PodUID == "" || k.Pod != "" {
			continue
		}
		if w := boundedWorkload(name(k.Workload)); w != k.Workload {
			k.Workload, changed = w, true
		}
	}
	return changed
}

// Put writes the failures into a status, those first that fail and were seen last. now are the
// settings of the node.
func (t *Table) Put(s *nodereport.Status, now map[string]string) {
	s.Failures, s.Failing, s.Dropped = nil, 0, t.dropped
	for e := t.recent.Front(); e != nil; e = e.Next() {
		f := e.Value.(*kind).Failure
		f.Settings = changed(f.Settings, now)
		s.Failures = append(s.Failures, f)
		if !f.Over {
			s.Failing++
		}
	}
	slices.SortStableFunc(s.Failures, func(a, b nodereport.Failure) int {
		return cmp.Or(cmp.Compare(number(a.Over), number(b.Over)), b.Last.Compare(a.Last))
	})
}

// changed are the settings that are others now.
func changed(then, now map[string]string) map[string]string {
	var out map[string]string
	for name, v := range then {
		if is, known := now[name]; known && is != v {
			if out == nil {
				out = map[string]string{}
			}
			out[name] = v
		}
	}
	return out
}

// Failing returns how many kinds fail, by rule and workload.
func (t *Table) Failing(each func(*nodereport.Failure)) {
	for e := t.recent.Front(); e != nil; e = e.Next() {
		if k := e.Value.(*kind); !k.Over {
			each(&k.Failure)
		}
	}
}

// identity is what tells workloads of a node apart: a pod, a unit, or a container.
func identity(w *nodereport.Workload) string {
	id := cmp.Or(w.PodUID, w.Owner, w.Container)
	return id[:min(len(id), maxText)]
}

func bounded(f fleet.Failure) fleet.Failure {
	for _, s := range []*string{&f.Rule, &f.Title, &f.Program.Name, &f.Program.Type, &f.Comm, &f.Stage, &f.Message, &f.Remedy} {
		*s = cut(*s)
	}
	return f
}

func boundedWorkload(w nodereport.Workload) nodereport.Workload {
	for _, s := range []*string{&w.Namespace, &w.Pod, &w.PodUID, &w.Owner, &w.Container, &w.Image} {
		*s = cut(*s)
	}
	return w
}

// cut is a copy of the first bytes of a text, and of whole runes.
func cut(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return strings.Clone(s)
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}
