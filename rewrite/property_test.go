// SPDX-License-Identifier: Apache-2.0

package rewrite_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/rewrite"
	"github.com/go-quicktest/qt"
)

// structural makes a program that is well-formed and nothing more: functions,
// calls, 64-bit loads and jumps of every kind, everywhere.
func structural(rnd *rand.Rand, size, span int) ([]insn.Instruction, []insn.Function) {
	var functions []insn.Function
	var prog []insn.Instruction
	jumps := []uint8{0x05, 0x15, 0x1d, 0x56, 0xc6, 0x45, 0xe5, 0x06}
	jumpy, dense := rnd.IntN(30), rnd.IntN(100)
	for range 1 + rnd.IntN(3) {
		f := insn.Function{Start: len(prog), End: len(prog) + 2 + rnd.IntN(size)}
		for len(prog) < f.End {
			i := len(prog)
			switch {
			case rnd.IntN(100) < jumpy:
				low, high := max(f.Start, i+1-span), min(f.End-1, i+span)
				to := low + rnd.IntN(high-low+1)
				in := insn.Instruction{Code: jumps[rnd.IntN(len(jumps))], Off: int16(to - i - 1)}
				if in.Code == insn.OpcodeGotol {
					in.Off, in.Imm = 0, int32(in.Off)
				}
				prog = append(prog, in)
			case rnd.IntN(12) == 0 && i+2 <= f.End:
				prog = append(prog, insn.Instruction{Code: 0x18, Imm: rnd.Int32()}, insn.Instruction{Imm: rnd.Int32()})
			case rnd.IntN(20) == 0:
				prog = append(prog, exit)
			case rnd.IntN(100) < dense:
				prog = append(prog, load)
			default:
				prog = append(prog, move)
			}
		}
		functions = append(functions, f)
	}
	// Calls and function addresses, from anywhere to anywhere.
	for i, in := range prog {
		if in != move || rnd.IntN(40) > 0 {
			continue
		}
		f := functions[rnd.IntN(len(functions))]
		call := insn.Instruction{Code: 0x85, Src: 1, Imm: int32(f.Start - i - 1)}
		if inside, _ := insn.FunctionAt(functions, i); rnd.IntN(2) == 0 && inside.Contains(i+1) && prog[i+1] == move {
			prog[i+1] = insn.Instruction{}
			call = insn.Instruction{Code: 0x18, Src: insn.PseudoFunc, Imm: call.Imm}
		}
		prog[i] = call
	}
	return prog, functions
}

// same follows both programs instruction by instruction and says where they
// part. It knows nothing of how the result was made but Result.New.
func same(prog []insn.Instruction, functions []insn.Function, r *rewrite.Result) error {
	old := make(map[int]int, len(prog)) // slots of the result that come from the original
	for i := range prog {
		if i > 0 && r.New[i] <= r.New[i-1] {
			return fmt.Errorf("slot %d is out of order", i)
		}
		old[r.New[i]] = i
	}
	if r.New[len(prog)] != len(r.Program) {
		return fmt.Errorf("the end is at %d of %d", r.New[len(prog)], len(r.Program))
	}
	reached := make(map[int]bool)
	resolve := func(at int) (int, error) {
		for range len(r.Program) {
			if i, ok := old[at]; ok {
				return i, nil
			}
			if at < 0 || at >= len(r.Program) {
				break
			}
			reached[at] = true
			switch in := r.Program[at]; in.Code {
			case 0x05:
				at += 1 + int(in.Off)
			case 0x06:
				at += 1 + int(in.Imm)
			default:
				return 0, fmt.Errorf("slot %d was inserted and is no goto", at)
			}
		}
		return 0, fmt.Errorf("slot %d leads nowhere", at)
	}
	home := func(at int) int {
		for n, f := range r.Functions {
			if f.Contains(at) {
				return n
			}
		}
		return -1
	}
	for i, in := range prog {
		at := r.New[i]
		now := r.Program[at]
		if f, _ := insn.FunctionAt(functions, i); functions[home(at)] != f {
			return fmt.Errorf("slot %d moved to another function", i)
		}
		if i > 0 && insn.IsSecondHalf(prog, i) {
			if at != r.New[i-1]+1 || now != in {
				return fmt.Errorf("the load at slot %d is broken", i-1)
			}
		}
		// The successors of an instruction, in the original and in the result.
		var want, got []int
		if in.Code != 0x05 && in.Code != 0x06 && in.Code != 0x95 && i+1 < len(prog) {
			want, got = append(want, i+1), append(got, at+1)
		}
		switch class := in.Code & 7; {
		case in.Code == 0x06:
			want = append(want, i+1+int(in.Imm))
		case (class == 5 || class == 6) && in.Code&0xf0 != 0x80 && in.Code&0xf0 != 0x90:
			want = append(want, i+1+int(in.Off))
		}
		switch class := now.Code & 7; {
		case now.Code == 0x06:
			got = append(got, at+1+int(now.Imm))
		case (class == 5 || class == 6) && now.Code&0xf0 != 0x80 && now.Code&0xf0 != 0x90:
			if home(at) != home(at+1+int(now.Off)) {
				return fmt.Errorf("the jump of slot %d leaves its function", i)
			}
			got = append(got, at+1+int(now.Off))
		}
		for n := range got {
			j, err := resolve(got[n])
			if err != nil {
				return err
			}
			got[n] = j
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("slot %d goes on to %v and not to %v", i, got, want)
		}
		// What it does.
		if in.Code == 0x85 && in.Src == 1 || in.Code == 0x18 && in.Src == 4 {
			if to := old[at+1+int(now.Imm)]; to != i+1+int(in.Imm) {
				return fmt.Errorf("slot %d calls %d and not %d", i, to, i+1+int(in.Imm))
			}
			now.Imm = in.Imm
		}
		if len(want) > 0 && in.Code&7 >= 5 && in.Code&7 <= 6 {
			if in.Code == 0x05 && now.Code == 0x06 {
				now.Code = 0x05
			}
			if in.Code == 0x05 || in.Code == 0x06 {
				now.Imm = in.Imm
			}
			now.Off = in.Off
		}
		if now != in {
			return fmt.Errorf("slot %d was %v and is %v", i, in, now)
		}
	}
	for at := range r.Program {
		if _, ok := old[at]; !ok && !reached[at] {
			return fmt.Errorf("the verifier would reject slot %d, which nothing reaches", at)
		}
	}
	for n, f := range functions {
		if r.Functions[n].Start != r.New[f.Start] || r.Functions[n].End != r.New[f.End] {
			return fmt.Errorf("function %v became %v", f, r.Functions[n])
		}
	}
	return nil
}

