// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// A suspicion is what the submitted instructions alone say for a rule, when the
// verifier turned a program down and its words are not known.
type suspicion struct {
	strength Strength
	slot     int // the instruction it is about, -1 for none
	why      string
}

// silentReject reports a load that the verifier turned down, or may have,
// without a word that was read, and whose instructions are at hand.
func (f *Facts) silentReject(errno int) bool {
	return f.verifierReject() && f.words.empty() && !f.words.clean() && f.errno() == errno && f.wholeProgram() && !f.insideJIT()
}

// suspect makes a match of a suspicion. Where the verifier was seen stopping,
// it must have been there.
func (f *Facts) suspect(s *suspicion) *Match {
	if s == nil {
		return nil
	}
	stopped := f.cause(load.FnDoCheck) != nil && f.ev.FailedInsn >= 0
	if stopped && s.slot != f.ev.FailedInsn {
		return nil
	}
	m := &Match{Strength: s.strength, How: load.Inferred, Why: s.why, Cause: upperFirst(s.why) + ".", guess: !stopped}
	if s.slot >= 0 {
		m.Evidence = append(m.Evidence, "derived from the submitted instructions: "+f.at(s.slot))
	}
	return m
}

// Helpers whose result may be NULL, and those whose result must be released.
var (
	orNullHelpers  = []int32{1, 81, 84, 85, 95, 96, 98, 99, 107, 131, 136, 137, 138, 139, 140, 145, 153, 156, 178, 195, 196, 201, 210}
	acquireHelpers = []int32{84, 85, 99, 131, 194, 198}
	lookupHelpers  = []int32{1, 195}
)

// suspectNull finds the result of a call that is followed in the same run of
// instructions, with no comparison in between.
func (f *Facts) suspectNull() *suspicion {
	orNull := func(in insn.Instruction) bool {
		return in.IsHelperCall() && slices.Contains(orNullHelpers, in.Imm)
	}
	if from, at := followed(f.ev.Insns, orNull); at >= 0 {
		return &suspicion{Likely, at, fmt.Sprintf("the program follows the result of %s, which may be NULL, before it has compared it", helperName(f.ev.Insns[from].Imm))}
	}
	if i := slices.IndexFunc(f.ev.Insns, orNull); i >= 0 {
		return &suspicion{Possible, -1, fmt.Sprintf("the program calls %s, whose result may be NULL", helperName(f.ev.Insns[i].Imm))}
	}
	return nil
}

// followed finds a value that an instruction of the asked kind gives to a
// register (R0 for calls), and through which memory is accessed in the same run
// of instructions, without a jump in between. It returns both places, or -1.
func followed(prog []insn.Instruction, gives func(insn.Instruction) bool) (from, at int) {
	var origin [16]int
	held := uint16(0)
	for i := 0; i < len(prog); i++ {
		in := prog[i]
		if base, ok := memoryBase(in); ok && held>>base&1 == 1 {
			return origin[base], i
		}
		dst := in.Dst
		switch {
		case in.Code == insn.OpcodeCall:
			held &^= 0x3f
			dst = 0
		case in.IsConditional() || in.IsGoto() || in.IsExit():
			held = 0
			continue
		default:
			if held = copies(in, held); held>>dst&1 == 1 && in.IsALU() {
				origin[dst] = origin[in.Src]
			}
		}
		if gives(in) {
			held |= 1 << dst
			origin[dst] = i
		}
		if in.IsWide() {
			i++
		}
	}
	return -1, -1
}

// copies follows the registers of a set through one instruction that does not jump. What is
// computed from one of them is not the same thing any more.
func copies(in insn.Instruction, regs uint16) uint16 {
	_, writes, kills := effect(in)
	after := regs &^ (writes | kills)
	if in.Code == insn.ClassALU64|insn.OpMOV|insn.SourceX && in.Off == 0 && regs>>in.Src&1 == 1 {
		after |= 1 << in.Dst
	}
	return after
}

// memoryBase returns the register through which an instruction accesses memory.
func memoryBase(in insn.Instruction) (uint8, bool) {
	switch in.Class() {
	case insn.ClassLDX:
		return in.Src, true
	case insn.ClassST, insn.ClassSTX:
		return in.Dst, true
	}
	return 0, false
}

