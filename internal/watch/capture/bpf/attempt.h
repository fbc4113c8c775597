/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The life of a call: it begins, watched functions run inside it, it ends and is sent. */
#ifndef BPFWHY_ATTEMPT_H
#define BPFWHY_ATTEMPT_H

static __always_inline bool is_watched(u32 cmd)
{
	switch (cmd) {
	case CMD_PROG_LOAD:
	case CMD_MAP_CREATE:
	case CMD_PROG_ATTACH:
	case CMD_RAW_TRACEPOINT_OPEN:
	case CMD_BTF_LOAD:
	case CMD_LINK_CREATE:
	case CMD_LINK_UPDATE:
	case CMD_OBJ_PIN:
	case CMD_TOKEN_CREATE:
		return true;
	}
	return false;
}

/* The call by which our own process makes itself known: unguessable, so nobody else can hide behind it. */
static __always_inline bool greet(u64 uattr)
{
	u32 zero = 0, tgid = bpf_get_current_pid_tgid() >> 32;
	struct head *h;

	if (uattr != cfg_nonce || !cfg_nonce)
		return false;
	bpf_map_update_elem(&self, &zero, &tgid, BPF_ANY);
	h = bpf_ringbuf_reserve(&records, sizeof(*h), 0);
	if (!h)
		return true;
	h->type = R_HELLO;
	h->tid = tgid;
	h->start = bpf_ktime_get_ns();
	bpf_ringbuf_submit(h, 0);
	return true;
}

/* There is no room for a call that begins. Whichever of several programs comes first counts it; its end will know that it was begun. */
static __always_inline void refuse(u32 cmd)
{
	u32 tid = (u32)bpf_get_current_pid_tgid();

	if (bpf_map_lookup_elem(&refused, &tid))
		return;
	lost(L_INFLIGHT);
	if (bpf_map_update_elem(&refused, &tid, &cmd, BPF_ANY))
		lost(L_UNMARKED);
}

/* Whether the call that ends now was refused. True once. Costs nothing where none ever was. */
static __always_inline bool was_refused(void)
{
	u32 tid = (u32)bpf_get_current_pid_tgid(), what = L_INFLIGHT;
	u64 *n = bpf_map_lookup_elem(&losses, &what);

	return n && *n && !bpf_map_delete_elem(&refused, &tid);
}

/* Returns 0 when there is no room. */
static __always_inline struct call *new_call(u32 kind, u32 cmd)
{
	u32 zero = 0, tid = (u32)bpf_get_current_pid_tgid();
	struct call *c = bpf_map_lookup_elem(&empty, &zero);

	if (!c)
		return 0;
	if (bpf_map_lookup_elem(&calls, &tid))
		lost(L_STALE);
	if (bpf_map_update_elem(&calls, &tid, c, BPF_ANY))
		return 0;
	c = bpf_map_lookup_elem(&calls, &tid);
	if (!c)
		return 0;
	c->head.type = R_CALL;
	c->head.tid = tid;
	c->head.start = bpf_ktime_get_ns();
	c->kind = kind;
	c->cmd = cmd;
	c->fail_insn = -1;
	c->stages[H_sys_bpf].first = c->head.start;
	return c;
}

static __always_inline void read_attr(struct call *c, u64 uattr, u32 size)
{
	u32 n = size > ATTR_MAX ? ATTR_MAX : size;

	c->uattr = uattr;
	c->attr_size = size;
	if (n && read_range(c->attr, n, 2 * ATTR_MAX - 1, uattr, c->flags & F_KERNEL ? W_KERNEL : 0) < 0)
		c->flags |= F_ATTR_FAULT;
}

/*
 * The kernel does not empty a log buffer: what a failed call leaves in it may be an earlier call's log, or whatever the caller wrote there.
 * Marks a call whose buffer is not empty as it begins.
 */
