// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"fmt"
	"slices"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/selfprobe"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Loaders find out what a kernel can do by loads that fail on purpose. They are recognised by what
// they submit, to the last instruction; anything that is not in these tables is somebody's program.
// What a probe looks like was read off system calls and sources: cilium/ebpf v0.11 to v0.22, libbpf
// 0.5 to 1.7 with the bpftool and bpftrace of its time, Aya.

// Helpers that are asked for, by number.
const (
	helperProbeReadKernel = 113
	helperCoarseNS        = 160
	helperFuncIP          = 173
	helperCookie          = 174
)

var (
	exit = insn.Instruction{Code: insn.OpcodeExit}
	// anyCall stands for the call of whichever helper is asked for.
	anyCall = insn.Instruction{Code: insn.OpcodeCall, Imm: -1}
)

func mov(dst uint8, imm int32) insn.Instruction {
	return insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV, Dst: dst, Imm: imm}
}

func callHelper(helper int32) insn.Instruction {
	return insn.Instruction{Code: insn.OpcodeCall, Imm: helper}
}

func callFunction(off int32) insn.Instruction {
	return insn.Instruction{Code: insn.OpcodeCall, Src: insn.PseudoCall, Imm: off}
}

// wideZero is r0 = 0 as cilium/ebpf writes it.
func wideZero() []insn.Instruction {
	return []insn.Instruction{{Code: insn.OpcodeLoadImm64}, {}}
}

// mapValue is the address of a place in a map's value. The map's descriptor is taken out of what is
// compared.
func mapValue(off int32) []insn.Instruction {
	return []insn.Instruction{{Code: insn.OpcodeLoadImm64, Dst: 1, Src: insn.PseudoMapValue}, {Imm: off}}
}

func join(parts ...[]insn.Instruction) []insn.Instruction { return slices.Concat(parts...) }

func code(in ...insn.Instruction) []insn.Instruction { return in }

// programProbe is one row of the table.
type programProbe struct {
	by, what string
	types    []uint32 // nil: any
	name     string
	insns    []insn.Instruction
	// failing rows are told from ordinary programs by their failure alone, and only count with it.
	failing bool
	own     bool                 // bpfwhy's
	only    func(c *probed) bool // what else must hold
}

// invalidFD is -1: a descriptor, or a process, that loaders name to be refused.
const invalidFD = 1<<32 - 1

// probed is what is known of the call that may be a probe.
type probed struct {
	attr    attr
	errno   int
	license string
	known   bool    // the licence was read
	tag     [8]byte // the kernel's, zero when it was not read
}

// trivial is the program that every loader uses for questions that do not need a program.
var trivial = code(mov(0, 0), exit)

// unknownType reports what a kernel answers that does not have a program type, or not for a program
// so small. A trivial program that is not permitted is no probe: it is how a loader learns that it
// may load nothing. Nor is one that nothing is wrong with: its loader had no descriptors left, or
// the JIT no memory.
func unknownType(p *probed) bool {
	attr := p.attr.prog()
	typ := attr.ProgType
	attach := map[uint32]uint32{
		abi.ProgTypeCgroupSockAddr: abi.AttachCgroupInet4Connect, abi.ProgTypeLircMode2: abi.AttachLircMode2,
		abi.ProgTypeCgroupSockopt: abi.AttachCgroupGetsockopt, abi.ProgTypeSkLookup: abi.AttachSkLookup,
		abi.ProgTypeNetfilter: abi.AttachNetfilter,
	}[typ]
	flags := map[uint32]uint32{abi.ProgTypeSyscall: abi.ProgFlagSleepable}[typ]
	return (p.errno == abi.EINVAL || p.errno == abi.E2BIG || p.errno == abi.ENOTSUPP && typ == abi.ProgTypeStructOps) && typ <= uint32(abi.ProgTypes) &&
		(attr.ExpectedAttachType == attach || typ == abi.ProgTypeLircMode2 && attr.ExpectedAttachType == 0) && // cilium/ebpf gives none
		attr.ProgFlags == flags && attr.AttachBTFID == 0 && attr.ProgBTFFD == 0
}

