// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/repair/ladder"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Bounds of what is loaded again.
const (
	maxBTF  = 16 << 20
	maxCost = time.Minute
)

// verdict is an error that ends a replay.
type verdict struct {
	verdict load.ReplayVerdict
	why     string
}

func (v *verdict) Error() string { return v.why }

func refuse(format string, args ...any) error {
	return &verdict{load.ReplayRefused, fmt.Sprintf(format, args...)}
}

func discard(format string, args ...any) error {
	return &verdict{load.ReplayDiscarded, fmt.Sprintf(format, args...)}
}

// plan is all that it takes to load a captured program again. Nothing in it is a pointer or a
// descriptor of the recorded process.
type plan struct {
	setup setup
	trial trial
	prog  []insn.Instruction
	// sameKernel: type ids of the kernel's BTF mean here what they meant there.
	sameKernel bool
	notes      []string
}

func (p *plan) note(format string, args ...any) {
	p.notes = append(p.notes, fmt.Sprintf(format, args...))
}

// prepare turns an attempt into a plan. Everything in the attempt may be a lie: what it cannot
// vouch for, it refuses. The error is a *verdict.
func prepare(a *load.Attempt, recorded, here *node.Profile, maps *Maps) (*plan, error) {
	e := &a.Evidence
	if a.Kind != load.ProgLoad {
		return nil, refuse("only program loads are made again, not %s", a.Kind)
	}
	if len(e.Attr) == 0 {
		return nil, refuse("the arguments of the call were not recorded")
	}
	switch {
	case e.InsnsState == load.InsnsNone || len(e.Insns) == 0:
		return nil, refuse("its instructions were not recorded")
	case e.InsnsState == load.InsnsTruncated:
		return nil, refuse("%d of its %d instructions were recorded", len(e.Insns), abi.Read[abi.ProgLoad](e.Attr).InsnCnt)
	case len(e.Insns) > ladder.Most:
		return nil, refuse("%d instructions are more than the verifier takes", len(e.Insns))
	case !e.CapsKnown:
		return nil, refuse("the loader's capabilities were not recorded, and ours must not stand in for them")
	}
	p := &plan{prog: e.Insns, sameKernel: sameKernel(recorded, here)}
	if e.InsnsState == load.InsnsUnverified && a.FailedStage != load.Permission && a.FailedStage != load.Resources {
		p.note("the kernel's tag was not recorded: nothing vouches for the copy of the instructions")
	}
	if err := p.attr(e); err != nil {
		return nil, err
	}
	if err := p.kernelObjects(recorded); err != nil {
		return nil, err
	}
	if err := p.maps(a, maps); err != nil {
		return nil, err
	}
	if err := p.credentials(a, recorded); err != nil {
		return nil, err
	}
	return p, p.affordable(p.prog, here.Blinds())
}

// attr takes over what is plain data, and refuses what refers to objects that are gone.
func (p *plan) attr(e *load.Evidence) error {
	asked := abi.Read[abi.ProgLoad](e.Attr)
	switch {
	case len(bytes.Trim(abi.Tail[abi.ProgLoad](e.Attr), "\x00")) != 0:
		return refuse("the call has arguments that this version does not know")
	case asked.ProgIfindex != 0:
		return refuse("it was meant for a network device (prog_ifindex %d)", asked.ProgIfindex)
	case asked.ProgFlags&abi.ProgFlagTokenFD != 0 || asked.ProgTokenFD != 0:
		return refuse("it was loaded with a BPF token, which cannot be had again")
	case asked.Signature != 0 || asked.SignatureSize != 0 || asked.KeyringID != 0:
		return refuse("it is signed")
	case asked.CoreReloCnt != 0:
		return refuse("its CO-RE relocations are for the kernel to do, and they were not recorded")
	case asked.ProgType == abi.ProgTypeExt, asked.AttachFD != 0:
		return refuse("it belongs to another program, or to a module's BTF, which cannot be had again")
	}
	p.trial = trial{License: e.License, Attr: abi.Bytes(&abi.ProgLoad{
		ProgType: asked.ProgType, InsnCnt: asked.InsnCnt, KernVersion: asked.KernVersion, ProgFlags: asked.ProgFlags,
		ProgName: asked.ProgName, ExpectedAttachType: asked.ExpectedAttachType, AttachBTFID: asked.AttachBTFID,
	})}
	if e.License == nil {
		p.note("its licence was not recorded; it was loaded with none")
	}
	p.info(e)
	return nil
}

// info takes BTF, func_info and line_info where they are whole: together, or not at all.
func (p *plan) info(e *load.Evidence) {
	asked := abi.Read[abi.ProgLoad](e.Attr)
	if asked.ProgBTFFD == 0 {
		return
	}
	fit := func(b []byte, size, cnt uint32) bool { return uint64(len(b)) == uint64(size)*uint64(cnt) }
	if len(e.BTF) == 0 || len(e.BTF) > maxBTF || !fit(e.FuncInfo, asked.FuncInfoRecSize, asked.FuncInfoCnt) || !fit(e.LineInfo, asked.LineInfoRecSize, asked.LineInfoCnt) {
		p.note("without its BTF, which was not recorded whole")
		return
	}
	p.setup.BTF = e.BTF
	p.trial.BTF = true
	p.trial.FuncInfo, p.trial.LineInfo = e.FuncInfo, e.LineInfo
	p.trial.FuncRec, p.trial.LineRec = asked.FuncInfoRecSize, asked.LineInfoRecSize
}

