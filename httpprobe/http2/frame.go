// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"encoding/binary"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
)

// Types of frames, and their flags (RFC 9113, section 6).
const (
	data uint8 = iota
	headers
	priority
	rstStream
	settings
	pushPromise
	ping
	goAway
	windowUpdate
	continuation
	types

	endStream   = 1 << 0
	ack         = 1 << 0
	endHeaders  = 1 << 2
	padded      = 1 << 3
	hasPriority = 1 << 5
)

const (
	preface   = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	headerLen = 9

	settingTable = 1 // SETTINGS_HEADER_TABLE_SIZE
	settingFrame = 5 // SETTINGS_MAX_FRAME_SIZE

	defaultFrame = 16 << 10
	// unknownFrame is taken for the longest frame where a SETTINGS frame may have been missed. The
	// protocol allows 16 MiB; implementations ask for 1 MiB at most, unless they are told to.
	unknownFrame = 1 << 20
)

// frame is the header of one.
type frame struct {
	length     uint32
	typ, flags uint8
	id         uint32
}

func parseFrame(b []byte) frame {
	return frame{
		length: uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]), typ: b[3], flags: b[4],
		id: binary.BigEndian.Uint32(b[5:]) &^ endless,
	}
}

// legal reports what the protocol allows. Types that it does not know may be anything.
func (f frame) legal() bool {
	switch f.typ {
	case data, headers, continuation, pushPromise:
		return f.id != 0
	case priority:
		return f.id != 0 && f.length == 5
	case rstStream:
		return f.id != 0 && f.length == 4
	case settings:
		return f.id == 0 && f.length%6 == 0 && (f.flags&ack == 0 || f.length == 0)
	case ping:
		return f.id == 0 && f.length == 8
	case goAway:
		return f.id == 0 && f.length >= 8
	case windowUpdate:
		return f.length == 4
	}
	return true
}

// way is one direction.
type way struct {
	lost bool // where the next frame begins is unknown
	// sure says that frames begin where we think. Else they are only walked.
	sure    bool
	preface int    // bytes of it that are still to come
	longest uint32 // bytes that a frame can have
	walked  uint64 // bytes since the way was found again

	have  int // bytes of the header
	head  [headerLen]byte
	frame frame
	left  uint32 // bytes of the payload that are still to come
	blind bool   // its last byte was lost: when it ended is unknown

	open  bool   // a header block goes on in the next frame
	cut   bool   // what is kept of the block or payload is not all
	whole []byte // a payload that came in one piece, while it is looked at
	buf   []byte // or the block or payload, as far as it has come
	from  int    // where the payload of this frame begins in it
	block block

	table table
	first uint64 // when the frame began
	now   uint64
}

// block is a header block that is under way.
type block struct {
	id    uint32
	ends  bool // the stream, in this direction
	push  bool
	start uint64
	size  uint64 // bytes of the payloads
	why   http1.Reason
}

// inHeaders reports that a header block has begun and not ended.
func (w *way) inHeaders() bool {
	return w.sure && (w.open || w.have == headerLen && w.frame.typ == headers)
}

// find looks for frames at the start of a call: two in a row, or one that ends with the call.
func (w *way) find(s *http1.Segment) bool {
	if s.Mid || len(s.Data) < headerLen {
		return false
	}
	f := parseFrame(s.Data)
	if f.typ >= types || f.typ == continuation || f.length > w.longest || s.Data[5]&0x80 != 0 || !f.legal() {
		return false
	}
	next := headerLen + uint64(f.length)
	if total := uint64(len(s.Data)) + s.Hidden; next != total {
		if next+headerLen > uint64(len(s.Data)) {
			return false
		}
		if g := parseFrame(s.Data[next:]); g.typ >= types || g.length > w.longest || !g.legal() {
			return false
		}
	}
	w.lost, w.walked = false, 0
	return true
}

// step takes a part of b: of the preface, of a frame's header, or of its payload.
func (p *Parser) step(d event.Direction, b []byte) (n int) {
	w := &p.ways[d]
	switch {
	case w.preface > 0:
		n = min(w.preface, len(b))
		if at := len(preface) - w.preface; string(b[:n]) != preface[at:at+n] {
			p.lose(d, http1.Malformed)
			return n
		}
		w.preface -= n
	case w.have < headerLen:
		if w.have == 0 {
			w.first = w.now
		}
		n = copy(w.head[w.have:], b)
		w.have += n
		w.walked += uint64(n)
		if w.have == headerLen {
			p.begin(d)
		}
	default:
		n = int(min(w.left, uint32(min(len(b), 1<<24))))
		p.payload(d, b[:n])
	}
	return n
}

// begin looks at the header of a frame.
func (p *Parser) begin(d event.Direction) {
	w := &p.ways[d]
	f := parseFrame(w.head[:])
	w.frame, w.left, w.blind = f, f.length, false
	follows := f.typ == continuation
	if !f.legal() || w.open != follows || follows && f.id != w.block.id || !w.sure && (f.typ >= types || f.length > w.longest) {
		p.lose(d, http1.Malformed)
		return
	}
	if !follows {
		w.cut = false
		w.block = block{id: f.id, ends: f.flags&endStream != 0, push: f.typ == pushPromise, start: w.first}
	}
	w.from = len(w.buf)
	if w.left == 0 {
		p.end(d)
	}
}

// wanted reports frames whose payload is looked at.
func (w *way) wanted() bool {
	switch w.frame.typ {
	case headers, pushPromise, continuation, settings, goAway:
		return w.sure
	}
	return false
}

// goesOn reports a header block that has more frames.
func (w *way) goesOn() bool {
	return w.frame.typ != settings && w.frame.typ != goAway && w.frame.flags&endHeaders == 0
}

