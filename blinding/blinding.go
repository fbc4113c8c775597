// SPDX-License-Identifier: Apache-2.0

// Package blinding predicts what constant blinding does to a program.
//
// With net.core.bpf_jit_harden in force the kernel replaces every instruction
// that carries an immediate by several that do not show it. The program grows,
// jumps grow with it, and a jump that no longer fits its 16-bit offset makes the
// kernel give up on compiling the program. This package knows how much each
// instruction grows and finds the jump that fails, and where in the kernel's
// pass it does.
//
// The prediction is exact for post-verifier code. Submitted code is rewritten by
// the verifier before it is blinded, so a verdict on it is as good as its
// [Verdict.Margin] is large.
package blinding

import (
	"fmt"
	"slices"
	"sort"

	"github.com/bpfwhy/bpfwhy/insn"
)

// Kernel says how a kernel blinds. The zero value is right up to 6.18 on
// architectures whose compiler zero-extends by itself, such as x86-64 and arm64.
type Kernel struct {
	// WholeProgram is set where all functions are blinded as one program, so
	// that patch offsets count from its start (kernel 7.1). It does not change
	// the verdict, since jumps stay inside functions.
	WholeProgram bool
	// RangeCheck is set where the kernel itself notices that the offset of a
	// backward jump with an immediate wraps (kernel 7.1). Others compile a
	// wrong program, see [Wrap].
	RangeCheck bool
	// StoreProbeMem32 is set where immediates stored to an arena are blinded
	// (kernel 7.2).
	StoreProbeMem32 bool
	// ZeroExtends is set where the compiler wants explicit zero extension of
	// 32-bit results: most 32-bit architectures, s390, powerpc, mips.
	ZeroExtends bool
}

// ForVersion returns the behaviour of a mainline release on x86-64 and arm64.
// Distribution kernels carry backports: prefer what was observed.
func ForVersion(major, minor int) Kernel {
	atLeast := func(wantMajor, wantMinor int) bool {
		return major > wantMajor || major == wantMajor && minor >= wantMinor
	}
	return Kernel{
		WholeProgram:    atLeast(7, 1),
		RangeCheck:      atLeast(7, 1),
		StoreProbeMem32: atLeast(7, 2),
	}
}

// The offsets that a jump can have.
const (
	MaxOffset = 32767
	MinOffset = -32768
)

// Failure is the way in which a program does not survive blinding.
type Failure int

const (
	// None: every jump fits.
	None Failure = iota
	// Patch: bpf_patch_insn_single returns -ERANGE.
	Patch
	// RangeCheck: the pass refuses to blind a backward jump, without a call of
	// bpf_patch_insn_single. Only on kernels with [Kernel.RangeCheck].
	RangeCheck
	// Wrap: the kernel reports success and compiles a program that jumps to
	// the wrong place. Never run such a program.
	Wrap
)

func (f Failure) String() string {
	return [...]string{"fits", "patch", "range check", "wrap"}[f]
}

// Jump is one jump and the offset that blinding would give it.
type Jump struct {
	From, To int // slots
	Need     int // the offset after blinding
	Limit    int // MaxOffset for a forward jump, MinOffset for a backward one
	Forward  bool
}

// Margin returns how many slots the jump is from its limit, negative when it is
// beyond.
func (j Jump) Margin() int {
	if j.Forward {
		return j.Limit - j.Need
	}
	return j.Need - j.Limit
}

// Verdict is what becomes of a program.
type Verdict struct {
	Fits    bool
	Wraps   bool // the same as Failure == Wrap
	Failure Failure
	// FailIndex is the slot whose replacement fails, in the numbering of the
	// program given to Check; for a wrap the slot of the jump. -1 if it fits.
	FailIndex int
	// FailOff is the off argument of the bpf_patch_insn_single call that
	// fails, -1 when no such call does.
	FailOff int
	// Jump is the jump that fails first, or the tightest one if all fit. It is
	// the zero Jump when there is none.
	Jump     Jump
	Function insn.Function // the function of the failure or of the tightest jump
	// Before and After count the slots of the program; After is how many it
	// would have if no jump failed.
	Before, After int
	// Margin is how many slots all jumps together leave to their limits:
	// the smallest Jump.Margin, MaxOffset without jumps.
	Margin int
	// TooFar counts the jumps that do not fit.
	TooFar int
	// Worst lists the tightest jumps, at most 16, tightest first.
	Worst []Jump
}

const worstJumps = 16

