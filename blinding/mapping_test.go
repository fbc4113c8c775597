// SPDX-License-Identifier: Apache-2.0

package blinding

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/go-quicktest/qt"
)

// rewriteLike does to a program what the verifier does, and returns for each
// slot of the result the slot that it comes from. Of a thousand instructions
// about edits are rewritten; dead ranges disappear.
func rewriteLike(rnd *rand.Rand, prog []insn.Instruction, edits int, dead [][2]int) (out []insn.Instruction, origin []int) {
	isDead := func(i int) bool {
		return slices.ContainsFunc(dead, func(d [2]int) bool { return d[0] <= i && i < d[1] })
	}
	start := make([]int, len(prog)+1) // where each slot's replacement begins
	jumps := make(map[int]int)        // slot of out -> submitted target
	emit := func(i int, in insn.Instruction) {
		out = append(out, in)
		origin = append(origin, i)
	}
	for i, in := range prog {
		start[i] = len(out)
		if isDead(i) {
			continue
		}
		rewrite := rnd.IntN(1000) < edits
		switch {
		case in.IsWide() && in.Src != 0:
			in.Src, in.Imm = 0, rnd.Int32() // the map's address
			emit(i, in)
		case insn.IsSecondHalf(prog, i):
			in.Imm = rnd.Int32()
			emit(i, in)
		case in.IsHelperCall() && rewrite: // an inlined lookup
			emit(i, insn.Instruction{Code: 0x07, Dst: 1, Imm: 272})
			emit(i, insn.Instruction{Code: 0x61, Dst: 0, Src: 2})
			emit(i, insn.Instruction{Code: 0x35, Dst: 0, Off: 3, Imm: 4})
			emit(i, insn.Instruction{Code: 0x67, Dst: 0, Imm: 3})
			emit(i, insn.Instruction{Code: 0x0f, Dst: 0, Src: 1})
			emit(i, insn.Instruction{Code: 0x05, Off: 1})
			emit(i, insn.Instruction{Code: 0xb7})
		case in.IsHelperCall():
			in.Imm = rnd.Int32N(1 << 20) // the address
			emit(i, in)
		case in.Class() == insn.ClassLDX && rewrite: // a field of the context
			in.Off = int16(rnd.IntN(256))
			in.Code = in.Code&^0x18 | insn.SizeDW
			emit(i, in)
			for range rnd.IntN(3) {
				emit(i, insn.Instruction{Code: 0x69, Dst: in.Dst, Src: in.Dst, Off: int16(rnd.IntN(256))})
			}
		case in.IsALU() && rewrite && in.Op() == insn.OpDIV: // a guard in front
			emit(i, insn.Instruction{Code: 0x56, Dst: in.Src, Off: 2})
			emit(i, insn.Instruction{Code: 0xac, Dst: in.Dst, Src: in.Dst})
			emit(i, insn.Instruction{Code: 0x05, Off: 1})
			emit(i, in)
		default:
			if t, ok := in.Target(i); ok {
				if in.Code == insn.OpcodeJA && !isDead(t) && slices.IndexFunc(prog[i+1:max(t, i+1)], func(insn.Instruction) bool { return true }) < 0 {
					continue // a jump to the next instruction
				}
				jumps[len(out)] = t
			}
			emit(i, in)
		}
	}
	start[len(prog)] = len(out)
	for at, t := range jumps {
		out[at].Off = int16(start[t] - at - 1)
	}
	return out, origin
}

