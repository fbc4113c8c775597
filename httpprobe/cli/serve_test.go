// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/httpprobe/connection"
	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
	"github.com/bpfwhy/bpfwhy/httpprobe/metrics"
	"github.com/bpfwhy/bpfwhy/internal/sys/scrape"
)

// manyFigures are figures that fill any socket's buffer.
func manyFigures(t *testing.T) *metrics.Metrics {
	t.Helper()
	routes, err := metrics.ParseRoutes([]string{"quantised"})
	qt.Assert(t, qt.IsNil(err))
	m := metrics.New(routes, 600, func() metrics.Accounts { return metrics.Accounts{} })
	for i := range 600 {
		m.Observe(&connection.Exchange{Source: event.Syscalls, LocalPort: 80, Exchange: http1.Exchange{Role: http1.Server, Method: "GET", Status: 200,
			Path: "/" + strings.Repeat("x", i%30) + string(rune('a'+i/30%26)) + string(rune('a'+i/780))}}, fmt.Sprint("docker://", i))
	}
	return m
}

// Readers that never read hold up nobody: everyone else is served at once, all of it, and those are
// cut off.
func TestSlowReaders(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	const within = 15 * time.Second // a scrape waits for the pages of all that hang, on a busy machine too
	counted := &countedListener{Listener: l}
	stop := serve(counted, manyFigures(t).Handler(), within, func(err error) { t.Error(err) })
	defer stop()
	get := func() int {
		c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}, Timeout: time.Minute} // on a busy machine
		r, err := c.Get("http://" + l.Addr().String() + "/metrics")
		if !qt.Check(t, qt.IsNil(err)) {
			return 0
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(r.StatusCode, http.StatusOK))
		qt.Check(t, qt.IsTrue(strings.Contains(string(b), "\nhttpprobe_series ")))
		return len(b)
	}
	size := get()
	t.Logf("%d bytes", size)
	qt.Assert(t, qt.IsTrue(size > 3<<20))
	hang := func() {
		c, err := net.Dial("tcp", l.Addr().String())
		qt.Assert(t, qt.IsNil(err))
		t.Cleanup(func() { c.Close() })
		qt.Assert(t, qt.IsNil(c.(*net.TCPConn).SetReadBuffer(4096)))
		fmt.Fprint(c, "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n")
	}
	for range 3 * scrape.MaxReaders {
		hang()
	}
	time.Sleep(200 * time.Millisecond)
	for range 5 {
		start := time.Now()
		qt.Check(t, qt.Equals(get(), size))
		t.Logf("%v", time.Since(start))
	}
	qt.Check(t, qt.IsTrue(counted.open.Load() <= scrape.MaxReaders))
	time.Sleep(within)
	for range 100 {
		if counted.open.Load() == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%d connections are still open", counted.open.Load())
}

// countedListener counts its connections that are open.
type countedListener struct {
	net.Listener
	open atomic.Int64
}

func (l *countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	return &countedConn{Conn: c, left: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
}

type countedConn struct {
	net.Conn
	left func()
}

func (c *countedConn) Close() error {
	c.left()
	return c.Conn.Close()
}
