// SPDX-License-Identifier: Apache-2.0

package blinding

import (
	"slices"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/go-quicktest/qt"
)

var ret = insn.Instruction{Code: 0x95}

func TestGrowthByHand(t *testing.T) {
	ctx := func(dst, src uint8) insn.Instruction { return insn.Instruction{Code: 0x61, Dst: dst, Src: src} }
	mov := func(dst, src uint8) insn.Instruction { return insn.Instruction{Code: 0xbf, Dst: dst, Src: src} }
	spill := insn.Instruction{Code: 0x7b, Dst: 10, Src: 1, Off: -16}
	reload := func(off int16) insn.Instruction { return insn.Instruction{Code: 0x79, Dst: 3, Src: 10, Off: off} }
	for _, tt := range []struct {
		name  string
		prog  []insn.Instruction
		grows []int // slots, apart from the first
	}{
		{"moved about", []insn.Instruction{mov(6, 1), ctx(2, 6), ctx(2, 2), ctx(3, 1), ret}, []int{1, 3}},
		{"lost in a call", []insn.Instruction{mov(6, 1), {Code: 0x85, Imm: 5}, ctx(2, 1), ctx(2, 6), ret}, []int{1, 3}},
		{"spilled", []insn.Instruction{spill, reload(-16), ctx(2, 3), reload(-24), ctx(2, 3), ret}, []int{2}},
		{"spilled over", []insn.Instruction{spill, {Code: 0x7b, Dst: 10, Src: 2, Off: -16}, reload(-16), ctx(2, 3), ret}, nil},
		// R3 is the context on one of the two paths.
		{"joined", []insn.Instruction{mov(3, 2), {Code: 0x15, Dst: 2, Off: 1}, mov(3, 1), ctx(2, 3), ret}, []int{3}},
		{"around a loop", []insn.Instruction{mov(3, 2), ctx(2, 3), mov(3, 1), {Code: 0x15, Dst: 2, Off: -3}, ret}, []int{1}},
		{"the packet", []insn.Instruction{mov(6, 1), {Code: 0x28, Imm: 12}, {Code: 0x48, Src: 7}, ret}, []int{1, 2}},
		{"divisions", []insn.Instruction{mov(6, 1), {Code: 0x3f, Dst: 7, Src: 8}, {Code: 0x37, Dst: 7, Imm: 3}, {Code: 0x9f, Off: 1}, ret}, []int{1, 3}},
		{"a socket of the context", []insn.Instruction{mov(6, 1), {Code: 0x79, Dst: 2, Src: 1, Off: 168}, ctx(3, 2), ctx(3, 3), ret}, []int{1, 2}},
		{"handed to a function", []insn.Instruction{mov(2, 1), {Code: 0x85, Src: 1, Imm: 2}, ctx(7, 2), ret, ctx(7, 2), ret}, []int{4}},
		{"handed to no function", []insn.Instruction{mov(2, 3), {Code: 0x85, Src: 1, Imm: 1}, ret, ctx(7, 2), ret}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []int
			for i, n := range growthOf(tt.prog, insn.Functions(tt.prog), Kernel{}, Source{Type: "sched_cls"}) {
				if i > 0 && n > 0 {
					got = append(got, i)
				}
			}
			qt.Check(t, qt.DeepEquals(got, tt.grows))
		})
	}
	// A kprobe reads its registers as they are.
	prog := []insn.Instruction{mov(6, 1), ctx(2, 6), ret}
	qt.Check(t, qt.Equals(growthOf(prog, insn.Functions(prog), Kernel{}, Source{Type: "kprobe"})[1], 0))
	qt.Check(t, qt.Equals(growthOf(prog, insn.Functions(prog), Kernel{}, Source{})[1], maxContextGrowth))
}

func TestPredictByHand(t *testing.T) {
	socket := Source{Type: "socket_filter"}
	// A forward jump over n slots, some of which read the context.
	jump := func(n, reads int) []insn.Instruction {
		body := slices.Concat(repeat(reads, insn.Instruction{Code: 0x61, Dst: 2, Src: 6}), repeat(n-reads, move))
		return slices.Concat([]insn.Instruction{{Code: 0xbf, Dst: 6, Src: 1}, {Code: 0x15, Dst: 3, Off: int16(n), Imm: 1}}, body, []insn.Instruction{ret})
	}
	for _, tt := range []struct {
		name string
		prog []insn.Instruction
		want Fate
	}{
		{"far from it", jump(20_000, 100), Loads},
		{"close", jump(32_767-slack, 0), Loads},
		{"too close", jump(32_767-slack+1, 0), MayFail},
		{"some reads", jump(32_767-slack, 2), MayFail},
		{"room for the reads", jump(32_767-slack-2*maxContextGrowth, 2), Loads},
		{"too far", slices.Concat(jump(32_767, 0)[:100], []insn.Instruction{load}, jump(32_767, 0)[101:]), Fails},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Predict(tt.prog, insn.Functions(tt.prog), Kernel{}, socket)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(p.Fate, tt.want))
			qt.Check(t, qt.Equals(p.Worst.Before, len(tt.prog)+p.Growth))
			qt.Check(t, qt.IsFalse(p.MayWrap))
		})
	}
}

