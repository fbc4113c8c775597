// SPDX-License-Identifier: Apache-2.0

package insn

import (
	"testing"

	"github.com/go-quicktest/qt"
)

// The expected texts are those of print_bpf_insn in the kernel's
// kernel/bpf/disasm.c, and bpftool's for named objects.
func TestDisassemble(t *testing.T) {
	for _, tt := range []struct {
		want string
		prog []Instruction
	}{
		{"r1 = 5", []Instruction{{Code: 0xb7, Dst: 1, Imm: 5}}},
		{"w1 = -1", []Instruction{{Code: 0xb4, Dst: 1, Imm: -1}}},
		{"r1 = r2", []Instruction{{Code: 0xbf, Dst: 1, Src: 2}}},
		{"w1 += w2", []Instruction{{Code: 0x0c, Dst: 1, Src: 2}}},
		{"r3 s>>= 32", []Instruction{{Code: 0xc7, Dst: 3, Imm: 32}}},
		{"r3 s/= r4", []Instruction{{Code: 0x3f, Dst: 3, Src: 4, Off: 1}}},
		{"w3 s%= 7", []Instruction{{Code: 0x94, Dst: 3, Off: 1, Imm: 7}}},
		{"r1 = (s8)r2", []Instruction{{Code: 0xbf, Dst: 1, Src: 2, Off: 8}}},
		{"w1 = (s16)w2", []Instruction{{Code: 0xbc, Dst: 1, Src: 2, Off: 16}}},
		{"r1 = addr_space_cast(r2, 1, 0)", []Instruction{{Code: 0xbf, Dst: 1, Src: 2, Off: 1, Imm: 1 << 16}}},
		{"r5 = -r5", []Instruction{{Code: 0x87, Dst: 5}}},
		{"r5 = be16 r5", []Instruction{{Code: 0xdc, Dst: 5, Imm: 16}}},
		{"r5 = le64 r5", []Instruction{{Code: 0xd4, Dst: 5, Imm: 64}}},
		{"r5 = bswap32 r5", []Instruction{{Code: 0xd7, Dst: 5, Imm: 32}}},
		{"*(u32 *)(r1 +4) = r2", []Instruction{{Code: 0x63, Dst: 1, Src: 2, Off: 4}}},
		{"*(u8 *)(r10 -8) = 7", []Instruction{{Code: 0x72, Dst: 10, Off: -8, Imm: 7}}},
		{"r0 = *(u64 *)(r1 +0)", []Instruction{{Code: 0x79, Src: 1}}},
		{"r0 = *(s16 *)(r1 +2)", []Instruction{{Code: 0x89, Src: 1, Off: 2}}},
		{"nospec", []Instruction{{Code: 0xc2}}},
		{"r0 = *(u16 *)skb[12]", []Instruction{{Code: 0x28, Imm: 12}}},
		{"r0 = *(u8 *)skb[r3 + 1]", []Instruction{{Code: 0x50, Src: 3, Imm: 1}}},
		{"lock *(u64 *)(r1 +8) += r2", []Instruction{{Code: 0xdb, Dst: 1, Src: 2, Off: 8}}},
		{"r2 = atomic64_fetch_add((u64 *)(r1 +8), r2)", []Instruction{{Code: 0xdb, Dst: 1, Src: 2, Off: 8, Imm: 0x01}}},
		{"r2 = atomic_fetch_or((u32 *)(r1 +0), r2)", []Instruction{{Code: 0xc3, Dst: 1, Src: 2, Imm: 0x41}}},
		{"r0 = atomic64_cmpxchg((u64 *)(r1 +0), r0, r2)", []Instruction{{Code: 0xdb, Dst: 1, Src: 2, Imm: 0xf1}}},
		{"r2 = atomic_xchg((u32 *)(r1 -4), r2)", []Instruction{{Code: 0xc3, Dst: 1, Src: 2, Off: -4, Imm: 0xe1}}},
		{"r2 = load_acquire((u32 *)(r1 +0))", []Instruction{{Code: 0xc3, Dst: 2, Src: 1, Imm: 0x100}}},
		{"store_release((u8 *)(r1 +0), r2)", []Instruction{{Code: 0xd3, Dst: 1, Src: 2, Imm: 0x110}}},
		{"goto pc-3", []Instruction{{Code: 0x05, Off: -3}}},
		{"gotol pc+70000", []Instruction{{Code: 0x06, Imm: 70000}}},
		{"gotox r3", []Instruction{{Code: 0x0d, Dst: 3}}},
		{"may_goto pc+2", []Instruction{{Code: 0xe5, Off: 2}}},
		{"if r1 > 0x5 goto pc+3", []Instruction{{Code: 0x25, Dst: 1, Off: 3, Imm: 5}}},
		{"if w1 s< 0xffffffff goto pc-1", []Instruction{{Code: 0xc6, Dst: 1, Off: -1, Imm: -1}}},
		{"if r1 & r2 goto pc+0", []Instruction{{Code: 0x4d, Dst: 1, Src: 2}}},
		{"exit", []Instruction{{Code: 0x95}}},
		{"call bpf_map_lookup_elem#1", []Instruction{{Code: 0x85, Imm: 1}}},
		{"call unknown#195896080", []Instruction{{Code: 0x85, Imm: 0xbad2310}}},
		{"call unknown#-1", []Instruction{{Code: 0x85, Imm: -1}}},
		{"call pc+7", []Instruction{{Code: 0x85, Src: 1, Imm: 7}}},
		{"call kernel-function#123", []Instruction{{Code: 0x85, Src: 2, Imm: 123}}},
		{"r1 = 0x100000002", []Instruction{{Code: 0x18, Dst: 1, Imm: 2}, {Imm: 1}}},
		{"r1 = 0xffffffffffffffff", []Instruction{{Code: 0x18, Dst: 1, Imm: -1}, {Imm: -1}}},
		{"r1 = map[fd:3]", []Instruction{{Code: 0x18, Dst: 1, Src: 1, Imm: 3}, {}}},
		{"r1 = map[fd:3][0]+16", []Instruction{{Code: 0x18, Dst: 1, Src: 2, Imm: 3}, {Imm: 16}}},
		{"r2 = subprog[+9]", []Instruction{{Code: 0x18, Dst: 2, Src: 4, Imm: 9}, {}}},
		{"r1 = 0x2 (second half missing)", []Instruction{{Code: 0x18, Dst: 1, Imm: 2}}},
		{"unknown opcode ff", []Instruction{{Code: 0xff}}},
		{"unknown opcode e7", []Instruction{{Code: 0xe7}}},
		{"unknown opcode f5", []Instruction{{Code: 0xf5}}},
		{"unknown opcode 00", []Instruction{{}}},
	} {
		qt.Check(t, qt.Equals(Disassemble(tt.prog, 0), tt.want))
	}

	wide := []Instruction{{Code: 0x18}, {}}
	qt.Check(t, qt.Equals(Disassemble(wide, 1), "second half of a 64-bit load"))
	qt.Check(t, qt.Equals(Disassemble(wide, 2), ""))
	qt.Check(t, qt.Equals(Disassemble(wide, -1), ""))
}

