// SPDX-License-Identifier: Apache-2.0

package blinding

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/go-quicktest/qt"
)

// replay does what the kernel does, one replacement after the other, in the
// plainest way: bpf_jit_blind_constants, bpf_patch_insn_single and
// bpf_adj_branches, with offsets of range [-limit, limit). The prediction must
// agree with it on everything.
type replay struct {
	limit  int
	kernel Kernel
}

// outcome is what can be compared.
type outcome struct {
	Failure Failure
	Index   int // slot of the original program, -1 if it fits
	Off     int // -1 when no patch failed
	After   int // slots in the end; 0 if it failed
	Work    int64
}

// slot is an instruction with an offset of its own range and the slot that it
// comes from.
type slot struct {
	insn.Instruction
	off  int
	orig int
}

func (r replay) run(prog []insn.Instruction, functions []insn.Function) outcome {
	if r.kernel.WholeProgram {
		functions = []insn.Function{{Start: 0, End: len(prog)}}
	}
	var all outcome
	all.Index, all.Off = -1, -1
	for _, f := range functions {
		code := make([]slot, 0, f.Len())
		for i := f.Start; i < f.End; i++ {
			code = append(code, slot{prog[i], int(prog[i].Off), i})
		}
		o := r.blind(code)
		all.After += o.After
		all.Work += o.Work
		switch o.Failure {
		case Patch, RangeCheck:
			o.After, o.Work = 0, 0
			return o
		case Wrap:
			if all.Failure == None {
				all.Failure, all.Index = Wrap, o.Index
			}
		}
	}
	return all
}

func (r replay) blind(code []slot) outcome {
	o := outcome{Index: -1, Off: -1}
	for i := 0; i < len(code); i++ {
		if code[i].IsFuncLoad() {
			i++
			continue
		}
		patch, wrapped, refused := r.replacement(code[i])
		if refused {
			return outcome{Failure: RangeCheck, Index: code[i].orig, Off: -1}
		}
		if patch == nil {
			continue
		}
		orig := code[i].orig
		if len(patch) > 1 {
			o.Work += int64(len(code))
			if len(code)+len(patch)-1 > r.limit-1 && r.limit == MaxOffset+1 {
				o.Work += int64(len(code))
			}
		}
		next, ok := r.patchSingle(code, i, patch)
		if !ok {
			return outcome{Failure: Patch, Index: orig, Off: i}
		}
		if wrapped && o.Failure == None {
			o.Failure, o.Index = Wrap, orig
		}
		code = next
		i += len(patch) - 1
	}
	o.After = len(code)
	return o
}

// replacement is bpf_jit_blind_insn. Only the jump of a patch matters later, so
// the others are stand-ins that do nothing.
func (r replay) replacement(in slot) (patch []slot, wrapped, refused bool) {
	filler := slot{Instruction: insn.Instruction{Code: 0xbf}, orig: in.orig}
	fill := func(n int) []slot { return slices.Repeat([]slot{filler}, n) }
	if in.Dst == 11 || in.Src == 11 {
		return nil, false, false
	}
	switch in.Code {
	case 0xb4, 0xb7: // MOV K
		if in.Imm == 0 {
			return fill(1), false, false
		}
		return fill(3), false, false
	case 0x04, 0x14, 0x54, 0x44, 0xa4, 0x24, 0x34, 0x94,
		0x07, 0x17, 0x57, 0x47, 0xa7, 0x27, 0x37, 0x97:
		return fill(3), false, false
	case 0x62, 0x6a, 0x72, 0x7a:
		return fill(3), false, false
	case 0xa2, 0xaa, 0xb2, 0xba:
		if r.kernel.StoreProbeMem32 {
			return fill(3), false, false
		}
		return nil, false, false
	case 0x18:
		return fill(4), false, false
	case 0x00:
		if r.kernel.ZeroExtends {
			return fill(4), false, false
		}
		return fill(3), false, false
	case 0x15, 0x55, 0x25, 0xa5, 0x35, 0xb5, 0x65, 0xc5, 0x75, 0xd5, 0x45,
		0x16, 0x56, 0x26, 0xa6, 0x36, 0xb6, 0x66, 0xc6, 0x76, 0xd6, 0x46:
		off := in.off
		if off < 0 {
			off -= 2
		}
		if off < -r.limit {
			if r.kernel.RangeCheck {
				return nil, false, true
			}
			off += 2 * r.limit
			wrapped = true
		}
		jump := slot{Instruction: insn.Instruction{Code: in.Code | 8}, off: off, orig: in.orig}
		return append(fill(2), jump), wrapped, false
	}
	return nil, false, false
}

