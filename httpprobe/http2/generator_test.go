// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
)

// call is what one call carried.
type call struct {
	d    event.Direction
	b    []byte
	time uint64
}

// side is one end of a made connection: it sends in its direction.
type side struct {
	out     bytes.Buffer
	framer  *http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
	longest int
	resized bool // the next block begins with that. x/net does not read two such changes
}

func newSide() *side {
	s := &side{longest: defaultFrame}
	s.framer = http2.NewFramer(&s.out, nil)
	s.framer.AllowIllegalWrites = true
	s.encoder = hpack.NewEncoder(&s.block)
	return s
}

// shape is what a made connection is like.
type shape struct {
	streams int
	split   bool // calls end anywhere, not only between frames
	swap    bool // threads are seen in the wrong order now and then
	bodies  int  // longest body
	large   bool // frames of more than 16 KiB
}

// maker makes a connection: the client sends In, as a server sees it.
type maker struct {
	rng   *rand.Rand
	shape shape
	sides [2]*side
	calls []call
	next  uint32
}

func (m *maker) one(in int) bool { return m.rng.IntN(in) == 0 }

// made returns the calls of a connection.
func made(rng *rand.Rand, sh shape) []call {
	m := &maker{rng: rng, shape: sh, sides: [2]*side{newSide(), newSide()}, next: 1}
	m.sides[event.In].out.WriteString(preface)
	m.settle(event.In)
	m.settle(event.Out)
	type script struct{ steps [2][]func() }
	var open []*script
	d := event.In
	for left := sh.streams; left > 0 || len(open) > 0; {
		if left > 0 && (len(open) == 0 || len(open) < 100 && m.one(3)) {
			s := &script{}
			s.steps[event.In], s.steps[event.Out] = m.stream(m.next)
			m.next += 2
			left--
			m.turn(&d, event.In)
			s.steps[event.In][0]()
			s.steps[event.In] = s.steps[event.In][1:]
			open = append(open, s)
			continue
		}
		if m.one(8) {
			m.turn(&d, event.Direction(m.rng.IntN(2)))
		}
		if m.one(15) {
			m.between(d)
		}
		s := open[m.rng.IntN(len(open))]
		if len(s.steps[d]) > 0 {
			s.steps[d][0]()
			s.steps[d] = s.steps[d][1:]
		} else if len(s.steps[1-d]) > 0 {
			m.turn(&d, 1-d)
		}
		open = slices.DeleteFunc(open, func(s *script) bool { return len(s.steps[0])+len(s.steps[1]) == 0 })
		if m.sides[d].out.Len() > defaultFrame || m.one(3) {
			m.flush(d)
		}
	}
	m.flush(event.In)
	m.flush(event.Out)
	if sh.swap {
		for i := 3; i < len(m.calls)-1; i++ {
			if m.calls[i].d != m.calls[i+1].d && m.one(4) {
				m.calls[i], m.calls[i+1] = m.calls[i+1], m.calls[i]
				i++
			}
		}
	}
	for i := range m.calls {
		m.calls[i].time = uint64(1000 + i)
	}
	return m.calls
}

// turn lets the other side send.
func (m *maker) turn(d *event.Direction, to event.Direction) {
	if *d != to {
		m.flush(*d)
		*d = to
	}
}

// flush makes calls of what a side has to send.
func (m *maker) flush(d event.Direction) {
	b := bytes.Clone(m.sides[d].out.Bytes())
	m.sides[d].out.Reset()
	for len(b) > 0 {
		n := len(b)
		if m.shape.split && !m.one(3) {
			n = 1 + m.rng.IntN(min(len(b), 1<<m.rng.IntN(15)))
		}
		m.calls = append(m.calls, call{d: d, b: b[:n]})
		b = b[n:]
	}
}

// settle sends SETTINGS, with another size of the header table now and then.
func (m *maker) settle(d event.Direction) {
	s, peer := m.sides[d], m.sides[1-d]
	var list []http2.Setting
	if !peer.resized && m.one(2) {
		peer.resized = true
		size := []uint32{0, 100, 4096, 8192, 65536}[m.rng.IntN(5)]
		list = append(list, http2.Setting{ID: http2.SettingHeaderTableSize, Val: size})
		peer.encoder.SetMaxDynamicTableSizeLimit(size)
		peer.encoder.SetMaxDynamicTableSize(uint32(m.rng.IntN(int(size) + 1)))
	}
	if m.shape.large {
		peer.longest = defaultFrame << m.rng.IntN(3)
		list = append(list, http2.Setting{ID: http2.SettingMaxFrameSize, Val: uint32(peer.longest)})
	}
	s.framer.WriteSettings(list...)
	m.flush(d)
	peer.framer.WriteSettingsAck()
}

