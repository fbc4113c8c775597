// SPDX-License-Identifier: Apache-2.0

// Package guardian changes net.core.bpf_jit_harden for a while and puts it back, whatever dies or
// hangs.
//
// A small process of its own session holds a lock, writes down the old value, changes the sysctl,
// and restores it when it is asked to, when a deadline is over, or when the process that started it
// is gone. It writes each change itself, so there is no moment in which it does not know of one.
// Should the guardian itself be killed or stopped, its starter restores the value. Should that be
// killed too, the state file says what to restore: the next guardian, or the next program that
// calls Recover, puts back what was lowered. What was raised stays so until somebody calls
// RecoverRaised, as anybody of uid 0 may have written the file.
//
// It runs under ids of its own, as the first process of its own pid namespace, with the two
// capabilities that the write takes: see confine.
//
// Nothing is lowered, except back to the value that was there before, and from 2 to 1 by Window,
// for a limited time.
package guardian

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/privilege"
	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
	"golang.org/x/sys/unix"
)

// Argv0 is the name under which an executable acts as guardian: see Main.
const Argv0 = "bpfwhy-guardian"

var (
	// ErrLower is returned when the sysctl is already higher than what is asked for.
	ErrLower = errors.New("refuse to lower net.core.bpf_jit_harden")
	// ErrNotTwo is returned when the sysctl that is to be lowered from 2 is not 2.
	ErrNotTwo = errors.New("net.core.bpf_jit_harden is not 2")
	// ErrNoMain is returned when Main was not called: the executable, started as a guardian, would
	// not know that it is one.
	ErrNoMain = errors.New("guardian.Main was not called at the start of main")
)

// mainCalled is set by Main.
var mainCalled atomic.Bool

// paths are the files of one guarded sysctl; tests have their own.
type paths struct {
	sysctl, lock, state string
	// turns says that guardians with other files, behind other mounts, take turns with this one.
	turns bool
}

var harden = paths{
	sysctl: "/proc/sys/net/core/bpf_jit_harden",
	// Not in /run/lock, where anybody could make the file, and keep it locked, before us.
	lock:  "/run/bpfwhy/harden.lock",
	state: "/run/bpfwhy/harden.json",
	turns: true,
}

// Report is what became of a changed value. The zero Report says that there was nothing to restore.
type Report struct {
	Old int `json:"old"` // before it was changed
	Set int `json:"set"` // what it was changed to
	Now int `json:"now"` // afterwards
	// Foreign says that somebody else had changed the value meanwhile: it was left as found.
	Foreign bool `json:"foreign,omitempty"`
}

func (r Report) String() string {
	changed := "raised"
	if r.Old > r.Set {
		changed = "lowered"
	}
	switch {
	case r == Report{}:
		return "net.core.bpf_jit_harden was not raised"
	case r.Foreign:
		return fmt.Sprintf("net.core.bpf_jit_harden was %s from %d to %d, but somebody else made it %d meanwhile: left alone", changed, r.Old, r.Set, r.Now)
	case r.Old == r.Set:
		return fmt.Sprintf("net.core.bpf_jit_harden was %d already", r.Old)
	}
	return fmt.Sprintf("net.core.bpf_jit_harden was %s from %d to %d and is %d again", changed, r.Old, r.Set, r.Now)
}

// StillThere says what Left has found, and how it is undone.
func (r Report) StillThere() string {
	return fmt.Sprintf("an earlier run changed net.core.bpf_jit_harden from %d to %d and was killed: 'bpfwhy harden restore' puts it back", r.Old, r.Set)
}

// Raised is a guardian at work. What it changed is restored by Restore, by the end of the context,
// or by the end of the process.
type Raised struct {
	old     int
	to      int // or standBy
	paths   paths
	process *os.Process
	leash   *os.File // a socket for requests, whose end ends the guardian
	stop    func() bool
	lowered lowered
	windows chan Window // that were closed
	ended   chan struct{}
	end     sync.Once
	report  Report // these two are for reading after ended is closed
	err     error
	close   sync.Once
}

// RaiseHarden raises net.core.bpf_jit_harden to 1 or 2. It waits until no other guardian on the
// machine holds the sysctl, and says so on standard error after a second. The error is ErrLower
// when the value is higher already. It needs CAP_SYS_ADMIN in the initial namespaces, and Main at
// the start of the executable.
func RaiseHarden(ctx context.Context, to int) (*Raised, error) {
	if to < 1 || to > 2 {
		return nil, fmt.Errorf("raise net.core.bpf_jit_harden: %d is neither 1 nor 2", to)
	}
	return raise(ctx, harden, to)
}

// Files are the files of a guardian where they are not the usual ones: for tests that have raised
// the sysctl by a guardian of their own, which holds the usual lock.
type Files struct{ Lock, State string }

