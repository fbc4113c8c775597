// SPDX-License-Identifier: Apache-2.0

// Package assemble turns the records of a trace into attempts: it joins what belongs to one call,
// groups a loader's retries, finds the stage that failed, and says what could not be seen. It is
// pure, and it trusts no record.
package assemble

import (
	"container/heap"
	"hash/maphash"
	"iter"
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/watch/redact"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// Bounds of what is held back at one time. A program of 1,000,000 instructions takes 8 MB.
const (
	maxBytes    = 24 << 20 // copied bytes, all calls together, with what they take to be held
	maxPending  = 4096     // calls of which only pieces were seen
	maxGroups   = 4096
	maxMessages = 64 // messages of one call
	maxCalls    = 64 // of one group; a loader that tries for ever becomes several attempts
	maxLosses   = 256
	maxSysctls  = 64
	// Memory bounds the heap that an Assembler takes: what is copied, and at most 2 KiB for each
	// call that is known of.
	Memory = maxBytes + 2<<10*maxPending
)

// window is how long after a failed call its loader may try again, in ns of the record's clock. The
// call's own duration is added twice: a slow machine is slow between the calls too, and the retry
// is only seen when it ends.
const window = 300e6

// maxWait bounds how long a retry that is under way is waited for, in ns: its end may be lost.
const maxWait = 120e9

// Assembler makes attempts of records. It is not safe for concurrent use. It takes ownership of the
// records, and of the bytes in them.
type Assembler struct {
	header  trace.Header
	watched map[load.Function]bool
	// denials is set where the seccomp policy in front of bpf(2) is watched itself, and not only
	// the end of a call without a start.
	denials bool
	pending map[trace.CallID]*pieces
	oldest  []trace.CallID // of pending, by arrival
	groups  map[uint32][]*retryGroup
	open    int // groups
	due     dueHeap
	// running are the loads that began and have not ended, by thread group: while there is one, it
	// may be the retry that a group waits for.
	running map[uint32][]trace.CallID
	began   int // of running, all together
	// linkProgs are programs that loaders made to ask for a kind of link.
	linkProgs map[linkProg]bool
	bytes     int // held by pending and groups
	clock     uint64
	losses    []trace.Loss
	sysctls   map[string][]trace.Sysctl
	seed      maphash.Seed
	done      []*retryGroup // final, and not yet taken
	dropped   uint64        // calls of which pieces were forgotten
	strays    uint64
}

// Dropped is the mechanism that loses pieces of calls whose end does not come, or comes too late.
const Dropped = "pieces without their call"

// DroppedCalls is how many calls lost pieces to it.
func (a *Assembler) DroppedCalls() uint64 { return a.dropped }

// Strays is how many calls were no load, and are in no attempt.
func (a *Assembler) Strays() uint64 { return a.strays }

// New returns an assembler for the records after a header.
func New(h trace.Header) *Assembler {
	a := &Assembler{
		header:    h,
		watched:   make(map[load.Function]bool),
		pending:   make(map[trace.CallID]*pieces),
		groups:    make(map[uint32][]*retryGroup),
		running:   make(map[uint32][]trace.CallID),
		linkProgs: make(map[linkProg]bool),
		sysctls:   make(map[string][]trace.Sysctl),
		seed:      maphash.MakeSeed(),
	}
	for _, hook := range h.Hooks {
		if hook.Via != "" {
			a.watched[hook.Function] = true
			a.denials = a.denials || hook.Function == load.FnDenied && (hook.Via == "fentry" || hook.Via == "kprobe")
		}
	}
	return a
}

// Add takes the next record and returns the attempts that are final with it: a success at once, a
// failure when its loader can no longer try again. Each is made when it is asked for, so that many
// at once need no more memory than one; one that is not taken comes with the next call.
func (a *Assembler) Add(r trace.Record) iter.Seq[*load.Attempt] {
	switch {
	case r.Chunk != nil:
		a.addChunk(r.Chunk)
	case r.Message != nil:
		a.addMessage(r.Message)
	case r.Begin != nil:
		a.addBegin(r.Begin)
	case r.Call != nil:
		a.addCall(r.Call)
		a.tick(r.Call.End)
	case r.Loss != nil:
		a.addLoss(*r.Loss)
	case r.Sysctl != nil:
		a.addSysctl(*r.Sysctl)
	case r.End != nil:
		a.flush()
	}
	return a.take()
}

// Tick returns the attempts that are final at a time, in ns of the kernel's monotonic clock. Call
// it when no record comes.
func (a *Assembler) Tick(now uint64) iter.Seq[*load.Attempt] {
	a.tick(now)
	return a.take()
}

// Flush returns every attempt that is still held back.
func (a *Assembler) Flush() iter.Seq[*load.Attempt] {
	a.flush()
	return a.take()
}

func (a *Assembler) take() iter.Seq[*load.Attempt] {
	return func(yield func(*load.Attempt) bool) {
		for len(a.done) > 0 {
			f := a.done[0]
			a.done[0] = nil
			a.done = a.done[1:]
			if !yield(a.attempt(f)) {
				return
			}
		}
		a.done = nil
	}
}

func (a *Assembler) piecesOf(id trace.CallID) *pieces {
	p := a.pending[id]
	if p == nil {
		for len(a.pending) >= maxPending {
			a.dropOldest()
		}
		p = new(pieces)
		a.pending[id] = p
		a.oldest = append(a.oldest, id)
		if len(a.oldest) > 2*maxPending {
			a.oldest = slices.DeleteFunc(a.oldest, func(id trace.CallID) bool { return a.pending[id] == nil })
		}
	}
	return p
}

// dropOldest forgets the pieces of the call that has waited longest for its Call record.
func (a *Assembler) dropOldest() bool {
	for len(a.oldest) > 0 {
		id := a.oldest[0]
		a.oldest = a.oldest[1:]
		if p := a.pending[id]; p != nil {
			a.bytes -= p.size
			delete(a.pending, id)
			a.dropped++
			a.addLoss(trace.Loss{Mechanism: Dropped, Count: 1, From: id.Start, To: id.Start}) // the call's own, should it come
			return true
		}
	}
	return false
}

// reserve makes room for n more bytes. Attempts that wait for a retry go first: they lose nothing
// but the retry. Then pieces whose call has not come for the longest time.
func (a *Assembler) reserve(n int) {
	for a.bytes+n > maxBytes && len(a.due) > 0 {
		a.finishFirst()
	}
	for a.bytes+n > maxBytes && a.dropOldest() {
	}
}

func (a *Assembler) addChunk(c *trace.Chunk) {
	a.reserve(len(c.Data))
	p := a.piecesOf(c.ID)
	if p.size+len(c.Data) > maxBytes/2 {
		p.dropped += uint64(len(c.Data))
		return
	}
	before := p.size
	p.add(c)
	a.bytes += p.size - before
}

func (a *Assembler) addMessage(s *trace.Message) {
	if a.header.Levels == 0 {
		redact.New(redact.Five).Message(s.Format, &s.Args, &s.Strings)
	}
	text := format(s)
	a.reserve(len(text))
	p := a.piecesOf(s.ID)
	if len(p.messages) >= maxMessages {
		p.size -= len(p.messages[0])
		a.bytes -= len(p.messages[0])
		p.messages = append(p.messages[:0], p.messages[1:]...)
	}
	p.messages = append(p.messages, text)
	p.size += len(text)
	a.bytes += len(text)
}

func (a *Assembler) addLoss(l trace.Loss) {
	if l.Mechanism == trace.LostLoads {
		return // loads of which nothing is here: no other is less whole for it
	}
	if len(a.losses) >= maxLosses {
		a.losses = a.losses[1:]
	}
	a.losses = append(a.losses, l)
}

func (a *Assembler) addBegin(b *trace.Begin) {
	if a.began >= maxPending {
		a.forgetRunning()
	}
	if a.began >= maxPending {
		return // the window alone decides
	}
	a.running[b.TGID] = append(a.running[b.TGID], b.ID)
	a.began++
}

// forgetRunning takes out loads that nobody waits for any more: their ends were lost, or they hang.
func (a *Assembler) forgetRunning() {
	for tgid := range a.running {
		a.keepRunning(tgid, func(id trace.CallID) bool { return id.Start+maxWait >= a.clock })
	}
}

func (a *Assembler) keepRunning(tgid uint32, keep func(trace.CallID) bool) {
	list := a.running[tgid]
	kept := slices.DeleteFunc(list, func(id trace.CallID) bool { return !keep(id) })
	a.began -= len(list) - len(kept)
	if len(kept) == 0 {
		delete(a.running, tgid)
	} else {
		a.running[tgid] = kept
	}
}

func (a *Assembler) ended(c *trace.Call) {
	a.keepRunning(c.TGID, func(id trace.CallID) bool {
		return id.TID != c.ID.TID || id.Start > c.ID.Start // one that began before: its end was lost
	})
}

// awaited reports whether a load that may be the group's retry began in time and has not ended.
func (a *Assembler) awaited(f *retryGroup) bool {
	return a.clock < f.last.rec.End+maxWait && slices.ContainsFunc(a.running[f.tgid], func(id trace.CallID) bool {
		return id.Start >= f.last.rec.End && id.Start <= f.until
	})
}

func (a *Assembler) addSysctl(s trace.Sysctl) {
	if len(s.Name) > 128 || len(s.Value) > 128 || len(a.sysctls) >= 32 && a.sysctls[s.Name] == nil {
		return
	}
	list := a.sysctls[s.Name]
	if len(list) >= maxSysctls {
		list = list[1:]
	}
	a.sysctls[s.Name] = append(list, s)
}

func (a *Assembler) addCall(c *trace.Call) {
	a.clipCall(c)
	p := a.pending[c.ID]
	if p == nil {
		p = new(pieces)
	}
	delete(a.pending, c.ID)
	a.ended(c)
	if a.stray(c) {
		a.strays++
		a.bytes -= p.size
		return
	}
	if a.header.Levels == 0 {
		p.redact(c)
	}
	call := &call{rec: c, pieces: *p, attr: attr(c.Attr), kind: kindOf(c)}
	call.key = call.attr.request(call.kind)
	if b, whole := p.ranges[trace.Insns].prefix(); whole && len(b) > 0 {
		call.insnsHash, call.insnsKnown = maphash.Bytes(a.seed, b), true
	}
	a.remember(call)
	f := a.match(call)
	if f == nil {
		f = &retryGroup{tgid: c.TGID}
	}
	a.bytes += f.add(a, call)
	defer a.reserve(0)
	switch {
	case c.Ret >= 0 && !call.unjited():
		a.finish(f)
	case !f.open:
		a.hold(f)
	}
	if f.open {
		f.until = c.End + window + 2*f.longest
		if len(f.calls) >= maxCalls {
			a.finish(f)
		}
	}
}

// stray reports the end of a call of which nothing else is known, not even that it was a load:
// another command's, or one that began before anybody watched. The same sight is a seccomp policy
// that forbids bpf(2), where the thread has one; where that is not known, the answers that policies
// give are taken for theirs.
func (a *Assembler) stray(c *trace.Call) bool {
	switch {
	case c.Flags.EnterSeen || c.Flags.FromKernel || len(c.Attr) > 0 || kindOf(c) != load.OtherCommand || a.denials:
		return false
	case c.Creds != nil:
		return c.Creds.SeccompMode != 2
	}
	return c.Ret != -abi.EPERM && c.Ret != -abi.EACCES && c.Ret != -abi.ENOSYS
}

// clipCall bounds what a record can make us hold: a page of attr, and lists as long as capture
// makes them.
func (a *Assembler) clipCall(c *trace.Call) {
	const page, list = 4096, 128
	c.Attr = c.Attr[:min(len(c.Attr), page)]
	c.Failed = c.Failed[max(0, len(c.Failed)-maxSpans):]
	c.Stages = c.Stages[:min(len(c.Stages), list)]
	c.Maps = c.Maps[:min(len(c.Maps), list)]
	c.Attach.Clip()
}

func kindOf(c *trace.Call) load.Kind {
	if c.Kind != "" && c.Kind != load.OtherCommand {
		return c.Kind
	}
	if c.Flags.EnterSeen || len(c.Attr) > 0 {
		if k, ok := kinds[c.Cmd]; ok {
			return k
		}
	}
	return load.OtherCommand
}

func (a *Assembler) hold(f *retryGroup) {
	for a.open >= maxGroups {
		a.finishFirst()
	}
	f.open = true
	a.open++
	a.groups[f.tgid] = append(a.groups[f.tgid], f)
	heap.Push(&a.due, due{f, f.last.rec.End + window})
}

// finish makes a group final.
func (a *Assembler) finish(f *retryGroup) {
	if f.open {
		f.open = false
		a.open--
		list := a.groups[f.tgid]
		if i := slices.Index(list, f); i >= 0 {
			list = slices.Delete(list, i, i+1)
		}
		if len(list) == 0 {
			delete(a.groups, f.tgid)
		} else {
			a.groups[f.tgid] = list
		}
	}
	if f.last == nil {
		return
	}
	whole := *f
	a.done = append(a.done, &whole)
	a.bytes -= f.held
	*f = retryGroup{} // which the heap may still know
}

// finishFirst emits the group whose window closes first.
func (a *Assembler) finishFirst() {
	if len(a.due) == 0 {
		return
	}
	d := heap.Pop(&a.due).(due)
	if d.group.open {
		a.finish(d.group)
	}
}

func (a *Assembler) tick(now uint64) {
	a.clock = max(a.clock, now)
	for len(a.due) > 0 && a.due[0].at < a.clock {
		d := heap.Pop(&a.due).(due)
		switch f := d.group; {
		case !f.open:
		case f.until >= a.clock:
			heap.Push(&a.due, due{f, f.until})
		case a.awaited(f):
			heap.Push(&a.due, due{f, a.clock + window})
		default:
			a.finish(f)
		}
	}
}

func (a *Assembler) flush() {
	for len(a.due) > 0 {
		a.finishFirst()
	}
}

// due is a time at which a group must be looked at again; the group may have moved on since.
type due struct {
	group *retryGroup
	at    uint64
}

type dueHeap []due

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(due)) }
func (h *dueHeap) Pop() any {
	old := *h
	d := old[len(old)-1]
	old[len(old)-1] = due{}
	*h = old[:len(old)-1]
	return d
}
