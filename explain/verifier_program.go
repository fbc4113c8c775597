// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// programRules are about a program as a whole.
var programRules = []rejectRule{
	{
		Rule: Rule{
			ID:    "VER016",
			Title: "Calls nest too deep or use too much stack",
			Text: `All functions of a call chain share 512 bytes of stack, and a chain has at most 8 functions. Tail calls from a function that was called
leave 256 bytes.`,
			Kernels: "Since 4.16; private stacks on x86-64 since 6.13 allow tracing programs more.",
			Remedies: []load.Remedy{
				{
					ID:    "smaller-frames",
					Title: "Move large variables from the stack into a per-CPU array, or inline the small functions",
					Price: "A lookup; or a larger program.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.StackDepth, verifierlog.CallDepth},
	},
	{
		Rule: Rule{
			ID:    "VER012",
			Title: "The program may loop forever",
			Text: `The verifier must see that each loop ends. Before 5.3, no jump may go
backwards. Since then, the verifier walks each round of the loop. It refuses a while without a
bound, and a bound that it cannot know. For unprivileged programs it refuses every loop.`,
			Kernels: "Bounded loops since 5.3; bpf_loop since 5.17; iterators since 6.4.",
			Remedies: []load.Remedy{
				{
					ID:    "bound-loop",
					Title: "Give the loop a constant bound, or use bpf_loop (5.17) or bpf_for (6.4)",
					Price: "bpf_loop costs a call per round.",
				},
				{
					ID:      "unroll",
					Title:   "Unroll it, for kernels before 5.3",
					Price:   "A larger program, which reaches the limits on size sooner.",
					Command: "#pragma unroll",
				},
			},
		},
		kinds:   []verifierlog.Kind{verifierlog.BackEdge, verifierlog.InfiniteLoop},
		suspect: (*Facts).suspectLoop,
		silent:  abi.EINVAL,
	},
	{
		Rule: Rule{
			ID:    "VER013",
			Title: "The program's control flow is broken",
			Text: `Before the verifier walks the program, it checks its structure. Each jump
must go to an instruction. Each instruction must be reachable. Each function must end in an exit
or a jump. Compilers produce such code. Hand-written code, patched objects and unresolved calls
may not be like this.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:    "fix-flow",
					Title: "Compare the submitted instructions with what was built: an unresolved call or a wrong patch is the usual reason",
					Price: "Nothing.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.Unreachable, verifierlog.JumpOutOfRange, verifierlog.NoExit, verifierlog.BadCall},
	},
	{
		Rule: Rule{
			ID:    "VER014",
			Title: "The return value is not one that this kind of program may return",
			Text: `Some program types have a fixed set of return values: cgroup hooks 0 and
1, LSM programs 0 and negative errnos, tracing programs 0. At every exit, the verifier must know
that R0 is one of them.`,
			Kernels: "All. Checks were added over time.",
			Remedies: []load.Remedy{
				{
					ID:    "return-value",
					Title: "Return constants from the allowed set, and limit what comes from elsewhere",
					Price: "Nothing.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.ReturnValue},
	},
	{
		Rule: Rule{
			ID:    "VER024",
			Title: "A program of this kind may not use this map",
			Text: `Some maps and map contents may be used only by some program types. Tracing
programs may use only maps that are preallocated or safe in NMI. Sleepable programs may use only
some maps. Socket filters may not use spin locks. Offloaded programs need offloaded maps. A
program may have one arena and one cgroup storage.`,
			Kernels: "All. Newer kernels allow more.",
			Remedies: []load.Remedy{
				{
					ID:    "other-map",
					Title: "Use another map type, or preallocation",
					Price: "Memory, or a change of the design.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.MapNotAllowed},
	},
	{
		Rule: Rule{
			ID:    "VER025",
			Title: "A global function's arguments do not fit its types",
			Text: `The verifier checks functions that are not static on their own, by the
types in their BTF. A pointer points to memory of the size of its type, and callers must pass
exactly this.`,
			Kernels: "Since 5.6.",
			Remedies: []load.Remedy{
				{
					ID:    "static-function",
					Title: "Make the function static, or give its arguments types (and __arg_ tags, 6.8) that say what is passed",
					Price: "A static function is verified once per call.",
				},
			},
		},
		kinds:  []verifierlog.Kind{verifierlog.GlobalFunction},
		refine: refineCall,
	},
	{
		Rule: Rule{
			ID:    "VER202",
			Title: "The verifier ran into a bug of its own",
			Text: `The verifier reached a state that should be impossible. To be safe, it
refused the program, usually with EFAULT. The program may be correct.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:    "report-bug",
					Title: "Try the newest stable kernel, and report program and log to bpf@vger.kernel.org if it is still there",
					Price: "Time; another clang version or a small change of the source may avoid it.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.VerifierBug},
	},
}
