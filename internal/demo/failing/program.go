// SPDX-License-Identifier: Apache-2.0

package failing

// Geometry of the far-jump program. Its body is register-form, which blinding leaves alone, with
// one K-form addition every FarEvery slots, which blinding makes three: few patches, so that an
// emulated guest is done in a moment.
const (
	FarBody  = 32000
	FarEvery = 64

	// FarFrom and FarTo are the slots of the jump in the one-function program; in the one with
	// calls, and in each function of it, they are FarSub later.
	FarFrom = 2
	FarTo   = FarFrom + 1 + FarBody + 2
	FarSub  = 2

	// FarOffset fits 16 bits as written. FarNeed, what blinding makes of it, does not.
	FarOffset = FarTo - FarFrom - 1
	FarNeed   = FarOffset + 2*(FarBody/FarEvery)
)

// farFunction takes a __sk_buff in r1 and returns 0 by way of a jump over the whole body.
func farFunction() []ins {
	insns := make([]ins, 0, FarTo+2)
	insns = append(insns,
		movX(6, 1),
		ldW(2, 1, 0), // skb->len
		jeqK(2, 64, FarOffset),
		movX(3, 2),
		movX(4, 2),
	)
	for i := 2; i < FarBody; i++ {
		switch {
		case i%FarEvery == FarEvery-1:
			insns = append(insns, addK(3, int32(i)))
		case i%2 == 0:
			insns = append(insns, xorX(3, 4))
		default:
			insns = append(insns, addX(4, 3))
		}
	}
	return append(insns, movK(0, 0), exit(), movK(0, 0), exit())
}

func farJump() []ins { return farFunction() }

// farJumpCalls has the far jump in a function that the main function calls.
func farJumpCalls() []ins {
	return join(callSub(1), exit(), farFunction())
}

// farPerCPU asks for the processor before a far jump: newer verifiers put the address of per-CPU
// data in place of the call, which no interpreter can reach. calls puts both into a function of
// their own. Never to be run un-jited.
func farPerCPU(calls bool) []ins {
	f := join(movX(6, 1), call(fnProcessor), movX(1, 6), farFunction())
	if calls {
		return join(callSub(1), exit(), f)
	}
	return f
}

func small() []ins { return []ins{movK(0, 0), exit()} }

func smallCalls() []ins { return []ins{callSub(1), exit(), movK(0, 0), exit()} }

// lookup leaves the address of the value for key 0 in r0.
func lookup(fd int) []ins {
	return join(
		ins{op: opStW, dst: 10, off: -4},
		movX(2, 10), addK(2, -4),
		mapFD(1, fd),
		call(fnMapLookup),
	)
}

func withMap(fd int) []ins {
	return join(lookup(fd), jeqK(0, 0, 1), ldDW(0, 0, 0), movK(0, 0), exit())
}

func nullMapValue(fd int) []ins {
	return join(lookup(fd), ldDW(0, 0, 0), exit())
}

// outOfBounds reads 8 bytes behind an 8-byte value.
func outOfBounds(fd int) []ins {
	return join(lookup(fd), jeqK(0, 0, 1), ldDW(0, 0, 8), movK(0, 0), exit())
}

// countTo is a bounded loop, which the verifier walks round by round. The body is long, because it
// is the number of rounds, each compared with those before, that makes newer verifiers slow.
func countTo(n int32) []ins {
	const body = 2000
	insns := []ins{movK(1, 0)}
	for range body {
		insns = append(insns, movK(0, 0))
	}
	return append(insns,
		addK(1, 1),
		ins{op: opJLtK, dst: 1, imm: n, off: -body - 2},
		exit(),
	)
}

// manyJumps has n conditional jumps, none of which the verifier can decide and all of which stay
// pending.
func manyJumps(n int) []ins {
	insns := []ins{ldW(2, 1, 0), movK(0, 0)}
	for i := range n {
		insns = append(insns, jeqK(2, int32(i+1), int16(n-1-i)))
	}
	return append(insns, exit())
}

// longFilter is n slots of nothing.
func longFilter(n int) []ins {
	insns := make([]ins, 0, n)
	for len(insns) < n-2 {
		insns = append(insns, movX(0, 1))
	}
	return append(insns, movK(0, 0), exit())
}
