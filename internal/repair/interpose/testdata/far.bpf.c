// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The far jump with a map, BTF and source lines. A packet of 64 bytes takes the jump; others are counted and walk through the body.
#include "../../../demo/failing/testdata/far.h"

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;

struct {
	int (*type)[2]; /* BPF_MAP_TYPE_ARRAY */
	__u32 *key;
	__u64 *value;
	int (*max_entries)[1];
} counts SEC(".maps");

SEC("socket")
int far(struct __sk_buff *skb)
{
	__u64 x = skb->len, y = skb->mark, *count;
	__u32 key = 0;

	if (unlikely(x == 64))
		return 7;

	count = bpf_map_lookup_elem(&counts, &key);
	if (count)
		*count += 1;

	BODY

	return x;
}

char _license[] SEC("license") = "GPL";
