// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// attaching is an attempt after a load, as a watched kernel tells it.
func attaching(kind load.Kind, errno int, opts ...option) *load.Attempt {
	first := []option{set(func(a *load.Attempt) { a.Attach = &load.Attach{} })}
	return attempt(kind, errno, append(first, opts...)...)
}

// of is the program: its type, and what it was loaded for.
func of(programType, attachType string) option {
	return func(a *load.Attempt) {
		a.Attach.Program = &load.AttachProgram{ID: 7, Name: "prog", Type: programType, AttachType: attachType}
	}
}

func as(attachType string) option { return func(a *load.Attempt) { a.Attach.Type = attachType } }

func to(kind, name string) option {
	return func(a *load.Attempt) { a.Attach.Target = &load.AttachTarget{Kind: kind, Name: name} }
}

func toFile(path string, offset uint64) option {
	return func(a *load.Attempt) {
		a.Attach.Target = &load.AttachTarget{Kind: "uprobe", Path: path, Offset: offset}
	}
}

// record is the highest byte of its context that the program reads, and the size of the record.
func record(reads, size int) option {
	return func(a *load.Attempt) { a.Attach.Program.MaxCtxOffset, a.Attach.Target.Size = reads, size }
}

func flagged(flags uint64) option { return func(a *load.Attempt) { a.Attach.Flags = flags } }

func message(s string) option { return func(a *load.Attempt) { a.Attach.Message = s } }

// length is how many instructions the program has after the verifier.
func length(n int) option { return func(a *load.Attempt) { a.Attach.Program.Insns = n } }

func overriding() option { return func(a *load.Attempt) { a.Attach.Program.Overrides = true } }

func kernelLog(lines ...string) option {
	return func(a *load.Attempt) { a.KernelLog = lines }
}

func userNamespace() option { return func(a *load.Attempt) { a.Evidence.UserNSLevel = 1 } }

func ofMap(typ string) option {
	return func(a *load.Attempt) { a.Map = &load.Map{Name: "m", Type: typ, MaxEntries: 4} }
}

func config(n *node.Profile, option, value string) *node.Profile {
	n.Config[option] = value
	return n
}

var (
	sched6_12 = lab("6.12.117+deb13-cloud-amd64")
	arm6_1    = machine(lab("6.1.0-50-cloud-arm64"), "aarch64")
	arm6_12   = machine(lab("6.12.117+deb13-cloud-arm64"), "aarch64")
)

func attachFixtures() []fixture {
	return slices.Concat(generalFixtures, tracepointFixtures, kprobeFixtures, uprobeFixtures, trampolineFixtures,
		cgroupFixtures, xdpFixtures, tcFixtures, socketFixtures, mapFixtures, pinFixtures)
}

