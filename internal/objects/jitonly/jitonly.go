// SPDX-License-Identifier: Apache-2.0

// Package jitonly finds what only a compiled program can do.
//
// The verifier puts instructions and calls into a program that the JIT understands and the kernel's
// interpreter does not. A program that could not be compiled after that is interpreted with them in
// it, on kernels without f1c27922576e: the interpreter takes an offset for an address, jumps into
// the middle of a function, loops for ever, or stops the machine by BUG(). The list is from
// ___bpf_prog_run and the verifier's rewriting, release by release; docs/kernel-notes.md has it
// with the commits.
package jitonly

import (
	"fmt"
	"slices"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/node"
)

// Kernel is what decides which of these a kernel has.
type Kernel struct {
	// Node is what is known of the kernel, nil for any.
	Node *node.Profile
	// JITOff: net.core.bpf_jit_enable is 0, so that the verifier does not write for a JIT. Some of
	// it does not ask.
	JITOff bool
}

// Finding is one instruction that only compiled code can run.
type Finding struct {
	Slot int
	What string // what the instruction does, and what becomes of it
	// Sure: what the kernel and the program are leaves no doubt.
	Sure bool
	// Refused: kernels with f1c27922576e do not interpret a program with it.
	Refused bool
}

// Types of maps (enum bpf_map_type) and numbers of helpers (enum bpf_func_id).
const (
	percpuHash  = 5
	percpuArray = 6
	arena       = 33

	mapLookup      = 1
	processorID    = 8
	tailCall       = 12
	currentTask    = 35
	currentTaskBTF = 158
)

// known is a kernel with the rows of the table that matter here.
type known struct {
	x86, jitOff bool
	// refuses: it does not interpret such programs, but for one kind that it forgets
	// (f1c27922576e).
	refuses                             bool
	arenas                              node.Answer
	move, processor, task, timedMayGoto node.Answer
}

func (k Kernel) known() known {
	n := k.Node
	if n == nil {
		n = &node.Profile{}
	}
	return known{
		x86: n.Machine == "x86_64", jitOff: k.JITOff,
		refuses: n.Does(node.RefusesJITOnly) == node.Yes,
		arenas:  n.Does(node.Arenas),
		move:    n.Does(node.PerCPUMove), processor: n.Does(node.ProcessorInlined), task: n.Does(node.TaskInlined),
		timedMayGoto: n.Does(node.TimedMayGoto),
	}
}

// Any reports whether a kernel may have any of it at all.
func (k Kernel) Any() bool {
	n := k.known()
	if n.arenas == node.No {
		return false // arenas came first
	}
	return n.timedMayGoto != node.No || !n.refuses && (!n.jitOff || n.jitCalls())
}

// jitCalls reports whether this machine's JIT may write helpers out whose calls the verifier then
// leaves unfinished, JIT or not.
func (n known) jitCalls() bool { return !n.x86 && n.processor != node.No }

// Submitted finds, in a program as its loader submits it, what the kernel makes such instructions
// of. mapType tells the type of the map that the 64-bit load at a slot names, and false where it is
// not known.
func Submitted(prog []insn.Instruction, mapType func(slot int) (typ uint32, known bool), k Kernel) []Finding {
	var found []Finding
	add := func(slot int, what string, sure bool) {
		found = append(found, Finding{Slot: slot, What: what, Sure: sure, Refused: what != mayGotoWhat})
	}
	n := k.known()
	unknownMap := mayLookUpPerCPU(prog, mapType)
	for i, in := range prog {
		if insn.IsSecondHalf(prog, i) {
			continue
		}
		switch {
		case in.IsMayGoto():
			if n.timedMayGoto != node.No {
				add(i, mayGotoWhat, n.timedMayGoto == node.Yes)
			}
		case n.refuses:
		case in.IsMapLoad() && !n.jitOff:
			if t, known := mapType(i); known && t == arena {
				add(i, arenaWhat, true)
			}
		case in.IsAddrSpaceCast() && !n.jitOff:
			add(i, arenaWhat, true)
		case in.Code == insn.OpcodeGotox && !n.jitOff:
			add(i, gotoxWhat, true)
		case in.IsHelperCall():
			n.call(prog, i, mapType, unknownMap, add)
		}
	}
	return found
}