static __always_inline void look_at_log(struct call *c)
{
	struct load_attr *load = (void *)c->attr;
	struct btf_attr *btf = (void *)c->attr;
	u64 log = 0;
	u8 byte = 0;

	if (c->flags & (F_KERNEL | F_ATTR_FAULT))
		return;
	if (c->cmd == CMD_PROG_LOAD && load->log_level && load->log_size)
		log = load->log_buf;
	else if (c->cmd == CMD_BTF_LOAD && btf->btf_log_size)
		log = btf->btf_log_buf;
	if (log && !bpf_probe_read_user(&byte, 1, (void *)(unsigned long)log) && byte)
		c->flags |= F_LOG_DIRTY;
}

/* From 6.4 on the kernel says how much log there is: then the buffer holds this call's. What it says must be news. */
static __always_inline void look_at_log_size(struct call *c)
{
	u32 before, after = 0, at = __builtin_offsetof(struct load_attr, log_true_size);

	if (!(c->flags & F_LOG_DIRTY))
		return;
	before = ((struct load_attr *)c->attr)->log_true_size;
	if (c->cmd == CMD_BTF_LOAD) {
		at = __builtin_offsetof(struct btf_attr, btf_log_true_size);
		before = ((struct btf_attr *)c->attr)->btf_log_true_size;
	}
	if (c->attr_size >= at + sizeof(after) && !bpf_probe_read_user(&after, sizeof(after), (void *)(unsigned long)(c->uattr + at)) &&
	    after && after != before)
		c->flags &= ~F_LOG_DIRTY;
}

static __always_inline void announce(struct call *c)
{
	struct begin *b;

	if (cfg_count && !has_failed())
		return; /* of no attempt that anybody has heard of */
	b = bpf_ringbuf_reserve(&records, sizeof(*b), 0);
	if (!b)
		return; /* no loss: it only helps to fold retries */
	b->head.type = R_BEGIN;
	b->head.tid = c->head.tid;
	b->head.start = c->head.start;
	b->tgid = bpf_get_current_pid_tgid() >> 32;
	b->pad = 0;
	/* user space looks for itself before it takes a call for the last one */
	bpf_ringbuf_submit(b, cfg_count ? 0 : BPF_RB_NO_WAKEUP);
}

/* For kprobes, whose handlers the kernel counts as missed when a read faults (5.10), as it does in a buffer that nobody touched. They see the
 * verifier itself, and need not ask the buffer. */
#define NO_LOOK (1u << 31)

static __always_inline void begin_bpf(u32 cmd, u64 uattr, u32 size, u32 flags)
{
	struct call *c;

	if (!is_watched(cmd)) {
		if (cmd == (u32)cfg_nonce)
			greet(uattr);
		return;
	}
	if (!is_wanted())
		return;
	c = new_call(K_BPF, cmd);
	if (!c) {
		refuse(cmd);
		return;
	}
	was_refused(); /* an earlier one, whose end was missed */
	c->flags = F_ENTER | (flags & ~NO_LOOK);
	read_attr(c, uattr, size);
	if (!(flags & NO_LOOK))
		look_at_log(c);
	if (cmd == CMD_PROG_LOAD)
		announce(c);
}

/* A classic filter: length instructions of 8 bytes at filter, in user memory. */
static __always_inline void begin_filter(u32 kind, u32 length, u64 filter)
{
	struct call *c;

	if (!is_wanted())
		return;
	c = new_call(kind, 0);
	if (!c) {
		lost(L_INFLIGHT);
		return;
	}
	c->flags = F_ENTER;
	c->attr_size = length;
	c->uattr = filter;
}

/* An attacher's call that is not told. */
static __always_inline int drop_attacher(void)
{
	u32 tid = (u32)bpf_get_current_pid_tgid();

	bpf_map_delete_elem(&calls, &tid);
	return 0;
}

/* A function that attaches, unless it runs inside another call. Those of one kind do not: then the end of the one before was missed. */
static __always_inline struct call *begin_attacher(u32 kind)
{
	struct call *c = current_call();

	if (c && c->kind == K_SETLINK && kind == K_XDP) { /* it came so far, and is told by this function */
		drop_attacher();
		c = 0;
	}
	if ((c && c->kind != kind) || !is_wanted())
		return 0;
	c = new_call(kind, 0);
	if (!c) {
		lost(L_INFLIGHT);
		return 0;
	}
	c->flags = F_ENTER;
	return c;
}

