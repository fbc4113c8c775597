// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// objectRules are about what a program acquires, holds, and gives back.
var objectRules = []rejectRule{
	{
		Rule: Rule{
			ID:    "VER005",
			Title: "A reference is not released on some path",
			Text: `A program must release what it acquires: ring buffer records (submit or
discard), sockets (bpf_sk_release), and objects that kernel functions return. It must do so on every
path, before it ends or makes a tail call. The verifier follows each path, and names the instruction
that acquired the object.`,
			Kernels: "Since 4.20.",
			Remedies: []load.Remedy{
				{
					ID:    "release",
					Title: "Release it on every path, including error returns. Compare what you acquired with NULL first",
					Price: "Nothing.",
				},
			},
		},
		kinds:   []verifierlog.Kind{verifierlog.ReferenceLeak},
		suspect: (*Facts).suspectLeak,
		silent:  abi.EINVAL,
		cause: func(w words) string {
			if at := w.arg("insn_acquired"); at != "" {
				return fmt.Sprintf("What instruction %s acquired is not released on the path that ends here.", at)
			}
			return ""
		},
	},
	{
		Rule: Rule{
			ID:    "VER018",
			Title: "A lock, an RCU section or a preemption section is not used as it must be",
			Text: `While a program holds a bpf_spin_lock, it may call almost nothing, and it
must release the lock before it ends. It must also end RCU read sections, enable preemption again,
and restore interrupts. A program that may not sleep may not call functions that sleep.`,
			Kernels: "Since 5.1. RCU sections since 6.2.",
			Remedies: []load.Remedy{
				{
					ID:    "short-section",
					Title: "Keep the section short: no calls but the allowed ones, and close it on every path. For functions that sleep, use a sleepable program type",
					Price: "A change of the source. Sleepable programs attach to fewer places.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.Lock},
	},
	{
		Rule: Rule{
			ID:    "VER022",
			Title: "Something that may sleep is called where nothing may",
			Text: `Some helpers and kernel functions may sleep (bpf_copy_from_user, bpf_fget_task_exe). They may be called by sleepable programs only, and
not inside RCU, preemption or lock sections. Only some attach points take sleepable programs.`,
			Kernels: "Since 5.10.",
			Remedies: []load.Remedy{
				{
					ID:      "sleepable",
					Title:   "Make the program sleepable, if its attach point allows it",
					Price:   "Fewer attach points; no map types that forbid it.",
					Command: `SEC("lsm.s/..."), SEC("fentry.s/..."), SEC("uprobe.s/...")`,
				},
				{
					ID:    "no-sleep",
					Title: "Use the form that does not sleep (bpf_probe_read_user for bpf_copy_from_user)",
					Price: "It fails where the page is not in memory.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.Sleepable},
	},
	{
		Rule: Rule{
			ID:    "VER026",
			Title: "Invalid use of a dynptr, an iterator or a saved interrupt flag",
			Text: `These are small structs on the program's stack: struct bpf_dynptr, struct
bpf_iter_NAME, and the flag in which interrupts are saved. The kernel keeps track of them. One
function initialises the struct, other functions use it, and a last function releases it. This
must hold on every path. Pass the address of the variable itself. Do not read or write its bytes.`,
			Kernels: "Dynptrs since 5.19, iterators since 6.4, saved interrupts since 6.13.",
			Remedies: []load.Remedy{
				{
					ID:    "one-life",
					Title: "Follow the variable along each path: initialise it once, then use it, then release it once. Use one variable for each struct",
					Price: "Nothing.",
				},
			},
		},
		kinds:  []verifierlog.Kind{verifierlog.StackObject},
		refine: refineStackObject,
	},
	{
		Rule: Rule{
			ID:    "VER027",
			Title: "Invalid use of a spin lock, timer, kptr, list or tree field",
			Text: `Map values and allocated objects can have fields that belong to the
kernel: bpf_spin_lock, bpf_timer, bpf_wq, bpf_task_work, kernel pointers (__kptr), and heads and
nodes of lists and trees. The kernel finds them by the BTF of the value's type. A program may pass
the address of such a field, at a constant offset. It may not read or write the field.`,
			Kernels: "bpf_spin_lock since 5.1, bpf_timer 5.15, kernel pointers 5.19, lists 6.2, trees 6.3, bpf_wq 6.10.",
			Remedies: []load.Remedy{
				{
					ID:    "field-address",
					Title: "Pass the address of the field itself (&value->field). Do not copy or clear the whole value",
					Price: "You copy field by field, and not with one assignment.",
				},
				{
					ID:      "map-btf",
					Title:   "Define the map with the type of its value, build with -g, and load with a library that passes the BTF",
					Price:   "Nothing.",
					Command: "struct {\n    __uint(type, BPF_MAP_TYPE_ARRAY);\n    __uint(max_entries, 1);\n    __type(key, __u32);\n    __type(value, struct my_value);\n} values SEC(\".maps\");",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.SpecialField},
	},
	{
		Rule: Rule{
			ID:    "VER028",
			Title: "Invalid use of an allocated object (bpf_obj_new), a list or a tree",
			Text: `The program owns what bpf_obj_new returns. It owns it until it drops it,
or adds it to a list or tree. Then the list or tree owns it, and the program's pointers to it are
borrowed until the lock is released. Lists and trees may be used only under the bpf_spin_lock
beside their head. The head names the type and the field of its nodes.`,
			Kernels: "Since 6.2; trees since 6.3, reference counts since 6.4.",
			Remedies: []load.Remedy{
				{
					ID:    "ownership",
					Title: "Check who owns the object at this point. Drop or add only what the program owns. Remove an object under the lock before you use it again",
					Price: "Nothing.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.OwnedObject},
	},
	{
		Rule: Rule{
			ID:    "VER029",
			Title: "Invalid callback function or exception handler",
			Text: `Helpers such as bpf_for_each_map_elem, bpf_loop and bpf_timer_set_callback
take a function of the program. The function must be static. It must have the arguments that the
helper gives it, and return a number. It may not make tail calls, and it may not throw. The
exception handler of bpf_throw is a global function that only the kernel calls.`,
			Kernels: "Callbacks since 5.13, exceptions since 6.7.",
			Remedies: []load.Remedy{
				{
					ID:    "callback-shape",
					Title: "Declare the function as the helper's documentation does, without tail calls and exceptions",
					Price: "Nothing.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.Callback},
	},
}