// between sends what belongs to no stream, or changes none.
func (m *maker) between(d event.Direction) {
	f := m.sides[d].framer
	switch m.rng.IntN(7) {
	case 0:
		f.WritePing(m.one(2), [8]byte{1, 2, 3})
	case 1:
		f.WriteWindowUpdate(0, 1+m.rng.Uint32N(1000))
	case 2:
		f.WriteWindowUpdate(m.next, 7)
	case 3:
		f.WritePriority(m.next, http2.PriorityParam{StreamDep: 1, Weight: 3})
	case 4:
		f.WriteRawFrame(0x2a, 0xff, m.next, []byte("nobody knows"))
	case 5:
		m.flush(d)
		m.settle(d)
	case 6:
		if d == event.Out {
			s := m.sides[d]
			block := m.encode(s, []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":path", Value: "/pushed"}})
			f.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: block, EndHeaders: true, PadLength: uint8(m.rng.IntN(9))})
			m.headers(s, 2, true, []hpack.HeaderField{{Name: ":status", Value: "200"}})
		}
	}
}

func (m *maker) encode(s *side, fields []hpack.HeaderField) []byte {
	s.block.Reset()
	s.resized = false
	for _, f := range fields {
		f.Sensitive = m.one(9)
		s.encoder.WriteField(f)
	}
	return s.block.Bytes()
}

// headers sends a header block, in one frame or several.
func (m *maker) headers(s *side, id uint32, ends bool, fields []hpack.HeaderField) {
	b := m.encode(s, fields)
	p := http2.HeadersFrameParam{StreamID: id, EndStream: ends}
	if m.one(4) {
		p.PadLength = uint8(m.rng.IntN(256))
	}
	if m.one(4) {
		p.Priority = http2.PriorityParam{StreamDep: id - 1, Weight: 9, Exclusive: m.one(2)}
	}
	cut := func() (part []byte) {
		n := min(len(b), defaultFrame-300)
		if m.one(6) {
			n = m.rng.IntN(n + 1)
		}
		part, b = b[:n], b[n:]
		return part
	}
	p.BlockFragment = cut()
	p.EndHeaders = len(b) == 0
	s.framer.WriteHeaders(p)
	for !p.EndHeaders {
		part := cut()
		p.EndHeaders = len(b) == 0
		s.framer.WriteContinuation(id, p.EndHeaders, part)
	}
}

// secrets are headers that nobody is to keep, some of them long.
func (m *maker) secrets() (h []hpack.HeaderField) {
	for range m.rng.IntN(4) {
		n := m.rng.IntN(40)
		if m.one(30) {
			n = m.rng.IntN(12 << 10)
		}
		h = append(h, hpack.HeaderField{Name: fmt.Sprintf("x-%d", m.rng.IntN(6)), Value: strings.Repeat("s", n) + fmt.Sprint(m.rng.IntN(50))})
	}
	return h
}

// stream is what the two ends say on a stream, step by step.
func (m *maker) stream(id uint32) (in, out []func()) {
	client, server := m.sides[event.In], m.sides[event.Out]
	grpc := m.one(3)
	method := []string{"GET", "POST", "PUT", "HEAD", "BREW"}[m.rng.IntN(5)]
	path := fmt.Sprintf("/p/%d", m.rng.IntN(12))
	if m.one(4) {
		path += "?token=secret"
	}
	request := []hpack.HeaderField{{Name: ":method", Value: method}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "h"}, {Name: ":path", Value: path}}
	m.rng.Shuffle(4, func(i, j int) { request[i], request[j] = request[j], request[i] })
	if grpc {
		request = append(request, hpack.HeaderField{Name: "content-type", Value: "application/grpc+proto"})
	} else if m.one(3) {
		request = append(request, hpack.HeaderField{Name: "content-type", Value: "text/plain"})
	}
	request = append(request, m.secrets()...)
	body, trailers := m.one(2), m.one(6)
	in = append(in, func() { m.headers(client, id, !body && !trailers, request) })
	if body {
		in = append(in, m.body(client, id, !trailers)...)
	}
	if trailers {
		in = append(in, func() { m.headers(client, id, true, []hpack.HeaderField{{Name: "x-t", Value: "1"}}) })
	}
	out = m.answer(server, id, grpc)
	if m.one(12) { // one of them gives up
		if m.one(2) {
			in = append(in[:1+m.rng.IntN(len(in))], func() { client.framer.WriteRSTStream(id, http2.ErrCodeCancel) })
		} else {
			out = append(out[:m.rng.IntN(len(out))], func() { server.framer.WriteRSTStream(id, http2.ErrCodeInternal) })
		}
	}
	return in, out
}