var generalFixtures = []fixture{
	{
		name:    "loaded for connect4, attached to connect6",
		attempt: attaching(load.LinkCreate, 22, of("cgroup_sock_addr", "cgroup_inet4_connect"), as("cgroup_inet6_connect"), to("cgroup", "")),
		node:    lab("6.12.117"),
		rule:    "ATT001", how: load.Inferred, stage: load.Request,
		evidence: []string{"the program is of the type cgroup_sock_addr, loaded for cgroup_inet4_connect", "the attach type of the call was cgroup_inet6_connect"},
	},
	{
		name:    "a kprobe program on a tracepoint's event",
		attempt: attaching(load.PerfEventSetBPF, 22, of("kprobe", ""), to("tracepoint", "sched/sched_switch")),
		node:    lab("6.12.117"),
		rule:    "ATT001", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "a program of kprobe.multi on a perf event",
		attempt: attaching(load.LinkCreate, 22, of("kprobe", "trace_kprobe_multi"), as("perf_event"), to("function", "do_exit")),
		node:    lab("6.12.117"),
		rule:    "ATT001", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "near miss: it is of the right kind, and what is left is a flag",
		attempt: attaching(load.LinkCreate, 22, of("kprobe", "trace_kprobe_multi"), as("trace_kprobe_multi"), flagged(1)),
		node:    lab("6.12.117"),
		rule:    "ATT006", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "a program for a devmap on a device: the kernel says so",
		attempt: attaching(load.XDPAttach, 22, of("xdp", "xdp_devmap"), to("netdev", "eth0"), message("BPF_XDP_DEVMAP programs can not be attached to a device")),
		node:    lab("6.12.117"),
		rule:    "ATT001", how: load.Observed, stage: load.Request,
		evidence: []string{"the kernel said: BPF_XDP_DEVMAP programs"},
	},
	{
		name:    "a tracepoint program as socket filter",
		attempt: attaching(load.SocketAttach, 22, of("tracepoint", ""), to("socket", "")),
		node:    lab("6.12.117"),
		rule:    "ATT001", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "tcx before 6.6",
		attempt: attaching(load.LinkCreate, 22, of("sched_cls", ""), as("tcx_ingress"), to("netdev", "eth0")),
		node:    lab("6.1.0-49-cloud-amd64"),
		rule:    "ATT002", how: load.Inferred, stage: load.Request,
		evidence: []string{"This kernel (6.1) cannot attach tcx_ingress in this way: that came with 6.6", "the kernel is 6.1"},
	},
	{
		name:    "a link of fentry before 5.19",
		attempt: attaching(load.LinkCreate, 22, of("tracing", "trace_fentry"), as("trace_fentry")),
		node:    lab("5.10.0-30-cloud-amd64"),
		rule:    "ATT002", how: load.Inferred, stage: load.Request,
		evidence: []string{"that came with 5.19"},
	},
	{
		name:    "control groups take no programs in a kernel without them",
		attempt: attaching(load.ProgAttach, 22, of("cgroup_device", ""), as("cgroup_device"), to("cgroup", "")),
		node:    config(lab("6.12.117"), "CONFIG_CGROUP_BPF", "n"),
		rule:    "ATT002", how: load.Inferred, stage: load.Request,
		evidence: []string{"CONFIG_CGROUP_BPF is off"},
	},
	{
		name:    "near miss: RHEL 8 has links of later kernels",
		attempt: attaching(load.LinkCreate, 22, of("xdp", "xdp"), as("xdp"), to("netdev", "eth0"), flagged(3)),
		node:    lab("4.18.0-553.el8_10.x86_64"),
		rule:    "ATT006", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "kprobe.multi in a kernel without fprobe",
		attempt: attaching(load.LinkCreate, 95, of("kprobe", "trace_kprobe_multi"), as("trace_kprobe_multi")),
		node:    config(lab("6.1.0-49-cloud-amd64"), "CONFIG_FPROBE", "n"),
		rule:    "ATT002", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "the same program twice on a device",
		attempt: attaching(load.LinkCreate, 17, of("sched_cls", ""), as("tcx_egress"), to("netdev", "eth0")),
		node:    lab("6.12.117"),
		rule:    "ATT003", how: load.Inferred, stage: load.Install,
	},
	{
		name:    "near miss: too many programs on it",
		attempt: attaching(load.LinkCreate, 34, of("sched_cls", ""), as("tcx_egress"), to("netdev", "eth0")),
		node:    lab("6.12.117"),
		rule:    "ATT004", how: load.Inferred, stage: load.Resources,
	},
	{
		name:    "39 programs on one function",
		attempt: attaching(load.RawTPOpen, 7, of("tracing", "trace_fexit"), to("function", "vfs_read")),
		node:    lab("6.12.117"),
		rule:    "ATT004", how: load.Inferred, stage: load.Resources,
		others:   []string{"REQ003"},
		evidence: []string{"38"},
	},
	{
		name:    "a program that is not open, and nothing else is known",
		attempt: attaching(load.LinkCreate, 9),
		node:    lab("6.12.117"),
		rule:    Unknown, how: load.Inferred, stage: load.Request,
		others: []string{"ATT005", "ATT110", "ATT201"},
	},
	{
		name:    "a program that is not open, on an event",
		attempt: attaching(load.PerfEventSetBPF, 9, to("function", "do_exit")),
		node:    lab("6.12.117"),
		rule:    "ATT005", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "flags for a link that takes none",
		attempt: attaching(load.LinkCreate, 22, of("sk_lookup", "sk_lookup"), as("sk_lookup"), to("netns", ""), flagged(2)),
		node:    lab("6.12.117"),
		rule:    "ATT006", how: load.Inferred, stage: load.Request,
		evidence: []string{"the flags of the call were 0x2"},
	},
	{
		name:    "a netfilter program that wants to be first of all",
		attempt: attaching(load.LinkCreate, 34, of("netfilter", "netfilter"), as("netfilter")),
		node:    lab("6.12.117"),
		rule:    "ATT006", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "two modes of XDP at once",
		attempt: attaching(load.XDPAttach, 22, of("xdp", "xdp"), to("netdev", "eth0"), flagged(abi.XDPFlagSKBMode|abi.XDPFlagDRVMode), message("Only one XDP mode flag can be set")),
		node:    lab("6.12.117"),
		rule:    "ATT006", how: load.Observed, stage: load.Request,
	},
	{
		name:    "a link whose control group is gone",
		attempt: attaching(load.LinkUpdate, abi.ENOLINK, of("cgroup_skb", "")),
		node:    lab("6.12.117"),
		rule:    "ATT007", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "near miss: an update that meets another program",
		attempt: attaching(load.LinkUpdate, 1, of("xdp", "xdp"), to("netdev", "eth0")),
		node:    lab("6.12.117"),
		rule:    "ATT007", how: load.Inferred, stage: load.Request,
		evidence: []string{"another program than the one"},
	},
	{
		name:    "no errno of a link that anybody knows",
		attempt: attaching(load.LinkCreate, 71+10, of("xdp", "xdp"), as("xdp")),
		node:    lab("6.12.117"),
		rule:    Unknown, how: load.Inferred, stage: load.Request,
	},
}

