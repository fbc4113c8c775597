// SPDX-License-Identifier: Apache-2.0

package jitonly

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/go-quicktest/qt"
)

func movX(dst, src uint8) insn.Instruction {
	return insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV | insn.SourceX, Dst: dst, Src: src}
}

func movK(dst uint8, imm int32) insn.Instruction {
	return insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV, Dst: dst, Imm: imm}
}

func call(imm int32) insn.Instruction { return insn.Instruction{Code: insn.OpcodeCall, Imm: imm} }

// load is the two slots that load a map.
func load(dst uint8, fd int32) []insn.Instruction {
	return []insn.Instruction{{Code: insn.OpcodeLoadImm64, Dst: dst, Src: insn.PseudoMapFD, Imm: fd}, {}}
}

func join(parts ...any) (prog []insn.Instruction) {
	for _, p := range parts {
		switch p := p.(type) {
		case insn.Instruction:
			prog = append(prog, p)
		case []insn.Instruction:
			prog = append(prog, p...)
		}
	}
	return prog
}

// types makes the map with descriptor n one of type n, and those above 100 unknown.
func types(prog []insn.Instruction) func(int) (uint32, bool) {
	return func(slot int) (uint32, bool) { return uint32(prog[slot].Imm), prog[slot].Imm < 100 }
}

func on(machine string, major, minor int) Kernel {
	return Kernel{Node: &node.Profile{Release: fmt.Sprintf("%d.%d", major, minor), Machine: machine}}
}

// refusing is the same kernel with f1c27922576e.
func refusing(k Kernel) Kernel {
	n := *k.Node
	n.Interpreter = &node.Interpreter{Refuses: true}
	k.Node = &n
	return k
}