// StandBy starts a guardian that lowers net.core.bpf_jit_harden from 2 to 1, once or more often,
// when Window asks for it. It waits until no other guardian on the machine holds the sysctl; then
// the error is ErrNotTwo when the value is another.
func StandBy(ctx context.Context, f Files) (*Raised, error) {
	p := harden
	if f != (Files{}) {
		p.lock, p.state, p.turns = f.Lock, f.State, false
	}
	return raise(ctx, p, standBy)
}

// standBy instead of a value: nothing is changed until Window asks for it.
const standBy = -1

func raise(ctx context.Context, p paths, to int) (*Raised, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !mainCalled.Load() {
		return nil, ErrNoMain
	}
	r := &Raised{to: to, paths: p, windows: make(chan Window, 1), ended: make(chan struct{})}
	cmd, stdout, err := r.start(to)
	if err != nil {
		return nil, fmt.Errorf("start guardian: %w", err)
	}
	r.stop = context.AfterFunc(ctx, r.letGo)

	lines := bufio.NewReader(stdout)
	up := make(chan struct{})
	go r.keepGoing(up)
	first, err := readMessage(lines)
	close(up)
	mute := err != nil
	if err == nil && first.Error != "" {
		err = first.err()
		if first.Lower {
			err = fmt.Errorf("%w: it is %d already", ErrLower, first.Old)
			if to == standBy {
				err = fmt.Errorf("%w, it is %d", ErrNotTwo, first.Old)
			}
		}
	}
	if err != nil {
		r.stop()
		r.letGo()
		waitErr := cmd.Wait()
		r.end.Do(func() { close(r.ended) })
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, io.EOF) && waitErr != nil {
			err = waitErr
		}
		what := "raise sysctl"
		if to == standBy {
			what = "lower sysctl"
		}
		err = fmt.Errorf("%s: %w", what, err)
		if mute {
			// It may have been killed between writing the state and saying so.
			_, recoverErr := recoverPaths(p, false)
			err = errors.Join(err, recoverErr)
		}
		return nil, err
	}
	r.old = first.Old
	go r.listen(cmd, lines)
	return r, nil
}

func (r *Raised) start(to int) (*exec.Cmd, io.Reader, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = r.paths.args(to)
	cmd.Dir = "/"
	cmd.Env = []string{} // nothing that steers the runtime of Go
	cmd.Stderr = os.Stderr
	// Neither a Ctrl-C nor a signal to the process group reaches another session.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if caps, err := privilege.Effective(); err == nil && abi.HasCap(caps, abi.CapSysAdmin) {
		// SIGIO by fcntl(F_SETSIG) is SIGKILL for any process, if root asks for it, with or without
		// capabilities. Not for the first process of a pid namespace.
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
	}
	ours, theirs, err := socketpair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	cmd.Stdin = theirs
	shared, err := unix.MemfdCreate("bpfwhy-lowered", unix.MFD_CLOEXEC)
	if err != nil {
		ours.Close()
		return nil, nil, fmt.Errorf("make shared memory: %w", err)
	}
	memory := os.NewFile(uintptr(shared), "lowered")
	defer memory.Close()
	cmd.ExtraFiles = []*os.File{memory} // loweredFD
	var stdout io.Reader
	if err = memory.Truncate(8); err == nil {
		if r.lowered, err = mapLowered(shared); err == nil {
			if stdout, err = cmd.StdoutPipe(); err == nil {
				err = cmd.Start()
			}
		}
	}
	if err != nil {
		ours.Close()
		return nil, nil, err
	}
	r.leash, r.process = ours, cmd.Process
	return cmd, stdout, nil
}

// keepGoing kills a guardian that is stopped before it is up: until it has ids of its own, others
// may. It may wait for its turn for long, so that its silence says nothing.
func (r *Raised) keepGoing(up <-chan struct{}) {
	tick := time.NewTicker(ready / 10)
	defer tick.Stop()
	for was := false; ; {
		select {
		case <-up:
			return
		case <-tick.C:
		}
		is := stopped(r.process.Pid)
		if is && was {
			_ = r.process.Kill()
			return
		}
		was = is
	}
}

// stopped reports whether a process of ours is stopped, by a signal or a tracer.
func stopped(pid int) bool {
	s, ok := proc.ReadStat(fmt.Sprintf("/proc/%d/", pid))
	return ok && (s.State == 'T' || s.State == 't')
}

func socketpair(kind int) (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make sockets: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket"), nil
}

