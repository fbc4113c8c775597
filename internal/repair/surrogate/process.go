// SPDX-License-Identifier: Apache-2.0

package surrogate

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/sys/fdinfo"
)

// Process is a process that makes one load.
type Process struct {
	script *script
	load   *Load
	memory []byte
	socket *os.File
	pidfd  int
	kept   *os.File // for tests: the end of the socket that is the process's

	answers int // that came
}

// Missing waits for the memory in which the instructions are to appear: its userfaultfd, whose
// owner the caller becomes, and its address. An error means that the load is not made.
func (p *Process) Missing(until time.Time) (fd int, address uintptr, err error) {
	fd, err = p.answer(until)
	if err != nil {
		return -1, 0, fmt.Errorf("make memory that is missing: %w", err)
	}
	return fd, missingBase, nil
}

// Gate lets a process make its load when it can read a byte from a file. It has closed the file
// when it ends.
func (p *Process) Gate(gate *os.File) error {
	raw, err := gate.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	if err := raw.Control(func(fd uintptr) { sendErr = send(p.socket, []byte{0}, unix.UnixRights(int(fd))) }); err != nil {
		return err
	}
	return sendErr
}

// Limits are how long a process may take.
type Limits struct {
	Total time.Duration
	// Still is how long it may not run at all, as when somebody has stopped it.
	Still time.Duration
	// MakeWay is called, perhaps more than once, when it has not run for as long as Pause, or is at
	// it for longer than Turn.
	Pause, Turn time.Duration
	MakeWay     func()
	Ran         func() // called from time to time when it has run
}

// Result waits for the program, whose owner the caller becomes. The error is an errno where it is
// the kernel's answer to the load, and ErrTimeout where there was none within the limits; the
// process is killed then.
func (p *Process) Result(l Limits) (fd int, err error) {
	const tick = 100 * time.Millisecond
	began := time.Now()
	ran, since := time.Duration(-1), began
	for {
		fd, err := p.answer(time.Now().Add(tick))
		if !errors.Is(err, ErrTimeout) {
			return fd, err
		}
		if p.ended() { // somebody else has its socket, or there would be the end of it
			if fd, err := p.answer(time.Now().Add(tick)); !errors.Is(err, ErrTimeout) {
				return fd, err
			}
			return -1, p.script.stopped(p.memory)
		}
		if now := p.cpu(); now != ran {
			ran, since = now, time.Now()
			if l.Ran != nil {
				l.Ran()
			}
		}
		still := time.Since(since)
		if l.MakeWay != nil && (still > l.Pause || time.Since(began) > l.Turn) {
			l.MakeWay()
		}
		if still > l.Still || time.Since(began) > l.Total {
			p.kill()
			return -1, ErrTimeout
		}
	}
}

// cpu is how long the process has run.
func (p *Process) cpu() time.Duration {
	const scheduled = 2 // CPUCLOCK_SCHED, include/linux/posix-timers.h
	var t unix.Timespec
	pid := p.PID()
	if pid <= 0 || unix.ClockGettime(int32(^pid<<3|scheduled), &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

func (p *Process) answer(until time.Time) (int, error) {
	var b [2]byte
	n, fd, err := receive(p.socket, b[:], until)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return -1, ErrTimeout
	case err != nil:
		return -1, fmt.Errorf("hear from the process that loads: %w", err)
	case n == 0:
		return -1, p.script.stopped(p.memory)
	case fd < 0:
		return -1, errors.New("hear from the process that loads: no descriptor came")
	}
	if err := p.sent(); err != nil {
		unix.Close(fd)
		p.kill()
		return -1, err
	}
	return fd, nil
}

// sent waits until the process says in its memory that it has sent what came. In the moment of its
// end, when it has no memory any more by which the kernel would guard its descriptors, somebody
// with its ids may take its socket, and send what he likes.
func (p *Process) sent() error {
	step := p.script.step(p.memory, p.script.sends(p.answers))
	p.answers++
	for until := time.Now().Add(patience); ; time.Sleep(100 * time.Microsecond) {
		over := p.ended()
		switch state := atomic.LoadUint32(&step.state); {
		case state == done && step.errno == 0 && step.result == step.want:
			return nil
		case state == done || over:
			return fmt.Errorf("hear from the process that loads: it did not send what came: %w", ErrEnded)
		case time.Now().After(until): // stopped
			return ErrTimeout
		}
	}
}

// ended reports whether the process is no longer there.
func (p *Process) ended() bool { return p.kept == nil && fdinfo.Readable(p.pidfd, 0) }

// Attr is what the kernel made of the attributes, and Log what it wrote: both until Close.
func (p *Process) Attr() []byte { return p.memory[p.load.attr-base:][:len(p.load.Attr)] }

func (p *Process) Log() []byte { return p.memory[p.script.log:] }

// PID is the process' number, 0 when it has ended: to look at it. Nothing is done to it by that.
// Who starts the processes knows another, that of his pid namespace.
func (p *Process) PID() int {
	n, err := fdinfo.Number(p.pidfd, "Pid")
	if err != nil { // -1
		return 0
	}
	return int(n)
}

func (p *Process) kill() {
	if p.pidfd >= 0 {
		_ = unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
	}
}

// Close ends the process, if it is still there, and gives back its memory. It does not wait for the
// end.
func (p *Process) Close() {
	p.kill()
	if p.pidfd >= 0 {
		unix.Close(p.pidfd)
	}
	if p.socket != nil {
		p.socket.Close()
	}
	if p.kept != nil {
		p.kept.Close()
	}
	if p.memory != nil {
		_ = unix.Munmap(p.memory)
	}
}
