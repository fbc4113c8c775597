// SPDX-License-Identifier: Apache-2.0

package object

import (
	"fmt"
	"maps"
	"slices"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/rewrite"
)

// FixOptions say how an object is fixed. The zero value places islands where they are needed.
type FixOptions struct {
	Kernel blinding.Kernel
	// Limit is the largest distance, in slots after blinding, that a jump may keep. 0: a function
	// of which blinding.Predict says that it loads stays as it is, and the others get the largest
	// limit with which it says so.
	Limit int
	// Gotol places gotol instead, for kernels that take it.
	Gotol bool
}

// Fixed is an object whose functions survive constant blinding.
type Fixed struct {
	// Bytes are the object, those of the original when nothing had to change.
	Bytes []byte
	// Object is what Bytes say, read again.
	Object *Object
	// Functions are those that changed, in the order of the file.
	Functions []FixedFunction
	// Stale names sections that describe the original's instructions still: DWARF, which loaders do
	// not read.
	Stale []string

	moved map[int][]int // for each section that changed, where its slots are now
}

// Changed reports whether anything had to change.
func (f *Fixed) Changed() bool { return len(f.Functions) > 0 }

// FixedFunction is what was done to one function.
type FixedFunction struct {
	Function
	Limit         int // that was kept
	Before, After int // slots
	Islands       int
	Detours       []FixedJump
}

// FixedJump is a jump that no longer goes straight to its target.
type FixedJump struct {
	From, To   int // slots of the original function
	Need       int // the offset that it needed after blinding
	Hops       int // the islands on its way
	Gotol      bool
	Source     Line // of the jump; the zero Line where it is not known
	TargetLine Line
}

// Fix returns the object with every jump of every function within reach after blinding. What it
// does not need to change keeps its bytes; where nothing needs to change, all of it does.
//
// Before it returns, the result has been read again and held against the original: functions, what
// each relocation names, and the line of each instruction. Objects whose code something else pins
// are refused with the reason.
func (o *Object) Fix(options FixOptions) (*Fixed, error) {
	e := &editor{object: o, image: o.image, edits: map[int]*edit{}, types: map[int]string{}}
	for _, p := range o.Programs {
		e.types[p.index] = p.Type()
	}
	for _, i := range slices.Sorted(maps.Keys(o.code)) {
		if err := e.section(o.code[i], options); err != nil {
			return nil, err
		}
	}
	if len(e.edits) == 0 {
		return &Fixed{Bytes: o.image.bytes, Object: o}, nil
	}
	if err := e.refuse(); err != nil {
		return nil, err
	}
	b, err := e.build()
	if err != nil {
		return nil, err
	}
	fixed, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("read the result again: %w", err)
	}
	if err := e.verify(fixed); err != nil {
		return nil, fmt.Errorf("hold the result against the original: %w", err)
	}
	moved := map[int][]int{}
	for i, ed := range e.edits {
		moved[i] = ed.new
	}
	return &Fixed{Bytes: b, Object: fixed, Functions: e.report, Stale: e.stale(), moved: moved}, nil
}

// rewrite returns nil for a function that needs nothing.
//
//revive:disable-next-line:cyclomatic one step after the other, and each may fail
func (o *Object) rewrite(c *code, f *Function, options FixOptions, source blinding.Source) (*rewrite.Result, int, error) {
	body := slices.Clone(c.insns[f.start:f.end])
	for i := range body {
		// The kernel does not blind the address of a function; the object has a load like any other
		// there.
		if r, ok := c.at(f.start + i); ok && body[i].IsWide() && o.namesCode(r) {
			body[i].Src = insn.PseudoFunc
		}
	}
	whole := []insn.Function{{Start: 0, End: len(body)}}
	how := rewrite.Options{
		Kernel: options.Kernel, Limit: options.Limit, Gotol: options.Gotol, Functions: whole,
		Relocated: func(int) bool { return true }, // the section sees to calls
	}
	if options.Limit != 0 {
		r, err := rewrite.Rewrite(body, how)
		if err != nil || !r.Changed() {
			return nil, 0, err
		}
		return r, options.Limit, nil
	}
	now, err := fate(body, options.Kernel, source)
	if err != nil || now == blinding.Loads {
		return nil, 0, err
	}
	var best *rewrite.Result
	limit := 0
	for _, how.Limit = range rewrite.Limits() {
		r, err := rewrite.Rewrite(body, how)
		switch {
		case err != nil && best != nil:
			return best, limit, nil // too tight for this function
		case err != nil:
			return nil, 0, err
		case !r.Changed():
			continue
		}
		best, limit = r, how.Limit
		if now, err = fate(r.Program, options.Kernel, source); err != nil || now == blinding.Loads {
			break
		}
	}
	return best, limit, err
}

// fate is what becomes of a function in the worst case.
func fate(body []insn.Instruction, k blinding.Kernel, source blinding.Source) (blinding.Fate, error) {
	p, err := blinding.Predict(body, []insn.Function{{Start: 0, End: len(body)}}, k, source)
	if err != nil {
		return 0, err
	}
	if p.MayWrap && p.Fate == blinding.Loads {
		return blinding.MayFail, nil
	}
	return p.Fate, nil
}

func (o *Object) namesCode(r relocation) bool {
	s := o.image.definedIn(&o.image.symbols[r.symbol])
	return s != nil && s.isCode()
}

// account says what was done to a function.
func (o *Object) account(f *Function, limit int, r *rewrite.Result) FixedFunction {
	fixed := FixedFunction{Function: *f, Limit: limit, Before: f.end - f.start, After: len(r.Program), Islands: r.Islands}
	for _, d := range r.Detours {
		j := FixedJump{From: d.From, To: d.To, Need: d.Need, Hops: len(d.Via), Gotol: d.Gotol}
		j.Source, _ = o.lineAt(*f, f.start+d.From)
		j.TargetLine, _ = o.lineAt(*f, f.start+d.To)
		fixed.Detours = append(fixed.Detours, j)
	}
	return fixed
}
