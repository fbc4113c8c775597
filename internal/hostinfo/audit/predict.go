// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/objects/jitonly"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Outcome is how a load ends.
type Outcome string

// FailsOrNotJITed: some builds of kernels from 5.15 to 6.17 refuse to fall back to the interpreter
// that they have, and nothing tells before it happens. Miscompiled: the program is loaded and jumps
// to the wrong place.
const (
	JITed           Outcome = "jited"
	NotJITed        Outcome = "not_jited"
	Fails           Outcome = "fails"
	FailsOrNotJITed Outcome = "fails_or_not_jited"
	Miscompiled     Outcome = "miscompiled"
	Unknown         Outcome = "unknown"
)

// Fate is what would become of a program if it were loaded again at a value of
// net.core.bpf_jit_harden.
type Fate struct {
	Outcome Outcome `json:"outcome"`
	// Rule is what 'bpfwhy explain' tells about it, if blinding breaks the program.
	Rule string `json:"rule,omitempty"`
	// Blinded says whether its constants would be blinded; nil when that depends on rights that are
	// not known.
	Blinded *bool `json:"blinded,omitempty"`
	// Margin is how many slots the tightest jump leaves to its limit after blinding, negative
	// beyond; nil when it is not blinded or could not be judged. A program without jumps has the
	// whole range, 32767.
	Margin *int `json:"margin,omitempty"`
	After  int  `json:"insns_after,omitempty"` // slots after blinding
	// Time is what blinding adds to the load, roughly; it grows with the square of the program.
	Time time.Duration `json:"blinding_ns,omitempty"`
	Jump *Jump         `json:"jump,omitempty"` // the one that breaks it
	Why  string        `json:"why,omitempty"`
	// Danger says what it may do to the machine if it is interpreted then. Empty as a rule.
	Danger string `json:"danger,omitempty"`
}

// Jump is a jump that does not survive; From and To are slots of the program as the verifier left
// it.
type Jump struct {
	From  int `json:"from"`
	To    int `json:"to"`
	Need  int `json:"need"`
	Limit int `json:"limit"`
}

// Breaks reports that blinding is what spoils it. A program that is interpreted for another reason,
// because nothing is compiled for example, is none of its victims.
func (f Fate) Breaks() bool {
	switch f.Outcome {
	case Fails, FailsOrNotJITed, Miscompiled:
		return true
	}
	return f.Outcome == NotJITed && f.Jump != nil
}

// kernel is what decides the fate of a program besides its code.
type kernel struct {
	node     *node.Profile
	blinding blinding.Kernel
	jitOff   bool  // net.core.bpf_jit_enable is 0
	alwaysOn *bool // nil: not known
	// privilegedOnly: nobody without CAP_BPF may load anything.
	privilegedOnly bool
}

// rule names what is known of a program that blinding breaks so.
func (f Fate) rule(functions int) string {
	switch {
	case !f.Breaks():
		return ""
	case f.Outcome == Miscompiled:
		return explain.BlindingRule(load.Loaded, functions)
	case f.Outcome == NotJITed:
		return explain.BlindingRule(load.LoadedNotJITed, functions)
	}
	return explain.BlindingRule(load.Failed, functions)
}

func newKernel(p *node.Profile) kernel {
	k := kernel{node: p, blinding: p.Blinds()}
	if on, known := p.JITAlwaysOn(); known {
		k.alwaysOn = &on
	}
	if v, ok := p.Sysctl("net.core.bpf_jit_enable"); ok && v == 0 {
		k.jitOff = true
	}
	if v, ok := p.Sysctl("kernel.unprivileged_bpf_disabled"); ok && v != 0 {
		k.privilegedOnly = true
	}
	return k
}

// refuses says whether it keeps what only compiled code can run from its interpreter.
func (k kernel) refuses() node.Answer { return k.node.Does(node.RefusesJITOnly) }

// code is a program as the kernel shows it.
type code struct {
	insns     []insn.Instruction // nil: refused
	functions []insn.Function
	number    int // of functions, as the kernel counts them
	jited     bool
	blinded   *bool
	visible   bool // insns are the blinded ones
	mapTypes  []uint32
}

