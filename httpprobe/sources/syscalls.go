// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/internal/sys/tracefs"
	"github.com/bpfwhy/bpfwhy/loader"
)

// calls are the system calls that are watched, with one of their fields, and the programs for their
// beginnings and their ends. All fields lie as far from where they are expected as that one does.
var calls = []struct{ name, first, enter, exit string }{
	{"read", "fd", "enter_read", "exit_in"},
	{"readv", "fd", "enter_in", "exit_in"},
	{"recvfrom", "fd", "enter_in", "exit_in"},
	{"recvmsg", "fd", "enter_in", "exit_in"},
	{"recvmmsg", "fd", "enter_in", "exit_messages"},
	{"write", "fd", "enter_out", "exit_out"},
	{"writev", "fd", "enter_out", "exit_out"},
	{"sendto", "fd", "enter_out", "exit_out"},
	{"sendmsg", "fd", "enter_out", "exit_out"},
	{"sendmmsg", "fd", "enter_out", "exit_messages"},
	{"sendfile64", "out_fd", "enter_out", "exit_out"},
	{"splice", "fd_in", "enter_out", "exit_out"},
}

// Where the kernel has the fields, but for real-time kernels that have more in front.
const (
	number      = 8
	firstArg    = 16
	returnValue = 16
)

var stateFields = map[string]uint32{"skaddr": 8, "oldstate": 16, "newstate": 20, "sport": 24, "dport": 26, "protocol": 30}

// Syscalls watches the system calls that carry bytes through stream sockets of 64-bit processes:
// text that is written to a file or a terminal is not looked at. Needs kernel BTF, and CAP_BPF and
// CAP_PERFMON, or CAP_SYS_ADMIN; lockdown=confidentiality refuses it. What goes by io_uring is not
// seen, but leaves a gap. A load that fails is a *loader.Error.
func Syscalls(opts Options) (*Source, error) {
	s, err := openSyscalls(opts)
	if err != nil {
		return nil, fmt.Errorf("watch system calls: %w", err)
	}
	return s, nil
}

type syscallStream struct {
	*ring
	attached []tracefs.Attached
}

//revive:disable-next-line:cyclomatic one step after the other, and each may fail
func openSyscalls(opts Options) (*Source, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	types := make(chan kernelTypes, 1)
	go func() { types <- loadKernelTypes() }() // takes as long as all the rest
	spec, err := loadSyscalls()
	if err != nil {
		return nil, err
	}
	if err := opts.configure(spec); err != nil {
		return nil, err
	}
	dir, err := tracefs.Root()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	hooks, err := findHooks(dir)
	if err != nil {
		return nil, err
	}
	kernel := <-types
	if kernel.error != nil {
		return nil, loader.Explain(fmt.Errorf("read the kernel's types: %w", kernel.error))
	}
	reentrant := isPreempted(kernel.Spec)
	if !reentrant {
		maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return strings.HasSuffix(name, reentrantSuffix) })
	}
	for _, port := range opts.Ports {
		spec.Maps["ports"].Contents = append(spec.Maps["ports"].Contents, ebpf.MapKV{Key: port, Value: uint8(1)})
	}
	if err := setVariables(spec, map[string]any{
		"cfg_shift": hooks.shift, "cfg_late": flag(hooks.late), "cfg_state_shift": hooks.stateShift, "cfg_ports": flag(len(opts.Ports) > 0),
		"cfg_reentrant": flag(reentrant),
	}); err != nil {
		return nil, err
	}
	coll, programs, err := opts.load(spec, kernel.Spec)
	if err != nil {
		return nil, err
	}
	stream := &syscallStream{}
	if err := opts.fillCgroups(coll); err != nil {
		coll.Close()
		return nil, err
	}
	if stream.ring, err = newRing(event.Syscalls, coll); err != nil {
		coll.Close()
		return nil, err
	}
	for _, h := range hooks.list {
		for _, name := range []string{h.program, h.program + reentrantSuffix} {
			p := coll.Programs[name]
			if p == nil {
				continue
			}
			a, err := h.event.Attach(p.FD())
			if err != nil {
				return nil, errors.Join(err, stream.close())
			}
			stream.attached = append(stream.attached, a)
		}
	}
	return &Source{name: "syscalls", programs: programs, stream: stream}, nil
}

