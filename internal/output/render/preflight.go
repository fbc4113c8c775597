// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/objects/preflight"
	"github.com/bpfwhy/bpfwhy/internal/output/text"
)

// preflightWidth is the most that a line takes: logs of pods are read in narrow places.
const preflightWidth = 80

// verdictColour is that of the word before a line.
var verdictColour = map[preflight.Verdict]string{preflight.Pass: green, preflight.Warn: yellow, preflight.Fail: red}

// Most programs that a line names, where the need is not met; JSON has all.
const preflightUsers = 4

// Preflight writes a line for each need, with its reason and its remedy where it is not met.
func (t *Text) Preflight(r *preflight.Report) error {
	var b strings.Builder
	for i := range r.Lines {
		t.preflightLine(&b, &r.Lines[i])
	}
	b.WriteString("\n" + t.paint(strings.ToUpper(string(r.Verdict)), verdictColour[r.Verdict]))
	s := fmt.Sprintf("%d failed, %d warned, %d passed; Linux %s", r.Failed, r.Warned, r.Passed, text.Clean(r.Release))
	b.WriteString("  " + strings.Join(wrap(s, preflightWidth-6), "\n      ") + "\n")
	return t.write(b.String())
}

func (t *Text) preflightLine(b *strings.Builder, l *preflight.Line) {
	width := min(t.width, preflightWidth)
	const indent = 6
	put := func(s string) {
		for _, part := range wrap(text.Clean(s), width-indent) {
			b.WriteString(strings.Repeat(" ", indent) + part + "\n")
		}
	}
	head := l.Need
	switch users := l.For; {
	case l.Verdict == preflight.Pass && len(users) > 0:
		head += " (" + plural(len(users), "program") + "): " + l.Why
	case l.Verdict == preflight.Pass:
		head += ": " + l.Why
	case len(users) > 0:
		more := ""
		if len(users) > preflightUsers {
			more = fmt.Sprintf(" and %d more", len(users)-preflightUsers)
			users = users[:preflightUsers]
		}
		head += " (" + strings.Join(users, ", ") + more + ")"
	}
	for i, part := range wrap(text.Clean(head), width-indent) {
		if i == 0 {
			b.WriteString(t.paint(strings.ToUpper(string(l.Verdict)), verdictColour[l.Verdict]) + "  " + part + "\n")
			continue
		}
		b.WriteString(strings.Repeat(" ", indent) + part + "\n")
	}
	if l.Verdict == preflight.Pass {
		return
	}
	put(l.Why)
	if l.Do != "" {
		put("do: " + l.Do)
	}
	for _, c := range strings.Split(l.Command, "\n") {
		if c != "" { // never wrapped, because it is there to be copied
			b.WriteString(strings.Repeat(" ", indent) + "    " + text.Clean(c) + "\n")
		}
	}
	if l.Rule != "" {
		put("more: bpfwhy explain " + l.Rule)
	}
}
