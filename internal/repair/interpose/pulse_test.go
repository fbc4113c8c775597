// SPDX-License-Identifier: Apache-2.0

package interpose

import (
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
}

// While the proxy is stopped loads are left to the kernel after a few seconds. When it goes on it
// repairs again, and says how many loads it did not see.
func testStillProxy(t *testing.T, how unix.Signal) {
	hardened(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{supervisorArgv0, "telling", "/proc/self/exe", loaderArgv0, "again", "far"}
	in, err := cmd.StdinPipe()
	qt.Assert(t, qt.IsNil(err))
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = writer(out.write), writer(out.write)
	qt.Assert(t, qt.IsNil(cmd.Start()))
	defer cmd.Process.Kill()
	count := func(what string) int { return strings.Count(out.String(), what) }
	more := func(what string, n int) {
		t.Helper()
		before := count(what)
		eventually(t, what, func() bool { return count(what) >= before+n })
	}
	more("repaired", 1)
	for range 2 {
		if how == unix.SIGIO {
			err = vmtest.SIGIO(cmd.Process.Pid, unix.SIGSTOP)
		} else {
			err = cmd.Process.Signal(how)
		}
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(vmtest.Struck(cmd.Process.Pid, time.Second)))
		start := time.Now()
		more("errno", 3) // one may have had its answer
		t.Logf("three loads %v after it was stopped", time.Since(start).Round(time.Millisecond))
		qt.Assert(t, qt.IsNil(cmd.Process.Signal(unix.SIGCONT)))
		more("repaired", 2)
	}
	in.Close()
	qt.Check(t, qt.IsNil(cmd.Wait()), qt.Commentf("%s", tail(out.String())))
	qt.Check(t, qt.StringContains(out.String(), "that bpfwhy did not look at, because it was stopped"))
	qt.Check(t, qt.Equals(count("errno 38"), 0))
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
