/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Who makes the call. Without kernel reads (plain.bpf.c) only what helpers tell. */
#ifndef BPFWHY_TASK_H
#define BPFWHY_TASK_H

#define ANON_INODE_FS_MAGIC 0x09041934

/* Names of anonymous files, as begins_with compares them. */
#define FILE_PROG "bpf-prog"
#define FILE_MAP "bpf-map"
#define FILE_LINK "bpf_link"
#define FILE_LINK_NEWER "bpf-link"
#define FILE_BTF "btf\0\0\0\0"
#define FILE_EVENT "[perf_event]"

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

static __always_inline void read_exe(struct belongs *to, struct task_struct *task)
{
	struct dentry *d = BPF_CORE_READ(task, mm, exe_file, f_path.dentry);

	for (int i = 0; i < EXE_PARTS; i++) {
		struct dentry *parent;

		if (!d)
			break;
		parent = BPF_CORE_READ(d, d_parent);
		bpf_probe_read_kernel_str(to->exe[i], EXE_PART, BPF_CORE_READ(d, d_name.name));
		if (parent == d)
			break;
		d = parent;
	}
}

static __always_inline void read_belongs(struct belongs *to, struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, signal, pids[1]);
	u32 level = BPF_CORE_READ(pid, level);
	struct kernfs_node *v1;

	to->nspid = 0;
	to->pad = 0;
	bpf_probe_read_kernel(&to->nspid, sizeof(to->nspid),
			      (void *)pid + bpf_core_field_offset(struct pid, numbers) +
				      level * bpf_core_type_size(struct upid));
	/* the names are only written where there is one */
#pragma unroll
	for (int i = 0; i < EXE_PARTS; i++)
		to->exe[i][0] = 0;
	__builtin_memset(&to->cgroup2, 0, sizeof(to->cgroup2));
	__builtin_memset(&to->cgroup1, 0, sizeof(to->cgroup1));
	name_cgroup(&to->cgroup2, BPF_CORE_READ(task, cgroups, dfl_cgrp, kn));
	v1 = memory_cgroup(task);
	if (v1)
		name_cgroup(&to->cgroup1, v1);
	read_exe(to, task);
}

/*
 * Whose the processes are that called last, since a loader makes many calls. A place is taken by whoever comes next. The first numbers tell
 * whether it is still of this process, in this executable and these control groups. A program may be interrupted by another on its CPU:
 * who reads or writes meanwhile sees that changes have begun.
 */
#define KNOWN_MAX 16

struct known {
	u64 start;
	u64 cgroups;
	u32 tgid;
	u32 exec_id;
	u32 began; /* changes */
	u32 ended;
	struct belongs of;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KNOWN_MAX);
	__type(key, u32);
	__type(value, struct known);
} known SEC(".maps");

static __always_inline void describe_belongs(struct belongs *to, struct task_struct *task, u32 tgid)
{
	u32 place = tgid % KNOWN_MAX, exec_id = BPF_CORE_READ(task, self_exec_id), changes;
	u64 start = BPF_CORE_READ(task, group_leader, start_time), cgroups = (u64)BPF_CORE_READ(task, cgroups);
	volatile struct known *k = bpf_map_lookup_elem(&known, &place);

	if (!k) {
		read_belongs(to, task);
		return;
	}
	changes = k->began;
	if (k->ended == changes && k->tgid == tgid && k->start == start && k->exec_id == exec_id && k->cgroups == cgroups) {
		copy(to, (void *)&k->of, sizeof(*to));
		asm volatile("" ::: "memory");
		if (k->began == changes)
			return;
	}
	read_belongs(to, task);
	if (k->began != k->ended)
		return;
	k->began++;
	k->tgid = tgid;
	k->start = start;
	k->exec_id = exec_id;
	k->cgroups = cgroups;
	asm volatile("" ::: "memory");
	copy((void *)&k->of, to, sizeof(*to));
	asm volatile("" ::: "memory");
	k->ended++;
}

/* Rights and limits are asked for where something failed. */
static __always_inline void read_rights(struct call_record *r, struct task_struct *task)
{
	bpf_probe_read_kernel(&r->caps, sizeof(r->caps),
			      (void *)BPF_CORE_READ(task, cred) + bpf_core_field_offset(struct cred, cap_effective));
	r->userns_level = BPF_CORE_READ(task, cred, user_ns, level);
	if (bpf_core_field_exists(task->seccomp))
		r->seccomp = BPF_CORE_READ(task, seccomp.mode);
	r->nofile = BPF_CORE_READ(task, signal, rlim[7].rlim_cur);
	r->memlock = BPF_CORE_READ(task, signal, rlim[8].rlim_cur);
	r->call.flags |= F_CREDS;
}