func (r replay) patchSingle(code []slot, off int, patch []slot) ([]slot, bool) {
	if len(patch) == 1 {
		code[off] = patch[0]
		return code, true
	}
	if len(code)+len(patch)-1 > r.limit-1 && !r.adjBranches(code, off, len(patch), true) {
		return nil, false
	}
	code = slices.Replace(code, off, off+1, patch...)
	if !r.adjBranches(code, off, len(patch), false) {
		panic("the kernel would have run into its BUG_ON")
	}
	return code, true
}

func (r replay) adjBranches(code []slot, pos, length int, probe bool) bool {
	endOld, endNew := pos+1, pos+length
	delta := endNew - endOld
	for n := 0; n < len(code); n++ {
		curr := n
		if probe {
			if n == pos {
				continue
			}
			if n > pos {
				curr += delta
			}
		}
		in := &code[n]
		class, op := in.Code&7, in.Code&0xf0
		if class != 5 && class != 6 || op == 0x90 || op == 0x80 || in.Code == 0x06 {
			continue
		}
		off := in.off
		if curr < pos && curr+off+1 >= endOld {
			off += delta
		} else if curr >= endNew && curr+off+1 < endNew {
			off -= delta
		}
		if off < -r.limit || off > r.limit-1 {
			return false
		}
		if !probe {
			in.off = off
		}
	}
	return true
}

// palette holds an instruction of each kind that blinding tells apart.
var palette = []insn.Instruction{
	{Code: 0xb7, Imm: 1}, {Code: 0xb4, Imm: 1}, {Code: 0xb7}, {Code: 0xb4},
	{Code: 0x07}, {Code: 0x04, Imm: 3}, {Code: 0x97, Imm: 3}, {Code: 0x34, Imm: 3, Off: 1},
	{Code: 0x67, Imm: 3}, {Code: 0xc4, Imm: 3}, {Code: 0x87}, {Code: 0xdc, Imm: 16}, {Code: 0xd7, Imm: 16},
	{Code: 0x0f}, {Code: 0xbc}, {Code: 0xbf, Off: 1, Imm: 1 << 16}, {Code: 0xbf, Off: 8},
	{Code: 0x07, Dst: 11, Imm: 5}, {Code: 0xb7, Dst: 11},
	{Code: 0x7a, Imm: 1}, {Code: 0x62}, {Code: 0xb2, Imm: 1}, {Code: 0xc2},
	{Code: 0x61}, {Code: 0x7b}, {Code: 0xdb, Imm: 1}, {Code: 0x20, Imm: 12},
	{Code: 0x85, Imm: 1}, {Code: 0x85, Src: 2, Imm: 9}, {Code: 0x95}, {Code: 0x06, Imm: 1},
}

var jumpCodes = []uint8{
	0x05, 0x15, 0x1d, 0x16, 0x1e, 0x55, 0xd5, 0xdd, 0x45, 0x46, 0xc6, 0xe5,
}

// randomProgram makes a program of up to three functions whose jumps all have
// offsets in [-limit, limit) and stay inside their functions.
func randomProgram(rnd *rand.Rand, limit int) ([]insn.Instruction, []insn.Function) {
	var prog []insn.Instruction
	var functions []insn.Function
	for range 1 + rnd.IntN(3) {
		f := insn.Function{Start: len(prog), End: len(prog) + 2 + rnd.IntN(3*limit)}
		jumpy := rnd.IntN(60)
		dense := rnd.IntN(101) * rnd.IntN(2)
		for len(prog) < f.End {
			i := len(prog)
			switch {
			case rnd.IntN(100) < jumpy:
				low := max(f.Start, i+1-limit)
				high := min(f.End-1, i+limit)
				to := low + rnd.IntN(high-low+1)
				prog = append(prog, insn.Instruction{
					Code: jumpCodes[rnd.IntN(len(jumpCodes))],
					Off:  int16(to - i - 1),
				})
			case rnd.IntN(10) == 0 && i+2 <= f.End:
				var src uint8
				if rnd.IntN(3) == 0 {
					src = insn.PseudoFunc
				}
				prog = append(prog, insn.Instruction{Code: 0x18, Src: src}, insn.Instruction{})
			case rnd.IntN(100) < dense:
				prog = append(prog, palette[rnd.IntN(len(palette))])
			default:
				prog = append(prog, insn.Instruction{Code: 0xbf})
			}
		}
		functions = append(functions, f)
	}
	return prog, functions
}

