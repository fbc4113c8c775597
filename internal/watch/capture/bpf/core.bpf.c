// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * All hooks of a kernel with BTF: each watched function once as fentry/fexit and once as kprobe/kretprobe, and the system calls as
 * classic tracepoints. User space loads of each only what it attaches.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "wire.h"

#include "state.h"
#include "copy.h"
#include "task.h"
#include "attach.h"
#include "attr.h"
#include "worked.h"
#include "attempt.h"
#include "hooks.h"

/* A type is in the object's BTF, and so in Go, only when something refers to it. */
#define EMIT(type, name) const type *emit_##name __attribute__((unused))
EMIT(struct call_record, call_record);
EMIT(struct small_chunk, small_chunk);
EMIT(struct medium_chunk, medium_chunk);
EMIT(struct big_chunk, big_chunk);
EMIT(struct chunk, chunk);
EMIT(struct message, message);
EMIT(struct map_list, map_list);
EMIT(struct head, head);
EMIT(struct begin, begin);
EMIT(struct stage, stage);
EMIT(struct span, span);
EMIT(struct cgroup_name, cgroup_name);
EMIT(struct belongs, belongs);
EMIT(struct map_ref, map_ref);
EMIT(struct attachment, attachment);
EMIT(enum attach_seen, attach_seen);
EMIT(enum hook, hook);
EMIT(enum record_type, record_type);
EMIT(enum what, what);
EMIT(enum call_kind, call_kind);
EMIT(enum call_flags, call_flags);
EMIT(enum loss, loss);

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Argument n of a fentry/fexit program. The position comes from the kernel's BTF, so it is not known when this is compiled. */
static __always_inline u64 slot(u64 *ctx, u32 n)
{
	u64 v = 0;

	bpf_probe_read_kernel(&v, sizeof(v), (void *)ctx + 8 * n);
	return v;
}

/* Argument n of a kprobe: the first six travel in registers. Read through a helper, as the context may not be loaded at an offset that
 * is chosen. */
static __always_inline u64 reg(struct pt_regs *ctx, u32 n)
{
	u32 at = __builtin_offsetof(struct pt_regs, di);
	u64 v = 0;

	switch (n) {
	case 1:
		at = __builtin_offsetof(struct pt_regs, si);
		break;
	case 2:
		at = __builtin_offsetof(struct pt_regs, dx);
		break;
	case 3:
		at = __builtin_offsetof(struct pt_regs, cx);
		break;
	case 4:
		at = __builtin_offsetof(struct pt_regs, r8);
		break;
	case 5:
		at = __builtin_offsetof(struct pt_regs, r9);
		break;
	}
	bpf_probe_read_kernel(&v, sizeof(v), (void *)ctx + at);
	return v;
}

/*
 * The same without a helper, where it costs most: at what runs often, or within every load. Only for numbers, and for addresses that are
 * compared and go nowhere. The verifier knows which slot it is, and removes the others.
 */
