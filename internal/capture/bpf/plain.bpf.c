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
#include "attempt.h"
#include "syscalls.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define NR_SETSOCKOPT 54
#define NR_PRCTL 157
#define NR_SECCOMP 317
#define NR_BPF 321

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
	u32 tid = (u32)bpf_get_current_pid_tgid();

	if (current_call())
		return end_call(ctx->ret, F_EXIT);
	if (bpf_map_delete_elem(&unwatched, &tid))
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

SEC("tp_btf/sched_process_fork") int btf_task_fork(u64 *ctx)
{
	u32 *pid = (void *)(unsigned long)ctx[1] + cfg_task_pid;

	return follow_child(*pid);
}

/*
 * On kernels that preempt, a program that is interrupted in the middle does not run for the task that comes in between (prog->active), and
 * copying takes long. Its twin, attached behind it, does then; else it finds the work done.
 */
static __always_inline int begin_syscall(u64 *ctx)
{
	struct pt_regs *regs = (void *)(unsigned long)ctx[0];

	switch (ctx[1]) {
	case NR_BPF:
		begin_bpf((u32)regs->di, regs->si, (u32)regs->dx, 0);
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
	return begin_syscall(ctx);
}

static __always_inline bool is_watched_syscall(u64 nr)
{
	return nr == NR_BPF || nr == NR_SETSOCKOPT || nr == NR_PRCTL || nr == NR_SECCOMP;
}

SEC("tp_btf/sys_enter") int btf_sys_enter_twin(u64 *ctx)
{
	return !is_watched_syscall(ctx[1]) || current_call() ? 0 : begin_syscall(ctx);
}

/* An end without a start is told by the first alone: the second cannot know whether it did. */
SEC("tp_btf/sys_exit") int btf_sys_exit_twin(u64 *ctx)
{
	struct pt_regs *regs = (void *)(unsigned long)ctx[0];

	return is_watched_syscall(regs->orig_ax) ? end_call(ctx[1], F_EXIT) : 0;
}

SEC("tp_btf/sys_exit") int btf_sys_exit(u64 *ctx)
{
	struct pt_regs *regs = (void *)(unsigned long)ctx[0];

	switch (regs->orig_ax) {
	case NR_BPF:
		if (current_call())
			return end_call(ctx[1], F_EXIT);
		end_unseen((s64)ctx[1], (u32)regs->di, regs->si, (u32)regs->dx);
		return 0;
	case NR_SETSOCKOPT:
	case NR_PRCTL:
	case NR_SECCOMP:
		return end_call(ctx[1], F_EXIT);
	}
	return 0;
}