var tracepointFixtures = []fixture{
	{
		name:    "a context beyond the record, by ioctl",
		attempt: attaching(load.PerfEventSetBPF, 13, of("tracepoint", ""), to("tracepoint", "syscalls/sys_exit_read"), record(32, 24)),
		node:    lab("5.14.0-427.el9.x86_64"),
		rule:    "ATT101", how: load.Inferred, stage: load.Request,
		evidence: []string{"up to byte 32", "record has 24 bytes", "the tracepoint syscalls/sys_exit_read", "No permission is missing"},
	},
	{
		name:    "a context beyond the record, by link",
		attempt: attaching(load.LinkCreate, 13, of("tracepoint", ""), as("perf_event"), to("tracepoint", "syscalls/sys_exit_read")),
		node:    lsms(lab("6.12.117"), "lockdown", "capability", "selinux"),
		rule:    "ATT101", how: load.Inferred, stage: load.Request,
		others: []string{"PERM005"},
	},
	{
		name:    "near miss: the record is long enough",
		attempt: attaching(load.LinkCreate, 13, of("tracepoint", ""), as("perf_event"), to("tracepoint", "sched/sched_switch"), record(64, 64)),
		node:    lsms(lab("6.12.117"), "lockdown", "capability", "selinux"),
		rule:    Unknown, how: load.Inferred, stage: load.Permission,
		others: []string{"PERM005"},
	},
	{
		name:    "more arguments than a raw tracepoint has",
		attempt: attaching(load.RawTPOpen, 22, of("raw_tracepoint", ""), to("raw_tracepoint", "sched_switch")),
		node:    lab("6.12.117"),
		rule:    "ATT101", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "near miss: a kprobe program as raw tracepoint",
		attempt: attaching(load.RawTPOpen, 22, of("kprobe", ""), to("raw_tracepoint", "sched_switch")),
		node:    lab("6.12.117"),
		rule:    "ATT001", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "no raw tracepoint of that name",
		attempt: attaching(load.RawTPOpen, 2, of("raw_tracepoint", ""), to("raw_tracepoint", "sched_swotch")),
		node:    lab("6.12.117"),
		rule:    "ATT102", how: load.Inferred, stage: load.Request,
		evidence: []string{"no tracepoint sched_swotch"},
	},
	{
		name:    "the tracepoint of a system call in a kernel without them",
		attempt: attaching(load.PerfEventOpen, 2, to("tracepoint", "syscalls/sys_enter_openat")),
		node:    config(lab("6.12.117"), "CONFIG_FTRACE_SYSCALLS", "n"),
		rule:    "ATT104", how: load.Inferred, stage: load.Request,
		others: []string{"ATT102"},
	},
	{
		name:    "a raw tracepoint with its group",
		attempt: attaching(load.RawTPOpen, 2, of("raw_tracepoint", ""), to("raw_tracepoint", "sched/sched_switch")),
		node:    lab("6.12.117"),
		rule:    "ATT102", how: load.Inferred, stage: load.Request,
		evidence: []string{"has no group"},
	},
}

