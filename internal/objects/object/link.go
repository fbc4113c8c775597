// SPDX-License-Identifier: Apache-2.0

package object

import (
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/insn"
)

// Linked is a program as a loader submits it, but for what only a loader knows: file descriptors of
// maps, and ids and offsets of the kernel's types. A constant that comes from the kernel's types is
// never 0, so that it counts as one.
type Linked struct {
	Insns     []insn.Instruction
	Functions []insn.Function // in order; the first is the entry
	Names     []string        // of the functions

	object *Object
	pieces []piece
}

// piece is a function at its place.
type piece struct {
	function int // of Object.functions
	at       int
}

// Link puts a program together with the functions that it reaches by calls and by taking their
// address, each once, in the order in which they are met, as libbpf does. An error says what is
// wrong with the object.
func (o *Object) Link(p Program) (*Linked, error) {
	l := &Linked{object: o}
	at := map[int]int{} // where a function of the object begins
	var patches []patch
	add := func(f int) error {
		fn := &o.functions[f]
		if len(l.Insns)+fn.end-fn.start > MaxProgram {
			return fmt.Errorf("program %s has more than %d instructions, with the functions that it calls", p.Name, MaxProgram)
		}
		at[f] = len(l.Insns)
		l.pieces = append(l.pieces, piece{f, len(l.Insns)})
		l.Names = append(l.Names, fn.Name)
		l.Insns = append(l.Insns, o.code[fn.section].insns[fn.start:fn.end]...)
		l.Functions = append(l.Functions, insn.Function{Start: at[f], End: len(l.Insns)})
		o.unknown(fn, l.Insns[at[f]:])
		return nil
	}
	if err := add(p.index); err != nil {
		return nil, err
	}
	if f, ok := o.callback(p.Name); ok && f != p.index {
		if err := add(f); err != nil {
			return nil, err
		}
	}
	for n := 0; n < len(l.pieces); n++ { // it grows meanwhile
		refs, err := o.resolve(l, l.pieces[n])
		if err != nil {
			return nil, fmt.Errorf("program %s: %w", p.Name, err)
		}
		for _, r := range refs {
			if _, ok := at[r.function]; !ok {
				if err := add(r.function); err != nil {
					return nil, err
				}
			}
		}
		patches = append(patches, refs...)
	}
	for _, r := range patches {
		l.Insns[r.slot].Imm = int32(at[r.function] - r.slot - 1)
	}
	return l, nil
}

// unknown makes the zeros that a CO-RE relocation will fill in something else: a move of 0 is not
// blinded, of a field's offset is.
func (o *Object) unknown(f *Function, insns []insn.Instruction) {
	if o.ext == nil {
		return
	}
	slots := o.ext.core[f.Section]
	n, _ := slices.BinarySearch(slots, f.start)
	for ; n < len(slots) && slots[n] < f.end; n++ {
		if in := &insns[slots[n]-f.start]; in.IsALU() && in.IsImmediate() && in.Imm == 0 {
			in.Imm = 1
		}
	}
}

// patch is an immediate that names a function.
type patch struct {
	slot, function int
}

// callback finds the exception callback of a program.
func (o *Object) callback(program string) (int, bool) {
	if o.btf == nil || o.btf.callbacks[program] == "" {
		return 0, false
	}
	i, ok := o.named[o.btf.callbacks[program]]
	return i, ok
}

// resolve marks what the relocations of a function stand for, and returns the functions that it
// names.
func (o *Object) resolve(l *Linked, p piece) ([]patch, error) {
	fn := &o.functions[p.function]
	c := o.code[fn.section]
	var refs []patch
	for slot := fn.start; slot < fn.end; slot++ {
		in := &l.Insns[p.at+slot-fn.start]
		r, relocated := c.at(slot)
		target, isFunction := 0, false
		switch {
		case relocated:
			t, err := o.reference(c, slot, r, fn.end)
			if err != nil {
				return nil, fmt.Errorf("instruction %d of %s: %w", slot-fn.start, fn.Name, err)
			}
			if in.Src, isFunction = t.src, t.isFunction; isFunction {
				f, ok := o.functionAt(t.section, t.slot)
				if !ok {
					return nil, fmt.Errorf("instruction %d of %s names a place in section %s where no function begins",
						slot-fn.start, fn.Name, o.image.sections[t.section].name)
				}
				target = f
			}
		case in.IsFuncCall():
			f, ok := o.functionAt(fn.section, slot+1+int(in.Imm))
			if !ok {
				return nil, fmt.Errorf("instruction %d of %s calls a place where no function begins", slot-fn.start, fn.Name)
			}
			target, isFunction = f, true
		case in.IsFuncLoad():
			return nil, fmt.Errorf("instruction %d of %s takes the address of a function without a relocation", slot-fn.start, fn.Name)
		}
		if isFunction {
			refs = append(refs, patch{p.at + slot - fn.start, target})
		}
		if in.IsWide() {
			slot++
		}
	}
	return refs, nil
}

// referent is what a relocated instruction names.
type referent struct {
	src           uint8 // the pseudo source that the loader will set
	isFunction    bool
	section, slot int // of the function
}

