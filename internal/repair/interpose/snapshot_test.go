// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"encoding/binary"
	"os"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/internal/repair/ladder"
	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// What ties a program to its bytes, or to where its loader is, is not touched.
func TestUnderstood(t *testing.T) {
	var plain attr
	plain.ProgType = 1
	plain.InsnCnt = 30_000
	plain.LogSize = 16 << 20
	plain.LogTrueSize = 7 // the kernel's to judge
	qt.Check(t, qt.IsTrue(understood(&plain)))
	for name, change := range map[string]func(*attr){
		"signature":      func(a *attr) { a.Signature = 4096 },
		"signature size": func(a *attr) { a.SignatureSize = 1 },
		"keyring":        func(a *attr) { a.KeyringID = ^uint32(0) },
		"token":          func(a *attr) { a.ProgTokenFD = 3 },
		"token flag":     func(a *attr) { a.ProgFlags = abi.ProgFlagTokenFD },
		"device":         func(a *attr) { a.ProgIfindex = 2 },
		"huge log":       func(a *attr) { a.LogSize = 65 << 20 },
	} {
		a := plain
		change(&a)
		qt.Check(t, qt.IsFalse(understood(&a)), qt.Commentf("%s", name))
	}
}

// A load weighs what it may cost: a log twice, and records with all copies that are made of them,
// as far as they can be meant.
func TestWeight(t *testing.T) {
	weigh := func(change func(*attr)) int64 {
		var a attr
		a.InsnCnt = 30_000
		change(&a)
		return weight(&a)
	}
	qt.Check(t, qt.Equals(weigh(func(*attr) {}), 30_000))
	qt.Check(t, qt.Equals(weigh(func(a *attr) { a.LogSize = 16 << 20 }), 30_000+2*16<<20/slotBytes))
	for name, change := range map[string]func(*attr){
		"log":   func(a *attr) { a.LogSize = maxLog },
		"slots": func(a *attr) { a.InsnCnt = ladder.Most; a.LogSize = 16 << 20 },
		"records": func(a *attr) {
			a.InsnCnt = ladder.Most
			a.LineInfoCnt = ladder.Most
			a.LineInfoRecSize = maxRecord
		},
	} {
		qt.Check(t, qt.IsTrue(weigh(change) > maxUserWeight), qt.Commentf("%s", name))
	}
	endless := weigh(func(a *attr) { a.FuncInfoCnt = ^uint32(0); a.FuncInfoRecSize = ^uint32(0) })
	qt.Check(t, qt.Equals(endless, 30_000+30_000*recordCopies*maxRecord/slotBytes))
}

// references runs readReferences on this process's own memory.
func references(code []insn.Instruction, array []int32, count int) (*snapshot, error) {
	s := &snapshot{insns: slices.Clone(code)}
	if len(array) > 0 {
		var pin runtime.Pinner
		defer pin.Unpin()
		pin.Pin(&array[0])
		s.attr.FDArray = uint64(uintptr(unsafe.Pointer(&array[0])))
	}
	s.attr.FDArrayCnt = uint32(count)
	m, err := openMemoryOf(os.Getpid())
	if err != nil {
		return nil, err
	}
	defer m.close()
	return s, s.readReferences(m)
}

func TestReferences(t *testing.T) {
	s, err := references([]insn.Instruction{
		{Code: 0x18, Dst: 1, Src: insn.PseudoMapFD, Imm: 7}, {},
		{Code: 0x18, Dst: 1, Src: insn.PseudoMapValue, Imm: 8}, {Imm: 16}, // an offset, no descriptor
		{Code: 0x18, Dst: 1, Src: insn.PseudoBTFID, Imm: 99}, {Imm: 9},
		{Code: 0x18, Dst: 1, Imm: 5}, {}, // a number
		{Code: 0x18, Dst: 1, Src: insn.PseudoMapIdx, Imm: 2}, {},
		{Code: 0x85, Src: insn.PseudoKfuncCall, Off: 1, Imm: 1234},
		{Code: 0x85, Src: insn.PseudoKfuncCall, Imm: 1234}, // of the kernel itself
		{Code: 0x95},
	}, []int32{11, 12, 13, 14}, 0)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(s.descriptors(), []int{7, 8, 9, 12, 13}))
	qt.Check(t, qt.Equals(s.insns[0].Imm, 0))
	qt.Check(t, qt.Equals(s.insns[3].Imm, 16))
	qt.Check(t, qt.Equals(s.insns[5].Imm, 0))
	qt.Check(t, qt.Equals(s.insns[6].Imm, 5))

	// With a count the kernel looks at all of them.
	s, err = references([]insn.Instruction{{Code: 0x95}}, []int32{11, 12}, 2)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(s.descriptors(), []int{11, 12}))

	_, err = references([]insn.Instruction{{Code: insn.OpcodeGotox}}, nil, 0)
	qt.Check(t, qt.ErrorMatches(err, "slot 0 jumps through an instruction array"))
	_, err = references([]insn.Instruction{{Code: 0x18, Src: insn.PseudoMapIdx, Imm: -1}, {}}, []int32{1}, 0)
	qt.Check(t, qt.IsNil(err)) // the kernel refuses it
	_, err = references([]insn.Instruction{{Code: 0x18, Src: insn.PseudoMapIdx, Imm: 1 << 20}, {}}, []int32{1}, 0)
	qt.Check(t, qt.IsNotNil(err))
}

func TestMove(t *testing.T) {
	to := []int{0, 1, 4, 5} // two slots before the third of three
	records := func(offsets ...uint32) []byte {
		var b []byte
		for _, o := range offsets {
			b = binary.NativeEndian.AppendUint32(b, o)
			b = binary.NativeEndian.AppendUint32(b, 0xabcdef01)
		}
		return b
	}
	b := records(0, 1, 2)
	qt.Assert(t, qt.IsNil(move(b, 8, 1, to)))
	qt.Check(t, qt.DeepEquals(b, records(0, 1, 4)))
	b = records(8, 16)
	qt.Assert(t, qt.IsNil(move(b, 8, insn.Size, to)))
	qt.Check(t, qt.DeepEquals(b, records(8, 32)))
	for _, bad := range []uint32{3, ^uint32(0)} {
		qt.Check(t, qt.IsNotNil(move(records(bad), 8, 1, to)))
	}
	qt.Check(t, qt.IsNotNil(move(records(12), 8, insn.Size, to)))
}

// FuzzReferences: any code gives references or an error, and none outside of it.
func FuzzReferences(f *testing.F) {
	f.Add(insn.Encode([]insn.Instruction{{Code: 0x18, Src: 5, Imm: 1}, {}}), 0)
	f.Add(insn.Encode([]insn.Instruction{{Code: 0x18, Src: 3, Imm: 1}}), 3)
	f.Fuzz(func(t *testing.T, code []byte, count int) {
		decoded, err := insn.Decode(code[:len(code)/insn.Size*insn.Size])
		if err != nil {
			t.Fatal(err)
		}
		s, err := references(decoded, make([]int32, maxFDArray), count)
		if err != nil {
			return
		}
		for _, r := range s.refs {
			if r.slot < 0 || r.slot >= len(decoded) {
				t.Fatalf("slot %d of %d", r.slot, len(decoded))
			}
		}
		if _, err := new(Proxy).newLoad(s, &handles{}, nil, false); err != nil {
			t.Fatal(err)
		}
	})
}
