// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"net/http"
	"strconv"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
)

// stream is a request that waits for its response, or for the end of it.
type stream struct {
	id           uint32
	method, path string
	start        uint64 // of the request
	begun, last  uint64 // of the response: its first byte, and the last that was seen
	sent, got    uint64 // bytes

	status      int16 // of the final response; 0: not seen, -1: seen, and not known
	grpcStatus  string
	grpc        bool // the request is of that type, or, if its type is not known, the response
	typed       bool // the type of the request is known
	asked       bool // the request has been seen
	over, reset bool // the response has ended; before its time
	told        bool // it was counted as unparsed
	doubt       bool // bytes of responses were lost since it was opened
	why         http1.Reason
}

const streamBytes = 2 * 176 // with its place in a map that may be half empty

func (s *stream) cost() int { return streamBytes + len(s.method) + len(s.path) }

// open makes a stream. Without room it is nil, or another one makes room.
func (p *Parser) open(id uint32) *stream {
	if len(p.streams) >= maxStreams {
		p.makeRoom()
	}
	s := &stream{id: id}
	if !p.c.Budget.Reserve(s.cost()) {
		return nil
	}
	p.streams[id] = s
	return s
}

// makeRoom forgets the stream of which the least is to be expected.
func (p *Parser) makeRoom() {
	var least *stream
	rank := func(s *stream) int {
		switch {
		case s.told:
			return 0
		case s.doubt:
			return 1
		}
		return 2
	}
	for _, s := range p.streams {
		if least == nil || rank(s) < rank(least) || rank(s) == rank(least) && s.id < least.id {
			least = s
		}
	}
	why := http1.Pipelined
	if least.doubt {
		why = least.why
	}
	if !least.told {
		p.c.Unparsed(why)
	}
	p.forget(least)
}

func (p *Parser) forget(s *stream) {
	if !s.asked && !s.told {
		p.early--
	}
	p.c.Budget.Release(s.cost())
	delete(p.streams, s.id)
}

// fields takes a header block.
func (p *Parser) fields(d event.Direction, f *fields) {
	w := &p.ways[d]
	if p.role == http1.UnknownRole && !w.block.push {
		switch {
		case f.hasMethod == known || f.hasPath == known:
			p.role = roleOf(d)
		case f.hasStatus == known:
			p.role = roleOf(1 - d)
		default:
			return
		}
	}
	switch {
	case w.block.push || w.block.id%2 == 0: // what a server pushes answers nobody
	case d == p.requests():
		p.request(w, f)
	default:
		p.response(w, f)
	}
}

func roleOf(requests event.Direction) http1.Role {
	if requests == event.In {
		return http1.Server
	}
	return http1.Client
}

// request takes the headers of a request, or its trailers.
//
//revive:disable-next-line:cyclomatic a case for each state in which a stream can be
func (p *Parser) request(w *way, f *fields) {
	s := p.streams[w.block.id]
	switch {
	case s == nil && w.block.id <= p.newest, s != nil && s.asked:
		if s != nil {
			s.sent += w.block.size
		}
		return
	case p.missed.to == endless && f.hasMethod != known && f.hasPath != known:
		return // trailers, perhaps
	case s == nil:
		if s = p.open(w.block.id); s == nil {
			p.c.Unparsed(http1.Memory)
		}
	case !s.told:
		p.early--
	}
	if p.newest = max(p.newest, w.block.id); p.missed.to == endless {
		p.missed.to = w.block.id
	}
	if s == nil {
		return
	}
	s.asked, s.start, s.sent = true, w.block.start, w.block.size
	if answers := &p.ways[1-p.requests()]; !answers.sure {
		s.doubt, s.why = true, answers.table.why
	}
	switch {
	case s.told: // it came too late
	case f.bad || f.hasMethod == absent:
		p.tell(s, http1.Malformed)
	default:
		p.ask(s, f)
	}
	if s.over {
		p.conclude(s)
	}
}

// ask notes what a request asks for, as far as it is known.
func (p *Parser) ask(s *stream, f *fields) {
	method, path := f.method, f.path
	if f.hasMethod == doubtful {
		method = http1.Unknown
	}
	if f.hasPath == doubtful {
		path = http1.Unknown
	}
	if f.grpc {
		s.grpc = true
	}
	s.typed = f.hasType != doubtful
	if !p.c.Budget.Reserve(len(method) + len(path)) {
		p.tell(s, http1.Memory)
		return
	}
	s.method, s.path = method, path
}

// tell counts a request as unparsed. Its stream stays, so that it is not counted again.
func (p *Parser) tell(s *stream, why http1.Reason) {
	if !s.asked {
		p.early--
	}
	s.told = true
	p.c.Unparsed(why)
}

