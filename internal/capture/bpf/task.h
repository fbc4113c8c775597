/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Who makes the call. Without kernel reads (plain.bpf.c) only what helpers tell. */
#ifndef BPFWHY_TASK_H
#define BPFWHY_TASK_H

#define ANON_INODE_FS_MAGIC 0x09041934

#ifndef NO_KERNEL_READS

static __always_inline struct kernfs_node *parent_of(struct kernfs_node *kn)
{
	struct kernfs_node___6_15 *newer = (void *)kn;

	if (bpf_core_field_exists(newer->__parent))
		return BPF_CORE_READ(newer, __parent);
	return BPF_CORE_READ(kn, parent);
}

static __always_inline void name_cgroup(struct cgroup_name *to, struct kernfs_node *kn)
{
	struct kernfs_node *parent;

	to->id = BPF_CORE_READ(kn, id);
	bpf_probe_read_kernel_str(to->name, NAME_MAX, BPF_CORE_READ(kn, name));
	parent = parent_of(kn);
	if (parent)
		bpf_probe_read_kernel_str(to->parent, NAME_MAX, BPF_CORE_READ(parent, name));
}

static __always_inline struct kernfs_node *memory_cgroup(struct task_struct *task)
{
	struct cgroup_subsys_state *css;
	u32 i;

	if (!bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		return 0;
	i = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
	if (i >= 16)
		return 0;
	/* the index is known only at load time, so the address is computed */
	bpf_probe_read_kernel(&css, sizeof(css),
			      (void *)BPF_CORE_READ(task, cgroups) +
				      bpf_core_field_offset(struct css_set, subsys) + i * sizeof(void *));
	if (!css)
		return 0;
	return BPF_CORE_READ(css, cgroup, kn);
}

static __always_inline void read_exe(struct call_record *r, struct task_struct *task)
{
	struct dentry *d = BPF_CORE_READ(task, mm, exe_file, f_path.dentry);

	for (int i = 0; i < EXE_PARTS; i++) {
		struct dentry *parent;

		if (!d)
			break;
		parent = BPF_CORE_READ(d, d_parent);
		bpf_probe_read_kernel_str(r->exe[i], EXE_PART, BPF_CORE_READ(d, d_name.name));
		if (parent == d)
			break;
		d = parent;
	}
}

static __always_inline void read_task(struct call_record *r)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct kernfs_node *v1;
	struct pid *pid;
	u32 level;

	pid = BPF_CORE_READ(task, signal, pids[1]);
	level = BPF_CORE_READ(pid, level);
	bpf_probe_read_kernel(&r->nspid, sizeof(r->nspid),
			      (void *)pid + bpf_core_field_offset(struct pid, numbers) +
				      level * bpf_core_type_size(struct upid));
	bpf_probe_read_kernel(&r->caps, sizeof(r->caps),
			      (void *)BPF_CORE_READ(task, cred) + bpf_core_field_offset(struct cred, cap_effective));
	r->userns_level = BPF_CORE_READ(task, cred, user_ns, level);
	if (bpf_core_field_exists(task->seccomp))
		r->seccomp = BPF_CORE_READ(task, seccomp.mode);
	r->nofile = BPF_CORE_READ(task, signal, rlim[7].rlim_cur);
	r->memlock = BPF_CORE_READ(task, signal, rlim[8].rlim_cur);
	r->call.flags |= F_CREDS;
	name_cgroup(&r->cgroup2, BPF_CORE_READ(task, cgroups, dfl_cgrp, kn));
	v1 = memory_cgroup(task);
	if (v1)
		name_cgroup(&r->cgroup1, v1);
	read_exe(r, task);
}

/*
 * The object behind a file descriptor of the current task, if it is the anonymous file of that name. Another thread can
 * swap the descriptor under us: then what is read is wrong, and only about that process.
 */
static __always_inline void *object_of_fd(u32 fd, const char *name, u32 len)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **slot, *file = 0;
	char found[16] = {};

	if (fd >= BPF_CORE_READ(table, max_fds))
		return 0;
	slot = BPF_CORE_READ(table, fd) + fd;
	bpf_probe_read_kernel(&file, sizeof(file), slot);
	if (!file || BPF_CORE_READ(file, f_inode, i_sb, s_magic) != ANON_INODE_FS_MAGIC)
		return 0;
	bpf_probe_read_kernel_str(found, sizeof(found), BPF_CORE_READ(file, f_path.dentry, d_name.name));
#pragma unroll
	for (u32 i = 0; i < len; i++)
		if (found[i] != name[i])
			return 0;
	return BPF_CORE_READ(file, private_data);
}

static __always_inline bool is_compat(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, thread_info.status) & TS_COMPAT;
}

/* The registers with which the current task entered the kernel. */
static __always_inline void read_user_registers(struct pt_regs *to)
{
	void *regs;

	if (bpf_core_enum_value_exists(enum bpf_func_id___5_15, BPF_FUNC_task_pt_regs)) {
		regs = (void *)bpf_task_pt_regs((void *)bpf_get_current_task_btf());
	} else { /* before 5.15: no padding above them yet, and stacks are 16 KiB */
		struct task_struct *task = (void *)bpf_get_current_task();

		regs = (void *)BPF_CORE_READ(task, stack) + 16384 - sizeof(*to);
	}
	bpf_probe_read_kernel(to, sizeof(*to), regs);
}

#else

static __always_inline void read_task(struct call_record *r)
{
	struct bpf_pidns_info ns = {};

	r->cgroup2.id = bpf_get_current_cgroup_id();
	if (!bpf_get_ns_current_pid_tgid(cfg_ns_dev, cfg_ns_ino, &ns, sizeof(ns)))
		r->nspid = ns.tgid;
}

#endif
#endif
