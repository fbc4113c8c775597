// SPDX-License-Identifier: Apache-2.0

// Package http1 follows one HTTP/1.x connection from the outside: bytes, gaps and ends go in, exchanges come out, and a reason for each
// request of which nothing sure can be said.
//
// A status is never guessed. Responses belong to requests in their order, and where a message ends is known from its framing. Where that
// is lost (bytes that nobody saw, a connection joined in its midst) the parser drifts: it looks for a request, a response and a
// request again, each at the start of a call or packet and with no gap between, and goes on at the second request. Who sends requests
// without waiting for responses is not taken up again after a loss.
package http1

import (
	"bytes"
	"slices"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
)

// Role is that of the process whose end of the connection is watched.
type Role uint8

const (
	UnknownRole Role = iota
	Server
	Client
)

func (r Role) String() string {
	return [...]string{"unknown", "server", "client"}[r]
}

// Protocol is what a connection turned out to speak.
type Protocol uint8

const (
	Undecided Protocol = iota
	HTTP1
	HTTP2  // recognised by its preface, and left alone
	TLS    // recognised by its handshake
	Tunnel // HTTP/1.x, until 101 or CONNECT made it something else
	Other  // something else from its first byte
	Protocols
)

func (p Protocol) String() string {
	return [...]string{"undecided", "http1", "http2", "tls", "tunnel", "other"}[p]
}

// Reason says why a request gave no exchange.
type Reason uint8

const (
	Joined     Reason = iota // the connection was joined in its midst
	Gap                      // bytes were lost
	Uncopied                 // bytes were not copied, and with them where a message begins
	Malformed                // a head that net/http refuses, or that ends elsewhere for others
	HeadTooBig               // more than MaxHead bytes, and not even a request line in them
	Pipelined                // too many requests ahead of their responses, or where a response ends is unknown with more to come
	NoRequest                // a response to nothing
	Unanswered               // the connection ended without a response
	Truncated                // the connection ended within a head
	Memory                   // no room to keep what came in pieces
	Expired                  // nothing happened for too long, or the connection made room for others
	Unfinished               // still going on when the probe ended
	Reasons                  // their number
)

func (r Reason) String() string {
	return [...]string{"joined", "gap", "uncopied", "malformed", "head_too_big", "pipelined", "no_request", "unanswered", "truncated", "memory",
		"expired", "unfinished"}[r]
}

// Exchange is a request and its response. Times are those of the segments, in ns.
type Exchange struct {
	Role   Role
	Method string // as sent, at most 32 bytes
	// Path has no query string, fragment or user information and no parameters; at most 1024 bytes. It is as sent: still escaped, and
	// possibly hostile.
	Path      string
	Protocol  string // HTTP/1.0 or HTTP/1.1, of the request
	Status    int    // 100 to 999; of the final response, or 101
	Start     uint64 // first byte of the request
	FirstByte uint64 // first byte of the final response
	End       uint64 // last byte of the response
	// RequestBytes and ResponseBytes are the messages' with their heads, RequestBytes as far as it had come when the response ended.
	RequestBytes, ResponseBytes uint64
	Truncated                   bool // the connection ended before the response did
}

// Segment is what one call or packet carried.
type Segment struct {
	Time uint64
	Data []byte
	// Hidden is the number of bytes after Data that were not copied.
	Hidden uint64
	// Mid says that Data does not begin where the call or packet did.
	Mid bool
}

// Budget bounds what all parsers that share it keep of unfinished messages, in bytes.
type Budget struct{ Used, Max int }

// Take reports whether there is room for n more bytes, and takes it.
func (b *Budget) Take(n int) bool {
	if b.Used+n > b.Max {
		return false
	}
	b.Used += n
	return true
}

// Give gives n bytes back.
func (b *Budget) Give(n int) { b.Used -= n }

// Config is shared by parsers. They are not safe for concurrent use, and neither are those that share one.
type Config struct {
	Exchange func(Exchange)
	Unparsed func(Reason) // one request
	Budget   Budget
	heads    heads
}

// Bounds of one connection.
const (
	maxAhead     = 128      // requests without a response
	maxHeldBytes = 16 << 10 // of responses that came before their requests
	maxHeld      = 16       // segments of them
)

