// SPDX-License-Identifier: Apache-2.0

package rewrite_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/rewrite"
	"github.com/go-quicktest/qt"
)

var (
	move  = insn.Instruction{Code: 0xbf, Dst: 2, Src: 1} // one slot after blinding
	load  = insn.Instruction{Code: 0xb7, Dst: 3, Imm: 7} // three
	exit  = insn.Instruction{Code: 0x95}
	small = rewrite.Options{Limit: 20}
)

func code(parts ...[]insn.Instruction) []insn.Instruction { return slices.Concat(parts...) }

func one(in ...insn.Instruction) []insn.Instruction { return in }

func times(n int, in insn.Instruction) []insn.Instruction {
	return slices.Repeat([]insn.Instruction{in}, n)
}

func jeq(off int) insn.Instruction {
	return insn.Instruction{Code: 0x15, Dst: 1, Off: int16(off), Imm: 1}
}
func goTo(off int) insn.Instruction { return insn.Instruction{Code: 0x05, Off: int16(off)} }

func TestRewriteByHand(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prog    []insn.Instruction
		options rewrite.Options
		want    []insn.Instruction
	}{
		{
			name: "in reach", options: small,
			prog: code(one(jeq(20)), times(20, move), one(exit)),
			want: code(one(jeq(20)), times(20, move), one(exit)),
		},
		{
			// 13 is two thirds of the limit. The code is led around the island.
			name: "forward by one", options: small,
			prog: code(one(jeq(21)), times(21, move), one(exit)),
			want: code(one(jeq(11)), times(10, move), one(goTo(1), goTo(11)), times(11, move), one(exit)),
		},
		{
			// Nothing falls into a gap behind a goto.
			name: "a quiet gap", options: small,
			prog: code(one(jeq(21)), times(8, move), one(goTo(0)), times(12, move), one(exit)),
			want: code(one(jeq(9)), times(8, move), one(goTo(1), goTo(12)), times(12, move), one(exit)),
		},
		{
			// The three slots of the jump itself count.
			name: "backward", options: small,
			prog: code(times(18, move), one(jeq(-19), exit)),
			want: code(times(13, move), one(goTo(1), goTo(-15)), times(5, move), one(jeq(-7), exit)),
		},
		{
			name: "gotol island", options: rewrite.Options{Limit: 20, Gotol: true},
			prog: code(one(jeq(21)), times(21, move), one(exit)),
			want: code(one(jeq(11)), times(10, move), one(goTo(1), insn.Instruction{Code: 0x06, Imm: 11}), times(11, move), one(exit)),
		},
		{
			name: "gotol in place", options: rewrite.Options{Limit: 20, Gotol: true},
			prog: code(one(goTo(21)), times(21, move), one(exit)),
			want: code(one(insn.Instruction{Code: 0x06, Imm: 21}), times(21, move), one(exit)),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := rewrite.Rewrite(tt.prog, tt.options)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.DeepEquals(r.Program, tt.want))
			qt.Assert(t, qt.Equals(r.Changed(), !slices.Equal(tt.prog, tt.want)))
			qt.Assert(t, qt.Equals(r.Added, len(tt.want)-len(tt.prog)))
		})
	}
}

// 900,000 instructions with 20,000 jumps.
func large(rnd *rand.Rand) []insn.Instruction {
	prog := times(900_000, move)
	for i := range 20_000 {
		at := i * 44
		off := rnd.IntN(65_536) - 32_768
		if at+1+off < 0 || at+1+off >= len(prog) {
			off = 0
		}
		prog[at] = jeq(off)
	}
	for i := 7; i < len(prog); i += 11 {
		if prog[i] == move {
			prog[i] = load
		}
	}
	prog[len(prog)-1] = exit
	return prog
}

func TestLarge(t *testing.T) {
	prog := large(rand.New(rand.NewPCG(1, 1)))
	r, err := rewrite.Rewrite(prog, rewrite.Options{})
	qt.Assert(t, qt.IsNil(err))
	t.Logf("%d jumps, %d islands, %d slots added", len(r.Detours), r.Islands, r.Added)
	qt.Assert(t, qt.IsTrue(r.After.Fits))
	qt.Assert(t, qt.IsTrue(len(r.Detours) > 2000))
	qt.Assert(t, qt.Equals(r.After.Margin >= blinding.MaxOffset-rewrite.DefaultLimit, true))
}

func BenchmarkLarge(b *testing.B) {
	prog := large(rand.New(rand.NewPCG(1, 1)))
	for b.Loop() {
		if _, err := rewrite.Rewrite(prog, rewrite.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