// byCilium recognises the record sizes that cilium/ebpf gives without records.
func byCilium(p *probed) bool {
	attr := p.attr.prog()
	return attr.FuncInfoRecSize == 8 && attr.LineInfoRecSize == 16 && attr.LineInfoCnt == 0
}

var programProbes = []programProbe{
	{by: "libbpf", what: "program name", types: []uint32{abi.ProgTypeSocketFilter}, name: "libbpf_nametest", insns: trivial},
	{by: "libbpf", what: "program name", types: []uint32{abi.ProgTypeSocketFilter}, name: "test", insns: trivial, failing: true,
		only: func(p *probed) bool { return p.errno == abi.EINVAL || p.errno == abi.E2BIG }},
	{by: "Aya", what: "program name", name: "aya_name_check", insns: trivial},
	{by: "libbpf", what: "memory accounting", types: []uint32{abi.ProgTypeSocketFilter}, insns: code(callHelper(helperCoarseNS), exit)},
	{by: "libbpf", what: "attach cookie", types: []uint32{abi.ProgTypeKprobe, abi.ProgTypeTracepoint}, insns: code(callHelper(helperCookie), exit)},
	{by: "libbpf", what: "expected_attach_type", types: []uint32{abi.ProgTypeCgroupSock}, insns: trivial, failing: true,
		only: func(p *probed) bool { return p.attr.prog().ExpectedAttachType == abi.AttachCgroupInetSockCreate }},
	{by: "libbpf", what: "uprobe.multi link", types: []uint32{abi.ProgTypeKprobe}, insns: trivial, failing: true,
		only: func(p *probed) bool { return p.attr.prog().ExpectedAttachType == abi.AttachTraceUprobeMulti }},
	{by: "libbpf", what: "global data", types: []uint32{abi.ProgTypeSocketFilter},
		insns: join(mapValue(16), code(insn.Instruction{Code: insn.ClassST | insn.ModeMEM | insn.SizeDW, Dst: 1, Imm: 42}, mov(0, 0), exit))},
	{by: "libbpf", what: "full range of map value offsets", types: []uint32{abi.ProgTypeSocketFilter}, insns: join(mapValue(1<<30), code(exit))},
	{by: "libbpf", what: "context argument tag", types: []uint32{abi.ProgTypeKprobe}, name: "det_arg_ctx",
		insns: code(callFunction(1), exit, callHelper(helperFuncIP), exit)},
	{by: "libbpf or cilium/ebpf", what: "bpf_probe_read_kernel", types: []uint32{abi.ProgTypeKprobe, abi.ProgTypeTracepoint}, insns: code(
		insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV | insn.SourceX, Dst: 1, Src: insn.RegFP},
		insn.Instruction{Code: insn.ClassALU64 | insn.OpADD, Dst: 1, Imm: -8},
		mov(2, 8), mov(3, 0), callHelper(helperProbeReadKernel), exit)},
	{by: "libbpf", what: "helper", insns: code(anyCall, exit), failing: true,
		// libbpf_probe_bpf_helper: bpftool asks some 5,000 times.
		only: func(p *probed) bool { return p.attr.prog().LogLevel == 1 && p.attr.prog().LogSize == 4096 }},
	{by: "libbpf", what: "program type", insns: trivial, failing: true,
		// libbpf_probe_bpf_prog_type gives tracing, lsm and ext programs the first BTF id there is.
		only: func(p *probed) bool {
			return p.attr.prog().AttachBTFID == 1 && p.attr.prog().LogLevel == 1 && p.attr.prog().LogSize == 4096
		}},
	{by: "libbpf", what: "program type", insns: trivial, failing: true,
		only: func(p *probed) bool {
			typ := p.attr.prog().ProgType
			return unknownType(p) && typ != abi.ProgTypeSocketFilter && typ != abi.ProgTypeTracepoint
		}},
	{by: "bpftool", what: "bpf(2)", types: []uint32{0}, failing: true,
		only: func(p *probed) bool {
			const largest = 192 // no struct of the bpftool of the day is; what lies behind may not be zero
			return (p.errno == abi.E2BIG || p.errno == abi.EINVAL) && len(p.attr) > 0 && len(p.attr) <= largest && p.attr.zero()
		}},

	{by: "cilium/ebpf", what: "func_info and line_info", types: []uint32{abi.ProgTypeSocketFilter}, insns: trivial,
		only: func(p *probed) bool { return p.attr.prog().ProgBTFFD == invalidFD && p.attr.prog().FuncInfoCnt == 1 }},
	{by: "cilium/ebpf", what: "BPF_PROG_ATTACH, tcx, netkit", types: []uint32{abi.ProgTypeCgroupSKB, abi.ProgTypeSchedCLS}, insns: trivial, failing: true, only: byCilium},
	{by: "cilium/ebpf", what: "uprobe.multi link", types: []uint32{abi.ProgTypeKprobe}, name: "probe_upm_link", insns: trivial},
	{by: "cilium/ebpf", what: "kprobe.multi link", types: []uint32{abi.ProgTypeKprobe}, name: "probe_kpm_link", insns: trivial},
	{by: "cilium/ebpf", what: "kprobe.session link", types: []uint32{abi.ProgTypeKprobe}, name: "probe_kps_link", insns: trivial},
	{by: "cilium/ebpf", what: "perf_event link", types: []uint32{abi.ProgTypeKprobe}, name: "probe_bpf_perf_", insns: trivial},
	{by: "cilium/ebpf", what: "bpf-to-bpf calls", types: []uint32{abi.ProgTypeSocketFilter}, insns: code(callFunction(1), exit, mov(0, 0), exit)},
	{by: "cilium/ebpf", what: "program type", insns: join(wideZero(), code(exit)), failing: true,
		only: func(p *probed) bool { return unknownType(p) || p.known && p.license == "" }},
	{by: "cilium/ebpf", what: "program type", types: []uint32{abi.ProgTypeLSM}, insns: join(wideZero(), code(exit)), failing: true,
		only: func(p *probed) bool {
			return byCilium(p) && p.attr.prog().AttachBTFID != 0 && p.attr.prog().ExpectedAttachType == abi.AttachLSMMac
		}},
	{by: "cilium/ebpf", what: "program type", types: []uint32{abi.ProgTypeExt}, insns: trivial, failing: true,
		only: func(p *probed) bool {
			return byCilium(p) && p.known && p.license == "" && p.attr.prog().FuncInfoCnt == 1 && p.attr.prog().AttachFD != 0
		}},
	{by: "cilium/ebpf", what: "helper", insns: join(code(anyCall), wideZero(), code(exit))},
	{by: "cilium/ebpf or bpftool", what: "more than 4096 instructions", types: []uint32{abi.ProgTypeSocketFilter, abi.ProgTypeSchedCLS},
		insns: join(slices.Repeat(code(mov(0, 1)), 4096), code(exit))},
	{by: "cilium/ebpf or bpftool", what: "bounded loops", types: []uint32{abi.ProgTypeSocketFilter, abi.ProgTypeSchedCLS}, insns: code(mov(0, 10),
		insn.Instruction{Code: insn.ClassALU64 | insn.OpSUB, Imm: 1}, insn.Instruction{Code: insn.ClassJMP | insn.OpJNE, Off: -2}, exit)},
	{by: "cilium/ebpf or bpftool", what: "ISA v2", types: []uint32{abi.ProgTypeSocketFilter, abi.ProgTypeSchedCLS}, insns: code(mov(0, 0),
		insn.Instruction{Code: insn.ClassJMP | insn.OpJLT, Off: 1}, mov(0, 1), exit)},
	{by: "cilium/ebpf or bpftool", what: "ISA v3", types: []uint32{abi.ProgTypeSocketFilter, abi.ProgTypeSchedCLS}, insns: code(mov(0, 0),
		insn.Instruction{Code: insn.ClassJMP32 | insn.OpJLT, Off: 1}, mov(0, 1), exit)},
	{by: "cilium/ebpf or bpftool", what: "ISA v4", types: []uint32{abi.ProgTypeSocketFilter, abi.ProgTypeSchedCLS}, insns: code(mov(0, 0),
		insn.Instruction{Code: insn.ClassJMP | insn.OpJEQ, Off: 1, Imm: 1}, insn.Instruction{Code: insn.OpcodeGotol, Imm: 1}, mov(0, 1), exit)},
}

