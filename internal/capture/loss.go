// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"golang.org/x/sys/unix"

	"github.com/cilium/ebpf/link"

	"github.com/bpfwhy/bpfwhy/internal/trace"
)

// lossMeter reads what every mechanism lost. Counters only grow; what was lost between two looks is one record.
type lossMeter struct {
	coll  *collection
	seen  map[string]uint64
	since uint64
	total uint64
	// last is what was read just before the links were closed, when kretprobes can no longer be asked.
	last map[string]uint64
}

var lossNames = [coreLossL_MAX]string{"ring buffer full", "too many calls in flight", "end of call not seen", "too many followed processes"}

func (l *lossMeter) counters() map[string]uint64 {
	if l.last != nil {
		return l.last
	}
	now := map[string]uint64{}
	for i, name := range lossNames {
		var n uint64
		if err := l.coll.lost.Lookup(uint32(i), &n); err == nil {
			now[name] = n
		}
	}
	for name, p := range l.coll.programs {
		if s, err := p.Stats(); err == nil { // 5.12+
			now["recursion in "+name] = s.RecursionMisses
		}
	}
	for _, lk := range l.coll.links {
		switch lk := lk.(type) {
		case *returnProbe:
			if n, ok := lk.missed(); ok {
				now["kretprobe missed"] += n
			}
		case link.Link:
			if info, err := lk.Info(); err == nil && info.PerfEvent() != nil { // 6.7+
				if k := info.PerfEvent().Kprobe(); k != nil {
					now["kprobe missed"] += k.Missed
				}
			}
		}
	}
	return now
}

// freeze reads the counters once more while everything is still attached.
func (l *lossMeter) freeze() {
	if l.coll != nil && l.coll.lost != nil {
		l.last = l.counters()
	}
}

func (l *lossMeter) read() []trace.Record {
	at := monotonic()
	if l.coll == nil {
		return nil
	}
	var records []trace.Record
	for name, n := range l.counters() {
		if d := n - l.seen[name]; d > 0 {
			records = append(records, trace.Record{Loss: &trace.Loss{Mechanism: name, Count: d, From: l.since, To: at}})
			l.total += d
		}
		if l.seen == nil {
			l.seen = map[string]uint64{}
		}
		l.seen[name] = n
	}
	l.since = at
	return records
}

func monotonic() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return uint64(ts.Nano())
}