// flowState is where one direction is.
type flowState uint8

const (
	atHead flowState = iota // between messages
	inHead
	inBody
	lost // requests: where the next begins is unknown. responses: where this one ends
)

// flow is one direction.
type flow struct {
	state flowState
	body  body
	// clean, of requests that are lost: it was within one request, nothing that came since looks like another, and nothing was missed.
	clean bool
	why   Reason // requests are lost
	buf   []byte // of a head that is not whole
	first uint64 // time of the message's first byte
	last  uint64 // time of the last byte
	size  uint64 // bytes of the message
}

// request waits for its response.
type request struct {
	method, path, proto string
	start, firstByte    uint64
	size                uint64
	status              int  // 0 until the final response's head
	open                bool // it is still being sent
	bad                 bool // counted as unparsed; its response is read and dropped
	tunnel              bool // after it may come anything
	ahead               bool // it was sent before the response to an earlier one had ended
}

// held is a segment of responses for which there is no request yet, or a gap.
type held struct {
	Segment
	gap uint64
}

// Parser follows one connection.
type Parser struct {
	c        *Config
	role     Role
	protocol Protocol
	flows    [2]flow // by event.Direction
	queue    []request
	held     []held
	drift    drift
	// pipelines: requests were sent ahead of responses on this connection.
	pipelines bool
}

// New returns a parser for a connection that is seen from its first byte, or joined in its midst.
func New(c *Config, fresh bool) *Parser {
	p := &Parser{c: c}
	if !fresh {
		p.startDrift(Joined, false)
	}
	return p
}

// Role returns the role of the process at this end, as far as it is known.
func (p *Parser) Role() Role {
	if p.drift.on && p.protocol == Undecided {
		return UnknownRole
	}
	return p.role
}

// Protocol returns what the connection speaks.
func (p *Parser) Protocol() Protocol { return p.protocol }

// parses reports whether bytes still matter.
func (p *Parser) parses() bool { return p.protocol <= HTTP1 }

// requests is the direction in which requests go.
func (p *Parser) requests() event.Direction {
	if p.role == Client {
		return event.Out
	}
	return event.In
}

func (p *Parser) sender() *flow    { return &p.flows[p.requests()] }
func (p *Parser) responder() *flow { return &p.flows[1-p.requests()] }

// Data takes bytes that follow on what came before in that direction.
func (p *Parser) Data(d event.Direction, s Segment) {
	if !p.parses() || len(s.Data) == 0 && s.Hidden == 0 {
		return
	}
	switch {
	case p.drift.on:
		p.adrift(d, s)
	case p.role == UnknownRole:
		p.sniff(d, s)
	case d == p.requests():
		p.request(s)
	default:
		p.response(s)
	}
}

// Gap says that n bytes in that direction were lost.
func (p *Parser) Gap(d event.Direction, n uint64) {
	switch {
	case !p.parses() || n == 0:
	case p.drift.on:
		p.drift.step = 0
		p.letGo(&p.flows[d])
	case p.role == UnknownRole:
		p.startDrift(Gap, false)
	case d == p.requests():
		p.skipRequest(n, false)
	case len(p.held) > 0:
		p.hold(held{gap: n})
	default:
		p.skipResponse(n, 0, false)
	}
}

// Shut says that nothing more comes in that direction.
func (p *Parser) Shut(d event.Direction) {
	if !p.parses() || p.drift.on || p.role == UnknownRole || d == p.requests() {
		return
	}
	p.Resolve()
	if !p.parses() || p.drift.on {
		return
	}
	p.endOfResponses()
}

// Close says that the connection has ended. The parser is not used after it.
func (p *Parser) Close() {
	p.Resolve()
	if p.parses() && !p.drift.on && p.role != UnknownRole {
		p.endOfResponses()
		p.drop(Unanswered)
		if p.sender().state == inHead {
			p.c.Unparsed(Truncated)
		}
	}
	p.release()
}

