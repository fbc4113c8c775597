// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The filter of a packet socket: TCP segments that carry bytes or that begin or end a connection, with their first bytes. What it returns is how
 * much of the packet the socket keeps. The socket is cooked (SOCK_DGRAM): packets begin with the network header on every kind of link. Needs no
 * BTF of the kernel.
 */
#define NO_CORE
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "wire.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile u32 cfg_loopback = 0; /* its interface, where every packet comes twice */
const volatile u8 cfg_ports = 0;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, u16);
	__type(value, u8);
} ports SEC(".maps");

struct __sk_buff {
	u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority, ingress_ifindex, ifindex;
};

#define PACKET_OUTGOING 4
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88a8
#define IPPROTO_HOPOPTS 0
#define IPPROTO_TCP 6
#define IPPROTO_ROUTING 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_DSTOPTS 60

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4

struct iphdr {
	u8 version_ihl, tos;
	u16 total, id, fragment;
	u8 ttl, protocol;
	u16 check;
	u32 source, destination;
};

struct ipv6hdr {
	u32 flow;
	u16 payload;
	u8 next, hops;
	u8 source[16], destination[16];
};

struct tcphdr {
	u16 source, destination;
	u32 seq, ack;
	u8 offset, flags;
	u16 window, check, urgent;
};

static __always_inline u32 skip_ipv4(struct __sk_buff *skb, u32 at, u32 *end)
{
	struct iphdr ip;
	u32 total;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version_ihl >> 4 != 4 || (ip.version_ihl & 15) < 5)
		return 0;
	if (ip.protocol != IPPROTO_TCP || ip.fragment & bpf_htons(0x1fff))
		return 0;
	total = bpf_ntohs(ip.total);
	if (total && at + total < *end) /* short frames are padded; of segments above 64 KiB it is 0 */
		*end = at + total;
	return at + (ip.version_ihl & 15) * 4;
}

#define EXTENSIONS_MAX 6

static __always_inline u32 skip_ipv6(struct __sk_buff *skb, u32 at, u32 *end)
{
	struct ipv6hdr ip;
	u32 payload;
	u8 next;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || (*(u8 *)&ip.flow) >> 4 != 6)
		return 0;
	payload = bpf_ntohs(ip.payload);
	at += sizeof(ip);
	if (payload && at + payload < *end)
		*end = at + payload;
	next = ip.next;
	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		u8 head[4];

		if (next == IPPROTO_TCP)
			return at;
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS && next != IPPROTO_FRAGMENT)
			return 0;
		if (bpf_skb_load_bytes(skb, at, head, sizeof(head)))
			return 0;
		if (next == IPPROTO_FRAGMENT) {
			if (head[2] || head[3] & 0xf8)
				return 0;
			at += 8;
		} else {
			at += (head[1] + 1) * 8;
		}
		next = head[0];
	}
	return 0;
}

SEC("socket") int packet_filter(struct __sk_buff *skb)
{
	u32 at = 0, tcp_at, head, payload, end = skb->len;
	u16 protocol = (u16)skb->protocol;
	struct tcphdr tcp;

	if (skb->pkt_type == PACKET_OUTGOING && skb->ifindex == cfg_loopback)
		return 0;
	for (int i = 0; i < 2; i++) {
		if (protocol != bpf_htons(ETH_P_8021Q) && protocol != bpf_htons(ETH_P_8021AD))
			break;
		if (bpf_skb_load_bytes(skb, at + 2, &protocol, sizeof(protocol)))
			return 0;
		at += 4;
	}
	if (protocol == bpf_htons(ETH_P_IP))
		tcp_at = skip_ipv4(skb, at, &end);
	else if (protocol == bpf_htons(ETH_P_IPV6))
		tcp_at = skip_ipv6(skb, at, &end);
	else
		return 0;
	if (!tcp_at || bpf_skb_load_bytes(skb, tcp_at, &tcp, sizeof(tcp)))
		return 0;
	head = tcp_at + (tcp.offset >> 4) * 4;
	if (head > end || (tcp.offset >> 4) < 5)
		return 0;
	payload = end - head;
	if (!payload && !(tcp.flags & (TCP_FIN | TCP_SYN | TCP_RST)))
		return 0;
	if (cfg_ports) {
		u16 source = bpf_ntohs(tcp.source), destination = bpf_ntohs(tcp.destination);

		if (!bpf_map_lookup_elem(&ports, &source) && !bpf_map_lookup_elem(&ports, &destination))
			return 0;
	}
	return head + (payload < DATA_MAX ? payload : DATA_MAX);
}
