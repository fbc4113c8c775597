// SPDX-License-Identifier: Apache-2.0

// Package text makes strings of unknown origin safe for a terminal.
package text

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable reports whether a rune may reach a terminal as it is: letters of all scripts, marks,
// digits, punctuation, symbols and the space. Not: control characters of both sets, bidirectional
// controls, characters without width, separators of lines, other spaces, private and unassigned
// characters.
func Printable(r rune) bool { return unicode.IsPrint(r) }

// Clean shows whatever is not printable as an escape, and so bytes that are not UTF-8. A tab
// becomes a space.
func Clean(s string) string {
	i := 0
	for i < len(s) && s[i] >= ' ' && s[i] < 0x7f {
		i++
	}
	if i == len(s) {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:i])
	for i < len(s) {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\t':
			b.WriteByte(' ')
		case Printable(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
		i += n
	}
	return b.String()
}

// Line is Clean for a text that may have several lines: they become one, with "; " between them.
func Line(s string) string { return Clean(Join(s)) }

// Join makes one line of several, with "; " between them.
func Join(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// Cut is Clean for the first bytes of s, at most max. An ellipsis says that more followed.
func Cut(s string, max int) string {
	if len(s) <= max {
		return Clean(s)
	}
	for max > 0 && !utf8.RuneStart(s[max]) {
		max--
	}
	return Clean(s[:max]) + "…"
}

// Replace puts U+FFFD in the place of whatever is not printable, for text that is parsed
// afterwards. Tabs stay.
func Replace(s string) string {
	bad := func(r rune) bool { return r != '\t' && !Printable(r) }
	if utf8.ValidString(s) && !strings.ContainsFunc(s, bad) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if bad(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}
