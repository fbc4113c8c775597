// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// Capabilities, and what is closed to loaders without them.

// Program types that need more than CAP_BPF (6.12; older kernels differ in
// types they do not have).
var (
	openTypes     = []string{"socket_filter", "cgroup_skb"}
	netAdminTypes = []string{
		"sched_cls", "sched_act", "xdp", "lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local", "sk_skb", "sk_msg", "flow_dissector",
		"cgroup_device", "cgroup_sock", "cgroup_sock_addr", "cgroup_sockopt", "cgroup_sysctl", "sock_ops", "ext", "lirc_mode2", "netfilter",
	}
	perfmonTypes = []string{
		"kprobe", "tracepoint", "perf_event", "raw_tracepoint", "raw_tracepoint_writable", "tracing", "lsm", "struct_ops", "ext",
	}
)

// neededCaps lists what the kernel asks of a loader of this program type, in
// the order in which it asks.
func (f *Facts) neededCaps() []int {
	t, ok := f.progType()
	if !ok || f.kind() != load.ProgLoad {
		return nil
	}
	return Capabilities(t, f.Node)
}

// Capabilities lists what a kernel asks of a loader of this program type, in the order in which it
// asks. Nil: the type is open to all, where kernel.unprivileged_bpf_disabled is 0.
func Capabilities(progType string, n *node.Profile) []int {
	if slices.Contains(openTypes, progType) {
		return nil
	}
	if n.Does(node.SplitsCapabilities) == node.No {
		return []int{abi.CapSysAdmin}
	}
	caps := []int{abi.CapBPF}
	if slices.Contains(netAdminTypes, progType) {
		caps = append(caps, abi.CapNetAdmin)
	}
	if slices.Contains(perfmonTypes, progType) {
		caps = append(caps, abi.CapPerfmon)
	}
	return caps
}

// missingCaps are those of the needed ones that the loader is known not to hold.
func (f *Facts) missingCaps() []int { return f.missingOf(f.neededCaps()...) }

func (f *Facts) missingOf(caps ...int) []int {
	var out []int
	for _, c := range caps {
		if f.missing(c) {
			out = append(out, c)
		}
	}
	return out
}

// needsAndHolds reports a load that needs capabilities, of which none is missing.
func (f *Facts) needsAndHolds() bool {
	return f.kind() == load.ProgLoad && f.ev.CapsKnown && len(f.neededCaps()) > 0 && len(f.missingCaps()) == 0
}

// holdsAll reports a loader with every capability that bpf(2) asks for.
func (f *Facts) holdsAll() bool {
	return f.holds(abi.CapBPF) && f.holds(abi.CapNetAdmin) && f.holds(abi.CapPerfmon)
}

// refusedCap returns the capability whose absence a hook saw deciding the
// call. CAP_SYS_ADMIN is asked for in place of a finer one that was refused
// just before.
func (f *Facts) refusedCap() (int, bool) {
	for i := len(f.ev.Spans) - 1; i >= 0; i-- {
		s := f.ev.Spans[i]
		if s.Function != load.FnCapable || !s.Cause {
			continue
		}
		if s.Arg == abi.CapSysAdmin {
			for j := i - 1; j >= 0 && f.ev.Spans[j].Function == load.FnCapable; j-- {
				if c := f.ev.Spans[j].Arg; c == abi.CapBPF || c == abi.CapPerfmon || c == abi.CapNetAdmin {
					return int(c), true
				}
			}
		}
		return int(s.Arg), true
	}
	return 0, false
}

func (f *Facts) unprivilegedDisabled() (int, bool) {
	v, ok := f.sysctl("kernel.unprivileged_bpf_disabled")
	return int(v), ok
}

func perm001() Rule {
	return Rule{
		ID:    "PERM001",
		Title: "The loader is missing a capability",
		Class: "R1",
		Stage: load.Permission,
		Text: `To load programs, a loader needs CAP_BPF. Tracing programs (kprobe,
tracepoint, perf_event, tracing, LSM, struct_ops) also need CAP_PERFMON. Network programs (tc,
XDP, sockmap, cgroup hooks) also need CAP_NET_ADMIN. CAP_SYS_ADMIN includes all of them. Before
5.8 it is the only one.

The loader must have the capabilities in the initial user namespace. In another user namespace,
even root's capabilities do not count for bpf(2), except with a BPF token (6.9).

The kernel only answers EPERM. Many loaders then print a hint about RLIMIT_MEMLOCK. Since 5.11
this limit does not matter.`,
		Kernels: "All; CAP_BPF and CAP_PERFMON since 5.8.",
		Remedies: []load.Remedy{
			{
				ID:    "grant-caps",
				Title: "Give the loader the capabilities: in its unit file, in its pod's securityContext, or on its file",
				Price: "Tracing programs can read all kernel memory. Network programs can change traffic. Give these capabilities only to loaders that you trust.",
			},
			{
				ID:    "privileged-loader",
				Title: "Let a privileged process load the programs, and pin them or pass their file descriptors on",
				Price: "A second component to run and to secure.",
			},
			delegateToken,
		},
		grants: map[string][]int{"grant-caps": {abi.CapBPF, abi.CapPerfmon, abi.CapNetAdmin}},
		Match:  matchCapability,
	}
}

