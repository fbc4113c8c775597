// SPDX-License-Identifier: Apache-2.0

// Package render turns attempts into what people and programs read. It is pure: the same attempt
// gives the same bytes. Strings that come from the traced side are made harmless here, at the edge.
package render

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/output/text"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/mattn/go-runewidth"
	"github.com/muesli/termenv"
)

// Text writes for people: a table with one line per attempt, and full explanations. Each method
// writes once, so that lines of two writers do not mix.
type Text struct {
	w       io.Writer
	width   int // of paragraphs
	cells   int // of the terminal; 0: it is none
	colour  termenv.Profile
	columns []column
}

// NewText writes to w, wrapped at width columns (0: not a terminal, which gives the widest table
// and paragraphs of 100).
func NewText(w io.Writer, width int, colour bool) *Text {
	t := &Text{w: w, width: width, cells: width, colour: termenv.Ascii, columns: columns(width)}
	if width == 0 {
		t.width, t.columns = 100, columns(1<<10)
	}
	t.width = min(max(t.width, 40), 120)
	if colour {
		t.colour = termenv.ANSI
	}
	return t
}

const (
	red    = "1"
	green  = "2"
	yellow = "3"
)

func (t *Text) paint(s, colour string) string {
	return t.colour.String(s).Foreground(t.colour.Color(colour)).String()
}

func (t *Text) bold(s string) string { return t.colour.String(s).Bold().String() }

// Heading writes the titles of the table's columns.
func (t *Text) Heading() error {
	return t.write(t.bold(row(t.columns, func(c column) string { return c.title })) + "\n")
}

// Line writes one attempt as one line of the table.
func (t *Text) Line(a *load.Attempt) error {
	s := row(t.columns, func(c column) string { return c.cell(a) })
	switch {
	case a.Outcome == load.Failed && a.Finding():
		s = t.paint(s, red)
	case a.Finding():
		s = t.paint(s, yellow)
	}
	return t.write(s + "\n")
}

// Repaired writes what was done to a program that would not have loaded.
func (t *Text) Repaired(a *load.Attempt) error {
	p := page{t: t}
	switch r := a.Repair; r.Applied {
	case load.RepairWindow:
		others := "around that time no other program was loaded"
		if n := len(r.Exposed); n > 0 {
			others = fmt.Sprintf("other programs loaded around that time: %s", strings.Trim(fmt.Sprint(r.Exposed), "[]"))
		}
		whole := ""
		if r.WholeCall {
			whole = ", for the whole load, because this kernel could not be made to wait"
		}
		p.print("repaired", fmt.Sprintf("constant blinding would have broken it. net.core.bpf_jit_harden was 1 instead of 2 for %v%s; %s",
			r.WindowNS.Round(time.Microsecond), whole, others))
	default:
		p.print("repaired", fmt.Sprintf("constant blinding would have broken it. It was loaded with %s, which make it %s longer",
			plural(r.Islands, "jump island"), plural(r.InsnsAdded, "instruction")))
	}
	p.b.WriteByte('\n')
	_, err := t.w.Write(p.b.Bytes())
	return err
}

func (t *Text) write(s string) error {
	_, err := io.WriteString(t.w, s)
	return err
}

// lines is what stands at the left edge, behind taken cells: on a terminal it is broken between
// words, and elsewhere it stays one line.
func (t *Text) lines(taken int, s string) string {
	if s = text.Clean(s); t.cells == 0 || runewidth.StringWidth(s) <= t.width-taken-2 {
		return s
	}
	return strings.Join(wrap(s, t.width-taken-2), "\n  ")
}

