// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// These do what their namesakes do, for one digit, without a detour through the scheduler of Go.

func pwrite(f *os.File, v int) error {
	b := [2]byte{'0' + byte(v), '\n'}
	_, _, errno := unix.RawSyscall6(unix.SYS_PWRITE64, f.Fd(), uintptr(unsafe.Pointer(&b)), uintptr(len(b)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func pread(f *os.File) (int, error) {
	var b [2]byte
	_, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, f.Fd(), uintptr(unsafe.Pointer(&b)), uintptr(len(b)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(b[0]) - '0', nil
}

// lowered is memory that a guardian shares with its starter: the moment at which it lowered the
// value, by CLOCK_MONOTONIC, 0 while it is not. It is written before the value is, and wakes
// nobody.
type lowered struct{ at *atomic.Int64 }

// loweredFD is the descriptor of that memory in a guardian.
const loweredFD = 3

func mapLowered(fd int) (lowered, error) {
	b, err := unix.Mmap(fd, 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return lowered{}, fmt.Errorf("map shared memory: %w", err)
	}
	return lowered{(*atomic.Int64)(unsafe.Pointer(&b[0]))}, nil
}

func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

func (l lowered) now()  { l.at.Store(monotonic()) }
func (l lowered) over() { l.at.Store(0) }

// since is how long the value has been lowered, 0 when it is not.
func (l lowered) since() time.Duration {
	if at := l.at.Load(); at != 0 {
		return time.Duration(monotonic() - at)
	}
	return 0
}

// watch notices that a file is written to, by whoever sees it in the same procfs, also when the
// value stays the same. -1: not possible.
type watch struct{ fd int }

func newWatch(f *os.File) watch {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return watch{-1}
	}
	if _, err := unix.InotifyAddWatch(fd, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.IN_MODIFY); err != nil {
		unix.Close(fd)
		return watch{-1}
	}
	return watch{fd}
}

// changed reports whether it was written to since it was last asked.
func (w watch) changed() bool {
	var b [unix.SizeofInotifyEvent + unix.PathMax]byte
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(w.fd), uintptr(unsafe.Pointer(&b)), uintptr(len(b)))
	return errno == 0 && n > 0
}
