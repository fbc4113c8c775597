// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"
	"slices"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
)

// sniff decides what a fresh connection speaks. What comes before that is kept as the start of a
// head.
func (p *Parser) sniff(d event.Direction, s Segment) {
	f := &p.flows[d]
	old := len(f.buf)
	data, ok := p.gather(f, &s)
	if !ok {
		return
	}
	atEnd := s.Hidden > 0 || len(data) >= MaxHead // no more of the line can be had
	if old > 0 && !atEnd && !worthALook(old, s.Data) {
		return
	}
	v := p.recognise(d, data)
	switch p.protocol {
	case HTTP2:
		p.leaveHTTP2(d, Segment{Time: f.first, Data: data, Hidden: s.Hidden, Mid: s.Mid})
		return
	case TLS:
		p.release()
		return
	}
	if v == undecided && atEnd && len(data) > len("OPTIONS ") && wellKnown(data) {
		v, p.role = yes, roleOf(d)
	}
	switch {
	case v == yes:
		p.begin(d, s, data, old)
	case v == no, atEnd, old == 0 && !p.keep(f, s.Data):
		p.leave(Other)
	}
}

// gather is what the flow has said up to now. It is false if that is nothing, or too much.
func (p *Parser) gather(f *flow, s *Segment) (data []byte, ok bool) {
	if len(f.buf) > 0 {
		if !p.keep(f, s.Data) {
			p.leave(Other)
			return nil, false
		}
		return f.buf, true
	}
	if s.Data = skipEndsOfLine(s.Data); len(s.Data) == 0 {
		if s.Hidden > 0 {
			p.leave(Other)
		}
		return nil, false
	}
	f.first = s.Time
	return s.Data, true
}

// recognise says whether the first bytes are those of HTTP/1. It leaves a connection that speaks
// something else that it knows.
func (p *Parser) recognise(d event.Direction, data []byte) verdict {
	_, status := statusLine(data)
	request, http2, tls := requestLine(data), preface(data), handshake(data)
	switch {
	case http2 == yes:
		p.role, p.protocol = roleOf(d), HTTP2
		return no
	case tls == yes:
		p.protocol = TLS
		return no
	case request == yes:
		p.role = roleOf(d)
		return yes
	case status == yes:
		p.role = roleOf(1 - d)
		return yes
	case request == no && status == no && http2 == no && tls == no && settings(data) == no:
		return no
	}
	return undecided
}

// leaveHTTP2 ends the parsing of a connection that speaks HTTP/2, and keeps what was said on it for
// Said: the preface, and what came the other way before it.
func (p *Parser) leaveHTTP2(d event.Direction, s Segment) {
	if other := &p.flows[1-d]; len(other.buf) > 0 {
		p.said[1-d] = Segment{Time: other.first, Data: slices.Clone(other.buf)}
	}
	if len(p.flows[d].buf) > 0 {
		s.Data = slices.Clone(s.Data)
	}
	p.said[d] = s
	p.leave(HTTP2)
}

// Said is what was said, by direction, on a connection that turned out to speak HTTP/2, with the
// request that asked for it, if one did. It is to be asked at once: it may refer to the last
// segment, and is forgotten.
func (p *Parser) Said() (said [2]Segment, u *Upgrade) {
	said, u = p.said, p.upgrade
	p.said, p.upgrade = [2]Segment{}, nil
	return said, u
}

// begin takes a connection up as HTTP/1, with the data that it was recognised by. old bytes of it
// were kept before.
func (p *Parser) begin(d event.Direction, s Segment, data []byte, old int) {
	f := &p.flows[d]
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
		p.c.Budget.Release(len(s.Data))
		f.buf, f.state, f.size = f.buf[:old], inHead, uint64(old)
	}
	p.Data(d, s)
}

// worthALook reports whether the first line of a head that comes in pieces can have become another
// than it was: looking at it for each octet of a long one would cost too much.
func worthALook(old int, added []byte) bool { return old < 64 || bytes.IndexByte(added, '\n') >= 0 }

func roleOf(requests event.Direction) Role {
	if requests == event.In {
		return Server
	}
	return Client
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

// methodOf returns the method with which b begins, if its response cannot be read without: a
// response to HEAD has no body.
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
