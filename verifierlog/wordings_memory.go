// SPDX-License-Identifier: Apache-2.0

package verifierlog

import "strconv"

// memoryWordings are about registers, pointers and the memory behind them.
var memoryWordings = []Info{
	wording(NullPointer, reg+` invalid mem access '(?P<type>[\w, ]*or_null\w*)'`, "R0 invalid mem access 'map_value_or_null'"),
	wording(NullPointer, reg+` pointer arithmetic on (?P<type>\w*or_null\w*) prohibited`, "R0 pointer arithmetic on map_value_or_null prohibited, null-check it first"),
	wording(NullPointer, `Possibly NULL pointer passed to (?:trusted |helper )?(?P<arg>\S+)`, "Possibly NULL pointer passed to trusted arg0").printedBy("6.2 and newer"),
	wording(NullPointer, reg+` type=(?P<type>\w*or_null\w*) expected=(?P<want>.*)`, "R2 type=map_value_or_null expected=fp, pkt, pkt_meta, map_value"),
	wording(NullPointer, `(?:`+reg+`|arg#\d+) is expected to be non-NULL`, "arg#0 is expected to be non-NULL"),

	wording(UninitRegister, `(?P<reg>[Rr]\d+) !read_ok`, "R0 !read_ok"),

	wording(MapValueBounds, `invalid access to map value, value_size=(?P<value_size>\d+) off=(?P<off>-?\d+) size=(?P<size>-?\d+)`, "invalid access to map value, value_size=8 off=8 size=8"),
	wording(MapValueBounds, `invalid access to map value pointer, value_size=(?P<value_size>\d+) off=(?P<off>\d+)`, "invalid access to map value pointer, value_size=8 off=16").
		note("The program takes the address of byte {off} of a map value of {value_size} bytes.",
			"Make sure that the map has the size that the object was built with: global variables live in maps whose value is the whole section."),
	wording(MapValueBounds, `value (?P<off>-?\d+) makes map_value pointer be out of bounds`, "value -2147483647 makes map_value pointer be out of bounds"),
	wording(MapValueBounds, `math between (?P<type>map_\w+) pointer and (?:register with unbounded min value|-?\d+) is not allowed`, "math between map_value pointer and register with unbounded min value is not allowed"),
	wording(PacketBounds, `invalid access to packet, off=(?P<off>-?\d+) size=(?P<size>\d+)(?:, `+reg+`\(|$)`, "invalid access to packet, off=0 size=1, R2(id=0,off=0,r=0)"),
	wording(PacketBounds, reg+` offset is outside of the packet`, "R2 offset is outside of the packet"),
	wording(PacketBounds, `math between (?P<type>pkt\w*) pointer and (?:register with unbounded min value|-?\d+) is not allowed`, "math between pkt pointer and register with unbounded min value is not allowed"),
	wording(MemoryBounds, `invalid access to (?:memory, mem_size|map key, key_size)=(?P<mem_size>\d+) off=(?P<off>-?\d+) size=(?P<size>-?\d+)`, "invalid access to memory, mem_size=16 off=16 size=4").printedBy("5.8 and newer"),
	wording(MemoryBounds, `invalid access to flow keys off=(?P<off>-?\d+) size=(?P<size>-?\d+)|`+reg+` invalid variable offset to flow keys`, "invalid access to flow keys off=56 size=4").
		note("struct bpf_flow_keys has no such bytes, or the offset into it is not a constant.", "Access its fields by name, and each as a whole."),
	wording(MemoryBounds, reg+` invalid (?P<type>\w+) buffer access: off=(?P<off>-?\d+), size=(?P<size>-?\d+)`, "R1 invalid rdonly buffer access: off=-8, size=8").
		note("The access by {reg} lies outside of the {type} buffer that the kernel hands to this program.", "Stay inside of the struct that the iterator or the writable tracepoint documents."),
	wording(MemoryBounds, reg+` invalid (?:variable|negative \w+) buffer offset: off=(?P<off>-?\d+), var_off=\S+`, "R1 invalid variable buffer offset: off=0, var_off=(0x0; 0xff)").
		note("The offset into the buffer of an iterator or a writable tracepoint is negative, or not a constant.", "Use offsets that the compiler knows: fields by name, and loops that are unrolled."),
	wording(MemoryBounds, reg+` unbounded memory access`, "R0 unbounded memory access, make sure to bounds check any such access"),
	wording(MemoryBounds, reg+` unbounded size, use 'var &= const'`, "R2 unbounded size, use 'var &= const' or 'if (var < const)'"),
	wording(MemoryBounds, reg+` (?P<end>min|max) value is outside of the (?:allowed memory|array|packet) range`, "R0 min value is outside of the allowed memory range").printedBy("before 5.8: array range"),
	wording(MemoryBounds, reg+` min value is negative`, "R2 min value is negative, either use unsigned or 'var &= const'"),
	wording(MemoryBounds, `math between (?P<type>\w+) pointer and (?:register with unbounded min value|-?\d+) is not allowed`, "math between fp pointer and register with unbounded min value is not allowed"),
	wording(MemoryBounds, `value (?P<off>-?\d+) makes (?P<type>\w+) pointer be out of bounds`, "value -2147483648 makes pkt pointer be out of bounds"),
	wording(MemoryBounds, `(?P<type>\w+) pointer offset (?P<off>-?\d+) is not allowed`, "map_value pointer offset 1073741824 is not allowed").
		note("A {type} pointer was moved by {off} bytes: no pointer may be moved further than 2^29 bytes.", "Look for an offset that was computed wrongly, such as a negative length taken for an unsigned one."),
	wording(MemoryBounds, `(?:`+reg+` )?invalid zero-sized read`, "R2 invalid zero-sized read: u64=[0,8]").printedBy("6.8 and newer; without the register before"),
	wording(MemoryBounds, reg+` memory size (?P<size>\d+) is too large`, "R1 memory size 4294967295 is too large"),

	wording(ContextAccess, `invalid bpf_context access off=(?P<off>-?\d+)\. Reference may already be released`, "invalid bpf_context access off=8. Reference may already be released").
		note("The program reads an argument at offset {off} of its context that it was handed with a reference, after it gave that reference away or released it.", "Read the argument once, at the beginning, and use that pointer."),
	wording(ContextAccess, `invalid bpf_context access off=(?P<off>-?\d+) size=(?P<size>\d+)`, "invalid bpf_context access off=4000 size=8"),
	wording(ContextAccess, `invalid access to context, ctx_size=(?P<ctx_size>\d+) off=(?P<off>-?\d+) size=(?P<size>-?\d+)`, "invalid access to context, ctx_size=64 off=64 size=8"),
	wording(ContextAccess, `dereference of modified (?P<type>ctx) ptr `+reg+` off=(?P<off>-?\d+) disallowed`, "dereference of modified ctx ptr R1 off=8 disallowed"),
	wording(ContextAccess, `negative offset (?P<type>ctx) ptr `+reg+` off=(?P<off>-?\d+) disallowed`, "negative offset ctx ptr R1 off=-8 disallowed"),
	wording(ContextAccess, `variable (?P<type>ctx) access var_off=(?P<var_off>\S+ \S+) disallowed`, "variable ctx access var_off=(0x0; 0xff) disallowed"),
	wording(ContextAccess, `func '(?P<func>[^']+)' doesn't have (?P<arg>\d+)-th argument`, "func 'tcp_connect' doesn't have 2-th argument").printedBy("5.5 and newer"),
	wording(ContextAccess, `func '(?P<func>[^']+)' (?:offset (?P<off>\d+) is not multiple of 8|size (?P<size>\d+) must be 8)`, "func 'tcp_connect' offset 4 is not multiple of 8").
		note("The arguments of {func} lie in the context in 8 bytes each, and are read as a whole.", "Declare the program by BPF_PROG(name, arguments...), or read ctx[0], ctx[1] as 64-bit numbers."),
	wording(ContextAccess, `func '(?P<func>[^']+)' arg(?P<arg>\d+) '(?P<name>[^']*)' has type (?P<type>\w+)\. Only pointer access is allowed`, "func 'tcp_connect' arg0 'x' has type STRUCT. Only pointer access is allowed").
		note("Argument {arg} of {func} is a {type}, and the program follows it as a pointer.", "Read the argument as a number."),
	wording(ContextAccess, `func '(?P<func>[^']+)' arg(?P<arg>\d+) type (?P<type>\w+) (?:is not a struct|has multiple type tags)`, "func 'tcp_connect' arg0 type UNKNOWN is not a struct").
		note("Argument {arg} of {func} is a pointer to something else than a struct, so the verifier does not know what lies behind it.", "Read it by bpf_probe_read_kernel."),
	wording(ContextAccess, `invalid btf_id for context argument offset (?P<off>\d+)`, "invalid btf_id for context argument offset 8").
		note("The iterator's argument at offset {off} of the context has no type in this kernel's BTF.", "Check that the kernel that runs is the one that the iterator was built for, and that its module is loaded."),
	wording(ContextAccess, `ret type (?P<type>\w+) not allowed for fmod_ret`, "ret type PTR not allowed for fmod_ret").
		note("The function returns a {type}, and fmod_ret can replace numbers only.", "Attach to a function that returns int."),
	wording(ContextAccess, `cannot write into packet`, "cannot write into packet").
		note("Programs of this type may read packets and not write them.", "Write by bpf_skb_store_bytes where the type has it, or use a type that may write packets (tc, XDP, lwt_xmit, sk_skb)."),

	wording(KernelObject, `access beyond struct (?P<type>\S+) at off (?P<off>\d+) size (?P<size>\d+)`, "access beyond struct task_struct at off 99999 size 8").printedBy("5.5 and newer"),
	wording(KernelObject, `access beyond the end of member (?P<member>\S+) \(mend:\d+\) in struct (?P<type>\S+) with off (?P<off>\d+) size (?P<size>\d+)`, "access beyond the end of member comm (mend:2936) in struct task_struct with off 2936 size 8"),
	wording(KernelObject, `struct (?P<type>\S+) doesn't have field at offset (?P<off>\d+)`, "struct sk_buff doesn't have field at offset 4").
		note("struct {type} has no field at offset {off}: there is padding, or the offset is that of another kernel.", "Build with CO-RE (vmlinux.h, preserve_access_index), so that offsets are those of the kernel that runs."),
	wording(KernelObject, `cannot access ptr member (?P<member>\S+) with moff (?P<moff>\d+) in struct (?P<type>\S+) with off (?P<off>\d+) size (?P<size>\d+)`, "cannot access ptr member next with moff 0 in struct list_head with off 4 size 4").
		note("The program reads part of the pointer {member} of struct {type}.", "Read the pointer as a whole: 8 bytes, at the field's own offset."),
	wording(KernelObject, `[Tt]ype '(?P<type>[^']+)' (?:is not a struct|has multiple type tags)|field (?P<member>\S+) doesn't have size`, "Type 'int' is not a struct").
		note("The program follows a typed kernel pointer into something of which the verifier cannot find a field.", "Read the value by bpf_probe_read_kernel or BPF_CORE_READ."),
	wording(KernelObject, `direct access to (?P<member>\S+) is disallowed`, "direct access to bpf_spin_lock is disallowed").
		note("{member} is a field that only its own functions may touch.", "Use the kernel functions and helpers for it."),
	wording(KernelObject, reg+` is ptr_(?P<type>\w*) (?:invalid negative access: off=(?P<off>-?\d+)|invalid variable offset: off=-?\d+, var_off=.*)`, "R1 is ptr_sock invalid variable offset: off=0, var_off=(0x0; 0xff)").
		note("{reg} points to a struct {type} of the kernel, and the offset into it is negative or not a constant.", "Access fields by name. For an array inside of the struct use bpf_probe_read_kernel."),
	wording(KernelObject, reg+` is ptr_(?P<type>\w*) access (?P<where>user|percpu) memory: off=(?P<off>-?\d+)`, "R1 is ptr_task_struct access user memory: off=0").
		note("{reg} points to {where} memory, which cannot be read directly.", "Read user memory by bpf_probe_read_user or bpf_copy_from_user, and per-CPU memory behind bpf_per_cpu_ptr or bpf_this_cpu_ptr."),
	wording(KernelObject, reg+` is (?P<type>\w+) invalid negative access: off=(?P<off>-?\d+)`, "R1 is bpf_map invalid negative access: off=-8").
		note("{reg} points to a {type}, and the offset into it is negative.", "Access fields by name."),
	wording(KernelObject, reg+` invalid (?P<type>\w+) access off=(?P<off>-?\d+) size=(?P<size>\d+)`, "R1 invalid sock_common access off=60 size=4").
		note("A {type} has no field that programs may read at offset {off} with {size} bytes.", "A sock_common has only what all sockets have: bpf_sk_fullsock gives the rest, and bpf_tcp_sock the fields of TCP."),
	wording(KernelObject, `map_ptr access not supported for map type (?P<map_type>\d+)`, "map_ptr access not supported for map type 1").
		note("The fields of struct bpf_map cannot be read for maps of type {map_type}.", "Pass what the program has to know in another way."),
	wording(Rejected, `map_ptr access not supported without (?P<config>CONFIG_DEBUG_INFO_BTF)`, "map_ptr access not supported without CONFIG_DEBUG_INFO_BTF"),
	wording(KernelObject, reg+` is a pointer to in-kernel struct with non-zero offset`, "R1 is a pointer to in-kernel struct with non-zero offset").
		note("{reg} points into the middle of a struct of the kernel, and the function wants the struct itself.", "Pass the pointer as it was received."),

	// The same words mean that bytes were not written, in the part of the stack that was, and that
	// there are none.
	wording(StackBounds, `invalid write to stack `+reg+` off=(?P<off>-?\d+) size=(?P<size>-?\d+)`, "invalid write to stack R10 off=-520 size=8").printedBy("5.12 and newer"),
	wording(StackUninit, `invalid (?:read from|access to|indirect access to) stack `+reg+` off=(?P<off>-?\d+) size=(?P<size>-?\d+)`, "invalid read from stack R10 off=-16 size=8").refined(stackOrBeyond),
	wording(StackUninit, `invalid variable-offset (?P<how>read from|indirect access to) stack `+reg+`(?: var_off=\(0x(?P<base>[0-9a-f]+); 0x(?P<mask>[0-9a-f]+)\)(?: off=(?P<off>-?\d+))? size=(?P<size>\d+))?`, "invalid variable-offset read from stack R2 var_off=(0x0; 0x3f) off=-72 size=8").printedBy("5.12 and newer").refined(variableStack),
	wording(StackBounds, `invalid (?:unbounded )?variable-offset (?P<how>read from|write to|indirect access to) stack `+reg, "invalid unbounded variable-offset write to stack R2"),
	wording(StackUninit, `invalid (?:indirect )?read from stack (?:`+reg+` )?(?:off|var_off) (?P<off>\S+(?: \S+\))?\+\d+) size (?P<size>\d+)`, "invalid read from stack R10 off -8+0 size 8"),
	wording(StackUninit, `corrupted spill memory`, "corrupted spill memory"),
	wording(StackUninit, `reading from stack (?:`+reg+` )?off (?P<off>\S+) size (?P<size>\d+), slot poisoned by dead code elimination`, "reading from stack off -8+0 size 8, slot poisoned by dead code elimination"),
	wording(StackBounds, `invalid stack (?:off|type `+reg+` off)=(?P<off>-?\d+) (?:access_)?size=(?P<size>-?\d+)`, "invalid stack off=-520 size=8").printedBy("before 5.10"),
	wording(StackBounds, `variable offset stack pointer cannot be passed into helper function`, "variable offset stack pointer cannot be passed into helper function; var_off=(0x0; 0xf) off=-16 size=8").
		note("A stack address with an offset that is not a constant is passed to a helper.", "Pass the address of a variable, and choose by the index inside of the program."),
	wording(StackBounds, `invalid size of register (?P<how>spill|fill)`, "invalid size of register spill").
		note("Part of a pointer is saved to the stack, or read back from it.", "Keep pointers in variables of 8 bytes, and do not copy structs that hold them in pieces."),
	wording(StackBounds, `cannot spill pointers to stack into stack frame of the caller`, "cannot spill pointers to stack into stack frame of the caller").
		note("A function stores the address of its own variable in the frame of its caller, where it would outlive the variable.", "Let the caller own the variable, and pass its address."),
	wording(StackDepth, `combined stack size of (?P<calls>\d+) calls is (?P<size>\d+)\. Too large`, "combined stack size of 2 calls is 832. Too large").afterwards(),
	wording(StackDepth, `stack size of subprog \d+ is (?P<size>\d+)\. Too large`, "stack size of subprog 0 is 544. Too large").printedBy("6.13 and newer").afterwards(),
	wording(StackDepth, `stack size (?P<size>\d+)\(extra \d+\) is too large`, "stack size 520(extra 8) is too large").afterwards(),
	wording(StackDepth, `tail_calls are not allowed when call stack of previous frames is (?P<size>\d+) bytes\. Too large`, "tail_calls are not allowed when call stack of previous frames is 264 bytes. Too large").
		note("A function that makes tail calls is called with {size} bytes of stack in use. At most 256 are allowed.", "Make the tail call from the main function, or move large variables of its callers into a per-CPU array.").afterwards(),
	wording(StackDepth, `stack depth (?P<size>\d+) exceeds interpreter stack depth limit`, "stack depth 528 exceeds interpreter stack depth limit").afterwards(),

	wording(ReadOnly, `write into map forbidden|`+reg+` cannot write into (?P<type>\S+)`, "R1 cannot write into rdonly_mem"),
	wording(ReadOnly, `frame pointer is read only`, "frame pointer is read only"),
	wording(ReadOnly, `write to change key `+reg+` not allowed`, "write to change key R1 not allowed").printedBy("5.13 and newer"),
	wording(ReadOnly, whole(`only read is supported`)+`|only read from (?P<type>\S+) is supported`, "only read is supported"),
	wording(ReadOnly, `Writes through BTF pointers are not allowed`, "Writes through BTF pointers are not allowed"),
	wording(ReadOnly, `no write support to (?P<type>\S+) at off (?P<off>\d+)`, "no write support to tcp_sock at off 1704").
		note("Programs may write some fields of {type}, and the one at offset {off} is not among them.", "Use the helper or kernel function that exists for it."),
	wording(ReadOnly, `write access (?:for struct (?P<type>\S+) )?at off (?P<off>\d+) with size (?P<size>\d+)`, "write access at off 1704 with size 8 beyond the member of tcp_sock ended at 1708").
		note("{size} bytes are written at offset {off}, more than the field has that programs may write there.", "Write the field with its own size."),
	wording(ReadOnly, `write access to this struct is not supported|only access to (?P<type>\S+) is supported`, "write access to this struct is not supported").
		note("Programs of this kind may not write this struct.", "Use the helper or kernel function that exists for it."),
	wording(ReadOnly, `(?P<func>\w+)\(\) may write into memory pointed by `+reg+` type=(?P<type>\S+)`, "bpf_copy_from_user() may write into memory pointed by R1 type=rdonly_mem").
		note("{func} may write into the memory of {reg}, which is read-only ({type}).", "Copy it to the stack or to a map value, and pass that."),
	wording(ReadOnly, `the prog does not allow writes to packet data`, "the prog does not allow writes to packet data").
		note("Programs of this type may not write packets, and bpf_dynptr_slice_rdwr gives a writable piece of one.", "Use bpf_dynptr_slice."),
	wording(Rejected, `read from map forbidden, value_size=\d+ off=-?\d+ size=-?\d+`, "read from map forbidden, value_size=8 off=0 size=8").
		note("The map was created with BPF_F_WRONLY_PROG: programs may write its values and not read them.", "Create the map without that flag, or only write to it."),
	wording(Rejected, `BPF_(?:ATOMIC|XADD|ST) (?:stores into|loads from) `+reg+` (?P<type>\S+) is not allowed`, "BPF_ATOMIC stores into R1 ctx is not allowed").
		note("Atomic operations and stores of constants are not allowed on {type} memory.", "Read and write by ordinary loads and stores; keep counters in a map value."),
	wording(Rejected, `invalid atomic operand size`, "invalid atomic operand size").
		note("An atomic operation works on 4 or 8 bytes, and this one has another size.", "Make the variable a 32-bit or 64-bit one."),
	wording(Rejected, `64-bit (?P<what>load-acquire|store-release)s are only supported on 64-bit arches`, "64-bit load-acquires are only supported on 64-bit arches").
		note("A 64-bit {what} needs a 64-bit processor.", "Use a 32-bit variable there."),

	wording(Misaligned, `misaligned (?P<what>[\w ]+?) (?:access )?off `, "misaligned stack access off 0+-3+0 size 8"),
	wording(PointerTruncated, reg+` (?:32-bit pointer arithmetic prohibited|partial copy of pointer|sign-extension part of pointer)`, "R2 32-bit pointer arithmetic prohibited"),
	wording(InvalidPointer, reg+` invalid mem access '(?P<type>[^']+)'`, "R1 invalid mem access 'scalar'").printedBy("before 5.18: 'inv'"),
	wording(PointerLeak, reg+` leaks addr (?P<where>.*)`, "R0 leaks addr as return value"),
	wording(PointerLeak, `leaking pointer from stack off (?P<off>-?\d+)`, "leaking pointer from stack off -8"),
	wording(NeedsPrivilege, `prohibited for !root`, "R1 tried to add from different maps, paths, or scalars, pointer arithmetic with it prohibited for !root"),
	wording(NeedsPrivilege, reg+` (?:has unknown scalar with mixed signed bounds|has pointer with unsupported alu operation|tried to \w+ (?:from different maps, paths or scalars|beyond pointer bounds)|could not be pushed for speculative verification),`,
		"R1 has unknown scalar with mixed signed bounds, pointer arithmetic with it prohibited for !root"),
	wording(NeedsPrivilege, reg+` pointer comparison prohibited`, "R1 pointer comparison prohibited"),
	wording(NeedsPrivilege, `attempt to corrupt spilled pointer on stack|spilled ptr in range of var-offset stack write`, "attempt to corrupt spilled pointer on stack").
		note("A pointer that was saved on the stack is overwritten in part. Only loaders with CAP_PERFMON may do so.", "Load with CAP_PERFMON, or give the variable a place of its own.").
		costs("A privilege, or a few bytes of stack."),
	wording(NeedsPrivilege, `(?:'struct (?P<type>\S+)'|(?P<other>\S+)) access is allowed only to CAP_PERFMON and CAP_SYS_ADMIN`, "'struct bpf_map' access is allowed only to CAP_PERFMON and CAP_SYS_ADMIN"),
	wording(InvalidPointer, reg+` (?:pointer arithmetic (?:on (?P<type>\S+) )?(?:with \S+ operator )?prohibited|pointer \S+ pointer prohibited|bitwise operator \S+ on pointer prohibited)`, "R1 pointer arithmetic with /= operator prohibited"),
	wording(InvalidPointer, reg+` (?:subtraction from stack pointer prohibited|tried to subtract pointer from scalar)`, "R1 subtraction from stack pointer prohibited"),
	wording(InvalidPointer, `same insn cannot be used with different pointers`, "same insn cannot be used with different pointers").
		note("One instruction accesses memory through pointers of different kinds, depending on the path that leads to it: the compiler merged two accesses.",
			"Keep the accesses apart, with a barrier (asm volatile(\"\")) or a noinline function in each branch."),
	wording(ArithmeticRule, whole(`div by zero`), "div by zero"),
	wording(ArithmeticRule, `invalid shift (?P<count>-?\d+)`, "invalid shift 64"),

	wording(ReturnValue, `(?:At (?P<where>\w[\w ]*?)|In async callback) the register `+reg+` (?:has (?P<have>.*?) ?should have been in (?P<want>.*)|is not a known value|is not a scalar value)`,
		"At program exit the register R0 has smin=5 smax=5 should have been in [0, 1]").printedBy("before 6.8: value (0x5; 0x0)"),
	wording(ReturnValue, `R0 not a scalar value`, "R0 not a scalar value").
		note("A callback returns a pointer, and its return value must be a number.", "Return 0 or 1 from the callback."),
	wording(ReturnValue, `cannot return stack pointer to the caller`, "cannot return stack pointer to the caller").
		note("A function returns the address of its own variable, which ends with it.", "Let the caller pass the variable."),
	wording(ReturnValue, `BPF_LSM_CGROUP that attach to void LSM hooks can't modify return value`, "BPF_LSM_CGROUP that attach to void LSM hooks can't modify return value!").
		note("The LSM hook returns nothing, so the program may not set a return value.", "Return 1, and do not call bpf_set_retval."),
}

// variableStack is stackOrBeyond for an offset of which a part is not known.
func variableStack(args map[string]string) Kind {
	base, errBase := strconv.ParseUint(args["base"], 16, 64)
	mask, errMask := strconv.ParseUint(args["mask"], 16, 64)
	size, errSize := strconv.ParseInt(args["size"], 10, 32)
	off, _ := strconv.ParseInt(args["off"], 10, 32)
	if errBase != nil || errMask != nil || errSize != nil || mask > 1<<16 {
		return StackBounds
	}
	if lowest := int64(base) + off; lowest < -512 || lowest+int64(mask)+size > 0 {
		return StackBounds
	}
	return StackUninit
}

// stackOrBeyond tells a read of stack that was not written from one that lies outside of the 512
// bytes below the frame's top.
func stackOrBeyond(args map[string]string) Kind {
	off, errOff := strconv.Atoi(args["off"])
	size, errSize := strconv.Atoi(args["size"])
	if errOff == nil && errSize == nil && off >= -512 && size > 0 && off+size <= 0 {
		return StackUninit
	}
	return StackBounds
}
