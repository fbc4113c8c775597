// SPDX-License-Identifier: Apache-2.0

package http1

import "github.com/bpfwhy/bpfwhy/httpprobe/event"

// drift is what is known of a connection while it is not known where messages begin.
type drift struct {
	on      bool
	step    uint8 // 0: nothing; 1: a request has been sent; 2: and its response has begun
	twice   bool  // in step 1 more than one request may have been sent
	connect bool  // in step 1 it is CONNECT
	why     Reason
	// tail, by event.Direction: bytes of something that began before we came.
	tail [2]bool
}

// startDrift: where the next messages begin is unknown. answered says that the last request was
// answered and waits for nothing, so that the next one begins at the start of a segment.
func (p *Parser) startDrift(why Reason, answered bool) {
	p.drift = drift{on: true, why: why}
	if answered {
		p.drift.step = 2
	}
	for i := range p.flows {
		// The first bytes of the next request may have come.
		if f := &p.flows[i]; !answered || f != p.sender() {
			p.letGo(f)
		}
	}
	for _, h := range p.removeHeld() {
		// What waits for a request that will not be seen.
		if h.gap > 0 {
			p.drift.step = 0
		} else if p.parses() {
			p.adrift(1-p.requests(), h.Segment)
		}
	}
}

// adrift looks at a segment for a way back. Each response counts as an unparsed request.
func (p *Parser) adrift(d event.Direction, s Segment) {
	status, v := statusLine(s.Data)
	isResponse := !s.Mid && v == yes
	isRequest := false
	if !isResponse && (d == p.requests() || p.protocol == Undecided) {
		s, v = p.begins(&p.flows[d], s)
		if v == undecided {
			return
		}
		isRequest = v == yes
	}
	if p.protocol == Undecided && !p.takeSides(d, isRequest, isResponse) {
		return
	}
	if d == p.requests() {
		p.requestAdrift(s, isRequest)
	} else {
		p.responseAdrift(status, isResponse)
	}
}

// takeSides concludes who sends requests from what comes first, and again if it turns out
// otherwise. It is false as long as nothing tells.
func (p *Parser) takeSides(d event.Direction, isRequest, isResponse bool) bool {
	dr := &p.drift
	sends := d
	switch {
	case isResponse:
		sends = 1 - d
	case isRequest:
	case p.role == UnknownRole:
		dr.tail[d] = true
		return false
	default:
		return true
	}
	if role := roleOf(sends); p.role != role {
		p.role, dr.step = role, 0
		if dr.tail[1-sends] && dr.why == Joined {
			p.c.Unparsed(Joined)
		}
		dr.tail = [2]bool{}
	}
	return true
}

func (p *Parser) requestAdrift(s Segment, isRequest bool) {
	dr := &p.drift
	if !isRequest {
		if dr.step == 2 {
			dr.step = 0 // of what is this a part?
		}
		return
	}
	switch dr.step {
	case 0:
		dr.step, dr.twice = 1, false
		dr.connect = methodOf(s.Data) == "CONNECT"
	case 1:
		dr.twice = true
	case 2:
		if !p.pipelines {
			p.resume(s)
		}
	}
}

func (p *Parser) responseAdrift(status int, isResponse bool) {
	dr := &p.drift
	if !isResponse {
		if dr.step == 1 {
			dr.step = 0
		}
		return
	}
	if status < 200 && status != 101 {
		return
	}
	p.c.Unparsed(dr.why)
	switch {
	case status == 101, dr.step == 1 && dr.connect && status < 300:
		p.leave(Tunnel)
	case dr.step == 1 && !dr.twice:
		dr.step = 2
	case dr.step == 2:
		// Two responses to one request: there were more.
		p.pipelines = true
		fallthrough
	default:
		dr.step = 0
	}
}

// resume goes on with a request at the start of a segment.
func (p *Parser) resume(s Segment) {
	p.drift = drift{}
	p.protocol = HTTP1
	p.letGo(&p.flows[0])
	p.letGo(&p.flows[1])
	p.flows = [2]flow{}
	p.request(s)
}
