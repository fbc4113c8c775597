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

	"github.com/bpfwhy/bpfwhy/internal/sys/selfprobe"
	"github.com/bpfwhy/bpfwhy/internal/sys/threads"
	"github.com/bpfwhy/bpfwhy/internal/sys/tracefs"
	"github.com/bpfwhy/bpfwhy/internal/sys/verbatim"
	"github.com/bpfwhy/bpfwhy/internal/watch/hook"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// collection is what is loaded and attached.
type collection struct {
	backend      backend
	hooks        []trace.Hook
	locked       bool // lockdown=confidentiality
	reentrant    bool // the kernel preempts programs
	types        *btf.Cache
	objects      bool // new maps and BTF are reported
	programs     map[string]*ebpf.Program
	records      *ebpf.Map
	followedPIDs *ebpf.Map
	lost         *ebpf.Map
	maps         map[string]*ebpf.Map
	inFlight     *ebpf.Program // that reads the map of calls; nil where the kernel has no iterators
	tracefs      *os.Root      // nil where it is not to be had
	// links are referenced here because a link that is collected as garbage detaches silently.
	links    []io.Closer
	closers  []io.Closer
	detached sync.Once
}

// attach tries the backends in turn: functions inside the kernel first, then the system call from
// outside.
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

// explainMissing says why the functions inside the kernel are not watched, when the backend could
// not.
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
	types := btf.NewCache() // what is decoded of the kernel's types, is once
	kernel, err := types.Kernel()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's BTF: %w", err)
	}
	spec, err := configured(loadCore, opts, nonce)
	if err != nil {
		return nil, err
	}
	w := probeWays(allowed, types)
	if !w.fentry && !w.kprobe {
		return nil, errors.Join(w.refused...)
	}
	c := &collection{backend: allowed[0], reentrant: preempts(), types: types}
	if !w.fentry {
		c.backend = kprobe
	}
	list := c.choose(kernel, w, opts)
	if !slices.ContainsFunc(list, func(t chosen) bool { return t.Function == load.FnSyscall }) {
		return nil, fmt.Errorf("watch the system call: %w", errNoFunction)
	}
	keep := lifePrograms(opts, "task_fork")
	if opts.OnlyFollowed {
		keep = append(keep, syscallPrograms()...)
	}
	for _, t := range list {
		if err := c.configure(spec, t); err != nil {
			return nil, fmt.Errorf("configure %s: %w", t.symbol, err)
		}
		keep = append(keep, c.programsOf(&t.site, t.via)...)
	}
	if err := c.load(spec, keep); err != nil {
		return nil, err
	}
	if err := c.attachAll(list, opts); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// ways are the two ways to reach a function of the kernel, as far as they are allowed and it has
// them.
type ways struct {
	fentry, kprobe bool
	refused        []error
}

func probeWays(allowed []backend, types *btf.Cache) ways {
	var w ways
	try := func(b backend, probe func() error) bool {
		if !slices.Contains(allowed, b) {
			return false
		}
		err := probe()
		if err != nil {
			w.refused = append(w.refused, err)
		}
		return err == nil
	}
	w.fentry = try(fentry, func() error { return probeFentry(anyFunction, types) })
	w.kprobe = try(kprobe, probeKprobe)
	return w
}

// chosen is a target and the way to reach it.
type chosen struct {
	*target
	via backend
}

// choose finds the way to each watched function, and notes which have none.
func (c *collection) choose(kernel *btf.Spec, w ways, opts Options) []chosen {
	var list []chosen
	for _, s := range sites() {
		shared := len(list) > 0 && list[0].Program == sysBPF // by all entry points
		if s.Function == load.FnSyscall && shared || s.Program == "bpf_verifier_log_write" && !verifierIsSplit(kernel) {
			continue
		}
		t, err := s.resolve(kernel)
		via := backend("")
		if err == nil {
			via, err = c.way(t, w, opts)
		}
		if err != nil {
			c.missing(s.Function, err)
			continue
		}
		list = append(list, chosen{t, via})
	}
	return list
}

// way is how a target is reached.
func (c *collection) way(t *target, w ways, opts Options) (backend, error) {
	switch {
	// Where the kernel preempts programs, a fentry program does not run while a task is off the
	// processor in the middle of it: in a storm that is most of the time. A kprobe's program is not
	// preempted, and so the better one for the system call; else a reentrant copy helps somewhat.
	case t.Program == sysBPF && w.kprobe && c.reentrant:
		return kprobe, nil
	case w.fentry && t.programs(fentry) != nil && (!t.byValue || probeFentry(t.symbol, c.types) == nil):
		return fentry, nil
	case t.Shape == hook.Denial && !opts.OnlyFollowed:
		return "", errors.New("without fentry, watching it would slow every system call of every confined task: only done while single processes are watched")
	case w.kprobe && t.programs(kprobe) != nil:
		return kprobe, nil
	case t.Shape == hook.Message:
		return "", fmt.Errorf("variadic, so only a kprobe reaches it: %w", errKprobe)
	}
	return "", errors.Join(w.refused...)
}

// configure makes the programs of a target fit it.
func (c *collection) configure(spec *ebpf.CollectionSpec, t chosen) error {
	if t.via == fentry {
		for _, name := range c.programsOf(&t.site, t.via) {
			spec.Programs[name].AttachTo = t.symbol
		}
	}
	if t.Program == sysBPF {
		// Kernels that preempt programs do not take a fault in a kprobe for a miss.
		err := errors.Join(spec.Variables["cfg_reentrant"].Set(flag(t.via == fentry && c.reentrant)),
			spec.Variables["cfg_looks"].Set(flag(t.via == kprobe && c.backend == fentry)))
		if err != nil {
			return err
		}
	}
	return t.target.configure(spec)
}

