// SPDX-License-Identifier: Apache-2.0

package surrogate

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// A process that loads is stopped or killed before each of its steps.

const (
	still   = 250 * time.Millisecond
	forever = 4 * still // for who waits and should not
)

// limits are those of a process that is killed when it does not run.
var limits = Limits{Total: 30 * time.Second, Still: still}

// steps are the names of the steps of a load, and aLoad is one that has them.
func steps(o guards) []string {
	l := aLoad()
	o.pause = -1
	return newScript(&l, nil, o).names
}

func aLoad() Load {
	return *two(As{UID: [3]int{1000, 1000, 1000}, GID: [3]int{1000, 1000, 1000}, Caps: capBPF})
}

// atEachStep runs f for each step of a load.
func atEachStep(t *testing.T, f func(t *testing.T, s *Source)) {
	for i, name := range steps(guards{}) {
		t.Run(fmt.Sprint(i, " ", name), func(t *testing.T) {
			t.Parallel()
			f(t, source(t, guards{pause: i}))
		})
	}
}

// strike starts a process, and sends it a signal before its step. But for the signal nothing keeps
// it from the step then.
func strike(t *testing.T, s *Source, signal unix.Signal) *Process {
	t.Helper()
	l := aLoad()
	r, w, err := os.Pipe()
	qt.Assert(t, qt.IsNil(err))
	defer r.Close()
	l.Objects = []int{int(r.Fd())}
	p, err := s.New(&l)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { w.Close(); p.Close() })
	eventually(t, "the step", func() bool {
		return s.o.pause == 0 || atomic.LoadUint32(&p.script.step(p.memory, s.o.pause-1).state) == done
	})
	qt.Assert(t, qt.IsNil(unix.PidfdSendSignal(p.pidfd, signal, nil, 0)))
	if signal == unix.SIGSTOP {
		eventually(t, "the stop", func() bool { return strings.HasPrefix(status(t, p.PID(), "State"), "T") })
	} else {
		gone(t, p)
	}
	_, err = w.Write([]byte{1})
	qt.Assert(t, qt.IsNil(err))
	return p
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := soon(); !ok(); time.Sleep(time.Millisecond) {
		qt.Assert(t, qt.IsTrue(time.Now().Before(deadline)), qt.Commentf(what))
	}
}

// It is gone when its time is over, and the next load is made.
func TestHostOrGuestStoppedAtEachStep(t *testing.T) {
	atEachStep(t, func(t *testing.T, s *Source) {
		for signal, want := range map[unix.Signal]error{unix.SIGSTOP: ErrTimeout, unix.SIGKILL: ErrEnded} {
			p := strike(t, s, signal)
			_, err := p.Result(limits)
			qt.Check(t, qt.ErrorIs(err, want), qt.Commentf("%v", signal))
			gone(t, p)
		}
		s.o.pause = -1
		l := aLoad()
		uid, err := makes(t, s, &l)
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(uid, 1000))
	})
}

// It does not stay when all others are gone.
func TestHostOrGuestStoppedAtEachStepForGood(t *testing.T) {
	atEachStep(t, func(t *testing.T, s *Source) {
		p := strike(t, s, unix.SIGSTOP)
		s.Close()
		gone(t, p)
	})
}

// struck is a process without guards, and who waits for it.
type struck struct {
	step   string
	source *Source
	*Process
	result chan error
	uid    uint32 // whose program it made
}

func strikeAll(t *testing.T, o guards, signal unix.Signal) (all []*struck) {
	for i, name := range steps(o) {
		o.pause = i
		s := source(t, o)
		v := &struck{step: name, source: s, Process: strike(t, s, signal), result: make(chan error, 1)}
		all = append(all, v)
		go func() {
			fd, err := v.Result(Limits{Total: time.Hour, Still: time.Hour})
			if err == nil {
				v.uid = created(t, fd)
				unix.Close(fd)
			}
			v.result <- err
		}()
	}
	return all
}

// Without the guards who asked for the load waits for ever, and the process stays.
func TestGuestUnguardedAtEachStep(t *testing.T) {
	vmtest.Guest(t)
	wait := func(all []*struck) {
		time.Sleep(forever)
		for _, v := range all {
			qt.Check(t, qt.Equals(len(v.result), 0), qt.Commentf("%s: the guard is not needed", v.step))
		}
	}
	stopped := strikeAll(t, guards{apart: true, outlives: true}, unix.SIGSTOP)
	wait(stopped)
	for _, v := range stopped {
		v.source.Close()
	}
	wait(stopped)
	for _, v := range stopped {
		qt.Check(t, qt.IsFalse(v.ended()), qt.Commentf("%s: the guard is not needed", v.step))
		// It was nothing but the signal.
		qt.Assert(t, qt.IsNil(unix.PidfdSendSignal(v.pidfd, unix.SIGCONT, nil, 0)))
		qt.Check(t, qt.IsNil(<-v.result))
		qt.Check(t, qt.Equals(v.uid, 1000))
	}
	killed := strikeAll(t, guards{unheard: true}, unix.SIGKILL)
	wait(killed)
	for _, v := range killed {
		v.kept.Close()
		qt.Check(t, qt.ErrorIs(<-v.result, ErrEnded))
	}
	t.Logf("%d stopped, %d killed", len(stopped), len(killed))
}
