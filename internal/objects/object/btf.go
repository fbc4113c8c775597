// SPDX-License-Identifier: Apache-2.0

package object

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/insn"
)

// types is what is needed of .BTF: strings, and which symbols are declared to come from the kernel.
type types struct {
	strings string
	externs map[string]externKind
	// callbacks are the exception callbacks of functions, by the function's name: libbpf links them
	// without a call.
	callbacks map[string]string
	// maps are the types (enum bpf_map_type) of maps, by the name of their variable.
	maps map[string]uint32
}

type externKind int

const (
	externNone externKind = iota
	externFunction
	externVariable
)

// Kinds of BTF types that are looked at, and the linkage of what is defined elsewhere. Source:
// include/uapi/linux/btf.h.
const (
	btfMagic = 0xeb9f

	kindPtr     = 2
	kindArray   = 3
	kindStruct  = 4
	kindVar     = 14
	kindFunc    = 12
	kindDeclTag = 17

	linkageExtern = 2

	exceptionTag = "exception_callback:"
)

// Kinds of CO-RE relocations whose value depends on whether the kernel has something: of a field,
// and all from this one on but the size of a type. Source: enum bpf_core_relo_kind of
// include/uapi/linux/bpf.h.
const (
	coreFieldExists = 2
	coreTypeExists  = 8
)

// after gives the number of bytes that follow the 12 of a type.
func after(kind, vlen int) (int, bool) {
	switch kind {
	case 1, kindVar, kindDeclTag: // INT
		return 4, true
	case 2, 7, 8, 9, 10, 11, kindFunc, 16, 18: // PTR, FWD, TYPEDEF, qualifiers, FLOAT, TYPE_TAG
		return 0, true
	case 3: // ARRAY
		return 12, true
	case 4, 5, 15, 19: // STRUCT, UNION, DATASEC, ENUM64
		return 12 * vlen, true
	case 6, 13: // ENUM, FUNC_PROTO
		return 8 * vlen, true
	}
	return 0, false
}

// readTypes reads .BTF and .BTF.ext, where they are.
func (o *Object) readTypes() error {
	of := o.image.byName(".BTF")
	if len(of) == 0 {
		return nil
	}
	t, err := parseTypes(o.image.sections[of[0]].data)
	if err != nil {
		return fmt.Errorf("section .BTF: %w", err)
	}
	o.btf = t
	of = o.image.byName(".BTF.ext")
	if len(of) == 0 {
		return nil
	}
	if o.ext, err = parseExt(o.image.sections[of[0]].data, t); err != nil {
		return fmt.Errorf("section .BTF.ext: %w", err)
	}
	o.ext.section = of[0]
	return nil
}