func TestSubmitted(t *testing.T) {
	x86 := func(major, minor int) Kernel { return on("x86_64", major, minor) }
	arm := func(major, minor int) Kernel { return on("aarch64", major, minor) }
	off := func(k Kernel) Kernel { k.JITOff = true; return k }
	fixed := refusing
	lookup := func(typ int32) []insn.Instruction { return join(load(1, typ), call(mapLookup)) }
	mayGoto := []insn.Instruction{{Code: insn.OpcodeMayGoto, Off: 1}, call(5)}
	for _, c := range []struct {
		name string
		prog []insn.Instruction
		k    Kernel
		slot int // of the first finding, -1: none
		sure bool
	}{
		{"per-CPU array", lookup(percpuArray), x86(6, 12), 2, true},
		{"per-CPU hash", lookup(percpuHash), x86(6, 12), 2, true},
		{"per-CPU LRU hash, whose lookup stays a call", lookup(10), x86(6, 12), -1, false},
		{"hash", lookup(1), x86(6, 12), -1, false},
		{"before 6.10", lookup(percpuArray), x86(6, 9), -1, false},
		{"the kernel refuses", lookup(percpuArray), fixed(x86(7, 2)), -1, false},
		{"nothing is compiled, so that the verifier writes for the interpreter", lookup(percpuArray), off(x86(6, 12)), -1, false},
		{"arm64", lookup(percpuArray), arm(6, 12), 2, true},
		{"a machine whose JIT has none of it", lookup(percpuArray), on("s390x", 6, 12), -1, false},
		{"release not known", lookup(percpuArray), Kernel{Node: &node.Profile{Machine: "x86_64"}}, 2, false},
		{"nothing known", lookup(percpuArray), Kernel{}, 2, false},
		{"map not known", lookup(101), x86(6, 12), 2, false},
		{"by another register", join(load(6, percpuArray), movX(1, 6), call(mapLookup)), x86(6, 12), 3, true},
		{"from before a call", join(load(6, percpuArray), call(5), movX(1, 6), call(mapLookup)), x86(6, 12), 4, true},
		{"clobbered by a call", join(load(1, percpuArray), call(5), call(mapLookup)), x86(6, 12), 3, false},
		{"another map is looked up", join(load(6, percpuArray), load(1, 1), call(mapLookup)), x86(6, 12), -1, false},
		{"an update of a per-CPU array", join(load(1, percpuArray), call(2)), x86(6, 12), -1, false},
		{"processor", []insn.Instruction{call(processorID)}, x86(6, 12), 0, true},
		{"processor, not compiled, x86", []insn.Instruction{call(processorID)}, off(x86(6, 12)), -1, false},
		{"processor, not compiled, arm64", []insn.Instruction{call(processorID)}, off(arm(6, 12)), 0, true},
		{"task", []insn.Instruction{call(currentTask)}, x86(6, 12), -1, false},
		{"task, 7.0", []insn.Instruction{call(currentTask)}, x86(7, 0), 0, true},
		{"task by BTF, arm64", []insn.Instruction{call(currentTaskBTF)}, arm(6, 12), 0, true},
		{"arena", load(1, arena), x86(6, 9), 0, true},
		{"cast to an arena", []insn.Instruction{{Code: insn.ClassALU64 | insn.OpMOV | insn.SourceX, Off: insn.AddrSpaceCast, Imm: 1}}, x86(6, 12), 0, true},
		{"jump by register", []insn.Instruction{{Code: insn.OpcodeGotox}}, x86(7, 0), 0, true},
		{"may_goto before it had a clock", mayGoto, x86(6, 12), -1, false},
		{"may_goto with a clock, which no kernel refuses", mayGoto, fixed(x86(7, 2)), 0, true},
		{"the second half of a load is no call", []insn.Instruction{{Code: insn.OpcodeLoadImm64, Imm: 1}, {Imm: processorID}}, x86(6, 12), -1, false},
	} {
		found := Submitted(c.prog, types(c.prog), c.k)
		if c.slot < 0 {
			qt.Check(t, qt.HasLen(found, 0), qt.Commentf("%s", c.name))
			continue
		}
		if !qt.Check(t, qt.HasLen(found, 1), qt.Commentf("%s", c.name)) {
			continue
		}
		qt.Check(t, qt.Equals(found[0].Slot, c.slot), qt.Commentf("%s", c.name))
		qt.Check(t, qt.Equals(found[0].Sure, c.sure), qt.Commentf("%s", c.name))
		qt.Check(t, qt.IsTrue(c.k.Any()), qt.Commentf("%s", c.name))
	}
	qt.Check(t, qt.IsFalse(x86(6, 8).Any()))
	qt.Check(t, qt.IsFalse(off(x86(6, 12)).Any()))
	qt.Check(t, qt.IsTrue(off(arm(6, 12)).Any()))
}

func TestTranslated(t *testing.T) {
	const ax = insn.RegAX
	move := insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV | insn.SourceX, Off: -1}
	for _, c := range []struct {
		name    string
		prog    []insn.Instruction
		maps    []uint32
		machine string
		slot    int
	}{
		{"move", join(movK(0, 1), move), nil, "x86_64", 1},
		{"plain moves", join(movX(0, 0), movK(ax, -8), movX(1, 2)), nil, "x86_64", -1},
		{"atomic on an arena", []insn.Instruction{{Code: insn.ClassSTX | modeProbeAtomic | insn.SizeDW}}, nil, "x86_64", 0},
		{"an arena, whose accesses a dump hides", []insn.Instruction{movK(0, 0)}, []uint32{2, arena}, "x86_64", 0},
		{"may_goto with a clock", join(movK(ax, -16), call(123456)), nil, "x86_64", 1},
		{"register 12 is the scratch register on 7.2", join(movK(ax+1, -16), call(123456)), nil, "x86_64", 1},
		{"a call that the JIT writes out", []insn.Instruction{call(processorID)}, nil, "aarch64", 0},
		{"a call that is a distance by chance", []insn.Instruction{call(processorID)}, nil, "x86_64", -1},
	} {
		found := Translated(c.prog, c.maps, c.machine)
		if c.slot < 0 {
			qt.Check(t, qt.HasLen(found, 0), qt.Commentf("%s", c.name))
		} else if qt.Check(t, qt.HasLen(found, 1), qt.Commentf("%s", c.name)) {
			qt.Check(t, qt.Equals(found[0].Slot, c.slot), qt.Commentf("%s", c.name))
		}
	}
}

