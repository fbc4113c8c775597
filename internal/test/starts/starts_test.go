// SPDX-License-Identifier: Apache-2.0

package starts

import (
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

// start is a command that loads and attaches programs.
type start struct {
	name         string
	title, about string // for the document
	command      []string
	ready        string  // what it says when it has; else its story is waited for
	after        []start // what runs already
	watch        bool    // by a watch of all processes, not by run
	want         load.Story
}

func all(n int) load.Tally { return load.Tally{OK: n, Of: n} }

var agent = start{
	name: "agent", title: "An agent with cilium/ebpf",
	about: `Thirteen programs, each attached in its own way: kprobe, kretprobe, uprobe, tracepoint, raw
tracepoint, fentry, LSM, control group, sk_lookup in a network namespace, tcx, XDP, an iterator, and
a filter of a socket, which has no link.`,
	command: []string{inGuest + "/agent", inGuest + "/agent.bpf.o"}, ready: "ready",
	want: load.Story{Maps: all(2), Programs: all(13), Attached: all(13)},
}

var opensnoop = []string{"/usr/bin/bpftrace", "/usr/sbin/opensnoop.bt"}

var starts = []start{
	{
		name: "bpftrace", title: "A script of bpftrace",
		about: `The script's four tracepoints are attached to perf events. bpftrace runs BEGIN and END once itself,
and does not attach them.`,
		command: opensnoop, ready: "Tracing open syscalls",
		want: load.Story{Maps: all(2), Programs: all(6), Attached: all(4), Trivial: 2, Unattached: []string{"BEGIN", "END"}},
	},
	{
		name: "bpftrace-watched", title: "The same, watched by another terminal",
		about: `To see what attaches to perf events, ` + "`watch`" + ` would have to slow the system calls of every process.
So it does not look, and the story says so.`,
		command: opensnoop, ready: "Tracing open syscalls", watch: true,
		want: load.Story{Maps: all(2), Programs: all(6), Trivial: 2, Unseen: []load.Kind{load.PerfEventSetBPF},
			Unattached: []string{"BEGIN", "sys_enter_open", "sys_enter_opena", "sys_exit_open", "sys_exit_openat", "END"}},
	},
	{
		name: "tcpconnect", title: "A tool of bcc with libbpf",
		about: `Its two kprobes and two kretprobes are links. Before them, libbpf tried three programs, to find
out what the kernel can do.`,
		command: []string{"/usr/sbin/tcpconnect"},
		want:    load.Story{Maps: all(6), Programs: all(4), Attached: all(4), Trivial: 3},
	},
	{
		name: "bpftool", title: "bpftool",
		about: `The programs of the agent below are loaded and pinned, with their two maps. A pinned program waits
until somebody attaches it.`,
		command: []string{"/usr/sbin/bpftool", "prog", "loadall", inGuest + "/agent.bpf.o", "/sys/fs/bpf/agent", "pinmaps", "/sys/fs/bpf/agent-maps"},
		want:    load.Story{Maps: all(2), Programs: all(13), Pinned: all(15), Trivial: 3},
	},
	{
		name: "httpprobe", title: "httpprobe",
		about: `Seven programs are attached to 24 tracepoints of system calls and to one of TCP. The
programs for OpenSSL wait until a process uses it.`,
		command: []string{inGuest + "/httpprobe"}, ready: "watching by",
		want: load.Story{Maps: all(22), Programs: all(15), Attached: all(25),
			Unattached: []string{"ssl_write", "ssl_write_ex", "ssl_read_ex", "ssl_read", "ssl_write_ex2", "ssl_return", "ssl_new", "ssl_free"}},
	},
	agent,
	{
		name: "agent-twice", title: "The agent, started while it runs",
		about: `A device has room for one XDP program. The agent stops there. So this one and the last two
are never attached.`,
		command: agent.command, ready: agent.ready, after: []start{agent},
		want: load.Story{Maps: all(2), Programs: all(13), Attached: load.Tally{OK: 10, Of: 11},
			Unattached: []string{"count_xdp", "dump_tasks", "count_socket"},
			Failures:   []load.StoryFailure{{Of: load.LinkCreate, Name: "count_xdp", Target: "lo", Errno: abi.EBUSY, ErrnoName: "EBUSY", Rule: "ATT304"}}},
	},
}
