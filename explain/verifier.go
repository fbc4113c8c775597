// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// rejectRule is a rule that the verifier's own words give away.
type rejectRule struct {
	Rule
	kinds []verifierlog.Kind
	// says and not narrow a kind down by its message; nil: all of it.
	says, not *regexp.Regexp
	// cause says it for this attempt; nil: the title and the verifier's line.
	cause func(w words) string
	// suspect looks at the instructions where there are no words, if the errno
	// is silent.
	suspect func(*Facts) *suspicion
	silent  int
}

// verifierReject reports a load that the verifier turned down, or may have.
func (f *Facts) verifierReject() bool {
	return f.isLoad() && !f.verifierOK() && !f.notReached(load.Verifier) && f.signatureOfSeccomp() < Strong
}

// verifierMatch is the match of a rule that rests on the verifier's words.
func (f *Facts) verifierMatch() *Match {
	m := &Match{Strength: Strong, How: load.Observed}
	if f.cause(load.FnDoCheck) != nil || f.cause(load.FnCheck) != nil {
		m.Strength = Certain
	}
	who := "the verifier's log says"
	switch {
	case f.text != nil:
		who = "the text quotes the verifier"
	case f.words.kernel:
		who = "the loader asked for no log; read from the verifier itself"
	case f.words.unproven:
		who = "the log in the loader's buffer, which may be an earlier call's, says"
	}
	for _, l := range f.words.complaint {
		m.Evidence = append(m.Evidence, fmt.Sprintf("%s: %s", who, l))
		who = "and"
	}
	if r := f.words.report; r != nil {
		if r.Reason != "" {
			m.Evidence = append(m.Evidence, "its reason: "+printable(r.Reason, 300))
		}
		if r.Suggestion != "" {
			m.Evidence = append(m.Evidence, "it suggests: "+printable(r.Suggestion, 300))
		}
	}
	if w := f.where(); w != "" {
		m.Evidence = append(m.Evidence, w)
	}
	if s := f.cause(load.FnDoCheck); s != nil {
		m.Evidence = append(m.Evidence, fmt.Sprintf("do_check_common returned %d (%s)", s.Ret, errnoName(-s.Ret)))
	} else if s := f.cause(load.FnCheck); s != nil {
		m.Evidence = append(m.Evidence, fmt.Sprintf("bpf_check returned %d (%s)", s.Ret, errnoName(-s.Ret)))
	}
	return m
}

// where says at which instruction, and which line of source, the verifier
// stopped.
func (f *Facts) where() string {
	switch {
	case f.ev.FailedInsn >= 0 && (f.ev.FailedInsn < len(f.ev.Insns) || f.words.insn < 0) && f.cause(load.FnDoCheck) != nil:
		return "the verifier stopped at " + f.at(f.ev.FailedInsn)
	case f.words.insn >= 0:
		s := fmt.Sprintf("the verifier stopped at instruction %d", f.words.insn)
		if f.words.insnText != "" {
			s += fmt.Sprintf(" (%s)", f.words.insnText)
		}
		if l, ok := f.ev.Source(f.words.insn); ok {
			s += fmt.Sprintf(", %s:%d", printable(l.File, 120), l.Line)
			if t := strings.TrimSpace(l.Text); t != "" {
				s += fmt.Sprintf(" %q", printable(t, 120))
			}
		} else if src := f.words.source; src != nil && src.Text != "" {
			if src.File != "" {
				s += fmt.Sprintf(", %s:%d", printable(src.File, 120), src.Line)
			}
			s += fmt.Sprintf(" %q", printable(src.Text, 120))
		}
		return s
	}
	return ""
}

func (r rejectRule) rule() Rule {
	out := r.Rule
	if out.Class == "" {
		out.Class = "R3"
	}
	if out.Stage == "" {
		out.Stage = load.Verifier
	}
	out.Match = func(f *Facts) *Match {
		if r.suspect != nil && f.silentReject(r.silent) {
			return f.suspect(r.suspect(f))
		}
		if !f.verifierReject() || !f.words.is(r.kinds...) {
			return nil
		}
		if r.says != nil && !r.says.MatchString(f.words.message) || r.not != nil && r.not.MatchString(f.words.message) {
			return nil
		}
		m := f.verifierMatch()
		if r.cause != nil {
			m.Cause = r.cause(f.words)
		}
		if m.Cause == "" {
			m.Cause = fmt.Sprintf("%s: %s.", r.Title, strings.TrimRight(f.words.message, ". !"))
		}
		return m
	}
	return out
}

var (
	sizeArgument   = regexp.MustCompile(`'var &= const'|invalid zero-sized`)
	followsPointer = regexp.MustCompile(`invalid mem access`)
	// What a global function may be called with is checked by its BTF.
	globalFunction = regexp.MustCompile(`passes invalid args|global func|doesn't return scalar`)
)

