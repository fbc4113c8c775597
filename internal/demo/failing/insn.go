// SPDX-License-Identifier: Apache-2.0

package failing

import (
	"encoding/binary"
)

// ins is one 8-byte slot of BPF. The package encodes its programs itself, so that a mistake in
// package insn cannot hide in the programs that test it.
type ins struct {
	op       uint8
	dst, src uint8
	off      int16
	imm      int32
}

// Operation codes of include/uapi/linux/bpf.h, as they are used here.
const (
	opAddK  = 0x07
	opAddX  = 0x0f
	opXorX  = 0xaf
	opMovK  = 0xb7
	opMovX  = 0xbf
	opMovsx = 0xbf // off 8, 16 or 32 makes it sign-extending
	opLdW   = 0x61
	opLdDW  = 0x79
	opStDW  = 0x7a
	opStxDW = 0x7b
	opStW   = 0x62
	opJA    = 0x05
	opJEqK  = 0x15
	opJNeK  = 0x55
	opJLtK  = 0xa5
	opJEqX  = 0x1d
	opCall  = 0x85
	opExit  = 0x95
	opImm64 = 0x18

	pseudoMapFD = 1 // src of opImm64
	pseudoCall  = 1 // src of opCall
	pseudoKfunc = 2
)

// Helper numbers of enum bpf_func_id.
const (
	fnMapLookup       = 1
	fnProcessor       = 8 // bpf_get_smp_processor_id
	fnProbeRead       = 4
	fnProbeWriteUser  = 36
	fnXDPAdjustHead   = 44
	fnSkLookupTCP     = 84
	fnProbeReadKernel = 113
)

func movX(dst, src uint8) ins            { return ins{op: opMovX, dst: dst, src: src} }
func movK(dst uint8, imm int32) ins      { return ins{op: opMovK, dst: dst, imm: imm} }
func addK(dst uint8, imm int32) ins      { return ins{op: opAddK, dst: dst, imm: imm} }
func addX(dst, src uint8) ins            { return ins{op: opAddX, dst: dst, src: src} }
func xorX(dst, src uint8) ins            { return ins{op: opXorX, dst: dst, src: src} }
func ldW(dst, src uint8, off int16) ins  { return ins{op: opLdW, dst: dst, src: src, off: off} }
func ldDW(dst, src uint8, off int16) ins { return ins{op: opLdDW, dst: dst, src: src, off: off} }
func jeqK(dst uint8, imm int32, off int16) ins {
	return ins{op: opJEqK, dst: dst, imm: imm, off: off}
}
func call(fn int32) ins     { return ins{op: opCall, imm: fn} }
func callSub(rel int32) ins { return ins{op: opCall, src: pseudoCall, imm: rel} }
func exit() ins             { return ins{op: opExit} }

// mapFD is the ld_imm64 of a map, two slots.
func mapFD(dst uint8, fd int) []ins {
	return []ins{{op: opImm64, dst: dst, src: pseudoMapFD, imm: int32(fd)}, {}}
}

// join concatenates single instructions and sequences.
func join(parts ...any) []ins {
	var out []ins
	for _, p := range parts {
		switch p := p.(type) {
		case ins:
			out = append(out, p)
		case []ins:
			out = append(out, p...)
		}
	}
	return out
}

// encode lays instructions out as the kernel reads them on a little-endian machine.
func encode(insns []ins) []byte {
	b := make([]byte, 0, 8*len(insns))
	for _, i := range insns {
		b = append(b, i.op, i.src<<4|i.dst)
		b = binary.LittleEndian.AppendUint16(b, uint16(i.off))
		b = binary.LittleEndian.AppendUint32(b, uint32(i.imm))
	}
	return b
}
