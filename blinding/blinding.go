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
// The prediction is exact for post-verifier code ([Check]). Submitted code is
// rewritten by the verifier before it is blinded; [Predict] allows for that.
package blinding

import (
	"fmt"
	"slices"
	"sort"

	"github.com/bpfwhy/bpfwhy/insn"
)

// Kernel says how a kernel blinds: [node.Profile.Blinds] has it for a release. The
// zero value is right up to 6.18 on architectures whose compiler zero-extends by
// itself, such as x86-64 and arm64.
type Kernel struct {
	// WholeProgram is set where all functions are blinded as one program, so
	// that patch offsets count from its start (kernel 7.1). It does not change
	// the verdict, since jumps stay inside functions.
	WholeProgram bool
	// RangeCheck is set where the kernel itself notices that the offset of a
	// backward jump with an immediate wraps (ad139384ecdd: kernel 7.3, and
	// 7.2.10). Others compile a wrong program, see [Wrap].
	RangeCheck bool
	// StoreProbeMem32 is set where immediates stored to an arena are blinded
	// (kernel 7.0 and 6.18.21).
	StoreProbeMem32 bool
	// Scratch is the register that blinding itself works with, BPF_REG_AX: an
	// instruction that uses it was made by the kernel and is left alone. 0 is
	// 11; 7.2 gives 11 to programs, for arguments on the stack, and takes 12.
	Scratch uint8
	// ZeroExtends is set where the compiler wants explicit zero extension of
	// 32-bit results: most 32-bit architectures, s390, powerpc, mips.
	ZeroExtends bool
}

// On returns how the kernel behaves on a machine, as uname(2) names it: "" is
// x86_64. Machines that are not known to do without explicit zero extension are
// taken to want it, which is the careful answer.
func (k Kernel) On(machine string) Kernel {
	switch machine {
	case "", "x86_64", "aarch64":
	default:
		k.ZeroExtends = true
	}
	return k
}

// AnyKernel is the kernel that a program must survive to survive them all, from
// 5.10 to 7.2 on x86-64 and arm64: all that some kernel blinds is blinded, and
// jumps wrap.
func AnyKernel() Kernel { return Kernel{StoreProbeMem32: true, Scratch: insn.RegAX + 1} }

func (k Kernel) scratch() uint8 {
	if k.Scratch == 0 {
		return insn.RegAX
	}
	return k.Scratch
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
	// Work is how many slots the kernel's pass walks over until it is done or
	// gives up: each replacement moves all that follows and visits every jump,
	// so that the time is quadratic. See [Verdict.Time].
	Work int64
}

const worstJumps = 16

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
// in order and cover the program, else that is the error; nil is what the calls
// tell, as in Check.
func CheckFunctions(prog []insn.Instruction, functions []insn.Function, k Kernel) (Verdict, error) {
	return check(prog, functions, k, MaxOffset+1)
}

// check is CheckFunctions with offsets of limited range [-limit, limit).
func check(prog []insn.Instruction, functions []insn.Function, k Kernel, limit int) (Verdict, error) {
	c, err := newCode(prog, functions, nil, k, limit)
	if err != nil {
		return Verdict{}, err
	}
	return c.check()
}

// code is a program with what its check needs to know.
type code struct {
	prog      []insn.Instruction
	functions []insn.Function
	kernel    Kernel
	table     *widths
	growth    []int
	limit     int // offsets are in [-limit, limit)
}

func newCode(prog []insn.Instruction, functions []insn.Function, extra []uint8, k Kernel, limit int) (*code, error) {
	if functions == nil {
		functions = insn.Functions(prog)
	}
	next := 0
	for _, fn := range functions {
		if fn.Start != next || fn.End <= fn.Start {
			return nil, fmt.Errorf("check blinding: function %d..%d does not start where the one before it ends", fn.Start, fn.End)
		}
		next = fn.End
	}
	if next != len(prog) {
		return nil, fmt.Errorf("check blinding: the functions end at %d, the program at %d", next, len(prog))
	}
	t := tableOf(k)
	growth, err := t.growths(prog, extra, k)
	if err != nil {
		return nil, err
	}
	return &code{prog, functions, k, t, growth, limit}, nil
}

