// SPDX-License-Identifier: Apache-2.0

package object

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
)

// Limits of an executable in which objects are looked for, and of what is found.
const (
	MaxExecutable = 4 << 30
	maxEmbedded   = 1000
	// An object that clang writes has some dozens of sections.
	maxEmbeddedSections = 10_000
)

// Embedded is an object in the data of an executable, at an offset of its file.
type Embedded struct {
	Offset int64
	Bytes  []byte
}

// ReadEmbedded yields the BPF objects that the executable in a file carries as data, as programs
// in Go (bpf2go, go:embed), C (skeletons) and Rust do. They are what says of itself that it is one:
// each may still be refused by [Parse]. An error ends it, and does not name the file.
func ReadEmbedded(path string) iter.Seq2[Embedded, error] {
	return func(yield func(Embedded, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(Embedded{}, cause(err))
			return
		}
		defer f.Close()
		info, err := f.Stat()
		switch {
		case err != nil:
			yield(Embedded{}, cause(err))
			return
		case info.Size() > MaxExecutable:
			yield(Embedded{}, fmt.Errorf("larger than %d GiB", MaxExecutable>>30))
			return
		}
		for e, err := range embedded(f, info.Size()) {
			if !yield(e, err) {
				return
			}
		}
	}
}

// The first bytes of a 64-bit little-endian ELF of the one version that there is.
var elfStart = []byte(elf.ELFMAG + string([]byte{byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}))

const (
	// window is how much of an executable is in memory, besides an object.
	window = 1 << 20
	// maxWasted is how much is read of what turns out to be no object. Code that writes ELF has
	// some such headers, but not many.
	maxWasted = 16 << 20
)

// embedded looks at each byte once, and once more at those of what it finds: an object lies behind
// the one before it.
func embedded(f io.ReaderAt, size int64) iter.Seq2[Embedded, error] {
	return func(yield func(Embedded, error) bool) {
		s := scanner{f: f, size: size, buf: make([]byte, window)}
		for count, wasted := 0, int64(0); ; {
			at, err := s.next()
			if err == io.EOF {
				return
			}
			length, read := int64(0), int64(0)
			if err == nil {
				length, read = extent(f, at, size)
			}
			switch {
			case err != nil:
			case length == 0:
				if wasted += read; wasted <= maxWasted {
					s.at = at + int64(len(elfStart))
					continue
				}
				err = errors.New("too much in it looks like an ELF object")
			case count == maxEmbedded:
				err = fmt.Errorf("more than %d BPF objects in it", maxEmbedded)
			}
			e := Embedded{Offset: at, Bytes: make([]byte, length)}
			if err == nil {
				_, err = io.ReadFull(io.NewSectionReader(f, at, length), e.Bytes)
			}
			if err != nil {
				yield(Embedded{}, cause(err))
				return
			}
			if !yield(e, nil) {
				return
			}
			count++
			s.at = at + length
		}
	}
}

// scanner finds the places where an ELF may begin.
type scanner struct {
	f    io.ReaderAt
	size int64
	at   int64 // where to go on
	buf  []byte
	data []byte // what is in memory, from base on
	base int64
}

// next returns the next place, at or behind s.at; io.EOF where there is none.
func (s *scanner) next() (int64, error) {
	for s.at+headerSize <= s.size {
		if s.at+int64(len(elfStart)) > s.base+int64(len(s.data)) {
			n, err := s.f.ReadAt(s.buf[:min(window, s.size-s.at)], s.at)
			if err != nil && err != io.EOF {
				return 0, err
			}
			if s.base, s.data = s.at, s.buf[:n]; n < len(elfStart) {
				return 0, io.EOF // it has become shorter
			}
		}
		if i := bytes.Index(s.data[s.at-s.base:], elfStart); i >= 0 {
			s.at += int64(i)
			return s.at, nil
		}
		s.at = s.base + int64(len(s.data)-len(elfStart)+1)
	}
	return 0, io.EOF
}

// extent is how long the object is whose header begins at an offset, and 0 where no header of a BPF
// object does: nothing else in an executable is relocatable, for BPF, without segments, and with
// sections inside the file whose names are in a table of strings. read is how much was read for it.
func extent(f io.ReaderAt, at, size int64) (length, read int64) {
	var h elf.Header64
	b := make([]byte, headerSize)
	if _, err := f.ReadAt(b, at); err != nil {
		return 0, 0
	}
	rest := uint64(size - at)
	if _, err := binary.Decode(b, order, &h); err != nil || !plausible(&h, rest) {
		return 0, headerSize
	}
	table := make([]byte, int(h.Shnum)*sectionSize)
	read = int64(headerSize + len(table))
	if _, err := f.ReadAt(table, at+int64(h.Shoff)); err != nil {
		return 0, read
	}
	sections := make([]elf.Section64, h.Shnum)
	if _, err := binary.Decode(table, order, sections); err != nil || elf.SectionType(sections[h.Shstrndx].Type) != elf.SHT_STRTAB {
		return 0, read
	}
	end := h.Shoff + uint64(len(table))
	for _, s := range sections {
		switch t := elf.SectionType(s.Type); {
		case t == elf.SHT_NULL || t == elf.SHT_NOBITS:
		case s.Off > rest || s.Size > rest-s.Off:
			return 0, read
		default:
			end = max(end, s.Off+s.Size)
		}
	}
	if end > MaxSize {
		return 0, read
	}
	return int64(end), read
}

// plausible reports a header that an object may have, of which rest bytes are left in the file.
func plausible(h *elf.Header64, rest uint64) bool {
	switch {
	case elf.Machine(h.Machine) != elf.EM_BPF, elf.Type(h.Type) != elf.ET_REL, h.Version != uint32(elf.EV_CURRENT),
		h.Ehsize != headerSize, h.Phoff != 0, h.Phnum != 0:
		return false
	case h.Shentsize != sectionSize, h.Shnum > maxEmbeddedSections, h.Shstrndx >= h.Shnum:
		return false
	}
	return h.Shoff >= headerSize && h.Shoff <= rest && uint64(h.Shnum)*sectionSize <= rest-h.Shoff
}
