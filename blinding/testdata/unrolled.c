// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// clang -O2 -target bpf -mcpu=v2; see TestMappingOfVerifiedProgram.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} h SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} a SEC(".maps");
const volatile int dead = 0;
SEC("tc")
int cls(struct __sk_buff *skb) {
	__u32 mark = skb->mark | 1;
	__u32 k = skb->hash;
	__u64 sum = 0;
#pragma unroll
	for (int i = 0; i < 8; i++) {
		__u64 *v = bpf_map_lookup_elem(&a, &k);
		if (v) {
			sum += *v / mark;
			if (*v == 77 + i)
				sum ^= mark * 3;
		}
		v = bpf_map_lookup_elem(&h, &k);
		if (v && *v > (__u64)i * 3) {
			*v += 9;
			sum %= (*v | 5);
		}
		if (dead) {
			sum += skb->tc_index * skb->priority;
			bpf_trace_printk("x", 2);
		}
		struct __sk_buff *p = skb;
		asm volatile("" : "+r"(p));
		k = sum + p->ingress_ifindex + p->len;
	}
	return sum & 1 ? TC_ACT_OK : TC_ACT_SHOT;
}
char _license[] SEC("license") = "GPL";
