// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
)

var (
	here   = netip.MustParseAddrPort("10.0.0.1:40000")
	web    = netip.MustParseAddrPort("10.0.0.2:80")
	nobody = netip.MustParseAddrPort("10.0.0.3:8080")
)

// told is an event in one line.
func told(e *event.Event) string {
	dir := "in"
	if e.Dir == event.Out {
		dir = "out"
	}
	kind := map[event.Kind]string{event.Data: "data", event.Shut: "shut", event.Close: "close"}[e.Kind]
	s := fmt.Sprintf("%s %s %d", kind, dir, e.Pos)
	if e.Kind == event.Data {
		s += fmt.Sprintf(" %d %q", e.Len, e.Data)
	}
	if e.Fresh {
		s += " fresh"
	}
	return s
}

func TestTracker(t *testing.T) {
	type step struct {
		from, to netip.AddrPort
		seq      uint32
		flags    uint8
		text     string
		length   int // 0: as the text
	}
	const last = 1<<32 - 1
	for _, tt := range []struct {
		name  string
		steps []step
		want  []string
	}{
		{"from the start", []step{
			{here, web, 99, tcpSYN, "", 0}, {web, here, last, tcpSYN | tcpACK, "", 0},
			{here, web, 100, tcpACK, "GET", 0}, {web, here, 0, tcpACK, "HTTP", 10}, {web, here, 10, tcpACK, "more", 0},
			{web, here, 14, tcpACK | tcpFIN, "", 0}, {here, web, 103, tcpACK | tcpFIN, "", 0},
		}, []string{
			`data out 0 3 "GET" fresh`, `data in 0 10 "HTTP" fresh`, `data in 10 4 "more" fresh`,
			`shut in 14 fresh`, `shut out 3 fresh`, `close out 0 fresh`,
		}},
		{"from the middle, with a gap, across the end of the numbers", []step{
			{here, web, last - 1, tcpACK, "abc", 0}, {here, web, 11, tcpACK, "def", 0},
		}, []string{`data out 0 3 "abc"`, `data out 13 3 "def"`}},
		{"again and late", []step{
			{here, web, 10, tcpACK, "abc", 0}, {here, web, 16, tcpACK, "ghi", 0}, {here, web, 13, tcpACK, "def", 0}, {here, web, 10, tcpACK, "abc", 0},
			{here, web, 19, tcpACK, "jkl", 0}, {here, web, 5, tcpACK, "old", 0},
		}, []string{`data out 0 3 "abc"`, `data out 6 3 "ghi"`, `data out 3 3 "def"`, `data out 0 3 "abc"`, `data out 9 3 "jkl"`}},
		{"data with the end", []step{
			{web, here, 10, tcpACK | tcpFIN, "bye", 0}, {web, here, 10, tcpACK | tcpFIN, "bye", 0}, {here, web, 5, tcpRST, "", 0}, {web, here, 10, tcpACK, "bye", 0},
		}, []string{`data in 0 3 "bye"`, `shut in 3`, `data in 0 3 "bye"`, `close out 0`}},
		{"the ports again", []step{
			{here, web, 99, tcpSYN, "", 0}, {here, web, 99, tcpSYN, "", 0}, {here, web, 100, tcpACK, "GET", 0},
			{here, web, 5000, tcpSYN, "", 0}, {here, web, 5001, tcpACK, "PUT", 0},
		}, []string{`data out 0 3 "GET" fresh`, `close out 0 fresh`, `data out 0 3 "PUT" fresh`}},
		{"nothing to tell of", []step{
			{here, web, 99, tcpSYN, "", 0}, {web, here, 7, tcpRST | tcpACK, "", 0}, {web, nobody, 7, tcpRST, "", 0}, {nobody, web, 1, tcpFIN | tcpACK, "", 0},
		}, nil},
		{"data in the first packet", []step{{here, web, 99, tcpSYN, "GET", 0}, {here, web, 103, tcpACK, " /", 0}}, []string{
			`data out 0 3 "GET" fresh`, `data out 3 2 " /" fresh`,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := newTracker(func(a netip.Addr) bool { return a == here.Addr() }, func(netip.AddrPort) bool { return false })
			var got []string
			born := map[event.Conn]bool{}
			for i, s := range tt.steps {
				length := s.length
				if length == 0 {
					length = len(s.text)
				}
				tr.add(&segment{s.from, s.to, s.seq, s.flags, length, []byte(s.text)}, uint64(i+1), func(e *event.Event) {
					born[e.Conn] = true
					got = append(got, told(e))
					qt.Check(t, qt.Equals(e.LocalPort, here.Port()))
					qt.Check(t, qt.Equals(e.RemotePort, web.Port()))
				})
			}
			qt.Check(t, qt.DeepEquals(got, tt.want))
			if tt.name == "the ports again" {
				qt.Check(t, qt.HasLen(born, 2))
			}
		})
	}
}

