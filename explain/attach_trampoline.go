// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// What is called from a trampoline: fentry, fexit, fmod_ret, LSM, struct_ops.

func trampolineRules() []Rule {
	return []Rule{att114(), att115(), att501(), att502(), att503()}
}

var (
	trampolineCalls = []load.Kind{load.LinkCreate, load.RawTPOpen}
	structOpsCalls  = []load.Kind{load.MapUpdate, load.LinkCreate, load.LinkUpdate}
)

var trampolineReasons = []reason{
	{
		rule: "ATT114", at: atTrampoline, call: trampolineCalls, errno: []int{abi.EBUSY},
		text: "The function has no place for a trampoline at its beginning: the kernel has no function tracer, or the function is inlined, notrace or assembly, though BTF has it. Or a livepatch or another tracer holds the place.",
		tell: "available_filter_functions in tracefs lists the functions that have one.",
		look: lookFtraceSite,
	},
	{
		rule: "ATT114", at: atTrampoline, call: trampolineCalls, errno: []int{abi.ENOTSUPP},
		text: "The function cannot take a trampoline: it has no ftrace location (notrace, inlined), or more arguments than the machine's trampolines can pass on.",
		tell: "If so, attaching to other functions works.",
		look: lookFtraceSite,
	},
	{
		rule: "ATT114", at: atTrampoline, call: trampolineCalls, errno: []int{abi.EINVAL}, rare: true,
		text: "The function belongs to a module, and has no ftrace location.",
		tell: "available_filter_functions in tracefs lists the functions that have one.",
		look: func(f *Facts, m *Match) Strength {
			if t := f.attached().Type; t == "lsm" || t == "ext" {
				return 0
			}
			return m.Strength
		},
	},
	{
		rule: "ATT115", at: atTrampoline | atStructOps, call: []load.Kind{load.LinkCreate, load.RawTPOpen, load.MapUpdate}, errno: []int{abi.ENOTSUPP},
		text: "This kernel has no BPF trampolines on this machine: arm64 has them since 6.0, and on functions of the kernel since 6.4.",
		tell: "If so, no fentry program can be attached at all.",
		look: lookTrampolines,
	},

	{
		rule: "ATT502", at: atStructOps, call: structOpsCalls, errno: []int{abi.EINVAL, abi.E2BIG},
		text:  "A member of the struct has a value that the kernel does not take, or a function is missing that it must have.",
		tell:  "The kernel's log often says which.",
		words: lazyregexp.New(`(?i)sched_ext: [^\n]{0,160}(?:requires|invalid|not compatible|unsupported|must|too)`),
		look:  lookMember,
	},
	{
		rule: "ATT503", at: atStructOps, call: structOpsCalls, errno: []int{abi.EBUSY, abi.EEXIST},
		text: "Another struct_ops of this kind is registered: one scheduler of sched_ext runs at a time, and each congestion control has a name of its own.",
		tell: "'bpftool struct_ops' lists what is registered.",
	},
}

// lookFtraceSite: without the function tracer no function has a site; on x86-64 ENOTSUPP is not
// what a missing site ends with.
func lookFtraceSite(f *Facts, m *Match) Strength {
	if name := f.named(""); name != "" {
		m.Evidence = append(m.Evidence, "the target was "+name)
	}
	for _, option := range []string{"CONFIG_FUNCTION_TRACER", "CONFIG_DYNAMIC_FTRACE"} {
		if f.Node.Config[option] == "n" {
			m.Evidence = append(m.Evidence, option+" is off in this kernel: no function has a place for a trampoline")
			return Strong
		}
	}
	if f.errno() == abi.EBUSY {
		return m.Strength
	}
	if f.Node.Does(node.TrampolinesOnKernel) != node.Yes || f.Node.Config[directCalls] == "n" {
		return Possible
	}
	return m.Strength
}

const directCalls = "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS"

// skipDispatcher is for freplace, of which libxdp makes the most use.
var skipDispatcher = load.Remedy{
	ID:      "skip-dispatcher",
	Title:   "Put one XDP program alone on the device, without libxdp's dispatcher, which needs freplace",
	Price:   "Several programs cannot share the device. libxdp does so by itself when the dispatcher does not work.",
	Command: "LIBXDP_SKIP_DISPATCHER=1 PROGRAM",
}

