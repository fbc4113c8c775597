// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
)

// FuzzParser: the same bytes give the same exchanges, however they are split. With gaps and bytes
// that were not copied, nothing is kept beyond the limit, everything is given back, and what is
// told is within its bounds.
func FuzzParser(f *testing.F) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var both [2][]byte
		for _, c := range made(rng, shape{streams: 1 + int(seed)%4, bodies: 64}) {
			both[c.d] = append(both[c.d], c.b...)
		}
		f.Add(both[event.In], both[event.Out], seed, seed%2 == 0)
	}
	f.Add([]byte(preface+"\x00\x00\x05\x01\x05\x00\x00\x00\x01\x82\x84\x87\x3f\xe1"), []byte("\x00\x00\x01\x01\x05\x00\x00\x00\x01\x88"), uint64(1), true)
	f.Fuzz(func(t *testing.T, requests, responses []byte, seed uint64, fresh bool) {
		if len(requests)+len(responses) > 64<<10 {
			return
		}
		both := [2][]byte{requests, responses}
		whole := newSeen()
		played(t, whole, both, nil, fresh)
		if fresh {
			split := newSeen()
			played(t, split, both, rand.New(rand.NewPCG(seed, 0)), fresh)
			for _, s := range []*seen{whole, split} {
				for i := range s.got {
					s.got[i].start, s.got[i].end = 0, 0
				}
			}
			if d := cmp.Diff(whole.got, split.got, cmp.AllowUnexported(exchange{})); d != "" {
				t.Fatalf("split they give other exchanges than whole (-whole +split):\n%s", d)
			}
		}
		lossy(t, both, seed, fresh)
	})
}

// played shows all requests and then all responses to a parser, in pieces if there is a source of
// them.
func played(t *testing.T, s *seen, both [2][]byte, rng *rand.Rand, fresh bool) {
	p := New(&s.c, http1.Server)
	if !fresh {
		p = Join(&s.c)
	}
	now := uint64(1)
	for d, b := range both {
		for len(b) > 0 {
			n := len(b)
			if rng != nil {
				n = 1 + rng.IntN(min(len(b), 1+rng.IntN(40)))
			}
			p.Data(event.Direction(d), http1.Segment{Time: now, Data: b[:n]})
			b, now = b[n:], now+1
		}
	}
	p.Close()
	s.check(t)
}

// lossy shows both directions with losses of any kind, and little memory.
func lossy(t *testing.T, both [2][]byte, seed uint64, fresh bool) {
	s := newSeen()
	s.c.Budget.Max = 8 << 10
	p := New(&s.c, http1.Client)
	if !fresh {
		p = Join(&s.c)
		p.ways[0].longest, p.ways[1].longest = 64, 64
	}
	p.longest = 64
	rng := rand.New(rand.NewPCG(seed, 1))
	for now := uint64(1); len(both[0])+len(both[1]) > 0; now++ {
		d := rng.IntN(2)
		if len(both[d]) == 0 {
			d = 1 - d
		}
		n := 1 + rng.IntN(min(len(both[d]), 200))
		b := both[d][:n]
		both[d] = both[d][n:]
		switch rng.IntN(12) {
		case 0:
			p.Gap(event.Direction(d), uint64(n))
		case 1:
			p.Data(event.Direction(d), http1.Segment{Time: now, Data: b[:n/2], Hidden: uint64(n - n/2)})
		case 2:
			p.Resolve()
		default:
			p.Data(event.Direction(d), http1.Segment{Time: now, Data: slices.Clone(b), Mid: rng.IntN(8) == 0})
		}
		if s.c.Budget.Used < 0 || s.c.Budget.Used > s.c.Budget.Max || p.early < 0 || len(p.streams) > maxStreams {
			t.Fatalf("%d bytes of %d, %d streams, %d of them early", s.c.Budget.Used, s.c.Budget.Max, len(p.streams), p.early)
		}
	}
	if seed%2 == 0 {
		p.Abandon(http1.Unfinished)
	} else {
		p.Close()
	}
	s.check(t)
}

// check looks at what may be told, and that all was given back.
func (s *seen) check(t *testing.T) {
	t.Helper()
	if s.c.Budget.Used != 0 {
		t.Fatalf("%d bytes are not given back", s.c.Budget.Used)
	}
	for _, e := range s.got {
		if e.status < 200 || e.status > 999 || e.method == "" || len(e.method) > http1.MaxMethod || len(e.path) > http1.MaxPath || e.end < e.start {
			t.Fatalf("no exchange can be like %v", e)
		}
	}
}
