// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"hash/maphash"
	"net/netip"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
)

// tracker makes events of segments: it knows the connections, which end of them is the local one,
// and where their streams are. Of the segments that come again or late it tells all the same: Pos
// says so.
type tracker struct {
	conns map[pair]*tracked
	byID  map[uint64]*tracked // of two with one ID, either
	seed  maphash.Seed
	max   int
	// Each connection is in one of these: it has carried nothing yet, it has, or it has ended.
	silent, spoken, ended queue
	// isLocal reports whether an address is one of this machine, listens whether somebody here
	// listens at it.
	isLocal func(netip.Addr) bool
	listens func(netip.AddrPort) bool
	mapFull uint64
	out     event.Event
}

// pair is a connection, its ends in order of address.
type pair [2]netip.AddrPort

type tracked struct {
	pair
	id, born uint64
	local    int // which of the pair
	ways     [2]way
	last     uint64 // ns
	seen     bool   // has carried bytes
	closed   bool
	muted    bool

	in            *queue
	before, after *tracked
}

// queue is a ring of connections by the time of their last packets: ends.after was quiet the
// longest.
type queue struct {
	ends tracked
	n    int
}

func (c *tracked) moveTo(q *queue) {
	c.leave()
	c.in, c.before, c.after = q, q.ends.before, &q.ends
	c.before.after, c.after.before = c, c
	q.n++
}

func (c *tracked) leave() {
	if c.in == nil {
		return
	}
	c.before.after, c.after.before = c.after, c.before
	c.in.n--
	c.in = nil
}

// way is what one end sends.
type way struct {
	known bool   // pos is at seq
	fresh bool   // known from its SYN
	first uint32 // the SYN's number
	seq   uint32 // of the byte at pos
	pos   uint64
	shut  bool
}

const (
	maxTracked = 1 << 16
	second     = 1_000_000_000
	closedFor  = 2 * second  // segments may come late
	silentFor  = 30 * second // what was begun and never used is mostly a flood
	idleFor    = 900 * second
)

func newTracker(isLocal func(netip.Addr) bool, listens func(netip.AddrPort) bool) *tracker {
	t := &tracker{
		conns: map[pair]*tracked{}, byID: map[uint64]*tracked{}, seed: maphash.MakeSeed(), max: maxTracked, isLocal: isLocal, listens: listens,
	}
	for _, q := range []*queue{&t.silent, &t.spoken, &t.ended} {
		q.ends.before, q.ends.after = &q.ends, &q.ends
	}
	return t
}

func pairOf(a, b netip.AddrPort) (p pair, from int) {
	if a.Compare(b) <= 0 {
		return pair{a, b}, 0
	}
	return pair{b, a}, 1
}

// add calls f for what a segment tells. now is its time in ns.
//
//revive:disable-next-line:cyclomatic TCP's states and flags
func (t *tracker) add(s *segment, now uint64, f func(*event.Event)) {
	p, from := pairOf(s.from, s.to)
	c := t.conns[p]
	syn := s.flags&tcpSYN != 0
	if c != nil && syn && s.flags&tcpACK == 0 && c.ways[from].first != s.seq { // the ports are used again
		t.end(c, now, f)
		t.forget(c)
		c = nil
	}
	if c == nil {
		if !syn && s.length == 0 || s.flags&tcpRST != 0 {
			return
		}
		c = t.begin(p, from, s, now)
	}
	c.last = now
	c.moveTo(c.in)
	if c.closed {
		return
	}
	w := &c.ways[from]
	seq := s.seq
	if syn {
		seq++
		if !w.known {
			*w = way{known: true, fresh: true, first: s.seq, seq: seq}
		}
	}
	if !w.known {
		w.known, w.seq = true, seq
	}
	at := int64(w.pos) + int64(int32(seq-w.seq))
	if at < 0 { // older than all that is known
		return
	}
	if s.length > 0 && s.flags&tcpRST == 0 {
		if !c.seen {
			c.seen = true
			c.moveTo(&t.spoken)
		}
		if !c.muted {
			e := t.event(c, from, now)
			e.Kind, e.Pos, e.Len, e.Data = event.Data, uint64(at), uint64(s.length), s.data
			f(e)
		}
	}
	if end := uint64(at) + uint64(s.length); end > w.pos {
		w.pos, w.seq = end, seq+uint32(s.length)
	}
	switch {
	case s.flags&tcpRST != 0:
		t.end(c, now, f)
	case s.flags&tcpFIN != 0 && !w.shut:
		w.shut = true
		if c.seen && !c.muted {
			e := t.event(c, from, now)
			e.Kind, e.Pos = event.Shut, w.pos
			f(e)
		}
		if c.ways[1-from].shut {
			t.end(c, now, f)
		}
	}
}

