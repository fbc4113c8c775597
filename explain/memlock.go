// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// RLIMIT_MEMLOCK.

func perm007() Rule {
	return Rule{
		ID:    "PERM007",
		Title: "RLIMIT_MEMLOCK is too low",
		Class: "R1",
		Stage: load.Resources,
		Text: `Before 5.11, the memory of programs and maps counts as locked memory of
the user. The limit is RLIMIT_MEMLOCK, by default 64 KiB, and this is soon used up. The answer is
EPERM, for root too. Since 5.11, this memory counts for the control group instead, and the limit
does not matter. On such a kernel, a hint about MEMLOCK is wrong. Probably a capability is
missing.`,
		Kernels: "Before 5.11 only.",
		Remedies: []load.Remedy{
			{
				ID:      "raise-memlock",
				Title:   "Raise the limit before loading (LimitMEMLOCK=infinity in the unit; rlimit.RemoveMemlock in cilium/ebpf)",
				Price:   "The loader may lock memory without bound. Needs CAP_SYS_RESOURCE.",
				Command: "ulimit -l unlimited",
			},
			{
				ID:    "kernel-5.11",
				Title: "Use a kernel from 5.11 on",
				Price: "A reboot, and another kernel to test.",
			},
		},
		Match: matchMemlock,
	}
}

func matchMemlock(f *Facts) *Match {
	if !f.refused() || f.does(node.ChargesNoMemlock) || f.deniedElsewhere() || f.neverCharged() {
		return nil
	}
	m := &Match{Strength: Possible, How: load.Inferred}
	if f.kernelKnown && f.ev.LimitsKnown {
		m.Strength = Likely
		if f.nothingElseRefuses() {
			m.Strength = Strong
		}
	}
	m.Cause = "Programs and maps count as locked memory on this kernel, and the loader's limit (RLIMIT_MEMLOCK) is used up."
	m.Why = "before 5.11 RLIMIT_MEMLOCK applies, and its value or the kernel's version is not known. 'uname -r' and 'ulimit -l' tell"
	if f.kernelKnown {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the kernel is %d.%d, from before 5.11", f.kernel.Major, f.kernel.Minor))
		m.Why = fmt.Sprintf("this kernel (%d.%d) counts programs and maps against RLIMIT_MEMLOCK, whose value is not known. 'ulimit -l' shows it", f.kernel.Major, f.kernel.Minor)
	}
	if f.ev.LimitsKnown {
		m.Evidence = append(m.Evidence, fmt.Sprintf("RLIMIT_MEMLOCK was %d bytes", f.ev.MemlockLimit))
		m.Why = fmt.Sprintf("RLIMIT_MEMLOCK is %d bytes, and counts on kernels before 5.11", f.ev.MemlockLimit)
	}
	f.tellCaps(m)
	return m
}

// neverCharged reports a call that takes no memory against the limit, or is refused before it does.
func (f *Facts) neverCharged() bool {
	if f.kind() != load.ProgLoad && f.kind() != load.MapCreate {
		return true
	}
	if _, saw := f.refusedCap(); saw || len(f.missingCaps()) > 0 {
		return true
	}
	if f.ev.LimitsKnown && f.ev.MemlockLimit == unlimited {
		return true
	}
	v, ok := f.unprivilegedDisabled()
	return ok && v != 0 && f.missing(abi.CapBPF)
}

// nothingElseRefuses: every check of a capability would have been passed, and no security module of
// this kernel has a say.
func (f *Facts) nothingElseRefuses() bool {
	return (f.holdsAll() || f.needsAndHolds()) && (f.observed(load.Permission) || f.asksNoLSM())
}
