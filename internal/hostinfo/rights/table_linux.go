// SPDX-License-Identifier: Apache-2.0

package rights

import "golang.org/x/sys/unix"

// What capabilities are for; after "without CAP_X: ".
const (
	noLoad     = "the programs that watch cannot be loaded"
	noAttach   = "they can neither be attached nor read the kernel's memory"
	noSettings = "net.core.bpf_jit_harden and bpf_jit_limit are not read; no kprobes and tracepoints where kernel.perf_event_paranoid is above 2 (Debian, Ubuntu)"
	noWords    = "the verifier's messages to loaders without a log are not read on most kernels"
	noOthers   = "net.core.bpf_jit_* are not read from another network namespace than the initial one, nor executables named where the kernel is watched from outside"
)

var watching = Command{
	Must: []Right{{unix.CAP_BPF, noLoad}, {unix.CAP_PERFMON, noAttach}},
	More: []Right{{unix.CAP_SYS_ADMIN, noSettings}, {unix.CAP_SYSLOG, noWords}, {unix.CAP_SYS_PTRACE, noOthers}},
	Note: "Before 5.11 RLIMIT_MEMLOCK must be unlimited, or CAP_SYS_RESOURCE given",
}

// named is a row like another.
func (c Command) named(name string) Command { c.Name = name; return c }