const (
	mayGotoWhat = "ends its loop by a clock that only compiled code can ask: interpreted, the loop need never end"
	arenaWhat   = "works on an arena, by instructions that the interpreter does not know: it stops the machine (BUG)"
	gotoxWhat   = "jumps to an address in a register, which the interpreter does not know: it stops the machine (BUG)"
	inlineWhat  = "is no call in compiled code, and what stands in its place the interpreter does not know"
	moveWhat    = "moves a per-CPU address, which the interpreter does not: it goes on with the bare offset"
)

// call looks at a call of a helper.
//
//revive:disable-next-line:cyclomatic a case for each helper
func (n known) call(prog []insn.Instruction, i int, mapType func(int) (uint32, bool), unknownMap bool, add func(int, string, bool)) {
	inlined := func(does node.Answer) {
		if does != node.No && (!n.jitOff || n.jitCalls()) {
			add(i, inlineWhat, does == node.Yes)
		}
	}
	switch prog[i].Imm {
	case processorID:
		inlined(n.processor)
	case currentTask, currentTaskBTF:
		inlined(n.task)
	case mapLookup:
		if n.move == node.No || n.jitOff {
			return
		}
		sure := n.move == node.Yes
		from, ok := argument(prog, i)
		t, known := uint32(0), false
		if ok {
			t, known = mapType(from)
		}
		const becomes = ": in its place the kernel puts the move of a per-CPU address, and the interpreter goes on with the bare offset"
		switch {
		case known && t == percpuArray:
			add(i, "looks up in a per-CPU array"+becomes, sure)
		case known && t == percpuHash:
			add(i, "looks up in a per-CPU hash"+becomes, sure)
		case !known && unknownMap:
			add(i, "may look up in a per-CPU map"+becomes, false)
		}
	}
}

// mayLookUpPerCPU reports a program with a map that is per CPU, or of which the type is not known.
func mayLookUpPerCPU(prog []insn.Instruction, mapType func(int) (uint32, bool)) bool {
	for i, in := range prog {
		if !in.IsMapLoad() || insn.IsSecondHalf(prog, i) {
			continue
		}
		if t, known := mapType(i); !known || t == percpuArray || t == percpuHash {
			return true
		}
	}
	return false
}

// argument finds the load of the map that is the first argument of the call at slot i, as compilers
// place it: before the call, with nothing between them that may come from elsewhere.
func argument(prog []insn.Instruction, i int) (slot int, ok bool) {
	const far = 256 // no compiler is as far from it, and a program may come from anybody
	reg := uint8(1)
	for at := i - 1; at >= max(0, i-far); at-- {
		in := prog[at]
		if insn.IsSecondHalf(prog, at) {
			continue
		}
		switch {
		case in.Code == insn.OpcodeCall && reg <= 5, in.IsExit(), in.IsGoto():
			return 0, false
		case in.IsWide() && in.Dst == reg:
			return at, in.IsMapLoad()
		case in.IsALU() && in.Dst == reg:
			if in.Code != insn.ClassALU64|insn.OpMOV|insn.SourceX || in.Off != 0 {
				return 0, false
			}
			reg = in.Src
		case in.Class() == insn.ClassLDX && in.Dst == reg:
			return 0, false
		}
	}
	return 0, false
}

// Translated finds what only compiled code can run in a program as the verifier has left it. It
// needs to know nothing of the kernel but the machine, and whether the numbers of helpers are shown
// (dumps without the right to kernel addresses have 0). mapTypes are those of the program's maps,
// as far as they are known: dumps show accesses to an arena as plain ones.
//
//revive:disable-next-line:cyclomatic a case for each instruction that needs the JIT
func Translated(prog []insn.Instruction, mapTypes []uint32, machine string) []Finding {
	var found []Finding
	add := func(slot int, what string) {
		found = append(found, Finding{Slot: slot, What: what, Sure: true, Refused: what != mayGotoWhat})
	}
	for i, in := range prog {
		if insn.IsSecondHalf(prog, i) {
			continue
		}
		switch {
		case IsPerCPUMove(in):
			add(i, moveWhat)
		case in.IsAddrSpaceCast(), in.Class() == insn.ClassSTX && in.Mode() == modeProbeAtomic:
			add(i, arenaWhat)
		case in.Code == insn.OpcodeGotox:
			add(i, gotoxWhat)
		case in.IsHelperCall() && isTimedMayGoto(prog, i):
			add(i, mayGotoWhat)
		case in.IsHelperCall() && machine != "x86_64" && (in.Imm == processorID || in.Imm == currentTask || in.Imm == currentTaskBTF):
			add(i, inlineWhat) // other calls hold the distance of their function by now
		}
	}
	if len(found) == 0 && slices.Contains(mapTypes, arena) {
		add(0, arenaWhat)
	}
	return found
}

