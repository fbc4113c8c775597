// SPDX-License-Identifier: Apache-2.0

package surrogate

import (
	"encoding/binary"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Argv0 is the name under which the executable starts processes for loads: see Main.
const Argv0 = "bpfwhy-surrogates"

// Main starts processes for loads, and ends when nobody asks for any more, if the executable was
// started for that; otherwise it returns at once. Call it first in main, and in TestMain of
// packages that load so.
func Main() {
	if len(os.Args) == 0 || os.Args[0] != Argv0 {
		return
	}
	os.Exit(serve())
}

// requests is the socket over which processes are asked for.
const requests = 3

// MaxObjects is how many descriptors a load may have. A message takes 253, two of which are the
// socket and the memory.
const MaxObjects = 240

// serve starts a process for each request. Nothing of a load is ever in its own memory: it passes
// on descriptors.
func serve() int {
	runtime.LockOSThread()
	if _, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0, 0); errno != 0 {
		return 1
	}
	// No signal reaches the processes: one would make the verifier give up. Nor does a process that
	// has ended wait for us.
	all := ^uint64(0)
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0); errno != 0 {
		return 1
	}
	if err := ignoreChildren(); err != nil {
		return 1
	}
	unix.CloseOnExec(requests)
	if err := unix.Sendmsg(requests, []byte{0}, nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return 0
	}
	request, control := make([]byte, 8), make([]byte, unix.CmsgSpace(4*(MaxObjects+2)))
	var fds [MaxObjects + 2]int32
	for {
		n, controlLen, _, _, err := unix.Recvmsg(requests, request, control, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return 0
		}
		got := received(control[:controlLen], &fds)
		// Their numbers are what the load counts on.
		ok := n == len(request) && got >= 2
		for i := range got {
			ok = ok && unix.Dup3(int(fds[i]), first+i, unix.O_CLOEXEC) == nil
		}
		if !ok {
			return 1
		}
		start(binary.NativeEndian.Uint64(request))
		for i := range got {
			unix.Close(int(fds[i]))
			unix.Close(first + i)
		}
	}
}

// received are the descriptors of a message, without a use of memory that would grow.
func received(control []byte, fds *[MaxObjects + 2]int32) int {
	header := unix.CmsgLen(0)
	if len(control) < header {
		return 0
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	if h.Level != unix.SOL_SOCKET || h.Type != unix.SCM_RIGHTS {
		return 0
	}
	n := min((int(h.Len)-header)/4, len(fds))
	for i := range n {
		fds[i] = int32(binary.NativeEndian.Uint32(control[header+4*i:]))
	}
	return n
}

// ignoreChildren sets SIGCHLD to SIG_IGN by the system call: os/signal would start threads of its
// own.
func ignoreChildren() error {
	action := [4]uint64{1} // SIG_IGN, no flags, no restorer, no mask
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// start starts one process and passes a handle for it to who asked, with its number in this pid
// namespace.
func start(size uint64) {
	var pidfd int32
	pid, errno := fork(uintptr(size), &pidfd)
	var answer [8]byte
	if errno != 0 {
		binary.NativeEndian.PutUint64(answer[:], -uint64(errno))
		_ = unix.Sendmsg(requests, answer[:], nil, nil, unix.MSG_NOSIGNAL)
		return
	}
	binary.NativeEndian.PutUint64(answer[:], uint64(pid))
	_ = unix.Sendmsg(requests, answer[:], unix.UnixRights(int(pidfd)), nil, unix.MSG_NOSIGNAL)
	unix.Close(int(pidfd))
}

// fork returns in the parent alone. The child has one thread, and of Go it has nothing but this
// code: no call in it may need the scheduler, grow the stack or allocate.
//
//go:nosplit
//go:norace
//go:noinline
func fork(size uintptr, pidfd *int32) (uintptr, unix.Errno) {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_PIDFD|uintptr(unix.SIGCHLD), 0, uintptr(unsafe.Pointer(pidfd)), 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	at, _, errno := unix.RawSyscall6(unix.SYS_MMAP, base, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED_NOREPLACE, first+1, 0)
	if errno == 0 && at == base {
		play()
	}
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// play makes the system calls of a load.
//
//go:nosplit
//go:norace
//go:nocheckptr
func play() {
	at := uintptr(base)
	for range maxSteps {
		s := (*step)(*(*unsafe.Pointer)(unsafe.Pointer(&at)))
		if s.state != toDo {
			return
		}
		r, _, errno := unix.RawSyscall6(uintptr(s.nr), uintptr(s.args[0]), uintptr(s.args[1]), uintptr(s.args[2]),
			uintptr(s.args[3]), uintptr(s.args[4]), uintptr(s.args[5]))
		s.result, s.errno = uint64(r), uint32(errno)
		atomic.StoreUint32(&s.state, done)
		if errno != 0 || uint64(r) != s.want {
			return
		}
		at += stepSize
	}
}
