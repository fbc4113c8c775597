// SPDX-License-Identifier: Apache-2.0

package verifierlog

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
	KernelObject     Kind = "kernel_object"     // a field that a struct of the kernel has not, or that may not be reached so
	StackUninit      Kind = "stack_uninit"      // stack read before it was written
	StackBounds      Kind = "stack_bounds"      // an access outside the 512 bytes of stack
	StackDepth       Kind = "stack_depth"       // functions that together take more than 512 bytes of stack
	ReadOnly         Kind = "read_only"         // a write to something that is read-only
	Misaligned       Kind = "misaligned"        // a misaligned access
	ReferenceLeak    Kind = "reference_leak"    // something acquired and not released
	ReturnValue      Kind = "return_value"      // a return value outside the range of the program type
	ArgumentType     Kind = "argument_type"     // a wrong argument to a helper or kernel function
	GlobalFunction   Kind = "global_function"   // arguments or types of a function that is verified on its own
	StackObject      Kind = "stack_object"      // dynptrs, iterators and interrupt flags, which live on the stack
	SpecialField     Kind = "special_field"     // timers, locks and kptrs in map values and objects
	OwnedObject      Kind = "owned_object"      // objects that the program allocates, and lists and trees of them
	Callback         Kind = "callback"          // functions that the kernel calls back, and exceptions
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
	HelperGPL         Kind = "helper_gpl"         // what only programs with a GPL-compatible licence may do
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
	Untraceable    Kind = "untraceable" // a function that tracing itself needs, or that never returns

	// Objects other than programs, whose log is read alike.
	BTFData      Kind = "btf_data"      // BTF that does not keep to its format
	MapAttribute Kind = "map_attribute" // a map's definition, 7.0 and newer

	// Rejected messages have no kind of their own: the note of the message says it all.
	Rejected    Kind = "rejected"
	VerifierBug Kind = "verifier_bug"
)
