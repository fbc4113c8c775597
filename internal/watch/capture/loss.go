// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/sys/fdinfo"
	"github.com/bpfwhy/bpfwhy/internal/watch/hook"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// reentrantSuffix ends the name of a program that runs where the one without it was missed.
const reentrantSuffix = "_reentrant"

// reading is what one counter said, or why it could not be read.
type reading struct {
	n   uint64
	err error
}

// readings are one look at the counters, by mechanism. A mechanism with several counters lost what
// all of them missed: never more than any of them did.
type readings map[string][]reading

func (r readings) add(mechanism string, n uint64, err error) {
	r[mechanism] = append(r[mechanism], reading{n, err})
}

// accounts turn looks at counters into what was lost in between. A counter that cannot be read, or
// that runs backward, leaves its mechanism as it was: the next look tells of both spans, and the
// last one says that it is not known.
type accounts struct {
	mechanisms map[string]*account
}

// account is one mechanism's.
type account struct {
	seen []uint64 // its counters
	at   uint64   // when they were read
	told uint64
}

// look returns the losses since the last look. The last look is final.
func (a *accounts) look(now readings, at uint64, final bool) []trace.Record {
	if a.mechanisms == nil {
		a.mechanisms = map[string]*account{}
	}
	var records []trace.Record
	for _, name := range slices.Sorted(maps.Keys(now)) {
		m := a.mechanisms[name]
		if m == nil {
			m = &account{seen: make([]uint64, len(now[name]))}
			a.mechanisms[name] = m
		}
		loss := trace.Loss{Mechanism: name, From: m.at, To: at}
		n, ok := m.step(now[name])
		switch {
		case ok:
			loss.Count = n
			m.at, m.told = at, m.told+n
		case final:
			loss.Unknown = true
		}
		if loss.Count > 0 || loss.Unknown {
			records = append(records, trace.Record{Loss: &loss})
		}
	}
	return records
}

// step is by how much a mechanism's loss grew; ok is false where its counters do not say.
func (m *account) step(now []reading) (n uint64, ok bool) {
	values := make([]uint64, len(now))
	if len(now) != len(m.seen) {
		return 0, false
	}
	for i, r := range now {
		if r.err != nil || r.n < m.seen[i] {
			return 0, false
		}
		values[i] = r.n
		if grown := r.n - m.seen[i]; i == 0 || grown < n {
			n = grown
		}
	}
	m.seen = values
	return n, true
}

// lossMeter reads what every mechanism lost. The mutex is for Close, which comes from another
// goroutine than Read.
type lossMeter struct {
	mu   sync.Mutex
	coll *collection
	accounts
	loads failedLoads
	// dropped is how many calls the decoder gave up before their ends.
	dropped uint64
	// last is what was read just before the links were closed, when kretprobes can no longer be
	// asked.
	last readings
}

var lossNames = map[coreLoss]string{
	coreLossL_RING: "ring buffer full", coreLossL_INFLIGHT: "too many calls in flight", coreLossL_STALE: "end of call not seen",
	coreLossL_FOLLOW: "too many followed processes", coreLossL_CALL: "ring buffer full for a call",
	coreLossL_UNMARKED: "far too many calls in flight",
}

