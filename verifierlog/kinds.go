// SPDX-License-Identifier: Apache-2.0

package verifierlog

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// A Kind is what the verifier objected to. The values are stable.
type Kind string

const (
	Unknown Kind = "unknown" // a message that is not in the table

	// What a program does with memory and registers.
	NullPointer      Kind = "null_pointer"      // a pointer used before it was checked against NULL
	UninitRegister   Kind = "uninit_register"   // a register read before it was written
	InvalidPointer   Kind = "invalid_pointer"   // a number used as a pointer, or a pointer used in a forbidden way
	MapValueBounds   Kind = "map_value_bounds"  // an access outside a map value
	MemoryBounds     Kind = "memory_bounds"     // an access outside another object, or with an unbounded offset
	PacketBounds     Kind = "packet_bounds"     // packet data read without a check against data_end
	ContextAccess    Kind = "context_access"    // a field of the context that this program type has not
	StackUninit      Kind = "stack_uninit"      // stack read before it was written
	StackBounds      Kind = "stack_bounds"      // an access outside the 512 bytes of stack
	StackDepth       Kind = "stack_depth"       // functions that together take more than 512 bytes of stack
	ReadOnly         Kind = "read_only"         // a write to something that is read-only
	Misaligned       Kind = "misaligned"        // a misaligned access
	ReferenceLeak    Kind = "reference_leak"    // something acquired and not released
	ReturnValue      Kind = "return_value"      // a return value outside the range of the program type
	ArgumentType     Kind = "argument_type"     // a wrong argument to a helper or kernel function
	Lock             Kind = "lock"              // spin locks, RCU sections, preemption, interrupts
	Sleepable        Kind = "sleepable"         // something that may sleep where that is forbidden, or the reverse
	ArithmeticRule   Kind = "arithmetic_rule"   // division by zero, shift too far
	PointerLeak      Kind = "pointer_leak"      // a kernel pointer that would reach user space
	NeedsPrivilege   Kind = "needs_privilege"   // allowed with CAP_BPF, CAP_PERFMON or root only
	PointerTruncated Kind = "pointer_truncated" // 32-bit arithmetic on a pointer

	// Limits.
	TooManyInstructions Kind = "too_many_instructions" // a million instructions examined
	TooManyJumps        Kind = "too_many_jumps"        // 8192 pending branches
	InfiniteLoop        Kind = "infinite_loop"         // a loop that makes no progress
	BackEdge            Kind = "back_edge"             // a loop at all, before 5.3 or without privilege
	CallDepth           Kind = "call_depth"            // more than eight nested calls
	TooManyFunctions    Kind = "too_many_functions"

	// What a program calls.
	HelperUnavailable Kind = "helper_unavailable" // this kernel has the helper, this program may not call it
	HelperUnknown     Kind = "helper_unknown"     // a number that this kernel has no helper for
	HelperGPL         Kind = "helper_gpl"         // a GPL-only helper from a program with another licence
	HelperMap         Kind = "helper_map"         // a helper with a type of map that it does not take
	Poison            Kind = "poison"             // what a loader put in place of a relocation that failed
	KfuncUnavailable  Kind = "kfunc_unavailable"  // a kernel function that this program may not call
	KfuncUnknown      Kind = "kfunc_unknown"      // no such kernel function
	NeedsJIT          Kind = "needs_jit"          // a feature that the interpreter, or this compiler, lacks

	// How a program is put together.
	BadMapFD       Kind = "bad_map_fd"
	MapNotAllowed  Kind = "map_not_allowed" // a map of a kind that this program type must not use
	BadOpcode      Kind = "bad_opcode"      // an instruction that this kernel does not know
	ReservedField  Kind = "reserved_field"  // a field that must be zero here, often a newer instruction
	BadRegister    Kind = "bad_register"
	BadLoadImm64   Kind = "bad_ld_imm64"
	Unreachable    Kind = "unreachable"
	JumpOutOfRange Kind = "jump_out_of_range"
	NoExit         Kind = "no_exit" // the last instruction falls off the end
	BadCall        Kind = "bad_call"
	PatchRange     Kind = "patch_range" // a jump that no longer fits 16 bits after a rewrite by the verifier
	BTFInfo        Kind = "btf_info"    // func_info, line_info or BTF that does not fit the program
	AttachTarget   Kind = "attach_target"
	VerifierBug    Kind = "verifier_bug"
)

