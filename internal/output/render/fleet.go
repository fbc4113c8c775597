// SPDX-License-Identifier: Apache-2.0

package render

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/node"
)

// FleetOverview writes the classes of a fleet, and what fails in it.
func (t *Text) FleetOverview(f *fleet.Fleet) error {
	kinds := f.Kinds()
	failing := 0
	rows := make([]Row, 0, len(kinds))
	for _, k := range kinds {
		failing += k.Failing
		r := Row{Cells: []string{
			cmp.Or(k.Class, "(no profile)"), strconv.Itoa(len(k.Nodes)), strconv.Itoa(k.Failing),
			cmp.Or(k.Release, "unknown"), cmp.Or(k.Harden, "unknown"), some(k.Nodes),
		}}
		if k.Failing > 0 {
			r.Paint = Bad
		}
		rows = append(rows, r)
	}
	headline := fmt.Sprintf("%s of %s, something fails on %d", plural(len(f.Nodes), "node"), classes(len(kinds)), failing)
	if err := t.Page(headline, nil); err != nil {
		return err
	}
	err := t.Table([]Column{{Title: "CLASS"}, {Title: "NODES", Right: true}, {Title: "FAILING", Right: true},
		{Title: "KERNEL", Most: 34, Shrink: true}, {Title: "HARDEN", Right: true}, {Title: "NAMES", Shrink: true, Drop: 1}}, rows)
	if err != nil || failing == 0 {
		return err
	}
	if err := t.write("\n"); err != nil {
		return err
	}
	return t.FleetFailures(f.Problems())
}

func classes(n int) string {
	if n == 1 {
		return "1 class"
	}
	return fmt.Sprintf("%d classes", n)
}

// FleetFailures writes one line for each kind of failures.
func (t *Text) FleetFailures(problems []*fleet.Problem) error {
	rows := make([]Row, 0, len(problems))
	for _, p := range problems {
		errno := "-"
		if p.Errno != 0 {
			errno = strconv.Itoa(p.Errno)
		}
		rows = append(rows, Row{Paint: Bad, Cells: []string{
			p.ID, p.Rule, p.Program.String(), p.Comm, errno,
			strconv.Itoa(len(p.Fail)), strconv.Itoa(len(p.Work)), strconv.Itoa(p.Count), p.Last.UTC().Format("2006-01-02 15:04"),
		}})
	}
	return t.Table([]Column{{Title: "ID"}, {Title: "RULE"}, {Title: "PROGRAM", Most: 40, Shrink: true}, {Title: "PROCESS", Most: 16, Drop: 3},
		{Title: "ERRNO", Right: true}, {Title: "FAILS ON", Right: true}, {Title: "WORKS ON", Right: true},
		{Title: "TIMES", Right: true, Drop: 2}, {Title: "LAST (UTC)", Drop: 1}}, rows)
}

