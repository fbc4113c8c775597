// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/bpfwhy/bpfwhy/internal/tracefs"
	"github.com/bpfwhy/bpfwhy/load"
)

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
	tracefs, err := tracefs.Root()
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
		err := c.loadTracepoints(l, tracefs, opts, nonce)
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

func (c *collection) loadTracepoints(loader func() (*ebpf.CollectionSpec, error), tracefs *os.Root, opts Options, nonce uint64) error {
	spec, err := configured(loader, opts, nonce)
	if err != nil {
		return err
	}
	if err := spec.Variables["cfg_objects"].Set(uint8(1)); err != nil {
		return err
	}
	keep := lifePrograms(opts, "task_fork")
	for _, s := range syscalls {
		keep = append(keep, "enter_"+s.name, "exit_"+s.name)
	}
	if opts.OnlyFollowed {
		if v := spec.Variables["cfg_fork_child"]; v != nil { // only without CO-RE
			at, err := eventField(tracefs, "sched", "sched_process_fork", "child_pid")
			if err != nil {
				return err
			}
			if err := v.Set(at); err != nil {
				return err
			}
		}
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
	if hasTaskBTF(kernel) {
		at := offsetOf(kernel, "task_struct", "thread_info") + offsetOf(kernel, "thread_info", "status")
		if err := spec.Variables["cfg_task_status"].Set(at); err != nil {
			return nil, err
		}
	}
	programs := map[string]*ebpf.ProgramSpec{}
	names := append(lifePrograms(opts, "btf_task_fork"), "btf_sys_exit", "btf_sys_exit_twin", "btf_sys_enter", "btf_sys_enter_twin")
	if !preempts() {
		names = append(lifePrograms(opts, "btf_task_fork"), "btf_sys_exit", "btf_sys_enter")
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
			l, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: programs[name].AttachTo, Program: p})
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
