// SPDX-License-Identifier: Apache-2.0

package http1

import "slices"

// Waiting returns since when responses have been waiting for their requests; false: none do. Two
// threads of a client may be seen in the wrong order, but not for long: see Resolve.
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

// response takes what goes the way of responses.
//
//revive:disable-next-line:cyclomatic a state machine, a case for each state
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
				p.responseHead(head, Segment{s.Time, b, s.Hidden, true})
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
		if p.drift.on && p.parses() && f.state == atHead && len(b) > 0 {
			// What follows on the last response that was expected.
			p.adrift(1-p.requests(), Segment{Time: s.Time, Data: b, Hidden: s.Hidden})
		}
		if p.drift.on || !p.parses() {
			return
		}
	}
	if s.Hidden > 0 {
		p.skipResponse(s.Hidden, s.Time, true)
	}
}

// responseHead takes a whole head. rest is what follows on it.
func (p *Parser) responseHead(head []byte, rest Segment) {
	f := p.responder()
	r := &p.queue[0]
	h := p.c.heads.response(head, r.method)
	status, b := h.status, h.body
	p.letGo(f)
	if !h.ok {
		p.failResponses(Malformed)
		return
	}
	if h.h2c && r.tunnel && !r.bad {
		p.upgraded(rest)
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

// upgraded: the first request goes on as HTTP/2, which answers it.
func (p *Parser) upgraded(rest Segment) {
	r := p.pop()
	if r.open {
		r.size = p.sender().size
	}
	p.upgrade = &Upgrade{Method: r.method, Path: r.path, Start: r.start, Size: r.size}
	p.drop(Pipelined)
	p.said[1-p.requests()] = rest
	p.leave(HTTP2)
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

// loseEnd: where this response ends is unknown. Its status is not; the next request tells, if it
// waits for the response.
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
	p.c.Budget.Release(r.cost())
	p.queue[0] = request{}
	switch {
	case len(p.queue) > 1:
		p.queue = p.queue[1:]
	case cap(p.queue) <= 4: // most connections never have more
		p.queue = p.queue[:0]
	default:
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
	if len(p.held) == maxHeld || !p.c.Budget.Reserve(h.cost()) {
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

func (p *Parser) removeHeld() []held {
	items := p.held
	p.held = nil
	for _, h := range items {
		p.c.Budget.Release(h.cost())
	}
	return items
}

// deliver hands over what was held, now that there is a request.
func (p *Parser) deliver() {
	for len(p.held) > 0 && len(p.queue) > 0 && !p.drift.on && p.parses() {
		for _, h := range p.removeHeld() {
			switch {
			case p.protocol == HTTP2: // an upgrade in the midst of what was held: what follows is not kept
				p.said[1-p.requests()].Hidden += h.gap + uint64(len(h.Data)) + h.Hidden
			case h.gap > 0:
				p.Gap(1-p.requests(), h.gap)
			default:
				p.Data(1-p.requests(), h.Segment)
			}
		}
	}
}
