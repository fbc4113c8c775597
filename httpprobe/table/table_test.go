// SPDX-License-Identifier: Apache-2.0

package table

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/httpprobe/connection"
	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/go-quicktest/qt"
)

func exchange(role http1.Role, comm string, status int, took time.Duration) *connection.Exchange {
	return &connection.Exchange{Exchange: http1.Exchange{Role: role, Method: "GET", Path: "/", Status: status, Start: 5, End: 5 + uint64(took)},
		Comm: comm, LocalPort: 80, RemotePort: 8080}
}

func text(t *testing.T, rows []render.Row, colour bool) string {
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(render.NewText(&b, 0, colour).Table(Columns(), rows)))
	return b.String()
}

func TestTable(t *testing.T) {
	tb := New()
	for range 98 {
		tb.Add(exchange(http1.Server, "nginx", 200, time.Millisecond), "docker://1")
	}
	tb.Add(exchange(http1.Server, "nginx", 404, 100*time.Millisecond), "docker://1") // the client's fault
	tb.Add(exchange(http1.Server, "nginx", 500, 100*time.Millisecond), "docker://1")
	tb.Add(exchange(http1.Client, "curl\x1b[2J", 404, 2*time.Second), "") // its own
	rows := tb.Recent(10 * time.Second)
	got := text(t, rows, false)
	for _, want := range []string{
		`(?m)^SERVICE +ROLE +PORT +REQUESTS +REQ/S +ERRORS +P50 +P95 +P99 +CONTAINER$`,
		`(?m)^nginx +server +80 +100 +10\.0 +1\.0% .* docker://1$`,
		`(?m)^curl\\x1b\[2J +client +8080 +1 +0\.1 +100\.0% `,
	} {
		qt.Check(t, qt.Matches(got, `(?s).*`+want+`.*`))
	}
	for i, want := range [][3]time.Duration{{time.Millisecond, time.Millisecond, 100 * time.Millisecond}, {2 * time.Second, 2 * time.Second, 2 * time.Second}} {
		for j, w := range want {
			d, err := time.ParseDuration(rows[i].Cells[6+j])
			qt.Assert(t, qt.IsNil(err))
			off := float64(d)/float64(w) - 1
			qt.Check(t, qt.IsTrue(off > -0.015 && off < 0.015), qt.Commentf("%v, want %v", d, w)) // 1 %, and three digits
		}
	}
	qt.Check(t, qt.HasLen(tb.Recent(time.Second), 0))
	qt.Check(t, qt.HasLen(tb.Total(time.Second), 2))
	qt.Check(t, qt.IsFalse(strings.Contains(text(t, tb.Total(time.Second), true), "\x1b[2J")))
}

// A quantile is within 1 % of the true one.
func TestQuantiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var f figures
	var all []time.Duration
	for range 10000 {
		d := time.Duration(rng.ExpFloat64() * 1e7)
		all = append(all, d)
		f.add(d, false)
	}
	for _, q := range []float64{0.5, 0.95, 0.99} {
		n := 0
		got := f.quantile(q)
		for _, d := range all {
			if float64(d) <= float64(got)*1.01 {
				n++
			}
		}
		qt.Check(t, qt.IsTrue(float64(n) >= q*1e4), qt.Commentf("%v: %v has %d below", q, got, n))
		n = 0
		for _, d := range all {
			if float64(d) < float64(got)*0.99 {
				n++
			}
		}
		qt.Check(t, qt.IsTrue(float64(n) < q*1e4), qt.Commentf("%v: %v has %d below", q, got, n))
	}
}

// On a narrow terminal the columns that say the least go first, in an order.
func TestNarrow(t *testing.T) {
	tb := New()
	tb.Add(exchange(http1.Server, "nginx", 200, 20*time.Millisecond), "docker://0123456789ab")
	tb.Add(exchange(http1.Client, "curl", 500, 20*time.Millisecond), "")
	rows := tb.Total(10 * time.Second)
	// SERVICE  ROLE    PORT  REQUESTS  REQ/S  ERRORS    P50     P95     P99  CONTAINER
	// curl     client  8080         1    0.1  100.0%  20.0ms  20.0ms  20.0ms
	// nginx    server    80         1    0.1    0.0%  20.0ms  20.0ms  20.0ms  docker://0123456789ab
	all := "SERVICE ROLE PORT REQUESTS REQ/S ERRORS P50 P95 P99 CONTAINER"
	for _, tt := range []struct {
		width int
		want  string
	}{
		{0, all}, {200, all}, {93, all},
		{92, "SERVICE ROLE PORT REQUESTS REQ/S ERRORS P50 P95 P99"},
		{70, "SERVICE ROLE PORT REQUESTS REQ/S ERRORS P50 P95 P99"},
		{69, "SERVICE ROLE PORT REQUESTS REQ/S ERRORS P50 P99"},
		{62, "SERVICE ROLE PORT REQUESTS REQ/S ERRORS P50 P99"},
		{61, "SERVICE ROLE REQUESTS REQ/S ERRORS P50 P99"},
		{20, "SERVICE ROLE REQUESTS REQ/S ERRORS P50 P99"},
	} {
		for _, colour := range []bool{false, true} {
			got := regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(Text(rows, tt.width, colour), "")
			first, _, _ := strings.Cut(got, "\n")
			qt.Check(t, qt.Equals(strings.Join(strings.Fields(first), " "), tt.want), qt.Commentf("%d\n%s", tt.width, got))
			qt.Check(t, qt.Matches(got, `(?s).*\nnginx +server.* +1 +0\.1 +0\.0% .*`))
		}
	}
	qt.Check(t, qt.HasLen(rows[0].Cells, len(Columns()))) // they are the caller's
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.00us", 1500: "1.50us", 999 * time.Microsecond: "999us", 20100 * time.Microsecond: "20.1ms", 200 * time.Millisecond: "200ms", 3 * time.Minute: "180s",
	} {
		qt.Check(t, qt.Equals(duration(d), want))
	}
}

// More services than are told apart share a line, and none is left out.
func TestManyServices(t *testing.T) {
	tb := New()
	for i := range 10000 {
		tb.Add(exchange(http1.Server, fmt.Sprint("p", i), 200, 1), "")
	}
	rows := tb.Total(time.Second)
	qt.Check(t, qt.HasLen(rows, maxServices+1))
	qt.Check(t, qt.Equals(rows[0].Cells[0], "(others)"))
	qt.Check(t, qt.Equals(rows[0].Cells[3], fmt.Sprint(10000-maxServices)))
}
