// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"slices"
	"time"
)

// Audit is what hardening would do to the programs that were loaded on a node. The counts are of
// programs by their fate (package audit).
type Audit struct {
	At      time.Time      `json:"at"`
	Harden1 map[string]int `json:"harden1"`
	Harden2 map[string]int `json:"harden2"`
	Worst   []Worst        `json:"worst,omitempty"`
}

// Worst is a program that hardening breaks, or nearly does.
type Worst struct {
	Program string `json:"program"`
	Tag     string `json:"tag,omitempty"`
	Owner   string `json:"owner,omitempty"`
	Margin  int    `json:"margin"` // slots until a jump is too long; below 0: it is
}

// breaks are the fates of programs that a change of the setting would stop.
var breaks = []string{"fails", "fails_or_not_jited", "miscompiled", "not_jited"}

// Change is what a value of net.core.bpf_jit_harden would do to the nodes.
type Change struct {
	Harden int          `json:"harden"`
	Nodes  []NodeChange `json:"nodes"` // those on which something breaks, the worst first
	// Fine are nodes on which nothing breaks, Unjudged those of which nobody knows.
	Fine     []string `json:"fine"`
	Unjudged []string `json:"unjudged"`
}

// NodeChange is what it would do to one.
type NodeChange struct {
	Node   string         `json:"node"`
	Now    string         `json:"now,omitempty"` // the value that it has
	Breaks int            `json:"breaks"`        // programs
	Fates  map[string]int `json:"fates"`
	Worst  []Worst        `json:"worst"` // programs of which a jump becomes too long
	At     time.Time      `json:"at"`
}

// Hardened says what a value of net.core.bpf_jit_harden would break.
func (f *Fleet) Hardened(value int) *Change {
	c := &Change{Harden: value, Nodes: []NodeChange{}, Fine: []string{}, Unjudged: []string{}}
	for _, n := range f.Nodes {
		if n.Audit == nil {
			c.Unjudged = append(c.Unjudged, n.Name)
			continue
		}
		fates := n.Audit.Harden2
		if value == 1 {
			fates = n.Audit.Harden1
		}
		one := NodeChange{Node: n.Name, Fates: fates, At: n.Audit.At, Worst: []Worst{}}
		for _, fate := range breaks {
			one.Breaks += fates[fate]
		}
		for _, w := range n.Audit.Worst {
			if w.Margin < 0 {
				one.Worst = append(one.Worst, w)
			}
		}
		if n.Profile != nil {
			one.Now = n.Profile.Sysctls["net.core.bpf_jit_harden"]
		}
		switch {
		case one.Breaks > 0:
			c.Nodes = append(c.Nodes, one)
		case fates["unknown"] > 0:
			c.Unjudged = append(c.Unjudged, n.Name)
		default:
			c.Fine = append(c.Fine, n.Name)
		}
	}
	slices.SortStableFunc(c.Nodes, func(a, b NodeChange) int { return cmp.Compare(b.Breaks, a.Breaks) })
	return c
}

// Only leaves what fails in a namespace; "" leaves all.
func (f *Fleet) Only(namespace string) {
	if namespace == "" {
		return
	}
	for _, n := range f.Nodes {
		n.Failures = slices.DeleteFunc(n.Failures, func(failure Failure) bool {
			return !slices.ContainsFunc(failure.Workloads, func(w Workload) bool { return w.Namespace == namespace })
		})
	}
}
