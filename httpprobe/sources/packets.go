// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
)

// Packets watches TCP segments by a packet socket, in the network namespace of the caller. Needs
// CAP_NET_RAW and what loading a socket filter needs (CAP_BPF, or nothing where unprivileged BPF is
// allowed), and no BTF of the kernel. It knows no processes: the filters by process and cgroup are
// refused.
//
// Of the two ends the local one is that with an address of this machine. Where both have one, as
// over the loopback, or neither, as in what is passed on to containers, it is the server: who is
// called, else who listens, else who has the lower port. A packet that comes by several devices is
// told as often, at one Pos.
func Packets(opts Options) (*Source, error) {
	s, err := openPackets(opts)
	if err != nil {
		return nil, fmt.Errorf("watch packets: %w", err)
	}
	return s, nil
}

func openPackets(opts Options) (*Source, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	if len(opts.PIDs) > 0 || len(opts.Cgroups) > 0 {
		return nil, errors.New("packets do not tell whose they are: filter by port")
	}
	spec, err := loadPackets()
	if err != nil {
		return nil, err
	}
	loopback := uint32(0)
	if i, err := net.InterfaceByName("lo"); err == nil {
		loopback = uint32(i.Index)
	}
	if err := setVariables(spec, map[string]any{"cfg_loopback": loopback, "cfg_ports": flag(len(opts.Ports) > 0)}); err != nil {
		return nil, err
	}
	for _, port := range opts.Ports {
		spec.Maps["ports"].Contents = append(spec.Maps["ports"].Contents, ebpf.MapKV{Key: port, Value: uint8(1)})
	}
	coll, programs, err := opts.load(spec, nil)
	if err != nil {
		return nil, err
	}
	p := &packetStream{coll: coll, local: &localAddresses{}, fd: -1}
	p.tracker = newTracker(p.local.isLocal, p.local.listens)
	if err := p.open(opts.ringBytes()); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return &Source{name: "packets", programs: programs, stream: p}, nil
}

type packetStream struct {
	coll    *ebpf.Collection
	fd      int
	ring    []byte
	block   int // bytes of one
	next    int // block
	tracker *tracker
	local   *localAddresses
	drops   atomic.Uint64
	mapFull atomic.Uint64

	mu    sync.Mutex
	muted []event.Conn // not yet known to the tracker
}

// Block sizes of the ring (PACKET_RX_RING): blocks are handed out when they are full, or after a
// while.
const (
	maxBlock = 1 << 18
	minBlock = 1 << 13 // a packet of 1 KiB and its headers fits several times
)

func (p *packetStream) open(size uint32) error {
	// Of protocol 0 nothing comes, until the filter is there.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	p.fd = fd
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, p.coll.Programs["packet_filter"].FD()); err != nil {
		return fmt.Errorf("attach filter to packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("set version of packet ring: %w", err)
	}
	size = max(size, 2*minBlock)
	block := max(minBlock, min(maxBlock, size/8))
	const frame = 2048
	request := unix.TpacketReq3{
		Block_size: block, Block_nr: size / block, Frame_size: frame, Frame_nr: size / frame,
		Retire_blk_tov: uint32(lookInterval / time.Millisecond),
	}
	if err := unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &request); err != nil {
		return fmt.Errorf("make packet ring: %w", err)
	}
	if p.ring, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map packet ring: %w", err)
	}
	p.block = int(block)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL)}); err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	return nil
}

func bigEndian(n uint16) uint16 { return n<<8 | n>>8 }

func (p *packetStream) run(ctx context.Context, f func(*event.Event)) error {
	poll := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN | unix.POLLERR}}
	for {
		done := ctx.Err() != nil
		if done { // the block that is being filled is handed out when its time is over
			time.Sleep(2 * lookInterval)
		}
		for p.readBlock(f) {
		}
		if done {
			return nil
		}
		if _, err := unix.Poll(poll, int(lookInterval/time.Millisecond)); err != nil && err != unix.EINTR {
			return fmt.Errorf("poll packet socket: %w", err)
		}
	}
}

// Offsets in struct tpacket_block_desc, tpacket3_hdr and sockaddr_ll (linux/if_packet.h).
const (
	blockStatus  = 8
	blockPackets = 12
	blockFirst   = 16

	packetNext    = 0
	packetSec     = 4
	packetNsec    = 8
	packetSnaplen = 12
	packetLen     = 16
	packetNet     = 26
	packetAddress = 48 // struct sockaddr_ll
	addressProto  = 2
)