const kprobesInstead = "kprobe-instead"

func lookTrampolines(f *Facts, m *Match) Strength {
	if f.machine() != "" {
		m.Evidence = append(m.Evidence, "the machine is "+printable(f.machine(), 20))
	}
	if f.attached().Type == "ext" {
		m.First, m.Without = []load.Remedy{skipDispatcher}, []string{kprobesInstead}
	}
	if f.places() == atStructOps {
		switch f.Node.Does(node.HasTrampolines) {
		case node.No:
			return Strong
		case node.Yes:
			return 0
		}
		return m.Strength
	}
	has := f.Node.Does(node.TrampolinesOnKernel)
	switch {
	case f.Node.Config[directCalls] == "n" && f.machine() != "x86_64" && f.machine() != "":
		m.Evidence = append(m.Evidence, directCalls+" is off in this kernel")
		return Strong
	case has == node.No:
		if f.kernelKnown {
			m.Evidence = append(m.Evidence, fmt.Sprintf("the kernel is %d.%d", f.kernel.Major, f.kernel.Minor))
		}
		return Strong
	case has == node.Yes && f.Node.Config[directCalls] == "y", f.machine() == "x86_64" && has == node.Yes:
		return 0
	case has == node.Yes:
		return Possible // the option decides
	}
	return m.Strength
}

func att114() Rule {
	return Rule{
		ID:    "ATT114",
		Title: "fentry cannot be attached: the function has no ftrace location",
		Class: "R5",
		Stage: load.Install,
		Text: `fentry, fexit and fmod_ret programs are called from the few bytes that the
compiler reserves for ftrace at the start of a function. Not every function in BTF has them. It
may be marked notrace, inlined everywhere, or written in assembly. A kernel without
CONFIG_FUNCTION_TRACER has them nowhere. The load succeeds and attaching fails: EBUSY on x86-64,
ENOTSUPP (524) on arm64, EINVAL for functions of modules.

ENOTSUPP can also mean that the function has more arguments than the trampoline passes on. On
arm64 these are arguments beyond eight registers, on older kernels of x86-64 beyond six.`,
		Kernels: "Since 5.5.",
		Remedies: []load.Remedy{
			{
				ID:      "traceable-function",
				Title:   "Attach to a function that can be traced: its caller, or one that it calls",
				Price:   "A change of the program.",
				Command: "grep -w FUNCTION /sys/kernel/tracing/available_filter_functions",
			},
			{
				ID:    "kprobe-instead",
				Title: "Use a kprobe, which needs no ftrace location",
				Price: "Slower. Arguments come from registers.",
			},
			{
				ID:    "function-tracer",
				Title: "Use a kernel with CONFIG_FUNCTION_TRACER",
				Price: "Another kernel to test.",
			},
		},
		Match: byReason("ATT114"),
	}
}

func att115() Rule {
	return Rule{
		ID:    "ATT115",
		Title: "No BPF trampolines: fentry, LSM and struct_ops do not work on this kernel or machine",
		Class: "R5",
		Stage: load.Install,
		Text: `The kernel generates machine code (a trampoline) to call fentry, fexit,
fmod_ret, LSM and struct_ops programs. x86-64 has trampolines since 5.5. arm64 has
them since 6.0 for struct_ops, and since 6.4 for functions of the kernel (fentry, fexit, fmod_ret,
LSM), if the kernel was built with CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS. So fentry does not work
on Debian's 6.1 for arm64. Other machines got trampolines later or not at all. The load succeeds,
and attaching ends with ENOTSUPP (524). Go programs print this as "not supported". It has nothing
to do with blinding.`,
		Kernels: "arm64 before 6.4 (before 6.0 struct_ops too), and other machines.",
		Remedies: []load.Remedy{
			{
				ID:    kprobesInstead,
				Title: "Use kprobes in place of fentry and fexit. Programs of the types tp_btf and raw_tracepoint need no trampoline",
				Price: "Slower. There is no replacement for an LSM program.",
			},
			{
				ID:    "newer-kernel",
				Title: "Use a kernel that has trampolines (arm64: 6.4 or later with direct calls, such as Debian's 6.12)",
				Price: "A reboot, and another kernel to test.",
			},
		},
		Match: byReason("ATT115"),
	}
}

