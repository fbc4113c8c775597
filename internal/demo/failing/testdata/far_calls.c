// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The far jump in a function of its own: it is then compiled inside the verifier's call.
#include "far.h"

static noinline int parse(struct __sk_buff *skb)
{
	__u64 x = skb->len, y = skb->mark;

	if (unlikely(x == 64))
		return 0;

	BODY

	return x >> 1;
}

SEC("socket")
int far_calls_elf(struct __sk_buff *skb)
{
	return parse(skb) ? 1 : 0;
}

char _license[] SEC("license") = "GPL";
