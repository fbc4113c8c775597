// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Files belong to the processes that map them: they lie, they are huge, and they change while they
// are read. All reads are bounded, and no number of a file decides how much memory is taken.
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

// codeSegment is a part of the file that holds code.
type codeSegment struct{ offset, address, size uint64 }

// elfFile is as much of an ELF file as is read here. Go's debug/elf reads whole tables.
type elfFile struct {
	r        io.ReaderAt
	class    elf.Class
	code     []codeSegment // by address: a file can have thousands, and millions of symbols that lie in none
	interp   bool          // has a dynamic linker
	sections []elfSection
	names    int // the section of their names
}

type elfSection struct {
	name, kind, link        uint32
	offset, size, entrySize uint64
}

// Sizes of the entries of a 64-bit file.
const (
	segmentEntry = 56
	sectionEntry = 64
)

//revive:disable-next-line:cyclomatic hostile files: each number is checked
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
	if err := readHeader(r, &h); err != nil || elf.Machine(h.Machine) != elf.EM_X86_64 {
		return f, errNotELF
	}
	f.names = int(h.Shstrndx)
	if h.Phentsize != segmentEntry && h.Phnum > 0 || h.Shentsize != sectionEntry && h.Shnum > 0 {
		return nil, fmt.Errorf("read ELF header: entries of another size")
	}
	segments, err := readTable(r, h.Phoff, h.Phnum, segmentEntry)
	if err != nil {
		return nil, fmt.Errorf("read segments: %w", err)
	}
	for b := segments; len(b) >= segmentEntry; b = b[segmentEntry:] {
		switch elf.ProgType(little.Uint32(b)) {
		case elf.PT_LOAD:
			if elf.ProgFlag(little.Uint32(b[4:]))&elf.PF_X != 0 {
				f.code = append(f.code, codeSegment{offset: little.Uint64(b[8:]), address: little.Uint64(b[16:]), size: little.Uint64(b[32:])})
			}
		case elf.PT_INTERP:
			f.interp = true
		}
	}
	slices.SortStableFunc(f.code, func(a, b codeSegment) int { return cmp.Compare(a.address, b.address) })
	sections, _ := readTable(r, h.Shoff, h.Shnum, sectionEntry) // they are for tools; files run without them
	for b := sections; len(b) >= sectionEntry; b = b[sectionEntry:] {
		f.sections = append(f.sections, elfSection{
			name: little.Uint32(b), kind: little.Uint32(b[4:]), link: little.Uint32(b[40:]),
			offset: little.Uint64(b[24:]), size: little.Uint64(b[32:]), entrySize: little.Uint64(b[56:]),
		})
	}
	return f, nil
}

var little = binary.LittleEndian

func readHeader(r io.ReaderAt, h *elf.Header64) error {
	b := make([]byte, binary.Size(h))
	if _, err := r.ReadAt(b, 0); err != nil {
		return err
	}
	_, err := binary.Decode(b, little, h)
	return err
}

// readTable reads the first entries of a table, and what there is of one that the file cuts off.
func readTable(r io.ReaderAt, at uint64, count uint16, size int) ([]byte, error) {
	if count == 0 {
		return nil, nil
	}
	if at > 1<<62 {
		return nil, io.ErrUnexpectedEOF
	}
	b := make([]byte, min(int(count), maxHeaders)*size)
	n, err := r.ReadAt(b, int64(at))
	if n == len(b) {
		err = nil
	}
	return b[:n], err
}

// functions finds where functions are in the file, by name. Those that it does not have are
// missing.
func (f *elfFile) functions(names []string) (map[string]uint64, error) {
	found := map[string]uint64{}
	for _, table := range []elf.SectionType{elf.SHT_DYNSYM, elf.SHT_SYMTAB} {
		i := slices.IndexFunc(f.sections, func(s elfSection) bool { return elf.SectionType(s.kind) == table })
		if i < 0 || uint64(f.sections[i].link) >= uint64(len(f.sections)) {
			continue
		}
		if err := f.search(f.sections[i], f.sections[f.sections[i].link], names, found); err != nil {
			return nil, err
		}
		if len(found) > 0 {
			break // a stripped library has the first only, and its names are the ones that are called
		}
	}
	return found, nil
}

// search looks for symbols in one table. First for the names' places among all names, then for
// symbols that have such a name: neither table is kept.
//
//revive:disable-next-line:cyclomatic hostile files: each number is checked
func (f *elfFile) search(symbols, strings elfSection, names []string, found map[string]uint64) error {
	if elf.SectionType(strings.kind) != elf.SHT_STRTAB || symbols.entrySize != symbolSize {
		return nil
	}
	places, err := f.places(strings, names)
	if err != nil || len(places) == 0 {
		return err
	}
	if symbols.offset > 1<<62 {
		return nil
	}
	r := io.NewSectionReader(f.r, int64(symbols.offset), int64(min(symbols.size, maxSymbols)))
	buf := make([]byte, stringChunk/symbolSize*symbolSize)
	for {
		n, err := io.ReadFull(r, buf)
		for b := buf[:n-n%symbolSize]; len(b) > 0; b = b[symbolSize:] {
			name, ok := places[little.Uint32(b)]
			if !ok || elf.ST_TYPE(b[4]) != elf.STT_FUNC || little.Uint16(b[6:]) == uint16(elf.SHN_UNDEF) {
				continue
			}
			if _, ok := found[name]; ok {
				continue
			}
			if at, ok := f.offset(little.Uint64(b[8:])); ok {
				found[name] = at
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
func (f *elfFile) places(strings elfSection, names []string) (map[uint32]string, error) {
	if strings.offset > 1<<62 {
		return nil, nil
	}
	found := map[uint32]string{}
	count := map[string]int{}
	r := io.NewSectionReader(f.r, int64(strings.offset), int64(min(strings.size, maxStrings)))
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
	i, _ := slices.BinarySearchFunc(f.code, address, func(s codeSegment, address uint64) int {
		if s.address <= address {
			return -1
		}
		return 1
	})
	if i == 0 {
		return 0, false
	}
	s := f.code[i-1] // the last that begins at the address or before it
	if address-s.address >= s.size {
		return 0, false
	}
	at := address - s.address + s.offset
	return at, at >= s.offset && at < 1<<62
}

// section is the beginning of the section of a name, nil when there is none.
func (f *elfFile) section(name string) []byte {
	if f.names >= len(f.sections) {
		return nil
	}
	names, want := f.content(f.sections[f.names]), append([]byte(name), 0)
	for _, s := range f.sections {
		if uint64(s.name) < uint64(len(names)) && bytes.HasPrefix(names[s.name:], want) {
			return f.content(s)
		}
	}
	return nil
}

// content is the beginning of a section.
func (f *elfFile) content(s elfSection) []byte {
	if s.offset > 1<<62 || elf.SectionType(s.kind) == elf.SHT_NOBITS {
		return nil
	}
	b := make([]byte, min(s.size, stringChunk))
	n, _ := f.r.ReadAt(b, int64(s.offset))
	return b[:n]
}
