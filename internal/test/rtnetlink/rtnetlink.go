// SPDX-License-Identifier: Apache-2.0

// Package rtnetlink makes the requests with which programs are attached to network devices, for
// tests that look at what becomes of them.
package rtnetlink

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Numbers of <linux/if_link.h>, <linux/pkt_cls.h> and <linux/pkt_sched.h> that x/sys/unix lacks.
const (
	iflaXDPFD    = 1
	iflaXDPFlags = 3
	iflaInfoKind = 1

	tcaKind     = 1
	tcaOptions  = 2
	tcaBPFFD    = 6
	tcaBPFName  = 7
	tcaBPFFlags = 8

	clsactParent  = 0xfffffff1 // TC_H_CLSACT
	clsactHandle  = 0xffff0000
	ingressParent = 0xfffffff2 // TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)
)

// SetXDP puts a program on a device.
func SetXDP(index uint32, program int, flags uint32) (int, error) {
	return request(unix.RTM_SETLINK, 0, device(index), nested(unix.IFLA_XDP,
		attribute(iflaXDPFD, number32(uint32(program))), attribute(iflaXDPFlags, number32(flags))))
}

// AddClsact gives a device the qdisc that filters of BPF hang on.
func AddClsact(index uint32) (int, error) {
	return request(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, tcmsg(index, clsactHandle, clsactParent, 0), attribute(tcaKind, zeroed("clsact")))
}

// AddFilter attaches a program to the ingress side of a device's clsact.
func AddFilter(index uint32, program int) (int, error) {
	const handle, priority, everything = 1, 1, 0x0300 // ETH_P_ALL in the order of the network
	msg := tcmsg(index, handle, ingressParent, priority<<16|everything)
	return request(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, msg, attribute(tcaKind, zeroed("bpf")),
		nested(tcaOptions, attribute(tcaBPFFD, number32(uint32(program))), attribute(tcaBPFName, zeroed("att")), attribute(tcaBPFFlags, number32(1))))
}

// AddVeth makes a pair of devices, the first of this number.
func AddVeth(index, mtu uint32) (int, error) {
	return request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, device(index),
		attribute(unix.IFLA_IFNAME, zeroed("att0")), attribute(unix.IFLA_MTU, number32(mtu)),
		nested(unix.IFLA_LINKINFO, attribute(iflaInfoKind, zeroed("veth"))))
}

// request makes one, and returns the kernel's answer: 0 or a negative errno. An error says that
// there was none.
func request(kind, flags uint16, parts ...[]byte) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return 0, fmt.Errorf("open a netlink socket: %w", err)
	}
	defer unix.Close(fd)
	body := slices.Concat(parts...)
	b := number32(uint32(unix.SizeofNlMsghdr + len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = slices.Concat(b, number32(1), number32(0), body)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("send a netlink request: %w", err)
	}
	answer := make([]byte, 8192)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return 0, fmt.Errorf("receive a netlink answer: %w", err)
	}
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return 0, fmt.Errorf("receive a netlink answer: %w", unix.EPROTO)
	}
	return int(int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:]))), nil
}

// attribute is one of netlink's, padded.
func attribute(kind uint16, data []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(data)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), data...)
	return append(b, make([]byte, -len(b)&3)...)
}

func nested(kind uint16, parts ...[]byte) []byte {
	return attribute(kind|unix.NLA_F_NESTED, slices.Concat(parts...))
}

func number32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func zeroed(text string) []byte { return append([]byte(text), 0) }

// device is struct ifinfomsg.
func device(index uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], index)
	return b
}

// tcmsg is struct tcmsg.
func tcmsg(index, handle, parent, info uint32) []byte {
	return slices.Concat(make([]byte, 4), number32(index), number32(handle), number32(parent), number32(info))
}