static __always_inline void read_task(struct call_record *r)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	if (r->call.ret < 0 || (r->call.flags & F_EVIDENCE))
		read_rights(r, task);
	describe_belongs(&r->of, task, r->tgid);
}

/* The open file of a descriptor of the current task. */
static __always_inline struct file *file_of_fd(u32 fd)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **slot, *file = 0;

	if (fd >= BPF_CORE_READ(table, max_fds))
		return 0;
	slot = BPF_CORE_READ(table, fd) + fd;
	bpf_probe_read_kernel(&file, sizeof(file), slot);
	return file;
}

static __always_inline bool is_anonymous(struct file *file)
{
	return BPF_CORE_READ(file, f_inode, i_sb, s_magic) == ANON_INODE_FS_MAGIC;
}

static __always_inline void read_file_name(char *to, u32 size, struct file *file)
{
	bpf_probe_read_kernel_str(to, size, BPF_CORE_READ(file, f_path.dentry, d_name.name));
}

/* Whether two texts have the same first 8 bytes, NULs among them. They lie where a u64 may. */
static __always_inline bool begins_with(const char *found, const char *name)
{
	return *(const u64 *)found == *(const u64 *)name;
}

/*
 * The object behind a file descriptor of the current task, if it is the anonymous file of that name. Another thread can
 * swap the descriptor under us: then what is read is wrong, and only about that process.
 */
static __always_inline void *object_of_fd(u32 fd, const char *name)
{
	struct file *file = file_of_fd(fd);
	char found[16] __attribute__((aligned(8))) = {};

	if (!file || !is_anonymous(file))
		return 0;
	read_file_name(found, sizeof(found), file);
	return begins_with(found, name) ? BPF_CORE_READ(file, private_data) : 0;
}

#define TRACEFS_MAGIC 0x74726163

/* Whether a descriptor is that of kprobe_events or uprobe_events. */
static __always_inline bool is_probe_file(u32 fd)
{
	struct file *file = file_of_fd(fd);
	char name[16] __attribute__((aligned(8))) = {};

	if (!file || BPF_CORE_READ(file, f_inode, i_sb, s_magic) != TRACEFS_MAGIC)
		return false;
	read_file_name(name, sizeof(name), file);
	return begins_with(name, "kprobe_e") || begins_with(name, "uprobe_e");
}

static __always_inline bool is_compat(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, thread_info.status) & TS_COMPAT;
}

/* The registers with which the current task entered the kernel. */
static __always_inline struct pt_regs *user_registers(void)
{
	struct task_struct *task;

	if (bpf_core_enum_value_exists(enum bpf_func_id___5_15, BPF_FUNC_task_pt_regs))
		return (void *)bpf_task_pt_regs((void *)bpf_get_current_task_btf());
	/* before 5.15: no padding above them yet, and stacks are 16 KiB */
	task = (void *)bpf_get_current_task();
	return (void *)BPF_CORE_READ(task, stack) + 16384 - sizeof(struct pt_regs);
}

/* One at a time: all of them are a third of what the stack has room for. */
static __always_inline u64 register_at(struct pt_regs *regs, u32 at)
{
	u64 v = 0;

	bpf_probe_read_kernel(&v, sizeof(v), (void *)regs + at);
	return v;
}

#define USER(regs, name) register_at(regs, __builtin_offsetof(struct pt_regs, name))

#else

static __always_inline void read_task(struct call_record *r)
{
	struct bpf_pidns_info ns = {};

	r->of.nspid = 0;
	r->of.pad = 0;
	__builtin_memset(&r->of.exe, 0, sizeof(r->of.exe));
	__builtin_memset(&r->of.cgroup2, 0, sizeof(r->of.cgroup2));
	__builtin_memset(&r->of.cgroup1, 0, sizeof(r->of.cgroup1));
	r->of.cgroup2.id = bpf_get_current_cgroup_id();
	if (!bpf_get_ns_current_pid_tgid(cfg_ns_dev, cfg_ns_ino, &ns, sizeof(ns)))
		r->of.nspid = ns.tgid;
}

#endif
#endif