// Repeats writes how often a failure that was explained came again.
func (t *Text) Repeats(r *load.Summary) error {
	how := "not compiled"
	if r.Outcome == load.Failed {
		how = errnoCell(r.Errno, r.ErrnoName)
	}
	when := "at " + r.First.Format(time.TimeOnly)
	if last := r.Last.Format(time.TimeOnly); last != r.First.Format(time.TimeOnly) {
		when = "from " + r.First.Format(time.TimeOnly) + " to " + last
	}
	p := page{t: t}
	p.print("again", fmt.Sprintf("%s of %s: %s, %s as before; %s, by %s, last by pid %d", plural(int(r.Repeats), "more load"),
		nameCell(&load.Attempt{Program: r.Program, Map: r.Map}), how, cmp.Or(r.Rule, "the same"), when, r.Process.Comm, r.Process.PID))
	p.b.WriteByte('\n')
	_, err := t.w.Write(p.b.Bytes())
	return err
}

// Explain writes everything that is known of one attempt.
func (t *Text) Explain(a *load.Attempt) error {
	p := page{t: t}
	t.headline(&p, a)
	if a.Diagnosis != nil {
		p.danger(a.Diagnosis)
	}
	p.by(a)
	p.attach(a.Attach)
	stages(&p, a)
	jump(&p, a.Jump)
	diagnosis(&p, a.Diagnosis)
	log(&p, a.VerifierLog)
	kernelLog(&p, a.KernelLog)
	if a.Diagnosis != nil {
		p.remedies(a.Diagnosis.Remedies)
	}
	if a.Incomplete {
		why := strings.Join(a.IncompleteWhy, "; ")
		if why == "" {
			why = "events were lost while it ran"
		}
		p.print("lost", why)
	}
	p.b.WriteByte('\n')
	_, err := t.w.Write(p.b.Bytes())
	return err
}

func (t *Text) headline(p *page, a *load.Attempt) {
	word, colour := "FAILED", red
	switch a.Outcome {
	case load.Loaded:
		word, colour = "LOADED", green
	case load.LoadedNotJITed:
		word, colour = "NOT JITED", yellow
	}
	what := nameCell(a)
	switch {
	case a.Program != nil && a.Kind == load.ProgLoad:
		what += fmt.Sprintf(" (%s, %d insns)", a.Program.Type, a.Program.Insns)
	case a.Program != nil && a.Program.Insns > 0:
		what = fmt.Sprintf("%s filter (%d insns)", a.Kind, a.Program.Insns)
	case a.Map != nil:
		what += fmt.Sprintf(" (%s, %s)", a.Kind, a.Map.Type)
	default:
		what = string(a.Kind)
	}
	if a.Outcome == load.Failed {
		what += ": " + errnoCell(a.Errno, a.ErrnoName)
	}
	if a.FeatureProbe != "" {
		what += " [feature probe: " + a.FeatureProbe + "]"
	}
	p.b.WriteString(t.bold(t.paint(word, colour)) + "  " + t.bold(t.lines(8, what)) + "\n")
}

func stages(p *page, a *load.Attempt) {
	// A failure that was seen in another way, such as the end of a call without its beginning, is
	// not told as one that was not observed.
	known := a.Diagnosis != nil && a.Diagnosis.HowKnown == load.Observed
	var seen, unseen []string
	for _, r := range a.Stages {
		if r.Result == load.OK || r.Result == load.StageFailed {
			seen = append(seen, stageAndResult(r))
		} else if r.Stage != a.FailedStage || !known {
			unseen = append(unseen, string(r.Stage))
		}
	}
	if _, ok := a.Stage(a.FailedStage); !ok && a.FailedStage != "" && !known {
		unseen = append(unseen, string(a.FailedStage))
	}
	line := strings.Join(seen, ", ")
	if len(unseen) > 0 {
		if line != "" {
			line += "; "
		}
		line += "not observed: " + strings.Join(unseen, ", ")
	}
	if line != "" {
		p.print("stages", line)
	}
	if a.FailedStage != "" {
		p.print("failed in", string(a.FailedStage))
	}
}

