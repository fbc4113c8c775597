// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/objects/jitonly"
	"github.com/bpfwhy/bpfwhy/internal/repair/ladder"
	"github.com/bpfwhy/bpfwhy/internal/sys/verbatim"
	"github.com/bpfwhy/bpfwhy/rewrite"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// ErrMiscompiled is returned in place of a program that a hardened kernel before
// 7.1 might compile wrongly without a word: a jump whose offset wraps after
// constant blinding. The kernel has not seen the program.
var ErrMiscompiled = ladder.ErrWraps

// ErrNotJITed is returned, with [Loader.RequireJIT], in place of a program that
// the kernel would interpret.
var ErrNotJITed = ladder.ErrInterpreted

// ErrJITOnly is returned, unless [Loader.AllowJITOnly] is set, in place of a program that the
// kernel has loaded without compiling it, and that has instructions which only compiled code can
// run: running it may crash the machine. Kernels from 6.9 on load such programs; 7.3 refuses most
// of them itself. The program was not attached and did not run, and is unloaded.
var ErrJITOnly = errors.New("the kernel would interpret the program, which has what only compiled code can run: running it may crash the machine")

// rewritten are the instructions of the programs that are not given to
// cilium/ebpf as they are, by name.
type rewritten map[string]asm.Instructions

func (r rewritten) collection(spec *ebpf.CollectionSpec) *ebpf.CollectionSpec {
	if len(r) == 0 {
		return spec
	}
	spec = spec.Copy()
	for name, instructions := range r {
		spec.Programs[name].Instructions = instructions
	}
	return spec
}

func (r rewritten) program(name string, spec *ebpf.ProgramSpec) *ebpf.ProgramSpec {
	instructions, ok := r[name]
	if !ok {
		return spec
	}
	spec = spec.Copy()
	spec.Instructions = instructions
	return spec
}

// only is the name of a program that was not loaded in a collection.
const only = ""

// candidate is a program of which something is to be decided, by the ladder or when it was not
// compiled.
type candidate struct {
	*ladder.Program
	spec    *ebpf.ProgramSpec
	code    *code
	content content
	danger  string // what running it interpreted may do
}

// attempt is one call of a function of the package. It is a way up the ladder.
type attempt struct {
	l          *Loader
	specs      map[string]*ebpf.ProgramSpec
	maps       map[string]*ebpf.MapSpec
	source     source
	candidates []*candidate // that blinding may break
	others     []*candidate // that were not compiled all the same
	kernel     blinding.Kernel
	verbatim   map[string]bool // programs that cilium/ebpf must not change, nil before there is a reason
	early      bool            // it was known that there is one
	loads      int             // that came to nothing
	closed     error           // why no harden window opened

	// What was loaded last.
	programs map[string]*ebpf.Program
	drop     func()
	window   *Window
}

// source is one of cilium/ebpf's functions. It may be called several times, and
// is told what to load instead of what the spec has, and whether to ask for a log
// should that fail. It returns the programs
// that are there afterwards, and a function that closes all that it has made.
type source func(changed rewritten, log bool) (programs map[string]*ebpf.Program, drop func(), err error)

// load loads programs.
func (l *Loader) load(specs map[string]*ebpf.ProgramSpec, maps map[string]*ebpf.MapSpec, load source) error {
	a := &attempt{l: l, specs: specs, maps: maps, source: load}
	a.prepare()
	programs := make([]*ladder.Program, len(a.candidates))
	for i, c := range a.candidates {
		programs[i] = c.Program
	}
	out := ladder.Climb(a.rules(), programs, a)
	a.loads, a.closed = a.loads+out.Loads, out.NoWindow
	switch {
	case out.Err == nil:
		a.done()
		return nil
	case errors.Is(out.Err, ErrMiscompiled):
		return a.candidate(out.Program.Name).miscompiled(a)
	case errors.Is(out.Err, ErrNotJITed):
		c := a.candidate(out.Program.Name)
		c.danger = out.Danger
		return c.unjited(a)
	}
	return a.explain(a.noWindow(out.Err))
}

// noWindow adds to an error why no window was opened, where one was asked for.
func (a *attempt) noWindow(err error) error {
	if a.closed == nil {
		return err
	}
	return fmt.Errorf("%w; and no window in the hardening: %w", err, a.closed)
}

