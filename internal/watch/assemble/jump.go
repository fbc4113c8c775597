// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// answer is yes, no, or not known.
type answer int

const (
	unknown answer = iota
	yes
	no
)

// drift is by how much the verifier's rewriting was measured to change a jump's need (up to +1491
// slots on 15,000 instructions). A prediction from submitted code that is closer to the limit
// decides nothing.
const drift = 1500

// blindingVerdict is what is known of constant blinding in one attempt.
type blindingVerdict struct {
	wanted    answer // were constants to be blinded
	requested *bool  // the kernel's own word for it
	observed  bool   // the pass was seen failing, or seen not to fail
	kernel    blinding.Kernel
	// submitted is the prediction from the submitted code, nil when that is not at hand.
	submitted *blinding.Verdict
}

// blinding judges an attempt that may have failed in the blinding pass. The prediction is only made
// for such.
//
//revive:disable-next-line:cyclomatic what speaks for and against, one by one
func (a *Assembler) blinding(at *load.Attempt, c *call, ch *chain) *blindingVerdict {
	bl := &blindingVerdict{wanted: a.wanted(at, c), kernel: a.header.Node.Blinds()}
	if p := c.rec.Prog; p != nil {
		// When the functions of a program cannot be compiled the kernel clears the request, too.
		if p.Asked != nil && (*p.Asked || p.JITed) {
			bl.requested = p.Asked
		}
		if p.Blinded {
			bl.wanted = yes
		}
	}
	if bl.requested != nil {
		bl.wanted = map[bool]answer{true: yes, false: no}[*bl.requested]
	}
	failed := ch.has(load.FnBlind) != nil || ch.has(load.FnPatch) != nil
	if failed && ch.has(load.FnPatch) != nil && ch.has(load.FnBlind) == nil && a.byVerifier(ch.parentOf(ch.has(load.FnPatch))) {
		failed = false
	}
	if failed {
		bl.wanted = yes
		requested := true
		bl.requested = &requested
	}
	bl.observed = failed || a.watched[load.FnBlind] && c.ran(load.FnLoad)
	if c.kind != load.ProgLoad || !failed && c.errno() != abi.ENOTSUPP && !c.unjited() {
		return bl
	}
	if s := at.Evidence.InsnsState; s == load.InsnsVerified || s == load.InsnsUnverified {
		if v, err := blinding.Check(at.Evidence.Insns, bl.kernel); err == nil {
			bl.submitted = &v
		}
	}
	return bl
}

// wanted says whether this loader's constants are blinded: bpf_jit_blinding_enabled.
func (a *Assembler) wanted(at *load.Attempt, c *call) answer {
	if c.kind != load.ProgLoad {
		return no
	}
	if v, ok := a.sysctl("net.core.bpf_jit_enable", c.rec.ID.Start); ok && v == "0" {
		return no
	}
	switch h := at.Evidence.Harden; {
	case h < 0:
		return unknown
	case h == 0:
		return no
	case h >= 2:
		return yes
	}
	// At 1 only loaders without rights are blinded.
	e := &at.Evidence
	if !e.CapsKnown {
		return unknown
	}
	initial := e.UserNSLevel <= 0
	switch a.header.Node.Spares(initial && e.Caps>>abi.CapSysAdmin&1 == 1, initial && e.Caps>>abi.CapBPF&1 == 1) {
	case node.Yes:
		return no
	case node.No:
		return yes
	}
	return unknown
}

// stage decides between blinding and JIT for a program that was not compiled, where no hook saw
// why. It returns "" when the evidence fits both.
func (bl *blindingVerdict) stage() load.Stage {
	v := bl.submitted
	switch {
	case bl.observed, bl.wanted == no:
		return load.JIT
	case v == nil:
		return ""
	case bl.wanted == yes && !v.Fits:
		return load.Blinding
	case v.Fits && v.Margin > drift:
		return load.JIT
	}
	return ""
}