// payload takes a part of a frame's payload.
func (p *Parser) payload(d event.Direction, b []byte) {
	w := &p.ways[d]
	switch {
	case !w.wanted() || w.cut:
	case len(w.buf) == 0 && uint32(len(b)) == w.frame.length && !w.goesOn() && len(b) <= MaxBlock:
		w.whole = b
	case !p.keep(w, b):
		w.cut, w.block.why = true, http1.Memory
	}
	p.pass(d, uint32(len(b)))
	w.whole = nil
}

// keep adds to what is kept of a block.
func (p *Parser) keep(w *way, b []byte) bool {
	if len(w.buf)+len(b) > MaxBlock || !p.c.Budget.Reserve(len(b)) {
		return false
	}
	w.buf = append(w.buf, b...)
	return true
}

// letGo forgets the bytes of a block, which may hold cookies.
func (p *Parser) letGo(w *way) {
	p.c.Budget.Release(len(w.buf))
	clear(w.buf)
	w.buf, w.from = nil, 0
}

// pass goes on in a payload.
func (p *Parser) pass(d event.Direction, n uint32) {
	w := &p.ways[d]
	w.left -= n
	w.walked += uint64(n)
	w.block.size += uint64(n)
	if w.frame.typ == data && w.sure {
		p.body(d, w.frame.id, n)
	}
	if w.left == 0 {
		p.end(d)
	}
}

// skip passes over bytes that were lost or not copied. Within a payload this does no harm to what
// follows.
func (p *Parser) skip(d event.Direction, n uint64, why http1.Reason) {
	w := &p.ways[d]
	if w.have < headerLen || w.preface > 0 {
		p.lose(d, why)
		return
	}
	if w.wanted() && !w.cut {
		w.cut, w.block.why = true, why
	}
	m := uint32(min(n, uint64(w.left)))
	w.blind = why == http1.Gap && m == w.left
	p.pass(d, m)
	if n > uint64(m) && !w.lost {
		p.lose(d, why)
	}
}

// end comes after the last byte of a frame.
//
//revive:disable-next-line:cyclomatic a case for each type of frame
func (p *Parser) end(d event.Direction) {
	w := &p.ways[d]
	w.have = 0
	f := w.frame
	block := f.typ == headers || f.typ == pushPromise || f.typ == continuation
	if block {
		w.open = f.flags&endHeaders == 0
	}
	if !w.sure {
		if w.walked >= uint64(w.longest) && !w.open {
			w.sure = true
		}
		return
	}
	switch {
	case block:
		p.fragment(d)
	case f.typ == data && f.flags&endStream != 0:
		p.ended(d, f.id)
	case f.typ == rstStream:
		p.reset(d, f.id)
	case f.typ == settings || f.typ == goAway:
		b := w.whole
		if b == nil {
			b = w.buf
		}
		if f.typ == settings {
			p.settings(d, b)
		} else if !w.cut && len(b) >= 4 {
			p.goAway(d, binary.BigEndian.Uint32(b)&^endless)
		}
		p.letGo(w)
	}
}

// fragment takes the part of a header block that one frame has.
func (p *Parser) fragment(d event.Direction) {
	w := &p.ways[d]
	b := w.whole
	if b == nil {
		b = w.buf[w.from:]
	}
	b, ok := w.frame.strip(b)
	if !ok {
		p.lose(d, http1.Malformed)
		return
	}
	if w.whole == nil {
		kept := w.from + copy(w.buf[w.from:], b)
		p.c.Budget.Release(len(w.buf) - kept)
		clear(w.buf[kept:])
		w.buf = w.buf[:kept]
		b = w.buf
	}
	if w.open {
		return
	}
	f := w.table.decode(b, !w.cut, &p.c.Budget)
	if w.cut {
		w.table.forget(&p.c.Budget, w.block.why)
	}
	p.letGo(w)
	p.fields(d, &f)
}

// strip takes away what is not of the block in the payload of a frame, of which b is the beginning.
func (f frame) strip(b []byte) ([]byte, bool) {
	start, end := 0, int(f.length)
	if f.typ != continuation && f.flags&padded != 0 {
		start++
		if len(b) > 0 {
			end -= int(b[0])
		}
	}
	if f.typ == headers && f.flags&hasPriority != 0 {
		start += 5
	}
	if f.typ == pushPromise {
		start += 4
	}
	if start > end {
		return nil, false
	}
	end = min(end, len(b))
	return b[min(start, end):end], true
}

// settings takes a SETTINGS frame: what the other direction may do.
func (p *Parser) settings(d event.Direction, b []byte) {
	w, to := &p.ways[d], &p.ways[1-d]
	if w.cut {
		to.longest = max(to.longest, p.longest)
	}
	for ; len(b) >= 6; b = b[6:] {
		v := binary.BigEndian.Uint32(b[2:])
		switch binary.BigEndian.Uint16(b) {
		case settingTable:
			to.table.allow(v)
		case settingFrame:
			to.longest = max(to.longest, min(v, 1<<24-1))
		}
	}
}

// lose gives up a way: where its next frame begins is unknown.
func (p *Parser) lose(d event.Direction, why http1.Reason) {
	w := &p.ways[d]
	sure := w.sure
	w.lost, w.sure, w.open, w.cut = true, false, false, false
	w.have, w.left, w.preface = 0, 0, 0
	p.letGo(w)
	if !sure {
		return
	}
	w.table.forget(&p.c.Budget, why)
	p.ways[1-d].longest = max(p.ways[1-d].longest, p.longest)
	switch {
	case p.role == http1.UnknownRole:
	case d != p.requests():
		for _, s := range p.streams {
			s.doubt, s.why = true, why
		}
	case p.missed.to < endless:
		p.missed = missed{p.newest, endless, why}
	}
}
