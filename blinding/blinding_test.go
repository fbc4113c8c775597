// SPDX-License-Identifier: Apache-2.0

package blinding

import (
	"slices"
	"testing"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/go-quicktest/qt"
)

func TestWidth(t *testing.T) {
	arena := Kernel{StoreProbeMem32: true}
	for _, tt := range []struct {
		name string
		in   insn.Instruction
		k    Kernel
		want int
	}{
		{"add imm", insn.Instruction{Code: 0x07}, Kernel{}, 3},
		{"add reg", insn.Instruction{Code: 0x0f}, Kernel{}, 1},
		{"mov imm", insn.Instruction{Code: 0xb7, Imm: 1}, Kernel{}, 3},
		{"mov imm 0, 64 bit", insn.Instruction{Code: 0xb7}, Kernel{}, 1},
		{"mov imm 0, 32 bit", insn.Instruction{Code: 0xb4}, Kernel{}, 1},
		{"add 0 is no mov", insn.Instruction{Code: 0x04}, Kernel{}, 3},
		{"shift", insn.Instruction{Code: 0x67, Imm: 3}, Kernel{}, 1},
		{"signed shift", insn.Instruction{Code: 0xc7, Imm: 3}, Kernel{}, 1},
		{"negate", insn.Instruction{Code: 0x87}, Kernel{}, 1},
		{"byte swap", insn.Instruction{Code: 0xd4, Imm: 16}, Kernel{}, 1},
		{"jump imm", insn.Instruction{Code: 0x15}, Kernel{}, 3},
		{"jump32 imm", insn.Instruction{Code: 0xc6}, Kernel{}, 3},
		{"jump reg", insn.Instruction{Code: 0x1d}, Kernel{}, 1},
		{"ja", insn.Instruction{Code: 0x05}, Kernel{}, 1},
		{"gotol", insn.Instruction{Code: 0x06, Imm: 9}, Kernel{}, 1},
		{"may_goto", insn.Instruction{Code: 0xe5}, Kernel{}, 1},
		{"call", insn.Instruction{Code: 0x85, Imm: 1}, Kernel{}, 1},
		{"exit", insn.Instruction{Code: 0x95}, Kernel{}, 1},
		{"store imm", insn.Instruction{Code: 0x7a}, Kernel{}, 3},
		{"arena store imm", insn.Instruction{Code: 0xba}, Kernel{}, 1},
		{"arena store imm, 7.2", insn.Instruction{Code: 0xba}, arena, 3},
		{"add imm to the scratch register", insn.Instruction{Code: 0x07, Dst: 11}, Kernel{}, 1},
		{"add imm to the scratch register, 7.2", insn.Instruction{Code: 0x07, Dst: 12}, sevenTwo, 1},
		{"store imm to the stack of arguments, 7.2", insn.Instruction{Code: 0x7a, Dst: 11}, sevenTwo, 3},
		{"nospec", insn.Instruction{Code: 0xc2}, Kernel{}, 1},
		{"store reg", insn.Instruction{Code: 0x7b}, Kernel{}, 1},
		{"load", insn.Instruction{Code: 0x79}, Kernel{}, 1},
		{"load from packet", insn.Instruction{Code: 0x28, Imm: 12}, Kernel{}, 1},
		{"scratch register", insn.Instruction{Code: 0x07, Dst: 11}, Kernel{}, 1},
	} {
		prog := []insn.Instruction{tt.in}
		qt.Check(t, qt.Equals(Width(prog, 0, tt.k), tt.want), qt.Commentf("%s", tt.name))
	}

	wide := []insn.Instruction{{Code: 0x18}, {}}
	qt.Check(t, qt.Equals(Width(wide, 0, Kernel{})+Width(wide, 1, Kernel{}), 7))
	zext := Kernel{ZeroExtends: true}
	qt.Check(t, qt.Equals(Width(wide, 0, zext)+Width(wide, 1, zext), 8))
	wide[0].Src = insn.PseudoMapFD
	qt.Check(t, qt.Equals(Width(wide, 0, Kernel{})+Width(wide, 1, Kernel{}), 7))
	wide[0].Src = insn.PseudoFunc
	qt.Check(t, qt.Equals(Width(wide, 0, Kernel{})+Width(wide, 1, Kernel{}), 2))
	qt.Check(t, qt.Equals(Width(wide, 2, Kernel{}), 0))
	qt.Check(t, qt.Equals(Width(wide, -1, Kernel{}), 0))
}

