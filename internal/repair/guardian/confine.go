// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/privilege"
	"golang.org/x/sys/unix"
)

// confine puts the guardian out of the reach of whom it may have to guard against: processes of uid
// 0 with few capabilities, and of any other uid. Afterwards it has ids that nobody else has, so
// that kill(2), ptrace(2), prlimit(2) and sched_setscheduler(2) take a capability, and no signal
// does anything but SIGKILL and SIGSTOP. The calling thread, which has to be locked, keeps
// CAP_SYS_ADMIN and CAP_NET_ADMIN, which the kernel asks for at each write to a file of net.core by
// another user than root; other threads keep nothing.
//
// The thread's priority comes after all that concerns every thread: the runtime of Go waits for the
// others in a loop of sched_yield(2), and who runs before all others yields to none of them. On a
// machine with one processor that took a second, and on 7.2 now and then for ever.
//
// Where it may not change its ids, without CAP_SETUID, it keeps them.
func confine() error {
	keep := abi.CapSet(abi.CapSysAdmin, abi.CapNetAdmin)
	have, err := privilege.Effective()
	if err != nil {
		return err
	}
	// systemd leaves this range to nobody, and so do the tools that hand out ids to containers.
	id := 1<<31 + rand.IntN(1<<30)
	euid := id
	if !abi.HasCap(have, abi.CapNetAdmin) {
		euid = 0 // root's files of net.core are open to root; kill(2) does not look at the effective id of whom it is for
	}
	if abi.HasCap(have, abi.CapSetGID) {
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(id, id, id)); err != nil {
			return fmt.Errorf("change group ids: %w", err)
		}
	}
	if abi.HasCap(have, abi.CapSetUID) {
		if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("keep capabilities: %w", err)
		}
		if err := syscall.Setresuid(id, euid, id); err != nil {
			return fmt.Errorf("change user ids: %w", err)
		}
	}
	if !abi.HasCap(have, abi.CapSetUID) || euid == 0 {
		// The other threads have theirs still.
		if err := privilege.Drop(unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SYS_NICE); err != nil && !errors.Is(err, privilege.ErrCgo) {
			return err
		}
	}
	if err := hold(have & (keep | abi.CapSet(abi.CapSysNice))); err != nil {
		return err
	}
	realTime()
	return errors.Join(
		hold(have&keep),
		noNewPrivileges(),
		hide(), // new ids set it to fs.suid_dumpable
		ignoreSignals(),
	)
}

func noNewPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

// hold gives up the calling thread's capabilities but for these.
func hold(capabilities uint64) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	data[0].Effective = uint32(capabilities)
	data[0].Permitted = data[0].Effective
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// hide keeps the memory and the descriptors of this process from others.
func hide() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide this process: %w", err)
	}
	if v, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || v != 0 {
		return fmt.Errorf("hide this process: it is dumpable %d, %w", v, err)
	}
	return nil
}

// ignoreSignals ignores also those that the runtime of Go keeps for itself: sent by others, SIGSEGV
// would end the process. The runtime preempts nobody any more, and changes no ids.
func ignoreSignals() error {
	signal.Ignore(unix.SIGPIPE) // or the runtime ends the process when nobody reads standard output
	action := struct {
		handler, flags, restorer uintptr
		mask                     uint64
	}{handler: 1} // SIG_IGN
	for number := 1; number <= 64; number++ {
		if number == int(unix.SIGKILL) || number == int(unix.SIGSTOP) {
			continue
		}
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(number), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
		if errno != 0 {
			return fmt.Errorf("ignore signal %d: %w", number, errno)
		}
	}
	return nil
}

// closeOthers closes what the starter, and who started that, left open, but for the standard
// streams, loweredFD, and what the runtime of Go has made already.
func closeOthers() error {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list descriptors: %w", err)
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return fmt.Errorf("list descriptors: %w", err)
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd <= loweredFD {
			continue
		}
		if what, err := os.Readlink("/proc/self/fd/" + name); err == nil && !strings.HasPrefix(what, "anon_inode:[event") {
			unix.Close(fd)
		}
	}
	return nil
}

// realTime makes the calling thread run before others, where it may.
func realTime() {
	p := struct{ priority int32 }{1}
	_, _, _ = unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_FIFO|unix.SCHED_RESET_ON_FORK, uintptr(unsafe.Pointer(&p)))
}