// realistic is code with the variety of a compiled program. With period it
// repeats itself, as an unrolled loop does.
func realistic(rnd *rand.Rand, n, period int) []insn.Instruction {
	prog := make([]insn.Instruction, 0, n)
	for len(prog) < n {
		i := len(prog)
		if period > 0 && i >= 2*period && i%period != 0 {
			in := prog[i-period]
			if t, ok := in.Target(i - period); ok && t+period >= n {
				in = insn.Instruction{Code: 0xbf}
			}
			prog = append(prog, in)
			continue
		}
		reg := func() uint8 { return uint8(rnd.IntN(10)) }
		off := int16(rnd.IntN(64) * 4)
		switch rnd.IntN(10) {
		case 0, 1:
			prog = append(prog, insn.Instruction{Code: 0xbf, Dst: reg(), Src: reg()})
		case 2:
			prog = append(prog, insn.Instruction{Code: 0x07, Dst: reg(), Imm: rnd.Int32N(256)})
		case 3, 4:
			prog = append(prog, insn.Instruction{Code: 0x61, Dst: reg(), Src: reg(), Off: off})
		case 5:
			prog = append(prog, insn.Instruction{Code: 0x7b, Dst: 10, Src: reg(), Off: -off})
		case 6:
			prog = append(prog, insn.Instruction{Code: 0x85, Imm: rnd.Int32N(200)})
		case 7:
			prog = append(prog, insn.Instruction{Code: 0x3f, Dst: reg(), Src: reg()})
		case 8:
			if i+2 <= n {
				prog = append(prog, insn.Instruction{Code: 0x18, Dst: reg(), Src: 1, Imm: 3}, insn.Instruction{})
			}
		default:
			far := min(n-i-1, 1+rnd.IntN(400))
			prog = append(prog, insn.Instruction{Code: 0x15, Dst: reg(), Imm: rnd.Int32N(64), Off: int16(rnd.IntN(far+1) - 0)})
			if int(prog[i].Off)+i+1 >= n {
				prog[i].Off = 0
			}
		}
	}
	prog = prog[:n]
	prog[n-1] = insn.Instruction{Code: 0x95}
	if prog[n-2].IsWide() {
		prog[n-2] = insn.Instruction{Code: 0xb7}
	}
	return prog
}

func TestMapping(t *testing.T) {
	for _, tt := range []struct {
		name         string
		size, period int
		edits        int // per thousand
		dead         [][2]int
		exactAtLeast float64 // of the slots
		wrongAtMost  int     // among those called exact
	}{
		{"unchanged", 2000, 0, 0, nil, 1, 0},
		{"rewritten here and there", 5000, 0, 30, nil, 0.9, 0},
		{"rewritten a lot", 5000, 0, 300, nil, 0.6, 0},
		{"dead code", 5000, 0, 30, [][2]int{{1000, 1500}, {3000, 3010}}, 0.9, 0},
		{"unrolled", 5000, 40, 30, nil, 0.8, 0},
		{"unrolled with dead code", 5000, 40, 30, [][2]int{{2000, 2400}}, 0.3, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			exact, wrong, near, total := 0, 0, 0, 0
			for seed := range uint64(8) {
				rnd := rand.New(rand.NewPCG(seed, 9))
				prog := realistic(rnd, tt.size, tt.period)
				out, origin := rewriteLike(rnd, prog, tt.edits, tt.dead)
				m := NewMapping(prog, out)
				for i, want := range origin {
					j, sure := m.Submitted(i)
					total++
					if sure {
						exact++
						if j != want {
							wrong++
						}
					}
					if j-want <= 3 && want-j <= 3 {
						near++
					}
				}
			}
			t.Logf("%.2f exact, %d of those wrong, %.3f within three slots", float64(exact)/float64(total), wrong, float64(near)/float64(total))
			qt.Check(t, qt.IsTrue(float64(exact) >= tt.exactAtLeast*float64(total)))
			qt.Check(t, qt.IsTrue(wrong <= tt.wrongAtMost))
		})
	}
}

// A real program: testdata/unrolled.c as clang 14 compiled it, and as kernel
// 6.18 had it after verification, with eight rounds of a loop that look alike.
func TestMappingOfVerifiedProgram(t *testing.T) {
	submitted := readProgram(t, "testdata/unrolled.submitted")
	translated := readProgram(t, "testdata/unrolled.translated")
	m := NewMapping(submitted, translated)
	found := make(map[int]int)
	for i, in := range translated {
		j, exact := m.Submitted(i)
		if !exact || !in.IsJump16() {
			continue
		}
		found[j]++
		qt.Check(t, qt.Equals(in.Op(), submitted[j].Op()))
	}
	for j, in := range submitted {
		if !in.IsJump16() {
			continue
		}
		// The tests of the constant "dead" are gone: r1 = *(u32 *)(r1 +0) and
		// then if r1 == 0. All other jumps are there once.
		want := 1
		if submitted[j-1].Code == 0x61 && submitted[j-1].Off == 0 && in.Code == 0x15 && in.Dst == 1 {
			want = 0
		}
		qt.Check(t, qt.Equals(found[j], want), qt.Commentf("%d: %v", j, in))
	}
	qt.Check(t, qt.HasLen(found, 32))
}

