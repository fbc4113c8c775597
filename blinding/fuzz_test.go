// SPDX-License-Identifier: Apache-2.0

package blinding

import (
	"testing"

	"github.com/bpfwhy/bpfwhy/insn"
)

func seeds(f *testing.F, add func(prog []byte)) {
	add(nil)
	add(insn.Encode(over(repeat(40, load))))
	add(insn.Encode([]insn.Instruction{{Code: 0x15, Off: -1}, {Code: 0x05, Off: 32767}, {Code: 0x18}, {}, {Code: 0x95}}))
	add(insn.Encode([]insn.Instruction{{Code: 0x85, Src: 1, Imm: 1}, {Code: 0x95}, {Code: 0x18, Src: 4, Imm: -2}, {}, {Code: 0x95}}))
	f.Helper()
}

// A verdict agrees with a replay of the kernel's pass whatever the program.
func FuzzCheck(f *testing.F) {
	seeds(f, func(prog []byte) { f.Add(prog, uint8(7), uint8(3)) })
	f.Fuzz(func(t *testing.T, b []byte, small, flags uint8) {
		if len(b) > 512*insn.Size {
			return // the replay is quadratic
		}
		prog, err := insn.Decode(b[:len(b)/insn.Size*insn.Size])
		if err != nil {
			t.Fatal(err)
		}
		k := Kernel{WholeProgram: flags&1 != 0, RangeCheck: flags&2 != 0, StoreProbeMem32: flags&4 != 0, ZeroExtends: flags&8 != 0}
		if _, err := Check(prog, k); err != nil {
			return
		}
		limit := 4 + int(small)
		for i, in := range prog {
			if in.IsJump16() && (int(in.Off) < -limit || int(in.Off) >= limit) {
				prog[i] = insn.Instruction{Code: 0xbf}
			}
			// What the verifier rejects long before: a code of its own for the
			// replay to trip over.
			if in.Class() == insn.ClassJMP32 && (in.Op() == insn.OpCALL || in.Op() == insn.OpEXIT || in.Code == insn.OpcodeGotol|insn.SourceX) ||
				in.Code == insn.OpcodeGotox {
				prog[i] = insn.Instruction{Code: 0xbf}
			}
		}
		functions := insn.Functions(prog)
		v, err := check(prog, functions, k, limit)
		if err != nil {
			t.Fatal(err)
		}
		if want := (replay{limit, k}).run(prog, functions); predicted(v) != want {
			t.Fatalf("predicted %+v, replayed %+v\n%v\n%v", predicted(v), want, functions, prog)
		}
	})
}

func FuzzMapIndex(f *testing.F) {
	seeds(f, func(prog []byte) {
		f.Add(prog, prog, 0)
		f.Add(prog, prog[:len(prog)/16*8], 3)
		f.Add([]byte{}, prog, 1)
	})
	f.Fuzz(func(t *testing.T, a, b []byte, i int) {
		submitted, _ := insn.Decode(a[:len(a)/insn.Size*insn.Size])
		translated, _ := insn.Decode(b[:len(b)/insn.Size*insn.Size])
		m := NewMapping(submitted, translated)
		j, exact := m.Submitted(i)
		inside := 0 <= i && i < len(translated) && len(submitted) > 0
		if inside != (0 <= j && j < len(submitted)) {
			t.Fatalf("slot %d of %d maps to %d of %d", i, len(translated), j, len(submitted))
		}
		if exact && m.a[j] != m.b[i] {
			t.Fatalf("%v is not %v", translated[i], submitted[j])
		}
	})
}
