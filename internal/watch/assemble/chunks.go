// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"fmt"
	"slices"
	"sort"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// pieces are the byte ranges that were copied for one call.
type pieces struct {
	ranges   map[trace.What]*bytesOf
	size     int // bytes held
	messages []string
	// dropped counts bytes that were thrown away because too much was held.
	dropped uint64
}

// bytesOf is one range, perhaps with holes. Segments are ascending and do not overlap.
type bytesOf struct {
	segments []segment
	total    uint64
	errno    int
}

type segment struct {
	at   uint64
	data []byte
}

func (s segment) end() uint64 { return s.at + uint64(len(s.data)) }

// maxSegments bounds a range that comes in confetti.
const maxSegments = 4096

func (p *pieces) add(c *trace.Chunk) {
	if p.ranges == nil {
		p.ranges = make(map[trace.What]*bytesOf)
	}
	r := p.ranges[c.What]
	if r == nil {
		if len(p.ranges) >= 16 {
			p.dropped += uint64(len(c.Data))
			return
		}
		r = new(bytesOf)
		p.ranges[c.What] = r
	}
	if c.What == trace.Log || c.What == trace.BTFLog || c.What == trace.License {
		r.total = c.Total // of text, the end is known when it has been reached
	} else {
		r.total = max(r.total, c.Total)
	}
	if c.Errno != 0 {
		r.errno = c.Errno
	}
	before := r.cost()
	if !r.insert(segment{c.Offset, c.Data}) {
		p.dropped += uint64(len(c.Data))
	}
	p.size += r.cost() - before
}

// segmentBytes are those of a segment beside its data.
const segmentBytes = 48

// cost is what a range takes in memory.
func (r *bytesOf) cost() int { return int(r.held()) + segmentBytes*len(r.segments) }

// insert keeps the first copy of each byte, and reports whether there was room.
func (r *bytesOf) insert(s segment) bool {
	if s.end() < s.at {
		return false
	}
	all := len(s.data)
	i := sort.Search(len(r.segments), func(i int) bool { return r.segments[i].end() > s.at })
	for len(s.data) > 0 {
		next := s.end()
		if i < len(r.segments) {
			o := r.segments[i]
			if o.at <= s.at {
				s = s.from(o.end())
				i++
				continue
			}
			next = min(next, o.at)
		}
		if len(r.segments) >= maxSegments {
			return false
		}
		part := segment{s.at, s.data[:next-s.at]}
		if len(part.data) < all/2 { // or it would keep the rest from being freed
			part.data = slices.Clone(part.data)
		}
		r.segments = slices.Insert(r.segments, i, part)
		s = s.from(next)
		i++
	}
	return true
}

func (s segment) from(at uint64) segment {
	if at >= s.end() {
		return segment{at: at}
	}
	return segment{at, s.data[at-s.at:]}
}

// prefix returns the bytes from the start to the first hole, and whether that is all of it.
func (r *bytesOf) prefix() (b []byte, whole bool) {
	if r == nil {
		return nil, false
	}
	at := uint64(0)
	for _, s := range r.segments {
		if s.at != at {
			break
		}
		at = s.end()
	}
	if len(r.segments) > 0 && at == r.segments[0].end() {
		b = r.segments[0].data // the common case needs no copy
	} else {
		b = make([]byte, 0, at)
		for _, s := range r.segments {
			if s.at >= at {
				break
			}
			b = append(b, s.data...)
		}
	}
	return b, at >= r.total
}

// all returns the whole range, nil when something of it is missing.
func (r *bytesOf) all() []byte {
	b, whole := r.prefix()
	if !whole || uint64(len(b)) != r.total {
		return nil
	}
	return b
}

// held returns how many bytes of the range are there.
func (r *bytesOf) held() (n uint64) {
	for _, s := range r.segments {
		n += uint64(len(s.data))
	}
	return n
}

// slice returns n bytes at an offset, fewer at the end of what was copied.
func (r *bytesOf) slice(at uint64, n int) []byte {
	if r == nil {
		return nil
	}
	i := sort.Search(len(r.segments), func(i int) bool { return r.segments[i].end() > at })
	if i == len(r.segments) || r.segments[i].at > at {
		return nil
	}
	s := r.segments[i].from(at)
	if len(s.data) >= n || i+1 == len(r.segments) || r.segments[i+1].at != s.end() {
		return s.data[:min(n, len(s.data))]
	}
	b := slices.Clone(s.data)
	for _, o := range r.segments[i+1:] {
		if o.at != at+uint64(len(b)) || len(b) >= n {
			break
		}
		b = append(b, o.data[:min(len(o.data), n-len(b))]...)
	}
	return b
}

var rangeNames = map[trace.What]string{
	trace.Insns: "instructions", trace.FuncInfo: "func_info", trace.LineInfo: "line_info", trace.BTF: "BTF",
	trace.Translated: "post-verifier instructions", trace.Filter: "the filter", trace.License: "the licence",
}

// shortcomings says which ranges are not whole. A call that failed because an address cannot be
// read lacks nothing.
func (p *pieces) shortcomings(errno int) []string {
	var why []string
	for _, what := range []trace.What{trace.Insns, trace.FuncInfo, trace.LineInfo, trace.BTF, trace.Translated, trace.Filter} {
		r := p.ranges[what]
		if r == nil || r.errno == abi.EFAULT && errno == abi.EFAULT {
			continue
		}
		if got := r.held(); got < r.total {
			s := fmt.Sprintf("%s: %d of %d bytes copied", rangeNames[what], got, r.total)
			if r.errno != 0 {
				s += ": " + errnoName(r.errno)
			}
			why = append(why, s)
		}
	}
	if p.dropped > 0 {
		why = append(why, fmt.Sprintf("%d bytes dropped: too much evidence at once", p.dropped))
	}
	return why
}
