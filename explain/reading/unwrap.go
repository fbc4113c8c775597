// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
)

// Line is a line of text without what a logger, a terminal or a page put around it.
type Line struct {
	Text string
	// Source tells the lines of several writers apart: a service, a container, a process. It is
	// empty for a text of one writer.
	Source string
	// Kernel marks a line of the kernel's log.
	Kernel bool
	// Whole marks a record of a logger: what it tells is complete.
	Whole bool
	// Debug marks what its writer takes for details that only developers look at.
	Debug bool
	// Warn marks what its writer takes for a warning.
	Warn bool
	// Gap says that lines were left out in front of this one, and Lost that they mattered.
	Gap, Lost bool
}

// Bounds of one line.
const (
	maxLayers = 12   // what is around a line, one thing in the other
	maxParts  = 4096 // lines in one record
)

// Unwrap takes off what is around each line: prefixes of loggers and of what collects logs,
// colours, quotes of a page, JSON. A record with several lines becomes several. Nothing of what is
// taken off is in a Line, but the lines of each writer have the same Source.
func Unwrap(lines []string) []Line {
	u := unwrapper{}
	for _, l := range lines {
		u.add(l)
	}
	u.flush()
	return u.out
}

type unwrapper struct {
	out     []Line
	partial string // of a record that its collector cut
	from    Line
}

// layered is a line on its way: what is left of it, and what was learnt.
type layered struct {
	Line
	rest string
	cut  bool // its collector goes on with it in the next line
}

func (u *unwrapper) add(raw string) {
	if raw == gap || raw == lost {
		u.flush()
		u.out = append(u.out, Line{Gap: true, Lost: raw == lost})
		return
	}
	l := peel(layered{rest: raw})
	start := raw[:min(len(raw), 256)]
	l.Debug, l.Warn = debugLevel.MatchString(start), warnLevel.MatchString(start)
	if u.partial != "" || l.cut {
		u.partial += l.rest
		u.from = l.Line
		if !l.cut || len(u.partial) > maxLine {
			u.flush()
		}
		return
	}
	u.put(l)
}

func (u *unwrapper) flush() {
	if u.partial != "" {
		l := peel(layered{Line: u.from, rest: u.partial})
		u.partial = ""
		u.put(l)
	}
}

// put appends a line that was peeled, or its lines.
func (u *unwrapper) put(l layered) {
	l.rest = escapedLines(l.rest)
	if !strings.ContainsRune(l.rest, '\n') {
		l.Text = tidy(l.rest)
		u.out = append(u.out, l.Line)
		return
	}
	parts := strings.SplitN(l.rest, "\n", maxParts)
	for i, part := range parts {
		inner := layered{Line: l.Line, rest: part}
		if strings.TrimSpace(part) != "" && i < maxParts-1 {
			inner = peel(inner)
		}
		for text := range strings.SplitSeq(inner.rest, "\n") {
			inner.Text = tidy(text)
			u.out = append(u.out, inner.Line)
		}
	}
}

// escapedLines undoes the escapes of loggers that put all of a text on one line.
func escapedLines(s string) string {
	if !strings.Contains(s, `\n`) || strings.Contains(s, "printf(") {
		return s
	}
	for range maxLayers {
		s = unescaper.Replace(s)
		if strings.Contains(s, "\n") || !strings.Contains(s, `\n`) {
			break
		}
	}
	return s
}

// unescaper takes off one level of escapes. A chain of errors may have several.
var unescaper = strings.NewReplacer(`\n"`, `"`, `\n\"`, `"`, `\n`, "\n", `\t`, "\t", `\"`, `"`, `\r`, "", `\\`, `\`)

// tidy takes blanks and quotes off both ends of a line.
func tidy(s string) string {
	s = strings.TrimSpace(s)
	for _, q := range []string{`"`, "'", "`"} {
		if len(s) >= 2 && strings.HasPrefix(s, q) && strings.HasSuffix(s, q) && strings.Count(s, q) == 2 {
			s = strings.TrimSpace(s[1 : len(s)-1])
		}
	}
	return s
}

// peel takes layers off until none is left.
func peel(l layered) layered {
	for range maxLayers {
		l.rest = strings.TrimLeft(plainText(l.rest), " \t")
		before := l.rest
		for _, p := range peelers {
			if l.rest != "" && !l.cut {
				p(&l)
			}
		}
		if l.rest == before || l.cut {
			break
		}
	}
	return l
}

var (
	colours  = lazyregexp.New("\x1b\\[[0-9;:?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|\x1b[@-Z\\\\-_]|\\^\\[\\[[0-9;]*m|\\[(?:\\d{1,2};){0,3}\\d{1,2}m|(?:\\\\x1b|\\\\033|\\\\u001b|\\\\e)\\[[0-9;]*m|#033\\[[0-9;]*m")
	entities = strings.NewReplacer("&gt;", ">", "&lt;", "<", "&quot;", `"`, "&#34;", `"`, "&#39;", "'", "&#x27;", "'", "&nbsp;", " ", "&amp;", "&")
	spaces   = strings.NewReplacer("\u00a0", " ", "\u2018", "'", "\u2019", "'", "\u201c", `"`, "\u201d", `"`, "\ufeff", "", "\r", "", "\x00", "", "\u200b", "")
)

// plainText takes off colours and what a page puts in the place of plain characters.
func plainText(s string) string {
	if strings.ContainsAny(s, "\x1b^\\#") || strings.Contains(s, "0m") {
		s = colours.Compiled().ReplaceAllString(s, "")
	}
	if strings.ContainsRune(s, '&') {
		s = entities.Replace(s)
	}
	return strings.TrimRight(spaces.Replace(s), " \t")
}

// peelers take one layer each. The order is that in which layers lie in each other as a rule.
var peelers = []func(*layered){
	peelQuote, peelCRI, peelJSON, peelService, peelPod, peelKernelLog, peelJournal, peelSyslog5424, peelKlog, peelRust, peelTime, peelLevel, peelPlace, peelPairs, peelEvent, peelYAML,
}

// after takes the match of an expression at the start of the line off, and returns its groups.
func (l *layered) after(r *lazyregexp.Regexp) []string {
	m := r.FindStringSubmatch(l.rest)
	if m == nil || !strings.HasPrefix(l.rest, m[0]) {
		return nil
	}
	l.rest = l.rest[len(m[0]):]
	return m
}

// from notes who wrote a line.
func (l *layered) from(source string) {
	if source != "" && !strings.Contains(l.Source, source) {
		l.Source += source + " "
	}
}
