// SPDX-License-Identifier: Apache-2.0

package object

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits of what is read. Real objects are far below them; their sum bounds the memory and the time
// that a hostile one can take.
const (
	// MaxSize is the largest file, in bytes.
	MaxSize = 64 << 20
	maxName = 4096
	// MaxPrograms is how many programs an object may have; a few hundred are many.
	MaxPrograms  = 10_000
	maxFunctions = 100_000
	// MaxProgram is how many instructions the kernel takes (BPF_COMPLEXITY_LIMIT_INSNS).
	MaxProgram = 1_000_000
)

// ErrForeign is the error for object files of other machines.
var ErrForeign = errors.New("not a BPF object")

// Relocation types of the BPF target, from LLVM's BPF.def. Before LLVM 13 the first and the last
// stood for data too.
const (
	relocLoad64 = 1 // R_BPF_64_64: a 64-bit load, or eight bytes of data
	relocAbs64  = 2 // R_BPF_64_ABS64
	relocAbs32  = 3 // R_BPF_64_ABS32
	relocNoDyn  = 4 // R_BPF_64_NODYLD32: .BTF and .BTF.ext
	relocCall32 = 10
)

// image is an ELF file whose tables are known to lie inside it.
type image struct {
	bytes    []byte
	header   elf.Header64
	sections []section
	symbols  []symbol
}

type section struct {
	elf.Section64
	name string
	data []byte // of the image; nil for sections without bytes in the file
}

func (s *section) isCode() bool {
	return elf.SectionType(s.Type) == elf.SHT_PROGBITS && elf.SectionFlag(s.Flags)&elf.SHF_EXECINSTR != 0 && len(s.data) > 0
}

func (s *section) end() uint64 { return s.Off + uint64(len(s.data)) }

type symbol struct {
	elf.Sym64
	name string
}

func (s *symbol) isFunction() bool { return elf.ST_TYPE(s.Info) == elf.STT_FUNC }

func (s *symbol) isLocal() bool { return elf.ST_BIND(s.Info) == elf.STB_LOCAL }

type relocation struct {
	offset uint64 // in the section that it changes
	symbol int
	kind   uint32
}

// Sizes of the ELF structures, in bytes.
const (
	headerSize  = 64
	sectionSize = 64
	symbolSize  = 24
	relSize     = 16
)

var order = binary.LittleEndian

// parseImage checks all that the rest of the package relies on: tables and sections inside the
// file, apart from each other.
//
//revive:disable-next-line:cyclomatic hostile files: each number is checked
func parseImage(b []byte) (*image, error) {
	if err := identify(b); err != nil {
		return nil, err
	}
	im := &image{bytes: b}
	if _, err := binary.Decode(b, order, &im.header); err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	h := &im.header
	switch {
	case elf.Type(h.Type) != elf.ET_REL:
		return nil, fmt.Errorf("an ELF of type %v; a BPF object is relocatable", elf.Type(h.Type))
	case h.Shoff == 0 || h.Shnum == 0:
		return nil, errors.New("an ELF without sections")
	case h.Shentsize != sectionSize:
		return nil, fmt.Errorf("section headers of %d bytes, not %d", h.Shentsize, sectionSize)
	case h.Shnum >= uint16(elf.SHN_LORESERVE):
		return nil, fmt.Errorf("%d sections", h.Shnum)
	case h.Shstrndx >= h.Shnum:
		return nil, fmt.Errorf("the names of %d sections are in section %d", h.Shnum, h.Shstrndx)
	case !inside(b, h.Shoff, uint64(h.Shnum)*sectionSize):
		return nil, fmt.Errorf("truncated: section headers at byte %d, but the file has %d", h.Shoff, len(b))
	}
	im.sections = make([]section, h.Shnum)
	for i := range im.sections {
		s := &im.sections[i]
		if _, err := binary.Decode(b[h.Shoff+uint64(i)*sectionSize:], order, &s.Section64); err != nil {
			return nil, fmt.Errorf("read section %d: %w", i, err)
		}
		if t := elf.SectionType(s.Type); t == elf.SHT_NULL || t == elf.SHT_NOBITS {
			continue
		}
		if !inside(b, s.Off, s.Size) {
			return nil, fmt.Errorf("truncated: section %d has %d bytes at byte %d, but the file has %d", i, s.Size, s.Off, len(b))
		}
		s.data = b[s.Off : s.Off+s.Size]
	}
	if err := im.apart(); err != nil {
		return nil, err
	}
	names := string(im.sections[h.Shstrndx].data)
	for i := range im.sections {
		s := &im.sections[i]
		name, err := text(names, s.Name)
		if err != nil {
			return nil, fmt.Errorf("read name of section %d: %w", i, err)
		}
		s.name = name
		if elf.SectionFlag(s.Flags)&elf.SHF_COMPRESSED != 0 && s.isCode() {
			return nil, fmt.Errorf("section %s is compressed", name)
		}
	}
	return im, im.readSymbols()
}

