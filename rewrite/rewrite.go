// SPDX-License-Identifier: Apache-2.0

// Package rewrite makes programs survive constant blinding.
//
// Blinding stretches a program until a jump no longer fits its 16-bit offset
// (package blinding tells which). A plain goto carries no immediate and is not
// blinded, so a jump that is too long can hop: to a goto placed on its way, an
// island, and on to the next one, each within reach after blinding. Where the
// kernel takes gotol, whose offset has 32 bits, one island is enough for any
// distance.
//
// What the program computes does not change, nor does its length by much: a few
// slots for a typical program, and none where every jump fits already.
package rewrite

import (
	"fmt"
	"math"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
)

// DefaultLimit leaves 167 slots for what the verifier adds to the code between
// a jump and its target before it is blinded.
const DefaultLimit = 32600

// Limits returns limits to try one after the other, widest first, until the
// result is good: how much the verifier adds is only estimated.
func Limits() []int { return []int{DefaultLimit, 30000, 26000, 20000, 14000, 8000, 4000} }

// FewLimits is Limits for those who load each result to find out whether it is
// good, at a price for the program's loader.
func FewLimits() []int { return []int{DefaultLimit, 30000, 24000, 16000} }

// MinLimit is the smallest limit that [Rewrite] takes.
const MinLimit = 16

// Options say what the program is meant to survive. The zero value is right for
// kernels before 7.3 and 7.2.10.
type Options struct {
	Kernel blinding.Kernel
	// Limit is the largest distance, in slots after blinding, that a jump may
	// keep; 0 is DefaultLimit. A smaller one leaves more room for what the
	// verifier inserts.
	Limit int
	// Gotol makes islands of gotol (kernel 6.6, and kernels with a backport):
	// one for any distance. Find out with a probe load whether the kernel takes
	// them; versions do not tell.
	Gotol bool
	// Functions are the functions of the program, in order and without gaps;
	// nil is insn.Functions. Code with calls that are not relocated yet needs
	// them.
	Functions []insn.Function
	// Relocated reports the slots whose immediate a relocation fills in later.
	// Calls and function addresses there are left alone. nil is none.
	Relocated func(slot int) bool
}

// Result is a program of which every jump is within the limit.
type Result struct {
	// Program is the caller's to keep, also where nothing changed.
	Program   []insn.Instruction
	Functions []insn.Function
	// New[i] is the slot in Program of slot i of the original, where jumps to
	// it land; New[len(original)] is len(Program). What was inserted before
	// slot i sits between New[i-1] and New[i], and never inside a 64-bit load
	// or before the first slot of a function.
	New []int
	// Islands counts the islands, Added all slots inserted: the islands and the
	// gotos that lead around them where code would fall into them.
	Islands, Added int
	// Before and After are the verdicts on the original and on Program.
	Before, After blinding.Verdict
	// Detours are the jumps that no longer go straight to their target, in
	// order.
	Detours []Detour
}

// Detour is what became of one jump that was too long.
type Detour struct {
	From, To int   // slots of the original program
	Need     int   // the offset that the jump needed after blinding
	Via      []int // slots in Result.Program of the islands, in order
	// Gotol says that a gotol covers the distance: at Via, or, where Via is
	// empty, in place of the goto at From.
	Gotol bool
}

// Changed reports whether Program differs from the original.
func (r *Result) Changed() bool { return len(r.Detours) > 0 }

// Rewrite returns the program with every 16-bit jump at most o.Limit slots long
// after blinding. A function whose jumps all are keeps its instructions; a
// program of such functions comes back byte for byte. Before it returns, the
// result has been held against the model of blinding and against the original,
// jump by jump.
//
// It returns an error when the program is malformed (a jump that leaves its
// function, half of a 64-bit load), when it jumps through an instruction array,
// whose offsets cannot follow, and when so many jumps cross one place that no
// islands can carry them all.
//
// It takes time in proportion to the program and to the number of islands.
func Rewrite(prog []insn.Instruction, o Options) (*Result, error) {
	r, err := rewrite(prog, o)
	if err != nil {
		return nil, fmt.Errorf("rewrite program: %w", err)
	}
	return r, nil
}

