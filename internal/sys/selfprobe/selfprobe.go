// SPDX-License-Identifier: Apache-2.0

// Package selfprobe has the small programs that bpfwhy itself loads, to ask the kernel something.
// Whoever loads one gives it this name; a bpfwhy that watches (internal/watch/assemble) knows them
// by name and instructions, and does not tell of them.
package selfprobe

import (
	"slices"

	"github.com/bpfwhy/bpfwhy/insn"
)

// Name is the name of these programs.
const Name = "bpfwhy_probe"

// mark is the number with which they begin: "bpfwhy" and the version of this table.
const mark = 0x0001_7968_7766_7062

// Marked makes a program one of these: it begins with the mark, in a register that nothing reads.
// That alone hides nobody's program: all the rest of its instructions must be those of a known
// probe too.
func Marked(prog ...insn.Instruction) []insn.Instruction {
	return slices.Concat([]insn.Instruction{{Code: insn.OpcodeLoadImm64, Dst: 9, Imm: mark & 0xffffffff}, {Imm: mark >> 32}}, prog)
}

var exit = insn.Instruction{Code: insn.OpcodeExit}

func mov(dst uint8, imm int32) insn.Instruction {
	return insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV, Dst: dst, Imm: imm}
}

// Trivial asks whether a load works at all.
func Trivial() []insn.Instruction { return Marked(mov(0, 0), exit) }

// Helper asks for a helper.
func Helper(id int32) []insn.Instruction {
	return Marked(insn.Instruction{Code: insn.OpcodeCall, Imm: id}, mov(0, 0), exit)
}

// Gotol asks for the jump with a 32-bit offset, in a program that whoever may load anything may
// load.
func Gotol() []insn.Instruction {
	return Marked(mov(0, 0), insn.Instruction{Code: insn.OpcodeGotol}, exit)
}

// Movsx asks for the move that extends the sign.
func Movsx() []insn.Instruction {
	return Marked(mov(1, 1), insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV | insn.SourceX, Src: 1, Off: 8}, exit)
}

// Loop asks for a loop that ends, after two rounds.
func Loop() []insn.Instruction {
	return Marked(mov(0, 2), insn.Instruction{Code: insn.ClassALU64 | insn.OpADD, Imm: -1},
		insn.Instruction{Code: insn.ClassJMP | insn.OpJNE, Off: -2}, exit)
}

// Map keeps a map alive for as long as the program is.
func Map(fd int32) []insn.Instruction {
	return Marked(insn.Instruction{Code: insn.OpcodeLoadImm64, Dst: 1, Src: insn.PseudoMapFD, Imm: fd}, insn.Instruction{}, mov(0, 0), exit)
}