// repeat makes n slots of one instruction.
func repeat(n int, in insn.Instruction) []insn.Instruction {
	return slices.Repeat([]insn.Instruction{in}, n)
}

var (
	move = insn.Instruction{Code: 0xbf, Dst: 2, Src: 1}
	load = insn.Instruction{Code: 0xb7, Dst: 3, Imm: 7} // grows by two
	exit = []insn.Instruction{{Code: 0xaf}, {Code: 0x95}}
)

// over is a forward jump over a body.
func over(body []insn.Instruction) []insn.Instruction {
	jump := insn.Instruction{Code: 0x1d, Dst: 1, Src: 2, Off: int16(len(body))}
	return slices.Concat([]insn.Instruction{jump}, body, exit)
}

func TestCheckForward(t *testing.T) {
	// 10,000 slots that grow to 30,000 and 2,767 that stay: just enough.
	prog := over(append(repeat(2767, move), repeat(10_000, load)...))
	v, err := Check(prog, Kernel{})
	qt.Assert(t, qt.IsNil(err))
	jump := Jump{From: 0, To: 12_768, Need: 32_767, Limit: 32_767, Forward: true}
	qt.Assert(t, qt.DeepEquals(v, Verdict{
		Fits: true, FailIndex: -1, FailOff: -1, Jump: jump,
		Function: insn.Function{Start: 0, End: 12_770},
		Before:   12_770, After: 32_770, Margin: 0, Worst: []Jump{jump},
		// 10,000 replacements in a program that grows by two each time; the last
		// two are tried first.
		Work: 10_000*12_770 + 2*10_000*9_999/2 + 32_766 + 32_768,
	}))

	// One more that stays: the last of those that grow is one too many. It is
	// slot 12,768, behind 9,999 others that have grown already.
	prog = over(append(repeat(2768, move), repeat(10_000, load)...))
	v, err = Check(prog, Kernel{})
	qt.Assert(t, qt.IsNil(err))
	jump = Jump{From: 0, To: 12_769, Need: 32_768, Limit: 32_767, Forward: true}
	qt.Assert(t, qt.DeepEquals(v, Verdict{
		Failure: Patch, FailIndex: 12_768, FailOff: 12_768 + 2*9_999, Jump: jump,
		Function: insn.Function{Start: 0, End: 12_771},
		Before:   12_771, After: 32_771, Margin: -1, TooFar: 1, Worst: []Jump{jump},
		Work: 10_000*12_771 + 2*10_000*9_999/2 + 32_767 + 32_769,
	}))
}

func TestCheckBackward(t *testing.T) {
	back := func(body []insn.Instruction, code uint8) []insn.Instruction {
		jump := insn.Instruction{Code: code, Dst: 1, Src: 2, Off: int16(-len(body) - 1)}
		return slices.Concat(body, []insn.Instruction{jump}, exit)
	}
	for _, tt := range []struct {
		name    string
		moves   int
		code    uint8
		k       Kernel
		need    int
		failure Failure
		index   int
		off     int
	}{
		{"register form fits", 2767, 0x1d, Kernel{}, -32_768, None, -1, -1},
		{"register form fails", 2768, 0x1d, Kernel{}, -32_769, Patch, 12_767, 12_767 + 19_998},
		{"immediate needs two more", 2765, 0x15, Kernel{}, -32_768, None, -1, -1},
		{"and wraps", 2766, 0x15, Kernel{}, -32_769, Wrap, 12_766, -1},
		{"by two", 2767, 0x15, Kernel{}, -32_770, Wrap, 12_767, -1},
		{"or is refused", 2767, 0x15, Kernel{RangeCheck: true}, -32_770, RangeCheck, 12_767, -1},
		{"beyond the wrap", 2768, 0x15, Kernel{}, -32_771, Patch, 12_767, 12_767 + 19_998},
		{"beyond, with the check", 2768, 0x15, Kernel{RangeCheck: true}, -32_771, Patch, 12_767, 12_767 + 19_998},
	} {
		prog := back(append(repeat(tt.moves, move), repeat(10_000, load)...), tt.code)
		v, err := Check(prog, tt.k)
		qt.Assert(t, qt.IsNil(err))
		c := qt.Commentf("%s", tt.name)
		qt.Check(t, qt.Equals(v.Jump.Need, tt.need), c)
		qt.Check(t, qt.Equals(v.Failure, tt.failure), c)
		qt.Check(t, qt.Equals(v.Wraps, tt.failure == Wrap), c)
		qt.Check(t, qt.Equals(v.Fits, tt.failure == None), c)
		qt.Check(t, qt.Equals(v.FailIndex, tt.index), c)
		qt.Check(t, qt.Equals(v.FailOff, tt.off), c)
		qt.Check(t, qt.Equals(v.Margin, tt.need+32_768), c)
	}

	// A wrapped jump that spans another replacement behind it stops the pass
	// after all: it now needs two more than 32,767.
	prog := back(append(repeat(2766, move), repeat(10_000, load)...), 0x15)
	prog = append(prog, load)
	v, err := Check(prog, Kernel{})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(v.Failure, Patch))
	qt.Check(t, qt.Equals(v.FailIndex, 12_769))
	qt.Check(t, qt.Equals(v.FailOff, 12_769+20_002))
}

