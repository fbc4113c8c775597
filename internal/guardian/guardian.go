// SPDX-License-Identifier: Apache-2.0

// Package guardian changes net.core.bpf_jit_harden for a while and puts it back, whatever dies.
//
// A small process of its own session holds a lock, writes down the old value, raises the sysctl, and restores it when it is
// asked to, when it is told to terminate, or when the process that started it is gone. Should the guardian itself be killed, its
// state file lets the starter, the next guardian, or the next program that calls Recover, restore the value.
//
// Nothing is lowered, except back to the value that was there before, and from 2 to 1 by who asked a guardian to stand by for it.
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
)

// Argv0 is the name under which an executable acts as guardian: see Main.
const Argv0 = "bpfwhy-guardian"

// ErrLower is returned when the sysctl is already higher than what is asked for.
var ErrLower = errors.New("refuse to lower net.core.bpf_jit_harden")

// ErrNotTwo is returned when the sysctl that is to be lowered from 2 is not 2.
var ErrNotTwo = errors.New("net.core.bpf_jit_harden is not 2")

// ErrNoMain is returned when Main was not called: the executable, started as a guardian, would not know that it is one.
var ErrNoMain = errors.New("guardian.Main was not called at the start of main")

// mainCalled is set by Main.
var mainCalled atomic.Bool

// paths are the files of one guarded sysctl; tests have their own.
type paths struct{ sysctl, lock, state string }

var harden = paths{
	sysctl: "/proc/sys/net/core/bpf_jit_harden",
	// Not in /run/lock, where anybody could make the file, and keep it locked, before us.
	lock:  "/run/bpfwhy/harden.lock",
	state: "/run/bpfwhy/harden.json",
}

// Report is what became of a raised value. The zero Report says that there was nothing to restore.
type Report struct {
	Old int `json:"old"` // before it was raised
	Set int `json:"set"` // what it was raised to
	Now int `json:"now"` // afterwards
	// Foreign says that somebody else had changed the value meanwhile: it was left as found.
	Foreign bool `json:"foreign,omitempty"`
}

func (r Report) String() string {
	switch {
	case r == Report{}:
		return "net.core.bpf_jit_harden was not raised"
	case r.Foreign:
		return fmt.Sprintf("net.core.bpf_jit_harden was raised from %d to %d, but somebody else made it %d meanwhile: left alone", r.Old, r.Set, r.Now)
	case r.Old > r.Set:
		return fmt.Sprintf("net.core.bpf_jit_harden was lowered from %d to %d and is %d again", r.Old, r.Set, r.Now)
	case r.Old == r.Set:
		return fmt.Sprintf("net.core.bpf_jit_harden was %d already", r.Old)
	}
	return fmt.Sprintf("net.core.bpf_jit_harden was raised from %d to %d and is %d again", r.Old, r.Set, r.Now)
}

// Raised is a raised value. It is restored by Restore, by the end of the context, or by the end of the process.
type Raised struct {
	old    int
	paths  paths
	stdin  io.Closer
	stop   func() bool
	ended  chan struct{}
	report Report // these two are for reading after ended is closed
	err    error
	close  sync.Once
}

// RaiseHarden raises net.core.bpf_jit_harden to 1 or 2. It waits until no other guardian on the machine holds the sysctl, and says
// so on standard error after a second. The error is ErrLower when the value is higher already. It needs CAP_SYS_ADMIN in the
// initial namespaces, and Main at the start of the executable.
func RaiseHarden(ctx context.Context, to int) (*Raised, error) {
	if to < 1 || to > 2 {
		return nil, fmt.Errorf("raise net.core.bpf_jit_harden: %d is neither 1 nor 2", to)
	}
	return raise(ctx, harden, to)
}

// Files are the files of a guardian where they are not the usual ones: for tests that have raised the sysctl by a guardian of their
// own, which holds the usual lock.
type Files struct{ Lock, State string }

// StandBy starts a guardian for a caller who will itself lower net.core.bpf_jit_harden from 2 to 1, and set it back to 2, once or more
// often, until Restore. The guardian writes nothing as long as the caller lives; what it finds lowered then it restores.
// It waits until no other guardian on the machine holds the sysctl; then the error is ErrNotTwo when the value is another.
func StandBy(ctx context.Context, f Files) (*Raised, error) {
	p := harden
	if f != (Files{}) {
		p.lock, p.state = f.Lock, f.State
	}
	return raise(ctx, p, standBy)
}

// standBy instead of a value: the starter lowers from 2 to 1 by itself.
const standBy = -1

func raise(ctx context.Context, p paths, to int) (*Raised, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !mainCalled.Load() {
		return nil, ErrNoMain
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{Argv0, strconv.Itoa(to), p.sysctl, p.lock, p.state}
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	// Neither a Ctrl-C nor a signal to the process group reaches another session.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("open guardian's pipe: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("open guardian's pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start guardian: %w", err)
	}
	r := &Raised{paths: p, stdin: stdin, ended: make(chan struct{})}
	r.stop = context.AfterFunc(ctx, r.letGo)

	lines := bufio.NewReader(stdout)
	first, err := readMessage(lines)
	if err == nil && first.Error != "" {
		err = errors.New(first.Error)
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
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, io.EOF) && waitErr != nil {
			err = waitErr
		}
		// It may have been killed between writing the state and saying so.
		_, recoverErr := recoverPaths(p)
		what := "raise sysctl"
		if to == standBy {
			what = "lower sysctl"
		}
		return nil, errors.Join(fmt.Errorf("%s: %w", what, err), recoverErr)
	}
	r.old = first.Old
	go func() {
		defer close(r.ended)
		last, err := readMessage(lines)
		cmd.Wait()
		switch {
		case err != nil:
			// Killed. Its lock is gone with it, its state is not.
			r.report, r.err = recoverPaths(p)
		case last.Error != "":
			r.report, r.err = last.Report, errors.New(last.Error)
		default:
			r.report = last.Report
		}
	}()
	return r, nil
}

// Old is the value before it was raised.
func (r *Raised) Old() int { return r.old }

// Ended is closed when the guardian is no longer there, because it was killed or told to end.
func (r *Raised) Ended() <-chan struct{} { return r.ended }

// Restore puts the value back and reports what became of it. It may be called more than once, and after the context's end.
func (r *Raised) Restore() (Report, error) {
	r.stop()
	r.letGo()
	<-r.ended
	return r.report, r.err
}

func (r *Raised) letGo() { r.close.Do(func() { r.stdin.Close() }) }

// Recover restores what a guardian that was killed left behind. It does nothing while a guardian is at work, or when there is
// nothing to do, without root too.
//
// Somebody who means to keep the raised value, and has set it again, cannot be told from the guardian: a program that raises
// nothing itself should only say what Left finds.
func Recover() (Report, error) { return recoverPaths(harden) }

// Left reports what a guardian that was killed left changed, and changes nothing. The Report is zero while a guardian is at work,
// and when the value is no longer what it was made then.
func Left() (Report, error) { return leftPaths(harden) }

// Lock waits until nobody else has the sysctl, and keeps it from guardians until the file is closed. how is LOCK_EX, or LOCK_SH for
// those who only want it to stay as it is. It needs root.
func Lock(how int) (*os.File, error) { return takeLock(harden.lock, how) }

// message is a line from the guardian to its parent.
type message struct {
	Report
	Error string `json:"error,omitempty"`
	Lower bool   `json:"lower,omitempty"`
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
