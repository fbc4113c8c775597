// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/objects/jitonly"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// danger says what running a program that was not compiled may do to the machine, "" where nothing
// speaks for it.
func (f *Facts) danger() string {
	if !f.unjited() || f.kind() != load.ProgLoad {
		return ""
	}
	if on, known := f.Node.JITAlwaysOn(); known && on {
		return "" // what was loaded is compiled
	}
	k := jitonly.Kernel{Node: f.Node, JITOff: f.jitIsOff()}
	if s := jitonly.Sentence(f.ev.Insns, jitonly.Submitted(f.ev.Insns, f.mapTypes(), k)); s != "" {
		return s
	}
	if f.wholeProgram() || f.Node.Does(node.RefusesJITOnly) == node.Yes || !k.Any() {
		return ""
	}
	return jitonly.Unseen
}

// mapTypes tells the types of the maps that the instructions name. The kernel lists a program's
// maps in the order in which its instructions first name them, or in that of fd_array where that
// was counted.
func (f *Facts) mapTypes() func(slot int) (uint32, bool) {
	type name struct {
		src uint8
		imm int32
	}
	key := func(in insn.Instruction) name {
		if in.Src == insn.PseudoMapIdx || in.Src == insn.PseudoMapIdxValue {
			return name{insn.PseudoMapIdx, in.Imm}
		}
		return name{insn.PseudoMapFD, in.Imm}
	}
	var names []name
	for i, in := range f.ev.Insns {
		if in.IsMapLoad() && !insn.IsSecondHalf(f.ev.Insns, i) && !slices.Contains(names, key(in)) {
			names = append(names, key(in))
			if len(names) > len(f.ev.Maps) {
				break
			}
		}
	}
	counted := f.progAttr().FDArrayCnt > 0
	return func(slot int) (uint32, bool) {
		n := key(f.ev.Insns[slot])
		at := slices.Index(names, n)
		switch {
		case counted && n.src == insn.PseudoMapIdx:
			at = int(n.imm)
		case counted, len(names) != len(f.ev.Maps):
			return 0, false
		}
		if at < 0 || at >= len(f.ev.Maps) {
			return 0, false
		}
		return f.ev.Maps[at].Type, true
	}
}

var doNotRun = load.Remedy{
	ID:    "do-not-run",
	Title: "Do not run the program: let its loader not attach it, or end the loader",
	Price: "What it does is missing until it can be loaded compiled.",
}

// warn puts a danger in front of a diagnosis, and what to do about it in front of the remedies.
func (f *Facts) warn(d *load.Diagnosis) {
	if d.Danger = f.danger(); d.Danger != "" {
		d.Remedies = append([]load.Remedy{doNotRun}, d.Remedies...)
	}
}
