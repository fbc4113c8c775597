// SPDX-License-Identifier: Apache-2.0

package verifierlog

var poisonWordings = []Info{
	wording(Poison, `(?:invalid|unknown) func (?:unknown)?#?(?P<poison>195896080)\b`, "invalid func unknown#195896080").printedBy("the loader's 0xbad2310 for a CO-RE relocation"),
	wording(Poison, `(?:invalid|unknown) func unknown#(?P<poison>200[12]\d{6}|233685214)\b`, "invalid func unknown#2002000003").printedBy("the loader's mark for an extern function or map that is absent"),
	wording(Poison, `<(?P<what>invalid (?:CO-RE relocation|BPF map reference|kfunc call))>`, "12: <invalid CO-RE relocation>").printedBy("rewritten by libbpf 1.0 and newer"),
	wording(Poison, `failed to resolve CO-RE relocation <(?P<relo>\w+)> (?P<target>.*)`, "failed to resolve CO-RE relocation <byte_off> [7] struct task_struct.nope (0:1 @ offset 4)").printedBy("added by libbpf"),
	wording(Poison, `kfunc '(?P<name>[^']+)' is referenced but wasn't resolved`, "kfunc 'bpf_nope' is referenced but wasn't resolved").printedBy("added by libbpf"),
	wording(Poison, `BPF map '(?P<name>[^']+)' is referenced but wasn't created`, "BPF map 'nope' is referenced but wasn't created").printedBy("added by libbpf"),
}

