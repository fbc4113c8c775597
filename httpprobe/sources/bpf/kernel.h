/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The kernel's types, as far as they are read here (CO-RE). */
#ifndef HTTPPROBE_KERNEL_H
#define HTTPPROBE_KERNEL_H

typedef signed char s8;
typedef unsigned char u8;
typedef short s16;
typedef unsigned short u16;
typedef int s32;
typedef unsigned int u32;
typedef long long s64;
typedef unsigned long long u64;
typedef u8 __u8;
typedef s16 __s16;
typedef u16 __u16;
typedef s32 __s32;
typedef u32 __u32;
typedef s64 __s64;
typedef u64 __u64;
typedef u16 __be16;
typedef u32 __be32;
typedef u32 __wsum;
typedef _Bool bool;
#define true 1
#define false 0

enum {
	BPF_ANY = 0,
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
	BPF_RB_AVAIL_DATA = 0,
};

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_CGROUP_ARRAY = 8,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};

/* x86-64 */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

struct bpf_pidns_info {
	u32 pid, tgid;
};

#ifndef NO_CORE
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sock_common {
	__be16 skc_dport;
	u16 skc_num;
	u16 skc_family;
	u8 skc_state;
};

struct socket;

struct sock {
	struct sock_common __sk_common;
	u16 sk_protocol; /* 5.6: no bit field any more */
	struct socket *sk_socket;
};

struct inet_connection_sock {
	const void *icsk_ulp_ops;
};

struct tcp_sock {
	u32 copied_seq;
	u32 write_seq;
};

struct socket {
	s16 type;
	struct sock *sk;
};

struct inode {
	u16 i_mode;
	u64 i_ino;
};

struct file {
	void *private_data;
	struct inode *f_inode;
};

struct fdtable {
	u32 max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct task_struct {
	struct files_struct *files;
};

#pragma clang attribute pop
#endif

/* What calls are given, x86-64. */
struct iovec {
	u64 base, len;
};

struct user_msghdr {
	u64 name, namelen, iov, iovlen, control, controllen, flags;
};

struct mmsghdr {
	struct user_msghdr hdr;
	u64 len; /* the upper half is padding */
};

#endif