// listen reads what the guardian says until its end.
func (r *Raised) listen(cmd *exec.Cmd, lines *bufio.Reader) {
	last, err := readMessage(lines)
	for err == nil && last.Window != nil {
		select {
		case r.windows <- *last.Window:
		default: // nobody waits for it any more
		}
		last, err = readMessage(lines)
	}
	cmd.Wait()
	switch {
	case err != nil:
		// Killed. Its lock is gone with it, its state is not.
		if r.to == standBy {
			// Somebody may have waited for the lock, and have it now. Who raises the setting again
			// needs none.
			r.replaced()
			return
		}
		lock, rec, err := orphan(r.paths)
		if lock == nil {
			r.finish(Report{}, err)
			return
		}
		defer lock.Close()
		defer rec.close()
		r.finish(r.putBack(rec))
	case last.Error != "":
		r.finish(last.Report, last.err())
	default:
		r.finish(last.Report, nil)
	}
}

func (r *Raised) finish(report Report, err error) {
	r.end.Do(func() {
		r.report, r.err = report, err
		close(r.ended)
	})
}

// replace is for a guardian that does not answer, which somebody may have stopped: it is killed,
// and what it changed is restored.
func (r *Raised) replace() {
	if err := r.process.Kill(); err == nil || errors.Is(err, os.ErrProcessDone) {
		return // the rest is listen's
	}
	// Without CAP_KILL. Should it go on one day, it finds that its time is over.
	r.replaced()
}

// replaced restores without a lock.
func (r *Raised) replaced() {
	rec, err := openRecord(r.paths.state)
	if err != nil {
		r.finish(Report{}, err)
		return
	}
	defer rec.close()
	r.finish(r.putBack(rec))
}

// putBack restores what a guardian of ours left changed. What it was raised from we know ourselves;
// what a window left lowered is raised again, whoever may have written that down.
func (r *Raised) putBack(rec record) (Report, error) {
	if r.to == standBy || r.old == r.to {
		return restore(r.paths, rec, false)
	}
	c, err := openSetting(r.paths.sysctl)
	if err != nil {
		return Report{}, err
	}
	defer c.close()
	return undo(c, state{Old: r.old, Set: r.to}, rec)
}

// Old is the value before it was raised.
func (r *Raised) Old() int { return r.old }

// Restore puts the value back and reports what became of it. It may be called more than once, and
// after the context's end.
func (r *Raised) Restore() (Report, error) {
	r.stop()
	r.letGo()
	<-r.ended
	return r.report, r.err
}

// lingering is how long a guardian may take to end, on a busy machine too, with the value at rest.
const lingering = 10 * time.Second

func (r *Raised) letGo() {
	r.close.Do(func() {
		r.leash.Close()
		slow := time.AfterFunc(lingering, r.replace)
		go func() {
			<-r.ended
			slow.Stop()
		}()
	})
}

// Recover raises again what a guardian that was killed left lowered. It does nothing while a
// guardian is at work, or when there is nothing to do, without root too. Where a record says that
// the value was raised, Left tells afterwards.
func Recover() (Report, error) { return recoverPaths(harden, false) }

// RecoverRaised also lowers what was left raised. It is for people who ask for that: the record may
// be a forgery, and somebody who means to keep the raised value, and has set it again, cannot be
// told from the guardian.
func RecoverRaised() (Report, error) { return recoverPaths(harden, true) }

// Left reports what a guardian that was killed left changed, and changes nothing. The Report is
// zero while a guardian is at work, and when the value is no longer what it was made then.
func Left() (Report, error) { return leftPaths(harden) }

// Lock waits until nobody else has the sysctl, and keeps it from guardians until the file is
// closed. how is LOCK_EX, or LOCK_SH for those who only want it to stay as it is. It needs root.
func Lock(how int) (*os.File, error) {
	f, err := openLock(harden.lock)
	if err != nil {
		return nil, err
	}
	return f, lockFile(f, how)
}

// message is a line from the guardian to its parent.
type message struct {
	Report
	Error  string     `json:"error,omitempty"`
	Errno  unix.Errno `json:"errno,omitempty"`
	Lower  bool       `json:"lower,omitempty"`
	Window *Window    `json:"window,omitempty"` // that was closed
}

func (m message) err() error { return &remoteError{m.Error, m.Errno} }

// remoteError is an error of a guardian, with the kernel's errno.
type remoteError struct {
	text  string
	errno unix.Errno
}

func (e *remoteError) Error() string { return e.text }

func (e *remoteError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

func readMessage(r *bufio.Reader) (message, error) {
	var m message
	line, err := r.ReadBytes('\n')
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, fmt.Errorf("read guardian's message: %w", err)
	}
	return m, nil
}

// args is the command line of a guardian, as Main reads it.
func (p paths) args(to int) []string {
	return []string{Argv0, strconv.Itoa(to), p.sysctl, p.lock, p.state, strconv.FormatBool(p.turns)}
}
