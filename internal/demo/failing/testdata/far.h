/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the far-jump programs share: about 30,000 instructions, nearly all of them register-form. */
#ifndef FAR_H
#define FAR_H

typedef unsigned int __u32;
typedef unsigned long long __u64;

#define SEC(name) __attribute__((section(name), used))
#define noinline __attribute__((noinline))
#define unlikely(x) __builtin_expect(!!(x), 0)

/* The start of struct __sk_buff. */
struct __sk_buff {
	__u32 len, pkt_type, mark, queue_mapping;
};

/*
 * One STEP is about 120 instructions, two of which blinding makes three; the compiler adds a move to most of the others. 269 of
 * them stay just below 32767 slots as written and end up above it when blinded, after few patches: each costs the kernel a pass
 * over the whole function, and an emulated guest feels it.
 */
#define TWO  x ^= y; y += x;
#define SIX  TWO TWO TWO TWO TWO TWO
#define STEP SIX SIX x += 4711; SIX SIX y += 4712; SIX
#define TEN(a) a a a a a a a a a a
#define BODY TEN(TEN(STEP STEP)) TEN(STEP STEP STEP STEP STEP STEP) STEP STEP STEP STEP STEP STEP STEP STEP STEP

#endif