// suspectBounds finds an access behind the end of every map's value.
//
//revive:disable-next-line:cyclomatic one walk, with what each instruction does to pointers
func (f *Facts) suspectBounds() *suspicion {
	largest := uint32(0)
	for _, m := range f.ev.Maps {
		largest = max(largest, m.ValueSize)
	}
	var possible *suspicion
	value := uint16(0) // registers that may hold a map value
	at := make(map[int]uint16)
	for i := 0; i < len(f.ev.Insns); i++ {
		in := f.ev.Insns[i]
		if t, ok := in.Target(i); ok && t > i && at[t] == 0 {
			at[t] = value
		}
		switch {
		case in.IsExit() || in.IsGoto():
			value = at[i+1] // what follows is reached by a jump alone
			continue
		case in.IsHelperCall() && slices.Contains(lookupHelpers, in.Imm):
			value = value&^0x3f | 1
			if possible == nil {
				possible = &suspicion{Possible, -1, "the program works on map values, and an access may lie outside of one"}
			}
			continue
		case in.Code == insn.OpcodeCall:
			value &^= 0x3f
			continue
		}
		if base, ok := memoryBase(in); ok && value>>base&1 == 1 && largest > 0 {
			if end := int64(in.Off) + accessSize(in); in.Off < 0 || end > int64(largest) {
				return &suspicion{Likely, i, fmt.Sprintf("the program accesses bytes %d to %d of a map value, and the largest value of its maps has %d", in.Off, end-1, largest)}
			}
		}
		value = copies(in, value)
		if in.IsWide() {
			if in.Src == insn.PseudoMapValue || in.Src == insn.PseudoMapIdxValue {
				possible = &suspicion{Possible, -1, "the program works on map values, and an access may lie outside of one"}
			}
			i++
		}
	}
	return possible
}

func accessSize(in insn.Instruction) int64 {
	switch in.Code & 0x18 {
	case insn.SizeB:
		return 1
	case insn.SizeH:
		return 2
	case insn.SizeW:
		return 4
	}
	return 8
}

// suspectUninit finds a register that is read although no path to that place
// writes it.
func (f *Facts) suspectUninit() *suspicion {
	slot, reg, ok := uninitialised(f.ev.Insns)
	if !ok {
		return nil
	}
	return &suspicion{Likely, slot, fmt.Sprintf("the program reads R%d at instruction %d, and no path to there gives it a value", reg, slot)}
}

const maxAnalysed = 100_000 // slots

// uninitialised returns the first slot, in the order of the program, that reads
// a register which nothing on any path from its function's start has written.
//
//revive:disable-next-line:cyclomatic a data-flow analysis is one loop over kinds of jumps
func uninitialised(prog []insn.Instruction) (slot, reg int, found bool) {
	if len(prog) == 0 || len(prog) > maxAnalysed {
		return 0, 0, false
	}
	const frame = 1 << insn.RegFP
	written := make([]uint16, len(prog)) // by some path, before the slot
	reached := make([]bool, len(prog))
	var work []int
	flow := func(to int, regs uint16) {
		if to < 0 || to >= len(prog) || reached[to] && written[to]|regs == written[to] {
			return
		}
		reached[to] = true
		written[to] |= regs
		work = append(work, to)
	}
	functions := insn.Functions(prog)
	for i, fn := range functions {
		if i == 0 {
			flow(fn.Start, frame|1<<1)
		} else {
			flow(fn.Start, frame|0x3e) // arguments
		}
	}
	// A slot is visited at most once for each register that is added to it.
	for len(work) > 0 {
		i := work[len(work)-1]
		work = work[:len(work)-1]
		in := prog[i]
		_, writes, kills := effect(in)
		after := written[i]&^kills | writes
		next := i + 1
		switch {
		case in.IsWide():
			next = i + 2
		case in.IsExit():
			continue
		case in.Code == insn.OpcodeGotox:
			return 0, 0, false // where it goes is not known
		}
		if t, ok := in.Target(i); ok {
			flow(t, after)
			if in.IsGoto() {
				continue
			}
		}
		flow(next, after)
	}
	for i, in := range prog {
		if !reached[i] || in.IsExit() && i >= functions[0].End {
			continue // only the program itself must return a value
		}
		reads, _, _ := effect(in)
		if missing := reads &^ written[i]; missing != 0 {
			for r := range 11 {
				if missing>>r&1 == 1 {
					return i, r, true
				}
			}
		}
	}
	return 0, 0, false
}

// effect returns the sets of registers that an instruction reads, gives a value
// and leaves without one. Of a call's arguments it knows nothing.
//
//revive:disable-next-line:cyclomatic a case for each class of instructions
func effect(in insn.Instruction) (reads, writes, kills uint16) {
	dst, src := uint16(1)<<in.Dst, uint16(1)<<in.Src
	x := in.Code&insn.SourceX != 0
	switch in.Class() {
	case insn.ClassALU, insn.ClassALU64:
		if in.Op() != insn.OpMOV {
			reads |= dst
		}
		if x && in.Op() != insn.OpEND && in.Op() != insn.OpNEG {
			reads |= src
		}
		return reads, dst, 0
	case insn.ClassLDX:
		return src, dst, 0
	case insn.ClassST:
		return dst, 0, 0
	case insn.ClassSTX:
		switch {
		case !in.IsAtomic():
			return dst | src, 0, 0
		case in.Imm == insn.AtomicLoadAcq:
			return src, dst, 0
		case in.Imm == insn.AtomicCmpXchg:
			return dst | src | 1, 1, 0
		case in.Imm&insn.AtomicFetch != 0:
			return dst | src, src, 0
		}
		return dst | src, 0, 0
	case insn.ClassLD:
		if in.IsWide() {
			return 0, dst, 0
		}
		reads = 1 << 6
		if in.Mode() == insn.ModeIND {
			reads |= src
		}
		return reads, 1, 0x3e
	}
	switch {
	case in.Code == insn.OpcodeCall:
		return 0, 1, 0x3e
	case in.IsExit():
		return 1, 0, 0
	case in.IsMayGoto() || !in.IsConditional():
		return 0, 0, 0
	}
	if x {
		reads = src
	}
	return reads | dst, 0, 0
}

