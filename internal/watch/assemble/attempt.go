// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/watch/enrich"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// attempt makes the attempt of a group that is final.
//
//revive:disable-next-line:cyclomatic one field of the attempt after the other
func (a *Assembler) attempt(f *retryGroup) *load.Attempt {
	c := f.last
	at := &load.Attempt{
		Schema:     load.Schema,
		Kind:       c.kind,
		Time:       a.time(f.start),
		DurationNS: since(f.start, c.rec.End),
		Process:    process(c.rec),
		Outcome:    load.Loaded,
		Errno:      c.errno(),
		ErrnoName:  errnoName(c.errno()),
		Retries:    len(f.calls) - 1,
		Backend:    a.header.Backend,
	}
	switch {
	case c.rec.Ret < 0:
		at.Outcome = load.Failed
	case c.unjited():
		at.Outcome = load.LoadedNotJITed
	}
	switch c.kind {
	case load.ProgLoad:
		at.Program = program(c)
		// Where there is no interpreter, what was loaded was compiled. Offloaded programs are
		// compiled elsewhere.
		if on, known := a.header.Node.JITAlwaysOn(); on && known && c.rec.Ret >= 0 && at.Program.JITed == nil && c.attr.prog().ProgIfindex == 0 {
			at.Program.JITed = &on
		}
	case load.MapCreate:
		at.Map = c.attr.mapSpec()
	case load.MapUpdate:
		at.Map = c.attachedMap()
	case load.Seccomp, load.SocketFilter:
		at.Program = &load.Program{Type: string(c.kind)}
		if r := c.ranges[trace.Filter]; r != nil {
			at.Program.Insns = int(min(r.total/8, math.MaxInt32))
		}
	}
	if putsInPlace(c.kind) {
		at.Attach, at.KernelLog = c.attachment(), c.kernelLog()
	}
	if f.trust == unreached && a.lossy(f) {
		f.trust = unproven // the verifier's call may be among what was lost
	}
	why := a.evidence(at, f)
	ch := a.causes(c)
	at.Evidence.Spans = ch.spans
	bl := a.blinding(at, c, ch)
	end := a.conclude(f, ch, bl)
	at.FailedStage = end.stage
	at.Stages = a.stages(f, end, bl)
	at.Evidence.BlindingAsked = bl.requested
	if end.stage == load.Blinding {
		at.Jump = bl.jump(at, c, ch)
	}
	if at.Outcome != load.Loaded {
		positions := bl.positions(at)
		at.Growth, at.Lines = growthOf(positions), linesOf(&at.Evidence, positions)
	}
	at.VerifierLog = verifierLog(at.Evidence.Log, f)
	at.FeatureProbe = a.probe(at, c)
	if at.Outcome != load.Loaded {
		why = append(why, c.shortcomings(c.errno())...)
	}
	why = append(why, a.lossesIn(f)...)
	at.Incomplete, at.IncompleteWhy = len(why) > 0, why
	return at
}

func (a *Assembler) time(ns uint64) time.Time {
	return time.Unix(0, a.header.Epoch).Add(time.Duration(min(ns, math.MaxInt64))).UTC()
}

func process(c *trace.Call) load.Process {
	p := load.Process{
		PID:     int(c.TGID),
		TID:     int(c.ID.TID),
		PIDInNS: int(c.NSPID),
		UID:     int(c.UID),
		GID:     int(c.GID),
		Comm:    clip(visible(c.Comm), 64),
		Exe:     clip(visible(c.Exe), 4096),
	}
	if c.Cgroup2 != nil {
		p.Cgroups = append(p.Cgroups, load.Cgroup{Version: 2, ID: c.Cgroup2.ID, Name: clip(visible(c.Cgroup2.Name), 1024)})
	}
	if c.Cgroup1 != nil {
		p.Cgroups = append(p.Cgroups, load.Cgroup{Version: 1, ID: c.Cgroup1.ID, Name: clip(visible(c.Cgroup1.Name), 1024)})
	}
	if c.Runtime == load.RuntimeGo {
		p.Runtime = c.Runtime
	}
	enrich.Process(&p)
	return p
}

