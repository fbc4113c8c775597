// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
)

// sockets are the two ends of a TCP connection as plain descriptors: what goes through them are the
// calls of the test and no others.
func sockets(t *testing.T) (a, b int) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	defer l.Close()
	a, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	qt.Assert(t, qt.IsNil(err))
	address := l.Addr().(*net.TCPAddr)
	qt.Assert(t, qt.IsNil(unix.Connect(a, &unix.SockaddrInet4{Port: address.Port, Addr: [4]byte{127, 0, 0, 1}})))
	c, err := l.Accept()
	qt.Assert(t, qt.IsNil(err))
	file, err := c.(*net.TCPConn).File()
	qt.Assert(t, qt.IsNil(err))
	c.Close()
	b, err = unix.Dup(int(file.Fd()))
	qt.Assert(t, qt.IsNil(err))
	file.Close()
	return a, b
}

func localPort(t *testing.T, fd int) uint16 {
	name, err := unix.Getsockname(fd)
	qt.Assert(t, qt.IsNil(err))
	return uint16(name.(*unix.SockaddrInet4).Port)
}

// mmsghdr is struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   uint32
}

func messages(parts ...[]byte) []mmsghdr {
	list := make([]mmsghdr, len(parts))
	for i, p := range parts {
		v := &unix.Iovec{Base: &p[0]}
		v.SetLen(len(p))
		list[i].hdr.Iov = v
		list[i].hdr.SetIovlen(1)
	}
	return list
}

func mmsg(t *testing.T, call uintptr, fd int, list []mmsghdr) {
	t.Helper()
	n, _, errno := unix.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&list[0])), uintptr(len(list)), 0, 0, 0)
	runtime.KeepAlive(list)
	qt.Assert(t, qt.Equals(errno, 0))
	qt.Assert(t, qt.Equals(int(n), len(list)))
}

