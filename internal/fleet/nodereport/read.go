// SPDX-License-Identifier: Apache-2.0

package nodereport

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/node"
)

// Seen writes programs for Loaded and Attached, the ones that were seen most often first.
func Seen(programs map[fleet.Program]int) []string {
	list := slices.SortedFunc(maps.Keys(programs), func(a, b fleet.Program) int {
		return cmp.Or(programs[b]-programs[a], cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type), a.Insns-b.Insns)
	})
	var out []string
	for _, p := range list[:min(len(list), MaxSeen)] {
		out = append(out, fmt.Sprintf("%s/%d/%s", p.Type, p.Insns, p.Name))
	}
	return out
}

// programs reads what Seen wrote.
func programs(seen []string) map[fleet.Program]int {
	var out map[fleet.Program]int
	for _, s := range seen[:min(len(seen), MaxSeen)] {
		parts := strings.SplitN(s, "/", 3)
		if len(parts) != 3 {
			continue
		}
		n, err := strconv.Atoi(parts[1])
		if err != nil {
			continue
		}
		if out == nil {
			out = map[fleet.Program]int{}
		}
		out[fleet.Program{Type: parts[0], Insns: n, Name: parts[2]}] = 1
	}
	return out
}

// maxDocument is how long a document of reports may be.
const maxDocument = 512 << 20

// Objects are reports and classes that were read, from files or from an API server.
type Objects struct {
	reports  []*Report
	profiles map[string]*node.Profile // by class
}

// object is as much of an object as says what it is.
type object struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   Metadata          `json:"metadata"`
	Items      []json.RawMessage `json:"items"`
	Spec       json.RawMessage   `json:"spec"`
	Status     json.RawMessage   `json:"status"`
}

// Read takes a report, a class, or a list of them (as 'kubectl get -o json' and node.json have it).
// It returns how many objects of ours were in it. One bad object of a list hides no other.
func (o *Objects) Read(document []byte) (taken int, err error) {
	if len(document) > maxDocument {
		return 0, fmt.Errorf("read reports: longer than %d MiB", maxDocument>>20)
	}
	var d object
	if err := json.Unmarshal(document, &d); err != nil {
		return 0, fmt.Errorf("read reports: %w", err)
	}
	if !strings.HasSuffix(d.Kind, "List") {
		return o.take(&d)
	}
	var errs []error
	for _, item := range d.Items {
		var d object
		err := json.Unmarshal(item, &d)
		n := 0
		if err == nil {
			n, err = o.take(&d)
		}
		taken += n
		if err != nil && len(errs) < 10 {
			errs = append(errs, err)
		}
	}
	return taken, errors.Join(errs...)
}

func (o *Objects) take(d *object) (int, error) {
	switch {
	case d.APIVersion != APIVersion:
		return 0, nil
	case d.Kind == ReportKind:
		r := NewReport(d.Metadata.Name, Status{})
		if err := json.Unmarshal(d.Status, &r.Status); err != nil {
			return 0, fmt.Errorf("read report of node %.253q: %w", d.Metadata.Name, err)
		}
		o.reports = append(o.reports, r)
	case d.Kind == ClassKind:
		if err := o.class(d.Metadata.Name, d.Spec); err != nil {
			return 0, err
		}
	default:
		return 0, nil
	}
	return 1, nil
}

// class takes a class if its contents are what its name says: the name is all that its nodes have
// of it, and others may have written it.
func (o *Objects) class(name string, spec json.RawMessage) error {
	var c fleet.Class
	if err := json.Unmarshal(spec, &c); err != nil {
		return fmt.Errorf("read class %.63q: %w", name, err)
	}
	if id, err := fleet.ClassID(spec); err != nil || id != name {
		return fmt.Errorf("read class %.63q: it is left out: by its contents its name is %q, so it is not what a node wrote", name, id)
	}
	if o.profiles == nil {
		o.profiles = map[string]*node.Profile{}
	}
	o.profiles[name] = c.Profile()
	return nil
}

// ReadAs is Read for what was found in a folder that is named after a node: a single report is of
// that node, whatever it calls itself.
func (o *Objects) ReadAs(document []byte, node string) (int, error) {
	before := len(o.reports)
	n, err := o.Read(document)
	if len(o.reports) == before+1 && node != "" {
		o.reports[before].Metadata.Name = node
	}
	return n, err
}

// Nodes returns the nodes of all reports that were read, by name.
func (o *Objects) Nodes() []*fleet.Node {
	var list []*fleet.Node
	for _, r := range o.reports {
		list = append(list, r.node(o.profiles))
	}
	slices.SortFunc(list, func(a, b *fleet.Node) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Reports are those that were read.
func (o *Objects) Reports() []*Report { return o.reports }

// node is what a report says.
func (r *Report) node(profiles map[string]*node.Profile) *fleet.Node {
	n := &fleet.Node{
		Name: r.Metadata.Name, Watched: r.Status.Watching != nil,
		Loaded: programs(r.Status.Loaded), Attached: programs(r.Status.Attached),
	}
	if p := profiles[r.Status.Class]; p != nil {
		n.Class, n.Profile = r.Status.Class, p
	}
	failures := r.Status.Failures
	for _, f := range failures[:min(len(failures), MaxFailures)] {
		if f.Workload != (Workload{}) {
			f.Failure.Workloads = []Workload{f.Workload}
		}
		n.Fail(f.Failure)
	}
	n.Dropped += int(min(r.Status.Dropped, 1<<31))
	return n
}

// Fit cuts a status down until it has at most MaxBytes as JSON, what matters least first. What is
// written never exceeds it, whatever a node runs.
func (s *Status) Fit() {
	s.Failures = s.Failures[:min(len(s.Failures), MaxFailures)]
	s.Changes = s.Changes[max(0, len(s.Changes)-MaxChanges):]
	s.Loaded = s.Loaded[:min(len(s.Loaded), MaxSeen)]
	s.Attached = s.Attached[:min(len(s.Attached), MaxSeen)]
	s.Silent = s.Silent[:min(len(s.Silent), MaxSilent)]
	if s.Audit != nil && len(s.Audit.Worst) > MaxWorst {
		a := *s.Audit
		a.Worst, s.Audit = a.Worst[:MaxWorst], &a
	}
	for !s.fits() {
		switch {
		case len(s.Loaded)+len(s.Attached) > 16:
			s.Loaded, s.Attached = s.Loaded[:len(s.Loaded)/2], s.Attached[:len(s.Attached)/2]
		case s.Audit != nil && len(s.Audit.Worst) > 0:
			a := *s.Audit
			a.Worst, s.Audit = a.Worst[:len(a.Worst)/2], &a
		case len(s.Silent) > 0:
			s.Silent = s.Silent[:len(s.Silent)/2]
		case len(s.Failures) > 1:
			s.Dropped++
			s.Failures = s.Failures[:len(s.Failures)-1]
		case len(s.Changes) > 0:
			s.Changes = s.Changes[1:]
		default:
			return // what is left is bounded by the kernel: names of a release, a few numbers
		}
	}
}

func (s *Status) fits() bool {
	b, err := json.Marshal(s)
	return err == nil && len(b) <= MaxBytes
}