// callWordings are about helpers, kernel functions and functions of the program.
var callWordings = []Info{
	wording(NeedsPrivilege, `loading/calling other bpf or kernel functions are allowed for CAP_BPF and CAP_SYS_ADMIN`, "loading/calling other bpf or kernel functions are allowed for CAP_BPF and CAP_SYS_ADMIN").printedBy("5.8 and newer"),
	wording(NeedsPrivilege, `function calls to other bpf functions are allowed for`, "function calls to other bpf functions are allowed for CAP_BPF and CAP_SYS_ADMIN").printedBy("before 5.13"),
	wording(NeedsPrivilege, `destructive kfunc calls require CAP_SYS_BOOT`, "destructive kfunc calls require CAP_SYS_BOOT capability").printedBy("6.1 and newer"),
	wording(NeedsPrivilege, `CAP_BPF and CAP_PERFMON are required to use arena`, "CAP_BPF and CAP_PERFMON are required to use arena"),

	wording(HelperGPL, `cannot call GPL-restricted function from non-GPL compatible program`, "cannot call GPL-restricted function from non-GPL compatible program"),
	wording(HelperGPL, `cannot call (?:GPL-only kfunc|kernel function) from non-GPL compatible program`, "cannot call kernel function from non-GPL compatible program").printedBy("5.13 and newer"),
	wording(HelperGPL, `Cannot access kernel 'struct (?P<type>\S+)' from non-GPL compatible program`, "Cannot access kernel 'struct task_struct' from non-GPL compatible program"),
	wording(HelperGPL, `(?P<what>LSM|struct ops) programs must have a GPL compatible license`, "LSM programs must have a GPL compatible license"),
	wording(HelperUnavailable, `program of this type cannot use helper (?P<name>\w+)#(?P<id>\d+)`, "program of this type cannot use helper bpf_xdp_adjust_head#44").printedBy("6.9 and newer"),
	wording(HelperUnavailable, `unknown func (?P<name>bpf_\w+)#(?P<id>\d+)`, "unknown func bpf_xdp_adjust_head#44").printedBy("before 6.9; also what lockdown makes of a helper"),
	wording(HelperUnavailable, `helper call is not allowed in probe`, "helper call is not allowed in probe").
		note("The helper may be called at some attach points only: bpf_d_path in a list of functions, the storage of sockets not where it is set up, bpf_ima_... in sleepable LSM hooks.", "Attach to one of those, or do without the helper."),
	wording(HelperUnavailable, `func (?P<name>\w+)#(?P<id>\d+) (?:supported only for fentry/fexit/\S+ programs|not supported for program type \d+)`, "func bpf_get_func_ip#173 supported only for fentry/fexit/fmod_ret programs"),
	wording(HelperUnknown, `(?:invalid|unknown) func (?:unknown)?#?(?P<id>-?\d+)`, "invalid func unknown#9999"),
	wording(HelperUnavailable, `(?:invalid|unknown) func (?P<name>\w+)#(?P<id>\d+)`, "unknown func foo#9"),
	wording(HelperMap, `cannot pass map_type (?P<map_type>\d+) into func (?P<name>\w+)#(?P<id>\d+)`, "cannot pass map_type 27 into func bpf_map_lookup_elem#1"),
	wording(HelperMap, `invalid arg_type for sockmap/sockhash`, "invalid arg_type for sockmap/sockhash"),
	wording(HelperMap, `cannot update sockmap in this context`, "cannot update sockmap in this context").
		note("Programs of this type may not change a sockmap: they might run while its lock is held.", "Update it from user space, or from a sockops, socket filter, tc, XDP, sk_lookup or iterator program."),
	wording(HelperMap, `tail_call abusing map_ptr`, "tail_call abusing map_ptr").
		note("One tail call is made with different prog arrays, depending on the path that leads to it.", "Make a tail call of its own in each branch.").afterwards(),
	wording(VerifierBug, `kernel subsystem misconfigured func (?P<name>\w+)#(?P<id>\d+)`, "kernel subsystem misconfigured func bpf_map_lookup_elem#1"),
	wording(Rejected, `func (?P<name>\w+)#\d+ not supported without (?P<option>CONFIG_PERF_EVENTS)`, "func bpf_get_stackid#27 not supported without CONFIG_PERF_EVENTS").
		note("{name} needs a kernel that is built with {option}.", "Run on such a kernel, or do without the stack.").
		costs("Another kernel, or no stacks."),
	wording(Rejected, `cannot get callchain buffer for func (?P<name>\w+)#\d+`, "cannot get callchain buffer for func bpf_get_stackid#27").
		note("The kernel could not set up its buffers for call chains, which {name} needs: no memory, or kernel.perf_event_max_stack was raised while others use them.", "Free memory, or set kernel.perf_event_max_stack back and stop the other users first.").
		costs("Shorter stacks for others."),
	wording(Rejected, `get_local_storage\(\) doesn't support non-zero flags`, "get_local_storage() doesn't support non-zero flags").
		note("The second argument of bpf_get_local_storage must be 0.", "Pass the constant 0."),

	wording(NeedsJIT, `(?P<what>tail_calls|callbacks|calling kernel functions|stack args) (?:are|is) not (?:allowed|supported) in non-JITed programs`, "tail_calls are not allowed in non-JITed programs with bpf-to-bpf calls").afterwards(),
	wording(Rejected, `tail_calls are not allowed in programs with bpf-to-bpf calls`, "tail_calls are not allowed in programs with bpf-to-bpf calls").printedBy("up to 5.9, and by machines whose JIT cannot do both").
		note("The program makes a tail call and has functions of its own. This kernel takes only one of the two: x86 takes both from 5.10 on, arm64 from 6.0 on, and none does where the program is not compiled.", "Inline the functions (static __always_inline), or use a kernel that takes both.").
		costs("A longer program, or another kernel."),
	wording(NeedsJIT, `(?P<what>program) requires BPF JIT compiler but it is not available`, "program requires BPF JIT compiler but it is not available").printedBy("7.2 and newer").afterwards(),
	wording(NeedsJIT, `(?:^|: |")JIT (?:doesn't|does not) support (?P<what>.*)`, "JIT does not support calling kernel function"),
	wording(NeedsJIT, `JIT is required (?:for|to use) (?P<what>.*)|(?P<other>Private stack) not supported by jit`, "JIT is required for calling kernel function"),

	wording(KfuncUnavailable, `calling kernel function (?P<name>\S+) is not allowed`, "calling kernel function bpf_task_acquire is not allowed").printedBy("5.13 and newer"),
	wording(KfuncUnavailable, `calling kernel function is not supported without (?P<config>\S+)`, "calling kernel function is not supported without CONFIG_DEBUG_INFO_BTF").printedBy("5.13 and newer"),
	wording(KfuncUnavailable, `metadata kfuncs (?:require device-bound program|can't be offloaded)`, "metadata kfuncs require device-bound program").
		note("The functions that read a packet's metadata (bpf_xdp_metadata_...) belong to one device's driver, and the program is not bound to one.", "Load with prog_ifindex and BPF_F_XDP_DEV_BOUND_ONLY, and attach to that device."),
	wording(KfuncUnavailable, `address of kernel (?:function|func_id) (?P<name>\S+) is out of range`, "address of kernel function bpf_foo is out of range").
		note("The kernel function {name} lies too far away for a call instruction.", "Load the module that has it again, or use a helper.").
		costs("The module is gone meanwhile."),
	wording(KfuncUnknown, `cannot find (?:address for kernel function|function) (?P<name>\w+)`, "cannot find address for kernel function bpf_foo"),
	wording(KfuncUnknown, `function name (?P<name>\w+) is too long|kfunc (?P<kfunc>\w+) has inconsistent KF_IMPLICIT_ARGS`, "kfunc bpf_foo has inconsistent KF_IMPLICIT_ARGS"),
	wording(KfuncUnknown, `failed to find BTF for kernel function|BTF fd for kfunc is not a module BTF`, "failed to find BTF for kernel function"),
	wording(KfuncUnknown, `(?:invalid )?kernel (?:function )?btf_id (?P<btf_id>\d+)(?: is not a function| does not have a valid func_proto)?`, "kernel btf_id 1 is not a function").printedBy("5.13 and newer"),
	wording(KfuncUnknown, `invalid kernel function call not eliminated in verifier pass`, "invalid kernel function call not eliminated in verifier pass").printedBy("5.13 and newer"),
	wording(KfuncUnknown, `kfunc offset > 0 without fd_array is invalid|negative offset disallowed for kernel module function call|invalid module BTF fd`, "kfunc offset > 0 without fd_array is invalid").printedBy("5.15 and newer"),
	wording(KfuncUnknown, `acquire kernel function does not return PTR_TO_BTF_ID|kernel function (?P<name>\w+) (?:returns pointer type .* is not supported|unhandled dynamic return type)|Only 1 prog->aux argument supported per-kfunc|prog->aux cannot be a stack argument|2 or more rdonly/rdwr_buf_size parameters for kfunc`, "kernel function bpf_foo returns pointer type STRUCT foo is not supported").
		note("The kernel function is declared in a way that this kernel's verifier cannot handle.", "Report it to the authors of the module that offers the function.").
		costs("Time."),

	wording(ArgumentType, reg+` type=(?P<type>\S+) expected=(?P<want>.*)`, "R2 type=scalar expected=fp, pkt, pkt_meta, map_key, map_value").printedBy("before 5.18: type=inv"),
	wording(ArgumentType, reg+` is of type (?P<type>\S+) but (?P<want>\S+) is expected`, "R1 is of type sock but task_struct is expected").
		note("{reg} points to a {type}, and the function wants a {want}.", "Pass the right object, or convert it (bpf_skc_to_..., bpf_core_cast)."),
	wording(ArgumentType, `kernel function (?P<name>\S+) args?#(?P<arg>\d+) (?P<why>.*)`, "kernel function bpf_kfunc args#0 expected pointer to ctx, but got scalar").printedBy("5.13 and newer"),
	wording(ArgumentType, `kernel function (?P<name>\S+) (?P<reg>R\d+) (?P<why>expected pointer to .*|pointer type .*)`, "kernel function bpf_kfunc R1 expected pointer to STRUCT foo but R1 has a pointer to STRUCT bar"),
	wording(ArgumentType, `arg#(?P<arg>\d+) (?P<why>expects? pointer to ctx.*|expected pointer to ctx.*)`, "arg#0 expected pointer to ctx, but got scalar"),
	wording(ArgumentType, reg+` (?:expects pointer to ctx|expected pointer to (?:ctx|func|map value).*)`, "R1 expected pointer to ctx, but got scalar"),
	wording(ArgumentType, anyArgument+` (?:and `+anyArgument+`|arg#\d+) memory, len pair leads to invalid memory access`, "arg#0 arg#1 memory, len pair leads to invalid memory access").
		note("The length that is passed may be more than the memory that is passed with it.", "Limit the length, as an unsigned value, to the size of the memory, right before the call."),
	wording(ArgumentType, anyArgument+` reference type\('(?P<type>[^']+)'\) size cannot be determined`, "arg#0 reference type('STRUCT foo') size cannot be determined: -22").
		note("The function takes a pointer to {type}, a type that is declared and not defined, so its size is not known.", "Include the definition, or take a pointer to a type of known size.").remarks(),
	wording(ArgumentType, anyArgument+` pointer type (?P<type>.+?) (?:must point to .*scalar, or struct with scalar|must be valid and initialized|not to stack|points to unsupported dynamic pointer type|is not supported)`, "arg#0 pointer type STRUCT foo must point to scalar, or struct with scalar").
		note("The kernel function takes memory with numbers only here, or a type that the verifier handles in a way of its own.", "Pass the address of plain data, or the object that the function is declared for."),
	wording(ArgumentType, `max struct nesting depth exceeded`, "max struct nesting depth exceeded").
		note("The struct that is passed to a kernel function contains structs in structs more than four deep.", "Pass a flatter struct."),
	wording(ArgumentType, anyArgument+` doesn't point to a (?P<want>const string|map value)`, "arg#0 doesn't point to a const string").
		note("The function wants a {want} here.", "A constant string is a static const char array (.rodata); a map value comes from a lookup."),
	wording(ArgumentType, reg+` (?:does not point to a readonly map|is not a constant address|points to insn_array map which cannot be used as const string)`, "R1 does not point to a readonly map'").
		note("The function wants a constant string, and {reg} does not point to one.", "Use a static const char array, which the loader puts into a read-only, frozen map."),
	wording(ArgumentType, `direct value access on string failed|failed to retrieve map value address|string is not zero-terminated`, "string is not zero-terminated").
		note("The constant string that is passed has no end, or its map cannot be read.", "End it with a NUL byte."),
	wording(ArgumentType, whole(`Invalid format string`), "Invalid format string").
		note("The format of bpf_snprintf, bpf_seq_printf or bpf_trace_printk has a conversion that does not exist here, or needs more arguments than are passed.", "Use %d %i %u %x %ld %lld %p %pK %s %c %pI4 %pI6 and such, and at most 12 arguments."),
	wording(ArgumentType, reg+` (?:must be a known constant|is not a known constant|is not a const\b)`, "R3 must be a known constant").
		note("{reg} must be a constant when the program is verified.", "Pass a number that the compiler knows; a variable in .rodata will do."),
	wording(ArgumentType, reg+` rdonly/rdwr_buf_size exceeds u32 max`, "R2 rdonly/rdwr_buf_size exceeds u32 max"),
	wording(ArgumentType, reg+` must be referenced when passed to release function`, "R1 must be referenced when passed to release function").
		note("{reg} is passed to a function that releases it, and holds no reference.", "Pass the pointer that acquiring returned."),
	wording(ArgumentType, reg+` must have zero offset when passed to release func`, "R1 must have zero offset when passed to release func").
		note("{reg} was moved before it was passed on.", "Pass the pointer as it was received."),
	wording(ArgumentType, reg+` must be (?:referenced(?: or trusted)?|a rcu pointer)`, "R1 must be referenced or trusted").
		note("{reg} points to a kernel object that may be gone: it was read from another object, or the section that protected it has ended.",
			"Pass an argument of the program itself, what an acquiring function returned, or a pointer that was read inside an RCU section (bpf_rcu_read_lock)."),
	wording(ArgumentType, `(?:dereference of modified|negative offset|variable) (?P<type>\w+) (?:ptr `+reg+` off=(?P<off>-?\d+)|access var_off=\S+ \S+) disallowed`, "dereference of modified map_ptr ptr R1 off=8 disallowed").
		note("A {type} pointer was moved before it was passed on or followed.", "Pass the pointer as it was received; read fields by name, at constant offsets."),
	wording(ArgumentType, reg+` is not a pointer to arena or scalar`, "R1 is not a pointer to arena or scalar.").
		note("The function takes an address in the arena.", "Pass an arena pointer (__arena), cast if need be."),
	wording(ArgumentType, reg+` is not a (?:scalar|pointer)\b`, "R1 is not a scalar").
		note("The function takes a number where a pointer is passed, or the reverse.", "Compare the call with the function's declaration."),
	wording(ArgumentType, `pointer in `+reg+` isn't map pointer`, "pointer in R1 isn't map pointer").
		note("{reg} must be the address of a map.", "Pass &map."),
	wording(ArgumentType, anyArgument+` is (?P<type>\S+) expected (?P<want>.+) or socket`, "arg#0 is scalar expected ptr_ or socket").
		note("The function wants a pointer to an object of the kernel, and gets {type}.", "Pass the object itself, as the kernel handed it out."),
	wording(ArgumentType, `(?:Unrecognized|reg type unsupported for) (?P<arg>arg#\d+|R\d+) (?P<why>.+)`, "Unrecognized arg#0 type STRUCT").
		note("The function has an argument of a type that the verifier cannot check ({why}).", "Use numbers, and pointers to structs or plain memory."),
	wording(ArgumentType, `Function (?P<name>\w+) has (?P<have>\d+) > (?P<want>\d+) args`, "Function foo has 6 > 5 args").
		note("The function {name} has {have} arguments, and {want} are allowed.", "Pass the rest in a struct."),
	wording(ArgumentType, `Helper has invalid (?:btf_id|btf/btf_id) in `+reg, "Helper has invalid btf_id in R1").
		note("{reg} must be a per-CPU variable of the kernel, with a type.", "Pass the address of a variable that is declared extern ... __ksym."),
	wording(ArgumentType, `helper access to the packet is not allowed`, "helper access to the packet is not allowed").
		note("This helper may not read packets directly, or not in this type of program.", "Copy the bytes to the stack, and pass that."),
	wording(ArgumentType, `(?:ldimm64 )?unable to resolve the size of type '(?P<type>[^']+)'`, "unable to resolve the size of type 'foo': -22").
		note("The kernel variable has the type {type}, whose size is not known.", "Declare it with a type that is defined, or as const void."),
	wording(ArgumentType, `Unknown type ID \S+ passed to kfunc bpf_rdonly_cast|kfunc bpf_rdonly_cast type ID argument must be of a struct`, "kfunc bpf_rdonly_cast type ID argument must be of a struct").
		note("bpf_rdonly_cast (bpf_core_cast) is asked for a type that is not a struct of this kernel.", "Cast to a struct of the kernel, by bpf_core_cast(pointer, struct name)."),
	wording(ArgumentType, `callee expects (?P<want>\d+) args, stack arg(?P<arg>\d+) is not initialized`, "callee expects 7 args, stack arg1 is not initialized").
		note("The function takes {want} arguments, of which those beyond the fifth go on the stack, and one of these was not set.", "Set it on every path; a compiler does so by itself."),
	wording(BadCall, `stack arg write offset \S+ exceeds max|r11 load must be before any r11 store or call insn|invalid read from stack arg off|func#\d+ writes \d+ stack arg slots`, "r11 load must be before any r11 store or call insn").
		note("Arguments beyond the fifth are passed through R11, and these instructions do not keep to its rules.", "Rebuild with a compiler that knows them, or pass a struct.").afterwards(),

	// Functions that are verified on their own, by their types.
	wording(GlobalFunction, `Caller passes invalid args into func#(?P<func>\d+)(?: \('(?P<name>[^']*)'\))?`, "Caller passes invalid args into func#1 ('f')").printedBy("5.6 and newer").decides(),
	wording(GlobalFunction, `[Gg]lobal function (?P<name>\w+)\(\) (?:doesn't return scalar|return value not void or scalar)`, "Global function f() doesn't return scalar. Only those are supported.").
		note("The global function {name} returns a pointer or a struct.", "Return a number, or make the function static."),
	wording(GlobalFunction, `[Gg]lobal function (?P<name>\w+)(?:\(\))? (?:with|has) (?P<have>\d+) > (?P<want>\d+) args`, "Global function f() with 6 > 5 args. Buggy compiler.").
		note("The global function {name} has {have} arguments, and {want} are allowed.", "Pass the rest in a struct, or make the function static."),
	wording(GlobalFunction, `kernel supports at most (?P<want>\d+) parameters, function (?P<name>\w+) has (?P<have>\d+)`, "kernel supports at most 12 parameters, function f has 13"),
	wording(GlobalFunction, `Global functions need valid BTF|BTF of func(?:#|_id )\d+ doesn't point to KIND_FUNC|Invalid (?:type of function|BTF of func) (?P<name>\w+)`, "Global functions need valid BTF").
		note("A function that is not static is verified by its type, and the program has no BTF for it.", "Build with -g and load the object's BTF, or make the function static."),
	wording(GlobalFunction, `[Aa]rg#(?P<arg>\d+) type (?P<type>.+) in (?P<name>\w+)\(\) is not supported yet|[Aa]rg#(?P<n>\d+) has type (?P<have>\S+ '\S*'), but only struct or primitive types are allowed`, "Arg#0 type STRUCT in f() is not supported yet.").
		note("An argument of a global function has a type that the verifier cannot check.", "Use numbers and pointers to structs, or make the function static."),
	wording(GlobalFunction, `arg#(?P<arg>\d+) (?:has (?:unsupported set of|invalid combination of) tags|type tag (?:is not supported in static functions|fetching failure)|(?:arena|untrusted) cannot be combined with any other tags|has pointer tag, but is not a pointer type)`, "arg#0 has invalid combination of tags").
		note("The tags of argument {arg} (__arg_ctx, __arg_nonnull, __arg_trusted, ...) do not go together, or not with its type.", "Use one tag of the kernel's selection on a pointer argument of a global function."),
	wording(GlobalFunction, `arg#(?P<arg>\d+) reference type\('(?P<type>[^']+)'\) (?:candidate matching error|has no matches|is ambiguous|points to kernel module type)`, "arg#0 reference type('STRUCT foo') has no matches").
		note("Argument {arg} is tagged as a pointer to {type} of the kernel, and this kernel has no such type, or several, or has it in a module.", "Use a type of the kernel itself, from the vmlinux.h of this kernel."),
	wording(GlobalFunction, `arg#(?P<arg>\d+) (?:type (?:isn't a pointer|is not a struct|doesn't have a name)|struct doesn't have a name|should be void pointer|should be .struct (?P<want>\w+) \*.)`, "arg#0 should be `struct xdp_md *`").
		note("Argument {arg} is taken for the context, and does not have the context's type.", "Declare it with the type that the program's own context has."),
	wording(GlobalFunction, `LD_ABS is (?:not allowed in subprogs without BTF|only allowed in functions that return 'int')`, "LD_ABS is only allowed in functions that return 'int'.").
		note("A function that reads the packet by LD_ABS or LD_IND may end the program there, with 0, so it must return an int, and BTF must say so.", "Return int, build with -g, or read by bpf_skb_load_bytes."),
	wording(GlobalFunction, `tail_call is (?:not allowed in subprogs without BTF|only allowed in functions that return 'int')`, "tail_call is only allowed in functions that return 'int'.").
		note("A function that makes a tail call returns what the other program returns, so it must return an int, and BTF must say so.", "Return int and build with -g, or make the tail call in the main function."),
	wording(GlobalFunction, reg+` is a packet pointer, but func#(?P<func>\d+) may change packet data`, "R1 is a packet pointer, but func#1 may change packet data").
		note("A packet pointer is passed to a function that may move the packet.", "Pass the context, and read data and data_end in the function."),
	wording(Rejected, `mixing of tail_calls and bpf-to-bpf calls is not supported|tail_calls are not allowed in programs with stack args`, "mixing of tail_calls and bpf-to-bpf calls is not supported").
		note("This machine's JIT cannot handle a program that makes tail calls and calls functions of its own.", "Inline the functions (static __always_inline), or do without tail calls."),
	wording(Rejected, `program with __ref argument cannot tail call`, "program with __ref argument cannot tail call").
		note("The program is handed an object with a reference (__ref), which a tail call would lose.", "Do without tail calls in this member."),
	wording(Rejected, `BPF_LD_\[ABS\|IND\] instructions not allowed for this program type`, "BPF_LD_[ABS|IND] instructions not allowed for this program type").
		note("LD_ABS and LD_IND read packets in socket filters, tc and cgroup_skb programs only.", "Read by pointers, or by bpf_skb_load_bytes or bpf_xdp_load_bytes."),
	wording(Rejected, `at the time of BPF_LD_ABS\|IND R6 != pointer to skb`, "at the time of BPF_LD_ABS|IND R6 != pointer to skb").
		note("LD_ABS and LD_IND read the packet of the context in R6, and R6 holds something else.", "Put the context into R6 first; compilers do so for load_byte, load_half and load_word."),
}