//revive:disable-next-line:cyclomatic hostile files: each number is checked
func parseTypes(b []byte) (*types, error) {
	if len(b) < 24 || order.Uint16(b) != btfMagic {
		return nil, errors.New("no BTF header")
	}
	headerLen := uint64(order.Uint32(b[4:]))
	part := func(at int) ([]byte, error) {
		off, size := headerLen+uint64(order.Uint32(b[at:])), uint64(order.Uint32(b[at+4:]))
		if !inside(b, off, size) {
			return nil, fmt.Errorf("%d bytes at byte %d of %d", size, off, len(b))
		}
		return b[off : off+size], nil
	}
	list, err := part(8)
	if err != nil {
		return nil, fmt.Errorf("read types: %w", err)
	}
	t := &types{externs: map[string]externKind{}, callbacks: map[string]string{}}
	names, err := part(16)
	if err != nil {
		return nil, fmt.Errorf("read strings: %w", err)
	}
	t.strings = string(names)
	functions := map[int]string{} // by type id
	var m mapTypes
	tags := map[int]string{}
	for id := 1; len(list) > 0; id++ {
		if len(list) < 12 {
			return nil, fmt.Errorf("type %d is cut off", id)
		}
		name, info, ref := order.Uint32(list), order.Uint32(list[4:]), order.Uint32(list[8:])
		kind, vlen := int(info>>24&0x1f), int(info&0xffff)
		n, ok := after(kind, vlen)
		if !ok {
			return nil, fmt.Errorf("type %d is of the unknown kind %d", id, kind)
		}
		if len(list) < 12+n {
			return nil, fmt.Errorf("type %d is cut off", id)
		}
		if err := m.add(t.strings, uint32(id), kind, vlen, name, ref, list[12:12+n]); err != nil {
			return nil, fmt.Errorf("type %d: %w", id, err)
		}
		switch {
		case kind == kindFunc:
			s, err := text(t.strings, name)
			if err != nil {
				return nil, fmt.Errorf("read name of type %d: %w", id, err)
			}
			functions[id] = s
			if vlen == linkageExtern {
				t.externs[s] = externFunction
			}
		case kind == kindVar && order.Uint32(list[12:]) == linkageExtern:
			s, err := text(t.strings, name)
			if err != nil {
				return nil, fmt.Errorf("read name of type %d: %w", id, err)
			}
			t.externs[s] = externVariable
		case kind == kindDeclTag:
			s, err := text(t.strings, name)
			if err != nil {
				return nil, fmt.Errorf("read name of type %d: %w", id, err)
			}
			if callback, ok := strings.CutPrefix(s, exceptionTag); ok {
				tags[int(ref)] = callback
			}
		}
		list = list[12+n:]
	}
	for id, callback := range tags {
		if f, ok := functions[id]; ok {
			t.callbacks[f] = callback
		}
	}
	t.maps = m.all()
	return t, nil
}

// ext is .BTF.ext: which function, line and relocation belongs to which instruction.
type ext struct {
	section int
	// places are the byte offsets, in the section, of every insn_off field, and the code section
	// that it is about.
	places []place
	lines  map[string][]line // by the name of the code section, in order
	core   map[string][]int  // slots with a CO-RE relocation, by the name of the code section, in order
	// asks are those of core whose relocation tells what the kernel has, so that a program can do
	// without it.
	asks map[string][]int
}

type place struct {
	at     int
	about  string // name of the code section
	offset uint32 // bytes in the code section
}

type line struct {
	slot         int
	file, source uint32 // offsets in the strings
	number       int
}

func parseExt(b []byte, t *types) (*ext, error) {
	if len(b) < 24 || order.Uint16(b) != btfMagic {
		return nil, errors.New("no BTF header")
	}
	headerLen := uint64(order.Uint32(b[4:]))
	if headerLen < 24 || headerLen > uint64(len(b)) {
		return nil, fmt.Errorf("a header of %d bytes", headerLen)
	}
	e := &ext{lines: map[string][]line{}, core: map[string][]int{}, asks: map[string][]int{}}
	for n, what := range []struct {
		name string
		size uint32 // of a record at least
	}{{"func_info", 8}, {"line_info", 16}, {"core_relo", 16}} {
		at := 8 + 8*n
		if uint64(at)+8 > headerLen {
			break // an older header, without core_relo
		}
		off, size := headerLen+uint64(order.Uint32(b[at:])), uint64(order.Uint32(b[at+4:]))
		if !inside(b, off, size) {
			return nil, fmt.Errorf("%s: %d bytes at byte %d of %d", what.name, size, off, len(b))
		}
		if err := e.table(b, int(off), int(off+size), what.size, t, what.name); err != nil {
			return nil, fmt.Errorf("%s: %w", what.name, err)
		}
	}
	for name := range e.core {
		slices.Sort(e.core[name])
	}
	for name := range e.lines {
		slices.SortStableFunc(e.lines[name], func(a, b line) int { return cmp.Compare(a.slot, b.slot) })
	}
	return e, nil
}

