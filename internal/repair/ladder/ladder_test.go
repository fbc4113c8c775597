// SPDX-License-Identifier: Apache-2.0

package ladder

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/test/randprog"
	"github.com/bpfwhy/bpfwhy/rewrite"
	"github.com/go-quicktest/qt"
)

// answer is what a kernel makes of one program.
type answer int

const (
	compiled answer = iota
	interpreted
	notsupp // 524
	nomem   // ENOMEM
	denied  // EPERM
)

// kernel is a Way that writes down what it is asked for.
type kernel struct {
	programs []*Program
	answers  func(p *Program, window bool) answer
	closed   error
	asked    []string
	kept     bool
}

func (k *kernel) load(window bool) Seen {
	var forms []string
	var seen Seen
	for _, p := range k.programs {
		form := "as it is"
		if p.Form() != nil {
			form = fmt.Sprint(p.Limit())
		}
		forms = append(forms, form)
		if seen.Err != nil {
			continue // as loaders do, which stop at the first
		}
		switch errno := syscall.Errno(0); k.answers(p, window) {
		case interpreted:
			seen.Interpreted = append(seen.Interpreted, p)
		case notsupp:
			errno = abi.ENOTSUPP
			seen = Seen{Err: errno, Program: p, Blinding: MayBeBlinding(int(errno), nil)}
		case nomem:
			errno = abi.ENOMEM
			seen = Seen{Err: errno, Program: p, Blinding: IsBlinding(int(errno))}
		case denied:
			seen = Seen{Err: syscall.EPERM, Program: p}
		}
	}
	asked := strings.Join(forms, "+")
	if window {
		asked += " in a window"
	}
	k.asked = append(k.asked, asked)
	k.kept = seen.Err == nil
	return seen
}

func (k *kernel) Load() Seen { return k.load(false) }

func (k *kernel) inWindow() Seen {
	if k.closed != nil {
		k.asked = append(k.asked, "no window")
		return Seen{Closed: k.closed}
	}
	return k.load(true)
}

func (k *kernel) Drop() {
	if !k.kept {
		panic("nothing to drop")
	}
	k.kept = false
}

// suspect is a program that blinding breaks; one of a loop may be compiled wrongly.
func suspect(t *testing.T, o randprog.Options) *Program {
	t.Helper()
	p := randprog.New(o)
	s := Suspect(p.Insns, p.Functions, "sched_cls", blinding.Kernel{})
	qt.Assert(t, qt.IsNotNil(s))
	return s
}

var errClosed = errors.New("no place for the state file")

func always(a answer) func(*Program, bool) answer {
	return func(*Program, bool) answer { return a }
}

// below compiles forms with a limit of at most so much, and what is in a window, and says the rest
// of all others.
func below(limit int, rest answer) func(*Program, bool) answer {
	return func(p *Program, window bool) answer {
		if window || p.Form() != nil && p.Limit() <= limit {
			return compiled
		}
		return rest
	}
}

