// SPDX-License-Identifier: Apache-2.0

// Package verifierlog reads what the BPF verifier prints: the log of the
// instructions that it walked through and the message at its end, in the form
// of kernels up to 7.2 and with the report that 7.3 added.
//
// The text comes from a process that may be hostile or from somebody's
// clipboard. Anything is accepted; lines come out without control characters.
package verifierlog

import (
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/internal/output/text"
)

const (
	defaultMaxLines = 4096
	maxLine         = 2048 // the kernel's own limit is 1024
	maxMessages     = 16
	maxPath         = 256
	maxReport       = 512 // lines
	// maxClassified bounds the bytes of one log that are compared with the wordings. Of all that
	// kernels print, the complaints take a few hundred.
	maxClassified = 16 << 10
)

// Options say what the caller knows about the text.
type Options struct {
	// Truncated marks a text of which something is missing.
	Truncated bool
	// Hole is the offset of the first byte behind a gap, where the head and
	// the tail of a long log were put together; 0 for none.
	Hole int
	// MaxLines is how many lines are kept and searched, counted from the end;
	// 0 means 4096.
	MaxLines int
}

// Log is a parsed log. The zero value of a field means that the log does not
// say, except where noted.
type Log struct {
	Lines []string // the last Options.MaxLines lines, without control characters
	Total int      // number of lines of the text

	Message  string   // the message that says what is wrong
	Messages []string // all lines of complaint, at most 16, Message among them
	Match    Match    // Message classified

	Insn        int    // slot of the instruction that is to blame, -1 when unknown
	Instruction string // as the log prints it
	Source      *Source
	Subprog     string // the global function under examination when it failed
	// Registers holds what the verifier knew of each register (R1) and stack
	// slot (fp-8) before the failing instruction, as far as the log tells.
	Registers map[string]string
	// Path holds the instructions last examined on the way to the failure,
	// oldest first, at most 256, the failing one included.
	Path []Step

	Stats     *Stats
	Report    *Report // kernel 7.3 and newer
	Truncated bool
}

// Source is a line of the program's source, from its BTF.
type Source struct {
	File   string // kernel 6.9 and newer
	Line   int    // likewise, 0 when unknown
	Column int    // from a Report only
	Func   string // from a Report only
	Text   string
}

// Step is one examined instruction.
type Step struct {
	Insn  int
	Text  string // in the kernel's syntax
	State string // what changed, as printed; empty before 5.17 without log level 2
}

// Stats is the line with which every complete log ends.
type Stats struct {
	Processed        int // instructions examined
	Limit            int
	MaxStatesPerInsn int
	TotalStates      int
	PeakStates       int
	MarkRead         int
	VerificationUsec int    // with the stats log level only
	StackDepth       string // likewise, for example 8+16
}

var (
	insnLine   = lazyregexp.New(`^(\d+): \([0-9a-f]{2}\) (.*)$`)
	poisonLine = lazyregexp.New(`^(\d+): (<invalid [^>]*>.*)$`)
	// Nothing ends the line after a jump if the kernel has not printed its
	// state yet, so that the next message or state stands behind it.
	jumpText   = lazyregexp.New(`^(.*goto(?:_or_nop)? pc[+-]\d+)(?: +(.*))?$`)
	stateLine  = lazyregexp.New(`^(?:from \d+ to \d+[^:]*: ?|\d+: )((?:frame\d+: ?)?(?:\s*(?:R\d+|fp-\d+|refs|cb|async_cb)\b.*)?)$`)
	frameLine  = lazyregexp.New(`^ (?:frame\d+: ?)?(?:R\d+|fp-\d+)`)
	sourceAt   = lazyregexp.New(`^(.*?) @ (\S[^@]*):(\d+)$`)
	safeLine   = lazyregexp.New(`^(?:\d+: |from \d+ to \d+[^:]*: )safe$`)
	statsLine  = lazyregexp.New(`^processed (\d+) insns(?: \(limit (\d+)\))?(?: max_states_per_insn (\d+) total_states (\d+) peak_states (\d+) mark_read (\d+))?`)
	funcLine   = lazyregexp.New(`^func#\d+ @\d+$`)
	validating = lazyregexp.New(`(?m)^\t?Validating (\w+)\(\) func#\d+`)
)

// argument starts lines that may be either.
const argument = "arg#"

// hole stands where bytes are missing.
const hole = "... (part of the log is missing) ..."

