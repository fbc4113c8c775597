// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/repair/surrogate"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

func TestHostStillProxy(t *testing.T) { testStillProxy(t, unix.SIGSTOP) }

// By the SIGIO of a process of uid 0 that has no capabilities, against which the proxy itself is
// not guarded.
func TestInGuestAttackStillProxy(t *testing.T) {
	vmtest.Guest(t)
	testStillProxy(t, unix.SIGIO)
	t.Run("without its guard", testStillProxyUnheeded)
}

// While the proxy is stopped loads are left to the kernel after a few seconds. When it goes on it
// repairs again, and says how many loads it did not see.
func testStillProxy(t *testing.T, how unix.Signal) {
	hardened(t)
	s := tell(t, "telling")
	s.more(t, "repaired", 1)
	for range 2 {
		s.stop(t, how)
		start := time.Now()
		s.more(t, "errno", 3) // one may have had its answer
		t.Logf("three loads %v after it was stopped", time.Since(start).Round(time.Millisecond))
		qt.Assert(t, qt.IsNil(s.cmd.Process.Signal(unix.SIGCONT)))
		s.more(t, "repaired", 2)
	}
	s.end(t)
	qt.Check(t, qt.StringContains(s.out.String(), "that bpfwhy did not look at, because it was stopped"))
	qt.Check(t, qt.Equals(s.count("errno 38"), 0))
}

// What the guard is good for: without it all loads hang as long as the proxy is stopped.
func testStillProxyUnheeded(t *testing.T) {
	s := tell(t, "telling alone")
	s.more(t, "repaired", 1)
	s.stop(t, unix.SIGIO)
	before := s.count("errno")
	time.Sleep(3 * stillBeats * beat) // as long as three loads took at most with it
	qt.Check(t, qt.IsTrue(s.count("errno") <= before+1), qt.Commentf("%d before, %d since", before, s.count("errno")-before))
	qt.Assert(t, qt.IsNil(s.cmd.Process.Signal(unix.SIGCONT)))
	s.more(t, "repaired", 2)
	s.end(t)
}

// told is a supervisor that says what it repairs, with a loader that loads again and again.
type told struct {
	cmd *exec.Cmd
	in  io.Closer
	out lockedBuffer
}

func tell(t *testing.T, how string) *told {
	s := &told{cmd: exec.Command("/proc/self/exe")}
	s.cmd.Args = []string{supervisorArgv0, how, "/proc/self/exe", loaderArgv0, "again", "far"}
	in, err := s.cmd.StdinPipe()
	qt.Assert(t, qt.IsNil(err))
	s.in = in
	s.cmd.Stdout, s.cmd.Stderr = writer(s.out.write), writer(s.out.write)
	qt.Assert(t, qt.IsNil(s.cmd.Start()))
	t.Cleanup(func() { s.cmd.Process.Kill() })
	return s
}

func (s *told) count(what string) int { return strings.Count(s.out.String(), what) }

// more waits until it has been said n times more.
func (s *told) more(t *testing.T, what string, n int) {
	t.Helper()
	before := s.count(what)
	eventually(t, what, func() bool { return s.count(what) >= before+n })
}

func (s *told) stop(t *testing.T, how unix.Signal) {
	t.Helper()
	var err error
	if how == unix.SIGIO {
		err = vmtest.SIGIO(s.cmd.Process.Pid, unix.SIGSTOP)
	} else {
		err = s.cmd.Process.Signal(how)
	}
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(vmtest.Struck(s.cmd.Process.Pid, time.Second)))
}

func (s *told) end(t *testing.T) {
	t.Helper()
	s.in.Close()
	qt.Check(t, qt.IsNil(s.cmd.Wait()), qt.Commentf("%s", tail(s.out.String())))
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) {
	w(b)
	return len(b), nil
}

// One of two who receive is told that the other was first, and nobody waits for long for one who
// was stopped while he did.
func TestReceiveBeside(t *testing.T) {
	listener, _ := pollable(t)
	s, f, err := newSlots()
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	p := s.pulse()
	p.stoodIn.Store(true)
	qt.Check(t, qt.ErrorIs(p.receive(byProxy, listener, s.at(0)), errGone)) // nothing is there
	qt.Check(t, qt.Equals(p.receiving.Load(), byNobody))
	p.receiving.Store(byProxy)
	start := time.Now()
	qt.Check(t, qt.ErrorIs(p.receive(byGuardian, listener, s.at(0)), errGone))
	qt.Check(t, qt.IsTrue(time.Since(start) >= beat/2 && time.Since(start) < 10*beat), qt.Commentf("%v", time.Since(start)))
	qt.Check(t, qt.Equals(p.receiving.Load(), byNobody))
}

// pollable is a descriptor with nothing to read.
func pollable(t *testing.T) (ours, theirs int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { unix.Close(pair[0]); unix.Close(pair[1]) })
	return pair[0], pair[1]
}

// A proxy that does not beat is still, one whose leash is let go is gone, and one that beats is
// neither.
func TestAwaitPulse(t *testing.T) {
	leash, theirs := pollable(t)
	memory, err := surrogate.Memory("test", sharedSize)
	qt.Assert(t, qt.IsNil(err))
	defer memory.Close()
	shared, err := mapSlots(int(memory.Fd()))
	qt.Assert(t, qt.IsNil(err))
	p := (&slots{memory: shared}).pulse()
	beating := make(chan struct{})
	go func() {
		defer close(beating)
		for range 3 {
			time.Sleep(beat)
			p.beats.Add(1)
		}
	}()
	start := time.Now()
	qt.Check(t, qt.IsFalse(p.await(leash)))
	<-beating
	qt.Check(t, qt.IsTrue(time.Since(start) >= (3+stillBeats-1)*beat), qt.Commentf("%v", time.Since(start)))
	unix.Shutdown(theirs, unix.SHUT_RDWR)
	qt.Check(t, qt.IsTrue(p.await(leash)))
}
