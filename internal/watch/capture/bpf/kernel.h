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
	EPERM = 1,
	ENOENT = 2,
	EACCES = 13,
	EEXIST = 17,
	ENOSYS = 38,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_F_MMAPABLE = 1024,
	BPF_RB_AVAIL_DATA = 0,
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
};

/* CO-RE takes an enum for an enum of the same name only */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_CGROUP_ARRAY = 8,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum bpf_prog_type {
	BPF_PROG_TYPE_UNSPEC,
	BPF_PROG_TYPE_LSM = 29,
};

/* those whose target is more than a descriptor */
enum bpf_attach_type {
	BPF_CGROUP_INET_INGRESS,
	BPF_LSM_MAC = 27,
	BPF_XDP = 37,
	BPF_TRACE_KPROBE_MULTI = 42,
	BPF_STRUCT_OPS = 44,
	BPF_TCX_INGRESS = 46,
	BPF_TCX_EGRESS = 47,
	BPF_TRACE_UPROBE_MULTI = 48,
	BPF_NETKIT_PRIMARY = 54,
	BPF_NETKIT_PEER = 55,
	BPF_TRACE_KPROBE_SESSION = 56,
	BPF_TRACE_UPROBE_SESSION = 57,
};

/* enum bpf_cmd, the commands that are watched */
enum {
	CMD_MAP_CREATE = 0,
	CMD_MAP_UPDATE_ELEM = 2,
	CMD_PROG_LOAD = 5,
	CMD_OBJ_PIN = 6,
	CMD_PROG_ATTACH = 8,
	CMD_RAW_TRACEPOINT_OPEN = 17,
	CMD_BTF_LOAD = 18,
	CMD_LINK_CREATE = 28,
	CMD_LINK_UPDATE = 29,
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

struct file_system_type {
	const char *name;
};

struct super_block {
	unsigned long s_magic;
	struct file_system_type *s_type;
};

struct inode {
	u16 i_mode;
	struct super_block *i_sb;
	unsigned long i_ino; /* 7.x: u64 */
	void *i_private;
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

struct ns_common {
	unsigned int inum;
};

struct hlist_node {
	struct hlist_node *next;
};

struct hlist_head {
	struct hlist_node *first;
};

struct net {
	struct ns_common ns;
	struct hlist_head *dev_index_head;
};

struct nsproxy {
	struct net *net_ns;
};

struct net_device {
	int ifindex;
	char name[16];
	struct hlist_node index_hlist;
};

struct task_struct {
	struct nsproxy *nsproxy;
	struct thread_info thread_info;
	int pid;
	int tgid;
	u32 self_exec_id;
	u64 start_time;
	struct task_struct *group_leader;
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
	u32 max_ctx_offset;
	u32 attach_btf_id;
	const char *attach_func_name;
	u32 id;
	u32 verified_insns; /* 5.16 */
	struct bpf_map **used_maps;
	char name[16];
};

struct bpf_prog {
	u16 jited : 1;
	u16 blinding_requested : 1; /* 5.11 */
	u16 blinded : 1;
	u16 kprobe_override : 1;
	enum bpf_prog_type type;
	enum bpf_attach_type expected_attach_type;
	u32 len;
	u32 jited_len;
	u8 tag[8];
	struct bpf_prog_aux *aux;
	struct bpf_insn insnsi[0];
};

struct bpf_link {
	u32 id;
};

struct list_head {
	struct list_head *next;
};

/* only the part that is read: the rest are unions without names */
struct perf_event_attr {
	u32 type;
	u64 config;
};

struct netlink_ext_ack {
	const char *_msg;
};

struct trace_event_class {
	const char *system;
};

struct trace_event_call {
	struct trace_event_class *class;
};

struct perf_event {
	struct perf_event_attr attr;
	struct trace_event_call *tp_event;
};

/* The definition behind a kprobe or a uprobe: call is that of its events, tp in the list of probes. */
struct trace_probe {
	struct list_head list;
};

struct trace_probe_event {
	struct trace_event_call call;
	struct list_head probes;
};

struct kprobe {
	unsigned int offset;
};

struct kretprobe {
	struct kprobe kp;
};

struct trace_kprobe {
	struct kretprobe rp;
	const char *symbol;
	struct trace_probe tp;
};

struct trace_uprobe {
	char *filename;
	unsigned long offset;
	struct trace_probe tp;
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
