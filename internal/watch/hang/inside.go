// SPDX-License-Identifier: Apache-2.0

package hang

import (
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
)

// Doing is what a thread does that began a call.
type Doing int

const (
	Unknown   Doing = iota // it cannot be looked at
	Undecided              // it runs: the next look will tell
	Inside                 // it is in that call
	Outside                // it is not: it does something else, or has ended
)

// Begun is a call that a thread began and whose end nobody saw: it may have been missed, so that
// the thread is asked.
type Begun struct {
	TID     int    // in our own pid namespace
	BPF     bool   // bpf(2); else a call that installs a classic filter
	Command uint32 // of bpf(2)
	Attr    uint64 // its second argument
	Kernel  bool   // the kernel made it itself, in the middle of another call

	looking chan sight // a look that does not come back: the thread is in the middle of an exec
	ran     *ticks     // when it was found running before
}

// sight is one look at a thread.
type sight struct {
	call    call
	ok      bool // it is in a call
	outside bool
	running bool
	ticks   ticks
}

// ticks are the processor time of a thread.
type ticks struct{ user, system uint64 }

// Look says what the thread does now.
func (b *Begun) Look() Doing {
	if b.looking == nil {
		b.looking = make(chan sight, 1)
		go func(to chan<- sight, tid int) { to <- glance(tid) }(b.looking, b.TID)
	}
	select {
	case s := <-b.looking:
		b.looking = nil
		return b.judge(s)
	case <-time.After(patience):
		return Unknown
	}
}

func glance(tid int) (s sight) {
	// A /proc may hide threads. Those that it does not show and that no signal reaches have ended.
	if errors.Is(unix.Kill(tid, 0), unix.ESRCH) {
		return sight{outside: true}
	}
	dir := "/proc/" + strconv.Itoa(tid) + "/"
	switch line := proc.Read(dir + "syscall"); line {
	case "":
	case "running\n":
		var st proc.Stat
		st, s.running = proc.ReadStat(dir)
		s.ticks = ticks{st.User, st.System}
	default:
		s.call, s.ok = parseCall(line)
		s.outside = !s.ok
	}
	return s
}

func (b *Begun) judge(s sight) Doing {
	ran := b.ran
	b.ran = nil
	switch {
	case s.outside:
		return Outside
	case s.ok && b.is(s.call):
		return Inside
	case s.ok:
		return Outside
	case !s.running:
		return Unknown
	case ran == nil:
		b.ran = &s.ticks
		return Undecided
	}
	// What runs inside a call has no time of its own meanwhile, but for the error of the kernel's
	// division.
	user, system := s.ticks.user-ran.user, s.ticks.system-ran.system
	switch {
	case user > system:
		return Outside
	case system > 0:
		return Inside
	}
	return Unknown // it got no time at all
}

// old are the numbers of i386, which the system calls of x86-64 do not have, or do not wait in.
var old, _ = abi.SyscallsOf("i386")

// loadsInside reports a call in which the kernel may load programs itself: bpf(2), mounting a
// bpffs, modules.
func (c call) loadsInside() bool {
	return c.in(native.BPF) || c.in(old.BPF) || c.in(native.Mount) || c.in(native.Fsconfig) || c.in(native.InitModule) || c.in(native.FinitModule)
}

// is reports whether a system call is the one that was begun.
func (b *Begun) is(c call) bool {
	switch {
	case b.Kernel:
		return c.loadsInside()
	case b.BPF:
		return (c.in(native.BPF) || c.in(old.BPF)) && uint32(c.args[0]) == b.Command && c.args[1] == b.Attr
	}
	return !c.in(native.BPF) && c.loads() || c.in(old.Seccomp) || c.in(old.Setsockopt) || c.in(old.Socketcall) || c.in(old.Prctl)
}
