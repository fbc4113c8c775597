// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The system calls from outside, without reading the kernel and without CO-RE: classic tracepoints for kernels without BTF, and
 * tp_btf with direct loads for lockdown=confidentiality, where reading the kernel is refused and tracefs is closed.
 */
#define NO_KERNEL_READS
#define NO_CORE
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include "wire.h"
#include "state.h"
#include "copy.h"
#include "task.h"
#include "attach.h"
#include "attr.h"
#include "worked.h"
#include "attempt.h"
#include "syscalls.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define NR_SETSOCKOPT 54
#define NR_PRCTL 157
#define NR_SECCOMP 317

/*
 * At a classic sys_exit nothing tells which command it was: calls that are not watched are remembered, so that their ends are not taken for ends
 * without a start.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, u8);
} unwatched SEC(".maps");

SEC("tracepoint/syscalls/sys_enter_bpf") int enter_bpf(struct sys_enter_args *ctx)
{
	u32 cmd = (u32)ctx->args[0], tid = (u32)bpf_get_current_pid_tgid();
	u8 one = 1;

	begin_bpf(cmd, ctx->args[1], (u32)ctx->args[2], 0);
	if (!current_call())
		bpf_map_update_elem(&unwatched, &tid, &one, BPF_ANY);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_bpf") int exit_bpf(struct sys_exit_args *ctx)
{
	u32 *cmd, tid = (u32)bpf_get_current_pid_tgid();
	bool began;

	if (current_call())
		return end_bpf(ctx->ret);
	began = !bpf_map_delete_elem(&unwatched, &tid);
	cmd = bpf_map_lookup_elem(&refused, &tid);
	if (cmd)
		end_unseen(ctx->ret, *cmd, 0, 0);
	else if (!began)
		end_unseen(ctx->ret, CMD_UNKNOWN, 0, 0);
	return 0;
}

const volatile u32 cfg_fork_child = 0; /* where the event has its child_pid: 6.17 moved it */

SEC("tracepoint/sched/sched_process_fork") int task_fork(void *ctx)
{
	u32 pid = 0;

	/* the one kernel read of this file: classic tracepoints are closed where it is refused */
	bpf_probe_read_kernel(&pid, sizeof(pid), ctx + cfg_fork_child);
	return follow_child(pid);
}

static __always_inline int follow_fork(u64 *ctx)
{
	u32 *pid = (void *)(unsigned long)ctx[1] + cfg_task_pid;

	return follow_child(*pid);
}

SEC("tp_btf/sched_process_fork") int btf_task_fork(u64 *ctx)
{
	return follow_fork(ctx);
}

SEC("tp_btf/sched_process_fork") int btf_task_fork_reentrant(u64 *ctx)
{
	return follow_fork(ctx);
}

#define USER32_CS 0x23

/*
 * Whether the system call is one of i386, which have numbers of their own. Before 5.11 the code segment has to do: 64-bit code that
 * enters by int 0x80 is not recognised.
 */
static __always_inline bool is_compat(struct pt_regs *regs)
{
	if (cfg_task_status) {
		u32 *status = (void *)bpf_get_current_task_btf() + cfg_task_status;

		return *status & TS_COMPAT;
	}
	return (u16)regs->cs == USER32_CS;
}

/* The x86-64 number of a system call that may be of interest, or that of bpf(2) for i386; for all others 0. */
static __always_inline u64 watched_syscall(struct pt_regs *regs, u64 nr)
{
	switch (nr) {
	case NR_BPF:
	case NR_SETSOCKOPT:
	case NR_PRCTL:
	case NR_SECCOMP:
	case NR_PERF_EVENT_OPEN:
	case NR_IOCTL:
		return is_compat(regs) ? 0 : nr;
	case NR_BPF_I386:
		return is_compat(regs) ? nr : 0;
	}
	return 0;
}

