// SPDX-License-Identifier: Apache-2.0

package blinding

import (
	"slices"

	"github.com/bpfwhy/bpfwhy/insn"
)

// Mapping relates the code that the verifier leaves behind to the code that was
// submitted. The verifier rewrites context accesses, helper calls and
// divisions, and drops dead code; most instructions come through unchanged, and
// the two are aligned by them.
type Mapping struct {
	submitted, translated []insn.Instruction
	a, b                  []uint64 // their keys
	// forward and backward are the submitted slots of the translated ones, -1
	// where there is none, as the alignment from the first and from the last
	// instruction has them. Where code repeats itself they differ.
	forward, backward []int32
	// guess marks slots of which one alignment is not to be trusted.
	guess []bool
}

// NewMapping aligns translated code with submitted code: both of a whole
// program, or both of the same function. It takes time in proportion to the
// length and to the square of the number of rewritten instructions, and gives
// up on precision rather than take longer than a fraction of a second.
func NewMapping(submitted, translated []insn.Instruction) *Mapping {
	a, b := keys(submitted), keys(translated)
	m := &Mapping{submitted: submitted, translated: translated, a: slices.Clone(a), b: slices.Clone(b)}
	m.forward, m.guess = align(a, b)
	slices.Reverse(a)
	slices.Reverse(b)
	var guess []bool
	m.backward, guess = align(a, b)
	slices.Reverse(m.backward)
	slices.Reverse(guess)
	for i, j := range m.backward {
		if j >= 0 {
			m.backward[i] = int32(len(a)) - 1 - j
		}
		m.guess[i] = m.guess[i] || guess[i]
	}
	return m
}

// MapIndex returns the slot of submitted that slot i of translated comes from.
// See [Mapping.Submitted]; for more than one index make a [Mapping] once.
func MapIndex(submitted, translated []insn.Instruction, i int) (j int, exact bool) {
	return NewMapping(submitted, translated).Submitted(i)
}

// Submitted returns the submitted slot that slot i of the translated code comes
// from. The answer is exact when the instruction came through unchanged and
// nothing else fits as well; otherwise it is the nearest guess. It is -1 when i
// is outside the code or nothing was submitted.
//
//revive:disable-next-line:cyclomatic each sign by which a slot is told from its neighbours
func (m *Mapping) Submitted(i int) (j int, exact bool) {
	if i < 0 || i >= len(m.translated) || len(m.submitted) == 0 {
		return -1, false
	}
	j = m.nearest(m.forward, i)
	if m.guess[i] {
		return j, false
	}
	f, b := int(m.forward[i]), int(m.backward[i])
	target, ok := m.translated[i].Target(i)
	if !ok {
		return j, f >= 0 && f == b && !m.shiftable(m.forward, i)
	}
	// A jump must go to the same place as well, which also decides between two
	// that look alike.
	goesThere := func(to []int32) bool {
		if to[i] < 0 || m.shiftable(to, i) {
			return false
		}
		want, ok := m.submitted[to[i]].Target(int(to[i]))
		return ok && m.leadsTo(target, want)
	}
	// Both alignments must mean about the same place, though, and not different
	// rounds of a loop.
	const close = 8
	if d := j - m.nearest(m.backward, i); d > close || d < -close {
		return j, false
	}
	switch first, second := goesThere(m.forward), goesThere(m.backward); {
	case first && (f == b || !second):
		return f, true
	case second && !first:
		return b, true
	}
	return j, false
}

