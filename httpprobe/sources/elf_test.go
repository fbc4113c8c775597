// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/test/cputime"
)

// tinyELF is a library with its code at 0x1000 in the file and 0x401000 in memory, and these
// symbols: SSL_write at 0x401010, SSL_read, which is another library's, wolfSSL_read_ex at
// 0x401030, SSL_free in no segment, and SSL_new, which is no function.
func tinyELF() []byte {
	const strings, symbols, sections = 0x200, 0x300, 0x400
	names := "\x00SSL_write\x00SSL_read\x00wolfSSL_read_ex\x00SSL_free\x00SSL_new\x00"
	var b bytes.Buffer
	put := func(at int, v any) {
		for b.Len() < at {
			b.WriteByte(0)
		}
		_ = binary.Write(&b, binary.LittleEndian, v)
	}
	put(0, elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: 1,
		Phoff: 64, Shoff: sections, Ehsize: 64, Phentsize: 56, Phnum: 2, Shentsize: 64, Shnum: 3,
	})
	put(64, []elf.Prog64{
		{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R), Off: 0, Vaddr: 0x400000, Filesz: 0x1000, Memsz: 0x1000},
		{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Off: 0x1000, Vaddr: 0x401000, Filesz: 0x100, Memsz: 0x100},
	})
	put(strings, []byte(names))
	function := byte(elf.STB_GLOBAL)<<4 | byte(elf.STT_FUNC)
	put(symbols, []elf.Sym64{
		{},
		{Name: 1, Info: function, Shndx: 7, Value: 0x401010},
		{Name: 11, Info: function, Shndx: uint16(elf.SHN_UNDEF)},
		{Name: 20, Info: function, Shndx: 7, Value: 0x401030},
		{Name: 36, Info: function, Shndx: 7, Value: 0x402000},
		{Name: 45, Info: byte(elf.STT_OBJECT), Shndx: 7, Value: 0x401040},
	})
	put(sections, []elf.Section64{
		{},
		{Type: uint32(elf.SHT_DYNSYM), Off: symbols, Size: 6 * symbolSize, Link: 2, Entsize: symbolSize},
		{Type: uint32(elf.SHT_STRTAB), Off: strings, Size: uint64(len(names))},
	})
	put(0x1100, byte(0))
	return b.Bytes()
}

func TestELF(t *testing.T) {
	names := []string{"SSL_write", "SSL_read", "SSL_read_ex", "SSL_free", "SSL_new"}
	f, err := readELF(bytes.NewReader(tinyELF()))
	qt.Assert(t, qt.IsNil(err))
	got, err := f.functions(names)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(got, map[string]uint64{"SSL_write": 0x1010}))

	// Names that lie across two chunks, far behind.
	long := tinyELF()
	at := len(long)
	filler := bytes.Repeat([]byte("SSL_"), stringChunk/4)[:stringChunk-6]
	tail := append(append([]byte{}, filler...), []byte("SSL_write\x00")...)
	long = append(long, tail...)
	section := long[0x400+2*64:]
	binary.LittleEndian.PutUint64(section[24:], uint64(at))
	binary.LittleEndian.PutUint64(section[32:], uint64(len(tail)))
	binary.LittleEndian.PutUint32(long[0x300+symbolSize:], uint32(len(filler)))
	f, err = readELF(bytes.NewReader(long))
	qt.Assert(t, qt.IsNil(err))
	got, err = f.functions(names)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(got, map[string]uint64{"SSL_write": 0x1010}))

	for _, b := range [][]byte{nil, []byte("#!/bin/sh\n"), tinyELF()[:40]} {
		_, err := readELF(bytes.NewReader(b))
		qt.Check(t, qt.ErrorIs(err, errNotELF))
	}
	other := tinyELF()
	other[4] = 1 // 32 bits
	_, err = readELF(bytes.NewReader(other))
	qt.Check(t, qt.ErrorIs(err, errNotELF))
}

// hostileELF has as many segments and symbols as are read, every symbol of which has the name that
// is looked for and lies in no segment.
func hostileELF() []byte {
	const symbols = 1_000_000
	names := []byte("\x00SSL_write\x00")
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: 1,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: maxHeaders, Shentsize: 64, Shnum: 3,
	}
	at := uint64(64 + maxHeaders*56)
	stringsAt, symbolsAt := at, at+uint64(len(names))
	h.Shoff = symbolsAt + symbols*symbolSize
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, h)
	for i := range uint64(maxHeaders) {
		_ = binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_X), Vaddr: i << 12, Filesz: 1})
	}
	b.Write(names)
	function := byte(elf.STB_GLOBAL)<<4 | byte(elf.STT_FUNC)
	var symbol bytes.Buffer
	_ = binary.Write(&symbol, binary.LittleEndian, elf.Sym64{Name: 1, Info: function, Shndx: 7, Value: maxHeaders<<12 + 7})
	b.Write(bytes.Repeat(symbol.Bytes(), symbols))
	_ = binary.Write(&b, binary.LittleEndian, []elf.Section64{
		{},
		{Type: uint32(elf.SHT_DYNSYM), Off: symbolsAt, Size: symbols * symbolSize, Link: 2, Entsize: symbolSize},
		{Type: uint32(elf.SHT_STRTAB), Off: stringsAt, Size: uint64(len(names))},
	})
	return b.Bytes()
}

// A file of a process, of any content, is searched in a moment: who searches it looks at no other
// meanwhile.
func TestELFOfManyPlaces(t *testing.T) {
	b := hostileELF()
	took := cputime.Of(func() {
		f, err := readELF(bytes.NewReader(b))
		qt.Assert(t, qt.IsNil(err))
		found, err := f.functions([]string{"SSL_write"})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.HasLen(found, 0))
	})
	t.Logf("%d bytes in %v", len(b), took)
	qt.Check(t, qt.IsTrue(took < time.Second), qt.Commentf("%v", took))
}

// Files of processes lie. What is said of them is an error or a place within the file.
func FuzzELF(f *testing.F) {
	f.Add(tinyELF())
	f.Add(tinyELF()[:0x430])
	f.Fuzz(func(t *testing.T, b []byte) {
		parsed, err := readELF(bytes.NewReader(b))
		if err != nil {
			return
		}
		found, _ := parsed.functions([]string{"SSL_write", "SSL_read"})
		for name, at := range found {
			if at >= 1<<62 {
				t.Fatalf("%s at %#x", name, at)
			}
		}
		if got := parsed.section(".go.buildinfo"); len(got) > len(b) {
			t.Fatalf("a section of %d bytes in a file of %d", len(got), len(b))
		}
		factsOf(bytes.NewReader(b))
	})
}
