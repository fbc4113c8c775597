// SPDX-License-Identifier: Apache-2.0

package hardenwindow

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// missing is memory of which no page is there: who touches it waits until it is delivered.
type missing struct {
	fd      int
	address uintptr
	memory  []byte // nil when it is another process's
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
	m.address = uintptr(unsafe.Pointer(unsafe.SliceData(m.memory)))
	reg := struct{ start, len, mode, ioctls uint64 }{uint64(m.address), uint64(size), registerMissing, 0}
	if err := m.ioctl(uffdioRegister, unsafe.Pointer(&reg)); err != nil {
		m.close()
		return nil, fmt.Errorf("userfaultfd: %w", err)
	}
	return m, nil
}

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

// deliver fills the memory, and lets go who waits for it.
func (m *missing) deliver(content []byte) error {
	a := struct {
		dst, src, len, mode uint64
		copied              int64
	}{uint64(m.address), uint64(uintptr(unsafe.Pointer(&content[0]))), uint64(len(content)), 0, 0}
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
