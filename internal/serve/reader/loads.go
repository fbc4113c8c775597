// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package reader

import (
	"cmp"
	"maps"
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/serve/stream"
	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// Bounds of what is remembered.
const (
	maxFailing  = 1024 // processes, and names of programs
	maxPrograms = 256
	// trivial programs are those that ask what the kernel can do.
	trivial = 4
)

// loads counts what works and came all the same, and knows which of it matters: a load that works
// after it failed is the end of a failure. The rest goes no further. The programs in the kernel
// judge in the same way, where they can see whether a program was compiled.
type loads struct {
	worked    map[string]uint64 // by type of program
	processes map[uint32]bool   // that failed to load something
	names     map[abi.Name]bool
	ok        map[stream.Program]int
}

func newLoads() *loads {
	return &loads{worked: map[string]uint64{}, processes: map[uint32]bool{}, names: map[abi.Name]bool{}, ok: map[stream.Program]int{}}
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
	switch {
	case c.Ret >= 0 && c.Kind != load.ProgLoad:
		return true
	case !stream.Worked(c):
		remember(l.processes, c.TGID)
		if p.ProgName != (abi.Name{}) {
			remember(l.names, p.ProgName)
		}
		return true
	}
	l.worked[abi.ProgTypeName(p.ProgType)]++
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

// types are all loads that worked, by type of program.
func (l *loads) types(counted []capture.TypeCount) map[string]uint64 {
	all := maps.Clone(l.worked)
	for _, t := range counted {
		all[abi.ProgTypeName(t.Type)] += t.Count
	}
	return all
}

// programs are those that loaded, by name.
func (l *loads) programs(counted []capture.ProgramCount) (list []stream.Program) {
	all := maps.Clone(l.ok)
	for _, c := range counted {
		p := stream.Program{Name: c.Name, Type: abi.ProgTypeName(c.Type), Insns: int(c.Insns)}
		if _, known := all[p]; known || len(all) < maxPrograms {
			all[p] += int(c.Count)
		}
	}
	for p, n := range all {
		p.Count = n
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b stream.Program) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type), a.Insns-b.Insns)
	})
	return list
}