// stageAndResult is one stage that was observed: its result, and how long it took or its errno.
func stageAndResult(r load.StageResult) string {
	s := string(r.Stage)
	switch {
	case r.Result == load.OK && r.DurationNS > 0:
		return s + " ok " + duration(r.DurationNS)
	case r.Result == load.OK:
		return s + " ok"
	case r.Errno != 0:
		return s + " FAILED " + errnoCell(r.Errno, "")
	}
	return s + " FAILED"
}

func jump(p *page, j *load.Jump) {
	if j == nil {
		return
	}
	s := fmt.Sprintf("instruction %d to %d", j.From, j.To)
	if j.Approximate {
		s = "about " + s
	}
	p.print("jump", s)
	if j.Insn != "" {
		p.verbatim("", "", j.Insn)
	}
	p.print("", fmt.Sprintf("after blinding it needs the offset %d; 16 bits reach %d", j.Need, j.Limit))
	if j.Before > 0 && j.After > 0 {
		p.print("", fmt.Sprintf("the blinded code grows from %d to %d slots", j.Before, j.After))
	}
	source := func(bullet, at, text string) {
		if at != "" {
			p.verbatim("", bullet, strings.TrimRight(at+"   "+strings.TrimSpace(text), " "))
		}
	}
	source("from ", j.FromSource, j.FromText)
	source("to   ", j.ToSource, j.ToText)
}

func diagnosis(p *page, d *load.Diagnosis) {
	if d == nil {
		return
	}
	p.print("rule", d.Rule+", "+d.Title)
	p.why(d, howKnown[d.HowKnown])
}

var howKnown = map[load.HowKnown]string{
	load.Observed:   ": a hook in the kernel saw it, or the kernel itself said it",
	load.Reproduced: ": the captured program was loaded again, and failed again",
	load.Inferred:   ": nothing saw it happen. It follows from what was captured and from this kernel's settings",
	load.Predicted:  ": from the object file alone",
}

// Diagnosis writes a diagnosis of error text, which belongs to no attempt.
func (t *Text) Diagnosis(d *load.Diagnosis) error {
	return t.diagnosis(d, ": from the text alone. Nothing was watched, and this kernel was not asked")
}

// OwnDiagnosis writes a diagnosis of an error of this process. It knows more than its error says.
func (t *Text) OwnDiagnosis(d *load.Diagnosis) error {
	return t.diagnosis(d, ": nothing was watched. It follows from the error, and from what this process knows of its program, its rights and its kernel")
}

func (t *Text) diagnosis(d *load.Diagnosis, how string) error {
	p := page{t: t}
	p.b.WriteString(t.bold(text.Clean(d.Rule)+"  "+t.lines(8, d.Title)) + "\n")
	p.danger(d)
	p.why(d, how)
	p.remedies(d.Remedies)
	p.b.WriteByte('\n')
	_, err := t.w.Write(p.b.Bytes())
	return err
}

// Lines of the verifier's log that are worth a screen; JSON has all of them.
const logLines = 16

func log(p *page, l load.VerifierLog) {
	if len(l.Lines) == 0 {
		return
	}
	whose := "from the loader's buffer"
	switch l.Origin {
	case load.LogKernel:
		whose = "read from the verifier, since the loader asked for no log"
	case load.LogReplay:
		whose = "from a second load, since the recorded one has no log"
	}
	lines := l.Lines
	if len(lines) > logLines || l.Truncated {
		lines = lines[max(0, len(lines)-logLines):]
		whose += "; only its end is shown"
	}
	p.print("log", "("+whose+")")
	for _, s := range lines {
		p.verbatim("", "| ", fit(s, 400))
	}
}

// kernelLog are the kernel's own lines, which may be about something else.
func kernelLog(p *page, lines []string) {
	if len(lines) == 0 {
		return
	}
	p.print("log", "(the kernel's, of that moment)")
	for _, s := range lines {
		p.verbatim("", "| ", fit(s, 400))
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
