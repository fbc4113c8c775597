// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// What 6.12 prints for "r0 = r2; exit" by a socket filter.
const uninitLog = `0: R1=ctx() R10=fp0
0: (bf) r0 = r2
R2 !read_ok
processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
`

var (
	copyR2 = insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV | insn.SourceX, Dst: 0, Src: 2}
	copyR3 = insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV | insn.SourceX, Dst: 0, Src: 3}
	zero   = insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV}
	leave  = insn.Instruction{Code: insn.OpcodeExit}
	uninit = []insn.Instruction{copyR2, leave}
)

// A buffer belongs to the loader: what is in it is the verifier's only where the verifier may have
// put it there.
func TestStaleLog(t *testing.T) {
	dirty := func(c *trace.Call) { c.Flags.LogDirty = true }
	for _, test := range []struct {
		name  string
		hooks []load.Function
		runs  []ex
		ret   int64
		insns []insn.Instruction
		set   map[int]uint32
		log   string
		dirty bool

		used, unproven bool
		stage          load.Stage
	}{
		{name: "outside, an empty buffer before the call", hooks: classicHooks, ret: -13, insns: uninit, log: uninitLog, used: true, stage: load.Verifier},
		{name: "outside, text in it before", hooks: classicHooks, ret: -22, insns: uninit, log: uninitLog, dirty: true, used: true, unproven: true},
		{name: "outside, EPERM and text in it before", hooks: classicHooks, ret: -1, insns: uninit, log: uninitLog, dirty: true, used: true, unproven: true, stage: load.Permission},
		{name: "outside, a good log in it before", hooks: classicHooks, ret: -22, insns: []insn.Instruction{zero, leave},
			log: "0: R1=ctx() R10=fp0\n0: (b7) r0 = 0                        ; R0_w=0\n1: (95) exit\nprocessed 2 insns (limit 1000000) max_states_per_insn 0\n", dirty: true, used: true, unproven: true},
		{name: "outside, another program's: opcode", hooks: classicHooks, ret: -22, insns: []insn.Instruction{zero, leave}, log: uninitLog},
		{name: "outside, another program's: register", hooks: classicHooks, ret: -22, insns: []insn.Instruction{copyR3, leave}, log: uninitLog},
		{name: "outside, another program's: length", hooks: classicHooks, ret: -22, insns: []insn.Instruction{leave}, log: "0: (95) exit\n1: (95) exit\nR0 !read_ok\nprocessed 2 insns\n"},
		{name: "outside, the kernel relocates", hooks: classicHooks, ret: -13, insns: []insn.Instruction{zero, leave}, set: map[int]uint32{116: 1}, log: uninitLog, used: true, stage: load.Verifier},
		{name: "hooks, the verifier ran", hooks: allHooks, ret: -13, insns: uninit, log: uninitLog, dirty: true, used: true, stage: load.Verifier,
			runs: []ex{run(load.FnLoad, -13, run(load.FnCheck, -13, run(load.FnDoCheck, -13)))}},
		{name: "hooks, the verifier failed before it wrote", hooks: allHooks, ret: -22, insns: uninit, log: uninitLog, dirty: true, used: true, unproven: true, stage: load.Verifier,
			runs: []ex{run(load.FnLoad, -22, run(load.FnCheck, -22))}},
		{name: "hooks, the verifier did not run", hooks: allHooks, ret: -22, insns: uninit, log: uninitLog, stage: load.Request,
			runs: []ex{run(load.FnLoad, -22)}},
		{name: "hooks, the verifier did not run and the buffer was empty", hooks: allHooks, ret: -1, insns: uninit, log: uninitLog, stage: load.Permission,
			runs: []ex{run(load.FnLoad, -1)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := req{typ: 1, name: "p", insns: test.insns, logLevel: 1, logSize: 1 << 16, set: test.set}
			c := loadCall(r, test.ret, filter(test.runs, test.hooks)...)
			if test.dirty {
				dirty(c)
			}
			got := attempts(header("6.12.0", test.hooks),
				chunk(c, trace.Insns, insn.Encode(test.insns)), logChunk(c, test.log), trace.Record{Call: c})
			qt.Assert(t, qt.HasLen(got, 1))
			e := &got[0].Evidence
			qt.Check(t, qt.Equals(e.Log != "", test.used))
			qt.Check(t, qt.Equals(e.LogUnproven, test.unproven))
			qt.Check(t, qt.Equals(e.LogStale != "", !test.used))
			qt.Check(t, qt.Equals(got[0].FailedStage, test.stage))
			if !test.used {
				qt.Check(t, qt.Equals(got[0].VerifierLog.Origin, load.LogNone))
			}
		})
	}
}