#define SLOT(n)                                                                                                                 \
	case n:                                                                                                                 \
		asm volatile("%0 = *(u64 *)(%1 + 8*" #n ")" : "=r"(v) : "r"(ctx));                                              \
		break;

static __always_inline u64 plain_slot(u64 *ctx, u32 n)
{
	u64 v = 0;

	switch (n) {
		SLOT(0)
		SLOT(1)
		SLOT(2)
		SLOT(3)
		SLOT(4)
		SLOT(5)
		SLOT(6)
		SLOT(7)
		SLOT(8)
		SLOT(9)
		SLOT(10)
		SLOT(11)
	}
	return v;
}

/* What an exit takes, and whether it looks at the object that the function was given. */
#define RESULT_exit_hook plain_slot
#define RESULT_exit_check plain_slot
#define RESULT_exit_docheck plain_slot
#define RESULT_exit_extack plain_slot
#define RESULT_exit_select slot
#define RESULT_exit_jit slot
#define RESULT_exit_blind slot
#define OBJECT_exit_hook 0
#define OBJECT_exit_check 1
#define OBJECT_exit_docheck 1
#define OBJECT_exit_extack 1
#define OBJECT_exit_select 0
#define OBJECT_exit_jit 0
#define OBJECT_exit_blind 1

/* A watched function whose start and end matter. */
#define SPAN(name, exit)                                                                                                        \
	SEC("fentry/" #name) int fentry_##name(u64 *ctx)                                                                        \
	{                                                                                                                       \
		return enter_hook(H_##name, OBJECT_##exit ? slot(ctx, cfg_slot[H_##name]) : 0);                                 \
	}                                                                                                                       \
	SEC("fexit/" #name) int fexit_##name(u64 *ctx)                                                                          \
	{                                                                                                                       \
		return exit(H_##name, RESULT_##exit(ctx, cfg_ret[H_##name]));                                                   \
	}                                                                                                                       \
	SEC("kprobe/" #name) int kprobe_##name(struct pt_regs *ctx)                                                             \
	{                                                                                                                       \
		return enter_hook(H_##name, OBJECT_##exit ? reg(ctx, cfg_slot[H_##name]) : 0);                                  \
	}                                                                                                                       \
	SEC("kretprobe/" #name) int kretprobe_##name(struct pt_regs *ctx)                                                       \
	{                                                                                                                       \
		return exit(H_##name, ctx->ax);                                                                                 \
	}

/* A watched function of which only failures matter. A kretprobe does not see the arguments, so kprobes keep them. */
#define CHECK(name)                                                                                                             \
	SEC("fexit/" #name) int fexit_##name(u64 *ctx)                                                                          \
	{                                                                                                                       \
		if (!is_failure(H_##name, plain_slot(ctx, cfg_ret[H_##name])))                                                  \
			return 0;                                                                                               \
		return failed_check(H_##name, slot(ctx, cfg_slot[H_##name]), slot(ctx, cfg_ret[H_##name]));                     \
	}                                                                                                                       \
	SEC("kprobe/" #name) int kprobe_##name(struct pt_regs *ctx)                                                             \
	{                                                                                                                       \
		return enter_hook(H_##name, reg(ctx, cfg_slot[H_##name]));                                                      \
	}                                                                                                                       \
	SEC("kretprobe/" #name) int kretprobe_##name(struct pt_regs *ctx)                                                       \
	{                                                                                                                       \
		struct call *c = current_call();                                                                                \
                                                                                                                                \
		return c ? failed_check(H_##name, c->stages[H_##name].arg, ctx->ax) : 0;                                        \
	}

/* __sys_bpf(cmd, bpfptr_t uattr, size, ...): from 5.14 on, loads from inside the kernel pass here too. */
static __always_inline void begin_sys_bpf(u64 cmd, u64 uattr, u64 is_kernel, u64 size, u32 flags)
{
	begin_bpf((u32)cmd, uattr, (u32)size, flags | (is_kernel & 1 ? F_KERNEL : 0));
}

/* Most calls are none of ours, and are to cost as little as can be. */
static __always_inline bool is_ours(u32 cmd)
{
	return is_watched(cmd) || cmd == (u32)cfg_nonce;
}

/*
 * Twice: a fentry program that is preempted on its CPU does not run for the task that preempts it there (prog->active), and copying takes
 * long. Its reentrant copy does then. Whichever comes second finds the work done.
 */
static __always_inline int enter_sys_bpf(u64 *ctx)
{
	if (is_ours((u32)ctx[0])) /* an int, which may be loaded without a helper */
		begin_sys_bpf(ctx[0], slot(ctx, 1), slot(ctx, 2), slot(ctx, cfg_size_slot), 0);
	return 0;
}

static __always_inline s64 result_of_sys_bpf(u64 *ctx)
{
	return (s64)(s32)plain_slot(ctx, cfg_ret[H_sys_bpf]);
}

static __always_inline int exit_sys_bpf(u64 *ctx, bool first)
{
	s64 ret;

	if (!is_watched((u32)ctx[0])) {
		/* the reentrant copy would tell it again */
		if (first && is_failed_update((u32)ctx[0], result_of_sys_bpf(ctx)) && !(slot(ctx, 2) & 1))
			return failed_update(result_of_sys_bpf(ctx), slot(ctx, 1), slot(ctx, cfg_size_slot), 0);
		return 0;
	}
	/* an int return leaves the upper half of the slot undefined */
	ret = result_of_sys_bpf(ctx);
	if (current_call())
		return end_bpf(ret);
	/* there was no room for it, and whichever comes first counts it */
	if (was_refused())
		return count_unseen(ret, (u32)ctx[0]);
	/* its start was missed; with a reentrant copy, the end may be the other's work */
	return first && !cfg_reentrant ? count_unseen(ret, (u32)ctx[0]) : 0;
}

/* The same without arguments: a call from user space shows its command in the registers with which it came. */
GLOBAL int end_syscall(u64 ret)
{
	struct pt_regs *user;
	u64 nr;
	u32 cmd;

	if (current_call())
		return end_bpf(ret);
	was_refused();
	if ((s64)ret >= 0)
		return 0;
	user = user_registers();
	nr = USER(user, orig_ax);
	if (nr != NR_BPF && nr != NR_BPF_I386)
		return 0;
	cmd = nr == NR_BPF ? USER(user, di) : USER(user, bx);
	if (!is_failed_update(cmd, ret))
		return count_unseen(ret, cmd);
	return failed_update(ret, nr == NR_BPF ? USER(user, si) : (u32)USER(user, cx), (u32)USER(user, dx), 0);
}

SEC("fentry/__sys_bpf") int fentry_sys_bpf(u64 *ctx)
{
	return enter_sys_bpf(ctx);
}

SEC("fentry/__sys_bpf") int fentry_sys_bpf_reentrant(u64 *ctx)
{
	return !is_ours((u32)ctx[0]) || current_call() ? 0 : enter_sys_bpf(ctx);
}

SEC("fexit/__sys_bpf") int fexit_sys_bpf(u64 *ctx)
{
	return exit_sys_bpf(ctx, true);
}

SEC("fexit/__sys_bpf") int fexit_sys_bpf_reentrant(u64 *ctx)
{
	return exit_sys_bpf(ctx, false);
}

SEC("kprobe/__sys_bpf") int kprobe_sys_bpf(struct pt_regs *ctx)
{
	if (is_ours((u32)ctx->di))
		begin_sys_bpf(ctx->di, ctx->si, ctx->dx, reg(ctx, cfg_size_slot), cfg_looks ? 0 : NO_LOOK);
	return 0;
}

SEC("kretprobe/__sys_bpf") int kretprobe_sys_bpf(struct pt_regs *ctx)
{
	return end_syscall((s64)(s32)ctx->ax);
}

/* 5.10 has no __sys_bpf: the system call's own entry points, whose argument is the user's registers. */
static __always_inline int begin_x64_sys_bpf(u64 regs, u32 flags)
{
	struct pt_regs user = {};

	bpf_probe_read_kernel(&user, sizeof(user), (void *)(unsigned long)regs);
	begin_bpf((u32)user.di, user.si, (u32)user.dx, flags);
	return 0;
}

/* The same for loaders of 32 bits; union bpf_attr is laid out alike. */
static __always_inline int begin_ia32_sys_bpf(u64 regs, u32 flags)
{
	struct pt_regs user = {};

	bpf_probe_read_kernel(&user, sizeof(user), (void *)(unsigned long)regs);
	begin_bpf((u32)user.bx, (u32)user.cx, (u32)user.dx, flags);
	return 0;
}

#define ENTRY_POINT(name)                                                                                                       \
	SEC("fentry/__" #name) int fentry_##name(u64 *ctx)                                                                      \
	{                                                                                                                       \
		return begin_##name(slot(ctx, 0), 0);                                                                           \
	}                                                                                                                       \
	SEC("fexit/__" #name) int fexit_##name(u64 *ctx)                                                                        \
	{                                                                                                                       \
		return end_syscall(plain_slot(ctx, cfg_ret[H_sys_bpf]));                                                              \
	}                                                                                                                       \
	SEC("kprobe/__" #name) int kprobe_##name(struct pt_regs *ctx)                                                           \
	{                                                                                                                       \
		return begin_##name(ctx->di, NO_LOOK);                                                                          \
	}                                                                                                                       \
	SEC("kretprobe/__" #name) int kretprobe_##name(struct pt_regs *ctx)                                                     \
	{                                                                                                                       \
		return end_syscall(ctx->ax);                                                                                    \
	}

ENTRY_POINT(x64_sys_bpf)
ENTRY_POINT(ia32_sys_bpf)

#include "syscalls.h"

SEC("tracepoint/syscalls/sys_enter_bpf") int enter_bpf(struct sys_enter_args *ctx)
{
	begin_bpf((u32)ctx->args[0], ctx->args[1], (u32)ctx->args[2], 0);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_bpf") int exit_bpf(struct sys_exit_args *ctx)
{
	struct pt_regs *user;

	if (current_call())
		return end_bpf(ctx->ret);
	if (ctx->ret >= 0) {
		was_refused();
		return 0;
	}
	user = user_registers();
	if (is_failed_update((u32)USER(user, di), ctx->ret))
		end_update(ctx->ret, USER(user, si), (u32)USER(user, dx));
	else
		end_unseen(ctx->ret, (u32)USER(user, di), USER(user, si), (u32)USER(user, dx));
	return 0;
}

/* The child may be a thread. */
static __always_inline int follow_fork(u64 *ctx)
{
	struct task_struct *child = (void *)(unsigned long)ctx[1];

	return follow_child(BPF_CORE_READ(child, pid));
}

SEC("raw_tp/sched_process_fork") int task_fork(u64 *ctx)
{
	return follow_fork(ctx);
}

SEC("raw_tp/sched_process_fork") int task_fork_reentrant(u64 *ctx)
{
	return follow_fork(ctx);
}

#include "classic.h"

/* The system call has programs of its own above. */
#define SYSCALL(name)

#include "attacher.h"

WATCHED(SYSCALL, SPAN, CHECK, FILTER, ATTACHER)

/*
 * The verifier's own words for a loader that passed no buffer: verbose(env, fmt, ...) is called on error paths whatever the
 * log level, and tests it inside. Variadic, so only kprobes reach it.
 */
static __always_inline int message(struct pt_regs *ctx)
{
	struct bpf_verifier_env *env = (void *)ctx->di;
	struct call *c;
	struct message *s;
	u64 args[4] = {ctx->dx, ctx->cx, ctx->r8, ctx->r9};
	u64 begin = 0;

	if (BPF_CORE_READ(env, log.level))
		return 0;
	/* said at the end of every load, and tells no cause */
	bpf_probe_read_kernel(&begin, sizeof(begin), (void *)ctx->si);
	if (begin == *(const u64 *)"processed ")
		return 0;
	c = current_call();
	if (!c || c->messages++ >= MESSAGES_MAX)
		return 0;
	s = RESERVE_PIECE(sizeof(*s));
	if (!s) {
		lost(L_RING);
		return 0;
	}
	s->head.type = R_MESSAGE;
	s->head.tid = c->head.tid;
	s->head.start = c->head.start;
	s->format[0] = 0;
	bpf_probe_read_kernel_str(s->format, sizeof(s->format), (void *)ctx->si);
#pragma unroll
	for (int i = 0; i < 4; i++) {
		s->args[i] = args[i];
		s->strings[i][0] = 0;
		if (args[i] >> 47) /* kernel addresses only */
			bpf_probe_read_kernel_str(s->strings[i], sizeof(s->strings[i]), (void *)args[i]);
	}
	bpf_ringbuf_submit(s, 0);
	return 0;
}

SEC("kprobe/verbose") int kprobe_verbose(struct pt_regs *ctx)
{
	return message(ctx);
}

SEC("kprobe/bpf_verifier_log_write") int kprobe_bpf_verifier_log_write(struct pt_regs *ctx)
{
	return message(ctx);
}
