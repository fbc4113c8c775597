// SPDX-License-Identifier: Apache-2.0

// Package randprog makes programs for tests: random, the same for the same
// seed, accepted by the verifier, ending by themselves, and with a long jump
// whose need after constant blinding is known to the slot.
//
// They are of type sched_cls. Each reads bytes of the packet, mixes them in every
// way that BPF has, and returns what comes out, so that two forms of one program
// can be compared on many packets.
package randprog

import (
	"fmt"
	"math/rand/v2"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
)

// PacketSize is the least number of bytes that a packet for a program has; it
// returns 0 for shorter ones.
const PacketSize = 64

// ValueSize is the size of the value of the only element of the array map that
// a program with MapLoads reads.
const ValueSize = 64

// Options choose a program. The zero value is a forward jump that needs 32767,
// the most that fits.
type Options struct {
	Seed uint64
	// Delta is how much the long jump needs beyond what fits: it does where
	// Delta is not positive.
	Delta int
	// Shape of the long jump.
	Shape Shape
	// Grown is how many immediates there are about, in the code that the jump
	// spans: from 40 to 10,000. The kernel's time is in proportion to it. 0 is 40
	// to 160.
	Grown int
	// Sub puts the long jump into a function of its own.
	Sub bool
	// Several adds a few jumps that are about as long as the first, some of them
	// longer. It does nothing to Goto and the loops.
	Several bool
	// Maps lets the code read the map's value.
	Maps bool
	// Tail adds so many slots of code behind the long jump, none of which grows.
	// Where the jump wraps, that is where it goes: never run such a program
	// without a tail of at least 33,000, nor on a host.
	Tail int
	// Rich adds what the verifier rewrites, about one in so many instructions:
	// the context, helpers, divisions, dead code. The need of the jump is then
	// that of the submitted code. The verifier's time is in proportion to how
	// many there are. 0 is none.
	Rich int
}

// Shape is the kind of a long jump.
type Shape int

const (
	Forward  Shape = iota // conditional, with an immediate
	ForwardX              // conditional, comparing registers
	Goto                  // unconditional
	Loop                  // backward, with an immediate: blinded kernels up to 6.18 may wrap it
	LoopX                 // backward, comparing registers
	shapes
)

func (s Shape) String() string {
	return [...]string{"forward", "forward x", "goto", "loop", "loop x"}[s]
}

// Any chooses everything but the seed, the size and Rich by the seed: a jump
// within three slots of the limit.
func Any(seed uint64) Options {
	rnd := rand.New(rand.NewPCG(seed, 1))
	return Options{
		Seed: seed, Delta: rnd.IntN(7) - 3, Shape: Shape(rnd.IntN(int(shapes))),
		Sub: rnd.IntN(3) == 0, Several: rnd.IntN(3) == 0, Maps: rnd.IntN(3) == 0,
	}
}

// Program is a program to load, with the license "GPL".
type Program struct {
	Options
	Insns     []insn.Instruction
	Functions []insn.Function
	// MapLoads are the first slots of the 64-bit loads of the map's value; Imm
	// is to become its descriptor.
	MapLoads []int
	// Jump is the slot of the long jump, and Need what it needs after blinding.
	Jump, Need int
}

// Registers, by role. R6 is the context in the first function.
const (
	r0 = iota
	r1
	r2
	r3
	_
	r5
	ctx
	acc // what is computed
	tmp
	count
	fp
)

const second = -8 // where on the stack another part of the input is

// New makes the program of the options.
func New(o Options) *Program {
	b := builder{rnd: rand.New(rand.NewPCG(o.Seed, 2)), o: o, p: &Program{Options: o}}
	if b.o.Grown == 0 {
		b.o.Grown = 40 + b.rnd.IntN(120)
	}
	b.entry()
	call := -1
	if o.Sub {
		b.some(20)
		call = len(b.p.Insns)
		b.add(move(r1, acc), load(r2, fp, second), insn.Instruction{Code: 0x85, Src: insn.PseudoCall}, move(acc, r0))
		call += 2
		b.some(20)
	} else {
		b.long()
	}
	b.leave()
	b.p.Functions = []insn.Function{{End: len(b.p.Insns)}}
	if o.Sub {
		b.sub = true
		start := len(b.p.Insns)
		b.p.Insns[call].Imm = int32(start - call - 1)
		b.add(move(acc, r1), insn.Instruction{Code: 0x7b, Dst: fp, Src: r2, Off: second})
		b.add(move(tmp, r2))
		b.long()
		b.leave()
		b.p.Functions = append(b.p.Functions, insn.Function{Start: start, End: len(b.p.Insns)})
	}
	b.p.Need = b.width(b.p.Jump+1, b.target)
	return b.p
}

