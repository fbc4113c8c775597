// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

func TestUninitialised(t *testing.T) {
	mov := func(dst, src uint8) insn.Instruction {
		return insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV | insn.SourceX, Dst: dst, Src: src}
	}
	set := func(dst uint8) insn.Instruction {
		return insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV, Dst: dst, Imm: 1}
	}
	for _, test := range []struct {
		name      string
		prog      []insn.Instruction
		slot, reg int
		found     bool
	}{
		{name: "empty"},
		{name: "fine", prog: []insn.Instruction{set(0), exit}},
		{name: "no return value", prog: []insn.Instruction{exit}, slot: 0, reg: 0, found: true},
		{name: "the context and the frame are there", prog: []insn.Instruction{mov(6, 1), mov(7, 10), mov(0, 6), exit}},
		{name: "a call takes its arguments away", prog: []insn.Instruction{set(2), call(7), mov(0, 2), exit}, slot: 2, reg: 2, found: true},
		{name: "a call keeps R6 to R9", prog: []insn.Instruction{set(6), call(7), mov(0, 6), exit}},
		// One of two paths writes it: the verifier refuses, but only if the
		// other path can be taken. Nothing is claimed.
		{name: "written on one path", prog: []insn.Instruction{set(0), {Code: insn.ClassJMP | insn.OpJEQ, Off: 1}, set(3), mov(0, 3), exit}},
		{name: "in a loop", prog: []insn.Instruction{set(0), mov(2, 3), {Code: insn.OpcodeJA, Off: -2}, exit}, slot: 1, reg: 3, found: true},
		{name: "unreachable code counts for nothing", prog: []insn.Instruction{set(0), exit, mov(0, 9), exit}},
		{name: "arguments of a function of its own", prog: []insn.Instruction{selfCall, exit, mov(0, 5), exit}},
		{name: "a function may return nothing", prog: []insn.Instruction{selfCall, exit, exit}},
		{name: "a function does not see its caller's registers", prog: []insn.Instruction{set(6), {Code: insn.OpcodeCall, Src: insn.PseudoCall, Imm: 1}, exit, mov(0, 6), exit}, slot: 3, reg: 6, found: true},
		{name: "a jump register", prog: []insn.Instruction{set(0), {Code: insn.ClassJMP | insn.OpJEQ | insn.SourceX, Dst: 0, Src: 4}, exit}, slot: 1, reg: 4, found: true},
		{name: "the second half is no instruction", prog: []insn.Instruction{{Code: insn.OpcodeLoadImm64, Dst: 0}, {Code: insn.ClassALU64 | insn.OpMOV | insn.SourceX, Src: 9}, exit}},
		{name: "legacy packet loads take their context from R6", prog: []insn.Instruction{{Code: insn.ClassLD | insn.ModeABS}, exit}, slot: 0, reg: 6, found: true},
		{name: "indirect jumps: not known", prog: []insn.Instruction{{Code: insn.OpcodeGotox, Dst: 1}, exit}},
	} {
		t.Run(test.name, func(t *testing.T) {
			slot, reg, found := uninitialised(test.prog)
			qt.Check(t, qt.Equals(found, test.found))
			qt.Check(t, qt.Equals(slot, test.slot))
			qt.Check(t, qt.Equals(reg, test.reg))
		})
	}
}

// A large program of nothing but jumps takes no time to speak of.
func TestUninitialisedIsLinear(t *testing.T) {
	prog := make([]insn.Instruction, maxAnalysed)
	for i := range prog {
		prog[i] = insn.Instruction{Code: insn.ClassJMP | insn.OpJEQ, Dst: 1, Off: int16(i * 7919)}
	}
	start := time.Now()
	uninitialised(prog)
	qt.Assert(t, qt.IsTrue(time.Since(start) < 2*time.Second))
}

// Programs that the verifier turned down for another reason than the one that a glance at them
// suggests.
func TestSuspectsNothing(t *testing.T) {
	const fp = insn.RegFP
	set := func(dst uint8, v int32) insn.Instruction {
		return insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV, Dst: dst, Imm: v}
	}
	add := func(dst uint8, v int32) insn.Instruction {
		return insn.Instruction{Code: insn.ClassALU64 | insn.OpADD, Dst: dst, Imm: v}
	}
	addReg := func(dst, src uint8) insn.Instruction {
		return insn.Instruction{Code: insn.ClassALU64 | insn.OpADD | insn.SourceX, Dst: dst, Src: src}
	}
	store := insn.Instruction{Code: insn.ClassST | insn.ModeMEM | insn.SizeDW, Dst: 2}
	lookup := []insn.Instruction{mapFD(5), {}, call(1)}
	mapOf8 := option(func(a *load.Attempt) { a.Evidence.Maps = []load.MapRef{{Type: abi.MapTypeArray, ValueSize: 8}} })
	for _, test := range []struct {
		name   string
		prog   []insn.Instruction
		not    string
		others []string
	}{
		{"a constant becomes a stack address; the context has no such field",
			[]insn.Instruction{set(2, -8), addReg(2, fp), store, loadVia(1, 400), exit}, "VER007", []string{"VER007", "VER011"}},
		{"a map value is moved and read with what takes it back",
			slices.Concat(lookup, []insn.Instruction{ifR0(2), add(0, 8), loadVia(0, -8), set(0, 0), exit}), "VER003", []string{"VER001", "VER003"}},
		{"a register that held a map value on a path that has ended",
			slices.Concat([]insn.Instruction{{Code: insn.ClassALU64 | insn.OpMOV | insn.SourceX, Dst: 0, Src: 1}, {Code: insn.ClassJMP | insn.OpJEQ, Dst: 1, Off: 4}},
				lookup, []insn.Instruction{exit, loadVia(0, 72), exit}), "VER003", []string{"VER001", "VER003"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := progLoad(13, unhooked(), insns(test.prog...), mapOf8)
			Conclude(a, hardenedHost())
			qt.Check(t, qt.Equals(a.Diagnosis.Rule, "VER099"), qt.Commentf("not %s: %s", test.not, a.Diagnosis.Cause))
			for _, want := range test.others {
				qt.Check(t, qt.IsTrue(slices.ContainsFunc(a.Diagnosis.Alternatives, func(o load.Alternative) bool { return o.Rule == want })), qt.Commentf("%s: %+v", want, a.Diagnosis.Alternatives))
			}
		})
	}
}
