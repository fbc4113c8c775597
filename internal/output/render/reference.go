// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"strings"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/load"
)

// Rule writes what is known of a rule, without an attempt.
func (t *Text) Rule(r *explain.Rule) error {
	p := page{t: t}
	p.b.WriteString(t.bold(r.ID+"  "+t.lines(8, r.Title)) + "\n")
	label := "what"
	for paragraph := range strings.SplitSeq(r.Text, "\n\n") {
		p.print(label, paragraph)
		label = ""
	}
	if r.Kernels != "" {
		p.print("kernels", r.Kernels)
	}
	if r.Stage != "" {
		p.print("stage", string(r.Stage))
	}
	p.remedies(r.Remedies)
	p.b.WriteByte('\n')
	_, err := t.w.Write(p.b.Bytes())
	return err
}

// Errno writes all meanings of an errno.
func (t *Text) Errno(e *explain.Errno) error {
	p := page{t: t}
	p.b.WriteString(t.bold(fmt.Sprintf("%s (%d)", e.Name, e.Number)) + "\n")
	if e.Prints != "" {
		p.print("printed as", e.Prints)
	}
	if e.Note != "" {
		p.print("note", e.Note)
	}
	// The meanings come grouped by command.
	label, last := "meanings", ""
	for _, m := range e.Meanings {
		if m.Command != last {
			p.print(label, m.Command)
			label, last = "", m.Command
		}
		s := m.Text
		if len(m.Rules) > 0 {
			s += " (" + strings.Join(m.Rules, ", ") + ")"
		}
		p.item("", "- ", s)
	}
	if len(e.Meanings) > 0 {
		p.print("next", "'bpfwhy explain RULE' tells more. 'bpfwhy run -- COMMAND' or 'bpfwhy watch' finds out which one it is.")
	}
	p.b.WriteByte('\n')
	_, err := t.w.Write(p.b.Bytes())
	return err
}

// Section is a labelled paragraph, or several.
type Section struct {
	Label    string
	Items    []string
	Remedies []load.Remedy // in place of items, as a diagnosis lists them
}

// Page writes a headline and labelled sections; a section of several items is a list.
func (t *Text) Page(headline string, sections []Section) error {
	p := page{t: t}
	if headline != "" {
		p.b.WriteString(t.bold(t.lines(0, headline)) + "\n")
	}
	for _, s := range sections {
		label, bullet := s.Label, ""
		if len(s.Items) > 1 {
			bullet = "- "
		}
		for _, i := range s.Items {
			p.item(label, bullet, i)
			label = ""
		}
		p.remedies(s.Remedies)
	}
	p.b.WriteByte('\n')
	_, err := t.w.Write(p.b.Bytes())
	return err
}
