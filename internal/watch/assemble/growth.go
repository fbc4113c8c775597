// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"cmp"
	"slices"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/load"
)

// positions are where the slots of the submitted program end up when it is blinded, nil when
// blinding did not decide or the program is not known whole. It is a prediction: what the verifier
// changes before is not in it.
func (bl *blindingVerdict) positions(at *load.Attempt) []int {
	if at.FailedStage != load.Blinding || bl.submitted == nil {
		return nil
	}
	p, err := blinding.Positions(at.Evidence.Insns, bl.kernel)
	if err != nil {
		return nil
	}
	return p
}

// growthOf says where a program grows.
func growthOf(positions []int) *load.Growth {
	n := len(positions) - 1
	if n < 1 {
		return nil
	}
	g := &load.Growth{Before: n, After: positions[n]}
	step := (n + load.MaxGrowthParts - 1) / load.MaxGrowthParts
	for i := 0; i < n; i += step {
		end := min(i+step, n)
		g.Parts = append(g.Parts, load.GrowthPart{Insn: i, Before: end - i, After: positions[end] - positions[i]})
	}
	return g
}

// linesOf are the source lines that grow most, ascending; where blinding did not decide, that of
// the instruction at which the verifier stopped.
func linesOf(e *load.Evidence, positions []int) []load.Line {
	if positions == nil {
		l, ok := e.Source(e.FailedInsn)
		if e.FailedInsn < 0 || !ok || l.File == "" && l.Line == 0 {
			return nil
		}
		return []load.Line{{Insn: l.Insn, File: l.File, Line: l.Line, Text: l.Text}}
	}
	type place struct {
		file string
		line int
	}
	var all []load.Line
	index := map[place]int{}
	for i, l := range e.Lines {
		end := len(positions) - 1
		if i+1 < len(e.Lines) {
			end = e.Lines[i+1].Insn
		}
		if l.File == "" && l.Line == 0 || l.Insn < 0 || l.Insn >= end || end >= len(positions) {
			continue
		}
		at, known := index[place{l.File, l.Line}]
		if !known {
			at = len(all)
			index[place{l.File, l.Line}] = at
			all = append(all, load.Line{Insn: l.Insn, File: l.File, Line: l.Line, Text: l.Text})
		}
		all[at].Before += end - l.Insn
		all[at].After += positions[end] - positions[l.Insn]
	}
	all = slices.DeleteFunc(all, func(l load.Line) bool { return l.After == l.Before })
	slices.SortStableFunc(all, func(a, b load.Line) int { return cmp.Compare(b.After-b.Before, a.After-a.Before) })
	all = all[:min(len(all), load.MaxLines)]
	slices.SortFunc(all, func(a, b load.Line) int { return cmp.Compare(a.Insn, b.Insn) })
	return slices.Clip(slices.Clone(all))
}
