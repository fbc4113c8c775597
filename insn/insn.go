// SPDX-License-Identifier: Apache-2.0

// Package insn holds BPF instructions exactly as the kernel receives them.
//
// An [Instruction] is one 8-byte slot, and every index in this package and in
// those built on it counts slots: a 64-bit load takes two of them. Decoding and
// encoding are inverse for any bytes, well-formed or not, because what a loader
// hands to the kernel is evidence and must not be tidied up.
package insn

import (
	"encoding/binary"
	"fmt"
)

// Size is the number of bytes of one slot.
const Size = 8

// Instruction is one 8-byte slot in the layout of struct bpf_insn. Dst and Src
// are the two four-bit register fields; values above 15 do not exist.
type Instruction struct {
	Code uint8
	Dst  uint8
	Src  uint8
	Off  int16
	Imm  int32
}

// Instruction classes: the low three bits of Code.
const (
	ClassLD    = 0x00
	ClassLDX   = 0x01
	ClassST    = 0x02
	ClassSTX   = 0x03
	ClassALU   = 0x04
	ClassJMP   = 0x05
	ClassJMP32 = 0x06
	ClassALU64 = 0x07
)

// Operand source of ALU and jump instructions: immediate or register.
const (
	SourceK = 0x00
	SourceX = 0x08
)

// Sizes of loads and stores.
const (
	SizeW  = 0x00
	SizeH  = 0x08
	SizeB  = 0x10
	SizeDW = 0x18
)

// Modes of loads and stores. From ModeProbeMem32 on they are internal to the
// kernel and appear in post-verifier code alone.
const (
	ModeIMM        = 0x00
	ModeABS        = 0x20
	ModeIND        = 0x40
	ModeMEM        = 0x60
	ModeMEMSX      = 0x80
	ModeATOMIC     = 0xc0
	ModeProbeMem32 = 0xa0
	ModeNospec     = 0xc0
)

// ALU operations.
const (
	OpADD  = 0x00
	OpSUB  = 0x10
	OpMUL  = 0x20
	OpDIV  = 0x30
	OpOR   = 0x40
	OpAND  = 0x50
	OpLSH  = 0x60
	OpRSH  = 0x70
	OpNEG  = 0x80
	OpMOD  = 0x90
	OpXOR  = 0xa0
	OpMOV  = 0xb0
	OpARSH = 0xc0
	OpEND  = 0xd0
)

// Jump operations.
const (
	OpJA    = 0x00
	OpJEQ   = 0x10
	OpJGT   = 0x20
	OpJGE   = 0x30
	OpJSET  = 0x40
	OpJNE   = 0x50
	OpJSGT  = 0x60
	OpJSGE  = 0x70
	OpCALL  = 0x80
	OpEXIT  = 0x90
	OpJLT   = 0xa0
	OpJLE   = 0xb0
	OpJSLT  = 0xc0
	OpJSLE  = 0xd0
	OpJCOND = 0xe0
)

// Operations of atomic instructions, in Imm.
const (
	AtomicFetch   = 0x01
	AtomicXchg    = 0xe0 | AtomicFetch
	AtomicCmpXchg = 0xf0 | AtomicFetch
	AtomicLoadAcq = 0x100
	AtomicStRel   = 0x110
)

// Pseudo sources of a 64-bit load.
const (
	PseudoMapFD       = 1
	PseudoMapValue    = 2
	PseudoBTFID       = 3
	PseudoFunc        = 4
	PseudoMapIdx      = 5
	PseudoMapIdxValue = 6
)

// Pseudo sources of a call.
const (
	PseudoHelper    = 0
	PseudoCall      = 1
	PseudoKfuncCall = 2
)

// Whole opcodes worth a name.
const (
	OpcodeLoadImm64 = ClassLD | ModeIMM | SizeDW
	OpcodeJA        = ClassJMP | OpJA
	OpcodeGotol     = ClassJMP32 | OpJA
	OpcodeGotox     = ClassJMP | OpJA | SourceX
	OpcodeCall      = ClassJMP | OpCALL
	OpcodeExit      = ClassJMP | OpEXIT
	OpcodeMayGoto   = ClassJMP | OpJCOND
)

// Registers with a role of their own.
const (
	RegFP = 10 // the frame pointer, read-only
	RegAX = 11 // scratch register of the kernel, never in submitted code; 12 on 7.2, which gives 11 to programs
)

// AddrSpaceCast is the offset that makes a 64-bit register move an
// addr_space_cast (kernel 6.9).
const AddrSpaceCast = 1

// Decode reads little-endian instructions. The length must be a multiple of
// [Size]; nothing else is checked.
func Decode(b []byte) ([]Instruction, error) {
	if len(b)%Size != 0 {
		return nil, fmt.Errorf("decode instructions: %d bytes are not a multiple of %d", len(b), Size)
	}
	prog := make([]Instruction, len(b)/Size)
	for i := range prog {
		s := b[i*Size : i*Size+Size]
		prog[i] = Instruction{
			Code: s[0],
			Dst:  s[1] & 0x0f,
			Src:  s[1] >> 4,
			Off:  int16(binary.LittleEndian.Uint16(s[2:])),
			Imm:  int32(binary.LittleEndian.Uint32(s[4:])),
		}
	}
	return prog, nil
}

// Encode is the inverse of [Decode].
func Encode(prog []Instruction) []byte {
	b := make([]byte, 0, len(prog)*Size)
	for _, in := range prog {
		b = append(b, in.Code, in.Dst&0x0f|in.Src<<4)
		b = binary.LittleEndian.AppendUint16(b, uint16(in.Off))
		b = binary.LittleEndian.AppendUint32(b, uint32(in.Imm))
	}
	return b
}

