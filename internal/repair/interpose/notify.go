// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notifSize and others are the sizes of include/uapi/linux/seccomp.h. A slot has room for a
// notification that has grown.
const (
	notifSize = 80
	respSize  = 24
	slotSize  = 128
)

// notification is one load that waits for its answer.
type notification struct {
	slot   int
	id     uint64
	tid    int // in our pid namespace
	user   int // that it counts for, -1 as long as that is not known
	attr   uint64
	size   uint32
	memory *memory // until it is answered

	answered atomic.Bool // or about to be: there is one answer
}

// claim reports true once, to who is to answer.
func (n *notification) claim() bool { return n.answered.CompareAndSwap(false, true) }

// parseNotification reads a struct seccomp_notif.
func parseNotification(slot int, b []byte) *notification {
	// id, pid, flags, then struct seccomp_data: nr, arch, instruction pointer, six arguments
	u64 := binary.NativeEndian.Uint64
	return &notification{
		slot: slot, id: u64(b), tid: int(binary.NativeEndian.Uint32(b[8:])), user: -1,
		attr: u64(b[40:]), size: uint32(u64(b[48:])),
	}
}

// errGone is a notification that nobody waits for any more: the thread was interrupted by a signal,
// or has ended.
var errGone = errors.New("the load was given up")

func ioctl(fd int, request uint, arg unsafe.Pointer) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg))
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR:
			continue
		case unix.ENOENT, unix.EINPROGRESS: // the other of proxy and guardian has just answered
			return -1, errGone
		}
		return -1, errno
	}
}

// receive fills a slot, which must be zero. errGone: nobody waits after all.
func receive(listener int, slot []byte) error {
	_, err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&slot[0]))
	return err
}

// valid reports whether the thread still waits, so that what was read from /proc by its number was
// its own.
func valid(listener int, id uint64) bool {
	_, err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&id))
	return err == nil
}

// waits is valid for a notification of the proxy's.
func (p *Proxy) waits(n *notification) bool {
	return p.options.without.numbers || valid(p.listener, n.id)
}

type response struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

func respond(listener int, r response) error {
	_, err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
	return err
}

// sendContinue lets the kernel carry out the call as if there were no filter.
func sendContinue(listener int, id uint64) error {
	return respond(listener, response{id: id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
}

type addfd struct {
	id         uint64
	flags      uint32
	srcfd      uint32
	newfd      uint32
	newfdFlags uint32
}

// addFD gives the waiting thread a copy of fd, closed on exec as the kernel's own are, and returns
// its number there. The call does not return yet: the answer is a step of its own. The kernel would
// do both in one (SECCOMP_ADDFD_FLAG_SEND, 5.14). But a signal that reaches us before the thread
// has woken up takes back the descriptor and not the answer. The thread's call then succeeds with
// 0: its standard input, or a program that it loaded before.
func addFD(listener int, id uint64, fd int) (int, error) {
	a := addfd{id: id, srcfd: uint32(fd), newfdFlags: unix.O_CLOEXEC}
	return ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&a))
}

// sendFD lets the call of the waiting thread return a descriptor that the thread has.
func sendFD(listener int, id uint64, fd int) error {
	return respond(listener, response{id: id, val: int64(fd)})
}

// sizes asks for the sizes that this kernel uses.
func sizes() error {
	var s struct{ notif, resp, data uint16 }
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&s)))
	runtime.KeepAlive(&s)
	if errno != 0 {
		return fmt.Errorf("ask for the size of seccomp notifications: %w", errno)
	}
	if s.notif > slotSize || s.notif < notifSize || s.resp != respSize {
		return fmt.Errorf("seccomp notifications of %d and %d bytes are not known", s.notif, s.resp)
	}
	return nil
}