// Where events were lost, the verifier's call may be among them.
func TestStaleLogLost(t *testing.T) {
	c := loadCall(req{typ: 1, name: "p", insns: uninit, logLevel: 1, logSize: 1 << 16}, -13, run(load.FnLoad, -13))
	got := attempts(header("6.12.0", allHooks), logChunk(c, uninitLog),
		trace.Record{Loss: &trace.Loss{Mechanism: "ring", Count: 1, From: c.ID.Start, To: c.End}}, trace.Record{Call: c})
	qt.Assert(t, qt.HasLen(got, 1))
	qt.Check(t, qt.IsTrue(got[0].Evidence.Log != "" && got[0].Evidence.LogUnproven))
}

// The log of BTF is nobody's but the kernel's where the buffer was empty before.
func TestStaleLogOfBTF(t *testing.T) {
	for _, dirty := range []bool{false, true} {
		c := loadCall(req{typ: 1}, -22)
		c.Kind, c.Cmd, c.Flags.LogDirty = load.BTFLoad, 18, dirty
		got := attempts(header("6.12.0", classicHooks), chunk(c, trace.BTFLog, []byte("Invalid magic\x00")), trace.Record{Call: c})
		qt.Assert(t, qt.HasLen(got, 1))
		qt.Check(t, qt.Equals(got[0].Evidence.Log, "Invalid magic"))
		qt.Check(t, qt.Equals(got[0].Evidence.LogUnproven, dirty))
	}
}

// Of several logs of one group the one that can be trusted is kept, be it the shorter one.
func TestStaleLogOfRetryGroup(t *testing.T) {
	long := "0: R1=ctx() R10=fp0\n" + strings.Repeat("; int x;\n", 50) + "0: (95) exit\n"
	got := attempts(header("6.12.0", classicHooks), append(
		try{from: 1, to: 2, ret: -13, req: req{typ: 1, name: "p", insnCnt: 2, logLevel: 1, logSize: 4096}, log: long, insns: uninit}.records(),
		try{from: 3, to: 4, ret: -13, req: req{typ: 1, name: "p", insnCnt: 2, logLevel: 2, logSize: 8192}, log: uninitLog, insns: uninit}.records()...)...)
	qt.Assert(t, qt.HasLen(got, 1))
	qt.Check(t, qt.Equals(got[0].Evidence.Log, uninitLog))
}

func TestContradicts(t *testing.T) {
	prog := make([]insn.Instruction, 130)
	for i := range prog {
		prog[i] = insn.Instruction{Code: insn.ClassALU64 | insn.OpADD, Dst: 1, Imm: int32(i)}
	}
	prog[7] = insn.Instruction{Code: insn.ClassJMP | insn.OpJEQ, Off: -1}
	for _, test := range []struct {
		name, log string
		size      uint32
		want      bool
	}{
		{"the first line is the end of one", "3: (85) call bpf_map_lookup_elem#1\n124: (07) r1 += 124\n", 52 + 1, false},
		{"the last line is the start of one", "124: (07) r1 += 124\n125: (07) r1 += 1", 4096, false},
		{"state behind the instruction", "124: (07) r1 += 124                   ; R1_w=124\n", 4096, false},
		{"another constant", "12: (07) r1 += 124\n", 4096, true},
		{"a longer constant", "12: (07) r1 += 123\n", 4096, true},
		{"what is no instruction", "12: R1=ctx() R10=fp0\nfrom 3 to 5: R0=0\n; 12: (85) call x\n12: safe\n999999999999: (85) x\n1: (zz) y\n", 4096, false},
		{"a hole", "[… 12 bytes of the log were not copied …]\n3: (85) call x\n124: (07) r1 += 124\n", 4096, false},
		{"beyond the end", "130: (95) exit\n", 4096, true},
		{"7.2, a jump that is always taken", "7: (05) goto pc-1\n", 4096, false},
		{"another jump", "7: (25) if r1 > 0x3 goto pc-1\n", 4096, true},
		{"a jump that was none", "8: (05) goto pc-1\n", 4096, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := loadCall(req{typ: 1, insns: prog, logLevel: 1, logSize: test.size}, -13)
			a := New(header("6.12.0", classicHooks))
			a.Add(chunk(c, trace.Insns, insn.Encode(prog)))
			k := &call{rec: c, pieces: *a.pending[c.ID], attr: attr(c.Attr), kind: load.ProgLoad}
			qt.Check(t, qt.Equals(k.contradicts(text{test.log, true}), test.want))
		})
	}
}
