// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
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

	b.Reset()
	qt.Assert(t, qt.IsNil(NewText(&b, 80, true).Table(columns, []Row{{Cells: []string{"1", "b", "c"}, Paint: Doubtful}})))
	qt.Assert(t, qt.StringContains(b.String(), "\x1b[33m"))
}