// jump names the jump that blinding breaks, in slots of the submitted program, nil when that is not
// known.
func (bl *blindingVerdict) jump(at *load.Attempt, c *call, ch *chain) *load.Jump {
	if bl.wanted != yes {
		return nil
	}
	e := &at.Evidence
	if j := bl.translatedJump(e, c, ch); j != nil {
		return j.describe(e)
	}
	if v := bl.submitted; v != nil && !v.Fits {
		j := &foundJump{load.Jump{From: v.Jump.From, To: v.Jump.To, Need: v.Jump.Need, Limit: v.Jump.Limit, Before: v.Before, After: v.After}}
		if !bl.kernel.WholeProgram {
			j.Before, j.After = growth(e.Insns, v.Function, bl.kernel)
		}
		return j.describe(e)
	}
	return nil
}

type foundJump struct{ load.Jump }

func (j *foundJump) describe(e *load.Evidence) *load.Jump {
	j.FromSource, j.FromText = place(e, j.From)
	j.ToSource, j.ToText = place(e, j.To)
	j.Insn = insn.Disassemble(e.Insns, j.From)
	return &j.Jump
}

// growth counts the slots of a function before and after blinding.
func growth(prog []insn.Instruction, f insn.Function, k blinding.Kernel) (before, after int) {
	for i := f.Start; i < f.End; i++ {
		after += blinding.Width(prog, i, k)
	}
	return f.Len(), after
}

// translatedJump finds the jump in the code that the kernel was blinding, and carries it back to
// the submitted program.
func (bl *blindingVerdict) translatedJump(e *load.Evidence, c *call, ch *chain) *foundJump {
	unit := e.Translated
	if len(unit) == 0 {
		return nil
	}
	// Jumps stay inside functions, so that all of a program can be taken for one. Where its
	// functions start can no longer be seen: the kernel rewrites the calls before this.
	v, err := blinding.CheckFunctions(unit, []insn.Function{{Start: 0, End: len(unit)}}, bl.kernel)
	if err != nil || v.Fits {
		return nil
	}
	j := &foundJump{load.Jump{Need: v.Jump.Need, Limit: v.Jump.Limit, Before: v.Before, After: v.After}}
	if p := ch.has(load.FnPatch); p != nil && v.FailOff >= 0 && p.Arg != int64(v.FailOff) {
		j.Approximate = true // another slot than the one that the kernel stumbled over
	}
	from, to, exact := carryBack(e.Insns, bl.candidates(e.Insns, c), unit, v.Jump)
	if from < 0 || to < 0 {
		return nil
	}
	j.From, j.To = from, to
	j.Approximate = j.Approximate || !exact
	return j
}

// candidates are the functions of the submitted program that the unit can be, the likeliest first.
// The kernel calls the pass for one function after the other, in their order, and stops at the one
// that fails; it has removed dead ones before.
func (bl *blindingVerdict) candidates(prog []insn.Instruction, c *call) []insn.Function {
	functions := insn.Functions(prog)
	if len(functions) < 2 || bl.kernel.WholeProgram {
		return []insn.Function{{Start: 0, End: len(prog)}}
	}
	n := 0
	if s := c.sum(load.FnBlind); s != nil {
		n = min(max(int(s.Calls)-1, 0), len(functions)-1)
	}
	list := []insn.Function{functions[n]}
	for d := 1; d < len(functions) && len(list) < 16; d++ {
		if n+d < len(functions) {
			list = append(list, functions[n+d])
		}
		if n >= d {
			list = append(list, functions[n-d])
		}
	}
	return list
}

// carryBack finds the place of a jump in the submitted program, in the first candidate where it is
// certain, else in the likeliest one. The places are negative when there is none.
func carryBack(prog []insn.Instruction, candidates []insn.Function, unit []insn.Instruction, j blinding.Jump) (from, to int, exact bool) {
	from, to = -1, -1
	for i, f := range candidates {
		m := blinding.NewMapping(prog[f.Start:f.End], unit)
		jf, exactFrom := m.Submitted(j.From)
		jt, exactTo := m.Submitted(j.To)
		if jf < 0 || jt < 0 {
			continue
		}
		jf, jt = jf+f.Start, jt+f.Start
		if t, ok := prog[jf].Target(jf); ok && exactFrom && f.Contains(t) {
			jt, exactTo = t, true // the jump itself says so
		}
		if exactFrom && exactTo {
			return jf, jt, true
		}
		if i == 0 {
			from, to = jf, jt
		}
	}
	return from, to, false
}
