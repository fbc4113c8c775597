// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/objects/check"
	"github.com/bpfwhy/bpfwhy/internal/output/text"
)

// Check writes a table with a line per program, then what is to be said of those that do not load
// or have too little room, what is equal in one block, then the sum.
func (t *Text) Check(r *check.Report) error {
	p := page{t: t}
	p.b.WriteString(t.checkTable(r))
	for _, f := range checkFindings(r) {
		f.print(&p, r.MinMargin)
	}
	for _, o := range r.Objects {
		if o.Error != "" {
			p.b.WriteString(t.paint("UNREADABLE", yellow) + "  " + text.Clean(o.Path+": "+o.Error) + "\n\n")
		}
	}
	p.b.WriteString(t.lines(0, checkSum(r)) + "\n")
	_, err := t.w.Write(p.b.Bytes())
	return err
}

// checkColumns are the columns of the table, with what they hold of a program.
var checkColumns = []struct {
	Column
	cell func(path string, p *check.Program) string
}{
	{Column{Title: "OBJECT", Shrink: true, Path: true}, func(path string, _ *check.Program) string { return path }},
	{Column{Title: "PROGRAM", Shrink: true}, func(_ string, p *check.Program) string { return p.Name }},
	{Column{Title: "VERDICT"}, func(_ string, p *check.Program) string { return verdictCell(p) }},
	{Column{Title: "INSNS", Right: true, Drop: 3}, func(_ string, p *check.Program) string { return strconv.Itoa(p.Insns) }},
	{Column{Title: "BLINDED", Right: true, Drop: 2}, func(_ string, p *check.Program) string { return strconv.Itoa(p.Blinded) }},
	{Column{Title: "MARGIN", Right: true}, func(_ string, p *check.Program) string { return marginCell(p) }},
	{Column{Title: "CONFIDENCE", Drop: 4}, func(_ string, p *check.Program) string { return string(p.Confidence) }},
	{Column{Title: "BLINDING", Right: true, Drop: 1}, func(_ string, p *check.Program) string { return roughly(p.BlindingNS) }},
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
			switch {
			case o.Programs[i].Rejected:
				row.Paint = Bad
			case o.Programs[i].MayOnly():
				row.Paint = Doubtful
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
		return verdictWord(p)
	case p.Unprivileged != "":
		return "loads, " + strings.ToUpper(string(p.Unprivileged)) + " without CAP_BPF"
	case p.Tight:
		return "loads, TIGHT"
	}
	return string(p.Verdict)
}

// verdictWord is what stands before a finding.
func verdictWord(p *check.Program) string {
	switch {
	case p.Verdict == check.Loads:
		return "TIGHT"
	case p.MayOnly():
		return map[check.Verdict]string{check.Fails: "MAY FAIL", check.Wraps: "MAY WRAP"}[p.Verdict]
	}
	return strings.ToUpper(string(p.Verdict))
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

func checkSum(r *check.Report) string {
	s := r.Summary
	kernel := "on every kernel from 5.10 to 7.2"
	if r.Kernel != "any" {
		kernel = "on " + r.Kernel
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
	if s.Possible > 0 {
		line += fmt.Sprintf(" (%d only possibly)", s.Possible)
	}
	if s.Tight > 0 {
		line += fmt.Sprintf("; %d with fewer than %d slots to spare", s.Tight, r.MinMargin)
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
