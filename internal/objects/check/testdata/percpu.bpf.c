// SPDX-License-Identifier: Apache-2.0
//
// A lookup in a per-CPU array, and a jump over 11,000 additions of an immediate. Built in the top folder by:
// clang -O2 -g -mcpu=v2 -target bpf -fno-ident -fdebug-compilation-dir=. -c internal/objects/check/testdata/percpu.bpf.c -o internal/objects/check/testdata/percpu.o
// llvm-strip -g internal/objects/check/testdata/percpu.o

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

SEC("socket") int counting(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 *count = bpf_map_lookup_elem(&counts, &key);
	__u64 len = skb->len;

	if (count)
		(*count)++;
	asm volatile("if %[len] == 0 goto +11000; .rept 11000; %[len] += 7; .endr" : [len] "+r"(len));
	return len;
}

char _license[] SEC("license") = "GPL";