// The rows.
var (
	Watch = watching.named("bpfwhy watch")
	Run   = Command{Name: "bpfwhy run", Must: watching.Must, More: watching.More, Note: watching.Note, Like: Watch.Name}
	// Serve: its other process has no capability at all.
	Serve = Command{Name: "bpfwhy serve", Must: watching.Must, More: watching.More, Note: watching.Note, Like: Watch.Name}
	// RunUser is run --user.
	RunUser = Command{
		Name: "bpfwhy run --user U",
		Must: []Right{{unix.CAP_BPF, noLoad}, {unix.CAP_PERFMON, noAttach}, {unix.CAP_SETUID, "the command does not get its user"}, {unix.CAP_SETGID, "nor its groups"}},
		More: append([]Right{{unix.CAP_KILL, "signals do not reach the command"}}, watching.More...),
		Like: Watch.Name,
	}
	// Repair is run --repair, besides what Run and the command's own loads need.
	Repair = Command{
		Name: "bpfwhy run --repair",
		Must: []Right{{unix.CAP_SYS_ADMIN, "the command's loads cannot be held"}},
		More: []Right{
			{unix.CAP_SYS_PTRACE, "processes of another user, or with more rights than bpfwhy, are not repaired, and a harden window is open for the whole of a call (no userfaultfd)"},
			{unix.CAP_SETUID, "loads of other users are left to the kernel, and what helps bpfwhy has its own ids: the command's processes with these can signal it"},
			{unix.CAP_SETGID, "loads of other groups are left to the kernel"},
			{unix.CAP_KILL, "loads of other users are left to the kernel"},
			{unix.CAP_DAC_OVERRIDE, "loads of other users are left to the kernel"},
		},
		Note: "And what the command's own loads need. What is missing is said, and the command runs as it is. `--harden-window` also needs /proc/sys and /run writable, and under no_new_privs CAP_NET_ADMIN",
	}
	Demo = Command{
		Name: "bpfwhy demo",
		Must: watching.Must,
		More: []Right{{unix.CAP_SYS_ADMIN, "net.core.bpf_jit_harden is neither read nor, with --allow-sysctl, raised: no blinding cases"}},
		Note: watching.Note,
	}
	Node = Command{
		Name: "bpfwhy node",
		More: []Right{
			{unix.CAP_BPF, "nothing is found by trying"},
			{unix.CAP_PERFMON, "tracing programs are not tried"},
			{unix.CAP_NET_ADMIN, "network programs and maps of devices and sockets are not tried"},
			{unix.CAP_SYS_ADMIN, "net.core.bpf_jit_harden, bpf_jit_kallsyms and bpf_jit_limit are not read"},
			{unix.CAP_SYS_PTRACE, "net.core.bpf_jit_* are not read from another network namespace than the initial one"},
		},
	}
	Audit = Command{
		Name: "bpfwhy audit",
		Must: []Right{{unix.CAP_SYS_ADMIN, "loaded programs cannot be listed"}},
		More: []Right{
			{unix.CAP_SYS_PTRACE, "programs held by processes with more rights than bpfwhy have no owner"},
			{unix.CAP_SYSLOG, "programs that are blinded already show no code"},
		},
	}
	Prove = Command{
		Name:  "bpfwhy explain --prove",
		Exact: true, // a program is loaded with its loader's capabilities, and no other ones
		Must:  []Right{{unix.CAP_BPF, "nothing can be loaded again"}, {unix.CAP_SETGID, "the loader's groups cannot be given up"}},
		More: []Right{
			{unix.CAP_SETUID, "programs of other users than root are not loaded again"},
			{unix.CAP_PERFMON, "programs whose loader had it are not loaded again"},
			{unix.CAP_NET_ADMIN, "programs whose loader had it are not loaded again"},
			{unix.CAP_SYS_ADMIN, "programs whose loader had it are not loaded again, and net.core.bpf_jit_harden is not read"},
		},
	}
	Restore = Command{
		Name: "bpfwhy harden restore",
		Must: []Right{{unix.CAP_SYS_ADMIN, "net.core.bpf_jit_harden cannot be written"}},
	}
	// The sources of httpprobe.
	Syscalls = Command{
		Name: "httpprobe --sources syscalls",
		Must: []Right{{unix.CAP_BPF, noLoad}, {unix.CAP_PERFMON, noAttach}},
		Note: "Where kernel.perf_event_paranoid is above 2 (Debian, Ubuntu): CAP_SYS_ADMIN",
	}
	OpenSSL = Command{
		Name: "httpprobe --sources openssl",
		Must: []Right{{unix.CAP_BPF, noLoad}, {unix.CAP_PERFMON, noAttach}, {unix.CAP_SYS_PTRACE, "libraries of other processes are not found"}},
		More: []Right{
			{unix.CAP_DAC_READ_SEARCH, "libraries in folders that are closed to root are not found"},
			{unix.CAP_CHECKPOINT_RESTORE, "libraries that were deleted or replaced before the start are not found"},
		},
		Note: "Before 6.6, with ba677dbe77af (5.10.240, 5.15.189, 6.1.146) or kernel.perf_event_paranoid above 2: CAP_SYS_ADMIN",
	}
	Packets = Command{
		Name: "httpprobe --sources packets",
		Must: []Right{{unix.CAP_NET_RAW, "packets are not seen"}},
		Note: "Where kernel.unprivileged_bpf_disabled is set: CAP_BPF, and on 5.10 CAP_PERFMON",
	}
	Behaviour = Command{
		Name: "bpfwhy doctor --prove",
		Must: []Right{{unix.CAP_BPF, "nothing can be tried"}},
		More: []Right{
			{unix.CAP_PERFMON, "nothing is known of loops on some kernels: the verifier follows them beyond their end (Spectre), and gives up"},
			{unix.CAP_SYS_ADMIN, "net.core.bpf_jit_harden is neither read nor, with --allow-sysctl, raised: nothing of blinding is tried"},
		},
	}
	// Preflight is doctor --preflight. Each of these is for some of its lines.
	Preflight = Command{
		Name: "bpfwhy doctor --preflight",
		More: []Right{
			{unix.CAP_BPF, "nothing is found by trying: most lines say \"not known\""},
			{unix.CAP_PERFMON, "tracing programs are not tried, and fentry counts as refused"},
			{unix.CAP_NET_ADMIN, "network programs and maps of devices and sockets are not tried"},
			{unix.CAP_SYS_ADMIN, "net.core.bpf_jit_harden and bpf_jit_limit are not read; kprobes and uprobes do not pass where the kernel may ask for it"},
			{unix.CAP_SYS_PTRACE, "net.core.bpf_jit_* are not read from another network namespace than the initial one"},
		},
		Note: "It answers for the rights with which it runs: give it those of the agent",
	}
	Doctor = Command{Name: "bpfwhy doctor", Note: "Says what is missing here for the other commands"}
	Files  = Command{Name: "bpfwhy explain, check, fix, node diff, demo --list, completion, copy, version", Note: "Any user"}
	// Fleet asks files, or an API server, for which it needs rights of another kind.
	Fleet = Command{
		Name: "bpfwhy fleet, kubectl bpfwhy",
		Note: "Any user who may read the files. In a cluster: [the rights of your kubeconfig](kubernetes.md#what-kubectl-bpfwhy-may)",
	}
)

// Commands are all rows, in the order of the documents.
func Commands() []Command {
	return []Command{Watch, Serve, Run, RunUser, Repair, Demo, Audit, Prove, Node, Restore, Doctor, Behaviour, Preflight, Files, Fleet, Syscalls, OpenSSL, Packets}
}
