// SPDX-License-Identifier: Apache-2.0

// Package http1 follows one HTTP/1.x connection from the outside: bytes, gaps and ends go in,
// exchanges come out, and a reason for each request of which nothing sure can be said.
//
// A status is never guessed. Responses belong to requests in their order, and where a message ends
// is known from its framing. Where that is lost (bytes that nobody saw, a connection joined in its
// midst) the parser drifts: it looks for a request, a response and a request again, each at the
// start of a call or packet and with no gap between, and goes on at the second request. Who sends
// requests without waiting for responses is not taken up again after a loss.
package http1

import (
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
	HTTP2  // recognised by its preface, and left to others: see Upgrade
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
	Reset                    // HTTP/2: the request was reset, or not looked at, before it was answered
	Truncated                // the connection ended within a head
	Memory                   // no room to keep what came in pieces
	Expired                  // nothing happened for too long, or the connection made room for others
	Unfinished               // still going on when the probe ended
	Defect                   // the parser itself went wrong
	Reasons                  // their number
)

func (r Reason) String() string {
	return [...]string{"joined", "gap", "uncopied", "malformed", "head_too_big", "pipelined", "no_request", "unanswered", "reset", "truncated", "memory",
		"expired", "unfinished", "defect"}[r]
}

// Exchange is a request and its response. Times are those of the segments, in ns.
type Exchange struct {
	Role   Role
	Method string // as sent, at most 32 bytes; HTTP/2: or Unknown
	// Path has no query string, fragment or user information and no parameters; at most 1024 bytes,
	// "" where the target has none. It is as sent: still escaped, and possibly hostile. HTTP/2: or
	// Unknown.
	Path     string
	Protocol string // HTTP/1.0 or HTTP/1.1, of the request, or HTTP/2
	Status   int    // 100 to 999; of the final response, or 101
	// GRPCStatus is "" for what is not gRPC. Else it is a number from 0 to 16, _OTHER for another,
	// NoGRPCStatus or Unknown. It is Unknown, too, where it is not known whether it is gRPC.
	GRPCStatus string
	Start      uint64 // first byte of the request
	FirstByte  uint64 // first byte of the final response
	End        uint64 // last byte of the response
	// RequestBytes and ResponseBytes are the messages' with their heads, RequestBytes as far as it
	// had come when the response ended.
	RequestBytes, ResponseBytes uint64
	Truncated                   bool // the connection ended before the response did
}

// What stands for what was not seen or not sent. No path is like them.
const (
	Unknown      = "unknown" // it was sent in the short form of HTTP/2, which tells only who saw all before
	NoGRPCStatus = "none"    // the response ended without one
)

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

// Reserve reports whether there is room for n more bytes, and takes it.
func (b *Budget) Reserve(n int) bool {
	if b.Used+n > b.Max {
		return false
	}
	b.Used += n
	return true
}

// Release gives n bytes back.
func (b *Budget) Release(n int) { b.Used -= n }

// Config is shared by parsers. They are not safe for concurrent use, and neither are those that
// share one.
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
	// clean, of requests that are lost: it was within one request, nothing that came since looks
	// like another, and nothing was missed.
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

// cost is what it takes of the budget.
func (h *held) cost() int { return 112 + len(h.Data) }

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
	said      [2]Segment // see Said
	upgrade   *Upgrade
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

// Discard ends a parser that panicked: what waits is unparsed, and one more, which it was busy
// with.
func (p *Parser) Discard() {
	p.drop(Defect)
	p.c.Unparsed(Defect)
	p.release()
}

// head adds b to a head: it returns the whole head when it is there, and what is left of b. ok is
// false when there is no room.
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
	if !p.c.Budget.Reserve(len(b)) {
		return false
	}
	f.buf = append(f.buf, b...)
	return true
}

// letGo forgets the bytes of a head.
func (p *Parser) letGo(f *flow) {
	p.c.Budget.Release(len(f.buf))
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
	p.removeHeld()
	p.letGo(&p.flows[0])
	p.letGo(&p.flows[1])
}

// Upgrade is a request that asked for HTTP/2, and got it.
type Upgrade struct {
	Method, Path string
	Start        uint64 // its first byte
	Size         uint64 // its bytes
}
