// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/rewrite"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// code is a program in the form that the kernel reads, with jumps and calls by
// distance instead of by name.
type code struct {
	insns     []insn.Instruction
	functions []insn.Function
	slots     []int // of each asm.Instruction
}

// codeOf converts a program. cilium/ebpf's form names the targets of some jumps
// and calls; these have an offset, or a constant, of -1.
func codeOf(source asm.Instructions) (*code, error) {
	c := &code{slots: make([]int, len(source))}
	symbols := make(map[string]int)
	raw := bytes.NewBuffer(make([]byte, 0, len(source)*insn.Size))
	for i := range source {
		c.slots[i] = raw.Len() / insn.Size
		if name := source[i].Symbol(); name != "" {
			symbols[name] = c.slots[i]
		}
		if _, err := source[i].Marshal(raw, binary.LittleEndian); err != nil {
			return nil, fmt.Errorf("instruction %d: %w", i, err)
		}
	}
	var err error
	if c.insns, err = insn.Decode(raw.Bytes()); err != nil {
		return nil, err
	}
	for i := range source {
		in, at := &source[i], c.slots[i]
		name := in.Reference()
		if name == "" {
			continue
		}
		to, ok := symbols[name]
		if !ok {
			continue // a map, or an error that cilium/ebpf words better
		}
		switch out := &c.insns[at]; {
		case isNamedLong(in):
			out.Imm = int32(to - at - 1)
		case isNamedShort(in):
			out.Off = int16(to - at - 1)
		}
	}
	c.functions = insn.Functions(c.insns)
	return c, nil
}

// isNamedLong reports a call, a function's address or a gotol whose target is a
// name; isNamedShort another jump.
func isNamedLong(in *asm.Instruction) bool {
	return in.Reference() != "" && in.Constant == -1 && (in.IsFunctionReference() || in.OpCode == gotol)
}

func isNamedShort(in *asm.Instruction) bool {
	return in.Reference() != "" && in.Offset == -1 && in.OpCode.Class().IsJump() && in.OpCode != gotol && !in.IsFunctionReference()
}

var gotol = asm.LongJump("").OpCode

// apply returns the program as the result has it, in cilium/ebpf's form. Each
// instruction of the original keeps its metadata: symbols, source lines,
// relocations, maps.
func (c *code) apply(source asm.Instructions, r *rewrite.Result) asm.Instructions {
	out := make(asm.Instructions, 0, len(source)+r.Added)
	next := 0 // slot of the result
	for i := range source {
		at := r.New[c.slots[i]]
		for ; next < at; next++ {
			out = append(out, island(r.Program[next]))
		}
		in, raw := source[i], r.Program[at]
		switch old := c.insns[c.slots[i]]; {
		case old.Code != raw.Code: // a goto that became a gotol
			in = island(raw).WithMetadata(in.Metadata)
			in = in.WithReference("")
		case raw.IsJump16():
			in.Offset = raw.Off
		case raw.Code == insn.OpcodeGotol, (raw.IsFuncCall() || raw.IsFuncLoad()) && !isNamedLong(&source[i]):
			in.Constant = int64(raw.Imm)
		}
		out = append(out, in)
		next = at + 1
		if raw.IsWide() {
			next++
		}
	}
	return out
}

// island is a goto in cilium/ebpf's form.
func island(in insn.Instruction) asm.Instruction {
	if in.Code == insn.OpcodeGotol {
		return asm.Instruction{OpCode: gotol, Constant: int64(in.Imm)}
	}
	return asm.Instruction{OpCode: asm.Ja.Op(asm.ImmSource), Offset: in.Off}
}

// content identifies a program, whatever its maps' descriptors are.
type content [sha256.Size]byte

func (c *code) content(t ebpf.ProgramType) content {
	h := sha256.New()
	fmt.Fprintln(h, t)
	masked := make([]insn.Instruction, len(c.insns))
	copy(masked, c.insns)
	for i, in := range masked {
		if in.IsMapLoad() {
			masked[i].Imm = 0
		}
	}
	h.Write(insn.Encode(masked))
	return content(h.Sum(nil))
}
