// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"strings"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

const blindText = `With net.core.bpf_jit_harden in force the kernel blinds constants before it compiles a program: an instruction that carries
an immediate value becomes three that compute the value from a random number, so that nobody can plant machine code of his choice in kernel memory. The program grows, and so does every distance inside it. A conditional jump, and a plain goto,
hold their distance in 16 bits, from -32768 to 32767. When one of them no longer reaches its target the kernel gives up: the verifier has
long accepted the program, and its log is clean.`

// jitOnlyText stands wherever a program is said to work in the interpreter.
const jitOnlyText = `from 6.9 on the kernel writes instructions for its compiler into some programs that its interpreter does not know (lookups in per-CPU
maps, arenas, bpf_get_smp_processor_id and others, may_goto). Such a program may crash the machine when it runs interpreted. Then that is said before all
else. Kernels with f1c27922576e (7.3, and 7.2.13) refuse most of them instead.`

func blindingRules() []Rule {
	return []Rule{
		{
			ID:    "BLIND001",
			Title: "Constant blinding made a jump too long",
			Class: "R9",
			Stage: load.Blinding,
			Text: blindText + `

The program is one function. The kernel has no interpreter (CONFIG_BPF_JIT_ALWAYS_ON) or does not allow itself to fall back to it, so that
the load fails with ENOTSUPP, 524. The same program loads where bpf_jit_harden is 0, and where it is 1 and the loader has CAP_BPF.`,
			Kernels:  "All with CONFIG_BPF_JIT_ALWAYS_ON; Debian's 6.1 behaves so without it. Elsewhere the program is loaded un-jited: BLIND003.",
			Remedies: blindingRemedies(),
			Match:    func(f *Facts) *Match { return matchBlinding(f, load.Failed, false) },
		},
		{
			ID:    "BLIND002",
			Title: "Constant blinding made a jump too long in a program with functions of its own",
			Class: "R9",
			Stage: load.Blinding,
			Text: blindText + `

The program has bpf-to-bpf calls. Such programs are compiled function by function while bpf_check still runs, so that the error
seems to come from the verifier: it does not, its own work had succeeded before. Up to 6.18 each function is blinded on its own and must
keep its own jumps short; from 7.1 the whole program is blinded at once, and jumps still end in their own function.`,
			Kernels:  "With CONFIG_BPF_JIT_ALWAYS_ON bpf_check returns the error. Elsewhere the program is loaded un-jited: BLIND003.",
			Remedies: blindingRemedies(),
			Match:    func(f *Facts) *Match { return matchBlinding(f, load.Failed, true) },
		},
		{
			ID:    "BLIND003",
			Title: "Loaded, but interpreted: constant blinding made a jump too long",
			Class: "R9",
			Stage: load.Blinding,
			Text: blindText + `

This kernel has an interpreter and falls back to it without a word: bpf(2) returns a file descriptor, the program works, many times
slower than compiled, and an interpreter is running that hardening was meant to keep out. bpftool prog shows no jited size.

Not every program works: ` + jitOnlyText,
			Kernels:  "Kernels without CONFIG_BPF_JIT_ALWAYS_ON: seen on 5.10, 6.12, 7.2, and on 6.1 for programs with bpf-to-bpf calls.",
			Remedies: blindingRemedies(),
			Match: func(f *Facts) *Match {
				return matchBlinding(f, load.LoadedNotJITed, f.hasCalls())
			},
		},
		{
			ID:    "BLIND004",
			Title: "Constant blinding would make a jump go to the wrong place",
			Class: "R9",
			Stage: load.Blinding,
			Text: blindText + `

A backward jump can slip through. Kernels before 7.1 look at its offset before the replacement in front of it is counted: when that takes the offset
just below -32768, it wraps in its 16 bits and becomes a jump far forward. The kernel sees nothing wrong: the program loads, is compiled, and computes
something else than the verifier checked. No error and no log shows it, so that this rule is only ever predicted: by bpfwhy check and bpfwhy audit,
and by package loader, which does not load such a program as it is.`,
			Kernels:  "Seen on 5.10, 6.1, 6.12 and 6.18. From 7.1 the kernel checks the range and refuses: BLIND001, BLIND002.",
			Remedies: blindingRemedies(),
			// Nothing of it is to be seen in a load: see Text.
			Match: func(*Facts) *Match { return nil },
		},
	}
}

