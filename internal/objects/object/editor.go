// SPDX-License-Identifier: Apache-2.0

package object

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
)

// The object with other instructions: everything that refers to one is moved.

// editor writes an object whose code sections have changed.
type editor struct {
	object *Object
	image  *image
	edits  map[int]*edit  // by section
	types  map[int]string // program types, by function; a subprogram can be of any
	report []FixedFunction
}

// edit is a code section that has changed.
type edit struct {
	program []insn.Instruction
	new     []int // where each slot of the original is now; one more for the end
}

// section rewrites the functions of a section that need it.
func (e *editor) section(c *code, options FixOptions) error {
	ed := &edit{new: make([]int, 0, len(c.insns)+1)}
	// copyTo takes slots over as they are.
	copyTo := func(end int) {
		for i := len(ed.new); i < end; i++ {
			ed.new = append(ed.new, len(ed.program))
			ed.program = append(ed.program, c.insns[i])
		}
	}
	changed := false
	first, end := e.object.functionsOf(c.section)
	for i := first; i < end; i++ {
		f := &e.object.functions[i]
		r, limit, err := e.object.rewrite(c, f, options, blinding.Source{Type: e.types[i]})
		if err != nil {
			return fmt.Errorf("function %s: %w", f.Name, err)
		}
		if copyTo(f.start); r == nil {
			copyTo(f.end)
			continue
		}
		changed = true
		at := len(ed.program)
		for _, n := range r.New[:f.end-f.start] {
			ed.new = append(ed.new, at+n)
		}
		ed.program = append(ed.program, r.Program...)
		e.report = append(e.report, e.object.account(f, limit, r))
	}
	if copyTo(len(c.insns)); !changed {
		return nil
	}
	ed.new = append(ed.new, len(ed.program))
	// Calls inside the section that no relocation is for hold the distance.
	for i, in := range c.insns {
		ed.program[ed.new[i]].Src = in.Src
		if _, relocated := c.at(i); relocated {
			continue
		}
		if to, ok := in.CallTarget(i); ok {
			if to < 0 || to >= len(c.insns) {
				return fmt.Errorf("section %s: instruction %d names a function outside", e.image.sections[c.section].name, i)
			}
			ed.program[ed.new[i]].Imm = int32(ed.new[to] - ed.new[i] - 1)
		}
	}
	e.edits[c.section] = ed
	return nil
}

// signature is how files end that scripts/sign-file of the kernel has signed.
var signature = []byte("~Module signature appended~\n")

// refuse says why an object must keep its instructions.
func (e *editor) refuse() error {
	im := e.image
	if bytes.HasSuffix(im.bytes, signature) {
		return errors.New("the object is signed, and a changed one would not match its signature: fix it, then sign it")
	}
	if im.header.Phnum != 0 {
		return errors.New("the object has program headers, which name places in the file")
	}
	names := map[string]int{}
	for i, s := range im.sections {
		switch t := elf.SectionType(s.Type); {
		case s.name == ".jumptables":
			return errors.New("the object has jump tables (an instruction array), which hold places in the code")
		case s.name == ".signature" || s.name == ".sig":
			return fmt.Errorf("the object is signed (section %s), and a changed one would not match its signature: fix it, then sign it", s.name)
		case t == elf.SHT_RELA && e.inCode(&s):
			return fmt.Errorf("section %s has relocations with addends that name code", s.name)
		case s.isCode():
			names[s.name]++
		}
		if e.edits[i] != nil && names[s.name] > 1 {
			return fmt.Errorf("two sections of code have the name %s, so that .BTF.ext could mean either", s.name)
		}
	}
	return nil
}

// inCode reports whether relocations with addends name a changed section.
func (e *editor) inCode(s *section) bool {
	const relaSize = 24
	for b := s.data; len(b) >= relaSize; b = b[relaSize:] {
		sym := int(order.Uint64(b[8:]) >> 32)
		if sym >= len(e.image.symbols) || e.edits[int(e.image.symbols[sym].Shndx)] != nil {
			return true
		}
	}
	return false
}

