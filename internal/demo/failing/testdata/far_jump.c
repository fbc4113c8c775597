// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// A socket filter whose early return jumps over the whole function: blinding stretches the jump beyond 16 bits.
#include "far.h"

SEC("socket")
int far_jump_elf(struct __sk_buff *skb)
{
	__u64 x = skb->len, y = skb->mark;

	if (unlikely(x == 64))
		return 0;

	BODY

	return x >> 1;
}

char _license[] SEC("license") = "GPL";
