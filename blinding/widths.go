// SPDX-License-Identifier: Apache-2.0

package blinding

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/insn"
)

// Width returns how many slots take the place of slot i. The two slots of a
// 64-bit load are counted one by one, 4 and 3. It returns 0 when i is outside
// the program.
//
//revive:disable-next-line:cyclomatic a case for each kind of instruction that the kernel blinds
func Width(prog []insn.Instruction, i int, k Kernel) int {
	if i < 0 || i >= len(prog) {
		return 0
	}
	second := insn.IsSecondHalf(prog, i)
	if second && prog[i-1].IsFuncLoad() {
		return 1
	}
	in := prog[i]
	switch {
	case in.Dst == k.scratch() || in.Src == k.scratch():
		return 1 // written by the kernel, and the scratch register is taken
	case in.IsFuncLoad():
		return 1
	case in.IsWide():
		return 4
	case in.Code == 0: // second half
		if k.ZeroExtends {
			return 4
		}
		return 3
	case in.Class() == insn.ClassST:
		if in.Mode() == insn.ModeMEM || in.Mode() == insn.ModeProbeMem32 && k.StoreProbeMem32 {
			return 3
		}
		return 1
	case !in.IsImmediate():
		return 1
	case in.IsALU():
		switch in.Op() {
		case insn.OpMOV:
			if in.Imm == 0 {
				return 1 // becomes an XOR of the register with itself
			}
			return 3
		case insn.OpADD, insn.OpSUB, insn.OpAND, insn.OpOR, insn.OpXOR, insn.OpMUL, insn.OpDIV, insn.OpMOD:
			return 3
		}
		return 1
	}
	switch in.Op() {
	case insn.OpJEQ, insn.OpJNE, insn.OpJGT, insn.OpJLT, insn.OpJGE, insn.OpJLE,
		insn.OpJSGT, insn.OpJSLT, insn.OpJSGE, insn.OpJSLE, insn.OpJSET:
		return 3
	}
	return 1
}

// Bits of an entry of a widths table.
const (
	widthMask = 0x07 // the width, where nothing but the opcode decides
	isMoveK   = 0x20 // a zero does not grow
	isJump16  = 0x40
	isSpecial = 0x80 // ask Width
)

// widths is what the opcode tells of an instruction.
type widths [256]uint8

func tableOf(k Kernel) *widths {
	var t widths
	for code := range t {
		in := insn.Instruction{Code: uint8(code), Imm: 1}
		t[code] = uint8(Width([]insn.Instruction{in}, 0, k))
		if in.IsJump16() {
			t[code] |= isJump16
		}
		if in.IsALU() && in.IsImmediate() && in.Op() == insn.OpMOV {
			t[code] |= isMoveK
		}
		if code == 0 || in.IsWide() {
			t[code] |= isSpecial
		}
	}
	return &t
}

// Positions returns where each slot ends up when nothing fails: the number of
// slots before it after blinding, and as the last element their sum. The offset
// that the jump from slot i to t needs is Positions[t] - Positions[i+1]. The
// error is that of half a 64-bit load.
func Positions(prog []insn.Instruction, k Kernel) ([]int, error) {
	sums, err := tableOf(k).growths(prog, nil, k)
	if err != nil {
		return nil, err
	}
	for i := range sums {
		sums[i] += i
	}
	return sums, nil
}

// growths returns the prefix sums of the growth: growths[i] is by how many slots
// the code before slot i grows. extra, unless nil, is what the verifier adds at
// each slot, counted after blinding.
func (t *widths) growths(prog []insn.Instruction, extra []uint8, k Kernel) ([]int, error) {
	sums := make([]int, len(prog)+1)
	scratch := k.scratch()
	sum := 0
	for i := range prog {
		in := &prog[i]
		w := t[in.Code]
		switch {
		case w&isSpecial != 0:
			if in.IsWide() && !insn.IsSecondHalf(prog, i+1) {
				return nil, fmt.Errorf("check blinding: slot %d is half of a 64-bit load", i)
			}
			w = uint8(Width(prog, i, k))
		case in.Dst == scratch || in.Src == scratch || w&isMoveK != 0 && in.Imm == 0:
			w = 1
		}
		sum += int(w&widthMask) - 1
		if extra != nil {
			sum += int(extra[i])
		}
		sums[i+1] = sum
	}
	return sums, nil
}
