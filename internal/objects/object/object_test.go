// SPDX-License-Identifier: Apache-2.0

package object

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
)

func read(t testing.TB, name string) []byte {
	b, err := os.ReadFile(filepath.Join("testdata", name))
	qt.Assert(t, qt.IsNil(err))
	return b
}

// TestLink: what is expected was read off llvm-objdump -dr and the rules of libbpf.
func TestLink(t *testing.T) {
	o, err := Parse(read(t, "small.o"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(o.License, "GPL"))
	var names, sections, types []string
	for _, p := range o.Programs {
		names, sections, types = append(names, p.Name), append(sections, p.Section), append(types, p.Type())
	}
	qt.Assert(t, qt.DeepEquals(names, []string{"tail", "entry", "second"}))
	qt.Assert(t, qt.DeepEquals(sections, []string{"classifier", "tc", "tc"}))
	qt.Assert(t, qt.DeepEquals(types, []string{"sched_cls", "sched_cls", "sched_cls"}))

	tail, err := o.Link(o.Programs[0])
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(tail.Names, []string{"tail", "inner"}))
	qt.Assert(t, qt.Equals(tail.Insns[1].Imm, 1)) // tail is 3 slots long

	l, err := o.Link(o.Programs[1])
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(l.Names, []string{"entry", "outer", "each", "minus", "inner"}))
	// Their lengths are 24, 19, 11, 6 and 7.
	qt.Assert(t, qt.DeepEquals(l.Functions, []insn.Function{{Start: 0, End: 24}, {Start: 24, End: 43}, {Start: 43, End: 54}, {Start: 54, End: 60}, {Start: 60, End: 67}}))
	tests := map[int]insn.Instruction{
		2:       {Code: 0xb7, Dst: 1, Imm: 1},                                     // whether a field exists
		6:       {Code: 0x18, Dst: 1, Src: insn.PseudoBTFID},                      // LINUX_KERNEL_VERSION
		17:      {Code: 0x18, Dst: 2, Src: insn.PseudoMapFD},                      // tails
		22:      {Code: 0x85, Src: insn.PseudoCall, Imm: 24 - 22 - 1},             // outer
		24 + 3:  {Code: 0x18, Dst: 1, Src: insn.PseudoMapFD},                      // numbers
		24 + 5:  {Code: 0x18, Dst: 2, Src: insn.PseudoFunc, Imm: 43 - 24 - 5 - 1}, // each
		24 + 12: {Code: 0x18, Dst: 2, Src: insn.PseudoFunc, Imm: 54 - 24 - 12 - 1},
		43 + 3:  {Code: 0x85, Src: insn.PseudoCall, Imm: 60 - 43 - 3 - 1}, // without a relocation
		60 + 3:  {Code: 0x18, Dst: 1, Src: insn.PseudoMapValue},           // limit
	}
	for slot, want := range tests {
		qt.Check(t, qt.Equals(l.Insns[slot], want), qt.Commentf("slot %d", slot))
	}
	name, at := l.Where(43 + 8)
	qt.Assert(t, qt.Equals(name, "each"))
	qt.Assert(t, qt.Equals(at, 8))
	line, ok := l.Source(43 + 3)
	qt.Assert(t, qt.IsTrue(ok))
	qt.Assert(t, qt.Equals(line.Text, "*sum += inner(*value);"))
	qt.Assert(t, qt.Equals(filepath.Base(line.File), "small.bpf.c"))
	_, ok = l.Source(67)
	qt.Assert(t, qt.IsFalse(ok))
}

func TestType(t *testing.T) {
	tests := map[string]string{
		"xdp": "xdp", "xdp.frags/devmap": "xdp", "?kprobe/do_exit": "kprobe", "kprobe.multi/x*": "kprobe", "fentry.s/do_unlinkat": "tracing",
		"tp_btf/sched_switch": "tracing", "raw_tp.w/x": "raw_tracepoint_writable", "raw_tracepoint/x": "raw_tracepoint", "tp/sched/x": "tracepoint",
		"cgroup_skb/ingress": "cgroup_skb", "cgroup/skb": "cgroup_skb", "cgroup/connect4": "cgroup_sock_addr", "cgroup/sock_create": "cgroup_sock",
		"cgroup/getsockname6": "cgroup_sock_addr", "cgroup/getsockopt": "cgroup_sockopt", "cgroup/dev": "cgroup_device",
		"sk_skb/stream_parser": "sk_skb", "tc": "sched_cls", "lsm.s/bpf": "lsm", "struct_ops/init": "struct_ops", "iter/task": "tracing",
		"socket": "socket_filter", "mine": "", "tcx/ingress": "sched_cls", "action": "sched_act", "freplace/x": "ext",
	}
	for section, want := range tests {
		qt.Check(t, qt.Equals(Program{Section: section}.Type(), want), qt.Commentf("%s", section))
	}
}