// kernelObjects looks for what names a type or function of the kernel by its BTF id. The same build
// has the same ids; any other gives them to something else.
func (p *plan) kernelObjects(recorded *node.Profile) error {
	var what string
	if abi.Read[abi.ProgLoad](p.trial.Attr).AttachBTFID != 0 {
		what = "its attach target"
	}
	for i, in := range p.prog {
		switch {
		case in.IsKfuncCall() && in.Off != 0:
			return refuse("instruction %d calls a function of a kernel module, whose BTF cannot be had again", i)
		case in.IsKfuncCall():
			what = "a kernel function that it calls"
		case insn.IsSecondHalf(p.prog, i) || !in.IsWide():
		case in.Src == insn.PseudoBTFID && i+1 < len(p.prog) && p.prog[i+1].Imm != 0:
			return refuse("instruction %d refers to a variable of a kernel module, whose BTF cannot be had again", i)
		case in.Src == insn.PseudoBTFID:
			what = "a kernel variable that it refers to"
		case in.Src > insn.PseudoMapIdxValue:
			return refuse("instruction %d is a 64-bit load of a kind that this version does not know (%d)", i, in.Src)
		}
	}
	if what != "" && !p.sameKernel {
		return refuse("%s is recorded by its number in the BTF of %s, which means something else in this kernel", what, cmp.Or(recorded.Release, "an unknown kernel"))
	}
	return nil
}

func sameKernel(a, b *node.Profile) bool {
	return a.Release != "" && a.Version != "" && a.Release == b.Release && a.Version == b.Version && a.Machine == b.Machine
}

// credentials are the loader's rights and limits.
func (p *plan) credentials(a *load.Attempt, recorded *node.Profile) error {
	e := &a.Evidence
	if a.Process.UID < 0 || a.Process.GID < 0 {
		return refuse("the loader's user was not recorded")
	}
	p.setup.UID, p.setup.GID, p.setup.Caps = a.Process.UID, a.Process.GID, e.Caps
	if e.UserNSLevel > 0 {
		p.setup.Caps = 0
		p.note("the loader ran in a user namespace, where its capabilities did not count: it was loaded with none")
	}
	p.setup.Memlock = ^uint64(0)
	// Later kernels do not look at the limit, and a trace of one says nothing about what an older
	// one needs.
	if recorded.Does(node.ChargesNoMemlock) == node.No && e.LimitsKnown {
		p.setup.Memlock = e.MemlockLimit
	}
	return nil
}

// affordable refuses what would keep the kernel busy for too long: neither blinding nor the
// verifier's own rewriting can be interrupted, and both take time with the square of the program.
func (p *plan) affordable(prog []insn.Instruction, k blinding.Kernel) error {
	v, err := blinding.Check(prog, k)
	if err != nil {
		return nil // the verifier, which sees that a jump leaves its function, does not get that far
	}
	if v.Wraps && !k.RangeCheck {
		return refuse("the jump at instruction %d would wrap around under blinding: this kernel would compile a program that does something else", v.Jump.From)
	}
	if t := v.Time() + p.rewriting(prog); t > maxCost {
		return refuse("it could keep the kernel busy for %s without a way to stop it", t.Round(time.Second))
	}
	return nil
}

// rewriting is the most time that the verifier may take to put other instructions in the place of
// those that it may have to: accesses through pointers other than the stack's, divisions, calls;
// and any, for a loader whose programs it fences, or with a flag that tests this. Each moves what
// follows, and walks over all jumps and over what is known of each instruction, about 10 ns a slot.
func (p *plan) rewriting(prog []insn.Instruction) time.Duration {
	const perSlot = 10
	n := 0
	for _, in := range prog {
		if mayBeReplaced(in) {
			n++
		}
	}
	fenced := p.setup.Caps&abi.CapSet(abi.CapPerfmon, abi.CapSysAdmin) == 0
	if fenced || abi.Read[abi.ProgLoad](p.trial.Attr).ProgFlags&abi.ProgFlagTestRndHi32 != 0 {
		n = len(prog)
	}
	return time.Duration(n) * time.Duration(len(prog)) * perSlot
}

// mayBeReplaced reports whether the verifier may put other instructions in the place of one.
func mayBeReplaced(in insn.Instruction) bool {
	switch in.Class() {
	case insn.ClassLDX:
		return in.Src != insn.RegFP
	case insn.ClassST, insn.ClassSTX:
		return in.Dst != insn.RegFP
	case insn.ClassLD:
		return in.Mode() == insn.ModeABS || in.Mode() == insn.ModeIND
	}
	return in.IsALU() && (in.Op() == insn.OpDIV || in.Op() == insn.OpMOD) || in.Code == insn.OpcodeCall || in.IsMayGoto()
}

// moved gives func_info or line_info the slots that instructions have after a rewrite.
func moved(info []byte, rec uint32, to []int) []byte {
	if rec < 4 {
		return info
	}
	out := bytes.Clone(info)
	for at := 0; at+int(rec) <= len(out); at += int(rec) {
		if i := binary.LittleEndian.Uint32(out[at:]); int64(i) < int64(len(to)) {
			binary.LittleEndian.PutUint32(out[at:], uint32(to[i]))
		}
	}
	return out
}