// Info documents one wording of the verifier.
type Info struct {
	Kind Kind
	// Sample is a message as a kernel printed it.
	Sample string
	// Kernels says which print this wording, when not all of them since 5.4.
	Kernels string

	pattern *regexp.Regexp
	// needs are strings of which a message has one if it matches: looking for them first takes a hundredth of the time.
	needs []string
	// late messages come after all instructions were examined, so the last
	// instruction in the log is not to blame.
	late bool
}

func wording(kind Kind, pattern, sample, kernels string) Info {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		panic(err)
	}
	return Info{Kind: kind, Sample: sample, Kernels: kernels, pattern: regexp.MustCompile(pattern), needs: literals(parsed)}
}

// literals are strings of which every match of an expression has at least one; nil if it need not have any.
func literals(e *syntax.Regexp) []string {
	switch e.Op {
	case syntax.OpLiteral:
		if e.Flags&syntax.FoldCase == 0 {
			return []string{string(e.Rune)}
		}
	case syntax.OpCapture, syntax.OpPlus:
		return literals(e.Sub[0])
	case syntax.OpConcat: // the part whose shortest string is the longest
		var best []string
		for _, sub := range e.Sub {
			if l := literals(sub); shortest(l) > shortest(best) {
				best = l
			}
		}
		return best
	case syntax.OpAlternate:
		var all []string
		for _, sub := range e.Sub {
			l := literals(sub)
			if l == nil {
				return nil
			}
			all = append(all, l...)
		}
		return all
	}
	return nil
}

func shortest(list []string) int {
	if len(list) == 0 {
		return 0
	}
	return len(slices.MinFunc(list, func(a, b string) int { return len(a) - len(b) }))
}

func (i *Info) mayMatch(message string) bool {
	return i.needs == nil || slices.ContainsFunc(i.needs, func(s string) bool { return strings.Contains(message, s) })
}

func (i Info) afterwards() Info {
	i.late = true
	return i
}