// identify looks at the first bytes, and gives what people hand over by mistake its name.
func identify(b []byte) error {
	switch {
	case len(b) == 0:
		return errors.New("the file is empty")
	case bytes.HasPrefix(b, []byte("BC\xc0\xde")):
		return errors.New("LLVM bitcode, not an ELF object: compile it with clang -target bpf, without -emit-llvm and -flto")
	case bytes.HasPrefix(b, []byte{0x9f, 0xeb}) || bytes.HasPrefix(b, []byte{0xeb, 0x9f}):
		return errors.New("raw BTF, not an ELF object")
	case bytes.HasPrefix(b, []byte("!<arch>\n")):
		return errors.New("an archive, not an ELF object")
	case isLightSkeleton(b):
		return errors.New("a light skeleton, not an ELF object: fix the object, then run bpftool gen skeleton -L on the result")
	case !bytes.HasPrefix(b, []byte(elf.ELFMAG)):
		return errors.New("not an ELF object")
	case len(b) < headerSize:
		return fmt.Errorf("truncated: %d bytes are no ELF header", len(b))
	case foreign(b) != nil:
		return foreign(b)
	case elf.Data(b[elf.EI_DATA]) == elf.ELFDATA2MSB:
		return errors.New("big-endian; only little-endian objects (-target bpf or bpfel) are read")
	case elf.Data(b[elf.EI_DATA]) != elf.ELFDATA2LSB:
		return fmt.Errorf("an ELF of unknown byte order %d", b[elf.EI_DATA])
	case elf.Version(b[elf.EI_VERSION]) != elf.EV_CURRENT:
		return fmt.Errorf("an ELF of unknown version %d", b[elf.EI_VERSION])
	}
	return nil
}

// foreign tells an ELF of another machine by its header, and is nil for all else.
func foreign(b []byte) error {
	if len(b) < headerSize || !bytes.HasPrefix(b, []byte(elf.ELFMAG)) {
		return nil
	}
	machine := elf.Machine(order.Uint16(b[18:]))
	if elf.Data(b[elf.EI_DATA]) == elf.ELFDATA2MSB {
		machine = elf.Machine(binary.BigEndian.Uint16(b[18:]))
	}
	switch {
	case elf.Class(b[elf.EI_CLASS]) != elf.ELFCLASS64:
		return fmt.Errorf("%w: a 32-bit ELF", ErrForeign)
	case machine != elf.EM_BPF && machine != elf.EM_NONE: // some old compilers write no machine
		return fmt.Errorf("%w: an ELF for %v", ErrForeign, machine)
	}
	return nil
}

// isLightSkeleton knows the header that bpftool gen skeleton -L writes: C, with the loader as a
// string.
func isLightSkeleton(b []byte) bool {
	head := b[:min(len(b), 4096)]
	return bytes.Contains(head, []byte("BPFTOOL")) && bytes.Contains(head, []byte("skel_internal.h"))
}

// inside reports whether a range lies in the file.
func inside(b []byte, off, size uint64) bool {
	return off <= uint64(len(b)) && size <= uint64(len(b))-off
}

// apart makes sure that no two sections share bytes, so that all of them together are no larger
// than the file.
func (im *image) apart() error {
	var of []int
	for i, s := range im.sections {
		if len(s.data) > 0 {
			of = append(of, i)
		}
	}
	slices.SortStableFunc(of, func(a, b int) int { return cmp.Compare(im.sections[a].Off, im.sections[b].Off) })
	for n := 1; n < len(of); n++ {
		if a, b := &im.sections[of[n-1]], &im.sections[of[n]]; a.end() > b.Off {
			return fmt.Errorf("sections %d and %d overlap", of[n-1], of[n])
		}
	}
	return nil
}

