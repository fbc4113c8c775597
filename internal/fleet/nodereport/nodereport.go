// SPDX-License-Identifier: Apache-2.0

// Package nodereport is what a node says of itself: the objects NodeReport and NodeClass of
// Kubernetes, which are also what 'bpfwhy serve' writes to a file. It is pure.
package nodereport

import (
	"encoding/json"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
)

// The names of the objects.
const (
	APIVersion = "bpfwhy.dev/v1alpha1"
	ReportKind = "NodeReport"
	ClassKind  = "NodeClass"
)

// Bounds of a report. The whole of it is at most MaxBytes of JSON.
const (
	MaxFailures = 32
	MaxChanges  = 8
	MaxWorst    = 16
	MaxLost     = 32
	MaxSilent   = 16
	MaxLoaded   = 64
	MaxBytes    = 16 << 10
)

// Report is a NodeReport. Its name is that of the node.
type Report struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   Metadata `json:"metadata"`
	Status     Status   `json:"status"`
}

// Class is a NodeClass. Its name is the id of what it holds, so it never changes.
type Class struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Metadata   Metadata     `json:"metadata"`
	Spec       *fleet.Class `json:"spec"`
}

// Metadata is as much of that of Kubernetes as concerns us.
type Metadata struct {
	Name string `json:"name"`
}

// Status is what a node says of itself.
type Status struct {
	Class   string  `json:"class,omitempty"`
	Summary Summary `json:"summary"`
	// Watching is nil where nobody watches.
	Watching *Watching `json:"watching,omitempty"`
	// Failing are the kinds of failures that are not over.
	Failing    int         `json:"failing"`
	Conditions []Condition `json:"conditions,omitempty"`
	Failures   []Failure   `json:"failures,omitempty"` // the last seen first
	Dropped    uint64      `json:"dropped,omitempty"`  // failures of kinds that found no room in the list
	// Silent are pods in a crash loop that have rights for BPF, and that nobody has seen load since
	// Watching.Since: their loads may have failed before.
	Silent []Workload `json:"silent,omitempty"`
	// Loaded are programs that loaded and were compiled, with how often.
	Loaded  []Loaded `json:"loaded,omitempty"`
	Audit   *Audit   `json:"audit,omitempty"`
	Changes []Change `json:"changes,omitempty"` // the last ones, the oldest first
	// Calls are those of which the kernel told and that were looked at: they are in failures, or
	// feature probes of loaders, or retries.
	Calls uint64 `json:"calls,omitempty"`
	// Lost are calls and pieces of calls that are in no count, by what lost them.
	Lost map[string]uint64 `json:"lost,omitempty"`
}

// Summary is for columns of a table.
type Summary struct {
	Release  string `json:"release"`
	Distro   string `json:"distro,omitempty"`
	Arch     string `json:"arch,omitempty"`
	Harden   string `json:"harden,omitempty"` // net.core.bpf_jit_harden
	Lockdown string `json:"lockdown,omitempty"`
}

// Watching says since when, and by what hooks, loads have been watched.
type Watching struct {
	Since   time.Time `json:"since"`
	Backend string    `json:"backend"`
	Missing []string  `json:"missing,omitempty"` // stages that are not observed
	Version string    `json:"version,omitempty"` // of bpfwhy
	// Last is when the node said so last.
	Last time.Time `json:"last,omitzero"`
	// Before is when somebody watched last before Since; zero: nobody did, as far as is known.
	Before time.Time `json:"before,omitzero"`
}

// Condition is as in Kubernetes.
type Condition struct {
	Type               string    `json:"type"`   // Watching, LoadsOK, HardeningSafe
	Status             string    `json:"status"` // True, False, Unknown
	Reason             string    `json:"reason"`
	Message            string    `json:"message"`
	LastTransitionTime time.Time `json:"lastTransitionTime"`
}

// Failure is a kind of failures of one workload.
type Failure struct {
	fleet.Failure
	Workload
	// Over says that it fails no longer: nothing of it was seen for a while, and its process is
	// gone; or its program was loaded.
	Over bool `json:"over,omitempty"`
	// Settings are those that decided it and have been changed since.
	Settings map[string]string `json:"settings,omitempty"`
}

// Loaded is a program that works on the node.
type Loaded struct {
	fleet.Program
	Count int `json:"count"`
}

// Workload is what a process belongs to.
type Workload = fleet.Workload

// Change is a setting that was changed while somebody watched.
type Change struct {
	At   time.Time `json:"at"`
	Name string    `json:"name"`
	From string    `json:"from"`
	To   string    `json:"to"`
}

// Audit is what hardening would do to the programs that are loaded now.
type Audit = fleet.Audit

// Worst is a program that hardening breaks, or nearly does.
type Worst = fleet.Worst

// What lost whole calls that had come from the kernel. Together with Calls these are all that came.
const (
	LostExporter = "process that exports was killed"
	LostReader   = "process that reads the kernel was killed"
)

// Accounted is how many calls a status accounts for.
func (s *Status) Accounted() uint64 { return s.Calls + s.Lost[LostExporter] + s.Lost[LostReader] }

// Bounded returns the report as it goes to an API server: cut to MaxFailures and to MaxBytes of
// JSON. What does not fit is counted in Dropped.
func (r *Report) Bounded() *Report {
	out := *r
	s := &out.Status
	s.Changes = s.Changes[max(0, len(s.Changes)-MaxChanges):]
	s.Loaded = s.Loaded[:min(len(s.Loaded), MaxLoaded)]
	most := min(len(s.Failures), MaxFailures)
	for {
		s.Failures, s.Dropped = r.Status.Failures[:most], r.Status.Dropped
		for _, f := range r.Status.Failures[most:] {
			s.Dropped += uint64(max(f.Count, 0))
		}
		b, err := json.Marshal(&out)
		switch {
		case err != nil || len(b) <= MaxBytes:
			return &out
		case s.Silent != nil:
			s.Silent = nil
		case s.Loaded != nil: // what fails is worth more
			s.Loaded = nil
		case len(s.Lost) > 1 && size(s.Lost) > MaxBytes/8:
			s.Lost = total(s.Lost)
		case most > 1:
			most--
		case s.Lost != nil || s.Audit != nil:
			s.Lost, s.Audit = nil, nil
		default:
			return &out
		}
	}
}

// size is about how long losses are as JSON, and total is all of them under one name.
func size(lost map[string]uint64) (n int) {
	for where := range lost {
		n += len(where) + 16
	}
	return n
}

func total(lost map[string]uint64) map[string]uint64 {
	var sum uint64
	for _, n := range lost {
		sum += n
	}
	return map[string]uint64{"all together": sum}
}

// NewReport returns the report of a node.
func NewReport(node string, s Status) *Report {
	return &Report{APIVersion: APIVersion, Kind: ReportKind, Metadata: Metadata{Name: node}, Status: s}
}

// NewClass returns a class under its name.
func NewClass(c *fleet.Class) *Class {
	return &Class{APIVersion: APIVersion, Kind: ClassKind, Metadata: Metadata{Name: c.ID()}, Spec: c}
}
