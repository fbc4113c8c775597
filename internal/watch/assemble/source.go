// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/bpfwhy/bpfwhy/load"
)

// Bounds of what is read from BTF and line_info, which a hostile loader writes.
const (
	maxLines = 128 << 10
	maxText  = 256     // bytes of one string
	maxTexts = 4 << 20 // of all of them
)

// sourceLines reads line_info (struct bpf_line_info: insn_off, file_name_off, line_off, line_col)
// with the strings of the program's BTF. recSize is the loader's. The result ascends by slot.
func sourceLines(info, btf *bytesOf, recSize, count uint32) (lines []load.SourceLine, cut bool) {
	const least = 16
	if info == nil || recSize < least || recSize > 252 {
		return nil, false
	}
	strs := newStrings(btf)
	n := min(info.total/uint64(recSize), uint64(count))
	if n > maxLines {
		n, cut = maxLines, true
	}
	data, _ := info.prefix()
	n = min(n, uint64(len(data))/uint64(recSize))
	lines = make([]load.SourceLine, 0, n)
	for i := range n {
		r := data[i*uint64(recSize):][:least]
		col := binary.LittleEndian.Uint32(r[12:])
		lines = append(lines, load.SourceLine{
			Insn: int(binary.LittleEndian.Uint32(r)),
			File: strs.at(binary.LittleEndian.Uint32(r[4:])),
			Text: strs.at(binary.LittleEndian.Uint32(r[8:])),
			Line: int(col >> 10),
			Col:  int(col & 0x3ff),
		})
	}
	slices.SortStableFunc(lines, func(a, b load.SourceLine) int { return a.Insn - b.Insn })
	return lines, cut
}

// btfStrings is the string section of a program's BTF.
type btfStrings struct {
	btf   *bytesOf
	off   uint64 // of the section
	len   uint64
	cache map[uint32]string
	size  int
}

// newStrings reads the header of BTF (struct btf_header). A header that does not make sense gives
// no strings.
func newStrings(btf *bytesOf) *btfStrings {
	s := &btfStrings{btf: btf, cache: make(map[uint32]string)}
	h := btf.slice(0, 24)
	if len(h) < 24 || binary.LittleEndian.Uint16(h) != 0xeb9f {
		return s
	}
	s.off = uint64(binary.LittleEndian.Uint32(h[4:])) + uint64(binary.LittleEndian.Uint32(h[16:]))
	s.len = uint64(binary.LittleEndian.Uint32(h[20:]))
	return s
}

func (s *btfStrings) at(off uint32) string {
	if uint64(off) >= s.len {
		return ""
	}
	if v, ok := s.cache[off]; ok {
		return v
	}
	b := s.btf.slice(s.off+uint64(off), int(min(maxText, s.len-uint64(off))))
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	s.size += len(b)
	if s.size > maxTexts {
		return ""
	}
	v := visible(string(b))
	s.cache[off] = v
	return v
}

// place is where a slot comes from: "file.c:12", and the line itself.
func place(e *load.Evidence, slot int) (at, text string) {
	l, ok := e.Source(slot)
	if !ok || l.File == "" && l.Line == 0 {
		return "", ""
	}
	return fmt.Sprintf("%s:%d", l.File, l.Line), l.Text
}
