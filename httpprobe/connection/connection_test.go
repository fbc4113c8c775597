// SPDX-License-Identifier: Apache-2.0

package connection

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"
)

const (
	get  = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
	getB = "GET /b HTTP/1.1\r\nHost: h\r\n\r\n"
	ok   = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
)

// tape makes the events of one connection.
type tape struct {
	t     *Table
	conn  event.Conn
	now   uint64
	pos   [2]uint64
	fresh bool
}

func (p *tape) event(k event.Kind, d event.Direction, pos uint64, s string) {
	p.now += uint64(time.Millisecond)
	p.t.Event(&event.Event{Kind: k, Conn: p.conn, Dir: d, Fresh: p.fresh, Time: p.now, TGID: 7, TID: 8, Comm: "srv", CgroupID: 9,
		LocalPort: 80, RemotePort: 4000, Pos: pos, Len: uint64(len(s)), Data: []byte(s)})
}

func (p *tape) data(d event.Direction, s string) {
	p.event(event.Data, d, p.pos[d], s)
	p.pos[d] += uint64(len(s))
}

func (p *tape) in(s string)  { p.data(event.In, s) }
func (p *tape) out(s string) { p.data(event.Out, s) }
func (p *tape) close()       { p.event(event.Close, event.In, 0, "") }

func newTape(source event.Source, got *[]string) *tape {
	t := New(Options{Emit: func(e *Exchange) { *got = append(*got, fmt.Sprintf("%s %s %d", e.Method, e.Path, e.Status)) }})
	return &tape{t: t, conn: event.Conn{Source: source, ID: 1, Born: 1}, fresh: true}
}

func TestExchange(t *testing.T) {
	var got []Exchange
	tb := New(Options{Emit: func(e *Exchange) { got = append(got, *e) }})
	p := &tape{t: tb, conn: event.Conn{Source: event.OpenSSL, ID: 1}, fresh: true}
	p.in(get)
	p.out(ok)
	p.close()
	ms := uint64(time.Millisecond)
	want := []Exchange{{Exchange: http1.Exchange{Role: http1.Server, Method: "GET", Path: "/a", Protocol: "HTTP/1.1", Status: 200,
		Start: ms, FirstByte: 2 * ms, End: 2 * ms, RequestBytes: 28, ResponseBytes: 40},
		Source: event.OpenSSL, TGID: 7, Comm: "srv", CgroupID: 9, LocalPort: 80, RemotePort: 4000}}
	qt.Assert(t, qt.Equals(cmp.Diff(want, got), ""))
	qt.Check(t, qt.Equals(got[0].ServerPort(), 80))
	st := tb.Stats(event.OpenSSL)
	qt.Check(t, qt.Equals(st.Counted, 1))
	qt.Check(t, qt.Equals(st.Connections, 1))
	qt.Check(t, qt.Equals(st.Open, 0))
	qt.Check(t, qt.Equals(st.Spoke[http1.HTTP1], 1))
}

