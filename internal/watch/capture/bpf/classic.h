/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Classic BPF: filters that are compiled by the same JIT and never call bpf(2), and seccomp policies in front of bpf(2). */
#ifndef BPFWHY_CLASSIC_H
#define BPFWHY_CLASSIC_H

static __always_inline void begin_kernel_filter(u32 kind, u64 fprog)
{
	struct sock_fprog *f = (void *)fprog;

	begin_filter(kind, BPF_CORE_READ(f, len), (u64)BPF_CORE_READ(f, filter));
}

/* A classic filter begins a call of its own. */
#define FILTER(name, kind)                                                                                                      \
	SEC("fentry/" #name) int fentry_##name(u64 *ctx)                                                                        \
	{                                                                                                                       \
		begin_kernel_filter(kind, slot(ctx, cfg_slot[H_##name]));                                                       \
		return enter_hook(H_##name, 0);                                                                                 \
	}                                                                                                                       \
	SEC("fexit/" #name) int fexit_##name(u64 *ctx)                                                                          \
	{                                                                                                                       \
		u64 ret = (s64)(s32)slot(ctx, cfg_ret[H_##name]);                                                               \
                                                                                                                                \
		exit_hook(H_##name, ret);                                                                                       \
		return end_filter(ret);                                                                                         \
	}                                                                                                                       \
	SEC("kprobe/" #name) int kprobe_##name(struct pt_regs *ctx)                                                             \
	{                                                                                                                       \
		begin_kernel_filter(kind, reg(ctx, cfg_slot[H_##name]));                                                        \
		return enter_hook(H_##name, 0);                                                                                 \
	}                                                                                                                       \
	SEC("kretprobe/" #name) int kretprobe_##name(struct pt_regs *ctx)                                                       \
	{                                                                                                                       \
		u64 ret = (s64)(s32)ctx->ax;                                                                                    \
                                                                                                                                \
		exit_hook(H_##name, ret);                                                                                       \
		return end_filter(ret);                                                                                         \
	}

/*
 * A seccomp policy that forbids bpf(2): the call never starts. __secure_computing runs for tasks with a policy only, so nobody else
 * pays. Called from inside the system call entry: the user's registers are at the top of the task's stack.
 */
static __always_inline void denied(s64 ret)
{
	struct pt_regs *user;
	bool compat;

	if (ret != -1)
		return;
	user = user_registers();
	compat = is_compat();
	/* SECCOMP_RET_ERRNO has put its answer into ax */
	if (USER(user, orig_ax) == (compat ? NR_BPF_I386 : NR_BPF))
		end_unseen((s64)USER(user, ax), compat ? USER(user, bx) : USER(user, di), compat ? (u32)USER(user, cx) : USER(user, si),
			   (u32)USER(user, dx));
}

SEC("fexit/__secure_computing") int fexit_secure_computing(u64 *ctx)
{
	denied((s64)(s32)slot(ctx, cfg_seccomp_ret));
	return 0;
}

SEC("kretprobe/__secure_computing") int kretprobe_secure_computing(struct pt_regs *ctx)
{
	denied((s64)(s32)ctx->ax);
	return 0;
}

#endif
