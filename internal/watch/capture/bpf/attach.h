/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What a call was to attach, and where to: read as it ends, from the kernel's own objects where the kernel may be read. */
#ifndef BPFWHY_ATTACH_H
#define BPFWHY_ATTACH_H

/* The parts of union bpf_attr (user space ABI: these offsets never move) */
struct prog_attach_attr {
	u32 target;
	u32 prog_fd;
	u32 attach_type;
};

struct link_create_attr {
	u32 prog_fd; /* struct_ops: of its map */
	u32 target;
	u32 attach_type;
	u32 flags;
	union {
		struct {
			u32 multi_flags;
			u32 cnt;
			u64 syms;
			u64 addrs;
		} kprobe_multi;
		struct {
			u64 path;
			u64 offsets;
			u64 ref_ctr_offsets;
			u64 cookies;
			u32 cnt;
		} uprobe_multi;
	};
};

struct link_update_attr {
	u32 link_fd;
	u32 prog_fd;
};

struct raw_tracepoint_attr {
	u64 name;
	u32 prog_fd;
};

struct pin_attr {
	u64 path;
	u32 fd;
};

struct map_elem_attr {
	u32 map_fd;
};

#define PERF_TYPE_TRACEPOINT 2
#define PERF_TYPE_MAX 6

static __always_inline bool attaches(u32 cmd)
{
	switch (cmd) {
	case CMD_PROG_ATTACH:
	case CMD_RAW_TRACEPOINT_OPEN:
	case CMD_LINK_CREATE:
	case CMD_LINK_UPDATE:
	case CMD_OBJ_PIN:
	case CMD_MAP_UPDATE_ELEM:
		return true;
	}
	return false;
}

static __always_inline bool names_device(u32 attach_type)
{
	switch (attach_type) {
	case BPF_XDP:
	case BPF_TCX_INGRESS:
	case BPF_TCX_EGRESS:
	case BPF_NETKIT_PRIMARY:
	case BPF_NETKIT_PEER:
		return true;
	}
	return false;
}

#ifndef NO_KERNEL_READS
#define CGROUP2_SUPER_MAGIC 0x63677270
#define S_IFMT 0170000
#define S_IFDIR 0040000
#define DEVICE_HASH 256 /* NETDEV_HASHENTRIES */
#define DEVICE_CHAIN 8

static __always_inline void describe_attached(struct attachment *a, struct bpf_prog *p)
{
	struct bpf_prog_aux *aux = BPF_CORE_READ(p, aux);

	if (!aux)
		return;
	a->seen |= A_PROG;
	a->prog_id = BPF_CORE_READ(aux, id);
	a->prog_type = BPF_CORE_READ(p, type);
	a->expected_attach_type = BPF_CORE_READ(p, expected_attach_type);
	a->prog_len = BPF_CORE_READ(p, len);
	if (BPF_CORE_READ_BITFIELD_PROBED(p, kprobe_override))
		a->seen |= A_OVERRIDES;
	a->max_ctx_offset = BPF_CORE_READ(aux, max_ctx_offset);
	a->attach_btf_id = BPF_CORE_READ(aux, attach_btf_id);
	bpf_probe_read_kernel(a->prog_tag, sizeof(a->prog_tag), (void *)p + bpf_core_field_offset(struct bpf_prog, tag));
	bpf_probe_read_kernel_str(a->prog_name, sizeof(a->prog_name), (void *)aux + bpf_core_field_offset(struct bpf_prog_aux, name));
	bpf_probe_read_kernel_str(a->function, sizeof(a->function), BPF_CORE_READ(aux, attach_func_name));
}

static __always_inline void describe_map(struct map_ref *to, struct bpf_map *map)
{
	to->id = BPF_CORE_READ(map, id);
	to->type = BPF_CORE_READ(map, map_type);
	to->key_size = BPF_CORE_READ(map, key_size);
	to->value_size = BPF_CORE_READ(map, value_size);
	to->max_entries = BPF_CORE_READ(map, max_entries);
	to->flags = BPF_CORE_READ(map, map_flags);
	to->name[0] = 0;
	bpf_probe_read_kernel_str(to->name, sizeof(to->name), (void *)map + bpf_core_field_offset(struct bpf_map, name));
}

/* The probe of an event that perf_event_open made for itself: the first of the list that the event begins. */
static __always_inline void *first_probe(struct trace_event_call *call)
{
	struct trace_probe_event *event = (void *)call - bpf_core_field_offset(struct trace_probe_event, call);
	struct list_head *first = BPF_CORE_READ(event, probes.next);

	return (void *)first - bpf_core_field_offset(struct trace_probe, list);
}

