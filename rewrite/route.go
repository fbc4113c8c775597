// SPDX-License-Identifier: Apache-2.0

package rewrite

import (
	"fmt"
	"sort"

	"github.com/bpfwhy/bpfwhy/insn"
)

// station is a place for islands: the gap before an original slot.
type station struct {
	gap     int
	skip    bool  // code falls into the gap and must be led around the islands
	islands []int // indexes into route.islands, in the order of the code
	slot    int   // of the first island, in the finished program
}

// island is a goto in a station on the way to a target. There is one for each
// target, however many jumps come by.
type island struct {
	station int
	order   int // in the station
	target  int // original slot
	before  int // number of stations at or before the target
	next    int // index of the next island, direct
	used    bool
}

// direct is in the place of an island where a jump goes straight to its target.
const direct = -1

// jump is a jump of the original with 16 bits of offset.
type jump struct {
	slot, target int
	atSlot       int // number of stations at or before slot
	atTarget     int // and at or before target
	via          int // index of the first island, or direct
	inPlace      bool
}

// route finds the islands of one function. All distances are in slots after
// blinding, in which an island is as long as it was before.
type route struct {
	prog    []insn.Instruction
	f       insn.Function
	pos     []int // of each slot of the original after blinding, with nothing inserted
	limit   int
	gotol   bool
	jumps   []jump
	islands []island
	index   map[place]int // of islands

	stations []station
	base     []int // how many slots the stations before each one hold
	work     *int  // what is left of maxWork, for all functions
}

type place struct{ station, target int }

func newRoute(prog []insn.Instruction, f insn.Function, pos []int, o Options, work *int) *route {
	r := &route{prog: prog, f: f, pos: pos, limit: o.Limit, gotol: o.Gotol, work: work}
	for i := f.Start; i < f.End; i++ {
		if in := prog[i]; in.IsJump16() {
			r.jumps = append(r.jumps, jump{slot: i, target: i + 1 + int(in.Off), via: direct})
		}
	}
	return r
}

// needed reports whether some jump is too long.
func (r *route) needed() bool {
	for _, j := range r.jumps {
		if !r.reaches(r.need(j)) {
			return true
		}
	}
	return false
}

// need is the offset of a jump of the original after blinding.
func (r *route) need(j jump) int { return r.pos[j.target] - r.pos[j.slot+1] }

func (r *route) reaches(need int) bool { return -r.limit <= need && need <= r.limit }

// find places islands until every jump reaches its next stop. Where too many
// islands crowd a station, more and closer stations share them.
func (r *route) find() error {
	err := errCrowded
	for spacing := r.limit * 2 / 3; spacing >= 4 && *r.work > 0; spacing /= 2 {
		r.begin(spacing)
		if err = r.settle(); err == nil {
			r.prune()
			return nil
		}
	}
	return err
}

// begin forgets all islands and lays out stations at most so many slots apart.
func (r *route) begin(spacing int) {
	r.islands, r.index, r.stations = nil, make(map[place]int), nil
	last := r.pos[r.f.Start]
	for i := r.f.Start + 1; i < r.f.End; {
		// The last gap in reach of the station before; better one that no code
		// falls into, if one is not much nearer.
		best, quiet := -1, -1
		for ; i < r.f.End && r.pos[i]-last <= spacing; i++ {
			if insn.IsSecondHalf(r.prog, i) {
				continue
			}
			best = i
			if !r.fallsInto(i) && r.pos[i]-last > spacing/2 {
				quiet = i
			}
		}
		if i == r.f.End {
			break // the rest of the function is in reach of the last station
		}
		gap := best
		if quiet >= 0 {
			gap = quiet
		}
		if gap < 0 {
			// One instruction is wider than the spacing.
			for gap = i; gap < r.f.End && insn.IsSecondHalf(r.prog, gap); gap++ {
			}
			if gap == r.f.End {
				break
			}
		}
		r.stations = append(r.stations, station{gap: gap, skip: r.fallsInto(gap)})
		last = r.pos[gap]
		i = gap + 1
	}
	for n := range r.jumps {
		j := &r.jumps[n]
		j.via, j.inPlace = direct, false
		j.atSlot, j.atTarget = r.stationsBefore(j.slot), r.stationsBefore(j.target)
	}
}

// fallsInto reports whether the instruction before slot i goes on to it.
func (r *route) fallsInto(i int) bool {
	in := r.prog[i-1]
	return insn.IsSecondHalf(r.prog, i-1) || !in.IsGoto() && !in.IsExit()
}

// stationsBefore counts the stations whose gap is before slot i or at it.
func (r *route) stationsBefore(i int) int {
	return sort.Search(len(r.stations), func(s int) bool { return r.stations[s].gap > i })
}

// layout recomputes where everything is.
func (r *route) layout() {
	r.base = r.base[:0]
	sum := 0
	for _, s := range r.stations {
		r.base = append(r.base, sum)
		sum += s.size()
	}
	r.base = append(r.base, sum)
}

func (s station) size() int {
	if len(s.islands) == 0 {
		return 0
	}
	if s.skip {
		return len(s.islands) + 1
	}
	return len(s.islands)
}

func (r *route) inserted() int { return r.base[len(r.stations)] }

// first is the position of a station's first island.
func (r *route) first(s int) int {
	p := r.pos[r.stations[s].gap] + r.base[s]
	if r.stations[s].skip {
		p++
	}
	return p
}

func (r *route) at(n int) int {
	i := r.islands[n]
	return r.first(i.station) + i.order
}

