// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// A program with a map, a function, CO-RE and line information, of which blinding
// makes a jump too long although little in it has a constant:
//
//	clang-19 -O2 -g -target bpf -mcpu=v2 -fno-ident -fdebug-compilation-dir=. -c sparse.bpf.c -o sparse.o && llvm-strip -g sparse.o

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name

typedef unsigned int u32;
typedef unsigned long long u64;

struct __sk_buff {
	u32 len;
	u32 pkt_type;
	u32 mark;
};

/* One of the kernel's, and not where we say. */
struct task_struct {
	u32 pid;
} __attribute__((preserve_access_index));

struct {
	__uint(type, 2); /* array */
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} values SEC(".maps");

static void *(*map_lookup_elem)(void *map, const void *key) = (void *)1;

#define SPARSE(n, x)                                \
	asm volatile(".rept 16300\n\t"              \
		     "%0 ^= %1\n\t"                 \
		     "%0 <<= 1\n\t"                 \
		     ".endr\n\t"                    \
		     ".rept 80\n\t"                \
		     "%0 += 1234567\n\t"            \
		     ".endr"                        \
		     : "+r"(n)                      \
		     : "r"(x))

static __attribute__((noinline)) u64 twice(u64 n, u64 x)
{
	n += x;
	if (n & 2)
		SPARSE(n, x);
	return n + x;
}

SEC("tc")
int far(struct __sk_buff *skb)
{
	u32 key = skb->mark; /* a constant would make the lookup succeed from 6.16 on */
	u64 *value = map_lookup_elem(&values, &key);
	u64 n = skb->len;
	u64 x = __builtin_preserve_field_info(((struct task_struct *)0)->pid, 0);

	if (!value)
		return 0;
	x += *value + skb->len;
	if (n & 1)
		n = twice(n, x);
	n ^= x;
	return n ^ n >> 32;
}

SEC("tc")
int near(struct __sk_buff *skb)
{
	return skb->len + 7;
}

char _license[] SEC("license") = "Dual BSD/GPL";