// rules are how far the caller lets the loader go.
func (a *attempt) rules() *ladder.Rules {
	r := &ladder.Rules{Kernel: a.kernel, Interpreted: ladder.Harmless, Danger: a.danger}
	if !a.l.Off {
		if r.Limits = a.l.Limits; r.Limits == nil {
			r.Limits, r.Guess = rewrite.Limits(), true
		}
		if a.l.Gotol {
			r.Gotol = a.l.memory.hasGotol
		}
	}
	if a.l.HardenWindow {
		r.Window = &ladder.Window{Load: a.inWindow, Spared: true} // it needs CAP_SYS_ADMIN, and the guardian looks at the setting
	}
	switch {
	case a.l.RequireJIT:
		r.Interpreted = ladder.Never
	case a.l.AllowJITOnly:
		r.Interpreted = ladder.Always
	}
	return r
}

// Load loads the programs as the ladder has them.
func (a *attempt) Load() ladder.Seen {
	for {
		programs, drop, err := a.source(a.changed(), true)
		switch {
		case err == nil:
			return a.loaded(programs, drop)
		case !a.refusesSubstitute(err):
			return a.failed(err)
		}
		a.keepVerbatim()
		a.loads++
	}
}

// inWindow loads them with hardening at 1, where nothing of a privileged loader is blinded.
func (a *attempt) inWindow() ladder.Seen {
	var programs map[string]*ebpf.Program
	var drop func()
	window, err := around(func() (_ map[string]*ebpf.Program, err error) {
		programs, drop, err = a.source(a.changed(), false) // without a log: others are exposed meanwhile
		return programs, err
	})
	switch {
	case err == nil:
		a.window = window
		return a.loaded(programs, drop)
	case drop != nil: // the window did not close
		drop()
	case window.Open == 0: // it did not open
		if a.l.NoWindow != nil {
			a.l.NoWindow(err)
		}
		return ladder.Seen{Closed: err}
	}
	return a.failed(err)
}

// Drop closes what was loaded last.
func (a *attempt) Drop() { a.drop() }

func (a *attempt) failed(err error) ladder.Seen {
	s := ladder.Seen{Err: err, Blinding: isBlinding(err)}
	if c := a.blamed(err); c != nil {
		s.Program = c.Program
	}
	return s
}

func (a *attempt) loaded(programs map[string]*ebpf.Program, drop func()) ladder.Seen {
	a.programs, a.drop = programs, drop
	var s ladder.Seen
	all := a.l.RequireJIT || !a.l.AllowJITOnly // else nothing hangs on those that blinding cannot break
	for _, name := range slices.Sorted(maps.Keys(a.specs)) {
		if p := programs[name]; p != nil && (all || a.suspect(name) != nil) && uncompiled(p) {
			s.Interpreted = append(s.Interpreted, a.candidate(name).Program)
		}
	}
	return s
}

// suspect is the program of a name if blinding may break it, else nil.
func (a *attempt) suspect(name string) *candidate { return byName(a.candidates, name) }

func byName(list []*candidate, name string) *candidate {
	if i := slices.IndexFunc(list, func(c *candidate) bool { return c.Name == name }); i >= 0 {
		return list[i]
	}
	return nil
}

// candidate is one by name, also of those that blinding cannot break.
func (a *attempt) candidate(name string) *candidate {
	if c := cmp.Or(a.suspect(name), byName(a.others, name)); c != nil {
		return c
	}
	c := &candidate{Program: &ladder.Program{Name: name}, spec: a.specs[name]}
	c.code, _ = codeOf(c.spec.Instructions)
	a.others = append(a.others, c)
	return c
}

// changed is what is loaded instead of what the specs have.
func (a *attempt) changed() rewritten {
	changed := make(rewritten)
	for _, c := range a.candidates {
		if form := c.Form(); form != nil {
			changed[c.Name] = c.code.apply(c.spec.Instructions, form)
		}
	}
	for name := range a.verbatim {
		program, ok := changed[name]
		if !ok {
			program = a.specs[name].Instructions
		}
		changed[name] = verbatim.Calls(program)
	}
	return changed
}

// refusesSubstitute reports an error that may be about what cilium/ebpf makes of
// reads of processes' memory where the kernel's is closed.
func (a *attempt) refusesSubstitute(err error) bool {
	name, ok := a.named(err)
	return ok && !a.l.Off && a.verbatim == nil && verbatim.ReadsUser(a.specs[name].Instructions) &&
		(errors.Is(err, syscall.EINVAL) || errors.Is(err, errPermission)) && a.l.memory.isClosed()
}

// keepVerbatim has programs that read processes' memory loaded as they are. Should
// one read the kernel's too, on a path that is not dead, the kernel says so.
func (a *attempt) keepVerbatim() {
	a.verbatim = make(map[string]bool)
	for name, spec := range a.specs {
		if spec != nil && verbatim.ReadsUser(spec.Instructions) {
			a.verbatim[name] = true
		}
	}
}