func TestDecodeKeepsEveryByte(t *testing.T) {
	raw := []byte{
		0x18, 0x21, 0xfe, 0xff, 0x01, 0x02, 0x03, 0x84, // ld_imm64 with an offset
		0x77, 0xff, 0x34, 0x12, 0xff, 0xff, 0xff, 0xff, // and a second half that is none
	}
	prog, err := Decode(raw)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(prog, []Instruction{
		{Code: 0x18, Dst: 1, Src: 2, Off: -2, Imm: -0x7bfcfdff},
		{Code: 0x77, Dst: 15, Src: 15, Off: 0x1234, Imm: -1},
	}))
	qt.Assert(t, qt.DeepEquals(Encode(prog), raw))

	_, err = Decode(raw[:15])
	qt.Assert(t, qt.ErrorMatches(err, "decode instructions: 15 bytes are not a multiple of 8"))
}

func TestTarget(t *testing.T) {
	for _, tt := range []struct {
		name   string
		in     Instruction
		want   int
		ok     bool
		jump16 bool
	}{
		{"ja", Instruction{Code: 0x05, Off: 5}, 16, true, true},
		{"backward", Instruction{Code: 0x15, Off: -11}, 0, true, true},
		{"outside", Instruction{Code: 0x15, Off: -12}, -1, true, true},
		{"gotol", Instruction{Code: 0x06, Off: 1, Imm: 100000}, 100011, true, false},
		{"may_goto", Instruction{Code: 0xe5, Off: 1}, 12, true, true},
		{"jmp32", Instruction{Code: 0x1e, Off: 1}, 12, true, true},
		{"gotox", Instruction{Code: 0x0d}, 0, false, false},
		{"call", Instruction{Code: 0x85, Src: 1, Imm: 1}, 0, false, false},
		{"exit", Instruction{Code: 0x95}, 0, false, false},
		{"alu", Instruction{Code: 0x07, Off: 1}, 0, false, false},
	} {
		got, ok := tt.in.Target(10)
		qt.Check(t, qt.Equals(got, tt.want), qt.Commentf("%s", tt.name))
		qt.Check(t, qt.Equals(ok, tt.ok), qt.Commentf("%s", tt.name))
		qt.Check(t, qt.Equals(tt.in.IsJump16(), tt.jump16), qt.Commentf("%s", tt.name))
	}
}