// text finds a string in a string table, of which it is a part: however many names a hostile file
// has for the same bytes, they take no memory of their own.
func text(table string, at uint32) (string, error) {
	if uint64(at) >= uint64(len(table)) {
		if at == 0 {
			return "", nil
		}
		return "", fmt.Errorf("byte %d of a table of %d bytes", at, len(table))
	}
	s := table[at:min(uint64(len(table)), uint64(at)+maxName)]
	n := strings.IndexByte(s, 0)
	if n < 0 {
		return "", errors.New("it does not end")
	}
	return s[:n], nil
}

func (im *image) readSymbols() error {
	table := -1
	for i, s := range im.sections {
		if elf.SectionType(s.Type) != elf.SHT_SYMTAB {
			continue
		}
		if table >= 0 {
			return errors.New("several symbol tables")
		}
		table = i
	}
	if table < 0 {
		return errors.New("no symbol table: the object was stripped of what loaders need (llvm-strip -g keeps it)")
	}
	s := &im.sections[table]
	if s.Entsize != symbolSize || len(s.data)%symbolSize != 0 {
		return fmt.Errorf("a symbol table of %d bytes in entries of %d", len(s.data), s.Entsize)
	}
	if int(s.Link) >= len(im.sections) {
		return fmt.Errorf("the names of symbols are in section %d of %d", s.Link, len(im.sections))
	}
	names := string(im.sections[s.Link].data)
	im.symbols = make([]symbol, len(s.data)/symbolSize)
	for i := range im.symbols {
		sym := &im.symbols[i]
		if _, err := binary.Decode(s.data[i*symbolSize:], order, &sym.Sym64); err != nil {
			return fmt.Errorf("read symbol %d: %w", i, err)
		}
		name, err := text(names, sym.Name)
		if err != nil {
			return fmt.Errorf("read name of symbol %d: %w", i, err)
		}
		sym.name = name
		if sym.Shndx < uint16(elf.SHN_LORESERVE) && int(sym.Shndx) >= len(im.sections) {
			return fmt.Errorf("symbol %s is in section %d of %d", name, sym.Shndx, len(im.sections))
		}
	}
	return nil
}

// symbolTable is the section of the symbols.
func (im *image) symbolTable() *section {
	i := slices.IndexFunc(im.sections, func(s section) bool { return elf.SectionType(s.Type) == elf.SHT_SYMTAB })
	return &im.sections[i]
}

// definedIn returns the section that a symbol lies in; nil for undefined and absolute ones.
func (im *image) definedIn(sym *symbol) *section {
	if sym.Shndx == uint16(elf.SHN_UNDEF) || sym.Shndx >= uint16(elf.SHN_LORESERVE) {
		return nil
	}
	return &im.sections[sym.Shndx]
}

// relocations reads one section of relocations; their places lie in the section that it changes.
func (im *image) relocations(rel *section) ([]relocation, error) {
	if rel.Entsize != relSize || len(rel.data)%relSize != 0 {
		return nil, fmt.Errorf("section %s has %d bytes in entries of %d", rel.name, len(rel.data), rel.Entsize)
	}
	if int(rel.Info) >= len(im.sections) {
		return nil, fmt.Errorf("section %s is for section %d of %d", rel.name, rel.Info, len(im.sections))
	}
	target := &im.sections[rel.Info]
	list := make([]relocation, len(rel.data)/relSize)
	for i := range list {
		b := rel.data[i*relSize:]
		info := order.Uint64(b[8:])
		r := relocation{order.Uint64(b), int(info >> 32), uint32(info)}
		switch {
		case r.offset >= uint64(len(target.data)):
			return nil, fmt.Errorf("section %s: relocation %d is for byte %d of %d", rel.name, i, r.offset, len(target.data))
		case r.symbol >= len(im.symbols):
			return nil, fmt.Errorf("section %s: relocation %d names symbol %d of %d", rel.name, i, r.symbol, len(im.symbols))
		}
		list[i] = r
	}
	return list, nil
}

// byName returns the sections of a name.
func (im *image) byName(name string) []int {
	var found []int
	for i, s := range im.sections {
		if s.name == name {
			found = append(found, i)
		}
	}
	return found
}