func TestOrder(t *testing.T) {
	tests := map[string]struct {
		source event.Source
		play   func(p *tape)
		want   []string
		unseen map[http1.Reason]uint64
	}{
		"repeated": {event.Packets, func(p *tape) {
			p.in(get)
			p.event(event.Data, event.In, 0, get)
			p.event(event.Data, event.In, 20, get[20:])
			p.out(ok)
			p.event(event.Data, event.Out, 0, ok)
		}, []string{"GET /a 200"}, nil},
		"repeated in part": {event.Packets, func(p *tape) {
			p.in(get)
			p.event(event.Data, event.In, 10, get[10:]+getB)
			p.pos[event.In] += uint64(len(getB))
			p.out(ok + gone)
		}, []string{"GET /a 200", "GET /b 404"}, nil},
		"late": {event.Packets, func(p *tape) {
			p.event(event.Data, event.In, 20, get[20:])
			p.event(event.Data, event.In, 10, get[10:20])
			p.event(event.Data, event.In, 0, get[:10])
			p.out(ok)
		}, []string{"GET /a 200"}, nil},
		"late end": {event.Packets, func(p *tape) {
			p.in("GET /a HTTP/1.0\r\n\r\n")
			p.out("HTTP/1.0 200 OK\r\n\r\n")
			p.event(event.Shut, event.Out, p.pos[event.Out]+3, "")
			p.out("abc")
		}, []string{"GET /a 200"}, nil},
		"never": {event.Packets, func(p *tape) {
			p.in(get)
			p.out(ok)
			p.pos[event.In] += 50
			p.in(getB)
			p.t.Tick(p.now + 2*patience)
			p.out(gone)
		}, []string{"GET /a 200"}, map[http1.Reason]uint64{http1.Gap: 1}},
		"calls do not wait": {event.Syscalls, func(p *tape) {
			p.in(get)
			p.pos[event.Out] += 40
			p.out(gone)
		}, nil, map[http1.Reason]uint64{http1.Gap: 2}},
		"close settles": {event.Packets, func(p *tape) {
			p.in(get)
			p.event(event.Data, event.Out, 38, "ok")
			p.close()
		}, nil, map[http1.Reason]uint64{http1.Gap: 1}},
		"response first": {event.Syscalls, func(p *tape) {
			p.in(ok)
			p.out(get)
		}, []string{"GET /a 200"}, nil},
		"response alone": {event.Syscalls, func(p *tape) {
			p.in(ok)
			p.t.Tick(p.now + 2*patience)
			p.out(get)
		}, nil, map[http1.Reason]uint64{http1.NoRequest: 1}},
		"joined": {event.Syscalls, func(p *tape) {
			p.fresh = false
			p.pos = [2]uint64{1 << 40, 77}
			for range 3 {
				p.in(get)
				p.out(ok)
			}
		}, []string{"GET /a 200", "GET /a 200"}, map[http1.Reason]uint64{http1.Joined: 1}},
		"forgotten, and goes on": {event.Syscalls, func(p *tape) {
			p.in(get)
			p.out(ok)
			p.t.Tick(p.now + uint64(time.Hour))
			for range 2 {
				p.in(getB)
				p.out(gone)
			}
		}, []string{"GET /a 200", "GET /b 404"}, map[http1.Reason]uint64{http1.Joined: 1}},
		"expired": {event.Syscalls, func(p *tape) {
			p.in(get)
			p.t.Tick(p.now + uint64(time.Hour))
		}, nil, map[http1.Reason]uint64{http1.Expired: 1}},
		"unfinished": {event.Syscalls, func(p *tape) { p.in(get) }, nil, map[http1.Reason]uint64{http1.Unfinished: 1}},
		"used again": {event.Syscalls, func(p *tape) {
			p.in(get)
			p.conn.Born++ // its end was lost
			p.pos = [2]uint64{}
			p.in(getB)
			p.out(gone)
		}, []string{"GET /b 404"}, map[http1.Reason]uint64{http1.Unfinished: 1}},
		"lies": {event.Syscalls, func(p *tape) {
			p.t.Event(&event.Event{Kind: event.Data, Conn: p.conn, Fresh: true, Len: 3, Data: []byte(get)})
			p.t.Event(&event.Event{Kind: event.Data, Conn: p.conn, Dir: 9, Data: []byte(get)})
			p.t.Event(&event.Event{Kind: event.Data, Conn: event.Conn{Source: 99}, Data: []byte(get)})
			p.t.Event(&event.Event{Kind: event.Data, Conn: p.conn, Pos: 1<<64 - 1, Len: 1<<64 - 1, Data: []byte(get)})
			p.t.Event(&event.Event{Kind: event.Data, Conn: p.conn, Pos: 1, Len: 1, Data: nil})
			p.t.Event(&event.Event{Kind: 77, Conn: p.conn})
		}, nil, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			p := newTape(tt.source, &got)
			tt.play(p)
			p.t.Flush()
			qt.Check(t, qt.Equals(cmp.Diff(tt.want, got), ""))
			var want [http1.Reasons]uint64
			for r, n := range tt.unseen {
				want[r] = n
			}
			st := p.t.Stats(tt.source)
			qt.Check(t, qt.Equals(st.Unparsed, want))
			qt.Check(t, qt.Equals(st.Counted, uint64(len(tt.want))))
			qt.Check(t, qt.Equals(st.Open, 0))
			qt.Check(t, qt.Equals(p.t.c.Budget.Used, 0))
			qt.Check(t, qt.HasLen(p.t.waiting, 0))
			qt.Check(t, qt.HasLen(p.t.conns, 0))
		})
	}
}

