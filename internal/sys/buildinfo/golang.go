// SPDX-License-Identifier: Apache-2.0

package buildinfo

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"time"
)

// Most that is looked at of an executable: its header, its table of sections, and their names.
const (
	maxSections = 4096
	maxNames    = 256 << 10
)

// The sizes of an ELF header and of an entry in the table of sections, for 64 bits.
const (
	headerSize  = 64
	sectionSize = 64
)

// goSection is where Go's linker puts what Read reads. Stripping leaves it in place.
const goSection = ".go.buildinfo"

// IsGo reports whether an executable was linked by Go's toolchain. It is for files that nobody
// vouches for, which package debug/buildinfo is not: what it reads is bounded, and what is no ELF
// for 64 bits, little-endian, is none of Go's.
func IsGo(f io.ReaderAt) bool {
	sections, names := sectionsOf(f)
	for _, s := range sections {
		if uint64(s.Name) < uint64(len(names)) && bytes.HasPrefix(names[s.Name:], []byte(goSection+"\x00")) {
			return true
		}
	}
	return false
}

// IsGoFile is IsGo of a file that may not answer: executables are in memory as a rule, but one may
// be on a file system that hangs. Then the answer is no, after a while.
func IsGoFile(path string, patience time.Duration) bool {
	answer := make(chan bool, 1)
	go func() {
		f, err := os.Open(path)
		if err != nil {
			answer <- false
			return
		}
		defer f.Close()
		answer <- IsGo(f)
	}()
	select {
	case is := <-answer:
		return is
	case <-time.After(patience):
		return false
	}
}

// sectionsOf reads the table of sections and their names, and gives none where there is no such
// table.
func sectionsOf(f io.ReaderAt) (sections []elf.Section64, names []byte) {
	b := part(f, 0, headerSize)
	if len(b) < headerSize || !bytes.HasPrefix(b, []byte(elf.ELFMAG)) ||
		elf.Class(b[elf.EI_CLASS]) != elf.ELFCLASS64 || elf.Data(b[elf.EI_DATA]) != elf.ELFDATA2LSB {
		return nil, nil
	}
	var h elf.Header64
	if _, err := binary.Decode(b, binary.LittleEndian, &h); err != nil || h.Shentsize != sectionSize || h.Shnum > maxSections || h.Shstrndx >= h.Shnum {
		return nil, nil
	}
	sections = make([]elf.Section64, h.Shnum)
	if _, err := binary.Decode(part(f, h.Shoff, uint64(h.Shnum)*sectionSize), binary.LittleEndian, sections); err != nil {
		return nil, nil
	}
	s := sections[h.Shstrndx]
	return sections, part(f, s.Off, min(s.Size, maxNames))
}

// part is what there is of a range of a file, of a size that the caller bounds.
func part(f io.ReaderAt, off, size uint64) []byte {
	if off > 1<<62 {
		return nil
	}
	b := make([]byte, size)
	n, err := f.ReadAt(b, int64(off))
	if err != nil && err != io.EOF {
		return nil
	}
	return b[:n]
}
