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

	"github.com/bpfwhy/bpfwhy/internal/sys/tracefs"
	"github.com/bpfwhy/bpfwhy/internal/sys/verbatim"
	"github.com/bpfwhy/bpfwhy/internal/watch/hook"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// The system calls that classic tracepoints watch: tracefs name, and the function that it stands
// for.
var syscalls = []struct {
	name     string
	function load.Function
}{
	{"setsockopt", load.FnSockFilter},
	{"prctl", load.FnSeccomp},
	{"seccomp", load.FnSeccomp},
	{"bpf", load.FnSyscall}, // last, as everywhere
}

// attachTracepoints watches the system calls from outside, with what the kernel says of the loaded
// program where it may be read.
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

func (c *collection) loadTracepoints(loader func() (*ebpf.CollectionSpec, error), dir *os.Root, opts Options, nonce uint64) error {
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
			e, err := tracefs.ReadEvent(dir, "sched", "sched_process_fork")
			if err != nil {
				return err
			}
			at, err := e.Offset("child_pid")
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

func (c *collection) attachTracepoint(dir *os.Root, group, event, program string) error {
	l, err := attachEvent(dir, group, event, c.programs[program].FD())
	if err != nil {
		return err
	}
	c.links = append(c.links, l)
	return nil
}

// attachBTFTracepoints is the last resort, for lockdown=confidentiality: no kernel memory is read
// but the arguments of the tracepoints themselves.
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
	names := append(lifePrograms(opts, "btf_task_fork"), "btf_sys_exit", "btf_sys_exit_reentrant", "btf_sys_enter", "btf_sys_enter_reentrant")
	if !preempts() {
		names = append(lifePrograms(opts, "btf_task_fork"), "btf_sys_exit", "btf_sys_enter")
	}
	for _, name := range names {
		spec.Programs[name].Instructions = verbatim.Calls(spec.Programs[name].Instructions) // lockdown is no old kernel
	}
	c := &collection{backend: tpBTF, objects: true}
	if err := c.load(spec, names); err != nil {
		return nil, err
	}
	for _, name := range names {
		p := c.programs[name]
		var l link.Link
		if p.Type() == ebpf.Tracing {
			l, err = link.AttachTracing(link.TracingOptions{Program: p})
		} else {
			l, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: spec.Programs[name].AttachTo, Program: p})
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
	c.watched(load.FnPerfEvent, "sys_exit", tpBTF)
	c.fromOutside(tpBTF)
	return c, nil
}

// fromOutside names the functions that a backend from outside does not watch. A policy in front of
// bpf(2) shows as an end without a start.
func (c *collection) fromOutside(b backend) {
	c.watched(load.FnDenied, "sys_exit", b)
	for _, h := range hook.All() {
		if !slices.ContainsFunc(c.hooks, func(t trace.Hook) bool { return t.Function == h.Function }) {
			c.hooks = append(c.hooks, trace.Hook{Function: h.Function})
		}
	}
	for _, f := range []load.Function{load.FnPerfEvent, load.FnProbeDef} {
		if !slices.ContainsFunc(c.hooks, func(t trace.Hook) bool { return t.Function == f }) {
			c.hooks = append(c.hooks, trace.Hook{Function: f})
		}
	}
}
