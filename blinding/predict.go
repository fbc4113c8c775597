// SPDX-License-Identifier: Apache-2.0

package blinding

import (
	"github.com/bpfwhy/bpfwhy/insn"
)

// Fate is what can be said of a program that the verifier has not seen yet.
type Fate int

const (
	// Loads: every jump fits, also with the most that the verifier is known to
	// add to the code.
	Loads Fate = iota
	// MayFail: every jump fits as the code stands, and might not when the
	// verifier has rewritten it.
	MayFail
	// Fails: a jump does not fit as the code stands. Only code that the
	// verifier finds dead between the jump and its target could save it.
	Fails
)

func (f Fate) String() string {
	return [...]string{"loads", "may fail", "fails"}[f]
}

// Source says what is known of a program beside its code. What is left out is
// taken for the worst.
type Source struct {
	// Type is the program type as BPF_PROG_TYPE_x, lower case, without the
	// prefix: "socket_filter". It tells how much the verifier adds where the
	// context is read.
	Type string
	// Unprivileged is set for a loader without CAP_PERFMON and CAP_SYS_ADMIN,
	// whose pointer arithmetic is masked and whose stores are fenced.
	Unprivileged bool
}

// Prediction is what becomes of submitted code.
type Prediction struct {
	Fate Fate
	// Verdict is that on the code as it was submitted.
	Verdict Verdict
	// Worst is that on the code with the most that the verifier is known to
	// add, in every place at once; its jumps and indexes are slots of the
	// submitted code, its lengths are those of the code that has grown.
	Worst Verdict
	// Growth is how many slots the verifier adds at most, counted after
	// blinding.
	Growth int
	// MayWrap says that a jump may come to need one of the two offsets that
	// kernels without [Kernel.RangeCheck] wrap: see [Wrap]. Do not run such a
	// program where it is blinded.
	MayWrap bool
}

// slack is kept by a jump of which [Predict] says that it fits, for the small
// things that this package does not know of.
const slack = 32

// Predict says what becomes of a program that the verifier has not seen yet. The verifier adds
// instructions before the blinding: it rewrites accesses to the context, inlines helpers, guards
// divisions. How many is known only to it, but there is a most for each instruction. The functions
// are those of [CheckFunctions]. Errors are those of [Check].
//
// It is meant to be wrong on one side only: what loads, it may call MayFail, and
// dead code may save what it calls Fails. It takes a few times as long as
// [Check].
func Predict(prog []insn.Instruction, functions []insn.Function, k Kernel, s Source) (Prediction, error) {
	return predict(prog, functions, k, s, MaxOffset+1)
}

func predict(prog []insn.Instruction, functions []insn.Function, k Kernel, s Source, limit int) (Prediction, error) {
	c, err := newCode(prog, functions, nil, k, limit)
	if err != nil {
		return Prediction{}, err
	}
	var p Prediction
	if p.Verdict, err = c.check(); err != nil {
		return Prediction{}, err
	}
	extra := growthOf(prog, functions, k, s)
	for _, n := range extra {
		p.Growth += int(n)
	}
	// Nothing that could grow out of reach: no second look.
	if p.Verdict.Fits && p.Verdict.Margin >= p.Growth+slack {
		p.Worst = p.Verdict
		p.Worst.Before += p.Growth
		p.Worst.After += p.Growth
		return p, nil
	}
	grown, err := newCode(prog, functions, extra, k, limit)
	if err != nil {
		return Prediction{}, err
	}
	if p.Worst, err = grown.check(); err != nil {
		return Prediction{}, err
	}
	p.Worst.Before += p.Growth
	switch {
	case !p.Verdict.Fits:
		p.Fate = Fails
	case !p.Worst.Fits || p.Worst.Margin < slack:
		p.Fate = MayFail
	}
	if !k.RangeCheck && p.Fate != Loads {
		p.MayWrap, err = mayWrap(c, grown)
	}
	return p, err
}

// mayWrap reports whether some jump may need just one or two slots too many:
// the offset it has as the code stands and the one it has at worst are on the
// two sides of that, or close.
func mayWrap(c, grown *code) (bool, error) {
	var atWorst []int
	if err := grown.jumps(func(j Jump) { atWorst = append(atWorst, j.Need) }); err != nil {
		return false, err
	}
	n, may := 0, false
	err := c.jumps(func(j Jump) {
		in := c.prog[j.From]
		if !j.Forward && in.IsImmediate() && Width(c.prog, j.From, c.kernel) > 1 {
			may = may || j.Need >= -c.limit-2 && atWorst[n]-slack <= -c.limit-1
		}
		n++
	})
	return may, err
}