// Abandon ends the parser though the connection may live on.
func (p *Parser) Abandon(why Reason) {
	p.Resolve()
	if p.parses() && !p.drift.on && p.role != UnknownRole {
		if w := p.responder(); w.state == lost && len(p.queue) == 1 {
			p.finish(w.last, false)
		}
		p.drop(why)
		if p.sender().state == inHead {
			p.c.Unparsed(why)
		}
	}
	p.release()
}

// Waiting returns since when responses have been waiting for their requests; false: none do. Two threads of a client may be seen in the
// wrong order, but not for long: see Resolve.
func (p *Parser) Waiting() (since uint64, ok bool) {
	if len(p.held) == 0 {
		return 0, false
	}
	return p.held[0].Time, true
}

// Resolve waits no longer.
func (p *Parser) Resolve() {
	if len(p.held) == 0 || !p.parses() || p.drift.on {
		return
	}
	// A response to a head that is not whole: to a slow or a very long one.
	if f := p.sender(); f.state == inHead && requestLine(f.buf) == yes {
		p.cut(Truncated, true)
		if len(p.held) == 0 || p.drift.on || !p.parses() {
			return
		}
	}
	p.startDrift(NoRequest, false)
}

// sniff decides what a fresh connection speaks. What comes before that is kept as the start of a head.
func (p *Parser) sniff(d event.Direction, s Segment) {
	f := &p.flows[d]
	old := len(f.buf)
	if old == 0 {
		if s.Data = skipEndsOfLine(s.Data); len(s.Data) == 0 {
			if s.Hidden > 0 {
				p.leave(Other)
			}
			return
		}
		f.first = s.Time
	}
	data := s.Data
	if old > 0 {
		if !p.keep(f, s.Data) {
			p.leave(Other)
			return
		}
		data = f.buf
		if !worthALook(old, s.Data) && s.Hidden == 0 && len(data) < MaxHead {
			return
		}
	}
	v := undecided
	switch _, status := statusLine(data); {
	case preface(data) == yes:
		p.leave(HTTP2)
		return
	case handshake(data) == yes:
		p.leave(TLS)
		return
	case requestLine(data) == yes:
		v, p.role = yes, roleOf(d)
	case status == yes:
		v, p.role = yes, roleOf(1-d)
	case requestLine(data) == no && status == no && preface(data) == no && handshake(data) == no:
		v = no
	}
	if v == undecided && (s.Hidden > 0 || len(data) >= MaxHead) && len(data) > len("OPTIONS ") && wellKnown(data) {
		v, p.role = yes, roleOf(d) // the line goes on beyond what can be had
	}
	switch {
	case v == yes:
		p.protocol = HTTP1
		if other := &p.flows[1-d]; len(other.buf) > 0 {
			// The other side had said something, not enough to tell what.
			_, status := statusLine(other.buf)
			switch {
			case d != p.requests() && requestLine(other.buf) == undecided:
				p.c.Unparsed(Truncated) // answered before its first line was whole
				p.startDrift(Truncated, false)
			case d == p.requests() && status == undecided:
				p.startDrift(NoRequest, false)
			default:
				p.leave(Other)
			}
			return
		}
		switch {
		case old > 0 && d != p.requests(): // back to where it began: nobody waits for this response
			s.Data, s.Time = slices.Clone(data), f.first
			p.letGo(f)
		case old > 0:
			p.c.Budget.Give(len(s.Data))
			f.buf, f.state, f.size = f.buf[:old], inHead, uint64(old)
		}
		p.Data(d, s)
	case v == no || s.Hidden > 0 || len(data) >= MaxHead:
		p.leave(Other)
	case old == 0 && !p.keep(f, s.Data):
		p.leave(Other)
	}
}

// worthALook reports whether the first line of a head that comes in pieces can have become another than it was: looking at it for each octet of a
// long one would cost too much.
func worthALook(old int, added []byte) bool { return old < 64 || bytes.IndexByte(added, '\n') >= 0 }

func roleOf(requests event.Direction) Role {
	if requests == event.In {
		return Server
	}
	return Client
}