// made is an object that no compiler makes.
type made struct {
	code    []insn.Instruction
	symbols []elf.Sym64 // names are indexes in words
	relocs  []elf.Rel64
	machine elf.Machine
	typ     elf.Type
}

var words = []string{"", "prog", "sub", "extern", "weird"}

// Sections of made objects.
const (
	madeCode = iota + 1
	madeRelocs
	madeSymbols
	madeNames
	madeData
)

func function(name, start, end int) elf.Sym64 {
	return elf.Sym64{Name: uint32(name), Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC), Shndx: madeCode,
		Value: uint64(start) * insn.Size, Size: uint64(end-start) * insn.Size}
}

func (m made) bytes() []byte {
	var names bytes.Buffer
	at := map[uint32]uint32{}
	for i, w := range append(words, "xdp", ".relxdp", ".symtab", ".strtab", ".data") {
		at[uint32(i)] = uint32(names.Len())
		names.WriteString(w + "\x00")
	}
	encode := func(v any) []byte {
		var b bytes.Buffer
		if err := binary.Write(&b, order, v); err != nil {
			panic(err)
		}
		return b.Bytes()
	}
	symbols := append([]elf.Sym64{{}}, m.symbols...)
	for i := range symbols {
		symbols[i].Name = at[symbols[i].Name]
	}
	data := [][]byte{nil, insn.Encode(m.code), encode(m.relocs), encode(symbols), names.Bytes(), make([]byte, 8)}
	headers := []elf.Section64{{},
		{Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC | elf.SHF_EXECINSTR), Addralign: 8},
		{Type: uint32(elf.SHT_REL), Link: madeSymbols, Info: madeCode, Entsize: relSize},
		{Type: uint32(elf.SHT_SYMTAB), Link: madeNames, Entsize: symbolSize},
		{Type: uint32(elf.SHT_STRTAB)},
		{Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC | elf.SHF_WRITE)},
	}
	out := make([]byte, headerSize)
	for i := 1; i < len(headers); i++ {
		for len(out)%8 != 0 {
			out = append(out, 0)
		}
		headers[i].Name, headers[i].Off, headers[i].Size = at[uint32(len(words)+i-1)], uint64(len(out)), uint64(len(data[i]))
		out = append(out, data[i]...)
	}
	for len(out)%8 != 0 {
		out = append(out, 0)
	}
	h := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_BPF), Version: 1, Shoff: uint64(len(out)), Ehsize: headerSize,
		Shentsize: sectionSize, Shnum: uint16(len(headers)), Shstrndx: madeNames}
	if m.machine != 0 {
		h.Machine = uint16(m.machine)
	}
	if m.typ != 0 {
		h.Type = uint16(m.typ)
	}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	copy(out, encode(h))
	return append(out, encode(headers)...)
}

// exits is a program of n slots.
func exits(n int) []insn.Instruction {
	prog := make([]insn.Instruction, n)
	for i := range prog {
		prog[i] = insn.Instruction{Code: insn.OpcodeExit}
	}
	return prog
}

func load(t testing.TB, b []byte) error {
	o, err := Parse(b)
	if err != nil {
		return err
	}
	for _, p := range o.Programs {
		if _, err := o.Link(p); err != nil {
			return err
		}
	}
	return nil
}

func TestMade(t *testing.T) {
	o, err := Parse(made{code: exits(4), symbols: []elf.Sym64{function(1, 0, 4)}}.bytes())
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(len(o.Programs), 1))
	qt.Assert(t, qt.Equals(o.Programs[0].Name, "prog"))
	qt.Assert(t, qt.Equals(o.Programs[0].Insns, 4))
}