//revive:disable-next-line:cyclomatic each property of a known probe is compared
func (p *programProbe) matches(at *load.Attempt, c *probed) bool {
	if p.failing && at.Outcome == load.Loaded || p.name != at.Program.Name {
		return false
	}
	if p.types != nil && !slices.Contains(p.types, c.attr.prog().ProgType) || p.only != nil && !p.only(c) {
		return false
	}
	got := at.Evidence.Insns
	if int(c.attr.prog().InsnCnt) != len(p.insns) {
		return false
	}
	if len(got) == 0 && len(p.insns) > 0 {
		// Nothing was copied, as of a load that worked: then its tag tells, or a name of the
		// loader's own choice.
		switch {
		case p.failing || p.own && at.Outcome != load.Loaded:
			return false // whoever hides his instructions hides no failure
		case c.tag != [8]byte{}:
			return matchesTag(p.insns, c.tag)
		}
		return p.name != ""
	}
	return slices.EqualFunc(p.insns, got, func(want, in insn.Instruction) bool {
		switch {
		case want == anyCall:
			in.Imm = want.Imm
		case in.IsMapLoad():
			in.Imm = 0
		}
		return want == in
	})
}

// btfProbes are the sizes of BTF that loaders ask with: types that say nothing, and names of a
// letter or two.
var btfProbes = map[uint32]string{
	45: "libbpf: BTF", 81: "libbpf: BTF functions", 89: "libbpf: BTF data section", 90: "libbpf: BTF data section with ?",
	43: "libbpf: BTF float", 77: "libbpf: BTF declaration tag", 69: "libbpf: BTF type tag", 44: "libbpf: BTF enum64",
	146: "libbpf: context argument tag",
	41:  "cilium/ebpf: BTF", 55: "cilium/ebpf: BTF variable", 51: "cilium/ebpf: BTF functions",
	71: "cilium/ebpf: BTF declaration tag", 54: "cilium/ebpf: BTF enum64",
}