// wordings is searched in order; the first that matches counts.
var wordings = []Info{
	// Poison first: it looks like an unknown helper otherwise.
	wording(Poison, `(?:invalid|unknown) func (?:unknown)?#?(?P<poison>195896080)\b`, "invalid func unknown#195896080", "the loader's 0xbad2310 for a CO-RE relocation"),
	wording(Poison, `(?:invalid|unknown) func unknown#(?P<poison>200[12]\d{6})\b`, "invalid func unknown#2002000003", "libbpf's mark for an extern function or map that is absent"),
	wording(Poison, `<(?P<what>invalid (?:CO-RE relocation|BPF map reference|kfunc call))>`, "12: <invalid CO-RE relocation>", "rewritten by libbpf 1.0 and newer"),
	wording(Poison, `failed to resolve CO-RE relocation <(?P<relo>\w+)> (?P<target>.*)`, "failed to resolve CO-RE relocation <byte_off> [7] struct task_struct.nope (0:1 @ offset 4)", "added by libbpf"),
	wording(Poison, `kfunc '(?P<name>[^']+)' is referenced but wasn't resolved`, "kfunc 'bpf_nope' is referenced but wasn't resolved", "added by libbpf"),
	wording(Poison, `BPF map '(?P<name>[^']+)' is referenced but wasn't created`, "BPF map 'nope' is referenced but wasn't created", "added by libbpf"),

	wording(NullPointer, `(?P<reg>R\d+) invalid mem access '(?P<type>[\w, ]*or_null\w*)'`, "R0 invalid mem access 'map_value_or_null'", ""),
	wording(NullPointer, `(?P<reg>R\d+) pointer arithmetic on (?P<type>\w*or_null\w*) prohibited`, "R0 pointer arithmetic on map_value_or_null prohibited, null-check it first", ""),
	wording(NullPointer, `Possibly NULL pointer passed to (?:trusted |helper )?(?P<arg>\S+)`, "Possibly NULL pointer passed to trusted arg0", "6.2 and newer"),
	wording(NullPointer, `(?P<reg>R\d+) type=(?P<type>\w*or_null\w*) expected=(?P<want>.*)`, "R2 type=map_value_or_null expected=fp, pkt, pkt_meta, map_value", ""),

	wording(UninitRegister, `(?P<reg>[Rr]\d+) !read_ok`, "R0 !read_ok", ""),

	wording(MapValueBounds, `invalid access to map value, value_size=(?P<value_size>\d+) off=(?P<off>-?\d+) size=(?P<size>-?\d+)`, "invalid access to map value, value_size=8 off=8 size=8", ""),
	wording(MapValueBounds, `value (?P<off>-?\d+) makes map_value pointer be out of bounds`, "value -2147483647 makes map_value pointer be out of bounds", ""),
	wording(MapValueBounds, `math between (?P<type>map_\w+) pointer and (?:register with unbounded min value|-?\d+) is not allowed`, "math between map_value pointer and register with unbounded min value is not allowed", ""),
	wording(PacketBounds, `invalid access to packet, off=(?P<off>-?\d+) size=(?P<size>\d+), (?P<reg>R\d+)\(`, "invalid access to packet, off=0 size=1, R2(id=0,off=0,r=0)", ""),
	wording(PacketBounds, `(?P<reg>R\d+) offset is outside of the packet`, "R2 offset is outside of the packet", ""),
	wording(PacketBounds, `math between (?P<type>pkt\w*) pointer and (?:register with unbounded min value|-?\d+) is not allowed`, "math between pkt pointer and register with unbounded min value is not allowed", ""),
	wording(MemoryBounds, `invalid access to (?:memory|map key|buffer|\w+ buffer),? ?(?:mem_size|key_size|size)?`, "invalid access to memory, mem_size=16 off=16 size=4", "5.8 and newer"),
	wording(MemoryBounds, `(?P<reg>R\d+) unbounded memory access`, "R0 unbounded memory access, make sure to bounds check any such access", ""),
	wording(MemoryBounds, `(?P<reg>R\d+) (?P<end>min|max) value is outside of the (?:allowed memory|array|packet) range`, "R0 min value is outside of the allowed memory range", "before 5.8: array range"),
	wording(MemoryBounds, `(?P<reg>R\d+) min value is negative`, "R2 min value is negative, either use unsigned or 'var &= const'", ""),
	wording(MemoryBounds, `math between (?P<type>\w+) pointer and (?:register with unbounded min value|-?\d+) is not allowed`, "math between fp pointer and register with unbounded min value is not allowed", ""),
	wording(MemoryBounds, `value (?P<off>-?\d+) makes (?P<type>\w+) pointer be out of bounds`, "value -2147483648 makes pkt pointer be out of bounds", ""),
	wording(MemoryBounds, `(?:(?P<reg>R\d+) )?invalid zero-sized read`, "R2 invalid zero-sized read: u64=[0,8]", "6.8 and newer; without the register before"),
	wording(MemoryBounds, `access beyond (?:struct (?P<type>\S+)|the end of member \S+) .*off(?:set)? (?P<off>\d+)`, "access beyond struct task_struct at off 99999 size 8", "5.5 and newer"),

	wording(ContextAccess, `invalid bpf_context access off=(?P<off>-?\d+) size=(?P<size>\d+)`, "invalid bpf_context access off=4000 size=8", ""),
	wording(ContextAccess, `(?:dereference of modified|negative offset) (?P<type>\w+) ptr (?P<reg>R\d+) off=(?P<off>-?\d+) disallowed`, "dereference of modified ctx ptr R1 off=8 disallowed", ""),
	wording(ContextAccess, `variable (?:ctx|\w+) access var_off=(?P<var_off>\S+ \S+) disallowed`, "variable ctx access var_off=(0x0; 0xff) disallowed", ""),
	wording(ContextAccess, `func '(?P<func>[^']+)' .*doesn't have (?P<arg>\d+)-th argument`, "func 'tcp_connect' doesn't have 2-th argument", "5.5 and newer"),

	// The same words mean uninitialised inside the stack's 512 bytes, and out
	// of bounds outside them.
	wording(StackBounds, `invalid (?:read from|access to|indirect access to|write to) stack (?P<reg>R\d+) off=(?P<off>-(?:51[3-9]|5[2-9]\d|[6-9]\d\d|\d{4,})|\d+) size=(?P<size>\d+)`, "invalid read from stack R10 off=-520 size=8", "5.12 and newer"),
	wording(StackUninit, `invalid (?:indirect )?read from stack (?:(?P<reg>R\d+) )?(?:off=?|var_off) ?(?P<off>[^ ]+) size=? ?(?P<size>\d+)`, "invalid read from stack R10 off=-8 size=8", "unprivileged loaders only since 6.3"),
	wording(StackUninit, `invalid indirect access to stack .*`, "invalid indirect access to stack R2 off=-4 size=8", ""),
	wording(StackUninit, `invalid variable-offset (?P<how>read|write|indirect access) (?:from|to) stack (?P<reg>R\d+)`, "invalid variable-offset read from stack R2 var_off=(0x0; 0xff) off=-64 size=8", ""),
	wording(StackUninit, `corrupted spill memory`, "corrupted spill memory", ""),
	wording(StackBounds, `invalid (?:unbounded variable-offset )?(?:write to|read from|indirect access to|access to) stack (?P<reg>R\d+) off=(?P<off>-?\d+) size=(?P<size>\d+)`, "invalid write to stack R10 off=-520 size=8", ""),
	wording(StackBounds, `invalid stack (?:off|type (?P<reg>R\d+) off)=(?P<off>-?\d+) (?:access_)?size=(?P<size>-?\d+)`, "invalid stack off=-520 size=8", "before 5.10"),
	wording(StackDepth, `combined stack size of (?P<calls>\d+) calls is (?P<size>\d+)\. Too large`, "combined stack size of 2 calls is 832. Too large", "").afterwards(),
	wording(StackDepth, `stack size of subprog \d+ is (?P<size>\d+)\. Too large`, "stack size of subprog 0 is 544. Too large", "6.13 and newer").afterwards(),

	wording(ReadOnly, `(?:write into map forbidden|(?P<reg>R\d+) cannot write into (?P<type>\S+))`, "R1 cannot write into rdonly_mem", ""),
	wording(ReadOnly, `frame pointer is read only`, "frame pointer is read only", ""),
	wording(ReadOnly, `write to change key (?P<reg>R\d+) not allowed`, "write to change key R1 not allowed", "5.13 and newer"),
	wording(Misaligned, `misaligned (?P<what>[\w ]+?) (?:access )?off `, "misaligned stack access off 0+-3+0 size 8", ""),
	wording(PointerTruncated, `(?P<reg>R\d+) (?:32-bit pointer arithmetic prohibited|partial copy of pointer)`, "R2 32-bit pointer arithmetic prohibited", ""),
	wording(InvalidPointer, `(?P<reg>R\d+) invalid mem access '(?P<type>[^']+)'`, "R1 invalid mem access 'scalar'", "before 5.18: 'inv'"),

	wording(ReferenceLeak, `Unreleased reference id=(?P<id>\d+) alloc_insn=(?P<insn_acquired>\d+)`, "Unreleased reference id=2 alloc_insn=7", ""),
	wording(ReferenceLeak, `(?:tail_call|bpf_throw|BPF_EXIT instruction.*|BPF_LD_\S+|\S+) would lead to reference leak`, "tail_call would lead to reference leak", ""),
	wording(ReferenceLeak, `BPF_LD_\[ABS\|IND\] cannot be mixed with socket references`, "BPF_LD_[ABS|IND] cannot be mixed with socket references", "before 6.13"),

	wording(ReturnValue, `At (?P<where>program exit|async callback return|subprogram exit|callback return|\w+ exit) the register (?P<reg>R\d+) has (?P<have>.*?) ?should have been in (?P<want>.*)`, "At program exit the register R0 has smin=5 smax=5 should have been in [0, 1]", "before 6.8: value (0x5; 0x0)"),
	wording(ReturnValue, `At (?P<where>program exit|async callback return) the register (?P<reg>R\d+) is not a known value`, "At program exit the register R0 is not a known value (ctx)", ""),

	wording(Lock, `(?:function calls|BPF_EXIT instruction|BPF_LD_\[ABS\|IND\]|tail_call|bpf_throw|global function calls|\S+ instruction|global functions?)[^;]*(?:are not allowed|cannot be used|is not allowed|that may sleep).*(?:lock|rcu|preempt|IRQ|irq)`, "function calls are not allowed while holding a lock", ""),
	wording(Lock, `bpf_spin_unlock (?:is missing|without taking|of different lock)`, "bpf_spin_unlock is missing", ""),
	wording(Lock, `(?:Locking two bpf_spin_locks|bpf_rcu_read_unlock is missing|unmatched rcu read unlock|bpf_preempt_enable is missing|BPF_EXIT instruction cannot be used inside)`, "bpf_rcu_read_unlock is missing", ""),

	wording(Sleepable, `helper call might sleep in a non-sleepable prog`, "helper call might sleep in a non-sleepable prog", "5.10 and newer"),
	wording(Sleepable, `program must be sleepable to call sleepable kfunc (?P<name>\S+)`, "program must be sleepable to call sleepable kfunc bpf_fget_task_exe", "6.1 and newer"),
	wording(Sleepable, `(?P<name>\S+) is not sleepable`, "bpf_lsm_file_open is not sleepable", ""),
	wording(Sleepable, `(?:Only fentry/fexit/fmod_ret|Sleepable).*(?:can be sleepable|sleepable)`, "Only fentry/fexit/fmod_ret, lsm, iter, uprobe, and struct_ops programs can be sleepable", ""),
	wording(Sleepable, `(?:sleepable helper|kernel func) (?P<name>\S+?)(?:#\d+)?(?: is sleepable)? (?:in|within) (?P<where>.* region)`, "sleepable helper bpf_copy_from_user#148 in rcu_read_lock region", "6.2 and newer"),

	wording(ArithmeticRule, `div by zero`, "div by zero", ""),
	wording(ArithmeticRule, `invalid shift (?P<count>-?\d+)`, "invalid shift 64", ""),

	wording(NeedsPrivilege, `loading/calling other bpf or kernel functions are allowed for CAP_BPF and CAP_SYS_ADMIN`, "loading/calling other bpf or kernel functions are allowed for CAP_BPF and CAP_SYS_ADMIN", "5.8 and newer"),
	wording(NeedsPrivilege, `function calls to other bpf functions are allowed for`, "function calls to other bpf functions are allowed for CAP_BPF and CAP_SYS_ADMIN", "before 5.13"),
	wording(NeedsPrivilege, `prohibited for !root`, "R1 tried to add from different maps, paths, or scalars, pointer arithmetic with it prohibited for !root", ""),
	wording(NeedsPrivilege, `(?P<reg>R\d+) pointer comparison prohibited`, "R1 pointer comparison prohibited", ""),
	wording(NeedsPrivilege, `destructive kfunc calls require CAP_SYS_BOOT`, "destructive kfunc calls require CAP_SYS_BOOT capability", "6.1 and newer"),
	wording(PointerLeak, `(?P<reg>R\d+) leaks addr (?P<where>.*)`, "R0 leaks addr as return value", ""),
	wording(InvalidPointer, `(?P<reg>R\d+) (?:pointer arithmetic (?:on (?P<type>\S+) )?(?:with \S+ operator )?prohibited|pointer \S+ pointer prohibited|bitwise operator \S+ on pointer prohibited)`, "R1 pointer arithmetic with /= operator prohibited", ""),
	wording(InvalidPointer, `(?P<reg>R\d+) subtraction from stack pointer prohibited`, "R1 subtraction from stack pointer prohibited", ""),
	wording(InvalidPointer, `same insn cannot be used with different pointers`, "same insn cannot be used with different pointers", ""),

	wording(TooManyInstructions, `BPF program is too large\. Processed (?P<processed>\d+) insn`, "BPF program is too large. Processed 1000001 insn", ""),
	wording(TooManyJumps, `The sequence of (?P<jumps>\d+) jumps is too complex`, "The sequence of 8193 jumps is too complex.", ""),
	wording(InfiniteLoop, `infinite loop detected at insn (?P<insn>\d+)`, "infinite loop detected at insn 1", "5.3 and newer"),
	wording(BackEdge, `back-edge from insn (?P<from>\d+) to (?P<to>\d+)`, "back-edge from insn 2 to 0", "without CAP_BPF, and for everybody before 5.3"),
	wording(CallDepth, `the call stack of (?P<frames>\d+) frames is too deep`, "the call stack of 9 frames is too deep !", ""),
	wording(TooManyFunctions, `too many (?:subprograms|different kernel function calls|different module BTFs|kernel functions)`, "too many subprograms", ""),

	wording(HelperGPL, `cannot call GPL-restricted function from non-GPL compatible program`, "cannot call GPL-restricted function from non-GPL compatible program", ""),
	wording(HelperGPL, `cannot call (?:GPL-only kfunc|kernel function) from non-GPL compatible program`, "cannot call kernel function from non-GPL compatible program", "5.13 and newer"),
	wording(HelperUnavailable, `program of this type cannot use helper (?P<name>\w+)#(?P<id>\d+)`, "program of this type cannot use helper bpf_xdp_adjust_head#44", "6.9 and newer"),
	wording(HelperUnavailable, `unknown func (?P<name>bpf_\w+)#(?P<id>\d+)`, "unknown func bpf_xdp_adjust_head#44", "before 6.9; also what lockdown makes of a helper"),
	wording(HelperUnavailable, `helper call is not allowed in probe`, "helper call is not allowed in probe", "5.12 and newer"),
	wording(HelperUnknown, `(?:invalid|unknown) func (?:unknown)?#?(?P<id>-?\d+)`, "invalid func unknown#9999", ""),
	wording(HelperMap, `cannot pass map_type (?P<map_type>\d+) into func (?P<name>\w+)#(?P<id>\d+)`, "cannot pass map_type 27 into func bpf_map_lookup_elem#1", ""),
	wording(HelperMap, `kernel subsystem misconfigured func (?P<name>\w+)#(?P<id>\d+)`, "kernel subsystem misconfigured func bpf_map_lookup_elem#1", ""),

	wording(NeedsJIT, `(?P<what>tail_calls|callbacks|calling kernel functions) (?:are|is) not allowed in non-JITed programs`, "tail_calls are not allowed in non-JITed programs with bpf-to-bpf calls", "").afterwards(),
	wording(NeedsJIT, `(?P<what>program) requires BPF JIT compiler but it is not available`, "program requires BPF JIT compiler but it is not available", "7.2 and newer").afterwards(),
	wording(NeedsJIT, `JIT (?:doesn't|does not) support (?P<what>.*)`, "JIT does not support calling kernel function", ""),
	wording(NeedsJIT, `(?P<what>.+) (?:is|are) not supported (?:by|in) (?:the )?(?:\S+ )?JIT`, "may_goto is not supported by the JIT", ""),

	wording(KfuncUnavailable, `calling kernel function (?P<name>\S+) is not allowed`, "calling kernel function bpf_task_acquire is not allowed", "5.13 and newer"),
	wording(KfuncUnavailable, `calling kernel function is not supported without (?P<config>\S+)`, "calling kernel function is not supported without CONFIG_DEBUG_INFO_BTF", "5.13 and newer"),
	wording(KfuncUnknown, `(?:invalid )?kernel (?:function )?btf_id (?P<btf_id>\d+)(?: is not a function| does not have a valid func_proto)?`, "kernel btf_id 1 is not a function", "5.13 and newer"),
	wording(KfuncUnknown, `invalid kernel function call not eliminated in verifier pass`, "invalid kernel function call not eliminated in verifier pass", "5.13 and newer"),
	wording(KfuncUnknown, `kfunc offset > 0 without fd_array is invalid|negative offset disallowed for kernel module function call|invalid module BTF fd`, "kfunc offset > 0 without fd_array is invalid", "5.15 and newer"),
	wording(ArgumentType, `(?P<reg>R\d+) type=(?P<type>\S+) expected=(?P<want>.*)`, "R2 type=scalar expected=fp, pkt, pkt_meta, map_key, map_value", "before 5.18: type=inv"),
	wording(ArgumentType, `kernel function (?P<name>\S+) args?#(?P<arg>\d+) (?P<why>.*)`, "kernel function bpf_kfunc args#0 expected pointer to ctx, but got scalar", "5.13 and newer"),
	wording(ArgumentType, `arg#(?P<arg>\d+) (?P<why>(?:expected|pointer type|is |must |arg ).*)`, "arg#0 expected pointer to stack or dynptr_ptr", ""),
	wording(ArgumentType, `(?P<reg>R\d+) (?:must be a known constant|is not a known constant|doesn't have constant offset|must be referenced|must have zero offset|is not pointing to).*`, "R3 must be a known constant", ""),

	wording(BadMapFD, `fd (?P<fd>-?\d+) is not pointing to (?:a )?valid bpf_map`, "fd 999 is not pointing to valid bpf_map", ""),
	wording(BadMapFD, `fd_idx without fd_array is invalid`, "fd_idx without fd_array is invalid", "5.14 and newer"),
	wording(MapNotAllowed, `(?:trace type|perf_event|tracing|socket filter|Sleepable|sleepable) prog(?:ram)?s? (?:can only use|cannot use) (?P<what>.*)`, "socket filter progs cannot use bpf_spin_lock yet", ""),
	wording(MapNotAllowed, `map type (?P<map_type>\d+) is not allowed|The (?:program|map) is not (?:offloaded|offload)|offload device mismatch`, "offload device mismatch between prog and map", ""),
	wording(MapNotAllowed, `Cannot use more than one .*(?:arena|cgroup local storage)|only one (?:different )?(?:cgroup storage|arena).*|only one cgroup local storage`, "only one cgroup local storage is allowed per type", ""),

	wording(PatchRange, `insn (?P<insn>\d+) cannot be patched due to 16-bit range`, "insn 10385 cannot be patched due to 16-bit range", "5.1 and newer").afterwards(),

	wording(BadLoadImm64, `(?:invalid|unrecognized) bpf_ld_imm64 insn|invalid BPF_LD_IMM insn`, "invalid bpf_ld_imm64 insn", ""),
	wording(BadOpcode, `unknown opcode (?P<opcode>[0-9a-f]{2})`, "unknown opcode 06", "an instruction that is newer than the kernel"),
	wording(BadOpcode, `unknown insn class (?P<class>\d+)|invalid BPF_ALU opcode (?P<opcode>[0-9a-f]+)|BPF_(?:ATOMIC|XADD|STX) uses invalid (?:atomic )?opcode (?P<atomic>[0-9a-f]+)|invalid atomic opcode`, "BPF_ATOMIC uses invalid atomic opcode 02", ""),
	wording(ReservedField, `(?P<op>BPF_\w+) uses reserved fields`, "BPF_MOV uses reserved fields", ""),
	wording(BadRegister, `(?P<reg>R\d+) is invalid`, "R12 is invalid", ""),
	wording(Unreachable, `unreachable insn (?P<insn>\d+)`, "unreachable insn 2", ""),
	wording(JumpOutOfRange, `jump out of range from insn (?P<insn>\d+) to (?P<to>-?\d+)`, "jump out of range from insn 1 to 12", ""),
	wording(JumpOutOfRange, `jump into the middle of ldimm64 insn (?P<to>\d+)`, "jump into the middle of ldimm64 insn 2", "6.6 and newer"),
	wording(NoExit, `last insn is not an exit or jmp`, "last insn is not an exit or jmp", ""),
	wording(NoExit, `no program starts at insn|subprog doesn't exit`, "no program starts at insn 5", ""),
	wording(BadCall, `call to invalid destination|call out of range|no callback subprog|subprog \d+ is invalid|invalid insn idx \d+ insn_cnt \d+`, "call to invalid destination", ""),

	wording(BTFInfo, `(?:func_info BTF section doesn't match|number of funcs in func_info doesn't match|same insn_off|missing btf func_info|Invalid (?:insn code at )?line_info\[|Invalid line_info|invalid (?:func_info|line_info|type id \d+ in func info)|line_info\[|missing bpf_line_info|nonzero tailing record|non-zero .*core_relo|func_info)`, "func_info BTF section doesn't match subprog layout in BPF program", ""),
	wording(BTFInfo, `(?:Caller|Callee|arg#?\d* .*|Function|caller|func#\d+|\w+\(\)) (?:passes invalid args|is not a valid|is already freplaced|doesn't return scalar|.*not supported in global func).*`, "Caller passes invalid args into func#1 ('f')", ""),

	wording(AttachTarget, `attach_btf_id (?P<btf_id>\d+) is (?:not a function|invalid)`, "attach_btf_id 7 is not a function", "5.5 and newer"),
	wording(AttachTarget, `(?P<func>\S+?)\(\) is not modifiable`, "tcp_connect() is not modifiable", "5.7 and newer"),
	wording(AttachTarget, `The address of function (?P<func>\S+) cannot be found`, "The address of function tcp_foo cannot be found", "5.6 and newer"),
	wording(AttachTarget, `Tracing programs must provide btf_id|FENTRY/FEXIT program can only be attached|Cannot recursively attach|Cannot (?:extend|replace).*|attach to unsupported member (?P<member>\S+)|attach_btf_id (?P<id>\d+) points to wrong type name (?P<name>\S+)|struct_ops.*not|attach_prog_fd.*`, "Tracing programs must provide btf_id", ""),
	wording(AttachTarget, `(?:BPF_LSM|LSM programs|LSM)\b.*(?:must have a GPL compatible license|disabled hooks list|points to disabled)`, "attach_btf_id 100 points to disabled bpf_lsm_hook in LSM disabled hooks list", ""),
	wording(AttachTarget, `attach_btf_id \d+ points to`, "attach_btf_id 100 points to disabled hook", ""),

	wording(VerifierBug, `verifier bug|bpf verifier is misconfigured|kernel subsystem misconfigured verifier|REG INVARIANTS VIOLATION|verifier internal error`, "verifier bug: REG INVARIANTS VIOLATION (true_reg1)", ""),
}

