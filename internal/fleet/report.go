// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// A Node is what is known of one node.
type Node struct {
	Name    string
	Class   string        // its id; "" where there is no profile
	Profile *node.Profile // nil: not known
	// Watched says that somebody looked for failures there. Without it the node is only a profile.
	Watched  bool
	Failures []Failure // by count, the most first
	// Dropped counts failures of further kinds than those listed.
	Dropped int
	// Loaded are programs that were loaded and compiled there. Nil: nobody looked.
	Loaded map[Program]int
	// Attached are programs that were attached there. Only recordings of all calls tell.
	Attached map[Program]int

	// Audit is what hardening would do; nil: nobody looked.
	Audit *Audit

	seen map[string]string // settings at the attempts
}

// Program tells programs apart across nodes.
type Program struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Insns int    `json:"insns"`
}

func (p Program) String() string {
	s := cmp.Or(p.Name, "(no name)")
	if p.Type != "" {
		s += " (" + p.Type + ")"
	}
	return s
}

// Failure is one kind of failures of a node.
type Failure struct {
	// ID is the same on every node: a hash of what failed and how.
	ID string `json:"id"`
	// Kind is what was attempted, such as prog_load.
	Kind    load.Kind `json:"kind"`
	Rule    string    `json:"rule"`
	Title   string    `json:"title"`
	Program Program   `json:"program"`
	Comm    string    `json:"comm"`
	Errno   int       `json:"errno"`
	Stage   string    `json:"stage,omitempty"`
	Count   int       `json:"count"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	Message string    `json:"message,omitempty"` // the cause, and the kernel's words
	Remedy  string    `json:"remedy,omitempty"`  // the first
	// Workloads are those in which it was seen, as far as is known.
	Workloads []Workload `json:"workloads,omitempty"`

	attempt *load.Attempt // where there is a recording
}

// Workload is what a process belongs to, as far as it is known. The names of pods come from the
// API server; without it there are the uid and what the control group says.
type Workload struct {
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
	PodUID    string `json:"podUID,omitempty"`
	// Owner stays the same when a pod is replaced: "DaemonSet/cilium". Outside of pods it is a unit
	// of systemd: "tracer.service".
	Owner     string `json:"owner,omitempty"`
	Container string `json:"container,omitempty"` // its name in the pod, else "containerd://ID"
	Image     string `json:"image,omitempty"`
}

// String is what people call it.
func (w Workload) String() string {
	name := cmp.Or(w.Owner, w.Pod)
	switch {
	case name != "" && w.Namespace != "":
		return w.Namespace + "/" + name
	case name != "":
		return name
	case w.PodUID != "":
		return "pod " + w.PodUID
	}
	return w.Container
}

// same reports that two are one workload: a pod that replaced another is.
func (w Workload) same(o Workload) bool { return w.String() == o.String() }

// Bounds of what is kept of a node.
const (
	maxWorkloads = 50
	MaxFailures  = 200
	MaxLoaded    = 2000
	maxMessage   = 256
)

// FailureOf is what an attempt that carries its diagnosis says. It does not keep the attempt.
func FailureOf(a *load.Attempt) Failure {
	f := Failure{
		Kind: a.Kind, Rule: a.Diagnosis.Rule, Title: a.Diagnosis.Title, Program: programOf(a), Comm: a.Process.Comm,
		Errno: a.Errno, Stage: string(a.FailedStage), Count: 1, First: a.Time, Last: a.Time,
		Message: cut(a.Diagnosis.Cause, maxMessage),
	}
	if len(a.Diagnosis.Remedies) > 0 {
		f.Remedy = cut(a.Diagnosis.Remedies[0].Title, maxMessage)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%s\x00%d\x00%d\x00%s", f.Kind, f.Rule, f.Program.Name, f.Program.Type, f.Program.Insns, f.Errno, f.Stage))
	f.ID = hex.EncodeToString(sum[:6])
	return f
}

func programOf(a *load.Attempt) Program {
	switch {
	case a.Program != nil:
		return Program{Name: a.Program.Name, Type: a.Program.Type, Insns: a.Program.Insns}
	case a.Attach != nil && a.Attach.Program != nil:
		return Program{Name: a.Attach.Program.Name, Type: a.Attach.Program.Type}
	case a.Map != nil:
		return Program{Name: a.Map.Name, Type: a.Map.Type}
	}
	return Program{}
}

// cut shortens a text to so many bytes, at the end of a rune.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && s[most]&0xc0 == 0x80 {
		most--
	}
	return s[:most]
}

// joined adds the workloads that a list lacks, as long as there is room.
func joined(list, more []Workload) []Workload {
	for _, w := range more {
		if len(list) < maxWorkloads && !slices.ContainsFunc(list, w.same) {
			list = append(list, w)
		}
	}
	return list
}

// Add takes an attempt that was seen on the node, with its diagnosis if it has one.
func (n *Node) Add(a *load.Attempt) {
	n.see(&a.Evidence)
	switch {
	case a.Finding() && a.Diagnosis != nil:
		f := FailureOf(a)
		f.attempt = a
		n.fail(f)
	case a.Outcome != load.Loaded || a.FeatureProbe != "":
	case a.Kind == load.ProgLoad && a.Program != nil:
		n.Loaded = counting(n.Loaded, programOf(a))
	case a.Kind.Attaches() && a.Attach != nil && a.Attach.Program != nil:
		n.Attached = counting(n.Attached, programOf(a))
	}
}

// Count takes a kind of failures that was counted on the node. Settings are those at the last of
// them, as far as others hold now.
func (n *Node) Count(f Failure, settings map[string]string) {
	n.fail(f)
	if len(settings) == 0 {
		return
	}
	if n.seen == nil {
		n.seen = map[string]string{}
	}
	maps.Copy(n.seen, settings)
}

// Works takes a program that loads on the node.
func (n *Node) Works(p Program, times int) {
	n.Loaded = counting(n.Loaded, p)
	if n.Loaded[p] > 0 {
		n.Loaded[p] += max(times, 1) - 1
	}
}

// Merge adds what the node says of itself, as it is now, to what recordings tell. They are examples
// of what the state counts, so a kind of failures that both have is counted once. over are kinds
// that fail no longer.
func (n *Node) Merge(state *Node, over []string) {
	if p := state.Profile; p != nil {
		if n.Profile != nil && p.Features == nil {
			whole := *p
			whole.Features = n.Profile.Features
			p = &whole
		}
		n.Profile = p
	}
	n.Watched = n.Watched || state.Watched
	n.Dropped += state.Dropped
	n.seen = state.seen
	n.Audit = state.Audit
	n.Failures = slices.DeleteFunc(n.Failures, func(f Failure) bool { return slices.Contains(over, f.ID) })
	for _, f := range state.Failures {
		if i := slices.IndexFunc(n.Failures, func(have Failure) bool { return have.ID == f.ID }); i >= 0 {
			f.attempt = n.Failures[i].attempt
			n.Failures[i] = f
			continue
		}
		n.fail(f)
	}
	for p, times := range state.Loaded {
		n.Works(p, times)
	}
}

// counting counts a program, where there is room for it.
func counting(list map[Program]int, p Program) map[Program]int {
	if list == nil {
		list = map[Program]int{}
	}
	if _, known := list[p]; known || len(list) < MaxLoaded {
		list[p]++
	}
	return list
}

// see notes which settings held at an attempt. They count for more than what a profile read at
// another time, and the last ones are those of the node.
func (n *Node) see(e *load.Evidence) {
	if n.seen == nil {
		n.seen = map[string]string{}
	}
	maps.Copy(n.seen, e.Settings())
}

// settle gives the node its class.
func (n *Node) settle() {
	if n.Profile != nil {
		p := *n.Profile
		p.Sysctls = map[string]string{}
		maps.Copy(p.Sysctls, n.Profile.Sysctls)
		maps.Copy(p.Sysctls, n.seen)
		n.Profile, n.Class = &p, ClassOf(&p).ID()
	}
	slices.SortStableFunc(n.Failures, func(a, b Failure) int { return b.Count - a.Count })
}

func (n *Node) fail(f Failure) {
	i := slices.IndexFunc(n.Failures, func(o Failure) bool { return o.ID == f.ID })
	switch {
	case i >= 0:
		old := &n.Failures[i]
		old.Count += f.Count
		if f.First.Before(old.First) {
			old.First = f.First
		}
		if f.Last.After(old.Last) {
			old.Last = f.Last
		}
		old.Workloads = joined(old.Workloads, f.Workloads)
	case len(n.Failures) == MaxFailures:
		n.Dropped++
	default:
		n.Failures = append(n.Failures, f)
	}
}

// Forget lets go of recorded attempts of kinds that kept holds, and adds the others to it: one
// attempt of each kind is enough for a fleet, and each may hold a large program.
func (n *Node) Forget(kept map[string]bool) {
	for i := range n.Failures {
		f := &n.Failures[i]
		if f.attempt == nil {
			continue
		}
		if kept[f.ID] {
			f.attempt = nil
		}
		kept[f.ID] = true
	}
}
