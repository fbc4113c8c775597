// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/check"
	"github.com/mattn/go-runewidth"
)

// Check writes a table with a line per program, then what is to be said of those that do not load, then the sum.
func (t *Text) Check(r *check.Report) error {
	p := page{t: t}
	t.checkTable(&p, r)
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

// checkColumns: the widths of the first two depend on what is in them.
var checkColumns = []struct {
	title string
	right bool
	cell  func(path string, p *check.Program) string
}{
	{"OBJECT", false, func(path string, _ *check.Program) string { return path }},
	{"PROGRAM", false, func(_ string, p *check.Program) string { return p.Name }},
	{"VERDICT", false, func(_ string, p *check.Program) string { return verdictCell(p) }},
	{"INSNS", true, func(_ string, p *check.Program) string { return strconv.Itoa(p.Insns) }},
	{"BLINDED", true, func(_ string, p *check.Program) string { return strconv.Itoa(p.Blinded) }},
	{"MARGIN", true, func(_ string, p *check.Program) string { return marginCell(p) }},
	{"CONFIDENCE", false, func(_ string, p *check.Program) string { return string(p.Confidence) }},
	{"BLINDING", true, func(_ string, p *check.Program) string { return roughly(p.BlindingNS) }},
}

func (t *Text) checkTable(p *page, r *check.Report) {
	var rows [][]string
	var colours []string
	add := func(colour string, cells []string) {
		rows, colours = append(rows, cells), append(colours, colour)
	}
	titles := make([]string, len(checkColumns))
	for i, c := range checkColumns {
		titles[i] = c.title
	}
	add("", titles)
	for _, o := range r.Objects {
		if len(o.Programs) == 0 && o.Error == "" {
			add("", []string{o.Path, "(no programs)", "-", "-", "-", "-", "-", "-"})
		}
		for i := range o.Programs {
			cells := make([]string, len(checkColumns))
			for n, c := range checkColumns {
				cells[n] = Clean(c.cell(o.Path, &o.Programs[i]))
			}
			colour := ""
			if o.Programs[i].Verdict != check.Loads {
				colour = red
			}
			add(colour, cells)
		}
	}
	if len(rows) == 1 {
		return
	}
	widths := make([]int, len(checkColumns))
	for _, cells := range rows {
		for i, c := range cells {
			widths[i] = max(widths[i], runewidth.StringWidth(c))
		}
	}
	for n, cells := range rows {
		var b strings.Builder
		for i, c := range cells {
			pad := strings.Repeat(" ", widths[i]-runewidth.StringWidth(c))
			if i > 0 {
				b.WriteString("  ")
			}
			if checkColumns[i].right {
				b.WriteString(pad + c)
			} else {
				b.WriteString(c + pad)
			}
		}
		line := strings.TrimRight(b.String(), " ")
		switch {
		case n == 0:
			line = t.bold(line)
		case colours[n] != "":
			line = t.paint(line, colours[n])
		}
		p.b.WriteString(line + "\n")
	}
	p.b.WriteByte('\n')
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
	line := fmt.Sprintf("%s in %s, bpf_jit_harden=%d, %s: %d load", many(s.Programs, "program"), many(s.Objects, "object"), r.Harden, kernel, s.Loads)
	for _, part := range []struct {
		n    int
		text string
	}{{s.Fails, "fail"}, {s.Wraps, "would be compiled wrong"}} {
		if part.n > 0 {
			line += fmt.Sprintf(", %d %s", part.n, part.text)
		}
	}
	if s.Bad > 0 {
		line += fmt.Sprintf("; %s unreadable", many(s.Bad, "object"))
	}
	if s.Skipped > 0 {
		line += fmt.Sprintf("; %s for other machines passed over", many(s.Skipped, "object"))
	}
	return line
}

func many(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
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
