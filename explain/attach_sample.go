// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

// Other perf events, and their rings.

func att117() Rule {
	return Rule{
		ID:    "ATT117",
		Title: "No such perf event on this machine (virtual machines often have no hardware counters)",
		Class: "R5",
		Stage: load.Request,
		Text: `Profilers attach to hardware counters (cycles, instructions, cache
misses). A virtual machine has them only if its host passes them on. Most clouds do not. Some
machines lack a few of them. The errno is ENOENT, EOPNOTSUPP or EINVAL. ENODEV means that a CPU is
not online: old libraries open an event for each possible CPU. A loader that does not check the
error goes on with the descriptor -1.`,
		Kernels: "All. Depends on the machine.",
		Remedies: []load.Remedy{
			{
				ID:      "software-clock",
				Title:   "Use a software event: cpu-clock in place of cycles",
				Price:   "It cannot see into code that runs with interrupts off.",
				Command: "perf list hw sw",
			},
			{
				ID:    "pass-counters",
				Title: "Give the virtual machine its counters (vPMU), or use an instance type that has them",
				Price: "A setting of the host, or another machine.",
			},
			{
				ID:    "online-cpus",
				Title: "For ENODEV: open events only for CPUs that are online (newer libraries do)",
				Price: "A newer library.",
			},
		},
		Match: byReason("ATT117"),
	}
}

func lookEvent(f *Facts, m *Match) Strength {
	if t := f.target(); t.Kind == "perf_event" && t.Name != "" {
		m.Evidence = append(m.Evidence, "the event was of the kind "+printable(t.Name, 60))
	}
	if f.errno() == abi.ENODEV {
		m.Cause = "The CPU that the event was to count on is not online, or there is no such event on this machine."
	}
	return m.Strength
}

func att118() Rule {
	return Rule{
		ID:    "ATT118",
		Title: "Out of memory for a perf buffer (perf_event_mlock_kb, RLIMIT_MEMLOCK, memory limit)",
		Class: "R5",
		Stage: load.Resources,
		Text: `A perf buffer has one ring of pages for each CPU. The loader maps it with
mmap(2). The pages count against kernel.perf_event_mlock_kb of the user. What is beyond that
counts against RLIMIT_MEMLOCK (EPERM), unless the loader has CAP_IPC_LOCK or CAP_PERFMON. The
pages also count against the memory limit of the control group (ENOMEM). With many CPUs, the
buffer is large.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:    "smaller-ring",
				Title: "Use fewer pages for each CPU",
				Price: "If many events come at once, more of them are lost.",
			},
			{
				ID:    "ring-buffer",
				Title: "Use a BPF ring buffer (5.8), one for all CPUs",
				Price: "A change of the program.",
			},
			{
				ID:    "memory-limit",
				Title: "Raise the memory limit of the loader's control group (its pod's limits.memory)",
				Price: "Memory of the node.",
			},
		},
		Match: byReason("ATT118"),
	}
}