// attachAll attaches what was loaded. The system call comes first in the list, and is attached
// last. The others wait for grace periods of the kernel, so they wait together.
func (c *collection) attachAll(list []chosen, opts Options) error {
	tracefs, err := tracefs.Root()
	if err == nil {
		c.closers, c.tracefs = append(c.closers, tracefs), tracefs
		removeDeadProbes(tracefs)
	}
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
			c.missing(t.Function, errs[i])
			continue
		}
		c.watched(t.Function, t.symbol, t.via)
	}
	if errs[0] != nil {
		return fmt.Errorf("attach %s to %s: %w", list[0].via, list[0].symbol, errs[0])
	}
	if err := c.attachLife(opts, tracefs); err != nil {
		return err
	}
	return c.attachSyscalls(opts)
}

// syscallProgram sees the end of every system call.
const syscallProgram = "task_syscall"

func syscallPrograms() []string {
	if preempts() {
		return []string{syscallProgram, syscallProgram + reentrantSuffix}
	}
	return []string{syscallProgram}
}

// attachSyscalls watches what attaches where the kernel lets nothing be hooked: kernel/events and
// kernel/trace are built without it.
func (c *collection) attachSyscalls(opts Options) error {
	functions := []load.Function{load.FnPerfEvent, load.FnProbeDef}
	if !opts.OnlyFollowed {
		for _, f := range functions {
			c.missing(f, errors.New("the kernel lets nothing inside it be hooked, and the end of system calls is watched only while single processes are"))
		}
		return nil
	}
	for _, name := range syscallPrograms() {
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_exit", Program: c.programs[name]})
		if err != nil {
			return fmt.Errorf("attach to sys_exit: %w", err)
		}
		c.links = append(c.links, l)
	}
	for _, f := range functions {
		c.watched(f, "sys_exit", tracepoint)
	}
	return nil
}

// programsOf are the names of a site's programs, reentrant only where they are of use.
func (c *collection) programsOf(s *site, via backend) []string {
	names := s.programs(via)
	if !c.reentrant {
		names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, reentrantSuffix) })
	}
	return names
}

// attachTarget attaches a target's programs, the one at the end first: a start without an end is
// worse than an end without a start.
func (c *collection) attachTarget(t *target, via backend, tracefs *os.Root) ([]io.Closer, error) {
	names := c.programsOf(&t.site, via)
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

// lifePrograms are the programs that follow tasks: their ends, and what they make and become where
// processes are followed.
func lifePrograms(opts Options, fork string) []string {
	names := []string{"task_exit"}
	if opts.OnlyFollowed {
		names = append(names, fork, "task_exec")
	}
	if preempts() {
		for _, name := range names {
			names = append(names, name+reentrantSuffix)
		}
	}
	return names
}

// attachLife attaches the programs that follow tasks. A classic tracepoint needs no reentrant copy.
func (c *collection) attachLife(opts Options, tracefs *os.Root) error {
	for _, name := range lifePrograms(opts, "task_fork") {
		event := strings.Replace(strings.TrimSuffix(name, reentrantSuffix), "task", "sched_process", 1)
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
		"cfg_failed_only": flag(opts.FailedOnly), "cfg_all": flag(opts.All), "cfg_count": flag(opts.Calm),
		"cfg_idle_lsm": flag(len(opts.Node.LSMs) > 0 && !slices.Contains(opts.Node.LSMs, "bpf")),
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

// pidNamespace identifies our own pid namespace as the kernel does: its dev_t is not laid out like
// that of stat(2).
func pidNamespace() (dev, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0, 0, fmt.Errorf("read our own pid namespace: %w", err)
	}
	return uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev)), st.Ino, nil
}

// load loads the maps and the programs that are named.
func (c *collection) load(spec *ebpf.CollectionSpec, keep []string) error {
	inFlight := spec.Programs["calls_in_flight"]
	for name := range spec.Programs {
		if !slices.Contains(keep, name) {
			delete(spec.Programs, name)
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: c.types})
	if err != nil {
		return fmt.Errorf("load our own programs: %w", err)
	}
	c.programs = coll.Programs
	c.records, c.followedPIDs, c.lost = coll.Maps["records"], coll.Maps["followed_pids"], coll.Maps["losses"]
	c.closers = append(c.closers, closer(coll.Close))
	c.maps = coll.Maps
	if !iterates(inFlight, c.types) {
		return nil
	}
	if p, err := ebpf.NewProgram(inFlight); err == nil { // 5.9 with BTF
		c.inFlight, c.closers = p, append(c.closers, p)
	}
	return nil
}

// iterates asks whether the kernel lets an iterator be loaded, by a program with our mark: its
// refusal is no finding of another bpfwhy.
func iterates(like *ebpf.ProgramSpec, types *btf.Cache) bool {
	own, err := verbatim.Instructions(selfprobe.Trivial())
	if err != nil {
		return false
	}
	spec := &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{selfprobe.Name: {
		Name: selfprobe.Name, Type: like.Type, AttachType: like.AttachType, AttachTo: like.AttachTo, License: like.License, Instructions: own,
	}}}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: types})
	if err != nil {
		return false
	}
	coll.Close()
	return true
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
