// SPDX-License-Identifier: Apache-2.0

package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/nodediff"
	"github.com/bpfwhy/bpfwhy/node"
)

// Headings of the three kinds of differences.
var effects = []struct {
	effect node.Effect
	label  string
}{{node.Decides, "decides"}, {node.MayDecide, "may"}, {node.Informs, "besides"}}

func difference(x *node.Difference) string {
	s := fmt.Sprintf("%s: A %s, B %s", x.Name, x.A, x.B)
	if x.Why != "" {
		s += "; " + x.Why
	}
	if len(x.Rules) > 0 && x.Effect != node.Informs {
		s += " (" + strings.Join(rulesOnly(x.Rules), ", ") + ")"
	}
	return s
}

// NodeDiff writes what two nodes differ in, and what explains the failures of a trace, if there is
// one.
func (t *Text) NodeDiff(d *nodediff.Report, traceFile string) error {
	counts := map[node.Effect]int{}
	for _, x := range d.Differences {
		counts[x.Effect]++
	}
	headline := fmt.Sprintf("%d of %d differences decide whether programs load, %d may", counts[node.Decides], len(d.Differences), counts[node.MayDecide])
	if len(d.Differences) == 0 {
		headline = "No difference that decides whether programs load"
	}
	sections := []Section{
		{Label: "A", Items: []string{strings.TrimSpace(d.A.Source + ", " + cmp.Or(d.A.Release, "an unknown kernel"))}},
		{Label: "B", Items: []string{strings.TrimSpace(d.B.Source + ", " + cmp.Or(d.B.Release, "an unknown kernel"))}},
	}
	for _, e := range effects {
		var items []string
		for _, x := range d.Differences {
			if x.Effect == e.effect {
				items = append(items, difference(&x))
			}
		}
		if len(items) > 0 {
			sections = append(sections, Section{Label: e.label, Items: items})
		}
	}
	if err := t.Page(headline, sections); err != nil || traceFile == "" {
		return err
	}
	if len(d.Failures) == 0 {
		return t.Page(traceFile+" contains no failure", nil)
	}
	for i := range d.Failures {
		f := &d.Failures[i]
		if err := t.Page(fmt.Sprintf("%s, %s", f.Rule, f.Title), failureSections(f)); err != nil {
			return err
		}
	}
	if d.MoreFailures > 0 {
		return t.Page(fmt.Sprintf("%d more kinds of failures are left out", d.MoreFailures), nil)
	}
	return nil
}

// failureSections say what failed, and which differences explain it.
func failureSections(f *nodediff.Failure) []Section {
	what := fmt.Sprintf("%s of %s", cmp.Or(f.Program, "(no name)"), f.Comm)
	if f.Errno != 0 {
		what += fmt.Sprintf(", errno %d", f.Errno)
	}
	if f.Count > 1 {
		what += fmt.Sprintf(", %d times", f.Count)
	}
	sections := []Section{{Label: "failed", Items: []string{what + ", on A"}}}
	var certain, maybe []string
	for _, c := range f.By {
		s := fmt.Sprintf("%s: A %s, B %s", c.Name, c.A, c.B)
		if c.Because != "" {
			s += "; " + c.Because
		}
		if c.Sure {
			certain = append(certain, s)
		} else {
			maybe = append(maybe, s)
		}
	}
	if len(f.By) == 0 {
		certain = []string{"no difference explains it: by the profiles, it would fail on B too"}
	}
	if len(certain) > 0 {
		sections = append(sections, Section{Label: "because", Items: certain})
	}
	if len(maybe) > 0 {
		sections = append(sections, Section{Label: "perhaps", Items: maybe})
	}
	return sections
}

// rulesOnly leaves out the prefixes that stand for whole families.
func rulesOnly(rules []string) []string {
	return slices.DeleteFunc(slices.Clone(rules), func(r string) bool { return len(r) == 3 })
}
