// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

func permissionRules() []Rule {
	return []Rule{
		{
			ID:    "PERM001",
			Title: "The loader lacks a capability",
			Class: "R1",
			Stage: load.Permission,
			Text: `Loading needs CAP_BPF, and with it CAP_PERFMON for tracing programs (kprobe, tracepoint, perf_event, tracing, LSM, struct_ops)
or CAP_NET_ADMIN for network programs (tc, XDP, sockmap, cgroup hooks). CAP_SYS_ADMIN stands for all of them, and before 5.8 is the only one there
is. The capabilities must be held in the initial user namespace: inside a user namespace even root has none that bpf(2) accepts, unless
a BPF token (6.9) was delegated. The kernel says EPERM and nothing more, and many loaders turn that into a hint about RLIMIT_MEMLOCK, which
has not mattered since 5.11.`,
			Kernels: "All; CAP_BPF and CAP_PERFMON since 5.8.",
			Remedies: []load.Remedy{
				{
					ID:      "grant-caps",
					Title:   "Give the loader the capabilities, in its unit file, its pod's securityContext or on its file",
					Price:   "Tracing programs can read the whole kernel's memory, network programs can change traffic: grant them to loaders that you trust.",
					Command: "AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_NET_ADMIN",
				},
				{
					ID:    "privileged-loader",
					Title: "Let a privileged process load and pin the programs, and hand the file descriptors over",
					Price: "A second component to run and to secure.",
				},
			},
			Match: matchCapability,
		},
		{
			ID:    "PERM002",
			Title: "kernel.unprivileged_bpf_disabled closes bpf(2) to this loader",
			Class: "R1",
			Stage: load.Permission,
			Text: `With kernel.unprivileged_bpf_disabled at 1 or 2, which is what distributions ship, a loader without CAP_BPF may not load even
the program types that were once open to everybody, socket filters and cgroup_skb. The answer is EPERM. Programs of unprivileged users are
how speculative-execution attacks are mounted, and this is why it stays closed: the way in is a capability.`,
			Kernels: "Since 4.4. Up to 6.5 or so the check comes before anything else; later it stands inside the load.",
			Remedies: []load.Remedy{
				{
					ID:      "grant-bpf",
					Title:   "Give the loader CAP_BPF (CAP_SYS_ADMIN before 5.8)",
					Price:   "A privilege: the loader may then create maps and load socket filters.",
					Command: "setcap cap_bpf+ep PROGRAM",
				},
				{
					ID:    "privileged-loader",
					Title: "Let a privileged process load and pin the programs, and hand the file descriptors over",
					Price: "A second component to run and to secure.",
				},
				{
					ID:    "classic-filter",
					Title: "Use a classic socket filter (SO_ATTACH_FILTER), which needs no privilege",
					Price: "No maps, no helpers, 4096 instructions.",
				},
			},
			Match: matchUnprivileged,
		},
		{
			ID:    "PERM003",
			Title: "Lockdown (confidentiality) hides the helpers that read kernel memory",
			Class: "R1",
			Stage: load.Permission,
			Text: `In lockdown's confidentiality mode nobody may read kernel memory, root included. The verifier then acts as if bpf_probe_read,
bpf_probe_read_kernel and their _str forms did not exist: "unknown func bpf_probe_read_kernel", or "program of this type cannot use helper" on
newer kernels. It looks like a kernel that is too old and is none. The mode comes from the command line (lockdown=confidentiality), from the
kernel's configuration, or with some distributions from Secure Boot.`,
			Kernels: "Since 5.4.",
			Remedies: []load.Remedy{
				{
					ID:    "no-kernel-reads",
					Title: "Read through BTF pointers instead (fentry, tp_btf, raw loads that the verifier checks), and user memory with bpf_probe_read_user",
					Price: "A change of the program; needs kernel BTF (5.5). Loaders that rewrite bpf_probe_read_kernel to bpf_probe_read do not help: both are locked.",
				},
				{
					ID:      "lockdown-integrity",
					Title:   "Run the node with lockdown=integrity",
					Price:   "Kernel memory can be read by root again, keys in it included. A reboot, and a decision for whoever owns the node's security.",
					Command: "lockdown=integrity",
				},
			},
			Match: func(f *Facts) *Match { return matchLockdown(f, false) },
		},
		{
			ID:    "PERM004",
			Title: "Lockdown takes bpf_probe_write_user away",
			Class: "R1",
			Stage: load.Permission,
			Text: `From lockdown's integrity mode on, which many distributions switch on with Secure Boot, a BPF program may not write to the
memory of processes. Only the helper bpf_probe_write_user is gone; the verifier calls it unknown, or not for this type.`,
			Kernels: "Since 5.14, and stable kernels.",
			Remedies: []load.Remedy{
				{
					ID:    "no-user-writes",
					Title: "Do without bpf_probe_write_user: pass data by a map or a ring buffer, or patch the process by ptrace or a library",
					Price: "A change of the design. Instrumentation that rewrites requests in flight (trace context) loses that feature.",
				},
				{
					ID:    "feature-off",
					Title: "Make the feature optional in the loader, and leave the program out where lockdown is on",
					Price: "The feature is missing on such nodes.",
				},
			},
			Match: func(f *Facts) *Match { return matchLockdown(f, true) },
		},
		{
			ID:    "PERM005",
			Title: "A security module (SELinux, BPF LSM, ...) forbids it",
			Class: "R1",
			Stage: load.Permission,
			Text: `Security modules are asked on every bpf(2), and again for each program. SELinux answers EACCES and writes the reason to the
audit log (tclass=bpf, prog_load, map_create, prog_run); BPF LSM programs and others answer what they like, as a rule EPERM. Nothing reaches the
verifier's log, because the verifier was not called.`,
			Kernels: "All; hooks for the single program since 6.9.",
			Remedies: []load.Remedy{
				{
					ID:      "audit-log",
					Title:   "Read the audit log for the denial, and allow exactly that in the policy of the loader's domain",
					Price:   "A policy module to maintain. The domain may then load BPF programs.",
					Command: "ausearch -m AVC -ts recent | grep 'tclass=bpf'",
				},
				{
					ID:    "lsm-owner",
					Title: "Ask who runs BPF LSM programs on the node (security agents) and have the loader put on their list",
					Price: "An exception in a security product.",
				},
			},
			Match: matchLSM,
		},
		{
			ID:    "PERM006",
			Title: "A seccomp policy forbids bpf(2)",
			Class: "R1",
			Stage: load.Request,
			Text: `A seccomp filter, as a rule that of the container runtime, answers in the kernel's place: bpf(2) never starts. Its signature is
a system call that returns without having begun. The default policies of Docker, containerd and CRI-O open bpf(2) to containers that hold
CAP_BPF or CAP_SYS_ADMIN (older ones to CAP_SYS_ADMIN alone).`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:    "grant-caps-container",
					Title: "Give the container CAP_BPF (and CAP_PERFMON or CAP_NET_ADMIN): the runtime's default policy then lets bpf(2) through",
					Price: "The container may load BPF programs, on the host's kernel. Runtimes from before CAP_BPF was known to them need CAP_SYS_ADMIN.",
				},
				{
					ID:    "seccomp-profile",
					Title: "Use a seccomp profile that is the runtime's default plus bpf(2) (and perf_event_open if it attaches kprobes)",
					Price: "A profile to distribute and to keep up to date.",
				},
			},
			Match: matchSeccompPolicy,
		},
		{
			ID:    "PERM007",
			Title: "RLIMIT_MEMLOCK is too low",
			Class: "R1",
			Stage: load.Resources,
			Text: `Before 5.11 the memory of programs and maps counts as locked memory of the user, against RLIMIT_MEMLOCK, whose default of 64 KiB
does not last long. The answer is EPERM, for root as well. Since 5.11 the memory controller of the control group does the accounting and the
limit plays no part: a hint about MEMLOCK on such a kernel is wrong, and a missing capability the likely truth.`,
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
					Title: "Move to a kernel from 5.11 on",
					Price: "A reboot, and another kernel to test.",
				},
			},
			Match: matchMemlock,
		},
		{
			ID:    "PERM009",
			Title: "The verifier holds an unprivileged program to stricter rules",
			Class: "R1",
			Stage: load.Verifier,
			Text: `A loader without CAP_PERFMON may not let kernel addresses escape: not return, store or compare pointers, nor do most
arithmetic on them; without CAP_BPF it may call neither functions of its own nor kernel functions, loop, or use most helpers. The same program
loads with the capabilities.`,
			Kernels: "All; CAP_PERFMON and CAP_BPF decide since 5.8, CAP_SYS_ADMIN before.",
			Remedies: []load.Remedy{
				{
					ID:      "grant-caps",
					Title:   "Give the loader CAP_BPF and CAP_PERFMON",
					Price:   "Programs of this loader can then read kernel memory.",
					Command: "setcap cap_bpf,cap_perfmon+ep PROGRAM",
				},
				{
					ID:    "no-pointer-leak",
					Title: "Change the program: keep pointers out of return values, maps and comparisons",
					Price: "A change of the source.",
				},
			},
			Match: matchUnprivilegedVerifier,
		},
		{
			ID:    "PERM010",
			Title: "The BPF token was refused",
			Class: "R11",
			Stage: load.Permission,
			Text: `A BPF token lends the rights of a BPF file system's mount (delegate_cmds, delegate_maps, delegate_progs, delegate_attachs) to
processes of the user namespace that owns it. It is refused where nothing was delegated, in the wrong user namespace, or when the file
descriptor is no token. libbpf tries to create one at every start: its message that this failed (-95, -2) is noise.`,
			Kernels: "Since 6.9.",
			Remedies: []load.Remedy{
				{
					ID:    "delegate",
					Title: "Mount the BPF file system for that user namespace with the commands, map, program and attach types it is to have",
					Price: "A container's root may then do all of that on the host's kernel. The mount must be made with CAP_SYS_ADMIN outside.",
				},
				{
					ID:      "no-token",
					Title:   "Load without a token (LIBBPF_BPF_TOKEN_PATH set to the empty string)",
					Price:   "The loader needs the capabilities itself.",
					Command: "LIBBPF_BPF_TOKEN_PATH= PROGRAM",
				},
			},
			Match: matchToken,
		},
		{
			ID:    "PERM011",
			Title: "perf_event_open(2) is closed to the loader",
			Class: "R1",
			Stage: load.Permission,
			Text: `Loaders attach kprobes, uprobes and tracepoints by a perf event where they do not use links of the newer kinds. perf_event_open wants
CAP_PERFMON (before 5.8 CAP_SYS_ADMIN) for a kprobe or uprobe, and for the rest obeys kernel.perf_event_paranoid. Debian's and Ubuntu's kernels
know the values 3 and 4, which close it to everybody without the capability; some refuse even CAP_PERFMON and want CAP_SYS_ADMIN. The program itself was
loaded: it is attaching that fails. bpf(2) does not see it, so that 'bpfwhy watch' does not either.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:      "grant-perfmon",
					Title:   "Give the loader CAP_PERFMON",
					Price:   "Programs of this loader can then read kernel memory.",
					Command: "setcap cap_bpf,cap_perfmon+ep PROGRAM",
				},
				{
					ID:    "no-perf-event",
					Title: "Attach without a perf event: fentry, kprobe.multi (5.18), uprobe.multi (6.6), raw_tracepoint",
					Price: "A change of the loader, and a kernel that has them.",
				},
				{
					ID:      "lower-paranoid",
					Title:   "Lower kernel.perf_event_paranoid to 2, the default of the kernel's own",
					Price:   "Users without privilege may count events of their own processes.",
					Command: "sysctl -w kernel.perf_event_paranoid=2",
				},
			},
			// Only text tells: perf_event_open is no command of bpf(2).
			Match: func(*Facts) *Match { return nil },
		},
		{
			ID:    "PERM012",
			Title: "perf_event_open(2) wants CAP_SYS_ADMIN for a uprobe",
			Class: "R1",
			Stage: load.Permission,
			Text: `A uprobe that is attached by a perf event needs CAP_SYS_ADMIN again, where CAP_PERFMON was enough from 5.8 on: a uprobe changes the memory of
whoever runs the file. The answer is EACCES. It hits loaders that give CAP_SYS_ADMIN up after their start, at the next library that they find, and those that
never had it. Kernels without the change want CAP_PERFMON, and answer EACCES too to who lacks that. kprobes and tracepoints are as before, and so is attaching
by a link of the kind uprobe.multi, which needs CAP_BPF and CAP_PERFMON. bpf(2) does not see perf_event_open, so that 'bpfwhy watch' does not either.`,
			Kernels: "6.16 and later, and stable kernels with ba677dbe77af: 5.10.240, 5.15.189, 6.1.146, 6.6.99, 6.12.39, 6.15.7 and later.",
			Remedies: []load.Remedy{
				{
					ID:    "uprobe-multi",
					Title: "Attach by BPF_LINK_CREATE with uprobe.multi (6.6; UprobeMulti in cilium/ebpf, bpf_program__attach_uprobe_multi in libbpf)",
					Price: "A change of the loader, and the program's expected attach type is then BPF_TRACE_UPROBE_MULTI. Keeps CAP_SYS_ADMIN away.",
				},
				{
					ID:    "attaching-process",
					Title: "Before 6.6, let a small process that keeps CAP_SYS_ADMIN attach, and nothing else",
					Price: "A second process to secure, as powerful as root.",
				},
				{
					ID:    "grant-sys-admin",
					Title: "Let the loader keep CAP_SYS_ADMIN",
					Price: "As powerful as root: who takes the loader over has the node.",
				},
			},
			// Only text tells: perf_event_open is no command of bpf(2).
			Match: func(*Facts) *Match { return nil },
		},
	}
}

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
	if slices.Contains(openTypes, t) {
		return nil
	}
	if f.before(5, 8) {
		return []int{capSysAdmin}
	}
	caps := []int{capBPF}
	if slices.Contains(netAdminTypes, t) {
		caps = append(caps, capNetAdmin)
	}
	if slices.Contains(perfmonTypes, t) {
		caps = append(caps, capPerfmon)
	}
	return caps
}

func (f *Facts) lacking() []int {
	var out []int
	for _, c := range f.neededCaps() {
		if f.lacks(c) {
			out = append(out, c)
		}
	}
	return out
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
		if s.Arg == capSysAdmin {
			for j := i - 1; j >= 0 && f.ev.Spans[j].Function == load.FnCapable; j-- {
				if c := f.ev.Spans[j].Arg; c == capBPF || c == capPerfmon || c == capNetAdmin {
					return int(c), true
				}
			}
		}
		return int(s.Arg), true
	}
	return 0, false
}

// refused reports a call that ended with EPERM before the verifier.
func (f *Facts) refused() bool {
	if !f.failed() || f.isClassic() || f.errno() != errEPERM {
		return false
	}
	return f.words.empty() && !f.verifierAccepted()
}

// deniedElsewhere reports that a hook saw somebody else say no.
func (f *Facts) deniedElsewhere() bool {
	return f.cause(load.FnLSM) != nil || f.cause(load.FnLSMLoad) != nil || f.signatureOfSeccomp() >= Strong
}

func (f *Facts) unprivilegedDisabled() (int, bool) {
	v, ok := f.sysctl("kernel.unprivileged_bpf_disabled")
	return int(v), ok
}

func matchCapability(f *Facts) *Match {
	if !f.refused() || f.deniedElsewhere() {
		return nil
	}
	m := &Match{How: load.Inferred}
	seen, sawIt := f.refusedCap()
	missing := f.lacking()
	needed := f.neededCaps()
	disabled, sysctlKnown := f.unprivilegedDisabled()
	switch {
	case sawIt:
		if len(missing) == 0 {
			// An open type: the question was whether the sysctl applies, which
			// PERM002 tells.
			if len(needed) == 0 && f.kind() == load.ProgLoad && seen == capBPF && sysctlKnown && disabled != 0 {
				return nil
			}
			missing = []int{seen}
		}
		if !slices.Contains(missing, seen) && seen != capSysAdmin {
			missing = append([]int{seen}, missing...)
		}
		m.Strength, m.How = Certain, load.Observed
		m.Evidence = append(m.Evidence, fmt.Sprintf("the kernel asked whether the loader has %s and was told no, and gave up there", capName(seen)))
		switch {
		case f.kind() != load.ProgLoad:
			m.Strength = Strong
		case sysctlKnown && disabled != 0 && seen == capBPF:
			// The first check that it fails is that of the sysctl; without the
			// sysctl the next one would fail.
			m.Evidence = append(m.Evidence, fmt.Sprintf("kernel.unprivileged_bpf_disabled was %d, but this program type needs the capability in any case", disabled))
		}
	case len(missing) > 0:
		m.Strength = Strong
	case f.kind() == load.ProgLoad && len(needed) == 0 && f.Attempt.Program != nil && f.Attempt.Program.Type != "":
		return nil // an open type asks for none
	case f.ev.CapsKnown && f.kind() == load.ProgLoad && len(needed) > 0:
		return nil // it has all of them
	case f.kind() != load.ProgLoad && f.holds(capBPF) && f.holds(capNetAdmin) && f.holds(capPerfmon):
		return nil
	case f.kind() != load.ProgLoad && f.lacks(capBPF):
		m.Strength = Likely
		missing = []int{capBPF}
	default:
		m.Strength = Possible
		missing = needed
		if len(missing) == 0 {
			missing = []int{capBPF}
		}
		if !f.ev.CapsKnown && f.Attempt.Process.UID > 0 {
			m.Strength = Likely
			m.Evidence = append(m.Evidence, "the loader's capabilities are not known; it is not root")
		}
		m.Why = fmt.Sprintf("the loader's capabilities are not known; it needs %s", capList(missing))
	}
	if t := f.capsText(); t != "" {
		m.Evidence = append(m.Evidence, t)
	}
	what := "this call"
	if t, ok := f.progType(); ok {
		what = "loading a program of type " + printable(t, 40)
	}
	if len(missing) > 0 {
		m.Cause = fmt.Sprintf("%s needs %s, which the loader (uid %d) does not have.", upperFirst(what), capList(missing), f.Attempt.Process.UID)
		m.Commands = map[string]string{"grant-caps": "AmbientCapabilities=" + strings.ReplaceAll(capList(missing), " and ", " ")}
	}
	if f.ev.CapsKnown && f.ev.UserNSLevel > 0 {
		m.Cause += " It runs in a user namespace: what it holds there does not count."
	}
	return m
}

func capList(caps []int) string {
	names := make([]string, len(caps))
	for i, c := range caps {
		names[i] = capName(c)
	}
	return strings.Join(names, " and ")
}

func matchUnprivileged(f *Facts) *Match {
	if !f.refused() || f.deniedElsewhere() {
		return nil
	}
	if f.kind() != load.ProgLoad && f.kind() != load.MapCreate {
		return nil
	}
	v, known := f.unprivilegedDisabled()
	if known && v == 0 || f.holds(capBPF) {
		return nil
	}
	seen, sawIt := f.refusedCap()
	if sawIt && seen != capBPF && seen != capSysAdmin {
		return nil
	}
	m := &Match{How: load.Inferred}
	open := f.kind() == load.MapCreate || len(f.neededCaps()) == 0
	switch {
	case known && f.lacks(capBPF) && open:
		m.Strength = Strong
		if sawIt {
			m.Strength, m.How = Certain, load.Observed
			m.Evidence = append(m.Evidence, fmt.Sprintf("the kernel asked whether the loader has %s and was told no, and gave up there", capName(seen)))
		}
	case known && f.lacks(capBPF):
		m.Strength = Likely
		m.Why = fmt.Sprintf("kernel.unprivileged_bpf_disabled is %d and is asked first; the capability is missing in any case", v)
		if sawIt {
			return nil // PERM001 is certain and says it all
		}
	case known && sawIt:
		m.Strength = Likely
	default:
		m.Strength = Possible
		m.Why = "whether the sysctl is set, or what the loader may do, is not known"
		if known {
			m.Why = fmt.Sprintf("kernel.unprivileged_bpf_disabled is %d; the loader's capabilities are not known", v)
		}
	}
	if known {
		m.Evidence = append(m.Evidence, fmt.Sprintf("kernel.unprivileged_bpf_disabled was %d", v))
	}
	if t := f.capsText(); t != "" {
		m.Evidence = append(m.Evidence, t)
	}
	m.Cause = "The node does not let loaders without CAP_BPF use bpf(2) at all, and this loader has none."
	if f.kind() != load.ProgLoad {
		m.Without = append(m.Without, "classic-filter")
	}
	return m
}

// The helpers that lockdown takes away, by mode.
var (
	readHelpers  = []string{"bpf_probe_read", "bpf_probe_read_str", "bpf_probe_read_kernel", "bpf_probe_read_kernel_str"}
	writeHelpers = []string{"bpf_probe_write_user"}
)

// refusedHelper returns the helper that the verifier would not let the program
// call: by its words, or by the instruction where it stopped.
func (f *Facts) refusedHelper() (name string, byWords bool) {
	if f.words.is(verifierlog.HelperUnavailable) {
		return f.words.arg("name"), true
	}
	if i := f.ev.FailedInsn; f.words.empty() && f.errno() == errEINVAL && i >= 0 && i < len(f.ev.Insns) && f.cause(load.FnDoCheck) != nil {
		if in := f.ev.Insns[i]; in.IsHelperCall() {
			if h, ok := insn.HelperByID(int(in.Imm)); ok {
				return h.Name, false
			}
		}
	}
	return "", false
}

func matchLockdown(f *Facts, write bool) *Match {
	if !f.isLoad() {
		return nil
	}
	helpers, mode := readHelpers, f.Node.Lockdown == "confidentiality"
	if write {
		helpers, mode = writeHelpers, f.Node.Lockdown == "confidentiality" || f.Node.Lockdown == "integrity"
	}
	span := f.failing(load.FnLockdown)
	name, byWords := f.refusedHelper()
	if !slices.Contains(helpers, name) {
		return nil
	}
	m := &Match{How: load.Inferred}
	switch {
	case span != nil:
		m.Strength, m.How = Certain, load.Observed
		m.Evidence = append(m.Evidence, fmt.Sprintf("security_locked_down returned %d (%s)", span.Ret, errnoName(-span.Ret)))
	case mode:
		m.Strength = Strong
	case !write && f.onlyLockdownTakes():
		m.Strength = Strong
		t, _ := f.progType()
		m.Evidence = append(m.Evidence, fmt.Sprintf("every kernel gives this helper to programs of type %s, but for lockdown", t))
	case f.Node.Lockdown == "":
		m.Strength = Possible
		m.Why = "whether the kernel is locked down is not known"
	default:
		return nil
	}
	if byWords {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the verifier said: %s", f.words.message))
	} else {
		m.Evidence = append(m.Evidence, "the verifier stopped at "+f.at(f.ev.FailedInsn))
	}
	if f.Node.Lockdown != "" {
		m.Evidence = append(m.Evidence, "/sys/kernel/security/lockdown was "+f.Node.Lockdown)
	}
	m.Cause = fmt.Sprintf("The kernel has %s, but lockdown hides it from every program.", name)
	return m
}

// onlyLockdownTakes reports that nothing but lockdown, of which nothing is known, can keep the helpers that read memory from programs of
// this type: bpf_tracing_func_proto (kernel/trace/bpf_trace.c) has them without a condition, on machines that tell kernel and user addresses apart.
func (f *Facts) onlyLockdownTakes() bool {
	t, _ := f.progType()
	tracing := slices.Contains([]string{"kprobe", "tracepoint", "perf_event", "raw_tracepoint", "raw_tracepoint_writable", "tracing"}, t)
	return f.Node.Lockdown == "" && tracing && f.since(5, 5) && slices.Contains([]string{"x86_64", "aarch64"}, f.Node.Machine)
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
	if f.errno() != errEPERM && f.errno() != errEACCES {
		return nil
	}
	if !f.words.empty() || f.verifierAccepted() || f.signatureOfSeccomp() >= Strong {
		return nil
	}
	if _, sawCap := f.refusedCap(); sawCap || f.cause(load.FnCheck) != nil || f.cause(load.FnDoCheck) != nil {
		return nil
	}
	if f.errno() == errEPERM && (len(f.lacking()) > 0) {
		return nil // it would be refused without any module
	}
	m := &Match{Strength: Possible, How: load.Inferred}
	m.Cause = "A security module may have refused the call; nothing else that is known of explains it."
	m.Why = "security modules are asked on every bpf(2)"
	selinux, bpf := slices.Contains(f.Node.LSMs, "selinux"), slices.Contains(f.Node.LSMs, "bpf")
	switch {
	case f.Node.LSMs != nil && !selinux && !bpf && !slices.Contains(f.Node.LSMs, "smack"):
		return nil // no module here has a say in bpf(2)
	case f.errno() == errEACCES && selinux && (f.kind() != load.ProgLoad || f.notReached(load.Verifier)):
		m.Strength = Likely
	case f.errno() == errEPERM && bpf && !f.observed(load.Permission) && f.kind() == load.ProgLoad && len(f.neededCaps()) > 0 && f.ev.CapsKnown && f.since(5, 11):
		m.Strength = Likely
	}
	if f.notReached(load.Verifier) {
		m.Evidence = append(m.Evidence, "the verifier was not reached")
	}
	f.describeLSM(m)
	return m
}

func (f *Facts) describeLSM(m *Match) {
	if len(f.Node.LSMs) > 0 {
		m.Evidence = append(m.Evidence, "security modules of this kernel: "+printable(strings.Join(f.Node.LSMs, ","), 200))
		if !slices.Contains(f.Node.LSMs, "selinux") {
			m.Without = append(m.Without, "audit-log")
		}
	}
}

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
	case f.ev.SeccompMode < 0 && (f.errno() == errEPERM || f.errno() == errENOSYS) && !f.Attempt.Incomplete:
		return Likely
	case f.ev.SeccompMode < 0:
		return Possible
	}
	return 0
}

func matchSeccompPolicy(f *Facts) *Match {
	s := f.signatureOfSeccomp()
	if s == 0 {
		return nil
	}
	m := &Match{Strength: s, How: load.Observed}
	if s < Certain {
		m.How = load.Inferred
	}
	m.Cause = "A seccomp filter of the process answered in the kernel's place: bpf(2) never began."
	m.Evidence = append(m.Evidence, "the end of the system call was seen, and no beginning")
	if f.ev.SeccompMode == 2 {
		m.Evidence = append(m.Evidence, "the thread runs under a seccomp filter (mode 2)")
	} else {
		m.Evidence = append(m.Evidence, "whether the thread runs under a seccomp filter is not known")
	}
	m.Why = "the beginning of the call was not seen, which may also be because it was missed"
	return m
}

func matchMemlock(f *Facts) *Match {
	if !f.refused() || f.since(5, 11) || f.deniedElsewhere() {
		return nil
	}
	if f.kind() != load.ProgLoad && f.kind() != load.MapCreate {
		return nil
	}
	if _, saw := f.refusedCap(); saw || len(f.lacking()) > 0 {
		return nil
	}
	if f.ev.LimitsKnown && f.ev.MemlockLimit == unknownLimit {
		return nil // no limit
	}
	if v, ok := f.unprivilegedDisabled(); ok && v != 0 && f.lacks(capBPF) {
		return nil // refused before memory is counted
	}
	m := &Match{Strength: Possible, How: load.Inferred}
	if f.kernelKnown && f.ev.LimitsKnown {
		m.Strength = Likely
		// Every check of a capability would have been passed, and no security
		// module of this kernel has a say.
		allCaps := f.holds(capBPF) && f.holds(capNetAdmin) && f.holds(capPerfmon)
		noLSM := f.observed(load.Permission) || f.Node.LSMs != nil && !slices.Contains(f.Node.LSMs, "selinux") && !slices.Contains(f.Node.LSMs, "bpf") && !slices.Contains(f.Node.LSMs, "smack")
		if (allCaps || f.kind() == load.ProgLoad && len(f.neededCaps()) > 0 && f.ev.CapsKnown) && noLSM {
			m.Strength = Strong
		}
	}
	m.Cause = "Programs and maps count as locked memory on this kernel, and the loader's limit (RLIMIT_MEMLOCK) is used up."
	m.Why = "before 5.11 RLIMIT_MEMLOCK applies, and its value or the kernel's version is not known"
	if f.kernelKnown {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the kernel is %d.%d, from before 5.11", f.kernel.Major, f.kernel.Minor))
	}
	if f.ev.LimitsKnown {
		m.Evidence = append(m.Evidence, fmt.Sprintf("RLIMIT_MEMLOCK was %d bytes", f.ev.MemlockLimit))
		m.Why = fmt.Sprintf("RLIMIT_MEMLOCK is %d bytes, and counts on this kernel", f.ev.MemlockLimit)
	}
	if t := f.capsText(); t != "" {
		m.Evidence = append(m.Evidence, t)
	}
	return m
}

func matchUnprivilegedVerifier(f *Facts) *Match {
	if !f.isLoad() {
		return nil
	}
	if !f.words.is(verifierlog.NeedsPrivilege, verifierlog.PointerLeak) {
		return nil
	}
	if f.holds(capBPF) && f.holds(capPerfmon) {
		return nil
	}
	m := f.verifierMatch()
	m.Cause = fmt.Sprintf("The verifier refuses to an unprivileged loader what it would allow a privileged one: %s.", f.words.message)
	if t := f.capsText(); t != "" {
		m.Evidence = append(m.Evidence, t)
	}
	return m
}

func matchToken(f *Facts) *Match {
	if f.kind() == load.TokenCreate && f.failed() {
		return &Match{Strength: Likely, How: load.Inferred, Cause: "The kernel gave no BPF token. Loaders try this and go on without one: unless something else failed, it is noise."}
	}
	const tokenFD = 1 << 16 // BPF_F_TOKEN_FD
	if !f.isLoad() || f.attrU32(attrProgFlags)&tokenFD == 0 || !f.words.empty() || f.verifierAccepted() {
		return nil
	}
	m := &Match{How: load.Inferred}
	switch f.errno() {
	case errEBADF, errEINVAL:
		m.Strength = Possible
	case errEPERM:
		m.Strength = Likely
	default:
		return nil
	}
	m.Evidence = append(m.Evidence, fmt.Sprintf("the load names a BPF token (file descriptor %d)", int32(f.attrU32(attrTokenFD))))
	m.Cause = "The load relies on a BPF token that does not cover this command or program type."
	m.Why = "the load names a BPF token"
	return m
}