func verifierRules() []Rule {
	var out []Rule
	for _, r := range rejectRules {
		out = append(out, r.rule())
	}
	return slices.Concat(out, []Rule{
		{
			ID:    "VER099",
			Title: "The verifier rejects the program",
			Class: "R3",
			Stage: load.Verifier,
			Text: `The verifier walks every path of a program and refuses it when it cannot prove one of them safe. Its last lines before the
statistics say what it could not prove, and the instruction above them where. When the loader passed no log buffer nothing remains but the errno:
EACCES as a rule for memory, EINVAL for everything else.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				askForLog,
				{
					ID:    "read-upwards",
					Title: "Read the log upwards from the complaint, and follow the register that it names to where it got its value",
					Price: "Time; build with -g so that the log carries source lines.",
				},
			},
			Match:   matchReject,
			generic: true,
		},
		{
			ID:    "VER201",
			Title: "A signal interrupted the verifier",
			Class: "R3",
			Stage: load.Verifier,
			Text: `The verifier gives up with EAGAIN when a signal is pending, so that a long verification can be killed. Go's runtime sends itself
signals all the time (SIGURG to preempt, SIGPROF while profiling), and so do profilers. Loaders repeat the call a few times; a long program under
a frequent timer never gets through.`,
			Kernels: "Since 5.0.",
			Remedies: []load.Remedy{
				{
					ID:    "retry",
					Title: "Repeat the call on EAGAIN, with the thread's signals blocked while it runs (cilium/ebpf does both)",
					Price: "The thread does not react to signals while the program is verified.",
				},
				{
					ID:    "stop-profiler",
					Title: "Do not profile the loader by timer signals while it loads",
					Price: "No profile of the start.",
				},
			},
			Match: func(f *Facts) *Match {
				if !f.isLoad() || f.errno() != errEAGAIN && f.errno() != errEINTR || f.verifierOK() {
					return nil
				}
				m := &Match{Strength: Likely, How: load.Inferred, Cause: "A signal was pending, and the verifier stopped for it. The program was not judged."}
				m.Why = "EAGAIN comes from a pending signal"
				if s := f.cause(load.FnDoCheck); s != nil {
					m.Strength, m.How = Certain, load.Observed
					m.Evidence = append(m.Evidence, fmt.Sprintf("do_check_common returned %d (%s)", s.Ret, errnoName(-s.Ret)))
				} else if s := f.cause(load.FnCheck); s != nil {
					m.Strength, m.How = Certain, load.Observed
					m.Evidence = append(m.Evidence, fmt.Sprintf("bpf_check returned %d (%s)", s.Ret, errnoName(-s.Ret)))
				}
				return m
			},
		},
	})
}

func matchReject(f *Facts) *Match {
	if !f.verifierReject() || f.words.clean() {
		return nil
	}
	if !f.words.empty() {
		m := f.verifierMatch()
		m.Cause = fmt.Sprintf("The verifier rejects the program: %s.", strings.TrimRight(f.words.message, ". !"))
		return m
	}
	if s := f.cause(load.FnDoCheck); s != nil {
		m := f.verifierMatch()
		m.Cause = "The verifier rejects the program; the loader asked for no log, so that its reason is not known."
		return m
	}
	if s := f.cause(load.FnCheck); s != nil && f.cause(load.FnJITSubprogs) == nil && f.cause(load.FnBlind) == nil && f.cause(load.FnPatch) == nil && f.cause(load.FnModmem) == nil && f.cause(load.FnJIT) == nil {
		if f.errno() == errENOSPC || f.errno() == errEAGAIN || f.errno() == errENOMEM {
			return nil
		}
		m := f.verifierMatch()
		m.Cause = "The verifier turned the program down before it walked a single instruction; its reason was not recorded."
		return m
	}
	switch f.errno() {
	case errEACCES:
		// Loads are hardly ever refused with EACCES by anything else than the
		// verifier, except under SELinux.
		return &Match{Strength: Likely, How: load.Inferred,
			Cause: "The verifier rejects the program, to judge by the errno; there is no log that would say why.",
			Why:   "EACCES is the verifier's usual answer"}
	case errEINVAL, errEFAULT, errE2BIG, errEPERM:
		if f.errno() == errEPERM && f.refused() {
			return nil
		}
		return &Match{Strength: Possible, How: load.Inferred, Why: fmt.Sprintf("%s is one of the verifier's answers, and there is no log that would say more", errnoName(f.errno()))}
	}
	return nil
}

var rejectRules = []rejectRule{
	{
		Rule: Rule{
			ID:    "VER001",
			Title: "A pointer that may be NULL is used without a check",
			Text: `Map lookups, ring buffer reservations, socket lookups and many kernel functions return NULL when they find nothing. Until the
program has compared the result with NULL on the very path that uses it, the verifier knows it as map_value_or_null (or ..._or_null) and lets nobody
read or write through it, or pass it on.`,
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
		silent:  errEACCES,
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
			Title: "A register is read that was never written",
			Text: `Every register except R1 (the context) and R10 (the frame) begins without a value, and calls leave R1 to R5 without one. Reading such a
register is refused. In C it comes from a variable that is not set on some path, a function without a return value (R0), or from
inline assembly that does not declare what a call destroys.`,
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
		silent:  errEACCES,
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
			Text: `Packet pointers (data, data_end) may be followed only as far as a comparison with data_end has proved on this very path. Helpers
that can move the packet (bpf_skb_pull_data, bpf_xdp_adjust_head, ...) make all earlier checks void. Compilers like to merge or to move the
checks; the comparison must be of the pointer that is then used.`,
			Kernels: "All; the exact wording differs.",
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
		silent:  errEACCES,
	},
	{
		Rule: Rule{
			ID:    "VER003",
			Title: "A memory access may lie outside of its object",
			Text: `For each access to a map value, to ring buffer memory or to another object of known size the verifier must know that offset and size
stay inside. A constant offset beyond the end, an index that was never limited, or one that was checked as a signed value and used as an
unsigned one is refused. Compilers may check one copy of the index and use another.`,
			Kernels: "All; the wording differs.",
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
		silent:  errEACCES,
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
			Title: "Stack memory is read that was never written",
			Text: `A program may read, or pass to a helper, only those bytes of its 512-byte stack that it has written. Padding inside a struct counts:
setting each field leaves the holes without a value. Since 6.3 or so privileged programs may read such bytes directly; as a helper's argument
they are still refused where the helper would let them out.`,
			Kernels: "All; privileged programs have been allowed more since 6.3.",
			Remedies: []load.Remedy{
				{
					ID:      "zero-struct",
					Title:   "Clear the whole variable, padding included, before filling it",
					Price:   "A few stores.",
					Command: "__builtin_memset(&key, 0, sizeof(key));",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.StackUninit},
	},
	{
		Rule: Rule{
			ID:    "VER005",
			Title: "A reference is not released on some path",
			Text: `What was acquired must be released before the program ends, calls a tail call, or goes on holding a lock: ring buffer records (submit or
discard), sockets (bpf_sk_release), objects of kernel functions. The verifier follows each path and names the instruction that acquired.`,
			Kernels: "Since 4.20.",
			Remedies: []load.Remedy{
				{
					ID:    "release",
					Title: "Release on every path, the error returns included, and compare the result of acquiring with NULL",
					Price: "Nothing.",
				},
			},
		},
		kinds:   []verifierlog.Kind{verifierlog.ReferenceLeak},
		suspect: (*Facts).suspectLeak,
		silent:  errEINVAL,
		cause: func(w words) string {
			if at := w.arg("insn_acquired"); at != "" {
				return fmt.Sprintf("What instruction %s acquired is not released on the path that ends here.", at)
			}
			return ""
		},
	},
	{
		Rule: Rule{
			ID:    "VER007",
			Title: "Something that is not a pointer is followed",
			Text: `The register holds a number, not a pointer that the verifier knows: the result of arithmetic it does not follow, a pointer read from
untyped memory, or one that went through a variable it lost track of. Kernel memory behind an unknown pointer can be read only by
bpf_probe_read_kernel or bpf_core_read, user memory only by bpf_probe_read_user.`,
			Kernels: "All; scalar was called inv up to 5.17.",
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
		silent:  errEACCES,
		says:    followsPointer,
		cause: func(w words) string {
			return fmt.Sprintf("The program follows %s as a pointer, and to the verifier it is none that may be followed (%s).", w.arg("reg"), printable(w.arg("type"), 40))
		},
	},
	{
		Rule: Rule{
			ID:    "VER008",
			Title: "A stack access is out of range",
			Text: `A function has 512 bytes of stack below R10. Accesses beyond them, at an offset the verifier does not know, or that overwrite part of a
saved pointer, are refused.`,
			Kernels: "All; variable offsets are allowed to privileged programs since 5.12.",
			Remedies: []load.Remedy{
				{
					ID:    "percpu-scratch",
					Title: "Keep large variables in a per-CPU array of one element",
					Price: "A lookup, and a value that a nested program on the same CPU can overwrite.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.StackBounds},
	},
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
			ID:    "VER009",
			Title: "Forbidden arithmetic on a pointer",
			Text: `Pointers may be moved by constants and by numbers whose bounds the verifier knows, and only where their kind allows it: never multiplied,
shifted, added to each other, or moved by something unbounded.`,
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
			Text: `Helpers and kernel functions say which kind of pointer or number each argument has to be. The verifier names the register, what it
holds and what was expected: map_value where a stack pointer is wanted, a number where a pointer is wanted, a map of the wrong type.`,
			Kernels: "All; new kernels accept more kinds (map values as keys since 4.18, for example).",
			Remedies: []load.Remedy{
				{
					ID:    "right-argument",
					Title: "Pass what the function expects; copy to the stack or to a map value first if need be",
					Price: "A copy.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.ArgumentType, verifierlog.HelperMap},
	},
	{
		Rule: Rule{
			ID:    "VER023",
			Title: "The size given to a helper is not bounded",
			Text: `Helpers that take memory and a size need a size that the verifier knows to be at least 0 (or 1) and at most as large as the
memory. A length that comes from a packet, a string or the kernel must be limited, as an unsigned value, on the path to the call.`,
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
		kinds: []verifierlog.Kind{verifierlog.MemoryBounds},
		says:  sizeArgument,
	},
	{
		Rule: Rule{
			ID:    "VER011",
			Title: "The context is read where the program type has no field",
			Text: `Each program type has its own context struct, and an access must hit one of its fields, with the right size, for reading or writing as
that field allows. Fields added in later kernels are invalid in earlier ones, and a program built for another type, or loaded under the wrong
section name, reads the wrong struct.`,
			Kernels: "All; fields were added over time.",
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
		silent:  errEACCES,
	},
	{
		Rule: Rule{
			ID:    "VER012",
			Title: "The program may loop forever",
			Text: `Loops must end, and the verifier must see that they do: before 5.3 no jump may go backwards at all, since then it walks each round. An
unbounded while, a bound it cannot know, or for unprivileged programs any loop, is refused.`,
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
		silent:  errEINVAL,
	},
	{
		Rule: Rule{
			ID:    "VER013",
			Title: "The program's control flow is broken",
			Text: `Before it walks the program the verifier checks its shape: jumps must land on instructions, none may be unreachable, and a function must
end in an exit or a jump. Compilers keep to that; hand-written code, patched objects and unresolved calls do not.`,
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
			Text: `Some program types have a fixed set of return values: cgroup hooks 0 and 1, LSM programs 0 and negative errnos, tracing programs 0. The
verifier must know that R0 lies in it at every exit.`,
			Kernels: "All; the checks grew over time.",
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
			ID:    "VER017",
			Title: "A memory access is not aligned",
			Text: `Some architectures, and some kinds of memory on all of them (the stack, map values with special fields, atomics), want accesses
aligned to their size.`,
			Kernels: "All; x86-64 and arm64 allow unaligned packet access.",
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
			ID:    "VER018",
			Title: "A lock, an RCU section or a preemption section is not used as it must be",
			Text: `While a program holds a bpf_spin_lock it may hardly call anything, and must release it before it ends; RCU read sections, disabled
preemption and saved interrupts must be closed in the same program. A program that may not sleep may not call what sleeps.`,
			Kernels: "Since 5.1; RCU sections since 6.2.",
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
			ID:      "VER019",
			Title:   "A division by zero, or a shift that is too far",
			Text:    `A division by the constant zero, and a shift by the register's width or more, have no meaning and are refused.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:    "fix-constant",
					Title: "Mend the constant; it often comes from a macro or from a relocation that was never filled in",
					Price: "Nothing.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.ArithmeticRule},
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
			ID:    "VER024",
			Title: "A program of this kind may not use this map",
			Text: `Some maps and map contents go with some program types only: tracing programs take only preallocated or NMI-safe maps, sleepable ones
a subset, socket filters no spin locks, offloaded programs offloaded maps; one arena and one cgroup storage per program.`,
			Kernels: "All; restrictions were lifted over time.",
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
			Text: `Functions that are not static are verified on their own, by the types in their BTF: a pointer is a pointer to memory of that type's size, and
callers must pass just that.`,
			Kernels: "Since 5.6.",
			Remedies: []load.Remedy{
				{
					ID:    "static-function",
					Title: "Make the function static, or give its arguments types (and __arg_ tags, 6.8) that say what is passed",
					Price: "A static function is verified once per call.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.BTFInfo},
		says:  globalFunction,
	},
	{
		Rule: Rule{
			ID:    "VER202",
			Title: "The verifier ran into a bug of its own",
			Text: `The verifier found itself in a state that it holds to be impossible, and refused the program to be safe (EFAULT as a rule). The program may
be in order.`,
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
	{
		Rule: Rule{
			ID:      "VER021",
			Title:   "Read-only memory is written",
			Text:    `Constants (.rodata), frozen maps, maps with BPF_F_RDONLY_PROG, most kernel objects and many context fields may be read only.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:    "writable",
					Title: "Write to a variable that is not const, or through the helper that exists for the object",
					Price: "Nothing, or a helper call.",
				},
			},
		},
		kinds: []verifierlog.Kind{verifierlog.ReadOnly},
	},
}
