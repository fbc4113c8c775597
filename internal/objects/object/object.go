// SPDX-License-Identifier: Apache-2.0

// Package object reads BPF objects as clang, or bpftool gen object, writes them, gives their
// programs as they will be loaded, and writes them back with some instructions changed.
//
// A [Program] is one entry function. Link puts it together with the subprograms that it reaches, as
// libbpf does. Nothing of this needs a kernel, and nothing of an object is trusted: each error says
// in one line what is wrong with it, and the memory taken is bounded by the size of the file and by
// [MaxProgram].
package object

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/insn"
)

// Object is a BPF object. Its methods may be called by several goroutines at once.
type Object struct {
	// License is what section "license" says, "" without one.
	License string
	// Programs are the functions that a loader can load, in the order of the file. An object of
	// maps alone, or of types, has none.
	Programs []Program

	image     *image
	code      map[int]*code  // by section
	functions []Function     // by section and place
	named     map[string]int // functions by name, where BTF names some
	btf       *types         // nil when there is none
	ext       *ext           // nil when there is none
}

// Program is one function that a loader can load.
type Program struct {
	Name    string
	Section string // which libbpf derives the type from ("xdp", "kprobe/do_exit")
	Insns   int    // of the function alone
	index   int    // of Object.functions
}

// Function is a function of an object.
type Function struct {
	Name    string
	Section string
	section int
	start   int // slots in the section
	end     int
	local   bool
}

// code is a section of instructions.
type code struct {
	section int
	insns   []insn.Instruction
	relocs  []relocation // by offset; of 64-bit loads and calls
}

// at returns the relocation of a slot.
func (c *code) at(slot int) (relocation, bool) {
	off := uint64(slot) * insn.Size
	i, ok := slices.BinarySearchFunc(c.relocs, off, func(r relocation, off uint64) int { return cmp.Compare(r.offset, off) })
	if !ok {
		return relocation{}, false
	}
	return c.relocs[i], true
}

// ReadFile reads the object in a file of at most MaxSize bytes. The error does not name the file.
func ReadFile(path string) (*Object, error) {
	b, err := readAll(path)
	if err != nil {
		return nil, err
	}
	return Parse(b)
}

