// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

const blindText = `When net.core.bpf_jit_harden is on, the kernel blinds constants before it compiles a program. An instruction with an immediate
value becomes three instructions, which compute the value from a random number. So nobody can use constants to plant machine code in
kernel memory. The program grows, and its jumps get longer. A conditional jump and a plain goto have a 16-bit offset, from -32768 to
32767. When a jump no longer reaches its target, the kernel gives up. The verifier accepted the program before that, so its log is clean.`

// jitOnlyText stands in front of each rule whose program may run in the interpreter.
const jitOnlyText = `An interpreted program may crash the machine when it runs. From 6.9 on, the kernel puts instructions into some
programs that only compiled code can run (lookups in per-CPU maps, arenas, bpf_get_smp_processor_id and others, may_goto). The
interpreter does not know them. If bpfwhy sees such a program, it shows DANGER first. Kernels with f1c27922576e (7.3, and 7.2.13)
refuse most of these programs instead.

`

func blindingRules() []Rule {
	return []Rule{blind001(), blind002(), blind003(), blind004()}
}

// Remedies that only some loaders or kernels can use.
const (
	loaderInGo = "loader"
	hardenTo1  = "harden-1"
)

func blindingRemedies() []load.Remedy {
	return []load.Remedy{
		{
			ID:      "islands",
			Title:   "Split the long jump with a goto placed in between (a jump island). A plain goto is not blinded and does not grow",
			Price:   "A step after the compiler, such as bpfwhy fix, has to place the gotos. A typical program gets about two more instructions. Hardening stays on. Works on every kernel.",
			Command: "bpfwhy fix prog.o -o prog.fixed.o",
		},
		{
			ID:    loaderInGo,
			Title: "In a loader in Go with cilium/ebpf: load with package loader of bpfwhy, which places the gotos as it loads",
			Price: "A change of one call in the loader's source. Such a program takes more than one load at the start. Hardening stays on; the object stays unchanged.",
			Command: "go get github.com/bpfwhy/bpfwhy/loader\n" +
				"coll, err := loader.NewCollection(spec) // instead of ebpf.NewCollection",
		},
		{
			ID:      "run-repair",
			Title:   "Run the loader under bpfwhy, whatever language it is written in. bpfwhy loads such programs for it, with jump islands",
			Price:   "A process beside the loader, with CAP_SYS_ADMIN, CAP_SYS_PTRACE and the loader's capabilities. A small load takes some microseconds longer. Hardening stays on; loader and program stay unchanged.",
			Command: "bpfwhy run --repair -- LOADER",
		},
		{
			ID:      "mcpu-v4",
			Title:   "Build with -mcpu=v4, which has gotol, a goto with a 32-bit offset",
			Price:   "Needs a kernel that knows these instructions (6.6, or a backport). It may not help: clang does not always use gotol. Check the result with bpfwhy check.",
			Command: "clang -O2 -g -target bpf -mcpu=v4 -c prog.c -o prog.o",
		},
		{
			ID:    "split",
			Title: "Split the program: unroll loops less, move parts into __noinline functions, or use tail calls",
			Price: "A change of the source, and the time of a call at run time. Each function then has its own 32767 slots.",
		},
		harden1(node.Unknown),
	}
}

// BlindingRule names the rule for a program that blinding breaks, by what becomes of it: it fails
// to load, it is interpreted, or it is loaded with a jump to the wrong place.
func BlindingRule(outcome load.Outcome, functions int) string {
	switch {
	case outcome == load.Loaded:
		return "BLIND004"
	case outcome == load.LoadedNotJITed:
		return "BLIND003"
	case functions > 1:
		return "BLIND002"
	}
	return "BLIND001"
}

// BlindingRemedies are those for programs that blinding would break on a node, of which no load was
// watched. inGo says that one of their loaders is in Go, and spared that 1 would break none of
// them.
func BlindingRemedies(n *node.Profile, inGo, spared bool) []load.Remedy {
	out := blindingRemedies()
	for i, r := range out {
		if r.ID == hardenTo1 {
			out[i] = harden1(n.Does(node.HardenSparesCapBPF))
		}
	}
	return slices.DeleteFunc(out, func(r load.Remedy) bool {
		return r.ID == loaderInGo && !inGo || r.ID == hardenTo1 && !spared
	})
}