// A connection that makes the parser panic is given up and counted, told once, and harms no other.
func TestPanic(t *testing.T) {
	var got, told []string
	tb := New(Options{
		Emit: func(e *Exchange) {
			if e.Status == 404 {
				panic("no such page")
			}
			got = append(got, e.Path)
		},
		Panicked: func(cause any, at string) { told = append(told, fmt.Sprint(cause, " ", at)) },
	})
	good := &tape{t: tb, conn: event.Conn{Source: event.Packets, ID: 1}, fresh: true}
	good.in(get)
	for i := range 3 {
		bad := &tape{t: tb, conn: event.Conn{Source: event.Packets, ID: uint64(2 + i)}, fresh: true}
		bad.in(getB + getB)
		bad.event(event.Data, event.In, 1000, "late")
		switch i {
		case 0:
			bad.out(gone)
		case 1: // as it ends
			bad.out("HTTP/1.0 404 Not Found\r\n\r\n")
			bad.close()
		case 2: // as it is looked at now and then
			bad.event(event.Data, event.Out, 10, gone[10:])
			bad.event(event.Data, event.Out, 0, gone[:10])
			tb.Tick(bad.now + 2*patience)
		}
		bad.out(ok) // and goes on
	}
	good.out(ok)
	tb.Flush()
	qt.Check(t, qt.DeepEquals(got, []string{"/a"}))
	qt.Assert(t, qt.HasLen(told, 1))
	qt.Check(t, qt.Matches(told[0], `no such page connection\.TestPanic.*, line \d+`))
	st := tb.Stats(event.Packets)
	qt.Check(t, qt.Equals(st.Counted, 1))
	qt.Check(t, qt.Equals(st.Unparsed[http1.Defect], 3*2), qt.Commentf("%v", st.Unparsed))
	qt.Check(t, qt.Equals(st.Open, 0))
	qt.Check(t, qt.Equals(tb.c.Budget.Used, 0))
	qt.Check(t, qt.HasLen(tb.waiting, 0))
}

func TestMute(t *testing.T) {
	var muted []event.Conn
	hour := uint64(time.Hour)
	tb := New(Options{Mute: func(c event.Conn) { muted = append(muted, c) }})
	tls := &tape{t: tb, conn: event.Conn{Source: event.Syscalls, ID: 1}, now: hour, fresh: true}
	ssh := &tape{t: tb, conn: event.Conn{Source: event.Syscalls, ID: 2}, now: hour, fresh: true}
	web := &tape{t: tb, conn: event.Conn{Source: event.Syscalls, ID: 3}, now: hour, fresh: true}
	for range 3 {
		tls.in("\x16\x03\x01\x00\x00")
		ssh.out("SSH-2.0-x\r\n")
		web.in(get)
	}
	qt.Check(t, qt.DeepEquals(muted, []event.Conn{tls.conn, ssh.conn}))
	st := tb.Stats(event.Syscalls)
	qt.Check(t, qt.Equals(st.Spoke, [http1.Protocols]uint64{http1.HTTP1: 1, http1.TLS: 1, http1.Other: 1}))
	qt.Check(t, qt.Equals(st.Open, 3))
	// They are remembered for a moment, for what was on its way, and not for long.
	tb.Tick(web.now + uint64(2*moment))
	qt.Check(t, qt.Equals(tb.Stats(event.Syscalls).Open, 1))
}

