// SPDX-License-Identifier: Apache-2.0

// Package connection turns the events of sources into exchanges: it keeps the connections, puts
// late packets in their place, tells gaps and repetitions, and bounds what all of it takes.
package connection

import (
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
	"github.com/bpfwhy/bpfwhy/httpprobe/http2"
)

// Options bound a table; zero values are the defaults.
type Options struct {
	Connections int           // followed at once; more push out those that were quiet the longest: DefaultConnections
	Bytes       int           // kept of unfinished heads, waiting requests and late packets, of all connections: DefaultBytes
	Idle        time.Duration // after which a quiet connection is forgotten. 10 minutes

	// Emit takes each exchange, which is valid during the call. It is called while the table is
	// locked: it must not call it, nor wait for anything.
	Emit func(*Exchange)
	// Mute, unless nil, is told of connections that do not speak HTTP (any more). It must not call
	// the table either.
	Mute func(event.Conn)
	// Panicked, unless nil, is told of the first connection whose parsing panicked, and where. It
	// must not call the table either.
	Panicked func(cause any, at string)
}

// The defaults, and what a table takes of memory with them. What is kept of heads grows by
// doubling.
const (
	DefaultConnections = 1 << 16
	DefaultBytes       = 12 << 20
	HeapBytes          = DefaultConnections*connBytes + 2*DefaultBytes + http1.HeapBytes
	// connBytes are those of a connection with its parser, the room that this has for a few
	// requests, and its places in maps that may be half empty.
	connBytes = 1152
)

// Exchange is a request with its response, and where it was seen.
type Exchange struct {
	http1.Exchange
	Source   event.Source
	TGID     uint32 // 0 where unknown
	Comm     string // possibly hostile
	CgroupID uint64 // 0 where unknown
	// LocalPort is that of the process's end; with RemotePort 0 where unknown.
	LocalPort, RemotePort uint16
}

// ServerPort is the server's port, whoever of the two was watched; 0 where unknown.
func (e *Exchange) ServerPort() uint16 {
	if e.Role == http1.Client {
		return e.RemotePort
	}
	return e.LocalPort
}

// ClientPort is the other one.
func (e *Exchange) ClientPort() uint16 {
	if e.Role == http1.Client {
		return e.LocalPort
	}
	return e.RemotePort
}

// Stats are sums since the start, of one source. Counted and Unparsed together are every request
// that was seen; those that were not seen are within the source's loss.
type Stats struct {
	Counted  uint64
	Unparsed [http1.Reasons]uint64
	// Spoke counts connections by what they turned out to speak. Tunnels were HTTP/1.x first and
	// are counted there too; undecided ones are counted when they are gone.
	Spoke       [http1.Protocols]uint64
	Connections uint64 // seen
	Open        int    // followed now
	PushedOut   uint64 // connections that made room for others
}

// Unseen is the sum of Unparsed.
func (s *Stats) Unseen() (n uint64) {
	for _, u := range s.Unparsed {
		n += u
	}
	return n
}

// Bounds of one connection, and how long what came too early is kept: a packet that is still
// missing after that was lost.
const (
	maxPending      = 64
	maxPendingBytes = 128 << 10
	patience        = uint64(300 * time.Millisecond)
)

// pending is what came before something that precedes it.
type pending struct {
	pos  uint64
	len  uint64
	shut bool
	seg  http1.Segment
}

// cost is what it takes of the budget, with its place in a list that may be half empty.
func (l *pending) cost() int { return 2*int(unsafe.Sizeof(pending{})) + len(l.seg.Data) }

// parser follows what is said on one connection.
type parser interface {
	Data(event.Direction, http1.Segment)
	Gap(event.Direction, uint64)
	Shut(event.Direction)
	Close()
	Abandon(http1.Reason)
	Discard()
	Waiting() (since uint64, ok bool)
	Resolve()
	Protocol() http1.Protocol
}

// conn is one connection.
type conn struct {
	key           event.Conn
	parser        parser
	before, after *conn     // in one of the table's lists
	last          uint64    // time of the last event
	next          [2]uint64 // position of the next byte, by event.Direction
	known         [2]bool   // whether next is
	muted         bool
	spoke         http1.Protocol
	pending       [2][]pending

	tgid          uint32
	local, remote uint16
	comm          string
	cgroup        uint64
}