var kprobeFixtures = []fixture{
	{
		name:    "no such function",
		attempt: attaching(load.PerfEventOpen, 2, to("function", "tcp_v4_gone")),
		node:    lab("6.12.117"),
		rule:    "ATT105", how: load.Inferred, stage: load.Request,
		evidence: []string{"no symbol for the function tcp_v4_gone"},
	},
	{
		name:    "no such function, by kprobe.multi",
		attempt: attaching(load.LinkCreate, 3, of("kprobe", "trace_kprobe_multi"), as("trace_kprobe_multi")),
		node:    lab("6.12.117"),
		rule:    "ATT105", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "no such function, by tracefs",
		attempt: attaching(load.ProbeDefine, 22, to("function", "tcp_v4_gone"), message("trace_kprobe: error: Invalid probed address or symbol")),
		node:    lab("6.12.117"),
		rule:    "ATT105", how: load.Observed, stage: load.Request,
	},
	{
		name:    "near miss: tracefs says EINVAL and not why",
		attempt: attaching(load.ProbeDefine, 22, to("function", "tcp_v4_gone")),
		node:    lab("6.12.117"),
		rule:    Unknown, how: load.Inferred, stage: load.Request,
		others: []string{"ATT105", "ATT107", "ATT111"},
	},
	{
		name:    "a symbol that is there twice",
		attempt: attaching(load.PerfEventOpen, 99, to("function", "verbose")),
		node:    lab("6.12.117"),
		rule:    "ATT106", how: load.Inferred, stage: load.Request,
		evidence: []string{"this kernel refuses a name that stands for several symbols"},
	},
	{
		name:    "a symbol that is there twice, by tracefs",
		attempt: attaching(load.ProbeDefine, 22, to("function", "verbose"), message("trace_kprobe: error: The symbol is not unique")),
		node:    lab("6.12.117"),
		rule:    "ATT106", how: load.Observed, stage: load.Request,
	},
	{
		name:    "a function that is notrace",
		attempt: attaching(load.PerfEventOpen, 22, to("function", "notrace_me"), message("Could not probe notrace function notrace_me")),
		node:    lab("6.12.117"),
		rule:    "ATT107", how: load.Observed, stage: load.Install,
	},
	{
		name:    "a program that overrides what may not be overridden",
		attempt: attaching(load.PerfEventSetBPF, 22, of("kprobe", ""), to("function", "vfs_read"), length(9), overriding()),
		node:    lab("6.12.117"),
		rule:    "ATT108", how: load.Inferred, stage: load.Install,
		evidence: []string{"the program calls bpf_override_return"},
	},
	{
		name:    "near miss: a program that overrides nothing",
		attempt: attaching(load.PerfEventSetBPF, 22, of("kprobe", ""), to("function", "vfs_read"), length(9)),
		node:    lab("6.12.117"),
		rule:    Unknown, how: load.Inferred, stage: load.Request,
	},
	{
		name:    "a function that is notrace, by the kernel's log",
		attempt: attaching(load.PerfEventOpen, 22, to("function", "notrace_me"), kernelLog("eth0: link up", "trace_kprobe: Could not probe notrace function notrace_me")),
		node:    lab("6.12.117"),
		rule:    "ATT107", how: load.Inferred, stage: load.Install,
		evidence: []string{"the kernel's log of that moment: trace_kprobe: Could not probe notrace function notrace_me"},
	},
	{
		name:    "an offset within an instruction",
		attempt: attaching(load.PerfEventOpen, 84, to("function", "do_exit")),
		node:    lab("6.12.117"),
		rule:    "ATT107", how: load.Inferred, stage: load.Install,
		evidence: []string{"not the beginning of an instruction"},
	},
	{
		name:    "overriding a function that is not open to it",
		attempt: attaching(load.PerfEventSetBPF, 22, of("kprobe", ""), to("function", "do_exit")),
		node:    lab("6.12.117"),
		rule:    "ATT108", how: load.Inferred, stage: load.Install,
	},
	{
		name:    "near miss: a tracepoint program on a kprobe",
		attempt: attaching(load.PerfEventSetBPF, 22, of("tracepoint", ""), to("function", "do_exit")),
		node:    lab("6.12.117"),
		rule:    "ATT001", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "no kprobe events in this kernel",
		attempt: attaching(load.PerfEventOpen, 2, to("function", "do_exit")),
		node:    config(lab("6.12.117"), "CONFIG_KPROBE_EVENTS", "n"),
		rule:    "ATT105", how: load.Inferred, stage: load.Request,
		others: []string{"ATT109"},
	},
	{
		name:    "lockdown forbids kprobes",
		attempt: attaching(load.PerfEventOpen, 1, to("function", "do_exit")),
		node:    locked(lab("6.12.117"), "confidentiality"),
		rule:    "ATT116", how: load.Inferred, stage: load.Permission,
		evidence: []string{"lockdown is at confidentiality"},
	},
	{
		name:    "near miss: no lockdown, and no CAP_PERFMON",
		attempt: attaching(load.PerfEventOpen, 13, to("function", "do_exit"), caps(bpfCap)),
		node:    lab("6.12.117", "kernel.perf_event_paranoid", "3"),
		rule:    "PERM011", how: load.Inferred, stage: load.Permission,
		evidence: []string{"kernel.perf_event_paranoid was 3"},
	},
	{
		name:    "CAP_PERFMON does not count at paranoid 4",
		attempt: attaching(load.PerfEventOpen, 13, to("function", "do_exit"), caps(bpfCap|perfmonCap)),
		node:    lab("6.12.117", "kernel.perf_event_paranoid", "4"),
		rule:    "PERM011", how: load.Inferred, stage: load.Permission,
		evidence: []string{"whatever CAP_PERFMON says"},
	},
}