// settle adds islands until nothing more is needed. An island makes the way
// longer for what passes by, so this takes a few rounds; islands are never taken
// away meanwhile, so that it ends.
//
//revive:disable-next-line:cyclomatic a case for each state of a jump
func (r *route) settle() error {
	for *r.work > 0 {
		*r.work -= len(r.jumps) + len(r.islands) + len(r.stations)
		r.layout()
		changed := false
		for n := range r.jumps {
			j := &r.jumps[n]
			if j.inPlace {
				continue
			}
			end := r.pos[j.slot+1] + r.base[j.atSlot]
			switch via, moved, err := r.step(j.via, end, j.target, j.atTarget, j.atSlot); {
			case err != nil:
				return fmt.Errorf("the jump at slot %d cannot be led to slot %d: %w", j.slot, j.target, err)
			case moved && r.gotol && r.prog[j.slot].IsGoto():
				j.inPlace, changed = true, true
			case moved:
				j.via, changed = r.add(via, j.target, j.atTarget), true
			}
		}
		for n := 0; n < len(r.islands) && !r.gotol && *r.work > 0; n++ {
			i := r.islands[n]
			// Forward, the next station is the one after; backward, what comes
			// before does not include the station itself.
			own := i.station
			if i.target >= r.stations[i.station].gap {
				own++
			}
			switch via, moved, err := r.step(i.next, r.at(n)+1, i.target, i.before, own); {
			case err != nil:
				return fmt.Errorf("an island before slot %d cannot be led to slot %d: %w", r.stations[i.station].gap, i.target, err)
			case moved:
				next := r.add(via, i.target, i.before)
				r.islands[n].next, changed = next, true
			}
		}
		if !changed && *r.work > 0 {
			return nil
		}
		if len(r.islands) > maxSlots-r.f.Len() {
			return errCrowded
		}
	}
	return errCrowded
}

const (
	// A program has at most a million instructions.
	maxSlots = 1_000_000
	// maxWork is how often the jumps and islands of a program are looked at before
	// it is given up, a second or two. The worst of what could be done, 33,600 jumps
	// that are all too long in one function of 200,000 slots, took a third.
	maxWork = 12_000_000
	// islandWork is what a new island costs, beside a look.
	islandWork = 8
)

var errCrowded = fmt.Errorf("too many jumps cross the same place")

// step finds the next stop of something that jumps from just before position
// end to a target, by way of island via or directly. The stations on its way
// forward begin with number own, those on its way back end before it. It returns
// the number of the station to go to when the stop that it has is out of reach.
func (r *route) step(via, end, target, atTarget, own int) (to int, moved bool, err error) {
	goal := r.pos[target] + r.base[atTarget]
	stop := goal
	if via != direct {
		stop = r.at(via)
	}
	if r.reaches(stop - end) {
		return 0, false, nil
	}
	// Some room for islands that are yet to come, if there is a station.
	for _, reach := range []int{r.limit - r.limit/16, r.limit} {
		if goal >= end {
			s := own + sort.Search(atTarget-own, func(n int) bool {
				return r.first(own+n)+len(r.stations[own+n].islands)-end > reach
			}) - 1
			if s >= own {
				return s, true, nil
			}
		} else {
			// Stations at or before the target are no use on the way back.
			s := atTarget + sort.Search(own-atTarget, func(n int) bool {
				return end-r.first(atTarget+n) <= reach
			})
			if s < own {
				return s, true, nil
			}
		}
	}
	return 0, false, errCrowded
}

// add returns the island of a station for a target.
func (r *route) add(s, target, atTarget int) int {
	p := place{s, target}
	n, ok := r.index[p]
	if !ok {
		*r.work -= islandWork
		n = len(r.islands)
		r.index[p] = n
		r.islands = append(r.islands, island{station: s, order: len(r.stations[s].islands), target: target, before: atTarget, next: direct})
		r.stations[s].islands = append(r.stations[s].islands, n)
	}
	return n
}

// prune drops islands that were in use for a while only. What remains comes
// closer together.
func (r *route) prune() {
	for _, j := range r.jumps {
		for n := j.via; n != direct && !r.islands[n].used && !j.inPlace; n = r.islands[n].next {
			r.islands[n].used = true
		}
	}
	for s := range r.stations {
		st := &r.stations[s]
		kept := st.islands[:0]
		for _, n := range st.islands {
			if r.islands[n].used {
				r.islands[n].order = len(kept)
				kept = append(kept, n)
			}
		}
		st.islands = kept
	}
	r.layout()
}

// connect writes the offsets of the detours and islands into the program.
func (r *route) connect(res *Result) error {
	slot := func(n int) int { return r.stations[r.islands[n].station].slot + r.islands[n].order }
	for _, s := range r.stations {
		for _, n := range s.islands {
			i, from := r.islands[n], slot(n)
			to := res.New[i.target]
			if i.next != direct {
				to = slot(i.next)
			}
			if r.gotol {
				res.Program[from] = insn.Instruction{Code: insn.OpcodeGotol, Imm: int32(to - from - 1)}
				continue
			}
			off, err := offset(from, to)
			if err != nil {
				return err
			}
			res.Program[from].Off = off
		}
	}
	for _, j := range r.jumps {
		from := res.New[j.slot]
		if j.inPlace {
			res.Program[from] = insn.Instruction{Code: insn.OpcodeGotol, Imm: int32(res.New[j.target] - from - 1)}
			res.Detours = append(res.Detours, Detour{From: j.slot, To: j.target, Need: r.need(j), Gotol: true})
			continue
		}
		to := res.New[j.target]
		if j.via != direct {
			d := Detour{From: j.slot, To: j.target, Need: r.need(j), Gotol: r.gotol}
			for n := j.via; n != direct; n = r.islands[n].next {
				d.Via = append(d.Via, slot(n))
			}
			res.Detours = append(res.Detours, d)
			to = d.Via[0]
		}
		off, err := offset(from, to)
		if err != nil {
			return err
		}
		res.Program[from].Off = off
	}
	return nil
}