// readBlock hands out the packets of the next block. It returns false when the kernel still fills
// it.
func (p *packetStream) readBlock(f func(*event.Event)) bool {
	block := p.ring[p.next*p.block : (p.next+1)*p.block]
	status := (*uint32)(unsafe.Pointer(&block[blockStatus]))
	if atomic.LoadUint32(status)&unix.TP_STATUS_USER == 0 {
		return false
	}
	p.applyMutes()
	now := monotonicOffset()
	native := binary.NativeEndian
	at := int(native.Uint32(block[blockFirst:]))
	for range native.Uint32(block[blockPackets:]) {
		if at+packetAddress+addressProto+2 > len(block) {
			break
		}
		h := block[at:]
		sec, nsec := native.Uint32(h[packetSec:]), native.Uint32(h[packetNsec:])
		kept, wire, network := int(native.Uint32(h[packetSnaplen:])), int(native.Uint32(h[packetLen:])), int(native.Uint16(h[packetNet:]))
		if network+kept <= len(h) {
			ether := binary.BigEndian.Uint16(h[packetAddress+addressProto:])
			if s, ok := parseSegment(ether, h[network:network+kept], wire); ok {
				p.tracker.add(&s, uint64(int64(sec)*second+int64(nsec)-now), f)
			}
		}
		next := int(native.Uint32(h[packetNext:]))
		if next <= 0 {
			break
		}
		at += next
	}
	p.mapFull.Store(p.tracker.mapFull)
	atomic.StoreUint32(status, unix.TP_STATUS_KERNEL)
	p.next = (p.next + 1) % (len(p.ring) / p.block)
	return true
}

// monotonicOffset is by how much the clock on the wall, which packets are stamped with, is ahead of
// the other.
func monotonicOffset() int64 {
	var mono, wall unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) != nil || unix.ClockGettime(unix.CLOCK_REALTIME, &wall) != nil {
		return 0
	}
	return wall.Nano() - mono.Nano()
}

func (p *packetStream) loss() event.Loss {
	stats, err := unix.GetsockoptTpacketStatsV3(p.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS) // and sets them to zero
	if err == nil {
		p.drops.Add(uint64(stats.Drops))
	}
	return event.Loss{PacketDrop: p.drops.Load(), MapFull: p.mapFull.Load()}
}

func (p *packetStream) mute(c event.Conn) error {
	if c.Source != event.Packets {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.muted = append(p.muted, c)
	return nil
}

func (p *packetStream) applyMutes() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.muted {
		p.tracker.mute(c)
	}
	p.muted = p.muted[:0]
}

func (p *packetStream) close() error {
	var errs []error
	if p.ring != nil {
		errs = append(errs, unix.Munmap(p.ring))
	}
	if p.fd >= 0 {
		errs = append(errs, unix.Close(p.fd))
	}
	p.coll.Close()
	return errors.Join(errs...)
}

// localAddresses are the addresses of this machine and those at which somebody listens, read again
// when they are asked for, once a second at most: who listens is in a list of all sockets, and
// asked for only where a connection was there before.
type localAddresses struct {
	addresses map[netip.Addr]bool
	listeners map[netip.AddrPort]bool
	// when they were read
	addressesAt, listenersAt time.Time
}

// isDue reports whether a second has passed since, and begins the next.
func isDue(at *time.Time) bool {
	if time.Since(*at) < time.Second {
		return false
	}
	*at = time.Now()
	return true
}

func (l *localAddresses) isLocal(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	if isDue(&l.addressesAt) {
		l.readAddresses()
	}
	return l.addresses[a]
}

func (l *localAddresses) listens(a netip.AddrPort) bool {
	if isDue(&l.listenersAt) {
		l.readListeners()
	}
	return l.listeners[a] || l.listeners[netip.AddrPortFrom(netip.IPv6Unspecified(), a.Port())] ||
		l.listeners[netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port())]
}

func (l *localAddresses) readAddresses() {
	l.addresses = map[netip.Addr]bool{}
	if list, err := net.InterfaceAddrs(); err == nil {
		for _, a := range list {
			if n, ok := a.(*net.IPNet); ok {
				if addr, ok := netip.AddrFromSlice(n.IP); ok {
					l.addresses[addr.Unmap()] = true
				}
			}
		}
	}
}

func (l *localAddresses) readListeners() {
	l.listeners = map[netip.AddrPort]bool{}
	for _, name := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
		b, err := os.ReadFile(name)
		if err == nil {
			readListeners(b, l.listeners)
		}
	}
}

// readListeners reads /proc/net/tcp or tcp6: "  0: 0100007F:1F90 00000000:0000 0A ...".
func readListeners(text []byte, to map[netip.AddrPort]bool) {
	const listen = "0A"
	for line := range bytes.Lines(text) {
		f := strings.Fields(string(line))
		if len(f) < 4 || f[3] != listen {
			continue
		}
		address, port, _ := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(port, 16, 16)
		if err != nil || len(address)%8 != 0 || len(address) > 32 {
			continue
		}
		var raw []byte // words as the processor has them
		for ; address != ""; address = address[8:] {
			word, err := strconv.ParseUint(address[:8], 16, 32)
			if err != nil {
				break
			}
			raw = binary.NativeEndian.AppendUint32(raw, uint32(word))
		}
		if a, ok := netip.AddrFromSlice(raw); ok {
			to[netip.AddrPortFrom(a.Unmap(), uint16(n))] = true
		}
	}
}
