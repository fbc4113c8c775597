// SPDX-License-Identifier: Apache-2.0

package threads

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

const childEnv = "BPFWHY_TEST_THREADS"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		fmt.Println(closeMany())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// waits is closed by waiting in the kernel, which holds a thread.
type waits struct{ closed *atomic.Int32 }

func (w waits) Close() error {
	w.closed.Add(1)
	_ = unix.Nanosleep(&unix.Timespec{Nsec: 20e6}, nil) // a signal may end it early
	return nil
}

const many = 200

func closeMany() (closed int32, err error) {
	limit := unix.Rlimit{Cur: 32, Max: 32}
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &limit); err != nil {
		return 0, err
	}
	var n atomic.Int32
	list := make([]waits, many)
	for i := range list {
		list[i].closed = &n
	}
	err = Close(list)
	return n.Load(), err
}

// TestCloseManyUnderALimit: a process that may have 32 threads closes 200 that wait in the kernel.
// With a goroutine for each Go ends it: "failed to create new OS thread".
func TestCloseManyUnderALimit(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else who has no other threads")
	}
	const nobody = 64999 // of whom all threads count, whatever started them
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	qt.Check(t, qt.Equals(string(out), fmt.Sprintf("%d <nil>\n", many)))
}

// Each is called once for each, several are under way, and no more than a few.
func TestEach(t *testing.T) {
	for _, n := range []int{0, 1, atOnce, 5 * atOnce} {
		var now, most atomic.Int32
		calls := make([]int, n)
		Each(n, func(i int) {
			calls[i]++
			if k := now.Add(1); k > most.Load() {
				most.Store(k)
			}
			time.Sleep(time.Millisecond)
			now.Add(-1)
		})
		for i, c := range calls {
			qt.Check(t, qt.Equals(c, 1), qt.Commentf("%d of %d", i, n))
		}
		qt.Check(t, qt.IsTrue(most.Load() <= atOnce))
		qt.Check(t, qt.IsTrue(most.Load() > 1 || n < 2), qt.Commentf("%d", most.Load()))
	}
}

type fails struct{ error }

func (f fails) Close() error { return f.error }

// What goes wrong with one is told, and the others are closed.
func TestCloseErrors(t *testing.T) {
	a, b := errors.New("a"), errors.New("b")
	err := Close([]fails{{a}, {nil}, {b}})
	qt.Check(t, qt.ErrorIs(err, a))
	qt.Check(t, qt.ErrorIs(err, b))
	qt.Check(t, qt.IsNil(Close([]fails{{nil}})))
}

// A node has many processors; who says how many are to be used is obeyed.
func TestLimitProcessors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(64))
	t.Setenv("GOMAXPROCS", "64")
	LimitProcessors()
	qt.Check(t, qt.Equals(runtime.GOMAXPROCS(0), 64))
	os.Unsetenv("GOMAXPROCS")
	back := LimitProcessors()
	qt.Check(t, qt.Equals(runtime.GOMAXPROCS(0), processors))
	back()
	qt.Check(t, qt.Equals(runtime.GOMAXPROCS(0), 64))
	runtime.GOMAXPROCS(2)
	LimitProcessors()()
	qt.Check(t, qt.Equals(runtime.GOMAXPROCS(0), 2))
}