// reference finds out what the relocation of a call or a 64-bit load names. Source: libbpf's
// bpf_program__record_reloc and bpf_object__reloc_code.
func (o *Object) reference(c *code, slot int, r relocation, end int) (referent, error) {
	in := c.insns[slot]
	sym := &o.image.symbols[r.symbol]
	defined := o.image.definedIn(sym)
	isCall := !in.IsWide()
	switch {
	case in.IsWide() && slot+1 >= end:
		return referent{}, fmt.Errorf("half of a 64-bit load")
	case sym.Shndx == uint16(elf.SHN_UNDEF):
		return o.extern(sym, isCall)
	case defined == nil:
		return referent{}, fmt.Errorf("%s is neither defined nor external", describe(o.image, sym))
	case defined.isCode():
		src := uint8(insn.PseudoCall)
		if !isCall {
			src = insn.PseudoFunc
		}
		t, err := target(in, sym)
		if err != nil {
			return referent{}, err
		}
		return referent{src, true, int(sym.Shndx), t}, nil
	case isCall:
		return referent{}, fmt.Errorf("a call of %s, which is not a function", describe(o.image, sym))
	case defined.name == ".maps" || defined.name == "maps":
		return referent{src: insn.PseudoMapFD}, nil
	}
	return referent{src: insn.PseudoMapValue}, nil
}

// target is the slot, in the symbol's section, of the function that an instruction names: a call
// holds the distance of its own in slots, less one, and a load the distance in bytes.
func target(in insn.Instruction, sym *symbol) (int, error) {
	at := int64(sym.Value)
	if in.IsWide() {
		at += int64(in.Imm)
	} else {
		at += (int64(in.Imm) + 1) * insn.Size
	}
	if at < 0 || at > MaxSize || at%insn.Size != 0 {
		return 0, fmt.Errorf("it names byte %d of a section", at)
	}
	return int(at / insn.Size), nil
}

// extern is a symbol that the kernel has, or the loader: BTF must declare it.
func (o *Object) extern(sym *symbol, isCall bool) (referent, error) {
	switch {
	case o.btf == nil:
		return referent{}, fmt.Errorf("unresolved symbol %s: no BTF declares it", sym.name)
	case o.btf.externs[sym.name] == externNone:
		return referent{}, fmt.Errorf("unresolved symbol %s: BTF does not declare it as external", sym.name)
	case isCall && o.btf.externs[sym.name] != externFunction:
		return referent{}, fmt.Errorf("a call of %s, which is not a function", sym.name)
	case isCall:
		return referent{src: insn.PseudoKfuncCall}, nil
	}
	return referent{src: insn.PseudoBTFID}, nil
}

// describe names a symbol; that of a section has no name of its own.
func describe(im *image, sym *symbol) string {
	if sym.name != "" {
		return sym.name
	}
	if s := im.definedIn(sym); s != nil {
		return "section " + s.name
	}
	return "a symbol without a name"
}

// NeedsTypes reports whether the loader fills in what only the kernel's own types tell: a CO-RE
// relocation.
func (l *Linked) NeedsTypes() bool {
	return l.object.ext != nil && l.relocated(l.object.ext.core)
}

// Chooses reports whether the program may do without some of its code, by what its loader fills in:
// what the kernel has (CO-RE), a constant in .rodata, or a symbol of the kernel or its
// configuration. The verifier removes what cannot be reached then.
func (l *Linked) Chooses() bool {
	if l.object.ext != nil && l.relocated(l.object.ext.asks) {
		return true
	}
	for _, p := range l.pieces {
		fn := l.object.functions[p.function]
		c := l.object.code[fn.section]
		for _, r := range c.relocs {
			if slot := int(r.offset / insn.Size); slot < fn.start || slot >= fn.end || !c.insns[slot].IsWide() {
				continue
			}
			sym := &l.object.image.symbols[r.symbol]
			if s := l.object.image.definedIn(sym); s == nil || strings.HasPrefix(s.name, ".rodata") {
				return true
			}
		}
	}
	return false
}

// relocated reports whether one of its functions has a slot of a table by section.
func (l *Linked) relocated(table map[string][]int) bool {
	for _, p := range l.pieces {
		fn := l.object.functions[p.function]
		if slices.ContainsFunc(table[fn.Section], func(slot int) bool { return fn.start <= slot && slot < fn.end }) {
			return true
		}
	}
	return false
}

// Where returns the function that holds a slot and the slot's place in it.
func (l *Linked) Where(slot int) (name string, at int) {
	p, ok := l.piece(slot)
	if !ok {
		return "", 0
	}
	return l.object.functions[p.function].Name, slot - p.at
}

// Source returns the line that a slot comes from, and false where the object does not say.
func (l *Linked) Source(slot int) (Line, bool) {
	p, ok := l.piece(slot)
	if !ok {
		return Line{}, false
	}
	f := l.object.functions[p.function]
	return l.object.lineAt(f, f.start+slot-p.at)
}

// MapType returns the type (enum bpf_map_type) of the map that the 64-bit load at a slot names, and
// false where the object does not say.
func (l *Linked) MapType(slot int) (uint32, bool) {
	p, ok := l.piece(slot)
	if !ok || l.object.btf == nil || !l.Insns[slot].IsMapLoad() {
		return 0, false
	}
	fn := l.object.functions[p.function]
	r, ok := l.object.code[fn.section].at(fn.start + slot - p.at)
	if !ok {
		return 0, false
	}
	sym := &l.object.image.symbols[r.symbol]
	switch s := l.object.image.definedIn(sym); {
	case s == nil || s.name == "maps": // without BTF's types, from before libbpf 1.0
		return 0, false
	case s.name != ".maps":
		const array = 2 // what sections of data become
		return array, true
	}
	t, ok := l.object.btf.maps[sym.name]
	return t, ok
}

func (l *Linked) piece(slot int) (piece, bool) {
	if slot < 0 || slot >= len(l.Insns) {
		return piece{}, false
	}
	n, ok := slices.BinarySearchFunc(l.pieces, slot, func(p piece, slot int) int { return p.at - slot })
	if !ok {
		n--
	}
	return l.pieces[n], true
}