var uprobeFixtures = []fixture{
	{
		name:    "a file that is not there",
		attempt: attaching(load.PerfEventOpen, 2, toFile("/usr/lib/libssl.so.3", 0x1234)),
		node:    lab("6.12.117"),
		rule:    "ATT110", how: load.Inferred, stage: load.Request,
		evidence: []string{"/usr/lib/libssl.so.3"},
	},
	{
		name:    "an offset beyond the end of the file",
		attempt: attaching(load.PerfEventOpen, 22, toFile("/usr/lib/libssl.so.3", 1<<40)),
		node:    lab("6.12.117"),
		rule:    "ATT110", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "an event name that is too long",
		attempt: attaching(load.ProbeDefine, 22, toFile("/usr/lib/libssl.so.3", 0x1234), message("trace_uprobe: error: Event name is too long")),
		node:    lab("6.12.117"),
		rule:    "ATT111", how: load.Observed, stage: load.Request,
	},
	{
		name:    "near miss: tracefs names the offset",
		attempt: attaching(load.ProbeDefine, 22, toFile("/usr/lib/libssl.so.3", 0x1234), message("trace_uprobe: error: Invalid uprobe offset")),
		node:    lab("6.12.117"),
		rule:    "ATT110", how: load.Observed, stage: load.Request,
	},
	{
		name:    "data in place of an instruction",
		attempt: attaching(load.LinkCreate, 8, of("kprobe", "trace_uprobe_multi"), as("trace_uprobe_multi"), toFile("/usr/lib/libssl.so.3", 0x1234)),
		node:    lab("6.12.117"),
		rule:    "ATT112", how: load.Inferred, stage: load.Install,
	},
	{
		name:    "data in place of an instruction, arm64",
		attempt: attaching(load.PerfEventOpen, 22, toFile("/usr/lib/libssl.so.3", 0x1234)),
		node:    arm6_12,
		rule:    "ATT112", how: load.Inferred, stage: load.Install,
	},
	{
		name:    "a probe that was left behind",
		attempt: attaching(load.ProbeDefine, 17, to("function", "do_exit")),
		node:    lab("6.12.117"),
		rule:    "ATT113", how: load.Inferred, stage: load.Request,
	},
	{
		name:    "a uprobe after privileges were dropped",
		attempt: attaching(load.PerfEventOpen, 13, toFile("/usr/lib/libssl.so.3", 0x1234), caps(bpfCap|perfmonCap)),
		node:    lab("6.1.146"),
		rule:    "PERM012", how: load.Inferred, stage: load.Permission,
		evidence: []string{"this kernel wants CAP_SYS_ADMIN for a uprobe"},
	},
	{
		name:    "near miss: the kernel before it closes the event to everybody without CAP_SYS_ADMIN",
		attempt: attaching(load.PerfEventOpen, 13, toFile("/usr/lib/libssl.so.3", 0x1234), caps(bpfCap|perfmonCap)),
		node:    lab("6.1.145", "kernel.perf_event_paranoid", "3"),
		rule:    "PERM011", how: load.Inferred, stage: load.Permission,
	},
	{
		name:    "a kernel that may have it or not",
		attempt: attaching(load.PerfEventOpen, 13, toFile("/usr/lib/libssl.so.3", 0x1234), capsUnknown()),
		node:    lab("6.8.0-60-generic"),
		rule:    "PERM012", how: load.Inferred, stage: load.Permission,
		others: []string{"PERM011"},
	},
}

var trampolineFixtures = []fixture{
	{
		name:    "a function without an ftrace site, x86-64",
		attempt: attaching(load.RawTPOpen, 16, of("tracing", "trace_fexit"), to("function", "bpf_int_jit_compile")),
		node:    lab("6.12.117"),
		rule:    "ATT114", how: load.Inferred, stage: load.Install,
		others:   []string{"ATT003"},
		evidence: []string{"the target was the function bpf_int_jit_compile"},
	},
	{
		name:    "a kernel without the function tracer",
		attempt: attaching(load.LinkCreate, 16, of("tracing", "trace_fentry"), as("trace_fentry"), to("function", "vfs_read")),
		node:    config(lab("6.12.117"), "CONFIG_FUNCTION_TRACER", "n"),
		rule:    "ATT114", how: load.Inferred, stage: load.Install,
		evidence: []string{"CONFIG_FUNCTION_TRACER is off"},
	},
	{
		name:    "a function without an ftrace site, arm64 with trampolines",
		attempt: attaching(load.LinkCreate, 524, of("tracing", "trace_fentry"), as("trace_fentry"), to("function", "vfs_read")),
		node:    config(machine(lab("6.12.117"), "aarch64"), directCalls, "y"),
		rule:    "ATT114", how: load.Inferred, stage: load.Install,
	},
	{
		name:    "no trampolines on arm64 before 6.4",
		attempt: attaching(load.RawTPOpen, 524, of("tracing", "trace_fentry"), to("function", "vfs_read")),
		node:    arm6_1,
		rule:    "ATT115", how: load.Inferred, stage: load.Install,
		evidence: []string{"the machine is aarch64", "the kernel is 6.1"},
	},
	{
		name:    "no LSM programs on arm64 before 6.4",
		attempt: attaching(load.RawTPOpen, 524, of("lsm", "lsm_mac"), to("function", "bpf_lsm_file_open")),
		node:    arm6_1,
		rule:    "ATT115", how: load.Inferred, stage: load.Install,
	},
	{
		name:    "arm64 that could, without direct calls",
		attempt: attaching(load.LinkCreate, 524, of("tracing", "trace_fentry"), as("trace_fentry"), to("function", "vfs_read")),
		node:    config(machine(lab("6.6.30"), "aarch64"), directCalls, "n"),
		rule:    "ATT115", how: load.Inferred, stage: load.Install,
	},
	{
		name:    "struct_ops on arm64 before 6.0",
		attempt: attaching(load.MapUpdate, 524, ofMap("struct_ops")),
		node:    machine(lab("5.10.0-32-cloud-arm64"), "aarch64"),
		rule:    "ATT115", how: load.Inferred, stage: load.Install,
	},
	{
		name:    "near miss: struct_ops on arm64 6.1",
		attempt: attaching(load.MapUpdate, 524, ofMap("struct_ops")),
		node:    arm6_1,
		rule:    Unknown, how: load.Inferred, stage: load.Request,
	},
	{
		name:    "a scheduler with a timeout of a minute",
		attempt: attaching(load.MapUpdate, 7, ofMap("struct_ops")),
		node:    sched6_12,
		rule:    "ATT502", how: load.Inferred, stage: load.Request,
		evidence: []string{"timeout_ms"},
	},
	{
		name:    "another scheduler runs",
		attempt: attaching(load.LinkCreate, 16, as("struct_ops")),
		node:    sched6_12,
		rule:    "ATT503", how: load.Inferred, stage: load.Install,
	},
	{
		name:    "an LSM program that never runs",
		attempt: attaching(load.LinkCreate, 0, of("lsm", "lsm_mac"), set(func(a *load.Attempt) { a.Outcome = load.Loaded })),
		node:    lab("6.12.117"),
		rule:    "ATT501", how: load.Inferred,
		evidence: []string{"security modules of this kernel: lockdown,capability,yama,apparmor"},
	},
}

