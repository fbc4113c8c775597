// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Files belong to the processes that map them: they lie, they are huge, and they change while they are read. All reads are bounded, and no
// number of a file decides how much memory is taken.
const (
	maxHeaders  = 4096     // of segments, and of sections
	maxSymbols  = 64 << 20 // bytes of a symbol table, 2.7 million symbols
	maxStrings  = 64 << 20 // bytes of its names
	stringChunk = 64 << 10
	symbolSize  = 24
	maxOffsets  = 64 // of places where one name stands among the names
)

// errNotELF is for files that are no 64-bit ELF files of x86-64.
var errNotELF = errors.New("not a 64-bit ELF file of x86-64")

type segmentHeader struct{ flags, offset, vaddr, size uint64 }

// elfFile is as much of an ELF file as is read here. Go's debug/elf reads whole tables.
type elfFile struct {
	r        io.ReaderAt
	kind     elf.Type
	class    elf.Class
	segments []segmentHeader // that are loaded
	interp   bool            // has a dynamic linker
	sections []elf.Section64
}

func readELF(r io.ReaderAt) (*elfFile, error) {
	var ident [elf.EI_NIDENT]byte
	if _, err := r.ReadAt(ident[:], 0); err != nil || string(ident[:4]) != elf.ELFMAG {
		return nil, errNotELF
	}
	f := &elfFile{r: r, class: elf.Class(ident[elf.EI_CLASS])}
	if f.class != elf.ELFCLASS64 || elf.Data(ident[elf.EI_DATA]) != elf.ELFDATA2LSB {
		return f, errNotELF
	}
	var h elf.Header64
	if err := readStruct(r, 0, &h); err != nil || elf.Machine(h.Machine) != elf.EM_X86_64 {
		return f, errNotELF
	}
	f.kind = elf.Type(h.Type)
	if h.Phentsize != 56 && h.Phnum > 0 || h.Shentsize != 64 && h.Shnum > 0 {
		return nil, fmt.Errorf("read ELF header: entries of another size")
	}
	for i := range min(int(h.Phnum), maxHeaders) {
		var p elf.Prog64
		if err := readStruct(r, h.Phoff+uint64(i)*56, &p); err != nil {
			return nil, fmt.Errorf("read segment: %w", err)
		}
		switch elf.ProgType(p.Type) {
		case elf.PT_LOAD:
			f.segments = append(f.segments, segmentHeader{uint64(p.Flags), p.Off, p.Vaddr, p.Filesz})
		case elf.PT_INTERP:
			f.interp = true
		}
	}
	for i := range min(int(h.Shnum), maxHeaders) {
		var s elf.Section64
		if err := readStruct(r, h.Shoff+uint64(i)*64, &s); err != nil {
			break // sections are for tools; files run without them
		}
		f.sections = append(f.sections, s)
	}
	return f, nil
}

func readStruct(r io.ReaderAt, at uint64, to any) error {
	b := make([]byte, binary.Size(to))
	if at > 1<<62 {
		return io.ErrUnexpectedEOF
	}
	if _, err := r.ReadAt(b, int64(at)); err != nil {
		return err
	}
	_, err := binary.Decode(b, binary.LittleEndian, to)
	return err
}

// functions finds where functions are in the file, by name. Those that it does not have are missing.
func (f *elfFile) functions(names []string) (map[string]uint64, error) {
	found := map[string]uint64{}
	for _, table := range []elf.SectionType{elf.SHT_DYNSYM, elf.SHT_SYMTAB} {
		i := slices.IndexFunc(f.sections, func(s elf.Section64) bool { return elf.SectionType(s.Type) == table })
		if i < 0 || uint64(f.sections[i].Link) >= uint64(len(f.sections)) {
			continue
		}
		if err := f.search(f.sections[i], f.sections[f.sections[i].Link], names, found); err != nil {
			return nil, err
		}
		if len(found) > 0 {
			break // a stripped library has the first only, and its names are the ones that are called
		}
	}
	return found, nil
}

