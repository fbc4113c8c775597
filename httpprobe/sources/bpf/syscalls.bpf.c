// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * What goes through stream sockets, by the system calls that carry it. Classic tracepoints: tp_btf loses calls on 7.2 (recursion).
 *
 * A call is remembered when it is entered, with the socket and with where the stream is, and told when it returns: then the bytes are there, and
 * their pages too.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "wire.h"
#include "common.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile u32 cfg_shift = 0;       /* by which system calls' fields lie behind where they usually are (real-time kernels) */
const volatile u8 cfg_late = 0;         /* the call's number lies four bytes behind where it usually is, or not (the same kernels, before 6.7) */
const volatile u32 cfg_state_shift = 0; /* the same for inet_sock_set_state */
const volatile u8 cfg_ports = 0;
const volatile u8 cfg_reentrant = 0;

#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define SOCK_STREAM 1
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_MPTCP 262

enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT1,
	TCP_CLOSE = 7,
	TCP_LAST_ACK = 9,
};

#define MSG_OOB 1
#define MSG_PEEK 2
#define MSG_TRUNC 0x20
#define MSG_ERRQUEUE 0x2000

#define EINTR 4
#define EAGAIN 11

/* A stream socket. */
struct conn {
	u64 born;
	u64 inode;   /* of the open socket, 0 before its first call: another one says that the address is used again */
	u64 pos[2];  /* bytes that went so far */
	u32 next[2]; /* TCP's number of the next byte */
	u16 local_port, remote_port;
	u8 fresh;
	u8 numbered; /* next counts */
	u8 dead;     /* the connection is gone, the socket is still open */
	u8 muted;
	u8 based[2]; /* next is known */
	u8 pad[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, u64); /* struct sock */
	__type(value, struct conn);
} conns SEC(".maps");

/* What user space does not want to hear of any more: when it was born. It does not write into conns, where it might meet the next one. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, u64);
} mutes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, u16);
	__type(value, u8);
} ports SEC(".maps");

/* x86-64 */
enum {
	NR_write = 1,
	NR_readv = 19,
	NR_writev = 20,
	NR_sendfile64 = 40,
	NR_sendto = 44,
	NR_recvfrom = 45,
	NR_sendmsg = 46,
	NR_recvmsg = 47,
	NR_splice = 275,
	NR_recvmmsg = 299,
	NR_sendmmsg = 307,
};

enum shape {
	BUFFER,
	SEGMENTS, /* struct iovec */
	MESSAGES, /* struct mmsghdr */
	NOTHING,  /* the bytes are not in user memory */
};

/* A call in flight. */
struct call {
	u64 sk;
	u64 inode;
	u64 at; /* buffer, segments or messages */
	u64 count;
	u32 next; /* TCP's number of the next byte, before the call */
	u8 dir;
	u8 shape;
	u8 pad[2];
};

/* By thread. No LRU: an entry leaves when its call returns. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, struct call);
} calls SEC(".maps");

struct enter_args {
	u64 common;
	u32 nr;
	u32 late_nr;
	u64 args[6];
};

struct exit_args {
	u64 common;
	s64 nr;
	s64 ret;
};

/* A field of a tracepoint, wherever it is. */
#define PEEK(ctx, field, shift)                                                                                                 \
	({                                                                                                                      \
		void *from = (ctx);                                                                                             \
		typeof((ctx)->field) peeked;                                                                                    \
                                                                                                                                \
		asm volatile("" : "+r"(from)); /* not to be joined with a load at a fixed distance from the context itself */   \
		bpf_probe_read_kernel(&peeked, sizeof(peeked), from + __builtin_offsetof(typeof(*(ctx)), field) + (shift));     \
		peeked;                                                                                                         \
	})

/* A field where it usually is, or behind that. The kernel that it is loaded on decides between the two, not each call. */
#define FIELD(ctx, field, shift)                                                                                                \
	({                                                                                                                      \
		typeof((ctx)->field) value;                                                                                     \
                                                                                                                                \
		if (shift) {                                                                                                    \
			value = PEEK(ctx, field, shift);                                                                        \
		} else {                                                                                                        \
			value = (ctx)->field;                                                                                   \
			asm volatile("" : "+r"(value)); /* and here, not where they join */                                     \
		}                                                                                                               \
		value;                                                                                                          \
	})

