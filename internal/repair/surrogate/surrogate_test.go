// SPDX-License-Identifier: Apache-2.0

package surrogate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

func TestKernels(t *testing.T) {
	vmtest.RunIn(t, vmtest.Sample(), "^TestHostOrGuest|^TestGuest", vm.Machine{})
}

// two is the program "return 7", as a socket filter.
func two(as As) *Load {
	attr := make([]byte, 48)
	binary.NativeEndian.PutUint32(attr, 1)
	binary.NativeEndian.PutUint32(attr[4:], 2)
	code := make([]byte, 16)
	code[0], code[4], code[8] = 0xb7, 7, 0x95
	return &Load{As: as, Attr: attr, Code: code, CodeAt: 8, LogAt: 32, Parts: []Part{{16, []byte("GPL\x00")}}}
}

func nobodyWith(caps uint64) As {
	return As{UID: [3]int{65534, 65534, 65534}, GID: [3]int{65534, 65534, 65534}, Caps: caps}
}

const capBPF = 1 << unix.CAP_BPF

func source(t *testing.T, o guards) *Source {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	s, err := newSource(o)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(s.Close)
	return s
}

var ample = Limits{Total: 30 * time.Second, Still: 30 * time.Second}

func soon() time.Time { return time.Now().Add(30 * time.Second) }

func makes(t *testing.T, s *Source, l *Load) (uid uint32, err error) {
	t.Helper()
	p, err := s.New(l)
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	fd, err := p.Result(ample)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return created(t, fd), nil
}

func created(t *testing.T, fd int) uint32 {
	t.Helper()
	info := make([]byte, 64)
	a := struct {
		fd, len uint32
		info    *byte
	}{uint32(fd), uint32(len(info)), &info[0]}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_OBJ_GET_INFO_BY_FD, pointerTo(&a), 16)
	qt.Assert(t, qt.Equals(errno, 0))
	return binary.NativeEndian.Uint32(info[48:])
}

// A program belongs to who it was loaded for, and who may not load does not.
func TestHostOrGuestAs(t *testing.T) {
	s := source(t, guards{pause: -1})
	uid, err := makes(t, s, two(nobodyWith(capBPF)))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(uid, 65534))
	kprobe := two(nobodyWith(capBPF)) // needs CAP_PERFMON too
	binary.NativeEndian.PutUint32(kprobe.Attr, 2)
	_, err = makes(t, s, kprobe)
	qt.Check(t, qt.Equals(err, error(unix.EPERM)))
	uid, err = makes(t, s, two(As{Groups: []int{1, 2, 3}, Caps: capBPF}))
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(uid, 0))
}

func status(t *testing.T, pid int, key string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	qt.Assert(t, qt.IsNil(err))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.Join(strings.Fields(v), " ")
		}
	}
	t.Fatalf("no %s", key)
	return ""
}

// waits starts a process that waits at a gate.
func waits(t *testing.T, s *Source, l *Load) (p *Process, open func()) {
	t.Helper()
	l.Gated = true
	p, err := s.New(l)
	qt.Assert(t, qt.IsNil(err))
	w, r, err := socketpair()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.Gate(r)))
	r.Close()
	t.Cleanup(func() { w.Close(); p.Close() })
	qt.Assert(t, qt.IsNil(w.SetReadDeadline(soon())))
	_, err = w.Read(make([]byte, 1))
	qt.Assert(t, qt.IsNil(err))
	return p, func() { _, _ = w.Write([]byte{1}) }
}

// A process that loads has the ids of its thread, one thread, no capability but the thread's, no
// descriptor but the load's.
func TestHostOrGuestNothingElse(t *testing.T) {
	s := source(t, guards{pause: -1})
	null, err := os.Open("/dev/null")
	qt.Assert(t, qt.IsNil(err))
	defer null.Close()
	l := two(As{UID: [3]int{1000, 1001, 1002}, GID: [3]int{5, 6, 7}, Groups: []int{8, 9}, Caps: capBPF})
	l.Objects = []int{int(null.Fd()), int(null.Fd())}
	p, open := waits(t, s, l)
	for key, want := range map[string]string{
		"Uid": "1000 1001 1002 1001", "Gid": "5 6 7 6", "Groups": "8 9", "Threads": "1",
		"CapPrm": "0000008000000000", "CapEff": "0000008000000000", "CapInh": "0000000000000000", "CapAmb": "0000000000000000",
		"SigBlk": "fffffffffffbfeff", // all but KILL and STOP
	} {
		qt.Check(t, qt.Equals(status(t, p.PID(), key), want), qt.Commentf(key))
	}
	var got []string
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
	qt.Assert(t, qt.IsNil(err))
	for _, f := range files {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", p.PID(), f.Name()))
		qt.Assert(t, qt.IsNil(err))
		kind, _, _ := strings.Cut(to, ":")
		got = append(got, kind)
	}
	slices.Sort(got)
	qt.Check(t, qt.DeepEquals(got, []string{"/dev/null", "/dev/null", "socket", "socket"}))
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID()))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(env), ""))
	open()
	fd, err := p.Result(ample)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(created(t, fd), 1000))
	unix.Close(fd)
}

