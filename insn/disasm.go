// SPDX-License-Identifier: Apache-2.0

package insn

import "fmt"

var aluOps = [16]string{
	OpADD >> 4: "+=", OpSUB >> 4: "-=", OpMUL >> 4: "*=", OpDIV >> 4: "/=",
	OpOR >> 4: "|=", OpAND >> 4: "&=", OpLSH >> 4: "<<=", OpRSH >> 4: ">>=",
	OpMOD >> 4: "%=", OpXOR >> 4: "^=", OpMOV >> 4: "=", OpARSH >> 4: "s>>=",
}

var jumpOps = [16]string{
	OpJEQ >> 4: "==", OpJGT >> 4: ">", OpJLT >> 4: "<", OpJGE >> 4: ">=",
	OpJLE >> 4: "<=", OpJSET >> 4: "&", OpJNE >> 4: "!=", OpJSGT >> 4: "s>",
	OpJSLT >> 4: "s<", OpJSGE >> 4: "s>=", OpJSLE >> 4: "s<=",
}

var atomicOps = map[int32]string{OpADD: "add", OpAND: "and", OpOR: "or", OpXOR: "xor"}

var sizes = [4]string{SizeW >> 3: "32", SizeH >> 3: "16", SizeB >> 3: "8", SizeDW >> 3: "64"}

// Disassemble prints the instruction at slot i the way the verifier's log and
// bpftool do, without the opcode in front; 64-bit loads that name an object
// print as bpftool prints them. The second slot of a 64-bit load, a slot
// outside the program and an opcode that no kernel knows give a text too, never
// an error.
func Disassemble(prog []Instruction, i int) string {
	if i < 0 || i >= len(prog) {
		return ""
	}
	if IsSecondHalf(prog, i) {
		return "second half of a 64-bit load"
	}
	if prog[i].IsWide() {
		if !IsSecondHalf(prog, i+1) {
			return prog[i].String() + " (second half missing)"
		}
		return wide(prog[i], prog[i+1].Imm)
	}
	return prog[i].String()
}

// String prints one slot on its own, see [Disassemble]. The constant of a
// 64-bit load lacks its upper half.
func (in Instruction) String() string {
	switch in.Class() {
	case ClassALU, ClassALU64:
		return in.alu()
	case ClassJMP, ClassJMP32:
		return in.jump()
	case ClassLD:
		return in.load()
	case ClassLDX:
		return in.loadX()
	case ClassST:
		return in.store()
	}
	return in.storeX()
}

func (in Instruction) unknown() string { return fmt.Sprintf("unknown opcode %02x", in.Code) }

func (in Instruction) size() string { return sizes[in.Code&0x18>>3] }

// memory prints a dereferenced pointer; the kernel puts a space before the sign
// of the offset.
func (in Instruction) memory(sign string, reg uint8) string {
	return fmt.Sprintf("*(%s%s *)(r%d %+d)", sign, in.size(), reg, in.Off)
}

func (in Instruction) alu() string {
	r := "r"
	if in.Class() == ClassALU {
		r = "w"
	}
	op := aluOps[in.Op()>>4]
	if in.IsSignedDiv() {
		op = "s" + op
	}
	switch {
	case in.Op() == OpEND:
		name := "le"
		if in.Class() == ClassALU64 {
			name = "bswap"
		} else if in.Code&SourceX != 0 {
			name = "be"
		}
		return fmt.Sprintf("r%d = %s%d r%d", in.Dst, name, in.Imm, in.Dst)
	case in.Op() == OpNEG:
		return fmt.Sprintf("%s%d = -%s%d", r, in.Dst, r, in.Dst)
	case op == "":
		return in.unknown()
	case in.IsAddrSpaceCast():
		return fmt.Sprintf("r%d = addr_space_cast(r%d, %d, %d)", in.Dst, in.Src, uint32(in.Imm)>>16, uint16(in.Imm))
	case in.IsImmediate():
		return fmt.Sprintf("%s%d %s %d", r, in.Dst, op, in.Imm)
	}
	cast := ""
	if in.IsMovSX() {
		cast = fmt.Sprintf("(s%d)", in.Off)
	}
	return fmt.Sprintf("%s%d %s %s%s%d", r, in.Dst, op, cast, r, in.Src)
}

