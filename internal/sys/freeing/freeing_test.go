// SPDX-License-Identifier: Apache-2.0

package freeing

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

func TestBound(t *testing.T) {
	waits := 0
	b := Bound{wait: func(d time.Duration) error {
		waits++
		if waits == 3 {
			return ErrStuck
		}
		return nil
	}}
	var err error
	n := 0
	for ; err == nil; n++ {
		err = b.Closed()
	}
	qt.Check(t, qt.Equals(n, 3*most))
	qt.Check(t, qt.ErrorIs(err, ErrStuck))
}

// TestWait: the kernel is seen freeing, and the wait is short.
func TestWait(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	id, err := leaveMap()
	if errors.Is(err, unix.EPERM) {
		t.Skip("may not load")
	}
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(id != 0))
	start := time.Now()
	qt.Check(t, qt.IsNil(Wait(deadline)))
	t.Logf("waited %v", time.Since(start))
	qt.Check(t, qt.ErrorIs(Wait(0), ErrStuck)) // RCU is never that fast
}

// TestWaitsForAll: what was closed before on this CPU is gone after the wait, and was not before.
func TestWaitsForAll(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread() // never unlocked: the affinity goes with the thread
	var here unix.CPUSet
	qt.Assert(t, qt.IsNil(unix.SchedGetaffinity(0, &here)))
	for cpu := 0; here.Count() > 1; cpu++ {
		here.Clear(cpu)
	}
	qt.Assert(t, qt.IsNil(unix.SchedSetaffinity(0, &here)))
	left := func(ids []uint32) (n int) {
		for _, id := range ids {
			if fd, err := bpf(unix.BPF_MAP_GET_FD_BY_ID, unsafe.Pointer(&struct{ id, next, flags uint32 }{id: id}), 12); err == nil {
				unix.Close(fd)
				n++
			}
		}
		return n
	}
	var ids []uint32
	for range 64 {
		id, err := leaveMap()
		if errors.Is(err, unix.EPERM) {
			t.Skip("may not load")
		}
		qt.Assert(t, qt.IsNil(err))
		ids = append(ids, id)
	}
	before := left(ids)
	qt.Assert(t, qt.IsNil(Wait(deadline)))
	qt.Check(t, qt.Equals(left(ids), 0))
	t.Logf("%d of %d were left before", before, len(ids))
	qt.Check(t, qt.IsTrue(before > 0))
}
