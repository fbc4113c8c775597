// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

var (
	movR0 = insn.Instruction{Code: 0xb7}
	exit  = insn.Instruction{Code: insn.OpcodeExit}
)

func mapLoad(src uint8, n int32) []insn.Instruction {
	return []insn.Instruction{{Code: insn.OpcodeLoadImm64, Dst: 1, Src: src, Imm: n}, {}}
}

func program(parts ...[]insn.Instruction) []insn.Instruction {
	return append(slices.Concat(parts...), movR0, exit)
}

func attrOf(fields map[int]uint32) []byte {
	b := make([]byte, attrSize)
	for at, v := range fields {
		binary.LittleEndian.PutUint32(b[at:], v)
	}
	return b
}

// attempt is a failed load of a program by root.
func attempt(prog []insn.Instruction, fields map[int]uint32, maps ...load.MapRef) *load.Attempt {
	a := &load.Attempt{Kind: load.ProgLoad, Outcome: load.Failed, Errno: 22, Program: &load.Program{}}
	a.Evidence = load.Evidence{
		Attr: attrOf(fields), Insns: prog, InsnsState: load.InsnsVerified, License: []byte("GPL"), Maps: maps,
		Caps: 1<<41 - 1, CapsKnown: true, FailedInsn: -1, Harden: -1,
	}
	return a
}

var (
	there = &node.Profile{Release: "6.1.0", Version: "#1", Machine: "x86_64"}
	other = &node.Profile{Release: "6.12.0", Version: "#2", Machine: "x86_64"}
)

