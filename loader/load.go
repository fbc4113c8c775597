// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/assemble"
	"github.com/bpfwhy/bpfwhy/internal/jitonly"
	"github.com/bpfwhy/bpfwhy/internal/verbatim"
	"github.com/bpfwhy/bpfwhy/rewrite"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// ErrMiscompiled is returned in place of a program that a hardened kernel before
// 7.1 might compile wrongly without a word: a jump whose offset wraps after
// constant blinding. The kernel has not seen the program.
var ErrMiscompiled = errors.New("constant blinding may make a jump of the program go to the wrong place")

// ErrNotJITed is returned, with [Loader.RequireJIT], in place of a program that
// the kernel would interpret.
var ErrNotJITed = errors.New("the kernel does not compile the program after constant blinding")

// ErrJITOnly is returned, unless [Loader.AllowJITOnly] is set, in place of a program that the kernel has loaded without compiling it,
// and that has instructions which only compiled code can run: running it may crash the machine. Kernels from 6.9 on load such programs; 7.3
// refuses most of them itself. The program was not attached and did not run, and is unloaded.
var ErrJITOnly = errors.New("the kernel would interpret the program, which has what only compiled code can run: running it may crash the machine")

// Programs with fewer slots are far too short for a jump of 32,767 slots, however
// much they grow: nothing is asked about them.
const shortest = 3000

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

// memory is what a Loader has learnt of this node.
type memory struct {
	mu     sync.Mutex
	broken map[content]int // the limit with which the kernel took them
	gotol  *bool
	closed *bool // the kernel's memory is, and that of processes is not
}

func (m *memory) limit(c content) (int, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	limit, ok := m.broken[c]
	return limit, ok
}

func (m *memory) learn(c content, limit int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken == nil {
		m.broken = make(map[content]int)
	}
	m.broken[c] = limit
}

// hasGotol reports whether the kernel takes gotol, found out by loading one.
func (m *memory) hasGotol() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gotol == nil {
		// As bpfwhy itself asks: who watches knows it, and tells of no failure.
		own, err := verbatim.Instructions(assemble.OwnGotol())
		if err != nil {
			return false
		}
		p, err := ebpf.NewProgramWithOptions(&ebpf.ProgramSpec{
			Name: assemble.OwnName, Type: ebpf.SocketFilter, License: "Dual BSD/GPL", Instructions: own,
		}, ebpf.ProgramOptions{LogDisabled: true})
		if err == nil {
			p.Close()
		} else if saysNothing(err) {
			return false
		}
		ok := err == nil
		m.gotol = &ok
	}
	return *m.gotol
}

// saysNothing reports an error that says nothing of what the kernel knows.
func saysNothing(err error) bool {
	return errors.Is(err, errPermission) || errors.Is(err, errMemory)
}

// isClosed reports whether the kernel lets programs read memory of processes and
// not its own, found out by loading two: lockdown=confidentiality.
func (m *memory) isClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed == nil {
		kernel, user := verbatim.Try(asm.FnProbeReadKernel), verbatim.Try(asm.FnProbeReadUser)
		if saysNothing(kernel) || saysNothing(user) {
			return false
		}
		ok := errors.Is(kernel, syscall.EINVAL) && user == nil
		m.closed = &ok
	}
	return *m.closed
}

// knowsClosed is isClosed without asking the kernel.
func (m *memory) knowsClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed != nil && *m.closed
}

// only is the name of a program that was not loaded in a collection.
const only = ""

// candidate is a program that blinding may break.
type candidate struct {
	name       string
	spec       *ebpf.ProgramSpec
	code       *code
	prediction blinding.Prediction
	limits     []int // that are still to be tried, nil before the first
	result     *rewrite.Result
	repair     Repair
	wraps      bool // never to be loaded as it is
	hopeless   bool // nothing helps; it may be loaded as it is
	content    content
	danger     string // what running it interpreted may do
}

