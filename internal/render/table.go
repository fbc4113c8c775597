// SPDX-License-Identifier: Apache-2.0

package render

import (
	"strings"

	"github.com/mattn/go-runewidth"
)

// Column is one column of a Table.
type Column struct {
	Title string
	Right bool
	Most  int // cells; longer ones are cut. 0: as wide as the widest
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

// Table writes rows in columns that are as wide as they need to be.
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
				clean[r][i] = Clean(row.Cells[i])
				if m := columns[i].Most; m > 0 {
					clean[r][i] = fit(clean[r][i], m)
				}
			}
			width[i] = max(width[i], runewidth.StringWidth(clean[r][i]))
		}
	}
	line := func(cells []string) string {
		var b strings.Builder
		for i, s := range cells {
			pad := strings.Repeat(" ", width[i]-runewidth.StringWidth(s))
			if i > 0 {
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
