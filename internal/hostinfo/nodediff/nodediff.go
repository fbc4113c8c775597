// SPDX-License-Identifier: Apache-2.0

// Package nodediff is what two nodes differ in, and which difference explains each failure of a
// trace.
package nodediff

import (
	"cmp"
	"fmt"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Report is what 'node diff' found (docs/schema/node-diff-v1.schema.json).
type Report struct {
	Schema      string            `json:"schema"`
	A           Side              `json:"a"`
	B           Side              `json:"b"`
	Differences []node.Difference `json:"differences"`
	// Failures are those of a trace, each kind once; absent without one. They happened on A.
	Failures []Failure `json:"failures,omitempty"`
	// MoreFailures counts failures of further kinds than those listed.
	MoreFailures int `json:"more_failures,omitempty"`

	here, there *node.Profile // A and B
	kinds       map[failureKind]int
	explained   bool // some failure is
}

// Side is one of the two.
type Side struct {
	Source  string `json:"source"` // a file, or the trace
	Release string `json:"release"`
}

// Failure is one kind of failures, and what explains it.
type Failure struct {
	Rule    string              `json:"rule"`
	Title   string              `json:"title"`
	Program string              `json:"program,omitempty"`
	Comm    string              `json:"comm"`
	Errno   int                 `json:"errno"`
	Count   int                 `json:"count"`
	By      []explain.NodeCause `json:"explained_by"`
}

// Schema names the form of a report.
const Schema = "bpfwhy.node-diff/v1"

// New compares two nodes, whose profiles come from files. The first is the one on which failures
// happened.
func New(a, b *node.Profile, files [2]string) *Report {
	return &Report{Schema: Schema, A: Side{files[0], a.Release}, B: Side{files[1], b.Release},
		// An empty list is one too.
		Differences: append([]node.Difference{}, explain.Differences(a, b)...), here: a, there: b, kinds: map[failureKind]int{}}
}

// Explained says that some failure is.
func (d *Report) Explained() bool { return d.explained }

// RecordedOn says which of the two a trace comes from: the one that it differs less from in what
// decides loads.
func RecordedOn(h trace.Header, profiles []*node.Profile) (int, error) {
	var apart [2]int
	for i, p := range profiles {
		if p.Release != h.Node.Release {
			apart[i] = -1
			continue
		}
		for _, d := range node.Diff(&h.Node, p) {
			if d.Effect != node.Informs {
				apart[i]++
			}
		}
	}
	switch {
	case apart[0] < 0 && apart[1] < 0:
		return 0, fmt.Errorf("was recorded on %s, which is neither of the two. Give only one profile to compare it with the recording's own", cmp.Or(h.Node.Release, "an unknown kernel"))
	case apart[0] < 0, apart[1] >= 0 && apart[1] < apart[0]:
		return 1, nil
	}
	return 0, nil
}

// Most kinds of failures in a report.
const maxKinds = 200

// failureKind tells failures apart: a trace may hold millions, which differ in nothing else.
type failureKind struct {
	rule, program, comm string
	errno               int
}

// Add takes an attempt of a trace. Each kind of failure is looked at once.
func (d *Report) Add(a *load.Attempt) {
	if !a.Finding() || a.Diagnosis == nil {
		return
	}
	k := failureKind{a.Diagnosis.Rule, "", a.Process.Comm, a.Errno}
	switch {
	case a.Program != nil:
		k.program = a.Program.Name
	case a.Map != nil:
		k.program = a.Map.Name
	}
	if i, seen := d.kinds[k]; seen {
		d.Failures[i].Count++
		return
	}
	if len(d.Failures) == maxKinds {
		d.MoreFailures++
		return
	}
	d.kinds[k] = len(d.Failures)
	f := Failure{Rule: k.rule, Title: a.Diagnosis.Title, Program: k.program, Comm: k.comm, Errno: k.errno, Count: 1,
		By: explain.Compare(a, d.here, d.there)}
	if f.By == nil {
		f.By = []explain.NodeCause{}
	}
	d.explained = d.explained || len(f.By) > 0
	d.Failures = append(d.Failures, f)
}