func readAll(path string) ([]byte, error) {
	info, err := os.Stat(path) // before it is opened: a pipe would wait for its writer
	switch {
	case err != nil:
		return nil, cause(err)
	case info.IsDir():
		return nil, errors.New("a directory")
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	// An executable may be larger than any object, and what it is says more.
	head := make([]byte, headerSize)
	if n, err := f.ReadAt(head, 0); err == nil || err == io.EOF {
		if err := foreign(head[:n]); err != nil {
			return nil, err
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, cause(err)
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("larger than %d MiB", MaxSize>>20)
	}
	return b, nil
}

// cause leaves the path out of an error of package os.
func cause(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}

// Parse reads an object, which it keeps and does not change.
func Parse(b []byte) (*Object, error) {
	im, err := parseImage(b)
	if err != nil {
		return nil, err
	}
	o := &Object{image: im, code: map[int]*code{}}
	if err := o.readCode(); err != nil {
		return nil, err
	}
	if err := o.readFunctions(); err != nil {
		return nil, err
	}
	if err := o.readTypes(); err != nil {
		return nil, err
	}
	if i := im.byName("license"); len(i) > 0 {
		o.License, _, _ = strings.Cut(string(im.sections[i[0]].data), "\x00")
	}
	o.selectPrograms()
	if len(o.Programs) > MaxPrograms {
		return nil, fmt.Errorf("more than %d programs", MaxPrograms)
	}
	if o.btf != nil && len(o.btf.callbacks) > 0 {
		o.named = map[string]int{}
		for i, f := range o.functions {
			o.named[f.Name] = i
		}
	}
	return o, nil
}

func (o *Object) readCode() error {
	for i := range o.image.sections {
		s := &o.image.sections[i]
		if !s.isCode() {
			continue
		}
		insns, err := insn.Decode(s.data)
		if err != nil {
			return fmt.Errorf("section %s: %w", s.name, err)
		}
		o.code[i] = &code{section: i, insns: insns}
	}
	for i := range o.image.sections {
		s := &o.image.sections[i]
		c := o.code[int(s.Info)]
		switch t := elf.SectionType(s.Type); {
		case t != elf.SHT_REL && t != elf.SHT_RELA || c == nil:
			continue
		case t == elf.SHT_RELA:
			return fmt.Errorf("section %s has relocations with addends, which BPF objects do not have", s.name)
		}
		relocs, err := o.image.relocations(s)
		if err != nil {
			return err
		}
		c.relocs = append(c.relocs, relocs...)
	}
	for _, c := range o.code {
		if err := o.checkRelocations(c); err != nil {
			return fmt.Errorf("section %s: %w", o.image.sections[c.section].name, err)
		}
	}
	return nil
}

func (o *Object) checkRelocations(c *code) error {
	slices.SortStableFunc(c.relocs, func(a, b relocation) int { return cmp.Compare(a.offset, b.offset) })
	for n, r := range c.relocs {
		slot := int(r.offset / insn.Size)
		switch in := c.insns[slot]; {
		case r.offset%insn.Size != 0:
			return fmt.Errorf("a relocation at byte %d, inside an instruction", r.offset)
		case n > 0 && c.relocs[n-1].offset == r.offset:
			return fmt.Errorf("two relocations of instruction %d", slot)
		case in.IsWide():
			if slot+1 >= len(c.insns) {
				return fmt.Errorf("instruction %d is half of a 64-bit load", slot)
			}
		case in.Code != insn.OpcodeCall:
			return fmt.Errorf("a relocation of instruction %d, which is neither a call nor a 64-bit load", slot)
		}
	}
	return nil
}

func (o *Object) readFunctions() error {
	for i := range o.image.symbols {
		sym := &o.image.symbols[i]
		c := o.code[int(sym.Shndx)]
		if !sym.isFunction() || c == nil {
			continue
		}
		size := uint64(len(c.insns)) * insn.Size
		switch {
		case sym.Value%insn.Size != 0 || sym.Size%insn.Size != 0:
			return fmt.Errorf("function %s begins or ends inside an instruction", sym.name)
		case sym.Value > size || sym.Size > size-sym.Value:
			return fmt.Errorf("function %s reaches beyond its section %s", sym.name, o.image.sections[sym.Shndx].name)
		case sym.Size == 0:
			return fmt.Errorf("function %s is empty", sym.name)
		}
		o.functions = append(o.functions, Function{
			Name: sym.name, Section: o.image.sections[sym.Shndx].name, section: int(sym.Shndx),
			start: int(sym.Value / insn.Size), end: int((sym.Value + sym.Size) / insn.Size), local: sym.isLocal(),
		})
	}
	if len(o.functions) > maxFunctions {
		return fmt.Errorf("more than %d functions", maxFunctions)
	}
	slices.SortStableFunc(o.functions, func(a, b Function) int {
		return cmp.Or(cmp.Compare(a.section, b.section), cmp.Compare(a.start, b.start))
	})
	return o.dropAliases()
}

// dropAliases keeps one function of several names for the same code. Other overlaps do not exist.
func (o *Object) dropAliases() error {
	kept := o.functions[:0]
	for _, f := range o.functions {
		if n := len(kept); n > 0 && kept[n-1].section == f.section && f.start < kept[n-1].end {
			last := &kept[n-1]
			if last.start != f.start || last.end != f.end {
				return fmt.Errorf("functions %s and %s overlap", last.Name, f.Name)
			}
			if last.local && !f.local {
				*last = f
			}
			continue
		}
		kept = append(kept, f)
	}
	o.functions = kept
	return nil
}

// functionsOf returns the indexes of a section's functions: first, and one after the last.
func (o *Object) functionsOf(section int) (first, end int) {
	first, _ = o.functionAt(section, 0)
	end, _ = o.functionAt(section+1, 0)
	return first, end
}

// functionAt finds the function that begins at a slot of a section.
func (o *Object) functionAt(section, slot int) (int, bool) {
	return slices.BinarySearchFunc(o.functions, Function{section: section, start: slot}, func(a, b Function) int {
		return cmp.Or(cmp.Compare(a.section, b.section), cmp.Compare(a.start, b.start))
	})
}

// selectPrograms: the functions of .text are subprograms, unless it has the only function of all,
// as libbpf and its predecessors have it. A static function elsewhere can be called, not loaded.
func (o *Object) selectPrograms() {
	for i, f := range o.functions {
		if f.local && len(o.functions) > 1 || f.Section == ".text" && len(o.functions) > 1 {
			continue
		}
		o.Programs = append(o.Programs, Program{Name: f.Name, Section: f.Section, Insns: f.end - f.start, index: i})
	}
}
