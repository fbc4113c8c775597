// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"math"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// call is one finished call with what was copied for it.
type call struct {
	rec *trace.Call
	pieces
	attr       attr
	key        string // attr without what a loader changes between retries
	kind       load.Kind
	insnsHash  uint64
	insnsKnown bool
	toProbe    bool // a link to a program that only asks whether there are such links
}

// errno is positive, 0 for a call that succeeded.
func (c *call) errno() int {
	if c.rec.Ret >= 0 {
		return 0
	}
	return int(-max(c.rec.Ret, math.MinInt32+1))
}

// duration is in ns.
func (c *call) duration() uint64 { return uint64(since(c.rec.ID.Start, c.rec.End)) }

// unjited reports a program or filter that was loaded without being compiled. Offloaded programs
// are compiled elsewhere.
func (c *call) unjited() bool {
	if c.rec.Ret < 0 {
		return false
	}
	switch c.kind {
	case load.ProgLoad:
		if c.attr.prog().ProgIfindex != 0 {
			return false
		}
		if c.rec.Prog != nil {
			return !c.rec.Prog.JITed
		}
	case load.Seccomp, load.SocketFilter:
	default:
		return false
	}
	for _, s := range c.rec.Failed {
		switch {
		case s.Function == load.FnJIT && s.Unjited,
			(s.Function == load.FnJITSubprogs || s.Function == load.FnBlind) && s.Ret < 0:
			return true
		}
	}
	return false
}

// retryGroup is a call and its retries. Of all calls but the last only the log and the outcome are
// kept.
type retryGroup struct {
	tgid    uint32
	last    *call
	start   uint64 // of the first call
	calls   []load.Call
	longest uint64 // duration of the longest call
	until   uint64 // when it closes
	open    bool   // held back for a retry
	held    int    // bytes

	log     text // the best one
	trust   freshness
	logRead bool // a buffer was read, be it empty
	noSpace bool // the kernel said that the buffer of that log was too small
	said    []string
	insn    int // where do_check failed, -1 when not seen
}

// add makes c the last call, and returns by how many bytes more or less is held than before, the
// pieces of c included.
func (f *retryGroup) add(a *Assembler, c *call) int {
	before := f.held + c.size
	if f.last == nil {
		f.start, f.insn = c.rec.ID.Start, -1
	} else {
		c.inherit(f.last)
	}
	for _, what := range []trace.What{trace.Log, trace.BTFLog} {
		t, noSpace := readLog(c.ranges[what]), c.errno() == abi.ENOSPC
		t.whole = t.whole && !noSpace
		if t.s == "" {
			continue
		}
		trust := a.freshness(c, t)
		if f.log.s == "" || trust < f.trust || trust == f.trust && t.better(f.log) {
			f.log, f.trust, f.noSpace = t, trust, noSpace
			break
		}
	}
	f.logRead = f.logRead || c.ranges[trace.Log] != nil
	c.drop(trace.Log)
	c.drop(trace.BTFLog)
	if said := lastMessages(c.messages); len(said) > 0 {
		f.said = said
	}
	for _, s := range c.messages {
		c.size -= len(s)
	}
	c.messages = nil
	if c.rec.FailedInsn >= 0 && c.rec.Ret < 0 {
		f.insn = int(c.rec.FailedInsn)
	}
	level, size := c.attr.logSettings(c.kind)
	f.longest = max(f.longest, min(c.duration(), uint64(time.Hour)))
	f.calls = append(f.calls, load.Call{
		Time:     a.time(c.rec.ID.Start),
		Duration: time.Duration(c.duration()),
		Ret:      int(c.rec.Ret),
		LogLevel: level,
		LogSize:  size,
	})
	f.last = c
	f.held = c.size + len(f.log.s) + c.overhead()
	return f.held - before
}

// overhead estimates the bytes of the record itself.
func (c *call) overhead() int {
	const list = 48 // bytes of one entry
	return 1024 + 2*len(c.attr) + list*(len(c.rec.Failed)+len(c.rec.Stages)+2*len(c.rec.Maps)) + c.rec.Attach.Clip()
}

// inherit takes over what was copied for an earlier call of the group and not again for this one.
func (c *call) inherit(o *call) {
	for what, r := range o.ranges {
		if c.ranges[what] == nil {
			if c.ranges == nil {
				c.ranges = make(map[trace.What]*bytesOf)
			}
			c.ranges[what] = r
			c.size += r.cost()
		}
	}
	if len(c.rec.Maps) == 0 {
		c.rec.Maps = o.rec.Maps
	}
	if !c.insnsKnown {
		c.insnsHash, c.insnsKnown = o.insnsHash, o.insnsKnown
	}
}

// drop forgets a range.
func (p *pieces) drop(what trace.What) {
	if r := p.ranges[what]; r != nil {
		p.size -= r.cost()
		delete(p.ranges, what)
	}
}

// match returns the group that c is a retry of, nil for a new attempt.
func (a *Assembler) match(c *call) *retryGroup {
	var best *retryGroup
	for _, f := range a.groups[c.rec.TGID] {
		if !f.accepts(c) {
			continue
		}
		switch {
		case best == nil:
			best = f
		case f.sameThread(c) != best.sameThread(c):
			if f.sameThread(c) {
				best = f
			}
		case f.last.rec.End > best.last.rec.End:
			best = f
		}
	}
	return best
}

func (f *retryGroup) sameThread(c *call) bool { return f.last.rec.ID.TID == c.rec.ID.TID }

// accepts reports whether c is the group's next call: a loader's second try at what has just
// failed. Loaders written in Go change threads between tries, so the thread decides only where
// nothing else does.
//
//revive:disable-next-line:cyclomatic what tells another load from a second try, one by one
func (f *retryGroup) accepts(c *call) bool {
	l := f.last
	if !f.open || l.rec.Ret >= 0 || c.kind != l.kind || c.rec.Cmd != l.rec.Cmd || c.rec.Flags.FromKernel != l.rec.Flags.FromKernel {
		return false
	}
	if c.rec.ID.Start < l.rec.End || c.rec.ID.Start-l.rec.End > window+2*f.longest {
		return false
	}
	if c.insnsKnown && l.insnsKnown && c.insnsHash != l.insnsHash {
		return false
	}
	if len(c.attr) == 0 || len(l.attr) == 0 {
		// Nothing is known of what was asked: a seccomp policy that forbids bpf(2) shows like this,
		// over and over.
		return len(c.attr) == len(l.attr) && f.sameThread(c) && !c.rec.Flags.EnterSeen && c.rec.Ret == l.rec.Ret
	}
	if c.key != l.key {
		return f.sameThread(c) && dropped(c.kind, l.attr, c.attr)
	}
	wasLevel, wasSize := l.attr.logSettings(l.kind)
	level, size := c.attr.logSettings(c.kind)
	if grew := level > wasLevel || level == wasLevel && size > wasSize; grew || l.rec.Ret == -abi.EAGAIN {
		return true
	}
	// The same request once more, or one that begins anew without a log: a loop of this thread's
	// loader (bpftrace's around libbpf's), or another thread with the same program.
	return f.sameThread(c)
}
