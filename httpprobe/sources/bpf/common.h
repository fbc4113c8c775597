/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Filters and the ring: for system calls and TLS libraries. */
#ifndef HTTPPROBE_COMMON_H
#define HTTPPROBE_COMMON_H

const volatile u64 cfg_ns_dev = 0; /* our own pid namespace, in which pids are given */
const volatile u64 cfg_ns_ino = 0;
const volatile u8 cfg_ns_initial = 0; /* it is the first one */
const volatile u32 cfg_cgroups = 0;
const volatile u8 cfg_pids = 0;
const volatile u64 cfg_wake = 0; /* bytes in the ring that are worth waking the reader for; it looks by itself now and then */

#define CGROUPS_MAX 16

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct losses);
} lost SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, u8);
} pids SEC(".maps");

/* With those below them. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, CGROUPS_MAX);
	__uint(key_size, 4);
	__uint(value_size, 4);
} cgroups SEC(".maps");

#define LOST(what)                                                                                                              \
	({                                                                                                                      \
		u32 zero = 0;                                                                                                   \
		struct losses *l = bpf_map_lookup_elem(&lost, &zero);                                                           \
                                                                                                                                \
		if (l)                                                                                                          \
			__sync_fetch_and_add(&l->what, 1);                                                                      \
	})

/*
 * The process as our own pid namespace numbers it, 0 where that is not known: the helper knows tasks of the very namespace, and none of those
 * below. The numbers of the first namespace, in which all have one, are the kernel's own.
 */
static __always_inline u32 numbered(void)
{
	struct bpf_pidns_info ns = {};

	if (cfg_ns_initial)
		return bpf_get_current_pid_tgid() >> 32;
	if (bpf_get_ns_current_pid_tgid(cfg_ns_dev, cfg_ns_ino, &ns, sizeof(ns)))
		return 0;
	return ns.tgid;
}

static __always_inline bool is_wanted(void)
{
	if (cfg_pids) {
		u32 tgid = numbered();

		if (!bpf_map_lookup_elem(&pids, &tgid))
			return false;
	}
	if (cfg_cgroups) {
		for (u32 i = 0; i < CGROUPS_MAX; i++) {
			if (i >= cfg_cgroups)
				return false;
			if (bpf_current_task_under_cgroup(&cgroups, i) == 1)
				return true;
		}
		return false;
	}
	return true;
}

/*
 * A wakeup for each event costs the watched process more than all the rest. The reader is woken when what waits passes a mark,
 * and looks by itself some times a second.
 */
static __always_inline u64 wakeup(void)
{
	u64 waiting = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);

	return waiting >= cfg_wake && waiting < cfg_wake + 4 * DATA_MAX ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/*
 * Bounds a length right where it is used: clang drops a mask that it can prove needless, and before 5.16 the verifier forgets the
 * bounds of a number that visits the stack.
 */
#define BOUND(n, mask) asm volatile("%0 &= %1" : "+r"(n) : "i"(mask))

static __always_inline void describe_task(struct event *e)
{
	u64 ids = bpf_get_current_pid_tgid();

	e->tgid = ids >> 32;
	e->tid = (u32)ids;
	e->cgroup = bpf_get_current_cgroup_id();
	bpf_get_current_comm(e->comm, sizeof(e->comm));
}

#endif
