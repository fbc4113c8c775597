// SPDX-License-Identifier: Apache-2.0

package node

// Behaviour is the name of something that some kernels do and others do not: a row of the table
// below.
type Behaviour string

const (
	MillionInstructions Behaviour = "million_instructions"
	BoundedLoops        Behaviour = "bounded_loops"
	ProbeReadKernel     Behaviour = "probe_read_kernel"
	SplitsCapabilities  Behaviour = "splits_capabilities"
	ChargesNoMemlock    Behaviour = "charges_no_memlock"
	LargeLog            Behaviour = "large_log"
	SmallLog            Behaviour = "small_log"
	LogWithoutBuffer    Behaviour = "log_without_buffer"
	AddressOfFunction   Behaviour = "address_of_function"
	LoadAcquire         Behaviour = "load_acquire"
	Kfuncs              Behaviour = "kfuncs"
	KfuncsOnArm64       Behaviour = "kfuncs_on_arm64"
	FreesFailedForks    Behaviour = "frees_filters_of_failed_forks"

	ClosesLoadsAlone    Behaviour = "unprivileged_bpf_disabled_closes_loads_alone"
	UprobeNeedsSysAdmin Behaviour = "uprobe_needs_sys_admin"
	RefusesTwinSymbols  Behaviour = "refuses_ambiguous_kprobes"
	HasTrampolines      Behaviour = "has_trampolines"
	TrampolinesOnKernel Behaviour = "trampolines_on_kernel_functions"
	RefusesLargePercpu  Behaviour = "refuses_large_percpu_values"
	OptmemPerNamespace  Behaviour = "optmem_max_of_a_namespace"
	ReplacesInCgroups   Behaviour = "replaces_in_control_groups"
	UserNamespaceTokens Behaviour = "tokens"
	LockdownSparesLSM   Behaviour = "lockdown_asks_no_selinux"
	AttachesByLink      Behaviour = "attaches_by_link"
	KprobeMulti         Behaviour = "kprobe_multi"
	UprobeMulti         Behaviour = "uprobe_multi"
	TCX                 Behaviour = "tcx"
	Netkit              Behaviour = "netkit"

	HardenSparesCapBPF Behaviour = "harden_1_spares_cap_bpf"
	BlindsWholeProgram Behaviour = "blinds_whole_program"
	BlindsArenaStores  Behaviour = "blinds_arena_stores"
	GivesRegister11    Behaviour = "gives_register_11"
	ChecksWrap         Behaviour = "checks_wrap"

	FallbackInDoubt Behaviour = "fallback_in_doubt"
	AlwaysFallsBack Behaviour = "always_falls_back"
	RefusesJITOnly  Behaviour = "refuses_jit_only"

	Arenas           Behaviour = "arenas"
	PerCPUMove       Behaviour = "percpu_move"
	ProcessorInlined Behaviour = "processor_inlined"
	TaskInlined      Behaviour = "task_inlined"
	TimedMayGoto     Behaviour = "timed_may_goto"
)

// row says since when kernels behave in one way.
type row struct {
	name    Behaviour
	machine string // as uname -m says, "" for all
	// since is the mainline release that has it. maybe is the first one that may have it, where
	// nobody looked at those between.
	since, maybe KernelVersion
	// fix: stable releases take it over, so that those that are not listed may have it.
	fix bool
	// backports are the first stable releases that have it, one for each series. lacking are the
	// last ones that are known not to.
	backports, lacking []KernelVersion
	// rhel is the first build of RHEL 9's 5.14.0 that has it.
	rhel int
	// commit is the kernel's, by which anybody can look the row up. See compared.
	commit string
	note   string
}

// compared stands for a commit that is not known: the sources of releases were compared, or the
// kernels tried.
const compared = "compared"

// lastPatch says of a series in lacking that it ended without.
const lastPatch = 255

func v(major, minor int) KernelVersion { return KernelVersion{Major: major, Minor: minor} }

