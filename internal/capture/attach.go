// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// collection is what is loaded and attached.
type collection struct {
	backend  backend
	hooks    []trace.Hook
	locked   bool // lockdown=confidentiality
	objects  bool // new maps and BTF are reported
	programs map[string]*ebpf.Program
	records  *ebpf.Map
	asked    *ebpf.Map
	lost     *ebpf.Map
	maps     map[string]*ebpf.Map
	// links are referenced here because a link that is collected as garbage detaches silently.
	links   []io.Closer
	closers []io.Closer
}

// attach tries the backends in turn: functions inside the kernel first, then the system call from outside.
func attach(opts Options, nonce uint64) (*collection, error) {
	type attempt struct {
		name backend
		try  func(Options, uint64) (*collection, error)
	}
	inside := func(allowed ...backend) func(Options, uint64) (*collection, error) {
		return func(o Options, n uint64) (*collection, error) { return attachFunctions(o, n, allowed) }
	}
	all := []attempt{
		{fentry, inside(fentry, kprobe)},
		{kprobe, inside(kprobe)}, // the first tries kprobes itself where fentry is refused
		{tracepoint, attachTracepoints},
		{tpBTF, attachBTFTracepoints},
	}
	locked := probeKernelReads()
	var tried []error
	for _, a := range all {
		if opts.Backend == "" && a.name == kprobe || opts.Backend != "" && backend(opts.Backend) != a.name {
			continue
		}
		if locked != nil && a.name != tpBTF {
			tried = []error{locked}
			continue
		}
		c, err := a.try(opts, nonce)
		if err == nil {
			c.explainMissing(tried)
			c.locked = locked != nil
			return c, nil
		}
		tried = append(tried, fmt.Errorf("%s: %w", a.name, err))
	}
	return nil, fmt.Errorf("watch bpf(2): %w", errors.Join(tried...))
}

// explainMissing says why the functions inside the kernel are not watched, when the backend could not.
func (c *collection) explainMissing(tried []error) {
	why := fmt.Sprintf("backend %s was asked for", c.backend)
	if len(tried) > 0 {
		why = oneLine(errors.Join(tried...))
	}
	for i := range c.hooks {
		if c.hooks[i].Via == "" && c.hooks[i].Why == "" {
			c.hooks[i].Why = why
		}
	}
}

// oneLine joins the lines of joined errors.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

var (
	errFentry = errors.New("the kernel refuses fentry")
	errKprobe = errors.New("no kprobes (CONFIG_KPROBES is off)")
	errLocked = errors.New("the kernel is locked down (confidentiality): BPF may not read its memory, and tracing is closed")
)

