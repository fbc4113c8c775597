// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The plain text that goes through OpenSSL and its kin, at the return of the functions that carry it: a write that has to be tried again is told
 * once. Connections are known by their SSL object and process; what is beneath, a socket or memory, does not matter.
 *
 * Programs on uprobes can be preempted, and the same one run meanwhile on that CPU: nothing here is kept by CPU, nor must the kernel do so (OWN_STACK).
 */
#define NO_CORE
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include "wire.h"
#include "common.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct key {
	u64 ssl;
	u64 tgid;
};

struct conn {
	u64 born;
	u64 pos[2];
	u8 fresh;
	u8 muted;
	u8 pad[6];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct key);
	__type(value, struct conn);
} conns SEC(".maps");

/* By id, when they were born. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, u64);
} mutes SEC(".maps");

/* A call in flight. */
struct call {
	u64 sp; /* at its begin; 0: none */
	u64 ssl;
	u64 buffer;
	u64 count; /* where the number of bytes will be, 0: it is returned */
	u64 dir;
};

#define CALLS_MAX 4

/* Those of a thread, each made by the one before it: TLS inside TLS. Stacks grow downwards. */
struct calls {
	struct call call[CALLS_MAX];
};

/* By thread. An entry stays for the thread's next call: to delete it and make it anew would cost more than all the rest. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, u32);
	__type(value, struct calls);
} calls SEC(".maps");

/* Empty. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} nobody SEC(".maps");

const volatile u8 cfg_never = 0;

/*
 * From 6.13 on, the stack of such a program (64 bytes and more) is not the task's but the CPU's (bpf_enable_priv_stack). That is right on kprobes,
 * which keep others out, and wrong on uprobes: a task that comes in between writes over it. A program with a tail call, be it dead code, is
 * spared.
 */
#define OWN_STACK(ctx)                                                                                                          \
	do {                                                                                                                    \
		if (cfg_never)                                                                                                  \
			bpf_tail_call(ctx, &nobody, 0);                                                                         \
	} while (0)

static __always_inline struct key key_of(u64 ssl)
{
	return (struct key){ ssl, bpf_get_current_pid_tgid() >> 32 };
}

/* Different for different keys as well as a number can be. */
static __always_inline u64 id_of(struct key *key)
{
	return key->ssl ^ key->tgid * 0x9e3779b97f4a7c15ULL;
}

static __always_inline void describe(struct event *e, struct key *key, struct conn *c, u8 kind, u32 dir)
{
	e->time = bpf_ktime_get_ns();
	e->id = id_of(key);
	e->born = c->born;
	e->pos = c->pos[dir & 1];
	e->len = 0;
	describe_task(e);
	e->local_port = e->remote_port = 0;
	e->captured = 0;
	e->kind = kind;
	e->dir = dir;
	e->fresh = c->fresh;
}

static __attribute__((noinline)) void tell(struct key *key, struct conn *c, u8 kind, u32 dir)
{
	struct event e = {};

	if (c->muted || !(c->pos[0] | c->pos[1]))
		return;
	describe(&e, key, c, kind, dir);
	if (bpf_ringbuf_output(&events, &e, sizeof(e), wakeup()))
		LOST(ring);
}

#define SMALL 256

/* Room for a record is of one size or the other, which the verifier wants to know. */
#define SEND(room)                                                                                                              \
	({                                                                                                                      \
		struct {                                                                                                        \
			struct event event;                                                                                     \
			u8 data[room];                                                                                          \
		} *r = bpf_ringbuf_reserve(&events, sizeof(*r), 0);                                                             \
                                                                                                                                \
		if (r) {                                                                                                        \
			u64 n = len < room ? len : room;                                                                        \
                                                                                                                                \
			describe(&r->event, &key, c, KIND_DATA, dir);                                                           \
			r->event.len = len;                                                                                     \
			r->event.captured = n;                                                                                  \
			asm volatile("if %0 < %1 goto +1\n\t%0 = %1" : "+r"(n) : "i"(room));                                    \
			if (bpf_probe_read_user(r->data, n, (void *)(unsigned long)call->buffer)) {                             \
				r->event.captured = 0;                                                                          \
				LOST(fault);                                                                                    \
			}                                                                                                       \
			bpf_ringbuf_submit(r, wakeup());                                                                        \
		} else {                                                                                                        \
			LOST(ring);                                                                                             \
		}                                                                                                               \
	})

static __always_inline void carried(struct call *call, u64 len)
{
	struct key key = key_of(call->ssl);
	u32 dir = call->dir & 1;
	u64 id = id_of(&key), *born;
	struct conn *c = bpf_map_lookup_elem(&conns, &key);

	if (!c) {
		struct conn new = { .born = bpf_ktime_get_ns() };

		if (bpf_map_update_elem(&conns, &key, &new, BPF_ANY)) {
			LOST(map);
			return;
		}
		c = bpf_map_lookup_elem(&conns, &key);
		if (!c)
			return;
	}
	born = bpf_map_lookup_elem(&mutes, &id);
	if (born && *born == c->born)
		c->muted = 1;
	if (c->muted)
		return;
	if (len <= SMALL)
		SEND(SMALL);
	else
		SEND(DATA_MAX);
	c->pos[dir] += len;
}

