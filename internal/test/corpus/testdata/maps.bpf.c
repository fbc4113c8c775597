// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//
// A map that no kernel makes: an LRU without preallocation.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} recent SEC(".maps");

SEC("socket")
int uses_recent(struct __sk_buff *skb)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&recent, &key) != 0;
}
