/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Bulk copies to user space: only for calls that failed, bounded, and never silently cut. */
#ifndef BPFWHY_COPY_H
#define BPFWHY_COPY_H

/* A global function is verified once and not at each of its calls (5.6). */
#define GLOBAL __attribute__((noinline))

#ifdef NO_KERNEL_READS
#define read_kernel(dst, n, src) (-1)
#else
#define read_kernel(dst, n, src) bpf_probe_read_kernel(dst, n, src)
#endif

/* 2 MiB, in chunks of 16 KiB: 262,144 instructions. */
#define BIG_CHUNKS 128

static __always_inline long read_range(void *dst, u32 n, u64 src, u32 what)
{
	const void *from = (const void *)(unsigned long)src;

	if (what & W_STRING)
		return bpf_probe_read_user_str(dst, n, from);
	if (what & W_KERNEL)
		return read_kernel(dst, n, from);
	return bpf_probe_read_user(dst, n, from);
}

/* One chunk of n bytes at most; a chunk of strings holds one byte less, a NUL. Returns what was read, negative when nothing was. */
static __always_inline long send_big(struct call *c, u32 what, u64 src, u64 n, u64 offset, u64 total)
{
	struct big_chunk *b = bpf_ringbuf_reserve(&records, sizeof(*b), 0);
	long got;

	if (!b) {
		lost(L_RING);
		return -1;
	}
	b->head.type = R_BIG;
	b->head.tid = c->head.tid;
	b->head.start = c->head.start;
	b->what = what & W_MASK;
	b->offset = offset;
	b->total = total;
	b->pad = 0;
	if (n == BIG_MAX)
		got = read_range(b->data, BIG_MAX, src, what);
	else
		got = read_range(b->data, n & (BIG_MAX - 1), src, what);
	b->err = got < 0 ? got : 0;
	if (!(what & W_STRING) && got >= 0)
		got = n;
	else if (got > 0)
		got--;
	b->len = got < 0 ? 0 : got;
	bpf_ringbuf_submit(b, 0);
	return got;
}

/*
 * Sends the len bytes at src, which are the bytes from offset on of a range of total bytes. Returns the number of bytes sent. A
 * function of its own (verified once) that takes no pointers.
 */
GLOBAL u64 send_range(u32 what, u64 src, u64 len, u64 offset, u64 total)
{
	struct call *c = current_call();
	u64 step = what & W_STRING ? BIG_MAX - 1 : BIG_MAX, done = 0;
	long n;

	if (!c || !len)
		return 0;
	if (len <= SMALL_MAX) {
		struct small_chunk *s = bpf_ringbuf_reserve(&records, sizeof(*s), 0);

		if (!s) {
			lost(L_RING);
			return 0;
		}
		s->head.type = R_SMALL;
		s->head.tid = c->head.tid;
		s->head.start = c->head.start;
		s->what = what & W_MASK;
		s->offset = offset;
		s->total = total;
		s->pad = 0;
		n = read_range(s->data, len & (2 * SMALL_MAX - 1), src, what);
		s->err = n < 0 ? n : 0;
		if (n >= 0)
			done = what & W_STRING ? n : len;
		s->len = done;
		bpf_ringbuf_submit(s, 0);
		return done;
	}
	for (int i = 0; i < BIG_CHUNKS; i++) {
		if (len - done < BIG_MAX)
			break;
		n = send_big(c, what, src + done, BIG_MAX, offset + done, total);
		if (n < (long)step)
			return n < 0 ? done : done + n;
		done += step;
		/* the verifier need not follow the sum */
		asm volatile("" : "+r"(done));
	}
	if (len - done >= BIG_MAX || len == done)
		return done;
	n = send_big(c, what, src + done, len - done, offset + done, total);
	return n < 0 ? done : done + n;
}

/* The first max bytes of a range, in one go. */
static __always_inline void send_capped(u32 what, u64 src, u64 len, u64 max)
{
	if (src && len)
		send_range(what, src, len < max ? len : max, 0, len);
}

/*
 * The loader's log buffer: all of it up to twice cfg_log_max, else its head and its tail. Where it ends is not known before 6.4
 * (log_true_size), so the first NUL behind the head is looked for by halving steps: fresh buffers are zero behind the text. A wrong guess costs the tail
 * and nothing else.
 */
GLOBAL u64 send_log(u64 buf, u32 size)
{
	u64 max = cfg_log_max, head, low, high;
	u8 byte = 0;

	if (!buf || !size)
		return 0;
	head = send_range(W_LOG | W_STRING, buf, size < max ? size : max, 0, size);
	if (head + 2 < max || size <= max)
		return head;
	/* without branches: the verifier would follow both sides of each, 2^32 paths */
	low = head;
	for (int shift = 31; shift >= 0; shift--) {
		u64 at = low + (1ULL << shift);
		s64 inside = (s64)(at - size) >> 63, text;
		long err;

		byte = 0;
		err = bpf_probe_read_user(&byte, 1, (void *)(unsigned long)(buf + at));
		text = -(s64)byte >> 63 & ~(err >> 63) & inside;
		asm volatile("" : "+r"(text));
		low += (1ULL << shift) & text;
	}
	high = low + 1;
	if (high > head + max)
		low = high - max;
	else
		low = head;
	return send_range(W_LOG, buf + low, high - low, low, high);
}

#endif