func (in Instruction) jump() string {
	r := "r"
	if in.Class() == ClassJMP32 {
		r = "w"
	}
	switch {
	case in.Op() == OpCALL:
		switch in.Src {
		case PseudoCall:
			return fmt.Sprintf("call pc%+d", in.Imm)
		case PseudoKfuncCall:
			return fmt.Sprintf("call kernel-function#%d", in.Imm)
		case PseudoHelper:
			if h, ok := HelperByID(int(in.Imm)); ok {
				return fmt.Sprintf("call %s#%d", h.Name, in.Imm)
			}
		}
		return fmt.Sprintf("call unknown#%d", in.Imm)
	case in.Code == OpcodeExit:
		return "exit"
	case in.Code == OpcodeJA:
		return fmt.Sprintf("goto pc%+d", in.Off)
	case in.Code == OpcodeGotol:
		return fmt.Sprintf("gotol pc%+d", in.Imm)
	case in.Code == OpcodeGotox:
		return fmt.Sprintf("gotox r%d", in.Dst)
	case in.IsMayGoto():
		return fmt.Sprintf("may_goto pc%+d", in.Off)
	}
	op := jumpOps[in.Op()>>4]
	switch {
	case op == "":
		return in.unknown()
	case in.IsImmediate():
		return fmt.Sprintf("if %s%d %s 0x%x goto pc%+d", r, in.Dst, op, uint32(in.Imm), in.Off)
	}
	return fmt.Sprintf("if %s%d %s %s%d goto pc%+d", r, in.Dst, op, r, in.Src, in.Off)
}

func (in Instruction) load() string {
	switch {
	case in.Mode() == ModeABS:
		return fmt.Sprintf("r0 = *(u%s *)skb[%d]", in.size(), in.Imm)
	case in.Mode() == ModeIND:
		return fmt.Sprintf("r0 = *(u%s *)skb[r%d + %d]", in.size(), in.Src, in.Imm)
	case in.IsWide():
		return wide(in, 0)
	}
	return in.unknown()
}

func wide(in Instruction, upper int32) string {
	switch in.Src {
	case PseudoMapFD:
		return fmt.Sprintf("r%d = map[fd:%d]", in.Dst, in.Imm)
	case PseudoMapValue:
		return fmt.Sprintf("r%d = map[fd:%d][0]+%d", in.Dst, in.Imm, uint32(upper))
	case PseudoMapIdx:
		return fmt.Sprintf("r%d = map[idx:%d]", in.Dst, in.Imm)
	case PseudoMapIdxValue:
		return fmt.Sprintf("r%d = map[idx:%d]+%d", in.Dst, in.Imm, uint32(upper))
	case PseudoFunc:
		return fmt.Sprintf("r%d = subprog[%+d]", in.Dst, in.Imm)
	}
	return fmt.Sprintf("r%d = 0x%x", in.Dst, uint64(uint32(upper))<<32|uint64(uint32(in.Imm)))
}

func (in Instruction) loadX() string {
	switch in.Mode() {
	case ModeMEM:
		return fmt.Sprintf("r%d = %s", in.Dst, in.memory("u", in.Src))
	case ModeMEMSX:
		return fmt.Sprintf("r%d = %s", in.Dst, in.memory("s", in.Src))
	}
	return in.unknown()
}

func (in Instruction) store() string {
	switch in.Mode() {
	case ModeMEM:
		return fmt.Sprintf("%s = %d", in.memory("u", in.Dst), in.Imm)
	case ModeNospec:
		return "nospec"
	}
	return in.unknown()
}

func (in Instruction) storeX() string {
	switch in.Mode() {
	case ModeMEM:
		return fmt.Sprintf("%s = r%d", in.memory("u", in.Dst), in.Src)
	case ModeATOMIC:
		return in.atomic()
	}
	return in.unknown()
}

func (in Instruction) atomic() string {
	wide := ""
	if in.Code&0x18 == SizeDW {
		wide = "64"
	}
	// The pointer without the star that dereferences it.
	ptr := func(reg uint8) string { return in.memory("u", reg)[1:] }
	switch in.Imm {
	case OpADD, OpAND, OpOR, OpXOR:
		return fmt.Sprintf("lock %s %s r%d", in.memory("u", in.Dst), aluOps[in.Imm>>4], in.Src)
	case OpADD | AtomicFetch, OpAND | AtomicFetch, OpOR | AtomicFetch, OpXOR | AtomicFetch:
		return fmt.Sprintf("r%d = atomic%s_fetch_%s(%s, r%d)", in.Src, wide, atomicOps[in.Imm&^AtomicFetch], ptr(in.Dst), in.Src)
	case AtomicCmpXchg:
		return fmt.Sprintf("r0 = atomic%s_cmpxchg(%s, r0, r%d)", wide, ptr(in.Dst), in.Src)
	case AtomicXchg:
		return fmt.Sprintf("r%d = atomic%s_xchg(%s, r%d)", in.Src, wide, ptr(in.Dst), in.Src)
	case AtomicLoadAcq:
		return fmt.Sprintf("r%d = load_acquire(%s)", in.Dst, ptr(in.Src))
	case AtomicStRel:
		return fmt.Sprintf("store_release(%s, r%d)", ptr(in.Dst), in.Src)
	}
	return in.unknown()
}