func TestClimb(t *testing.T) {
	few := rewrite.FewLimits()
	window := &Window{Spared: true}
	forward, loop := randprog.Options{Seed: 5, Delta: 1}, randprog.Options{Seed: 3, Shape: randprog.Loop, Delta: 1}
	onlyInWindow := below(0, interpreted)
	for _, tt := range []struct {
		name    string
		program randprog.Options
		change  func(*Program)
		rules   Rules
		answers func(*Program, bool) answer
		closed  error

		asked    string
		err      error
		noWindow error
		rung     Rung
		loads    int
		danger   string
	}{
		{name: "as it is", program: forward, rules: Rules{Limits: few}, answers: always(compiled), asked: "as it is"},
		{name: "rewritten", program: forward, rules: Rules{Limits: few}, answers: below(32600, notsupp),
			asked: "as it is, 32600", rung: Rewritten, loads: 1},
		{name: "more tightly", program: forward, rules: Rules{Limits: few}, answers: below(24000, interpreted),
			asked: "as it is, 32600, 30000, 24000", rung: Rewritten, loads: 3},
		{name: "refused for another reason", program: forward, rules: Rules{Limits: few, Window: window}, answers: always(denied),
			asked: "as it is", err: syscall.EPERM},
		{name: "an errno that leaves doubt", program: forward, rules: Rules{Limits: few, Window: window}, answers: always(nomem),
			asked: "as it is", err: syscall.ENOMEM},
		{name: "nothing helps, and it is refused", program: forward, rules: Rules{Limits: []int{32600}}, answers: always(notsupp),
			asked: "as it is, 32600", err: syscall.Errno(abi.ENOTSUPP), rung: Rewritten, loads: 1},
		{name: "nothing helps, and it is interpreted", program: forward, rules: Rules{Limits: []int{32600}, Interpreted: Harmless},
			answers: always(interpreted), asked: "as it is, 32600, as it is", loads: 2},
		{name: "nothing helps, and it may crash the machine", program: forward,
			rules:   Rules{Limits: []int{32600}, Interpreted: Harmless, Danger: func(*Program) string { return "it stops the machine" }},
			answers: always(interpreted), asked: "as it is, 32600, as it is", loads: 2, err: ErrInterpreted, danger: "it stops the machine"},
		{name: "nothing helps, and it is never run", program: forward,
			rules:   Rules{Limits: []int{32600}, Interpreted: Always, Danger: func(*Program) string { return "it stops the machine" }},
			answers: always(interpreted), asked: "as it is, 32600, as it is", loads: 2},
		{name: "nothing helps, and nothing is interpreted", program: forward, rules: Rules{Limits: []int{32600}},
			answers: always(interpreted), asked: "as it is, 32600", loads: 1, err: ErrInterpreted},
		{name: "not rewritten", program: forward, rules: Rules{Interpreted: Harmless}, answers: always(interpreted), asked: "as it is"},
		{name: "the window", program: forward, rules: Rules{Limits: []int{32600}, Window: window}, answers: onlyInWindow,
			asked: "as it is, 32600, as it is in a window", rung: InWindow, loads: 2},
		{name: "the window of one that is refused", program: forward, rules: Rules{Window: window}, answers: below(0, notsupp),
			asked: "as it is, as it is in a window", rung: InWindow, loads: 1},
		{name: "no help in the window", program: forward, rules: Rules{Window: window}, answers: always(notsupp),
			asked: "as it is, as it is in a window", err: syscall.Errno(abi.ENOTSUPP), loads: 1},
		{name: "not compiled in the window", program: forward, rules: Rules{Window: window}, answers: always(interpreted),
			asked: "as it is, as it is in a window", err: ErrInterpreted, loads: 1, rung: InWindow},
		{name: "no window opens", program: forward, rules: Rules{Window: window}, answers: always(interpreted), closed: errClosed,
			asked: "as it is, no window", err: ErrInterpreted, noWindow: errClosed},
		{name: "no window opens, and it is interpreted", program: forward, rules: Rules{Window: window, Interpreted: Harmless},
			answers: always(interpreted), closed: errClosed, asked: "as it is, no window, as it is", noWindow: errClosed, loads: 1},
		{name: "not at 2", program: forward, rules: Rules{Window: &Window{Harden: func() int { return 1 }, Spared: true}},
			answers: always(notsupp), asked: "as it is", err: syscall.Errno(abi.ENOTSUPP), noWindow: ErrNotTwo},
		{name: "not spared", program: forward, rules: Rules{Window: &Window{Harden: func() int { return 2 }}},
			answers: always(notsupp), asked: "as it is", err: syscall.Errno(abi.ENOTSUPP), noWindow: ErrNotSpared},
		{name: "known limit", program: forward, change: func(p *Program) { p.Known = 30000 }, rules: Rules{Limits: few},
			answers: below(24000, notsupp), asked: "30000, 24000", rung: Rewritten, loads: 1},
		{name: "known to be hopeless", program: forward, change: func(p *Program) { p.Hopeless = true }, rules: Rules{Limits: few, Window: window},
			answers: onlyInWindow, asked: "as it is in a window", rung: InWindow},
		{name: "known to be hopeless, and no window", program: forward, change: func(p *Program) { p.Hopeless = true },
			rules: Rules{Limits: few}, answers: onlyInWindow, err: ErrInterpreted},

		{name: "wraps", program: loop, rules: Rules{Limits: few}, answers: always(compiled), asked: "32600", rung: Rewritten},
		{name: "wraps, and is not rewritten", program: loop, rules: Rules{Window: window}, answers: always(compiled), err: ErrWraps},
		{name: "wraps, in a window", program: loop, rules: Rules{Limits: []int{30000}, Window: window}, answers: onlyInWindow,
			asked: "30000, 30000 in a window", rung: InWindow, loads: 1},
		{name: "wraps, for its log", program: loop, rules: Rules{Limits: few, Words: true}, answers: always(compiled),
			asked: "as it is, 32600", rung: Rewritten, loads: 1},
		{name: "wraps, and so may a form of it", program: randprog.Options{Shape: randprog.Loop, Delta: -300, Rich: 8},
			rules: Rules{Limits: few, Words: true}, answers: always(interpreted), asked: "as it is, 30000, 16000", loads: 2, err: ErrInterpreted},
		{name: "wraps, for its log alone", program: loop, rules: Rules{Words: true}, answers: always(compiled),
			asked: "as it is", err: ErrInterpreted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := suspect(t, tt.program)
			if tt.change != nil {
				tt.change(p)
			}
			k := &kernel{programs: []*Program{p}, answers: tt.answers, closed: tt.closed}
			if tt.rules.Window != nil {
				w := *tt.rules.Window
				w.Load, tt.rules.Window = k.inWindow, &w
			}
			o := Climb(&tt.rules, k.programs, k)
			qt.Check(t, qt.Equals(strings.Join(k.asked, ", "), tt.asked))
			qt.Check(t, qt.ErrorIs(o.Err, tt.err))
			qt.Check(t, qt.ErrorIs(o.NoWindow, tt.noWindow))
			qt.Check(t, qt.Equals(p.Rung(), tt.rung))
			qt.Check(t, qt.Equals(o.Loads, tt.loads))
			qt.Check(t, qt.Equals(o.Danger, tt.danger))
			qt.Check(t, qt.Equals(k.kept, o.Err == nil)) // what is not given away is closed
			if o.Err != nil {
				qt.Check(t, qt.Equals(o.Program, p))
			}
		})
	}
}