// attachFunctions watches the kernel's own functions by fentry and kprobe.
func attachFunctions(opts Options, nonce uint64, allowed []backend) (*collection, error) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's BTF: %w", err)
	}
	spec, err := configured(loadCore, opts, nonce)
	if err != nil {
		return nil, err
	}
	c := &collection{backend: allowed[0]}
	var reasons []error
	usable := func(b backend, err error) bool {
		if !slices.Contains(allowed, b) {
			return false
		}
		if err != nil {
			reasons = append(reasons, err)
		}
		return err == nil
	}
	fentryOK := slices.Contains(allowed, fentry) && usable(fentry, probeFentry("bpf_int_jit_compile"))
	kprobeOK := slices.Contains(allowed, kprobe) && usable(kprobe, probeKprobe())
	if !fentryOK && !kprobeOK {
		return nil, errors.Join(reasons...)
	}
	if !fentryOK {
		c.backend = kprobe
	}

	type chosen struct {
		*target
		via backend
	}
	var list []chosen
	keep := []string{"task_exit"}
	if opts.OnlyFollowed {
		keep = append(keep, "task_fork")
	}
	syscall := false
	for _, h := range hooks() {
		if h.function == load.FnSyscall && syscall {
			continue
		}
		t, err := h.resolve(kernel)
		if err != nil {
			c.missing(h.function, err)
			continue
		}
		via := backend("")
		switch {
		case fentryOK && h.programs(fentry) != nil && (!t.byValue || probeFentry(t.symbol) == nil):
			via = fentry
		case kprobeOK && h.programs(kprobe) != nil:
			via = kprobe
		case h.shape == fexitAny && !fentryOK:
			c.missing(h.function, errors.New("only fentry reaches it cheaply: a kretprobe would slow every system call of confined tasks"))
			continue
		case h.shape == say:
			c.missing(h.function, fmt.Errorf("variadic, so only a kprobe reaches it: %w", errKprobe))
			continue
		default:
			c.missing(h.function, errors.Join(reasons...))
			continue
		}
		if err := t.configure(spec); err != nil {
			return nil, fmt.Errorf("configure %s: %w", t.symbol, err)
		}
		for _, name := range h.programs(via) {
			keep = append(keep, name)
			if via == fentry {
				spec.Programs[name].AttachTo = t.symbol
			}
		}
		list = append(list, chosen{t, via})
		syscall = syscall || h.function == load.FnSyscall
	}
	if !syscall {
		return nil, fmt.Errorf("watch the system call: %w", errNoFunction)
	}
	if err := c.load(spec, keep); err != nil {
		return nil, err
	}

	tracefs, err := openTracefs()
	if err == nil {
		c.closers = append(c.closers, tracefs)
		removeDeadProbes(tracefs)
	}
	// The system call comes first in the list, and is attached last. The others wait for grace periods of the kernel, so they
	// wait together.
	errs := make([]error, len(list))
	links := make([][]io.Closer, len(list))
	var all sync.WaitGroup
	for i, t := range list[1:] {
		all.Go(func() { links[i+1], errs[i+1] = c.attachTarget(t.target, t.via, tracefs) })
	}
	all.Wait()
	links[0], errs[0] = c.attachTarget(list[0].target, list[0].via, tracefs)
	for i, t := range list {
		c.links = append(c.links, links[i]...)
		if errs[i] != nil {
			c.missing(t.function, errs[i])
			continue
		}
		c.watched(t.function, t.symbol, t.via)
	}
	if errs[0] != nil {
		c.Close()
		return nil, fmt.Errorf("attach %s to %s: %w", list[0].via, list[0].symbol, errs[0])
	}
	if err := c.attachLife(opts, tracefs); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// attachTarget attaches a hook's programs, the one at the end first: a start without an end is worse than an end without a start.
func (c *collection) attachTarget(t *target, via backend, tracefs *os.Root) ([]io.Closer, error) {
	names := t.programs(via)
	slices.Reverse(names)
	var links []io.Closer
	for _, name := range names {
		l, err := c.attachProgram(name, t.symbol, via, tracefs)
		if err != nil {
			return links, err
		}
		links = append(links, l)
	}
	return links, nil
}

func (c *collection) attachProgram(name, symbol string, via backend, tracefs *os.Root) (io.Closer, error) {
	p := c.programs[name]
	switch {
	case via == fentry:
		return link.AttachTracing(link.TracingOptions{Program: p})
	case strings.HasPrefix(name, "kretprobe_"):
		if tracefs != nil {
			return newReturnProbe(tracefs, symbol, p.FD())
		}
		return link.Kretprobe(symbol, p, nil)
	}
	l, err := link.Kprobe(symbol, p, nil)
	if err != nil {
		// verbose is the name of a variable too from 6.1 on: the function is reached by its address
		if offset, err2 := textOffset(symbol); err2 == nil {
			return link.Kprobe("_text", p, &link.KprobeOptions{Offset: offset})
		}
	}
	return l, err
}

// attachLife attaches what follows tasks: their ends, and their children where processes are followed.
func (c *collection) attachLife(opts Options, tracefs *os.Root) error {
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sched_process_exit", Program: c.programs["task_exit"]})
	if err != nil {
		return fmt.Errorf("attach to sched_process_exit: %w", err)
	}
	c.links = append(c.links, l)
	fork := c.programs["task_fork"]
	if !opts.OnlyFollowed || fork == nil {
		return nil
	}
	if fork.Type() == ebpf.RawTracepoint {
		l, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sched_process_fork", Program: fork})
		if err != nil {
			return fmt.Errorf("attach to sched_process_fork: %w", err)
		}
		c.links = append(c.links, l)
		return nil
	}
	return c.attachTracepoint(tracefs, "sched", "sched_process_fork", "task_fork")
}

