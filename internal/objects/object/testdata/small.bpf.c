// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//
// One of everything that refers to instructions: static and global subprograms, a function's address, programs in a map,
// relocations of the kernel's types and functions, and lines.
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

extern void bpf_rcu_read_lock(void) __ksym __weak;
extern int LINUX_KERNEL_VERSION __kconfig;

int tail(struct __sk_buff *skb);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(__u32));
	__array(values, int(void *));
} tails SEC(".maps") = { .values = { [1] = (void *)&tail } };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} numbers SEC(".maps");

int limit = 100;

static __noinline int inner(__u64 x)
{
	if (x > 10)
		return x * 3;
	return limit;
}

static long each(void *map, __u32 *key, __u64 *value, int *sum)
{
	*sum += inner(*value);
	return *value == 77;
}

static long minus(void *map, __u32 *key, __u64 *value, int *sum)
{
	*sum -= *value;
	return 0;
}

__noinline int outer(int x)
{
	int sum = x;

	bpf_for_each_map_elem(&numbers, each, &sum, 0);
	bpf_for_each_map_elem(&numbers, minus, &sum, 0);
	return sum;
}

SEC("classifier")
int tail(struct __sk_buff *skb)
{
	return inner(skb->len);
}

SEC("tc")
int entry(struct __sk_buff *skb)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	if (bpf_core_field_exists(task->pid) && skb->len == 1234)
		return LINUX_KERNEL_VERSION;
	if (bpf_rcu_read_lock && skb->mark == 9)
		return 5;
	bpf_tail_call(skb, &tails, 1);
	return outer(skb->mark);
}

SEC("tc")
int second(struct __sk_buff *skb)
{
	return inner(skb->mark) + 1;
}

char LICENSE[] SEC("license") = "GPL";
