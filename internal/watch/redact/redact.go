// SPDX-License-Identifier: Apache-2.0

// Package redact takes kernel addresses out of what is recorded: traces and JSON are handed around,
// and must not tell where in memory a kernel is. Numbers that are none stay as they are.
//
// What tells the two apart: the kernel's data lies in ranges in which bounds, masks and constants
// of programs do not. Its code and modules lie among the 32-bit numbers with a sign (-559038737 is
// as likely a hash); there a number is an address only if an instruction loads it as 64 bits, which
// no compiler does with a number that fits 32, or if it is close to such a one.
package redact

import (
	"bufio"
	"encoding/binary"
	"math/bits"
	"os"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/insn"
)

// Placeholder stands where a program had an address. It is none: no processor takes it for one.
const Placeholder = 0x0badadd7_0badadd7

// Levels of page tables: what is an address depends on them (Documentation/arch/x86/x86_64/mm.rst).
type Levels int

// The two of x86-64.
const (
	Four Levels = 4
	Five Levels = 5
)

// Host returns the levels of this machine's kernel. Where that cannot be read, five: the ranges of
// four are among them.
func Host() Levels {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return Five
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if flags, ok := strings.CutPrefix(lines.Text(), "flags"); ok {
			// the kernel takes the flag away when it runs with four
			if slices.Contains(strings.Fields(flags), "la57") {
				return Five
			}
			return Four
		}
	}
	return Five
}

// data reports whether a number lies where the kernel has its data: the direct map, vmalloc, page
// structures, the processors' own.
func (l Levels) data(v uint64) bool {
	from := uint64(0xffff8800_00000000)
	if l == Five {
		from = 0xff100000_00000000
	}
	return v >= from && v < 0xfffffe80_00000000 && !round(v)
}

// image reports whether a number lies where the kernel has its code and modules.
func image(v uint64) bool { return v > 0xffffffff_80000000 && v < 0xffffffff_ffe00000 && !round(v) }

func (l Levels) address(v uint64) bool { return l.data(v) || image(v) }

// round numbers are masks and bounds: all ones above some bit and zeros below, or all ones but one.
func round(v uint64) bool { return bits.OnesCount64(-v) <= 1 || bits.OnesCount64(^v) <= 1 }

// Load is what belongs to one load: an address of its instructions is recognised in its log.
type Load struct {
	levels Levels
	known  []uint64
}

// New starts with nothing known.
func New(l Levels) *Load { return &Load{levels: l} }

// Most addresses of one load that are remembered.
const maxKnown = 1024

func (l *Load) know(v uint64) {
	if len(l.known) < maxKnown && !slices.Contains(l.known, v) {
		l.known = append(l.known, v)
	}
}

// near reports whether a number is one of the addresses of the load, or was computed from one.
func (l *Load) near(v uint64) bool {
	const close = 1 << 20
	return slices.ContainsFunc(l.known, func(k uint64) bool { return v-k < close || k-v < close })
}

const (
	slot     = 8
	ldImm64  = 0x18
	movImm64 = 0xb7
	movImm32 = 0xb4
	movReg64 = 0xbf
	perCPU   = -1 // the offset of a move that makes a per-CPU address of a register (BPF_ADDR_PERCPU)
)

// Hold reports whether there are addresses in a program, or in a stretch of one that is cut out of
// it.
func (l *Load) Hold(code []byte, cut bool) bool { return l.walk(code, cut, false) }

// Submitted replaces the addresses in a program, or a stretch of one, in place. It reports whether
// there were any and the program matched its tag, which was made of them, before.
func (l *Load) Submitted(code []byte, cut bool, tag []byte) (matched bool) {
	if !l.Hold(code, cut) {
		return false
	}
	if prog, err := insn.Decode(code[:len(code)/slot*slot]); err == nil && len(tag) == 8 {
		matched = insn.MatchesTag(prog, [8]byte(tag))
	}
	l.Instructions(code, cut)
	return matched
}

// Piece is a part of what was copied, from an offset of the whole on.
type Piece struct {
	At   uint64
	Data []byte
}

// Copied is what was copied for a load: pieces in the order of their offsets, perhaps with holes
// between them.
type Copied struct{ Insns, Translated, Log, BTFLog []Piece }

// Copied replaces the addresses in all of it, in place. It reports whether there were any in the
// instructions as submitted and these matched the tag, which was made of them, before.
func (l *Load) Copied(c *Copied, tag []byte) (matched bool) {
	runs(c.Insns, slot, func(code []byte, cut bool) { matched = l.Submitted(code, cut, tag) || matched })
	runs(c.Translated, slot, l.Instructions)
	runs(c.Log, 1, l.Log)
	runs(c.BTFLog, 1, l.Log)
	return matched
}

// runs gives each stretch without a hole to a function, which may change it in place, from the
// first whole unit on. cut are those that do not begin where the whole does.
func runs(pieces []Piece, unit uint64, change func(b []byte, cut bool)) {
	for n := 0; len(pieces) > 0; pieces = pieces[n:] {
		for n = 1; n < len(pieces) && pieces[n].At == pieces[n-1].At+uint64(len(pieces[n-1].Data)); n++ {
		}
		run := pieces[:n]
		whole := run[0].Data
		if n > 1 {
			whole = nil
			for _, p := range run {
				whole = append(whole, p.Data...)
			}
		}
		skip := int(-run[0].At % unit)
		change(whole[min(skip, len(whole)):], run[0].At != 0)
		if n > 1 {
			for _, p := range run {
				whole = whole[copy(p.Data, whole):]
			}
		}
	}
}

// Instructions replaces the addresses in a program, or a stretch, in place.
func (l *Load) Instructions(code []byte, cut bool) { l.walk(code, cut, true) }

//revive:disable-next-line:cyclomatic a case for each place of an address in an instruction
func (l *Load) walk(code []byte, cut, replace bool) (found bool) {
	put := func(at int, v uint32) {
		if found = true; replace {
			binary.LittleEndian.PutUint32(code[at:], v)
		}
	}
	// The second slot of a 64-bit load has no operation: the upper half of an address, perhaps.
	if cut && len(code) >= slot && binary.LittleEndian.Uint32(code) == 0 && binary.LittleEndian.Uint32(code[4:]) >= 0xff100000 {
		put(4, 0)
	}
	for ; len(code) >= slot; code = code[slot:] {
		low := binary.LittleEndian.Uint32(code[4:])
		switch {
		case code[0] == ldImm64 && len(code) >= 2*slot:
			v := uint64(low) | uint64(binary.LittleEndian.Uint32(code[slot+4:]))<<32
			if l.levels.address(v) {
				l.know(v)
				put(4, Placeholder&0xffffffff)
				put(slot+4, Placeholder>>32)
			}
			code = code[slot:]
		case code[0] == ldImm64: // the copy ends here: half an address
			if low != 0 {
				put(4, 0)
			}
		case (code[0] == movImm64 || code[0] == movImm32) && len(code) >= 2*slot && code[slot] == movReg64 &&
			int16(binary.LittleEndian.Uint16(code[slot+2:])) == perCPU && image(uint64(int64(int32(low)))):
			// a per-CPU variable of the kernel's, as the verifier puts it in the place of a helper
			put(4, Placeholder&0xffffffff)
		}
	}
	return found
}

// Words replaces the addresses among the 8-byte words of arguments that the kernel made itself.
func (l *Load) Words(b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		if v := binary.LittleEndian.Uint64(b); l.levels.address(v) {
			binary.LittleEndian.PutUint64(b, Placeholder)
		}
	}
}
