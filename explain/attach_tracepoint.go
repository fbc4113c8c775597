// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
)

// Tracepoints, and the file system that lists them.

func att101() Rule {
	return Rule{
		ID:    "ATT101",
		Title: "The program reads out of bounds of the tracepoint's context (Permission denied, EINVAL)",
		Class: "R5",
		Stage: load.Request,
		Text: `The verifier does not know to which tracepoint a program will be attached.
It remembers the highest byte of the context that the program reads. When the program is attached,
the kernel compares this with the size of the tracepoint's record. If the program reads beyond it,
the kernel answers EACCES, "Permission denied". No permission is missing. For raw tracepoints the
kernel compares the number of arguments, and answers EINVAL.

There are three usual reasons. First, the program uses trace_event_raw_sys_enter or
trace_event_raw_sys_exit of vmlinux.h for tracepoints of the group syscalls. Their records are
other structs. Second, the kernel of RHEL 9 has a common header of 12 bytes where others have 8.
So all fields of 8 bytes are 8 bytes further on. Third, the struct was written by hand.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:    "right-struct",
				Title: "For the group syscalls, use struct syscall_trace_enter and syscall_trace_exit. For others, use CO-RE on the struct of the event (trace_event_raw_NAME)",
				Price: "A change of the program.",
			},
			{
				ID:    "tp-btf",
				Title: "Use tp_btf, whose arguments have the kernel's own types",
				Price: "A change of the program, and a kernel with BTF (5.5).",
			},
			{
				ID:      "look-at-format",
				Title:   "Compare the struct with the format on this kernel",
				Price:   "Nothing.",
				Command: "cat /sys/kernel/tracing/events/GROUP/NAME/format",
			},
		},
		Match: byReason("ATT101"),
	}
}

func lookRecord(f *Facts, m *Match) Strength {
	read, size := f.attached().MaxCtxOffset, f.target().Size
	name := f.named("")
	group, event, qualified := strings.Cut(f.target().Name, "/")
	if qualified && plainName.MatchString(group) && plainName.MatchString(event) {
		m.Commands = map[string]string{"look-at-format": "cat /sys/kernel/tracing/events/" + group + "/" + event + "/format"}
	}
	if read > 0 {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the program reads its context up to byte %d", read))
	}
	if size > 0 {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the tracepoint's record has %d bytes", size))
	}
	switch {
	case read > 0 && size > 0 && read <= size:
		return 0
	case name != "":
		m.Cause = fmt.Sprintf("The program reads its context beyond the end of the record of %s. No permission is missing.", name)
	}
	if read > 0 && size > 0 || f.kind() == load.PerfEventSetBPF && f.text == nil {
		return Strong
	}
	return m.Strength
}

// plainName is what may stand in a command.
var plainName = lazyregexp.New(`^[A-Za-z0-9_.]{1,128}$`)

func att102() Rule {
	return Rule{
		ID:    "ATT102",
		Title: "Tracepoint not found: this kernel does not have it",
		Class: "R5",
		Stage: load.Request,
		Text: `Kernel releases add, remove and rename tracepoints. Tracepoints of modules
exist only while the module is loaded. Loaders look up a tracepoint in tracefs. They get the same
ENOENT if tracefs is not mounted, and if the kernel was built without the group syscalls. A raw
tracepoint is looked up by the kernel itself.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "find-tracepoint",
				Title:   "Look for similar tracepoints of this kernel",
				Price:   "Nothing.",
				Command: "grep NAME /sys/kernel/tracing/available_events",
			},
			{
				ID:    "several",
				Title: "Let the loader try alternatives: another tracepoint, fentry, a kprobe",
				Price: "A change of the loader and its programs.",
			},
			{
				ID:    "load-module",
				Title: "Load the module that has the tracepoint, before the loader starts",
				Price: "A dependency between units.",
			},
		},
		Match: byReason("ATT102"),
	}
}

func lookTracepoint(f *Facts, m *Match) Strength {
	f.searchTracepoint(m)
	if f.kind() == load.PerfEventOpen && f.text == nil {
		// Opening the event was seen, so tracefs had a number for the name.
		return Likely
	}
	return m.Strength
}

