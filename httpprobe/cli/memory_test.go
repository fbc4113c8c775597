// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/httpprobe/connection"
	"github.com/bpfwhy/bpfwhy/httpprobe/event"
)

// atBounds are as many connections as are followed, each with room for several requests and the
// pieces of a head, of as many services as are told apart with as many durations, and of as many
// series as there may be, with long names.
func atBounds(take func(*event.Event)) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	for i := range uint64(connection.DefaultConnections) {
		word := func(n uint64) string { return fmt.Sprintf("/%c%c%c", 'a'+n%26, 'a'+n/26%26, 'a'+n/676%26) }
		path := word(i) + strings.Repeat("/"+strings.Repeat("a", 32), 7)
		requests := strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: h\r\n\r\n", 3)
		responses := strings.Repeat(ok, 3)
		start := monotonic()
		e := event.Event{Kind: event.Data, Conn: event.Conn{Source: event.Syscalls, ID: i}, Fresh: true, TGID: uint32(4_000_000 + i%10000),
			Comm: fmt.Sprint("service ", i%256), CgroupID: i, LocalPort: 80, RemotePort: 4000}
		send := func(d event.Direction, at, pos uint64, text string) {
			e.Dir, e.Time, e.Pos, e.Len, e.Data = d, at, pos, uint64(len(text)), []byte(text)
			take(&e)
		}
		send(event.In, start, 0, requests)
		send(event.Out, start+uint64(math.Pow(1.02, float64(i/256*8))), 0, responses)
		send(event.In, start, uint64(len(requests)), "GET /"+strings.Repeat("x", 150))
	}
}

// TestMemoryAtBounds: with all that its parts promise to hold at most, the probe stays within what
// the collector is told, and the documents say.
func TestMemoryAtBounds(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
	port := freePort(t)
	played := make(chan struct{})
	f := &fake{name: "syscalls", play: func(take func(*event.Event)) {
		defer close(played)
		atBounds(take)
	}}
	unread, stdout, err := os.Pipe()
	qt.Assert(t, qt.IsNil(err))
	defer unread.Close()
	defer stdout.Close()
	var figures string
	var alive, before runtime.MemStats
	var limit int64
	o := probeRunTo(t, stdout, only(f), func() {
		<-played
		figures = fetch(t, port)
		runtime.ReadMemStats(&before)
		runtime.GC()
		runtime.ReadMemStats(&alive)
		limit = debug.SetMemoryLimit(-1)
	}, "--listen", port, "--json")
	qt.Check(t, qt.Equals(o.status, 0), qt.Commentf("%s", o.stderr))
	qt.Check(t, qt.Equals(limit, memory(2000)))
	qt.Check(t, qt.StringContains(figures, `httpprobe_connections_open{source="syscalls"} 65536`))
	qt.Check(t, qt.IsTrue(strings.Count(figures, "\nhttp_server_request_duration_seconds_count{") > 1900))
	qt.Check(t, qt.IsFalse(strings.Contains(figures, "httpprobe_output_lines_dropped_total 0\n")))
	taken := int64(before.Sys - before.HeapReleased)
	t.Logf("%d MiB alive, %d MiB taken, of %d MiB; the collector took %.1f %% of the time", alive.HeapAlloc>>20, taken>>20, limit>>20, 100*alive.GCCPUFraction)
	qt.Check(t, qt.IsTrue(int64(alive.HeapAlloc) < limit))
	qt.Check(t, qt.IsTrue(taken < limit))
}

// TestMemoryDocumented: the documents have the figure, and the unit leaves room for the rest.
func TestMemoryDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/httpprobe.md")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.StringContains(string(b), fmt.Sprintf("stays below %d MiB", memory(2000)>>20+1)))
	b, err = os.ReadFile("../../deploy/systemd/httpprobe.service")
	qt.Assert(t, qt.IsNil(err))
	m := regexp.MustCompile(`(?m)^MemoryMax=(\d+)M$`).FindSubmatch(b)
	qt.Assert(t, qt.HasLen(m, 2))
	var most int64
	_, err = fmt.Sscan(string(m[1]), &most)
	qt.Assert(t, qt.IsNil(err))
	const rest = 100 // two buffers of 8 MiB, mapped twice, what the programs have in the kernel, the second process, the executable
	qt.Check(t, qt.IsTrue(most >= memory(2000)>>20+rest))
}