func TestFunctions(t *testing.T) {
	prog := []Instruction{
		{Code: 0x85, Src: 1, Imm: 4},         // 0: call 5
		{Code: 0x18, Dst: 2, Src: 4, Imm: 5}, // 1: address of 7
		{},
		{Code: 0x85, Src: 1, Imm: 1 << 30}, // 3: nowhere
		{Code: 0x95},
		{Code: 0x85, Src: 1, Imm: -1}, // 5: itself, a function already
		{Code: 0x95},
		{Code: 0x85, Src: 1, Imm: -100}, // 7: nowhere
		{Code: 0x95},
	}
	functions := Functions(prog)
	qt.Assert(t, qt.DeepEquals(functions, []Function{{0, 5}, {5, 7}, {7, 9}}))
	for i, want := range []int{0, 0, 0, 0, 0, 5, 5, 7, 7} {
		f, ok := FunctionAt(functions, i)
		qt.Check(t, qt.IsTrue(ok))
		qt.Check(t, qt.Equals(f.Start, want))
	}
	_, ok := FunctionAt(functions, 9)
	qt.Check(t, qt.IsFalse(ok))
	_, ok = FunctionAt(functions, -1)
	qt.Check(t, qt.IsFalse(ok))
	qt.Check(t, qt.HasLen(Functions(nil), 0))
}

func TestHelpers(t *testing.T) {
	// Spot checks against the releases' uapi headers: the first and last number
	// of a few of them.
	for _, tt := range []struct {
		id    int
		name  string
		since string
	}{
		{1, "bpf_map_lookup_elem", "3.19"},
		{3, "bpf_map_delete_elem", "3.19"},
		{4, "bpf_probe_read", "4.1"},
		{36, "bpf_probe_write_user", "4.8"},
		{80, "bpf_get_current_cgroup_id", "4.18"},
		{113, "bpf_probe_read_kernel", "5.5"},
		{119, "bpf_read_branch_records", "5.7"},
		{131, "bpf_ringbuf_reserve", "5.8"},
		{148, "bpf_copy_from_user", "5.10"},
		{155, "bpf_redirect_peer", "5.10"},
		{181, "bpf_loop", "5.17"},
		{209, "bpf_user_ringbuf_drain", "6.1"},
		{211, "bpf_cgrp_storage_delete", "6.2"},
	} {
		h, ok := HelperByID(tt.id)
		qt.Assert(t, qt.IsTrue(ok))
		qt.Check(t, qt.Equals(h.Name, tt.name))
		qt.Check(t, qt.Equals(h.Since.String(), tt.since), qt.Commentf("%s", tt.name))
		byName, ok := HelperByName(tt.name)
		qt.Check(t, qt.IsTrue(ok))
		qt.Check(t, qt.Equals(byName, h))
	}
	for _, id := range []int{-1, 0, 212, 0xbad2310} {
		_, ok := HelperByID(id)
		qt.Check(t, qt.IsFalse(ok))
	}
	_, ok := HelperByName("unspec")
	qt.Check(t, qt.IsFalse(ok))
}