// moved returns where a byte of a section is now; the byte after the last is one too.
func (e *editor) moved(section int, at uint64) (uint64, error) {
	r := e.edits[section]
	if r == nil {
		return at, nil
	}
	slot := at / insn.Size
	if slot >= uint64(len(r.new)) || slot == uint64(len(r.new))-1 && at%insn.Size != 0 {
		return 0, fmt.Errorf("byte %d is not in section %s", at, e.image.sections[section].name)
	}
	return uint64(r.new[slot])*insn.Size + at%insn.Size, nil
}

// build writes the object: first whatever keeps its size, in a copy, then the sections that grow in
// between.
func (e *editor) build() ([]byte, error) {
	b := slices.Clone(e.image.bytes)
	if err := e.symbols(b); err != nil {
		return nil, fmt.Errorf("move symbols: %w", err)
	}
	if err := e.places(b); err != nil {
		return nil, fmt.Errorf("move .BTF.ext: %w", err)
	}
	sections := map[int][]byte{} // new code
	for i, r := range e.edits {
		sections[i] = insn.Encode(r.program)
	}
	for i := range e.image.sections {
		s := &e.image.sections[i]
		if elf.SectionType(s.Type) != elf.SHT_REL || int(s.Info) >= len(e.image.sections) {
			continue
		}
		if err := e.relocations(b, s, sections[int(s.Info)]); err != nil {
			return nil, fmt.Errorf("move relocations of section %s: %w", s.name, err)
		}
	}
	return e.layout(b, sections)
}

// symbols moves what is defined in changed sections.
func (e *editor) symbols(b []byte) error {
	table := b[e.image.symbolTable().Off:]
	for i, sym := range e.image.symbols {
		section := int(sym.Shndx)
		if e.edits[section] == nil {
			continue
		}
		value, err := e.moved(section, sym.Value)
		if err != nil {
			return fmt.Errorf("%s: %w", describe(e.image, &sym), err)
		}
		order.PutUint64(table[i*symbolSize+8:], value)
		if sym.Size == 0 {
			continue
		}
		end, err := e.moved(section, sym.Value+sym.Size)
		if err != nil {
			return fmt.Errorf("%s: %w", describe(e.image, &sym), err)
		}
		order.PutUint64(table[i*symbolSize+16:], end-value)
	}
	return nil
}

// places moves what .BTF.ext says about changed sections.
func (e *editor) places(b []byte) error {
	x := e.object.ext
	if x == nil {
		return nil
	}
	byName := map[string]int{}
	for i := range e.edits {
		byName[e.image.sections[i].name] = i
	}
	start := e.image.sections[x.section].Off
	for _, p := range x.places {
		section, ok := byName[p.about]
		if !ok {
			continue
		}
		at, err := e.moved(section, uint64(p.offset))
		if err != nil {
			return err
		}
		order.PutUint32(b[start+uint64(p.at):], uint32(at))
	}
	return nil
}

// relocations moves the places that the relocations of a section are for, and the addends that lie
// there and name code. grown is the new code of the section that they are for, nil if that has not
// changed.
func (e *editor) relocations(b []byte, rel *section, grown []byte) error {
	list, err := e.image.relocations(rel)
	if err != nil {
		return err
	}
	about := int(rel.Info)
	in := &e.image.sections[about]
	for n, r := range list {
		at, err := e.moved(about, r.offset)
		if err != nil {
			return err
		}
		order.PutUint64(b[rel.Off+uint64(n)*relSize:], at)
		sym := &e.image.symbols[r.symbol]
		if e.edits[int(sym.Shndx)] == nil || e.object.ext != nil && about == e.object.ext.section {
			continue // loaders take what .BTF.ext says as it is, and places has moved that
		}
		field := b[in.Off+r.offset : in.Off+uint64(len(in.data))]
		if grown != nil {
			field = grown[at:]
		}
		if in.isCode() {
			err = e.immediate(field, sym)
		} else {
			err = e.addend(field, r.kind, sym)
		}
		if err != nil {
			return fmt.Errorf("relocation %d: %w", n, err)
		}
	}
	return nil
}

