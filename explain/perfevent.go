// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

// Who may make perf events.

func perm011() Rule {
	return Rule{
		ID:    "PERM011",
		Title: "perf_event_open(2) is denied: CAP_PERFMON is missing, or perf_event_paranoid is too high",
		Class: "R1",
		Stage: load.Permission,
		Text: `Loaders attach kprobes, uprobes and tracepoints by a perf event, if they
do not use newer kinds of links. For a kprobe or uprobe, perf_event_open(2) needs CAP_PERFMON
(before 5.8 CAP_SYS_ADMIN). For other events, it depends on kernel.perf_event_paranoid. Kernels of
Debian and Ubuntu also have the values 3 and 4. These forbid the call to everybody without the
capability. Some of these kernels want CAP_SYS_ADMIN, and CAP_PERFMON is not enough.

The program itself was loaded. Only attaching fails.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:    "grant-perfmon",
				Title: "Give the loader CAP_PERFMON",
				Price: "Programs of this loader can then read kernel memory.",
			},
			{
				ID:    "no-perf-event",
				Title: "Attach without a perf event: fentry, kprobe.multi (5.18), uprobe.multi (6.6), raw_tracepoint",
				Price: "A change of the loader, and a kernel that has them.",
			},
			{
				ID:      "lower-paranoid",
				Title:   "Lower kernel.perf_event_paranoid to 2, which is the kernel's own default",
				Price:   "Users without privilege may count events of their own processes.",
				Command: "sysctl -w kernel.perf_event_paranoid=2",
			},
			delegateToken,
		},
		grants: map[string][]int{"grant-perfmon": {abi.CapBPF, abi.CapPerfmon}},
		Match:  byReason("PERM011"),
	}
}

func perm012() Rule {
	return Rule{
		ID:    "PERM012",
		Title: "perf_event_open(2) needs CAP_SYS_ADMIN for a uprobe",
		Class: "R1",
		Stage: load.Permission,
		Text: `Since 5.8, CAP_PERFMON was enough to attach a uprobe by a perf event.
Newer kernels need CAP_SYS_ADMIN again, because a uprobe changes the memory of everybody who runs
the file. The answer is EACCES. This affects loaders that never had CAP_SYS_ADMIN, and loaders
that give it up after the start and then attach to one more library. Kernels without the change
also answer EACCES if CAP_PERFMON is missing.

Nothing changed for kprobes and tracepoints. A link of the kind uprobe.multi still needs only
CAP_BPF and CAP_PERFMON.`,
		Kernels: "6.16 and later, and stable kernels with ba677dbe77af: 5.10.240, 5.15.189, 6.1.146, 6.6.99, 6.12.39, 6.15.7 and later.",
		Remedies: []load.Remedy{
			{
				ID:    "uprobe-multi",
				Title: "Attach by BPF_LINK_CREATE with uprobe.multi (6.6; UprobeMulti in cilium/ebpf, bpf_program__attach_uprobe_multi in libbpf)",
				Price: "A change of the loader. The program's expected attach type must be BPF_TRACE_UPROBE_MULTI. The loader does not need CAP_SYS_ADMIN.",
			},
			{
				ID:    "attaching-process",
				Title: "Before 6.6: let a small process keep CAP_SYS_ADMIN and do nothing but attach",
				Price: "You must secure a second process that is as powerful as root.",
			},
			{
				ID:    "grant-sys-admin",
				Title: "Let the loader keep CAP_SYS_ADMIN",
				Price: "As powerful as root. An attacker who takes over the loader controls the node.",
			},
		},
		grants: map[string][]int{"grant-sys-admin": {abi.CapSysAdmin}},
		Match:  byReason("PERM012"),
	}
}
