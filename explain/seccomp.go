// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

// Seccomp policies.

// signatureOfSeccomp grades a call that ended without having begun.
func (f *Facts) signatureOfSeccomp() Strength {
	if f.ev.EnterSeen || f.isClassic() || !f.failed() || len(f.ev.Spans) > 0 || f.interrupted() {
		return 0
	}
	switch {
	case f.ev.SeccompMode == 2 && !f.Attempt.Incomplete:
		return Certain
	case f.ev.SeccompMode == 2:
		return Likely
	case f.ev.SeccompMode < 0 && (f.errno() == abi.EPERM || f.errno() == abi.ENOSYS) && !f.Attempt.Incomplete:
		return Likely
	case f.ev.SeccompMode < 0:
		return Possible
	}
	return 0
}

func perm006() Rule {
	return Rule{
		ID:    "PERM006",
		Title: "A seccomp policy forbids bpf(2)",
		Class: "R1",
		Stage: load.Request,
		Text: `A seccomp filter refuses the system call before bpf(2) starts. Usually it
is the filter of the container runtime. bpfwhy sees that the call ended and never began. The
default policies of Docker, containerd and CRI-O allow bpf(2) to containers with CAP_BPF or
CAP_SYS_ADMIN. Older versions allow it only with CAP_SYS_ADMIN.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:    grantContainer,
				Title: "Give the container CAP_BPF (and CAP_PERFMON or CAP_NET_ADMIN). The runtime's default policy then allows bpf(2)",
				Price: "The container may load BPF programs into the host's kernel. Old runtimes do not know CAP_BPF, and need CAP_SYS_ADMIN.",
			},
			{
				ID:    seccompProfile,
				Title: "Use a seccomp profile: the runtime's default plus bpf(2), and perf_event_open if it attaches kprobes",
				Price: "You must distribute the profile and keep it up to date.",
			},
		},
		grants: map[string][]int{grantContainer: {abi.CapBPF, abi.CapPerfmon, abi.CapNetAdmin}},
		Match:  matchSeccompPolicy,
	}
}

func matchSeccompPolicy(f *Facts) *Match {
	s := f.signatureOfSeccomp()
	if f.text != nil && f.errno() == abi.EPERM && !f.isClassic() && f.words.empty() {
		switch f.kind() {
		case load.XDPAttach, load.TCAttach, load.SocketAttach, load.ProbeDefine:
			return nil // no policy of a runtime forbids netlink, sockets or files
		}
		return &Match{Strength: Possible, How: load.Inferred, Cause: "A seccomp policy of the container's runtime refused the call.",
			Why: "policies of container runtimes answer EPERM to bpf(2) and perf_event_open(2), whatever the capabilities; older ones want CAP_SYS_ADMIN. Seccomp: 2 in /proc/PID/status says that there is a policy"}
	}
	if s == 0 {
		return f.suspectSeccomp()
	}
	m := &Match{Strength: s, How: load.Observed}
	if s < Certain {
		m.How = load.Inferred
	}
	m.Cause = "A seccomp filter of the process refused the call: bpf(2) never began."
	m.Evidence = append(m.Evidence, "the end of the system call was seen, and no beginning")
	if f.site() == siteHost {
		m.Without = append(m.Without, grantContainer)
	}
	if f.ev.SeccompMode == 2 {
		m.Evidence = append(m.Evidence, "the thread runs under a seccomp filter (mode 2)")
	} else {
		m.Evidence = append(m.Evidence, "whether the thread runs under a seccomp filter is not known")
	}
	m.Why = "the beginning of the call was not seen, which may also be because it was missed"
	return m
}

// suspectSeccomp: a text does not tell whether the call began. Policies of containers answer EPERM,
// and older ones ask for CAP_SYS_ADMIN whatever finer capabilities there are.
func (f *Facts) suspectSeccomp() *Match {
	asked := f.kind() == load.PerfEventOpen || f.kind() != load.PerfEventSetBPF && !slices.Contains(otherThanBPF, f.kind())
	if f.text == nil || !f.refused() || f.ev.SeccompMode == 0 || !asked {
		return nil
	}
	m := &Match{Strength: Possible, How: load.Inferred, Cause: "A seccomp policy may forbid the call: that of a container runtime, whose default asks for CAP_BPF, CAP_PERFMON or CAP_SYS_ADMIN."}
	m.Why = "in a container the runtime's seccomp policy answers EPERM too; /proc/PID/status says Seccomp: 2 where there is one"
	if f.ev.SeccompMode > 0 {
		m.Evidence = append(m.Evidence, "the thread runs under a seccomp filter (mode 2)")
	}
	return m
}

// otherThanBPF are attempts that do not call bpf(2).
var otherThanBPF = []load.Kind{
	load.PerfEventOpen, load.PerfEventSetBPF, load.XDPAttach, load.TCAttach, load.SocketAttach, load.ProbeDefine, load.Seccomp, load.SocketFilter,
}