// Who starts the processes cannot be signalled by those who have no CAP_KILL, nor traced.
func TestHostOrGuestServer(t *testing.T) {
	s := source(t, guards{pause: -1})
	pid := s.server.cmd.Process.Pid
	qt.Check(t, qt.Equals(status(t, pid, "Uid"), strings.TrimSpace(strings.Repeat(fmt.Sprint(uint32(Nobody))+" ", 4))))
	qt.Check(t, qt.Equals(status(t, pid, "Groups"), ""))
	st, err := os.Stat(fmt.Sprintf("/proc/%d/mem", pid)) // root's when its memory is hidden
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(st.Sys().(*unixStat).Uid, 0))
}

// A process that is stopped is killed when its time is over; one that starts them and is killed is
// replaced.
func TestHostOrGuestStopped(t *testing.T) {
	s := source(t, guards{pause: -1})
	p, open := waits(t, s, two(As{Caps: capBPF}))
	qt.Assert(t, qt.IsNil(unix.Kill(p.PID(), unix.SIGSTOP)))
	open()
	_, err := p.Result(Limits{Total: time.Second, Still: 100 * time.Millisecond})
	qt.Check(t, qt.ErrorIs(err, ErrTimeout))
	gone(t, p)

	p, _ = waits(t, s, two(As{Caps: capBPF}))
	qt.Assert(t, qt.IsNil(unix.Kill(p.PID(), unix.SIGKILL)))
	_, err = p.Result(ample)
	qt.Check(t, qt.ErrorIs(err, ErrEnded))
	qt.Check(t, qt.ErrorMatches(err, "(be ready|wait at the gate): .*"))

	qt.Assert(t, qt.IsNil(s.server.cmd.Process.Kill()))
	_ = s.server.cmd.Wait()
	_, err = s.New(two(As{Caps: capBPF}))
	qt.Check(t, qt.ErrorIs(err, errServer))
	uid, err := makes(t, s, two(As{Caps: capBPF}))
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(uid, 0))
}

// What somebody else sends by the socket of a process, which he took in the moment of its end, is
// no answer.
func TestHostOrGuestForged(t *testing.T) {
	s := source(t, guards{pause: -1})
	p, _ := waits(t, s, two(As{Caps: capBPF}))
	// As root may before the end, too.
	stolen, err := unix.PidfdGetfd(p.pidfd, first, 0)
	qt.Assert(t, qt.IsNil(err))
	defer unix.Close(stolen)
	null, err := os.Open("/dev/null")
	qt.Assert(t, qt.IsNil(err))
	defer null.Close()
	qt.Assert(t, qt.IsNil(unix.Kill(p.PID(), unix.SIGKILL)))
	gone(t, p)
	qt.Assert(t, qt.IsNil(unix.Sendmsg(stolen, []byte{0}, unix.UnixRights(int(null.Fd())), nil, 0)))
	_, err = p.Result(ample)
	qt.Check(t, qt.ErrorIs(err, ErrEnded))

	// Nor does whoever has it keep us waiting.
	p, _ = waits(t, s, two(As{Caps: capBPF}))
	silent, err := unix.PidfdGetfd(p.pidfd, first, 0)
	qt.Assert(t, qt.IsNil(err))
	defer unix.Close(silent)
	qt.Assert(t, qt.IsNil(unix.Kill(p.PID(), unix.SIGKILL)))
	start := time.Now()
	_, err = p.Result(ample)
	qt.Check(t, qt.ErrorIs(err, ErrEnded))
	qt.Check(t, qt.IsTrue(time.Since(start) < ample.Still/2))
}

// A process that is stopped does not stay when all others are gone.
func TestHostOrGuestStoppedForGood(t *testing.T) {
	s := source(t, guards{pause: -1})
	p, _ := waits(t, s, two(As{UID: [3]int{1000, 1000, 1000}, Caps: capBPF}))
	qt.Assert(t, qt.IsNil(unix.Kill(p.PID(), unix.SIGSTOP)))
	s.Close()
	gone(t, p)
}

// gone waits for the end of a process.
func gone(t *testing.T, p *Process) {
	t.Helper()
	qt.Assert(t, qt.IsTrue(goneWithin(t, p, 30*time.Second)))
}

// goneWithin looks by the handle of a process, as nobody is its parent who would wait for it.
func goneWithin(t *testing.T, p *Process, limit time.Duration) bool {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	for until := time.Now().Add(limit); ; {
		n, err := unix.Poll(fds, max(0, int(time.Until(until).Milliseconds())))
		if !errors.Is(err, unix.EINTR) {
			qt.Assert(t, qt.IsNil(err))
			return n == 1
		}
	}
}

// The log and the attributes come back, the instructions where they are missing too.
func TestHostOrGuestLog(t *testing.T) {
	s := source(t, guards{pause: -1})
	l := two(As{Caps: 1<<unix.CAP_SYS_ADMIN | capBPF})
	binary.NativeEndian.PutUint32(l.Attr[24:], 1)
	l.LogSize = 4096
	binary.NativeEndian.PutUint32(l.Attr[28:], 4096)
	p, err := s.New(l)
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	fd, err := p.Result(ample)
	qt.Assert(t, qt.IsNil(err))
	unix.Close(fd)
	qt.Check(t, qt.StringContains(string(p.Log()), "processed 2 insns"))
}

func BenchmarkLoad(b *testing.B) {
	s, err := Start()
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for range b.N {
		p, err := s.New(two(As{Caps: capBPF}))
		if err != nil {
			b.Fatal(err)
		}
		fd, err := p.Result(ample)
		if err != nil {
			b.Fatal(err)
		}
		unix.Close(fd)
		p.Close()
	}
}
