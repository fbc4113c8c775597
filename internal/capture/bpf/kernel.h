/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The kernel's types, as far as they are read here. Every drift between kernels is in this file, as a CO-RE flavour (a name
 * after three underscores is ignored when the field is looked up in the running kernel's BTF).
 */
#ifndef BPFWHY_KERNEL_H
#define BPFWHY_KERNEL_H

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
	BPF_NOEXIST = 1,
	BPF_F_MMAPABLE = 1024,
	BPF_RB_AVAIL_DATA = 0,
};

/* CO-RE takes an enum for an enum of the same name only */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_CGROUP_ARRAY = 8,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum bpf_prog_type {
	BPF_PROG_TYPE_UNSPEC,
};

/* enum bpf_cmd, the commands that are watched */
enum {
	CMD_MAP_CREATE = 0,
	CMD_PROG_LOAD = 5,
	CMD_PROG_ATTACH = 8,
	CMD_RAW_TRACEPOINT_OPEN = 17,
	CMD_BTF_LOAD = 18,
	CMD_LINK_CREATE = 28,
	CMD_TOKEN_CREATE = 36,
	CMD_UNKNOWN = 0xffffffff,
};

/* arch/x86/include/asm/thread_info.h: the running system call is one of i386, wherever it came from */
#define TS_COMPAT 2

#define NR_BPF 321 /* x86-64 */
#define NR_BPF_I386 357

/* x86-64 user registers at a system call; a kprobe's registers have the same layout */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

#ifndef NO_CORE
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
#endif

struct kernfs_node {
	struct kernfs_node *parent;
	const char *name;
	u64 id;
};

struct kernfs_node___6_15 { /* 633488947ef6: "parent" is "__parent" */
	struct kernfs_node *__parent;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
};

struct css_set {
	struct cgroup_subsys_state *subsys[16];
	struct cgroup *dfl_cgrp;
};

enum cgroup_subsys_id {
	memory_cgrp_id = 100, /* any value: the kernel's own is looked up */
};

enum bpf_func_id___5_15 {
	BPF_FUNC_task_pt_regs = 175,
};

struct user_namespace {
	int level;
};

struct kernel_caps { /* 6.3 changed what is inside (f122a08b197d), not the 64 bits */
	u64 val;
};

struct cred {
	struct kernel_caps cap_effective;
	struct user_namespace *user_ns;
};

struct upid {
	int nr;
};

struct pid_namespace;

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct rlimit {
	unsigned long rlim_cur;
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
	struct pid *pids[4];
	struct rlimit rlim[16];
};

struct seccomp {
	int mode;
};

struct qstr {
	const unsigned char *name;
};

struct super_block {
	unsigned long s_magic;
};

struct inode {
	struct super_block *i_sb;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
};

struct path {
	struct dentry *dentry;
};

struct file {
	void *private_data;
	struct path f_path;
	struct inode *f_inode;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct mm_struct {
	struct file *exe_file;
};

struct thread_info {
	u32 status;
};

struct task_struct {
	struct thread_info thread_info;
	int pid;
	int tgid;
	struct mm_struct *mm;
	const struct cred *cred;
	struct files_struct *files;
	struct signal_struct *signal;
	struct css_set *cgroups;
	struct seccomp seccomp;
	void *stack;
};

struct sock_filter;

struct bpf_insn {
	u8 code;
};

struct bpf_map {
	enum bpf_map_type map_type;
	u32 key_size;
	u32 value_size;
	u32 max_entries;
	u32 map_flags;
	u32 id;
	char name[16];
};

struct bpf_prog_aux {
	u32 used_map_cnt;
	u32 id;
	u32 verified_insns; /* 5.16 */
	struct bpf_map **used_maps;
	char name[16];
};

struct bpf_prog {
	u16 jited : 1;
	u16 blinding_requested : 1; /* 5.11 */
	u16 blinded : 1;
	enum bpf_prog_type type;
	u32 len;
	u32 jited_len;
	u8 tag[8];
	struct bpf_prog_aux *aux;
	struct bpf_insn insnsi[0];
};

struct btf {
	void *data;
	u32 data_size;
};

struct bpf_verifier_log {
	u32 level;
};

struct bpf_verifier_env {
	u32 insn_idx; /* 7.x: int */
	struct bpf_prog *prog;
	struct bpf_map *used_maps[64];
	u32 used_map_cnt;
	struct bpf_verifier_log log;
};

union bpf_attr;

struct sock_fprog {
	u16 len;
	struct sock_filter *filter;
};

#ifndef NO_CORE
#pragma clang attribute pop
#endif

/* 'tracepoint/syscalls/sys_enter_x' and 'sys_exit_x' */
struct sys_enter_args {
	u64 common;
	s64 nr;
	u64 args[6];
};

struct sys_exit_args {
	u64 common;
	s64 nr;
	s64 ret;
};

#endif