func TestCheckCountsFromTheFunction(t *testing.T) {
	// main: r1 = 7; call +1; exit. Then the function that fails.
	head := []insn.Instruction{load, {Code: 0x85, Src: insn.PseudoCall, Imm: 1}, {Code: 0x95}}
	prog := append(slices.Clone(head), over(repeat(20_000, load))...)
	// 32,767 are needed after (32,767-20,000)/2 replacements, rounded down;
	// the next one fails.
	const fits = 6383
	index := 3 + 1 + fits
	for _, tt := range []struct {
		k   Kernel
		off int
	}{
		{Kernel{}, 1 + fits + 2*fits},
		{Kernel{WholeProgram: true}, 3 + 1 + fits + 2*(fits+1)},
	} {
		v, err := Check(prog, tt.k)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(v.FailIndex, index))
		qt.Check(t, qt.Equals(v.FailOff, tt.off))
		qt.Check(t, qt.Equals(v.Function, insn.Function{Start: 3, End: len(prog)}))
	}
}

func TestCheckMalformed(t *testing.T) {
	for _, tt := range []struct {
		prog []insn.Instruction
		want string
	}{
		{[]insn.Instruction{{Code: 0x05, Off: 1}, {Code: 0x95}}, `check blinding: the jump at slot 0 goes to 2, outside its function 0\.\.1`},
		{[]insn.Instruction{{Code: 0x15, Off: -2}, {Code: 0x95}}, `check blinding: the jump at slot 0 goes to -1, outside.*`},
		{[]insn.Instruction{{Code: 0x95}, {Code: 0x18}}, `check blinding: slot 1 is half of a 64-bit load`},
		{[]insn.Instruction{{Code: 0x18}, {Code: 0x95}}, `check blinding: slot 0 is half of a 64-bit load`},
		{[]insn.Instruction{{Code: 0x85, Src: 1, Imm: 1}, {Code: 0x18}, {}, {Code: 0x95}}, `check blinding: function 2..3 starts inside a 64-bit load`},
	} {
		_, err := Check(tt.prog, Kernel{})
		qt.Check(t, qt.ErrorMatches(err, tt.want))
	}
	v, err := Check(nil, Kernel{})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(v.Fits))
	qt.Check(t, qt.Equals(v.Margin, MaxOffset))
}

// sevenTwo is how 7.2.10 blinds.
var sevenTwo = Kernel{WholeProgram: true, RangeCheck: true, StoreProbeMem32: true, Scratch: 12}

// TestAnyKernel: no instruction of a program, whose registers are below 12, grows more on a
// release.
func TestAnyKernel(t *testing.T) {
	qt.Check(t, qt.IsFalse(AnyKernel().RangeCheck))
	for _, k := range []Kernel{{}, {WholeProgram: true}, sevenTwo} {
		for code := range 256 {
			for reg := range uint8(12) {
				prog := []insn.Instruction{{Code: uint8(code), Dst: reg, Imm: 1}}
				if most, n := Width(prog, 0, AnyKernel()), Width(prog, 0, k); n > most {
					t.Errorf("%+v: code %#x of r%d: %d, not more than %d", k, code, reg, n, most)
				}
			}
		}
	}
}

// A program of the largest size that the kernel takes, a third of it jumps.
func BenchmarkCheckMillion(b *testing.B) {
	prog := make([]insn.Instruction, 0, 1_000_000)
	for len(prog) < 999_990 {
		prog = append(prog, move, load, insn.Instruction{Code: 0x15, Dst: 1, Off: 9, Imm: 1})
	}
	for len(prog) < 1_000_000 {
		prog = append(prog, insn.Instruction{Code: 0x95})
	}
	for b.Loop() {
		if _, err := Check(prog, Kernel{}); err != nil {
			b.Fatal(err)
		}
	}
}