// Which end is the local one decides who is the server.
func TestLocalEnd(t *testing.T) {
	a, b := netip.MustParseAddrPort("127.0.0.1:50000"), netip.MustParseAddrPort("127.0.0.1:60000")
	for _, tt := range []struct {
		name    string
		local   bool // both are
		listens netip.AddrPort
		first   segment
		want    uint16
	}{
		{"who is called", true, netip.AddrPort{}, segment{from: a, to: b, flags: tcpSYN, length: 1}, 60000},
		{"who answers", true, netip.AddrPort{}, segment{from: b, to: a, flags: tcpSYN | tcpACK, length: 1}, 60000},
		{"who listens", true, b, segment{from: a, to: b, length: 1}, 60000},
		{"who listens, from there", true, b, segment{from: b, to: a, length: 1}, 60000},
		{"the lower port", true, netip.AddrPort{}, segment{from: b, to: a, length: 1}, 50000},
		{"passed on", false, netip.AddrPort{}, segment{from: a, to: b, flags: tcpSYN, length: 1}, 60000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := newTracker(func(netip.Addr) bool { return tt.local }, func(p netip.AddrPort) bool { return p == tt.listens })
			var got uint16
			tr.add(&tt.first, 1, func(e *event.Event) { got = e.LocalPort })
			qt.Check(t, qt.Equals(got, tt.want))
		})
	}
}

func TestTrackerBounds(t *testing.T) {
	tr := newTracker(func(netip.Addr) bool { return false }, func(netip.AddrPort) bool { return false })
	tr.max = 10
	var muted event.Conn
	events := 0
	add := func(i int, now uint64) {
		from := netip.AddrPortFrom(here.Addr(), uint16(1000+i))
		tr.add(&segment{from: from, to: web, seq: 1, length: 1}, now, func(e *event.Event) { muted = e.Conn; events++ })
	}
	for i := range 20 {
		add(i, uint64(i))
	}
	qt.Check(t, qt.Equals(len(tr.conns), 10))
	qt.Check(t, qt.Equals(tr.mapFull, 10)) // those that made room
	qt.Check(t, qt.Equals(events, 20))
	add(20, idleFor+5*second)
	qt.Check(t, qt.Equals(len(tr.conns), 1))
	qt.Check(t, qt.Equals(len(tr.byID), 1))
	qt.Check(t, qt.Equals(events, 21))
	tr.mute(event.Conn{ID: muted.ID, Born: muted.Born + 1}) // another one's
	add(20, idleFor+5*second)
	qt.Check(t, qt.Equals(events, 22))
	tr.mute(muted)
	add(20, idleFor+5*second)
	qt.Check(t, qt.Equals(events, 22))
}

// A flood of connections that are begun and never used takes no room from others, whether they were
// there before or come in its midst.
func TestTrackerFlood(t *testing.T) {
	tr := newTracker(func(a netip.Addr) bool { return a == web.Addr() }, func(netip.AddrPort) bool { return false })
	var got []string
	f := func(e *event.Event) { got = append(got, told(e)) }
	now := uint64(idleFor)
	flood := func(n int) {
		for range n {
			now += 10_000 // 100,000 a second
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(now >> 40), byte(now >> 32), byte(now >> 24)}), uint16(now>>8))
			tr.add(&segment{from: from, to: web, seq: uint32(now), flags: tcpSYN}, now, f)
		}
	}
	talk := func(from netip.AddrPort, seq uint32, text string) {
		tr.add(&segment{from: from, to: web, seq: seq, flags: tcpACK, length: len(text), data: []byte(text)}, now, f)
	}
	tr.add(&segment{from: here, to: web, seq: 99, flags: tcpSYN}, now, f)
	talk(here, 100, "one")
	flood(2 * maxTracked)
	qt.Check(t, qt.Equals(len(tr.conns), maxTracked))
	tr.add(&segment{from: nobody, to: web, seq: 99, flags: tcpSYN}, now, f)
	flood(maxTracked / 4)
	talk(nobody, 100, "two")
	talk(here, 103, "three")
	flood(maxTracked)
	talk(nobody, 103, "four")
	qt.Check(t, qt.DeepEquals(got, []string{`data in 0 3 "one" fresh`, `data in 0 3 "two" fresh`, `data in 3 5 "three" fresh`, `data in 3 4 "four" fresh`}))
	qt.Check(t, qt.Equals(tr.mapFull, 0))

	now += silentFor + second // it is over
	tr.add(&segment{from: netip.MustParseAddrPort("10.0.0.4:1"), to: web, seq: 99, flags: tcpSYN}, now, f)
	qt.Check(t, qt.Equals(len(tr.conns), 3))
	qt.Check(t, qt.Equals(len(tr.byID), 3))
	qt.Check(t, qt.DeepEquals([]int{tr.silent.n, tr.spoken.n, tr.ended.n}, []int{1, 2, 0}))
}