// CallsHidden reports a dump that does not show which helpers it calls: without the right to kernel
// addresses (kernel.kptr_restrict, CAP_SYSLOG) the kernel puts 0 into all calls but tail calls.
func CallsHidden(dumped []insn.Instruction) bool {
	hidden := false
	for i, in := range dumped {
		switch {
		case insn.IsSecondHalf(dumped, i) || !in.IsHelperCall() || in.Imm == tailCall:
		case in.Imm != 0:
			return false
		default:
			hidden = true
		}
	}
	return hidden
}

// WritesCallsOut reports whether this machine's JIT may write helpers out whose calls stand in a
// dump as calls. On x86 they are other instructions by then.
func (k Kernel) WritesCallsOut() bool {
	n := k.known()
	return !n.x86 && (n.processor != node.No || n.task != node.No)
}

// Danger says what running a program that was not compiled may do to the machine, "" if it runs as
// others do. made is what the kernel has made of the program, which is what counts, nil where it
// does not show that; submitted what its loader submitted, nil where that is not known, and mapType
// the type of the map that it loads at a slot.
func Danger(made, submitted []insn.Instruction, mapType func(slot int) (uint32, bool), mapTypes []uint32, k Kernel) string {
	machine := ""
	if k.Node != nil {
		machine = k.Node.Machine
	}
	found := Translated(made, mapTypes, machine)
	hidden := k.WritesCallsOut() && CallsHidden(made)
	if made != nil && len(found) == 0 && !hidden {
		return ""
	}
	if submitted == nil {
		return Sentence(made, found)
	}
	// The program as it was submitted has the better known instructions.
	guessed := Submitted(submitted, mapType, k)
	if made != nil && len(found) == 0 { // all but the calls would show
		guessed = slices.DeleteFunc(guessed, func(f Finding) bool { return !f.Sure || f.What != inlineWhat })
	}
	if made == nil || slices.ContainsFunc(guessed, func(f Finding) bool { return f.Sure }) {
		return Sentence(submitted, guessed)
	}
	return Sentence(made, found)
}

const modeProbeAtomic = 0xe0 // BPF_PROBE_ATOMIC: an atomic instruction on an arena

// IsPerCPUMove reports the move that adds the processor's offset to a per-CPU address
// (7bdbf7446305).
func IsPerCPUMove(in insn.Instruction) bool {
	return in.Code == insn.ClassALU64|insn.OpMOV|insn.SourceX && in.Off == -1
}

// isTimedMayGoto reports the call that follows the scratch register's load with a place on the
// stack. Programs cannot write that register, and blinding, which does, is undone in what is
// interpreted.
func isTimedMayGoto(prog []insn.Instruction, i int) bool {
	if i == 0 {
		return false
	}
	p := prog[i-1]
	return p.Dst >= insn.RegAX && p.Code == insn.ClassALU64|insn.OpMOV && p.Imm < 0
}

// Sentence says what running the interpreted program may do, and why. prog is what the findings are
// of. It is empty without findings.
func Sentence(prog []insn.Instruction, found []Finding) string {
	if len(found) == 0 {
		return ""
	}
	f := found[0]
	if i := slices.IndexFunc(found, func(f Finding) bool { return f.Sure }); i >= 0 {
		f = found[i]
	}
	s := fmt.Sprintf("It may crash the machine when it runs: instruction %d", f.Slot)
	if f.Slot < len(prog) {
		s += fmt.Sprintf(" (%s)", disassemble(prog, f.Slot))
	}
	s += " " + f.What
	if n := len(found) - 1; n == 1 {
		s += "; and one more instruction like it"
	} else if n > 1 {
		s += fmt.Sprintf("; and %d more instructions like it", n)
	}
	return s + "."
}

// disassemble is insn.Disassemble for what stands in translated code alone, too.
func disassemble(prog []insn.Instruction, slot int) string {
	if in := prog[slot]; IsPerCPUMove(in) {
		return fmt.Sprintf("r%d = &(void __percpu *)(r%d)", in.Dst, in.Src) // as the kernel prints it
	}
	return insn.Disassemble(prog, slot)
}

// Unseen is Sentence for a program whose instructions are not known.
const Unseen = "It may crash the machine when it runs: kernels like this one have instructions that only compiled code can run " +
	"(per-CPU maps, arenas, some helpers), and whether the program has one is not known."