// immediate moves what an instruction says about a place in a changed section.
func (e *editor) immediate(field []byte, sym *symbol) error {
	in, err := insn.Decode(field[:insn.Size])
	if err != nil {
		return err
	}
	slot, err := target(in[0], sym)
	if err != nil {
		return err
	}
	section := int(sym.Shndx)
	to, err := e.moved(section, uint64(slot)*insn.Size)
	if err != nil {
		return err
	}
	base, err := e.moved(section, sym.Value)
	if err != nil {
		return err
	}
	distance := int64(to) - int64(base)
	if !in[0].IsWide() {
		distance = distance/insn.Size - 1
	}
	order.PutUint32(field[4:], uint32(int32(distance)))
	return nil
}

// addend moves a place in a changed section that data holds.
func (e *editor) addend(field []byte, kind uint32, sym *symbol) error {
	size := 0
	switch kind {
	case relocLoad64, relocAbs64:
		size = 8
	case relocAbs32, relocNoDyn, relocCall32:
		size = 4
	default:
		return fmt.Errorf("type %d is not known", kind)
	}
	if len(field) < size {
		return errors.New("it is cut off")
	}
	addend := int64(int32(order.Uint32(field)))
	if size == 8 {
		addend = int64(order.Uint64(field))
	}
	if addend < 0 && uint64(-addend) > sym.Value {
		return fmt.Errorf("it names byte %d before section %s", addend, e.image.definedIn(sym).name)
	}
	section := int(sym.Shndx)
	to, err := e.moved(section, sym.Value+uint64(addend))
	if err != nil {
		return err
	}
	base, err := e.moved(section, sym.Value)
	if err != nil {
		return err
	}
	if size == 8 {
		order.PutUint64(field, to-base)
	} else {
		order.PutUint32(field, uint32(to-base))
	}
	return nil
}

// layout makes room for the sections that grow. What lies behind moves by a multiple of every
// alignment.
func (e *editor) layout(b []byte, code map[int][]byte) ([]byte, error) {
	im := e.image
	h := &im.header
	align := uint64(insn.Size)
	tableEnd := h.Shoff + uint64(h.Shnum)*sectionSize
	for i, s := range im.sections {
		if s.Addralign > align {
			align = s.Addralign
		}
		if align&(align-1) != 0 || align > 1<<16 {
			return nil, fmt.Errorf("section %d is aligned to %d bytes", i, s.Addralign)
		}
		if len(s.data) > 0 && (s.Off < headerSize || s.Off < tableEnd && h.Shoff < s.end()) {
			return nil, fmt.Errorf("section %d overlaps the headers", i)
		}
	}
	grown := slices.SortedFunc(maps.Keys(code), func(a, b int) int { return int(int64(im.sections[a].Off) - int64(im.sections[b].Off)) })
	extra := func(i int) uint64 {
		more := uint64(len(code[i])) - uint64(len(im.sections[i].data))
		return (more + align - 1) &^ (align - 1)
	}
	// ends[n] is where the n-th grown section ended, moves[n] by how much what is there or later
	// moves.
	ends, moves, move := make([]uint64, len(grown)), make([]uint64, len(grown)), uint64(0)
	for n, i := range grown {
		move += extra(i)
		ends[n], moves[n] = im.sections[i].end(), move
	}
	place := func(off uint64) uint64 {
		n, found := slices.BinarySearch(ends, off)
		if found {
			n++
		}
		if n == 0 {
			return off
		}
		return off + moves[n-1]
	}
	order.PutUint64(b[40:], place(h.Shoff))
	for i, s := range im.sections {
		header := b[h.Shoff+uint64(i)*sectionSize:]
		order.PutUint64(header[24:], place(s.Off))
		if c, ok := code[i]; ok {
			order.PutUint64(header[32:], uint64(len(c)))
		}
	}
	var out []byte
	from := uint64(0)
	for _, i := range grown {
		s := &im.sections[i]
		out = append(out, b[from:s.Off]...)
		out = append(out, code[i]...)
		out = append(out, make([]byte, uint64(len(s.data))+extra(i)-uint64(len(code[i])))...)
		from = s.end()
	}
	return append(out, b[from:]...), nil
}
