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
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/threads"
	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/bpfwhy/bpfwhy/internal/tracefs"
	"github.com/bpfwhy/bpfwhy/load"
)

// collection is what is loaded and attached.
type collection struct {
	backend  backend
	hooks    []trace.Hook
	locked   bool // lockdown=confidentiality
	twins    bool // the kernel preempts programs
	objects  bool // new maps and BTF are reported
	programs map[string]*ebpf.Program
	records  *ebpf.Map
	asked    *ebpf.Map
	lost     *ebpf.Map
	maps     map[string]*ebpf.Map
	tracefs  *os.Root // nil where it is not to be had
	// links are referenced here because a link that is collected as garbage detaches silently.
	links    []io.Closer
	closers  []io.Closer
	detached sync.Once
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
	// Where the kernel preempts programs, a fentry program does not run while a task is off the processor in the middle of it: in a storm that
	// is most of the time. A kprobe's program is not preempted, and so the better one for the system call; else a twin helps somewhat.
	c := &collection{backend: allowed[0], twins: preempts()}
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
	keep := lifePrograms(opts, "task_fork")
	syscall, shared := false, false
	for _, h := range hooks() {
		if h.function == load.FnSyscall && shared || h.program == "bpf_verifier_log_write" && !verifierIsSplit(kernel) {
			continue
		}
		t, err := h.resolve(kernel)
		if err != nil {
			c.missing(h.function, err)
			continue
		}
		via := backend("")
		switch {
		case h.program == "sys_bpf" && kprobeOK && c.twins:
			via = kprobe
		case fentryOK && h.programs(fentry) != nil && (!t.byValue || probeFentry(t.symbol) == nil):
			via = fentry
		case h.shape == denial && !opts.OnlyFollowed:
			c.missing(h.function, errors.New("without fentry, watching it would slow every system call of every confined task: only done while single processes are watched"))
			continue
		case kprobeOK && h.programs(kprobe) != nil:
			via = kprobe
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
		if h.program == "sys_bpf" {
			// Kernels that preempt programs do not take a fault in a kprobe for a miss.
			err := errors.Join(spec.Variables["cfg_twins"].Set(flag(via == fentry && c.twins)),
				spec.Variables["cfg_looks"].Set(flag(via == kprobe && c.backend == fentry)))
			if err != nil {
				return nil, fmt.Errorf("configure %s: %w", t.symbol, err)
			}
		}
		for _, name := range c.programsOf(&h, via) {
			keep = append(keep, name)
			if via == fentry {
				spec.Programs[name].AttachTo = t.symbol
			}
		}
		list = append(list, chosen{t, via})
		syscall = syscall || h.function == load.FnSyscall
		shared = shared || h.program == "sys_bpf" // by all entry points
	}
	if !syscall {
		return nil, fmt.Errorf("watch the system call: %w", errNoFunction)
	}
	if err := c.load(spec, keep); err != nil {
		return nil, err
	}

	tracefs, err := tracefs.Root()
	if err == nil {
		c.closers, c.tracefs = append(c.closers, tracefs), tracefs
		removeDeadProbes(tracefs)
	}
	// The system call comes first in the list, and is attached last. The others wait for grace periods of the kernel, so they
	// wait together.
	errs := make([]error, len(list))
	links := make([][]io.Closer, len(list))
	threads.Each(len(list)-1, func(i int) {
		t := list[i+1]
		links[i+1], errs[i+1] = c.attachTarget(t.target, t.via, tracefs)
	})
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

// programsOf are the names of a hook's programs, twins only where they are of use.
func (c *collection) programsOf(h *hook, via backend) []string {
	names := h.programs(via)
	if !c.twins {
		names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, twin) })
	}
	return names
}

// attachTarget attaches a hook's programs, the one at the end first: a start without an end is worse than an end without a start.
func (c *collection) attachTarget(t *target, via backend, tracefs *os.Root) ([]io.Closer, error) {
	names := c.programsOf(&t.hook, via)
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
		offset, hidden := textOffset(symbol)
		if hidden != nil {
			return nil, fmt.Errorf("kprobe by name: %s; by address: %w", reason(err), hidden)
		}
		return link.Kprobe("_text", p, &link.KprobeOptions{Offset: offset})
	}
	return l, nil
}

// lifePrograms are the programs that follow tasks: their ends, and what they make and become where processes are followed.
func lifePrograms(opts Options, fork string) []string {
	names := []string{"task_exit"}
	if opts.OnlyFollowed {
		names = append(names, fork, "task_exec")
	}
	if preempts() {
		for _, name := range names {
			names = append(names, name+twin)
		}
	}
	return names
}

// attachLife attaches the programs that follow tasks. A classic tracepoint needs no twin.
func (c *collection) attachLife(opts Options, tracefs *os.Root) error {
	for _, name := range lifePrograms(opts, "task_fork") {
		event := strings.Replace(strings.TrimSuffix(name, twin), "task", "sched_process", 1)
		p := c.programs[name]
		switch {
		case p == nil:
		case p.Type() != ebpf.RawTracepoint:
			if err := c.attachTracepoint(tracefs, "sched", event, name); err != nil {
				return err
			}
		default:
			l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: event, Program: p})
			if err != nil {
				return fmt.Errorf("attach to %s: %w", event, err)
			}
			c.links = append(c.links, l)
		}
	}
	return nil
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
		"cfg_comm": comm, "cfg_filter_cgroup": flag(opts.CgroupID != 0), "cfg_filter_comm": flag(opts.Comm != ""), "cfg_filter_pid": flag(opts.OnlyFollowed),
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

// detach stops the observation and leaves the ring readable. Who comes second waits for the first.
func (c *collection) detach() (err error) {
	c.detached.Do(func() {
		err = threads.Close(c.links)
	})
	return err
}

func (c *collection) Close() error {
	errs := []error{c.detach()}
	for i := len(c.closers) - 1; i >= 0; i-- {
		errs = append(errs, c.closers[i].Close())
	}
	c.closers = nil
	return errors.Join(errs...)
}