// Table follows connections. It is safe for concurrent use.
type Table struct {
	mu      sync.Mutex
	o       Options
	c       http1.Config
	conns   map[event.Conn]*conn
	quiet   conn                     // ends of a ring: quiet.after was quiet the longest
	muted   conn                     // the same for those that are muted: muted.after was muted first
	waiting map[*conn]struct{}       // those that wait for something that may never come
	stats   [event.Sources + 1]Stats // by source
	current *conn                    // whose event is being looked at
	wrong   bool                     // something has panicked
	out     Exchange
}

// New returns an empty table.
func New(o Options) *Table {
	if o.Connections <= 0 {
		o.Connections = DefaultConnections
	}
	if o.Bytes <= 0 {
		o.Bytes = DefaultBytes
	}
	if o.Idle <= 0 {
		o.Idle = 10 * time.Minute
	}
	t := &Table{o: o, conns: map[event.Conn]*conn{}, waiting: map[*conn]struct{}{}}
	t.quiet.before, t.quiet.after = &t.quiet, &t.quiet
	t.muted.before, t.muted.after = &t.muted, &t.muted
	t.c = http1.Config{Exchange: t.exchange, Unparsed: t.unparsed, Budget: http1.Budget{Max: o.Bytes}}
	return t
}

// Event takes an event. Nothing of it is kept that is not needed, and no reference to its Data.
func (t *Table) Event(e *event.Event) {
	if e.Conn.Source == 0 || int(e.Conn.Source) > event.Sources || e.Dir > event.Out {
		return // no source makes such events
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.conns[e.Conn]
	if c == nil {
		if e.Kind == event.Close || e.Kind == event.Shut {
			return
		}
		c = t.open(e)
	}
	if c.muted && e.Kind != event.Close {
		return
	}
	t.touch(c, e)
	t.current = c
	defer t.rescue()
	switch e.Kind {
	case event.Data:
		t.data(c, e)
	case event.Shut:
		t.arrive(c, e.Dir, pending{pos: e.Pos, shut: true, seg: http1.Segment{Time: e.Time}})
	case event.Close:
		t.settle(c)
		c.parser.Close()
		t.after(c)
		t.forget(c)
		return
	}
	t.after(c)
}

// open begins to follow a connection.
func (t *Table) open(e *event.Event) *conn {
	if len(t.conns) >= t.o.Connections {
		oldest := t.muted.after
		if oldest == &t.muted {
			oldest = t.quiet.after
		}
		t.stats[oldest.key.Source].PushedOut++
		t.abandon(oldest, http1.Expired)
	}
	// What was forgotten, and now goes on, is not fresh. The first packets may have been overtaken.
	fresh := e.Fresh && (e.Pos == 0 || e.Conn.Source == event.Packets && e.Pos < maxPendingBytes)
	c := &conn{key: e.Conn, parser: http1.New(&t.c, fresh), known: [2]bool{fresh, fresh}}
	t.conns[c.key] = c
	st := &t.stats[c.key.Source]
	st.Connections++
	st.Open++
	c.before, c.after = c, c
	return c
}

// touch notes when and to whom something happened.
func (t *Table) touch(c *conn, e *event.Event) {
	c.moveTo(&t.quiet)
	c.last = max(c.last, e.Time)
	if e.TGID != 0 {
		c.tgid, c.comm = e.TGID, e.Comm
	}
	if e.CgroupID != 0 {
		c.cgroup = e.CgroupID
	}
	if e.LocalPort != 0 {
		c.local = e.LocalPort
	}
	if e.RemotePort != 0 {
		c.remote = e.RemotePort
	}
}

// moveTo makes a connection the last of a ring.
func (c *conn) moveTo(ends *conn) {
	c.before.after, c.after.before = c.after, c.before
	c.before, c.after = ends.before, ends
	c.before.after, c.after.before = c, c
}

// data takes bytes.
func (t *Table) data(c *conn, e *event.Event) {
	b := e.Data
	if uint64(len(b)) > e.Len {
		b = b[:e.Len]
	}
	t.arrive(c, e.Dir, pending{pos: e.Pos, len: e.Len, seg: http1.Segment{Time: e.Time, Data: b, Hidden: e.Len - uint64(len(b))}})
}

// arrive puts something in its place: now, later, or, if it was there before, nowhere.
func (t *Table) arrive(c *conn, d event.Direction, l pending) {
	if !c.known[d] {
		c.known[d], c.next[d] = true, l.pos
	}
	// Only packets overtake each other.
	if l.pos > c.next[d] && c.key.Source == event.Packets && t.keep(c, d, l) {
		return
	}
	t.put(c, d, l)
	t.fill(c, d)
}

// put hands something to the parser.
func (t *Table) put(c *conn, d event.Direction, l pending) {
	if l.pos > c.next[d] {
		c.parser.Gap(d, l.pos-c.next[d])
		c.next[d] = l.pos
	}
	if l.shut {
		c.parser.Shut(d)
		return
	}
	if seen := c.next[d] - l.pos; seen > 0 {
		if seen >= l.len {
			return
		}
		l.len -= seen
		l.seg.Mid = true
		if had := uint64(len(l.seg.Data)); seen < had {
			l.seg.Data = l.seg.Data[seen:]
		} else {
			l.seg.Data, l.seg.Hidden = nil, l.len
		}
	}
	c.next[d] += l.len
	c.parser.Data(d, l.seg)
	if p, ok := c.parser.(*http1.Parser); ok && p.Protocol() == http1.HTTP2 {
		t.upgrade(c, p)
	}
}

// upgrade goes on with HTTP/2, with what was said on the connection before it was known.
func (t *Table) upgrade(c *conn, from *http1.Parser) {
	said, request := from.Said()
	p := http2.New(&t.c, from.Role())
	c.parser = p
	if request != nil {
		p.Upgraded(*request)
	}
	for d, s := range said {
		if len(s.Data) > 0 || s.Hidden > 0 {
			p.Data(event.Direction(d), s)
		}
	}
}

// keep holds what came before something that precedes it. Without room it is false: what is
// missing is taken for lost.
func (t *Table) keep(c *conn, d event.Direction, l pending) bool {
	total := len(l.seg.Data)
	for _, o := range c.pending[d] {
		total += len(o.seg.Data)
	}
	if len(c.pending[d]) >= maxPending || total > maxPendingBytes || !t.c.Budget.Reserve(l.cost()) {
		t.deliverAll(c, d)
		return false
	}
	l.seg.Data = slices.Clone(l.seg.Data)
	i, _ := slices.BinarySearchFunc(c.pending[d], l.pos+1, func(o pending, pos uint64) int {
		if o.pos < pos {
			return -1
		}
		return 1
	})
	c.pending[d] = slices.Insert(c.pending[d], i, l)
	return true
}

// fill hands over what was kept, up to the next piece that is missing.
func (t *Table) fill(c *conn, d event.Direction) {
	for len(c.pending[d]) > 0 && c.pending[d][0].pos <= c.next[d] {
		t.deliverPending(c, d)
	}
}

// deliverAll hands over all that was kept: what is missing in between is lost.
func (t *Table) deliverAll(c *conn, d event.Direction) {
	for len(c.pending[d]) > 0 {
		t.deliverPending(c, d)
	}
}

func (t *Table) deliverPending(c *conn, d event.Direction) {
	l := c.pending[d][0]
	t.c.Budget.Release(l.cost())
	if c.pending[d] = slices.Delete(c.pending[d], 0, 1); len(c.pending[d]) == 0 {
		c.pending[d] = nil
	}
	t.put(c, d, l)
}

func (t *Table) settle(c *conn) {
	t.deliverAll(c, event.In)
	t.deliverAll(c, event.Out)
}

// after looks at what an event has changed.
func (t *Table) after(c *conn) {
	if spoke := c.parser.Protocol(); spoke != c.spoke {
		c.spoke = spoke
		t.stats[c.key.Source].Spoke[spoke]++
		if spoke != http1.HTTP1 && spoke != http1.HTTP2 && !c.muted {
			t.mute(c)
		}
	}
	_, waits := c.parser.Waiting()
	if waits || c.pending[0] != nil || c.pending[1] != nil {
		t.waiting[c] = struct{}{}
	} else if len(t.waiting) > 0 {
		delete(t.waiting, c)
	}
}

// mute stops the events of a connection. What is on its way still comes: the connection is
// remembered for a moment, and the first to make room.
func (t *Table) mute(c *conn) {
	c.muted = true
	t.settle(c)
	c.moveTo(&t.muted)
	if t.o.Mute != nil {
		t.o.Mute(c.key)
	}
}

const moment = 10 * time.Second

// forget ends the following of a connection.
func (t *Table) forget(c *conn) {
	st := &t.stats[c.key.Source]
	st.Open--
	if c.spoke == http1.Undecided {
		st.Spoke[http1.Undecided]++
	}
	c.before.after, c.after.before = c.after, c.before
	delete(t.waiting, c)
	delete(t.conns, c.key)
	t.current = nil
}

func (t *Table) abandon(c *conn, why http1.Reason) {
	t.current = c
	defer t.rescue()
	t.settle(c)
	c.parser.Abandon(why)
	t.after(c)
	t.forget(c)
}

// Tick gives up what has been waited for too long. now is of the clock of the events; call it about
// ten times a second.
func (t *Table) Tick(now uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.waiting {
		t.resolve(c, now)
	}
	for c := t.quiet.after; c != &t.quiet && now > c.last+uint64(t.o.Idle); c = t.quiet.after {
		t.abandon(c, http1.Expired)
	}
	for c := t.muted.after; c != &t.muted && now > c.last+uint64(moment); c = t.muted.after {
		t.abandon(c, http1.Expired)
	}
}

// resolve gives up what a connection has waited for too long.
func (t *Table) resolve(c *conn, now uint64) {
	t.current = c
	defer t.rescue()
	since, waits := c.parser.Waiting()
	for d := range c.pending {
		if len(c.pending[d]) > 0 && now > c.pending[d][0].seg.Time+patience {
			t.deliverAll(c, event.Direction(d))
		}
	}
	if waits && now > since+patience {
		c.parser.Resolve()
	}
	t.after(c)
}

// rescue, deferred, gives up the current connection where it makes the parser panic: whoever can
// speak to a server on this machine chooses what is parsed, and is not to choose whether others are
// watched. If more comes of it, it was joined in its midst.
func (t *Table) rescue() {
	c := t.current
	if c == nil {
		return // it is forgotten: nothing of the parser's is on the stack
	}
	cause := recover()
	if cause == nil {
		return
	}
	if !t.wrong && t.o.Panicked != nil {
		t.o.Panicked(cause, panickedAt())
	}
	t.wrong = true
	for d := range c.pending {
		for _, l := range c.pending[d] {
			t.c.Budget.Release(l.cost())
		}
	}
	c.parser.Discard()
	t.forget(c)
}

// panickedAt is the line of ours that panicked, for the function that recovers.
func panickedAt() string {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "runtime.") || !more {
			return fmt.Sprintf("%s, line %d", path.Base(f.Function), f.Line)
		}
	}
}

// Flush ends all connections, because nobody will look at them any more.
func (t *Table) Flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, ends := range []*conn{&t.quiet, &t.muted} {
		for ends.after != ends {
			t.abandon(ends.after, http1.Unfinished)
		}
	}
}

// Stats returns the sums of one source.
func (t *Table) Stats(of event.Source) Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stats[of]
}

func (t *Table) unparsed(why http1.Reason) { t.stats[t.current.key.Source].Unparsed[why]++ }

func (t *Table) exchange(e http1.Exchange) {
	c := t.current
	if t.o.Emit != nil {
		t.out = Exchange{Exchange: e, Source: c.key.Source, TGID: c.tgid, Comm: c.comm, CgroupID: c.cgroup,
			LocalPort: c.local, RemotePort: c.remote}
		t.o.Emit(&t.out)
	}
	t.stats[c.key.Source].Counted++
}