// mapNames are names that only probes give.
var mapNames = map[string]string{
	"feature_test": "cilium/ebpf: object names", ".test": "cilium/ebpf: dots in object names",
	"libbpf_global": "libbpf: global data", "libbpf_mmap": "libbpf: array mmap", "libbpf_det_bind": "libbpf: BPF_PROG_BIND_MAP",
	"aya_name_check": "Aya: object names",
}

// uprobeEvents is how the events of uprobes are called in /sys/bus/event_source/devices.
const uprobeEvents = "uprobe"

// probe names the feature probe that an attempt is, "" for anything else.
//
//revive:disable-next-line:cyclomatic a case for each call
func (a *Assembler) probe(at *load.Attempt, c *call) string {
	switch c.kind {
	case load.ProgLoad:
		return programProbeOf(at, c)
	case load.MapCreate:
		if a.accountingProbe(at, c.attr, c.errno()) {
			return "cilium/ebpf: memory accounting"
		}
		return mapProbe(at, c.attr, c.errno())
	case load.BTFLoad:
		if level, _ := c.attr.logSettings(c.kind); level == 0 {
			return btfProbes[c.attr.btf().BTFSize]
		}
	case load.LinkCreate:
		if c.toProbe && c.errno() != 0 {
			return "libbpf or cilium/ebpf: link"
		}
		return linkProbe(c.attr, c.errno())
	case load.ProgAttach:
		attr := c.attr.progAttach()
		if c.errno() == abi.EBADF && attr.TargetFD == invalidFD && attr.AttachFlags == abi.AttachFlagReplace {
			return "cilium/ebpf: BPF_PROG_ATTACH with replacement"
		}
	case load.PerfEventOpen:
		return eventProbe(c.rec.Attach, c.errno())
	case load.TokenCreate:
		// Both ask every bpffs for a token, and go on without: it may be none, of another user
		// namespace, or too old a kernel.
		if c.errno() != 0 {
			return "libbpf or cilium/ebpf: BPF token"
		}
	}
	return ""
}

// eventProbe: httpprobe asks for a uprobe of no file, without CAP_SYS_ADMIN.
func eventProbe(r *trace.Attach, errno int) string {
	if r != nil && r.Event != nil && r.Event.System == uprobeEvents && r.Text == "" && r.Offset == 0 &&
		(errno == abi.EACCES || errno == abi.EPERM) {
		return "bpfwhy: uprobes without CAP_SYS_ADMIN"
	}
	return ""
}