func rewrite(prog []insn.Instruction, o Options) (*Result, error) {
	if o.Limit == 0 {
		o.Limit = DefaultLimit
	}
	if o.Limit < MinLimit || o.Limit > blinding.MaxOffset {
		return nil, fmt.Errorf("the limit %d is not in %d..%d", o.Limit, MinLimit, blinding.MaxOffset)
	}
	if o.Relocated == nil {
		o.Relocated = func(int) bool { return false }
	}
	functions := o.Functions
	if functions == nil {
		functions = insn.Functions(prog)
	}
	before, err := blinding.CheckFunctions(prog, functions, o.Kernel)
	if err != nil {
		return nil, err
	}
	e := &editor{original: prog, options: o, functions: functions}
	// A backward jump has room for one more, so that equality decides nothing.
	if before.Margin <= blinding.MaxOffset-o.Limit {
		if err := e.plan(); err != nil {
			return nil, err
		}
	}
	r, err := e.emit()
	if err != nil {
		return nil, err
	}
	r.Before = before
	if err := prove(prog, r, o, functions); err != nil {
		return nil, err
	}
	return r, nil
}

// editor holds the original and the plan for it.
type editor struct {
	original  []insn.Instruction
	options   Options
	functions []insn.Function
	planned   []*route // of the functions that change, in order
}

// plan finds islands for the functions that need some.
func (e *editor) plan() error {
	pos, err := blinding.Positions(e.original, e.options.Kernel)
	if err != nil {
		return err
	}
	work := maxWork
	for _, f := range e.functions {
		r := newRoute(e.original, f, pos, e.options, &work)
		if !r.needed() {
			continue
		}
		if err := r.find(); err != nil {
			return err
		}
		e.planned = append(e.planned, r)
	}
	return nil
}

// emit builds the program according to the plan.
func (e *editor) emit() (*Result, error) {
	prog, n := e.original, len(e.original)
	added := 0
	for _, p := range e.planned {
		added += p.inserted()
	}
	r := &Result{
		Program: make([]insn.Instruction, 0, n+added),
		New:     make([]int, n+1),
		Added:   added,
	}
	next := 0 // the first original slot that is not copied yet
	copyTo := func(end int) {
		for i := next; i < end; i++ {
			r.New[i] = len(r.Program) + i - next
		}
		r.Program = append(r.Program, prog[next:end]...)
		next = end
	}
	for _, p := range e.planned {
		for s, st := range p.stations {
			if len(st.islands) == 0 {
				continue
			}
			copyTo(st.gap)
			if st.skip {
				r.Program = append(r.Program, insn.Instruction{Code: insn.OpcodeJA, Off: int16(len(st.islands))})
			}
			p.stations[s].slot = len(r.Program)
			for range st.islands {
				r.Program = append(r.Program, insn.Instruction{Code: insn.OpcodeJA})
			}
			r.Islands += len(st.islands)
		}
	}
	copyTo(n)
	r.New[n] = len(r.Program)
	for _, f := range e.functions {
		r.Functions = append(r.Functions, insn.Function{Start: r.New[f.Start], End: r.New[f.End]})
	}
	if r.Added == 0 && len(e.planned) == 0 {
		return r, nil
	}
	if err := e.follow(r); err != nil {
		return nil, err
	}
	for _, p := range e.planned {
		if err := p.connect(r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// follow lets jumps, calls and function addresses go where their targets went.
func (e *editor) follow(r *Result) error {
	n := len(e.original)
	for i, in := range e.original {
		if in.Code == insn.OpcodeGotox {
			return fmt.Errorf("the jump at slot %d takes its target from an instruction array, which does not follow", i)
		}
		at := r.New[i]
		if to, ok := in.Target(i); ok {
			if to < 0 || to >= n {
				return fmt.Errorf("the jump at slot %d goes to %d, outside the program", i, to)
			}
			if in.IsJump16() {
				// Those that are too long get a detour instead.
				r.Program[at].Off = int16(r.New[to] - at - 1)
			} else {
				r.Program[at].Imm = int32(r.New[to] - at - 1)
			}
			continue
		}
		if to, ok := in.CallTarget(i); ok && !e.options.Relocated(i) {
			if to < 0 || to >= n {
				return fmt.Errorf("slot %d names a function at %d, outside the program", i, to)
			}
			r.Program[at].Imm = int32(r.New[to] - at - 1)
		}
	}
	return nil
}

// offset is the distance between two slots as a jump holds it.
func offset(from, to int) (int16, error) {
	d := to - from - 1
	if d < math.MinInt16 || d > math.MaxInt16 {
		return 0, fmt.Errorf("the jump at slot %d would need an offset of %d", from, d)
	}
	return int16(d), nil
}