static __always_inline void describe_event(struct attachment *a, struct perf_event *event)
{
	struct trace_event_call *call = BPF_CORE_READ(event, tp_event);

	a->seen |= A_EVENT;
	a->event_type = BPF_CORE_READ(event, attr.type);
	a->event_config = BPF_CORE_READ(event, attr.config);
	if (!call)
		return;
	bpf_probe_read_kernel_str(a->system, sizeof(a->system), BPF_CORE_READ(call, class, system));
	if (a->event_type == PERF_TYPE_TRACEPOINT)
		return; /* its number tells all */
	if (bpf_core_field_exists(struct trace_kprobe, symbol) && begins_with(a->system, "kprobes")) {
		struct trace_kprobe *k = first_probe(call) - bpf_core_field_offset(struct trace_kprobe, tp);

		bpf_probe_read_kernel_str(a->function, sizeof(a->function), BPF_CORE_READ(k, symbol));
		a->offset = BPF_CORE_READ(k, rp.kp.offset);
	}
	if (bpf_core_field_exists(struct trace_uprobe, filename) && begins_with(a->system, "uprobes")) {
		struct trace_uprobe *u = first_probe(call) - bpf_core_field_offset(struct trace_uprobe, tp);

		bpf_probe_read_kernel_str(a->text, sizeof(a->text), BPF_CORE_READ(u, filename));
		a->offset = BPF_CORE_READ(u, offset);
	}
}

/* Whatever a descriptor is: an object of BPF, an event of perf, or a file, which may be a control group. */
static __always_inline void describe_fd(struct attachment *a, u32 fd)
{
	struct file *file = file_of_fd(fd);
	struct kernfs_node *group;
	struct dentry *dentry;
	struct bpf_link *link;
	struct inode *inode;
	void *object;

	if (!file)
		return;
	a->seen |= A_FILE;
	inode = BPF_CORE_READ(file, f_inode);
	read_file_name(a->file, sizeof(a->file), file);
	bpf_probe_read_kernel_str(a->fs, sizeof(a->fs), BPF_CORE_READ(inode, i_sb, s_type, name));
	a->inode = BPF_CORE_READ(inode, i_ino);
	if (is_anonymous(file)) {
		object = BPF_CORE_READ(file, private_data);
		if (begins_with(a->file, FILE_MAP)) {
			a->seen |= A_MAP;
			describe_map(&a->map, object);
		} else if (begins_with(a->file, FILE_PROG)) {
			describe_attached(a, object);
		} else if (begins_with(a->file, FILE_LINK) || begins_with(a->file, FILE_LINK_NEWER)) {
			link = object;
			a->link_id = BPF_CORE_READ(link, id);
		} else if (begins_with(a->file, FILE_EVENT)) {
			describe_event(a, object);
		}
		return;
	}
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) == S_IFDIR)
		a->seen |= A_DIRECTORY;
	group = BPF_CORE_READ(inode, i_private);
	dentry = BPF_CORE_READ(file, f_path.dentry, d_parent);
	bpf_probe_read_kernel_str(a->parent, sizeof(a->parent), BPF_CORE_READ(dentry, d_name.name));
	if ((a->seen & A_DIRECTORY) && BPF_CORE_READ(inode, i_sb, s_magic) == CGROUP2_SUPER_MAGIC)
		a->cgroup = BPF_CORE_READ(group, id);
}

/* The device of a number, in the caller's network namespace. */
static __always_inline void describe_device(struct attachment *a, u32 ifindex)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct net *net = BPF_CORE_READ(task, nsproxy, net_ns);
	struct hlist_head *heads = BPF_CORE_READ(net, dev_index_head);
	struct hlist_node *node = 0;

	a->seen |= A_NETNS;
	a->netns = BPF_CORE_READ(net, ns.inum);
	bpf_probe_read_kernel(&node, sizeof(node), &heads[ifindex & (DEVICE_HASH - 1)]);
	for (int i = 0; i < DEVICE_CHAIN; i++) {
		struct net_device *dev = (void *)node - bpf_core_field_offset(struct net_device, index_hlist);

		if (!node)
			break;
		if ((u32)BPF_CORE_READ(dev, ifindex) == ifindex) {
			bpf_probe_read_kernel_str(a->device, sizeof(a->device),
						  (void *)dev + bpf_core_field_offset(struct net_device, name));
			break;
		}
		node = BPF_CORE_READ(node, next);
	}
}

