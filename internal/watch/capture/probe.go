// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/selfprobe"
	"github.com/bpfwhy/bpfwhy/internal/sys/tracefs"
	"github.com/bpfwhy/bpfwhy/internal/sys/verbatim"
)

var (
	errFentry = errors.New("the kernel refuses fentry")
	errKprobe = errors.New("no kprobes (CONFIG_KPROBES is off)")
	errLocked = errors.New("the kernel is locked down (confidentiality): BPF may not read its memory, and tracing is closed")
)

// probeKernelReads reports whether lockdown keeps BPF from reading the kernel's memory: everything
// but tp_btf needs that. The verifier then takes the helper for unknown.
func probeKernelReads() error {
	if errors.Is(verbatim.Try(asm.FnProbeReadKernel), unix.EINVAL) {
		return errLocked
	}
	return nil // what else is wrong, the loads themselves say
}

// TryFentry attaches a program at the entry of a kernel function, and takes it away. It needs the
// rights to do so; the error says what the kernel answered.
func TryFentry() error { return probeFentry(anyFunction, btf.NewCache()) }

// anyFunction is one that every kernel has.
const anyFunction = "bpf_int_jit_compile"

// TryKprobes reports whether the kernel has kprobes. It attaches nothing.
func TryKprobes() error { return probeKprobe() }

// probeFentry reports whether the kernel lets a program be attached at a function's entry.
func probeFentry(symbol string, types *btf.Cache) error {
	own, err := verbatim.Instructions(selfprobe.Trivial())
	if err != nil {
		return err
	}
	spec := &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{selfprobe.Name: {
		Name: selfprobe.Name, Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: symbol, License: "Dual BSD/GPL",
		Instructions: own,
	}}}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: types})
	if err != nil {
		return fmt.Errorf("%w: %s", errFentry, reason(err))
	}
	defer coll.Close()
	l, err := link.AttachTracing(link.TracingOptions{Program: coll.Programs[selfprobe.Name]})
	if err != nil {
		return fmt.Errorf("%w: %s", errFentry, reason(err))
	}
	return l.Close()
}

// reason is the kernel's own answer inside an error, without the guesses that libraries add.
func reason(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return fmt.Sprintf("%s (%d)", abi.ErrnoName(int(errno)), int(errno))
	}
	return oneLine(err)
}

// probeKprobe reports whether the kernel has kprobes.
func probeKprobe() error {
	if _, err := os.Stat("/sys/bus/event_source/devices/kprobe"); err == nil {
		return nil
	}
	tracefs, err := tracefs.Root()
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

// hasTaskBTF reports whether programs can look at the current task without reading the kernel's
// memory (5.11).
func hasTaskBTF(kernel *btf.Spec) bool {
	var helpers *btf.Enum
	if err := kernel.TypeByName("bpf_func_id", &helpers); err != nil {
		return false
	}
	return slices.ContainsFunc(helpers.Values, func(v btf.EnumValue) bool { return v.Name == "BPF_FUNC_get_current_task_btf" })
}

// preempts reports whether the kernel may take the CPU from a task inside the kernel. A kernel that
// can, and is told not to at its start, says so in debugfs alone.
func preempts() bool {
	var u unix.Utsname
	if unix.Uname(&u) == nil && !strings.Contains(unix.ByteSliceToString(u.Version[:]), "PREEMPT") {
		return false
	}
	mode := preemptMode()
	return mode != "none" && mode != "voluntary"
}

// preemptMode is the word in parentheses of debugfs's sched/preempt (5.12), "" where it is not
// known.
func preemptMode() string {
	const file = "sched/preempt"
	b, err := os.ReadFile("/sys/kernel/debug/" + file)
	if err != nil {
		debugfs, err := tracefs.Detached("debugfs", file)
		if err != nil {
			return ""
		}
		defer debugfs.Close()
		if b, err = debugfs.ReadFile(file); err != nil {
			return ""
		}
	}
	_, rest, _ := strings.Cut(string(b), "(")
	mode, _, _ := strings.Cut(rest, ")")
	return mode
}