func att501() Rule {
	return Rule{
		ID:    "ATT501",
		Title: "The LSM program is attached but never runs: bpf is not in the lsm list",
		Class: "R5",
		Stage: load.Install,
		Text: `BPF LSM programs load and attach on every kernel with CONFIG_BPF_LSM. But
the kernel calls them only if bpf is in its list of active security modules. Most distributions
leave it out. No call fails. The program simply never runs.`,
		Kernels: "Since 5.7, if bpf is not in the list.",
		Remedies: []load.Remedy{
			{
				ID:      "lsm-list",
				Title:   "Add bpf at the end of the list, on the kernel's command line",
				Price:   "A reboot. Programs of other loaders may then forbid things too.",
				Command: "cat /sys/kernel/security/lsm   # then boot with lsm=THAT-LIST,bpf",
			},
			{
				ID:    "observe-only",
				Title: "If the program only observes, use fentry on the hook (security_NAME)",
				Price: "It cannot forbid anything.",
			},
		},
		Match: matchIdleLSM,
	}
}

// matchIdleLSM is the one rule about a call that succeeded.
func matchIdleLSM(f *Facts) *Match {
	if f.Attempt.Outcome != load.Loaded || f.attached().Type != "lsm" || f.kind() != load.LinkCreate && f.kind() != load.RawTPOpen {
		return nil
	}
	if len(f.Node.LSMs) == 0 || slices.Contains(f.Node.LSMs, "bpf") {
		return nil
	}
	m := &Match{Strength: Strong, How: load.Inferred, Cause: "The program is attached, and the kernel never calls it: bpf is not among its active security modules."}
	f.describeLSM(m)
	return m
}

func att502() Rule {
	return Rule{
		ID:    "ATT502",
		Title: "The kernel rejects the struct_ops (sched_ext, congestion control)",
		Class: "R5",
		Stage: load.Request,
		Text: `A struct_ops is registered by updating its map, or by a link. The kernel
then checks each member. sched_ext wants timeout_ms of at most 30,000, and dispatch_max_batch that
fits into an int (E2BIG). It wants a name, known flags, and functions that fit together (EINVAL).
It does not work with isolcpus. Congestion controls must have certain functions. Members that the
kernel's struct does not have must be zero. E2BIG can also mean that the key is not 0.`,
		Kernels: "Since 5.6; sched_ext since 6.12.",
		Remedies: []load.Remedy{
			{
				ID:      "read-log",
				Title:   "Read the kernel's log, and compare the members with the kernel's own checks",
				Price:   "A change of the program.",
				Command: "dmesg | tail",
			},
			{
				ID:    "matching-version",
				Title: "Use the scheduler in the version made for this kernel",
				Price: "Another version.",
			},
		},
		Match: byReason("ATT502"),
	}
}

func lookMember(f *Facts, m *Match) Strength {
	if f.errno() == abi.E2BIG {
		m.Cause = "A member of the struct is larger than the kernel allows: for sched_ext timeout_ms above 30,000 or dispatch_max_batch."
	}
	if f.kind() == load.LinkCreate && f.errno() == abi.EINVAL {
		return Possible
	}
	return m.Strength
}

func att503() Rule {
	return Rule{
		ID:    "ATT503",
		Title: "Another struct_ops is already registered (sched_ext, congestion control)",
		Class: "R5",
		Stage: load.Install,
		Text: `Only one sched_ext scheduler can run at a time. Congestion controls and
similar kinds have unique names. A second one gets EBUSY or EEXIST. So does a map that was
registered before.`,
		Kernels: "Since 5.6; sched_ext since 6.12.",
		Remedies: []load.Remedy{
			{
				ID:      "stop-other",
				Title:   "Find the one that runs, and stop it",
				Price:   "The node goes back to the kernel's own scheduler until the next one starts.",
				Command: "bpftool struct_ops; cat /sys/kernel/sched_ext/root/ops",
			},
			{
				ID:    "replace-by-link",
				Title: "Replace it by BPF_LINK_UPDATE where the kind allows that (congestion controls)",
				Price: "A change of the loader; 6.4.",
			},
		},
		Match: byReason("ATT503"),
	}
}
