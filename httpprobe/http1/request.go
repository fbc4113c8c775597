// SPDX-License-Identifier: Apache-2.0

package http1

import "slices"

// request takes what goes the way of requests.
//
//revive:disable-next-line:cyclomatic a state machine, a case for each state
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
		// The response to the only request has all come but for its end, and this begins the next
		// one.
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

// begins tells whether a segment begins a request. The first bytes of a common method are kept
// until more is known: Go's server reads one byte ahead. Other methods are not recognised in
// pieces, lest the end of a body becomes a part of them.
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
		if s.Hidden > 0 || len(s.Data) > MaxMethod || !wellKnown(s.Data) || !p.keep(f, s.Data) {
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

// cut gives up the rest of a head. Method and path may be known; the next response is that
// request's in any case.
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
	if len(p.queue) >= maxAhead || !p.c.Budget.Reserve(r.cost()) {
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