func readProgram(t *testing.T, name string) []insn.Instruction {
	t.Helper()
	b, err := os.ReadFile(name)
	qt.Assert(t, qt.IsNil(err))
	prog, err := insn.Decode(b)
	qt.Assert(t, qt.IsNil(err))
	return prog
}

func TestMapIndexByHand(t *testing.T) {
	submitted := []insn.Instruction{
		{Code: 0x61, Dst: 2, Src: 1},         // 0: r2 = skb->len
		{Code: 0x15, Dst: 2, Off: 3, Imm: 5}, // 1: if r2 == 5 goto 5
		{Code: 0x18, Dst: 1, Src: 1, Imm: 3}, // 2: map
		{},                                   // 3
		{Code: 0x85, Imm: 1},                 // 4: call
		{Code: 0xb7},                         // 5
		{Code: 0x95},                         // 6
	}
	translated := []insn.Instruction{
		{Code: 0x79, Dst: 2, Src: 1, Off: 112}, // 0: rewritten
		{Code: 0x61, Dst: 2, Src: 2, Off: 8},   // 1
		{Code: 0x15, Dst: 2, Off: 3, Imm: 5},   // 2
		{Code: 0x18, Dst: 1, Imm: 0x1000},      // 3
		{Imm: -1},                              // 4
		{Code: 0x85, Imm: 123456},              // 5
		{Code: 0xb7},                           // 6
		{Code: 0x95},                           // 7
	}
	for i, want := range []int{0, 0, 1, 2, 3, 4, 5, 6} {
		j, exact := MapIndex(submitted, translated, i)
		qt.Check(t, qt.Equals(j, want))
		qt.Check(t, qt.Equals(exact, i >= 2), qt.Commentf("%d", i))
	}
	for _, i := range []int{-1, 8} {
		j, exact := MapIndex(submitted, translated, i)
		qt.Check(t, qt.Equals(j, -1))
		qt.Check(t, qt.IsFalse(exact))
	}

	// Of two equal instructions one is gone: nobody can say which.
	move := insn.Instruction{Code: 0xbf, Dst: 2, Src: 1}
	_, exact := MapIndex([]insn.Instruction{move, move, {Code: 0x95}}, []insn.Instruction{move, {Code: 0x95}}, 0)
	qt.Check(t, qt.IsFalse(exact))

	// Nothing in common.
	j, exact := MapIndex([]insn.Instruction{{Code: 0x95}}, []insn.Instruction{move, move}, 1)
	qt.Check(t, qt.Equals(j, 0))
	qt.Check(t, qt.IsFalse(exact))
	j, _ = MapIndex(nil, []insn.Instruction{move}, 0)
	qt.Check(t, qt.Equals(j, -1))
}

// The worst that an adversary can hand in must not take long.
func TestMappingIsBounded(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 4))
	same := repeat(30_000, move)
	noise := func(n, kinds int) []insn.Instruction {
		prog := make([]insn.Instruction, n)
		for i := range prog {
			prog[i] = insn.Instruction{Code: 0xb7, Imm: rnd.Int32N(int32(kinds))}
		}
		return prog
	}
	big := realistic(rnd, 30_000, 0)
	rewritten, _ := rewriteLike(rnd, big, 33, nil)
	sparse := repeat(30_000, move)
	edited := slices.Clone(sparse)
	for i := 0; i < len(edited); i += 30 {
		edited[i] = load
	}
	for _, tt := range []struct {
		name string
		a, b []insn.Instruction
	}{
		{"30,000 with 1,000 edits", big, rewritten},
		{"one instruction, 1,000 edits", sparse, edited},
		{"one instruction, half of them gone", same, same[:15_000]},
		{"noise of two kinds", noise(30_000, 2), noise(30_000, 2)},
		{"noise of many kinds", noise(30_000, 1<<30), noise(30_000, 1<<30)},
		{"300,000", repeat(300_000, move), noise(300_000, 3)},
	} {
		start := time.Now()
		m := NewMapping(tt.a, tt.b)
		m.Submitted(len(tt.b) / 2)
		took := time.Since(start)
		t.Logf("%s: %v", tt.name, took.Round(time.Millisecond))
		// A fraction of a second per 30,000 instructions, and room for a busy
		// machine.
		qt.Check(t, qt.IsTrue(took < 20*time.Second), qt.Commentf("%s", tt.name))
	}
}
