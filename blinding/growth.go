// SPDX-License-Identifier: Apache-2.0

package blinding

import (
	"github.com/bpfwhy/bpfwhy/insn"
)

// What the verifier adds in one place at most, in slots after blinding: the
// patch that takes the place of the instruction, with every immediate in it
// blinded, less the instruction itself. The patches are those of the kernel's
// kernel/bpf/verifier.c, net/core/filter.c and the map types' gen_lookup; the
// numbers are rounded up. None of the random programs of docs/blinding-proof.md
// grew by more on any kernel of the lab, nor any of 459 programs of the kernel's
// selftests that load on 6.18.
const (
	growthPrologue = 24 // unclone of packet data at the start of the program
	growthLoadAbs  = 12 // bpf_gen_ld_abs: a call and a test of its result
	growthDivide   = 6  // a test of the divisor
	growthSDivide  = 16 // tests for 0, 1 and -1
	growthKfunc    = 14 // an address and sizes in front of the call
	growthMayGoto  = 12 // a counter on the stack, or a timer
	growthMask     = 10 // sanitised pointer arithmetic of the unprivileged
	growthFence    = 1
	growthCast     = 2
)

// helperGrowth are the helpers that the verifier inlines or hands another
// argument, by number.
var helperGrowth = map[int32]uint8{
	1:   22, // map_lookup_elem: the largest is that of an array of maps
	2:   2,  // map_update_elem
	3:   2,  // map_delete_elem
	5:   8,  // ktime_get_ns
	7:   4,  // get_prandom_u32
	8:   8,  // get_smp_processor_id
	12:  12, // tail_call: the index is masked for the unprivileged
	35:  8,  // get_current_task
	58:  2,  // override_return
	107: 4,  // sk_storage_get: a flag in another register
	118: 8,  // jiffies64
	124: 8,  // sk_assign and its like: nothing, some room
	153: 10, // per_cpu_ptr
	154: 10, // this_cpu_ptr
	156: 4,  // task_storage_get
	145: 4,  // inode_storage_get
	158: 8,  // get_current_task_btf
	164: 2,  // for_each_map_elem
	170: 10, // timer_set_callback: the program's address
	173: 4,  // get_func_ip
	174: 4,  // get_attach_cookie
	176: 16, // get_branch_snapshot
	181: 36, // loop
	183: 18, // get_func_arg
	184: 10, // get_func_ret
	185: 4,  // get_func_arg_cnt
	194: 4,  // kptr_xchg
	195: 22, // map_lookup_percpu_elem
	210: 4,  // cgrp_storage_get
}

// socketHelpers return sockets, whose fields are read like those of the context:
// sk_lookup_tcp, sk_lookup_udp, sk_fullsock, tcp_sock, get_listener_sock,
// skc_lookup_tcp.
var socketHelpers = map[int32]bool{84: true, 85: true, 95: true, 96: true, 98: true, 99: true}

// contextGrowth is what an access to the context of a program type adds, at
// most. A type that is not here is not known.
var contextGrowth = map[string]uint8{
	// The context is what the program sees.
	"kprobe": 0, "tracepoint": 0, "raw_tracepoint": 0, "raw_tracepoint_writable": 0,
	"tracing": 0, "lsm": 0, "ext": maxContextGrowth, "struct_ops": 2, "syscall": 0,
	"lirc_mode2": 0, "cgroup_device": 2, "netfilter": 2,
	"xdp": 8, "perf_event": 8, "sk_reuseport": 12, "flow_dissector": 8,
}

const maxContextGrowth = 24

// growthOf returns for each slot how many slots the verifier adds at most.
//
//revive:disable-next-line:cyclomatic a case for each rewriting of the verifier
func growthOf(prog []insn.Instruction, functions []insn.Function, k Kernel, s Source) []uint8 {
	extra := make([]uint8, len(prog))
	if len(prog) == 0 {
		return extra
	}
	context, known := contextGrowth[s.Type]
	if !known {
		context = maxContextGrowth
	}
	var pointers []regs
	if context > 0 {
		pointers = contextRegisters(prog, functions)
	}
	for i, in := range prog {
		n := 0
		switch class := in.Class(); {
		case insn.IsSecondHalf(prog, i):
			continue
		case in.IsALU():
			n = growthOfALU(in)
			if s.Unprivileged && class == insn.ClassALU64 && (in.Op() == insn.OpADD || in.Op() == insn.OpSUB) {
				n += growthMask
			}
			if in.IsAddrSpaceCast() {
				n += growthCast
			}
		case in.IsMayGoto():
			n = growthMayGoto
		case in.IsHelperCall():
			n = int(helperGrowth[in.Imm])
		case in.IsKfuncCall():
			n = growthKfunc
		case class == insn.ClassLD && (in.Mode() == insn.ModeABS || in.Mode() == insn.ModeIND):
			n = growthLoadAbs
		case class == insn.ClassLDX:
			if pointers != nil && pointers[i].has(in.Src) {
				n = int(context)
			}
		case class == insn.ClassST, class == insn.ClassSTX:
			if pointers != nil && pointers[i].has(in.Dst) {
				n = int(context)
			}
			if s.Unprivileged {
				n += growthFence
			}
		}
		if k.ZeroExtends {
			n++
		}
		if i == 0 {
			n += growthPrologue
		}
		extra[i] = uint8(min(n, 255))
	}
	return extra
}

func growthOfALU(in insn.Instruction) int {
	switch {
	case in.Op() != insn.OpDIV && in.Op() != insn.OpMOD:
		return 0
	case in.IsSignedDiv():
		return growthSDivide
	case in.IsImmediate():
		return 0
	}
	return growthDivide
}