// What succeeded has no diagnosis as a rule.
func TestAttachedAndRuns(t *testing.T) {
	loaded := set(func(a *load.Attempt) { a.Outcome = load.Loaded })
	for name, tt := range map[string]struct {
		a *load.Attempt
		n *node.Profile
	}{
		"another program":              {attaching(load.LinkCreate, 0, of("tracing", "trace_fentry"), loaded), lab("6.12.117")},
		"bpf is among the modules":     {attaching(load.LinkCreate, 0, of("lsm", "lsm_mac"), loaded), lsms(lab("6.12.117"), "capability", "bpf")},
		"the modules are not known":    {attaching(load.LinkCreate, 0, of("lsm", "lsm_mac"), loaded), lsms(lab("6.12.117"))},
		"nothing is known of the call": {attempt(load.LinkCreate, 0, loaded), lab("6.12.117")},
	} {
		Conclude(tt.a, tt.n)
		qt.Check(t, qt.IsNil(tt.a.Diagnosis), qt.Commentf("%s", name))
		qt.Check(t, qt.IsFalse(tt.a.Finding()), qt.Commentf("%s", name))
	}
	idle := attaching(load.LinkCreate, 0, of("lsm", "lsm_mac"), loaded)
	Conclude(idle, lab("6.12.117"))
	qt.Check(t, qt.IsTrue(idle.Finding()))
}

// fromText is what a reader of pasted text makes of it.
func fromText(kind load.Kind, errno int, opts ...option) *Facts {
	a := attaching(kind, errno, append([]option{capsUnknown(), set(func(a *load.Attempt) {
		a.Evidence.UserNSLevel, a.Evidence.SeccompMode = -1, -1
	})}, opts...)...)
	f := newFacts(a, nil)
	f.text = &pasted{}
	return f
}