// answer is the response to a request.
func (m *maker) answer(s *side, id uint32, grpc bool) (out []func()) {
	status := []string{"200", "200", "204", "404", "500", "503", "302", "418"}[m.rng.IntN(8)]
	if grpc && !m.one(8) {
		status = "200"
	}
	response := []hpack.HeaderField{{Name: ":status", Value: status}}
	if grpc {
		response = append(response, hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
	}
	code := hpack.HeaderField{Name: "grpc-status", Value: fmt.Sprint(m.rng.IntN(18))}
	if m.one(10) {
		out = append(out, func() {
			m.headers(s, id, false, []hpack.HeaderField{{Name: ":status", Value: []string{"100", "103"}[m.rng.IntN(2)]}})
		})
	}
	if m.one(3) { // nothing but a header block
		if grpc {
			response = append(response, code)
		}
		return append(out, func() { m.headers(s, id, true, append(response, m.secrets()...)) })
	}
	out = append(out, func() { m.headers(s, id, false, append(response, m.secrets()...)) })
	trailers := grpc && !m.one(10) || m.one(8)
	out = append(out, m.body(s, id, !trailers)...)
	if trailers {
		t := []hpack.HeaderField{{Name: "x-t", Value: "2"}}
		if grpc {
			t = append(t, code)
		}
		out = append(out, func() { m.headers(s, id, true, t) })
	}
	return out
}

// body is a few DATA frames. Some are full of frames that mean nothing.
func (m *maker) body(s *side, id uint32, ends bool) (steps []func()) {
	n := 1 + m.rng.IntN(4)
	for i := range n {
		last := ends && i == n-1
		steps = append(steps, func() {
			size := m.rng.IntN(1 << m.rng.IntN(9))
			if m.one(3) {
				size = m.rng.IntN(m.shape.bodies + 1)
			}
			size = min(size, s.longest-256)
			b := make([]byte, size)
			if m.one(2) {
				m.deceive(b, id)
			}
			if m.one(4) {
				s.framer.WriteDataPadded(id, last, b, make([]byte, m.rng.IntN(200)))
			} else {
				s.framer.WriteData(id, last, b)
			}
		})
	}
	return steps
}

// deceive fills b with frames as good as any.
func (m *maker) deceive(b []byte, id uint32) {
	f := newSide()
	for f.out.Len() < len(b) {
		old := f.out.Len()
		victim := id + 2*uint32(m.rng.IntN(20))
		fields := []hpack.HeaderField{{Name: ":status", Value: "599"}}
		if m.one(2) {
			fields = []hpack.HeaderField{{Name: ":method", Value: "EVIL"}, {Name: ":path", Value: "/evil"}}
		}
		f.block.Reset()
		for _, h := range fields {
			f.encoder.WriteField(h)
		}
		f.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: victim, BlockFragment: f.block.Bytes(), EndStream: m.one(2), EndHeaders: true})
		if rest := len(b) - f.out.Len(); rest < headerLen && rest != 0 { // the last frame ends where b does
			f.out.Truncate(old)
			if rest = len(b) - old; rest >= headerLen {
				f.framer.WriteRawFrame(http2.FrameData, 0, victim, make([]byte, rest-headerLen))
			} else {
				f.out.Write(make([]byte, rest))
			}
		}
	}
	copy(b, f.out.Bytes())
}

// exchange is what must be found of a stream.
type exchange struct {
	method, path, grpc string
	status             int
	start, end         uint64
	truncated          bool
}

func (e exchange) String() string {
	return fmt.Sprintf("%s %s %d grpc=%q %d-%d %v", e.method, e.path, e.status, e.grpc, e.start, e.end, e.truncated)
}

// reader reads one direction, and knows when what it has read came.
type reader struct {
	calls []call
	used  int
}

func (r *reader) Read(b []byte) (int, error) {
	for len(r.calls) > 0 && r.used == len(r.calls[0].b) {
		if len(r.calls) == 1 {
			return 0, io.EOF
		}
		r.calls, r.used = r.calls[1:], 0
	}
	if len(r.calls) == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.calls[0].b[r.used:])
	r.used += n
	return n, nil
}

// upcoming is when the next byte comes.
func (r *reader) upcoming() uint64 {
	if r.used == len(r.calls[0].b) && len(r.calls) > 1 {
		return r.calls[1].time
	}
	return r.calls[0].time
}

// asked is what x/net reads of requests and responses.
type asked struct {
	exchange
	request, grpcs, over bool
}

// answers are the streams of one reading.
type answers map[uint32]*asked

func (a answers) get(id uint32) *asked {
	if a[id] == nil {
		a[id] = &asked{}
	}
	return a[id]
}

