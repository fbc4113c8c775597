// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"strings"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/objects/check"
	"github.com/bpfwhy/bpfwhy/rewrite"
)

// checkFinding is what is to be said of a program, and the others of which the same is to be said:
// functions are inlined into many programs, and programs are built for many objects.
type checkFinding struct {
	programs []placed
}

type placed struct {
	*check.Program
	in *check.Object
}

// checkKey is what makes findings equal: the same jump of the same source, or without sources the
// same jump.
type checkKey struct {
	verdict         check.Verdict
	confidence      check.Confidence
	rule            string
	danger          bool
	from, to        check.Source
	need, slot, end int
	insn            string
}

func keyOf(p *check.Program) checkKey {
	k := checkKey{verdict: p.Verdict, confidence: p.Confidence, rule: p.Rule, danger: p.Danger != ""}
	switch j := p.Jump; {
	case j == nil:
	case j.Source != nil && j.Target != nil:
		k.from, k.to = *j.Source, *j.Target
	default:
		k.need, k.slot, k.end, k.insn = j.Need, j.From, j.To, j.Insn
	}
	return k
}

// checkFindings are in the order of the report.
func checkFindings(r *check.Report) []*checkFinding {
	var list []*checkFinding
	known := map[checkKey]*checkFinding{}
	for n := range r.Objects {
		o := &r.Objects[n]
		for i := range o.Programs {
			p := &o.Programs[i]
			if p.Verdict == check.Loads && !p.Tight {
				continue
			}
			k := keyOf(p)
			f := known[k]
			if f == nil {
				f = &checkFinding{}
				known[k] = f
				list = append(list, f)
			}
			f.programs = append(f.programs, placed{p, o})
		}
	}
	return list
}

// Most programs and commands that a finding lists; JSON has all.
const (
	mostAlike   = 20
	mostRepairs = 5
)

func (f *checkFinding) print(p *page, minMargin int) {
	c := f.programs[0]
	t := p.t
	colour := red
	if !c.Rejected {
		colour = yellow
	}
	p.b.WriteString(t.bold(t.paint(verdictWord(c.Program), colour)) + "  " + t.bold(t.lines(8, title(c.Program))) + "\n")
	if c.Danger != "" {
		p.print("DANGER", "Where the kernel interprets it instead: "+lowerFirst(c.Danger))
	}
	p.print("object", c.in.Path)
	f.others(p)
	if j := c.Jump; j != nil {
		p.print("jump", fmt.Sprintf("instruction %d to %d of %s", j.From, j.To, j.Function))
		p.verbatim("", "", j.Insn)
		p.print("", jumpWords(c.Program))
		source := func(label string, s *check.Source) {
			if s != nil {
				p.verbatim("", label, s.String()+"   "+s.Text)
			}
		}
		source("from ", j.Source)
		source("to   ", j.Target)
	}
	if c.TooFar > 1 {
		p.print("", fmt.Sprintf("%d jumps are too long", c.TooFar))
	}
	p.print("grows", fmt.Sprintf("from %d to %d slots", c.Insns, c.Blinded))
	if c.Verdict == check.Loads {
		p.print("margin", fmt.Sprintf("%s left, and at least %d were asked for", plural(c.Margin, "slot"), minMargin))
	} else {
		p.print("known", "predicted, "+string(c.Confidence)+confidences[c.Confidence])
		if rule, ok := explain.ByID(c.Rule); ok {
			p.print("rule", rule.ID+", "+rule.Title)
		}
		p.print("leads to", consequence(c.Program))
	}
	f.repairs(p, minMargin)
	p.b.WriteByte('\n')
}

func title(c *check.Program) string {
	return fmt.Sprintf("%s (%s, %d insns)", c.Name, c.Section, c.Insns)
}

// others are the programs of which the same is to be said.
func (f *checkFinding) others(p *page) {
	rest := f.programs[1:]
	label := "same for"
	for _, o := range rest[:min(len(rest), mostAlike)] {
		s := title(o.Program) + " of " + o.in.Path
		if o.Jump != nil && o.Jump.Need != f.programs[0].Jump.Need {
			s += fmt.Sprintf(", where it is the offset %d", o.Jump.Need)
		}
		p.item(label, "- ", s)
		label = ""
	}
	if n := len(rest) - mostAlike; n > 0 {
		p.item("", "- ", fmt.Sprintf("%d more", n))
	}
}

// repairs are the commands, one for each object.
func (f *checkFinding) repairs(p *page, minMargin int) {
	label, done := "repair", map[string]bool{}
	limit := ""
	if f.programs[0].Tight { // fix leaves alone what loads, unless it has a limit
		limit = fmt.Sprintf(" --limit %d", max(blinding.MaxOffset-minMargin, rewrite.MinLimit))
	}
	for _, c := range f.programs {
		path := c.in.Path
		switch {
		case c.in.Within != "" && !done[""]:
			done[""] = true
			p.print(label, "run 'bpfwhy fix"+limit+"' on the object before it is embedded, or run the loader by 'bpfwhy run --repair -- LOADER'")
			label = ""
		case c.in.Within == "" && !done[path]:
			done[path] = true
			if len(done) <= mostRepairs {
				p.verbatim(label, "", "bpfwhy fix "+quote(path)+" -o "+quote(strings.TrimSuffix(path, ".o")+".fixed.o")+limit)
				label = ""
			}
		}
	}
	if n := len(done) - mostRepairs; n > 0 {
		p.print("", fmt.Sprintf("and likewise for %d more", n))
	}
}

func jumpWords(c *check.Program) string {
	need := "needs"
	if c.MayOnly() {
		need = "may need"
	}
	return fmt.Sprintf("after blinding it %s the offset %d; 16 bits reach %d", need, c.Jump.Need, c.Jump.Limit)
}

var confidences = map[check.Confidence]string{
	check.Likely:   ": it is so as the code stands. What the verifier finds to be dead code it removes first, which could change it.",
	check.Possible: ": not as the code stands, but the verifier rewrites it first (context accesses, helpers, divisions), and may add that much.",
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// consequence says what the kernel makes of a program that does not survive.
func consequence(c *check.Program) string {
	if c.Verdict == check.Wraps {
		s := "a program that jumps to the wrong place: the kernel compiles it and reports success (before 7.3 and 7.2.10). Never load it hardened."
		return s + alsoPossible(c)
	}
	return "error 524 from bpf(2) where the kernel has no interpreter (CONFIG_BPF_JIT_ALWAYS_ON), a program that is interpreted elsewhere."
}

// alsoPossible is a sentence about what a kernel may do instead, "" where it is known what it does.
func alsoPossible(c *check.Program) string {
	if c.AlsoPossible == "" {
		return ""
	}
	return " Also possible: " + c.AlsoPossible + "."
}
