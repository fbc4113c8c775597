/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The watched functions inside a call: the same code for fentry/fexit and kprobe/kretprobe. */
#ifndef BPFWHY_HOOKS_H
#define BPFWHY_HOOKS_H

#define IS_ERR(x) ((u64)(x) >= (u64)-4095)

static __always_inline void send_maps(struct call *c, u64 array, u32 count)
{
	struct map_list *m;

	if (!count || (c->flags & F_MAPS))
		return;
	m = RESERVE_PIECE(sizeof(*m));
	if (!m) {
		lost(L_RING);
		return;
	}
	c->flags |= F_MAPS;
	m->head.type = R_MAPS;
	m->head.tid = c->head.tid;
	m->head.start = c->head.start;
	m->count = count;
	m->pad = 0;
	for (u32 i = 0; i < MAPS_MAX; i++) {
		struct map_ref *to = &m->maps[i];
		struct bpf_map *map = 0;

		if (i >= count)
			break;
		bpf_probe_read_kernel(&map, sizeof(map), (void *)(unsigned long)(array + i * 8));
		describe_map(to, map);
	}
	bpf_ringbuf_submit(m, 0);
}

static __always_inline void push_failed(struct call *c, u32 hook, u64 start, u64 end, s64 arg, s32 ret, bool unjited)
{
	/* the last ones are kept: causes are among them */
	struct span *s = &c->failed[c->nfailed & (FAILED_MAX - 1)];

	s->start = start;
	s->end = end;
	s->arg = arg;
	s->ret = ret;
	s->hook = hook;
	s->unjited = unjited;
	c->nfailed++;
}

/* arg: the object that the exit wants to look at, or the number that says what was asked. */
GLOBAL int enter_hook(u64 hook, u64 arg)
{
	struct call *c = current_call();
	u64 now = bpf_ktime_get_ns();

	asm volatile("" : "+r"(hook));
	if (!c || hook >= STEPS)
		return 0;
	c->stages[hook].entered = now;
	c->stages[hook].arg = arg;
	if (hook == H_bpf_prog_load)
		c->flags |= F_LOADING;
	return 0;
}

/* Adds a finished execution to its sum, and to the failed ones when it is one. */
static __always_inline void leave(struct call *c, u64 hook, s32 err, bool unjited)
{
	u64 now = bpf_ktime_get_ns(), entered;
	struct stage *s;

	/* here, and 64 bits wide: before 5.16 the verifier forgets the bounds of what visits the stack */
	asm volatile("" : "+r"(hook));
	if (hook >= STEPS)
		return;
	s = &c->stages[hook];
	entered = s->entered;
	if (!entered) { /* its start was missed: a hole */
		s->missed++;
		return;
	}
	s->entered = 0;
	if (!s->first)
		s->first = entered;
	s->total += now - entered;
	s->calls++;
	s->last_ret = err;
	if (err < 0 || unjited) {
		s->failed++;
		push_failed(c, hook, entered, now, (s64)s->arg, err, unjited);
	}
}

/* The exits of functions that return an int, or a pointer that can be an error. */
GLOBAL int exit_hook(u64 hook, u64 ret)
{
	struct call *c = current_call();

	if (c)
		leave(c, hook, (s32)ret, false);
	return 0;
}

/* The program as it will be loaded. */
GLOBAL int exit_select(u64 hook, u64 ret)
{
	struct call *c = current_call();

	if (!c)
		return 0;
	if (!IS_ERR(ret))
		c->prog = ret;
	leave(c, hook, IS_ERR(ret) ? (s32)ret : 0, false);
	return 0;
}

/* The JIT hands back a program: compiled or, for whatever reason, not. The last word on a filter counts. */
GLOBAL int exit_jit(u64 hook, u64 ret)
{
	struct call *c = current_call();
	struct bpf_prog *p = (void *)ret;
	s32 err = IS_ERR(ret) ? (s32)(s64)ret : 0;
	bool unjited;

	if (!c)
		return 0;
	unjited = !err && p && !BPF_CORE_READ_BITFIELD_PROBED(p, jited);
	if (unjited)
		c->flags |= F_UNJITED;
	else
		c->flags &= ~F_UNJITED;
	leave(c, hook, err, unjited);
	return 0;
}

