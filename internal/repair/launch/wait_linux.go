// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// passed are the signals that go on to the command.
var passed = []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGWINCH,
	unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGCONT}

// fromTerminal are those that a terminal sends to its whole foreground process group: the command
// has had them.
var fromTerminal = []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGWINCH}

// Signals starts to catch what Wait passes on. Signals that we were started to ignore, as under
// nohup, stay ignored, and the command inherits that.
func Signals() <-chan os.Signal {
	c := make(chan os.Signal, 16)
	for _, s := range passed {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
	return c
}

// Wait passes signals on until the command ends and returns its status, 128 + the signal that ended
// it. When the command is stopped from the terminal, so are we, that the shell may have its job
// control.
func (p *Process) Wait(signals <-chan os.Signal) (int, error) {
	if os.Getpid() == 1 {
		go p.reapOthers()
	}
	// WNOWAIT leaves the pid taken until all signals are dealt with: none can reach a stranger.
	events := make(chan event)
	go func() {
		for {
			var info unix.Siginfo
			err := unix.Waitid(unix.P_PID, p.PID, &info, unix.WEXITED|unix.WNOWAIT|unix.WSTOPPED, nil)
			if err == unix.EINTR {
				continue
			}
			if err == nil && info.Code == cldStopped {
				p.takeStop()
				events <- stopped
				continue
			}
			events <- ended
			return
		}
	}()
	for {
		select {
		case sig := <-signals:
			if slices.Contains(fromTerminal, sig) && foreground() {
				continue
			}
			// The command may be the one thing that it must not be: gone. Then there is nobody to
			// tell.
			unix.Kill(p.PID, sig.(syscall.Signal))
		case e := <-events:
			if e == ended {
				return p.reap()
			}
			if foreground() {
				unix.Kill(os.Getpid(), unix.SIGSTOP)
			}
		}
	}
}

type event int

const (
	stopped event = iota
	ended
)

// CLD_STOPPED, include/uapi/asm-generic/siginfo.h.
const cldStopped = 5

// takeStop takes note of a stop, so that the next is news. Not of the command's end, which may have
// come meanwhile: that has a status.
func (p *Process) takeStop() {
	var info unix.Siginfo
	unix.Waitid(unix.P_PID, p.PID, &info, unix.WSTOPPED|unix.WNOHANG, nil)
}

func (p *Process) reap() (int, error) {
	for {
		var ws syscall.WaitStatus
		_, err := syscall.Wait4(p.PID, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("wait for the command: %w", err)
		case ws.Signaled():
			return 128 + int(ws.Signal()), nil
		}
		return ws.ExitStatus(), nil
	}
}

// reapOthers is what the first process of a pid namespace owes those whose parents have died: the
// command itself would have been the first without us. Children of ours are waited for twice then,
// which does no harm.
func (p *Process) reapOthers() {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		// si_pid follows three words, in the union's alignment.
		pid := int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), 16)))
		if err != nil || pid == p.PID {
			return
		}
		var ws syscall.WaitStatus
		_, _ = syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)
	}
}

// foreground reports whether our process group is the one that the controlling terminal sends its
// signals to.
func foreground() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	pgrp, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && pgrp == unix.Getpgrp()
}