// The system calls that classic tracepoints watch: tracefs name, and the function that it stands for.
var syscalls = []struct {
	name     string
	function load.Function
}{
	{"setsockopt", load.FnSockFilter},
	{"prctl", load.FnSeccomp},
	{"seccomp", load.FnSeccomp},
	{"bpf", load.FnSyscall}, // last, as everywhere
}

// attachTracepoints watches the system calls from outside, with what the kernel says of the loaded program where it may be read.
func attachTracepoints(opts Options, nonce uint64) (*collection, error) {
	tracefs, err := openTracefs()
	if err != nil {
		return nil, err
	}
	c := &collection{backend: tracepoint, closers: []io.Closer{tracefs}}
	loaders := []func() (*ebpf.CollectionSpec, error){loadPlain}
	if _, err := btf.LoadKernelSpec(); err == nil {
		loaders = []func() (*ebpf.CollectionSpec, error){loadCore, loadPlain}
	}
	var errs []error
	for _, l := range loaders {
		err := c.loadTracepoints(l, opts, nonce)
		if err == nil {
			errs = nil
			c.objects = true
			break
		}
		errs = append(errs, err)
	}
	if errs != nil {
		tracefs.Close()
		return nil, errors.Join(errs...)
	}
	for _, s := range syscalls {
		err := c.attachTracepoint(tracefs, "syscalls", "sys_exit_"+s.name, "exit_"+s.name)
		if err == nil {
			err = c.attachTracepoint(tracefs, "syscalls", "sys_enter_"+s.name, "enter_"+s.name)
		}
		if err != nil {
			if s.function == load.FnSyscall {
				c.Close()
				return nil, err
			}
			c.missing(s.function, err)
			continue
		}
		c.watched(s.function, "sys_enter_"+s.name+", sys_exit_"+s.name, tracepoint)
	}
	if err := c.attachLife(opts, tracefs); err != nil {
		c.Close()
		return nil, err
	}
	c.fromOutside(tracepoint)
	return c, nil
}

func (c *collection) loadTracepoints(loader func() (*ebpf.CollectionSpec, error), opts Options, nonce uint64) error {
	spec, err := configured(loader, opts, nonce)
	if err != nil {
		return err
	}
	if err := spec.Variables["cfg_objects"].Set(uint8(1)); err != nil {
		return err
	}
	keep := []string{"task_exit"}
	for _, s := range syscalls {
		keep = append(keep, "enter_"+s.name, "exit_"+s.name)
	}
	if opts.OnlyFollowed {
		keep = append(keep, "task_fork")
	}
	return c.load(spec, keep)
}

func (c *collection) attachTracepoint(tracefs *os.Root, group, event, program string) error {
	id, err := eventID(tracefs, group, event)
	if err != nil {
		return err
	}
	l, err := attachEvent(id, c.programs[program].FD())
	if err != nil {
		return fmt.Errorf("attach to %s/%s: %w", group, event, err)
	}
	c.links = append(c.links, l)
	return nil
}

// attachBTFTracepoints is the last resort, for lockdown=confidentiality: no kernel memory is read but the arguments of the
// tracepoints themselves.
func attachBTFTracepoints(opts Options, nonce uint64) (*collection, error) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's BTF: %w", err)
	}
	spec, err := configured(loadPlain, opts, nonce)
	if err != nil {
		return nil, err
	}
	if err := spec.Variables["cfg_objects"].Set(uint8(1)); err != nil {
		return nil, err
	}
	if err := spec.Variables["cfg_task_pid"].Set(offsetOf(kernel, "task_struct", "pid")); err != nil {
		return nil, err
	}
	programs := map[string]*ebpf.ProgramSpec{}
	names := []string{"task_exit", "btf_sys_exit", "btf_sys_enter"}
	if opts.OnlyFollowed {
		names = append(names, "btf_task_fork")
	}
	for _, name := range names {
		programs[name] = spec.Programs[name]
	}
	c := &collection{backend: tpBTF, objects: true}
	if err := c.load(spec, nil); err != nil {
		return nil, err
	}
	for _, name := range names {
		p, err := c.loadVerbatim(kernel, programs[name])
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("load program %s: %w", name, err)
		}
		c.closers = append(c.closers, p)
		c.programs[name] = p
		var l link.Link
		if p.Type() == ebpf.Tracing {
			l, err = link.AttachTracing(link.TracingOptions{Program: p})
		} else {
			l, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sched_process_exit", Program: p})
		}
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("attach %s: %w", name, err)
		}
		c.links = append(c.links, l)
	}
	for _, s := range syscalls {
		c.watched(s.function, "sys_enter, sys_exit", tpBTF)
	}
	c.fromOutside(tpBTF)
	return c, nil
}

