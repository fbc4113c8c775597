// SPDX-License-Identifier: Apache-2.0

// Package preflight says, before an agent starts, whether a node has what it needs. A profile of
// the node and the agent's needs go in, a line for each need comes out. It loads nothing itself.
//
// What nobody knows never passes: it is a warning that says so.
package preflight

import (
	"cmp"
	"slices"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Schema names the JSON form of a Report: docs/schema/preflight-v1.schema.json.
const Schema = "bpfwhy.preflight/v1"

// Verdict is how a need is met.
type Verdict string

// Warn: it may keep the agent from working, or nobody knows.
const (
	Pass Verdict = "pass"
	Warn Verdict = "warn"
	Fail Verdict = "fail"
)

func (v Verdict) weight() int { return map[Verdict]int{Fail: 2, Warn: 1}[v] }

// Report is a line for each need, those that are not met first.
type Report struct {
	Schema  string  `json:"schema"`
	Release string  `json:"release"` // of the kernel
	Verdict Verdict `json:"verdict"` // the worst of all lines
	Passed  int     `json:"passed"`
	Warned  int     `json:"warned"`
	Failed  int     `json:"failed"`
	Lines   []Line  `json:"lines"`
}

// Line is the answer to one need.
type Line struct {
	Need    string  `json:"need"`
	Verdict Verdict `json:"verdict"`
	// Unknown: nobody knows whether the node has it. It could not be tried or read.
	Unknown bool     `json:"unknown,omitempty"`
	For     []string `json:"for,omitempty"`  // the programs that need it
	Why     string   `json:"why"`            // what tells
	Rule    string   `json:"rule,omitempty"` // of 'bpfwhy explain'
	Do      string   `json:"do,omitempty"`
	Command string   `json:"command,omitempty"`
}

// Host is a node as this process finds it.
type Host struct {
	// Profile should have its features tried.
	Profile *node.Profile
	// Hangs says that loads do not come back here, and HangRule is the rule that explains it.
	Hangs    string
	HangRule string
	// Others says that loads of other processes do not come back, OthersRule as above.
	Others     string
	OthersRule string
	// Tried are ways of attaching that were tried here: why they do not work, "" where they do.
	Tried map[Way]string
}

// Way is a way of attaching that can be tried.
type Way string

// Tracefs is where the numbers of tracepoints are read.
const (
	Fentry  Way = "fentry"
	Kprobe  Way = "kprobe"
	Tracefs Way = "tracefs"
)

// Judge says of each need whether the node meets it.
func Judge(h Host, n *Needs) *Report {
	j := judge{h.Profile, h.Tried}
	lines := j.general(h, n)
	for i := range n.list {
		lines = append(lines, j.need(&n.list[i]))
	}
	for _, o := range n.objects {
		lines = append(lines, j.blinding(o)...)
	}
	r := &Report{Schema: Schema, Release: h.Profile.Release, Verdict: Pass, Lines: lines}
	slices.SortStableFunc(r.Lines, func(a, b Line) int { return cmp.Compare(b.Verdict.weight(), a.Verdict.weight()) })
	for _, l := range r.Lines {
		*map[Verdict]*int{Pass: &r.Passed, Warn: &r.Warned, Fail: &r.Failed}[l.Verdict]++
	}
	r.Verdict = r.Lines[0].Verdict // there are always general ones
	return r
}

// judge answers for one node.
type judge struct {
	*node.Profile
	tried map[Way]string
}

func pass(why string) Line    { return Line{Verdict: Pass, Why: why} }
func unknown(why string) Line { return Line{Verdict: Warn, Unknown: true, Why: "not known: " + why} }
func warn(rule, why string) Line {
	return Line{Verdict: Warn, Why: why}.explained(rule, "")
}
func fail(rule, why string) Line {
	return Line{Verdict: Fail, Why: why}.explained(rule, "")
}

// explained adds a rule, with its first remedy or the one that is named.
func (l Line) explained(rule, remedy string) Line {
	r, ok := explain.ByID(rule)
	if !ok || len(r.Remedies) == 0 {
		return l
	}
	i := max(0, slices.IndexFunc(r.Remedies, func(m load.Remedy) bool { return m.ID == remedy }))
	l.Rule, l.Do, l.Command = rule, r.Remedies[i].Title, r.Remedies[i].Command
	return l
}