// attempt is one call of a function of the package.
type attempt struct {
	l          *Loader
	specs      map[string]*ebpf.ProgramSpec
	maps       map[string]*ebpf.MapSpec
	candidates []*candidate
	kernel     blinding.Kernel
	verbatim   map[string]bool // programs that cilium/ebpf must not change, nil before there is a reason
	early      bool            // it was known that there is one
	loads      int
	closed     error // why no harden window opened
}

// source is one of cilium/ebpf's functions. It may be called several times, and
// is told what to load instead of what the spec has, and whether to ask for a log
// should that fail. It returns the programs
// that are there afterwards, and a function that closes all that it has made.
type source func(changed rewritten, log bool) (programs map[string]*ebpf.Program, drop func(), err error)

// load loads programs.
func (l *Loader) load(specs map[string]*ebpf.ProgramSpec, maps map[string]*ebpf.MapSpec, load source) error {
	a := &attempt{l: l, specs: specs, maps: maps}
	if err := a.prepare(); err != nil {
		return err
	}
	for {
		programs, drop, err := load(a.changed(all), true)
		if err != nil && a.refusesSubstitute(err) {
			a.keepVerbatim()
			a.loads++
			continue
		}
		if err != nil && isBlinding(err) {
			blamed := a.blamed(err)
			if !l.Off && a.retry(blamed, true) {
				a.loads++
				continue
			}
			if l.HardenWindow && len(blamed) > 0 {
				a.loads++
				programs, drop, err = a.inWindow(load, blamed, err)
			}
		}
		if err != nil {
			return a.explain(err)
		}
		bad := a.uncompiled(programs)
		if !l.Off && a.retry(bad, false) && !((l.RequireJIT || l.HardenWindow) && slices.ContainsFunc(bad, func(c *candidate) bool { return c.hopeless })) {
			drop()
			a.loads++
			continue
		}
		if l.HardenWindow && len(bad) > 0 && a.closed == nil {
			drop()
			a.loads++
			if programs, drop, err = a.inWindow(load, bad, nil); err != nil {
				switch {
				case a.closed == nil:
					return a.explain(err)
				case l.RequireJIT:
					return bad[0].unjited(a)
				}
				for _, c := range bad {
					c.hopeless = true // as it was, and interpreted
				}
				continue
			}
			bad = a.uncompiled(programs)
		}
		if l.RequireJIT || !l.AllowJITOnly {
			if c := a.interpreted(programs, bad); c != nil {
				drop()
				return c.unjited(a)
			}
		}
		a.done(programs)
		return nil
	}
}

func all(*candidate) bool { return true }