// regs are the places of a function that may hold the context, or a socket that
// came out of it: a bit for each register, and for each eight bytes of the
// stack.
type regs struct {
	r     uint16
	stack uint64
}

func (s regs) has(reg uint8) bool { return s.r&(1<<reg) != 0 }

func (s *regs) set(reg uint8, may bool) {
	s.r &^= 1 << reg
	if may {
		s.r |= 1 << reg
	}
}

const (
	arguments = 0x3e // R1 to R5
	scratched = 0x3f // by a call
)

// tracker finds out where the context may be, by letting it flow along every
// path. Sets only grow, so that it ends: a slot is looked at again only when more
// has come to it.
type tracker struct {
	prog      []insn.Instruction
	functions []insn.Function
	before    []regs
	todo      []int32 // slots to look at, as a ring
	next, n   int
	queued    []bool
	// spilled: it was stored somewhere, from where a pointer may bring it back.
	// aliased: also through a pointer that may lead into the stack.
	spilled, aliased bool
	// given are the arguments of all calls of which it is not known whom they call.
	given regs
}

// contextRegisters returns what may hold the context before each slot.
func contextRegisters(prog []insn.Instruction, functions []insn.Function) []regs {
	t := tracker{prog: prog, functions: functions, before: make([]regs, len(prog)), todo: make([]int32, len(prog)), queued: make([]bool, len(prog))}
	t.flow(0, regs{r: 1 << 1})
	t.all()
	for t.n > 0 {
		i := int(t.todo[t.next])
		t.next, t.n = (t.next+1)%len(t.todo), t.n-1
		t.queued[i] = false
		t.step(i)
	}
	return t.before
}

func (t *tracker) queue(i int) {
	if !t.queued[i] {
		t.queued[i] = true
		t.todo[(t.next+t.n)%len(t.todo)] = int32(i)
		t.n++
	}
}

func (t *tracker) all() {
	for i := range t.prog {
		t.queue(i)
	}
}

func (t *tracker) flow(to int, s regs) {
	if to < 0 || to >= len(t.before) {
		return
	}
	b := &t.before[to]
	if s.r&^b.r != 0 || s.stack&^b.stack != 0 {
		b.r |= s.r
		b.stack |= s.stack
		t.queue(to)
	}
}

func (t *tracker) note(flag *bool) {
	if !*flag {
		*flag = true
		t.all()
	}
}

// frameSlot is the bit of an address on the stack.
func frameSlot(off int16) (uint64, bool) {
	if off >= 0 || off < -512 {
		return 0, false
	}
	return 1 << ((int(off) + 512) / 8), true
}

// step lets what is known before slot i flow on.
func (t *tracker) step(i int) {
	in, s := t.prog[i], t.before[i]
	switch class := in.Class(); {
	case insn.IsSecondHalf(t.prog, i):
	case in.IsALU():
		t.arithmetic(in, &s)
	case class == insn.ClassLD && in.IsWide():
		s.set(in.Dst, false)
	case class == insn.ClassLD: // packet access
		s.r &^= scratched
	case class == insn.ClassLDX:
		s.set(in.Dst, t.loads(in, s))
	case class == insn.ClassSTX || class == insn.ClassST:
		t.stores(in, &s)
	case in.IsExit():
		return
	case in.Code == insn.OpcodeCall:
		t.call(i, &s)
	default: // a jump
		if to, ok := in.Target(i); ok {
			t.flow(to, s)
		}
		if in.IsGoto() {
			return
		}
	}
	t.flow(i+1, s)
}

func (t *tracker) arithmetic(in insn.Instruction, s *regs) {
	register := in.Code&insn.SourceX != 0
	switch {
	case in.Class() != insn.ClassALU64:
		s.set(in.Dst, false)
	case in.Op() == insn.OpMOV:
		s.set(in.Dst, register && s.has(in.Src))
	case in.Op() == insn.OpADD || in.Op() == insn.OpSUB:
		s.set(in.Dst, s.has(in.Dst) || register && s.has(in.Src))
	default:
		s.set(in.Dst, false)
	}
}

func (t *tracker) loads(in insn.Instruction, s regs) bool {
	const sizeMask = 0x18
	if in.Code&sizeMask != insn.SizeDW {
		return false
	}
	if in.Src == insn.RegFP {
		bit, ok := frameSlot(in.Off)
		return t.aliased || ok && s.stack&bit != 0
	}
	return s.has(in.Src) || t.spilled
}

func (t *tracker) stores(in insn.Instruction, s *regs) {
	held := in.Class() == insn.ClassSTX && s.has(in.Src)
	if held {
		t.note(&t.spilled)
	}
	if in.Dst != insn.RegFP {
		if held {
			t.note(&t.aliased)
		}
		return
	}
	if bit, ok := frameSlot(in.Off); ok {
		if held {
			s.stack |= bit
		} else if in.Code == insn.ClassSTX|insn.ModeMEM|insn.SizeDW && in.Off%8 == 0 {
			s.stack &^= bit
		}
	}
}

func (t *tracker) call(i int, s *regs) {
	in := t.prog[i]
	given := regs{r: s.r & arguments}
	returned := in.IsHelperCall() && socketHelpers[in.Imm]
	if in.IsFuncCall() {
		returned = given.r != 0 || t.spilled
		to, ok := in.CallTarget(i)
		if f, found := insn.FunctionAt(t.functions, to); ok && found && f.Start == to {
			t.flow(to, given)
		} else if given.r&^t.given.r != 0 {
			// Not relocated yet: it may be any.
			t.given.r |= given.r
			for _, f := range t.functions {
				t.flow(f.Start, t.given)
			}
		}
	}
	s.r &^= scratched
	s.set(0, returned)
}
