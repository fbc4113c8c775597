// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
)

// Logs of the verifier among the lines of a writer.

// wrapped joins a sentence of the verifier that a terminal put on two lines.
func (s *splitter) wrapped(c *clue, indices []int, at int) bool {
	if len(c.log) == 0 || at >= len(indices) || known(c.log[len(c.log)-1]) {
		return false
	}
	next := lineOmitted.Compiled().ReplaceAllString(s.lines[indices[at]].Text, "")
	whole := c.log[len(c.log)-1] + " " + next
	if next == "" || known(next) || !known(whole) {
		return false
	}
	c.log[len(c.log)-1], c.end = whole, indices[at]
	return true
}

// logAt reads a log of the verifier that begins at a line. next is where it ends, at if there is
// none.
func (s *splitter) logAt(indices []int, at int) (log []string, next int) {
	text := s.lines[indices[at]].Text
	switch {
	case beginLog.MatchString(text) && strings.Contains(text, "BEGIN"):
		return s.marked(indices, at)
	case beginsLog(text), sourceRow.MatchString(text) && at+1 < len(indices) && beginsLog(s.lines[indices[at+1]].Text), s.sentence(s.lines[indices[at]]):
		return s.unmarked(indices, at)
	}
	return nil, at
}

// sentence reports one of the verifier's, alone in its line.
func (s *splitter) sentence(l Line) bool {
	if l.Kernel || l.Text == "" || len(l.Text) > 600 || s.budget <= 0 {
		return false
	}
	if is, ok := s.plain[l.Text]; ok {
		return is
	}
	s.budget--
	is := known(l.Text) && !saidByLoader(l.Text)
	s.plain[l.Text] = is
	return is
}

// saidByLoader reports a line that quotes the verifier at most.
func saidByLoader(text string) bool {
	if _, quoted := quotedLog(text); quoted != "" {
		return true
	}
	_, errno := ErrnoOf(text)
	all := readings(sentences, text, errno || failureWord.MatchString(text))
	return slices.ContainsFunc(all, func(r reading) bool { return !r.word })
}

// marked reads a log between two marks.
func (s *splitter) marked(indices []int, at int) (log []string, next int) {
	for next = at + 1; next < len(indices); next++ {
		l := s.lines[indices[next]]
		switch {
		case endLog.MatchString(l.Text):
			return log, next + 1
		case s.insideLog(indices, next):
			continue
		case l.Gap, strings.HasPrefix(l.Text, "libbpf: ") && saidByLoader(l.Text):
			return log, next
		}
		log = append(log, l.Text)
	}
	return log, next
}

// insideLog reports a gap in the middle of a log: it goes on behind the gap, and its end would not
// have been left out.
func (s *splitter) insideLog(indices []int, n int) bool {
	l := s.lines[indices[n]]
	return l.Gap && !l.Lost && n+1 < len(indices) && laterInLog.MatchString(s.lines[indices[n+1]].Text)
}

var laterInLog = lazyregexp.New(`^(?:[1-9]\d{0,6}: (?:\([0-9a-f]{2}\) |(?:frame\d+: ?)?R\d)|from \d+ to \d+|; |(?:frame\d+: ?)?R\d+(?:_\w+)?=)`)

// unmarked reads a log without marks: lines that only the verifier prints, with what stands between
// them.
//
//revive:disable-next-line:cyclomatic one case for each kind of line in and behind a log
func (s *splitter) unmarked(indices []int, at int) (log []string, next int) {
	end, report, stats := at, false, false
	text := func(n int) string { return s.lines[indices[n]].Text }
	for n := at; n < len(indices); n++ {
		if s.lines[indices[n]].Gap {
			if !stats && s.insideLog(indices, n) {
				continue
			}
			break
		}
		t := text(n)
		ours := logLine(t) || sourceRow.MatchString(t) || s.sentence(s.lines[indices[n]])
		report = report || strings.HasPrefix(t, "Verification failed: ")
		switch {
		case ours:
			end = n
			if stats && insnLine.MatchString(t) {
				return s.texts(indices[at:n]), n // the next log
			}
			stats = stats || statsLine.MatchString(t)
			continue
		case stats:
		case report && n-end < maxReported && !saidByLoader(t):
			continue
		case n-end <= 3 && t != "" && s.lines[indices[n]].Whole == s.lines[indices[end]].Whole && insnLine.MatchString(text(end)) && !saidByLoader(t) && s.read(indices[n]).role == nothing:
			end = n // a complaint that is not known
			continue
		case n-end < maxLogHole && !saidByLoader(t):
			continue
		}
		break
	}
	return s.texts(indices[at : end+1]), end + 1
}

// logBehind reads what follows a line with the beginning of a log.
func (s *splitter) logBehind(indices []int, at int) (log []string, next int) {
	for n := at; n < len(indices) && n < at+maxLogHole; n++ {
		l := s.lines[indices[n]]
		if l.Gap || l.Text == "" || saidByLoader(l.Text) {
			break
		}
		if logLine(l.Text) || s.sentence(l) {
			log, next = s.unmarked(indices, n)
			return append(s.texts(indices[at:n]), log...), next
		}
	}
	return nil, at
}

func (s *splitter) texts(indices []int) (texts []string) {
	for _, i := range indices {
		texts = append(texts, s.lines[i].Text)
	}
	return texts
}

// toldEnd reports a failure after which the loader said that its object was not loaded.
func (g *group) toldEnd() bool {
	return slices.ContainsFunc(g.clues, func(c clue) bool { return c.role == aftermath })
}
