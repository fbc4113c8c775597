// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package reader

import (
	"cmp"
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/serve/stream"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// Bounds of what is remembered.
const (
	maxFailing  = 1024 // processes, and names of programs
	maxPrograms = 256
	// trivial programs are those that ask what the kernel can do.
	trivial = 4
)

// loads counts what works, and knows which of it matters all the same: a load that works after it
// failed is the end of a failure. The rest goes no further.
type loads struct {
	worked    uint64
	processes map[uint32]bool // that failed to load something
	names     map[abi.Name]bool
	ok        map[stream.Program]int
}

func newLoads() *loads {
	return &loads{processes: map[uint32]bool{}, names: map[abi.Name]bool{}, ok: map[stream.Program]int{}}
}

// matters counts a record that works, and reports whether the exporter is to have it.
func (l *loads) matters(r *trace.Record) bool {
	switch {
	case r.Begin != nil:
		return l.processes[r.Begin.TGID]
	case r.Call == nil:
		return true
	}
	c := r.Call
	p := abi.Read[abi.ProgLoad](c.Attr)
	if !stream.Worked(c) {
		remember(l.processes, c.TGID)
		if p.ProgName != (abi.Name{}) {
			remember(l.names, p.ProgName)
		}
		return true
	}
	l.worked++
	if p.ProgName != (abi.Name{}) && p.InsnCnt > trivial {
		one := stream.Program{Name: p.ProgName.String(), Type: abi.ProgTypeName(p.ProgType), Insns: int(p.InsnCnt)}
		if _, known := l.ok[one]; known || len(l.ok) < maxPrograms {
			l.ok[one]++
		}
	}
	return l.processes[c.TGID] || l.names[p.ProgName]
}

// remember notes one. When there are too many, all are forgotten: then the end of a failure may
// show later.
func remember[K comparable](m map[K]bool, k K) {
	if len(m) >= maxFailing && !m[k] {
		clear(m)
	}
	m[k] = true
}

// programs are those that loaded, by name.
func (l *loads) programs() (list []stream.Program) {
	for p, n := range l.ok {
		p.Count = n
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b stream.Program) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type), a.Insns-b.Insns)
	})
	return list
}
