// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"slices"

	"github.com/bpfwhy/bpfwhy/insn"
)

// OwnName is the name of the programs with which bpfwhy finds out what a kernel can do.
const OwnName = "bpfwhy_probe"

// ownMark is the number with which they begin: "bpfwhy" and the version of this table.
const ownMark = 0x0001_7968_7766_7062

// Own makes a program one of bpfwhy's own probes: it begins with the mark, in a register that nothing reads. Another bpfwhy that watches knows
// it by that and by all the rest of its instructions, which must be in the table: nobody hides a program of his own behind the mark.
func Own(prog ...insn.Instruction) []insn.Instruction {
	return slices.Concat([]insn.Instruction{{Code: insn.OpcodeLoadImm64, Dst: 9, Imm: ownMark & 0xffffffff}, {Imm: ownMark >> 32}}, prog)
}

// Probes of bpfwhy's own that are the same everywhere.
func OwnTrivial() []insn.Instruction { return Own(mov(0, 0), exit) }

// OwnHelper asks for a helper.
func OwnHelper(id int32) []insn.Instruction { return Own(callHelper(id), mov(0, 0), exit) }

// OwnGotol and OwnMovsx ask for instructions.
func OwnGotol() []insn.Instruction {
	return Own(mov(0, 0), insn.Instruction{Code: insn.OpcodeGotol}, exit) // which whoever may load anything may load
}

func OwnMovsx() []insn.Instruction {
	return Own(mov(1, 1), insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV | insn.SourceX, Src: 1, Off: 8}, exit)
}

// OwnMap keeps a map alive for as long as the program is.
func OwnMap(fd int32) []insn.Instruction {
	return Own(insn.Instruction{Code: insn.OpcodeLoadImm64, Dst: 1, Src: insn.PseudoMapFD, Imm: fd}, insn.Instruction{}, mov(0, 0), exit)
}

var ownProbes = []programProbe{
	{own: true, by: "bpfwhy", what: "helper", name: OwnName, insns: OwnHelper(anyCall.Imm)},
	{own: true, by: "bpfwhy", what: "gotol", name: OwnName, insns: OwnGotol()},
	{own: true, by: "bpfwhy", what: "movsx", name: OwnName, insns: OwnMovsx()},
	{own: true, by: "bpfwhy", what: "whether a load works", name: OwnName, insns: OwnTrivial()},
	{own: true, by: "bpfwhy", what: "whether programs are freed", name: OwnName, insns: OwnMap(0)},
}

// matchesTag reports whether a tag is that of a row's instructions, whichever helper they call.
func matchesTag(row []insn.Instruction, tag [8]byte) bool {
	at := slices.Index(row, anyCall)
	if at < 0 {
		return insn.MatchesTag(row, tag)
	}
	prog := slices.Clone(row)
	for id := int32(1); ; id++ {
		if _, ok := insn.HelperByID(int(id)); !ok {
			return false
		}
		if prog[at].Imm = id; insn.MatchesTag(prog, tag) {
			return true
		}
	}
}
