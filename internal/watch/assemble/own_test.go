// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/selfprobe"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// ownLoad is a load of some instructions as bpfwhy makes it, with what was copied of it.
func ownLoad(name string, prog []insn.Instruction, ret int64, copied bool) (*load.Attempt, *call) {
	a := make([]byte, 72)
	binary.LittleEndian.PutUint32(a, abi.ProgTypeKprobe)
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

// TestOwnProbes: every probe of ours is known, whether it fails, or loads and its tag alone is
// there.
func TestOwnProbes(t *testing.T) {
	for what, prog := range map[string][]insn.Instruction{
		"helper": selfprobe.Helper(113), "gotol": selfprobe.Gotol(), "movsx": selfprobe.Movsx(), "bounded loops": selfprobe.Loop(), "whether a load works": selfprobe.Trivial(), "whether programs are freed": selfprobe.Map(7),
	} {
		for _, errno := range []int64{-22, -13, -1} {
			at, c := ownLoad(selfprobe.Name, prog, errno, true)
			qt.Check(t, qt.Equals(programProbeOf(at, c), "bpfwhy: "+what))
		}
		at, c := ownLoad(selfprobe.Name, prog, 7, false)
		qt.Check(t, qt.Equals(programProbeOf(at, c), "bpfwhy: "+what))
	}
}

// TestOwnHidesNothing: whoever takes the name and the mark for a program of his own is told as
// ever.
func TestOwnHidesNothing(t *testing.T) {
	real := []insn.Instruction{mov(0, 0), mov(1, 1), exit}
	other := selfprobe.Helper(1)
	other[2].Imm, other[3].Imm = 1, 7 // r0 = 7
	wrong := selfprobe.Trivial()
	wrong[1].Imm++
	for name, prog := range map[string][]insn.Instruction{
		"a program of its own behind the mark": selfprobe.Marked(real...),
		"a program of its own behind a probe":  slices.Concat(selfprobe.Trivial(), real),
		"another constant":                     other,
		"another mark":                         wrong,
		"two calls":                            selfprobe.Marked(callHelper(1), callHelper(2), mov(0, 0), exit),
		"no mark":                              {callHelper(1), mov(0, 0), exit, exit},
	} {
		for _, copied := range []bool{true, false} {
			for _, ret := range []int64{-22, 7} {
				at, c := ownLoad(selfprobe.Name, prog, ret, copied)
				qt.Check(t, qt.Equals(programProbeOf(at, c), ""), qt.Commentf("%s", name))
				qt.Check(t, qt.Equals(at.Finding(), ret < 0), qt.Commentf("%s", name))
			}
		}
	}
	at, c := ownLoad("agent", selfprobe.Trivial(), -22, true)
	qt.Check(t, qt.Equals(programProbeOf(at, c), "")) // the name is part of it
	// Nothing was copied, and there is no tag: the name alone is not enough.
	for _, prog := range [][]insn.Instruction{real, selfprobe.Trivial()} {
		at, c = ownLoad(selfprobe.Name, prog, -22, false)
		c.rec.Tag = nil
		qt.Check(t, qt.Equals(programProbeOf(at, c), ""))
	}
}

// TestOwnLink: a link to a program that asks whether there are such links is known by that program,
// whatever else its process loads meanwhile; a link to somebody's own program is not.
func TestOwnLink(t *testing.T) {
	const probing, multi = 7, 48
	program := func(name string, prog []insn.Instruction, fd int64) *trace.Call {
		_, c := ownLoad(name, prog, fd, false)
		binary.LittleEndian.PutUint32(c.rec.Attr[progAttachType:], multi)
		return c.rec
	}
	link := func(tgid uint32) *trace.Call {
		a := make([]byte, 64)
		binary.LittleEndian.PutUint32(a, probing)
		binary.LittleEndian.PutUint32(a[8:], multi)
		return &trace.Call{Kind: load.LinkCreate, Cmd: 28, TGID: tgid, Ret: -22, Attr: a}
	}
	others := code(mov(0, 1), exit)
	for _, tt := range []struct {
		name    string
		program *trace.Call
		between []*trace.Call
		tgid    uint32
		want    bool
	}{
		{"alone", program(selfprobe.Name, selfprobe.Trivial(), probing), nil, 1, true},
		{"another load meanwhile", program(selfprobe.Name, selfprobe.Trivial(), probing), []*trace.Call{program("other", others, 8), program("fails", others, -22)}, 1, true},
		{"the descriptor is another program's by now", program(selfprobe.Name, selfprobe.Trivial(), probing), []*trace.Call{program("other", others, probing)}, 1, false},
		{"another process", program(selfprobe.Name, selfprobe.Trivial(), probing), nil, 2, false},
		{"our name on another program", program(selfprobe.Name, others, probing), nil, 1, false},
		{"our program by another name", program("other", selfprobe.Trivial(), probing), nil, 1, false},
	} {
		var records []trace.Record
		for i, c := range append(append([]*trace.Call{tt.program}, tt.between...), link(tt.tgid)) {
			c.ID, c.End = trace.CallID{TID: 1, Start: uint64(1 + 2*i)}, uint64(2+2*i)
			c.TGID, c.Flags, c.FailedInsn = max(c.TGID, 1), trace.CallFlags{EnterSeen: true}, -1
			records = append(records, trace.Record{Call: c})
		}
		got := attempts(header("6.1", classicHooks), records...)
		last := got[len(got)-1]
		qt.Assert(t, qt.Equals(last.Kind, load.LinkCreate), qt.Commentf("%s", tt.name))
		qt.Check(t, qt.Equals(last.FeatureProbe != "", tt.want), qt.Commentf("%s: %q", tt.name, last.FeatureProbe))
	}
}