// request takes what goes the way of requests.
func (p *Parser) request(s Segment) {
	f := p.sender()
	f.last = s.Time
	b, whole := s.Data, !s.Mid
	for len(b) > 0 {
		switch f.state {
		case atHead:
			b = skipEndsOfLine(b)
			if len(b) == 0 {
				break
			}
			if p.responder().state == lost && !p.conclude(whole) {
				return
			}
			f.state, f.first, f.size = inHead, s.Time, 0
		case inHead:
			old := len(f.buf)
			head, rest, ok := p.head(f, b)
			if !ok {
				p.cut(Memory, true)
				break
			}
			f.size += uint64(len(b) - len(rest))
			added := b[:len(b)-len(rest)]
			b = rest
			switch {
			case head != nil:
				p.requestHead(head)
			case worthALook(old, added) && requestLine(f.buf) == no:
				p.malformedRequest(f.buf)
			case len(f.buf) >= MaxHead:
				p.cut(HeadTooBig, true)
			}
		case inBody:
			n, state := f.body.feed(b)
			f.size += uint64(n)
			b = b[n:]
			switch state {
			case done:
				p.endRequest()
			case broken:
				p.loseRequests(Malformed, false)
			}
		case lost:
			p.whileLost(Segment{s.Time, b, s.Hidden, !whole})
			return
		}
		whole = false
		if p.drift.on || !p.parses() {
			return
		}
	}
	if s.Hidden > 0 {
		p.skipRequest(s.Hidden, true)
	}
}

// whileLost looks at what goes the way of requests while it is not known where one begins.
func (p *Parser) whileLost(s Segment) {
	f, w := p.sender(), p.responder()
	s, v := p.begins(f, s)
	switch {
	case v == undecided:
		return
	case v == yes && f.clean && w.state == lost && len(p.queue) == 1 && !p.pipelines:
		// The response to the only request has all come but for its end, and this begins the next one.
		p.finish(w.last, false)
		w.state, f.state = atHead, atHead
		p.request(s)
		return
	case v == yes, len(p.queue) > 0 && p.queue[0].status != 0:
		f.clean = false // it may be one more request, or a part of the next
	}
	p.stuck()
}

// stuck gives up where neither direction can tell any more where a message begins.
func (p *Parser) stuck() {
	if f := p.sender(); f.state == lost && !f.clean && p.responder().state == lost {
		p.failResponses(f.why)
	}
}

// begins tells whether a segment begins a request. The first bytes of a common method are kept until more is known: Go's server reads one byte
// ahead. Other methods are not recognised in pieces, lest the end of a body becomes a part of them.
func (p *Parser) begins(f *flow, s Segment) (Segment, verdict) {
	if len(f.buf) > 0 {
		joined := Segment{Time: f.first, Data: append(slices.Clone(f.buf), s.Data...), Hidden: s.Hidden}
		p.letGo(f)
		if requestLine(joined.Data) == yes && wellKnown(joined.Data) {
			return joined, yes
		}
	}
	if s.Mid {
		return s, no
	}
	v := requestLine(s.Data)
	if v == undecided {
		f.first = s.Time
		if s.Hidden > 0 || len(s.Data) > maxMethod || !wellKnown(s.Data) || !p.keep(f, s.Data) {
			v = no
		}
	}
	return s, v
}

// requestHead takes a whole head.
func (p *Parser) requestHead(head []byte) {
	f := p.sender()
	r, b, ok := p.c.heads.request(head)
	if !ok {
		p.malformedRequest(head)
		return
	}
	p.letGo(f)
	r.start = f.first
	f.body, f.state = b, inBody
	r.open = true
	if !p.enqueue(r) {
		return
	}
	if b.kind == noBody {
		p.endRequest()
	}
	p.deliver()
}

// malformedRequest: no server can know where the next request begins, but this one may be answered.
func (p *Parser) malformedRequest(head []byte) {
	f := p.sender()
	if n := len(p.queue); n > 0 && p.queue[n-1].tunnel {
		// The other protocol has begun.
		p.loseRequests(Malformed, false)
		return
	}
	p.c.Unparsed(Malformed)
	r := request{bad: true, start: f.first, method: methodOf(head)}
	p.letGo(f)
	f.state, f.clean, f.why = lost, false, Malformed
	if p.enqueue(r) {
		p.deliver()
	}
}

