// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
)

// What mail, pages and descriptions of objects put around a line.

var (
	quoteMark = lazyregexp.New(`^(?:> ?|[│┃] ?)+`)
	fence     = lazyregexp.New("^(?:```+|~~~+)[\\w-]*$")
	bullet    = lazyregexp.New(`^[*•·-] +`)
	tagMark   = lazyregexp.New(`^</?(?:pre|code|p|br|details|summary|div|span|b)\b[^>]*>`)
)

// peelQuote takes off what mail and pages put in front of a line.
func peelQuote(l *layered) {
	switch c := l.rest[0]; {
	case c == '>' && !strings.HasPrefix(l.rest, ">>> "): // the verifier's report has those
		l.after(quoteMark)
	case (c == '`' || c == '~') && fence.MatchString(l.rest):
		l.rest = ""
	case c == '`' && len(l.rest) > 2 && strings.HasSuffix(l.rest, "`") && strings.Count(l.rest, "`") == 2:
		l.rest = l.rest[1 : len(l.rest)-1]
	case c == '*' || c == '-':
		l.after(bullet)
	case c >= 0x80:
		if l.after(quoteMark) == nil {
			l.after(bullet)
		}
	case c == '<':
		l.after(tagMark)
	}
}

var (
	// What kubectl describe prints of an event: type, reason, age, and who says it.
	eventLine = lazyregexp.New(`^(?:Warning|Normal) {1,}\w+ {1,}(?:<unknown>|\d+[smhd]\w*(?: ago)?)?(?: \(x\d+ over \w+\))? *(?:[\w-]+(?:, \S+)?|\S+) {2,}`)
	yamlField = lazyregexp.New(`^(?:- )?(?:message|reason|error|msg|stderr|log|exception): +(?:[|>]-?|"|')?`)
)

func peelEvent(l *layered) {
	if c := l.rest[0]; c == 'W' || c == 'N' {
		l.after(eventLine)
	}
}

// peelYAML takes a key off.
func peelYAML(l *layered) {
	if c := l.rest[0]; c == '-' || c >= 'a' && c <= 's' {
		if m := yamlField.FindStringSubmatch(l.rest); m != nil && !strings.HasPrefix(m[0], "error: ") {
			quote := m[0][len(m[0])-1]
			l.after(yamlField)
			if quote == '\'' || quote == '"' {
				l.rest = strings.TrimSuffix(l.rest, string(quote))
			}
		}
	}
}