// Parse reads a log. It never fails: of a text that is no log it returns the
// lines and perhaps a message.
func Parse(text string, opts Options) Log {
	l := Log{Insn: -1, Truncated: opts.Truncated, Match: Match{Kind: Unknown}}
	text = strings.TrimRight(text, "\x00")
	if opts.Hole > 0 && opts.Hole < len(text) {
		text = markHole(text, opts.Hole)
		l.Truncated = true
	}
	l.Lines, l.Total = lastLines(text, opts.MaxLines)
	body := l.Lines

	if at := reportStart(body); at >= 0 {
		l.Report = parseReport(body[at:])
		body = body[:at]
	}
	l.Stats = parseStats(l.Lines)
	l.findMessage(body)
	if m := validating.Compiled().FindAllStringSubmatchIndex(lastPart(text), -1); len(m) > 0 {
		last := m[len(m)-1]
		l.Subprog = lastPart(text)[last[2]:last[3]]
	}
	if l.Report != nil {
		l.useReport()
	}
	if l.Stats == nil && len(l.Path) > 0 {
		l.Truncated = true
	}
	return l
}

// lastPart bounds the search for something that may be far from the end.
func lastPart(text string) string {
	const most = 1 << 20
	if len(text) > most {
		return text[len(text)-most:]
	}
	return text
}

// markHole replaces the line that spans the gap, since it is two broken ones.
func markHole(text string, at int) string {
	start := strings.LastIndexByte(text[:at], '\n') + 1
	end := strings.IndexByte(text[at:], '\n')
	if end < 0 {
		return text[:start] + hole
	}
	return text[:start] + hole + text[at+end:]
}

// lastLines returns the last lines of the text, clean, and how many it has.
func lastLines(text string, most int) ([]string, int) {
	if most <= 0 {
		most = defaultMaxLines
	}
	text = strings.TrimSuffix(text, "\n")
	if text == "" {
		return nil, 0
	}
	total := strings.Count(text, "\n") + 1
	kept := min(total, most)
	lines := make([]string, kept)
	rest := text
	for i := kept - 1; i >= 0; i-- {
		at := strings.LastIndexByte(rest, '\n')
		lines[i] = clean(rest[at+1:])
		if at < 0 {
			break
		}
		rest = rest[:at]
	}
	return lines, total
}

// clean makes a line fit to be shown: bounded, valid UTF-8, nothing that a
// terminal would act on. Tabs in front are a loader's indentation.
func clean(line string) string {
	line = strings.TrimLeft(strings.TrimRight(line, "\r \t"), "\t")
	if len(line) > maxLine {
		line = strings.ToValidUTF8(line[:maxLine], "") + "…"
	}
	return text.Replace(line)
}

// findMessage looks for the complaint and for what surrounds it.
//
//revive:disable-next-line:cyclomatic a case for each kind of line around a complaint
func (l *Log) findMessage(body []string) {
	last := -1 // the last examined instruction
	for i := len(body) - 1; i >= 0; i-- {
		if insnLine.MatchString(body[i]) || poisonLine.MatchString(body[i]) {
			last = i
			break
		}
	}
	var complaints []string
	add := func(s string) {
		if s = strings.TrimSpace(s); s != "" && len(complaints) < 4*maxMessages {
			complaints = append(complaints, s)
		}
	}
	if last >= 0 {
		if m := poisonLine.FindStringSubmatch(body[last]); m != nil {
			add(m[2])
		}
		if rest := afterJump(body[last]); rest != "" && !looksLikeState(rest) {
			add(rest)
		}
	}
	left := maxClassified
	classify := func(s string) Match {
		if left -= len(s); left < 0 {
			return Match{Kind: Unknown}
		}
		return Classify(s)
	}
	ended := false
	var remarks []string
	for _, line := range body[last+1:] {
		ended = ended || statsLine.MatchString(line)
		if !isComplaint(line) {
			continue
		}
		m := classify(line)
		switch {
		// Behind the statistics the loader has its say, and 7.2 about the blinding of a program of
		// one function.
		case ended && m.Kind != PatchRange:
		// Messages about an argument begin like the note on one.
		case strings.HasPrefix(line, argument) && m.Kind == Unknown:
		case m.Remark:
			remarks = append(remarks, line)
		default:
			add(line)
		}
	}
	// A remark counts where the verifier stopped at it, and where it is all that somebody quotes.
	if len(complaints) == 0 && len(remarks) > 0 && (last >= 0 || l.Stats == nil) {
		add(remarks[0])
	}
	left = maxClassified
	l.Message, l.Match = deciding(complaints, classify)
	l.Messages = complaints[:min(len(complaints), maxMessages)]

	if last >= 0 {
		l.readPath(body[:last+1])
	}
	if l.Message != "" {
		l.locate(body, last)
	}
}

// deciding picks the complaint that says what is wrong. What is known counts before what is not;
// among equals the first says what is wrong and the others elaborate, unless one decides.
func deciding(complaints []string, classify func(string) Match) (string, Match) {
	message, match := "", Match{Kind: Unknown}
	for _, c := range complaints {
		switch m := classify(c); {
		case m.Kind == Unknown:
		case m.decisive:
			return c, m
		case match.Kind == Unknown:
			message, match = c, m
		}
	}
	if message == "" && len(complaints) > 0 {
		message = complaints[0]
	}
	return message, match
}

