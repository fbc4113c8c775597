// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"
	"strings"
	"sync"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/fdinfo"
	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// twin ends the name of a program that runs where the one without it was missed.
const twin = "_twin"

// lossMeter reads what every mechanism lost. Counters only grow; what was lost between two looks is one record. The mutex is for
// Close, which comes from another goroutine than Read.
type lossMeter struct {
	mu    sync.Mutex
	coll  *collection
	seen  map[string]uint64
	since uint64
	total uint64
	// dropped is how many calls the decoder gave up before their ends.
	dropped uint64
	// last is what was read just before the links were closed, when kretprobes can no longer be asked.
	last map[string]uint64
}

var lossNames = [coreLossL_MAX]string{"ring buffer full", "too many calls in flight", "end of call not seen", "too many followed processes"}

// counters reads without calling bpf(2), whose hooks are what is counted here: polling would make misses of its own.
func (l *lossMeter) counters() map[string]uint64 {
	if l.last != nil {
		return l.last
	}
	now := map[string]uint64{}
	if memory, err := l.coll.lost.Memory(); err == nil {
		for i, name := range lossNames {
			var b [8]byte
			if _, err := memory.ReadAt(b[:], int64(8*i)); err == nil {
				now[name] = binary.LittleEndian.Uint64(b[:])
			}
		}
	}
	for name, p := range l.coll.programs {
		if showsItsMisses(name) {
			continue
		}
		now["recursion in "+name] = fdinfo.RecursionMisses(p.FD()) // 5.12+
	}
	if profile := kprobeProfile(l.coll.tracefs); profile != nil {
		for _, lk := range l.coll.links {
			if p, ok := lk.(*returnProbe); ok {
				now["kretprobe missed in "+p.symbol] += profile[p.name]
			}
		}
	}
	return now
}

// showsItsMisses reports whether a run that a program misses shows in the call that it belongs to: a start without an end, an end without a
// start, or an entry that nobody takes out. Those calls are marked one by one, and others are not for their sake.
func showsItsMisses(program string) bool {
	if strings.TrimSuffix(program, twin) == "task_exit" { // leaves an entry behind: the next call of that thread number tells
		return true
	}
	for _, h := range hooks() {
		if h.shape != span {
			continue
		}
		if program == "fexit_"+h.program || program == "fexit_"+h.program+"_twin" || program == "fentry_"+h.program && h.function != load.FnSyscall {
			return true
		}
	}
	return false
}

// freeze reads the counters once more while everything is still attached.
func (l *lossMeter) freeze() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.coll == nil || l.coll.lost == nil {
		return
	}
	now := l.counters()
	for _, lk := range l.coll.links {
		if lk, ok := lk.(link.Link); ok {
			if info, err := lk.Info(); err == nil && info.PerfEvent() != nil { // 6.7+
				if k := info.PerfEvent().Kprobe(); k != nil {
					now["kprobe missed"] += k.Missed
				}
			}
		}
	}
	l.last = now
}

func (l *lossMeter) read() []trace.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := monotonic()
	if l.coll == nil {
		return nil
	}
	now := l.counters()
	now["too many calls without an end"] = l.dropped
	more := map[string]uint64{}
	for name, n := range now {
		more[name] = n - l.seen[name]
	}
	var records []trace.Record
	for name, n := range more {
		if _, ok := more[strings.TrimSuffix(name, twin)]; ok && strings.HasSuffix(name, twin) {
			continue // counted with the other
		}
		if second, ok := more[name+twin]; ok {
			n = min(n, second) // lost is what both missed: never more than either did meanwhile
		}
		if n > 0 {
			records = append(records, trace.Record{Loss: &trace.Loss{Mechanism: name, Count: n, From: l.since, To: at}})
			l.total += n
		}
	}
	l.seen, l.since = now, at
	return records
}

func monotonic() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return uint64(ts.Nano())
}
