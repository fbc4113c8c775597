// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"slices"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// The kernel was seen failing, with the code in its hands: the jump is exact, and its place is that
// of the submitted program.
func TestJumpSeen(t *testing.T) {
	load64 := insn.Instruction{Code: insn.ClassLDX | insn.ModeMEM | insn.SizeDW, Dst: 2, Src: 1, Off: 8}
	add := insn.Instruction{Code: insn.ClassALU64 | insn.OpADD, Dst: 0, Imm: 7}
	xor := insn.Instruction{Code: insn.ClassALU64 | insn.OpXOR | insn.SourceX, Dst: 3, Src: 3}
	jump := func(off int16) insn.Instruction {
		return insn.Instruction{Code: insn.ClassJMP | insn.OpJEQ | insn.SourceX, Dst: 0, Src: 6, Off: off}
	}
	blank := insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV, Dst: 0}
	// far is a function of n+5 slots whose jump at slot 2 goes over n additions and one load.
	far := func(n int, between ...insn.Instruction) []insn.Instruction {
		return join(code(blank, insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV | insn.SourceX, Dst: 6, Src: 1}, jump(int16(n+len(between)))),
			slices.Repeat(code(add), n/2), between, slices.Repeat(code(add), n-n/2), code(exit))
	}
	const n = 11000
	submitted := far(n, load64)
	// The verifier made two instructions of the load.
	translated := far(n, load64, xor)

	const fnB, fnJ, fnJS = load.FnBlind, load.FnJIT, load.FnJITSubprogs
	head := code(callFunction(4), blank, jump(1), add, exit)
	two := join(head, submitted)
	tail := len(head)
	oneFunction := run(load.FnSelect, 0, unjited(run(fnB, -34, patch(0))))
	secondFails := func(off int64) ex {
		return run(load.FnCheck, 0, run(load.FnDoCheck, 0), run(fnJS, -524, run(fnJ, 0, run(fnB, 0)), unjited(run(fnB, -34, patch(off)))))
	}
	// The pass stops at the addition that takes the jump beyond 32767 slots. After k additions the
	// jump needs 3k, 2 for what the load became, and n-k for the rest: more than 32767 from k =
	// 10883 on. The 10883rd addition has 3 slots and those 2 before it, and 3 for each of the
	// others.
	const failing = 3 + 3*10882 + 2

	for _, test := range []struct {
		name        string
		kernel      string
		insns       []insn.Instruction
		unit        []insn.Instruction
		run         []ex
		off         int64
		from, to    int
		need        int
		before      int
		after       int
		approximate bool
	}{
		{"one function", "6.12.117", submitted, translated, []ex{run(load.FnCheck, 0, run(load.FnDoCheck, 0)), oneFunction}, failing,
			2, n + 4, 3*n + 2, n + 6, 3*n + 6, false},
		{"another slot than predicted", "6.12.117", submitted, translated, []ex{run(load.FnCheck, 0, run(load.FnDoCheck, 0)), oneFunction}, 99,
			2, n + 4, 3*n + 2, n + 6, 3*n + 6, true},
		{"second function", "6.12.117", two, translated, []ex{secondFails(failing), run(load.FnSelect, 0)}, failing,
			tail + 2, tail + n + 4, 3*n + 2, n + 6, 3*n + 6, false},
		{"whole program on 7.2", "7.2.13", two, join(head, translated), []ex{run(load.FnCheck, 0, run(load.FnDoCheck, 0), run(fnJS, -12, run(fnB, -12, patch(0))))},
			failing + 5 + 2, tail + 2, tail + n + 4, 3*n + 2, n + 6 + 5, 3*n + 6 + 5 + 2, false},
		{"no copy of the unit", "6.12.117", submitted, nil, []ex{run(load.FnCheck, 0, run(load.FnDoCheck, 0)), oneFunction}, failing,
			2, n + 4, 3*n + 1, n + 5, 3*n + 5, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			blob, offs := btfWith("/src/parse.c", "if (a == b)", "return 0;")
			info := lineInfo(16, [4]uint32{0, offs[0], offs[1], 3 << 10}, [4]uint32{uint32(test.from), offs[0], offs[1], 12 << 10},
				[4]uint32{uint32(test.to), offs[0], offs[2], 99 << 10})
			c := loadCall(req{typ: 1, name: "p", insns: test.insns, set: map[int]uint32{progLineRec: 16, progLineCnt: 3}}, 3,
				run(load.FnSyscall, 0, run(load.FnLoad, 0, test.run...)))
			for i := range c.Failed {
				if c.Failed[i].Function == load.FnPatch {
					c.Failed[i].Arg = test.off
				}
			}
			c.Prog = slow
			recs := []trace.Record{chunk(c, trace.Insns, insn.Encode(test.insns)), chunk(c, trace.LineInfo, info), chunk(c, trace.BTF, blob)}
			if test.unit != nil {
				recs = append(recs, chunk(c, trace.Translated, insn.Encode(test.unit)))
			}
			got := attempts(header(test.kernel, allHooks), append(recs, trace.Record{Call: c})...)
			qt.Assert(t, qt.HasLen(got, 1))
			at := got[0]
			qt.Check(t, qt.Equals(at.Outcome, load.LoadedNotJITed))
			qt.Check(t, qt.Equals(at.FailedStage, load.Blinding))
			qt.Assert(t, qt.IsNotNil(at.Jump))
			qt.Check(t, qt.CmpEquals(*at.Jump, load.Jump{
				From: test.from, To: test.to, FromSource: "/src/parse.c:12", FromText: "if (a == b)", ToSource: "/src/parse.c:99", ToText: "return 0;",
				Insn: "if r0 == r6 goto pc+11001", Need: test.need, Limit: 32767, Before: test.before, After: test.after, Approximate: test.approximate,
			}))
		})
	}
}
