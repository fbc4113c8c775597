// SPDX-License-Identifier: Apache-2.0

package insn

import (
	"crypto/sha1"
	"crypto/sha256"
)

// TagSHA1 returns the program tag as kernels before 6.18 compute it: the first
// eight bytes of the SHA-1 of the instructions, with the map file descriptors
// and map value offsets of 64-bit loads set to zero.
//
// The kernel computes it from the submitted instructions after any CO-RE
// relocation of its own, so a light skeleton's program may not match.
func TagSHA1(prog []Instruction) [8]byte {
	sum := sha1.Sum(stable(prog))
	return [8]byte(sum[:8])
}

// TagSHA256 returns the program tag as kernels from 6.18 compute it: like
// [TagSHA1], with SHA-256.
func TagSHA256(prog []Instruction) [8]byte {
	sum := sha256.Sum256(stable(prog))
	return [8]byte(sum[:8])
}

// MatchesTag reports whether tag belongs to the program under either hash.
func MatchesTag(prog []Instruction, tag [8]byte) bool {
	return TagSHA1(prog) == tag || TagSHA256(prog) == tag
}

// stable encodes the program with everything removed that changes from one
// load to the next. A second half is recognised by shape, as the kernel does.
func stable(prog []Instruction) []byte {
	b := Encode(prog)
	second := false
	for i, in := range prog {
		switch {
		case !second && in.IsWide() && (in.Src == PseudoMapFD || in.Src == PseudoMapValue):
			second = true
			clear(b[i*Size+4 : i*Size+8])
		case second && in.Code == 0 && in.Dst == 0 && in.Src == 0 && in.Off == 0:
			second = false
			clear(b[i*Size+4 : i*Size+8])
		default:
			second = false
		}
	}
	return b
}