#define ARG(n) FIELD(ctx, args[n], cfg_shift)

/* One of the arguments that only some calls have: the kernel attaches no program to a call that loads more than it has (perf_event_set_bpf_prog). */
#define LATER_ARG(n) PEEK(ctx, args[n], cfg_shift)

/* Which call it is; not for read, whose number is 0. */
static __always_inline u32 number_of(struct enter_args *ctx)
{
	u32 late = cfg_late ? FIELD(ctx, late_nr, cfg_shift) : 0;

	return late ? late : FIELD(ctx, nr, cfg_shift);
}

/* The socket behind a descriptor of the current task, and the inode that is its own as long as it is open. */
static __always_inline struct socket *socket_of(u32 fd, u64 *ino)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **slot, *file = 0;
	struct inode *inode;

	if (fd >= BPF_CORE_READ(table, max_fds))
		return 0;
	slot = BPF_CORE_READ(table, fd) + fd;
	bpf_probe_read_kernel(&file, sizeof(file), slot);
	if (!file)
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	*ino = BPF_CORE_READ(inode, i_ino);
	return BPF_CORE_READ(file, private_data);
}

static __always_inline bool is_wanted_port(u16 local, u16 remote)
{
	return !cfg_ports || bpf_map_lookup_elem(&ports, &local) || bpf_map_lookup_elem(&ports, &remote);
}

/*
 * TCP's own numbers tell of bytes that went by calls that were not seen, such as io_uring's. Under TLS in the kernel they count
 * ciphertext.
 */
static __always_inline bool is_numbered(struct sock *sk)
{
	struct inet_connection_sock *icsk = (void *)sk;

	return BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP && BPF_CORE_READ(sk, __sk_common.skc_family) != AF_UNIX &&
	       !BPF_CORE_READ(icsk, icsk_ulp_ops);
}

static __always_inline u32 next_of(struct sock *sk, u32 dir)
{
	struct tcp_sock *tp = (void *)sk;

	return dir == DIR_OUT ? BPF_CORE_READ(tp, write_seq) : BPF_CORE_READ(tp, copied_seq);
}

static __always_inline void describe_conn(struct event *e, u64 sk, struct conn *c)
{
	e->time = bpf_ktime_get_ns();
	e->id = sk;
	e->born = c->born;
	e->local_port = c->local_port;
	e->remote_port = c->remote_port;
	e->fresh = c->fresh;
}

/* An event without bytes. Of a connection that never carried any there is nothing to say. */
static __attribute__((noinline)) void tell(u64 sk, struct conn *c, u8 kind, u32 dir)
{
	struct event e = {};

	if (c->muted || !(c->pos[0] | c->pos[1]))
		return;
	describe_conn(&e, sk, c);
	e.kind = kind;
	e.dir = dir;
	e.pos = c->pos[dir & 1];
	if (bpf_ringbuf_output(&events, &e, sizeof(e), wakeup()))
		LOST(ring);
}

static __always_inline void begin(struct socket *socket, u64 ino, u32 dir, u8 shape, u64 at, u64 count)
{
	struct call call = { .inode = ino, .at = at, .count = count, .dir = dir, .shape = shape };
	u32 tid = (u32)bpf_get_current_pid_tgid();
	struct sock *sk = BPF_CORE_READ(socket, sk);
	struct conn *c;

	call.sk = (u64)sk;
	c = bpf_map_lookup_elem(&conns, &call.sk);
	if (c ? c->muted && c->inode == ino : BPF_CORE_READ(socket, type) != SOCK_STREAM)
		return;
	call.next = next_of(sk, dir); /* of what is not TCP, nothing that is looked at */
	if (bpf_map_update_elem(&calls, &tid, &call, BPF_ANY))
		LOST(map);
}

