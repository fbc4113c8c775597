/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The functions that attach without bpf(2): each begins a call of its own, unless it runs inside another. */
#ifndef BPFWHY_ATTACHER_H
#define BPFWHY_ATTACHER_H

#define NO_ARG 255

static __always_inline u64 arg_of(u64 *ctx, u32 n)
{
	return n == NO_ARG ? 0 : slot(ctx, n);
}

static __always_inline u64 register_of(struct pt_regs *ctx, u32 n)
{
	return n == NO_ARG ? 0 : reg(ctx, n);
}

/* The first argument is a message of rtnetlink. */
static __always_inline bool is_request(u32 kind)
{
	return kind == K_TC || kind == K_SETLINK;
}

/* The end of a call that is of this function's kind, and so was begun by it. */
static __always_inline int leave_attacher(u32 kind, u64 ret)
{
	struct call *c = current_call();

	if (!c || c->kind != kind)
		return 0;
	if ((kind == K_XDP || is_request(kind)) && (s32)ret < 0)
		read_extack(c, c->args[1]);
	if (is_request(kind) && !is_request_told(c->args[0], ret))
		return drop_attacher();
	return is_request(kind) ? end_request(ret) : end_attacher(ret);
}

/* Whether a call of this function is of BPF at all: those of rtnetlink are shared with all others. */
static __always_inline struct call *enter_attacher(u32 kind, u64 first)
{
	return !is_request(kind) || is_for_bpf(first) ? begin_attacher(kind) : 0;
}

#define ATTACHER(name, kind)                                                                                                    \
	SEC("fentry/" #name) int fentry_##name(u64 *ctx)                                                                        \
	{                                                                                                                       \
		struct call *c;                                                                                                 \
                                                                                                                                \
		c = enter_attacher(kind, arg_of(ctx, cfg_args[H_##name][0]));                                                   \
		if (c) {                                                                                                        \
			c->args[0] = arg_of(ctx, cfg_args[H_##name][0]);                                                        \
			c->args[1] = arg_of(ctx, cfg_args[H_##name][1]);                                                        \
			c->args[2] = arg_of(ctx, cfg_args[H_##name][2]);                                                        \
			c->args[3] = arg_of(ctx, cfg_args[H_##name][3]);                                                        \
		}                                                                                                               \
		return 0;                                                                                                       \
	}                                                                                                                       \
	SEC("fexit/" #name) int fexit_##name(u64 *ctx)                                                                          \
	{                                                                                                                       \
		return leave_attacher(kind, (s64)(s32)slot(ctx, cfg_ret[H_##name]));                                  \
	}                                                                                                                       \
	SEC("kprobe/" #name) int kprobe_##name(struct pt_regs *ctx)                                                             \
	{                                                                                                                       \
		struct call *c;                                                                                                 \
                                                                                                                                \
		c = enter_attacher(kind, register_of(ctx, cfg_args[H_##name][0]));                                              \
		if (c) {                                                                                                        \
			c->args[0] = register_of(ctx, cfg_args[H_##name][0]);                                                   \
			c->args[1] = register_of(ctx, cfg_args[H_##name][1]);                                                   \
			c->args[2] = register_of(ctx, cfg_args[H_##name][2]);                                                   \
			c->args[3] = register_of(ctx, cfg_args[H_##name][3]);                                                   \
		}                                                                                                               \
		return 0;                                                                                                       \
	}                                                                                                                       \
	SEC("kretprobe/" #name) int kretprobe_##name(struct pt_regs *ctx)                                                       \
	{                                                                                                                       \
		return leave_attacher(kind, (s64)(s32)ctx->ax);                                                       \
	}

/*
 * What attaches inside kernel/events and kernel/trace, where the kernel is built so that nothing can be hooked. What is left is the end of
 * the system calls, which slows those of everybody: for as long as single processes are watched.
 */
static __always_inline int see_end(u64 *ctx, bool second)
{
	struct pt_regs *regs = (void *)(unsigned long)ctx[0];
	s64 ret = ctx[1];
	u64 nr = USER(regs, orig_ax);
	u32 kind = attaching_syscall(nr, ret, nr == NR_IOCTL ? USER(regs, si) : 0);

	if (!kind || is_compat() || (kind == K_PROBE_DEF && !is_probe_file(USER(regs, di))) || is_others_work(second))
		return 0;
	return end_syscall_that_attaches(kind, ret, USER(regs, di), USER(regs, si), USER(regs, dx));
}

SEC("raw_tp/sys_exit") int task_syscall(u64 *ctx)
{
	return see_end(ctx, false);
}

SEC("raw_tp/sys_exit") int task_syscall_reentrant(u64 *ctx)
{
	return see_end(ctx, true);
}

#endif
