// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// A thread gets its program, and no other descriptor, whatever signals the proxy gets while it
// answers. It is slow to wake up, since it has to wait for its processor. On a machine with one
// processor that seldom meets with a signal.
func testAnswerUnderSignals(t *testing.T, killable bool) {
	o := smallOutcome(t)
	defer o.close()
	c := startCaller(t, killable)
	var done atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait()
	defer done.Store(true)
	busy := make(chan struct{})
	wg.Go(func() { // what keeps the processor for a while, again and again
		runtime.LockOSThread() // for good: the thread ends
		_ = unix.SchedSetaffinity(0, &c.processor)
		first := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
		_ = unix.SchedSetAttr(0, first, 0)
		for range busy {
			for start := time.Now(); time.Since(start) < 8*time.Millisecond; {
			}
		}
	})
	defer close(busy)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, tid := unix.Getpid(), unix.Gettid()
	wg.Go(func() {
		for ; !done.Load(); time.Sleep(200 * time.Microsecond) {
			_ = unix.Tgkill(pid, tid, unix.SIGURG)
		}
	})
	p := &Proxy{listener: c.listener}
	for range 10 {
		o.given = false
		n := c.receive(t)
		busy <- struct{}{}
		qt.Assert(t, qt.IsNil(p.addProgram(n, o)))
		r := <-c.results
		qt.Assert(t, qt.Equals(r.errno, 0))
		qt.Assert(t, qt.IsTrue(hasProgram(c.tid, r.fd, o.info.id)), qt.Commentf("descriptor %d", r.fd))
		unix.Close(r.fd)
	}
}

// A thread whose call is cancelled when it has its descriptor gets the same one when it calls
// again, unless it has put something else there.
func testAnswerAgain(t *testing.T) {
	o := smallOutcome(t)
	defer o.close()
	c := startCaller(t, false)
	p := &Proxy{listener: c.listener}
	// The runtime of Go sends the thread signals too, so any call may be one that is cancelled.
	cancelled := func(err error) bool {
		qt.Assert(t, qt.IsTrue(err == nil || err == errGone), qt.Commentf("%v", err))
		return err != nil
	}
	give := func(n *notification) called {
		for cancelled(p.addProgram(n, o)) {
			n = c.receive(t)
		}
		return <-c.results
	}
	var n *notification
	for !o.given {
		n = c.receive(t)
		var err error
		o.theirs, err = addFD(c.listener, n.id, o.fd)
		o.given = !cancelled(err)
	}
	first := o.theirs
	qt.Assert(t, qt.IsNil(unix.Tgkill(unix.Getpid(), c.tid, unix.SIGURG)))
	next := c.receive(t)
	qt.Assert(t, qt.IsFalse(valid(c.listener, n.id)))
	r := give(next)
	qt.Check(t, qt.Equals(r, called{fd: first}))
	qt.Check(t, qt.IsTrue(hasProgram(c.tid, first, o.info.id)))

	qt.Assert(t, qt.IsNil(unix.Dup2(0, first)))
	defer unix.Close(first)
	r = give(c.receive(t))
	qt.Check(t, qt.Not(qt.Equals(r.fd, first)))
	qt.Check(t, qt.IsTrue(hasProgram(c.tid, r.fd, o.info.id)))
	unix.Close(r.fd)
}

// smallOutcome is a program of ours to be given.
func smallOutcome(t *testing.T) *outcome {
	l := request{name: "small", code: small}.load()
	qt.Assert(t, qt.Equals(l.Errno, 0))
	o := &outcome{fd: l.FD}
	qt.Assert(t, qt.IsNil(o.ask()))
	return o
}

// caller is a thread that makes loads which wait for an answer of the test, and does nothing else.
// It gets its processor when nobody else wants it.
type caller struct {
	listener  int
	tid       int
	processor unix.CPUSet
	results   chan called
}

type called struct {
	fd    int
	errno unix.Errno
}

func startCaller(t *testing.T, killable bool) *caller {
	c := &caller{results: make(chan called)}
	var all unix.CPUSet
	qt.Assert(t, qt.IsNil(unix.SchedGetaffinity(0, &all)))
	for i := 0; c.processor.Count() == 0; i++ {
		if all.IsSet(i) {
			c.processor.Set(i)
		}
	}
	stop, ended, started := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		defer close(ended)
		runtime.LockOSThread() // for good: the thread ends, and with it the filter
		c.tid = unix.Gettid()
		_ = unix.SchedSetaffinity(0, &c.processor)
		_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
		var err error
		c.listener, _, err = install(killable)
		started <- err
		if err != nil {
			return
		}
		for {
			var a attr
			fd, errno := sysBPF(unix.BPF_PROG_LOAD, unsafe.Pointer(&a), unsafe.Sizeof(a))
			select {
			case c.results <- called{fd, errno}:
			case <-stop:
				return
			}
		}
	}()
	qt.Assert(t, qt.IsNil(<-started))
	t.Cleanup(func() {
		close(stop)
		unix.Close(c.listener) // a call that waits ends with ENOSYS
		<-ended
	})
	return c
}

// receive receives a call.
func (c *caller) receive(t *testing.T) *notification {
	for {
		slot := make([]byte, slotSize)
		err := receive(c.listener, slot)
		if err == errGone {
			continue
		}
		qt.Assert(t, qt.IsNil(err))
		return parseNotification(0, slot)
	}
}