// Who was quiet the longest makes room, and before all others what has ended.
func TestTrackerRoom(t *testing.T) {
	tr := newTracker(func(a netip.Addr) bool { return a == web.Addr() }, func(netip.AddrPort) bool { return false })
	tr.max = 4
	now, told := uint64(0), uint64(0)
	add := func(i uint16, flags uint8) {
		now++
		tr.add(&segment{from: netip.AddrPortFrom(here.Addr(), i), to: web, seq: 1, flags: flags, length: 1}, now, func(*event.Event) { told++ })
	}
	has := func(want ...uint16) {
		t.Helper()
		qt.Check(t, qt.Equals(len(tr.conns), len(want)))
		for _, i := range want {
			p, _ := pairOf(netip.AddrPortFrom(here.Addr(), i), web)
			qt.Check(t, qt.IsNotNil(tr.conns[p]), qt.Commentf("%d", i))
		}
	}
	for _, i := range []uint16{1, 2, 3, 4, 1, 5} {
		add(i, tcpACK)
	}
	has(1, 3, 4, 5)
	qt.Check(t, qt.Equals(tr.mapFull, 1))
	add(5, tcpRST)
	add(6, tcpACK)
	has(1, 3, 4, 6)
	qt.Check(t, qt.Equals(tr.mapFull, 1))
}

// The list of all sockets, which may be long, is read for connections that were there before, and
// not for each of them.
func TestLocalAddresses(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	at := l.Addr().(*net.TCPAddr).AddrPort()
	caller := netip.MustParseAddrPort("127.0.0.1:1")
	local := &localAddresses{}
	tr := newTracker(local.isLocal, local.listens)
	add := func(from, to netip.AddrPort, flags uint8) (port uint16) {
		tr.add(&segment{from: from, to: to, seq: 1, flags: flags, length: 1}, 1, func(e *event.Event) { port = e.LocalPort })
		return port
	}
	add(here, at, tcpSYN)
	add(caller, at, tcpSYN)
	add(web, nobody, tcpSYN)
	qt.Check(t, qt.IsNil(local.listeners))
	qt.Check(t, qt.Equals(add(at, netip.MustParseAddrPort("127.0.0.1:2"), tcpACK), at.Port()))
	qt.Check(t, qt.IsTrue(local.listeners[at]))
	l.Close()
	qt.Check(t, qt.Equals(add(at, netip.MustParseAddrPort("127.0.0.1:3"), tcpACK), at.Port()))
	qt.Check(t, qt.IsTrue(local.listeners[at])) // within the second
	local.listenersAt = local.listenersAt.Add(-time.Second)
	add(at, netip.MustParseAddrPort("127.0.0.1:4"), tcpACK)
	qt.Check(t, qt.IsFalse(local.listeners[at]))
}

func TestReadListeners(t *testing.T) {
	got := map[netip.AddrPort]bool{}
	readListeners([]byte(`  sl  local_address rem_address   st tx_queue
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000
   1: 00000000:0050 00000000:0000 0A 00000000:00000000
   2: 0100007F:1F91 0100007F:0050 01 00000000:00000000
   3: 00000000000000000000000001000000:01BB 00000000000000000000000000000000:0000 0A 0
   4: ZZ:ZZ 0 0A
   5: 0100007F 0 0A
`), got)
	qt.Check(t, qt.DeepEquals(got, map[netip.AddrPort]bool{
		netip.MustParseAddrPort("127.0.0.1:8080"): true, netip.MustParseAddrPort("0.0.0.0:80"): true, netip.MustParseAddrPort("[::1]:443"): true,
	}))
}