static __always_inline void describe_prog_fd(struct attachment *a, u32 fd)
{
	struct bpf_prog *p = object_of_fd(fd, FILE_PROG);

	if (p)
		describe_attached(a, p);
}
#else
/* User space looks at the descriptors, if it comes in time. */
static __always_inline void describe_prog_fd(struct attachment *a, u32 fd)
{
}

static __always_inline void describe_fd(struct attachment *a, u32 fd)
{
}

static __always_inline void describe_device(struct attachment *a, u32 ifindex)
{
}
#endif

static __always_inline void read_text(char *to, u32 size, u64 from)
{
	if (from)
		bpf_probe_read_user_str(to, size, (void *)(unsigned long)from);
}

static __always_inline void describe_symbols(struct attachment *a, struct link_create_attr *l)
{
	a->symbols_count = l->kprobe_multi.cnt;
	if (!l->kprobe_multi.syms) {
		a->seen |= A_ADDRESSES;
		return;
	}
#pragma unroll
	for (int i = 0; i < SYMBOLS_MAX; i++) {
		u64 from = 0;

		if (i < l->kprobe_multi.cnt &&
		    !bpf_probe_read_user(&from, sizeof(from), (void *)(unsigned long)(l->kprobe_multi.syms + 8 * i)))
			read_text(a->symbols[i], SYMBOL_MAX, from);
	}
}

static __always_inline void describe_link(struct attachment *a, struct link_create_attr *l)
{
	switch (l->attach_type) {
	case BPF_STRUCT_OPS:
		describe_fd(a, l->prog_fd);
		return;
	case BPF_TRACE_KPROBE_MULTI:
	case BPF_TRACE_KPROBE_SESSION:
		describe_symbols(a, l);
		break;
	case BPF_TRACE_UPROBE_MULTI:
	case BPF_TRACE_UPROBE_SESSION:
		read_text(a->text, sizeof(a->text), l->uprobe_multi.path);
		a->symbols_count = l->uprobe_multi.cnt;
		if (l->uprobe_multi.cnt)
			bpf_probe_read_user(&a->offset, sizeof(a->offset), (void *)(unsigned long)l->uprobe_multi.offsets);
		break;
	default:
		if (names_device(l->attach_type))
			describe_device(a, l->target);
		else if (l->target)
			describe_fd(a, l->target);
	}
	describe_prog_fd(a, l->prog_fd);
}

/* struct perf_event_attr of user space */
struct user_event {
	u32 type;
	u32 size;
	u64 config;
	u64 middle[5];
	u64 config1; /* kprobe_func, uprobe_path */
	u64 config2; /* kprobe_addr, probe_offset */
};

/* An event that perf_event_open could not make: user space knows what its type is, and so what the text is. */
static __always_inline void describe_new_event(struct attachment *a, u64 attr)
{
	struct user_event e = {};

	if (bpf_probe_read_user(&e, sizeof(e), (void *)(unsigned long)attr))
		return;
	a->seen |= A_EVENT;
	a->event_type = e.type;
	a->event_config = e.config;
	if (e.type < PERF_TYPE_MAX)
		return;
	if (!e.config1) { /* then the other is an address of the kernel */
		a->seen |= A_ADDRESSES;
		a->symbols_count = 1;
		return;
	}
	a->offset = e.config2;
	read_text(a->text, sizeof(a->text), e.config1);
}

static __always_inline void describe_definition(struct attachment *a, u64 line, u64 len)
{
	u64 n = len < sizeof(a->text) ? len : sizeof(a->text) - 1;

	BOUND(n, 255);
	bpf_probe_read_user(a->text, n, (void *)(unsigned long)line);
}

#ifndef NO_KERNEL_READS
static __always_inline void describe_dev(struct attachment *a, struct net_device *dev)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	a->seen |= A_NETNS;
	a->netns = BPF_CORE_READ(task, nsproxy, net_ns, ns.inum);
	a->ifindex = BPF_CORE_READ(dev, ifindex);
	bpf_probe_read_kernel_str(a->device, sizeof(a->device), (void *)dev + bpf_core_field_offset(struct net_device, name));
}
#include "rtnetlink.h"
#else
static __always_inline void describe_dev(struct attachment *a, void *dev)
{
}

static __always_inline void describe_request(struct attachment *a, u64 message)
{
}
#endif