func tooLong(prog []insn.Instruction, functions []insn.Function, o rewrite.Options) int {
	width := make([]int, len(prog)+1)
	for i := range prog {
		width[i+1] = width[i] + blinding.Width(prog, i, o.Kernel)
	}
	far := 0
	for i, in := range prog {
		if in.IsJump16() {
			if need := width[i+1+int(in.Off)] - width[i+1]; need > o.Limit || need < -o.Limit {
				far++
			}
		}
	}
	return far
}

func TestRewriteKeepsEveryPath(t *testing.T) {
	programs := 4_000
	if os.Getenv("BPFWHY_LONG") == "1" {
		programs = 60_000
	}
	changed, untouched, crowded, hops := 0, 0, 0, make(map[int]int)
	for n := range programs {
		rnd := rand.New(rand.NewPCG(7, uint64(n)))
		limit := 16 + rnd.IntN(200)
		prog, functions := structural(rnd, 1+rnd.IntN(8*limit), 1+rnd.IntN(6*limit))
		o := rewrite.Options{Limit: limit, Gotol: rnd.IntN(3) == 0, Functions: functions}
		before := slices.Clone(prog)
		r, err := rewrite.Rewrite(prog, o)
		qt.Assert(t, qt.IsTrue(slices.Equal(prog, before)))
		if err != nil {
			qt.Assert(t, qt.ErrorMatches(err, ".*too many jumps cross the same place"), qt.Commentf("program %d", n))
			crowded++
			continue
		}
		qt.Assert(t, qt.IsNil(same(prog, functions, r)), qt.Commentf("program %d, %+v", n, o))
		qt.Assert(t, qt.Equals(tooLong(r.Program, r.Functions, o), 0), qt.Commentf("program %d", n))
		qt.Assert(t, qt.Equals(r.After.Fits, true))
		if tooLong(prog, functions, o) == 0 {
			qt.Assert(t, qt.IsTrue(slices.Equal(r.Program, prog)))
			qt.Assert(t, qt.IsFalse(r.Changed()))
			untouched++
			continue
		}
		qt.Assert(t, qt.IsTrue(r.Changed()))
		changed++
		for _, d := range r.Detours {
			hops[min(len(d.Via), 6)]++
			qt.Assert(t, qt.Equals(d.To, d.From+1+int(prog[d.From].Off)))
		}
	}
	t.Logf("%d rewritten, %d untouched, %d too crowded; hops: %v", changed, untouched, crowded, hops)
	if programs == 60_000 {
		// For docs/blinding-proof.md.
		text, err := json.Marshal(map[string]any{"programs": programs, "rewritten": changed, "untouched": untouched, "too_crowded": crowded, "jumps_by_islands": hops})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(os.MkdirAll("testdata", 0o755)))
		qt.Assert(t, qt.IsNil(os.WriteFile("testdata/paths.json", append(text, '\n'), 0o644)))
	}
	qt.Check(t, qt.IsTrue(changed > programs/2 && untouched > programs/10 && hops[1] > programs && hops[3] > programs))
	qt.Check(t, qt.IsTrue(crowded < changed/10), qt.Commentf("%d of %d", crowded, changed))
}

func FuzzRewrite(f *testing.F) {
	f.Add(insn.Encode(code(one(jeq(21)), times(21, move), one(exit))), uint16(20), false, false)
	f.Add(insn.Encode(code(times(18, move), one(jeq(-19), exit))), uint16(20), true, true)
	for seed := range uint64(4) {
		prog, _ := structural(rand.New(rand.NewPCG(8, seed)), 200, 100)
		f.Add(insn.Encode(prog), uint16(30), seed%2 == 0, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, limit uint16, gotol, relocated bool) {
		prog, err := insn.Decode(b[:min(len(b), 1<<16)/insn.Size*insn.Size])
		if err != nil {
			t.Fatal(err)
		}
		o := rewrite.Options{Limit: int(limit), Gotol: gotol}
		if relocated {
			o.Relocated = func(int) bool { return true }
			o.Functions = []insn.Function{{End: len(prog)}}
		}
		r, err := rewrite.Rewrite(prog, o)
		if err != nil {
			return
		}
		if o.Limit == 0 {
			o.Limit = rewrite.DefaultLimit
		}
		if n := tooLong(r.Program, r.Functions, o); n > 0 || !r.After.Fits {
			t.Fatalf("%d jumps are too long", n)
		}
		if !r.Changed() && !slices.Equal(r.Program, prog) {
			t.Fatal("not changed, and yet different")
		}
	})
}
