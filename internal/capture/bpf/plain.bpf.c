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

SEC("tracepoint/sched/sched_process_fork") int task_fork(struct sched_fork_args *ctx)
{
	return follow_child(ctx->child_pid);
}

SEC("tp_btf/sched_process_fork") int btf_task_fork(u64 *ctx)
{
	u32 *pid = (void *)(unsigned long)ctx[1] + cfg_task_pid;

	return follow_child(*pid);
}

SEC("tp_btf/sys_enter") int btf_sys_enter(u64 *ctx)
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

SEC("tp_btf/sys_exit") int btf_sys_exit(u64 *ctx)
{
	struct pt_regs *regs = (void *)(unsigned long)ctx[0];

	switch (regs->orig_ax) {
	case NR_BPF:
		return end_bpf((s64)ctx[1]);
	case NR_SETSOCKOPT:
	case NR_PRCTL:
	case NR_SECCOMP:
		return end_call(ctx[1], F_EXIT);
	}
	return 0;
}
