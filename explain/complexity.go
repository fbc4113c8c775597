// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/load"
)

var (
	tooLarge   = re(`BPF program is too large\. Processed (\d+) insn|BPF program is too complex|processed (\d+) insns.*program is too`)
	tooManyJmp = re(`The sequence of (\d+) jumps is too complex`)
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
				found, ok := f.words.find(tooLarge)
				if !ok {
					return matchBareComplexity(f)
				}
				m := f.verifierMatch()
				m.Cause = "The verifier walked as many instructions as it is allowed to, and had not seen all paths."
				if n := firstOf(found[1:]); n != "" {
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
				if !f.verifierReject() {
					return nil
				}
				found, ok := f.words.find(tooManyJmp)
				if !ok {
					return nil
				}
				m := f.verifierMatch()
				m.Cause = fmt.Sprintf("The verifier had %s branches waiting, the most it can remember.", found[1])
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
	}
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
