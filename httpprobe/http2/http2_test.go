// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
)

// seen is what a parser says.
type seen struct {
	c        http1.Config
	got      []exchange
	unparsed [http1.Reasons]int
}

func newSeen() *seen {
	s := &seen{}
	s.c = http1.Config{
		Exchange: func(e http1.Exchange) {
			if e.Truncated {
				e.End = e.Start // see oracle
			}
			s.got = append(s.got, exchange{e.Method, e.Path, e.GRPCStatus, e.Status, e.Start, e.End, e.Truncated})
		},
		Unparsed: func(r http1.Reason) { s.unparsed[r]++ },
		Budget:   http1.Budget{Max: 4 * ConnBytes},
	}
	return s
}

func (s *seen) unseen() (n int) {
	for _, u := range s.unparsed {
		n += u
	}
	return n
}

// loss is how a connection is seen.
type loss struct {
	name   string
	join   bool
	gaps   int // one of so many calls is lost
	copied int // bytes of each call
}

var losses = []loss{
	{name: "whole"}, {name: "gaps", gaps: 50}, {name: "many gaps", gaps: 5}, {name: "copied", copied: 1024}, {name: "copied less", copied: 100},
	{name: "joined", join: true}, {name: "joined, with gaps", join: true, gaps: 40}, {name: "joined, copied", join: true, copied: 4096},
}

// play shows calls to a parser.
func (l loss) play(rng *rand.Rand, s *seen, calls []call, longest uint32) {
	p := New(&s.c, http1.Server)
	if l.join {
		p = Join(&s.c)
		calls = calls[rng.IntN(len(calls)):]
	}
	p.longest = longest // the maker's longest frame: else hardly any way would be sure again
	for d := range p.ways {
		if p.ways[d].longest > defaultFrame {
			p.ways[d].longest = longest
		}
	}
	for _, c := range calls {
		if l.gaps > 0 && rng.IntN(l.gaps) == 0 {
			p.Gap(c.d, uint64(len(c.b)))
			continue
		}
		n := len(c.b)
		if l.copied > 0 {
			n = min(n, l.copied)
		}
		p.Data(c.d, http1.Segment{Time: c.time, Data: c.b[:n:n], Hidden: uint64(len(c.b) - n)})
	}
	p.Close()
}

// TestMade: of thousands of connections, seen whole, in part, and from their midst, nothing is told
// that was not so; and all of those that are seen whole.
func TestMade(t *testing.T) {
	n := 2000
	if os.Getenv("BPFWHY_LONG") != "" {
		n = 100_000
	}
	type sum struct{ requests, counted, unknown, unparsed int }
	sums := map[string]*sum{}
	for seed := range n {
		rng := rand.New(rand.NewPCG(uint64(seed), 1))
		sh := shape{streams: 1 + rng.IntN(60), split: rng.IntN(2) == 0, swap: rng.IntN(4) == 0, bodies: 1 << rng.IntN(15), large: rng.IntN(10) == 0}
		calls := made(rng, sh)
		want, second, requests, err := oracle(calls)
		if err != nil {
			t.Fatalf("connection %d is not what x/net reads: %v", seed, err)
		}
		longest := uint32(defaultFrame)
		if sh.large {
			longest = defaultFrame << 2
		}
		for i, l := range losses {
			if i > 0 && seed%(len(losses)-1) != i-1 {
				continue // whole, and in one other way
			}
			s := newSeen()
			l.play(rng, s, calls, longest)
			if e, ok := wrong(s.got, append(want[:len(want):len(want)], second...)); ok {
				t.Fatalf("connection %d, %s: there was no %v in\n%v", seed, l.name, e, want)
			}
			if told := len(s.got) + s.unseen(); told > requests {
				t.Fatalf("connection %d, %s: %d counted and %d unparsed of %d requests", seed, l.name, len(s.got), s.unseen(), requests)
			}
			if s.c.Budget.Used != 0 {
				t.Fatalf("connection %d, %s: %d bytes are not given back", seed, l.name, s.c.Budget.Used)
			}
			if l.name == "whole" && (len(s.got) != len(want) || len(s.got)+s.unparsed[http1.Reset] != requests || slices.ContainsFunc(s.got, func(e exchange) bool { return e.unknowns() > 0 })) {
				t.Fatalf("connection %d: %d of %d exchanges, %v unparsed of %d requests", seed, len(s.got), len(want), s.unparsed, requests)
			}
			if sums[l.name] == nil {
				sums[l.name] = &sum{}
			}
			u := sums[l.name]
			u.requests, u.counted, u.unparsed = u.requests+requests, u.counted+len(s.got), u.unparsed+s.unseen()
			for _, e := range s.got {
				if e.unknowns() > 0 {
					u.unknown++
				}
			}
		}
	}
	for _, l := range losses {
		u := sums[l.name]
		t.Logf("%-18s %8d requests, %8d counted, %7d of them with something unknown, %7d unparsed", l.name, u.requests, u.counted, u.unknown, u.unparsed)
		qt.Check(t, qt.IsTrue(u.counted > 0), qt.Commentf("%s", l.name))
	}
}

// A connection that is joined in the midst of DATA that is full of frames: nothing is counted, and
// nothing of it is believed later.
func TestDeceived(t *testing.T) {
	counted := 0
	for seed := range 20 {
		rng := rand.New(rand.NewPCG(uint64(seed), 2))
		m := &maker{rng: rng, sides: [2]*side{newSide(), newSide()}, next: 1}
		s := newSeen()
		p := Join(&s.c)
		for i := range 2 { // an echo: what goes up comes down
			for d := range event.Direction(2) {
				b := make([]byte, unknownFrame-rng.IntN(1000))
				m.deceive(b, 1)
				if i == 0 {
					b = b[:len(b)-rng.IntN(100)]
				}
				for len(b) > 0 {
					n := min(len(b), 1+rng.IntN(64<<10))
					if rng.IntN(2) == 0 {
						n = min(len(b), headerLen+int(parseFrame(append(b[:min(len(b), 9):9], make([]byte, 9)...)).length))
					}
					p.Data(d, http1.Segment{Time: 1, Data: b[:n]})
					b = b[n:]
				}
				if i == 0 {
					break
				}
			}
			if i == 0 {
				counted += len(s.got) + s.unseen()
			}
		}
	}
	qt.Check(t, qt.Equals(counted, 0))
}
