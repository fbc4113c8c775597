/* SPDX-License-Identifier: Apache-2.0 */
/* What bpftrace 0.17 does not find in the type information of Linux 5.10 by itself. */
typedef signed char s8;
typedef unsigned char u8;
typedef short s16;
typedef unsigned short u16;
typedef int s32;
typedef unsigned int u32;
typedef long long s64;
typedef unsigned long long u64;

struct bpf_prog {
	u16 pages;
	u16 jited : 1;
};