// TestBad: whatever an object says, the error is one line that says what is wrong.
func TestBad(t *testing.T) {
	call := insn.Instruction{Code: insn.OpcodeCall, Src: insn.PseudoCall, Imm: -1}
	wide := []insn.Instruction{{Code: insn.OpcodeLoadImm64}, {}}
	relocation := func(slot, symbol, kind int) elf.Rel64 {
		return elf.Rel64{Off: uint64(slot) * insn.Size, Info: uint64(symbol)<<32 | uint64(kind)}
	}
	undefined := elf.Sym64{Name: 3, Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_NOTYPE)}
	ok := made{code: exits(4), symbols: []elf.Sym64{function(1, 0, 4)}}.bytes()
	// change patches a field of an object.
	change := func(b []byte, at int, v uint64, size int) []byte {
		b = bytes.Clone(b)
		for i := range size {
			b[at+i] = byte(v >> (8 * i))
		}
		return b
	}
	headers := int(order.Uint64(ok[40:]))
	tests := []struct {
		name string
		b    []byte
		want string
	}{
		{"empty", nil, "the file is empty"},
		{"text", []byte("#include <linux/bpf.h>\n"), "not an ELF object"},
		{"bitcode", []byte("BC\xc0\xde1234"), "LLVM bitcode"},
		{"archive", []byte("!<arch>\nx"), "an archive"},
		{"light skeleton", []byte("/* THIS FILE IS AUTOGENERATED BY BPFTOOL! */\n#include <bpf/skel_internal.h>\n"), "a light skeleton"},
		{"short", []byte("\x7fELF\x02\x01\x01"), "truncated"},
		{"32 bits", change(ok, 4, 1, 1), "not a BPF object: a 32-bit ELF"},
		{"big-endian", change(change(ok, 5, 2, 1), 18, 0xf700, 2), "big-endian"},
		{"big-endian, another machine", change(change(ok, 5, 2, 1), 18, 0x1600, 2), "not a BPF object: an ELF for EM_S390"},
		{"native", made{code: exits(4), machine: elf.EM_X86_64}.bytes(), "not a BPF object: an ELF for EM_X86_64"},
		{"executable", made{code: exits(4), typ: elf.ET_EXEC}.bytes(), "an ELF of type ET_EXEC"},
		{"no sections", change(ok, 40, 0, 8), "an ELF without sections"},
		{"section headers outside", change(ok, 40, 1<<40, 8), "truncated: section headers"},
		{"odd section headers", change(ok, 58, 63, 2), "section headers of 63 bytes"},
		{"names outside", change(ok, 62, 99, 2), "the names of 6 sections are in section 99"},
		{"cut off", ok[:len(ok)-1], "truncated: section headers"},
		{"huge section", change(ok, headers+sectionSize*madeData+32, 1<<62, 8), "truncated: section 5 has"},
		{"section that wraps", change(ok, headers+sectionSize*madeData+24, ^uint64(0)-3, 8), "truncated: section 5 has"},
		{"sections overlap", change(ok, headers+sectionSize*madeData+24, order.Uint64(ok[headers+sectionSize*madeCode+24:]), 8), "sections 1 and 5 overlap"},
		{"name outside", change(ok, headers+sectionSize*madeCode, 1<<30, 4), "read name of section 1"},
		{"no symbols", change(ok, headers+sectionSize*madeSymbols+4, uint64(elf.SHT_PROGBITS), 4), "no symbol table"},
		{"odd symbols", change(ok, headers+sectionSize*madeSymbols+56, 23, 8), "a symbol table of 48 bytes in entries of 23"},
		{"symbol names outside", change(ok, headers+sectionSize*madeSymbols+40, 77, 4), "the names of symbols are in section 77"},
		{"odd code", change(ok, headers+sectionSize*madeCode+32, 31, 8), "31 bytes are not a multiple of 8"},
		{"function too long", made{code: exits(4), symbols: []elf.Sym64{function(1, 0, 5)}}.bytes(), "function prog reaches beyond its section"},
		{"function that wraps", made{code: exits(4), symbols: []elf.Sym64{{Name: 1, Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC), Shndx: madeCode, Value: 8, Size: ^uint64(7)}}}.bytes(), "function prog reaches beyond"},
		{"function of nothing", made{code: exits(4), symbols: []elf.Sym64{function(1, 2, 2)}}.bytes(), "function prog is empty"},
		{"functions overlap", made{code: exits(4), symbols: []elf.Sym64{function(1, 0, 3), function(2, 2, 4)}}.bytes(), "functions prog and sub overlap"},
		{"symbol in no section", made{code: exits(4), symbols: []elf.Sym64{{Name: 4, Shndx: 40}}}.bytes(), "symbol weird is in section 40 of 6"},
		{"unresolved", made{code: append(exits(3), call), symbols: []elf.Sym64{function(1, 0, 4), undefined}, relocs: []elf.Rel64{relocation(3, 2, relocCall32)}}.bytes(),
			"program prog: instruction 3 of prog: unresolved symbol extern: no BTF declares it"},
		{"call outside", made{code: append(exits(3), insn.Instruction{Code: insn.OpcodeCall, Src: insn.PseudoCall, Imm: 1 << 30}), symbols: []elf.Sym64{function(1, 0, 4)}}.bytes(),
			"instruction 3 of prog calls a place where no function begins"},
		{"relocated call outside", made{code: append(exits(3), insn.Instruction{Code: insn.OpcodeCall, Src: insn.PseudoCall, Imm: -1 << 31}), symbols: []elf.Sym64{function(1, 0, 4)}, relocs: []elf.Rel64{relocation(3, 1, relocCall32)}}.bytes(),
			"instruction 3 of prog: it names byte"},
		{"relocation outside", made{code: exits(4), symbols: []elf.Sym64{function(1, 0, 4)}, relocs: []elf.Rel64{relocation(9, 1, relocCall32)}}.bytes(), "relocation 0 is for byte 72 of 32"},
		{"relocation of nothing", made{code: exits(4), symbols: []elf.Sym64{function(1, 0, 4)}, relocs: []elf.Rel64{relocation(1, 8, relocCall32)}}.bytes(), "relocation 0 names symbol 8 of 2"},
		{"relocated exit", made{code: exits(4), symbols: []elf.Sym64{function(1, 0, 4)}, relocs: []elf.Rel64{relocation(1, 1, relocCall32)}}.bytes(), "a relocation of instruction 1, which is neither"},
		{"two relocations", made{code: append(exits(3), call), symbols: []elf.Sym64{function(1, 0, 4)}, relocs: []elf.Rel64{relocation(3, 1, relocCall32), relocation(3, 1, relocCall32)}}.bytes(), "two relocations of instruction 3"},
		{"half a load", made{code: append(exits(3), wide[0]), symbols: []elf.Sym64{function(1, 0, 4)}, relocs: []elf.Rel64{relocation(3, 1, relocLoad64)}}.bytes(), "instruction 3 is half of a 64-bit load"},
		{"address without relocation", made{code: append(exits(2), insn.Instruction{Code: insn.OpcodeLoadImm64, Src: insn.PseudoFunc}, insn.Instruction{}), symbols: []elf.Sym64{function(1, 0, 4)}}.bytes(),
			"instruction 2 of prog takes the address of a function without a relocation"},
		{"too long", made{code: exits(MaxProgram + 1), symbols: []elf.Sym64{function(1, 0, MaxProgram+1)}}.bytes(), "program prog has more than 1000000 instructions"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := load(t, test.b)
			qt.Assert(t, qt.IsNotNil(err))
			qt.Assert(t, qt.StringContains(err.Error(), test.want))
			qt.Assert(t, qt.IsFalse(strings.ContainsAny(err.Error(), "\n")))
		})
	}
}

