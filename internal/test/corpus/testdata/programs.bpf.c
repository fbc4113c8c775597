// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//
// Programs that libbpf and cilium/ebpf load one at a time. Each is refused for one reason, which its name says, by some
// kernels at least; ok is not.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} values SEC(".maps");

struct table {
	__u64 cells[8];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct table);
} tables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

const volatile __u32 factor = 3;
__u64 total;

SEC("socket")
int ok(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 *value = bpf_map_lookup_elem(&values, &key);

	if (value)
		*value += skb->len;
	total += skb->len * factor;
	return 0;
}

SEC("socket")
int null_value(struct __sk_buff *skb)
{
	__u32 key = skb->len;
	__u64 *value = bpf_map_lookup_elem(&values, &key);

	*value = 1;
	return 0;
}

SEC("socket")
int free_index(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct table *table = bpf_map_lookup_elem(&tables, &key);

	if (!table)
		return 0;
	table->cells[skb->len] = 1;
	return 0;
}

SEC("xdp")
int packet(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;

	return eth->h_proto ? XDP_PASS : XDP_DROP;
}

SEC("socket")
int lost_event(struct __sk_buff *skb)
{
	__u64 *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event || skb->len > 100)
		return 0;
	*event = skb->len;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

struct task_struct {
	int no_such_field;
} __attribute__((preserve_access_index));

SEC("raw_tp/sched_switch")
int missing_field(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[1];

	return BPF_CORE_READ(task, no_such_field);
}

// bpf_ktime_get_coarse_ns came with 5.11.
SEC("socket")
int new_helper(struct __sk_buff *skb)
{
	return bpf_ktime_get_coarse_ns();
}

static long step(__u32 i, void *sum)
{
	*(__u64 *)sum += i;
	return 0;
}

// bpf_loop came with 5.17, and the address of a function as its argument with 5.13.
SEC("socket")
int callback(struct __sk_buff *skb)
{
	__u64 sum = 0;

	bpf_loop(8, step, &sum, 0);
	return sum;
}

// A socket filter may not change the packet.
SEC("socket")
int wrong_helper(struct __sk_buff *skb)
{
	return bpf_skb_change_tail(skb, 64, 0);
}

SEC("kprobe/none")
int far_argument(void *ctx)
{
	return *(__u64 *)(ctx + 4096);
}

SEC("cgroup/sock_create")
int verdict(struct bpf_sock *sk)
{
	return sk->family;
}

SEC("socket")
int endless(struct __sk_buff *skb)
{
	volatile int forever = 1;

	while (forever)
		;
	return 0;
}

extern int bpf_no_such_function(int) __ksym __weak;

SEC("tc")
int missing_function(struct __sk_buff *skb)
{
	bpf_no_such_function(1);
	return 0;
}