type builder struct {
	rnd    *rand.Rand
	o      Options
	p      *Program
	sub    bool
	target int // of the long jump
	// clean says that tmp does not come from acc. Only then it is mixed into
	// acc, which otherwise might lose what it holds, and with it every trace of
	// the code before.
	clean bool
}

func move(dst, src uint8) insn.Instruction { return insn.Instruction{Code: 0xbf, Dst: dst, Src: src} }

func load(dst, src uint8, off int16) insn.Instruction {
	return insn.Instruction{Code: 0x79, Dst: dst, Src: src, Off: off}
}

func (b *builder) add(in ...insn.Instruction) { b.p.Insns = append(b.p.Insns, in...) }

// width is the distance between two slots after blinding; negative backwards.
func (b *builder) width(from, to int) int {
	sum, sign := 0, 1
	if to < from {
		from, to, sign = to, from, -1
	}
	for i := from; i < to; i++ {
		sum += blinding.Width(b.p.Insns, i, blinding.Kernel{})
	}
	return sum * sign
}

// entry reads the packet.
func (b *builder) entry() {
	b.add(
		move(ctx, r1),
		insn.Instruction{Code: 0x61, Dst: r2, Src: r1, Off: 76}, // data
		insn.Instruction{Code: 0x61, Dst: r3, Src: r1, Off: 80}, // data_end
		move(r5, r2),
		insn.Instruction{Code: 0x07, Dst: r5, Imm: PacketSize},
		insn.Instruction{Code: 0xb7, Dst: r0},
		insn.Instruction{Code: 0x3d, Dst: r3, Src: r5, Off: 1}, // if data_end >= data + size
		insn.Instruction{Code: 0x95},
		load(acc, r2, int16(8*b.rnd.IntN(PacketSize/8))),
		load(tmp, r2, int16(8*b.rnd.IntN(PacketSize/8))),
		insn.Instruction{Code: 0x7b, Dst: fp, Src: tmp, Off: second},
	)
}

func (b *builder) leave() {
	b.add(move(r0, acc), insn.Instruction{Code: 0x77, Dst: r0, Imm: 32}, insn.Instruction{Code: 0xaf, Dst: r0, Src: acc}, insn.Instruction{Code: 0x95})
}

// some adds n instructions.
func (b *builder) some(n int) {
	for end := len(b.p.Insns) + n; len(b.p.Insns) < end; {
		b.plain(end - len(b.p.Insns))
	}
}

// plain adds an instruction or three that have no immediate to blind.
func (b *builder) plain(size int) {
	switch n := b.rnd.IntN(12); {
	case n == 0:
		b.add(move(tmp, acc))
		b.clean = false
	case n == 1:
		b.add(insn.Instruction{Code: 0x87, Dst: acc}) // neg
	case n == 2:
		b.add(insn.Instruction{Code: 0xdc, Dst: tmp, Imm: 64}) // to big endian
	case n == 3:
		b.add(insn.Instruction{Code: 0x67, Dst: tmp, Imm: 1 + b.rnd.Int32N(20)}) // shift
	case n == 4:
		b.add(insn.Instruction{Code: 0x77, Dst: tmp, Imm: 1 + b.rnd.Int32N(20)})
	case n == 5:
		b.add(insn.Instruction{Code: 0xaf, Dst: tmp, Src: acc})
		b.clean = false
	case n == 6 && size >= 3:
		// acc ^= acc >> n
		b.add(move(r0, acc), insn.Instruction{Code: 0x77, Dst: r0, Imm: 1 + b.rnd.Int32N(60)}, insn.Instruction{Code: 0xaf, Dst: acc, Src: r0})
	case !b.clean:
		b.add(load(tmp, fp, second))
		b.clean = true
	default:
		b.add(insn.Instruction{Code: []uint8{0x0f, 0x1f, 0xaf}[b.rnd.IntN(3)], Dst: acc, Src: tmp}) // add, sub, xor
	}
}

func (b *builder) imm() int32 { return b.rnd.Int32() | 1 }