static __always_inline void describe_attacher(struct attachment *a, struct call *c)
{
	switch (c->kind) {
	case K_PERF_OPEN:
		describe_new_event(a, c->args[0]);
		break;
	case K_PERF_SET:
		describe_prog_fd(a, (u32)c->args[2]);
		describe_fd(a, (u32)c->args[0]);
		a->target_fd = c->args[0];
		a->prog_fd = c->args[2];
		break;
	case K_XDP:
		describe_dev(a, (void *)c->args[0]);
		a->flags = (u32)c->args[3];
		if ((s32)c->args[2] >= 0)
			describe_prog_fd(a, (u32)c->args[2]);
		break;
	case K_SOCKET:
		__builtin_memcpy(a->text, "SO_ATTACH_BPF", sizeof("SO_ATTACH_BPF"));
		describe_prog_fd(a, (u32)c->args[0]);
		break;
	case K_REUSEPORT:
		__builtin_memcpy(a->text, "SO_ATTACH_REUSEPORT_EBPF", sizeof("SO_ATTACH_REUSEPORT_EBPF"));
		describe_prog_fd(a, (u32)c->args[0]);
		break;
	case K_PROBE_DEF:
		describe_definition(a, c->args[1], c->args[2]);
		break;
	}
}

static __always_inline void describe_command(struct attachment *a, struct call *c)
{
	struct prog_attach_attr *attach = (void *)c->attr;
	struct raw_tracepoint_attr *raw = (void *)c->attr;
	struct link_update_attr *update = (void *)c->attr;
	struct pin_attr *pin = (void *)c->attr;

	switch (c->cmd) {
	case CMD_LINK_CREATE:
		describe_link(a, (void *)c->attr);
		break;
	case CMD_PROG_ATTACH:
		if (names_device(attach->attach_type))
			describe_device(a, attach->target);
		else
			describe_fd(a, attach->target);
		describe_prog_fd(a, attach->prog_fd);
		break;
	case CMD_RAW_TRACEPOINT_OPEN:
		read_text(a->text, sizeof(a->text), raw->name);
		describe_prog_fd(a, raw->prog_fd);
		break;
	case CMD_LINK_UPDATE:
		describe_fd(a, update->link_fd);
		describe_prog_fd(a, update->prog_fd);
		break;
	case CMD_OBJ_PIN:
		read_text(a->text, sizeof(a->text), pin->path);
		describe_fd(a, pin->fd);
		break;
	case CMD_MAP_UPDATE_ELEM:
		describe_fd(a, ((struct map_elem_attr *)c->attr)->map_fd);
		break;
	}
}

/* Room for what is told of a call, none where its attr is not to be had. */
static __always_inline struct attachment *new_attachment(struct call *c)
{
	struct attachment *a;

	if (!c || (c->flags & (F_KERNEL | F_ATTR_FAULT)))
		return 0;
	a = RESERVE_PIECE(sizeof(*a));
	if (!a) {
		lost(L_RING);
		return 0;
	}
	/* in steps: clang clears at most 1 KiB inline */
	clear(a, __builtin_offsetof(struct attachment, offset));
	asm volatile("" ::: "memory"); /* it would join the steps */
	clear(&a->offset, sizeof(*a) - __builtin_offsetof(struct attachment, offset));
	a->head.type = R_ATTACH;
	a->head.tid = c->head.tid;
	a->head.start = c->head.start;
#ifndef NO_KERNEL_READS
	a->seen = A_LOOKED;
#endif
	return a;
}

/* Functions of their own, verified once for each program, and three: no program needs two of them. */
GLOBAL int send_attachment(void)
{
	struct call *c = current_call();
	struct attachment *a = new_attachment(c);

	if (!a)
		return 0;
	describe_command(a, c);
	bpf_ringbuf_submit(a, BPF_RB_NO_WAKEUP);
	return 0;
}

GLOBAL int send_attacher(void)
{
	struct call *c = current_call();
	struct attachment *a = new_attachment(c);

	if (!a)
		return 0;
	describe_attacher(a, c);
	bpf_ringbuf_submit(a, BPF_RB_NO_WAKEUP);
	return 0;
}

GLOBAL int send_request(void)
{
	struct call *c = current_call();
	struct attachment *a = new_attachment(c);

	if (!a)
		return 0;
	describe_request(a, c->args[0]);
	bpf_ringbuf_submit(a, BPF_RB_NO_WAKEUP);
	return 0;
}

#endif
