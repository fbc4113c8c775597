/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The system calls that install classic filters, seen from outside. */
#ifndef BPFWHY_SYSCALLS_H
#define BPFWHY_SYSCALLS_H

#define SOL_SOCKET 1
#define SO_ATTACH_FILTER 26
#define SO_ATTACH_REUSEPORT_CBPF 51
#define PR_SET_SECCOMP 22
#define SECCOMP_MODE_FILTER 2
#define SECCOMP_SET_MODE_FILTER 1

/* struct sock_fprog of the user space ABI */
struct user_fprog {
	u16 len;
	u16 pad[3];
	u64 filter;
};

static __always_inline void begin_user_filter(u32 kind, u64 fprog)
{
	struct user_fprog f = {};

	if (!bpf_probe_read_user(&f, sizeof(f), (void *)(unsigned long)fprog))
		begin_filter(kind, f.len, f.filter);
}

static __always_inline void begin_setsockopt(u64 level, u64 option, u64 value)
{
	if (level == SOL_SOCKET && (option == SO_ATTACH_FILTER || option == SO_ATTACH_REUSEPORT_CBPF))
		begin_user_filter(K_SOCKFILTER, value);
}

static __always_inline void begin_prctl(u64 option, u64 mode, u64 fprog)
{
	if (option == PR_SET_SECCOMP && mode == SECCOMP_MODE_FILTER)
		begin_user_filter(K_SECCOMP, fprog);
}

static __always_inline void begin_seccomp(u64 op, u64 fprog)
{
	if (op == SECCOMP_SET_MODE_FILTER)
		begin_user_filter(K_SECCOMP, fprog);
}

SEC("tracepoint/syscalls/sys_enter_setsockopt") int enter_setsockopt(struct sys_enter_args *ctx)
{
	begin_setsockopt(ctx->args[1], ctx->args[2], ctx->args[3]);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_setsockopt") int exit_setsockopt(struct sys_exit_args *ctx)
{
	return end_filter(ctx->ret);
}

SEC("tracepoint/syscalls/sys_enter_prctl") int enter_prctl(struct sys_enter_args *ctx)
{
	begin_prctl(ctx->args[0], ctx->args[1], ctx->args[2]);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_prctl") int exit_prctl(struct sys_exit_args *ctx)
{
	return end_filter(ctx->ret);
}

SEC("tracepoint/syscalls/sys_enter_seccomp") int enter_seccomp(struct sys_enter_args *ctx)
{
	begin_seccomp(ctx->args[0], ctx->args[2]);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_seccomp") int exit_seccomp(struct sys_exit_args *ctx)
{
	return end_filter(ctx->ret);
}

/*
 * What follows comes in twos where the kernel preempts programs: see begin_syscall in plain.bpf.c. It does no harm to do any of it twice.
 */

/* A thread that ends takes its call with it, and its number is a stranger's afterwards. */
static __always_inline int forget_task(void)
{
	u32 tid = (u32)bpf_get_current_pid_tgid();

	if (!bpf_map_delete_elem(&calls, &tid))
		lost(L_STALE);
	bpf_map_delete_elem(&refused, &tid);
	if (cfg_filter_pid)
		bpf_map_delete_elem(&followed, &tid);
	return 0;
}

SEC("raw_tp/sched_process_exit") int task_exit(void *ctx)
{
	return forget_task();
}

SEC("raw_tp/sched_process_exit") int task_exit_reentrant(void *ctx)
{
	return forget_task();
}

static __always_inline void follow(u32 task)
{
	u8 one = 1;

	if (bpf_map_update_elem(&followed, &task, &one, BPF_ANY))
		lost(L_FOLLOW);
}

static __always_inline int follow_child(u32 child)
{
	if (is_followed())
		follow(child);
	return 0;
}

/* A thread that executes a program becomes its process's first, and has that one's number: its own ends unseen. */
static __always_inline int follow_exec(u32 before)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;

	if (before != tgid && !bpf_map_delete_elem(&followed, &before))
		follow(tgid);
	return 0;
}

SEC("raw_tp/sched_process_exec") int task_exec(u64 *ctx)
{
	return follow_exec(ctx[1]);
}

SEC("raw_tp/sched_process_exec") int task_exec_reentrant(u64 *ctx)
{
	return follow_exec(ctx[1]);
}

/*
 * The calls in flight, for user space. While bpf(2) reads a map, the kernel runs no program of a kprobe on that processor: where it preempts, a
 * reader that is off the processor makes others' calls go by unseen. The context is meta, map, key and value; meta begins with the file.
 */
SEC("iter/bpf_map_elem") int calls_in_flight(u64 *ctx)
{
	void *value = (void *)(unsigned long)ctx[3];
	void **meta = (void *)(unsigned long)ctx[0];

	if (value)
		bpf_seq_write((struct seq_file *)*meta, value, sizeof(struct call));
	return 0;
}

#endif