func matchCapability(f *Facts) *Match {
	if !f.refused() || f.deniedElsewhere() {
		return nil
	}
	if f.afterLoad() {
		return matchAttachCapability(f)
	}
	m := &Match{How: load.Inferred, Without: f.uselessRemedies("grant-caps")}
	var missing []int
	fits := false
	if seen, saw := f.refusedCap(); saw {
		missing, fits = f.seenWithoutCap(m, seen)
	} else {
		missing, fits = f.supposedWithoutCap(m)
	}
	if !fits {
		return nil
	}
	f.tellCaps(m)
	what := "this call"
	if t, ok := f.progType(); ok {
		what = "loading a program of type " + printable(t, 40)
	}
	if len(missing) > 0 {
		m.Cause = fmt.Sprintf("%s needs %s, which the loader (uid %d) does not have.", upperFirst(what), capList(missing), f.Attempt.Process.UID)
		m.Grants = map[string][]int{"grant-caps": missing}
	}
	if f.ev.CapsKnown && f.ev.UserNSLevel > 0 {
		m.Cause += " It runs in a user namespace, where its capabilities do not count for bpf(2)."
	}
	return m
}

// seenWithoutCap is for a call in which the kernel was seen to miss a capability.
func (f *Facts) seenWithoutCap(m *Match, seen int) (missing []int, fits bool) {
	missing = f.missingCaps()
	disabled, known := f.unprivilegedDisabled()
	bySysctl := known && disabled != 0 && seen == abi.CapBPF
	if len(missing) == 0 {
		// An open type: the question was whether the sysctl applies, which PERM002 tells.
		if bySysctl && len(f.neededCaps()) == 0 && f.kind() == load.ProgLoad {
			return nil, false
		}
		missing = []int{seen}
	}
	if !slices.Contains(missing, seen) && seen != abi.CapSysAdmin {
		missing = append([]int{seen}, missing...)
	}
	m.Strength, m.How = Certain, load.Observed
	m.Evidence = append(m.Evidence, fmt.Sprintf("the kernel checked whether the loader has %s, found that it has not, and refused the load", abi.CapName(seen)))
	switch {
	case f.kind() != load.ProgLoad:
		m.Strength = Strong
	case bySysctl:
		// The first check that it fails is that of the sysctl; without the sysctl the next one
		// would fail.
		m.Evidence = append(m.Evidence, fmt.Sprintf("kernel.unprivileged_bpf_disabled was %d, but this program type needs the capability in any case", disabled))
	}
	return missing, true
}

// supposedWithoutCap is for a call in which no such check was seen.
func (f *Facts) supposedWithoutCap(m *Match) (missing []int, fits bool) {
	missing, needed := f.missingCaps(), f.neededCaps()
	isLoad := f.kind() == load.ProgLoad
	switch {
	case len(missing) > 0:
		m.Strength = Strong
		return missing, true
	case isLoad && len(needed) == 0 && f.Attempt.Program != nil && f.Attempt.Program.Type != "":
		return nil, false // an open type asks for none
	case f.needsAndHolds(), !isLoad && f.holdsAll():
		return nil, false
	case !isLoad && f.missing(abi.CapBPF):
		m.Strength = Likely
		return []int{abi.CapBPF}, true
	}
	m.Strength = Possible
	if len(needed) == 0 {
		needed = []int{abi.CapBPF}
	}
	if !f.ev.CapsKnown && f.Attempt.Process.UID > 0 {
		m.Strength = Likely
		m.Evidence = append(m.Evidence, "the loader's capabilities are not known; it is not root")
	}
	m.Why = fmt.Sprintf("the loader's capabilities are not known; it needs %s. CapEff in /proc/PID/status shows what it has", capList(needed))
	return needed, true
}

