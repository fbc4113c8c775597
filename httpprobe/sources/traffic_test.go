// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
)

// taped remembers what goes through a connection, in both directions as this end sees them.
type taped struct {
	net.Conn
	mu   sync.Mutex
	sent [2]bytes.Buffer // by event.Direction
}

func (c *taped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent[event.In].Write(b[:n])
	return n, err
}

func (c *taped) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.sent[event.Out].Write(b)
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// end names one end of a TCP connection.
type end struct{ local, remote uint16 }

// tapes holds every connection of a test.
type tapes struct {
	mu   sync.Mutex
	ends map[end]*taped
}

func (t *tapes) tape(c net.Conn) net.Conn {
	p := &taped{Conn: c}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ends[end{port(c.LocalAddr()), port(c.RemoteAddr())}] = p
	return p
}

func port(a net.Addr) uint16 { return uint16(a.(*net.TCPAddr).Port) }

type tapedListener struct {
	net.Listener
	tapes *tapes
}

func (l tapedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.tapes.tape(c), nil
}

// serve answers on a loopback address: /N with a body of N bytes.
func serve(t testing.TB, tapes *tapes) string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	server := &http.Server{Handler: http.HandlerFunc(answer)}
	go func() { _ = server.Serve(tapedListener{l, tapes}) }()
	t.Cleanup(func() { server.Close() })
	return "http://" + l.Addr().String()
}

func answer(w http.ResponseWriter, r *http.Request) {
	var n int
	if _, err := fmt.Sscanf(r.URL.Path, "/%d", &n); err != nil {
		http.NotFound(w, r)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Length", fmt.Sprint(n))
	_, _ = io.WriteString(w, strings.Repeat("x", n))
}

func client(tapes *tapes) *http.Client { return clientOf(tapes, &net.Dialer{}) }

func clientOf(tapes *tapes, dialer *net.Dialer) *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, "tcp4", addr)
			if err != nil {
				return nil, err
			}
			return tapes.tape(c), nil
		},
	}}
}

func get(t testing.TB, c *http.Client, url string, status int) {
	t.Helper()
	response, err := c.Get(url)
	qt.Assert(t, qt.IsNil(err))
	_, err = io.Copy(io.Discard, response.Body)
	qt.Assert(t, qt.IsNil(err))
	response.Body.Close()
	qt.Assert(t, qt.Equals(response.StatusCode, status))
}

// collector keeps copies of a source's events.
type collector struct {
	events []event.Event
	stop   func()
}

func collect(t testing.TB, s *Source) *collector {
	ctx, cancel := context.WithCancel(context.Background())
	c := &collector{}
	done := make(chan error, 1)
	go func() {
		done <- s.Run(ctx, func(e *event.Event) {
			own := *e
			own.Data = bytes.Clone(e.Data)
			c.events = append(c.events, own)
		})
	}()
	var once sync.Once
	c.stop = func() {
		once.Do(func() {
			cancel()
			qt.Check(t, qt.IsNil(<-done))
		})
	}
	t.Cleanup(c.stop)
	return c
}

// flow is one direction of a connection, put together from events.
type flow struct {
	bytes []byte // where nothing was captured, zeros
	known []bool
	gaps  uint64 // bytes that no event told of
	fresh bool
}

type flowKey struct {
	conn event.Conn
	end  end
	dir  event.Direction
}

func flows(t testing.TB, events []event.Event) map[flowKey]*flow {
	list := map[flowKey]*flow{}
	for _, e := range events {
		if e.Kind != event.Data {
			continue
		}
		k := flowKey{e.Conn, end{e.LocalPort, e.RemotePort}, e.Dir}
		f := list[k]
		if f == nil {
			f = &flow{fresh: e.Fresh}
			list[k] = f
		}
		at := uint64(len(f.bytes))
		qt.Assert(t, qt.IsTrue(uint64(len(e.Data)) <= e.Len))
		if e.Pos+e.Len <= at { // a segment that was sent again
			qt.Assert(t, qt.Equals(e.Conn.Source, event.Packets), qt.Commentf("%+v begins at %d, before %d", k, e.Pos, at))
			continue
		}
		qt.Assert(t, qt.IsTrue(e.Pos >= at), qt.Commentf("%+v begins at %d, before %d", k, e.Pos, at))
		f.gaps += e.Pos - at
		f.bytes = append(f.bytes, make([]byte, e.Pos+e.Len-at)...)
		f.known = append(f.known, make([]bool, e.Pos+e.Len-at)...)
		copy(f.bytes[e.Pos:], e.Data)
		for i := range e.Data {
			f.known[e.Pos+uint64(i)] = true
		}
	}
	return list
}

// compare holds what a source saw of an end against its tape: every byte that was captured is the
// one that went, and all bytes are told. It returns how many were captured.
func compare(t testing.TB, p *taped, dir event.Direction, f *flow) (captured int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	return compareBytes(t, p.sent[dir].Bytes(), f)
}

func compareBytes(t testing.TB, want []byte, f *flow) (captured int) {
	t.Helper()
	qt.Assert(t, qt.Equals(len(f.bytes), len(want)))
	for i, known := range f.known {
		if !known {
			continue
		}
		captured++
		if f.bytes[i] != want[i] {
			t.Fatalf("byte %d is %q, and was %q", i, f.bytes[i], want[i])
		}
	}
	return captured
}

func own() []int { return []int{os.Getpid()} }

func monotonic() uint64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return uint64(ts.Nano())
}