// fromOutside names the functions that a backend from outside does not watch. A policy in front of bpf(2) shows as an end without a start.
func (c *collection) fromOutside(b backend) {
	c.watched(load.FnDenied, "sys_exit", b)
	for _, h := range hooks() {
		if !slices.ContainsFunc(c.hooks, func(t trace.Hook) bool { return t.Function == h.function }) {
			c.hooks = append(c.hooks, trace.Hook{Function: h.function})
		}
	}
}

// loadVerbatim loads a program as it is. cilium/ebpf would rewrite bpf_probe_read_user to bpf_probe_read, because it takes lockdown
// for a kernel before 5.5, and lockdown refuses that one.
func (c *collection) loadVerbatim(kernel *btf.Spec, spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	insns := slices.Clone(spec.Instructions)
	for i := range insns {
		if insns[i].IsLoadFromMap() && insns[i].Reference() != "" {
			m := c.maps[insns[i].Reference()]
			if m == nil {
				return nil, fmt.Errorf("no map %q", insns[i].Reference())
			}
			if err := insns[i].AssociateMap(m); err != nil {
				return nil, err
			}
		}
	}
	attachBTF := uint32(0)
	if spec.Type == ebpf.Tracing {
		var t *btf.Typedef
		if err := kernel.TypeByName("btf_trace_"+spec.AttachTo, &t); err != nil {
			return nil, fmt.Errorf("find tracepoint in BTF: %w", err)
		}
		id, err := kernel.TypeID(t)
		if err != nil {
			return nil, err
		}
		attachBTF = uint32(id)
	}
	return loadRaw(spec, insns, attachBTF)
}

// configured loads a spec and sets what does not depend on the hooks.
func configured(loader func() (*ebpf.CollectionSpec, error), opts Options, nonce uint64) (*ebpf.CollectionSpec, error) {
	spec, err := loader()
	if err != nil {
		return nil, fmt.Errorf("read the embedded object: %w", err)
	}
	dev, ino, err := pidNamespace()
	if err != nil {
		return nil, err
	}
	var comm [16]int8
	for i := range min(len(opts.Comm), 15) {
		comm[i] = int8(opts.Comm[i])
	}
	for name, v := range map[string]any{
		"cfg_nonce": nonce, "cfg_ns_dev": dev, "cfg_ns_ino": ino, "cfg_copy_max": uint32(copyMax), "cfg_log_max": uint32(logMax),
		"cfg_cgroup": opts.CgroupID, "cfg_cgroup_level": uint32(opts.CgroupLevel), "cfg_comm": comm,
		"cfg_filter_comm": flag(opts.Comm != ""), "cfg_filter_pid": flag(opts.OnlyFollowed),
		"cfg_failed_only": flag(opts.FailedOnly), "cfg_all": flag(opts.All),
	} {
		if err := spec.Variables[name].Set(v); err != nil {
			return nil, fmt.Errorf("configure %s: %w", name, err)
		}
	}
	return spec, nil
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// pidNamespace identifies our own pid namespace as the kernel does: its dev_t is not laid out like that of stat(2).
func pidNamespace() (dev, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0, 0, fmt.Errorf("read our own pid namespace: %w", err)
	}
	return uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev)), st.Ino, nil
}