func TestRefuses(t *testing.T) {
	hash := load.MapRef{Type: 1, KeySize: 4, ValueSize: 8, MaxEntries: 1}
	kfunc := insn.Instruction{Code: insn.OpcodeCall, Src: insn.PseudoKfuncCall, Imm: 7}
	moduleFunc := kfunc
	moduleFunc.Off = 1
	ksym, moduleSym := mapLoad(insn.PseudoBTFID, 7), mapLoad(insn.PseudoBTFID, 7)
	moduleSym[1].Imm = 5
	// A backward jump that needs exactly -32769: the span of the body and the jump itself, which
	// becomes three slots.
	wrap := program(wrapping())
	for _, test := range []struct {
		name    string
		a       *load.Attempt
		spoil   func(*load.Attempt)
		verdict load.ReplayVerdict
		why     string
	}{
		{name: "a map", spoil: func(a *load.Attempt) { a.Kind = load.MapCreate }, why: "only program loads are made again, not map_create"},
		{name: "no attr", spoil: func(a *load.Attempt) { a.Evidence.Attr = nil }, why: "the arguments of the call were not recorded"},
		{name: "no instructions", spoil: func(a *load.Attempt) { a.Evidence.Insns, a.Evidence.InsnsState = nil, load.InsnsNone }, why: "its instructions were not recorded"},
		{name: "some instructions", a: attempt(program(), map[int]uint32{attrInsnCnt: 9}),
			spoil: func(a *load.Attempt) { a.Evidence.InsnsState = load.InsnsTruncated }, why: "2 of its 9 instructions were recorded"},
		{name: "no capabilities", spoil: func(a *load.Attempt) { a.Evidence.CapsKnown = false },
			why: "the loader's capabilities were not recorded, and ours must not stand in for them"},
		{name: "future fields", spoil: func(a *load.Attempt) { a.Evidence.Attr = append(a.Evidence.Attr, 0, 1) },
			why: "the call has arguments that this version does not know"},
		{name: "offload", a: attempt(program(), map[int]uint32{attrIfindex: 2}), why: `it was meant for a network device \(prog_ifindex 2\)`},
		{name: "token", a: attempt(program(), map[int]uint32{attrFlags: abi.ProgFlagTokenFD}), why: "it was loaded with a BPF token, .*"},
		{name: "signature", a: attempt(program(), map[int]uint32{attrSignature: 1}), why: "it is signed"},
		{name: "kernel-side CO-RE", a: attempt(program(), map[int]uint32{attrRelosCnt: 1}), why: "its CO-RE relocations .*"},
		{name: "freplace", a: attempt(program(), map[int]uint32{attrType: abi.ProgTypeExt}), why: "it belongs to another program, .*"},
		{name: "module's BTF", a: attempt(program(), map[int]uint32{attrAttachFD: 3, attrAttachBTF: 3}), why: "it belongs to another program, .*"},
		{name: "attach target elsewhere", a: attempt(program(), map[int]uint32{attrAttachBTF: 3}),
			why: "its attach target is recorded by its number in the BTF of 6.1.0, which means something else in this kernel"},
		{name: "kfunc elsewhere", a: attempt(program([]insn.Instruction{kfunc}), nil), why: "a kernel function that it calls is recorded by its number .*"},
		{name: "kfunc of a module", a: attempt(program([]insn.Instruction{moduleFunc}), nil), why: "instruction 0 calls a function of a kernel module, .*"},
		{name: "ksym elsewhere", a: attempt(program(ksym), nil), why: "a kernel variable that it refers to is recorded by its number .*"},
		{name: "ksym of a module", a: attempt(program(moduleSym), nil), why: "instruction 0 refers to a variable of a kernel module, .*"},
		{name: "unknown load", a: attempt(program(mapLoad(9, 1)), nil), why: "instruction 0 is a 64-bit load of a kind that this version does not know .*"},
		{name: "wrap", a: attempt(wrap, nil), why: "the jump at instruction [0-9]+ would wrap around under blinding: .*"},
		{name: "too slow", a: attempt(program(slices.Repeat([]insn.Instruction{{Code: 0x61, Dst: 2, Src: 1}}, 100_000)), nil),
			why: "it could keep the kernel busy for 1m40s without a way to stop it"},
		{name: "struct_ops map", a: attempt(program(mapLoad(1, 3)), nil, load.MapRef{Type: 26}), why: "there is no stand-in for a map of type 26"},
		{name: "huge map", a: attempt(program(mapLoad(1, 3)), nil, load.MapRef{Type: 2, KeySize: 4, ValueSize: 1 << 30, MaxEntries: 1}),
			why: `a stand-in for the map "" would take 1073741824 bytes`},

		{name: "no map list", a: attempt(program(mapLoad(1, 3)), nil), verdict: load.ReplayDiscarded,
			why: "the program refers to maps, and the trace does not say which: .*"},
		{name: "fewer maps", a: attempt(program(mapLoad(1, 3), mapLoad(1, 4)), nil, hash), verdict: load.ReplayDiscarded,
			why: `the program does not name as many maps as the trace lists \(1\): .*`},
		{name: "more maps", a: attempt(program(mapLoad(1, 3)), nil, hash, hash), verdict: load.ReplayDiscarded,
			why: `the program does not name as many maps as the trace lists \(2\): .*`},
		{name: "counted fd_array that holds more than maps", a: attempt(program(mapLoad(5, 0)), map[int]uint32{attrFDCnt: 2}, hash), verdict: load.ReplayDiscarded,
			why: "it cannot be told which of the recorded maps instruction 0 means"},
		{name: "map of unknown maps", a: attempt(program(mapLoad(1, 3)), nil, load.MapRef{Type: 12, KeySize: 4, ValueSize: 4, MaxEntries: 1}), verdict: load.ReplayDiscarded,
			why: `the maps inside the map "" were not recorded`},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := test.a
			if a == nil {
				a = attempt(program(), nil)
			}
			if test.spoil != nil {
				test.spoil(a)
			}
			if test.verdict == "" {
				test.verdict = load.ReplayRefused
			}
			_, err := prepare(a, there, other, nil)
			v := new(verdict)
			qt.Assert(t, qt.IsTrue(errors.As(err, &v)), qt.Commentf("%v", err))
			qt.Check(t, qt.Equals(v.verdict, test.verdict))
			qt.Check(t, qt.Matches(v.why, test.why))
		})
	}
	// On the kernel of the trace its numbers are good.
	for _, a := range []*load.Attempt{
		attempt(program(), map[int]uint32{attrAttachBTF: 3}), attempt(program([]insn.Instruction{kfunc}), nil), attempt(program(ksym), nil),
	} {
		p, err := prepare(a, there, there, nil)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(field(p.trial.Attr, attrAttachBTF), field(a.Evidence.Attr, attrAttachBTF)))
	}
}