static __always_inline void begin_fd(u32 fd, u32 dir, u8 shape, u64 at, u64 count)
{
	struct socket *socket;
	u64 ino = 0;

	if (!is_wanted())
		return;
	socket = socket_of(fd, &ino);
	if (socket)
		begin(socket, ino, dir, shape, at, count);
}

/* What recv's flags make of the bytes: nothing that the stream moves on by, or nothing that is copied. */
static __always_inline bool moves(u32 flags)
{
	return !(flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE));
}

static __always_inline u8 shape_of(u32 flags, u8 shape)
{
	return flags & MSG_TRUNC ? NOTHING : shape;
}

/* The segments of a message. */
static __always_inline bool read_message(u64 *at, u64 *count)
{
	struct user_msghdr hdr = {};

	if (bpf_probe_read_user(&hdr, sizeof(hdr), (void *)(unsigned long)*at))
		return false;
	*at = hdr.iov;
	*count = hdr.iovlen;
	return true;
}

enum enter {
	ENTER_READ,
	ENTER_IN,
	ENTER_OUT,
	ENTER_MAX,
};

/*
 * From 7.2 on these programs are preempted like any task, and one that is does not run for the tasks that come in between on its CPU
 * (prog->active). Its reentrant copy, attached behind it, does then. Who ran last is written down by CPU:
 * while a program is in flight, that is the task that it is in flight for, and so not the one that the reentrant copy runs for.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ENTER_MAX);
	__type(key, u32);
	__type(value, u32);
} last SEC(".maps");

static __always_inline void mark(u32 which)
{
	u32 *tid = cfg_reentrant ? bpf_map_lookup_elem(&last, &which) : 0;

	if (tid)
		*(volatile u32 *)tid = (u32)bpf_get_current_pid_tgid();
}

static __always_inline bool is_done(u32 which)
{
	u32 *tid = bpf_map_lookup_elem(&last, &which);

	return tid && *(volatile u32 *)tid == (u32)bpf_get_current_pid_tgid();
}

/* Few programs for many calls: each takes its time to load. The section names one of the calls. */
#define ENTER(name, which, call)                                                                                                \
	static __always_inline int begin_##name(struct enter_args *ctx);                                                        \
	SEC("tracepoint/syscalls/sys_enter_" #call) int enter_##name(struct enter_args *ctx)                                    \
	{                                                                                                                       \
		mark(which);                                                                                                    \
		return begin_##name(ctx);                                                                                       \
	}                                                                                                                       \
	SEC("tracepoint/syscalls/sys_enter_" #call) int enter_##name##_reentrant(struct enter_args *ctx)                        \
	{                                                                                                                       \
		return is_done(which) ? 0 : begin_##name(ctx);                                                                  \
	}                                                                                                                       \
	static __always_inline int begin_##name(struct enter_args *ctx)

ENTER(read, ENTER_READ, read)
{
	begin_fd(ARG(0), DIR_IN, BUFFER, ARG(1), ARG(2));
	return 0;
}

ENTER(in, ENTER_IN, recvfrom)
{
	u64 at = ARG(1), count = ARG(2);
	u8 shape = BUFFER;
	u32 flags = 0;

	switch (number_of(ctx)) {
	case NR_readv:
		shape = SEGMENTS;
		break;
	case NR_recvfrom:
		flags = LATER_ARG(3);
		break;
	case NR_recvmsg:
		flags = count;
		shape = SEGMENTS;
		if (!read_message(&at, &count))
			return 0;
		break;
	case NR_recvmmsg:
		flags = LATER_ARG(3);
		shape = MESSAGES;
		break;
	default:
		return 0;
	}
	if (moves(flags))
		begin_fd(ARG(0), DIR_IN, shape_of(flags, shape), at, count);
	return 0;
}

ENTER(out, ENTER_OUT, sendto)
{
	u64 at = ARG(1), count = ARG(2);
	struct socket *socket;
	u32 fd = ARG(0), dir = DIR_OUT;
	u8 shape = BUFFER;
	u64 ino = 0;

	switch (number_of(ctx)) {
	case NR_write:
		break;
	case NR_sendto:
		if (LATER_ARG(3) & MSG_OOB)
			return 0;
		break;
	case NR_writev:
		shape = SEGMENTS;
		break;
	case NR_sendmsg:
		if (count & MSG_OOB || !read_message(&at, &count))
			return 0;
		shape = SEGMENTS;
		break;
	case NR_sendmmsg:
		shape = MESSAGES;
		break;
	case NR_sendfile64:
		shape = NOTHING;
		count = LATER_ARG(3);
		break;
	case NR_splice: /* one of the two is a pipe */
		fd = ARG(2);
		shape = NOTHING;
		count = LATER_ARG(4);
		break;
	default:
		return 0;
	}
	if (!is_wanted())
		return 0;
	socket = socket_of(fd, &ino);
	if (!socket && number_of(ctx) == NR_splice) {
		dir = DIR_IN;
		socket = socket_of(ARG(0), &ino);
	}
	if (socket)
		begin(socket, ino, dir, shape, at, count);
	return 0;
}

/* An event that is being made. The data area is as large as the verifier thinks that a copy might go. */
struct scratch {
	struct event event;
	u8 data[3 * DATA_MAX];
};

/* Each program has its own: from 7.2 on, one may be preempted and another run in between. It does not itself (prog->active). */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 6);
	__type(key, u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

static __always_inline void send(struct scratch *s)
{
	u64 size = sizeof(struct event) + s->event.captured;

	BOUND(size, 2 * DATA_MAX - 1);
	if (bpf_ringbuf_output(&events, s, size, wakeup()))
		LOST(ring);
}

/* The first of n bytes. */
static __always_inline void copy_buffer(struct scratch *s, u64 from, u64 n)
{
	if (n > DATA_MAX)
		n = DATA_MAX;
	s->event.captured = n;
	BOUND(n, 2 * DATA_MAX - 1);
	if (bpf_probe_read_user(s->data, n, (void *)(unsigned long)from)) {
		s->event.captured = 0;
		LOST(fault);
	}
}

#define SEGMENTS_MAX 8

/* The first of n bytes, out of the first segments. */
static __always_inline void copy_segments(struct scratch *s, u64 iov, u64 count, u64 n)
{
	u64 got = 0;

	if (n > DATA_MAX)
		n = DATA_MAX;
	for (u32 i = 0; i < SEGMENTS_MAX; i++) {
		struct iovec v = {};
		u64 part;

		if (i >= count || got >= n)
			break;
		if (bpf_probe_read_user(&v, sizeof(v), (void *)(unsigned long)(iov + i * sizeof(v)))) {
			LOST(fault);
			break;
		}
		part = v.len < n - got ? v.len : n - got;
		BOUND(got, DATA_MAX - 1);
		BOUND(part, 2 * DATA_MAX - 1);
		if (bpf_probe_read_user(s->data + got, part, (void *)(unsigned long)v.base)) {
			LOST(fault);
			break;
		}
		got += part;
	}
	s->event.captured = got;
}

/* Tells of n bytes that went. */
static __always_inline void tell_data(struct scratch *s, struct call *call, struct conn *c, u8 shape, u64 at, u64 count, u64 n)
{
	u32 dir = call->dir & 1;

	describe_conn(&s->event, call->sk, c);
	describe_task(&s->event);
	s->event.kind = KIND_DATA;
	s->event.dir = dir;
	s->event.pos = c->pos[dir];
	s->event.len = n;
	s->event.captured = 0;
	c->pos[dir] += n;
	c->next[dir] += (u32)n;
	if (shape == BUFFER)
		copy_buffer(s, at, n);
	else if (shape == SEGMENTS)
		copy_segments(s, at, count, n);
	send(s);
}

/* The connection of a call that has carried something, made if it is new; null when it is not to be told. */
static __always_inline struct conn *carried(struct call *call)
{
	struct sock *sk = (void *)call->sk;
	u32 dir = call->dir & 1;
	struct conn *c;
	u64 *born;

	c = bpf_map_lookup_elem(&conns, &call->sk);
	if (c && c->inode && c->inode != call->inode) { /* its end was missed */
		tell(call->sk, c, KIND_CLOSE, DIR_IN);
		c = 0;
	}
	if (!c) {
		struct conn new = { .born = bpf_ktime_get_ns() };

		new.numbered = is_numbered(sk);
		if (bpf_map_update_elem(&conns, &call->sk, &new, BPF_ANY)) {
			LOST(map);
			return 0;
		}
		c = bpf_map_lookup_elem(&conns, &call->sk);
		if (!c)
			return 0;
	}
	if (!c->inode) {
		u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

		c->inode = call->inode;
		if (family == AF_INET || family == AF_INET6) { /* MPTCP knows them late */
			c->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
			c->remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
		} else if (family != AF_UNIX) {
			c->muted = 1;
		}
		if (!is_wanted_port(c->local_port, c->remote_port))
			c->muted = 1;
	}
	born = bpf_map_lookup_elem(&mutes, &call->sk);
	if (born && *born == c->born)
		c->muted = 1;
	if (c->muted)
		return 0;
	if (c->numbered && c->based[dir]) /* what went unseen, or, with two writers at once, what was told already */
		c->pos[dir] += (s64)(s32)(call->next - c->next[dir]);
	c->next[dir] = call->next;
	c->based[dir] = 1;
	return c;
}

static __always_inline void ended(struct call *call, s64 ret)
{
	struct conn *c;

	if (ret == 0 && (call->dir != DIR_IN || !call->count))
		return;
	c = bpf_map_lookup_elem(&conns, &call->sk);
	if (!c)
		return;
	if (ret == 0)
		tell(call->sk, c, KIND_SHUT, DIR_IN);
	else if (ret == -EAGAIN || ret == -EINTR || ret <= -512)
		return;
	if (c->dead) {
		tell(call->sk, c, KIND_CLOSE, DIR_IN);
		bpf_map_delete_elem(&conns, &call->sk);
	}
}

static __always_inline int end_call(struct exit_args *ctx, u32 scratch)
{
	u32 tid = (u32)bpf_get_current_pid_tgid();
	struct call *call = bpf_map_lookup_elem(&calls, &tid);
	s64 ret = FIELD(ctx, ret, cfg_shift);
	struct scratch *s;
	struct conn *c;

	if (!call)
		return 0;
	if (ret <= 0) {
		ended(call, ret);
	} else {
		s = bpf_map_lookup_elem(&scratches, &scratch);
		c = carried(call);
		if (s && c)
			tell_data(s, call, c, call->shape, call->at, call->count, ret);
	}
	bpf_map_delete_elem(&calls, &tid);
	return 0;
}

/* All calls but those that carry several messages, in groups that seldom meet. A reentrant copy finds a
 * call only if nobody ended it. */
#define EXIT(name, scratch)                                                                                                     \
	SEC("tracepoint/syscalls/sys_exit_read") int exit_##name(struct exit_args *ctx)                                         \
	{                                                                                                                       \
		return end_call(ctx, scratch);                                                                                  \
	}                                                                                                                       \
	SEC("tracepoint/syscalls/sys_exit_read") int exit_##name##_reentrant(struct exit_args *ctx)                             \
	{                                                                                                                       \
		return end_call(ctx, scratch + 1);                                                                              \
	}

EXIT(in, 0)
EXIT(out, 2)

#define MESSAGES_MAX 4

static __always_inline int end_messages(struct exit_args *ctx, u32 scratch)
{
	u32 tid = (u32)bpf_get_current_pid_tgid();
	struct call *call = bpf_map_lookup_elem(&calls, &tid);
	s64 ret = FIELD(ctx, ret, cfg_shift);
	struct mmsghdr m = {};
	struct scratch *s;
	struct conn *c;

	if (!call)
		return 0;
	if (ret <= 0) {
		if (ret < 0)
			ended(call, ret);
		bpf_map_delete_elem(&calls, &tid);
		return 0;
	}
	s = bpf_map_lookup_elem(&scratches, &scratch);
	c = carried(call);
	if (s && c) {
		for (u32 i = 0; i < MESSAGES_MAX; i++) {
			if (i >= ret)
				break;
			if (bpf_probe_read_user(&m, sizeof(m), (void *)(unsigned long)(call->at + i * sizeof(m)))) {
				ret = MESSAGES_MAX + 1;
				break;
			}
			if (!(u32)m.len) {
				if (call->dir == DIR_IN)
					tell(call->sk, c, KIND_SHUT, DIR_IN);
				continue;
			}
			tell_data(s, call, c, SEGMENTS, m.hdr.iov, m.hdr.iovlen, (u32)m.len);
		}
		/* TCP's numbers tell of the rest. Without them nothing does: what comes is another connection, seen from the middle. */
		if (ret > MESSAGES_MAX) {
			LOST(fault);
			if (!c->numbered) {
				tell(call->sk, c, KIND_CLOSE, DIR_IN);
				bpf_map_delete_elem(&conns, &call->sk);
			}
		}
	}
	bpf_map_delete_elem(&calls, &tid);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_sendmmsg") int exit_messages(struct exit_args *ctx)
{
	return end_messages(ctx, 4);
}

SEC("tracepoint/syscalls/sys_exit_sendmmsg") int exit_messages_reentrant(struct exit_args *ctx)
{
	return end_messages(ctx, 5);
}

struct state_args {
	u64 common;
	u64 sk;
	s32 from, to;
	u16 local_port, remote_port, family, protocol;
};

/* Often in an interrupt: the current task is anybody's. */
SEC("tracepoint/sock/inet_sock_set_state") int set_state(struct state_args *ctx)
{
	s32 from = FIELD(ctx, from, cfg_state_shift), to = FIELD(ctx, to, cfg_state_shift);
	u64 key = FIELD(ctx, sk, cfg_state_shift);
	u16 protocol = FIELD(ctx, protocol, cfg_state_shift);
	struct sock *sk = (void *)key;
	struct conn *c;

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP)
		return 0;
	switch (to) {
	case TCP_ESTABLISHED: {
		struct conn new = { .fresh = 1, .numbered = protocol == IPPROTO_TCP, .based = { 1, 1 } };

		if (from != TCP_SYN_SENT && from != TCP_SYN_RECV && protocol == IPPROTO_TCP)
			return 0;
		c = bpf_map_lookup_elem(&conns, &key);
		if (c)
			tell(key, c, KIND_CLOSE, DIR_IN);
		new.local_port = FIELD(ctx, local_port, cfg_state_shift);
		new.remote_port = FIELD(ctx, remote_port, cfg_state_shift);
		if (protocol == IPPROTO_TCP && !is_wanted_port(new.local_port, new.remote_port)) {
			if (c)
				bpf_map_delete_elem(&conns, &key);
			return 0;
		}
		new.born = bpf_ktime_get_ns();
		/* of what is not numbered, nothing that is looked at */
		new.next[DIR_IN] = next_of(sk, DIR_IN);
		new.next[DIR_OUT] = next_of(sk, DIR_OUT);
		if (bpf_map_update_elem(&conns, &key, &new, BPF_ANY))
			LOST(map);
		return 0;
	}
	case TCP_FIN_WAIT1:
	case TCP_LAST_ACK:
		c = bpf_map_lookup_elem(&conns, &key);
		if (c)
			tell(key, c, KIND_SHUT, DIR_OUT);
		return 0;
	case TCP_CLOSE:
		c = bpf_map_lookup_elem(&conns, &key);
		if (!c)
			return 0;
		if (BPF_CORE_READ(sk, sk_socket)) { /* what has come can still be read */
			c->dead = 1;
			tell(key, c, KIND_SHUT, DIR_OUT);
			return 0;
		}
		tell(key, c, KIND_CLOSE, DIR_IN);
		bpf_map_delete_elem(&conns, &key);
		return 0;
	}
	return 0;
}