// table is all that is known by release of what kernels do. Rows of one name stand together.
var table = []row{
	{name: MillionInstructions, since: v(5, 2), commit: "c04c0d2b968a",
		note: "A privileged program has up to a million instructions, and the verifier walks a million. Before: 4096, and 131,072."},
	{name: ReplacesInCgroups, since: v(5, 6), commit: "7dd68b3279f1",
		note: "BPF_PROG_ATTACH to a control group takes BPF_F_REPLACE: one of several programs gives its place to another."},
	{name: BoundedLoops, since: v(5, 3), commit: "2589726d12a1",
		note: "The verifier walks loops that end."},
	{name: ProbeReadKernel, since: v(5, 5), commit: "6ae08ae3dea2",
		note: "bpf_probe_read_kernel and bpf_probe_read_user are there, for every tracing program."},
	{name: SplitsCapabilities, since: v(5, 8), commit: "2c78ee898d8f",
		note: "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are enough to load. Before: CAP_SYS_ADMIN."},
	{name: ChargesNoMemlock, since: v(5, 11), commit: "3ac1f01b43b6",
		note: "Programs and maps count against the memory control group, and not against RLIMIT_MEMLOCK."},
	{name: LargeLog, since: v(5, 2), commit: "7a9f5c65abcc",
		note: "The log buffer may be larger than 16 MiB."},
	{name: SmallLog, since: v(6, 4), commit: "03cc3aa6a533",
		note: "The log buffer may be smaller than 128 bytes. 6.1.192 refuses it, 6.12.117 takes it."},
	{name: LogWithoutBuffer, since: v(6, 4), commit: "fac08d45e253",
		note: "A log level without a buffer, and a buffer without a level, are taken: the kernel then counts how long the log is."},
	{name: AddressOfFunction, since: v(5, 13), commit: "69c087ba6225",
		note: "A program may load the address of its own function (a callback)."},
	{name: LoadAcquire, since: v(6, 15), commit: "880442305a39",
		note: "Load-acquire and store-release: the youngest instructions that are told from others."},
	{name: Kfuncs, since: v(5, 13), commit: "e6ac2450d6de",
		note: "Programs may call functions of the kernel (kfuncs)."},
	{name: KfuncsOnArm64, since: v(5, 18), commit: "b5e975d256db",
		note: "The JIT of arm64 can call kernel functions."},
	{name: FreesFailedForks, since: v(6, 2), commit: "a1140cb215fa", fix: true,
		backports: []KernelVersion{{5, 15, 86}, {6, 0, 16}, {6, 1, 2}},
		lacking:   []KernelVersion{{5, 15, 85}, {6, 0, 15}, {6, 1, 1}},
		note:      "A fork that fails leaks no seccomp filter, and so none of the JIT's memory."},

	{name: ClosesLoadsAlone, since: v(5, 19), commit: "c8644cd0efe7",
		note: "kernel.unprivileged_bpf_disabled closes loads and map creation. Before: every command of bpf(2)."},
	{name: UprobeNeedsSysAdmin, since: v(6, 16), commit: "ba677dbe77af", fix: true,
		backports: []KernelVersion{{5, 10, 240}, {5, 15, 189}, {6, 1, 146}, {6, 6, 99}, {6, 12, 39}, {6, 15, 7}},
		lacking:   []KernelVersion{{5, 10, 239}, {5, 15, 188}, {6, 1, 145}, {6, 6, 98}, {6, 12, 38}, {6, 15, 6}},
		note:      "A uprobe by perf_event_open(2) needs CAP_SYS_ADMIN. Before, from 5.8 on: CAP_PERFMON."},
	{name: RefusesTwinSymbols, since: v(6, 6), commit: "b022f0c7e404", fix: true,
		backports: []KernelVersion{{5, 10, 227}, {6, 1, 60}},
		lacking:   []KernelVersion{{5, 10, 226}, {6, 1, 59}},
		note:      "A kprobe on a name that several symbols have is refused. Before: it goes to one of them."},
	// A BPF trampoline calls programs from a function: of another program, or of the kernel.
	{name: HasTrampolines, machine: "x86_64", since: v(5, 5), commit: "fec56f5890d9", note: "BPF trampolines: struct_ops, and programs on programs"},
	{name: HasTrampolines, machine: "aarch64", since: v(6, 0), commit: "efc9909fdce0", note: "BPF trampolines: struct_ops, and programs on programs"},
	{name: HasTrampolines, machine: "s390x", maybe: v(6, 2), since: v(6, 4), commit: "528eb2cb87bc", note: "BPF trampolines: struct_ops, and programs on programs"},
	{name: HasTrampolines, machine: "riscv64", maybe: v(6, 2), since: v(6, 4), commit: "49b5e77ae3e2", note: "BPF trampolines: struct_ops, and programs on programs"},
	{name: HasTrampolines, machine: "ppc64le", maybe: v(6, 12), since: v(6, 14), commit: "d243b62b7bd3", note: "BPF trampolines: struct_ops, and programs on programs"},
	{name: HasTrampolines, machine: "loongarch64", maybe: v(6, 16), since: v(6, 18), commit: "f9b6b41f0cf3", note: "BPF trampolines: struct_ops, and programs on programs"},
	{name: TrampolinesOnKernel, machine: "x86_64", since: v(5, 5), commit: "fec56f5890d9", note: "fentry, fexit, fmod_ret and LSM programs can be attached"},
	{name: TrampolinesOnKernel, machine: "aarch64", since: v(6, 4), commit: "2aa6ac03516d",
		note: "fentry, fexit, fmod_ret and LSM programs can be attached. It also needs CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS."},
	{name: TrampolinesOnKernel, machine: "s390x", maybe: v(6, 2), since: v(6, 4), commit: "528eb2cb87bc", note: "fentry, fexit, fmod_ret and LSM programs can be attached"},
	{name: TrampolinesOnKernel, machine: "riscv64", maybe: v(6, 2), since: v(6, 4), commit: "49b5e77ae3e2", note: "fentry, fexit, fmod_ret and LSM programs can be attached"},
	{name: TrampolinesOnKernel, machine: "ppc64le", maybe: v(6, 12), since: v(6, 14), commit: "d243b62b7bd3", note: "fentry, fexit, fmod_ret and LSM programs can be attached"},
	{name: TrampolinesOnKernel, machine: "loongarch64", maybe: v(6, 16), since: v(6, 18), commit: "f9b6b41f0cf3", note: "fentry, fexit, fmod_ret and LSM programs can be attached"},
	{name: RefusesLargePercpu, since: v(6, 12), commit: "1d244784be6b", fix: true,
		backports: []KernelVersion{{5, 10, 227}, {6, 1, 113}, {6, 11, 4}},
		lacking:   []KernelVersion{{5, 10, 226}, {6, 1, 112}, {6, 11, 3}},
		note:      "A value of a per-CPU map that is over 32 KiB (64 KiB with pages of 64 KiB) is E2BIG. Before: ENOMEM."},
	{name: OptmemPerNamespace, since: v(6, 8), commit: "f5769faeec36",
		note: "net.core.optmem_max belongs to a network namespace, and is 128 KiB. Before: 20 KiB, for the whole machine."},
	{name: LockdownSparesLSM, since: v(5, 16), commit: "f5d0e5e9d72d",
		note: "SELinux is not asked what lockdown forbids. Before, from 5.6 on: its class lockdown."},
	{name: UserNamespaceTokens, since: v(6, 9), commit: "35f96de04127",
		note: "A BPF token lets a user namespace use bpf(2)."},
	{name: AttachesByLink, since: v(5, 7), commit: "af6eea57437a",
		note: "BPF_LINK_CREATE attaches a program by a link, whose descriptor holds it."},
	{name: KprobeMulti, since: v(5, 18), commit: "0dcac2725406",
		note: "A link of type kprobe_multi attaches one program to many functions of the kernel."},
	{name: UprobeMulti, since: v(6, 6), commit: "89ae89f53d20",
		note: "A link of type uprobe_multi attaches one program to many functions of processes."},
	{name: TCX, since: v(6, 6), commit: "e420bed02507",
		note: "A tc program is attached to a network device without a qdisc (tcx)."},
	{name: Netkit, since: v(6, 7), commit: "35dfaad7188c",
		note: "netkit devices, and programs that are attached to them."},

	{name: HardenSparesCapBPF, since: v(6, 1), commit: "bfeb7e399bac", rhel: 175,
		note: "net.core.bpf_jit_harden=1 spares loaders with CAP_BPF. Before: those with CAP_SYS_ADMIN alone."},
	{name: BlindsWholeProgram, since: v(7, 1), commit: "d3e945223e01",
		note: "bpf_jit_blind_constants takes the verifier's environment, and blinds all functions of a program as one. The kernel's BTF tells."},
	{name: BlindsArenaStores, since: v(7, 0), commit: "2321a9596d22", fix: true,
		backports: []KernelVersion{{6, 18, 21}},
		lacking:   []KernelVersion{{6, 18, 20}},
		note:      "Immediates that are stored to an arena are blinded."},
	{name: GivesRegister11, since: v(7, 2), commit: "246ad6e5ee25",
		note: "Register 11 is the program's, for arguments on the stack. The scratch register of blinding (BPF_REG_AX) is 12."},
	{name: ChecksWrap, since: v(7, 3), commit: "ad139384ecdd", fix: true,
		backports: []KernelVersion{{7, 2, 10}},
		lacking:   []KernelVersion{{5, 10, 262}, {6, 1, 192}, {6, 12, 117}, {6, 18, 44}, {7, 1, lastPatch}, {7, 2, 9}},
		note:      "Blinding refuses a program with a backward jump whose offset would wrap. Before: the jump goes elsewhere, and the load succeeds."},

	{name: FallbackInDoubt, since: v(5, 15), commit: "86bc9c742426",
		note: "Some builds refuse a program of one function that cannot be compiled, though they have an interpreter: 6.1.192 of Debian does, 6.12.117 does not."},
	{name: AlwaysFallsBack, since: v(6, 18), commit: "df0cb5cb50bd",
		note: "A kernel with an interpreter falls back to it, as all did before 5.15."},
	{name: RefusesJITOnly, since: v(7, 3), commit: "f1c27922576e", fix: true,
		backports: []KernelVersion{{7, 2, 13}},
		lacking:   []KernelVersion{{6, 12, 117}},
		note:      "A program with what only compiled code can run is refused where it cannot be compiled. Before: it is interpreted, and may crash the machine. The kernel's BTF tells."},

	{name: Arenas, since: v(6, 9), commit: "317460317a02",
		note: "Arenas, whose instructions the interpreter does not know: the oldest of their kind."},

	// The move of a per-CPU address (bpf_jit_supports_percpu_insn), which the interpreter does not
	// know.
	{name: PerCPUMove, machine: "x86_64", since: v(6, 10), commit: "7bdbf7446305", note: "bpf_jit_supports_percpu_insn"},
	{name: PerCPUMove, machine: "aarch64", since: v(6, 10), commit: "7a4c32222b0e", note: "bpf_jit_supports_percpu_insn"},
	{name: PerCPUMove, machine: "riscv64", since: v(6, 10), commit: "19c56d4e5be1", note: "bpf_jit_supports_percpu_insn"},
	{name: PerCPUMove, machine: "ppc64le", maybe: v(6, 13), since: v(7, 2), commit: "58a075adf3fb", note: "bpf_jit_supports_percpu_insn"},
	{name: PerCPUMove, machine: "loongarch64", since: v(7, 3), commit: compared, note: "bpf_jit_supports_percpu_insn"},

	// bpf_get_smp_processor_id that the JIT, or on x86 the verifier for its sake, writes out in
	// place of a call.
	{name: ProcessorInlined, machine: "x86_64", since: v(6, 10), commit: "1ae6921009e5", note: "bpf_get_smp_processor_id is written out"},
	{name: ProcessorInlined, machine: "aarch64", since: v(6, 10), commit: "75fe4c0b3e18", note: "bpf_get_smp_processor_id is written out"},
	{name: ProcessorInlined, machine: "riscv64", since: v(6, 10), commit: "2ddec2c80b44", note: "bpf_get_smp_processor_id is written out"},
	{name: ProcessorInlined, machine: "ppc64le", maybe: v(6, 13), since: v(7, 2), commit: "20ab1d112653", note: "bpf_get_smp_processor_id is written out"},
	{name: ProcessorInlined, machine: "loongarch64", maybe: v(6, 13), since: v(7, 2), commit: "68571a63f25e", note: "bpf_get_smp_processor_id is written out"},
	{name: ProcessorInlined, machine: "s390x", maybe: v(6, 13), since: v(7, 2), commit: "9012cf2491e3", note: "bpf_get_smp_processor_id is written out"},

	// bpf_get_current_task and _btf, likewise.
	{name: TaskInlined, machine: "x86_64", since: v(7, 0), commit: "eaedea154eb9", note: "bpf_get_current_task is written out"},
	{name: TaskInlined, machine: "aarch64", maybe: v(6, 10), since: v(6, 12), commit: "2bb138cb20a6", note: "bpf_get_current_task is written out"},
	{name: TaskInlined, machine: "riscv64", maybe: v(6, 13), since: v(7, 2), commit: "6d13ddb1d465", note: "bpf_get_current_task is written out"},
	{name: TaskInlined, machine: "ppc64le", maybe: v(6, 13), since: v(7, 2), commit: "20ab1d112653", note: "bpf_get_current_task is written out"},
	{name: TaskInlined, machine: "loongarch64", maybe: v(6, 13), since: v(7, 2), commit: "7f5c21fcd7ab", note: "bpf_get_current_task is written out"},
	{name: TaskInlined, machine: "s390x", maybe: v(6, 13), since: v(7, 2), commit: "9012cf2491e3", note: "bpf_get_current_task is written out"},

	// may_goto with a clock: the function that reads it takes its argument, and returns, where only
	// the JIT does. f1c27922576e left that one out.
	{name: TimedMayGoto, machine: "x86_64", since: v(6, 15), commit: "e723608bf428", note: "may_goto ends a loop by a clock"},
	{name: TimedMayGoto, machine: "aarch64", maybe: v(6, 15), since: v(7, 2), commit: "16175375da36", note: "may_goto ends a loop by a clock"},
}