// wrapping is code whose backward jump wraps: if r1 == 1 goto -16386, over 8193 additions, which
// take three slots each, and 8192 moves between registers, which take one: 8193*3+8192 = 32771
// slots back from the jump's third slot to its target.
func wrapping() []insn.Instruction {
	add, mov := insn.Instruction{Code: 0x07, Dst: 2, Imm: 1}, insn.Instruction{Code: 0xbf, Dst: 2, Src: 3}
	body := slices.Concat(slices.Repeat([]insn.Instruction{add}, 8192), slices.Repeat([]insn.Instruction{mov}, 8190))
	// Need: -(16382+1) - 2*8192 - 2 = -32769.
	return append(body, insn.Instruction{Code: 0x15, Dst: 1, Imm: 1, Off: -16383})
}

// What is a pointer or a descriptor does not go into a plan, and plain data does.
func TestAttr(t *testing.T) {
	fields := map[int]uint32{
		attrType: 1, attrInsnCnt: 2, attrInsns: 0xdead, attrLicense: 0xdead, attrLogLevel: 2, attrLogLevel + 4: 100, attrLogLevel + 8: 0xdead,
		40: 0x50a00, attrFlags: 1, 48: 0x61616161, 68: 5, attrBTFFD: 3, attrFuncRec: 8, attrFuncInfo: 0xdead, attrFuncCnt: 1,
		attrLineRec: 16, attrLineInfo: 0xdead, attrLineCnt: 1, attrFDArray: 0xdead, attrLogTrue: 7,
	}
	a := attempt(program(), fields)
	a.Evidence.BTF, a.Evidence.FuncInfo, a.Evidence.LineInfo = []byte("btf"), make([]byte, 8), make([]byte, 16)
	p, err := prepare(a, there, other, nil)
	qt.Assert(t, qt.IsNil(err))
	want := attrOf(map[int]uint32{attrType: 1, attrInsnCnt: 2, 40: 0x50a00, attrFlags: 1, 48: 0x61616161, 68: 5})
	qt.Check(t, qt.DeepEquals(p.trial.Attr, want))
	qt.Check(t, qt.IsTrue(p.trial.BTF))
	qt.Check(t, qt.Equals(p.trial.FuncRec, uint32(8)))
	qt.Check(t, qt.HasLen(p.notes, 0))

	// func_info of another length than the call says: without BTF at all.
	a.Evidence.FuncInfo = a.Evidence.FuncInfo[:4]
	p, err = prepare(a, there, other, nil)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsFalse(p.trial.BTF))
	qt.Check(t, qt.HasLen(p.setup.BTF, 0))
	qt.Check(t, qt.DeepEquals(p.notes, []string{"without its BTF, which was not recorded whole"}))

	// A shorter attr is one with zeros at its end.
	a = attempt(program(), fields)
	a.Evidence.Attr = a.Evidence.Attr[:48]
	p, err = prepare(a, there, other, nil)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(p.trial.Attr, attrOf(map[int]uint32{attrType: 1, attrInsnCnt: 2, 40: 0x50a00, attrFlags: 1})))
}

func TestMaps(t *testing.T) {
	hash := load.MapRef{Name: "h", Type: 1, KeySize: 4, ValueSize: 8, MaxEntries: 100_000}
	array := load.MapRef{Name: "a", Type: 2, KeySize: 4, ValueSize: 64, MaxEntries: 1, Flags: abi.MapFlagRdOnlyProg | abi.MapFlagVtypeBTFObjFD}
	// The second and the fourth name the first map again: by descriptor, and for its value.
	prog := program(mapLoad(1, 7), mapLoad(1, 7), mapLoad(2, 9), mapLoad(2, 7))
	p, err := prepare(attempt(prog, nil, hash, array), there, other, nil)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(p.trial.Refs, []ref{{0, 0}, {2, 0}, {4, 1}, {6, 0}}))
	qt.Assert(t, qt.HasLen(p.setup.Maps, 2))
	// 1 MiB of entries of 4+8+64 bytes.
	qt.Check(t, qt.DeepEquals(p.setup.Maps[0], mapSpec{Name: "h", Type: 1, Key: 4, Value: 8, Max: 13797}))
	qt.Check(t, qt.DeepEquals(p.setup.Maps[1], mapSpec{Name: "a", Type: 2, Key: 4, Value: 64, Max: 1, Flag: abi.MapFlagRdOnlyProg}))
	qt.Check(t, qt.DeepEquals(p.notes, []string{
		"its maps were stand-ins of the same type, sizes and flags: 2",
		"stand-ins with fewer entries than the map had: 1",
		"stand-ins of read-only maps, whose contents the verifier may have used and nobody recorded: 1",
	}))

	// By index into an fd_array that the kernel did not count: in the order in which they are
	// named.
	p, err = prepare(attempt(program(mapLoad(5, 1), mapLoad(6, 0)), nil, hash, array), there, other, nil)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(p.trial.Refs, []ref{{0, 0}, {2, 1}}))
	// Into one that it counted: in the array's order.
	p, err = prepare(attempt(program(mapLoad(5, 1), mapLoad(6, 0)), map[int]uint32{attrFDCnt: 2}, hash, array), there, other, nil)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(p.trial.Refs, []ref{{0, 1}, {2, 0}}))
}

