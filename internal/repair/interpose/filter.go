// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Listener is where the notifications of a filter arrive.
type Listener struct {
	File *os.File
	// Killable says that a thread whose notification was received can be ended by a fatal signal
	// and by nothing else (WAIT_KILLABLE_RECV, Linux 5.19). Elsewhere any signal cancels a
	// notification.
	Killable bool
}

// Offer installs the filter in the calling thread, which has to be locked and to execute the
// command itself, and sends the listener, or why there is none, over the socket. The thread and all
// that comes from it keep the filter for good; without a supervisor their loads fail with ENOSYS.
// So call Offer only where somebody is at the other end.
func Offer(socket int) {
	fd, killable, err := install(true)
	offer(socket, fd, killable, err)
}

func offer(socket, fd int, killable bool, err error) {
	// Whoever waits at the other end sees its end when the message cannot be sent.
	if err != nil {
		_ = unix.Sendmsg(socket, []byte("e"+err.Error()), nil, nil, 0)
		return
	}
	kind := []byte{'s'}
	if killable {
		kind[0] = 'k'
	}
	_ = unix.Sendmsg(socket, kind, unix.UnixRights(fd), nil, 0)
	unix.Close(fd)
}

// Accept receives what Offer sends. The error says in words for people why loads cannot be
// intercepted: the command then runs without the filter.
func Accept(socket int) (*Listener, error) {
	text, control := make([]byte, 512), make([]byte, unix.CmsgSpace(4))
	var n, controlLen int
	for {
		var err error
		n, controlLen, _, _, err = unix.Recvmsg(socket, text, control, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("receive the listener: %w", err)
		}
		break
	}
	if n == 0 {
		return nil, errors.New("receive the listener: the command has ended")
	}
	if text[0] == 'e' {
		return nil, errors.New(string(text[1:n]))
	}
	messages, err := unix.ParseSocketControlMessage(control[:controlLen])
	if err != nil || len(messages) != 1 {
		return nil, errors.New("receive the listener: no descriptor came")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("receive the listener: no descriptor came")
	}
	return &Listener{os.NewFile(uintptr(fds[0]), "seccomp listener"), text[0] == 'k'}, nil
}

// install makes BPF_PROG_LOAD of the calling thread, and of what it starts, wait for an answer.
// Every other command of bpf(2), and 32-bit programs, pass at the price of the filter's few
// instructions: trapping them all made map operations 6 to 25 times slower.
func install(killable bool) (fd int, isKillable bool, err error) {
	arch, err := auditArch()
	if err != nil {
		return -1, false, err
	}
	// Offsets of struct seccomp_data, little-endian: the kernel takes the command as an int, so its
	// low half alone counts.
	const nr, architecture, command = 0, 4, 16
	skip := func(value uint32, to uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: to, K: value}
	}
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	filter := []unix.SockFilter{
		load(architecture), skip(arch, 5),
		load(nr), skip(unix.SYS_BPF, 3),
		load(command), skip(unix.BPF_PROG_LOAD, 1),
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// SPEC_ALLOW: before 5.16 every filter slows its process down by a mitigation that this one
	// does not need.
	flags := uintptr(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW)
	try := func(flags uintptr) (int, unix.Errno) {
		r, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
		return int(r), errno
	}
	errno := unix.EINVAL
	if killable {
		fd, errno = try(flags | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	}
	if isKillable = errno == 0; !isKillable && errno == unix.EINVAL {
		fd, errno = try(flags)
	}
	runtime.KeepAlive(filter)
	switch errno {
	case 0:
		return fd, isKillable, nil
	case unix.EBUSY:
		err = errors.New("somebody listens to the system calls here already (a container runtime's seccomp agent, or another run --repair)")
	case unix.EACCES:
		err = errors.New("seccomp: needs CAP_SYS_ADMIN")
	case unix.EINVAL, unix.ENOSYS:
		err = errors.New("seccomp: this kernel has no notifications")
	default:
		err = fmt.Errorf("seccomp: %w", errno)
	}
	return -1, false, err
}

func auditArch() (uint32, error) {
	switch runtime.GOARCH {
	case "amd64":
		return unix.AUDIT_ARCH_X86_64, nil
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64, nil
	}
	return 0, fmt.Errorf("seccomp: loads cannot be intercepted on %s", runtime.GOARCH)
}
