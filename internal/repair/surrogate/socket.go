// SPDX-License-Identifier: Apache-2.0

package surrogate

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func socketpair() (ours, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket: %w", err)
	}
	if err := unix.SetNonblock(pair[0], true); err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(pair[0]), "surrogate"), os.NewFile(uintptr(pair[1]), "surrogate"), nil
}

// receive reads a message and at most one descriptor, -1 for none, until a moment.
func receive(socket *os.File, b []byte, until time.Time) (n, fd int, err error) {
	fd = -1
	if err := socket.SetReadDeadline(until); err != nil {
		return 0, -1, err
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, -1, err
	}
	control := make([]byte, unix.CmsgSpace(4))
	var controlLen int
	var recvErr error
	last := false
	err = raw.Read(func(s uintptr) bool {
		for {
			n, controlLen, _, _, recvErr = unix.Recvmsg(int(s), b, control, unix.MSG_CMSG_CLOEXEC)
			// The kernel looks for a message first, and then whether the other end is closed: a
			// message that comes in between, and the end after it, are told as the end
			// (unix_dgram_recvmsg). There can be no other message after the end.
			if n != 0 || recvErr != nil || last {
				break
			}
			last = true
		}
		return recvErr != unix.EAGAIN && recvErr != unix.EINTR
	})
	if err = errors.Join(err, recvErr); err != nil {
		return 0, -1, err
	}
	var fds [MaxObjects + 2]int32
	if received(control[:controlLen], &fds) == 1 {
		fd = int(fds[0])
	}
	return n, fd, nil
}

func send(socket *os.File, b, control []byte) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	if err := socket.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var sendErr error
	err = raw.Write(func(s uintptr) bool {
		sendErr = unix.Sendmsg(int(s), b, control, nil, unix.MSG_NOSIGNAL)
		return sendErr != unix.EAGAIN && sendErr != unix.EINTR
	})
	return errors.Join(err, sendErr)
}