// counter reads one of the programs' own counters, without calling bpf(2), whose hooks are what is
// counted here: polling would make misses of its own.
func (c *collection) counter(id coreLoss) (uint64, error) {
	memory, err := c.lost.Memory()
	if err != nil {
		return 0, err
	}
	var b [8]byte
	if _, err := memory.ReadAt(b[:], int64(8*id)); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// counters looks at all of them.
func (l *lossMeter) counters() readings {
	now := readings{}
	for id, name := range lossNames {
		n, err := l.coll.counter(id)
		now.add(name, n, err)
	}
	for name, p := range l.coll.programs {
		if mechanism := missedBy(name); mechanism != "" {
			n, err := fdinfo.Number(p.FD(), "recursion_misses")
			if errors.Is(err, fdinfo.ErrNoField) { // before 5.12, where nothing preempts a program
				n, err = 0, nil
			}
			now.add(mechanism, n, err)
		}
	}
	profile, err := map[string]uint64(nil), error(nil)
	for _, lk := range l.coll.links {
		p, ok := lk.(*returnProbe)
		if !ok {
			continue
		}
		if profile == nil && err == nil {
			profile, err = kprobeProfile(l.coll.tracefs)
		}
		n, found := profile[p.name]
		if err == nil && !found {
			now.add(missedReturns+p.symbol, 0, errNoProfile)
			continue
		}
		now.add(missedReturns+p.symbol, n, err)
	}
	return now
}

// missedReturns begins the name of what a kretprobe missed.
const missedReturns = "kretprobe missed in "

var errNoProfile = errors.New("kprobe_profile does not have it")

// missedBy is the mechanism that a program's missed runs count for, "" for none: runs that show in
// the call that they belong to, as a start without an end, an end without a start, or an entry that
// nobody takes out. Those calls are marked one by one, and others are not for their sake. A
// function whose start and end are both missed does not show.
func missedBy(program string) string {
	name := strings.TrimSuffix(program, reentrantSuffix)
	if name == "task_exit" { // leaves an entry behind: the next call of that thread number tells
		return ""
	}
	for _, s := range sites() {
		if s.Shape == hook.Span && (name == "fentry_"+s.Program || name == "fexit_"+s.Program) {
			switch {
			case s.Function != load.FnSyscall:
				return "recursion in " + s.Program
			case name == "fexit_"+s.Program:
				return ""
			}
		}
	}
	return "recursion in " + name
}

// freeze reads the counters once more while everything is still attached.
func (l *lossMeter) freeze() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.coll == nil || l.coll.lost == nil {
		return
	}
	now := l.counters()
	missed, err := uint64(0), error(nil)
	for _, lk := range l.coll.links {
		if lk, ok := lk.(link.Link); ok {
			if info, ierr := lk.Info(); ierr == nil && info.PerfEvent() != nil { // 6.7+
				if k := info.PerfEvent().Kprobe(); k != nil {
					missed += k.Missed
				}
			}
		}
	}
	now.add("kprobe missed", missed, err)
	l.last = now
}

// read returns what was lost since it was last read; drained says that every record of the ring up
// to now was taken in.
func (l *lossMeter) read(drained, final bool) []trace.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.coll == nil {
		return nil
	}
	at := monotonic()
	now := l.last
	if now == nil {
		now = l.counters()
	}
	now = maps.Clone(now)
	now.add("too many calls without an end", l.dropped, nil)
	records := l.look(now, at, final)
	if drained {
		records = append(records, l.loads.settle(at, final, !l.blind())...)
	}
	return records
}

// blind reports whether ends of loads were missed, or may have been: those were not counted, and
// may have failed.
func (l *lossMeter) blind() bool {
	for name, m := range l.mechanisms {
		if m.told == 0 {
			continue
		}
		switch name {
		case lossNames[coreLossL_STALE], lossNames[coreLossL_UNMARKED], "recursion in btf_sys_exit", "recursion in exit_bpf",
			"recursion in fentry_sys_bpf": // its reentrant copy missed it too, and so may those at the end have
			return true
		}
		if strings.HasSuffix(name, "sys_bpf") && (strings.HasPrefix(name, "recursion in kretprobe_") || strings.HasPrefix(name, missedReturns)) {
			return true
		}
	}
	return false
}

func (l *lossMeter) total() (n uint64) {
	for _, m := range l.mechanisms {
		n += m.told
	}
	return n + l.loads.told
}

// failedLoads accounts for program loads that failed: the kernel side counts each before anything
// of it can be lost, and what does not arrive here was lost.
type failedLoads struct {
	counted func() (uint64, error)
	arrived uint64
	told    uint64
	since   uint64 // ns
	// least is the least that was missing since at: a load that is being written to the ring is not
	// lost.
	least uint64
	at    uint64
}

// settleTime is how long a load must be missing to be lost: its process may be off the processor
// while it is being written, in ns.
const settleTime = uint64(2 * time.Second)

// settle is called when all that there is has arrived. The last call is final, and has waited for
// what was being written. whole says that every load that failed was counted.
func (f *failedLoads) settle(at uint64, final, whole bool) []trace.Record {
	var records []trace.Record
	lost := func(n uint64, unknown bool) {
		records = append(records, trace.Record{Loss: &trace.Loss{Mechanism: trace.LostLoads, Count: n, Unknown: unknown, From: f.since, To: at}})
	}
	n, err := f.counted()
	missing := n - min(n, f.arrived)
	switch {
	case err != nil:
		whole = false
	case missing <= f.told:
		f.at = 0
	case f.at == 0 && !final:
		f.least, f.at = missing, at
	default:
		f.least = min(f.least, missing)
		if final {
			f.least = missing
		}
		if final || at-f.at >= settleTime {
			lost(f.least-f.told, false)
			f.told, f.since, f.at = f.least, at, 0
		}
	}
	if final && !whole {
		lost(0, true)
	}
	return records
}

func monotonic() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return uint64(ts.Nano())
}
