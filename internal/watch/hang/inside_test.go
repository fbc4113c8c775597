// SPDX-License-Identifier: Apache-2.0

package hang

import (
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// A thread is in the call that it began, in another, or nobody can tell.
func TestJudge(t *testing.T) {
	in := func(line string) sight {
		c, ok := parseCall(line)
		return sight{call: c, ok: ok, outside: !ok}
	}
	const load = "321 0x5 0x7ffd0 0x98 0x0 0x0 0x0 0x7ffd8 0x7f12\n"
	begun := Begun{BPF: true, Command: 5, Attr: 0x7ffd0}
	runs := func(user, system uint64) sight { return sight{running: true, ticks: ticks{user, system}} }
	for _, test := range []struct {
		name  string
		begun Begun
		looks []sight
		want  Doing
	}{
		{"the load", begun, []sight{in(load)}, Inside},
		{"another command", begun, []sight{in("321 0x1 0x7ffd0 0x98 0x0 0x0 0x0 0x7ffd8 0x7f12\n")}, Outside},
		{"another load", begun, []sight{in("321 0x5 0x7eee0 0x98 0x0 0x0 0x0 0x7ffd8 0x7f12\n")}, Outside},
		{"one of 32 bits", begun, []sight{in("357 0x5 0x7ffd0 0x98 0x0 0x0 0x0 0x7ffd8 0x7f12\n")}, Inside},
		{"it waits for work", begun, []sight{in("232 0x5 0x7ffd0 0x98 0x0 0x0 0x0 0x7ffd8 0x7f12\n")}, Outside},
		{"in no call", begun, []sight{in("-1 0x7ffd8 0x7f12\n")}, Outside},
		{"not to be read", begun, []sight{{}}, Unknown},
		{"the kernel's own", Begun{BPF: true, Kernel: true, Command: 5, Attr: 0xffff888000000000}, []sight{in("321 0xa 0x7ffd0 0x98 0x0 0x0 0x0 0x7ffd8 0x7f12\n")}, Inside},
		{"the kernel's own is over", Begun{BPF: true, Kernel: true, Command: 5}, []sight{in("202 0xa 0x7ffd0 0x98 0x0 0x0 0x0 0x7ffd8 0x7f12\n")}, Outside},
		{"a filter", Begun{}, []sight{in("317 0x1 0x0 0x7ffd 0x0 0x0 0x0 0x7ffd8 0x7f12\n")}, Inside},
		{"a filter, and now a load", Begun{}, []sight{in(load)}, Outside},
		{"runs", begun, []sight{runs(100, 100)}, Undecided},
		{"runs in the kernel", begun, []sight{runs(100, 100), runs(101, 600)}, Inside},
		{"runs by itself", begun, []sight{runs(100, 100), runs(580, 120)}, Outside},
		{"wants to run", begun, []sight{runs(100, 100), runs(100, 100)}, Unknown},
		{"ran, and waits", begun, []sight{runs(100, 100), in(load)}, Inside},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got Doing
			for _, s := range test.looks {
				got = test.begun.judge(s)
			}
			qt.Check(t, qt.Equals(got, test.want))
		})
	}
}

// Threads of this machine that are in no load.
func TestLook(t *testing.T) {
	sleep := exec.Command("sleep", "100")
	qt.Assert(t, qt.IsNil(sleep.Start()))
	time.Sleep(50 * time.Millisecond)
	pid := sleep.Process.Pid
	qt.Check(t, qt.Equals((&Begun{TID: pid, BPF: true, Command: 5}).Look(), Outside))
	sleep.Process.Kill()
	sleep.Wait()
	qt.Check(t, qt.Equals((&Begun{TID: pid, BPF: true, Command: 5}).Look(), Outside)) // it has ended
	if os.Geteuid() != 0 {
		return
	}

	var over atomic.Bool
	defer over.Store(true)
	tid := make(chan int)
	go func() {
		runtime.LockOSThread()
		tid <- unix.Gettid()
		for !over.Load() {
		}
	}()
	busy := Begun{TID: <-tid, BPF: true, Command: 5}
	// It may be off its processor for another's sake, and is in no call then.
	for start := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		got := busy.Look()
		if got == Outside {
			break
		}
		qt.Assert(t, qt.Equals(got == Undecided && time.Since(start) < 10*time.Second, true), qt.Commentf("%d", got))
	}
}