// Class returns the instruction class, one of the Class constants.
func (in Instruction) Class() uint8 { return in.Code & 0x07 }

// Op returns the operation of an ALU or jump instruction.
func (in Instruction) Op() uint8 { return in.Code & 0xf0 }

// Mode returns the mode of a load or store.
func (in Instruction) Mode() uint8 { return in.Code & 0xe0 }

// IsALU reports an arithmetic instruction of either width.
func (in Instruction) IsALU() bool {
	return in.Class() == ClassALU || in.Class() == ClassALU64
}

func (in Instruction) isJumpClass() bool {
	return in.Class() == ClassJMP || in.Class() == ClassJMP32
}

// IsImmediate reports the K form of an ALU or jump instruction: its operand is
// Imm rather than a register.
func (in Instruction) IsImmediate() bool {
	return (in.IsALU() || in.isJumpClass()) && in.Code&SourceX == 0
}

// IsConditional reports a conditional jump, may_goto included.
func (in Instruction) IsConditional() bool {
	if !in.isJumpClass() {
		return false
	}
	switch in.Op() {
	case OpJA, OpCALL, OpEXIT:
		return false
	}
	return true
}

// IsGoto reports an unconditional jump to a fixed place: ja or gotol.
func (in Instruction) IsGoto() bool {
	return in.Code == OpcodeJA || in.Code == OpcodeGotol
}

// IsJump16 reports a jump whose distance is the 16-bit Off: the conditional
// jumps and ja, not gotol.
func (in Instruction) IsJump16() bool {
	return in.Code == OpcodeJA || in.IsConditional()
}

// IsExit reports the return from a function.
func (in Instruction) IsExit() bool { return in.Code == OpcodeExit }

// IsWide reports the first slot of a 64-bit load. The caller finds out whether
// a second slot follows.
func (in Instruction) IsWide() bool { return in.Code == OpcodeLoadImm64 }

// IsMapLoad reports the first slot of a 64-bit load that names a map by file
// descriptor or by index into the loader's fd_array.
func (in Instruction) IsMapLoad() bool {
	if !in.IsWide() {
		return false
	}
	switch in.Src {
	case PseudoMapFD, PseudoMapValue, PseudoMapIdx, PseudoMapIdxValue:
		return true
	}
	return false
}

// IsFuncLoad reports the first slot of a load of a function's address.
func (in Instruction) IsFuncLoad() bool { return in.IsWide() && in.Src == PseudoFunc }

// IsHelperCall reports a call of the helper numbered Imm.
func (in Instruction) IsHelperCall() bool {
	return in.Code == OpcodeCall && in.Src == PseudoHelper
}

// IsFuncCall reports a bpf-to-bpf call.
func (in Instruction) IsFuncCall() bool {
	return in.Code == OpcodeCall && in.Src == PseudoCall
}

// IsKfuncCall reports a call of a kernel function by BTF id (kernel 5.13).
func (in Instruction) IsKfuncCall() bool {
	return in.Code == OpcodeCall && in.Src == PseudoKfuncCall
}

// IsMovSX reports a sign-extending move (kernel 6.6).
func (in Instruction) IsMovSX() bool {
	return in.IsALU() && in.Op() == OpMOV && in.Code&SourceX != 0 &&
		(in.Off == 8 || in.Off == 16 || in.Off == 32)
}

// IsAddrSpaceCast reports an addr_space_cast (kernel 6.9).
func (in Instruction) IsAddrSpaceCast() bool {
	return in.Code == ClassALU64|OpMOV|SourceX && in.Off == AddrSpaceCast
}

// IsSignedDiv reports a signed division or modulo (kernel 6.6).
func (in Instruction) IsSignedDiv() bool {
	return in.IsALU() && (in.Op() == OpDIV || in.Op() == OpMOD) && in.Off == 1
}

// IsAtomic reports an atomic read-modify-write, load-acquire or store-release.
func (in Instruction) IsAtomic() bool {
	return in.Class() == ClassSTX && in.Mode() == ModeATOMIC
}

// IsMayGoto reports a may_goto (kernel 6.9).
func (in Instruction) IsMayGoto() bool { return in.Code == OpcodeMayGoto && in.Src == 0 }

// Target returns the slot that the jump at slot i goes to, for ja, gotol and
// conditional jumps. The result may lie outside the program.
func (in Instruction) Target(i int) (int, bool) {
	switch {
	case in.Code == OpcodeGotol:
		return i + 1 + int(in.Imm), true
	case in.IsJump16():
		return i + 1 + int(in.Off), true
	}
	return 0, false
}

// CallTarget returns the slot where the function starts that the instruction
// at slot i calls or takes the address of. The result may lie outside the
// program. It holds for submitted code: the kernel rewrites these immediates
// while it compiles.
func (in Instruction) CallTarget(i int) (int, bool) {
	if in.IsFuncCall() || in.IsFuncLoad() {
		return i + 1 + int(in.Imm), true
	}
	return 0, false
}

// Imm64 returns the constant of the 64-bit load at slot i, and false when there
// is none.
func Imm64(prog []Instruction, i int) (uint64, bool) {
	if i < 0 || i+1 >= len(prog) || !prog[i].IsWide() {
		return 0, false
	}
	return uint64(uint32(prog[i+1].Imm))<<32 | uint64(uint32(prog[i].Imm)), true
}

// IsSecondHalf reports whether slot i is the second slot of a 64-bit load. In a
// valid one its code is 0, which is no instruction of its own; anything else
// after a first half is taken for what it looks like.
func IsSecondHalf(prog []Instruction, i int) bool {
	return 0 < i && i < len(prog) && prog[i].Code == 0 && prog[i-1].IsWide()
}