// Only a backward jump with an immediate wraps, and only around its limit.
func TestMayWrap(t *testing.T) {
	for _, tt := range []struct {
		need int
		code uint8
		want bool
	}{
		{-32_768 + slack, 0x15, false},
		{-32_768 + slack - 1, 0x15, true},
		{-32_768, 0x15, true},
		{-32_769, 0x15, true},
		{-32_770, 0x15, true},
		{-32_771, 0x15, false},
		{-32_769, 0x1d, false},
	} {
		width := Width([]insn.Instruction{{Code: tt.code, Imm: 1}}, 0, Kernel{})
		body := -tt.need - width
		grow := max(0, body-32_000)
		prog := slices.Concat(repeat(body-3*grow, move), repeat(grow, load))
		prog = append(prog, insn.Instruction{Code: tt.code, Dst: 3, Src: tt.code >> 3 & 1, Off: int16(-len(prog) - 1), Imm: 1}, ret)
		p, err := Predict(prog, insn.Functions(prog), Kernel{}, Source{Type: "kprobe"})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(p.Verdict.Worst[0].Need, tt.need))
		// The prologue counts as well, where the jump goes to slot 0.
		want := tt.want || tt.code == 0x15 && tt.need >= -32_770 && tt.need-growthPrologue-slack <= -32_769
		qt.Check(t, qt.Equals(p.MayWrap, want), qt.Commentf("%+v", tt))
		q, err := Predict(prog, insn.Functions(prog), Kernel{RangeCheck: true}, Source{Type: "kprobe"})
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsFalse(q.MayWrap))
	}
}

func TestTime(t *testing.T) {
	// All-immediate programs, measured on a host with 6.18.
	for _, tt := range []struct {
		insns int
		took  time.Duration
	}{
		{5_000, 71 * time.Millisecond},
		{10_000, 285 * time.Millisecond},
		{30_000, 4820 * time.Millisecond},
	} {
		prog := append(repeat(tt.insns-1, load), ret)
		v, err := Check(prog, Kernel{})
		qt.Assert(t, qt.IsNil(err))
		off := float64(v.Time()-tt.took) / float64(tt.took)
		t.Logf("%d: %v, measured %v (%+.0f%%)", tt.insns, v.Time().Round(time.Millisecond), tt.took, 100*off)
		qt.Check(t, qt.IsTrue(off > -0.25 && off < 0.25))
	}
}

func BenchmarkCheck30000(b *testing.B) {
	prog := slices.Concat(repeat(15_000, move), repeat(14_999, load), []insn.Instruction{ret})
	for i := 0; i < len(prog)-200; i += 10 {
		prog[i] = insn.Instruction{Code: 0x15, Dst: 3, Off: int16(i % 101), Imm: 1}
	}
	for b.Loop() {
		if _, err := Check(prog, Kernel{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPredict30000(b *testing.B) {
	prog := slices.Concat(repeat(15_000, move), repeat(14_999, load), []insn.Instruction{ret})
	for i := 0; i < len(prog)-200; i += 10 {
		prog[i] = insn.Instruction{Code: 0x15, Dst: 3, Off: int16(i % 101), Imm: 1}
		prog[i+1] = insn.Instruction{Code: 0x61, Dst: 3, Src: 1}
	}
	for b.Loop() {
		if _, err := Predict(prog, insn.Functions(prog), Kernel{}, Source{}); err != nil {
			b.Fatal(err)
		}
	}
}

func TestKernelOn(t *testing.T) {
	for machine, want := range map[string]bool{"": false, "x86_64": false, "aarch64": false, "riscv64": true, "s390x": true, "armv7l": true, "a new one": true} {
		qt.Check(t, qt.Equals(Kernel{}.On(machine).ZeroExtends, want), qt.Commentf("%s", machine))
	}
}
