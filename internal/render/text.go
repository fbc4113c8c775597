// SPDX-License-Identifier: Apache-2.0

// Package render turns attempts into what people and programs read. It is pure: the same attempt gives the same bytes.
// Strings that come from the traced side are made harmless here, at the edge.
package render

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/muesli/termenv"
)

// Text writes for people: a table with one line per attempt, and full explanations. Each method writes once, so that
// lines of two writers do not mix.
type Text struct {
	w       io.Writer
	width   int
	colour  termenv.Profile
	columns []column
}

// NewText writes to w, wrapped at width columns (0: not a terminal, which gives the widest table and paragraphs of 100).
func NewText(w io.Writer, width int, colour bool) *Text {
	t := &Text{w: w, width: width, colour: termenv.Ascii, columns: columns(width)}
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
		others := "no program of others was loaded around that time"
		if n := len(r.Exposed); n > 0 {
			others = fmt.Sprintf("programs of others that were loaded around that time: %s", strings.Trim(fmt.Sprint(r.Exposed), "[]"))
		}
		whole := ""
		if r.WholeCall {
			whole = ", the whole load, since this kernel could not be made to wait with it"
		}
		p.print("repaired", fmt.Sprintf("constant blinding would have broken it; net.core.bpf_jit_harden was 1 instead of 2 for %v%s; %s",
			r.WindowNS.Round(time.Microsecond), whole, others))
	default:
		p.print("repaired", fmt.Sprintf("constant blinding would have broken it; loaded with %s, %s longer",
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

// page collects labelled, wrapped paragraphs.
type page struct {
	t *Text
	b bytes.Buffer
}

// The text stands right of the labels.
const margin = 12

func (p *page) print(label, text string) { p.item(label, "", text) }

// item wraps text behind a bullet, right of the label.
func (p *page) item(label, bullet, text string) {
	indent := margin + len(bullet)
	for i, l := range wrap(Clean(text), p.t.width-indent) {
		switch {
		case i > 0:
			p.b.WriteString(strings.Repeat(" ", indent))
		case label == "":
			p.b.WriteString(strings.Repeat(" ", margin) + bullet)
		default:
			p.b.WriteString("  " + p.t.bold(label) + strings.Repeat(" ", max(1, margin-2-len(label))) + bullet)
		}
		p.b.WriteString(l + "\n")
	}
}

// verbatim is for commands and logs: never wrapped, because it is there to be copied.
func (p *page) verbatim(label, bullet, text string) {
	if label != "" {
		p.b.WriteString("  " + p.t.bold(label) + strings.Repeat(" ", max(1, margin-2-len(label))))
	} else {
		p.b.WriteString(strings.Repeat(" ", margin))
	}
	p.b.WriteString(strings.TrimRight(bullet+Clean(text), " ") + "\n")
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
	p.print("again", fmt.Sprintf("%s of %s: %s, %s as before; %s, by %s, the last one pid %d", plural(int(r.Repeats), "more load"),
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
	stages(&p, a)
	jump(&p, a.Jump)
	diagnosis(&p, a.Diagnosis)
	log(&p, a.VerifierLog)
	if a.Diagnosis != nil {
		p.remedies(a.Diagnosis.Remedies)
	}
	if a.Incomplete {
		why := strings.Join(a.IncompleteWhy, "; ")
		if why == "" {
			why = "events were lost while it ran"
		}
		p.print("holes", why)
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
	p.b.WriteString(t.bold(t.paint(word, colour)) + "  " + t.bold(Clean(what)) + "\n")
}

// danger comes first: what else there is to say is of less weight.
func (p *page) danger(d *load.Diagnosis) {
	if d.Danger != "" {
		p.print("DANGER", d.Danger)
	}
}

func (p *page) by(a *load.Attempt) {
	who := fmt.Sprintf("%s, pid %d", a.Process.Comm, a.Process.PID)
	if n := a.Process.PIDInNS; n != 0 && n != a.Process.PID {
		who += fmt.Sprintf(" (%d in its namespace)", n)
	}
	who += fmt.Sprintf(", uid %d", a.Process.UID)
	if a.Process.Exe != "" {
		who += ", " + a.Process.Exe
	}
	if a.Process.Container != "" {
		who += ", container " + a.Process.Container
	}
	p.print("by", who)
	if a.Retries > 0 {
		p.print("retries", fmt.Sprintf("%d: the loader made %d calls for it; this is the last", a.Retries, a.Retries+1))
	}
}

func stages(p *page, a *load.Attempt) {
	var seen, unseen []string
	for _, r := range a.Stages {
		s := string(r.Stage)
		switch r.Result {
		case load.OK:
			s += " ok"
			if r.DurationNS > 0 {
				s += " " + duration(r.DurationNS)
			}
			seen = append(seen, s)
		case load.StageFailed:
			s += " FAILED"
			if r.Errno != 0 {
				s += " " + errnoCell(r.Errno, "")
			}
			seen = append(seen, s)
		default:
			unseen = append(unseen, s)
		}
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
		s := string(a.FailedStage)
		if r, ok := a.Stage(a.FailedStage); !ok || r.Result != load.StageFailed {
			s += " (concluded, not seen)"
		}
		p.print("died in", s)
	}
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
		p.print("", fmt.Sprintf("what is blinded grows from %d to %d slots", j.Before, j.After))
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

// why is a diagnosis below its title and above what to do; how says what its kind of knowledge means.
func (p *page) why(d *load.Diagnosis, how string) {
	if d.Cause != "" {
		p.print("cause", d.Cause)
	}
	p.print("known", string(d.HowKnown)+how)
	label := "evidence"
	for _, e := range d.Evidence {
		p.item(label, "- ", e)
		label = ""
	}
	label = "or else"
	for _, a := range d.Alternatives {
		p.item(label, "- ", fmt.Sprintf("%s, %s: %s", a.Rule, a.Title, a.Why))
		label = ""
	}
}

var howKnown = map[load.HowKnown]string{
	load.Observed:   ": seen by a hook in the kernel, or said by the kernel itself",
	load.Reproduced: ": the captured program was loaded again",
	load.Inferred:   ": it was not seen happening; it follows from what was captured and from this kernel's settings",
	load.Predicted:  ": from the object file alone",
}

// Diagnosis writes a diagnosis of error text, which belongs to no attempt.
func (t *Text) Diagnosis(d *load.Diagnosis) error {
	p := page{t: t}
	p.b.WriteString(t.bold(Clean(d.Rule+"  "+d.Title)) + "\n")
	p.danger(d)
	p.why(d, ": from the words of the text alone; nothing was watched, and this kernel was not asked")
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
	whose := "of the loader's buffer"
	switch l.Origin {
	case load.LogKernel:
		whose = "read from the verifier; the loader asked for none"
	case load.LogReplay:
		whose = "of a second load; the recorded one has none"
	}
	lines := l.Lines
	if len(lines) > logLines || l.Truncated {
		lines = lines[max(0, len(lines)-logLines):]
		whose += "; its end"
	}
	p.print("log", "("+whose+")")
	for _, s := range lines {
		p.verbatim("", "| ", fit(s, 400))
	}
}

func (p *page) remedies(remedies []load.Remedy) {
	label := "do"
	for i, r := range remedies {
		p.item(label, fmt.Sprintf("%d. ", i+1), r.Title)
		label = ""
		if r.Price != "" {
			p.item("", "   price: ", r.Price)
		}
		for l := range strings.Lines(r.Command) {
			p.verbatim("", "   try: ", strings.TrimRight(l, "\n"))
		}
	}
}

// Summary counts what was seen.
type Summary struct {
	For          time.Duration     `json:"-"` // 0: of a recording
	Attempts     int               `json:"attempts"`
	Loaded       int               `json:"loaded"`
	NotJITed     int               `json:"loaded_not_jited"`
	Failed       int               `json:"failed"`
	Rules        map[string]int    `json:"rules"` // findings by rule
	FeatureProbe int               `json:"feature_probes"`
	LeftOut      int               `json:"left_out"`   // healthy calls that are not loads
	Repeats      int               `json:"repeats"`    // of Attempts, those that were counted and not told
	Lost         map[string]uint64 `json:"lost"`       // events by mechanism
	LostLoads    uint64            `json:"lost_loads"` // failing loads that are in no attempt
	Unknown      []string          `json:"unknown"`    // counters of losses that could not be read
	Incomplete   int               `json:"incomplete"` // attempts that a hole touched
	Hanging      int               `json:"hanging"`    // loads that had not come back when it was last looked
}

// Add counts one attempt; shown says whether it was one to show.
func (s *Summary) Add(a *load.Attempt, shown bool) {
	if a.FeatureProbe != "" {
		s.FeatureProbe++
	} else if !shown {
		s.LeftOut++
	}
	if a.Incomplete {
		s.Incomplete++
	}
	if !shown {
		return
	}
	s.Attempts++
	switch a.Outcome {
	case load.Loaded:
		s.Loaded++
	case load.LoadedNotJITed:
		s.NotJITed++
	default:
		s.Failed++
	}
	if a.Diagnosis != nil && a.Finding() {
		if s.Rules == nil {
			s.Rules = map[string]int{}
		}
		s.Rules[a.Diagnosis.Rule]++
	}
}

// AddRepeat counts an attempt like one that was told.
func (s *Summary) AddRepeat(a *load.Attempt) {
	s.Add(a, true)
	s.Repeats++
}

// Lose counts a loss.
func (s *Summary) Lose(l *trace.Loss) {
	switch {
	case l.Unknown:
		if !slices.Contains(s.Unknown, l.Mechanism) {
			s.Unknown = append(s.Unknown, l.Mechanism)
		}
	case l.Mechanism == trace.LostLoads:
		s.LostLoads += l.Count
	default:
		if s.Lost == nil {
			s.Lost = map[string]uint64{}
		}
		s.Lost[l.Mechanism] += l.Count
	}
}

// Whole reports whether nothing was lost, as far as is known.
func (s *Summary) Whole() bool { return len(s.Lost) == 0 && s.LostLoads == 0 && len(s.Unknown) == 0 }

// Summary writes the counts.
func (t *Text) Summary(s *Summary) error {
	p := page{t: t}
	head := plural(s.Attempts, "load")
	if s.For > 0 {
		head += " in " + s.For.Round(100*time.Millisecond).String()
	}
	head += fmt.Sprintf(": %d ok, %d failed, %d loaded but NOT jited", s.Loaded, s.Failed, s.NotJITed)
	p.b.WriteString(t.bold(head) + "\n")
	if len(s.Rules) > 0 {
		p.print("by rule", counts(s.Rules))
	}
	if s.FeatureProbe+s.LeftOut > 0 {
		p.print("left out", fmt.Sprintf("%s of loaders, %s for maps, BTF, links and the like",
			plural(s.FeatureProbe, "feature probe"), plural(s.LeftOut, "healthy call")))
	}
	if s.Hanging > 0 {
		p.print("hanging", plural(s.Hanging, "load")+" had not come back when it was last looked")
	}
	if s.Repeats > 0 {
		p.print("again", fmt.Sprintf("%s of failures that were explained before", plural(s.Repeats, "repeat")))
	}
	if s.LostLoads > 0 {
		least := ""
		if slices.Contains(s.Unknown, trace.LostLoads) { // ends of calls were missed
			least = "at least "
		}
		p.print("lost", least+plural(int(s.LostLoads), "failing load")+" of which nothing more is known")
	}
	if len(s.Lost) > 0 {
		p.print("lost", counts(s.Lost)+" events")
	}
	if len(s.Unknown) > 0 {
		p.print("lost", "not known in full: "+strings.Join(s.Unknown, ", "))
	}
	if s.Incomplete > 0 {
		p.print("holes", plural(s.Incomplete, "incomplete attempt"))
	}
	_, err := t.w.Write(p.b.Bytes())
	return err
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// counts lists the most frequent first.
func counts[N cmp.Ordered](m map[string]N) string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b))
	})
	for i, k := range keys {
		keys[i] = fmt.Sprintf("%s %v", k, m[k])
	}
	return strings.Join(keys, ", ")
}