// Width returns how many slots take the place of slot i. The two slots of a
// 64-bit load are counted one by one, 4 and 3. It returns 0 when i is outside
// the program.
func Width(prog []insn.Instruction, i int, k Kernel) int {
	if i < 0 || i >= len(prog) {
		return 0
	}
	second := insn.IsSecondHalf(prog, i)
	if second && prog[i-1].IsFuncLoad() {
		return 1
	}
	in := prog[i]
	switch {
	case in.Dst == insn.RegAX || in.Src == insn.RegAX:
		return 1 // written by the kernel, and the scratch register is taken
	case in.IsFuncLoad():
		return 1
	case in.IsWide():
		return 4
	case in.Code == 0: // second half
		if k.ZeroExtends {
			return 4
		}
		return 3
	case in.Class() == insn.ClassST:
		if in.Mode() == insn.ModeMEM || in.Mode() == insn.ModeProbeMem32 && k.StoreProbeMem32 {
			return 3
		}
		return 1
	case !in.IsImmediate():
		return 1
	case in.IsALU():
		switch in.Op() {
		case insn.OpMOV:
			if in.Imm == 0 {
				return 1 // becomes an XOR of the register with itself
			}
			return 3
		case insn.OpADD, insn.OpSUB, insn.OpAND, insn.OpOR, insn.OpXOR, insn.OpMUL, insn.OpDIV, insn.OpMOD:
			return 3
		}
		return 1
	}
	switch in.Op() {
	case insn.OpJEQ, insn.OpJNE, insn.OpJGT, insn.OpJLT, insn.OpJGE, insn.OpJLE,
		insn.OpJSGT, insn.OpJSLT, insn.OpJSGE, insn.OpJSLE, insn.OpJSET:
		return 3
	}
	return 1
}

// Check predicts the fate of a program, which must be in the form in which it
// was submitted or entered the kernel's pass as a whole: its calls tell where
// functions start. It returns an error only when the program is malformed: a
// jump that leaves its function, half of a 64-bit load.
//
// It takes O(n log n) time, some milliseconds for 100,000 instructions.
func Check(prog []insn.Instruction, k Kernel) (Verdict, error) {
	return CheckFunctions(prog, insn.Functions(prog), k)
}

// CheckFunctions is [Check] for code whose function boundaries are known from
// elsewhere: one function captured on its way into the compiler, or a dump of a
// loaded program, where calls no longer carry distances. The functions must be
// in order and cover the program.
func CheckFunctions(prog []insn.Instruction, functions []insn.Function, k Kernel) (Verdict, error) {
	return check(prog, functions, k, MaxOffset+1)
}

// Jumps returns every 16-bit jump of the program with the offset that it needs
// after blinding, in order. Errors are those of [Check].
func Jumps(prog []insn.Instruction, k Kernel) ([]Jump, error) {
	growth, err := growths(prog, k)
	if err != nil {
		return nil, err
	}
	return jumps(prog, insn.Functions(prog), growth, MaxOffset+1)
}

// growths returns the prefix sums of the growth: growths[i] is by how many slots
// the code before slot i grows.
func growths(prog []insn.Instruction, k Kernel) ([]int, error) {
	sums := make([]int, len(prog)+1)
	for i, in := range prog {
		if in.IsWide() && !insn.IsSecondHalf(prog, i+1) {
			return nil, fmt.Errorf("check blinding: slot %d is half of a 64-bit load", i)
		}
		sums[i+1] = sums[i] + Width(prog, i, k) - 1
	}
	return sums, nil
}

func jumps(prog []insn.Instruction, functions []insn.Function, growth []int, limit int) ([]Jump, error) {
	var list []Jump
	for _, f := range functions {
		if f.Start < 0 || f.End > len(prog) {
			return nil, fmt.Errorf("check blinding: function %d..%d lies outside the program", f.Start, f.End)
		}
		if insn.IsSecondHalf(prog, f.Start) {
			return nil, fmt.Errorf("check blinding: function %d..%d starts inside a 64-bit load", f.Start, f.End-1)
		}
		for i := f.Start; i < f.End; i++ {
			in := prog[i]
			if !in.IsJump16() {
				continue
			}
			to := i + 1 + int(in.Off)
			if !f.Contains(to) {
				return nil, fmt.Errorf("check blinding: the jump at slot %d goes to %d, outside its function %d..%d", i, to, f.Start, f.End-1)
			}
			j := Jump{From: i, To: to, Need: int(in.Off), Forward: in.Off >= 0}
			if j.Forward {
				j.Limit = limit - 1
				j.Need += growth[to] - growth[i+1]
			} else {
				j.Limit = -limit
				j.Need -= growth[i] - growth[to]
				// The jump ends up at the end of its own replacement.
				j.Need -= growth[i+1] - growth[i]
			}
			list = append(list, j)
		}
	}
	return list, nil
}