// However often connections are muted, each is forgotten after its moment, and quiet ones after
// their time.
func TestManyMuted(t *testing.T) {
	tb := New(Options{Connections: 100, Idle: time.Minute})
	now := uint64(time.Hour)
	quiet := &tape{t: tb, conn: event.Conn{Source: event.Packets, ID: 1}, now: now, fresh: true}
	quiet.in(get)
	for i := range 5 * 120 {
		now += uint64(200 * time.Millisecond)
		tls := &tape{t: tb, conn: event.Conn{Source: event.Packets, ID: uint64(2 + i)}, now: now, fresh: true}
		tls.in("\x16\x03\x01\x00\x00")
		tb.Tick(now)
		st := tb.Stats(event.Packets)
		after := time.Duration(now - uint64(time.Hour))
		most := 5*int(moment/time.Second) + 1
		if after <= time.Minute {
			most++ // the quiet one
		}
		if st.Open > most || st.Unparsed[http1.Expired] > 0 != (after > time.Minute) {
			t.Fatalf("after %v: %d open, %d expired", after, st.Open, st.Unparsed[http1.Expired])
		}
	}
}

// Where there is no room the muted ones go first.
func TestMutedMakeRoom(t *testing.T) {
	tb := New(Options{Connections: 3})
	for i, s := range []string{get, "SSH-2.0-x\r\n", "\x16\x03\x01\x00\x00", get, get} {
		p := &tape{t: tb, conn: event.Conn{Source: event.Packets, ID: uint64(i)}, now: uint64(i) * 1e9, fresh: true}
		p.in(s)
	}
	st := tb.Stats(event.Packets)
	qt.Check(t, qt.Equals(st.PushedOut, 2))
	qt.Check(t, qt.Equals(st.Unseen(), 0))
}

func TestCap(t *testing.T) {
	var got int
	tb := New(Options{Connections: 10, Emit: func(*Exchange) { got++ }})
	for i := range 100 {
		p := &tape{t: tb, conn: event.Conn{Source: event.Syscalls, ID: uint64(i)}, now: uint64(i) * 1e9, fresh: true}
		p.in(get)
		qt.Assert(t, qt.IsTrue(tb.Stats(event.Syscalls).Open <= 10))
	}
	st := tb.Stats(event.Syscalls)
	qt.Check(t, qt.Equals(st.PushedOut, 90))
	qt.Check(t, qt.Equals(st.Unparsed[http1.Expired], 90))
	qt.Check(t, qt.Equals(got, 0))
}

// 50,000 connections, each with a request under way and a head in pieces, all at once.
func TestMemory(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(25)) // as the command sets it
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tb := New(Options{Emit: func(*Exchange) {}})
	const n = 50000
	tapes := make([]tape, n)
	grow := func(text func(i int) string, d event.Direction) {
		for i := range tapes {
			p := &tapes[i]
			*p = tape{t: tb, conn: event.Conn{Source: event.Syscalls, ID: uint64(i), Born: uint64(i)}, pos: p.pos, fresh: true}
			p.data(d, text(i))
		}
	}
	grow(func(i int) string { return fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i) }, event.In)
	grow(func(i int) string { return ok }, event.Out)
	grow(func(i int) string { return fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i) }, event.In)
	grow(func(i int) string { return "HTTP/1.1 200 OK\r\nSet-Cookie: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" }, event.Out)
	runtime.GC()
	runtime.ReadMemStats(&after)
	own := uint64(n) * 64 // the tapes
	used := after.HeapAlloc - before.HeapAlloc - own
	t.Logf("%d connections: %d MiB, %d bytes each; from the system %d MiB", n, used>>20, used/n, (after.Sys-before.Sys)>>20)
	qt.Check(t, qt.IsTrue(used < 40<<20), qt.Commentf("%d MiB", used>>20))
	qt.Check(t, qt.IsTrue(tb.c.Budget.Used <= tb.c.Budget.Max))
	st := tb.Stats(event.Syscalls)
	qt.Check(t, qt.Equals(st.Open, n))
	qt.Check(t, qt.Equals(st.Counted, n))
	tb.Flush()
	st = tb.Stats(event.Syscalls)
	qt.Check(t, qt.Equals(st.Counted+st.Unseen(), 2*n))
	runtime.KeepAlive(tapes)
}

func BenchmarkKeepAlive(b *testing.B) {
	tb := New(Options{Emit: func(*Exchange) {}})
	p := &tape{t: tb, conn: event.Conn{Source: event.Syscalls, ID: 1}, fresh: true}
	b.ReportAllocs()
	for b.Loop() {
		p.in(get)
		p.out(ok)
	}
}
