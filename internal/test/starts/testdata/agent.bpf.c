// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//
// The programs of an agent that uses most of what a kernel has to attach to.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

static __always_inline void count(__u32 kind)
{
	__u64 *n = bpf_map_lookup_elem(&counts, &kind);

	if (n)
		*n += 1;
	if (kind == 0)
		bpf_ringbuf_output(&events, &kind, sizeof(kind), 0);
}

#define COUNTS(section, name, kind, verdict) \
	SEC(section) int name(void *ctx) { count(kind); return verdict; }

COUNTS("kprobe/do_unlinkat", unlink_enter, 0, 0)
COUNTS("kretprobe/do_unlinkat", unlink_exit, 1, 0)
COUNTS("uprobe", handle_request, 2, 0)
COUNTS("tracepoint/sched/sched_process_exec", on_exec, 3, 0)
COUNTS("raw_tracepoint/sched_process_exit", on_exit, 4, 0)
COUNTS("fentry/tcp_v4_connect", on_connect, 5, 0)
COUNTS("lsm/file_open", on_open, 6, 0)
COUNTS("cgroup_skb/egress", cgroup_egress, 7, 1)
COUNTS("xdp", count_xdp, 8, XDP_PASS)
COUNTS("tc", count_tcx, 9, -1)
COUNTS("sk_lookup", pick_socket, 10, 1)
COUNTS("iter/task", dump_tasks, 11, 0)
COUNTS("socket", count_socket, 12, 0)