// locate finds the instruction that the message is about, its line of source and its registers.
// last is the last examined one.
func (l *Log) locate(body []string, last int) {
	if n, err := strconv.Atoi(l.Match.Args["insn"]); err == nil {
		l.Insn = n
	} else if len(l.Path) > 0 && !l.Match.Late {
		failing := l.Path[len(l.Path)-1]
		l.Insn, l.Instruction = failing.Insn, failing.Text
	}
	if l.Insn < 0 {
		return
	}
	if l.Instruction == "" {
		for _, s := range l.Path {
			if s.Insn == l.Insn {
				l.Instruction = s.Text
			}
		}
	}
	if last >= 0 {
		l.Source = sourceBefore(body, last, l.Insn)
		l.Registers = registersBefore(body[:last+1])
	}
}

func isComplaint(line string) bool {
	if line == "" || line[0] == ' ' || line[0] == ';' {
		return false
	}
	if isChatter(line) {
		return false
	}
	return !funcLine.MatchString(line) && !stateLine.MatchString(line) && !safeLine.MatchString(line) && !statsLine.MatchString(line)
}

func looksLikeState(s string) bool {
	return strings.HasPrefix(s, ";") || stateLine.MatchString(s)
}

// afterJump returns what stands behind a jump on its line.
func afterJump(line string) string {
	m := insnLine.FindStringSubmatch(line)
	if m == nil {
		return ""
	}
	if j := jumpText.FindStringSubmatch(m[2]); j != nil {
		return j[2]
	}
	return ""
}

// step splits the line of an instruction.
func step(line string) (Step, bool) {
	m := insnLine.FindStringSubmatch(line)
	if m == nil {
		m = poisonLine.FindStringSubmatch(line)
	}
	if m == nil {
		return Step{}, false
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return Step{}, false
	}
	s := Step{Insn: n, Text: m[2]}
	if j := jumpText.FindStringSubmatch(m[2]); j != nil {
		s.Text = j[1]
		if looksLikeState(j[2]) {
			s.State = j[2]
		}
	} else if at := strings.Index(m[2], "; "); at >= 0 {
		s.Text, s.State = m[2][:at], m[2][at:]
	}
	s.Text = strings.TrimRight(s.Text, " ;")
	if after, ok := strings.CutPrefix(s.State, ";"); ok {
		s.State = strings.TrimSpace(after)
	} else if m := stateLine.FindStringSubmatch(s.State); m != nil {
		s.State = m[1]
	}
	return s, true
}

// readPath collects the last examined instructions. Where the verifier went
// back to a branch, the path before it does not lead here and is left out.
func (l *Log) readPath(body []string) {
	for i := len(body) - 1; i >= 0 && len(l.Path) < maxPath; i-- {
		if s, ok := step(body[i]); ok {
			l.Path = append(l.Path, s)
		} else if strings.HasPrefix(body[i], "from ") || body[i] == hole {
			break
		}
	}
	for i, j := 0, len(l.Path)-1; i < j; i, j = i+1, j-1 {
		l.Path[i], l.Path[j] = l.Path[j], l.Path[i]
	}
}

// sourceBefore finds the source line that was last announced before the
// failing instruction, at or before line last.
func sourceBefore(body []string, last, insn int) *Source {
	if s, ok := step(body[last]); ok && s.Insn != insn {
		return nil // the complaint is about an instruction of its own
	}
	for i := last; i >= 0; i-- {
		if text, ok := strings.CutPrefix(body[i], "; "); ok {
			return parseSource(text)
		}
		if body[i] == hole || strings.HasPrefix(body[i], "Validating ") {
			return nil
		}
	}
	return nil
}

func parseSource(text string) *Source {
	s := &Source{Text: strings.TrimSpace(text)}
	if m := sourceAt.FindStringSubmatch(text); m != nil {
		if n, err := strconv.Atoi(m[3]); err == nil {
			s.Text, s.File, s.Line = strings.TrimSpace(m[1]), m[2], n
		}
	}
	return s
}

func parseStats(lines []string) *Stats {
	var s Stats
	found := false
	for i := len(lines) - 1; i >= 0 && i >= len(lines)-64; i-- {
		line := lines[i]
		if m := statsLine.FindStringSubmatch(line); m != nil && !found {
			found = true
			for n, p := range []*int{&s.Processed, &s.Limit, &s.MaxStatesPerInsn, &s.TotalStates, &s.PeakStates, &s.MarkRead} {
				*p, _ = strconv.Atoi(m[n+1])
			}
		} else if rest, ok := strings.CutPrefix(line, "verification time "); ok && s.VerificationUsec == 0 {
			s.VerificationUsec, _ = strconv.Atoi(strings.TrimSuffix(rest, " usec"))
		} else if rest, ok := strings.CutPrefix(line, "stack depth "); ok && s.StackDepth == "" {
			s.StackDepth = rest
		}
	}
	if !found {
		return nil
	}
	return &s
}