// cut gives up the rest of a head. Method and path may be known; the next response is that request's in any case.
func (p *Parser) cut(why Reason, clean bool) {
	f := p.sender()
	r := request{bad: true, method: methodOf(f.buf)}
	if requestLine(f.buf) == yes {
		line := append(f.buf[:headLine(f.buf):headLine(f.buf)], "\r\n"...)
		if whole, _, ok := p.c.heads.request(line); ok {
			r = whole
		}
	}
	if r.bad {
		p.c.Unparsed(why)
	}
	r.start, r.size = f.first, f.size
	p.letGo(f)
	f.state, f.clean, f.why = lost, clean, why
	if p.enqueue(r) {
		p.deliver()
	}
}

// enqueue lets a request wait for its response.
func (p *Parser) enqueue(r request) bool {
	r.ahead = len(p.queue) > 0
	if len(p.queue) >= maxAhead || !p.c.Budget.Take(r.cost()) {
		why := Pipelined
		if len(p.queue) < maxAhead {
			why = Memory
		}
		if !r.bad {
			p.c.Unparsed(why)
		}
		p.failResponses(why)
		return false
	}
	p.queue = append(p.queue, r)
	return true
}

// cost is what a request takes of the budget.
func (r *request) cost() int { return 160 + len(r.path) + len(r.method) }

func (p *Parser) endRequest() {
	f := p.sender()
	f.state = atHead
	if n := len(p.queue); n > 0 && p.queue[n-1].open {
		p.queue[n-1].open, p.queue[n-1].size = false, f.size
	}
}

// loseRequests: where the next request begins is unknown. Those that wait will get their responses.
func (p *Parser) loseRequests(why Reason, clean bool) {
	f := p.sender()
	if n := len(p.queue); n > 0 && p.queue[n-1].open {
		p.queue[n-1].open, p.queue[n-1].size = false, f.size
	}
	p.letGo(f)
	f.state, f.clean, f.why = lost, clean, why
	if len(p.queue) == 0 {
		p.startDrift(why, clean)
	}
}

// skipRequest passes over bytes of requests that were lost, or hidden: not copied.
func (p *Parser) skipRequest(n uint64, hidden bool) {
	f := p.sender()
	why := Gap
	if hidden {
		why = Uncopied
	}
	switch f.state {
	case atHead:
		p.loseRequests(why, false)
	case inHead:
		p.cut(why, hidden)
	case inBody:
		used, state := f.body.skip(n)
		f.size += used
		switch state {
		case done:
			p.endRequest()
			if used < n {
				p.skipRequest(n-used, hidden)
			}
		case broken:
			p.loseRequests(why, hidden)
		}
	case lost:
		f.clean = f.clean && hidden
		p.letGo(f)
		p.stuck()
	}
}

// response takes what goes the way of responses.
func (p *Parser) response(s Segment) {
	if len(p.held) > 0 {
		p.hold(held{Segment: s})
		return
	}
	f := p.responder()
	b := s.Data
	for len(b) > 0 {
		switch f.state {
		case atHead:
			if len(p.queue) == 0 {
				p.hold(held{Segment: Segment{s.Time, b, s.Hidden, s.Mid || len(b) < len(s.Data)}})
				return
			}
			f.state, f.first, f.size = inHead, s.Time, 0
		case inHead:
			head, rest, ok := p.head(f, b)
			if !ok {
				p.failResponses(Memory)
				return
			}
			f.last = s.Time
			f.size += uint64(len(b) - len(rest))
			b = rest
			if head != nil {
				p.responseHead(head)
			} else if _, v := statusLine(f.buf); v == no {
				p.failResponses(Malformed)
			} else if len(f.buf) >= MaxHead {
				p.failResponses(HeadTooBig)
			}
		case inBody:
			n, state := f.body.feed(b)
			f.last = s.Time
			f.size += uint64(n)
			b = b[n:]
			switch state {
			case done:
				p.endResponse()
			case broken:
				p.loseEnd()
			}
		case lost:
			f.last = s.Time
			f.size += uint64(len(b)) + s.Hidden
			return
		}
		if p.drift.on || !p.parses() {
			return
		}
	}
	if s.Hidden > 0 {
		p.skipResponse(s.Hidden, s.Time, true)
	}
}