// grown adds code with an immediate to blind, of at most size slots after it.
//
//revive:disable-next-line:cyclomatic a case for each kind of instruction
func (b *builder) grown(size int) {
	n := b.rnd.IntN(14)
	if n <= 2 || n == 6 {
		b.clean = true
	}
	switch {
	case n == 0 && size >= 8:
		b.add(insn.Instruction{Code: 0x18, Dst: tmp, Imm: b.imm()}, insn.Instruction{Imm: b.imm()})
	case n == 1 && size >= 4:
		b.add(insn.Instruction{Code: 0x7a, Dst: fp, Off: -24, Imm: b.imm()}, load(tmp, fp, -24))
	case n == 2 && size >= 8 && b.o.Maps:
		b.p.MapLoads = append(b.p.MapLoads, len(b.p.Insns))
		b.add(insn.Instruction{Code: 0x18, Dst: r1, Src: insn.PseudoMapValue}, insn.Instruction{Imm: 8 * b.rnd.Int32N(ValueSize/8)})
		b.add(load(tmp, r1, 0))
	case n <= 5 && size >= 10:
		b.branch()
	case n == 6:
		b.add(insn.Instruction{Code: 0xb4, Dst: tmp, Imm: b.imm()}) // 32 bits
	case n == 7:
		b.add(insn.Instruction{Code: 0x27, Dst: acc, Imm: b.imm()}) // odd
	case n == 8:
		b.add(insn.Instruction{Code: 0x17, Dst: tmp, Imm: b.imm()})
	case n <= 10:
		b.add(insn.Instruction{Code: 0xa7, Dst: acc, Imm: b.imm()})
	default:
		b.add(insn.Instruction{Code: 0x07, Dst: acc, Imm: b.imm()})
	}
}

// condition makes tmp a value that the verifier knows nothing of, nor of its
// relation to acc, and returns a comparison of it.
func (b *builder) condition(register bool) insn.Instruction {
	b.add(load(tmp, fp, second), insn.Instruction{Code: 0xaf, Dst: tmp, Src: acc})
	b.clean = false
	if register {
		code := []uint8{0x2d, 0x3d, 0x6d, 0xad, 0xbd, 0xcd, 0x5d, 0x4d}[b.rnd.IntN(8)]
		b.add(load(r5, fp, second))
		return insn.Instruction{Code: code, Dst: tmp, Src: r5}
	}
	switch b.rnd.IntN(7) {
	case 0:
		return insn.Instruction{Code: 0x65, Dst: tmp, Imm: b.rnd.Int32() - 1<<30} // signed >
	case 1:
		return insn.Instruction{Code: 0xc5, Dst: tmp, Imm: -b.rnd.Int32N(1 << 20)} // signed <
	case 2:
		return insn.Instruction{Code: 0x26, Dst: tmp, Imm: b.rnd.Int32()} // 32 bits, >
	case 3:
		return insn.Instruction{Code: 0xc6, Dst: tmp, Imm: b.rnd.Int32() - 1<<30}
	case 4:
		return insn.Instruction{Code: 0x55, Dst: tmp, Imm: b.imm()} // !=
	}
	return insn.Instruction{Code: 0x45, Dst: tmp, Imm: 1 << b.rnd.IntN(31)} // &
}

// branch jumps over a few instructions; 10 slots after blinding.
func (b *builder) branch() {
	in := b.condition(false)
	in.Off = 3
	b.add(in)
	b.some(3)
	b.clean = false
}

// span adds code that takes so many slots after blinding.
func (b *builder) span(size, grown int) {
	start := len(b.p.Insns)
	left, next, every := size, size, size+1
	if grown > 0 {
		every = size / (grown + 1)
		next = size - b.rnd.IntN(every)
	}
	for left > 0 {
		before := len(b.p.Insns)
		switch {
		case left >= 3 && left <= next:
			b.grown(left)
			next -= every
		case b.o.Rich > 0 && left >= 40 && b.rnd.IntN(b.o.Rich) == 0:
			b.rich()
		default:
			b.plain(left)
		}
		left -= b.width(before, len(b.p.Insns))
	}
	if got := b.width(start, len(b.p.Insns)); got != size {
		panic(fmt.Sprintf("randprog: the code takes %d slots and not %d", got, size))
	}
}

// long adds the long jump with what it spans.
func (b *builder) long() {
	need := blinding.MaxOffset + b.o.Delta
	b.some(b.rnd.IntN(30))
	switch b.o.Shape {
	case Loop, LoopX:
		b.loop(blinding.MaxOffset + 1 + b.o.Delta)
	case Goto:
		// The other way is through the code.
		in := b.condition(false)
		in.Off = 1
		b.add(in)
		b.forward(insn.Instruction{Code: insn.OpcodeJA}, need)
	case ForwardX:
		b.forward(b.condition(true), need)
	default:
		b.forward(b.condition(false), need)
	}
	b.some(b.rnd.IntN(30))
	b.some(b.o.Tail)
}

// other is a jump beside the long one, which ends a little later.
type other struct{ at, more int }

