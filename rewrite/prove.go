// SPDX-License-Identifier: Apache-2.0

package rewrite

import (
	"fmt"
	"slices"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
)

// prove holds a result against the model of blinding and against the original:
// every instruction is where New says and differs in distances alone, every
// jump ends up where it did, and what was inserted is gotos that nothing falls
// into.
func prove(prog []insn.Instruction, r *Result, o Options, functions []insn.Function) error {
	var err error
	if r.After, err = blinding.CheckFunctions(r.Program, r.Functions, o.Kernel); err != nil {
		return err
	}
	if !r.After.Fits || r.After.Margin < blinding.MaxOffset-o.Limit {
		return fmt.Errorf("the jump at slot %d still needs an offset of %d", r.After.Jump.From, r.After.Jump.Need)
	}
	if len(r.Program) == len(prog) && len(r.Detours) == 0 {
		if !slices.Equal(r.Program, prog) {
			return fmt.Errorf("instructions changed where none needed to")
		}
		return nil
	}
	p := prover{prog: prog, r: r, inserted: make([]bool, len(r.Program))}
	for i := range p.inserted {
		p.inserted[i] = true
	}
	for i := range prog {
		p.inserted[r.New[i]] = false
	}
	for i := range prog {
		if err := p.instruction(i, o.Relocated); err != nil {
			return err
		}
	}
	for n, f := range functions {
		if r.Functions[n].Start != r.New[f.Start] {
			return fmt.Errorf("the function at slot %d does not begin with its first instruction", f.Start)
		}
	}
	return nil
}

type prover struct {
	prog     []insn.Instruction
	r        *Result
	inserted []bool // slots of the result that are not in the original
}

// instruction checks slot i of the original.
//
//revive:disable-next-line:cyclomatic each thing that must be as before is checked
func (p *prover) instruction(i int, relocated func(int) bool) error {
	at := p.r.New[i]
	old, now := p.prog[i], p.r.Program[at]
	if insn.IsSecondHalf(p.prog, i) && p.r.New[i-1] != at-1 {
		return fmt.Errorf("the 64-bit load at slot %d is split", i-1)
	}
	// Code that went on to the next instruction still does.
	if i+1 < len(p.prog) && !old.IsGoto() && !old.IsExit() && p.land(at+1) != p.r.New[i+1] {
		return fmt.Errorf("slot %d no longer goes on to the next", i)
	}
	if to, ok := old.Target(i); ok {
		if want, got := p.r.New[to], p.destination(at); got != want {
			return fmt.Errorf("the jump at slot %d goes to %d and not to %d", i, got, want)
		}
		if old.IsGoto() && now.IsGoto() {
			return nil
		}
		now.Off = old.Off
		if old != now {
			return fmt.Errorf("the jump at slot %d became another", i)
		}
		return nil
	}
	if to, ok := old.CallTarget(i); ok && !relocated(i) {
		if got := at + 1 + int(now.Imm); got != p.r.New[to] {
			return fmt.Errorf("slot %d names the function at %d and not at %d", i, got, p.r.New[to])
		}
		now.Imm = old.Imm
	}
	if old != now {
		return fmt.Errorf("slot %d became another instruction", i)
	}
	return nil
}

// destination follows the jump at a slot of the result over islands.
func (p *prover) destination(at int) int {
	to, _ := p.r.Program[at].Target(at)
	return p.land(to)
}

// land follows what was inserted from a slot until it leads to the original, -1
// when it does not.
func (p *prover) land(at int) int {
	for range len(p.r.Program) {
		if at < 0 || at >= len(p.inserted) {
			return -1
		}
		if !p.inserted[at] {
			return at
		}
		to, ok := p.r.Program[at].Target(at)
		if !ok || !p.r.Program[at].IsGoto() {
			return -1
		}
		at = to
	}
	return -1
}