// changed is what is loaded instead of what the specs have, of the candidates
// that are to be.
func (a *attempt) changed(which func(*candidate) bool) rewritten {
	changed := make(rewritten)
	for _, c := range a.candidates {
		if c.result != nil && which(c) {
			changed[c.name] = c.code.apply(c.spec.Instructions, c.result)
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

// uncompiled are the candidates that were loaded and not compiled, but for those
// that are known to be hopeless.
func (a *attempt) uncompiled(programs map[string]*ebpf.Program) []*candidate {
	var bad []*candidate
	for _, c := range a.candidates {
		if p := programs[c.name]; p != nil && !c.hopeless && uncompiled(p) {
			bad = append(bad, c)
		}
	}
	return bad
}

// inWindow loads with hardening at 1, where nothing of a privileged loader is
// blinded: everything is loaded as it is, but for programs that would be compiled
// wrongly should others write the sysctl. cause is the error without a window,
// which it returns where there is none: a.closed says why.
func (a *attempt) inWindow(load source, bad []*candidate, cause error) (programs map[string]*ebpf.Program, drop func(), err error) {
	changed := a.changed(func(c *candidate) bool { return c.wraps })
	window, err := around(func() (map[string]*ebpf.Program, error) {
		programs, drop, err = load(changed, false) // others are exposed meanwhile
		return programs, err
	})
	switch {
	case err == nil:
	case drop != nil: // the window did not close
		drop()
		return nil, nil, err
	case window.Open == 0: // it did not open
		a.closed = err
		if a.l.NoWindow != nil {
			a.l.NoWindow(err)
		}
		return nil, nil, fmt.Errorf("%w; and no window in the hardening: %w", cmp.Or(cause, ErrNotJITed), err)
	default:
		return nil, nil, err
	}
	for _, c := range a.candidates {
		if !c.wraps {
			c.result = nil
		}
	}
	for _, c := range bad {
		c.repair, c.hopeless = Repair{Program: c.repair.Program, Window: window}, false
	}
	return programs, drop, nil
}

// interpreted is a program that the kernel has not compiled and that must not be returned, nil when there is none: because it may crash the
// machine, or because every program is to be compiled. Those that blinding broke come first.
func (a *attempt) interpreted(programs map[string]*ebpf.Program, bad []*candidate) *candidate {
	candidates := slices.Clone(bad)
	for _, name := range slices.Sorted(maps.Keys(a.specs)) {
		p := programs[name]
		if p == nil || slices.ContainsFunc(bad, func(c *candidate) bool { return c.name == name }) || !uncompiled(p) {
			continue
		}
		i := slices.IndexFunc(a.candidates, func(c *candidate) bool { return c.name == name })
		if i >= 0 {
			candidates = append(candidates, a.candidates[i])
			continue
		}
		c := &candidate{name: name, spec: a.specs[name]}
		c.code, _ = codeOf(c.spec.Instructions)
		c.repair.Program = cmp.Or(name, c.spec.Name)
		candidates = append(candidates, c)
	}
	for _, c := range candidates {
		if c.danger = a.danger(programs[c.name], c); c.danger != "" && !a.l.AllowJITOnly {
			return c
		}
	}
	if a.l.RequireJIT && len(candidates) > 0 {
		return candidates[0]
	}
	return nil
}

// danger says what running a program that was not compiled may do to the machine, "" if it runs as others do.
func (a *attempt) danger(p *ebpf.Program, c *candidate) string {
	k := jitOnlyKernel()
	types := make(map[int]uint32)
	if c.code != nil {
		for i := range c.spec.Instructions {
			if t, ok := a.mapType(&c.spec.Instructions[i]); ok {
				types[c.code.slots[i]] = t
			}
		}
	}
	made, shown := dump(p)
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

// prepare finds the programs that blinding may break, when it may be on, and
// rewrites those that must not be loaded as they are or are known to fail. Those
// that cilium/ebpf is known to change for nothing it keeps as they are.
func (a *attempt) prepare() error {
	if a.early = !a.l.Off && a.l.memory.knowsClosed(); a.early {
		a.keepVerbatim()
	}
	if !mayBeBlinded() {
		return nil
	}
	a.kernel = thisKernel()
	for _, name := range slices.Sorted(maps.Keys(a.specs)) {
		spec := a.specs[name]
		if spec == nil || spec.Type == ebpf.UnspecifiedProgram || len(spec.Instructions) < shortest/2 {
			continue
		}
		code, err := codeOf(spec.Instructions)
		if err != nil || len(code.insns) < shortest {
			continue // cilium/ebpf will say what is wrong
		}
		p, err := code.predict(spec.Type, a.kernel)
		if err != nil || p.Fate == blinding.Loads {
			continue
		}
		c := &candidate{name: name, spec: spec, code: code, prediction: p, wraps: p.MayWrap, content: code.content(spec.Type)}
		c.repair.Program = cmp.Or(name, spec.Name)
		a.candidates = append(a.candidates, c)
		known, ok := a.l.memory.limit(c.content)
		switch {
		case a.l.Off && c.wraps:
			return c.miscompiled(a)
		case a.l.Off:
		case ok || c.wraps:
			c.limits = a.limits(c)
			if ok {
				c.limits = append([]int{known}, slices.DeleteFunc(c.limits, func(l int) bool { return l >= known })...)
			}
			if c.repair.Early = c.next(a); !c.repair.Early && c.wraps {
				return c.miscompiled(a)
			}
		}
	}
	return nil
}

// limits are those to try for a program: the caller's, or those that may do by
// the prediction, the widest of them first.
func (a *attempt) limits(c *candidate) []int {
	if a.l.Limits != nil {
		return slices.Clone(a.l.Limits)
	}
	limits := rewrite.Limits()
	for n, limit := range limits {
		if r, err := c.rewrite(a, limit); err == nil && r.Changed() && c.safe(a, r, blinding.Loads) {
			return limits[n:]
		}
	}
	return limits
}

func (c *candidate) rewrite(a *attempt, limit int) (*rewrite.Result, error) {
	return rewrite.Rewrite(c.code.insns, rewrite.Options{
		Kernel: a.kernel, Limit: limit, Functions: c.code.functions, Gotol: a.l.Gotol && a.l.memory.hasGotol(),
	})
}

// safe reports whether a result is predicted to fare no worse than a fate, and
// will not wrap.
func (c *candidate) safe(a *attempt, r *rewrite.Result, worst blinding.Fate) bool {
	rewritten := code{insns: r.Program, functions: r.Functions}
	p, err := rewritten.predict(c.spec.Type, a.kernel)
	return err == nil && p.Fate <= worst && !p.MayWrap
}

// next rewrites the program with the next limit that makes a difference. It
// returns false when there is none.
func (c *candidate) next(a *attempt) bool {
	if c.limits == nil {
		c.limits = a.limits(c)
	}
	for len(c.limits) > 0 {
		limit := c.limits[0]
		c.limits = c.limits[1:]
		r, err := c.rewrite(a, limit)
		if err != nil || !r.Changed() || c.result != nil && slices.Equal(r.Program, c.result.Program) || !c.safe(a, r, blinding.MayFail) {
			continue
		}
		c.result = r
		c.repair.Limit, c.repair.Gotol = limit, a.l.Gotol && a.l.memory.hasGotol()
		c.repair.Islands, c.repair.Added = r.Islands, r.Added
		c.repair.Before, c.repair.After = r.Before, r.After
		return true
	}
	return false
}

// retry rewrites the programs that have failed, more tightly than before. It
// returns false when nothing has changed. fatal says that a program that cannot
// be helped ends it all.
func (a *attempt) retry(bad []*candidate, fatal bool) bool {
	any := false
	for _, c := range bad {
		switch {
		case c.next(a):
			any = true
		case fatal:
			return false
		case !c.wraps:
			// As it was, and interpreted.
			any = any || c.result != nil
			c.result, c.hopeless = nil, true
		default:
			c.hopeless = true
		}
	}
	if any {
		// Those that are sure to fail need not fail one after the other.
		for _, c := range a.candidates {
			if c.result == nil && !c.hopeless && c.prediction.Fate == blinding.Fails {
				c.next(a)
			}
		}
	}
	return any
}

// blamed are the programs that an error may be about.
func (a *attempt) blamed(err error) []*candidate {
	name, ok := a.named(err)
	if !ok {
		return nil
	}
	for _, c := range a.candidates {
		if c.name == name {
			return []*candidate{c}
		}
	}
	return nil // blinding cannot have broken that one
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

// done remembers and reports.
func (a *attempt) done(programs map[string]*ebpf.Program) {
	repairs := make(map[string]Repair)
	for name := range a.verbatim {
		repairs[name] = Repair{Program: cmp.Or(name, a.specs[name].Name), Early: a.early}
	}
	for _, c := range a.candidates {
		if c.result == nil && c.repair.Window == nil || programs[c.name] == nil {
			continue
		}
		if c.repair.Window == nil && !c.hopeless {
			a.l.memory.learn(c.content, c.repair.Limit)
		}
		repairs[c.name] = c.repair
	}
	if a.l.Report == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(repairs)) {
		if programs[name] == nil {
			continue
		}
		r := repairs[name]
		r.Verbatim, r.Loads = a.verbatim[name], a.loads
		a.l.Report(r)
	}
}