// examine finds functions and blinding in a dump.
func examine(d *dump, machine string) code {
	c := code{insns: d.insns, number: int(max(d.NrJitedFuncLens, 1)), jited: d.JitedProgLen > 0}
	switch {
	case d.refused:
		c.blinded = new(true)
		return c
	case !c.jited:
		c.blinded = new(false) // the kernel undoes it when it falls back
	case hasBlinded(d.insns):
		c.blinded, c.visible = new(true), true
	case c.number > 1:
		// Up to 6.18 its functions were blinded as copies, and the whole is shown as it was before.
		if machine == "x86_64" && d.code != nil {
			c.blinded = new(hasBlindedCode(d.code))
		}
	case hasConstants(d.insns):
		c.blinded = new(false)
	}
	c.functions = split(d.insns, d.starts, c.number)
	return c
}

// hasConstants reports whether blinding would change anything.
func hasConstants(prog []insn.Instruction) bool {
	for i := range prog {
		if blinding.Width(prog, i, blinding.Kernel{}) > 1 {
			return true
		}
	}
	return false
}

// hasBlinded looks for what blinding leaves: a constant is moved into the scratch register and
// XORed with another one. No other pass of the kernel does that. The scratch register is 11, and 12
// on 7.2.
func hasBlinded(prog []insn.Instruction) bool {
	for i := 1; i < len(prog); i++ {
		a, b := prog[i-1], prog[i]
		if a.Dst >= insn.RegAX && a.Dst == b.Dst && a.IsALU() && b.IsALU() && a.IsImmediate() && b.IsImmediate() &&
			a.Op() == insn.OpMOV && b.Op() == insn.OpXOR && a.Class() == b.Class() {
			return true
		}
	}
	return false
}

// hasBlindedCode looks for the same in what the compiler of x86-64 makes of it: the scratch
// register is r10, and mov r10, imm32 is followed by xor r10, imm32, in 64 or 32 bits.
func hasBlindedCode(b []byte) bool {
	for _, p := range [][2][]byte{
		{{0x49, 0xc7, 0xc2}, {0x49, 0x81, 0xf2}}, // mov r10, simm32; xor r10, simm32
		{{0x41, 0xba}, {0x49, 0x81, 0xf2}},       // mov r10d, imm32; xor r10, simm32
		{{0x41, 0xba}, {0x41, 0x81, 0xf2}},       // mov r10d, imm32; xor r10d, imm32
	} {
		for rest := b; ; {
			i := bytes.Index(rest, p[0])
			if i < 0 {
				break
			}
			rest = rest[i+len(p[0]):]
			if len(rest) >= 4 && bytes.HasPrefix(rest[4:], p[1]) {
				return true
			}
		}
	}
	return false
}

// split finds the functions of a dump: from func_info, or else from the calls, whose distance the
// kernel keeps in the offset once it has compiled or prepared the program. When neither gives as
// many as the kernel has, the whole stands for one: jumps never leave their function, so that all
// but the place of a failure stays the same.
func split(prog []insn.Instruction, starts []int, number int) []insn.Function {
	if len(starts) != number {
		starts = []int{0}
		for i, in := range prog {
			t := i + 1 + int(in.Off)
			if in.IsFuncLoad() && i+1 < len(prog) {
				t = i + 1 + int(in.Imm)
			} else if !in.IsFuncCall() {
				continue
			}
			if t > 0 && t < len(prog) {
				starts = append(starts, t)
			}
		}
		slices.Sort(starts)
		starts = slices.Compact(starts)
	}
	whole := []insn.Function{{Start: 0, End: len(prog)}}
	if len(starts) != number || starts[0] != 0 || len(prog) == 0 {
		return whole
	}
	var out []insn.Function
	for i, s := range starts {
		end := len(prog)
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		if s >= end {
			return whole
		}
		out = append(out, insn.Function{Start: s, End: end})
	}
	return out
}

