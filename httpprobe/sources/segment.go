// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"encoding/binary"
	"net/netip"
)

// segment is what one packet says of a TCP connection.
type segment struct {
	from, to netip.AddrPort
	seq      uint32
	flags    uint8
	length   int    // of the payload as it went
	data     []byte // as much of it as was kept
}

// Flags of a TCP header.
const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	_
	tcpACK
)

// Numbers of a packet's first header (EtherType).
const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	etherVLAN = 0x8100
	etherQinQ = 0x88a8
)

// parseSegment reads a packet that begins with its network header, or VLAN tags in front of it. Of
// wire bytes, packet holds the first. It returns false for all that is not the first fragment of a
// TCP segment, which is everything that the filter drops.
//
//revive:disable-next-line:cyclomatic hostile packets: each length is checked
func parseSegment(ether uint16, packet []byte, wire int) (s segment, ok bool) {
	for range 2 {
		if ether != etherVLAN && ether != etherQinQ {
			break
		}
		if len(packet) < 4 {
			return s, false
		}
		ether = binary.BigEndian.Uint16(packet[2:])
		packet, wire = packet[4:], wire-4
	}
	var source, destination netip.Addr
	switch ether {
	case etherIPv4:
		if len(packet) < 20 || packet[0]>>4 != 4 || packet[9] != 6 || binary.BigEndian.Uint16(packet[6:])&0x1fff != 0 {
			return s, false
		}
		head, total := int(packet[0]&15)*4, int(binary.BigEndian.Uint16(packet[2:]))
		if total > 0 { // of segments above 64 KiB it is 0
			wire = min(wire, total)
		}
		if head < 20 || head > len(packet) {
			return s, false
		}
		source, destination = netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))
		packet, wire = packet[head:], wire-head
	case etherIPv6:
		if len(packet) < 40 || packet[0]>>4 != 6 {
			return s, false
		}
		if n := int(binary.BigEndian.Uint16(packet[4:])); n > 0 {
			wire = min(wire, 40+n)
		}
		source, destination = netip.AddrFrom16([16]byte(packet[8:24])).Unmap(), netip.AddrFrom16([16]byte(packet[24:40])).Unmap()
		next := packet[6]
		packet, wire = packet[40:], wire-40
		for next != 6 {
			if len(packet) < 8 {
				return s, false
			}
			n := 8
			switch next {
			case 0, 43, 60: // hop-by-hop, routing, destination options
				n = (int(packet[1]) + 1) * 8
			case 44:
				if binary.BigEndian.Uint16(packet[2:])&0xfff8 != 0 {
					return s, false
				}
			default:
				return s, false
			}
			if n > len(packet) {
				return s, false
			}
			next, packet, wire = packet[0], packet[n:], wire-n
		}
	default:
		return s, false
	}
	if len(packet) < 20 {
		return s, false
	}
	head := int(packet[12]>>4) * 4
	if head < 20 || head > len(packet) || head > wire {
		return s, false
	}
	data := packet[head:]
	s = segment{
		from:  netip.AddrPortFrom(source, binary.BigEndian.Uint16(packet)),
		to:    netip.AddrPortFrom(destination, binary.BigEndian.Uint16(packet[2:])),
		seq:   binary.BigEndian.Uint32(packet[4:]),
		flags: packet[13], length: wire - head,
		data: data[:min(len(data), wire-head)],
	}
	return s, true
}
