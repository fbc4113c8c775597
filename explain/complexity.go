// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

func complexityRules() []Rule {
	simplify := []load.Remedy{
		{
			ID:    "bpf-loop",
			Title: "Turn loops that the verifier walks round by round into bpf_loop (5.17) or open-coded iterators (6.4), which it walks once or twice",
			Price: "A call per round, and a newer kernel.",
		},
		{
			ID:    "global-functions",
			Title: "Make large parts global (non-static) functions: they are verified once, not once per call",
			Price: "Their arguments lose what the caller knew about them, and need checks of their own. Needs 5.6.",
		},
		{
			ID:    "split",
			Title: "Split the program by tail calls, or do less in the kernel",
			Price: "State must be passed in maps; a tail call costs a few ns.",
		},
	}
	return []Rule{
		{
			ID:    "VER101",
			Title: "The verifier gave up after 1,000,000 instructions",
			Class: "R4",
			Stage: load.Verifier,
			Text: `The verifier walks every path. Branches multiply, and loops are walked round by round; after 1,000,000 walked instructions it stops with
E2BIG, "Argument list too long". This is not about the number of instructions in the program: a program of a hundred can do it. Another
clang version may produce other branches and be just over, or under.`,
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
				m.Cause = "The verifier walked as many instructions as it is allowed to, and had not seen all paths."
				if n := f.words.arg("processed"); n != "" {
					m.Cause = fmt.Sprintf("The verifier walked %s instructions, more than it is allowed to, and had not seen all paths; the program itself has %d.", n, f.insnCount())
				}
				return m
			},
		},
		{
			ID:    "VER102",
			Title: "More than 8192 branches were waiting to be walked",
			Class: "R4",
			Stage: load.Verifier,
			Text: `At each conditional jump the verifier puts one side away for later. When more than 8192 are waiting (1024 before 5.2) it stops: a long
sequence of comparisons without an end between them, such as a large switch, an unrolled parser or a generated rule list. The errno
was EFAULT or ENOMEM and is E2BIG on new kernels.`,
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
		},
		{
			ID:    "VER103",
			Title: "A loader without CAP_BPF may load 4096 instructions at most",
			Class: "R4",
			Stage: load.Request,
			Text: `Unprivileged programs have at most 4096 instructions (BPF_MAXINSNS), and so had all programs before 5.2. The call ends with E2BIG before
the verifier is asked.`,
			Kernels: "All; for privileged loaders the limit is 1,000,000 since 5.2.",
			Remedies: []load.Remedy{
				{
					ID:      "grant-bpf",
					Title:   "Give the loader CAP_BPF",
					Price:   "A privilege.",
					Command: "setcap cap_bpf+ep PROGRAM",
				},
				{
					ID:    "smaller",
					Title: "Make the program smaller",
					Price: "A change of the source.",
				},
			},
			Match: func(f *Facts) *Match {
				if !f.isLoad() || f.errno() != errE2BIG || !f.words.empty() || f.verifierAccepted() || f.cause(load.FnCheck) != nil {
					return nil
				}
				n := f.insnCount()
				old := f.before(5, 2)
				if n <= 4096 || n > 1_000_000 || !old && f.holds(capBPF) {
					return nil
				}
				m := &Match{Strength: Possible, How: load.Inferred}
				if old || f.lacks(capBPF) {
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
		},
		{
			ID:    "VER104",
			Title: "The verifier's own rewriting made a jump too long",
			Class: "R4",
			Stage: load.Verifier,
			Text: `After it has accepted a program the verifier replaces some instructions by several (context accesses, divisions, inlined
helpers), and distances grow. A jump that then no longer fits its 16 bits ends the load with ENOMEM, although memory is not short. It has nothing
to do with hardening.`,
			Kernels: "All; the message names the instruction since 5.1.",
			Remedies: []load.Remedy{
				{
					ID:      "mcpu-v4",
					Title:   "Build with -mcpu=v4, whose gotol holds 32 bits",
					Price:   "Needs a kernel that takes these instructions (6.6, or a backport), and is no guarantee: clang does not always use gotol.",
					Command: "clang -O2 -g -target bpf -mcpu=v4 -c prog.c -o prog.o",
				},
				{
					ID:    "split",
					Title: "Split the program: shorter unrolled loops, parts as __noinline functions of their own, or tail calls",
					Price: "A change of the source, and a call's worth of time at run time.",
				},
			},
			Match: matchVerifierPatch,
		},
		{
			ID:      "VER105",
			Title:   "The program has too many functions",
			Class:   "R4",
			Stage:   load.Verifier,
			Text:    `A program has at most 256 functions of its own, 256 different kernel functions, and 256 modules that these come from.`,
			Kernels: "Since 4.16.",
			Remedies: []load.Remedy{
				{
					ID:    "inline",
					Title: "Inline small functions, or split the program by tail calls",
					Price: "A larger program; or state passed in maps.",
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
		},
	}
}

// matchVerifierPatch judges a jump that became too long outside of blinding.
func matchVerifierPatch(f *Facts) *Match {
	if !f.isLoad() || f.errno() != errENOMEM {
		return nil
	}
	said := f.words.is(verifierlog.PatchRange)
	patch := f.cause(load.FnPatch)
	if !said && patch == nil || f.insideJIT() {
		return nil
	}
	m := f.verifierMatch()
	m.Cause = "The verifier accepted the program, and its own rewriting then made a jump too long for 16 bits. Memory is not short, whatever the errno says."
	if patch != nil {
		m.Evidence = append(m.Evidence, fmt.Sprintf("bpf_patch_insn_single(off=%d) returned %d (%s)", patch.Arg, patch.Ret, errnoName(-patch.Ret)))
	}
	if on, known := f.blindingOn(); f.hasCalls() && f.since(7, 1) && !f.observed(load.Blinding) && (on || !known) {
		// From 7.1 the blinding of a program with calls says the same words
		// and returns the same errno.
		m.Strength, m.How = Likely, load.Inferred
	}
	return m
}

// matchBareComplexity judges an E2BIG that came with no words.
func matchBareComplexity(f *Facts) *Match {
	if f.errno() != errE2BIG || !f.words.empty() {
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