func (s *syscallStream) close() error {
	return errors.Join(closeAll(s.attached), s.ring.close())
}

func (s *syscallStream) mute(c event.Conn) error {
	if c.Source != event.Syscalls {
		return nil
	}
	if err := s.coll.Maps["mutes"].Put(c.ID, c.Born); err != nil {
		return fmt.Errorf("mute connection: %w", err)
	}
	return nil
}

type kernelTypes struct {
	*btf.Spec
	error
}

func loadKernelTypes() kernelTypes {
	spec, err := btf.LoadKernelSpec()
	return kernelTypes{spec, err}
}

// isPreempted reports a kernel that runs programs on system calls' tracepoints like any task (7.2):
// what is one there is left out for others meanwhile, and has a reentrant copy.
func isPreempted(kernel *btf.Spec) bool {
	var f *btf.Func
	return kernel.TypeByName("trace_call_bpf_faultable", &f) == nil
}

type hook struct {
	event   tracefs.Event
	program string
}

// hooks are the events with their programs, in the order in which they are to be attached: the ends
// of calls before their beginnings, or a call might stay open.
type hooks struct {
	list              []hook
	shift, stateShift uint32
	late              bool
}

func findHooks(dir *os.Root) (hooks, error) {
	var h hooks
	state, err := tracefs.ReadEvent(dir, "sock", "inet_sock_set_state")
	if err != nil {
		return h, err
	}
	if h.stateShift, err = shiftOf(state, stateFields); err != nil {
		return h, err
	}
	var exits, enters []hook
	for i, c := range calls {
		enter, err := tracefs.ReadEvent(dir, "syscalls", "sys_enter_"+c.name)
		if err != nil {
			return h, explainMissing(err)
		}
		exit, err := tracefs.ReadEvent(dir, "syscalls", "sys_exit_"+c.name)
		if err != nil {
			return h, explainMissing(err)
		}
		shift, err := shiftOf(enter, map[string]uint32{c.first: firstArg})
		if err != nil {
			return h, err
		}
		exitShift, err := shiftOf(exit, map[string]uint32{"ret": returnValue})
		if err != nil {
			return h, err
		}
		if i == 0 {
			h.shift = shift
		}
		if shift != h.shift || exitShift != h.shift {
			return h, fmt.Errorf("read events: the fields of %s lie elsewhere than those of %s", c.name, calls[0].name)
		}
		at, err := enter.Offset("__syscall_nr")
		if err != nil {
			return h, err
		}
		if h.late, err = isLate(at, h.shift); err != nil {
			return h, err
		}
		exits = append(exits, hook{exit, c.exit})
		enters = append(enters, hook{enter, c.enter})
	}
	h.list = slices.Concat([]hook{{state, "set_state"}}, exits, enters)
	return h, nil
}

// isLate reports that a call's number, at some offset, is behind a field that only some kernels
// have: what programs are given may lack that field.
func isLate(at, shift uint32) (bool, error) {
	switch at {
	case number + shift:
		return false, nil
	case number + 4 + shift:
		return true, nil
	}
	return false, fmt.Errorf("read events: the number of a system call lies at %d, which no known kernel has", at)
}

func explainMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: a kernel without CONFIG_FTRACE_SYSCALLS", err)
	}
	return err
}

// shiftOf is by how many bytes all of some fields lie behind where they are expected.
func shiftOf(e tracefs.Event, want map[string]uint32) (uint32, error) {
	shift, first := uint32(0), true
	for name, at := range want {
		got, err := e.Offset(name)
		if err != nil {
			return 0, err
		}
		if got < at || got > at+64 || !first && got-at != shift {
			return 0, fmt.Errorf("read event %s/%s: its field %s lies at %d, which no known kernel has", e.Group, e.Name, name, got)
		}
		shift, first = got-at, false
	}
	return shift, nil
}