/* The first two arguments of bpf(2); union bpf_attr is laid out alike for both. */
static __always_inline u32 bpf_command(struct pt_regs *regs, u64 nr)
{
	return nr == NR_BPF ? regs->di : regs->bx;
}

static __always_inline u64 bpf_attr_of(struct pt_regs *regs, u64 nr)
{
	return nr == NR_BPF ? regs->si : (u32)regs->cx;
}

/*
 * On kernels that preempt, a program that is interrupted in the middle does not run for the task that comes in between (prog->active), and
 * copying takes long. Its reentrant copy, attached behind it, does then; else it finds the work done.
 */
static __always_inline int begin_syscall(struct pt_regs *regs, u64 nr)
{
	switch (nr) {
	case NR_BPF:
	case NR_BPF_I386:
		begin_bpf(bpf_command(regs, nr), bpf_attr_of(regs, nr), (u32)regs->dx, 0);
		break;
	case NR_SETSOCKOPT:
		begin_setsockopt(regs->si, regs->dx, regs->r10);
		break;
	case NR_PRCTL:
		begin_prctl(regs->di, regs->si, regs->dx);
		break;
	case NR_SECCOMP:
		begin_seccomp(regs->di, regs->dx);
		break;
	}
	return 0;
}

SEC("tp_btf/sys_enter") int btf_sys_enter(u64 *ctx)
{
	struct pt_regs *regs = (void *)(unsigned long)ctx[0];

	return begin_syscall(regs, watched_syscall(regs, ctx[1]));
}

SEC("tp_btf/sys_enter") int btf_sys_enter_reentrant(u64 *ctx)
{
	struct pt_regs *regs = (void *)(unsigned long)ctx[0];
	u64 nr = watched_syscall(regs, ctx[1]);

	return !nr || current_call() ? 0 : begin_syscall(regs, nr);
}

static __always_inline bool attaches_without_bpf(u64 nr)
{
	return nr == NR_IOCTL || nr == NR_PERF_EVENT_OPEN;
}

static __always_inline int end_other_syscall(struct pt_regs *regs, u64 nr, u64 ret, bool second)
{
	u32 kind = attaching_syscall(nr, (s64)ret, regs->si);

	return kind && !is_others_work(second) ? end_syscall_that_attaches(kind, ret, regs->di, regs->si, regs->dx) : 0;
}

static __always_inline int end_begun(struct call *c, u64 ret)
{
	if (!c)
		return 0;
	return c->kind == K_BPF ? end_bpf(ret) : end_filter(ret);
}

/* An end of bpf(2) without a start is told by the first alone: the second cannot know whether it did. */
SEC("tp_btf/sys_exit") int btf_sys_exit_reentrant(u64 *ctx)
{
	struct pt_regs *regs = (void *)(unsigned long)ctx[0];
	u64 nr = watched_syscall(regs, regs->orig_ax);

	if (!nr)
		return 0;
	return attaches_without_bpf(nr) ? end_other_syscall(regs, nr, ctx[1], true) : end_begun(current_call(), ctx[1]);
}

SEC("tp_btf/sys_exit") int btf_sys_exit(u64 *ctx)
{
	struct pt_regs *regs = (void *)(unsigned long)ctx[0];
	u64 nr = watched_syscall(regs, regs->orig_ax);
	struct call *c;

	if (!nr)
		return 0;
	if (attaches_without_bpf(nr))
		return end_other_syscall(regs, nr, ctx[1], false);
	c = current_call();
	if (c)
		return end_begun(c, ctx[1]);
	if (nr != NR_BPF && nr != NR_BPF_I386)
		return 0;
	if (is_failed_update(bpf_command(regs, nr), (s64)ctx[1]))
		end_update((s64)ctx[1], bpf_attr_of(regs, nr), (u32)regs->dx);
	else
		end_unseen((s64)ctx[1], bpf_command(regs, nr), bpf_attr_of(regs, nr), (u32)regs->dx);
	return 0;
}