// unasked makes a stream for a response whose request was not seen; nil: it is nobody's, or begins
// is false, and its beginning was.
func (p *Parser) unasked(w *way, id uint32, begins bool) *stream {
	missed := p.missed.from < id && id < p.missed.to
	if missed && !begins || !missed && id <= p.newest {
		return nil
	}
	s := p.open(id)
	switch {
	case s == nil:
	case missed:
		s.told = true
		p.c.Unparsed(p.missed.why)
	default:
		if p.early++; p.early == 1 {
			p.since = w.now
		}
	}
	return s
}

// response takes the headers of a response, final or not, or its trailers.
//
//revive:disable-next-line:cyclomatic a case for each kind of block, and state of a stream
func (p *Parser) response(w *way, f *fields) {
	s := p.streams[w.block.id]
	if s == nil {
		if s = p.unasked(w, w.block.id, f.hasStatus != absent); s == nil {
			return
		}
	}
	interim := f.hasStatus == known && f.status < 200
	switch {
	case s.told:
	case f.bad && s.status <= 0, interim && w.block.ends:
		p.tell(s, http1.Malformed)
	case interim:
		return
	case s.status > 0:
	case f.hasStatus == known:
		s.status, s.begun = int16(f.status), w.block.start
		s.grpc = s.grpc || !s.typed && f.grpc
	case f.hasStatus == doubtful:
		s.status, s.why = -1, w.table.why
	}
	s.last = w.now
	s.got += w.block.size
	switch {
	case w.block.ends:
		s.grpcStatus = f.grpcLabel()
		p.complete(w, s)
	case s.asked && !s.told && s.method == http.MethodConnect && s.status >= 200 && s.status < 300:
		p.finish(s, s.last, false)
		p.forget(s)
	}
}

// grpcLabel is the status of gRPC in trailers, or in a response without any.
func (f *fields) grpcLabel() string {
	switch {
	case f.hasGRPC == doubtful:
		return http1.Unknown
	case f.hasGRPC == absent:
		return http1.NoGRPCStatus
	case f.grpcStatus < 0 || f.grpcStatus > 16:
		return "_OTHER"
	}
	return strconv.Itoa(int(f.grpcStatus))
}

// body takes bytes of a body.
func (p *Parser) body(d event.Direction, id uint32, n uint32) {
	s := p.streams[id]
	switch {
	case s == nil:
	case d == p.requests():
		s.sent += uint64(n)
	default:
		s.got += uint64(n)
		s.last = p.ways[d].now
	}
}

// ended comes after the last DATA frame of a stream in a direction.
func (p *Parser) ended(d event.Direction, id uint32) {
	if s := p.streams[id]; s != nil && d != p.requests() {
		p.complete(&p.ways[d], s)
	}
}

// complete comes after the last frame of a response.
func (p *Parser) complete(w *way, s *stream) {
	if w.blind && !s.told {
		p.tell(s, http1.Gap)
	}
	s.over, s.last = true, w.now // its last frame may be empty
	p.conclude(s)
}

// reset ends a stream before its time.
func (p *Parser) reset(d event.Direction, id uint32) {
	s := p.streams[id]
	if s == nil && d != p.requests() && p.role != http1.UnknownRole && id%2 == 1 {
		s = p.unasked(&p.ways[d], id, false)
	}
	if s == nil || s.over || s.told && d == p.requests() { // its response may be on its way
		return
	}
	s.over, s.reset = true, true
	p.conclude(s)
}

// goAway ends the streams above the last that was, or will be, looked at.
func (p *Parser) goAway(d event.Direction, last uint32) {
	if p.role == http1.UnknownRole || d == p.requests() {
		return
	}
	for _, s := range p.streams {
		if s.id > last && s.asked && s.status == 0 {
			s.over, s.reset = true, true
			p.conclude(s)
		}
	}
}

// conclude says what became of a request whose response has ended, if both have been seen.
func (p *Parser) conclude(s *stream) {
	switch {
	case !s.asked && (!s.told || s.id > p.newest):
		return // the request may still come
	case s.told:
	case s.doubt && s.reset, s.doubt && s.status == 0: // what came before may have been missed
		p.c.Unparsed(s.why)
	case s.status > 0:
		p.finish(s, s.last, s.reset)
	case s.status < 0:
		p.c.Unparsed(s.why)
	case s.reset:
		p.c.Unparsed(http1.Reset)
	default:
		p.c.Unparsed(http1.Malformed)
	}
	p.forget(s)
}

// finish makes an exchange.
func (p *Parser) finish(s *stream, end uint64, truncated bool) {
	grpc := ""
	switch {
	case s.grpc && s.grpcStatus == "":
		grpc = http1.NoGRPCStatus
	case s.grpc:
		grpc = s.grpcStatus
	case !s.typed:
		grpc = http1.Unknown
	}
	p.c.Exchange(http1.Exchange{
		Role: p.role, Method: s.method, Path: s.path, Protocol: Protocol, Status: int(s.status), GRPCStatus: grpc,
		Start: s.start, FirstByte: max(s.begun, s.start), End: max(end, s.begun, s.start),
		RequestBytes: s.sent, ResponseBytes: s.got, Truncated: truncated,
	})
}
