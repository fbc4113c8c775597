// SPDX-License-Identifier: Apache-2.0

package verifierlog

import (
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
)

// Report is what kernel 7.3 and newer print behind the message.
type Report struct {
	Category   string // for example "Register Type Safety"
	Problem    string // for example "Unreadable register"
	Reason     string
	Suggestion string
	Insn       int // -1 when not given
	Source     *Source
	// At and CausalPath are the sections of that name as printed, without
	// their indentation.
	At, CausalPath []string
	// Events are the notes of the causal path, for example "R6 changed from
	// ... to ...", with the instruction that each is about.
	Events []Event
}

// Event is one step of a causal path.
type Event struct {
	Insn   int    // -1 when not given
	Source string // function @ file:line:column; empty without BTF
	Label  string // update, branch, acquired, released, ...
	Text   string
}

const reportPrefix = "Verification failed: "

var (
	section    = lazyregexp.New(`^([A-Z][A-Za-z ]{1,30}):$`)
	reportAt   = lazyregexp.New(`^(?:(\S+) @ )?(\S.*?):(\d+):(\d+)$`)
	reportInsn = lazyregexp.New(`^insn (\d+)$`)
	marked     = lazyregexp.New(`>>> +(\d+) \| \([0-9a-f]{2}\) (.*)$`)
	markedLine = lazyregexp.New(`^>>> +\d+ \| (.*)$`)
	annotation = lazyregexp.New(`\| *\^-- ([\w ]+): (.*)$`)
	annotated  = lazyregexp.New(`^\| {5,}(\S.*)$`)
)

// reportStart returns the line at which a report begins, -1 without one.
func reportStart(lines []string) int {
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.HasPrefix(lines[i], reportPrefix) {
			return i
		}
	}
	return -1
}

func parseReport(lines []string) *Report {
	r := &Report{Insn: -1}
	r.Category, r.Problem, _ = strings.Cut(strings.TrimPrefix(lines[0], reportPrefix), ": ")
	name := ""
	sections := make(map[string][]string)
	for _, line := range lines[1:min(len(lines), maxReport)] {
		if statsLine.MatchString(line) {
			break
		}
		if m := section.FindStringSubmatch(line); m != nil {
			name = m[1]
		} else if name != "" && line != "" {
			sections[name] = append(sections[name], strings.TrimSpace(line))
		}
	}
	r.Reason = strings.Join(sections["Reason"], " ")
	r.Suggestion = strings.Join(sections["Suggestion"], " ")
	r.At = sections["At"]
	r.CausalPath = sections["Causal path"]
	if places := readPlaces(r.At); len(places) > 0 {
		r.Insn, r.Source = places[0].insn, places[0].source
	}
	for _, p := range readPlaces(r.CausalPath) {
		if p.label == "" {
			continue
		}
		e := Event{Insn: p.insn, Label: p.label, Text: p.text}
		if p.source != nil {
			e.Source = p.where
		}
		r.Events = append(r.Events, e)
	}
	return r
}

// place is one annotated spot of a report.
type place struct {
	insn        int
	where       string
	source      *Source
	label, text string
}

// readPlaces reads the spots of a section. Each begins with a line that says
// where it is; source and instructions follow below each other, or in earlier
// versions side by side.
func readPlaces(lines []string) []place {
	var places []place
	var p *place
	continued := false
	for _, line := range lines {
		if m := reportInsn.FindStringSubmatch(line); m != nil {
			n, _ := strconv.Atoi(m[1])
			places = append(places, place{insn: n})
			p = &places[len(places)-1]
			continue
		}
		if m := reportAt.FindStringSubmatch(line); m != nil && !strings.Contains(line, " | ") {
			places = append(places, place{insn: -1, where: line})
			p = &places[len(places)-1]
			p.source = &Source{Func: m[1], File: m[2]}
			p.source.Line, _ = strconv.Atoi(m[3])
			p.source.Column, _ = strconv.Atoi(m[4])
			continue
		}
		if p == nil {
			continue
		}
		if m := annotation.FindStringSubmatch(line); m != nil {
			p.label, p.text, continued = m[1], m[2], true
			continue
		}
		if m := annotated.FindStringSubmatch(line); m != nil && continued && len(p.text) < maxLine {
			p.text += " " + m[1]
			continue
		}
		continued = false
		if m := marked.FindStringSubmatch(line); m != nil {
			p.insn, _ = strconv.Atoi(m[1])
			line = strings.TrimRight(line[:len(line)-len(m[0])], " ")
		}
		if m := markedLine.FindStringSubmatch(line); m != nil && p.source != nil && p.source.Text == "" {
			p.source.Text = strings.TrimSpace(m[1])
		}
	}
	return places
}

// useReport fills in what the rest of the log does not say.
func (l *Log) useReport() {
	r := l.Report
	if l.Insn < 0 {
		l.Insn = r.Insn
	}
	if r.Source != nil && (l.Source == nil || l.Source.File == "" || l.Source.Line == r.Source.Line) {
		text := ""
		if l.Source != nil {
			text = l.Source.Text
		}
		l.Source = r.Source
		if text != "" {
			l.Source.Text = text
		}
	}
	if l.Message == "" {
		l.Message = r.Problem
	}
}