// pastedAttachments are of attempts of which a text tells little.
var pastedAttachments = []struct {
	name   string
	facts  *Facts
	rule   string
	others []string
}{
	{"a perf link on a tracepoint", fromText(load.LinkCreate, 13, to("tracepoint", "syscalls/sys_exit_read")), "ATT101", []string{"PERM005", "PERM011"}},
	{"fexit that is busy", fromText(load.LinkCreate, 16, of("tracing", "")), "ATT114", []string{"ATT003"}},
	{"something that is busy", fromText(load.LinkCreate, 16), Unknown, []string{"ATT003", "ATT113", "ATT114", "ATT503", "ATT302", "ATT303", "ATT304"}},
	{"create raw tracepoint of an LSM program: not supported", fromText(load.RawTPOpen, 95, of("lsm", "")), "ATT115", []string{"ATT114"}},
	{"a kprobe's perf event, twice", fromText(load.PerfEventOpen, 99, to("function", "")), "ATT106", nil},
	{"EADDRNOTAVAIL and no more", fromText(load.PerfEventOpen, 99), "ATT106", nil},
	{"write kprobe_events: file exists", fromText(load.ProbeDefine, 17), "ATT113", nil},
	{"the number of a tracepoint", fromText(load.PerfEventOpen, 2, to("tracepoint", "sched/sched_process_exec")), Unknown, []string{"ATT102", "ATT103"}},
	{"the number of a system call's tracepoint", fromText(load.PerfEventOpen, 2, to("tracepoint", "syscalls/sys_enter_openat")), Unknown, []string{"ATT102", "ATT103", "ATT104"}},
	{"opening kprobe: setting perf event bpf program", fromText(load.PerfEventSetBPF, 22, to("function", "")), "ATT108", []string{"ATT001"}},
	{"opening a kprobe's event", fromText(load.PerfEventOpen, 2, to("function", "f")), "ATT105", []string{"ATT103", "ATT109"}},
	{"devices/kprobe/type", fromText(load.PerfEventOpen, 2, to("function", ""), message("open /sys/bus/event_source/devices/kprobe/type: no such file or directory")), "ATT109", nil},
	{"the kernel's log of a uprobe", fromText(load.LinkCreate, 22, to("uprobe", ""), message("trace_uprobe: error: Event name is too long")), "ATT111", nil},
	{"no tracefs", fromText(load.PerfEventOpen, 2, to("tracepoint", "sched/sched_switch"), message("neither debugfs nor tracefs are mounted")), "ATT103", nil},
	{"a hardware counter in a virtual machine", fromText(load.PerfEventOpen, 2, to("perf_event", ""), of("perf_event", "")), "ATT117", nil},
	{"the ring of a perf event", fromText(load.PerfEventOpen, 12, to("perf_event", ""), message("failed to create perf ring for CPU 2: can't mmap: cannot allocate memory")), "ATT118", nil},
	{"open kprobe_events: no such file", fromText(load.ProbeDefine, 2, to("function", "do_sys_open"), message("open(/sys/kernel/debug/tracing/kprobe_events): No such file or directory")), "ATT103", []string{"ATT109"}},
	{"open kprobe_events: permission denied", fromText(load.ProbeDefine, 13, to("function", "f"), message("open /sys/kernel/debug/tracing/kprobe_events: permission denied")), "ATT103", nil},
	{"legacy kprobe event", fromText(load.ProbeDefine, 2, to("function", "vfs_open")), Unknown, []string{"ATT103", "ATT105", "ATT109"}},
	{"no descriptor of a perf event", fromText(load.PerfEventSetBPF, 25, to("uprobe", "")), "ATT005", nil},
	{"perf_event_open in a container", fromText(load.PerfEventOpen, 1, to("tracepoint", "syscalls/sys_enter_execve")), Unknown, []string{"PERM005", "PERM006", "PERM011"}},
	{"a scheduler, and no errno", fromText(load.LinkCreate, 0, as("struct_ops")), Unknown, []string{"ATT115", "ATT502", "ATT503"}},
	{"a kprobe, and no errno", fromText(load.PerfEventOpen, 0, to("function", "f")), Unknown, []string{"PERM011", "ATT103", "ATT105", "ATT106", "ATT107", "ATT109", "ATT116"}},
	{"attaching to a folder of version 1, which bcc calls EPERM", fromText(load.ProgAttach, 1, of("sock_ops", ""), toPath("cgroup", "/sys/fs/cgroup/net_cls/task", "")), Unknown, []string{"PERM001", "PERM005", "PERM006", "ATT201", "ATT204"}},
	{"attach program to cgroup: bad file descriptor", fromText(load.ProgAttach, 9, to("cgroup", "/sys/fs/cgroup/net_cls/app")), "ATT201", []string{"ATT005"}},
	{"attach to a control group: invalid argument", fromText(load.LinkCreate, 22, to("cgroup", "")), Unknown, []string{"ATT001", "ATT002", "ATT003", "ATT006", "ATT202", "ATT203"}},
	{"libbpf says what the kernel said", fromText(load.LinkCreate, 95, to("netdev", ""), message("Underlying driver does not support XDP in native mode")), "ATT301", nil},
	{"the kernel's words and no errno", fromText(load.XDPAttach, 0, message("virtio_net: XDP expects header/data in single page, any_header_sg required.")), "ATT302", nil},
	{"XDP: operation not supported", fromText(load.XDPAttach, 95), "ATT301", []string{"ATT302", "ATT303"}},
	{"XDP: numerical result out of range", fromText(load.XDPAttach, 34), "ATT303", nil},
	{"a filter of tc: invalid argument", fromText(load.TCAttach, 22), "ATT306", []string{"ATT001"}},
	{"setsockopt(SO_ATTACH_BPF): cannot allocate memory", fromText(load.SocketAttach, 12), "RES002", []string{"RES001"}},
	{"key too big for map", fromText(load.MapUpdate, 7, message("update: key too big for map: argument list too long")), "MAP004", nil},
	{"argument list too long of an update", fromText(load.MapUpdate, 7), "MAP004", nil},
	{"parameter mismatch", fromText(load.ObjPin, 0, message("couldn't reuse pinned map at '/sys/fs/bpf/flows': parameter mismatch")), "ATT604", nil},
	{"mkdir of a pin's folder", fromText(load.ObjPin, 13, message("mkdir /sys/fs/bpf/agent: permission denied")), "ATT602", nil},
	{"a pin that is refused", fromText(load.ObjPin, 1), "ATT601", []string{"PERM001", "PERM005", "PERM006"}},
	{"a uprobe's event without permission", fromText(load.PerfEventOpen, 13, toFile("/bin/bash", 0)), "PERM012", []string{"PERM005", "PERM011"}},
}