// harden1 is the advice to set net.core.bpf_jit_harden to 1, for a kernel that spares CAP_BPF then,
// or CAP_SYS_ADMIN alone, or of which neither is known.
func harden1(sparesCapBPF node.Answer) load.Remedy {
	blinded, helped := "without CAP_BPF", "with CAP_BPF"
	switch sparesCapBPF {
	case node.No:
		blinded, helped = "without CAP_SYS_ADMIN", "with CAP_SYS_ADMIN"
	case node.Unknown:
		blinded, helped = blinded+" (before 6.1: without CAP_SYS_ADMIN)", helped+" (before 6.1: with CAP_SYS_ADMIN)"
	}
	return load.Remedy{
		ID:      hardenTo1,
		Title:   "Set net.core.bpf_jit_harden to 1 in the node's own configuration: only loaders " + blinded + " are blinded then. Never 0. docs/hardening.md has the way for Bottlerocket, Talos, OpenShift and nodes that cannot be configured",
		Price:   "Loses blinding for the programs of privileged loaders, on the whole node. STIG, CIS and E8 scanners want 2 and will flag it. Helps only loaders " + helped + ".",
		Command: "echo 'net.core.bpf_jit_harden = 1' > /etc/sysctl.d/99-zz-bpf-jit-harden.conf && sysctl --system",
	}
}

func blind001() Rule {
	return Rule{
		ID:    "BLIND001",
		Title: "Constant blinding made a jump too long",
		Class: "R9",
		Stage: load.Blinding,
		Text: blindText + `

The program is one function. The kernel has no interpreter (CONFIG_BPF_JIT_ALWAYS_ON), or does not fall back to it. So
the load fails with ENOTSUPP, 524. The same program loads if bpf_jit_harden is 0. It also loads if bpf_jit_harden is 1 and the loader has CAP_BPF
(before 6.1: CAP_SYS_ADMIN).`,
		Kernels:  "All with CONFIG_BPF_JIT_ALWAYS_ON; Debian's 6.1 does the same without it. Elsewhere the program is loaded, but not compiled: BLIND003.",
		Remedies: blindingRemedies(),
		Match:    func(f *Facts) *Match { return matchBlinding(f, load.Failed, false) },
	}
}

func blind002() Rule {
	return Rule{
		ID:    "BLIND002",
		Title: "Constant blinding made a jump too long in a program with functions of its own",
		Class: "R9",
		Stage: load.Blinding,
		Text: blindText + `

The program has bpf-to-bpf calls. Such programs are compiled function by function while bpf_check still runs. So the error seems
to come from the verifier, but the verifier had accepted the program before. Up to 6.18 each function is blinded on its own.
From 7.1 on the whole program is blinded at once. In both cases jumps stay within their function.`,
		Kernels:  "With CONFIG_BPF_JIT_ALWAYS_ON bpf_check returns the error. Elsewhere the program is loaded, but not compiled: BLIND003.",
		Remedies: blindingRemedies(),
		Match:    func(f *Facts) *Match { return matchBlinding(f, load.Failed, true) },
	}
}

