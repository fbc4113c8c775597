// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

func TestTableOfRows(t *testing.T) {
	var b bytes.Buffer
	text := NewText(&b, 0, false)
	columns := []Column{{Title: "ID", Right: true}, {Title: "NAME", Most: 6}, {Title: "X"}}
	qt.Assert(t, qt.IsNil(text.Table(columns, []Row{
		{Cells: []string{"7", "a", "yes"}},
		{Cells: []string{"1234", "far_too_long", "no"}, Paint: Bad},
		{Cells: []string{"1", "\x1b[1m"}}, // hostile, and a cell is missing
	})))
	qt.Assert(t, qt.Equals(b.String(), ""+
		"  ID  NAME    X\n"+
		"   7  a       yes\n"+
		"1234  far_t~  no\n"+
		"   1  \\x1b[~\n"))

	// What is left out first, and what is cut, where there is little room. What may not be, is not.
	columns = []Column{{Title: "PATH", Shrink: true, Path: true}, {Title: "NAME", Shrink: true}, {Title: "SECOND", Drop: 2}, {Title: "FIRST", Drop: 1}, {Title: "KEPT"}}
	row := []Row{{Cells: []string{"0123456789/0123456789/0123456789", "abcdefghijklmnopqrstuvwxyz", "2", "1", "the answer"}}}
	for width, want := range map[int]string{
		120: "0123456789/0123456789/0123456789  abcdefghijklmnopqrstuvwxyz  2       1      the answer",
		80:  "~89/0123456789/0123456789  abcdefghijklmnopqrstuvwxyz  2       1      the answer",
		56:  "~56789/0123456789  abcdefghijklmnop~  2       the answer",
		47:  "~6789/0123456789  abcdefghijklmnop~  the answer",
		40:  "~9/0123456789  abcdefghijkl~  the answer",
		20:  "~3456789  abcdefg~  the answer",
	} {
		b.Reset()
		qt.Assert(t, qt.IsNil(NewText(&b, width, false).Table(columns, row)))
		line := strings.Split(b.String(), "\n")[1]
		qt.Check(t, qt.Equals(line, want))
		qt.Check(t, qt.IsTrue(len(line) <= max(width, 30)), qt.Commentf("%d", width))
	}

	b.Reset()
	qt.Assert(t, qt.IsNil(NewText(&b, 80, true).Table(columns, []Row{{Cells: []string{"1", "b", "c"}, Paint: Doubtful}})))
	qt.Assert(t, qt.StringContains(b.String(), "\x1b[33m"))
}
