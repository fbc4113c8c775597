/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Configuration, maps and filters. */
#ifndef BPFWHY_STATE_H
#define BPFWHY_STATE_H

const volatile u64 cfg_nonce = 0;       /* the call that our own process makes to be recognised */
const volatile u64 cfg_ns_dev = 0;      /* our own pid namespace */
const volatile u64 cfg_ns_ino = 0;
const volatile u32 cfg_copy_max = 0;    /* bytes of instructions, line_info and BTF each */
const volatile u32 cfg_log_max = 0;     /* bytes of the log's head, and of its tail */
const volatile u32 cfg_slot[H_MAX] = {};  /* argument slot of a hook's object */
const volatile u32 cfg_args[H_MAX][ARGS_MAX] = {}; /* slots of an attacher's arguments */
const volatile u32 cfg_ret[H_MAX] = {};   /* slot of the return value at fexit */
const volatile u32 cfg_size_slot = 2;     /* slot of __sys_bpf's size */
const volatile u32 cfg_seccomp_ret = 1;   /* fexit slot of __secure_computing's return value */
const volatile u32 cfg_task_pid = 0;      /* offset of task_struct.pid, where CO-RE is not to be had */
const volatile u32 cfg_task_status = 0;   /* offset of task_struct.thread_info.status there; 0: there is no bpf_get_current_task_btf (before 5.11) */
const volatile u8 cfg_filter_pid = 0;
const volatile u8 cfg_filter_comm = 0;
const volatile u8 cfg_filter_cgroup = 0;
const volatile u8 cfg_failed_only = 0;
const volatile u8 cfg_idle_lsm = 0;       /* the kernel calls no LSM programs: that one was attached is told with the failures */
const volatile u8 cfg_all = 0;
const volatile u8 cfg_objects = 0;        /* report new maps and BTF: where the kernel is not read, nothing else tells of them */
const volatile u8 cfg_looks = 0;          /* the kprobe of __sys_bpf looks at the log buffer */
const volatile u8 cfg_reentrant = 0;          /* a second program runs behind those of __sys_bpf */
const volatile char cfg_comm[16] = {};

#define RING_SIZE (8 << 20)
/* What is left to the calls themselves when pieces of them fill the buffer: a call without its pieces says more than pieces without it. */
#define RING_FOR_CALLS (2 << 20)

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_SIZE);
} records SEC(".maps");

/* Calls in flight, by thread. No LRU: an entry leaves when its call, or its thread, ends. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, struct call);
} calls SEC(".maps");

/* Calls that begin when there is no more room in calls: their commands, by thread. Their ends are counted if they fail. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, u32);
	__type(value, u32);
} refused SEC(".maps");

/*
 * Threads whose system call the first of two programs told at its end, for the second to take out. Where the second is missed, an entry stays
 * until the thread's next such call.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, u8);
} told SEC(".maps");

/* One empty call, never written: too large for a stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct call);
} empty SEC(".maps");

/* Processes that user space asked for, by their pid in our own namespace. It takes them out again when they are gone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, u8);
} followed_pids SEC(".maps");

/*
 * Threads and processes, by their global number, that were made by a followed process. Each leaves when it ends. A thread may outlive the
 * first one of its process, so that either number counts.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, u32);
	__type(value, u8);
} followed SEC(".maps");

/* The cgroup that is asked for, with those below it. The helpers that give the ids of ancestors are younger in tracing programs than 5.10. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
} cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, L_MAX);
	__uint(map_flags, BPF_F_MMAPABLE); /* read without a bpf(2) that would show up here itself */
	__type(key, u32);
	__type(value, u64);
} losses SEC(".maps");

/* Our own global tgid, known after the greeting. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} self SEC(".maps");

static __always_inline void tally(u32 what)
{
	u64 *n = bpf_map_lookup_elem(&losses, &what);

	if (n)
		__sync_fetch_and_add(n, 1);
}

#define lost(mechanism) tally(mechanism)

/* Room in the ring buffer for a piece of a call, of a size that is known when this is compiled. */
#define RESERVE_PIECE(size)                                                                                                     \
	(bpf_ringbuf_query(&records, BPF_RB_AVAIL_DATA) > RING_SIZE - RING_FOR_CALLS ? 0 :                                      \
										       bpf_ringbuf_reserve(&records, size, 0))

static __always_inline bool is_self(u32 tgid)
{
	u32 zero = 0, *me = bpf_map_lookup_elem(&self, &zero);

	return me && *me == tgid;
}

/* Whether the current task is followed: it was asked for, or made by one that is. */
static __always_inline bool is_followed(void)
{
	u64 ids = bpf_get_current_pid_tgid();
	u32 tid = (u32)ids, tgid = ids >> 32;
	struct bpf_pidns_info ns = {};

	if (bpf_map_lookup_elem(&followed, &tgid) || bpf_map_lookup_elem(&followed, &tid))
		return true;
	if (bpf_get_ns_current_pid_tgid(cfg_ns_dev, cfg_ns_ino, &ns, sizeof(ns)))
		return false;
	return bpf_map_lookup_elem(&followed_pids, &ns.tgid);
}

static __always_inline bool same_comm(void)
{
	char comm[16] = {};

	bpf_get_current_comm(comm, sizeof(comm));
#pragma unroll
	for (int i = 0; i < 16; i++) {
		if (comm[i] != cfg_comm[i])
			return false;
		if (!comm[i])
			break;
	}
	return true;
}

/* Whether the current task's calls are asked for. */
static __always_inline bool is_wanted(void)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;

	if (is_self(tgid))
		return false;
	if (cfg_filter_comm && !same_comm())
		return false;
	if (cfg_filter_pid && !is_followed())
		return false;
	if (cfg_filter_cgroup && bpf_current_task_under_cgroup(&cgroups, 0) != 1)
		return false;
	return true;
}

static __always_inline struct call *current_call(void)
{
	u32 tid = (u32)bpf_get_current_pid_tgid();

	return bpf_map_lookup_elem(&calls, &tid);
}

#endif