func predicted(v Verdict) outcome {
	o := outcome{Failure: v.Failure, Index: v.FailIndex, Off: v.FailOff}
	if v.Fits || v.Wraps {
		o.After, o.Work = v.After, v.Work
	}
	return o
}

func TestCheckAgreesWithReplay(t *testing.T) {
	kernels := []Kernel{
		{},
		{WholeProgram: true, RangeCheck: true},
		{WholeProgram: true, RangeCheck: true, StoreProbeMem32: true},
		{ZeroExtends: true},
		{WholeProgram: true},
	}
	seen := make(map[Failure]int)
	programs := 50_000
	if os.Getenv("BPFWHY_LONG") == "1" {
		programs = 1_000_000
	}
	for n := range programs {
		rnd := rand.New(rand.NewPCG(1, uint64(n)))
		limit := 4 + rnd.IntN(28)
		k := kernels[rnd.IntN(len(kernels))]
		prog, functions := randomProgram(rnd, limit)
		v, err := check(prog, functions, k, limit)
		qt.Assert(t, qt.IsNil(err))
		want := replay{limit, k}.run(prog, functions)
		qt.Assert(t, qt.Equals(predicted(v), want), qt.Commentf("program %d, limit %d, %+v\n%v\n%v", n, limit, k, functions, prog))
		qt.Assert(t, qt.Equals(v.Fits, want.Failure == None))
		qt.Assert(t, qt.Equals(v.Margin >= 0, v.TooFar == 0))
		seen[v.Failure]++
	}
	t.Logf("%d programs, outcomes: %v", programs, seen)
	if programs == 1_000_000 {
		// For docs/blinding-proof.md.
		text, err := json.Marshal(map[string]int{"programs": programs, "fit": seen[None], "patch": seen[Patch], "range_check": seen[RangeCheck], "wrap": seen[Wrap]})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(os.WriteFile("testdata/replay.json", append(text, '\n'), 0o644)))
	}
	for _, f := range []Failure{None, Patch, RangeCheck, Wrap} {
		qt.Check(t, qt.IsTrue(seen[f] > 200), qt.Commentf("%v came up %d times", f, seen[f]))
	}
}

// The same with the kernel's own limits: mostly register-form code, since the
// replay is quadratic.
func TestCheckAgreesWithReplayAtFullSize(t *testing.T) {
	seen := make(map[Failure]int)
	for n := range 40 {
		rnd := rand.New(rand.NewPCG(2, uint64(n)))
		grown := 40 + rnd.IntN(60)
		span := MaxOffset - 2*grown + rnd.IntN(7) - 3
		prog := longJump(rnd, span, grown, n%2 == 0)
		k := Kernel{RangeCheck: n%4 > 1}
		functions := insn.Functions(prog)
		v, err := CheckFunctions(prog, functions, k)
		qt.Assert(t, qt.IsNil(err))
		want := replay{MaxOffset + 1, k}.run(prog, functions)
		qt.Assert(t, qt.Equals(predicted(v), want), qt.Commentf("program %d", n))
		seen[v.Failure]++
	}
	t.Logf("outcomes: %v", seen)
}

// longJump makes a program of register moves with one long jump over span
// slots, of which grown take three slots each after blinding.
func longJump(rnd *rand.Rand, span, grown int, forward bool) []insn.Instruction {
	body := slices.Repeat([]insn.Instruction{{Code: 0xbf, Dst: 2, Src: 1}}, span)
	for _, i := range rnd.Perm(span)[:grown] {
		body[i] = insn.Instruction{Code: 0xb7, Dst: 3, Imm: 7}
	}
	exit := []insn.Instruction{{Code: 0xaf}, {Code: 0x95}} // r0 ^= r0
	if forward {
		jump := insn.Instruction{Code: 0x15, Dst: 1, Off: int16(span), Imm: 1}
		return slices.Concat([]insn.Instruction{jump}, body, exit)
	}
	// Enter behind the body, then run it once from its start.
	jump := insn.Instruction{Code: 0x15, Dst: 1, Off: int16(-span - 1), Imm: 1}
	return slices.Concat(body, []insn.Instruction{jump}, exit)
}
