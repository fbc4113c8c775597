// SPDX-License-Identifier: Apache-2.0

package surrogate

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Nobody is a user id, and a group id, that no process has: beyond all that is given to users,
// containers and name spaces.
const Nobody = 0xf0000000 + 0xb9f

// Apart starts a process out of the reach of those who load. It has ids that nobody else has, so
// that nobody without CAP_KILL can signal it. And it is the first process of a pid namespace: root,
// with or without capabilities, may have the kernel send SIGKILL and SIGSTOP to any other, through
// fcntl(F_SETSIG).
//
// start starts it, with attributes to complete. What is refused is left out, and exposed says so:
// in a user namespace there may be no such id, and CAP_SETUID or CAP_SYS_ADMIN may be missing.
func Apart(start func(*syscall.SysProcAttr) error) (exposed, err error) {
	// A child shares our memory until it executes its program. Taking ids before that, it makes the
	// memory what fs.suid_dumpable says.
	if was, getErr := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); getErr == nil {
		defer func() {
			if hideErr := unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(was&1), 0, 0, 0); hideErr != nil && err == nil {
				err = fmt.Errorf("hide our memory: %w", hideErr)
			}
		}()
	}
	type apart struct{ ids, namespace bool }
	for _, a := range []apart{{true, true}, {true, false}, {false, true}, {}} {
		attr := &syscall.SysProcAttr{Setsid: true} // neither a Ctrl-C nor a signal to the process group reaches another session
		if a.ids {
			attr.Credential = &syscall.Credential{Uid: Nobody, Gid: Nobody}
		}
		if a.namespace {
			attr.Cloneflags = unix.CLONE_NEWPID
		}
		if err = start(attr); err == nil {
			return exposed, nil
		}
		switch {
		case a.ids && a.namespace: // it is not known yet which of the two it was
			exposed = fmt.Errorf("no pid namespace of its own: %w", err)
		case a.ids:
			exposed = fmt.Errorf("no ids of its own: %w", err)
		default:
			exposed = fmt.Errorf("neither ids nor a pid namespace of its own: %w", err)
		}
	}
	return nil, err
}