func TestSentence(t *testing.T) {
	qt.Check(t, qt.Equals(Sentence(nil, nil), ""))
	prog := join(call(processorID), load(1, percpuArray), call(mapLookup), call(processorID))
	found := Submitted(prog, types(prog), on("x86_64", 6, 12))
	s := Sentence(prog, found)
	qt.Check(t, qt.IsTrue(strings.HasPrefix(s, "It may crash the machine when it runs: instruction 0 (call bpf_get_smp_processor_id")), qt.Commentf("%s", s))
	qt.Check(t, qt.IsTrue(strings.HasSuffix(s, "; and 2 more instructions like it.")), qt.Commentf("%s", s))
	// What is sure comes first.
	found[0].Sure = false
	s = Sentence(prog, found)
	qt.Check(t, qt.IsTrue(strings.Contains(s, "instruction 3 (call bpf_map_lookup_elem")), qt.Commentf("%s", s))
	qt.Check(t, qt.IsTrue(strings.Contains(s, "per-CPU array")), qt.Commentf("%s", s))
}

// What the kernel has made of a program counts; where it hides the numbers of the helpers, what was
// submitted tells them.
func TestDanger(t *testing.T) {
	arm := on("aarch64", 6, 12)
	x86 := on("x86_64", 6, 12)
	refuses, unsure := refusing(arm), on("ppc64le", 7, 1)
	exit := insn.Instruction{Code: 0x95}
	submitted := []insn.Instruction{movK(6, 1), call(processorID), exit}
	lookup := join(load(1, percpuArray), call(mapLookup), exit)
	hidden := []insn.Instruction{movK(6, 1), call(0), exit}
	for _, test := range []struct {
		name            string
		made, submitted []insn.Instruction
		k               Kernel
		want            string
	}{
		{"shown", submitted, submitted, arm, "instruction 1 "},
		{"calls hidden", hidden, submitted, arm, "instruction 1 "},
		{"and a tail call, which shows", join(hidden, call(tailCall)), submitted, arm, "instruction 1 "},
		{"the helper is another", hidden, []insn.Instruction{movK(6, 1), call(5), exit}, arm, ""},
		{"calls that show", []insn.Instruction{call(4711), exit}, submitted, arm, ""},
		{"no calls", []insn.Instruction{exit}, submitted, arm, ""},
		{"what was submitted is not known", hidden, nil, arm, ""},
		{"what would show all the same", join(load(1, percpuArray), call(0), exit), lookup, arm, ""},
		{"x86, where it would show", hidden, submitted, x86, ""},
		{"it refuses such programs", hidden, submitted, refuses, ""},
		{"not sure", hidden, submitted, unsure, ""},
		{"not shown at all", nil, submitted, arm, "instruction 1 "},
		{"not shown at all, not sure", nil, submitted, unsure, "instruction 1 "},
		{"a move that shows beside hidden calls", join(hidden, insn.Instruction{Code: movX(1, 1).Code, Off: -1}), []insn.Instruction{exit}, arm, "instruction 3 "},
	} {
		prog := test.submitted
		got := Danger(test.made, test.submitted, func(slot int) (uint32, bool) { return types(prog)(slot) }, nil, test.k)
		want := test.want
		if want == "" {
			qt.Check(t, qt.Equals(got, ""), qt.Commentf("%s", test.name))
			continue
		}
		qt.Check(t, qt.StringContains(got, "It may crash the machine when it runs: "+want), qt.Commentf("%s", test.name))
	}
}