// danger says what running a program that was not compiled may do to the machine, "" if it runs as
// others do.
func (a *attempt) danger(p *ladder.Program) string {
	c, k := a.candidate(p.Name), jitOnlyKernel()
	types := make(map[int]uint32)
	if c.code != nil {
		for i := range c.spec.Instructions {
			if t, ok := a.mapType(&c.spec.Instructions[i]); ok {
				types[c.code.slots[i]] = t
			}
		}
	}
	made, shown := dump(a.programs[p.Name])
	if !shown {
		made = nil
	}
	var submitted []insn.Instruction
	if c.code != nil {
		submitted = c.code.insns
	}
	return jitonly.Danger(made, submitted, func(slot int) (uint32, bool) {
		t, ok := types[slot]
		return t, ok
	}, slices.Collect(maps.Values(types)), k)
}

// mapType is the type of the map that an instruction loads.
func (a *attempt) mapType(in *asm.Instruction) (uint32, bool) {
	if !in.IsLoadFromMap() {
		return 0, false
	}
	if m := a.maps[in.Reference()]; m != nil {
		return uint32(m.Type), true
	}
	if m, ok := in.Map().(*ebpf.Map); ok && m != nil {
		return uint32(m.Type()), true
	}
	return mapTypeOf(int(int32(in.Constant)))
}

// prepare finds the programs that blinding may break, when it may be on. Those that cilium/ebpf is
// known to change for nothing it keeps as they are.
func (a *attempt) prepare() {
	if a.early = !a.l.Off && a.l.memory.knowsClosed(); a.early {
		a.keepVerbatim()
	}
	if !mayBeBlinded() {
		return
	}
	a.kernel = thisKernel()
	for _, name := range slices.Sorted(maps.Keys(a.specs)) {
		spec := a.specs[name]
		if spec == nil || spec.Type == ebpf.UnspecifiedProgram || 2*len(spec.Instructions) < ladder.Fewest {
			continue
		}
		code, err := codeOf(spec.Instructions)
		if err != nil {
			continue // cilium/ebpf will say what is wrong
		}
		p := ladder.Suspect(code.insns, code.functions, abi.ProgTypeName(uint32(spec.Type)), a.kernel)
		if p == nil {
			continue
		}
		c := &candidate{Program: p, spec: spec, code: code, content: code.content(spec.Type)}
		c.Name = name
		if !a.l.Off {
			c.Known = a.l.memory.limit(c.content)
		}
		a.candidates = append(a.candidates, c)
	}
}

// blamed is the program that an error is about, nil if blinding cannot have broken that.
func (a *attempt) blamed(err error) *candidate {
	if name, ok := a.named(err); ok {
		return a.suspect(name)
	}
	return nil
}

// isBlinding reports an error that constant blinding may have caused.
func isBlinding(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	var v *ebpf.VerifierError
	if !errors.As(err, &v) {
		return errno != syscall.EINVAL && ladder.MayBeBlinding(int(errno), nil)
	}
	return ladder.MayBeBlinding(int(errno), v.Log)
}

// named is the program that an error names, or the only one.
func (a *attempt) named(err error) (string, bool) {
	text := err.Error()
	for name := range a.specs {
		if name == only || strings.Contains(text, fmt.Sprintf("program %s: ", name)) {
			return name, true
		}
	}
	return "", false
}

// repair is what was done to a program.
func (c *candidate) repair(a *attempt) Repair {
	r := Repair{Program: cmp.Or(c.Name, c.spec.Name), Loads: a.loads}
	if c.Rung() == ladder.InWindow {
		r.Window = a.window
		return r
	}
	if form := c.Form(); form != nil {
		r.Early, r.Limit, r.Gotol = c.Early(), c.Limit(), c.Gotol()
		r.Islands, r.Added, r.Before, r.After = form.Islands, form.Added, form.Before, form.After
	}
	return r
}

// done remembers and reports.
func (a *attempt) done() {
	repairs := make(map[string]Repair)
	for name := range a.verbatim {
		repairs[name] = Repair{Program: cmp.Or(name, a.specs[name].Name), Early: a.early, Loads: a.loads}
	}
	for _, c := range a.candidates {
		if c.Rung() == ladder.AsIs || a.programs[c.Name] == nil {
			continue
		}
		if c.Rung() == ladder.Rewritten && !c.Helpless() {
			a.l.memory.learn(c.content, c.Limit())
		}
		repairs[c.Name] = c.repair(a)
	}
	if a.l.Report == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(repairs)) {
		if a.programs[name] == nil {
			continue
		}
		r := repairs[name]
		r.Verbatim = a.verbatim[name]
		a.l.Report(r)
	}
}