// matchAttachCapability is about calls after a load. Few of them ask for a capability: netlink for
// CAP_NET_ADMIN, and bpf(2) before 5.19 for CAP_BPF where the sysctl is set. Perf events, sockets
// and tracefs have rules of their own.
func matchAttachCapability(f *Facts) *Match {
	m := &Match{Strength: Likely, How: load.Inferred, Without: f.uselessRemedies("grant-caps")}
	needed := abi.CapBPF
	seen, saw := f.refusedCap()
	switch {
	case f.kind() == load.XDPAttach, f.kind() == load.TCAttach:
		needed = abi.CapNetAdmin
	case f.kind() == load.PerfEventOpen, f.kind() == load.PerfEventSetBPF, f.kind() == load.SocketAttach, f.kind() == load.ProbeDefine:
		return nil
	case saw:
		needed = seen
	default:
		if m.Strength = f.closedByUnprivileged(m); m.Strength == 0 {
			return nil
		}
	}
	switch {
	case saw && seen == needed:
		m.Strength, m.How = Strong, load.Observed
		m.Evidence = append(m.Evidence, fmt.Sprintf("the kernel checked whether the loader has %s, and found that it has not", abi.CapName(seen)))
	case f.holds(needed):
		return nil
	case f.missing(needed) && m.Strength == Likely:
		m.Strength = Strong
	}
	f.tellCaps(m)
	m.Cause = fmt.Sprintf("This call needs %s, which the loader does not have.", abi.CapName(needed))
	f.sayUnsureOf(needed, m)
	m.Why = fmt.Sprintf("the call may need %s, and whether the loader has it is not known. CapEff in /proc/PID/status shows it", abi.CapName(needed))
	m.Grants = map[string][]int{"grant-caps": {needed}}
	return m
}

// closedByUnprivileged is what speaks for kernel.unprivileged_bpf_disabled, which closes every
// command of bpf(2) on older kernels to a loader without CAP_BPF. Root is hardly without it.
func (f *Facts) closedByUnprivileged(m *Match) Strength {
	v, known := f.unprivilegedDisabled()
	switch {
	case f.does(node.ClosesLoadsAlone) || known && v == 0:
		return 0
	case !known || !f.doesNot(node.ClosesLoadsAlone):
		return Possible
	}
	m.Evidence = append(m.Evidence, fmt.Sprintf("kernel.unprivileged_bpf_disabled was %d, which closes every command of bpf(2) on this kernel", v))
	if f.text == nil && !f.ev.CapsKnown && f.Attempt.Process.UID == 0 {
		return Possible
	}
	return Likely
}

// sayUnsureOf corrects the cause where a text does not tell what the loader may do.
func (f *Facts) sayUnsureOf(needed int, m *Match) {
	if f.text != nil && !f.ev.CapsKnown {
		m.Cause = fmt.Sprintf("This call needs %s, and EPERM is the answer to a loader without it: one that is not root, or root of a user namespace or a container that lacks it.", abi.CapName(needed))
	}
}

func capList(caps []int) string {
	names := make([]string, len(caps))
	for i, c := range caps {
		names[i] = abi.CapName(c)
	}
	return strings.Join(names, " and ")
}

func perm002() Rule {
	return Rule{
		ID:    "PERM002",
		Title: "kernel.unprivileged_bpf_disabled forbids bpf(2) to loaders without CAP_BPF",
		Class: "R1",
		Stage: load.Permission,
		Text: `Distributions set kernel.unprivileged_bpf_disabled to 1 or 2. Then a
loader without CAP_BPF may not load any program, not even socket filters and cgroup_skb, which
were once open to everybody. The answer is EPERM. Attacks by speculative execution use programs of
unprivileged users. So do not change the setting, and give the loader a capability.`,
		Kernels: "Since 4.4. Up to about 6.5, the check comes before all others. Later it is part of the load.",
		Remedies: []load.Remedy{
			{
				ID:    "grant-bpf",
				Title: "Give the loader CAP_BPF (CAP_SYS_ADMIN before 5.8)",
				Price: "The loader may then create maps and load socket filters.",
			},
			{
				ID:    "privileged-loader",
				Title: "Let a privileged process load the programs, and pin them or pass their file descriptors on",
				Price: "A second component to run and to secure.",
			},
			{
				ID:    "classic-filter",
				Title: "Use a classic socket filter (SO_ATTACH_FILTER), which needs no privilege",
				Price: "No maps, no helpers, at most 4096 instructions.",
			},
			delegateToken,
		},
		grants: map[string][]int{"grant-bpf": {abi.CapBPF}},
		Match:  matchUnprivileged,
	}
}