// suspectPointer finds memory that is accessed through a number.
func (f *Facts) suspectPointer() *suspicion {
	number := func(in insn.Instruction) bool { return in.IsALU() && in.Op() == insn.OpMOV && in.IsImmediate() }
	if from, at := followed(f.ev.Insns, number); at >= 0 {
		base, _ := memoryBase(f.ev.Insns[at])
		return &suspicion{Likely, at, fmt.Sprintf("the program follows R%d as a pointer, which holds the number %d", base, f.ev.Insns[from].Imm)}
	}
	if slices.ContainsFunc(f.ev.Insns, func(in insn.Instruction) bool {
		base, ok := memoryBase(in)
		return ok && base != insn.RegFP && base != 1
	}) {
		return &suspicion{Possible, -1, "the program follows pointers, and one of them may be none to the verifier"}
	}
	return nil
}

func (f *Facts) suspectContext() *suspicion {
	context := uint16(1 << 1)
	for i := 0; i < len(f.ev.Insns); i++ {
		in := f.ev.Insns[i]
		if base, ok := memoryBase(in); ok && context>>base&1 == 1 {
			return &suspicion{Possible, -1, "the program accesses its context, and its type may have no such field"}
		}
		context = copies(in, context)
		if in.IsWide() {
			i++
		}
	}
	return nil
}

func (f *Facts) suspectPacket() *suspicion {
	t, _ := f.progType()
	if !slices.Contains([]string{"xdp", "sched_cls", "sched_act", "lwt_in", "lwt_out", "lwt_xmit", "sk_skb", "sk_msg", "cgroup_skb", "flow_dissector"}, t) {
		return nil
	}
	return &suspicion{Possible, -1, "the program may read packet data without having compared its end"}
}

func (f *Facts) suspectLeak() *suspicion {
	for _, in := range f.ev.Insns {
		if in.IsHelperCall() && slices.Contains(acquireHelpers, in.Imm) {
			return &suspicion{Possible, -1, fmt.Sprintf("the program calls %s, whose result must be released on every path", helperName(in.Imm))}
		}
	}
	return nil
}

func (f *Facts) suspectLoop() *suspicion {
	for i, in := range f.ev.Insns {
		t, ok := in.Target(i)
		if !ok || t > i || insn.IsSecondHalf(f.ev.Insns, i) {
			continue
		}
		s := &suspicion{Possible, -1, fmt.Sprintf("the program loops: instruction %d jumps back to %d", i, t)}
		if f.doesNot(node.BoundedLoops) || f.missing(abi.CapBPF) {
			s.strength = Likely
		}
		// Nothing inside leaves the loop.
		if in.IsGoto() && !slices.ContainsFunc(f.ev.Insns[t:i], func(o insn.Instruction) bool { return o.IsConditional() || o.IsExit() || o.IsGoto() }) {
			s.strength = Likely
		}
		return s
	}
	return nil
}

// foreign are helpers whose names belong to certain program types.
var foreign = []struct {
	prefix string
	types  []string
}{
	{"bpf_xdp_", []string{"xdp"}},
	{"bpf_skb_change_", []string{"sched_cls", "sched_act", "lwt_xmit", "lwt_out", "lwt_in", "sk_skb"}},
	{"bpf_probe_", []string{"kprobe", "tracepoint", "perf_event", "raw_tracepoint", "raw_tracepoint_writable", "tracing", "lsm"}},
	{"bpf_msg_", []string{"sk_msg"}},
	{"bpf_override_return", []string{"kprobe"}},
	{"bpf_sysctl_", []string{"cgroup_sysctl"}},
}

func (f *Facts) suspectHelper() *suspicion {
	t, _ := f.progType()
	var possible *suspicion
	for i, in := range f.ev.Insns {
		if !in.IsHelperCall() || insn.IsSecondHalf(f.ev.Insns, i) {
			continue
		}
		name := helperName(in.Imm)
		if possible == nil {
			possible = &suspicion{Possible, -1, fmt.Sprintf("the program calls helpers, %s among them, and one may not be for its type", name)}
		}
		for _, o := range foreign {
			if strings.HasPrefix(name, o.prefix) && t != "" && !slices.Contains(o.types, t) {
				return &suspicion{Likely, i, fmt.Sprintf("the program calls %s, which is not for programs of type %s", name, printable(t, 40))}
			}
		}
	}
	return possible
}

func helperName(id int32) string {
	if h, ok := insn.HelperByID(int(id)); ok {
		return h.Name
	}
	return fmt.Sprintf("helper %d", id)
}
