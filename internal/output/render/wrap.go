// SPDX-License-Identifier: Apache-2.0

package render

import (
	"strings"

	"github.com/mattn/go-runewidth"
)

// fit cuts s to a number of terminal cells and marks the cut.
func fit(s string, width int) string {
	if runewidth.StringWidth(s) <= width {
		return s
	}
	return runewidth.Truncate(s, width, "~")
}

// fitEnd cuts the beginning instead, for paths.
func fitEnd(s string, width int) string {
	if runewidth.StringWidth(s) <= width {
		return s
	}
	return runewidth.TruncateLeft(s, runewidth.StringWidth(s)-width+1, "~")
}

// wrap breaks s between words so that no line is wider than width; a longer word is broken
// anywhere. There is at least one line.
func wrap(s string, width int) []string {
	width = max(width, 8)
	var lines []string
	line, used := "", 0
	for _, word := range strings.Fields(s) {
		n := runewidth.StringWidth(word)
		if line != "" && used+1+n > width {
			lines = append(lines, line)
			line, used = "", 0
		}
		for n > width {
			head := runewidth.Truncate(word, width, "")
			if head == "" { // one rune wider than the line
				break
			}
			lines = append(lines, head)
			word = word[len(head):]
			n = runewidth.StringWidth(word)
		}
		if line != "" {
			line += " "
			used++
		}
		line += word
		used += n
	}
	return append(lines, line)
}