// jumps calls f for every 16-bit jump, in order.
func (c *code) jumps(f func(Jump)) error {
	for _, fn := range c.functions {
		if insn.IsSecondHalf(c.prog, fn.Start) {
			return fmt.Errorf("check blinding: function %d..%d starts inside a 64-bit load", fn.Start, fn.End-1)
		}
		for i := fn.Start; i < fn.End; i++ {
			in := &c.prog[i]
			if c.table[in.Code]&isJump16 == 0 {
				continue
			}
			to := i + 1 + int(in.Off)
			if !fn.Contains(to) {
				return fmt.Errorf("check blinding: the jump at slot %d goes to %d, outside its function %d..%d", i, to, fn.Start, fn.End-1)
			}
			// A backward jump has the end of its own replacement behind it, and a
			// forward one has left it there.
			j := Jump{From: i, To: to, Need: int(in.Off) + c.growth[to] - c.growth[i+1], Limit: c.limit - 1, Forward: in.Off >= 0}
			if !j.Forward {
				j.Limit = -c.limit
			}
			f(j)
		}
	}
	return nil
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

// check predicts what becomes of the code.
//
//revive:disable-next-line:cyclomatic the kernel's order of failures, jump by jump
func (c *code) check() (Verdict, error) {
	v := Verdict{
		FailIndex: -1,
		FailOff:   -1,
		Before:    len(c.prog),
		After:     len(c.prog) + c.growth[len(c.prog)],
		Margin:    c.limit - 1,
	}
	var tightest worst
	// A wrap is a failure only when nothing else stops the load.
	var stop, wrap event
	err := c.jumps(func(j Jump) {
		tightest.add(j)
		if j.Margin() >= 0 {
			return
		}
		v.TooFar++
		if stop.failure != None && c.fitsUntil(j, stop.index) {
			return
		}
		e := c.firstFailure(j)
		if e.failure == Wrap {
			if wrap.failure == None || e.before(wrap) {
				wrap = e
			}
			// The wrapped jump now points far ahead, and the next
			// replacement that it spans stretches it beyond the range.
			end := len(c.prog)
			if f, ok := insn.FunctionAt(c.functions, j.From); ok && !c.kernel.WholeProgram {
				end = f.End
			}
			next := nextGrowth(c.growth, j.From+1, end)
			if next >= end || next-j.From > j.Need+2*c.limit {
				return
			}
			e = event{index: next, failure: Patch, jump: j}
		}
		if stop.failure == None || e.before(stop) {
			stop = e
		}
	})
	if err != nil {
		return Verdict{}, err
	}
	if stop.failure == None {
		stop = wrap
	}
	if v.Worst = tightest; len(v.Worst) > 0 {
		v.Jump = v.Worst[0]
		v.Margin = v.Jump.Margin()
	}
	if stop.failure == None {
		v.Fits = true
	} else {
		v.Jump = stop.jump
		v.Failure = stop.failure
		v.Wraps = stop.failure == Wrap
		v.FailIndex = stop.index
	}
	v.Function, _ = insn.FunctionAt(c.functions, v.Jump.From)
	if v.Failure == Patch {
		base := v.Function.Start
		if c.kernel.WholeProgram {
			base = 0
		}
		v.FailOff = v.FailIndex - base + c.growth[v.FailIndex] - c.growth[base]
	}
	v.Work = c.work(v)
	return v, nil
}

// fitsUntil reports a forward jump that the replacements before a slot do not
// take out of range: what fails there is met first.
func (c *code) fitsUntil(j Jump, slot int) bool {
	return j.Forward && (slot <= j.From+1 || slot <= j.To && j.To-j.From-1+c.growth[slot]-c.growth[j.From+1] <= j.Limit)
}

// firstFailure finds the first slot whose replacement takes the jump out of
// range.
func (c *code) firstFailure(j Jump) event {
	growth := c.growth
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
	case c.kernel.RangeCheck:
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

// worst are the tightest jumps so far, tightest first.
type worst []Jump

func (w *worst) add(j Jump) {
	list := *w
	n, margin := len(list), j.Margin()
	if n == worstJumps {
		if margin >= list[n-1].Margin() {
			return
		}
		list = list[:n-1]
	}
	at, _ := slices.BinarySearchFunc(list, margin+1, func(o Jump, m int) int { return o.Margin() - m })
	// Of equals the earlier jump comes first, and they come in order.
	*w = slices.Insert(list, at, j)
}