static __always_inline void send_instructions(struct call *c)
{
	struct load_attr *a = (void *)c->attr;
	u32 mem = c->flags & F_KERNEL ? W_KERNEL : 0;

	send_capped(W_INSNS | mem, a->insns, (u64)a->insn_cnt * 8, cfg_copy_max);
	send_capped(W_FUNC_INFO | mem, a->func_info, (u64)a->func_info_cnt * a->func_info_rec_size, cfg_copy_max);
	send_capped(W_LINE_INFO | mem, a->line_info, (u64)a->line_info_cnt * a->line_info_rec_size, cfg_copy_max);
#ifndef NO_KERNEL_READS
	if (a->prog_btf_fd && a->line_info_cnt) {
		struct btf *btf = object_of_fd(a->prog_btf_fd, FILE_BTF);

		if (btf)
			send_capped(W_BTF | W_KERNEL, (u64)BPF_CORE_READ(btf, data), BPF_CORE_READ(btf, data_size),
				    cfg_copy_max);
	}
#endif
}

static __always_inline void send_evidence(struct call *c)
{
	if (attaches(c->cmd)) {
		send_attachment();
	} else if (c->cmd == CMD_PROG_LOAD) {
		struct load_attr *a = (void *)c->attr;

		send_instructions(c);
		if (!(c->flags & F_KERNEL) && a->log_level)
			send_log(a->log_buf, a->log_size);
	} else if (c->cmd == CMD_BTF_LOAD) {
		struct btf_attr *a = (void *)c->attr;

		if (a->btf_log_buf && a->btf_log_size)
			send_text(W_BTF_LOG, a->btf_log_buf, a->btf_log_size < BIG_MAX ? a->btf_log_size : BIG_MAX,
				  a->btf_log_size);
	}
}

#ifndef NO_KERNEL_READS
/* What became of a program that was loaded, from the kernel's own object. */
static __always_inline void read_program(struct call *c)
{
	struct bpf_prog *p = (void *)(unsigned long)c->prog;

	/* It has an id for as long as somebody holds it. */
	if (!p || !BPF_CORE_READ(p, aux, id))
		p = object_of_fd((u32)c->ret, FILE_PROG);
	if (!p)
		return;
	c->prog = (u64)p;
	c->flags |= F_PROG;
	if (BPF_CORE_READ_BITFIELD_PROBED(p, jited))
		c->flags |= F_PROG_JITED;
	if (BPF_CORE_READ_BITFIELD_PROBED(p, blinded))
		c->flags |= F_PROG_BLINDED;
	if (bpf_core_field_exists(p->blinding_requested)) {
		c->flags |= F_BLIND_ASKED;
		if (BPF_CORE_READ_BITFIELD_PROBED(p, blinding_requested))
			c->flags |= F_PROG_BLIND_ASKED;
	}
	bpf_probe_read_kernel(c->tag, sizeof(c->tag), (void *)p + bpf_core_field_offset(struct bpf_prog, tag));
}

static __always_inline void describe_program(struct call_record *r, struct bpf_prog *p)
{
	r->prog_type = BPF_CORE_READ(p, type);
	r->prog_len = BPF_CORE_READ(p, len);
	r->jited_len = BPF_CORE_READ(p, jited_len);
	r->prog_id = BPF_CORE_READ(p, aux, id);
	if (bpf_core_field_exists(struct bpf_prog_aux, verified_insns))
		r->verified_insns = BPF_CORE_READ(p, aux, verified_insns);
	__builtin_memcpy(r->prog_tag, r->call.tag, sizeof(r->prog_tag));
	bpf_probe_read_kernel_str(r->prog_name, sizeof(r->prog_name),
				  (void *)BPF_CORE_READ(p, aux) + bpf_core_field_offset(struct bpf_prog_aux, name));
}
#endif

