/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * For who watches for ever: loads that work are counted here, and go no further. One is told only if it may be the end of a failure: of
 * its process something failed before, or a program of its name.
 */
#ifndef BPFWHY_WORKED_H
#define BPFWHY_WORKED_H

const volatile u8 cfg_count = 0;

#define TYPES_MAX 64
#define TRIVIAL 4 /* instructions: such programs ask what the kernel can do */

/* Loads that worked and were not told, by program type. The last place is of all types behind. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TYPES_MAX);
	__uint(map_flags, BPF_F_MMAPABLE); /* as losses are */
	__type(key, u32);
	__type(value, u64);
} worked SEC(".maps");

/* The same by program. When it is full, no others get in: user space says so. */
struct worked_program {
	char name[16];
	u32 type;
	u32 insns;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct worked_program);
	__type(value, u64);
} worked_programs SEC(".maps");

/* Processes of which something failed, and names of programs that did. Those that are forgotten are the oldest. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, u8);
} failed_processes SEC(".maps");

struct program_name {
	u64 part[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct program_name);
	__type(value, u8);
} failed_names SEC(".maps");

static __always_inline bool is_load(struct call *c)
{
	return c->kind == K_BPF && c->cmd == CMD_PROG_LOAD;
}

static __always_inline bool has_failed(void)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;

	return bpf_map_lookup_elem(&failed_processes, &tgid);
}

static __always_inline void program_name_of(struct program_name *to, struct call *c)
{
	__builtin_memcpy(to, ((struct load_attr *)c->attr)->prog_name, sizeof(*to));
}

static __always_inline void remember_failure(struct call *c)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct program_name name;
	u8 one = 1;

	if (!cfg_count)
		return;
	bpf_map_update_elem(&failed_processes, &tgid, &one, BPF_ANY);
	if (!is_load(c))
		return;
	program_name_of(&name, c);
	if (name.part[0])
		bpf_map_update_elem(&failed_names, &name, &one, BPF_ANY);
}

/* Whether a call that worked is told. */
static __always_inline bool is_news(struct call *c)
{
	struct program_name name;

	if (!cfg_count)
		return !cfg_failed_only;
	if (has_failed())
		return true;
	if (!is_load(c))
		return false;
	program_name_of(&name, c);
	return name.part[0] && bpf_map_lookup_elem(&failed_names, &name);
}

/* Counts a load that works and is not told. A function of its own, for its stack. */
GLOBAL int count_worked(void)
{
	struct call *c = current_call();
	struct worked_program key = {};
	struct load_attr *a;
	u64 one = 1, *n;
	u32 type;

	if (!c)
		return 0;
	a = (void *)c->attr;
	type = a->prog_type < TYPES_MAX ? a->prog_type : TYPES_MAX - 1;
	n = bpf_map_lookup_elem(&worked, &type);
	if (n)
		__sync_fetch_and_add(n, 1);
	if (!a->prog_name[0] || a->insn_cnt <= TRIVIAL)
		return 0;
	__builtin_memcpy(key.name, a->prog_name, sizeof(key.name));
	key.type = a->prog_type;
	key.insns = a->insn_cnt;
	n = bpf_map_lookup_elem(&worked_programs, &key);
	if (n)
		__sync_fetch_and_add(n, 1);
	else
		bpf_map_update_elem(&worked_programs, &key, &one, BPF_NOEXIST);
	return 0;
}

#endif
