// SPDX-License-Identifier: Apache-2.0

package render

import (
	"math"
	"slices"
	"strings"

	"github.com/mattn/go-runewidth"

	"github.com/bpfwhy/bpfwhy/internal/output/text"
)

// Column is one column of a Table.
type Column struct {
	Title string
	Right bool
	Most  int // cells; longer ones are cut. 0: as wide as the widest
	// What gives way where a terminal is too narrow: columns with the lowest Drop are left out
	// first (0: never), then the widest of those that Shrink are cut, a Path at its beginning.
	Drop   int
	Shrink bool
	Path   bool
}

// least is how narrow a column is made before others are left out.
const least = 16

// narrowed leaves out columns, and narrows others, until they fit a number of cells, as far as they
// let it. The widths are changed.
func narrowed(columns []Column, width []int, cells int) (kept []int) {
	for i := range columns {
		kept = append(kept, i)
	}
	narrow := func(i int) int {
		if columns[i].Shrink {
			return min(width[i], least)
		}
		return width[i]
	}
	for sum(kept, narrow) > cells {
		first := -1
		for _, i := range kept {
			if d := columns[i].Drop; d > 0 && (first < 0 || d < columns[first].Drop) {
				first = i
			}
		}
		if first < 0 {
			break
		}
		kept = slices.DeleteFunc(kept, func(i int) bool { return i == first })
	}
	for over := sum(kept, func(i int) int { return width[i] }) - cells; over > 0; over-- {
		i := widest(columns, kept, width)
		if i < 0 || width[i] <= 8 {
			break
		}
		width[i]--
	}
	return kept
}

// sum is how wide a line of these columns is.
func sum(columns []int, width func(int) int) int {
	n := 2 * (len(columns) - 1)
	for _, i := range columns {
		n += width(i)
	}
	return n
}

// widest is the widest of the columns that may shrink, -1 without any.
func widest(columns []Column, kept, width []int) int {
	out := -1
	for _, i := range kept {
		if columns[i].Shrink && (out < 0 || width[i] > width[out]) {
			out = i
		}
	}
	return out
}

// Paint marks a row of a Table.
type Paint int

const (
	Plain Paint = iota
	Bad
	Doubtful
)

// Row is one row of a Table.
type Row struct {
	Cells []string
	Paint Paint
}

// Table writes rows in columns that are as wide as they need to be, and on a terminal as they can.
func (t *Text) Table(columns []Column, rows []Row) error { return t.write(t.table(columns, rows)) }

func (t *Text) table(columns []Column, rows []Row) string {
	titles := make([]string, len(columns))
	width := make([]int, len(columns))
	for i, c := range columns {
		titles[i], width[i] = c.Title, runewidth.StringWidth(c.Title)
	}
	clean := make([][]string, len(rows))
	for r, row := range rows {
		clean[r] = make([]string, len(columns))
		for i := range columns {
			if i < len(row.Cells) {
				clean[r][i] = text.Clean(row.Cells[i])
				if m := columns[i].Most; m > 0 {
					clean[r][i] = fit(clean[r][i], m)
				}
			}
			width[i] = max(width[i], runewidth.StringWidth(clean[r][i]))
		}
	}
	cells := t.cells
	if cells == 0 {
		cells = math.MaxInt
	}
	kept := narrowed(columns, width, cells)
	line := func(cells []string) string {
		var b strings.Builder
		for n, i := range kept {
			s := fit(cells[i], width[i])
			if columns[i].Path {
				s = fitEnd(cells[i], width[i])
			}
			pad := strings.Repeat(" ", width[i]-runewidth.StringWidth(s))
			if n > 0 {
				b.WriteString("  ")
			}
			if columns[i].Right {
				s = pad + s
			} else {
				s += pad
			}
			b.WriteString(s)
		}
		return strings.TrimRight(b.String(), " ")
	}
	var b strings.Builder
	b.WriteString(t.bold(line(titles)) + "\n")
	for r, row := range rows {
		s := line(clean[r])
		switch row.Paint {
		case Bad:
			s = t.paint(s, red)
		case Doubtful:
			s = t.paint(s, yellow)
		}
		b.WriteString(s + "\n")
	}
	return b.String()
}