/* A failed blinding: the kernel blinds a clone, so the original is whole, and it is what the verifier left. */
GLOBAL int exit_blind(u64 hook, u64 ret)
{
	struct call *c = current_call();

	if (!c)
		return 0;
	if (IS_ERR(ret)) {
		struct bpf_prog *p = (void *)(unsigned long)c->stages[H_bpf_jit_blind_constants].arg;

		send_capped(W_TRANSLATED | W_KERNEL, (u64)p + bpf_core_field_offset(struct bpf_prog, insnsi),
			    (u64)BPF_CORE_READ(p, len) * 8, cfg_copy_max);
		if (c->kind == K_BPF)
			send_maps(c, (u64)BPF_CORE_READ(p, aux, used_maps), BPF_CORE_READ(p, aux, used_map_cnt));
	}
	leave(c, hook, IS_ERR(ret) ? (s32)(s64)ret : 0, false);
	return 0;
}

/* The kernel's words beside an errno: a string of its own. */
static __always_inline void read_extack(struct call *c, u64 extack)
{
	struct netlink_ext_ack *e = (void *)extack;

	if (e)
		bpf_probe_read_kernel_str(c->message, MESSAGE_MAX, BPF_CORE_READ(e, _msg));
}

GLOBAL int exit_extack(u64 hook, u64 ret)
{
	struct call *c = current_call();

	if (!c)
		return 0;
	if ((s32)ret < 0 && c->stages[H_dev_xdp_attach].entered)
		read_extack(c, c->stages[H_dev_xdp_attach].arg);
	leave(c, hook, (s32)ret, false);
	return 0;
}

GLOBAL int exit_docheck(u64 hook, u64 ret)
{
	struct call *c = current_call();

	if (!c)
		return 0;
	if ((s32)ret < 0 && c->stages[H_do_check_common].entered) {
		struct bpf_verifier_env *env = (void *)(unsigned long)c->stages[H_do_check_common].arg;

		c->fail_insn = BPF_CORE_READ(env, insn_idx);
		send_maps(c, (u64)env + bpf_core_field_offset(struct bpf_verifier_env, used_maps),
			  BPF_CORE_READ(env, used_map_cnt));
	}
	leave(c, hook, (s32)ret, false);
	return 0;
}

GLOBAL int exit_check(u64 hook, u64 ret)
{
	struct call *c = current_call();
	struct bpf_prog *p = 0;

	if (!c)
		return 0;
	/* the argument is struct bpf_prog **: the verifier may have replaced the program */
	bpf_probe_read_kernel(&p, sizeof(p), (void *)(unsigned long)c->stages[H_bpf_check].arg);
	if (p)
		bpf_probe_read_kernel(c->tag, sizeof(c->tag), (void *)p + bpf_core_field_offset(struct bpf_prog, tag));
	leave(c, hook, (s32)ret, false);
	return 0;
}

/* What a check returns when it fails: an int, whose slot has an undefined upper half, or a pointer. */
static __always_inline bool is_failure(u64 hook, u64 ret)
{
	return hook == H_bpf_patch_insn_single ? IS_ERR(ret) : (s32)ret < 0;
}

/* A check that fails benignly all the time: only failures are kept, and only inside a call. */
GLOBAL int failed_check(u64 hook, u64 arg, u64 ret)
{
	struct call *c;
	u64 now;
	s32 err = (s32)ret;

	if (!is_failure(hook, ret))
		return 0;
	c = current_call();
	if (!c)
		return 0;
	now = bpf_ktime_get_ns();
	asm volatile("" : "+r"(hook));
	if (hook >= STEPS)
		return 0;
	c->stages[hook].calls++;
	c->stages[hook].failed++;
	c->stages[hook].last_ret = err;
	if (!c->stages[hook].first)
		c->stages[hook].first = now;
	push_failed(c, hook, now, now, (s64)arg, err, false);
	return 0;
}

#endif