static __always_inline void read_license(struct call_record *r, struct call *c)
{
	const void *from = (void *)(unsigned long)((struct load_attr *)c->attr)->license;

	if (!is_load(c) || !from)
		return;
	if (!(c->flags & F_KERNEL))
		r->license_len = bpf_probe_read_user_str(r->license, LICENSE_MAX, from);
#ifndef NO_KERNEL_READS
	else
		r->license_len = bpf_probe_read_kernel_str(r->license, LICENSE_MAX, from);
#endif
}

/* Sends a finished call with who made it. A function of its own, verified once. */
GLOBAL int send_call(void)
{
	struct call *c = current_call();
	struct call_record *r;
	u64 ids;

	if (!c)
		return 0;
	r = bpf_ringbuf_reserve(&records, sizeof(*r), 0);
	if (!r) {
		lost(L_CALL);
		return 0;
	}
	clear(&r->caps, sizeof(*r) - __builtin_offsetof(struct call_record, caps));
	/* in steps: clang copies at most 1 KiB inline */
	copy(&r->call, c, __builtin_offsetof(struct call, stages));
	copy(r->call.stages, c->stages, sizeof(c->stages));
	if (c->nfailed) /* none of them is looked at else */
		copy(r->call.failed, c->failed, sizeof(c->failed));
	ids = bpf_get_current_pid_tgid();
	r->tgid = ids >> 32;
	r->pad = 0;
	ids = bpf_get_current_uid_gid();
	r->uid = (u32)ids;
	r->gid = ids >> 32;
	bpf_get_current_comm(r->comm, sizeof(r->comm));
	read_task(r);
#ifndef NO_KERNEL_READS
	if (c->flags & F_PROG)
		describe_program(r, (void *)(unsigned long)c->prog);
#endif
	if (c->flags & F_EVIDENCE)
		read_license(r, c);
	/* user space looks often enough for what works, unless it waits to be woken */
	bpf_ringbuf_submit(r, cfg_count || c->ret < 0 || (c->flags & F_EVIDENCE) || bpf_ringbuf_query(&records, BPF_RB_AVAIL_DATA) > RING_SIZE / 8 ?
				      BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
	return 0;
}

/* Counts a program load that failed before anything can be lost of it. User space counts those that arrive; what is missing was lost. */
static __always_inline void count_failed(struct call *c)
{
	if (!is_load(c) || c->ret >= 0)
		return;
	c->flags |= F_COUNTED;
	tally(L_FAILED);
}

/* The same for a call whose start was missed, and of which nothing else is known. */
static __always_inline int count_unseen(s64 ret, u32 cmd)
{
	if (ret < 0 && cmd == CMD_PROG_LOAD && is_wanted())
		tally(L_FAILED);
	return 0;
}

/* A map or BTF that a program may refer to by its descriptor. */
static __always_inline bool is_object(struct call *c)
{
	return cfg_objects && c->kind == K_BPF && c->ret >= 0 && (c->cmd == CMD_MAP_CREATE || c->cmd == CMD_BTF_LOAD);
}

#ifndef NO_KERNEL_READS
static __always_inline bool is_lsm(u32 fd)
{
	struct bpf_prog *p = object_of_fd(fd, FILE_PROG);

	return p && BPF_CORE_READ(p, type) == BPF_PROG_TYPE_LSM;
}
#else
/* User space looks. */
static __always_inline bool is_lsm(u32 fd)
{
	return true;
}
#endif

/* Whether a program was attached that the kernel will never call. */
static __always_inline bool is_idle_lsm(struct call *c)
{
	struct link_create_attr *link = (void *)c->attr;
	struct raw_tracepoint_attr *raw = (void *)c->attr;

	if (!cfg_idle_lsm || c->kind != K_BPF || c->ret < 0)
		return false;
	if (c->cmd == CMD_RAW_TRACEPOINT_OPEN)
		return !raw->name && is_lsm(raw->prog_fd);
	return c->cmd == CMD_LINK_CREATE && link->attach_type == BPF_LSM_MAC && is_lsm(link->prog_fd);
}

/* What became of a call is known. Returns its thread. */
static __always_inline u32 finish(struct call *c, u64 ret)
{
	c->end = bpf_ktime_get_ns();
	c->ret = (s64)ret;
	c->flags |= F_EXIT;
	return c->head.tid;
}

/* The call returned. What is sent, and how much, depends on how it ended. */
GLOBAL int end_bpf(u64 ret)
{
	struct call *c = current_call();
	bool bad, news, told;
	u32 tid;

	if (!c || c->kind != K_BPF)
		return 0;
	tid = finish(c, ret);
	count_failed(c);
	bad = c->ret < 0;
#ifndef NO_KERNEL_READS
	if (c->cmd == CMD_PROG_LOAD && !bad) {
		read_program(c);
		if ((c->flags & F_PROG) && !(c->flags & F_PROG_JITED))
			bad = true;
	}
#endif
	news = !bad && is_news(c);
	told = attaches(c->cmd) && (news || is_idle_lsm(c));
	if (bad) {
		remember_failure(c);
		c->flags |= F_EVIDENCE;
		look_at_log_size(c);
		send_evidence(c);
	} else if (told)
		send_attachment();
	else if (is_object(c) && c->cmd == CMD_BTF_LOAD)
		send_capped(W_NEW_BTF, ((struct btf_attr *)c->attr)->btf, ((struct btf_attr *)c->attr)->btf_size, cfg_copy_max);
#ifdef NO_KERNEL_READS
	/* Whether it was compiled is learnt in user space: what it would take to say why not goes along. */
	if (!bad && c->cmd == CMD_PROG_LOAD) {
		c->flags |= F_EVIDENCE;
		send_instructions(c);
		bad = true;
	}
#endif
	if (bad || cfg_all || told || (news && c->cmd == CMD_PROG_LOAD) || is_object(c))
		send_call();
	else if (cfg_count && c->cmd == CMD_PROG_LOAD)
		count_worked();
	bpf_map_delete_elem(&calls, &tid);
	return 0;
}

/* The end of a classic filter. Apart from end_bpf, all of which would be verified again for each program that calls it. */
GLOBAL int end_filter(u64 ret)
{
	struct call *c = current_call();
	bool bad;
	u32 tid;

	if (!c || (c->kind != K_SOCKFILTER && c->kind != K_SECCOMP))
		return 0;
	tid = finish(c, ret);
	bad = c->ret < 0 || (c->flags & F_UNJITED);
	if (bad) {
		remember_failure(c);
		c->flags |= F_EVIDENCE;
		send_capped(W_FILTER, c->uattr, (u64)c->attr_size * 8, cfg_copy_max);
	}
	if (bad || cfg_all)
		send_call();
	bpf_map_delete_elem(&calls, &tid);
	return 0;
}

static __always_inline int end_attaching(u64 ret, bool request)
{
	struct call *c = current_call();
	u32 tid;

	if (!c)
		return 0;
	tid = finish(c, ret);
	if (c->ret < 0)
		remember_failure(c);
	if (c->ret < 0 || is_news(c)) {
		if (request)
			send_request();
		else
			send_attacher();
		send_call();
	}
	bpf_map_delete_elem(&calls, &tid);
	return 0;
}

/* The end of an attacher, and that of a request of rtnetlink: apart, for the same reason. */
GLOBAL int end_attacher(u64 ret)
{
	return end_attaching(ret, false);
}

GLOBAL int end_request(u64 ret)
{
	return end_attaching(ret, true);
}

#define NR_WRITE 1
#define NR_IOCTL 16
#define NR_PERF_EVENT_OPEN 298
#define PERF_EVENT_IOC_SET_BPF 0x40042408

/* The kind of a system call that attaches without bpf(2), 0 for others. Of most, failures alone matter. */
static __always_inline u32 attaching_syscall(u64 nr, s64 ret, u64 second)
{
	if (nr == NR_IOCTL && (u32)second == PERF_EVENT_IOC_SET_BPF)
		return K_PERF_SET;
	if (nr == NR_PERF_EVENT_OPEN && ret < 0)
		return K_PERF_OPEN;
	return nr == NR_WRITE && ret < 0 ? K_PROBE_DEF : 0;
}

/*
 * Whether this end of a system call is another program's work. On kernels that preempt, a program that is interrupted in the middle does not run
 * for the task that comes in between. Its reentrant copy comes second, and does what the first was missed for.
 */
static __always_inline bool is_others_work(bool second)
{
	u32 tid = (u32)bpf_get_current_pid_tgid();
	u8 one = 1;

	if (second)
		return !bpf_map_delete_elem(&told, &tid);
	bpf_map_update_elem(&told, &tid, &one, BPF_ANY);
	return false;
}

GLOBAL int end_syscall_that_attaches(u32 kind, s64 ret, u64 first, u64 second, u64 third)
{
	struct call *c = begin_attacher(kind);

	if (!c)
		return 0;
	c->args[0] = first;
	c->args[1] = second;
	c->args[2] = third;
	return end_attacher(ret);
}

/*
 * A system call that ends without having begun: a seccomp policy answered in its place (or we attached in the middle of it; user
 * space tells the two apart).
 */
static __always_inline void end_unseen(s64 ret, u32 cmd, u64 uattr, u32 size)
{
	struct call *c;
	u32 tid;

	if (was_refused()) { /* it did begin */
		count_unseen(ret, cmd);
		return;
	}
	if (ret >= 0 || (cmd != CMD_UNKNOWN && !is_watched(cmd)) || !is_wanted())
		return;
	c = new_call(K_BPF, cmd);
	if (!c) {
		lost(L_INFLIGHT);
		count_unseen(ret, cmd);
		return;
	}
	tid = c->head.tid;
	read_attr(c, uattr, size);
	c->end = c->head.start;
	c->ret = ret;
	c->flags |= F_EXIT;
	count_failed(c);
	remember_failure(c);
	send_call();
	bpf_map_delete_elem(&calls, &tid);
}

/*
 * Map updates: only the end of one that failed is looked at, so that those of others cost nothing. That an element is there, or is not, is
 * an answer. A map that is full can fail a million times in a second: of each map ten are told.
 */
#define TOLD_EVERY 100000000ULL /* ns */

struct update_key {
	u32 tgid;
	u32 map_fd;
	s32 ret;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct update_key);
	__type(value, u64);
} updates_told SEC(".maps");