// TestTruncated: an object cut off anywhere is bad input or, where only what follows the tables is
// missing, the same object.
func TestTruncated(t *testing.T) {
	b := read(t, "small.o")
	for n := range b {
		if n%7 == 0 || n < 256 {
			qt.Check(t, qt.IsNotNil(load(t, b[:n])), qt.Commentf("%d of %d bytes", n, len(b)))
		}
	}
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	_, err := ReadFile(dir)
	qt.Assert(t, qt.ErrorMatches(err, "a directory"))
	_, err = ReadFile(filepath.Join(dir, "none.o"))
	qt.Assert(t, qt.ErrorMatches(err, "no such file or directory"))
	_, err = ReadFile("/dev/zero")
	qt.Assert(t, qt.ErrorMatches(err, "not a regular file"))
	large := filepath.Join(dir, "large.o")
	qt.Assert(t, qt.IsNil(os.WriteFile(large, nil, 0o600)))
	qt.Assert(t, qt.IsNil(os.Truncate(large, MaxSize+1)))
	_, err = ReadFile(large)
	qt.Assert(t, qt.ErrorMatches(err, fmt.Sprintf("larger than %d MiB", MaxSize>>20)))
}

// The types of maps, as the sources have them.
func TestMapType(t *testing.T) {
	o, err := Parse(read(t, "small.o"))
	qt.Assert(t, qt.IsNil(err))
	l, err := o.Link(o.Programs[1])
	qt.Assert(t, qt.IsNil(err))
	const array, progArray, percpuArray = 2, 3, 6
	for slot, want := range map[int]uint32{17: progArray, 24 + 3: array, 60 + 3: array} {
		got, known := l.MapType(slot)
		qt.Check(t, qt.IsTrue(known), qt.Commentf("%d", slot))
		qt.Check(t, qt.Equals(got, want), qt.Commentf("%d", slot))
	}
	for _, slot := range []int{-1, 0, 22, len(l.Insns)} {
		_, known := l.MapType(slot)
		qt.Check(t, qt.IsFalse(known), qt.Commentf("%d", slot))
	}

	o, err = ReadFile("../../../httpprobe/sources/syscalls_x86_bpfel.o")
	qt.Assert(t, qt.IsNil(err))
	found := map[uint32]int{}
	for _, p := range o.Programs {
		l, err := o.Link(p)
		qt.Assert(t, qt.IsNil(err))
		for slot, in := range l.Insns {
			if in.IsMapLoad() && !insn.IsSecondHalf(l.Insns, slot) {
				typ, known := l.MapType(slot)
				qt.Assert(t, qt.IsTrue(known), qt.Commentf("%s %d", p.Name, slot))
				found[typ]++
			}
		}
	}
	qt.Check(t, qt.IsTrue(found[percpuArray] > 0), qt.Commentf("%v", found))
}