func (b *builder) forward(jump insn.Instruction, need int) {
	// Jumps that begin a little earlier, and end a little earlier or later.
	var others []other
	if b.o.Several && jump.Code != insn.OpcodeJA { // nothing may come between that and the way around it
		for range 1 + b.rnd.IntN(3) {
			in := b.condition(b.rnd.IntN(2) == 0)
			others = append(others, other{len(b.p.Insns), b.rnd.IntN(20)})
			b.add(in)
		}
		jump = b.condition(jump.Code&insn.SourceX != 0)
	}
	b.p.Jump = len(b.p.Insns)
	b.add(jump)
	early := b.rnd.IntN(100)
	b.span(need-early, b.o.Grown)
	for n, o := range others {
		if n%2 == 0 {
			b.aim(o.at)
		}
	}
	b.span(early, 0)
	b.aim(b.p.Jump)
	b.target = len(b.p.Insns)
	for n, o := range others {
		if n%2 == 1 {
			b.span(o.more, 0)
			b.aim(o.at)
		}
	}
}

// aim makes a jump lead to the end of the code so far.
func (b *builder) aim(at int) {
	off := len(b.p.Insns) - at - 1
	if off > blinding.MaxOffset {
		panic(fmt.Sprintf("randprog: an offset of %d; more has to grow", off))
	}
	b.p.Insns[at].Off = int16(off)
	b.clean = false
}

// loop adds code that runs twice. The jump back needs -need.
func (b *builder) loop(need int) {
	b.add(insn.Instruction{Code: 0xb7, Dst: count, Imm: 2})
	b.target = len(b.p.Insns)
	b.clean = false
	decrement := insn.Instruction{Code: 0x07, Dst: count, Imm: -1}
	jump := insn.Instruction{Code: 0x55, Dst: count}
	tail := []insn.Instruction{decrement}
	if b.o.Shape == LoopX {
		jump = insn.Instruction{Code: 0x5d, Dst: count, Src: r5}
		tail = append(tail, insn.Instruction{Code: 0xb7, Dst: r5})
	}
	tail = append(tail, jump)
	size := 0
	for i := range tail {
		size += blinding.Width(tail, i, blinding.Kernel{})
	}
	b.span(need-size, b.o.Grown)
	b.add(tail...)
	b.p.Jump = len(b.p.Insns) - 1
	b.p.Insns[b.p.Jump].Off = int16(b.target - b.p.Jump - 1)
}

// rich adds something that the verifier rewrites, less than 40 slots after
// blinding.
func (b *builder) rich() {
	n := b.rnd.IntN(7)
	if b.sub && (n < 3) {
		n = 3 // no context there
	}
	switch n {
	case 0:
		b.add(insn.Instruction{Code: 0x61, Dst: tmp, Src: ctx, Off: []int16{0, 4, 8, 16, 32, 40}[b.rnd.IntN(6)]})
		b.add(insn.Instruction{Code: 0xaf, Dst: acc, Src: tmp})
		b.clean = true
	case 1:
		if b.o.Sub {
			b.plain(3) // old kernels want no packet access beside calls
			return
		}
		b.add(insn.Instruction{Code: 0x28, Imm: b.rnd.Int32N(60)}, insn.Instruction{Code: 0x0f, Dst: acc, Src: r0})
	case 2:
		b.add(insn.Instruction{Code: 0x63, Dst: ctx, Src: acc, Off: 48 + 4*int16(b.rnd.IntN(4))}) // cb
	case 3:
		b.condition(false)
		b.add(load(r0, fp, second), insn.Instruction{Code: 0x3f, Dst: r0, Src: tmp}) // divide
		b.add(insn.Instruction{Code: 0x0f, Dst: acc, Src: r0})
	case 4:
		b.condition(false)
		b.add(insn.Instruction{Code: 0x9c, Dst: tmp, Src: acc}) // modulo, 32 bits
		b.add(move(r0, tmp), insn.Instruction{Code: 0x67, Dst: r0, Imm: 40}, insn.Instruction{Code: 0x0f, Dst: acc, Src: r0})
	case 5:
		b.add(insn.Instruction{Code: 0x85, Imm: []int32{5, 8, 118}[b.rnd.IntN(3)]}) // ktime, processor, jiffies
	case 6:
		// Dead: the verifier knows the outcome.
		b.add(insn.Instruction{Code: 0xb7, Dst: r0}, insn.Instruction{Code: 0x55, Dst: r0, Off: 1})
		b.add(insn.Instruction{Code: 0x05, Off: 3})
		b.some(3)
		b.clean = false
	}
}
