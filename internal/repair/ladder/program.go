// SPDX-License-Identifier: Apache-2.0

package ladder

import (
	"slices"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/rewrite"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// Bounds of the programs that are looked at, in slots.
const (
	// Fewest cannot be blown up to what a jump does not reach: not by the 3 slots that blinding
	// makes of one, nor by what the verifier adds to ordinary code.
	Fewest = 2000
	// Most is the kernel's own.
	Most = 1_000_000
)

// Fits reports whether a program of so many slots is looked at.
func Fits(slots int) bool { return slots > Fewest && slots <= Most }

// Program is one that the ladder is for.
type Program struct {
	Name      string // for the caller
	Insns     []insn.Instruction
	Functions []insn.Function // nil: insn.Functions(Insns)
	Type      string          // as blinding.Source has it
	// Prediction is what blinding may do to it. Where it may wrap, the program is not kept as it
	// is.
	Prediction blinding.Prediction
	// Known is the limit of rewriting with which the kernel took the program before: it begins with
	// that. 0: none is known.
	Known int
	// Hopeless says that it is known that no rewriting helps.
	Hopeless bool

	current
	begun    bool
	limits   []int // that are still to be tried
	early    bool
	hopeless bool
	windowed bool
	noForm   error
}

// current is a program as it is loaded now.
type current struct {
	form  *rewrite.Result // nil: as it is
	limit int
	gotol bool
}

// Suspect makes a program of code that blinding may break on a kernel, by what can be said before
// the verifier has seen it. It returns nil for code that blinding cannot break.
func Suspect(prog []insn.Instruction, functions []insn.Function, typ string, k blinding.Kernel) *Program {
	if !Fits(len(prog)) {
		return nil
	}
	if functions == nil {
		functions = insn.Functions(prog)
	}
	p, err := blinding.Predict(prog, functions, k, blinding.Source{Type: typ})
	if err != nil || p.Fate == blinding.Loads {
		return nil
	}
	return &Program{Insns: prog, Functions: functions, Type: typ, Prediction: p}
}

// Form is the program as it is loaded now, nil where that is as it is.
func (p *Program) Form() *rewrite.Result { return p.form }

// Limit is that of Form, and Gotol reports whether it may have gotol.
func (p *Program) Limit() int  { return p.limit }
func (p *Program) Gotol() bool { return p.gotol }

// Rung is where the program stands.
func (p *Program) Rung() Rung {
	switch {
	case p.windowed:
		return InWindow
	case p.form != nil:
		return Rewritten
	}
	return AsIs
}

// Early reports whether the program was rewritten before the kernel was asked.
func (p *Program) Early() bool { return p.early }

// Helpless reports whether all that rewriting can do was tried, and did not help.
func (p *Program) Helpless() bool { return p.hopeless || p.Hopeless }

// NoForm says why rewriting gave no form of the program, where that is so.
func (p *Program) NoForm() error { return p.noForm }

// wraps reports whether blinding may make a jump go to the wrong place without a word.
func (p *Program) wraps() bool { return p.Prediction.MayWrap || p.Prediction.Verdict.Wraps }

// next rewrites the program with the next limit that makes a difference. It returns false when
// there is none. The error is that of Rules.Afford.
func (p *Program) next(r *Rules) (bool, error) {
	if !p.begun {
		p.begun, p.limits = true, p.first(r)
	}
	for len(p.limits) > 0 {
		limit := p.limits[0]
		p.limits = p.limits[1:]
		form, gotol, err := p.rewrite(r, limit)
		if err != nil {
			p.noForm = err
			continue
		}
		if !form.Changed() || p.form != nil && slices.Equal(form.Program, p.form.Program) || !p.safe(r, form, blinding.MayFail) {
			continue
		}
		if r.Afford != nil {
			if err := r.Afford(form.Program); err != nil {
				return false, err
			}
		}
		p.current = current{form, limit, gotol}
		return true, nil
	}
	return false, nil
}

// first are the limits to try for a program.
func (p *Program) first(r *Rules) []int {
	limits := slices.Clone(r.Limits)
	if r.Guess {
		for n, limit := range limits {
			if form, _, err := p.rewrite(r, limit); err == nil && form.Changed() && p.safe(r, form, blinding.Loads) {
				limits = limits[n:]
				break
			}
		}
	}
	if p.Known > 0 {
		limits = slices.DeleteFunc(limits, func(limit int) bool { return limit >= p.Known })
		limits = slices.Insert(limits, 0, p.Known)
	}
	return limits
}

func (p *Program) rewrite(r *Rules, limit int) (form *rewrite.Result, gotol bool, err error) {
	gotol = r.Gotol != nil && r.Gotol()
	form, err = rewrite.Rewrite(p.Insns, rewrite.Options{Kernel: r.Kernel, Limit: limit, Functions: p.Functions, Gotol: gotol})
	return form, gotol, err
}

// safe reports whether a form is predicted to fare no worse than a fate, and will not wrap.
func (p *Program) safe(r *Rules, form *rewrite.Result, worst blinding.Fate) bool {
	is, err := blinding.Predict(form.Program, form.Functions, r.Kernel, blinding.Source{Type: p.Type})
	return err == nil && is.Fate <= worst && !is.MayWrap
}

// IsBlinding reports an errno that the kernel has for programs alone that it must compile and
// cannot. For those who leave a program to the kernel in any doubt.
func IsBlinding(errno int) bool { return errno == abi.ENOTSUPP }

// MayBeBlinding reports a refusal that constant blinding may have caused: 524, from 7.1 also ENOMEM
// for a program with functions, and EINVAL where the kernel would fall back to its interpreter, had
// the program not something that is for compilers alone: kernel functions, callbacks, tail calls
// beside functions, on 7.2 also per-processor data. The verifier's log tells that from other
// errors, if there is one.
func MayBeBlinding(errno int, log []string) bool {
	if errno != abi.EINVAL {
		return errno == abi.ENOTSUPP || errno == abi.ENOMEM
	}
	const end = 64 // lines: there it says what is wrong, and there can be hundreds of thousands
	return len(log) == 0 || slices.ContainsFunc(log[max(0, len(log)-end):], func(line string) bool {
		switch verifierlog.Classify(line).Kind {
		case verifierlog.PatchRange, verifierlog.NeedsJIT:
			return true
		}
		return false
	})
}
