// SPDX-License-Identifier: Apache-2.0

package verifierlog

// programWordings are about a program as a whole: its size, its flow, its instructions, its maps
// and its BTF records.
var programWordings = []Info{
	wording(TooManyInstructions, `BPF program is too large\. Processed (?P<processed>\d+) insn`, "BPF program is too large. Processed 1000001 insn"),
	wording(TooManyJumps, `The sequence of (?P<jumps>\d+) jumps is too complex`, "The sequence of 8193 jumps is too complex."),
	wording(TooManyJumps, `liveness analysis exceeded complexity limit \((?P<calls>\d+) calls\)`, "liveness analysis exceeded complexity limit (10001 calls)").
		note("Before it walks the program the verifier examined its functions {calls} times, once for each way of calling them, and gave up.", "Call fewer functions from several places, or make some of them global: these are examined once."),
	wording(TooManyJumps, `failed to push state for (?:global subprog exception path|failed lock acquisition)|failed to mark s32 range for retval in forked state for lock`, "failed to push state for failed lock acquisition"),
	wording(InfiniteLoop, `infinite loop detected at insn (?P<insn>\d+)`, "infinite loop detected at insn 1").printedBy("5.3 and newer"),
	wording(BackEdge, `back-edge from insn (?P<from>\d+) to (?P<to>\d+)`, "back-edge from insn 2 to 0").printedBy("without CAP_BPF, and for everybody before 5.3"),
	wording(CallDepth, `the call stack of (?P<frames>\d+) frames is too deep`, "the call stack of 9 frames is too deep !"),
	wording(CallDepth, `recursive call from (?P<name>\w+)\(\) to (?P<callee>\w+)\(\)`, "recursive call from f() to f()").
		note("{name} calls {callee}, which is on the way to it already: functions may not call themselves.", "Write it as a loop."),
	wording(TooManyFunctions, `too many (?:subprograms|different kernel function calls|different module BTFs|kernel functions)`, "too many subprograms"),

	wording(BadMapFD, `fd (?P<fd>-?\d+) is not pointing to (?:a )?valid bpf_map`, "fd 999 is not pointing to valid bpf_map"),
	wording(BadMapFD, `fd_idx without fd_array is invalid`, "fd_idx without fd_array is invalid").printedBy("5.14 and newer"),
	wording(BadMapFD, `fd_array_cnt is too big \((?P<count>\d+)\)`, "fd_array_cnt is too big (100000)").
		note("The loader names {count} descriptors of maps and BTF, more than the kernel takes.", "Name those that the program uses.").
		costs("A change of the loader."),
	wording(MapNotAllowed, `(?:trace type|perf_event|tracing|socket filter|Sleepable|sleepable) prog(?:ram)?s? (?:can only use|cannot use) (?P<what>(?:preallocated|array|bpf_).*)`, "socket filter progs cannot use bpf_spin_lock yet"),
	wording(MapNotAllowed, `trace type programs with run-time allocated hash maps are unsafe`, "trace type programs with run-time allocated hash maps are unsafe. Switch to preallocated hash maps.").
		note("The program uses a hash map that allocates its elements when they are added (BPF_F_NO_PREALLOC). This is a warning, and not a reason to refuse the program.", "Create the map without BPF_F_NO_PREALLOC.").remarks(),
	wording(MapNotAllowed, `map type (?P<map_type>\d+) is not allowed|The (?:program|map) is not (?:offloaded|offload)|offload device mismatch`, "offload device mismatch between prog and map"),
	wording(MapNotAllowed, `Only one arena per program|only one cgroup storage of each type is allowed|only one cgroup local storage|Cannot use more than one .*(?:arena|cgroup local storage)`, "only one cgroup storage of each type is allowed"),
	wording(MapNotAllowed, `bpf_struct_ops map cannot be used in prog`, "bpf_struct_ops map cannot be used in prog"),
	wording(MapNotAllowed, `program's hash doesn't match map's excl_prog_hash`, "program's hash doesn't match map's excl_prog_hash").
		note("The map was created for one program only, which it names by a hash, and this is another.", "Create the map anew for this program.").
		costs("What the map held is lost."),
	wording(MapNotAllowed, `The total number of (?P<what>maps|btfs) per program has reached the limit of (?P<limit>\d+)`, "The total number of maps per program has reached the limit of 64").
		note("The program uses more than {limit} {what}.", "Put several kinds of values into one map, or split the program."),
	wording(MapNotAllowed, `no direct value access support for this map type|direct value offset of (?P<off>\d+) is not allowed`, "no direct value access support for this map type").
		note("The program takes the address of a value of a map that has no fixed place for it, or at an offset that is too large: only arrays of one element, and arenas, have such addresses.", "Look the element up by bpf_map_lookup_elem."),
	wording(MapNotAllowed, `arena's user address must be set via map_extra or mmap`, "arena's user address must be set via map_extra or mmap()").
		note("The arena has no address in user space yet.", "mmap the arena before loading the program, or set map_extra; libbpf does so by itself."),
	wording(MapNotAllowed, `Failed to properly initialize insn array|Invalid read of \d+ bytes from insn_array`, "Failed to properly initialize insn array").
		note("The map of instruction addresses (for jump tables) does not fit the program, or is read in part.", "Let the loader fill and freeze it for this very program, and read 8 bytes."),

	wording(PatchRange, `insn (?P<insn>\d+) cannot be patched due to 16-bit range`, "insn 10385 cannot be patched due to 16-bit range").printedBy("5.1 and newer").afterwards(),

	wording(BadLoadImm64, `(?:invalid|unrecognized) bpf_ld_imm64 insn|invalid BPF_LD_IMM insn`, "invalid bpf_ld_imm64 insn"),
	wording(BadOpcode, `unknown opcode (?P<opcode>[0-9a-f]{2})`, "unknown opcode 06").printedBy("an instruction that is newer than the kernel"),
	wording(BadOpcode, `unknown insn class (?P<class>\d+)|invalid BPF_(?:ALU|JMP/JMP32) opcode (?P<opcode>[0-9a-f]+)|BPF_(?:ATOMIC|XADD|STX) uses invalid (?:atomic )?opcode (?P<atomic>[0-9a-f]+)|invalid atomic opcode|invalid BPF_LD mode`, "BPF_ATOMIC uses invalid atomic opcode 02"),
	wording(ReservedField, `(?P<op>BPF_[\w/\[\]|]+) uses reserved fields`, "BPF_MOV uses reserved fields"),
	wording(ReservedField, `reserved field \(insn\[1\]\.imm\) is used in pseudo_btf_id ldimm64 insn`, "reserved field (insn[1].imm) is used in pseudo_btf_id ldimm64 insn.").
		note("The program names a variable of a kernel module, which kernels have since 5.12.", "Run on a newer kernel, or use variables of the kernel itself.").
		costs("A reboot."),
	wording(ReservedField, `invalid may_goto (?:off \S+ )?imm (?P<imm>-?\d+)`, "invalid may_goto off 1 imm 1"),
	wording(BadRegister, `(?P<reg>R\d+) is invalid`, "R12 is invalid"),
	wording(Unreachable, `unreachable insn (?P<insn>\d+)`, "unreachable insn 2"),
	wording(JumpOutOfRange, `jump out of range from insn (?P<insn>\d+) to (?P<to>-?\d+)`, "jump out of range from insn 1 to 12"),
	wording(JumpOutOfRange, `jump into the middle of ldimm64 insn (?P<to>\d+)`, "jump into the middle of ldimm64 insn 2").printedBy("6.6 and newer"),
	wording(JumpOutOfRange, `no jump tables found for subprog starting at (?P<at>\d+)|jump table for insn (?P<insn>\d+) points outside of the subprog|`+reg+` points to outside of jump table|the sum of R\d+ um(?:in|ax)_value \d+ is too big|(?:register )?R\d+ (?:has type \w+, expected PTR_TO_INSN|doesn't point to any offset in map id=\d+)`, "no jump tables found for subprog starting at 0").
		note("An indirect jump (gotox) goes through a jump table that does not fit its function.", "Let a compiler and a library that know jump tables (LLVM 21, libbpf 1.7) build and load the object, or build with -fno-jump-tables."),
	wording(NoExit, `last insn is not an exit or jmp`, "last insn is not an exit or jmp"),
	wording(BadCall, `call to invalid destination|call out of range|no callback subprog|subprog \d+ is invalid|invalid insn idx \d+ insn_cnt \d+`, "call to invalid destination"),
	wording(Rejected, `unexpected __bpf_trap\(\) due to uninitialized variable`, "unexpected __bpf_trap() due to uninitialized variable?").
		note("The compiler put a trap where the program's behaviour is not defined, as a rule because of a variable that has no value on this path.", "Build with -Wall, and give the variable a value."),
	wording(Rejected, `addr_space_cast insn can only (?P<what>.+)`, "addr_space_cast insn can only be used in a program that has an associated arena").
		note("The program converts an arena address, which takes an arena map, and the address spaces 0 and 1.", "Declare an arena map, use it in the program, and build for the address spaces of bpf_arena_common.h."),
	wording(Rejected, `sign extending loads from arena are not supported yet`, "sign extending loads from arena are not supported yet").
		note("A signed variable in the arena is read by an instruction of -mcpu=v4.", "Make the variable unsigned, or build with -mcpu=v3."),
	wording(Rejected, `adding tail call poke descriptor failed|tracking tail call prog failed`, "adding tail call poke descriptor failed").
		note("The kernel had no memory for its records of tail calls.", "Free memory, and load again.").
		costs("Another attempt.").afterwards(),

	wording(BTFInfo, `func_info BTF section doesn't match|number of funcs in func_info doesn't match|missing btf func_info`, "func_info BTF section doesn't match subprog layout in BPF program"),
	wording(BTFInfo, `invalid func info rec size \d+|nonzero insn_off \d+ for the first func info record|same or smaller insn offset \(\d+\) than previous func info record|invalid type id -?\d+ in func info|invalid func_info`, "invalid func info rec size 4"),
	wording(BTFInfo, `Invalid line_info\[\d+\]|Invalid insn code at line_info|missing bpf_line_info|non-?zero tailing record in (?:func info|line_info|core_relo)|invalid line_info`, "Invalid line_info[3].insn_off:9 (prev_offset:2 prog->len:7)"),
	wording(BTFInfo, `Invalid core_relo\[\d+\]\.insn_off|relo #\d+: bad type id \d+|target candidate search failed for \d+`, "Invalid core_relo[0].insn_off:8 prog->len:7"),

	// Variables and functions of the kernel by their address (ksyms).
	wording(Rejected, `kernel is missing BTF, make sure (?P<config>CONFIG_DEBUG_INFO_BTF)=y is specified in Kconfig`, "kernel is missing BTF, make sure CONFIG_DEBUG_INFO_BTF=y is specified in Kconfig."),
	wording(Rejected, `ldimm64 failed to find the address for kernel symbol '(?P<name>[^']+)'`, "ldimm64 failed to find the address for kernel symbol 'bpf_prog_active'.").
		note("The kernel's BTF has the variable {name}, and its symbols do not: the kernel was built without CONFIG_KALLSYMS_ALL, or the module is gone.", "Run on a kernel with CONFIG_KALLSYMS_ALL=y.").
		costs("Another kernel."),
	wording(Rejected, `ldimm64 insn specifies invalid btf_id (?P<btf_id>\d+)|pseudo btf_id (?P<id>\d+) in ldimm64 isn't KIND_VAR|invalid module BTF object FD specified`, "ldimm64 insn specifies invalid btf_id 99999.").
		note("The program names a variable of the kernel by a number that is not one in this kernel's BTF.", "Let the loader resolve __ksym variables anew on the kernel that runs: the number is of another kernel, or of a module whose BTF was not passed."),

	wording(VerifierBug, `verifier bug|bpf verifier (?:is misconfigured|narrow ctx (?:access|load) misconfigured)|kernel subsystem misconfigured verifier|REG INVARIANTS VIOLATION|verifier internal error`, "verifier bug: REG INVARIANTS VIOLATION (true_reg1)"),
	wording(VerifierBug, `verifier BUG type|(?:insn state|visit_insn|pop stack) internal bug|^BUG (?:subprog|backtrac|regs|stack|spi)|^BUG: in callback|^bug: bad parent|^Verifier bug|invalid map_ptr to access map->\w+|(?:invalid|unknown) return type \d+ of func |has non-overwritten BPF_PTR_POISON|Unknown conditional jump [0-9a-f]+|expected prog array map for tail call|allocated_stack too small`, "insn state internal bug"),
	wording(VerifierBug, `Please fix kernel include/linux/bpf_types\.h|map type \d+ is misconfigured|kern ctx type id \d+ is not a struct`, "Please fix kernel include/linux/bpf_types.h"),
}
