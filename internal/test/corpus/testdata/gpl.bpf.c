// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//
// A program whose licence keeps it from a helper.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Proprietary";

SEC("socket")
int prints(struct __sk_buff *skb)
{
	char format[] = "%d\n";

	bpf_trace_printk(format, sizeof(format), skb->len);
	return 0;
}
