// SPDX-License-Identifier: Apache-2.0

package randprog_test

import (
	"slices"
	"testing"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/test/randprog"
	"github.com/bpfwhy/bpfwhy/rewrite"
	"github.com/go-quicktest/qt"
)

// What the options promise, by the model.
func TestPrograms(t *testing.T) {
	shapes := make(map[randprog.Shape]int)
	fails, wraps := 0, 0
	for seed := range uint64(200) {
		o := randprog.Any(seed)
		if seed%3 == 0 {
			o.Rich = 250
		}
		p := randprog.New(o)
		comment := qt.Commentf("%+v", o)
		qt.Assert(t, qt.DeepEquals(insn.Functions(p.Insns), p.Functions), comment)
		qt.Assert(t, qt.IsTrue(slices.Equal(randprog.New(o).Insns, p.Insns)))
		v, err := blinding.Check(p.Insns, blinding.Kernel{})
		qt.Assert(t, qt.IsNil(err), comment)
		i := slices.IndexFunc(v.Worst, func(j blinding.Jump) bool { return j.From == p.Jump })
		qt.Assert(t, qt.IsTrue(i >= 0), comment)
		j := v.Worst[i]
		qt.Assert(t, qt.Equals(j.Need, p.Need), comment)
		qt.Assert(t, qt.Equals(j.Margin(), -o.Delta), comment)
		if !o.Several {
			qt.Assert(t, qt.Equals(v.Fits, o.Delta <= 0), comment)
			wrap := o.Shape == randprog.Loop && (o.Delta == 1 || o.Delta == 2)
			qt.Assert(t, qt.Equals(v.Wraps, wrap), comment)
		}
		for _, at := range p.MapLoads {
			qt.Assert(t, qt.IsTrue(p.Insns[at].IsMapLoad()))
		}
		shapes[o.Shape]++
		if !v.Fits {
			fails++
		}
		if v.Wraps {
			wraps++
		}
		r, err := rewrite.Rewrite(p.Insns, rewrite.Options{})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(r.Changed()))
	}
	t.Logf("%v; %d fail, %d of them wrap", shapes, fails, wraps)
	qt.Check(t, qt.HasLen(shapes, 5))
	qt.Check(t, qt.IsTrue(fails > 70 && fails < 130))
}