// The maps inside a map are known where the trace has their making.
func TestInnerMaps(t *testing.T) {
	made := new(Maps)
	create := func(pid, fd int, fields map[int]uint32) {
		a := &load.Attempt{Kind: load.MapCreate, Outcome: load.Loaded, Process: load.Process{PID: pid}}
		a.Evidence.Attr, a.Evidence.Calls = attrOf(fields), []load.Call{{Ret: fd}}
		made.Add(a)
	}
	outer := map[int]uint32{0: 12, 4: 4, 8: 4, 12: 3, mapAttrInner: 5}
	create(10, 5, map[int]uint32{0: 2, 4: 4, 8: 16, 12: 2})
	create(10, 6, outer)
	create(11, 6, outer) // another process, whose descriptor 5 nobody knows
	ref := load.MapRef{Name: "o", Type: 12, KeySize: 4, ValueSize: 4, MaxEntries: 3}
	for pid, want := range map[int]*mapSpec{10: {Type: 2, Key: 4, Value: 16, Max: 2}, 11: nil} {
		a := attempt(program(mapLoad(1, 6)), nil, ref)
		a.Process.PID = pid
		p, err := prepare(a, there, other, made)
		if want == nil {
			qt.Check(t, qt.ErrorMatches(err, `the maps inside the map "o" were not recorded`))
			continue
		}
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.DeepEquals(p.setup.Maps[0].Inner, want))
	}
}

// func_info and line_info follow their instructions; what lies outside the program is left for the
// kernel to refuse.
func TestMoved(t *testing.T) {
	records := func(offsets ...uint32) []byte {
		var b []byte
		for _, o := range offsets {
			b = binary.LittleEndian.AppendUint32(b, o)
			b = binary.LittleEndian.AppendUint32(b, 0xabcd)
		}
		return b
	}
	got := moved(records(0, 1, 2, 99), 8, []int{0, 3, 4})
	qt.Check(t, qt.DeepEquals(got, records(0, 3, 4, 99)))
	qt.Check(t, qt.HasLen(moved(nil, 0, nil), 0))
}

// Whatever a trace holds, a plan has no pointer, no descriptor and no place outside the program,
// and small stand-ins.
func FuzzPrepare(f *testing.F) {
	f.Add(attrOf(map[int]uint32{attrType: 1}), insn.Encode(program(mapLoad(1, 3))), []byte{}, uint32(1), uint32(4), uint32(8), uint32(1))
	f.Add(attrOf(map[int]uint32{attrBTFFD: 3, attrFuncRec: 8, attrFuncCnt: 1}), insn.Encode(program(mapLoad(6, 0))), make([]byte, 8), uint32(12), uint32(4), uint32(4), uint32(0))
	f.Add(attrOf(map[int]uint32{attrFDCnt: 1})[:150], insn.Encode(program(mapLoad(5, 0))), []byte{1}, uint32(27), uint32(0), uint32(0), uint32(1<<20))
	f.Fuzz(func(t *testing.T, attr, code, info []byte, typ, key, value, entries uint32) {
		prog, err := insn.Decode(code[:len(code)/insn.Size*insn.Size])
		if err != nil {
			return
		}
		a := attempt(prog, nil, load.MapRef{Type: typ, KeySize: key, ValueSize: value, MaxEntries: entries})
		a.Evidence.Attr, a.Evidence.BTF, a.Evidence.FuncInfo, a.Evidence.LineInfo = attr, info, info, info
		p, err := prepare(a, there, there, nil)
		if err != nil {
			if !errors.As(err, new(*verdict)) {
				t.Errorf("not a verdict: %v", err)
			}
			return
		}
		for _, at := range []int{attrInsns, attrLicense, attrLogLevel, attrLogLevel + 8, attrBTFFD, attrFuncInfo, attrLineInfo, attrAttachFD,
			attrRelosCnt, attrFDArray, attrRelos, attrLogTrue, attrTokenFD, attrFDCnt, attrSignature, attrSignature + 8} {
			if field(p.trial.Attr, at) != 0 || field(p.trial.Attr, at+4) != 0 && at != attrBTFFD && at != attrLogLevel {
				t.Errorf("attr at %d is not empty", at)
			}
		}
		for _, r := range p.trial.Refs {
			if r.Slot >= len(prog) || r.Map >= len(p.setup.Maps) || !prog[r.Slot].IsMapLoad() {
				t.Errorf("%v is nowhere", r)
			}
		}
		for _, m := range p.setup.Maps {
			if m.Type == abi.MapTypeRingbuf || m.Type == abi.MapTypeUserRingbuf {
				if m.Max > maxRing {
					t.Errorf("a large stand-in: %+v", m)
				}
			} else if m.Value > maxValue || m.Type != abi.MapTypeArena && m.Max > 1 && uint64(m.Max)*(uint64(m.Key)+uint64(m.Value)) > maxMapBytes {
				t.Errorf("a large stand-in: %+v", m)
			}
		}
	})
}