func programProbeOf(at *load.Attempt, c *call) string {
	p := &probed{attr: c.attr, errno: c.errno(), tag: c.tag()}
	if r := c.ranges[trace.License]; r != nil {
		p.license, p.known = at.Program.License, true
	}
	for _, table := range [][]programProbe{programProbes, ownProbes} {
		for i := range table {
			if row := &table[i]; row.matches(at, p) {
				return row.by + ": " + row.what
			}
		}
	}
	return ""
}

// mapProbe recognises the maps that ask for a type or a flag: nameless, and as small as the type
// allows.
//
//revive:disable-next-line:cyclomatic a case for each probe of each library
func mapProbe(at *load.Attempt, m attr, errno int) string {
	if name, ok := mapNames[at.Map.Name]; ok {
		return name
	}
	attr := m.mapCreate()
	typ := attr.MapType
	small := at.Map.KeySize == 4 && at.Map.ValueSize == 4 && at.Map.MaxEntries == 1
	switch {
	case at.Map.Name != "" || errno == 0:
	case errno == abi.EBADF && (typ == abi.MapTypeArrayOfMaps || typ == abi.MapTypeHashOfMaps) && small && attr.InnerMapFD == invalidFD:
		return "cilium/ebpf: nested maps"
	case errno == abi.EBADF && attr.BTFFD == invalidFD && attr.BTFKeyTypeID == 1 && attr.BTFValueTypeID == 1 && at.Map.MaxEntries == 0:
		return "cilium/ebpf: map type"
	case errno == abi.ENOTSUPP && typ == abi.MapTypeStructOps && small && attr.BTFVmlinuxValueTypeID == 1:
		return "libbpf or cilium/ebpf: map type"
	case (errno == abi.EINVAL || errno == abi.E2BIG) && smallest(at.Map, typ):
		return "libbpf or cilium/ebpf: map type"
	case (errno == abi.EINVAL || errno == abi.EPERM) && small && slices.Contains(probeFlags[typ], at.Map.Flags) &&
		m.isSmallMap():
		return "cilium/ebpf: map flag"
	}
	return ""
}

// probeFlags are the flags that are asked for, by the type that they are asked with: hash and
// array.
var probeFlags = map[uint32][]uint32{
	abi.MapTypeHash:  {abi.MapFlagNoPrealloc},
	abi.MapTypeArray: {abi.MapFlagRdOnlyProg, abi.MapFlagWrOnlyProg, abi.MapFlagMmapable, abi.MapFlagInnerMap},
}

// smallest reports a map as small as its type allows. What a kernel does not have it refuses
// whatever the size.
func smallest(m *load.Map, typ uint32) bool {
	const page = 4096
	type shape struct{ key, value, entries, flags uint32 }
	want, value := shape{4, 4, 1, 0}, m.ValueSize
	switch name := abi.MapTypeName(typ); name {
	case "stack_trace":
		want = shape{4, 8, 1, 0}
	case "lpm_trie":
		want = shape{8, 8, 1, abi.MapFlagNoPrealloc}
	case "cgroup_storage", "percpu_cgroup_storage":
		want = shape{16, 4, 0, 0}
	case "queue", "stack", "bloom_filter":
		want = shape{0, 4, 1, 0}
	case "ringbuf", "user_ringbuf":
		want = shape{0, 0, page, 0}
	case "sk_storage", "inode_storage", "task_storage", "cgrp_storage":
		want = shape{4, 4, 0, abi.MapFlagNoPrealloc}
	case "arena":
		want = shape{0, 0, 1, abi.MapFlagMmapable}
	case fmt.Sprintf("type_%d", typ):
		return false
	}
	if want.entries == 0 && value == 8 {
		value = 4 // libbpf's storage is twice the size of cilium/ebpf's
	}
	return want == shape{m.KeySize, value, m.MaxEntries, m.Flags}
}

