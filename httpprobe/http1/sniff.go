// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"
	"slices"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
)

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