func blindingRemedies() []load.Remedy {
	return []load.Remedy{
		{
			ID:      "islands",
			Title:   "Let the long jump hop over a goto placed in between (a jump island): a plain goto is not blinded and does not grow",
			Price:   "The program's generator, or a step after the compiler, has to place them; about two more instructions for a typical program. Keeps hardening, works on every kernel.",
			Command: "bpfwhy fix prog.o -o prog.fixed.o",
		},
		{
			ID:      "run-repair",
			Title:   "Let bpfwhy run the loader, whatever it is written in: it loads such programs with jump islands in the loader's place",
			Price:   "A process beside the loader, with CAP_SYS_ADMIN, CAP_SYS_PTRACE and what the loader has; a small load takes some microseconds more. Keeps hardening, changes neither loader nor program.",
			Command: "bpfwhy run --repair -- LOADER",
		},
		{
			ID:      "mcpu-v4",
			Title:   "Build with -mcpu=v4, whose gotol holds 32 bits",
			Price:   "Needs a kernel that takes these instructions (6.6, or a backport), and is no guarantee: clang does not always use gotol. Measure the result.",
			Command: "clang -O2 -g -target bpf -mcpu=v4 -c prog.c -o prog.o",
		},
		{
			ID:    "split",
			Title: "Split the program: shorter unrolled loops, parts as __noinline functions of their own, or tail calls",
			Price: "A change of the source, and a call's worth of time at run time. Each function then has its own 32767 slots.",
		},
		{
			ID:      "harden-1",
			Title:   "Set net.core.bpf_jit_harden to 1 in the node's own configuration: only loaders without CAP_BPF are blinded then. Never 0. docs/hardening.md has the way for Bottlerocket, Talos, OpenShift and nodes that cannot be configured",
			Price:   "Loses blinding for the programs of privileged loaders, on the whole node. STIG, CIS and E8 scanners want 2 and will flag it. Helps only loaders with CAP_BPF.",
			Command: "echo 'net.core.bpf_jit_harden = 1' > /etc/sysctl.d/90-bpf-jit-harden.conf",
		},
	}
}

func matchBlinding(f *Facts, outcome load.Outcome, calls bool) *Match {
	if f.kind() != load.ProgLoad || f.Attempt.Outcome != outcome || f.hasCalls() != calls {
		return nil
	}
	m := f.blindingSeen()
	if m == nil {
		m = f.blindingInferred()
	}
	if f.repaired() {
		if m == nil || m.Strength < Certain {
			m = &Match{Strength: Certain}
			f.describeBlinding(m)
		}
		m.How = load.Reproduced
	}
	return m
}

// blindingSeen reports a blinding that hooks saw fail.
func (f *Facts) blindingSeen() *Match {
	patch, blind := f.cause(load.FnPatch), f.cause(load.FnBlind)
	if patch != nil && f.failed() && !f.insideJIT() {
		return nil // the verifier's own rewriting, VER104
	}
	if f.unjited() && patch == nil && blind == nil {
		// The fallback to the interpreter hides the error from the parents.
		patch, blind = f.failing(load.FnPatch), f.failing(load.FnBlind)
	}
	if patch == nil && blind == nil {
		return nil
	}
	m := &Match{Strength: Certain, How: load.Observed}
	if patch != nil {
		m.Evidence = append(m.Evidence, fmt.Sprintf("bpf_patch_insn_single(off=%d) returned %d (%s)", patch.Arg, patch.Ret, errnoName(-patch.Ret)))
	}
	if blind != nil {
		m.Evidence = append(m.Evidence, fmt.Sprintf("bpf_jit_blind_constants returned %d (%s)", blind.Ret, errnoName(-blind.Ret)))
		if patch == nil && blind.Ret == -errENOMEM && f.Attempt.Jump == nil {
			m.Strength = Likely
			m.Cause = "Constant blinding failed. No instruction was seen to be refused, so that it may also have run out of memory."
		}
	}
	f.describeBlinding(m)
	return m
}

// blindingInferred derives a blinding failure from the program, the sysctl and
// the errno, where no hook saw the blinding.
func (f *Facts) blindingInferred() *Match {
	if f.observed(load.Blinding) {
		return nil
	}
	// From 7.1 the log names the instruction whose replacement was refused.
	said := f.words.is(verifierlog.PatchRange)
	if f.failed() && f.errno() != errENOTSUPP && !f.fellBack() && !(f.errno() == errENOMEM && f.hasCalls() && f.since(7, 1)) {
		return nil
	}
	if f.failed() && !f.words.empty() && !said && !f.fellBack() {
		return nil // the verifier had something else to say
	}
	on, known := f.blindingOn()
	if known && !on {
		return nil
	}
	m := &Match{How: load.Inferred}
	switch j := f.Attempt.Jump; {
	case said && f.errno() == errENOTSUPP:
		m.Strength, m.How = Strong, load.Observed
		m.Evidence = append(m.Evidence, "the verifier's log says: "+f.words.message)
	case said && j == nil:
		m.Strength = Likely
	case j != nil && known && !f.contradictsBlinding():
		m.Strength = Strong
		if j.Approximate || f.ev.InsnsState != load.InsnsVerified && !f.wholeProgram() {
			m.Strength = Likely
		}
	case j != nil:
		m.Strength = Likely
	case !f.wholeProgram():
		m.Strength = Possible
		m.Why = "the program's instructions were not captured, so that nobody can say whether its jumps would fit"
	default:
		// The verifier's rewriting before the blinding adds to the growth: a
		// program that just fits may still fail.
		v, ok := f.blindingVerdict()
		if !ok || fitsSurely(v) {
			return nil
		}
		m.Strength = Possible
		m.Why = fmt.Sprintf("the model leaves only %d slots to the tightest jump, and the verifier may have added more instructions than that", v.Margin)
	}
	f.describeBlinding(m)
	return m
}

