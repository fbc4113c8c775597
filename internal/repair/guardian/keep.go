// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// leash is the descriptor from which a guardian reads requests, and the end of its starter.
const leash = 0

// request is for one window.
type request struct {
	limit time.Duration
	gate  int // of who loads
	latch int // -1: none
}

func (r *request) close() {
	unix.Close(r.gate)
	if r.latch >= 0 {
		unix.Close(r.latch)
	}
}

// receive waits for a request. An error is the end of the starter, or of its interest.
func receive() (request, error) {
	var b [8]byte
	control := make([]byte, unix.CmsgSpace(2*4))
	var n, controls int
	var err error
	for {
		n, controls, _, _, err = unix.Recvmsg(leash, b[:], control, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return request{}, fmt.Errorf("receive request: %w", err)
	}
	if n == 0 {
		return request{}, io.EOF
	}
	messages, err := unix.ParseSocketControlMessage(control[:controls])
	if err != nil || n != len(b) || len(messages) != 1 {
		return request{}, fmt.Errorf("receive request: it is not one, %w", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return request{}, fmt.Errorf("receive request: %w", err)
	}
	r := request{limit: time.Duration(binary.NativeEndian.Uint64(b[:])), gate: fds[0], latch: -1}
	if len(fds) > 1 {
		r.latch = fds[1]
	}
	return r, nil
}

// hangup waits for the end of the other side of a socket.
func hangup(fd int) {
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if n, err := unix.Poll(fds, -1); err == nil && n > 0 {
			return
		}
	}
}

// atGate writes down what is to be put back, and waits until who loads is ready. It returns false
// when there is nothing to lower the value for.
func (k *keeper) atGate(s state, r request) (bool, error) {
	if s.Set != 1 {
		return false, errors.New("open a window: this guardian was started for something else")
	}
	if err := k.record.write(s); err != nil {
		return false, err
	}
	unopened := func(err error) (bool, error) { return false, errors.Join(err, k.record.clear()) }
	if wait(time.Now().Add(ready), r.gate, leash) != r.gate {
		return unopened(errors.New("open a window: who loads was not ready in time"))
	}
	var one [1]byte
	if n, err := unix.Read(r.gate, one[:]); err != nil || n == 0 {
		return unopened(nil) // who loads has given up
	}
	if now, err := pread(k.setting.f); err != nil || now != s.Old {
		return unopened(errors.Join(fmt.Errorf("%w, it is %d", ErrNotTwo, now), err))
	}
	return true, nil
}

// window opens and closes one. It gives the processor to nobody while it is open.
func (k *keeper) window(s state, r request) (w Window) {
	failed := func(err error) Window {
		w.Error = err.Error()
		return w
	}
	switch ready, err := k.atGate(s, r); {
	case err != nil:
		return failed(err)
	case !ready:
		return w
	}
	k.watch.changed() // before us
	k.lowered.now()
	defer k.lowered.over()
	opened := time.Now()
	if err := pwrite(k.setting.f, s.Set); err != nil {
		return failed(errors.Join(fmt.Errorf("lower net.core.bpf_jit_harden: %w", err), k.record.clear()))
	}
	k.watch.changed() // by us
	var one [1]byte   // whatever it holds
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(r.gate), uintptr(unsafe.Pointer(&one)), uintptr(len(one)))
	why := wait(opened.Add(r.limit), r.latch, r.gate, leash)
	// Between this and the write somebody else may still write; there is no call that compares and
	// writes.
	now, err := pread(k.setting.f)
	w.Foreign = err == nil && (now != s.Set || k.watch.changed())
	if !w.Foreign {
		err = pwrite(k.setting.f, s.Old)
	}
	w.Open = time.Since(opened)
	w.Touched, w.Overdue = why >= 0 && why == r.latch, why < 0
	if err == nil && !w.Foreign {
		now, err = k.setting.read()
		if err == nil && now == s.Set {
			err = errors.New("it is still 1")
		}
	}
	if err != nil {
		return failed(fmt.Errorf("restore net.core.bpf_jit_harden: %w", err)) // the record stays
	}
	if err := k.record.clear(); err != nil {
		return failed(err)
	}
	return w
}

// wait waits until one of the descriptors is readable or at its end, and returns the first such
// one: -1 when the time is over. It leaves the runtime of Go no chance to give the processor to
// something else.
func wait(until time.Time, fds ...int) int {
	poll := make([]unix.PollFd, len(fds))
	for i, fd := range fds {
		poll[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}
	}
	for {
		timeout := unix.NsecToTimespec(int64(max(0, time.Until(until))))
		n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&poll[0])), uintptr(len(poll)), uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 || n == 0 {
			return -1
		}
		for i, p := range poll {
			if p.Revents != 0 {
				return fds[i]
			}
		}
	}
}
