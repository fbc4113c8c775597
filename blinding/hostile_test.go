// SPDX-License-Identifier: Apache-2.0

package blinding

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/test/cputime"
)

// As long as a program may be, of any instructions: it is judged in a moment. Others wait
// meanwhile.
func TestHostilePrograms(t *testing.T) {
	const slots = 1_000_000
	make := func(at func(i int) insn.Instruction) []insn.Instruction {
		prog := make([]insn.Instruction, slots)
		for i := range prog {
			prog[i] = at(i)
		}
		prog[slots-1] = insn.Instruction{Code: insn.OpcodeExit}
		return prog
	}
	rng := rand.New(rand.NewPCG(1, 1))
	spill := func(i int) insn.Instruction { // each turn of the loop takes the context to one more place on the stack
		switch i % 1000 {
		case 0:
			n := i / 1000 % 64
			return insn.Instruction{Code: 0x7b, Dst: insn.RegFP, Src: uint8(1 + n%5), Off: int16(-8 * (n + 1))}
		case 1:
			return insn.Instruction{Code: 0x79, Dst: uint8(1 + i/1000%5), Src: insn.RegFP, Off: int16(-8 * (i/1000%64 + 1))}
		}
		return insn.Instruction{Code: 0xb7, Dst: 9, Imm: 1}
	}
	for name, prog := range map[string][]insn.Instruction{
		"calls of functions": make(func(i int) insn.Instruction {
			return insn.Instruction{Code: insn.OpcodeCall, Src: insn.PseudoCall, Imm: int32(rng.IntN(slots) - i - 1)}
		}),
		"calls of nothing": make(func(i int) insn.Instruction {
			if i%2 == 0 {
				return insn.Instruction{Code: insn.OpcodeCall, Src: insn.PseudoCall, Imm: -1 << 31}
			}
			return insn.Instruction{Code: insn.OpcodeCall, Src: insn.PseudoCall, Imm: int32(rng.IntN(slots) - i - 1)}
		}),
		"back and back": make(func(i int) insn.Instruction {
			switch { // the first goes to the last, which goes to the one before it, and so on
			case i == 0:
				return insn.Instruction{Code: insn.OpcodeGotol, Imm: slots - 3}
			case i%2 == 0:
				return insn.Instruction{Code: insn.OpcodeGotol, Imm: -3}
			}
			return insn.Instruction{Code: insn.OpcodeGotol, Imm: -3}
		}),
		"long jumps": make(func(i int) insn.Instruction {
			if off := min(32767, slots-i-2); i%2 == 0 {
				return insn.Instruction{Code: 0x15, Imm: 7, Off: int16(off)}
			}
			return insn.Instruction{Code: 0x15, Imm: 7, Off: int16(max(-32768, -i-1))}
		}),
		"spills in a loop": append(make(spill)[:slots-2], insn.Instruction{Code: insn.OpcodeGotol, Imm: -slots + 1}, insn.Instruction{Code: insn.OpcodeExit}),
	} {
		t.Run(name, func(t *testing.T) {
			functions := insn.Functions(prog)
			var err error
			took := cputime.Of(func() { _, err = Predict(prog, functions, AnyKernel(), Source{}) })
			t.Logf("%d functions, %v: %v", len(functions), err, took)
			qt.Check(t, qt.IsTrue(took < 3*time.Second), qt.Commentf("%v", took))
		})
	}
}

// What flows where does not depend on the order of looking: the plain way, over and over until
// nothing changes, finds the same.
func TestContextFlows(t *testing.T) {
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(2, seed))
		prog := make([]insn.Instruction, 2+rng.IntN(30))
		for i := range prog {
			reg := func() uint8 { return uint8(rng.IntN(11)) }
			to := func() int { return rng.IntN(len(prog)) - i - 1 }
			switch rng.IntN(10) {
			case 0:
				prog[i] = insn.Instruction{Code: 0x55, Dst: reg(), Off: int16(to())}
			case 1:
				prog[i] = insn.Instruction{Code: insn.OpcodeGotol, Imm: int32(to())}
			case 2:
				prog[i] = insn.Instruction{Code: insn.OpcodeCall, Src: insn.PseudoCall, Imm: int32(to() * rng.IntN(3))}
			case 3:
				prog[i] = insn.Instruction{Code: insn.OpcodeCall, Imm: []int32{1, 84, 96}[rng.IntN(3)]}
			case 4:
				prog[i] = insn.Instruction{Code: 0x7b, Dst: []uint8{10, 10, 3}[rng.IntN(3)], Src: reg(), Off: int16(-8 * (1 + rng.IntN(4)))}
			case 5:
				prog[i] = insn.Instruction{Code: 0x79, Dst: reg(), Src: []uint8{10, 10, 3}[rng.IntN(3)], Off: int16(-8 * (1 + rng.IntN(4)))}
			case 6:
				prog[i] = insn.Instruction{Code: insn.OpcodeExit}
			case 7:
				prog[i] = insn.Instruction{Code: 0x0f, Dst: reg(), Src: reg()}
			default:
				prog[i] = insn.Instruction{Code: 0xbf, Dst: reg(), Src: reg()}
			}
		}
		functions := insn.Functions(prog)
		plain := &tracker{prog: prog, functions: functions, before: make([]regs, len(prog)), todo: make([]int32, len(prog)), queued: make([]bool, len(prog))}
		plain.flow(0, regs{r: 1 << 1})
		for changed := true; changed; {
			plain.next, plain.n = 0, 0
			clear(plain.queued)
			plain.given = regs{}
			for i := range prog {
				plain.step(i)
			}
			changed = plain.n > 0
		}
		qt.Assert(t, qt.IsTrue(slices.Equal(contextRegisters(prog, functions), plain.before)), qt.Commentf("seed %d: %v", seed, prog))
	}
}