// Offsets in union bpf_attr, for tests that write an attr field by field.
const (
	attrType      = int(unsafe.Offsetof(abi.ProgLoad{}.ProgType))
	attrInsnCnt   = int(unsafe.Offsetof(abi.ProgLoad{}.InsnCnt))
	attrInsns     = int(unsafe.Offsetof(abi.ProgLoad{}.Insns))
	attrLicense   = int(unsafe.Offsetof(abi.ProgLoad{}.License))
	attrLogLevel  = int(unsafe.Offsetof(abi.ProgLoad{}.LogLevel))
	attrFlags     = int(unsafe.Offsetof(abi.ProgLoad{}.ProgFlags))
	attrIfindex   = int(unsafe.Offsetof(abi.ProgLoad{}.ProgIfindex))
	attrBTFFD     = int(unsafe.Offsetof(abi.ProgLoad{}.ProgBTFFD))
	attrFuncRec   = int(unsafe.Offsetof(abi.ProgLoad{}.FuncInfoRecSize))
	attrFuncInfo  = int(unsafe.Offsetof(abi.ProgLoad{}.FuncInfo))
	attrFuncCnt   = int(unsafe.Offsetof(abi.ProgLoad{}.FuncInfoCnt))
	attrLineRec   = int(unsafe.Offsetof(abi.ProgLoad{}.LineInfoRecSize))
	attrLineInfo  = int(unsafe.Offsetof(abi.ProgLoad{}.LineInfo))
	attrLineCnt   = int(unsafe.Offsetof(abi.ProgLoad{}.LineInfoCnt))
	attrAttachBTF = int(unsafe.Offsetof(abi.ProgLoad{}.AttachBTFID))
	attrAttachFD  = int(unsafe.Offsetof(abi.ProgLoad{}.AttachFD))
	attrRelosCnt  = int(unsafe.Offsetof(abi.ProgLoad{}.CoreReloCnt))
	attrFDArray   = int(unsafe.Offsetof(abi.ProgLoad{}.FDArray))
	attrRelos     = int(unsafe.Offsetof(abi.ProgLoad{}.CoreRelos))
	attrLogTrue   = int(unsafe.Offsetof(abi.ProgLoad{}.LogTrueSize))
	attrTokenFD   = int(unsafe.Offsetof(abi.ProgLoad{}.ProgTokenFD))
	attrFDCnt     = int(unsafe.Offsetof(abi.ProgLoad{}.FDArrayCnt))
	attrSignature = int(unsafe.Offsetof(abi.ProgLoad{}.Signature))
	attrSize      = int(unsafe.Sizeof(abi.ProgLoad{}))

	mapAttrInner = int(unsafe.Offsetof(abi.MapCreate{}.InnerMapFD))
	mapAttrBTF   = int(unsafe.Offsetof(abi.MapCreate{}.BTFFD))
	mapAttrExtra = int(unsafe.Offsetof(abi.MapCreate{}.MapExtra))
)

// field reads 4 bytes of an attr.
func field(attr []byte, at int) uint32 { return binary.LittleEndian.Uint32(attr[at:]) }
