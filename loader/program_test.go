// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/sys/verbatim"
	"github.com/bpfwhy/bpfwhy/internal/test/randprog"
	"github.com/bpfwhy/bpfwhy/rewrite"
	"github.com/cilium/ebpf/asm"
	"github.com/go-quicktest/qt"
)

// instructions is a program in cilium/ebpf's form, with jumps by distance as an
// ELF has them.
func instructions(t testing.TB, prog []insn.Instruction) asm.Instructions {
	t.Helper()
	list, err := verbatim.Instructions(prog)
	qt.Assert(t, qt.IsNil(err))
	return list
}

// symbolic names the target of every jump and call instead.
func symbolic(t testing.TB, list asm.Instructions) asm.Instructions {
	t.Helper()
	at := make(map[int]int) // slot to index
	var slots []int
	slot := 0
	for i := range list {
		at[slot] = i
		slots = append(slots, slot)
		slot += int(list[i].Size() / asm.InstructionSize)
	}
	list = slices.Clone(list)
	name := func(i, distance int) string {
		to := at[slots[i]+1+distance]
		label := fmt.Sprintf("L%d", to)
		list[to] = list[to].WithSymbol(label)
		return label
	}
	for i := range list {
		switch in := &list[i]; {
		case in.IsFunctionReference():
			label := name(i, int(in.Constant))
			in = &list[i]
			in.Constant = -1
			*in = in.WithReference(label)
		case in.OpCode.Class().IsJump() && in.OpCode.JumpOp() != asm.Call && in.OpCode.JumpOp() != asm.Exit:
			label := name(i, int(in.Offset))
			in = &list[i]
			in.Offset = -1
			*in = in.WithReference(label)
		}
	}
	return list
}

func marshal(t testing.TB, list asm.Instructions) []insn.Instruction {
	t.Helper()
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(slices.Clone(list).Marshal(&b, binary.LittleEndian)))
	prog, err := insn.Decode(b.Bytes())
	qt.Assert(t, qt.IsNil(err))
	return prog
}

// What comes out of cilium/ebpf's form is what rewrite made, whether jumps had
// names or distances.
func TestApply(t *testing.T) {
	for seed := range uint64(20) {
		o := randprog.Any(seed)
		o.Maps = false // their references are the collection's business
		p := randprog.New(o)
		for _, named := range []bool{false, true} {
			for _, long := range []bool{false, true} {
				list := instructions(t, p.Insns)
				if named {
					list = symbolic(t, list)
				}
				list[7] = list[7].WithSource(asm.Comment("seven"))
				before := slices.Clone(list)
				c, err := codeOf(list)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsTrue(slices.Equal(c.insns, p.Insns)))
				qt.Assert(t, qt.DeepEquals(c.functions, p.Functions))
				r, err := rewrite.Rewrite(c.insns, rewrite.Options{Limit: 12_000, Gotol: long})
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsTrue(r.Changed()))
				out := c.apply(list, r)
				qt.Assert(t, qt.IsTrue(slices.Equal(marshal(t, out), r.Program)), qt.Commentf("%+v named %v long %v", o, named, long))
				i := slices.IndexFunc(out, func(in asm.Instruction) bool { return in.Source() != nil })
				qt.Assert(t, qt.Equals(out[i].OpCode, list[7].OpCode))
				qt.Assert(t, qt.Equals(fmt.Sprint(out[i].Source()), "seven"))
				qt.Assert(t, qt.IsTrue(slices.EqualFunc(before, list, func(a, b asm.Instruction) bool {
					return a.Offset == b.Offset && a.Constant == b.Constant && a.Reference() == b.Reference()
				})))
			}
		}
	}
}

// Maps and their offsets stay what they are.
func TestApplyKeepsMaps(t *testing.T) {
	var p *randprog.Program
	for seed := uint64(0); p == nil || len(p.MapLoads) == 0; seed++ {
		p = randprog.New(randprog.Options{Seed: seed, Delta: 1, Maps: true})
	}
	list := instructions(t, p.Insns)
	loads := func(list asm.Instructions) (names []string) {
		for i := range list {
			if list[i].IsLoadFromMap() {
				names = append(names, fmt.Sprint(list[i].Reference(), list[i].Constant))
			}
		}
		return names
	}
	for i := range list {
		if list[i].IsLoadFromMap() {
			list[i] = list[i].WithReference("values")
		}
	}
	c, err := codeOf(list)
	qt.Assert(t, qt.IsNil(err))
	r, err := rewrite.Rewrite(c.insns, rewrite.Options{})
	qt.Assert(t, qt.IsNil(err))
	out := c.apply(list, r)
	qt.Assert(t, qt.Equals(len(out), len(list)+r.Added))
	qt.Assert(t, qt.HasLen(loads(out), len(p.MapLoads)))
	qt.Assert(t, qt.DeepEquals(loads(out), loads(list)))
}