static __always_inline bool is_failed_update(u32 cmd, s64 ret)
{
	return cmd == CMD_MAP_UPDATE_ELEM && ret < 0 && ret != -EEXIST && ret != -ENOENT;
}

static __always_inline bool is_told(struct call *c, s64 ret)
{
	struct update_key key = {bpf_get_current_pid_tgid() >> 32, ((struct map_elem_attr *)c->attr)->map_fd, (s32)ret};
	u64 now = c->head.start, *last = bpf_map_lookup_elem(&updates_told, &key);

	if (last && now - *last < TOLD_EVERY)
		return true;
	bpf_map_update_elem(&updates_told, &key, &now, BPF_ANY);
	return false;
}

GLOBAL int failed_update(s64 ret, u64 uattr, u32 size, u32 flags)
{
	struct call *c;
	u32 tid;

	if (current_call() || !is_wanted())
		return 0;
	c = new_call(K_BPF, CMD_MAP_UPDATE_ELEM);
	if (!c) {
		lost(L_INFLIGHT);
		return 0;
	}
	tid = c->head.tid;
	c->flags = F_ENTER | flags;
	read_attr(c, uattr, size);
	if (is_told(c, ret))
		bpf_map_delete_elem(&calls, &tid);
	else
		end_bpf(ret);
	return 0;
}

/* The same where a policy in front of bpf(2) may have given the answer. */
static __always_inline void end_update(s64 ret, u64 uattr, u32 size)
{
	if (ret != -EPERM && ret != -EACCES && ret != -ENOSYS)
		failed_update(ret, uattr, size, 0);
}

#endif