// harden2 is the fate of a program when every program is blinded.
//
//revive:disable-next-line:cyclomatic a case for each fate
func harden2(c code, k kernel) Fate {
	switch {
	case k.jitOff:
		return Fate{Outcome: NotJITed, Blinded: new(false), Why: "net.core.bpf_jit_enable is 0: nothing is compiled, so nothing is blinded"}
	case c.insns == nil && c.blinded != nil && *c.blinded:
		return Fate{Outcome: JITed, Blinded: new(true), Why: "it is blinded already. The kernel does not show the code of blinded programs here (kernel.kptr_restrict, CAP_SYSLOG), so its margin is not known"}
	case c.insns == nil:
		return Fate{Outcome: Unknown, Why: "the kernel does not show its code"}
	case c.visible:
		return Fate{Outcome: JITed, Blinded: new(true), Margin: new(margin(c.insns)), After: len(c.insns), Why: "it is blinded already"}
	}
	v, err := blinding.CheckFunctions(c.insns, c.functions, k.blinding)
	if err != nil {
		return Fate{Outcome: Unknown, Why: err.Error()}
	}
	f := Fate{Outcome: JITed, Blinded: new(true), Margin: &v.Margin, After: v.After, Time: v.Time()}
	if v.Fits {
		if !c.jited {
			f.Outcome, f.Blinded, f.Why = NotJITed, new(false), "it is not compiled now either, and not because of blinding: hardening changes nothing"
		}
		return f
	}
	f.Jump = &Jump{From: v.Jump.From, To: v.Jump.To, Need: v.Jump.Need, Limit: v.Jump.Limit}
	if v.Wraps {
		f.Outcome, f.Why = Miscompiled, "a backward jump wraps: the kernel silently compiles it, and it jumps to the wrong place"
		if k.node.Does(node.ChecksWrap) == node.Unknown {
			f.Why += ". Where the kernel has the check for that (ad139384ecdd), it does not compile it"
		}
		return f
	}
	f.Blinded = new(false)
	f.Outcome, f.Why = c.unblindable(k)
	if f.Outcome == NotJITed || f.Outcome == FailsOrNotJITed {
		f.Danger = c.danger(k)
		if f.Danger == "" && k.refuses() != node.Yes && c.callsHidden(k) {
			f.Why += "; " + unseenCalls
		}
	}
	return f
}

// unseenCalls is said of a program that may have what only compiled code can run.
const unseenCalls = "the kernel does not show which helpers it calls (kernel.kptr_restrict, CAP_SYSLOG), so it is not known whether only compiled code can run it"

// callsHidden reports a program of which it is not known whether only compiled code can run it.
func (c code) callsHidden(k kernel) bool {
	return jitonly.Kernel{Node: k.node}.WritesCallsOut() && jitonly.CallsHidden(c.insns)
}

// danger says what the program may do to the machine if it is interpreted.
func (c code) danger(k kernel) string {
	if k.alwaysOn != nil && *k.alwaysOn {
		return ""
	}
	return jitonly.Sentence(c.insns, c.jitOnly(k))
}

// jitOnly finds what only compiled code can run in the program, and the kernel does not refuse.
func (c code) jitOnly(k kernel) []jitonly.Finding {
	found := jitonly.Translated(c.insns, c.mapTypes, k.node.Machine)
	if k.refuses() == node.Yes {
		found = slices.DeleteFunc(found, func(f jitonly.Finding) bool { return f.Refused })
	}
	return found
}

