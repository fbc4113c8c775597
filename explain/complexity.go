// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

var simplify = []load.Remedy{
	{
		ID:    "bpf-loop",
		Title: "Write loops with bpf_loop (5.17) or open-coded iterators (6.4). The verifier walks their body once or twice, not once per round",
		Price: "A call per round, and a newer kernel.",
	},
	{
		ID:    "global-functions",
		Title: "Make large parts global (non-static) functions: they are verified once, not once per call",
		Price: "The verifier forgets what the caller knew about the arguments, so the function must check them itself. Needs 5.6.",
	},
	{
		ID:    "split",
		Title: "Split the program by tail calls, or do less in the kernel",
		Price: "State must be passed in maps; a tail call costs a few ns.",
	},
}

func complexityRules() []Rule {
	return []Rule{ver101(), ver102(), ver103(), ver104(), ver105()}
}

func ver101() Rule {
	return Rule{
		ID:    "VER101",
		Title: "The verifier gave up after 1,000,000 instructions",
		Class: "R4",
		Stage: load.Verifier,
		Text: `The verifier walks every path of the program. Each branch adds paths, and
it walks each round of a loop. After 1,000,000 instructions it stops with E2BIG, "Argument list
too long". The program itself may be small: a hundred instructions with a loop can be enough.
Another version of clang may produce other branches. Then the same source is over the limit, or
under it.`,
		Kernels:  "Since 5.2; 131,072 before (and 32,768 or 65,536 long ago).",
		Remedies: simplify,
		Match: func(f *Facts) *Match {
			if !f.verifierReject() {
				return nil
			}
			if !f.words.is(verifierlog.TooManyInstructions) {
				return matchBareComplexity(f)
			}
			m := f.verifierMatch()
			m.Cause = "The verifier reached its limit of walked instructions before it had seen all paths."
			if n := f.words.arg("processed"); n != "" {
				m.Cause = fmt.Sprintf("The verifier walked %s instructions, more than it is allowed to, and had not seen all paths", n)
				if own := f.insnCount(); own > 0 {
					m.Cause += fmt.Sprintf("; the program itself has %d", own)
				}
				m.Cause += "."
			}
			return m
		},
	}
}

func ver102() Rule {
	return Rule{
		ID:    "VER102",
		Title: "More than 8192 branches were waiting to be walked",
		Class: "R4",
		Stage: load.Verifier,
		Text: `At each conditional jump, the verifier follows one side and keeps the
other for later. If more than 8192 sides are waiting (1024 before 5.2), it stops. This happens
with a long sequence of comparisons: a large switch, an unrolled parser, or a generated list of
rules. The errno is E2BIG on new kernels, and EFAULT or ENOMEM on older ones.`,
		Kernels:  "All; 8192 since 5.2.",
		Remedies: simplify,
		Match: func(f *Facts) *Match {
			if !f.verifierReject() || !f.words.is(verifierlog.TooManyJumps) {
				return nil
			}
			m := f.verifierMatch()
			m.Cause = fmt.Sprintf("The verifier had %s branches waiting, more than it can remember.", f.words.arg("jumps"))
			return m
		},
	}
}

func ver103() Rule {
	return Rule{
		ID:    "VER103",
		Title: "A loader without CAP_BPF may load 4096 instructions at most",
		Class: "R4",
		Stage: load.Request,
		Text: `Unprivileged programs may have at most 4096 instructions (BPF_MAXINSNS).
Before 5.2 this was the limit for all programs. The kernel answers E2BIG before the verifier runs.`,
		Kernels: "All. For privileged loaders the limit is 1,000,000 since 5.2.",
		Remedies: []load.Remedy{
			{
				ID:    "grant-bpf",
				Title: "Give the loader CAP_BPF",
				Price: "A privilege.",
			},
			{
				ID:    "smaller",
				Title: "Make the program smaller",
				Price: "A change of the source.",
			},
		},
		grants: map[string][]int{"grant-bpf": {abi.CapBPF}},
		Match: func(f *Facts) *Match {
			if !f.isLoad() || f.errno() != abi.E2BIG || !f.words.empty() || f.verifierAccepted() || f.cause(load.FnCheck) != nil {
				return nil
			}
			n := f.insnCount()
			old := f.doesNot(node.MillionInstructions)
			if n <= 4096 || n > 1_000_000 || !old && f.holds(abi.CapBPF) {
				return nil
			}
			m := &Match{Strength: Possible, How: load.Inferred}
			if old || f.missing(abi.CapBPF) {
				m.Strength = Strong
			}
			m.Evidence = append(m.Evidence, fmt.Sprintf("the program has %d instructions", n))
			if t := f.capsText(); t != "" {
				m.Evidence = append(m.Evidence, t)
			}
			m.Cause = fmt.Sprintf("The program has %d instructions, and this loader may load 4096.", n)
			m.Why = "the program has more than 4096 instructions, and the loader's capabilities are not known"
			return m
		},
	}
}

