// SPDX-License-Identifier: Apache-2.0

// Package jitonly finds what only a compiled program can do.
//
// The verifier puts instructions and calls into a program that the JIT understands and the kernel's interpreter does not. A
// program that could not be compiled after that is interpreted with them in it, on kernels without f1c27922576e: the
// interpreter takes an offset for an address, jumps into the middle of a function, loops for ever, or stops the machine by BUG(). The list is from
// ___bpf_prog_run and the verifier's rewriting, release by release; docs/kernel-notes.md has it with the commits.
package jitonly

import (
	"fmt"
	"slices"

	"github.com/bpfwhy/bpfwhy/insn"
)

// Kernel is what decides which of these a kernel has. What is not known is left zero.
type Kernel struct {
	Version insn.Version
	Machine string // as uname -m says
	// JITOff: net.core.bpf_jit_enable is 0, so that the verifier does not write for a JIT. Some of it does not ask.
	JITOff bool
	// Refuses: the kernel does not interpret such programs, but for one kind that it forgets (f1c27922576e).
	Refuses bool
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

// span is what is known of the release that brought something: the last without it, and the first seen to have it.
type span struct{ without, with insn.Version }

func v(major, minor int) insn.Version { return insn.Version{Major: major, Minor: minor} }

// The machines whose JITs know the move of a per-CPU address (bpf_jit_supports_percpu_insn), and which helpers each
// machine's JIT, or on x86 the verifier for its sake, writes out in place of a call.
var (
	percpuMove = map[string]span{
		"x86_64": {v(6, 9), v(6, 10)}, "aarch64": {v(6, 9), v(6, 10)}, "riscv64": {v(6, 9), v(6, 10)},
		"ppc64le": {v(6, 12), v(7, 2)}, "loongarch64": {v(7, 2), v(7, 3)},
	}
	processorInline = map[string]span{
		"x86_64": {v(6, 9), v(6, 10)}, "aarch64": {v(6, 9), v(6, 10)}, "riscv64": {v(6, 9), v(6, 10)},
		"ppc64le": {v(6, 12), v(7, 2)}, "loongarch64": {v(6, 12), v(7, 2)}, "s390x": {v(6, 12), v(7, 2)},
	}
	taskInline = map[string]span{
		"x86_64": {v(6, 19), v(7, 0)}, "aarch64": {v(6, 9), v(6, 12)}, "riscv64": {v(6, 12), v(7, 2)},
		"ppc64le": {v(6, 12), v(7, 2)}, "loongarch64": {v(6, 12), v(7, 2)}, "s390x": {v(6, 12), v(7, 2)},
	}
	// may_goto with a clock: the function that reads it takes its argument, and returns, where only the JIT does. f1c27922576e
	// left that one out.
	timedMayGoto = map[string]span{"x86_64": {v(6, 14), v(6, 15)}, "aarch64": {v(6, 14), v(7, 2)}}
)

// has reports whether this kernel may have what a table tells of, and whether that is sure.
func (k Kernel) has(table map[string]span) (may, sure bool) {
	if k.Machine == "" {
		may := k.Version == (insn.Version{})
		for _, s := range table {
			may = may || s.without.Before(k.Version)
		}
		return may, false
	}
	s, ok := table[k.Machine]
	switch {
	case !ok:
		return false, true
	case k.Version == insn.Version{}:
		return true, false
	}
	return s.without.Before(k.Version), !k.Version.Before(s.with)
}

// Any reports whether a kernel may have any of it at all.
func (k Kernel) Any() bool {
	if k.Version != (insn.Version{}) && k.Version.Before(v(6, 9)) {
		return false // arenas came first
	}
	goes, _ := k.has(timedMayGoto)
	calls, _ := k.jitCalls()
	return goes || !k.Refuses && (!k.JITOff || calls)
}

// jitCalls reports whether this machine's JIT writes helpers out whose calls the verifier then leaves unfinished, JIT or not.
func (k Kernel) jitCalls() (may, sure bool) {
	if k.Machine == "x86_64" {
		return false, true
	}
	return k.has(processorInline)
}

// Submitted finds, in a program as its loader submits it, what the kernel makes such instructions of. mapType tells the type of
// the map that the 64-bit load at a slot names, and false where it is not known.
func Submitted(prog []insn.Instruction, mapType func(slot int) (typ uint32, known bool), k Kernel) []Finding {
	var found []Finding
	add := func(slot int, what string, sure bool) {
		found = append(found, Finding{Slot: slot, What: what, Sure: sure, Refused: what != mayGotoWhat})
	}
	unknownMap := mayLookUpPerCPU(prog, mapType)
	for i, in := range prog {
		if insn.IsSecondHalf(prog, i) {
			continue
		}
		switch {
		case in.IsMayGoto():
			if may, sure := k.has(timedMayGoto); may {
				add(i, mayGotoWhat, sure)
			}
		case k.Refuses:
		case in.IsMapLoad() && !k.JITOff:
			if t, known := mapType(i); known && t == arena {
				add(i, arenaWhat, true)
			}
		case in.IsAddrSpaceCast() && !k.JITOff:
			add(i, arenaWhat, true)
		case in.Code == insn.OpcodeGotox && !k.JITOff:
			add(i, gotoxWhat, true)
		case in.IsHelperCall():
			k.call(prog, i, mapType, unknownMap, add)
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
func (k Kernel) call(prog []insn.Instruction, i int, mapType func(int) (uint32, bool), unknownMap bool, add func(int, string, bool)) {
	inlined := func(table map[string]span) {
		if k.JITOff {
			if calls, _ := k.jitCalls(); !calls {
				return
			}
		}
		if may, sure := k.has(table); may {
			add(i, inlineWhat, sure)
		}
	}
	switch prog[i].Imm {
	case processorID:
		inlined(processorInline)
	case currentTask, currentTaskBTF:
		inlined(taskInline)
	case mapLookup:
		may, sure := k.has(percpuMove)
		if !may || k.JITOff {
			return
		}
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

// argument finds the load of the map that is the first argument of the call at slot i, as compilers place it: before the call, with
// nothing between them that may come from elsewhere.
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

// Translated finds what only compiled code can run in a program as the verifier has left it. It needs to know nothing of the kernel but
// the machine, and whether the numbers of helpers are shown (dumps without the right to kernel addresses have 0). mapTypes are those of
// the program's maps, as far as they are known: dumps show accesses to an arena as plain ones.
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

// CallsHidden reports a dump that does not show which helpers it calls: without the right to kernel addresses (kernel.kptr_restrict, CAP_SYSLOG) the
// kernel puts 0 into all calls but tail calls.
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

// WritesCallsOut reports whether this machine's JIT may write helpers out whose calls stand in a dump as calls. On x86 they are other instructions by
// then.
func (k Kernel) WritesCallsOut() bool {
	processor, _ := k.has(processorInline)
	task, _ := k.has(taskInline)
	return k.Machine != "x86_64" && (processor || task)
}

// Danger says what running a program that was not compiled may do to the machine, "" if it runs as others do. made is what the kernel has made of
// the program, which is what counts, nil where it does not show that; submitted what its loader submitted, nil where that is not known, and
// mapType the type of the map that it loads at a slot.
func Danger(made, submitted []insn.Instruction, mapType func(slot int) (uint32, bool), mapTypes []uint32, k Kernel) string {
	found := Translated(made, mapTypes, k.Machine)
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

// IsPerCPUMove reports the move that adds the processor's offset to a per-CPU address (7bdbf7446305).
func IsPerCPUMove(in insn.Instruction) bool {
	return in.Code == insn.ClassALU64|insn.OpMOV|insn.SourceX && in.Off == -1
}

// isTimedMayGoto reports the call that follows the scratch register's load with a place on the stack. Programs cannot write that
// register, and blinding, which does, is undone in what is interpreted.
func isTimedMayGoto(prog []insn.Instruction, i int) bool {
	if i == 0 {
		return false
	}
	p := prog[i-1]
	return p.Dst >= insn.RegAX && p.Code == insn.ClassALU64|insn.OpMOV && p.Imm < 0
}

// Sentence says what running the interpreted program may do, and why. prog is what the findings are of. It is empty without
// findings.
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