// Wordings returns the table of known messages, for documentation.
func Wordings() []Info { return append([]Info(nil), wordings...) }

// Match is a classified message.
type Match struct {
	Kind Kind
	// Args holds what the message names. Keys in use: reg (R1), type, want,
	// off, size, value_size, name and id (of a helper or kernel function),
	// insn, from, to, fd, btf_id, poison, opcode, op.
	Args map[string]string
	// Late messages come after the walk through the program, so that the last
	// instruction of the log is not to blame.
	Late bool
}

// Classify recognises one message of the verifier, also in the middle of a
// longer line such as a loader's error text. It is [Unknown] for any other text.
func Classify(message string) Match {
	if len(message) > maxLine {
		message = message[:maxLine]
	}
	for i := range wordings {
		w := &wordings[i]
		if !w.mayMatch(message) {
			continue
		}
		groups := w.pattern.FindStringSubmatch(message)
		if groups == nil {
			continue
		}
		m := Match{Kind: w.Kind, Late: w.late}
		for i, name := range w.pattern.SubexpNames() {
			if name == "" || groups[i] == "" {
				continue
			}
			if m.Args == nil {
				m.Args = make(map[string]string)
			}
			m.Args[name] = groups[i]
		}
		return m
	}
	return Match{Kind: Unknown}
}
