// SPDX-License-Identifier: Apache-2.0

package verbatim

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/go-quicktest/qt"
)

// The bytes are those of the kernel: opcode 0x85, no registers, the helper's number.
func TestCalls(t *testing.T) {
	program := asm.Instructions{
		asm.FnProbeReadUser.Call().WithSymbol("main"),
		asm.FnProbeReadKernelStr.Call(),
		asm.FnMapLookupElem.Call(),
		asm.Call.Label("main"),
		asm.Mov.Imm(asm.R0, int32(asm.FnProbeReadUser)),
		asm.Return(),
	}
	out := Calls(program)
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		var b, same bytes.Buffer
		qt.Assert(t, qt.IsNil(out.Marshal(&b, order)))
		qt.Assert(t, qt.IsNil(program.Marshal(&same, order)))
		qt.Check(t, qt.DeepEquals(b.Bytes(), same.Bytes()))
		first := []byte{0x85, 0, 0, 0, 0, 0, 0, 0}
		order.PutUint32(first[4:], 112)
		qt.Check(t, qt.DeepEquals(b.Bytes()[:8], first))
	}
	// What cilium/ebpf looks into, and would change.
	for i, helper := range []bool{false, false, true, false, false, false} {
		qt.Check(t, qt.Equals(out[i].IsBuiltinCall(), helper), qt.Commentf("%d", i))
	}
	qt.Check(t, qt.Equals(out[0].Symbol(), "main"))
	qt.Check(t, qt.IsTrue(out[3].IsFunctionCall()))
	qt.Check(t, qt.IsTrue(program[0].IsBuiltinCall()))
}

func TestReadsUser(t *testing.T) {
	for _, c := range []struct {
		program asm.Instructions
		want    bool
	}{
		{nil, false},
		{asm.Instructions{asm.FnProbeReadUser.Call()}, true},
		{asm.Instructions{asm.Return(), asm.FnProbeReadUserStr.Call()}, true},
		{asm.Instructions{asm.FnProbeReadKernel.Call(), asm.FnProbeRead.Call()}, false},
		{asm.Instructions{asm.Mov.Imm(asm.R1, 112), asm.Call.Label("f")}, false},
	} {
		qt.Check(t, qt.Equals(ReadsUser(c.program), c.want), qt.Commentf("%v", c.program))
	}
}
