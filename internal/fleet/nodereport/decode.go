// SPDX-License-Identifier: Apache-2.0

package nodereport

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
)

// List is a list of Kubernetes, as kubectl writes it: of reports and the classes that they name.
type List struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Items      []any  `json:"items"`
}

// NewList returns the list of a report and, unless it is nil, its class.
func NewList(r *Report, c *Class) *List {
	l := &List{APIVersion: "v1", Kind: "List", Items: []any{r}}
	if c != nil {
		l.Items = append(l.Items, c)
	}
	return l
}

// maxItems bounds the objects of a list.
const maxItems = 100_000

// ErrOther says that a text is JSON, and none of our objects.
var ErrOther = errors.New("not a NodeReport, a NodeClass, or a list of them")

// Decode reads one object or a list, as 'serve' and 'kubectl get -o json' write them. The caller
// bounds the length of the text.
func Decode(in io.Reader) (reports []*Report, classes []*Class, err error) {
	var top json.RawMessage
	if err := json.NewDecoder(in).Decode(&top); err != nil {
		return nil, nil, err
	}
	var list struct {
		Kind  string            `json:"kind"`
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(top, &list); err != nil {
		return nil, nil, ErrOther
	}
	switch list.Kind {
	case ReportKind, ClassKind:
		list.Items = []json.RawMessage{top}
	case "List", ReportKind + "List", ClassKind + "List":
	default:
		return nil, nil, ErrOther
	}
	if len(list.Items) > maxItems {
		return nil, nil, fmt.Errorf("a list of more than %d objects", maxItems)
	}
	for i, text := range list.Items {
		r, c, err := decodeOne(text)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("object %d: %w", i+1, err)
		case r != nil:
			reports = append(reports, r)
		default:
			classes = append(classes, c)
		}
	}
	return reports, classes, nil
}

func decodeOne(text json.RawMessage) (*Report, *Class, error) {
	var head struct {
		APIVersion string   `json:"apiVersion"`
		Kind       string   `json:"kind"`
		Metadata   Metadata `json:"metadata"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, nil, err
	}
	switch {
	case head.APIVersion != APIVersion:
		return nil, nil, fmt.Errorf("apiVersion is %.40q, this version reads %q", head.APIVersion, APIVersion)
	case head.Metadata.Name == "" || len(head.Metadata.Name) > 253:
		return nil, nil, errors.New("it has no name")
	case head.Kind == ReportKind:
		r := new(Report)
		return r, nil, json.Unmarshal(text, r)
	case head.Kind == ClassKind:
		c := new(Class)
		if err := json.Unmarshal(text, c); err != nil {
			return nil, nil, err
		}
		var written struct {
			Spec json.RawMessage `json:"spec"`
		}
		if err := json.Unmarshal(text, &written); err != nil {
			return nil, nil, err
		}
		if id, err := fleet.ClassID(written.Spec); c.Spec == nil || err != nil || id != c.Metadata.Name {
			return nil, nil, fmt.Errorf("class %.40q is not what its name says", c.Metadata.Name)
		}
		return nil, c, nil
	}
	return nil, nil, ErrOther
}

// Over are the kinds of failures that fail no longer in any workload.
func (s *Status) Over() (ids []string) {
	for i := range s.Failures {
		id := s.Failures[i].ID
		if !slices.ContainsFunc(s.Failures, func(f Failure) bool { return f.ID == id && !f.Over }) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Node is what a report tells of its node. The class is nil where it is not known. Unlike the
// report, it has only what fails now.
func (r *Report) Node(c *Class) *fleet.Node {
	n := &fleet.Node{Name: r.Metadata.Name, Watched: r.Status.Watching != nil, Dropped: int(min(r.Status.Dropped, 1<<31))}
	if c != nil {
		n.Profile = c.Spec.Profile()
	}
	n.Audit = r.Status.Audit
	for i := range r.Status.Failures {
		if f := r.Status.Failures[i]; !f.Over {
			if f.Workload != (Workload{}) {
				f.Workloads = []Workload{f.Workload}
			}
			n.Count(f.Failure, f.Settings)
		}
	}
	for _, p := range r.Status.Loaded {
		n.Works(p.Program, p.Count)
	}
	return n
}