func lookRawTracepoint(f *Facts, m *Match) Strength {
	f.searchTracepoint(m)
	if strings.ContainsAny(f.target().Name, "/:") {
		m.Cause = fmt.Sprintf("The name of a raw tracepoint has no group, and the loader asked for %q.", printable(f.target().Name, 80))
		return Strong
	}
	if f.text == nil && f.kind() == load.RawTPOpen {
		return Strong
	}
	return m.Strength
}

func (f *Facts) searchTracepoint(m *Match) {
	name := f.target().Name
	if i := strings.LastIndexAny(name, "/:"); i >= 0 {
		name = name[i+1:]
	}
	if name == "" {
		return
	}
	m.Cause = fmt.Sprintf("The kernel has no tracepoint %s.", printable(f.target().Name, 80))
	if plainName.MatchString(name) {
		m.Commands = map[string]string{"find-tracepoint": "grep " + name + " /sys/kernel/tracing/available_events"}
	}
}

func att103() Rule {
	return Rule{
		ID:    "ATT103",
		Title: "tracefs is not mounted, or the loader may not read it",
		Class: "R5",
		Stage: load.Request,
		Text: `The number of a tracepoint is in tracefs. Older ways of making kprobes and
uprobes also write to tracefs. It is mounted at /sys/kernel/tracing, or at
/sys/kernel/debug/tracing. In a container it exists only if somebody mounts it there. Usually only
root may read it. lockdown=confidentiality closes it to everybody. Loaders report the error of
open(2), so it looks as if the tracepoint were missing.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "mount-tracefs",
				Title:   "Mount tracefs on the host, and mount it into the container",
				Price:   "The container can read traces of the whole node.",
				Command: "mount -t tracefs tracefs /sys/kernel/tracing",
			},
			{
				ID:    "no-tracefs",
				Title: "Attach without it: raw tracepoints, tp_btf, fentry, kprobe.multi (5.18)",
				Price: "A change of the program.",
			},
		},
		Match: byReason("ATT103"),
	}
}

func lookTracefs(f *Facts, m *Match) Strength {
	if f.text == nil {
		return 0 // the file is opened before any call that is watched
	}
	if f.errno() == abi.EACCES && f.kind() != load.ProbeDefine {
		return 0 // perf_event_open's own
	}
	return m.Strength
}

func att104() Rule {
	return Rule{
		ID:    "ATT104",
		Title: "No tracepoints of system calls: the kernel lacks CONFIG_FTRACE_SYSCALLS",
		Class: "R5",
		Stage: load.Request,
		Text: `The tracepoints syscalls/sys_enter_NAME and syscalls/sys_exit_NAME exist
only if the kernel was built with CONFIG_FTRACE_SYSCALLS. Some small kernels and cloud kernels are
built without it. raw_syscalls/sys_enter and raw_syscalls/sys_exit always exist.`,
		Kernels: "Kernels without CONFIG_FTRACE_SYSCALLS.",
		Remedies: []load.Remedy{
			{
				ID:    "raw-syscalls",
				Title: "Use raw_syscalls/sys_enter (or tp_btf/sys_enter), and check the number of the system call",
				Price: "The program runs at every system call.",
			},
			{
				ID:    "fentry-syscall",
				Title: "Use fentry or a kprobe on the function of the system call (__x64_sys_NAME, __arm64_sys_NAME)",
				Price: "The name depends on the machine.",
			},
		},
		Match: byReason("ATT104"),
	}
}

func lookSyscallTracepoint(f *Facts, m *Match) Strength {
	name := f.target().Name
	switch {
	case name != "" && !strings.HasPrefix(name, "syscalls/") && !strings.HasPrefix(name, "syscalls:"), f.Node.Config["CONFIG_FTRACE_SYSCALLS"] == "y":
		return 0
	case name != "" && f.Node.Config["CONFIG_FTRACE_SYSCALLS"] == "n":
		m.Evidence = append(m.Evidence, "CONFIG_FTRACE_SYSCALLS is off in this kernel")
		return Strong
	}
	return m.Strength
}