func program(c *call) *load.Program {
	p := c.attr.program()
	if b, _ := c.ranges[trace.License].prefix(); len(b) > 0 {
		p.License = clip(visible(cString(b)), 128)
	}
	if k := c.rec.Prog; k != nil {
		p.ID = int(k.ID)
		p.Tag = hex.EncodeToString(k.Tag[:min(len(k.Tag), 32)])
		if p.JITed = &k.JITed; !k.BlindedUnknown {
			p.Blinded = &k.Blinded
		}
		p.JITedBytes = int(k.JITedLen)
		p.VerifiedInsns = int(k.VerifiedInsns)
		if len(c.attr) == 0 {
			p.Name, p.Type = clip(visible(k.Name), 64), abi.ProgTypeName(k.Type)
		}
	}
	return p
}

func cString(b []byte) string {
	for i, ch := range b {
		if ch == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// evidence fills at.Evidence but for the spans, and returns what of it is cut short.
//
//revive:disable-next-line:cyclomatic one field of the evidence after the other
func (a *Assembler) evidence(at *load.Attempt, f *retryGroup) (why []string) {
	c := f.last
	e := &at.Evidence
	e.Attr = c.attr
	e.EnterSeen = c.rec.Flags.EnterSeen
	e.Calls = f.calls
	if e.LogStale = f.trust.stale(); e.LogStale == "" {
		e.Log, e.LogUnproven = f.log.s, f.trust == unproven
	}
	e.LogLevel, e.LogSize = c.attr.logSettings(c.kind)
	e.Messages = f.said
	e.FailedInsn = f.insn
	e.Harden = a.harden(c.rec.ID.Start)
	for name := range a.sysctls {
		if e.Sysctls == nil {
			e.Sysctls = make(map[string]string)
		}
		e.Sysctls[name], _ = a.sysctl(name, c.rec.ID.Start)
	}
	e.Observed = a.observed(c)
	e.UserNSLevel, e.SeccompMode = -1, -1
	if cr := c.rec.Creds; cr != nil {
		e.Caps, e.CapsKnown = cr.CapEffective, true
		e.UserNSLevel, e.SeccompMode = int(cr.UserNSLevel), int(cr.SeccompMode)
		e.MemlockLimit, e.NofileLimit, e.LimitsKnown = cr.Memlock, cr.Nofile, true
	}
	for _, m := range c.rec.Maps {
		e.Maps = append(e.Maps, load.MapRef{
			ID: m.ID, Name: clip(visible(m.Name), 64), Type: m.Type,
			KeySize: m.KeySize, ValueSize: m.ValueSize, MaxEntries: m.MaxEntries, Flags: m.Flags,
		})
	}
	e.Filter, _ = c.ranges[trace.Filter].prefix()
	e.BTF, e.FuncInfo, e.LineInfo = c.ranges[trace.BTF].all(), c.ranges[trace.FuncInfo].all(), c.ranges[trace.LineInfo].all()
	if b := c.ranges[trace.License].all(); b != nil {
		e.License = []byte(cString(b))
	}
	e.Translated, _ = instructions(c.ranges[trace.Translated])
	if r := c.ranges[trace.Insns]; r != nil {
		var whole bool
		e.Insns, whole = instructions(r)
		// What the range says of itself and what the attr says must agree.
		if n := c.attr.prog().InsnCnt; len(c.attr) > 0 && uint64(n) != uint64(len(e.Insns)) {
			whole = false
		}
		e.InsnsState = state(e.Insns, whole, c.tag(), c.rec.Flags.TagMatched)
	}
	lines, cut := sourceLines(c.ranges[trace.LineInfo], c.ranges[trace.BTF], c.attr.prog().LineInfoRecSize, c.attr.prog().LineInfoCnt)
	e.Lines = lines
	if cut {
		why = append(why, fmt.Sprintf("line_info: read up to %d entries", maxLines))
	}
	if n := c.rec.DroppedMessages; n > 0 && c.ranges[trace.Log] == nil {
		why = append(why, fmt.Sprintf("%d messages of the verifier were not copied", n))
	}
	if c.rec.Flags.AttrFault && c.errno() != abi.EFAULT {
		why = append(why, "the attr could not be read")
	}
	for _, s := range c.rec.Stages {
		if s.Open {
			why = append(why, fmt.Sprintf("the return of %s was not seen", clip(visible(string(s.Function)), 64)))
		}
	}
	return why
}

// instructions decodes what is there of a program, and says whether that is all.
func instructions(r *bytesOf) ([]insn.Instruction, bool) {
	b, whole := r.prefix()
	prog, err := insn.Decode(b[:len(b)/insn.Size*insn.Size])
	if err != nil || len(prog) == 0 {
		return nil, false
	}
	return prog, whole && len(b)%insn.Size == 0
}

func state(prog []insn.Instruction, whole bool, tag [8]byte, matched bool) load.InsnsState {
	switch {
	case len(prog) == 0:
		return load.InsnsNone
	case !whole:
		return load.InsnsTruncated
	case tag != [8]byte{} && (matched || insn.MatchesTag(prog, tag)):
		return load.InsnsVerified
	}
	return load.InsnsUnverified
}

// tag is the kernel's own tag of the program, zero when it was not read or not yet computed.
func (c *call) tag() (tag [8]byte) {
	switch {
	case len(c.rec.Tag) == len(tag):
		copy(tag[:], c.rec.Tag)
	case c.rec.Prog != nil && len(c.rec.Prog.Tag) == len(tag):
		copy(tag[:], c.rec.Prog.Tag)
	}
	return tag
}

// sysctl returns a sysctl as it was read closest to a time, else as the profile of the node has it.
func (a *Assembler) sysctl(name string, at uint64) (string, bool) {
	var best *trace.Sysctl
	distance := func(s *trace.Sysctl) uint64 { return max(s.At, at) - min(s.At, at) }
	for i := range a.sysctls[name] {
		if s := &a.sysctls[name][i]; best == nil || distance(s) < distance(best) {
			best = s
		}
	}
	if best != nil {
		return best.Value, true
	}
	v, ok := a.header.Node.Sysctls[name]
	return v, ok
}

// harden is net.core.bpf_jit_harden around a time, -1 when it is not known. It is read again behind
// a failed load, and may have been changed in between by whoever made the experiment: where the
// values before and after differ, the greater one is taken for the one that had consequences.
func (a *Assembler) harden(at uint64) int {
	const name = "net.core.bpf_jit_harden"
	before, known := a.header.Node.Sysctls[name]
	n := -1
	if known {
		n = hardenValue(before)
	}
	for _, s := range a.sysctls[name] {
		if s.At > at {
			return max(n, hardenValue(s.Value))
		}
		n = hardenValue(s.Value)
	}
	return n
}

func hardenValue(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// lossesIn says which losses overlap a group.
func (a *Assembler) lossesIn(f *retryGroup) []string {
	lost := make(map[string]uint64)
	var order []string
	for _, l := range a.losses {
		if l.Count == 0 || l.From > f.last.rec.End || l.To < f.start {
			continue
		}
		if l.Mechanism == trace.LostSyscalls && f.last.kind != load.PerfEventOpen && f.last.kind != load.PerfEventSetBPF && f.last.kind != load.ProbeDefine {
			continue
		}
		if _, ok := lost[l.Mechanism]; !ok {
			order = append(order, l.Mechanism)
		}
		lost[l.Mechanism] += l.Count
	}
	var why []string
	for _, m := range order {
		why = append(why, fmt.Sprintf("%d events lost while it ran (%s)", lost[m], clip(visible(m), 32)))
	}
	return why
}

func (a *Assembler) lossy(f *retryGroup) bool { return len(a.lossesIn(f)) > 0 }