func ver104() Rule {
	return Rule{
		ID:    "VER104",
		Title: "The verifier's own rewriting made a jump too long",
		Class: "R4",
		Stage: load.Verifier,
		Text: `After the verifier has accepted a program, it replaces some instructions
by several (context accesses, divisions, inlined helpers). So distances grow. If a jump then no
longer fits into its 16 bits, the load ends with ENOMEM, although there is enough memory. This has
nothing to do with hardening.`,
		Kernels: "All. Since 5.1, the message names the instruction.",
		Remedies: []load.Remedy{
			{
				ID:      "mcpu-v4",
				Title:   "Build with -mcpu=v4, which has gotol, a goto with a 32-bit offset",
				Price:   "Needs a kernel that knows these instructions (6.6, or a backport). It may not help: clang does not always use gotol.",
				Command: "clang -O2 -g -target bpf -mcpu=v4 -c prog.c -o prog.o",
			},
			{
				ID:    "split",
				Title: "Split the program: unroll loops less, move parts into __noinline functions, or use tail calls",
				Price: "A change of the source, and the time of a call at run time.",
			},
		},
		Match: matchVerifierPatch,
	}
}

// silentPatch is for a text that names the errno, and has no log.
func (f *Facts) silentPatch() *Match {
	if f.text == nil || !f.words.empty() {
		return nil
	}
	return &Match{Strength: Possible, How: load.Inferred,
		Why: "a jump that the verifier's own rewriting makes too long gives ENOMEM as well, however much memory there is. The log says 'insn N cannot be patched due to 16-bit range' then"}
}

// matchVerifierPatch judges a jump that became too long outside of blinding.
func matchVerifierPatch(f *Facts) *Match {
	said := f.words.is(verifierlog.PatchRange)
	if !f.isLoad() || f.errno() != abi.ENOMEM && !(said && f.text != nil) { // a text may have another one, or none
		return nil
	}
	patch := f.cause(load.FnPatch)
	if !said && patch == nil || f.insideJIT() {
		return f.silentPatch()
	}
	m := f.verifierMatch()
	m.Cause = "The verifier accepted the program, and its own rewriting then made a jump too long for 16 bits. Memory is not short, whatever the errno says."
	if patch != nil {
		m.Evidence = append(m.Evidence, fmt.Sprintf("bpf_patch_insn_single(off=%d) returned %d (%s)", patch.Arg, patch.Ret, errnoName(-patch.Ret)))
	}
	if on, known := f.blindingOn(); f.hasCalls() && f.does(node.BlindsWholeProgram) && !f.observed(load.Blinding) && (on || !known) {
		// From 7.1 the blinding of a program with calls says the same words
		// and returns the same errno.
		m.Strength, m.How = Likely, load.Inferred
	}
	return m
}

func ver105() Rule {
	return Rule{
		ID:      "VER105",
		Title:   "The program has too many functions",
		Class:   "R4",
		Stage:   load.Verifier,
		Text:    `A program has at most 256 functions of its own. It may call at most 256 different kernel functions, from at most 256 modules.`,
		Kernels: "Since 4.16. Kernel functions since 5.13.",
		Remedies: []load.Remedy{
			{
				ID:    "inline",
				Title: "Inline small functions, or split the program by tail calls",
				Price: "An inlined function makes the program larger. A tail call must pass its state in a map.",
			},
		},
		Match: func(f *Facts) *Match {
			if !f.verifierReject() || !f.words.is(verifierlog.TooManyFunctions) {
				return nil
			}
			m := f.verifierMatch()
			m.Cause = fmt.Sprintf("The program calls more functions than the verifier can keep track of: %s.", f.words.message)
			return m
		},
	}
}

// matchBareComplexity judges an E2BIG that came with no words.
func matchBareComplexity(f *Facts) *Match {
	if f.errno() != abi.E2BIG || !f.words.empty() {
		return nil
	}
	s := f.cause(load.FnDoCheck)
	if s == nil {
		return &Match{Strength: Possible, How: load.Inferred, Why: "E2BIG is what the verifier says when it has walked too much, and there is no log"}
	}
	m := f.verifierMatch()
	m.Strength = Strong
	m.Cause = fmt.Sprintf("The verifier walked as much as it is allowed to, and had not seen all paths; the program itself has %d instructions.", f.insnCount())
	return m
}
