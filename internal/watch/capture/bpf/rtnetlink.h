/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Requests of rtnetlink, as they lie in the kernel's memory: those for XDP, for a BPF filter of tc, or for the qdisc that it hangs on. */
#ifndef BPFWHY_RTNETLINK_H
#define BPFWHY_RTNETLINK_H

/* User space ABI: these never move. */
struct request {
	u32 len;
	u16 type;
	u16 flags;
	u32 seq;
	u32 pid;
	u8 family;
	u8 pad1;
	u16 pad2;
	s32 ifindex;
	union {
		struct {
			u32 handle;
			u32 parent;
			u32 info;
			u8 attributes[0];
		} tc;
		struct {
			u32 flags;
			u32 change;
			u8 attributes[0];
		} link;
	};
};

struct nlattr {
	u16 len;
	u16 type;
};

#define RTM_SETLINK 19
#define RTM_NEWQDISC 36
#define RTM_NEWTFILTER 44
#define IFLA_XDP 43
#define IFLA_XDP_FD 1
#define IFLA_XDP_FLAGS 3
#define TCA_KIND 1
#define TCA_OPTIONS 2
#define TCA_BPF_FD 6
#define NLA_TYPE 0x3fff /* without the flags */
#define ATTRIBUTES_MAX 10 /* as many are looked at */

/* Where an attribute begins among those from at to end, 0 where it is not. */
static __always_inline u64 find_attribute(u64 at, u64 end, u16 type)
{
	for (int i = 0; i < ATTRIBUTES_MAX; i++) {
		struct nlattr a = {};

		if (at + sizeof(a) > end || bpf_probe_read_kernel(&a, sizeof(a), (void *)(unsigned long)at) || a.len < sizeof(a))
			break;
		if ((a.type & NLA_TYPE) == type)
			return at;
		at += (a.len + 3) & ~3u;
	}
	return 0;
}

static __always_inline bool read_request(struct request *r, u64 message)
{
	return message && !bpf_probe_read_kernel(r, sizeof(*r), (void *)(unsigned long)message);
}

static __always_inline bool is_kind(const char *kind, const char *wanted, u32 size)
{
	for (u32 i = 0; i < size; i++)
		if (kind[i] != wanted[i])
			return false;
	return true;
}

#define IS_KIND(kind, wanted) is_kind(kind, wanted, sizeof(wanted))

#define TC_ATTRIBUTES(message) ((message) + __builtin_offsetof(struct request, tc.attributes))
#define LINK_ATTRIBUTES(message) ((message) + __builtin_offsetof(struct request, link.attributes))

/* Whether a request is about BPF: filters of other kinds, all other qdiscs, and other changes of a device are not ours. */
static __always_inline bool is_for_bpf(u64 message)
{
	struct request r = {};
	char kind[8] = {};
	u64 at;

	if (!read_request(&r, message))
		return false;
	if (r.type == RTM_SETLINK)
		return find_attribute(LINK_ATTRIBUTES(message), message + r.len, IFLA_XDP);
	at = find_attribute(TC_ATTRIBUTES(message), message + r.len, TCA_KIND);
	if (!at || bpf_probe_read_kernel_str(kind, sizeof(kind), (void *)(unsigned long)(at + sizeof(struct nlattr))) < 0)
		return false;
	if (r.type == RTM_NEWTFILTER)
		return IS_KIND(kind, "bpf");
	return r.type == RTM_NEWQDISC && IS_KIND(kind, "clsact");
}

/* A filter is told in any case. Of the others only what could not be done: that the qdisc is there already is an answer. */
static __always_inline bool is_request_told(u64 message, s32 ret)
{
	struct request r = {};

	return read_request(&r, message) && (r.type == RTM_NEWTFILTER || (ret < 0 && ret != -EEXIST));
}

/* A number in an attribute of a nested one, which begins at outer; what it was where there is none. */
static __always_inline u32 nested_number(u64 outer, u16 type, u32 otherwise)
{
	struct nlattr a = {};
	u32 n = otherwise;
	u64 at;

	if (!outer || bpf_probe_read_kernel(&a, sizeof(a), (void *)(unsigned long)outer))
		return n;
	at = find_attribute(outer + sizeof(a), outer + a.len, type);
	if (at)
		bpf_probe_read_kernel(&n, sizeof(n), (void *)(unsigned long)(at + sizeof(a)));
	return n;
}

#define NO_FD (~0u)

static __always_inline void describe_request(struct attachment *a, u64 message)
{
	u32 fd_of = TCA_BPF_FD, fd;
	struct request r = {};
	u64 outer;

	if (!read_request(&r, message))
		return;
	describe_device(a, r.ifindex);
	a->ifindex = r.ifindex;
	if (r.type == RTM_SETLINK) {
		outer = find_attribute(LINK_ATTRIBUTES(message), message + r.len, IFLA_XDP);
		a->flags = nested_number(outer, IFLA_XDP_FLAGS, 0);
		fd_of = IFLA_XDP_FD;
	} else {
		outer = find_attribute(TC_ATTRIBUTES(message), message + r.len, TCA_OPTIONS);
		a->tc_parent = r.tc.parent;
	}
	fd = nested_number(outer, fd_of, NO_FD);
	if (fd != NO_FD)
		describe_prog_fd(a, fd);
}

#endif
