// SPDX-License-Identifier: Apache-2.0

package explain

import "github.com/bpfwhy/bpfwhy/load"

// unavailable is what tools say that found out by themselves that they cannot use BPF.
const unavailable = `(?i)\be?bpf(?: is)? (?:unavailable|not available)\b.*\bunsupported\b`

// runtimeWords are those of container runtimes and of systemd.
var runtimeWords = []loaderWord{
	// Container runtimes.
	word("runc", load.Seccomp, `error loading seccomp filter|[Uu]nable to load seccomp|error patching filter|seccomp_load`,
		"The container's seccomp filter could not be loaded. errno 524 is the memory limit of the JIT, which leaking agents use up.", "Look at net.core.bpf_jit_limit and at who holds programs."),
	echo("runc", load.OtherCommand, `bpf_prog_query\(BPF_CGROUP_DEVICE`, "The programs that guard the container's devices could not be listed."),
	word("runc", own, `error (?:adding|creating|generating|initializing|validating) .*(?:[Ss]eccomp)|seccomp: config provided but seccomp not supported|seccomp notify unsupported|action in seccomp profile is invalid|unable to (?:validate seccomp architecture|fetch (?:seccomp filter flags|SECCOMP_FILTER_FLAG))`,
		"The container's seccomp profile cannot be made into a filter here.", "Look at the profile, and at what libseccomp and the kernel know."),
	echo("runc", load.OtherCommand, `BPF_PROG_DETACH \(BPF_CGROUP_DEVICE`, "The old program that guards the container's devices could not be removed."),
	word("runc", load.ProgAttach, `BPF_PROG_ATTACH \(BPF_CGROUP_DEVICE|complete list of CGROUP_DEVICE programs`,
		"The program that guards the container's devices could not be attached to its control group, or the old one not found.", "EPERM: rootless without delegation, or a missing capability. EINVAL: another manager's program does not allow several."),
	word("crun", own, `eBPF not supported`,
		"crun was built without eBPF, or the kernel without CONFIG_CGROUP_BPF. With cgroup v2 the devices of a container are guarded by such a program.",
		"Use a crun with eBPF ('crun --version' lists +EBPF), and a kernel with CONFIG_CGROUP_BPF=y."),
	word("crun", load.ProgAttach, `failed to install eBPF device filter`, "The program that guards the container's devices could not be attached to its control group.", "Look at the capabilities, at seccomp and at the version of systemd."),
	word("crun", load.OtherCommand, `cannot detach eBPF program`, "The old program that guards the container's devices could not be removed.", ""),
	word("crun", load.ProgLoad, `cannot open existing eBPF program|not supported when using BPFProgram|bpf\(\w+\) `, "The program that guards the container's devices could not be loaded, pinned or attached.", "Look at the capabilities, at seccomp and at the pin."),
	word("crun", own, `error seccomp_init|invalid seccomp (?:BPF data|syscall|index|notify context)|error handling seccomp notify|seccomp plugins and seccomp receivers|run_oci_seccomp_notify|seccomp (?:cache directory|receiver fd)`,
		"The container's seccomp profile cannot be made into a filter here.", "Look at the profile, and at what libseccomp and the kernel know."),

	sign("bpftrace", "ATT110", Possible, `^(?:ERROR: )?No probes to attach$`,
		"bpftrace found no function of this name in the file: it may be in a library that the file uses, or the file is stripped.").about(load.LinkCreate),
	sign("bpftrace", "ATT105", Possible, `^(?:ERROR: )?No probes to attach$`,
		"bpftrace found no function of the kernel that the name fits: it was renamed or inlined, or has a suffix.").about(load.LinkCreate),
	word("bpftrace", own, `Offset outside the function bounds \('[^']*' size is 0\)`,
		"The symbol has no size in the file, as assembly without .size has none, so that bpftrace takes every place for one outside of the function. The kernel was not asked.", "Probe by address, or let bpftrace go on with --unsafe."),

	// systemd.
	word("systemd", load.LinkCreate, `bpf-restrict-fs\w*: (?:.*(?:BPF LSM|securityfs)|Failed to (?:link|attach)|Can't determine|\S+ link missing)`,
		"systemd could not use BPF as a security module (RestrictFileSystems= and its kin).", "Boot with lsm=...,bpf, and a kernel with CONFIG_BPF_LSM=y and BTF."),
	word("systemd", load.ProgAttach, `(?:[Aa]ttaching|[Ee]xtending) .*BPF program|bpf-foreign: Attaching|Failed to link '\S+' cgroup-bpf program`,
		"systemd could not attach one of the programs for IPAddressAllow=, DeviceAllow=, BPFProgram= and such of a unit.", "In containers leave these settings out; elsewhere look at the capabilities and at programs that are attached already."),
	word("systemd", load.ProgLoad, `(?:Loading|Allocation|Compilation|Preparation) of (?:\w+ ){0,3}BPF (?:program|accounting|allow|deny)|(?:load kernel|allocate) (?:\w+ ){0,3}BPF (?:program|accounting)|(?:initialize|add|Loading|allocate) .{0,24}device control bpf program|trivial instructions .*BPF program|(?:bind-interface|restrict-interfaces|bpf-[\w-]+): (?:Failed to (?:load|open) BPF object|Loading of|socket bind filtering is not supported|BPF firewalling not supported)|Loading device control BPF`,
		"systemd could not load the programs or maps for IPAddressAllow=, DeviceAllow=, SocketBindAllow=, RestrictNetworkInterfaces= and such of a unit. In a container it has no right to; the unit then runs without the restriction, or fails.",
		"In containers leave these settings out; elsewhere look at CONFIG_CGROUP_BPF and the capabilities."),
	echo("systemd", load.MapCreate, `(?:bpf-[\w-]+|restrict-interfaces): Failed to create (?:inner )?BPF map`, "A map of systemd's could not be created."),
	echo("systemd", load.MapUpdate, `(?:bpf-[\w-]+|restrict-interfaces): (?:Error populating|Failed to (?:update|delete) .*)BPF map|(?:bpf-[\w-]+|restrict-interfaces): .*BPF map`, "A map of systemd's could not be written."),
	word("systemd", load.ObjPin, `bpf-foreign: Failed to (?:determine filesystem type of|prepare foreign BPF hashmap)`,
		"systemd looks for the program of BPFProgram= at its pin, and there is none: the path does not exist, or is not on a bpffs. The unit starts without it.", "Pin the program there before the unit starts (bpftool prog show pinned PATH)."),
	sign("systemd", "", 0, `local system does(?:n't seem to| not) support BPF/cgroup`,
		"systemd found out at its start that it cannot attach programs to control groups, and starts the unit without its IPAddressAllow= or IPAddressDeny=. The kernel lacks CONFIG_CGROUP_BPF or CONFIG_BPF_SYSCALL, or systemd runs on control groups of version 1 or in a container.").goesOn(""),
	word("systemd", own, `local system does(?:n't seem to| not) support (?:the BPF-based device controller|BPF/cgroup|that)|BPF_PROG_DETACH call`,
		"systemd found out at its start that BPF programs cannot be used here.", "In containers that is so by design; elsewhere look at CONFIG_CGROUP_BPF.").goesOn(""),
	word("systemd", own, `(?:bpf-(?:firewall|foreign|restrict-fs\w*|socket-bind)|bind-interface|restrict-interfaces): |(?:mount|fsmount|move) (?:new )?bpffs|bpffs (?:helper|instance|fd)|foreign BPF program|BPF kernel fd|vmlinux BTF, assuming kfunc`,
		"systemd could not set up one of its BPF programs or maps.", ""),
}
