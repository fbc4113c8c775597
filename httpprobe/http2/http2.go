// SPDX-License-Identifier: Apache-2.0

// Package http2 follows one HTTP/2 connection from the outside: bytes, gaps and ends go in,
// exchanges come out, and a reason for each request of which nothing sure can be said. It is to
// HTTP/2 what http1 is to HTTP/1.x, and takes that package's words.
//
// Nothing is guessed. A gap within the payload of one frame does no harm, because its length is
// known. After any other gap, and on a connection that is joined late, a way (one direction) is
// lost: its next frame must be found at the start of a call. What looks like frames there may be
// the content of a DATA frame, made to deceive. So it is only walked, and nothing in it is
// believed, until more bytes have passed than any frame can have: then its place is sure.
//
// Header tables are treated alike. Entries are counted from the newest, so those that came since
// the place is sure have known numbers. Whatever refers to an older one is unknown. x/net's decoder
// is of no use for this: it gives up a whole block for one unknown number, and would keep cookies.
package http2

import (
	"maps"
	"slices"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
)

// Bounds of one connection. All but its fixed size is taken of the budget that parsers share.
const (
	// MaxBlock is the longest header block that is decoded, in bytes. Of a longer one the beginning
	// is, and the header table is unknown after it.
	MaxBlock = 16 << 10
	// maxStreams is how many requests wait for their responses.
	maxStreams = 256
	// ConnBytes is the most that one connection takes of the budget: two header blocks, two header
	// tables, and the requests that wait.
	ConnBytes = 2*(MaxBlock+maxTable/entryOverhead*entryBytes+maxTable) + maxStreams*(streamBytes+http1.MaxMethod+http1.MaxPath)
)

// Protocol is what exchanges have for their version.
const Protocol = "HTTP/2"

// Parser follows one connection.
type Parser struct {
	c       *http1.Config
	role    http1.Role
	ways    [2]way // by event.Direction
	streams map[uint32]*stream
	newest  uint32 // of the streams of requests
	missed  missed
	early   int    // responses that came before their requests
	since   uint64 // when the first of them came
	longest uint32 // bytes that a frame can have, where a SETTINGS frame may have been missed
}

// missed are the streams whose requests may have been missed: those between from and to.
type missed struct {
	from, to uint32
	why      http1.Reason
}

const endless = 1 << 31 // no stream has this number

// New returns a parser for a connection that is seen from its preface, by the end with that role.
func New(c *http1.Config, role http1.Role) *Parser {
	p := &Parser{c: c, role: role, streams: map[uint32]*stream{}, longest: unknownFrame}
	for d := range p.ways {
		p.ways[d] = way{sure: true, longest: defaultFrame, table: table{limit: defaultTable}}
	}
	p.ways[p.requests()].preface = len(preface)
	return p
}

// Join returns a parser for a connection that is joined in its midst, and may speak HTTP/2.
func Join(c *http1.Config) *Parser {
	p := &Parser{c: c, streams: map[uint32]*stream{}, missed: missed{to: endless}, longest: unknownFrame}
	for d := range p.ways {
		p.ways[d] = way{lost: true, longest: unknownFrame, table: table{limit: maxTable}}
	}
	return p
}

// Upgraded opens the first stream of a connection that began as HTTP/1.1: it is the request that
// asked for HTTP/2.
func (p *Parser) Upgraded(r http1.Upgrade) {
	s := p.open(1)
	p.newest = 1
	if s == nil {
		p.c.Unparsed(http1.Memory)
		return
	}
	s.asked, s.start, s.sent = true, r.Start, r.Size
	p.ask(s, &fields{method: r.Method, path: r.Path, hasMethod: known, hasPath: known})
}

// Role returns the role of the process at this end, as far as it is known.
func (p *Parser) Role() http1.Role { return p.role }

// Protocol returns what the connection speaks.
func (p *Parser) Protocol() http1.Protocol { return http1.HTTP2 }

// Sure reports whether the place is sure in either direction: it is HTTP/2 then.
func (p *Parser) Sure() bool { return p.ways[0].sure || p.ways[1].sure }

// requests is the direction in which requests go.
func (p *Parser) requests() event.Direction {
	if p.role == http1.Client {
		return event.Out
	}
	return event.In
}

// Data takes bytes that follow on what came before in that direction.
func (p *Parser) Data(d event.Direction, s http1.Segment) {
	w := &p.ways[d]
	if w.lost && !w.find(&s) {
		return
	}
	w.now = s.Time
	for b := s.Data; len(b) > 0 && !w.lost; {
		b = b[p.step(d, b):]
	}
	if s.Hidden > 0 && !w.lost {
		p.skip(d, s.Hidden, http1.Uncopied)
	}
}

// Gap says that n bytes in that direction were lost.
func (p *Parser) Gap(d event.Direction, n uint64) {
	if n > 0 && !p.ways[d].lost {
		p.skip(d, n, http1.Gap)
	}
}

// Shut says that nothing more comes in that direction. What it means for streams, the end of the
// connection tells.
func (p *Parser) Shut(event.Direction) {}

// Close says that the connection has ended. The parser is not used after it.
func (p *Parser) Close() {
	p.Resolve()
	for _, id := range slices.Sorted(maps.Keys(p.streams)) {
		s := p.streams[id]
		switch {
		case s.told:
		case s.doubt:
			p.c.Unparsed(s.why)
		case s.status > 0:
			p.finish(s, s.last, true)
		case s.status < 0:
			p.c.Unparsed(s.why)
		default:
			p.c.Unparsed(http1.Unanswered)
		}
		p.forget(s)
	}
	if w := &p.ways[p.requests()]; p.role != http1.UnknownRole && w.inHeaders() && w.block.id > p.newest {
		p.c.Unparsed(http1.Truncated)
	}
	p.release()
}

// Abandon ends the parser though the connection may live on.
func (p *Parser) Abandon(why http1.Reason) {
	for _, s := range p.streams {
		if !s.told {
			p.c.Unparsed(why)
		}
		p.forget(s)
	}
	p.release()
}

// Discard ends a parser that panicked: what waits is unparsed, and one more, which it was busy
// with.
func (p *Parser) Discard() {
	p.Abandon(http1.Defect)
	p.c.Unparsed(http1.Defect)
}

// Waiting returns since when responses have been waiting for their requests; false: none do. Two
// threads of a client may be seen in the wrong order, but not for long: see Resolve.
func (p *Parser) Waiting() (since uint64, ok bool) { return p.since, p.early > 0 }

// Resolve waits no longer.
func (p *Parser) Resolve() {
	if p.early == 0 {
		return
	}
	for _, s := range p.streams {
		if !s.asked && !s.told {
			p.c.Unparsed(http1.NoRequest)
			s.told = true // its request may still come
		}
	}
	p.early = 0
}

// release gives back what the parser keeps.
func (p *Parser) release() {
	for i := range p.ways {
		w := &p.ways[i]
		p.letGo(w)
		w.table.forget(&p.c.Budget, w.table.why)
		w.lost = true
	}
}