// testCalls: each of the watched calls tells the bytes that it carries, and no other call does.
func testCalls(t *testing.T) {
	s, err := Syscalls(Options{PIDs: own()})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer s.Close()
	c := collect(t, s)
	a, b := sockets(t)
	pa, pb := localPort(t, a), localPort(t, b)
	name := filepath.Join(t.TempDir(), "file")
	qt.Assert(t, qt.IsNil(os.WriteFile(name, []byte("FILE-FILE-FILE"), 0o600)))
	file, err := os.Open(name)
	qt.Assert(t, qt.IsNil(err))
	defer file.Close()
	var pipe [2]int
	qt.Assert(t, qt.IsNil(unix.Pipe2(pipe[:], unix.O_CLOEXEC)))

	long := bytes.Repeat([]byte("0123456789abcdef"), 100) // more than is copied
	buf := make([]byte, 4096)
	want, known := map[event.Direction][]byte{}, map[event.Direction][]bool{}
	went := func(dir event.Direction, captured int, parts ...[]byte) {
		p := bytes.Join(parts, nil)
		want[dir] = append(want[dir], p...)
		for i := range p {
			known[dir] = append(known[dir], i < captured)
		}
	}
	ok := func(n int, err error) int {
		t.Helper()
		qt.Assert(t, qt.IsNil(err))
		return n
	}
	text := func(s string) []byte { return []byte(s) }

	// Out of a and in at b, call by call.
	ok(unix.Write(a, text("write ")))
	ok(unix.Read(b, buf))
	ok(unix.Writev(a, [][]byte{text("wri"), {}, text("tev "), long}))
	ok(unix.Readv(b, [][]byte{buf[:5], buf[5:2000]}))
	went(event.Out, 6, text("write "))
	went(event.Out, 1024, text("writev "), long)
	qt.Assert(t, qt.IsNil(unix.Sendto(a, text("sendto "), 0, nil)))
	n, _, err := unix.Recvfrom(b, buf, unix.MSG_PEEK) // moves nothing
	ok(n, err)
	n, _, err = unix.Recvfrom(b, buf, 0)
	ok(n, err)
	went(event.Out, 7, text("sendto "))
	ok(unix.SendmsgBuffers(a, [][]byte{text("send"), text("msg ")}, nil, nil, 0))
	n, _, _, _, err = unix.RecvmsgBuffers(b, [][]byte{buf[:3], buf[3:]}, nil, 0)
	ok(n, err)
	went(event.Out, 8, text("sendmsg "))
	mmsg(t, unix.SYS_SENDMMSG, a, messages(text("send"), text("mmsg ")))
	mmsg(t, unix.SYS_RECVMMSG, b, messages(buf[:4], buf[4:9]))
	went(event.Out, 4, text("send"))
	went(event.Out, 5, text("mmsg "))
	ok(unix.Sendfile(a, int(file.Fd()), nil, 9))
	n, _, err = unix.Recvfrom(b, buf, unix.MSG_TRUNC) // thrown away
	qt.Assert(t, qt.Equals(ok(n, err), 9))
	went(event.Out, 0, text("FILE-FILE"))
	ok(unix.Write(pipe[1], text("spliced "))) // a pipe is no socket
	ok64 := func(n int64, err error) { t.Helper(); ok(int(n), err) }
	ok64(unix.Splice(pipe[0], nil, a, nil, 8, 0))
	ok64(unix.Splice(b, nil, pipe[1], nil, 8, 0))
	went(event.Out, 0, text("spliced "))
	want[event.In] = want[event.Out]
	known[event.In] = append([]bool(nil), known[event.Out]...)
	for i := len(known[event.In]) - 17; i < len(known[event.In]); i++ {
		known[event.In][i] = false
	}
	// A call that nobody watches leaves a gap.
	_, err = unix.Pwritev2(a, [][]byte{text("unseen ")}, -1, 0)
	qt.Assert(t, qt.IsNil(err))
	ok(unix.Read(b, buf))
	ok(unix.Write(a, text("end")))
	ok(unix.Read(b, buf))
	went(event.Out, 0, text("unseen "))
	went(event.Out, 3, text("end"))
	went(event.In, 7, text("unseen "))
	went(event.In, 3, text("end"))
	// The end, and what is no stream.
	qt.Assert(t, qt.IsNil(unix.Close(a)))
	qt.Assert(t, qt.Equals(ok(unix.Read(b, buf)), 0))
	qt.Assert(t, qt.IsNil(unix.Close(b)))
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	_, err = u.WriteTo(text("datagram"), u.LocalAddr())
	qt.Assert(t, qt.IsNil(err))
	u.Close()
	unix.Close(pipe[0])
	unix.Close(pipe[1])
	time.Sleep(100 * time.Millisecond)
	c.stop()

	got := flows(t, c.events)
	qt.Check(t, qt.HasLen(got, 2))
	for k, f := range got {
		dir, gap := event.Out, uint64(7)
		if k.end.local == pb {
			dir, gap = event.In, 0
		} else {
			qt.Check(t, qt.Equals(k.end.local, pa))
		}
		qt.Check(t, qt.Equals(k.dir, dir))
		qt.Check(t, qt.Equals(f.gaps, gap), qt.Commentf("%v", dir))
		qt.Assert(t, qt.Equals(len(f.bytes), len(want[dir])))
		for i, b := range want[dir] {
			if f.known[i] != known[dir][i] || f.known[i] && f.bytes[i] != b {
				t.Fatalf("direction %d, byte %d: %q %v, want %q %v\n%s", dir, i, f.bytes[i], f.known[i], b, known[dir][i], eventList(c.events))
			}
		}
	}
	var last []string
	for _, e := range c.events {
		if e.Kind != event.Data {
			last = append(last, fmt.Sprintf("%d %v %d", e.Kind, e.LocalPort == pa, e.Dir))
		}
	}
	// a's way out ends, b reads its end, and both are gone.
	qt.Check(t, qt.DeepEquals(last[:2], []string{"4 true 1", "4 false 0"}), qt.Commentf("%s", eventList(c.events)))
	closed := map[bool]int{}
	for _, e := range c.events {
		if e.Kind == event.Close {
			closed[e.LocalPort == pa]++
		}
	}
	qt.Check(t, qt.DeepEquals(closed, map[bool]int{true: 1, false: 1}), qt.Commentf("%s", eventList(c.events)))
}

func eventList(events []event.Event) (s string) {
	for _, e := range events {
		s += fmt.Sprintf("kind %d dir %d %d->%d pos %d len %d %q\n", e.Kind, e.Dir, e.LocalPort, e.RemotePort, e.Pos, e.Len, e.Data[:min(len(e.Data), 20)])
	}
	return s
}

// testLoss: what there is no room for is counted, and what comes after it says how much is missing.
func testLoss(t *testing.T) {
	s, err := Syscalls(Options{PIDs: own(), RingBytes: 1})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer s.Close()
	a, b := sockets(t)
	defer unix.Close(a)
	defer unix.Close(b)
	sent := 0
	send := func(i int) {
		text := fmt.Appendf(nil, "message %04d %0500d", i, i)
		n, err := unix.Write(a, text)
		qt.Assert(t, qt.IsNil(err))
		sent += n
	}
	const lot = 100
	for i := range lot { // nobody looks
		send(i)
	}
	c := collect(t, s)
	time.Sleep(3 * lookInterval)
	send(lot)
	time.Sleep(3 * lookInterval)
	c.stop()

	loss := s.Loss()
	events := 0
	for _, e := range c.events {
		if e.Kind == event.Data {
			events++
		}
	}
	t.Logf("%d events of %d, %+v", events, lot+1, loss)
	qt.Check(t, qt.IsTrue(loss.RingFull > 0))
	qt.Check(t, qt.Equals(uint64(events)+loss.RingFull, lot+1))
	port := localPort(t, a)
	for k, f := range flows(t, c.events) {
		if k.end.local != port {
			continue
		}
		qt.Check(t, qt.Equals(len(f.bytes), sent))
		qt.Check(t, qt.Equals(f.gaps, loss.RingFull*513))
		qt.Check(t, qt.Equals(string(f.bytes[sent-513:sent-500]), "message 0100 "))
	}
}