func matchUnprivileged(f *Facts) *Match {
	if !f.refused() || f.deniedElsewhere() {
		return nil
	}
	if f.kind() != load.ProgLoad && f.kind() != load.MapCreate {
		return nil
	}
	v, known := f.unprivilegedDisabled()
	if known && v == 0 || f.holds(abi.CapBPF) {
		return nil
	}
	m := &Match{How: load.Inferred, Without: f.uselessRemedies("grant-bpf")}
	if !f.gradeUnprivileged(m) {
		return nil
	}
	if known {
		m.Evidence = append(m.Evidence, fmt.Sprintf("kernel.unprivileged_bpf_disabled was %d", v))
	}
	f.tellCaps(m)
	m.Cause = "The node does not let loaders without CAP_BPF use bpf(2) at all, and this loader has none."
	if f.kind() != load.ProgLoad {
		m.Without = append(m.Without, "classic-filter")
	}
	return m
}

// gradeUnprivileged says how sure it is that the sysctl decided, and false if something else did.
func (f *Facts) gradeUnprivileged(m *Match) bool {
	v, known := f.unprivilegedDisabled()
	seen, saw := f.refusedCap()
	open := f.kind() == load.MapCreate || len(f.neededCaps()) == 0
	switch {
	case saw && seen != abi.CapBPF && seen != abi.CapSysAdmin:
		return false
	case known && f.missing(abi.CapBPF) && open:
		m.Strength = Strong
		if saw {
			m.Strength, m.How = Certain, load.Observed
			m.Evidence = append(m.Evidence, fmt.Sprintf("the kernel checked whether the loader has %s, found that it has not, and refused the load", abi.CapName(seen)))
		}
	case known && f.missing(abi.CapBPF):
		m.Strength = Likely
		m.Why = fmt.Sprintf("kernel.unprivileged_bpf_disabled is %d and is asked first; the capability is missing in any case", v)
		return !saw // PERM001 is certain and says it all
	case known && saw:
		m.Strength = Likely
	default:
		m.Strength = Possible
		m.Why = "whether the sysctl is set, or what the loader may do, is not known. 'sysctl kernel.unprivileged_bpf_disabled' shows it"
		if known {
			m.Why = fmt.Sprintf("kernel.unprivileged_bpf_disabled is %d; the loader's capabilities are not known", v)
		}
	}
	return true
}

func perm009() Rule {
	return Rule{
		ID:    "PERM009",
		Title: "The verifier is stricter with this loader: CAP_PERFMON or CAP_BPF is missing",
		Class: "R1",
		Stage: load.Verifier,
		Text: `Without CAP_PERFMON, a program may not leak kernel addresses. It may not
return, store or compare pointers, nor do most arithmetic on them. Without CAP_BPF, it may not
call its own functions or kernel functions, it may not loop, and it may use only a few helpers.
With the capabilities, the same program loads.`,
		Kernels: "All. CAP_PERFMON and CAP_BPF since 5.8, CAP_SYS_ADMIN before.",
		Remedies: []load.Remedy{
			{
				ID:    "grant-caps",
				Title: "Give the loader CAP_BPF and CAP_PERFMON",
				Price: "Programs of this loader can then read kernel memory.",
			},
			{
				ID:    "no-pointer-leak",
				Title: "Change the program: do not return, store or compare pointers",
				Price: "A change of the source.",
			},
		},
		grants: map[string][]int{"grant-caps": {abi.CapBPF, abi.CapPerfmon}},
		Match:  matchUnprivilegedVerifier,
	}
}

func matchUnprivilegedVerifier(f *Facts) *Match {
	if !f.isLoad() {
		return nil
	}
	if !f.words.is(verifierlog.NeedsPrivilege, verifierlog.PointerLeak) {
		return nil
	}
	if f.holds(abi.CapBPF) && f.holds(abi.CapPerfmon) {
		return nil
	}
	m := f.verifierMatch()
	if f.ev.UserNSLevel > 0 {
		m.First, m.Without = append(m.First, delegateToken), append(m.Without, "grant-caps")
	}
	if m.Cause == "" {
		m.Cause = fmt.Sprintf("The verifier refuses to an unprivileged loader what it would allow a privileged one: %s.", f.words.message)
	}
	if t := f.capsText(); t != "" {
		m.Evidence = append(m.Evidence, t)
	}
	return m
}