// One program of a collection is blamed. Those that are sure to fail are rewritten with it.
func TestClimbTogether(t *testing.T) {
	a, b, c := suspect(t, randprog.Options{Seed: 5, Delta: 1}), suspect(t, randprog.Options{Seed: 6, Delta: 2}), suspect(t, randprog.Options{Seed: 7, Delta: -1})
	qt.Assert(t, qt.Equals(c.Prediction.Fate, blinding.MayFail))
	other := &Program{Name: "small"}
	k := &kernel{programs: []*Program{a, b, c}, answers: func(p *Program, _ bool) answer {
		switch {
		case p == c:
			return compiled
		case p == b && p.Limit() == 32600, p.Form() == nil:
			return notsupp
		}
		return compiled
	}}
	o := Climb(&Rules{Limits: rewrite.FewLimits()}, k.programs, k)
	qt.Check(t, qt.IsNil(o.Err))
	qt.Check(t, qt.DeepEquals(k.asked, []string{
		"as it is+as it is+as it is", "32600+32600+as it is", "32600+30000+as it is",
	}))

	// One that blinding cannot break, and that is interpreted all the same, is not kept either.
	k = &kernel{answers: always(compiled), kept: true}
	for _, allowed := range []Interpreted{Never, Harmless} {
		k.programs = []*Program{other}
		k.answers = always(interpreted)
		o = Climb(&Rules{Interpreted: allowed, Danger: func(*Program) string { return "" }}, nil, k)
		if allowed == Harmless {
			qt.Check(t, qt.IsNil(o.Err))
			continue
		}
		qt.Check(t, qt.ErrorIs(o.Err, ErrInterpreted))
		qt.Check(t, qt.Equals(o.Program, other))
	}
}