// responseHead takes a whole head.
func (p *Parser) responseHead(head []byte) {
	f := p.responder()
	r := &p.queue[0]
	status, b, ok := p.c.heads.response(head, r.method)
	p.letGo(f)
	if !ok {
		p.failResponses(Malformed)
		return
	}
	if status < 200 && status != 101 {
		f.state = atHead
		return
	}
	r.status, r.firstByte = status, f.first
	p.pipelines = p.pipelines || r.ahead
	f.body, f.state = b, inBody
	switch {
	case status == 101, r.method == "CONNECT" && status < 300:
		p.finish(f.last, false)
		p.drop(Pipelined)
		p.leave(Tunnel)
	case b.kind == noBody:
		p.endResponse()
	}
}

// endResponse: the first request has been answered.
func (p *Parser) endResponse() {
	f := p.responder()
	p.finish(f.last, false)
	f.state = atHead
	p.drained()
}

// drained: without requests that wait, and none to come, there is nothing to parse responses by.
func (p *Parser) drained() {
	if f := p.sender(); len(p.queue) == 0 && f.state == lost {
		p.startDrift(f.why, f.clean)
	}
}

// loseEnd: where this response ends is unknown. Its status is not; the next request tells, if it waits for the response.
func (p *Parser) loseEnd() {
	p.responder().state = lost
	if len(p.queue) > 1 {
		p.failResponses(Pipelined)
		return
	}
	p.stuck()
}

// conclude ends a response whose end was not recognised, because a request begins.
func (p *Parser) conclude(whole bool) bool {
	w := p.responder()
	if !whole || p.pipelines || len(p.queue) != 1 {
		p.failResponses(Pipelined)
		return false
	}
	p.finish(w.last, false)
	w.state = atHead
	return true
}

// skipResponse passes over bytes of responses that were lost, or hidden: not copied.
func (p *Parser) skipResponse(n, time uint64, hidden bool) {
	f := p.responder()
	why := Gap
	if hidden {
		f.last, why = time, Uncopied
	}
	switch f.state {
	case atHead, inHead:
		p.failResponses(why)
	case inBody:
		used, state := f.body.skip(n)
		f.size += used
		switch {
		case state == broken && !hidden, state == done && !hidden:
			// When it ended is unknown.
			if state == broken {
				p.failResponses(why)
				return
			}
			r := p.pop()
			if !r.bad {
				p.c.Unparsed(why)
			}
			f.state = atHead
			p.drained()
		case state == done:
			p.endResponse()
		case state == broken:
			p.loseEnd()
		}
		if state == done && used < n && !p.drift.on && p.parses() {
			p.skipResponse(n-used, time, hidden)
		}
	}
}

// failResponses gives up every request that waits.
func (p *Parser) failResponses(why Reason) {
	p.drop(why)
	p.startDrift(why, false)
}

// endOfResponses: no more bytes of responses will come.
func (p *Parser) endOfResponses() {
	f := p.responder()
	switch {
	case len(p.queue) == 0:
	case f.state == inHead:
		if r := p.pop(); !r.bad {
			p.c.Unparsed(Truncated)
		}
	case f.state == inBody:
		p.finish(f.last, f.body.kind != untilClose)
	case f.state == lost:
		p.finish(f.last, false)
	}
	p.letGo(f)
	f.state = atHead
}

// finish makes an exchange of the first request that waits.
func (p *Parser) finish(end uint64, truncated bool) {
	r := p.pop()
	if r.bad {
		return
	}
	if r.open {
		r.size = p.sender().size
	}
	p.c.Exchange(Exchange{
		Role: p.role, Method: r.method, Path: r.path, Protocol: r.proto, Status: r.status,
		Start: r.start, FirstByte: max(r.firstByte, r.start), End: max(end, r.firstByte, r.start),
		RequestBytes: r.size, ResponseBytes: p.responder().size, Truncated: truncated,
	})
}

func (p *Parser) pop() request {
	r := p.queue[0]
	p.c.Budget.Give(r.cost())
	p.queue[0] = request{}
	if p.queue = p.queue[1:]; len(p.queue) == 0 {
		p.queue = nil
	}
	return r
}