// accountingProbe recognises the map by which cilium/ebpf's package rlimit asks, at every start,
// whether RLIMIT_MEMLOCK counts: it has set the limit to 0. Where the limit could not be read, the
// kernel must be one on which it counts.
func (a *Assembler) accountingProbe(at *load.Attempt, m attr, errno int) bool {
	if attr := m.mapCreate(); errno != abi.EPERM || at.Map.Name != "" || attr.MapType != abi.MapTypeArray || attr.MapFlags != 0 || !m.isSmallMap() {
		return false
	}
	if at.Evidence.LimitsKnown {
		return at.Evidence.MemlockLimit == 0
	}
	return a.header.Node.Does(node.ChargesNoMemlock) == node.No
}

// isSmallMap reports a map of one entry of four bytes, of which nothing else is said but its type
// and flags.
func (a attr) isSmallMap() bool {
	m := a.mapCreate()
	m.MapType, m.MapFlags = 0, 0
	return m == abi.MapCreate{KeySize: 4, ValueSize: 4, MaxEntries: 1} && attr(abi.Tail[abi.MapCreate](a)).zero()
}

// linkProg is a descriptor of a thread group's.
type linkProg struct {
	tgid uint32
	fd   int64
}

// remember keeps the descriptor of the program with which a loader goes on to ask for a kind of
// link, and marks the link. What else it loads meanwhile, in other threads, is something else,
// unless it gets the same descriptor.
func (a *Assembler) remember(c *call) {
	switch {
	case c.kind == load.LinkCreate:
		c.toProbe = a.linkProgs[linkProg{c.rec.TGID, int64(c.attr.linkCreate().ProgFD)}]
	case c.kind == load.ProgLoad && c.rec.Ret >= 0 && asksForLink(c):
		if len(a.linkProgs) >= maxPending {
			clear(a.linkProgs)
		}
		a.linkProgs[linkProg{c.rec.TGID, c.rec.Ret}] = true
	case c.kind == load.ProgLoad:
		delete(a.linkProgs, linkProg{c.rec.TGID, c.rec.Ret})
	}
}

func asksForLink(c *call) bool {
	attr := c.attr.prog()
	switch nameOf(attr.ProgName) {
	case "probe_upm_link", "probe_kpm_link", "probe_kps_link", "probe_bpf_perf_":
		return true
	case selfprobe.Name:
		return attr.ExpectedAttachType == abi.AttachTraceUprobeMulti && insn.MatchesTag(selfprobe.Trivial(), c.tag())
	case "":
		// libbpf asks for uprobe.multi with a kprobe program, and for perf_event links with one of
		// a tracepoint.
		typ, attach := attr.ProgType, attr.ExpectedAttachType
		tag := c.tag()
		return attr.InsnCnt == uint32(len(trivial)) && (typ == abi.ProgTypeKprobe && attach == abi.AttachTraceUprobeMulti || typ == abi.ProgTypeTracepoint && attach == 0) &&
			(tag == [8]byte{} || insn.MatchesTag(trivial, tag))
	}
	return false
}

// linkProbe recognises links to nothing.
//
//revive:disable-next-line:cyclomatic a case for each probe of each library
func linkProbe(l attr, errno int) string {
	attr := l.linkCreate()
	typ := attr.AttachType
	switch {
	case errno == 0:
	case attr.ProgFD == invalidFD && attr.TargetFD == invalidFD:
		return "cilium/ebpf: bpf_link"
	case typ == abi.AttachPerfEvent && (errno == abi.EBADF || errno == abi.EINVAL) && (attr.TargetFD == invalidFD || attr.TargetFD == 0):
		return "libbpf or cilium/ebpf: perf_event link"
	case typ == abi.AttachTraceUprobeMulti && (errno == abi.EBADF || errno == abi.EINVAL && l.uprobePID() == invalidFD):
		return "libbpf or cilium/ebpf: uprobe.multi link"
	case (typ == abi.AttachTCXIngress || typ == abi.AttachNetkitPrimary) && attr.TargetFD == invalidFD:
		return "cilium/ebpf: tcx or netkit"
	case (typ == abi.AttachTraceKprobeMulti || typ == abi.AttachTraceKprobeSession) && errno == abi.EOPNOTSUPP && l.kprobes() == 1:
		// One symbol, on a kernel without fprobe: bpftrace and cilium/ebpf ask so, and fall back.
		return "bpftrace or cilium/ebpf: kprobe.multi link"
	}
	return ""
}