// event is something that stops or spoils the pass.
type event struct {
	index   int
	failure Failure
	jump    Jump
}

// before orders events as the pass meets them. At one slot the check of the
// offset comes first, then the patch, and a wrap only happens if that works.
func (e event) before(o event) bool {
	if e.index != o.index {
		return e.index < o.index
	}
	if e.failure != o.failure {
		rank := [...]int{RangeCheck: 0, Patch: 1, Wrap: 2}
		return rank[e.failure] < rank[o.failure]
	}
	return e.jump.From < o.jump.From
}

// check does the work of Check with offsets of limited range [-limit, limit).
func check(prog []insn.Instruction, functions []insn.Function, k Kernel, limit int) (Verdict, error) {
	growth, err := growths(prog, k)
	if err != nil {
		return Verdict{}, err
	}
	list, err := jumps(prog, functions, growth, limit)
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{
		FailIndex: -1,
		FailOff:   -1,
		Before:    len(prog),
		After:     len(prog) + growth[len(prog)],
		Margin:    limit - 1,
		Worst:     worst(list),
	}
	// A wrap is a failure only when nothing else stops the load.
	var stop, wrap *event
	for _, j := range list {
		if j.Margin() >= 0 {
			continue
		}
		v.TooFar++
		e := firstFailure(j, growth, k)
		if e.failure == Wrap {
			if wrap == nil || e.before(*wrap) {
				wrap = &e
			}
			// The wrapped jump now points far ahead, and the next
			// replacement that it spans stretches it beyond the range.
			end := len(prog)
			if f, ok := insn.FunctionAt(functions, j.From); ok && !k.WholeProgram {
				end = f.End
			}
			next := nextGrowth(growth, j.From+1, end)
			if next >= end || next-j.From > j.Need+2*limit {
				continue
			}
			e.index, e.failure = next, Patch
		}
		if stop == nil || e.before(*stop) {
			stop = &e
		}
	}
	if stop == nil {
		stop = wrap
	}
	if len(v.Worst) > 0 {
		v.Jump = v.Worst[0]
		v.Margin = v.Jump.Margin()
	}
	if stop == nil {
		v.Fits = true
	} else {
		v.Jump = stop.jump
		v.Failure = stop.failure
		v.Wraps = stop.failure == Wrap
		v.FailIndex = stop.index
	}
	v.Function, _ = insn.FunctionAt(functions, v.Jump.From)
	if v.Failure == Patch {
		base := v.Function.Start
		if k.WholeProgram {
			base = 0
		}
		v.FailOff = v.FailIndex - base + growth[v.FailIndex] - growth[base]
	}
	return v, nil
}

// firstFailure finds the first slot whose replacement takes the jump out of
// range.
func firstFailure(j Jump, growth []int, k Kernel) event {
	if j.Forward {
		// The replaced slots between the jump and its target, in order.
		n := sort.Search(j.To-j.From-1, func(n int) bool {
			return j.To-j.From-1+growth[j.From+2+n]-growth[j.From+1] > j.Limit
		})
		return event{index: j.From + 1 + n, failure: Patch, jump: j}
	}
	n := sort.Search(j.From-j.To, func(n int) bool {
		return j.To-j.From-1-(growth[j.To+1+n]-growth[j.To]) < j.Limit
	})
	switch {
	case n < j.From-j.To:
		return event{index: j.To + n, failure: Patch, jump: j}
	case k.RangeCheck:
		return event{index: j.From, failure: RangeCheck, jump: j}
	}
	return event{index: j.From, failure: Wrap, jump: j}
}

// nextGrowth returns the first slot from i on that grows, or end.
func nextGrowth(growth []int, i, end int) int {
	if i >= end {
		return end
	}
	return i + sort.Search(end-i, func(n int) bool { return growth[i+n+1] > growth[i] })
}

func worst(list []Jump) []Jump {
	sorted := slices.Clone(list)
	slices.SortStableFunc(sorted, func(a, b Jump) int { return a.Margin() - b.Margin() })
	return slices.Clone(sorted[:min(len(sorted), worstJumps)])
}
