// SPDX-License-Identifier: Apache-2.0

package hang

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Doing is what a thread does that began a call.
type Doing int

const (
	Unknown   Doing = iota // it cannot be looked at
	Undecided              // it runs: the next look will tell
	Inside                 // it is in that call
	Outside                // it is not: it does something else, or has ended
)

// Begun is a call that a thread began and whose end nobody saw: it may have been missed, so that the thread is asked.
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
	switch line := read(dir + "syscall"); line {
	case "":
	case "running\n":
		_, s.ticks, s.running = stat(dir)
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
	// What runs inside a call has no time of its own meanwhile, but for the error of the kernel's division.
	user, system := s.ticks.user-ran.user, s.ticks.system-ran.system
	switch {
	case user > system:
		return Outside
	case system > 0:
		return Inside
	}
	return Unknown // it got no time at all
}

// Numbers of i386, which the system calls of x86-64 do not have, or do not wait in.
const (
	nrBPF32        = 357
	nrSeccomp32    = 354
	nrSetsockopt32 = 366
	nrSocketcall32 = 102
	nrPrctl32      = 172
)

// Other calls in which the kernel loads programs itself: mounting a bpffs, modules. Of x86-64.
var loadsInside = []uint64{nrBPF, nrBPF32, 165 /* mount */, 431 /* fsconfig */, 175 /* init_module */, 313 /* finit_module */}

// is reports whether a system call is the one that was begun.
func (b *Begun) is(c call) bool {
	switch {
	case b.Kernel:
		return slices.Contains(loadsInside, c.nr)
	case b.BPF:
		return (c.nr == nrBPF || c.nr == nrBPF32) && uint32(c.args[0]) == b.Command && c.args[1] == b.Attr
	}
	return c.nr != nrBPF && c.loads() || slices.Contains([]uint64{nrSeccomp32, nrSetsockopt32, nrSocketcall32, nrPrctl32}, c.nr)
}
