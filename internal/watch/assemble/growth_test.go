// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"fmt"
	"testing"

	"github.com/bpfwhy/bpfwhy/load"
	"github.com/go-quicktest/qt"
)

func TestGrowth(t *testing.T) {
	qt.Check(t, qt.IsNil(growthOf(nil)))
	// Slot i becomes 1 + i%3 slots.
	positions := []int{0}
	for i := range 1001 {
		positions = append(positions, positions[i]+1+i%3)
	}
	g := growthOf(positions)
	qt.Assert(t, qt.Equals(g.Before, 1001))
	qt.Assert(t, qt.Equals(g.After, positions[1001]))
	qt.Assert(t, qt.IsTrue(len(g.Parts) <= load.MaxGrowthParts))
	at, before, after := 0, 0, 0
	for _, p := range g.Parts {
		qt.Assert(t, qt.Equals(p.Insn, at))
		at, before, after = at+p.Before, before+p.Before, after+p.After
	}
	qt.Check(t, qt.Equals(before, g.Before))
	qt.Check(t, qt.Equals(after, g.After))
}

func TestLines(t *testing.T) {
	e := load.Evidence{FailedInsn: 3}
	qt.Check(t, qt.HasLen(linesOf(&e, nil), 0))
	e.Lines = []load.SourceLine{{Insn: 0, File: "a.c", Line: 1, Text: "one"}, {Insn: 2, File: "a.c", Line: 2, Text: "two"}, {Insn: 4, File: "a.c", Line: 1, Text: "one"}}
	// Where the verifier stopped.
	qt.Check(t, qt.DeepEquals(linesOf(&e, nil), []load.Line{{Insn: 2, File: "a.c", Line: 2, Text: "two"}}))
	e.FailedInsn = -1
	qt.Check(t, qt.HasLen(linesOf(&e, nil), 0))
	// What grows, a line's pieces together.
	qt.Check(t, qt.DeepEquals(linesOf(&e, []int{0, 1, 2, 3, 4, 8}), []load.Line{{Insn: 0, File: "a.c", Line: 1, Text: "one", Before: 3, After: 6}}))
	// What a hostile loader says of its lines is not believed.
	for _, insn := range []int{-1, 99, 5} {
		e.Lines[1].Insn = insn
		linesOf(&e, []int{0, 1, 2, 3, 4, 8})
	}
	e.Lines = nil
	positions := []int{0}
	for i := range 200 {
		e.Lines = append(e.Lines, load.SourceLine{Insn: i, File: "a.c", Line: i + 1, Text: fmt.Sprint(i)})
		positions = append(positions, positions[i]+2+i%7)
	}
	all := linesOf(&e, positions)
	qt.Assert(t, qt.HasLen(all, load.MaxLines))
	for i, l := range all {
		qt.Check(t, qt.IsTrue(l.After-l.Before >= 6)) // 28 grow by 7, 28 by 6
		qt.Check(t, qt.IsTrue(i == 0 || l.Insn > all[i-1].Insn))
	}
}