/* How much was carried is not known: what comes is another connection, seen from the middle. */
static __always_inline void leave(u64 ssl)
{
	struct key key = key_of(ssl);
	struct conn *c = bpf_map_lookup_elem(&conns, &key);

	if (!c)
		return;
	tell(&key, c, KIND_CLOSE, DIR_IN);
	bpf_map_delete_elem(&conns, &key);
}

/*
 * A call takes the place of the first that it shows to be over, whose return was missed: one that began no higher on the stack. So it does of one of
 * its own SSL, since LibreSSL's SSL_read_ex calls SSL_read: the inner one is told, and the outer one's return finds nothing. What comes after that place
 * is over too.
 */
static __always_inline int begin(struct pt_regs *ctx, u32 dir, u64 count)
{
	struct call call = { .sp = ctx->sp, .ssl = ctx->di, .buffer = ctx->si, .count = count, .dir = dir };
	u32 tid = (u32)bpf_get_current_pid_tgid();
	struct calls *list;
	bool placed = false;

	OWN_STACK(ctx);
	if (!is_wanted())
		return 0;
	list = bpf_map_lookup_elem(&calls, &tid);
	if (!list) {
		struct calls new = { .call[0] = call };

		if (bpf_map_update_elem(&calls, &tid, &new, BPF_ANY))
			LOST(map);
		return 0;
	}
#pragma unroll
	for (int i = 0; i < CALLS_MAX; i++) {
		struct call *l = &list->call[i];

		if (placed) {
			l->sp = 0;
		} else if (l->sp <= call.sp || l->ssl == call.ssl) {
			*l = call;
			placed = true;
		}
	}
	if (!placed)
		LOST(map);
	return 0;
}

SEC("uprobe/SSL_read") int ssl_read(struct pt_regs *ctx)
{
	return begin(ctx, DIR_IN, 0);
}

SEC("uprobe/SSL_read_ex") int ssl_read_ex(struct pt_regs *ctx)
{
	return begin(ctx, DIR_IN, ctx->cx);
}

SEC("uprobe/SSL_write") int ssl_write(struct pt_regs *ctx)
{
	return begin(ctx, DIR_OUT, 0);
}

SEC("uprobe/SSL_write_ex") int ssl_write_ex(struct pt_regs *ctx)
{
	return begin(ctx, DIR_OUT, ctx->cx);
}

SEC("uprobe/SSL_write_ex2") int ssl_write_ex2(struct pt_regs *ctx)
{
	return begin(ctx, DIR_OUT, ctx->r8);
}

/* Takes the call that returns. The stack is then higher by the address of the return. */
static __always_inline bool take(struct pt_regs *ctx, struct call *done)
{
	u32 tid = (u32)bpf_get_current_pid_tgid();
	struct calls *list = bpf_map_lookup_elem(&calls, &tid);
	u64 sp = ctx->sp - 8;

	if (!list)
		return false;
#pragma unroll
	for (int i = 0; i < CALLS_MAX; i++) {
		if (list->call[i].sp == sp) {
			*done = list->call[i];
			list->call[i].sp = 0;
			return true;
		}
	}
	return false;
}

/* The return of any of them. Where one file is probed twice, the second one finds nothing. */
SEC("uretprobe/SSL_read") int ssl_return(struct pt_regs *ctx)
{
	s32 ret = (s32)ctx->ax;
	struct call done;
	u64 len = 0;

	OWN_STACK(ctx);
	if (!take(ctx, &done))
		return 0;
	if (done.count) {
		if (ret == 1 && bpf_probe_read_user(&len, sizeof(len), (void *)(unsigned long)done.count)) {
			LOST(fault);
			leave(done.ssl);
			return 0;
		}
	} else if (ret > 0) {
		len = ret;
	} else if (ret == 0 && done.dir == DIR_IN) { /* the other end has closed; what is to be tried again is -1 */
		struct key key = key_of(done.ssl);
		struct conn *c = bpf_map_lookup_elem(&conns, &key);

		if (c)
			tell(&key, c, KIND_SHUT, DIR_IN);
	}
	if (len)
		carried(&done, len);
	return 0;
}

SEC("uretprobe/SSL_new") int ssl_new(struct pt_regs *ctx)
{
	struct conn new = { .born = bpf_ktime_get_ns(), .fresh = 1 };
	struct key key = key_of(ctx->ax);

	OWN_STACK(ctx);
	if (!key.ssl || !is_wanted())
		return 0;
	if (bpf_map_update_elem(&conns, &key, &new, BPF_ANY))
		LOST(map);
	return 0;
}

SEC("uprobe/SSL_free") int ssl_free(struct pt_regs *ctx)
{
	OWN_STACK(ctx);
	leave(ctx->di);
	return 0;
}
