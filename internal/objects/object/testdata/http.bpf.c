// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//
// A socket filter that picks HTTP requests and answers out of TCP streams and reports what is in their headers: what
// observability agents do. The header is read byte by byte in steps that are unrolled, as kernels before 5.3 want it, and as
// agents still do for later ones; STEPS says how many. Every step may leave for the end: these are the jumps that grow.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum kind { REQUEST = 1, ANSWER = 2 };

struct message {
	__u32 source, destination;
	__u16 source_port, destination_port;
	__u16 status; // of an answer
	__u16 header; // its length, when it ends in this packet
	__u32 hash;   // of the header
	__u16 host, type, length, encoding, connection, cookie, agent, trace; // where these fields begin; where the message does if they are missing
	__u16 lines, words; // counted from kind
	__u8 kind, complete, version, unused;
};

#ifdef LEGACY_MAPS // without BTF
struct bpf_map_def {
	unsigned int type, key_size, value_size, max_entries, map_flags;
};

struct bpf_map_def messages SEC("maps") = { BPF_MAP_TYPE_PERF_EVENT_ARRAY, sizeof(__u32), sizeof(__u32) };
struct bpf_map_def counters SEC("maps") = { BPF_MAP_TYPE_ARRAY, sizeof(__u32), sizeof(__u64), 4 };
#else
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} messages SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");
#endif

static __always_inline void count(__u32 what)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &what);

	if (n)
		__sync_fetch_and_add(n, 1);
}

// LOWER turns four letters into lower case.
#define LOWER 0x20202020
#define FOUR(a, b, c, d) ((__u32)(a) << 24 | (b) << 16 | (c) << 8 | (d))

// begins tells requests and answers from everything else.
static __always_inline enum kind begins(struct __sk_buff *skb, __u32 at, struct message *m)
{
	__u8 b[12];
	__u32 first;

	if (bpf_skb_load_bytes(skb, at, b, sizeof(b)))
		return 0;
	first = FOUR(b[0], b[1], b[2], b[3]);
	if (first == FOUR('H', 'T', 'T', 'P')) {
		m->version = b[7] - '0';
		m->status = (b[9] - '0') * 100 + (b[10] - '0') * 10 + (b[11] - '0');
		return ANSWER;
	}
	if (first == FOUR('G', 'E', 'T', ' ') || first == FOUR('P', 'O', 'S', 'T') || first == FOUR('P', 'U', 'T', ' ') ||
	    first == FOUR('H', 'E', 'A', 'D') || first == FOUR('D', 'E', 'L', 'E') || first == FOUR('O', 'P', 'T', 'I') ||
	    first == FOUR('P', 'A', 'T', 'C'))
		return REQUEST;
	return 0;
}

// window is the last four bytes.
struct reader {
	__u32 at, i, left, window, hash;
};

// step reads one byte; true means that there is nothing more to read.
static __always_inline int step(struct __sk_buff *skb, struct reader *r, struct message *m)
{
	__u32 lower;
	__u8 c;

	if (r->i >= r->left || bpf_skb_load_bytes(skb, r->at + r->i, &c, 1))
		return 1;
	r->i++;
	if (c == ' ')
		m->words++;
	r->hash = (r->hash ^ c) * 16777619;
	r->window = r->window << 8 | c;
	lower = r->window | LOWER;
	if (r->window == FOUR('\r', '\n', '\r', '\n')) {
		m->complete = 1;
		return 1;
	}
	if (c == '\n')
		m->lines++;
	if (lower == (FOUR('\n', 'h', 'o', 's') | LOWER))
		m->host = r->i;
	if (lower == (FOUR('t', '-', 't', 'y') | LOWER))
		m->type = r->i;
	if (lower == (FOUR('t', '-', 'l', 'e') | LOWER))
		m->length = r->i;
	if (lower == (FOUR('r', '-', 'e', 'n') | LOWER))
		m->encoding = r->i;
	if (lower == (FOUR('n', 'e', 'c', 't') | LOWER))
		m->connection = r->i;
	if (lower == (FOUR('o', 'o', 'k', 'i') | LOWER))
		m->cookie = r->i;
	if (lower == (FOUR('\n', 'u', 's', 'e') | LOWER))
		m->agent = r->i;
	if (lower == (FOUR('t', 'r', 'a', 'c') | LOWER))
		m->trace = r->i;
	return 0;
}

#define STEP                          \
	if (step(skb, &r, &m))        \
		goto done;            \
	asm volatile("" ::: "memory"); // not threaded through to the next one

#define STEP10 STEP STEP STEP STEP STEP STEP STEP STEP STEP STEP
#define STEP100 STEP10 STEP10 STEP10 STEP10 STEP10 STEP10 STEP10 STEP10 STEP10 STEP10

SEC("socket")
int http_filter(struct __sk_buff *skb)
{
	struct message m = {};
	struct reader r = {};
	__u8 c, ihl, doff;
	__u16 proto;

	if (bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_proto), &proto, sizeof(proto)) || proto != bpf_htons(ETH_P_IP))
		return 0;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ihl, 1) || (ihl & 0xf0) != 0x40)
		return 0;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, protocol), &c, 1) || c != IPPROTO_TCP)
		return 0;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), &m.source, 8))
		return 0;
	r.at = ETH_HLEN + (ihl & 0x0f) * 4;
	if (bpf_skb_load_bytes(skb, r.at, &m.source_port, 4) || bpf_skb_load_bytes(skb, r.at + 12, &doff, 1))
		return 0;
	r.at += (doff >> 4) * 4;
	m.kind = begins(skb, r.at, &m);
	if (!m.kind) {
		count(0);
		return 0;
	}
	// Not zeros, which the verifier would follow from field to field: two states for each, in every step.
	m.host = m.type = m.length = m.encoding = m.connection = m.cookie = m.agent = m.trace = r.at;
	m.words = m.lines = m.kind;
	r.left = skb->len - r.at;
	r.hash = 2166136261;

#if STEPS == 270
	STEP100 STEP100 STEP10 STEP10 STEP10 STEP10 STEP10 STEP10 STEP10
#elif STEPS == 200
	STEP100 STEP100
#else
#error STEPS is 200 or 270
#endif
done:
	m.header = r.i;
	m.hash = r.hash;
	count(m.kind);
	if (!m.complete)
		count(3);
	bpf_perf_event_output(skb, &messages, BPF_F_CURRENT_CPU, &m, sizeof(m));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