// drop counts every request that waits as unparsed.
func (p *Parser) drop(why Reason) {
	for len(p.queue) > 0 {
		if r := p.pop(); !r.bad {
			p.c.Unparsed(why)
		}
	}
}

// hold keeps what came before its request.
func (p *Parser) hold(h held) {
	room := maxHeldBytes
	for _, o := range p.held {
		room -= len(o.Data)
	}
	if over := len(h.Data) - room; over > 0 {
		h.Hidden += uint64(over)
		h.Data = h.Data[:room]
	}
	if len(p.held) == maxHeld || !p.c.Budget.Take(len(h.Data)) {
		p.Resolve()
		if p.parses() && !p.drift.on && (len(p.queue) == 0 || len(p.held) > 0) {
			p.failResponses(Memory)
		}
		if h.gap > 0 {
			p.Gap(1-p.requests(), h.gap)
		} else {
			p.Data(1-p.requests(), h.Segment)
		}
		return
	}
	h.Data = slices.Clone(h.Data)
	p.held = append(p.held, h)
}

func (p *Parser) takeHeld() []held {
	items := p.held
	p.held = nil
	for _, h := range items {
		p.c.Budget.Give(len(h.Data))
	}
	return items
}

// deliver hands over what was held, now that there is a request.
func (p *Parser) deliver() {
	for len(p.held) > 0 && len(p.queue) > 0 && !p.drift.on && p.parses() {
		for _, h := range p.takeHeld() {
			if h.gap > 0 {
				p.Gap(1-p.requests(), h.gap)
			} else {
				p.Data(1-p.requests(), h.Segment)
			}
		}
	}
}

// head adds b to a head: it returns the whole head when it is there, and what is left of b. ok is false when there is no room.
func (p *Parser) head(f *flow, b []byte) (head, rest []byte, ok bool) {
	if len(f.buf) == 0 {
		if n := headEnd(b, 0); n > 0 && n <= MaxHead {
			return b[:n], b[n:], true
		}
	}
	old := len(f.buf)
	n := min(len(b), MaxHead-old)
	if !p.keep(f, b[:n]) {
		return nil, b, false
	}
	if end := headEnd(f.buf, old-3); end > 0 {
		return f.buf[:end], b[end-old:], true
	}
	return nil, b[n:], true
}

// keep adds to a head that is not whole.
func (p *Parser) keep(f *flow, b []byte) bool {
	if !p.c.Budget.Take(len(b)) {
		return false
	}
	f.buf = append(f.buf, b...)
	return true
}

// letGo forgets the bytes of a head.
func (p *Parser) letGo(f *flow) {
	p.c.Budget.Give(len(f.buf))
	clear(f.buf)
	f.buf = nil
}

// leave ends the parsing of a connection that speaks something else.
func (p *Parser) leave(to Protocol) {
	p.protocol = to
	p.release()
}

// release gives back what the parser keeps.
func (p *Parser) release() {
	for len(p.queue) > 0 {
		p.pop()
	}
	p.takeHeld()
	p.letGo(&p.flows[0])
	p.letGo(&p.flows[1])
}

func skipEndsOfLine(b []byte) []byte {
	for len(b) > 0 && (b[0] == '\r' || b[0] == '\n') {
		b = b[1:]
	}
	return b
}

// headLine is the length of the first line, its end included.
func headLine(b []byte) int {
	for i, c := range b {
		if c == '\n' {
			return i + 1
		}
	}
	return len(b)
}

// methodOf returns the method with which b begins, if its response cannot be read without: a response to HEAD has no body.
func methodOf(b []byte) string {
	for _, m := range []string{"HEAD ", "CONNECT "} {
		if len(b) >= len(m) && string(b[:len(m)]) == m {
			return m[:len(m)-1]
		}
	}
	return ""
}

// wellKnown reports a start with a method that everybody knows, or with a part of one.
func wellKnown(b []byte) bool {
	for _, m := range []string{"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE "} {
		if n := min(len(b), len(m)); string(b[:n]) == m[:n] {
			return true
		}
	}
	return false
}
