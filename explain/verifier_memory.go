// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// memoryRules are about registers, pointers and the memory behind them.
var memoryRules = []rejectRule{
	{
		Rule: Rule{
			ID:    "VER001",
			Title: "A pointer that may be NULL is dereferenced without a check",
			Text: `Map lookups, ring buffer reservations, socket lookups and many kernel
functions return NULL if they find nothing. The program must compare the result with NULL on the
same path, before it uses it. Until then, the verifier calls it map_value_or_null (or another
..._or_null). It does not allow the program to read or write through it, or to pass it on.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:      "null-check",
					Title:   "Compare the pointer with NULL right after the call, and use that same variable",
					Price:   "A branch. A second lookup of the same key is a new pointer and needs its own check.",
					Command: "if (!value) return 0;",
				},
			},
		},
		kinds:   []verifierlog.Kind{verifierlog.NullPointer},
		suspect: (*Facts).suspectNull,
		refine:  refineNull,
		silent:  abi.EACCES,
		cause: func(w words) string {
			if reg := w.arg("reg"); reg != "" {
				return fmt.Sprintf("The program uses %s, a pointer that may be NULL: it was not compared with NULL on this path.", reg)
			}
			return "The program passes on a pointer that may be NULL: it was not compared with NULL on this path."
		},
	},
	{
		Rule: Rule{
			ID:    "VER002",
			Title: "An uninitialised register is read",
			Text: `At the start of a function, only its arguments and R10 (the frame) have a
value. In the program itself, this is R1 (the context). A call leaves R1 to R5 without a value.
The verifier refuses to read such a register. In C the reason is a variable that is not set on
some path, a function without a return value (R0), or inline assembly that does not declare which
registers a call destroys.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:    "initialise",
					Title: "Give the variable a value on every path, and return one from every function",
					Price: "Nothing. clang -Wall -Wuninitialized finds most of them.",
				},
			},
		},
		kinds:   []verifierlog.Kind{verifierlog.UninitRegister},
		suspect: (*Facts).suspectUninit,
		silent:  abi.EACCES,
		cause: func(w words) string {
			s := fmt.Sprintf("The program reads %s, which has no value on this path.", w.arg("reg"))
			if w.insnText == "exit" {
				s += " It ends here without a return value."
			}
			return s
		},
	},
	{
		Rule: Rule{
			ID:    "VER006",
			Title: "Packet data is read without a bounds check",
			Text: `A program may follow packet pointers (data) only as far as a comparison
with data_end has proved on the same path. Helpers that can move the packet (bpf_skb_pull_data,
bpf_xdp_adjust_head and others) make all earlier checks invalid. Compilers like to merge or move
the checks. The program must compare the same pointer that it then uses.`,
			Kernels: "All. The exact words differ.",
			Remedies: []load.Remedy{
				{
					ID:      "bounds-check",
					Title:   "Compare pointer + size with data_end right before the access, and again after helpers that change the packet",
					Price:   "A branch.",
					Command: "if ((void *)(hdr + 1) > data_end) return XDP_DROP;",
				},
				{
					ID:    "load-bytes",
					Title: "Copy with bpf_skb_load_bytes or bpf_xdp_load_bytes (5.18), which check by themselves",
					Price: "A call and a copy for each access; slower, but also reads what is not linear.",
				},
			},
		},
		kinds:   []verifierlog.Kind{verifierlog.PacketBounds},
		suspect: (*Facts).suspectPacket,
		silent:  abi.EACCES,
	},
	{
		Rule: Rule{
			ID:    "VER003",
			Title: "A memory access may be out of bounds",
			Text: `For each access to a map value, to ring buffer memory or to another object
of known size, the verifier must know that offset and size stay inside. It refuses a constant
offset beyond the end, and an index without a limit. It also refuses an index that was compared as
a signed value and is used as an unsigned one. Sometimes the compiler checks one copy of the index
and uses another.`,
			Kernels: "All. The words differ.",
			Remedies: []load.Remedy{
				{
					ID:      "bound-index",
					Title:   "Limit the index right before its use, as an unsigned value, with a mask or a comparison",
					Price:   "An instruction. A mask needs a power of two for the size.",
					Command: "idx &= sizeof(v->data) - 1;",
				},
				{
					ID:    "value-size",
					Title: "Make sure that value_size in the map definition is the size of the struct that the program uses",
					Price: "Pinned maps of the old size must be removed or migrated.",
				},
				{
					ID:      "barrier",
					Title:   "Keep the compiler from using another copy of the index than the one that was checked",
					Price:   "Ugly; needed for some clang versions only.",
					Command: "asm volatile(\"\" : \"+r\"(idx));",
				},
			},
		},
		kinds:   []verifierlog.Kind{verifierlog.MapValueBounds, verifierlog.MemoryBounds},
		suspect: (*Facts).suspectBounds,
		silent:  abi.EACCES,
		not:     sizeArgument,
		cause: func(w words) string {
			if size := w.arg("value_size"); size != "" {
				s := ""
				if w.arg("size") != "1" {
					s = "s"
				}
				return fmt.Sprintf("The program accesses %s byte%s at offset %s of a map value of %s bytes.", w.arg("size"), s, w.arg("off"), size)
			}
			if reg := w.arg("reg"); reg != "" {
				return fmt.Sprintf("The verifier cannot prove that the access by %s stays inside of its object.", reg)
			}
			return "The verifier cannot prove that the access stays inside of its object."
		},
	},
	{
		Rule: Rule{
			ID:    "VER004",
			Title: "Uninitialised stack memory is read",
			Text: `A program has a stack of 512 bytes. It may read only the bytes that it has
written, and pass only these to a helper. Padding inside a struct counts too: if you set each
field, the padding still has no value. Since about 6.3, privileged programs may read such bytes
directly. But they still may not pass them to a helper that would let them out.`,
			Kernels: "All. Privileged programs may do more since 6.3.",
			Remedies: []load.Remedy{
				{
					ID:      "zero-struct",
					Title:   "Clear the whole variable, padding included, before filling it",
					Price:   "A few stores.",
					Command: "__builtin_memset(&key, 0, sizeof(key));",
				},
			},
		},
		kinds:  []verifierlog.Kind{verifierlog.StackUninit},
		refine: refineUninit,
	},
	{
		Rule: Rule{
			ID:    "VER007",
			Title: "Something that is not a pointer is dereferenced",
			Text: `The register holds a number, and not a pointer that the verifier knows. It
may be the result of arithmetic that the verifier does not follow, a pointer that was read from
untyped memory, a packet pointer from before a call that can move the packet, an arena pointer
that was not cast, or a pointer that went through a variable that the verifier did not track.
Kernel memory behind such a pointer can be read only with bpf_probe_read_kernel or bpf_core_read,
and user memory only with bpf_probe_read_user.`,
			Kernels: "All. Up to 5.17 a scalar was called inv.",
			Remedies: []load.Remedy{
				{
					ID:    "probe-read",
					Title: "Read through BPF_CORE_READ or bpf_probe_read_kernel, or use a program type whose arguments carry BTF types",
					Price: "A helper call per access; probe reads need CAP_PERFMON and do not work under lockdown=confidentiality.",
				},
			},
		},
		kinds:   []verifierlog.Kind{verifierlog.InvalidPointer},
		suspect: (*Facts).suspectPointer,
		silent:  abi.EACCES,
		says:    followsPointer,
		refine:  refineNumber,
		cause: func(w words) string {
			return fmt.Sprintf("The program follows %s as a pointer, and to the verifier it is none that may be followed (%s).", w.arg("reg"), printable(w.arg("type"), 40))
		},
	},
	{
		Rule: Rule{
			ID:    "VER008",
			Title: "A stack access is out of bounds",
			Text: `A function has 512 bytes of stack below R10. The verifier refuses accesses
beyond them, accesses at an offset that it does not know, and accesses that overwrite a part of a
saved pointer.`,
			Kernels: "All. Since 5.12, privileged programs may use variable offsets.",
			Remedies: []load.Remedy{
				{
					ID:    "percpu-scratch",
					Title: "Keep large variables in a per-CPU array of one element",
					Price: "A lookup, and a value that a nested program on the same CPU can overwrite.",
				},
			},
		},
		kinds:  []verifierlog.Kind{verifierlog.StackBounds},
		refine: refineStack,
	},
	{
		Rule: Rule{
			ID:    "VER009",
			Title: "Forbidden arithmetic on a pointer",
			Text: `A program may add constants to a pointer, and numbers whose bounds the
verifier knows. Not every kind of pointer allows this. A program may not multiply or shift
pointers, add them to each other, or add a number without bounds.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:    "bound-offset",
					Title: "Limit the number before adding it to the pointer, and keep pointer and number apart until then",
					Price: "An instruction.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.InvalidPointer, verifierlog.PointerTruncated},
		not:   followsPointer,
	},
	{
		Rule: Rule{
			ID:    "VER010",
			Title: "An argument has the wrong type for the function that is called",
			Text: `Each argument of a helper or kernel function must be a certain kind of
pointer or number. The verifier names the register, what it holds, and what was expected. For
example, it holds map_value where a pointer to the stack is expected, or a number where a pointer
is expected, or a map of the wrong type.`,
			Kernels: "All. New kernels accept more kinds, for example map values as keys since 4.18.",
			Remedies: []load.Remedy{
				{
					ID:    "right-argument",
					Title: "Pass what the function expects; copy to the stack or to a map value first if need be",
					Price: "A copy.",
				},
			},
		},
		kinds:  []verifierlog.Kind{verifierlog.ArgumentType, verifierlog.HelperMap},
		refine: refineArgument,
	},
	{
		Rule: Rule{
			ID:    "VER023",
			Title: "The size given to a helper is not bounded",
			Text: `For helpers that take memory and a size, the verifier must know that the
size is at least 0 (or 1) and at most as large as the memory. If a length comes from a packet, a
string or the kernel, limit it as an unsigned value, on the same path and before the call.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:      "bound-size",
					Title:   "Limit the size right before the call, as an unsigned value",
					Price:   "An instruction. Some clang versions need a barrier so that the checked copy is the one that is used.",
					Command: "len &= sizeof(buf) - 1;",
				},
			},
		},
		kinds:  []verifierlog.Kind{verifierlog.MemoryBounds},
		says:   sizeArgument,
		refine: refineSize,
	},
	{
		Rule: Rule{
			ID:    "VER011",
			Title: "The context is read where the program type has no field",
			Text: `Each program type has its own context struct. An access must be to one of
its fields, with the right size, and only read or write as the field allows. Older kernels do not
have the fields that newer kernels added. A program that was built for another type, or that has
the wrong section name, reads the wrong struct.`,
			Kernels: "All. Fields were added over time.",
			Remedies: []load.Remedy{
				{
					ID:    "context-field",
					Title: "Check the program's type (section name) and the kernel that the field appeared in; read tracing arguments by BPF_PROG or PT_REGS_PARM",
					Price: "Nothing, or a newer kernel.",
				},
			},
		},
		kinds:   []verifierlog.Kind{verifierlog.ContextAccess},
		suspect: (*Facts).suspectContext,
		silent:  abi.EACCES,
		refine:  refineContext,
	},
	{
		Rule: Rule{
			ID:    "VER017",
			Title: "A memory access is not aligned",
			Text: `Some architectures need accesses that are aligned to their size. Some
kinds of memory need them on all architectures: the stack, map values with special fields, and
atomics.`,
			Kernels: "All. x86-64 and arm64 allow unaligned packet access.",
			Remedies: []load.Remedy{
				{
					ID:    "align",
					Title: "Align the field, or copy it by bytes",
					Price: "A few instructions.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.Misaligned},
	},
	{
		Rule: Rule{
			ID:    "VER019",
			Title: "A division by zero, or a shift that is too far",
			Text: `A division by the constant zero has no meaning, and neither has a shift by
the width of the register or more. The verifier refuses both.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:    "fix-constant",
					Title: "Correct the constant. It often comes from a macro, or from a relocation that was not filled in",
					Price: "Nothing.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.ArithmeticRule},
	},
	{
		Rule: Rule{
			ID:    "VER021",
			Title: "Read-only memory is written",
			Text: `The program writes to memory that it may only read: constants (.rodata),
frozen maps (BPF_MAP_FREEZE), maps with BPF_F_RDONLY_PROG, most kernel objects, and many fields of
the context.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:    "writable",
					Title: "Write to a variable that is not const, or use the helper that changes the object",
					Price: "Nothing, or a helper call.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.ReadOnly},
	},
	{
		Rule: Rule{
			ID:    "VER030",
			Title: "Out of bounds access to a kernel struct, or to something that is not a field of it",
			Text: `fentry, LSM, tp_btf and iterator programs get typed pointers to objects of
the kernel, and may follow them as in C. The verifier compares each access with the type of the
pointer. It refuses an access beyond the struct, between two fields, to a part of a field, or at
an offset that is not constant. The usual reason for an access beyond the struct is a cast to a
larger one: struct sock to struct inet_sock or tcp_sock.`,
			Kernels: "Since 5.5.",
			Remedies: []load.Remedy{
				{
					ID:      "convert-pointer",
					Title:   "Convert the pointer with a function that the verifier knows. Do not cast it",
					Price:   "bpf_skc_to_tcp_sock and similar functions need 5.9, and return NULL for another kind of socket. bpf_core_cast needs 6.3.",
					Command: "struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);\nstruct inet_sock *inet = bpf_core_cast(sk, struct inet_sock);",
				},
				{
					ID:    "probe-read",
					Title: "Read the field with BPF_CORE_READ or bpf_probe_read_kernel",
					Price: "One helper call for each access. It needs CAP_PERFMON, and does not work under lockdown=confidentiality.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.KernelObject},
		cause: func(w words) string {
			if w.arg("member") != "" {
				return fmt.Sprintf("The program accesses %s bytes at offset %s of struct %s, beyond the end of its member %s.", w.arg("size"), w.arg("off"), w.arg("type"), w.arg("member"))
			}
			if w.arg("size") != "" {
				return fmt.Sprintf("The program accesses %s bytes at offset %s of struct %s, which is smaller: the pointer was cast to a larger struct, or the offset is that of another kernel.",
					w.arg("size"), w.arg("off"), w.arg("type"))
			}
			return ""
		},
	},
}