// load loads the maps and the programs that are named.
func (c *collection) load(spec *ebpf.CollectionSpec, keep []string) error {
	for name := range spec.Programs {
		if !slices.Contains(keep, name) {
			delete(spec.Programs, name)
		}
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return fmt.Errorf("load our own programs: %w", err)
	}
	c.programs = coll.Programs
	c.records, c.asked, c.lost = coll.Maps["records"], coll.Maps["asked"], coll.Maps["losses"]
	c.closers = append(c.closers, closer(coll.Close))
	c.maps = coll.Maps
	return nil
}

type closer func()

func (c closer) Close() error { c(); return nil }

func (c *collection) missing(f load.Function, why error) {
	if slices.ContainsFunc(c.hooks, func(t trace.Hook) bool { return t.Function == f && t.Via != "" }) {
		return
	}
	c.hooks = slices.DeleteFunc(c.hooks, func(t trace.Hook) bool { return t.Function == f })
	c.hooks = append(c.hooks, trace.Hook{Function: f, Why: oneLine(why)})
}

func (c *collection) watched(f load.Function, symbol string, via backend) {
	c.hooks = slices.DeleteFunc(c.hooks, func(t trace.Hook) bool { return t.Function == f && (t.Via == "" || t.Symbol == symbol) })
	c.hooks = append(c.hooks, trace.Hook{Function: f, Symbol: symbol, Via: string(via)})
}

// detach stops the observation and leaves the ring readable.
func (c *collection) detach() error {
	errs := make([]error, len(c.links))
	var all sync.WaitGroup
	for i, l := range c.links {
		all.Go(func() { errs[i] = l.Close() })
	}
	all.Wait()
	c.links = nil
	return errors.Join(errs...)
}

func (c *collection) Close() error {
	errs := []error{c.detach()}
	for i := len(c.closers) - 1; i >= 0; i-- {
		errs = append(errs, c.closers[i].Close())
	}
	c.closers = nil
	return errors.Join(errs...)
}

// probeKernelReads reports whether lockdown keeps BPF from reading the kernel's memory: everything but tp_btf needs that. The verifier then takes
// the helper for unknown.
func probeKernelReads() error {
	p, err := loadRaw(&ebpf.ProgramSpec{Type: ebpf.Kprobe, License: "Dual BSD/GPL", Name: "bpfwhy_read"}, asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R10), asm.Add.Imm(asm.R1, -8), asm.Mov.Imm(asm.R2, 8), asm.Mov.Imm(asm.R3, 0),
		asm.FnProbeReadKernel.Call(), asm.Mov.Imm(asm.R0, 0), asm.Return(),
	}, 0)
	if errors.Is(err, unix.EINVAL) {
		return errLocked
	}
	if err == nil {
		p.Close()
	}
	return nil // what else is wrong, the loads themselves say
}

// probeFentry reports whether the kernel lets a program be attached at a function's entry.
func probeFentry(symbol string) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: symbol, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return fmt.Errorf("%w: %s", errFentry, reason(err))
	}
	defer p.Close()
	l, err := link.AttachTracing(link.TracingOptions{Program: p})
	if err != nil {
		return fmt.Errorf("%w: %s", errFentry, reason(err))
	}
	return l.Close()
}

// reason is the kernel's own answer inside an error, without the guesses that libraries add.
func reason(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return fmt.Sprintf("%s (%d)", unix.ErrnoName(errno), int(errno))
	}
	return oneLine(err)
}

// probeKprobe reports whether the kernel has kprobes.
func probeKprobe() error {
	if _, err := os.Stat("/sys/bus/event_source/devices/kprobe"); err == nil {
		return nil
	}
	tracefs, err := openTracefs()
	if err != nil {
		return errKprobe
	}
	defer tracefs.Close()
	if _, err := tracefs.Stat("kprobe_events"); err != nil {
		return errKprobe
	}
	return nil
}

// offsetOf is the offset in bytes of a member of a kernel struct, 0 when it has none.
func offsetOf(kernel *btf.Spec, name, member string) uint32 {
	var s *btf.Struct
	if err := kernel.TypeByName(name, &s); err != nil {
		return 0
	}
	for _, m := range s.Members {
		if m.Name == member {
			return m.Offset.Bytes()
		}
	}
	return 0
}
