// SPDX-License-Identifier: Apache-2.0

// Package ladder decides how programs are loaded that constant blinding may break.
//
// There are three rungs, the least costly first:
//
//  1. as it is: what the kernel takes and compiles is left as it is;
//  2. rewritten, with jump islands (package rewrite), within wider limits first;
//  3. as it is, in a window in which net.core.bpf_jit_harden is 1 instead of 2. Only where the
//     caller asks for it.
//
// The order and every decision are here. What loads is the caller's ([Way]): a public library, a
// proxy, a replay of a trace. Nothing here touches the kernel.
package ladder

import (
	"errors"
	"slices"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
)

// Rung is a way to load a program.
type Rung int

const (
	AsIs Rung = iota
	Rewritten
	InWindow
)

func (r Rung) String() string { return [...]string{"as it is", "rewritten", "in a window"}[r] }

// Interpreted says which programs may be kept that the kernel has loaded and not compiled.
type Interpreted int

const (
	// Never: who loaded it gets nothing.
	Never Interpreted = iota
	// Harmless: those that run as others do. To run one that has what only compiled code can run
	// may crash the machine (internal/objects/jitonly).
	Harmless
	// Always is for those who load to look, and never run a program.
	Always
)

// Rules say how far a caller goes.
type Rules struct {
	// Kernel is how the kernel blinds.
	Kernel blinding.Kernel
	// Limits are those of rewriting, the widest first (rewrite.Limits). Without any, nothing is
	// rewritten.
	Limits []int
	// Guess begins with the first limit of which it is predicted that it will do.
	Guess bool
	// Gotol reports whether the kernel takes gotol. nil: it is not used.
	Gotol func() bool
	// Afford says why a program costs the kernel too much to load it. nil: none does.
	Afford func([]insn.Instruction) error
	// Words has each program loaded as it is first, for what the verifier says of it: also one that
	// would be compiled wrongly, which is not kept then.
	Words bool
	// Window, unless nil, allows the third rung.
	Window *Window
	// Interpreted says what may be kept, and Danger what running a program that was not compiled
	// may do to the machine, "" if it runs as others do. Danger is needed for Harmless alone.
	Interpreted Interpreted
	Danger      func(*Program) string
}

// Window is how the third rung is tried, and whether it can be of use.
type Window struct {
	// Load is that of Way while a window is open. Windows take turns, and each has a deadline: that
	// is for who opens it.
	Load func() Seen
	// Harden is net.core.bpf_jit_harden as it is when no window of the caller is open. nil: who
	// opens the window looks.
	Harden func() int
	// Spared says that the kernel does not blind the loader's programs at 1.
	Spared bool
}

// Why the third rung is skipped.
var (
	ErrNotTwo    = errors.New("net.core.bpf_jit_harden is not 2")
	ErrNotSpared = errors.New("net.core.bpf_jit_harden=1 does not spare a loader without CAP_SYS_ADMIN on this kernel")
)

func (w *Window) applies() error {
	switch {
	case w.Harden != nil && w.Harden() != 2:
		return ErrNotTwo
	case !w.Spared:
		return ErrNotSpared // at 1 the kernel would do to its program what it does at 2
	}
	return nil
}

// A Way loads the programs of one caller, all in one go.
type Way interface {
	// Load loads each program in the form that it has now (Program.Form).
	Load() Seen
	// Drop closes what was loaded last: something better comes.
	Drop()
}

// Seen is what came of a load.
type Seen struct {
	// Err is nil if all programs were loaded.
	Err error
	// Program is the one that Err is about, nil if blinding cannot have broken that.
	Program *Program
	// Blinding says that blinding may be the reason of Err: see MayBeBlinding and IsBlinding.
	Blinding bool
	// Interpreted are the programs that were loaded and not compiled.
	Interpreted []*Program
	// Closed says why no window was opened. Nothing was loaded then.
	Closed error
}

// What a program ends with that the kernel has not refused.
var (
	// ErrWraps: blinding may make a jump go to the wrong place. It was not loaded, or not kept.
	ErrWraps = errors.New("constant blinding may make a jump of the program go to the wrong place")
	// ErrInterpreted: it was loaded and not compiled, and not kept.
	ErrInterpreted = errors.New("the kernel does not compile the program after constant blinding")
)

// Outcome is where the ladder ended.
type Outcome struct {
	// Err is nil if the programs of the last load are good enough. It is that of the last load, of
	// Rules.Afford, ErrWraps or ErrInterpreted.
	Err error
	// Program is the one that Err is about, if that is known, and Danger what running it may do.
	Program *Program
	Danger  string
	// Loads is how many loads came to nothing before the last.
	Loads int
	// NoWindow says why the third rung was skipped, or why no window was opened on it. nil: one was
	// opened, or none was wanted or asked for.
	NoWindow error
}

// climb is one way up.
type climb struct {
	*Rules
	programs []*Program
	way      Way
	loads    int
	noWindow error
}

// Climb loads programs, and goes up the ladder with those that blinding breaks until what was
// loaded is good enough, or nothing is left to try.
func Climb(r *Rules, programs []*Program, way Way) Outcome {
	c := &climb{Rules: r, programs: programs, way: way}
	o := c.start()
	if o == nil {
		o = c.climb()
	}
	o.Loads, o.NoWindow = max(0, c.loads-1), c.noWindow
	return *o
}

