// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Tracepoints and kprobes.

func tracingRules() []Rule {
	return []Rule{att101(), att102(), att103(), att104(), att105(), att106(), att107(), att108(), att109(), att117(), att118()}
}

var (
	eventOpen   = []load.Kind{load.PerfEventOpen}
	probeDefine = []load.Kind{load.ProbeDefine}
	probeCalls  = []load.Kind{load.PerfEventOpen, load.ProbeDefine}
)

var tracingReasons = []reason{
	{
		rule: "ATT101", at: atTracepoint, call: eventCalls, errno: []int{abi.EACCES},
		text: "The program reads its context beyond the end of the tracepoint's record. No permission is missing.",
		tell: "The tracepoint's format file in tracefs says how long the record is.",
		look: lookRecord,
	},
	{
		rule: "ATT101", at: atRawTP, errno: []int{abi.EINVAL},
		text: "The program reads more arguments than the tracepoint has, or writes to one that is not writable.",
		tell: "The tracepoint's declaration (TP_PROTO) says how many it has.",
		look: func(f *Facts, m *Match) Strength {
			if f.fits() == node.No {
				return 0
			}
			return m.Strength
		},
	},

	{
		rule: "ATT102", at: atTracepoint, call: eventOpen, errno: []int{abi.ENOENT}, rare: true,
		text:  "The kernel has no tracepoint of that name: it was renamed, came later, or belongs to a module that is not loaded.",
		tell:  "The file available_events in tracefs lists all tracepoints.",
		words: lazyregexp.New(`(?i)tracepoint\b[^\n]{0,200}\b(?:does not exist|not found|doesn't exist)|unknown tracepoint|Tracepoint is not found`),
		look:  lookTracepoint,
	},
	{
		rule: "ATT102", at: atRawTP, errno: []int{abi.ENOENT},
		text: "The kernel has no tracepoint of that name: it was renamed, came later, or belongs to a module that is not loaded.",
		tell: "A raw tracepoint's name has no group: sched_switch, and not sched/sched_switch.",
		look: lookRawTracepoint,
	},
	{
		rule: "ATT103", at: atTracepoint | atKprobe | atUprobe, call: probeCalls, errno: []int{abi.ENOENT, abi.EACCES}, rare: true,
		text: "The loader cannot open the files of tracefs: it is not mounted where the loader looks, or closed to it (its owner, AppArmor, SELinux).",
		tell: "/sys/kernel/tracing is empty then, or /sys/kernel/debug/tracing cannot be entered.",
		words: lazyregexp.New(`(?i)\b(?:tracefs|debugfs)\b[^\n]{0,80}(?:not mounted|not found|not available|not accessible)|` +
			`(?:neither debugfs nor tracefs|no tracefs)|open\W{0,3}/sys/kernel/(?:debug/)?tracing(?:/[ku]probe_events|/trace_pipe|/trace)?\W{0,4}(?:no such file|permission denied)|` +
			`/sys/kernel/(?:debug/)?tracing(?:/[ku]probe_events|/events/\S+)?['"]?: (?:permission denied)`),
		look: lookTracefs,
	},
	{
		rule: "ATT104", at: atTracepoint, call: eventOpen, errno: []int{abi.ENOENT}, rare: true,
		text: "The kernel was built without tracepoints of system calls (CONFIG_FTRACE_SYSCALLS), which are the group syscalls.",
		tell: "/sys/kernel/tracing/events has no folder syscalls then.",
		look: lookSyscallTracepoint,
	},

	{
		rule: "ATT105", at: atKprobe, call: eventOpen, errno: []int{abi.ENOENT},
		text:  "The kernel has no function of that name that can be probed: it was renamed or inlined, has a suffix such as .isra.0, .constprop.0 or .cold, or its module is not loaded.",
		tell:  "/proc/kallsyms lists the names that exist.",
		words: lazyregexp.New(`token \S+: not found|opening k(?:ret)?probe perf event: symbol \S+: not found`),
		look:  lookFunction,
	},
	{
		rule: "ATT105", at: atKprobe, call: probeDefine, errno: []int{abi.ENOENT, abi.EINVAL}, rare: true,
		text:  "The kernel has no function of that name that can be probed: it was renamed or inlined, has a suffix, or its module is not loaded.",
		tell:  "The file error_log in tracefs says \"Invalid probed address or symbol\" then.",
		words: lazyregexp.New(`Invalid probed address or symbol|attach kprobe, probe entry may not exist`),
		look:  lookFunction,
	},
	{
		rule: "ATT105", at: atKprobeMulti, call: linkCreate, errno: []int{abi.ESRCH, abi.ENOENT},
		text: "At least one of the names is not a function that can be traced: it was renamed or inlined, may not be traced, or its module is not loaded.",
		tell: "available_filter_functions in tracefs lists those that can be.",
		look: lookFunction,
	},

	{
		rule: "ATT106", at: atKprobe | atKprobeMulti, errno: []int{abi.EADDRNOTAVAIL},
		text:  "Several symbols of the kernel have this name, and the kernel does not guess which is meant.",
		words: lazyregexp.New(`The symbol is not unique`),
		look: func(f *Facts, m *Match) Strength {
			if f.does(node.RefusesTwinSymbols) {
				m.Evidence = append(m.Evidence, "this kernel refuses a name that stands for several symbols (6.6, and stable kernels); older ones took one of them")
			}
			m.Commands = map[string]string{"by-address": f.grepKallsyms(`%s$`)}
			return Strong
		},
	},

	{
		rule: "ATT107", at: atKprobe, call: eventOpen, errno: []int{abi.EINVAL},
		text:  "The function may not be probed: it is marked notrace, noinstr or __kprobes, or there is a jump label or a static call; or the offset lies outside of it.",
		tell:  "The kernel's log says \"Could not probe notrace function\" for some; /sys/kernel/debug/kprobes/blacklist lists others.",
		words: lazyregexp.New(`Could not probe notrace function`),
		look:  lookData,
	},
	{
		rule: "ATT107", at: atKprobe, call: probeDefine, errno: []int{abi.EINVAL}, rare: true,
		text:  "The function may not be probed: it is marked notrace, noinstr or __kprobes, or there is a jump label or a static call.",
		tell:  "The file error_log in tracefs says \"Failed to register probe event\" then.",
		words: lazyregexp.New(`Failed to register probe event|Could not probe notrace function`),
	},
	{
		rule: "ATT107", at: atKprobe, call: probeCalls, errno: []int{abi.EILSEQ},
		text:  "The offset within the function is not the beginning of an instruction.",
		words: lazyregexp.New(`Probe point is not an instruction boundary`),
	},
	{
		rule: "ATT107", at: atKprobe, call: probeCalls, errno: []int{abi.EOPNOTSUPP},
		text: "The instruction there is one that a kprobe cannot step over.",
	},
	{
		rule: "ATT107", at: atKprobe, call: probeCalls, rare: true, errno: []int{abi.EINVAL},
		text:  "A probe on the return of a function must stand at its beginning.",
		words: lazyregexp.New(`Retprobe address must be an function entry`),
		look:  onlyWords,
	},
	{
		rule: "ATT107", at: atKprobeMulti, call: linkCreate, errno: []int{abi.EINVAL}, rare: true,
		text: "One of the addresses is not the beginning of a function that can be traced.",
		tell: "available_filter_functions in tracefs lists those that can be.",
	},

	{
		rule: "ATT108", at: atKprobe, call: eventCalls, errno: []int{abi.EINVAL},
		text: "The program overrides the function's return value (bpf_override_return), and the function does not allow that, or the probe is not at its beginning.",
		tell: "/sys/kernel/debug/error_injection/list has the functions that are; the program's instructions show whether it calls the helper.",
		look: func(f *Facts, m *Match) Strength {
			if f.fits() == node.No {
				return 0
			}
			if f.Node.Config["CONFIG_BPF_KPROBE_OVERRIDE"] == "n" {
				return 0 // the load would have failed
			}
			if p := f.attached(); p.Overrides {
				m.Evidence = append(m.Evidence, "the program calls bpf_override_return")
				return Strong
			} else if p.Insns > 0 {
				return 0
			}
			return m.Strength
		},
	},
	{
		rule: "ATT108", at: atKprobeMulti, call: linkCreate, errno: []int{abi.EINVAL}, rare: true,
		text: "The program overrides the return value (bpf_override_return), and one of the functions does not allow that.",
		tell: "/sys/kernel/debug/error_injection/list has the functions that are.",
	},

	{
		rule: "ATT109", at: atKprobe | atUprobe, call: probeCalls, errno: []int{abi.ENOENT}, rare: true,
		text:  "The kernel has no events of this kind: it was built without CONFIG_KPROBE_EVENTS or CONFIG_UPROBE_EVENTS, or is older than 4.17.",
		tell:  "/sys/bus/event_source/devices has no kprobe (uprobe) then, and tracefs no kprobe_events (uprobe_events).",
		words: lazyregexp.New(`(?i)event_source/devices/[ku]probe/|failed to determine [ku]probe perf type|\b[ku]probe PMU\b[^\n]{0,80}(?:not|no such)|perf[ _][ku]probe PMU[^\n]{0,40}not|open\W{0,3}/sys/kernel/(?:debug/)?tracing/[ku]probe_events\W{0,4}no such file|open [ku]probe_events file: -2`),
		look:  lookProbePMU,
	},

	{
		rule: "ATT117", at: atSample, call: eventOpen, errno: []int{abi.ENOENT, abi.EOPNOTSUPP, abi.ENODEV},
		text: "This machine has no such event: virtual machines often have no hardware counters, and a CPU that is offline has none at all.",
		tell: "'perf stat true' shows which events there are.",
		look: lookEvent,
	},
	{
		rule: "ATT117", at: atSample, call: eventOpen, errno: []int{abi.EINVAL}, rare: true,
		text: "This machine has no such event, or not with these settings (sampling, precision, branches).",
		tell: "'perf stat true' shows which events there are.",
		look: lookEvent,
	},
	{
		rule: "ATT118", at: atSample, call: eventOpen, errno: []int{abi.ENOMEM}, rare: true,
		text:  "There is not enough memory for the event's ring: kernel.perf_event_mlock_kb, RLIMIT_MEMLOCK, or the limit of the control group.",
		words: lazyregexp.New(`(?i)\bmmap\b[^\n]{0,60}(?:cannot allocate memory|operation not permitted|out of memory|-12\b|-1\b)`),
	},
}

func onlyWords(*Facts, *Match) Strength { return 0 }