// blindingExcluded reports that blinding is known not to be the reason: it was
// off, was seen to succeed, or leaves every jump of the program far from its
// limit.
func (f *Facts) blindingExcluded() bool {
	if on, known := f.blindingOn(); known && !on || f.observed(load.Blinding) {
		return true
	}
	if f.Attempt.Jump != nil || !f.wholeProgram() {
		return false
	}
	v, ok := f.blindingVerdict()
	return ok && fitsSurely(v)
}

// fitsSurely reports a program whose jumps would still fit after anything that
// the verifier is known to add.
func fitsSurely(v blinding.Verdict) bool { return v.Fits && v.Margin > verifierGrowth(v.Before) }

// verifierGrowth is how many slots the verifier is known to add to a program,
// measured at up to 10 for 100 slots, with a floor for small ones.
func verifierGrowth(slots int) int { return max(500, slots/5) }

func (f *Facts) contradictsBlinding() bool {
	r, ok := f.Attempt.Stage(load.Blinding)
	return ok && r.Result == load.OK
}

// blindingVerdict is what the model says of the submitted program. Several rules
// ask, and large programs take a while.
func (f *Facts) blindingVerdict() (blinding.Verdict, bool) {
	if f.blinding == nil {
		k := blinding.Kernel{}
		if f.kernelKnown {
			k = blinding.ForVersion(f.kernel.Major, f.kernel.Minor).On(f.Node.Machine)
		}
		v, err := blinding.Check(f.ev.Insns, k)
		f.blinding = &blindingVerdict{v, err == nil}
	}
	return f.blinding.Verdict, f.blinding.ok
}

type blindingVerdict struct {
	blinding.Verdict
	ok bool
}

func (f *Facts) describeBlinding(m *Match) {
	h, hardenKnown := f.harden()
	if hardenKnown {
		m.Evidence = append(m.Evidence, fmt.Sprintf("net.core.bpf_jit_harden was %d%s", h, hardenMeaning(h)))
	} else if why := f.Node.Unknown["net.core.bpf_jit_harden"]; why != "" {
		m.Evidence = append(m.Evidence, fmt.Sprintf("net.core.bpf_jit_harden is not known: %s", printable(why, 200)))
	}
	if on, always := f.Node.JITAlwaysOn(); always && on {
		m.Evidence = append(m.Evidence, "the kernel has no interpreter (CONFIG_BPF_JIT_ALWAYS_ON=y)")
	}
	j := f.Attempt.Jump
	if j != nil {
		m.Evidence = append(m.Evidence, f.jumpEvidence(j)...)
		if m.Cause == "" {
			m.Cause = fmt.Sprintf("Blinding its constants made the program grow%s until the jump from instruction %d to %d would need an offset of %d; a jump holds at most %d.",
				growth(j), j.From, j.To, j.Need, j.Limit)
		}
	} else if m.Cause == "" {
		m.Cause = "Blinding its constants made the program grow until a jump no longer fitted its 16-bit offset."
	}
	if f.unjited() {
		m.Cause += " The kernel fell back to its interpreter and said nothing."
	} else if m.Strength >= Likely {
		m.Cause += " The program itself is in order: the verifier accepted it."
	}
	if hardenKnown && h < 2 || f.lacks(capBPF) {
		m.Without = append(m.Without, "harden-1")
	}
	if f.usesGotol() {
		m.Without = append(m.Without, "mcpu-v4")
	}
}

func (f *Facts) usesGotol() bool {
	for _, in := range f.ev.Insns {
		if in.IsGoto() && !in.IsJump16() {
			return true
		}
	}
	return false
}

func hardenMeaning(h int) string {
	switch h {
	case 1:
		return ": loaders without CAP_BPF are blinded"
	case 2:
		return ": every loader is blinded"
	}
	return ""
}

func growth(j *load.Jump) string {
	if j.Before > 0 && j.After > j.Before {
		return fmt.Sprintf(" from %d to %d slots", j.Before, j.After)
	}
	return ""
}

func (f *Facts) jumpEvidence(j *load.Jump) []string {
	s := fmt.Sprintf("the jump at instruction %d", j.From)
	if j.Insn != "" {
		s += fmt.Sprintf(" (%s)", printable(j.Insn, 80))
	}
	s += fmt.Sprintf(" to instruction %d needs an offset of %d after blinding, the limit is %d", j.To, j.Need, j.Limit)
	if j.Approximate {
		s += " (indexes may be off by a few slots)"
	}
	out := []string{s}
	if j.FromSource != "" {
		s = "it comes from " + printable(j.FromSource, 160)
		if j.FromText != "" {
			s += fmt.Sprintf(" %q", printable(strings.TrimSpace(j.FromText), 120))
		}
		if j.ToSource != "" {
			s += " and goes to " + printable(j.ToSource, 160)
			if j.ToText != "" {
				s += fmt.Sprintf(" %q", printable(strings.TrimSpace(j.ToText), 120))
			}
		}
		out = append(out, s)
	}
	return out
}
