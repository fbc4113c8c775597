// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Security modules.

func perm005() Rule {
	return Rule{
		ID:    "PERM005",
		Title: "Permission denied by a security module (SELinux, BPF LSM)",
		Class: "R1",
		Stage: load.Permission,
		Text: `The kernel asks the security modules at every bpf(2), and again for each
program. SELinux answers EACCES, and writes the reason to the audit log (tclass=bpf with
prog_load, map_create or prog_run). BPF LSM programs and other modules can answer anything,
usually EPERM. The verifier is not called, so its log is empty.`,
		Kernels: "All. Hooks for single programs since 6.9.",
		Remedies: []load.Remedy{
			{
				ID:      "audit-log",
				Title:   "Find the denial in the audit log. Allow exactly this in the policy of the loader's domain",
				Price:   "A policy module to maintain. The domain may then load BPF programs.",
				Command: "ausearch -m AVC -ts recent | grep 'tclass=bpf'",
			},
			{
				ID:    "lsm-owner",
				Title: "Find the agent that runs BPF LSM programs on the node, and add the loader to the list of what it allows",
				Price: "An exception in a security product.",
			},
		},
		Match: matchLSM,
	}
}

func matchLSM(f *Facts) *Match {
	if !f.failed() || f.isClassic() {
		return nil
	}
	for _, fn := range []load.Function{load.FnLSM, load.FnLSMLoad} {
		if s := f.cause(fn); s != nil {
			m := &Match{Strength: Certain, How: load.Observed}
			m.Evidence = append(m.Evidence, fmt.Sprintf("%s returned %d (%s)", fn, s.Ret, errnoName(-s.Ret)))
			m.Cause = "A security module refused the call before the verifier was asked."
			f.describeLSM(m)
			return m
		}
	}
	if m := f.lockedBySELinux(); m != nil {
		return m
	}
	if f.errno() != abi.EPERM && f.errno() != abi.EACCES || f.refusedByOthers() || f.asksNoLSM() {
		return nil
	}
	m := &Match{Strength: Possible, How: load.Inferred}
	m.Cause = "A security module may have refused the call. No other known cause fits."
	m.Why = "security modules are asked on every bpf(2) and perf_event_open(2). The audit log has a line of what SELinux or AppArmor refused"
	f.gradeLSM(m)
	if f.notReached(load.Verifier) {
		m.Evidence = append(m.Evidence, "the verifier was not reached")
	}
	f.describeLSM(m)
	return m
}

// lockedBySELinux is a helper that reads memory and is refused where SELinux is on: some kernels
// ask it what lockdown would forbid to everybody.
func (f *Facts) lockedBySELinux() *Match {
	if name, _ := f.refusedHelper(); f.text == nil || !f.text.node.Enforcing || !slices.Contains(readHelpers, name) || f.does(node.LockdownSparesLSM) {
		return nil
	}
	m := &Match{Strength: Likely, How: load.Inferred}
	m.Cause = "SELinux is enforcing, and kernels from 5.6 to 5.15 ask it whether a process may do what lockdown would forbid to everybody (class lockdown): if its policy says no, this helper is hidden from the program. The audit log has a line then."
	m.Why = m.Cause
	m.Evidence = append(m.Evidence, "the text says that SELinux is enforcing")
	return m
}

// refusedByOthers reports a call that somebody else than a security module is known to refuse.
func (f *Facts) refusedByOthers() bool {
	if !f.words.empty() || f.verifierAccepted() || f.signatureOfSeccomp() >= Strong {
		return true
	}
	if _, sawCap := f.refusedCap(); sawCap || f.cause(load.FnCheck) != nil || f.cause(load.FnDoCheck) != nil {
		return true
	}
	return f.errno() == abi.EPERM && len(f.missingCaps()) > 0
}

// asksNoLSM reports a call in which no module has a say, or a kernel without a module that has one.
func (f *Facts) asksNoLSM() bool {
	if f.afterLoad() && !slices.Contains(asksLSM, f.kind()) {
		return true
	}
	return f.Node.LSMs != nil && !slices.ContainsFunc(f.Node.LSMs, func(m string) bool { return m == "selinux" || m == "bpf" || m == "smack" })
}

// gradeLSM looks for what makes a module likely where none was seen.
func (f *Facts) gradeLSM(m *Match) {
	selinux, bpf := slices.Contains(f.Node.LSMs, "selinux"), slices.Contains(f.Node.LSMs, "bpf")
	switch {
	case f.afterLoad(): // whose errnos have causes that are commoner
	case f.errno() == abi.EACCES && selinux && (f.kind() != load.ProgLoad || f.notReached(load.Verifier)):
		m.Strength = Likely
	case f.text != nil && f.errno() == abi.EACCES && f.kind() == load.MapCreate:
		m.Strength = Likely
		m.Cause = "A security module refused the call: creating a map without a capability is refused with EPERM."
	case f.errno() == abi.EPERM && bpf && !f.observed(load.Permission) && f.needsAndHolds() && f.does(node.ChargesNoMemlock):
		m.Strength = Likely
	}
}

// asksLSM are the calls after a load that a security module has a say in.
var asksLSM = []load.Kind{load.LinkCreate, load.LinkUpdate, load.ProgAttach, load.RawTPOpen, load.ObjPin, load.MapUpdate, load.PerfEventOpen}

func (f *Facts) describeLSM(m *Match) {
	if len(f.Node.LSMs) > 0 {
		m.Evidence = append(m.Evidence, "security modules of this kernel: "+printable(strings.Join(f.Node.LSMs, ","), 200))
		if !slices.Contains(f.Node.LSMs, "selinux") {
			m.Without = append(m.Without, "audit-log")
		}
	}
}
