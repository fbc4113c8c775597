// SPDX-License-Identifier: Apache-2.0

package hardenwindow

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// missing is memory of which no page is there: who touches it waits until it is delivered.
type missing struct {
	memory []byte
	fd     int
}

// Of include/uapi/linux/userfaultfd.h.
const (
	uffdAPI         = 0xaa
	uffdioAPI       = 0xc018aa3f
	uffdioRegister  = 0xc020aa00
	uffdioCopy      = 0xc028aa03
	registerMissing = 1
)

func newMissing(size int) (*missing, error) {
	// O_NONBLOCK, without which poll(2) does not work on it.
	r, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno != 0 {
		return nil, fmt.Errorf("userfaultfd: %w", errno)
	}
	m := &missing{fd: int(r)}
	api := struct{ api, features, ioctls uint64 }{api: uffdAPI}
	if err := m.ioctl(uffdioAPI, unsafe.Pointer(&api)); err != nil {
		m.close()
		return nil, fmt.Errorf("userfaultfd: %w", err)
	}
	var err error
	if m.memory, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		m.close()
		return nil, fmt.Errorf("map memory: %w", err)
	}
	reg := struct{ start, len, mode, ioctls uint64 }{uint64(m.address()), uint64(size), registerMissing, 0}
	if err := m.ioctl(uffdioRegister, unsafe.Pointer(&reg)); err != nil {
		m.close()
		return nil, fmt.Errorf("userfaultfd: %w", err)
	}
	return m, nil
}

func (m *missing) address() uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(m.memory))) }

func (m *missing) close() {
	unix.Close(m.fd)
	if m.memory != nil {
		_ = unix.Munmap(m.memory)
	}
}

func (m *missing) ioctl(request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(m.fd), request, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

// wait waits until somebody touches the memory, all has ended, or the time, unless 0, is over. It does not let the scheduler of Go have the
// processor, which could take long to come back, but for a moment from time to time.
func (m *missing) wait(ended *atomic.Bool, limit time.Duration) (touched bool) {
	start := time.Now()
	for !ended.Load() {
		fds := [1]unix.PollFd{{Fd: int32(m.fd), Events: unix.POLLIN}}
		timeout := unix.Timespec{Nsec: 1e6}
		n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), 1, uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
		if errno == 0 && n > 0 {
			return true
		}
		if limit != 0 && time.Since(start) > limit {
			return false
		}
		runtime.Gosched()
	}
	return false
}

// deliver fills the memory, and lets go who waits for it.
func (m *missing) deliver(content []byte) error {
	a := struct {
		dst, src, len, mode uint64
		copied              int64
	}{uint64(m.address()), uint64(uintptr(unsafe.Pointer(&content[0]))), uint64(len(content)), 0, 0}
	for a.len > 0 {
		err := m.ioctl(uffdioCopy, unsafe.Pointer(&a))
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("deliver the instructions: %w", err)
		}
		if a.copied > 0 { // in part; the rest again
			a.dst, a.src, a.len = a.dst+uint64(a.copied), a.src+uint64(a.copied), a.len-uint64(a.copied)
		}
		a.copied = 0
	}
	return nil
}
