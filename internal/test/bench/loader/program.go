// SPDX-License-Identifier: Apache-2.0

package main

import "encoding/binary"

// ins is one 8-byte instruction of BPF.
type ins struct {
	op       uint8
	dst, src uint8
	off      int16
	imm      int32
}

// Operation codes of include/uapi/linux/bpf.h.
const (
	addK  = 0x07
	addX  = 0x0f
	xorX  = 0xaf
	movK  = 0xb7
	movX  = 0xbf
	ldDW  = 0x79
	ldW   = 0x61
	stxDW = 0x7b
	jgtX  = 0x2d
	exit  = 0x95
)

// Sizes, in instructions.
const (
	mediumInsns  = 3000
	logInsns     = 30000
	blindPatches = 12000

	jumpEvery = 100
)

// program returns the instructions of a kind of load and its log level.
func program(kind string) ([]ins, uint32) {
	switch kind {
	case "small":
		return []ins{{op: movK}, {op: exit}}, 0
	case "medium":
		return mixed(mediumInsns), 0
	case "log":
		return mixed(logInsns), 2
	case "blind":
		return constants(blindPatches), 0
	case "fail":
		insns := mixed(logInsns)
		insns[3] = ins{op: movX, dst: 0, src: 9} // which nothing wrote: the verifier is done at once
		return insns, 1
	}
	return nil, 0
}

// mixed is n instructions of moves, sums, loads, stores and jumps that the verifier walks once. All
// are register-form but the last.
func mixed(n int) []ins {
	body := []ins{
		{op: addX, dst: 3, src: 4},
		{op: xorX, dst: 4, src: 3},
		{op: stxDW, dst: 10, src: 3, off: -8},
		{op: ldDW, dst: 5, src: 10, off: -8},
		{op: addX, dst: 4, src: 5},
		{op: ldW, dst: 2, src: 6}, // skb->len
		{op: movX, dst: 3, src: 2},
		{op: xorX, dst: 3, src: 5},
	}
	insns := []ins{{op: movX, dst: 6, src: 1}, {op: ldW, dst: 3, src: 6}, {op: movX, dst: 4, src: 3}}
	for i := 0; len(insns) < n-2; i++ {
		next := body[i%len(body)] // from the first one on, so that nothing is read before it is written
		if len(insns)%jumpEvery == 0 {
			next = ins{op: jgtX, dst: 4, src: 3} // to the next one: both ways are the same
		}
		insns = append(insns, next)
	}
	return append(insns, ins{op: movK}, ins{op: exit})
}

// constants is a program with n instructions that blinding replaces.
func constants(n int) []ins {
	insns := []ins{{op: movK, dst: 3}}
	for i := range n - 2 {
		insns = append(insns, ins{op: addK, dst: 3, imm: int32(i + 1)})
	}
	return append(insns, ins{op: movK}, ins{op: exit})
}

func encode(insns []ins) []byte {
	b := make([]byte, 0, 8*len(insns))
	for _, i := range insns {
		b = append(b, i.op, i.src<<4|i.dst)
		b = binary.LittleEndian.AppendUint16(b, uint16(i.off))
		b = binary.LittleEndian.AppendUint32(b, uint32(i.imm))
	}
	return b
}
