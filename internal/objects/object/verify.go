// SPDX-License-Identifier: Apache-2.0

package object

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/insn"
)

// The result is read again, and compared.

// verify holds the result against the original. That the instructions do the same, and how far they
// jump, package rewrite has proved; this is about all that refers to them.
//
//revive:disable-next-line:cyclomatic one check for each thing that refers to code
func (e *editor) verify(fixed *Object) error {
	o := e.object
	if len(o.functions) != len(fixed.functions) || len(o.Programs) != len(fixed.Programs) {
		return fmt.Errorf("%d functions and %d programs, instead of %d and %d", len(fixed.functions), len(fixed.Programs), len(o.functions), len(o.Programs))
	}
	slotOf := func(section, slot int) int {
		if r := e.edits[section]; r != nil {
			return r.new[slot]
		}
		return slot
	}
	for i, f := range o.functions {
		g := fixed.functions[i]
		if f.Name != g.Name || f.section != g.section || g.start != slotOf(f.section, f.start) || g.end != slotOf(f.section, f.end) {
			return fmt.Errorf("function %s is %s at %d..%d", f.Name, g.Name, g.start, g.end)
		}
		for slot := f.start; slot < f.end; slot++ {
			was, ok := o.record(f, slot)
			is, okNow := fixed.record(g, slotOf(f.section, slot))
			if was.slot = is.slot; was != is || ok != okNow {
				return fmt.Errorf("instruction %d of %s would be of another line", slot-f.start, f.Name)
			}
		}
	}
	for i, c := range o.code {
		now := fixed.code[i]
		if now == nil || len(now.relocs) != len(c.relocs) {
			return fmt.Errorf("section %s has lost relocations", o.image.sections[i].name)
		}
		for _, r := range c.relocs {
			slot := int(r.offset / insn.Size)
			was, err := o.reference(c, slot, r, len(c.insns))
			if err != nil {
				continue // as wrong as it was
			}
			if was.isFunction {
				was.slot = slotOf(was.section, was.slot)
			}
			s, ok := now.at(slotOf(i, slot))
			if !ok {
				return fmt.Errorf("the relocation of instruction %d of section %s is lost", slot, o.image.sections[i].name)
			}
			is, err := fixed.reference(now, slotOf(i, slot), s, len(now.insns))
			if err != nil || s.symbol != r.symbol || is != was {
				return fmt.Errorf("instruction %d of section %s would name something else", slot, o.image.sections[i].name)
			}
		}
	}
	return nil
}

// stale lists the DWARF sections that count instructions.
func (e *editor) stale() []string {
	var names []string
	for _, s := range e.image.sections {
		switch s.name {
		case ".debug_line", ".debug_info", ".debug_frame", ".debug_loclists", ".debug_rnglists", ".debug_loc", ".debug_ranges":
			names = append(names, s.name)
		}
	}
	return names
}
