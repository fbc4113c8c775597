// SPDX-License-Identifier: Apache-2.0

// Package table shows exchanges to people: a line for each service.
package table

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"

	"github.com/bpfwhy/bpfwhy/httpprobe/connection"
	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
)

// service is what one line is about.
type service struct {
	role      http1.Role
	port      uint16
	comm      string
	container string
}

// maxServices is how many are told apart; the rest share a line.
const maxServices = 256

// HeapBytes are what a table takes: two times as many figures, with a bucket for each two percent
// of the times that there can be.
const HeapBytes = 2 * (maxServices + 2) * 72 << 10

// figures are what is known of a service, within some time.
type figures struct {
	requests, errors uint64
	spread           map[int16]uint64 // requests by duration, see bucketOf
}

func (f *figures) add(d time.Duration, failed bool) {
	f.requests++
	if failed {
		f.errors++
	}
	if f.spread == nil {
		f.spread = map[int16]uint64{}
	}
	f.spread[bucketOf(d)]++
}

// step is the ratio between the bounds of a bucket: a quantile is off by at most 1 %.
const step = 1.02

func bucketOf(d time.Duration) int16 {
	return int16(math.Round(math.Log(float64(max(d, 1))) / math.Log(step)))
}

// quantile is the duration that a share of the requests did not exceed.
func (f *figures) quantile(q float64) time.Duration {
	keys := make([]int16, 0, len(f.spread))
	for k := range f.spread {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	rank := uint64(math.Ceil(q * float64(f.requests)))
	var n uint64
	for _, k := range keys {
		if n += f.spread[k]; n >= rank {
			return time.Duration(math.Pow(step, float64(k)))
		}
	}
	return 0
}

// Table collects exchanges. It is not safe for concurrent use.
type Table struct {
	total, recent map[service]*figures
}

// New returns an empty table.
func New() *Table {
	return &Table{total: map[service]*figures{}, recent: map[service]*figures{}}
}

// Add counts an exchange, in a container or "".
func (t *Table) Add(e *connection.Exchange, container string) {
	s := service{role: e.Role, port: e.ServerPort(), comm: e.Comm, container: container}
	if _, ok := t.total[s]; !ok && len(t.total) >= maxServices {
		s = service{role: e.Role, comm: "(others)"}
	}
	failed := e.Status >= 500 || e.Role == http1.Client && e.Status >= 400 || failedCall(e.Role, e.GRPCStatus)
	for _, m := range []map[service]*figures{t.total, t.recent} {
		f := m[s]
		if f == nil {
			f = &figures{}
			m[s] = f
		}
		f.add(time.Duration(e.End-e.Start), failed)
	}
}

// failedCall reports a call of gRPC that failed: for a client all but 0; for a server what
// OpenTelemetry calls errors, of which the client is not the cause.
func failedCall(role http1.Role, status string) bool {
	switch status {
	case "2", "4", "12", "13", "14", "15":
		return true
	case "", "0", http1.Unknown, http1.NoGRPCStatus:
		return false
	}
	return role == http1.Client
}

// Recent returns what came since the last call, for a table of what happened in that time, the
// busiest service first.
func (t *Table) Recent(in time.Duration) []render.Row {
	r := rows(t.recent, in)
	t.recent = map[service]*figures{}
	return r
}

// Total returns everything.
func (t *Table) Total(in time.Duration) []render.Row { return rows(t.total, in) }

// Columns are those of the rows.
func Columns() []render.Column {
	return []render.Column{{Title: "SERVICE", Most: 24}, {Title: "ROLE"}, {Title: "PORT", Right: true}, {Title: "REQUESTS", Right: true}, {Title: "REQ/S", Right: true},
		{Title: "ERRORS", Right: true}, {Title: "P50", Right: true}, {Title: "P95", Right: true}, {Title: "P99", Right: true}, {Title: "CONTAINER", Most: 32}}
}

// Text is a table that is not wider than a terminal (0: is none), if leaving out columns that say
// the least can help it.
func Text(rows []render.Row, width int, colour bool) string {
	columns := Columns()
	rows = slices.Clone(rows)
	for _, least := range []string{"CONTAINER", "P95", "PORT"} {
		if width == 0 || widest(write(columns, rows, false)) <= width {
			break
		}
		i := slices.IndexFunc(columns, func(c render.Column) bool { return c.Title == least })
		columns = slices.Delete(columns, i, i+1)
		for r := range rows {
			rows[r].Cells = slices.Delete(slices.Clone(rows[r].Cells), i, i+1)
		}
	}
	return write(columns, rows, colour)
}

func write(columns []render.Column, rows []render.Row, colour bool) string {
	var b strings.Builder
	_ = render.NewText(&b, 0, colour).Table(columns, rows) // to memory
	return b.String()
}

func widest(text string) (cells int) {
	for l := range strings.Lines(text) {
		cells = max(cells, runewidth.StringWidth(strings.TrimSuffix(l, "\n")))
	}
	return cells
}

func rows(m map[service]*figures, in time.Duration) []render.Row {
	type line struct {
		service
		*figures
	}
	var lines []line
	for s, f := range m {
		lines = append(lines, line{s, f})
	}
	slices.SortFunc(lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(b.requests, a.requests), cmp.Compare(a.comm, b.comm), cmp.Compare(a.port, b.port),
			cmp.Compare(a.role, b.role), cmp.Compare(a.container, b.container))
	})
	var out []render.Row
	for _, l := range lines {
		comm, port := cmp.Or(l.comm, "?"), "-"
		if l.port != 0 {
			port = strconv.Itoa(int(l.port))
		}
		share := 100 * float64(l.errors) / float64(l.requests)
		r := render.Row{Cells: []string{comm, l.role.String(), port, strconv.FormatUint(l.requests, 10),
			strconv.FormatFloat(float64(l.requests)/max(in.Seconds(), 1e-9), 'f', 1, 64), fmt.Sprintf("%.1f%%", share),
			duration(l.quantile(0.5)), duration(l.quantile(0.95)), duration(l.quantile(0.99)), l.container}}
		switch {
		case share >= 5:
			r.Paint = render.Bad
		case share > 0:
			r.Paint = render.Doubtful
		}
		out = append(out, r)
	}
	return out
}

// duration has three digits that mean something.
func duration(d time.Duration) string {
	unit, name := float64(time.Second), "s"
	switch {
	case d < time.Millisecond:
		unit, name = float64(time.Microsecond), "us"
	case d < time.Second:
		unit, name = float64(time.Millisecond), "ms"
	}
	v := float64(d) / unit
	decimals := 2
	switch {
	case v >= 100:
		decimals = 0
	case v >= 10:
		decimals = 1
	}
	return strconv.FormatFloat(v, 'f', decimals, 64) + name
}
