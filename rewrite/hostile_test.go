// SPDX-License-Identifier: Apache-2.0

package rewrite_test

import (
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/test/cputime"
	"github.com/bpfwhy/bpfwhy/rewrite"
)

// crowd is one function in which of every few slots two jump farther than they reach after
// blinding, one forward and one back.
func crowd(slots, every int) []insn.Instruction {
	const far = 32000
	prog := make([]insn.Instruction, slots)
	for i := range prog {
		prog[i] = insn.Instruction{Code: 0x07, Imm: 1}
		switch {
		case i%every == 0 && i+1+far < slots:
			prog[i] = insn.Instruction{Code: 0x15, Imm: 7, Off: far}
		case i%every == 1 && i > far:
			prog[i] = insn.Instruction{Code: 0x15, Imm: 7, Off: -far}
		}
	}
	prog[slots-1] = insn.Instruction{Code: insn.OpcodeExit}
	return prog
}

// What cannot be done is given up in a moment: programs come from anybody.
func TestCrowd(t *testing.T) {
	for _, test := range []struct {
		slots, every int
		done         bool
	}{
		{100_000, 2, false},
		{1_000_000, 2, false},
		{200_000, 10, true}, // 33,600 jumps
	} {
		prog := crowd(test.slots, test.every)
		var err error
		took := cputime.Of(func() { _, err = rewrite.Rewrite(prog, rewrite.Options{}) })
		t.Logf("%d slots, every %d: %v in %v", test.slots, test.every, err, took)
		if test.done {
			qt.Check(t, qt.IsNil(err))
		} else {
			qt.Check(t, qt.ErrorMatches(err, "rewrite program: too many jumps cross the same place"))
		}
		qt.Check(t, qt.IsTrue(took < 5*time.Second), qt.Commentf("%v", took))
	}
}
