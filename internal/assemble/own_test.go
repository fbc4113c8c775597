// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// ownLoad is a load of some instructions as bpfwhy makes it, with what was copied of it.
func ownLoad(name string, prog []insn.Instruction, ret int64, copied bool) (*load.Attempt, *call) {
	a := make([]byte, 72)
	binary.LittleEndian.PutUint32(a, typeKprobe)
	binary.LittleEndian.PutUint32(a[progInsnCnt:], uint32(len(prog)))
	copy(a[progName:], name)
	tag := insn.TagSHA1(prog)
	rec := &trace.Call{Kind: load.ProgLoad, Cmd: 5, Ret: ret, Attr: a, Tag: tag[:]}
	c := &call{rec: rec, attr: attr(a), kind: load.ProgLoad}
	at := &load.Attempt{Kind: load.ProgLoad, Outcome: load.Loaded, Program: &load.Program{Name: name}}
	if ret < 0 {
		at.Outcome = load.Failed
	}
	if copied {
		at.Evidence.Insns = prog
	}
	return at, c
}

// TestOwnProbes: every probe of ours is known, whether it fails, or loads and its tag alone is there.
func TestOwnProbes(t *testing.T) {
	for what, prog := range map[string][]insn.Instruction{
		"helper": OwnHelper(113), "gotol": OwnGotol(), "movsx": OwnMovsx(), "whether a load works": OwnTrivial(), "whether programs are freed": OwnMap(7),
	} {
		for _, errno := range []int64{-22, -13, -1} {
			at, c := ownLoad(OwnName, prog, errno, true)
			qt.Check(t, qt.Equals(programProbeOf(at, c), "bpfwhy: "+what))
		}
		at, c := ownLoad(OwnName, prog, 7, false)
		qt.Check(t, qt.Equals(programProbeOf(at, c), "bpfwhy: "+what))
	}
}

// TestOwnHidesNothing: whoever takes the name and the mark for a program of his own is told as ever.
func TestOwnHidesNothing(t *testing.T) {
	real := []insn.Instruction{mov(0, 0), mov(1, 1), exit}
	other := OwnHelper(1)
	other[2].Imm, other[3].Imm = 1, 7 // r0 = 7
	wrong := OwnTrivial()
	wrong[1].Imm++
	for name, prog := range map[string][]insn.Instruction{
		"a program of its own behind the mark": Own(real...),
		"a program of its own behind a probe":  slices.Concat(OwnTrivial(), real),
		"another constant":                     other,
		"another mark":                         wrong,
		"two calls":                            Own(callHelper(1), callHelper(2), mov(0, 0), exit),
		"no mark":                              {callHelper(1), mov(0, 0), exit, exit},
	} {
		for _, copied := range []bool{true, false} {
			for _, ret := range []int64{-22, 7} {
				at, c := ownLoad(OwnName, prog, ret, copied)
				qt.Check(t, qt.Equals(programProbeOf(at, c), ""), qt.Commentf("%s", name))
				qt.Check(t, qt.Equals(at.Finding(), ret < 0), qt.Commentf("%s", name))
			}
		}
	}
	at, c := ownLoad("agent", OwnTrivial(), -22, true)
	qt.Check(t, qt.Equals(programProbeOf(at, c), "")) // the name is part of it
	// Nothing was copied, and there is no tag: the name alone is not enough.
	for _, prog := range [][]insn.Instruction{real, OwnTrivial()} {
		at, c = ownLoad(OwnName, prog, -22, false)
		c.rec.Tag = nil
		qt.Check(t, qt.Equals(programProbeOf(at, c), ""))
	}
}