func blind003() Rule {
	return Rule{
		ID:    "BLIND003",
		Title: "Loaded but interpreted (not JITed): constant blinding made a jump too long",
		Class: "R9",
		Stage: load.Blinding,
		Text: jitOnlyText + blindText + `

This kernel has an interpreter, and falls back to it silently: bpf(2) returns a file descriptor. Programs without such instructions work, but
many times slower than compiled code. And hardening is meant to avoid the interpreter. bpftool prog shows no jited size.`,
		Kernels:  "Kernels without CONFIG_BPF_JIT_ALWAYS_ON. Seen on 5.10, 6.12 and 7.2, and on 6.1 for programs with bpf-to-bpf calls.",
		Remedies: blindingRemedies(),
		Match: func(f *Facts) *Match {
			return matchBlinding(f, load.LoadedNotJITed, f.hasCalls())
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

func blind004() Rule {
	return Rule{
		ID:    "BLIND004",
		Title: "Constant blinding would make a jump go to the wrong place",
		Class: "R9",
		Stage: load.Blinding,
		Text: blindText + `

Kernels without ad139384ecdd (7.3, and 7.2.10) check the offset of a backward jump too early, before they count
the last instructions that blinding adds. If these take the offset just below -32768, it wraps in its 16 bits and becomes a jump
far forward. The kernel does not notice. The program loads and is compiled, but does something else than the verifier checked. No error
and no log shows it. So this rule is always a prediction, by bpfwhy check, bpfwhy audit, or package loader. Package loader does not load
such a program unrepaired.`,
		Kernels:  "Seen on 5.10, 6.1, 6.12 and 6.18. From 7.3 on, and 7.2.10, the kernel checks the range and refuses: BLIND001, BLIND002.",
		Remedies: blindingRemedies(),
		// Nothing of it is to be seen in a load: see Text.
		Match: never,
	}
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
		if patch == nil && blind.Ret == -abi.ENOMEM && f.Attempt.Jump == nil {
			m.Strength = Likely
			m.Cause = "Constant blinding failed. No hook saw which instruction was refused, so it may also have run out of memory."
		}
	}
	f.describeBlinding(m)
	return m
}

// blindingInferred derives a blinding failure from the program, the sysctl and
// the errno, where no hook saw the blinding.
func (f *Facts) blindingInferred() *Match {
	on, known := f.blindingOn()
	if f.observed(load.Blinding) || known && !on || f.failedOtherwise() {
		return nil
	}
	m := &Match{How: load.Inferred}
	switch said := f.words.is(verifierlog.PatchRange); {
	case said && f.errno() == abi.ENOTSUPP:
		m.Strength, m.How = Strong, load.Observed
		m.Evidence = append(m.Evidence, "the verifier's log says: "+f.words.message)
	case f.Attempt.Jump != nil:
		m.Strength = f.gradeJump(known)
	case said:
		m.Strength = Likely
	case !f.wholeProgram():
		m.Strength = Possible
		m.Why = "the program's instructions were not captured, so it is not known whether its jumps would fit"
	default:
		// The verifier's rewriting before the blinding adds to the growth: a
		// program that just fits may still fail.
		v, ok := f.blindingVerdict()
		if !ok || fitsSurely(v) {
			return nil
		}
		m.Strength = Possible
		m.Why = fmt.Sprintf("by the model the tightest jump has only %d slots left, and the verifier may have added more instructions than that", v.Margin)
	}
	f.describeBlinding(m)
	return m
}

// failedOtherwise reports a load whose errno or log is not that of a blinding that failed.
func (f *Facts) failedOtherwise() bool {
	if !f.failed() || f.fellBack() {
		return false
	}
	if f.errno() != abi.ENOTSUPP && !(f.errno() == abi.ENOMEM && f.hasCalls() && f.does(node.BlindsWholeProgram)) {
		return true
	}
	// From 7.1 the log names the instruction whose replacement was refused. Otherwise the verifier
	// had something else to say.
	return !f.words.empty() && !f.words.is(verifierlog.PatchRange)
}

// gradeJump says how much a jump that the model finds too long speaks for it. known says that the
// blinding is known to be on.
func (f *Facts) gradeJump(known bool) Strength {
	if !known || f.contradictsBlinding() || f.Attempt.Jump.Approximate {
		return Likely
	}
	if f.ev.InsnsState != load.InsnsVerified && !f.wholeProgram() {
		return Likely
	}
	return Strong
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
		v, err := blinding.Check(f.ev.Insns, f.Node.Blinds())
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
		m.Evidence = append(m.Evidence, fmt.Sprintf("net.core.bpf_jit_harden was %d%s", h, f.hardenMeaning(h)))
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
			m.Cause = fmt.Sprintf("Constant blinding made the program grow%s. The jump from instruction %d to %d would then need an offset of %d, and the limit is %d.",
				growth(j), j.From, j.To, j.Need, j.Limit)
		}
	} else if m.Cause == "" {
		m.Cause = "Constant blinding made the program grow until a jump no longer fitted its 16-bit offset."
	}
	if f.unjited() {
		m.Cause += " The kernel silently fell back to its interpreter."
	} else if m.Strength >= Likely {
		m.Cause += " The program itself is fine: the verifier accepted it."
	}
	m.Instead = append(m.Instead, harden1(f.Node.Does(node.HardenSparesCapBPF)))
	if hardenKnown && h < 2 || f.spared() == node.No {
		m.Without = append(m.Without, hardenTo1)
	}
	m.Without = append(m.Without, f.otherLoaders()...)
}

// otherLoaders are the remedies that are for loaders or programs of another kind than this.
func (f *Facts) otherLoaders() (ids []string) {
	if f.text == nil && f.Attempt.Process.Runtime != load.RuntimeGo {
		ids = append(ids, loaderInGo)
	}
	if f.usesGotol() {
		ids = append(ids, "mcpu-v4")
	}
	return ids
}

func (f *Facts) usesGotol() bool {
	for _, in := range f.ev.Insns {
		if in.IsGoto() && !in.IsJump16() {
			return true
		}
	}
	return false
}

func (f *Facts) hardenMeaning(h int) string {
	switch h {
	case 1:
		switch f.Node.Does(node.HardenSparesCapBPF) {
		case node.No:
			return ": loaders without CAP_SYS_ADMIN are blinded (before 6.1 CAP_BPF does not spare them)"
		case node.Unknown:
			return ": loaders without CAP_BPF are blinded, before 6.1 all without CAP_SYS_ADMIN"
		}
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
