// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/check"
)

// Check writes a table with a line per program, then what is to be said of those that do not load, then the sum.
func (t *Text) Check(r *check.Report) error {
	p := page{t: t}
	p.b.WriteString(t.checkTable(r))
	for _, o := range r.Objects {
		if o.Error != "" {
			p.b.WriteString(t.paint("UNREADABLE", yellow) + "  " + Clean(o.Path+": "+o.Error) + "\n\n")
		}
		for i := range o.Programs {
			checkDetails(&p, o.Path, &o.Programs[i])
		}
	}
	p.b.WriteString(checkSum(r) + "\n")
	_, err := t.w.Write(p.b.Bytes())
	return err
}

// checkColumns are the columns of the table, with what they hold of a program.
var checkColumns = []struct {
	Column
	cell func(path string, p *check.Program) string
}{
	{Column{Title: "OBJECT"}, func(path string, _ *check.Program) string { return path }},
	{Column{Title: "PROGRAM"}, func(_ string, p *check.Program) string { return p.Name }},
	{Column{Title: "VERDICT"}, func(_ string, p *check.Program) string { return verdictCell(p) }},
	{Column{Title: "INSNS", Right: true}, func(_ string, p *check.Program) string { return strconv.Itoa(p.Insns) }},
	{Column{Title: "BLINDED", Right: true}, func(_ string, p *check.Program) string { return strconv.Itoa(p.Blinded) }},
	{Column{Title: "MARGIN", Right: true}, func(_ string, p *check.Program) string { return marginCell(p) }},
	{Column{Title: "CONFIDENCE"}, func(_ string, p *check.Program) string { return string(p.Confidence) }},
	{Column{Title: "BLINDING", Right: true}, func(_ string, p *check.Program) string { return roughly(p.BlindingNS) }},
}

// checkTable is empty where no object could be read.
func (t *Text) checkTable(r *check.Report) string {
	columns := make([]Column, len(checkColumns))
	for i, c := range checkColumns {
		columns[i] = c.Column
	}
	var rows []Row
	for _, o := range r.Objects {
		if len(o.Programs) == 0 && o.Error == "" {
			rows = append(rows, Row{Cells: []string{o.Path, "(no programs)", "-", "-", "-", "-", "-", "-"}})
		}
		for i := range o.Programs {
			row := Row{Cells: make([]string, len(checkColumns))}
			for n, c := range checkColumns {
				row.Cells[n] = c.cell(o.Path, &o.Programs[i])
			}
			if o.Programs[i].Verdict != check.Loads {
				row.Paint = Bad
			}
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		return ""
	}
	return t.table(columns, rows) + "\n"
}

func verdictCell(p *check.Program) string {
	switch {
	case p.Verdict != check.Loads:
		return strings.ToUpper(string(p.Verdict))
	case p.Unprivileged != "":
		return "loads, " + strings.ToUpper(string(p.Unprivileged)) + " without CAP_BPF"
	}
	return string(p.Verdict)
}

func marginCell(p *check.Program) string {
	if p.Jump == nil {
		return "-"
	}
	return strconv.Itoa(p.Margin)
}

// roughly is for an estimate.
func roughly(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Millisecond:
		return "<1ms"
	}
	return "~" + duration(d)
}

func checkDetails(p *page, path string, c *check.Program) {
	if c.Verdict == check.Loads {
		return
	}
	t := p.t
	p.b.WriteString(t.bold(t.paint(strings.ToUpper(string(c.Verdict)), red)) + "  " +
		t.bold(Clean(fmt.Sprintf("%s (%s, %d insns)", c.Name, c.Section, c.Insns))) + "\n")
	if c.Danger != "" {
		p.print("DANGER", "Where the kernel interprets it instead: "+lowerFirst(c.Danger))
	}
	p.print("object", path)
	if j := c.Jump; j != nil {
		p.print("jump", fmt.Sprintf("instruction %d to %d of %s", j.From, j.To, j.Function))
		p.verbatim("", "", j.Insn)
		p.print("", jumpWords(c))
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
	p.print("known", "predicted, "+string(c.Confidence)+confidences[c.Confidence])
	if rule, ok := explain.ByID(c.Rule); ok {
		p.print("rule", rule.ID+", "+rule.Title)
	}
	p.print("leads to", consequence(c.Verdict))
	p.verbatim("repair", "", "bpfwhy fix "+quote(path)+" -o "+quote(strings.TrimSuffix(path, ".o")+".fixed.o"))
	p.b.WriteByte('\n')
}

func jumpWords(c *check.Program) string {
	s := fmt.Sprintf("after blinding it needs the offset %d; 16 bits reach %d", c.Jump.Need, c.Jump.Limit)
	if c.Confidence == check.Possible {
		s = fmt.Sprintf("after blinding it may need the offset %d; 16 bits reach %d", c.Jump.Need, c.Jump.Limit)
	}
	return s
}

var confidences = map[check.Confidence]string{
	check.Likely:   ": it is so as the code stands. What the verifier finds to be dead code it removes first, which could change it.",
	check.Possible: ": not as the code stands, but the verifier rewrites it first (context accesses, helpers, divisions), and may add that much.",
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// consequence says what the kernel makes of a program that does not survive.
func consequence(v check.Verdict) string {
	if v == check.Wraps {
		return "a program that jumps to the wrong place: the kernel compiles it and reports success (up to 6.18). Never load it hardened."
	}
	return "error 524 from bpf(2) where the kernel has no interpreter (CONFIG_BPF_JIT_ALWAYS_ON), a program that is interpreted elsewhere."
}

func checkSum(r *check.Report) string {
	s := r.Summary
	kernel := "on every kernel from 5.10 to 7.2"
	if r.Kernel != "any" {
		kernel = "on " + Clean(r.Kernel)
	}
	line := fmt.Sprintf("%s in %s, bpf_jit_harden=%d, %s: %d load", plural(s.Programs, "program"), plural(s.Objects, "object"), r.Harden, kernel, s.Loads)
	for _, part := range []struct {
		n    int
		text string
	}{{s.Fails, "fail"}, {s.Wraps, "would be compiled wrong"}} {
		if part.n > 0 {
			line += fmt.Sprintf(", %d %s", part.n, part.text)
		}
	}
	if s.Bad > 0 {
		line += fmt.Sprintf("; %s unreadable", plural(s.Bad, "object"))
	}
	if s.Skipped > 0 {
		line += fmt.Sprintf("; %s for other machines passed over", plural(s.Skipped, "object"))
	}
	return line
}

// quote makes a path one word of a shell.
func quote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@,=") == "" && s[0] != '-' {
		return s
	}
	if strings.HasPrefix(s, "-") {
		s = "./" + s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
