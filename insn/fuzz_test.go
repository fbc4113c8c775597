// SPDX-License-Identifier: Apache-2.0

package insn

import (
	"bytes"
	"testing"
)

func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x95, 0, 0, 0, 0, 0, 0, 0})
	f.Add(Encode([]Instruction{{Code: 0x18, Src: 1, Imm: 3}, {}, {Code: 0x18}, {Code: 0x18}, {Code: 0x95}}))
	f.Add(Encode([]Instruction{{Code: 0x85, Src: 1, Imm: 1 << 30}, {Code: 0x85, Src: 1, Imm: -2}, {Code: 0x18, Src: 4, Imm: -1 << 31}, {}}))
	f.Add(Encode([]Instruction{{Code: 0xdb, Imm: 0xe1}, {Code: 0xc3, Imm: 0x110}, {Code: 0xbf, Off: 1, Imm: -1}, {Code: 0x0d}, {Code: 0xe5}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		prog, err := Decode(b)
		if err != nil {
			if len(b)%Size == 0 {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(Encode(prog), b) {
			t.Fatalf("% x comes back as % x", b, Encode(prog))
		}
		end := 0
		for _, fn := range Functions(prog) {
			if fn.Start != end || fn.Len() <= 0 {
				t.Fatalf("functions %v", Functions(prog))
			}
			end = fn.End
		}
		if end != len(prog) {
			t.Fatalf("functions %v of %d slots", Functions(prog), len(prog))
		}
		for i, in := range prog {
			if Disassemble(prog, i) == "" || in.String() == "" {
				t.Fatalf("%+v has no text", in)
			}
			Imm64(prog, i)
			_, _ = in.Target(i)
		}
		MatchesTag(prog, [8]byte{})
	})
}
