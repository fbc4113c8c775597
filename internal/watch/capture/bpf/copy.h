/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Bulk copies to user space: only for calls that failed, bounded, and never silently cut. */
#ifndef BPFWHY_COPY_H
#define BPFWHY_COPY_H

/* A global function is verified once and not at each of its calls (5.6). */
#define GLOBAL __attribute__((noinline))

#ifdef NO_KERNEL_READS
#define read_kernel(dst, n, src) (-1)
#define copy(dst, src, n) __builtin_memcpy(dst, src, n)
#define clear(dst, n) __builtin_memset(dst, 0, n)
#else
#define read_kernel(dst, n, src) bpf_probe_read_kernel(dst, n, src)
/* By a helper: clang does it word by word, and the verifier looks at each of them in each program. A read of nowhere leaves zeros. */
#define copy(dst, src, n) bpf_probe_read_kernel(dst, n, src)
#define clear(dst, n) bpf_probe_read_kernel(dst, n, 0)
#endif

/* 2 MiB, in chunks of almost 128 KiB (a length must stay below a power of two): 262,144 instructions. */
#define BIG_CHUNKS 16

/*
 * Bounds a length right where it is used: clang drops a mask that it can prove needless, and before 5.16 the verifier forgets the
 * bounds of a number that visits the stack.
 */
#define BOUND(n, mask) asm volatile("%0 &= %1" : "+r"(n) : "i"(mask))

/* Reads n bytes, at most mask, a power of two less one. */
static __always_inline long read_range(void *dst, u64 n, const u32 mask, u64 src, u32 what)
{
	const void *from = (const void *)(unsigned long)src;

	if (what & W_STRING) {
		BOUND(n, mask);
		return bpf_probe_read_user_str(dst, n, from);
	}
	if (what & W_KERNEL) {
		BOUND(n, mask);
		return read_kernel(dst, n, from);
	}
	BOUND(n, mask);
	return bpf_probe_read_user(dst, n, from);
}

/*
 * Fills and sends one chunk of n bytes; of a string one byte less, its NUL. Returns what was read, negative when nothing was.
 */
static __always_inline long send_chunk(struct call *c, struct chunk *to, void *data, u32 type, const u32 mask, u32 what, u64 src, u64 n,
				       u64 offset, u64 total)
{
	long got;

	to->head.type = type;
	to->head.tid = c->head.tid;
	to->head.start = c->head.start;
	to->what = what & W_MASK;
	to->offset = offset;
	to->total = total;
	to->pad = 0;
	got = read_range(data, n, mask, src, what);
	to->err = got < 0 ? got : 0;
	if (!(what & W_STRING) && got >= 0)
		got = n;
	else if (got > 0 && (u64)got-- < n)
		to->total = offset + got; /* the string ended */
	to->len = got < 0 ? 0 : got;
	bpf_ringbuf_submit(to, 0);
	return got;
}

#define SEND_CHUNK(kind, KIND, c, what, src, n, offset, total)                                                                  \
	({                                                                                                                      \
		struct kind##_chunk *to = RESERVE_PIECE(sizeof(*to));                                                           \
		long got = -1;                                                                                                  \
                                                                                                                                \
		if (to)                                                                                                         \
			got = send_chunk(c, &to->chunk, to->data, R_##KIND, KIND##_MAX - 1, what, src, n, offset, total);       \
		else                                                                                                            \
			lost(L_RING);                                                                                           \
		got < 0 ? 0 : (u64)got;                                                                                         \
	})

/* A chunk of n bytes. A function of its own, so that a loop of them is verified quickly. */
GLOBAL u64 send_big(u32 what, u64 src, u64 n, u64 offset, u64 total)
{
	struct call *c = current_call();

	if (!c || n >= BIG_MAX)
		return 0;
	return SEND_CHUNK(big, BIG, c, what, src, n, offset, total);
}

/*
 * Sends the len bytes at src, which are the bytes from offset on of a range of total bytes. Returns the number of bytes sent. A
 * function of its own (verified once) that takes no pointers.
 */
GLOBAL u64 send_range(u32 what, u64 src, u64 len, u64 offset, u64 total)
{
	struct call *c = current_call();
	u64 step = what & W_STRING ? BIG_MAX - 2 : BIG_MAX - 1, done = 0, n;

	if (!c || !len)
		return 0;
	if (len < SMALL_MAX)
		return SEND_CHUNK(small, SMALL, c, what, src, len, offset, total);
	if (len < MEDIUM_MAX)
		return SEND_CHUNK(medium, MEDIUM, c, what, src, len, offset, total);
	for (int i = 0; i < BIG_CHUNKS; i++) {
		if (len - done < BIG_MAX)
			break;
		n = send_big(what, src + done, BIG_MAX - 1, offset + done, total);
		if (n < step)
			return done + n;
		done += step;
		/* the verifier need not follow the sum */
		asm volatile("" : "+r"(done));
	}
	if (len - done >= BIG_MAX || len == done)
		return done;
	return done + send_big(what, src + done, len - done, offset + done, total);
}

/* The first max bytes of a range, in one go. */
static __always_inline void send_capped(u32 what, u64 src, u64 len, u64 max)
{
	if (src && len)
		send_range(what, src, len < max ? len : max, 0, len);
}

/*
 * Text of at most most bytes, NUL and all, in a buffer of total bytes. Returns the number of bytes sent. Most texts are short and most buffers are
 * not: it goes in pieces that grow, so that it takes room in the ring by what it is and not by what it might be.
 */
GLOBAL u64 send_text(u32 what, u64 buf, u64 most, u64 total)
{
	u64 n = most < SMALL_MAX ? most : SMALL_MAX - 1, done, got;

	done = send_range(what | W_STRING, buf, n, 0, total);
	if (done + 1 != n || n == most)
		return done;
	n = most - done < MEDIUM_MAX ? most - done : MEDIUM_MAX - 1;
	got = send_range(what | W_STRING, buf + done, n, done, total);
	done += got;
	if (got + 1 != n || done + 1 >= most)
		return done;
	return done + send_range(what | W_STRING, buf + done, most - done, done, total);
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
	head = send_text(W_LOG, buf, size < max ? size : max, size);
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