// Where no window opens, none is tried again for a program that comes to need one later.
func TestOneTry(t *testing.T) {
	a, b := suspect(t, randprog.Options{Seed: 5, Delta: 1}), suspect(t, randprog.Options{Seed: 6, Delta: 2})
	loads := 0
	k := &kernel{programs: []*Program{a, b}, closed: errClosed, answers: func(p *Program, _ bool) answer {
		if p == a {
			loads++
		}
		if p == a || loads > 1 {
			return interpreted
		}
		return compiled
	}}
	o := Climb(&Rules{Window: &Window{Load: k.inWindow, Spared: true}, Interpreted: Harmless}, k.programs, k)
	qt.Check(t, qt.IsNil(o.Err))
	qt.Check(t, qt.ErrorIs(o.NoWindow, errClosed))
	qt.Check(t, qt.DeepEquals(k.asked, []string{"as it is+as it is", "no window", "as it is+as it is"}))
}

// A form that costs the kernel too much ends it all; so does none at all, and it says why.
func TestNoForm(t *testing.T) {
	dear := errors.New("too long")
	p := suspect(t, randprog.Options{Seed: 5, Delta: 1})
	k := &kernel{programs: []*Program{p}, answers: always(interpreted)}
	o := Climb(&Rules{Limits: rewrite.FewLimits(), Afford: func([]insn.Instruction) error { return dear }}, k.programs, k)
	qt.Check(t, qt.ErrorIs(o.Err, dear))
	qt.Check(t, qt.IsFalse(k.kept))
	qt.Check(t, qt.DeepEquals(k.asked, []string{"as it is"}))

	p = suspect(t, randprog.Options{Seed: 5, Delta: 1})
	k.programs = []*Program{p}
	o = Climb(&Rules{Limits: []int{rewrite.MinLimit - 1}}, k.programs, k)
	qt.Check(t, qt.ErrorIs(o.Err, ErrInterpreted))
	qt.Check(t, qt.ErrorMatches(p.NoForm(), ".*the limit 15 is not in .*"))
	qt.Check(t, qt.IsTrue(p.Helpless()))
}

func TestSuspect(t *testing.T) {
	fits := randprog.New(randprog.Options{Seed: 5, Delta: -5000})
	qt.Check(t, qt.IsNil(Suspect(fits.Insns, fits.Functions, "sched_cls", blinding.Kernel{})))
	qt.Check(t, qt.IsNil(Suspect(fits.Insns[:10], nil, "sched_cls", blinding.Kernel{})))
	qt.Check(t, qt.IsFalse(Fits(Fewest)))
	qt.Check(t, qt.IsTrue(Fits(Fewest+1)))
	qt.Check(t, qt.IsTrue(Fits(Most)))
	qt.Check(t, qt.IsFalse(Fits(Most+1)))
}

func TestMayBeBlinding(t *testing.T) {
	walk := slices.Repeat([]string{"3: (07) r7 += 1"}, 100)
	for _, tt := range []struct {
		errno     int
		log       []string
		may, sure bool
	}{
		{errno: 524, may: true, sure: true},
		{errno: 12, may: true},
		{errno: 1},
		{errno: 22, may: true},
		{errno: 22, log: walk},
		{errno: 22, log: append(slices.Clone(walk), "insn 10385 cannot be patched due to 16-bit range"), may: true},
	} {
		qt.Check(t, qt.Equals(MayBeBlinding(tt.errno, tt.log), tt.may), qt.Commentf("%d", tt.errno))
		qt.Check(t, qt.Equals(IsBlinding(tt.errno), tt.sure), qt.Commentf("%d", tt.errno))
	}
}