// search looks for symbols in one table. First for the names' places among all names, then for symbols that have such a name: neither table
// is kept.
func (f *elfFile) search(symbols, strings elf.Section64, names []string, found map[string]uint64) error {
	if elf.SectionType(strings.Type) != elf.SHT_STRTAB || symbols.Entsize != symbolSize {
		return nil
	}
	places, err := f.places(strings, names)
	if err != nil || len(places) == 0 {
		return err
	}
	if symbols.Off > 1<<62 {
		return nil
	}
	r := io.NewSectionReader(f.r, int64(symbols.Off), int64(min(symbols.Size, maxSymbols)))
	buf := make([]byte, stringChunk/symbolSize*symbolSize)
	for {
		n, err := io.ReadFull(r, buf)
		for b := buf[:n-n%symbolSize]; len(b) > 0; b = b[symbolSize:] {
			name, ok := places[binary.LittleEndian.Uint32(b)]
			if !ok || elf.ST_TYPE(b[4]) != elf.STT_FUNC || binary.LittleEndian.Uint16(b[6:]) == uint16(elf.SHN_UNDEF) {
				continue
			}
			if at, ok := f.offset(binary.LittleEndian.Uint64(b[8:])); ok {
				if _, ok := found[name]; !ok {
					found[name] = at
				}
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read symbols: %w", err)
		}
	}
}

// places finds where names stand in a table of names. One may be the end of another.
func (f *elfFile) places(strings elf.Section64, names []string) (map[uint32]string, error) {
	if strings.Off > 1<<62 {
		return nil, nil
	}
	found := map[uint32]string{}
	count := map[string]int{}
	r := io.NewSectionReader(f.r, int64(strings.Off), int64(min(strings.Size, maxStrings)))
	const overlap = 64 // longer than any name
	buf := make([]byte, stringChunk)
	kept, at := 0, 0 // bytes of the chunk before, and where buf begins
	for {
		n, err := io.ReadFull(r, buf[kept:])
		have := buf[:kept+n]
		for _, name := range names {
			want := append([]byte(name), 0)
			for from := 0; count[name] < maxOffsets; {
				i := bytes.Index(have[from:], want)
				if i < 0 {
					break
				}
				place := uint32(at + from + i)
				if _, ok := found[place]; !ok {
					found[place] = name
					count[name]++
				}
				from += i + 1
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read names of symbols: %w", err)
		}
		kept = copy(buf, have[len(have)-overlap:])
		at += len(have) - kept
	}
}

// offset is where in the file the code of an address is.
func (f *elfFile) offset(address uint64) (uint64, bool) {
	for _, s := range f.segments {
		if elf.ProgFlag(s.flags)&elf.PF_X != 0 && address >= s.vaddr && address-s.vaddr < s.size {
			at := address - s.vaddr + s.offset
			return at, at >= s.offset && at < 1<<62
		}
	}
	return 0, false
}

// section is the beginning of the section of a name, nil when there is none.
func (f *elfFile) section(name string) []byte {
	var h elf.Header64
	if readStruct(f.r, 0, &h) != nil || int(h.Shstrndx) >= len(f.sections) {
		return nil
	}
	names := f.content(f.sections[h.Shstrndx])
	for _, s := range f.sections {
		if uint64(s.Name) >= uint64(len(names)) {
			continue
		}
		if own, _, ok := bytes.Cut(names[s.Name:], []byte{0}); ok && string(own) == name {
			return f.content(s)
		}
	}
	return nil
}

// content is the beginning of a section.
func (f *elfFile) content(s elf.Section64) []byte {
	if s.Off > 1<<62 || elf.SectionType(s.Type) == elf.SHT_NOBITS {
		return nil
	}
	b := make([]byte, min(s.Size, stringChunk))
	n, _ := f.r.ReadAt(b, int64(s.Off))
	return b[:n]
}