// unblindable is what the kernel does with a program that cannot be blinded.
//
//revive:disable-next-line:cyclomatic a case for each kind of instruction
func (c code) unblindable(k kernel) (Outcome, string) {
	if k.alwaysOn != nil && *k.alwaysOn {
		return Fails, "there is no interpreter (CONFIG_BPF_JIT_ALWAYS_ON): 524"
	}
	for i, in := range c.insns {
		if insn.IsSecondHalf(c.insns, i) {
			continue
		}
		switch {
		case in.IsKfuncCall():
			return Fails, "programs that call kernel functions must be compiled"
		case c.number > 1 && in.IsFuncLoad():
			return Fails, "programs with callbacks must be compiled"
		case c.number > 1 && in.IsHelperCall() && in.Imm == helperTailCall && len(c.functions) > 1 && i >= c.functions[0].End:
			return Fails, "programs with tail calls in their functions must be compiled"
		}
	}
	internal := slices.ContainsFunc(jitonly.Translated(c.insns, c.mapTypes, k.node.Machine), func(f jitonly.Finding) bool { return f.Refused })
	refuses := k.refuses()
	const fallsBack = "the kernel falls back to its interpreter"
	switch {
	case k.alwaysOn == nil:
		return FailsOrNotJITed, "whether the kernel has an interpreter is not known"
	case internal && refuses == node.Yes:
		return Fails, "it has instructions that only compiled code can run (524)"
	case !internal && refuses == node.Yes && c.callsHidden(k):
		return FailsOrNotJITed, unseenCalls + "; if so the kernel refuses it (524)"
	case internal && refuses == node.Unknown:
		return FailsOrNotJITed, "it has instructions that only compiled code can run; not every kernel then refuses to fall back to its interpreter (524)"
	case c.number > 1, k.node.Does(node.FallbackInDoubt) == node.No, k.node.Does(node.AlwaysFallsBack) == node.Yes:
		return NotJITed, fallsBack
	}
	return FailsOrNotJITed, "the kernel has an interpreter, but some builds from 5.15 to 6.17 do not fall back to it (524)"
}

const helperTailCall = 12

// margin is what the jumps of blinded code leave to their limits as they stand.
func margin(prog []insn.Instruction) int {
	m := blinding.MaxOffset
	for _, in := range prog {
		if !in.IsJump16() {
			continue
		}
		if in.Off >= 0 {
			m = min(m, blinding.MaxOffset-int(in.Off))
		} else {
			m = min(m, int(in.Off)-blinding.MinOffset)
		}
	}
	return m
}

// rights is what is known of a program's loader.
type rights int

const (
	rightsUnknown rights = iota
	privileged           // it holds the capability that spares it at 1
	unprivileged
)

// harden1 is the fate of a program when those of some loaders are blinded: node.Profile.Spares.
// at2 is its fate at 2.
func harden1(c code, at2 Fate, loader rights, k kernel) Fate {
	if k.jitOff {
		return at2
	}
	now := NotJITed
	if c.jited {
		now = JITed
	}
	switch loader {
	case privileged:
		if at2.Outcome == NotJITed && at2.Jump != nil {
			now = JITed // if it was left to the interpreter, then because of blinding
		}
		return Fate{Outcome: now, Blinded: new(false), Why: "its loader needs the capability that spares it"}
	case unprivileged:
		f := at2
		if f.Outcome == JITed {
			f.Blinded = new(true)
		}
		return f
	}
	if at2.Outcome == now {
		return Fate{Outcome: now, Margin: at2.Margin, After: at2.After, Why: "it may be blinded or not, because the rights of its loader are not known; it survives both"}
	}
	return Fate{Outcome: Unknown, Margin: at2.Margin, Jump: at2.Jump,
		Why: fmt.Sprintf("it depends on the rights of its loader, which are not known: blinded, its fate is %q", at2.Outcome)}
}

// loaderRights says what a loader must have had. owners are the processes that hold the program;
// one of them may be the loader.
func loaderRights(progType uint32, uid uint32, owners []Owner, k kernel) rights {
	// These a loader without CAP_BPF may load where it may load any (bpf_prog_load).
	needsBPF := progType != abi.ProgTypeSocketFilter && progType != abi.ProgTypeCgroupSKB || k.privilegedOnly
	admin, bpf := false, false
	for _, o := range owners {
		admin = admin || o.sysAdmin
		bpf = bpf || o.capBPF || o.sysAdmin
	}
	spared := k.node.Spares(admin, bpf || needsBPF)
	switch {
	case spared == node.Yes, k.node.Does(node.SplitsCapabilities) == node.No && needsBPF: // CAP_SYS_ADMIN was the only one
		return privileged
	case spared == node.No && len(owners) > 0 && uid != 0 && k.node.Does(node.HardenSparesCapBPF) == node.Yes:
		return unprivileged
	}
	return rightsUnknown
}