// shiftable reports whether the run of matches around slot i might as well
// belong to code that was removed next to it: an unrolled loop whose middle is
// dead looks the same whichever rounds of it are gone.
func (m *Mapping) shiftable(to []int32, i int) bool {
	const longest = 512 // of a run that can be found twice, and still be the same by chance
	first := i
	for first > 0 && i-first < longest && to[first-1] >= 0 && to[first-1] == to[first]-1 {
		first--
	}
	last := i
	for last+1 < len(to) && last-i < longest && to[last+1] == to[last]+1 {
		last++
	}
	// The end of what is matched before the run, and the start of what is
	// matched after it.
	before, after := 0, len(m.a)
	for n := first - 1; n >= 0 && first-n < longest; n-- {
		if to[n] >= 0 {
			before = int(to[n]) + 1
			break
		}
	}
	for n := last + 1; n < len(to) && n-last < longest; n++ {
		if to[n] >= 0 {
			after = int(to[n])
			break
		}
	}
	removedBefore := m.a[max(before, int(to[first])-8*longest):to[first]]
	removedAfter := m.a[to[last]+1 : min(after, int(to[last])+8*longest)]
	return contains(removedBefore, m.b[first:i+1]) || contains(removedAfter, m.b[i:last+1])
}

func contains(list, part []uint64) bool {
	for i := 0; i+len(part) <= len(list); i++ {
		if slices.Equal(list[i:i+len(part)], part) {
			return true
		}
	}
	return false
}

// nearest reads one alignment. Inside rewritten code it takes the submitted slot
// at the same place of the gap.
func (m *Mapping) nearest(to []int32, i int) int {
	if to[i] >= 0 {
		return int(to[i])
	}
	first := i // of the gap in the translated code
	for first > 0 && to[first-1] < 0 {
		first--
	}
	last := i
	for last+1 < len(to) && to[last+1] < 0 {
		last++
	}
	low, high := 0, len(m.submitted)-1 // the gap in the submitted code
	if first > 0 {
		low = int(to[first-1]) + 1
	}
	if last+1 < len(to) {
		high = int(to[last+1]) - 1
	}
	if high < low {
		// Inserted: what follows is what it was inserted for.
		return min(low, len(m.submitted)-1)
	}
	return min(low+i-first, high)
}

// leadsTo reports whether translated slot t can be what a jump to submitted
// slot want leads to: the slot itself, or what the verifier put in front of it
// or in its place.
func (m *Mapping) leadsTo(t, want int) bool {
	if t < 0 || t >= len(m.translated) {
		return false
	}
	for _, to := range [][]int32{m.forward, m.backward} {
		j := m.nearest(to, t)
		if j == want {
			return true
		}
		// Dead code and jumps to the next instruction are removed, so that the
		// target may be the next one that is left.
		if j > want && (t == 0 || to[t-1] >= 0 && int(to[t-1]) < want) {
			return true
		}
	}
	return false
}

// key is what stays the same of an instruction that comes through: not the
// distance of a jump or call, not what a 64-bit load is filled with, and not
// the kernel's own variants of loads and stores.
func keys(prog []insn.Instruction) []uint64 {
	list := make([]uint64, len(prog))
	for i, in := range prog {
		switch {
		case in.IsWide(), in.Code == 0:
			in.Src, in.Off, in.Imm = 0, 0, 0
		case in.Code == insn.OpcodeCall:
			in = insn.Instruction{Code: in.Code}
		case in.IsGoto():
			in.Off, in.Imm = 0, 0
		case in.IsConditional():
			in.Off = 0
		case in.Class() == insn.ClassLDX || in.Class() == insn.ClassST || in.Class() == insn.ClassSTX:
			in.Code = plainMode(in)
		}
		list[i] = uint64(in.Code) | uint64(in.Dst)<<8 | uint64(in.Src)<<12 | uint64(uint16(in.Off))<<16 | uint64(uint32(in.Imm))<<32
	}
	return list
}

// plainMode undoes what the verifier does to accesses that may fault.
func plainMode(in insn.Instruction) uint8 {
	const (
		probeMem     = 0x20
		probeMemSX   = 0x40
		probeMem32   = 0xa0
		probeMem32SX = 0xc0
		probeAtomic  = 0xe0
	)
	rest := in.Code &^ 0xe0
	switch mode := in.Mode(); {
	case mode == probeMem, mode == probeMem32:
		return rest | insn.ModeMEM
	case in.Class() == insn.ClassLDX && (mode == probeMemSX || mode == probeMem32SX):
		return rest | insn.ModeMEMSX
	case in.Class() == insn.ClassSTX && mode == probeAtomic:
		return rest | insn.ModeATOMIC
	}
	return in.Code
}
