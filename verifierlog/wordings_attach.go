// SPDX-License-Identifier: Apache-2.0

package verifierlog

// attachWordings are about the target that a program names when it is loaded.
var attachWordings = []Info{
	wording(AttachTarget, `attach_btf_id (?P<btf_id>\d+) (?:is not a function|is invalid|doesn't have a name|is not a typedef|is not a supported struct)`, "attach_btf_id 7 is not a function").printedBy("5.5 and newer"),
	wording(AttachTarget, `(?P<func>\S+?)\(\) is not modifiable`, "tcp_connect() is not modifiable").printedBy("5.7 and newer").
		note("fmod_ret may replace the return value of system calls, security hooks and functions that allow error injection, and {func} is none of these.", "Attach by fentry or fexit, or to a function that allows it (/sys/kernel/debug/error_injection/list)."),
	wording(AttachTarget, `The address of function (?P<func>\S+) cannot be found`, "The address of function tcp_foo cannot be found").printedBy("5.6 and newer"),
	wording(AttachTarget, `Tracing programs must provide btf_id`, "Tracing programs must provide btf_id").printedBy("5.5 and newer").
		note("The loader did not say what the program attaches to.", "Name the function in the section (fentry/FUNCTION), or set the attach target before loading."),
	wording(AttachTarget, `(?:FENTRY/FEXIT program|Tracing program) can only be attached to another program annotated with BTF`, "FENTRY/FEXIT program can only be attached to another program annotated with BTF").
		note("What is to be traced has no BTF: for a function of the kernel, the kernel has none of its own (CONFIG_DEBUG_INFO_BTF is off); for a BPF program, that program was loaded without.", "For a function of the kernel: run a kernel with CONFIG_DEBUG_INFO_BTF, or attach by a kprobe. For a program: load it with its BTF and func_info.").
		costs("Another kernel, a slower probe, or that program must be loaded again."),
	wording(AttachTarget, `Subprog (?P<func>\S+) doesn't exist`, "Subprog foo doesn't exist").
		note("The program that is to be traced or extended has no function {func}.", "Compare the name with bpftool prog dump xlated; static functions may have been inlined."),
	wording(AttachTarget, `Extension programs should be JITed|Can attach to only JITed progs`, "Can attach to only JITed progs").
		note("The program, or the one that it attaches to, is interpreted.", "Enable the JIT (net.core.bpf_jit_enable=1) before loading both.").
		costs("Memory for compiled programs."),
	wording(AttachTarget, `Cannot (?:recursively attach|nest tracing program attach more than once)`, "Cannot recursively attach").
		note("Tracing programs may not trace each other in a chain.", "Attach to a program that is not itself a tracing program, or to the kernel's function."),
	wording(AttachTarget, `Cannot extend fentry/fexit|Cannot replace kernel functions|Cannot replace static functions`, "Cannot replace static functions").
		note("An extension (freplace) replaces a global function of a BPF program, and this target is none.", "Declare the function global (not static) and __noinline in the program that is extended."),
	wording(AttachTarget, `Only FENTRY/FEXIT(?:/FSESSION)? progs are attachable to another BPF prog`, "Only FENTRY/FEXIT progs are attachable to another BPF prog"),
	wording(AttachTarget, `can't modify return codes of BPF programs`, "can't modify return codes of BPF programs"),
	wording(AttachTarget, `Program extension requires BTF|(?P<func>\w+)\(\) is not a global function`, "foo() is not a global function").
		note("An extension replaces a global function, by its type, and both programs must have BTF.", "Declare the function global (not static), and build both objects with -g."),
	wording(AttachTarget, `(?P<func>\w+)\(\) has (?P<have>\d+) args while (?P<target>\w+)\(\) has (?P<want>\d+) args|Return type \S+ of \w+\(\) doesn't match type \S+ of \w+\(\)|arg\d+ (?:in )?\w+\((?:struct \w+ \*)?\) (?:is \w+ while|has size \d+ while|has unrecognized type|is not a pointer to context|doesn't match)`, "foo() has 2 args while bar() has 1 args").
		note("An extension must have the arguments and the return type of the function that it replaces.", "Give it the same declaration."),
	wording(AttachTarget, `Extension program (?P<what>changes packet data, while original does not|may sleep, while original does not)`, "Extension program changes packet data, while original does not").
		note("The function that is replaced may not do this: its callers were verified for it.", "Do in the extension only what the function does; calling bpf_skb_pull_data in the original allows changes."),
	wording(AttachTarget, `(?P<what>\w+) programs cannot attach to exception callback`, "freplace programs cannot attach to exception callback"),
	wording(AttachTarget, `freplace programs with >\d+ args not supported yet`, "freplace programs with >5 args not supported yet"),
	wording(AttachTarget, `Target program bound device mismatch`, "Target program bound device mismatch").
		note("The program is bound to one device, and the one that it attaches to is bound to another or to none.", "Bind both to the same device."),
	wording(AttachTarget, `Attach to function (?P<func>\S+) with a >8 byte return value is not supported`, "Attach to function foo with a >8 byte return value is not supported for this attach type").
		note("{func} returns a struct of more than 8 bytes.", "Attach by fentry or a kprobe, which do not need the return value."),
	wording(AttachTarget, `The function (?P<func>\S+) (?:has \d+ arguments\. Too many|return type .+ is unsupported|with variable args is unsupported|arg\d+ type .+ is unsupported|has malformed void argument)`, "The function printk with variable args is unsupported.").
		note("The BPF trampoline cannot pass on what {func} takes or returns: too many arguments, a struct, or a variable number of them.", "Attach by a kprobe."),
	wording(Untraceable, `Attaching (?P<what>\S+|tracing programs) to (?P<noreturn>__noreturn )?functions? (?:'(?P<func>[^']*)' )?is rejected`, "Attaching fexit/fmod_ret to __noreturn functions is rejected."),
	wording(AttachTarget, `attach_btf_id (?P<btf_id>\d+) points to wrong type name (?P<name>\S+)`, "attach_btf_id 7 points to wrong type name foo").
		note("Programs of this type attach to names of their own: LSM programs to bpf_lsm_..., tp_btf programs to btf_trace_...; {name} is none.", "Let the library look the name up, by the section (lsm/HOOK, tp_btf/EVENT)."),
	wording(AttachTarget, `attach_btf_id (?P<btf_id>\d+) points to disabled hook (?P<name>\S+)`, "attach_btf_id 100 points to disabled hook bpf_lsm_vm_enough_memory").
		note("BPF programs may not attach to the LSM hook {name}.", "Attach to another hook of the same path."),
	wording(AttachTarget, `attach to (?:unsupported|invalid) member (?:idx )?(?P<member>[^\s(]+)(?:\(@idx \d+\))?(?: of struct (?P<type>\S+))?`, "attach to unsupported member foo of struct tcp_congestion_ops").
		note("The struct_ops member {member} does not exist in this kernel, is not a function, or cannot be a BPF program here.", "Leave the member out for this kernel: libbpf does so for members with the value 0 that the kernel's struct lacks."),
	wording(AttachTarget, `struct_ops module (?P<name>\S+) is not found`, "struct_ops module bpf_testmod is not found").
		note("The kernel module that the struct_ops type belongs to is not loaded.", "Load the module first.").
		costs("A module in the kernel."),
	wording(AttachTarget, `Cannot find btf of tracepoint template, fall back to (?P<name>\S+)\.`, "Cannot find btf of tracepoint template, fall back to btf_trace_foo.").
		note("The names of the tracepoint's arguments are not known. This is a remark, and not a reason to refuse the program.", "Nothing.").remarks(),
	wording(BTFInfo, `(?:in-kernel BTF|btf_vmlinux) is malformed`, "in-kernel BTF is malformed"),
}