// table reads one of the three tables: the size of a record, then for each code section its name
// and its records, which begin with the byte offset of an instruction.
//
//revive:disable-next-line:cyclomatic hostile files: each number is checked
func (e *ext) table(b []byte, at, end int, least uint32, t *types, name string) error {
	if at == end {
		return nil
	}
	if end-at < 4 {
		return errors.New("cut off")
	}
	size := order.Uint32(b[at:])
	if size < least || size > 256 || size%4 != 0 {
		return fmt.Errorf("records of %d bytes", size)
	}
	for at += 4; at < end; {
		if end-at < 8 {
			return errors.New("cut off")
		}
		about, err := text(t.strings, order.Uint32(b[at:]))
		if err != nil {
			return fmt.Errorf("read section name: %w", err)
		}
		count := uint64(order.Uint32(b[at+4:]))
		at += 8
		if count == 0 || count*uint64(size) > uint64(end-at) {
			return fmt.Errorf("%d records about section %s in %d bytes", count, about, end-at)
		}
		for range count {
			off := order.Uint32(b[at:])
			if off%insn.Size != 0 {
				return fmt.Errorf("byte %d of section %s is no instruction", off, about)
			}
			e.places = append(e.places, place{at, about, off})
			switch name {
			case "line_info":
				e.lines[about] = append(e.lines[about], line{
					slot: int(off / insn.Size), file: order.Uint32(b[at+4:]), source: order.Uint32(b[at+8:]),
					number: int(order.Uint32(b[at+12:]) >> 10),
				})
			case "core_relo":
				e.core[about] = append(e.core[about], int(off/insn.Size))
				if kind := order.Uint32(b[at+12:]); kind >= coreTypeExists || kind == coreFieldExists {
					e.asks[about] = append(e.asks[about], int(off/insn.Size))
				}
			}
			at += int(size)
		}
	}
	return nil
}

// Line is a place in the source.
type Line struct {
	File   string
	Number int
	Text   string // "" where the compiler did not keep it
}

// record returns the line_info record of a slot of a section: the last one at or before it, but not
// before the function.
func (o *Object) record(f Function, slot int) (line, bool) {
	if o.ext == nil {
		return line{}, false
	}
	lines := o.ext.lines[f.Section]
	n, _ := slices.BinarySearchFunc(lines, slot+1, func(l line, slot int) int { return cmp.Compare(l.slot, slot) })
	if n == 0 || lines[n-1].slot < f.start {
		return line{}, false
	}
	return lines[n-1], true
}

// lineAt returns the line of a slot of a section.
func (o *Object) lineAt(f Function, slot int) (Line, bool) {
	l, ok := o.record(f, slot)
	if !ok {
		return Line{}, false
	}
	file, err := text(o.btf.strings, l.file)
	if err != nil || file == "" {
		return Line{}, false
	}
	source, err := text(o.btf.strings, l.source)
	if err != nil {
		source = ""
	}
	return Line{file, l.number, strings.TrimSpace(source)}, true
}

// mapTypes finds the types of maps. A map is a variable of a structure whose member "type" is a
// pointer to an array: its length is the type (__uint in libbpf's bpf_helpers.h).
type mapTypes struct {
	variables map[string]uint32 // the type of each, by its name
	members   map[uint32]uint32 // the type of the member "type" of each structure
	pointers  map[uint32]uint32
	lengths   map[uint32]uint32 // of arrays
}

func (m *mapTypes) add(strings string, id uint32, kind, vlen int, name, ref uint32, rest []byte) error {
	if m.variables == nil {
		m.variables, m.members = map[string]uint32{}, map[uint32]uint32{}
		m.pointers, m.lengths = map[uint32]uint32{}, map[uint32]uint32{}
	}
	switch kind {
	case kindPtr:
		m.pointers[id] = ref
	case kindArray:
		m.lengths[id] = order.Uint32(rest[8:])
	case kindVar:
		s, err := text(strings, name)
		if err != nil {
			return fmt.Errorf("read name: %w", err)
		}
		m.variables[s] = ref
	case kindStruct:
		for i := range vlen {
			member := rest[12*i:]
			if s, err := text(strings, order.Uint32(member)); err == nil && s == "type" {
				m.members[id] = order.Uint32(member[4:])
			}
		}
	}
	return nil
}

func (m *mapTypes) all() map[string]uint32 {
	all := map[string]uint32{}
	for name, id := range m.variables {
		if n, ok := m.lengths[m.pointers[m.members[id]]]; ok {
			all[name] = n
		}
	}
	return all
}