// begin follows a new connection.
func (t *tracker) begin(p pair, from int, s *segment, now uint64) *tracked {
	t.expire(&t.ended, closedFor, now)
	t.expire(&t.silent, silentFor, now)
	t.expire(&t.spoken, idleFor, now)
	if len(t.conns) >= t.max {
		t.makeRoom()
	}
	var h maphash.Hash
	h.SetSeed(t.seed)
	for _, end := range p {
		b := end.Addr().As16()
		_, _ = h.Write(b[:])
		_, _ = h.Write([]byte{byte(end.Port() >> 8), byte(end.Port())})
	}
	c := &tracked{pair: p, id: h.Sum64(), born: now, local: t.localEnd(p, from, s), last: now}
	t.conns[p], t.byID[c.id] = c, c
	c.moveTo(&t.silent)
	return c
}

// localEnd is the end that has an address of this machine. Where both have, as over the loopback,
// or neither, as what is passed on to a container, it is the server: who is called, else who
// listens, else who has the lower port.
func (t *tracker) localEnd(p pair, from int, s *segment) int {
	if a, b := t.isLocal(p[0].Addr()), t.isLocal(p[1].Addr()); a != b {
		if a {
			return 0
		}
		return 1
	}
	if s.flags&tcpSYN != 0 {
		if s.flags&tcpACK != 0 {
			return from
		}
		return 1 - from
	}
	if a, b := t.listens(p[0]), t.listens(p[1]); a != b {
		if a {
			return 0
		}
		return 1
	}
	if p[0].Port() <= p[1].Port() {
		return 0
	}
	return 1
}

// event is one that is valid until the next.
func (t *tracker) event(c *tracked, from int, now uint64) *event.Event {
	dir := event.In
	if from == c.local {
		dir = event.Out
	}
	t.out = event.Event{
		Conn: event.Conn{Source: event.Packets, ID: c.id, Born: c.born}, Dir: dir, Fresh: c.ways[from].fresh, Time: now,
		LocalPort: c.pair[c.local].Port(), RemotePort: c.pair[1-c.local].Port(),
	}
	return &t.out
}

// end tells the end of a connection. It is remembered for a while, so that late segments do not
// begin another one.
func (t *tracker) end(c *tracked, now uint64, f func(*event.Event)) {
	if c.closed {
		return
	}
	c.closed = true
	c.moveTo(&t.ended)
	if c.seen && !c.muted {
		e := t.event(c, c.local, now)
		e.Kind = event.Close
		f(e)
	}
}

// expire forgets those that nothing was heard of for a while: who listens has limits of his own.
func (t *tracker) expire(q *queue, after, now uint64) {
	for c := q.ends.after; c != &q.ends && now > c.last+after; c = q.ends.after {
		t.forget(c)
	}
}

// makeRoom forgets the connection that was quiet the longest: one that has ended, or one that has
// carried nothing where those are the most, as in a flood, or else one that goes on and is lost.
func (t *tracker) makeRoom() {
	q := &t.spoken
	switch {
	case t.ended.n > 0:
		q = &t.ended
	case t.silent.n > t.max/2:
		q = &t.silent
	}
	c := q.ends.after
	if q == &t.spoken && !c.muted {
		t.mapFull++
	}
	t.forget(c)
}

func (t *tracker) forget(c *tracked) {
	c.leave()
	delete(t.conns, c.pair)
	if t.byID[c.id] == c {
		delete(t.byID, c.id)
	}
}

func (t *tracker) mute(m event.Conn) {
	if c := t.byID[m.ID]; c != nil && c.born == m.Born {
		c.muted = true
	}
}
