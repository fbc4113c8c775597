// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/go-quicktest/qt"
)

// tcp is a segment from port 80 to port 40000, number 7, with an option of four bytes.
func tcp(flags byte, payload string) []byte {
	h := []byte{0, 80, 0x9c, 0x40, 0, 0, 0, 7, 0, 0, 0, 0, 6 << 4, flags, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1}
	return append(h, payload...)
}

func ipv4(protocol byte, fragment uint16, body []byte) []byte {
	h := make([]byte, 24) // with an option
	h[0], h[9] = 0x46, protocol
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(body)))
	binary.BigEndian.PutUint16(h[6:], fragment)
	copy(h[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	return append(h, body...)
}

func ipv6(next byte, body []byte) []byte {
	h := make([]byte, 40)
	h[0], h[6] = 0x60, next
	binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
	h[23], h[39] = 1, 2 // ::1 and ::2
	return append(h, body...)
}

func TestParseSegment(t *testing.T) {
	four := [2]netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:40000")}
	six := [2]netip.AddrPort{netip.MustParseAddrPort("[::1]:80"), netip.MustParseAddrPort("[::2]:40000")}
	plain := ipv4(6, 0, tcp(tcpACK, "hello"))
	for _, tt := range []struct {
		name   string
		ether  uint16
		packet []byte
		wire   int // 0: as long as the packet
		ends   [2]netip.AddrPort
		length int
		data   string
	}{
		{"plain", etherIPv4, plain, 0, four, 5, "hello"},
		{"cut", etherIPv4, plain[:len(plain)-2], len(plain), four, 5, "hel"},
		{"padded", etherIPv4, slices.Concat(plain, []byte{0, 0, 0}), 0, four, 5, "hello"},
		{"without a payload", etherIPv4, ipv4(6, 0, tcp(tcpFIN, "")), 0, four, 0, ""},
		{"VLAN", etherVLAN, slices.Concat([]byte{0, 5, 8, 0}, plain), 0, four, 5, "hello"},
		{"VLAN in VLAN", etherQinQ, slices.Concat([]byte{0, 5, 0x81, 0, 0, 6, 8, 0}, plain), 0, four, 5, "hello"},
		{"first fragment", etherIPv4, ipv4(6, 0x2000, tcp(tcpACK, "hello")), 0, four, 5, "hello"},
		{"later fragment", etherIPv4, ipv4(6, 0x2001, tcp(tcpACK, "hello")), 0, four, -1, ""},
		{"UDP", etherIPv4, ipv4(17, 0, tcp(0, "hello")), 0, four, -1, ""},
		{"ARP", 0x0806, plain, 0, four, -1, ""},
		{"the other version", etherIPv6, plain, 0, four, -1, ""},
		{"IPv6", etherIPv6, ipv6(6, tcp(tcpACK, "hello")), 0, six, 5, "hello"},
		{"IPv6 with options", etherIPv6, ipv6(0, slices.Concat([]byte{60, 1}, make([]byte, 14), []byte{6, 0}, make([]byte, 6), tcp(tcpACK, "hello"))), 0, six, 5, "hello"},
		{"IPv6, later fragment", etherIPv6, ipv6(44, slices.Concat([]byte{6, 0, 0, 8, 0, 0, 0, 0}, tcp(tcpACK, "hello"))), 0, six, -1, ""},
		{"IPv6, first fragment", etherIPv6, ipv6(44, slices.Concat([]byte{6, 0, 0, 1, 0, 0, 0, 0}, tcp(tcpACK, "hello"))), 0, six, 5, "hello"},
		{"IPv6, ESP", etherIPv6, ipv6(50, tcp(tcpACK, "hello")), 0, six, -1, ""},
		{"empty", etherIPv4, nil, 0, four, -1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wire := tt.wire
			if wire == 0 {
				wire = len(tt.packet)
			}
			s, ok := parseSegment(tt.ether, tt.packet, wire)
			qt.Assert(t, qt.Equals(ok, tt.length >= 0))
			if !ok {
				return
			}
			qt.Check(t, qt.Equals(s.from, tt.ends[0]))
			qt.Check(t, qt.Equals(s.to, tt.ends[1]))
			qt.Check(t, qt.Equals(s.seq, 7))
			qt.Check(t, qt.Equals(s.length, tt.length))
			qt.Check(t, qt.Equals(string(s.data), tt.data))
		})
	}
}

// Packets are anybody's.
func FuzzSegment(f *testing.F) {
	f.Add(uint16(etherIPv4), ipv4(6, 0, tcp(tcpACK, "hello")), 0)
	f.Add(uint16(etherIPv6), ipv6(0, slices.Concat([]byte{6, 0}, make([]byte, 6), tcp(tcpACK, "hello"))), 100)
	f.Add(uint16(etherQinQ), make([]byte, 60), -1)
	f.Fuzz(func(t *testing.T, ether uint16, packet []byte, more int) {
		s, ok := parseSegment(ether, packet, len(packet)+max(0, min(more, 1<<20)))
		if ok && (s.length < len(s.data) || s.length < 0) {
			t.Fatalf("%d bytes of %d", len(s.data), s.length)
		}
	})
}