// start rewrites the programs that must not be loaded as they are, or are known to fail. It returns
// an outcome where that decides all.
func (c *climb) start() *Outcome {
	for _, p := range c.programs {
		wraps := p.wraps() && !c.Words
		if p.Hopeless || !wraps && p.Known == 0 {
			continue
		}
		found, err := p.next(c.Rules)
		switch {
		case err != nil:
			return &Outcome{Err: err, Program: p}
		case found:
			p.early = true
		case wraps:
			return &Outcome{Err: ErrWraps, Program: p}
		}
	}
	if len(c.programs) == 1 && c.programs[0].Hopeless {
		return c.window(c.programs, ErrInterpreted)
	}
	return nil
}

func (c *climb) climb() *Outcome {
	for {
		c.loads++
		seen := c.way.Load()
		if seen.Err != nil {
			if o := c.refused(seen); o != nil {
				return o
			}
			continue
		}
		bad := c.broken(seen.Interpreted)
		if len(bad) == 0 {
			return c.end(seen.Interpreted, nil)
		}
		more, err := c.up(bad, false)
		if err != nil {
			c.way.Drop()
			return &Outcome{Err: err, Program: bad[0]}
		}
		if more && !c.lost(bad) {
			c.way.Drop()
			continue
		}
		if c.Window == nil || c.noWindow != nil {
			return c.end(seen.Interpreted, bad)
		}
		c.way.Drop()
		o := c.window(bad, ErrInterpreted)
		if o.Err == nil || c.noWindow == nil || c.Interpreted == Never {
			return o
		}
		for _, p := range bad {
			p.hopeless = true // as it was, and interpreted
		}
	}
}

// refused goes on after a load that the kernel refused. It returns the outcome where that does not
// lead to another load.
func (c *climb) refused(seen Seen) *Outcome {
	if !seen.Blinding || seen.Program == nil {
		return &Outcome{Err: seen.Err, Program: seen.Program}
	}
	bad := []*Program{seen.Program}
	switch more, err := c.up(bad, true); {
	case err != nil:
		return &Outcome{Err: err, Program: seen.Program}
	case more:
		return nil
	}
	return c.window(bad, seen.Err)
}

// broken are those of the programs that were loaded for which there may be something better: they
// are not compiled, or may be compiled wrongly.
func (c *climb) broken(interpreted []*Program) []*Program {
	var bad []*Program
	for _, p := range c.programs {
		if !p.hopeless && (slices.Contains(interpreted, p) || p.form == nil && p.wraps()) {
			bad = append(bad, p)
		}
	}
	return bad
}

// lost reports whether a load as it was is of no use, since a program that rewriting does not help
// goes on to the window, or ends it all.
func (c *climb) lost(bad []*Program) bool {
	return (c.Interpreted == Never || c.Window != nil) && slices.ContainsFunc(bad, func(p *Program) bool { return p.hopeless })
}

// up rewrites programs more tightly than before. It returns false when nothing has changed. refused
// says that the kernel loads none of them otherwise, so that one that cannot be helped ends it all.
func (c *climb) up(bad []*Program, refused bool) (more bool, err error) {
	for _, p := range bad {
		found, err := p.next(c.Rules)
		switch {
		case err != nil:
			return false, err
		case found:
			more = true
		case refused:
			p.hopeless = true
			return false, nil
		case !p.wraps() || c.Words: // as it was, and interpreted
			more = more || p.form != nil
			p.form, p.hopeless = nil, true
		default:
			p.hopeless = true
		}
	}
	if !more {
		return false, nil
	}
	// Those that are sure to fail need not fail one after the other.
	for _, p := range c.programs {
		if p.form == nil && !p.hopeless && p.Prediction.Fate == blinding.Fails {
			if _, err := p.next(c.Rules); err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// window loads the programs as they are in a window, but for those that would be compiled wrongly
// should others write the setting meanwhile. cause is what becomes of those that are bad without
// one.
func (c *climb) window(bad []*Program, cause error) *Outcome {
	if c.Window == nil || c.noWindow != nil {
		return &Outcome{Err: cause, Program: bad[0]}
	}
	if err := c.Window.applies(); err != nil {
		c.noWindow = err
		return &Outcome{Err: cause, Program: bad[0]}
	}
	before := make([]current, len(c.programs))
	for i, p := range c.programs {
		if before[i] = p.current; !p.wraps() || c.Words {
			p.current = current{}
		}
	}
	seen := c.Window.Load()
	if seen.Err != nil || seen.Closed != nil {
		for i, p := range c.programs {
			p.current = before[i]
		}
	}
	if c.noWindow = seen.Closed; c.noWindow != nil {
		return &Outcome{Err: cause, Program: bad[0]}
	}
	c.loads++
	if seen.Err != nil {
		return &Outcome{Err: seen.Err, Program: seen.Program}
	}
	for _, p := range bad {
		p.windowed, p.hopeless = true, false
	}
	return c.end(seen.Interpreted, slices.DeleteFunc(bad, func(p *Program) bool { return !slices.Contains(seen.Interpreted, p) }))
}

// end decides whether what was loaded may be kept. Of programs that were not compiled, those that
// blinding broke come first.
func (c *climb) end(interpreted, bad []*Program) *Outcome {
	all := slices.Clone(bad)
	for _, p := range interpreted {
		if !slices.Contains(bad, p) {
			all = append(all, p)
		}
	}
	if c.Interpreted == Always || len(all) == 0 {
		return &Outcome{}
	}
	unfit := Outcome{Err: ErrInterpreted, Program: all[0]}
	if c.Danger != nil {
		for _, p := range all {
			if danger := c.Danger(p); danger != "" {
				unfit.Program, unfit.Danger = p, danger
				break
			}
		}
	}
	if c.Interpreted == Harmless && unfit.Danger == "" {
		return &Outcome{}
	}
	c.way.Drop()
	return &unfit
}