func TestPastedAttachments(t *testing.T) {
	for _, tt := range pastedAttachments {
		t.Run(tt.name, func(t *testing.T) {
			d, _ := tt.facts.decide(matches(tt.facts))
			dump := strings.Join(append([]string{d.Rule, d.Cause}, d.Evidence...), "\n")
			qt.Check(t, qt.Equals(d.Rule, tt.rule), qt.Commentf("%s\n%+v", dump, d.Alternatives))
			var others []string
			for _, o := range d.Alternatives {
				others = append(others, o.Rule)
			}
			qt.Check(t, qt.DeepEquals(others, tt.others))
			qt.Check(t, qt.Equals(d.HowKnown, load.Inferred))
		})
	}
}

// Every row of the table can be printed and found.
func TestReasons(t *testing.T) {
	for _, r := range reasons() {
		if _, ok := ByID(r.rule); !ok && r.rule != "" {
			t.Errorf("no rule %s", r.rule)
		}
		qt.Check(t, qt.Not(qt.HasLen(r.errno, 0)), qt.Commentf("%s", r.text))
		qt.Check(t, qt.IsTrue(strings.HasSuffix(r.text, ".")), qt.Commentf("%s", r.text))
		if r.words != nil {
			r.words.MatchString("")
		}
		fits := place(0)
		for _, k := range r.call {
			fits |= callPlaces[k]
		}
		qt.Check(t, qt.IsTrue(r.call == nil || fits&r.at != 0), qt.Commentf("%s", r.text))
	}
	for name := range attachTypes {
		known := false
		for n := range uint32(100) {
			known = known || abi.AttachTypeName(n) == name
		}
		qt.Check(t, qt.IsTrue(known), qt.Commentf("%s", name))
	}
	for name := range programPlaces {
		known := false
		for n := range uint32(100) {
			known = known || abi.ProgTypeName(n) == name
		}
		qt.Check(t, qt.IsTrue(known), qt.Commentf("%s", name))
	}
}

// In a user namespace a capability of the file counts for nothing.
func TestRemediesInUserNamespaces(t *testing.T) {
	ids := func(a *load.Attempt) (list []string) {
		Conclude(a, lab("6.12.117", "kernel.unprivileged_bpf_disabled", "2"))
		for _, r := range a.Diagnosis.Remedies {
			list = append(list, r.ID)
		}
		return list
	}
	for _, opts := range [][]option{
		{progType("kprobe"), unhooked()}, {unhooked()},
	} {
		inside, outside := ids(progLoad(1, append(opts, userNamespace())...)), ids(progLoad(1, append(opts, caps(0))...))
		qt.Check(t, qt.IsTrue(slices.Contains(inside, "delegate-token")))
		qt.Check(t, qt.IsFalse(slices.Contains(outside, "delegate-token")))
		qt.Check(t, qt.IsFalse(slices.ContainsFunc(inside, func(id string) bool { return strings.HasPrefix(id, "grant-") })), qt.Commentf("%v", inside))
		qt.Check(t, qt.IsTrue(slices.ContainsFunc(outside, func(id string) bool { return strings.HasPrefix(id, "grant-") })), qt.Commentf("%v", outside))
	}
}

// Whatever an attempt after a load tells, there is a diagnosis, no panic, and nothing that may not
// reach a terminal.
func TestHostileAttachments(t *testing.T) {
	evil := "\x1b]0;owned\x07\u202e"
	kinds := []load.Kind{"", load.OtherCommand}
	for k := range callPlaces {
		kinds = append(kinds, k)
	}
	for _, kind := range kinds {
		for target := range targetPlaces {
			for _, errno := range []int{0, 1, 2, 7, 9, 13, 16, 22, 95, 524, 599} {
				for _, read := range []bool{false, true} {
					a := attaching(kind, errno, set(func(a *load.Attempt) {
						a.Attach = &load.Attach{
							Type: evil, Message: strings.Repeat(evil+" MTU ", 4<<10), Flags: ^uint64(0),
							Program: &load.AttachProgram{Name: evil, Type: evil, AttachType: evil, MaxCtxOffset: -1, ID: -1},
							Target:  &load.AttachTarget{Kind: target, Name: evil, Path: evil + ".", Offset: ^uint64(0), Size: -1, ID: ^uint64(0)},
						}
						a.Map = &load.Map{Type: evil, MaxEntries: ^uint32(0)}
					}))
					f := newFacts(a, lab("6.12.117"))
					if read {
						f.text = &pasted{}
					}
					d, _ := f.decide(matches(f))
					qt.Assert(t, qt.IsNotNil(d))
					text := d.Title + d.Cause + strings.Join(d.Evidence, "")
					for _, o := range d.Alternatives {
						text += o.Why
					}
					for _, r := range d.Remedies {
						text += r.Command
					}
					qt.Assert(t, qt.IsFalse(strings.ContainsAny(text, evil[:1]+"\x07\u202e")), qt.Commentf("%s %d: %q", kind, errno, text))
				}
			}
		}
	}
}