// oracle is what x/net's framer and decoder make of the two directions: the exchanges, and how many
// requests there were. Those that were reset have a second form, for who did not see that: what the
// server sent nevertheless.
func oracle(calls []call) (want, second []exchange, requests int, err error) {
	all, full := answers{}, answers{}
	resets := map[uint32]uint64{}
	for d := range event.Direction(2) {
		if err := oneWay(calls, d, resets, all, full); err != nil {
			return nil, nil, 0, fmt.Errorf("direction %d: %w", d, err)
		}
	}
	for id, a := range all {
		if a.request {
			requests++
		}
		if _, reset := resets[id]; reset && !a.over {
			a.truncated, a.end = true, a.start // when its last byte came is not compared
			if b := full[id]; b.over && b.status != 0 {
				second = append(second, b.told())
			}
		} else if !a.over {
			return nil, nil, 0, fmt.Errorf("stream %d has no end", id)
		}
		if a.status != 0 {
			want = append(want, a.told())
		}
	}
	return want, second, requests, nil
}

// told is the exchange that must be found.
func (a *asked) told() exchange {
	if a.grpcs && a.grpc == "" {
		a.grpc = http1.NoGRPCStatus
	} else if !a.grpcs {
		a.grpc = ""
	}
	a.end = max(a.end, a.start)
	return a.exchange
}

// oneWay reads a direction.
func oneWay(calls []call, d event.Direction, resets map[uint32]uint64, all, full answers) error {
	r := &reader{calls: slices.DeleteFunc(slices.Clone(calls), func(c call) bool { return c.d != d })}
	if d == event.In {
		io.ReadFull(r, make([]byte, len(preface)))
	}
	f := http2.NewFramer(io.Discard, r)
	f.ReadMetaHeaders = hpack.NewDecoder(65536, nil)
	f.MaxHeaderListSize = 1 << 20
	f.SetMaxReadFrameSize(1 << 20)
	for {
		start := r.upcoming()
		frame, err := f.ReadFrame()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w (%v)", err, f.ErrorDetail())
		}
		end, id := r.calls[0].time, frame.Header().StreamID
		if id%2 == 0 {
			continue
		}
		readings := []answers{full}
		if at, reset := resets[id]; !reset || end < at {
			readings = append(readings, all)
		}
		switch frame := frame.(type) {
		case *http2.PushPromiseFrame:
			if _, err := f.ReadMetaHeaders.DecodeFull(frame.HeaderBlockFragment()); err != nil {
				return err
			}
		case *http2.MetaHeadersFrame:
			for _, a := range readings {
				a.get(id).headers(d, frame, start, end)
			}
		case *http2.DataFrame:
			for _, a := range readings {
				if a := a.get(id); d == event.Out {
					a.end, a.over = end, a.over || frame.StreamEnded()
				}
			}
		case *http2.RSTStreamFrame:
			resets[id] = end
		}
	}
}

func (a *asked) headers(d event.Direction, f *http2.MetaHeadersFrame, start, end uint64) {
	field := func(name string) string {
		for _, h := range f.Fields {
			if h.Name == name {
				return h.Value
			}
		}
		return ""
	}
	if d == event.In {
		if !a.request {
			a.request, a.start, a.method = true, start, field(":method")
			a.path, _, _ = strings.Cut(field(":path"), "?")
			a.grpcs = strings.HasPrefix(field("content-type"), "application/grpc")
		}
		return
	}
	status := 0
	fmt.Sscan(field(":status"), &status)
	if status >= 200 {
		a.status = status
	} else if status > 0 {
		return
	}
	a.end = end
	if f.StreamEnded() {
		a.over = true
		a.grpc = field("grpc-status")
		if a.grpc == "17" {
			a.grpc = "_OTHER"
		}
	}
}

// fits reports whether got, with what is unknown of it, can be want.
func fits(got, want exchange) bool {
	if got.method == http1.Unknown {
		want.method = http1.Unknown
	}
	if got.path == http1.Unknown {
		want.path = http1.Unknown
	}
	if got.grpc == http1.Unknown {
		want.grpc = http1.Unknown
	}
	return got == want
}

// unknowns is how much is unknown of an exchange.
func (e exchange) unknowns() (n int) {
	for _, s := range []string{e.method, e.path, e.grpc} {
		if s == http1.Unknown {
			n++
		}
	}
	return n
}

// wrong returns the first exchange that is no other than those that there were.
func wrong(got, want []exchange) (exchange, bool) {
	slices.SortStableFunc(got, func(a, b exchange) int { return cmp.Compare(a.unknowns(), b.unknowns()) })
	want = slices.Clone(want)
	for _, g := range got {
		i := slices.IndexFunc(want, func(w exchange) bool { return fits(g, w) })
		if i < 0 {
			return g, true
		}
		want = slices.Delete(want, i, i+1)
	}
	return exchange{}, false
}