// some names a few of many.
func some(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// counted names nodes behind their number.
func counted(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return fmt.Sprintf("%s: %s", plural(len(names), "node"), some(names))
}

// FleetReason writes why a program fails on some nodes and not on others.
func (t *Text) FleetReason(r *fleet.Reason) error {
	p := r.Problem
	what := fmt.Sprintf("%s of %s, %s", p.Program, cmp.Or(p.Comm, "(no name)"), p.Kind)
	if p.Errno != 0 {
		what += fmt.Sprintf(", errno %d", p.Errno)
	}
	s := []Section{
		{Label: "what", Items: []string{what}},
		{Label: "fails on", Items: []string{counted(p.Fail)}},
		{Label: worksOn(p), Items: []string{counted(p.Work)}},
	}
	if len(p.Workloads) > 0 {
		s = slices.Insert(s, 1, Section{Label: "workload", Items: []string{workloads(p.Workloads)}})
	}
	if len(p.Otherwise) > 0 {
		s = append(s, Section{Label: "otherwise", Items: []string{"fails for another reason on " + counted(p.Otherwise)}})
	}
	if len(p.Unseen) > 0 {
		s = append(s, Section{Label: "not seen", Items: []string{"it neither failed nor succeeded on " + counted(p.Unseen)}})
	}
	s = append(s, Section{Label: "cause", Items: []string{p.Message}})
	s = append(s, separated(r)...)
	if p.Remedy != "" {
		s = append(s, Section{Label: "do first", Items: []string{p.Remedy + fmt.Sprintf(". All ways out: 'bpfwhy explain %s'", p.Rule)}})
	}
	return t.Page(fmt.Sprintf("%s  %s, %s", p.ID, p.Rule, p.Title), s)
}

// workloads names a few of what runs the program.
func workloads(list []fleet.Workload) string {
	names := make([]string, len(list))
	for i, w := range list {
		names[i] = w.String()
	}
	return some(names)
}

// worksOn is what is said of the nodes where the same succeeds.
func worksOn(p *fleet.Problem) string {
	if p.Kind.Attaches() {
		return "works on"
	}
	return "loads on"
}

// separated is what tells the two sides apart, and what nobody knows.
func separated(r *fleet.Reason) []Section {
	p := r.Problem
	var s []Section
	var reasons, besides []string
	for i := range r.By {
		line := separation(&r.By[i])
		if r.By[i].Explains && !r.By[i].Unique {
			reasons = append(reasons, line)
		} else {
			besides = append(besides, line)
		}
	}
	switch {
	case len(p.Work)+len(p.Unseen) == 0:
		s = append(s, Section{Label: "why there", Items: []string{"nothing to compare with: it fails on every node that was watched"}})
	case len(r.By)+len(r.Unknown) == 0:
		s = append(s, Section{Label: "why there", Items: []string{"nothing that is known of these nodes separates those where it fails from the others"}})
	case len(reasons) == 0:
		s = append(s, Section{Label: "why there", Items: []string{fmt.Sprintf("nothing that %s depends on separates these nodes", p.Rule)}})
	default:
		s = append(s, Section{Label: "why there", Items: reasons})
	}
	if r.Assumed {
		s = append(s, Section{Label: "assumed", Items: []string{"nobody saw it succeed anywhere. It is compared with the nodes that were watched and where it did not fail"}})
	}
	if len(besides) > 0 {
		const most = 6
		if more := len(besides) - most; more > 0 {
			besides = append(besides[:most], fmt.Sprintf("and %d more (--json has all)", more))
		}
		s = append(s, Section{Label: "besides", Items: besides})
	}
	var unknown []string
	for _, u := range r.Unknown {
		unknown = append(unknown, fmt.Sprintf("%s was not read on %s", u.Name, plural(u.Nodes, "node")))
	}
	if len(unknown) > 0 {
		s = append(s, Section{Label: "unknown", Items: unknown})
	}
	return s
}

func separation(x *fleet.Separation) string {
	line := fmt.Sprintf("%s: %s where it fails, %s elsewhere", x.Name, values(x.Fail), values(x.Work))
	if x.Why != "" && x.Effect != node.Informs {
		line += "; " + x.Why
	}
	return line
}

// values names a few values, with the number of nodes where there are several.
func values(list []fleet.Value) string {
	const most = 3
	var out []string
	for i, v := range list {
		if i == most {
			out = append(out, fmt.Sprintf("%d more", len(list)-most))
			break
		}
		if len(list) == 1 {
			return v.Value
		}
		out = append(out, fmt.Sprintf("%s (%d)", v.Value, v.Nodes))
	}
	return strings.Join(out, " or ")
}

// FleetDiff writes what separates two sets of nodes.
func (t *Text) FleetDiff(a, b string, list []fleet.Separation, unknown []fleet.Unknown) error {
	headline := fmt.Sprintf("%d properties in which all of A differ from all of B", len(list))
	if len(list) == 1 {
		headline = "1 property in which all of A differ from all of B"
	}
	s := []Section{{Label: "A", Items: []string{a}}, {Label: "B", Items: []string{b}}}
	for _, e := range effects {
		var items []string
		for i := range list {
			if x := &list[i]; x.Effect == e.effect {
				line := fmt.Sprintf("%s: A %s, B %s", x.Name, values(x.Fail), values(x.Work))
				if x.Why != "" {
					line += "; " + x.Why
				}
				items = append(items, line)
			}
		}
		if len(items) > 0 {
			s = append(s, Section{Label: e.label, Items: items})
		}
	}
	for _, u := range unknown {
		s = append(s, Section{Label: "unknown", Items: []string{fmt.Sprintf("%s was not read on %s", u.Name, plural(u.Nodes, "node"))}})
	}
	return t.Page(headline, s)
}

// FleetHardened writes what a value of net.core.bpf_jit_harden would break.
func (t *Text) FleetHardened(c *fleet.Change) error {
	headline := fmt.Sprintf("net.core.bpf_jit_harden=%d would break BPF programs on %s, none on %d, not known on %d",
		c.Harden, plural(len(c.Nodes), "node"), len(c.Fine), len(c.Unjudged))
	var s []Section
	if len(c.Unjudged) > 0 {
		s = append(s, Section{Label: "unknown", Items: []string{"nobody could judge all programs of " + counted(c.Unjudged)}})
	}
	if err := t.Page(headline, s); err != nil || len(c.Nodes) == 0 {
		return err
	}
	rows := make([]Row, 0, len(c.Nodes))
	for _, n := range c.Nodes {
		names := make([]string, 0, len(n.Worst))
		for _, w := range n.Worst {
			name := w.Program
			if w.Owner != "" {
				name += " of " + w.Owner
			}
			names = append(names, name)
		}
		rows = append(rows, Row{Paint: Bad, Cells: []string{n.Node, cmp.Or(n.Now, "unknown"), strconv.Itoa(n.Breaks), some(names)}})
	}
	return t.Table([]Column{{Title: "NODE", Shrink: true}, {Title: "NOW", Right: true}, {Title: "BREAKS", Right: true}, {Title: "PROGRAMS", Shrink: true}}, rows)
}