// testMute: a connection that was muted is not heard of again, others are.
func testMute(t *testing.T) {
	s, err := Syscalls(Options{PIDs: own()})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer s.Close()
	a, b := sockets(t)
	muted := localPort(t, a)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	qt.Assert(t, qt.IsNil(err))
	write := func(fd int, text string) {
		_, err := unix.Write(fd, []byte(text))
		qt.Assert(t, qt.IsNil(err))
	}
	write(a, "one")
	write(pair[0], "one")
	c := collect(t, s)
	time.Sleep(3 * lookInterval)
	c.stop()
	qt.Assert(t, qt.HasLen(c.events, 2), qt.Commentf("%s", eventList(c.events)))
	for _, e := range c.events {
		if e.LocalPort == muted {
			qt.Assert(t, qt.IsNil(s.Mute(e.Conn)))
			later := e.Conn
			later.ID++ // nobody's
			qt.Assert(t, qt.IsNil(s.Mute(later)))
		} else {
			qt.Check(t, qt.IsFalse(e.Fresh)) // where it began is not known
			later := e.Conn
			later.Born++ // another one's
			qt.Assert(t, qt.IsNil(s.Mute(later)))
		}
	}
	for range 3 {
		write(a, "two")
		write(pair[0], "two")
	}
	unix.Close(a)
	unix.Close(b)
	write(pair[0], "end")
	c = collect(t, s)
	time.Sleep(3 * lookInterval)
	c.stop()
	qt.Check(t, qt.HasLen(c.events, 4), qt.Commentf("%s", eventList(c.events)))
	for _, e := range c.events {
		qt.Check(t, qt.Equals(e.LocalPort, 0))
		qt.Check(t, qt.Equals(string(e.Data), map[bool]string{true: "end", false: "two"}[e.Pos == 12]))
	}
	unix.Close(pair[0])
	unix.Close(pair[1])
}

// testFilters: what is not asked for is not told.
func testFilters(t *testing.T) {
	a, b := sockets(t)
	defer unix.Close(a)
	defer unix.Close(b)
	port := localPort(t, a)
	root := t.TempDir()
	qt.Assert(t, qt.IsNil(unix.Mount("none", root, "cgroup2", 0, "")))
	defer func() { _ = unix.Unmount(root, unix.MNT_DETACH) }()
	another := filepath.Join(root, "another")
	qt.Assert(t, qt.IsNil(os.Mkdir(another, 0o755)))
	defer func() { _ = os.Remove(another) }()
	for _, tt := range []struct {
		name string
		opts Options
		want int
	}{
		{"all that is right", Options{PIDs: []int{1 << 21, os.Getpid()}, Ports: []uint16{1, port}, Cgroups: []string{another, root}}, 2},
		{"another process", Options{PIDs: []int{1 << 21}}, 0},
		{"another port", Options{PIDs: own(), Ports: []uint16{1}}, 0},
		{"another cgroup", Options{PIDs: own(), Cgroups: []string{another}}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Syscalls(tt.opts)
			if err != nil {
				t.Fatalf("%+v", err)
			}
			defer s.Close()
			_, err = unix.Write(a, []byte("text"))
			qt.Assert(t, qt.IsNil(err))
			_, err = unix.Read(b, make([]byte, 10))
			qt.Assert(t, qt.IsNil(err))
			c := collect(t, s)
			time.Sleep(2 * lookInterval)
			c.stop()
			qt.Check(t, qt.HasLen(c.events, tt.want), qt.Commentf("%s", eventList(c.events)))
		})
	}
}

// testLoad: many at once. Where bytes are missing, a loss says so.
func testLoad(t *testing.T) {
	s, err := Syscalls(Options{PIDs: own()})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer s.Close()
	c := collect(t, s)
	tapes := &tapes{ends: map[end]*taped{}}
	url := serve(t, tapes)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			cl := client(tapes)
			for i := range 50 {
				get(t, cl, fmt.Sprintf("%s/%d", url, i), 200)
			}
			cl.CloseIdleConnections()
		})
	}
	wg.Wait()
	time.Sleep(100 * time.Millisecond)
	c.stop()
	loss := s.Loss()
	gaps := uint64(0)
	got := flows(t, c.events)
	qt.Check(t, qt.HasLen(got, 64))
	for k, f := range got {
		gaps += f.gaps
		want := tapes.ends[k.end].sent[k.dir].Bytes()
		qt.Check(t, qt.IsTrue(len(f.bytes) <= len(want)))
		for i, known := range f.known {
			if known && f.bytes[i] != want[i] {
				t.Fatalf("byte %d is %q, and was %q", i, f.bytes[i], want[i])
			}
		}
	}
	t.Logf("%d events, %d bytes missing, %+v", len(c.events), gaps, loss)
	if gaps > 0 {
		qt.Check(t, qt.Not(qt.Equals(loss, event.Loss{})))
	}
}
