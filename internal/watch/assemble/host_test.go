// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// Where nothing but the system call's tracepoints works, the stage follows from the result, the
// log, the sysctls and the captured program, or it does not follow and is left open.
func TestTracepointsOnly(t *testing.T) {
	const all = "request? permission? resources? btf? verifier? blinding? jit? install?"
	harden := func(v string) string { return "net.core.bpf_jit_harden=" + v }
	long, short := overflowing(12000), overflowing(10)
	for _, test := range []struct {
		name    string
		sysctl  string
		ret     int64
		insns   []insn.Instruction
		insnCnt uint32
		level   uint32
		log     string
		prog    *trace.Prog
		caps    uint64
		stage   load.Stage
		stages  string
		jump    bool
		tail    bool
	}{
		{name: "success", sysctl: harden("0"), ret: 3, prog: jitted, stages: ok + " jit+ install+"},
		{name: "success, blinded", sysctl: harden("2"), ret: 3, prog: &trace.Prog{ID: 7, Type: 1, JITed: true, BlindedUnknown: true},
			stages: ok + " blinding+ jit+ install+"},
		{name: "success, kernel's program not read", sysctl: harden("2"), ret: 3, stages: ok + " blinding? jit? install+"},
		{name: "blinding", sysctl: harden("2"), ret: -524, insns: long, level: 1, log: "processed 9 insns (limit 1000000)\n",
			stage: load.Blinding, stages: ok + " blinding?", jump: true},
		{name: "blinding without a log", sysctl: harden("2"), ret: -524, insns: long,
			stage: load.Blinding, stages: "request? permission? resources? btf? verifier? blinding?", jump: true},
		{name: "blinding, interpreter", sysctl: harden("2"), ret: 3, prog: slow, insns: long,
			stage: load.Blinding, stages: ok + " blinding? install+", jump: true},
		{name: "blinding with calls, interpreter", sysctl: harden("2"), ret: 3, prog: &trace.Prog{ID: 7, Type: 1, Asked: new(bool)}, insns: long,
			stage: load.Blinding, stages: ok + " blinding? install+", jump: true},
		{name: "not asked for", sysctl: harden("2"), ret: 3, prog: &trace.Prog{ID: 7, Type: 1, Asked: new(bool), JITed: true}, insns: long,
			stages: ok + " jit+ install+"},
		{name: "blinding of an unprivileged loader", sysctl: harden("1"), ret: -524, insns: long, caps: 0,
			stage: load.Blinding, stages: "request? permission? resources? btf? verifier? blinding?", jump: true},
		{name: "no blinding of a privileged loader", sysctl: harden("1"), ret: -524, insns: long, caps: 1 << 39,
			stage: load.JIT, stages: "request? permission? resources? btf? verifier? jit?"},
		{name: "no blinding", sysctl: harden("0"), ret: -524, insns: long,
			stage: load.JIT, stages: "request? permission? resources? btf? verifier? jit?"},
		{name: "hardened, and the program fits", sysctl: harden("2"), ret: -524, insns: short,
			stage: load.JIT, stages: "request? permission? resources? btf? verifier? blinding? jit?"},
		{name: "hardened, close to the limit", sysctl: harden("2"), ret: -524, insns: overflowing(10800), stage: "", stages: all},
		{name: "hardened, program unknown", sysctl: harden("2"), ret: -524, stage: "", stages: all},
		{name: "hardening unknown, program too long", ret: -524, insns: long, stage: "", stages: all},
		{name: "hardening unknown, program short", ret: -524, insns: short,
			stage: load.JIT, stages: "request? permission? resources? btf? verifier? blinding? jit?"},
		{name: "kfunc call that the JIT lacks", sysctl: harden("2"), ret: -524, insns: short, level: 1, log: "JIT does not support calling kernel function\n",
			stage: load.Verifier, stages: "request? permission? resources? btf? verifier?"},
		{name: "verifier", sysctl: harden("0"), ret: -13, level: 1,
			log:   "0: R1=ctx(off=0,imm=0) R10=fp0\n0: (79) r0 = *(u64 *)(r1 +0)\nR0 invalid mem access 'scalar'\nprocessed 1 insns (limit 1000000)\n",
			stage: load.Verifier, stages: "request? permission? resources? btf? verifier?"},
		{name: "line_info", sysctl: harden("0"), ret: -22, level: 1, log: "Invalid line_info[0].line_off:99\n",
			stage: load.BTF, stages: "request? permission? resources? btf?"},
		{name: "tail call into another type", sysctl: harden("0"), ret: -22, level: 1, log: "processed 5 insns (limit 1000000)\n",
			stage: "", stages: ok + " jit? install?"},
		{name: "EINVAL and silence", sysctl: harden("0"), ret: -22, level: 1, stage: "", stages: "request? permission? resources? btf? verifier? jit? install?"},
		{name: "EACCES, no log asked", sysctl: harden("0"), ret: -13, stage: "", stages: "request? permission? resources? btf? verifier? jit? install?"},
		{name: "EACCES, log empty", sysctl: harden("0"), ret: -13, level: 1, log: "\x00", stage: load.Permission, stages: "request? permission?"},
		{name: "EPERM", sysctl: harden("0"), ret: -1, stage: load.Permission, stages: "request? permission?"},
		{name: "no room for the log", sysctl: harden("0"), ret: -28, level: 1, log: "0: R1=ctx(off=0",
			stage: load.Verifier, stages: "request? permission? resources? btf? verifier?"},
		{name: "insn_cnt", sysctl: harden("0"), ret: -7, insnCnt: 1000001, stage: load.Request, stages: "request?"},
		{name: "complexity", sysctl: harden("0"), ret: -7, insnCnt: 100, level: 1,
			log:   "BPF program is too large. Processed 1000001 insn\nprocessed 1000001 insns (limit 1000000)\n",
			stage: load.Verifier, stages: "request? permission? resources? btf? verifier?"},
		{name: "attr of a kernel to come", sysctl: harden("0"), ret: -7, insnCnt: 2, tail: true, stage: load.Request, stages: "request?"},
		{name: "signal", sysctl: harden("0"), ret: -11, stage: load.Verifier, stages: "request? permission? resources? btf? verifier?"},
		{name: "EMFILE", sysctl: harden("0"), ret: -24, level: 1, log: "processed 2 insns (limit 1000000)\n",
			stage: load.Install, stages: ok + " jit? install?"},
		{name: "no memory", sysctl: harden("0"), ret: -12, stage: load.Resources, stages: "request? permission? resources?"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := req{typ: 1, name: "p", insns: test.insns, insnCnt: test.insnCnt, logLevel: test.level}
			if test.level != 0 {
				r.logSize = 4096
			}
			c := loadCall(r, test.ret)
			c.Prog = test.prog
			if test.tail {
				c.Attr = append(c.Attr, make([]byte, 256-len(c.Attr))...)
				c.Attr[250] = 1
			}
			c.Creds.CapEffective = test.caps
			var recs []trace.Record
			if test.insns != nil {
				recs = append(recs, chunk(c, trace.Insns, insn.Encode(test.insns)))
			}
			if test.log != "" {
				recs = append(recs, logChunk(c, test.log))
			}
			var sysctls []string
			if test.sysctl != "" {
				sysctls = append(sysctls, test.sysctl)
			}
			got := attempts(header("6.18.44", classicHooks, sysctls...), append(recs, trace.Record{Call: c})...)
			qt.Assert(t, qt.HasLen(got, 1))
			at := got[0]
			qt.Check(t, qt.Equals(at.FailedStage, test.stage))
			qt.Check(t, qt.Equals(stageLine(at), test.stages))
			qt.Assert(t, qt.Equals(at.Jump != nil, test.jump))
			if test.jump {
				// 12,000 additions of a constant take three slots each; the jump over them is not
				// blinded itself.
				qt.Check(t, qt.CmpEquals(*at.Jump, load.Jump{
					From: 2, To: 12003, Need: 36000, Limit: 32767, Before: 12004, After: 36004,
					Insn: "if r0 == r6 goto pc+12000",
				}))
			}
		})
	}
}

// A hook that saw the program come back un-jited, but none on the blinding pass: the model decides.
func TestJITWatchedBlindingNot(t *testing.T) {
	hooks := []load.Function{load.FnSyscall, load.FnLoad, load.FnCheck, load.FnDoCheck, load.FnSelect, load.FnJIT}
	prog := overflowing(12000)
	c := loadCall(req{typ: 1, insns: prog}, -524,
		run(load.FnSyscall, -524, run(load.FnLoad, -524, run(load.FnCheck, 0, run(load.FnDoCheck, 0)), run(load.FnSelect, -524, unjited()))))
	got := attempts(header("6.1.192", hooks, "net.core.bpf_jit_harden=2"), chunk(c, trace.Insns, insn.Encode(prog)), trace.Record{Call: c})
	qt.Assert(t, qt.HasLen(got, 1))
	qt.Check(t, qt.Equals(got[0].FailedStage, load.Blinding))
	qt.Check(t, qt.Equals(stageLine(got[0]), ok+" blinding?"))
	qt.Assert(t, qt.IsNotNil(got[0].Jump))
	qt.Check(t, qt.IsFalse(got[0].Evidence.Observed[load.Blinding]))
}

func TestSeccompInFront(t *testing.T) {
	blocked := func(start uint64, mode uint32) *trace.Call {
		return &trace.Call{ID: trace.CallID{TID: 9, Start: start}, End: start, TGID: 9, Kind: load.OtherCommand, Ret: -1, FailedInsn: -1,
			Flags: trace.CallFlags{ExitSeen: true}, Creds: &trace.Creds{SeccompMode: mode}}
	}
	h := header("6.18.44", classicHooks)
	one := func(recs ...trace.Record) *load.Attempt {
		got := attempts(h, recs...)
		qt.Assert(t, qt.HasLen(got, 1))
		return got[0]
	}
	at := one(trace.Record{Call: blocked(1000, 2)}, trace.Record{Call: blocked(2000, 2)})
	qt.Check(t, qt.Equals(at.FailedStage, load.Request))
	qt.Check(t, qt.Equals(at.Retries, 1))
	qt.Check(t, qt.Equals(at.Evidence.SeccompMode, 2))
	qt.Check(t, qt.IsFalse(at.Evidence.EnterSeen))
	// With a hole in the record it may be an entry that was missed.
	at = one(trace.Record{Loss: &trace.Loss{Mechanism: "ring", Count: 3, From: 500, To: 1500}}, trace.Record{Call: blocked(1000, 2)})
	qt.Check(t, qt.Equals(at.FailedStage, ""))
	qt.Check(t, qt.IsTrue(at.Incomplete))
	qt.Check(t, qt.DeepEquals(at.IncompleteWhy, []string{"3 events lost while it ran (ring)"}))
	// Other loads that are in no record are no hole in this one.
	for _, m := range []string{trace.LostLoads, trace.LostSyscalls} {
		at = one(trace.Record{Loss: &trace.Loss{Mechanism: m, Count: 3, From: 500, To: 1500}}, trace.Record{Call: blocked(1000, 2)})
		qt.Check(t, qt.Equals(at.FailedStage, load.Request))
		qt.Check(t, qt.IsFalse(at.Incomplete))
	}

	// Without a policy it is another command, or a call that began before anybody watched.
	qt.Check(t, qt.HasLen(attempts(h, trace.Record{Call: blocked(1000, 0)}), 0))
	unread := blocked(1000, 0)
	unread.Creds = nil
	qt.Check(t, qt.Equals(one(trace.Record{Call: unread}).FailedStage, ""), qt.Commentf("EPERM is what policies say"))
	unread.Ret = -2
	qt.Check(t, qt.HasLen(attempts(h, trace.Record{Call: unread}), 0))

	// Where the policy itself is watched there is no doubt, and the request may be known.
	seen := header("6.12.0", append(classicHooks, load.FnLoad))
	seen.Hooks = append(seen.Hooks, trace.Hook{Function: load.FnDenied, Via: "fentry"})
	known := blocked(1000, 2)
	known.Kind, known.Cmd, known.Attr = load.ProgLoad, 5, req{typ: 6, name: "p", insnCnt: 2}.attr()
	got := attempts(seen, trace.Record{Call: known})
	qt.Assert(t, qt.HasLen(got, 1))
	qt.Check(t, qt.Equals(got[0].Program.Type, "xdp"))
	qt.Check(t, qt.Equals(stageLine(got[0]), "request-1"))
	known.Kind, known.Cmd = load.MapCreate, 0
	qt.Check(t, qt.Equals(stageLine(attempts(seen, trace.Record{Call: known})[0]), "request-1"))
}

func TestOtherKinds(t *testing.T) {
	mapAttr := func(set map[int]uint32) []byte {
		b := req{set: set}.attr()[:72]
		clear(b[progInsns:progIfindex])
		copy(b[mapName:], "m\x1b[31m")
		for off, v := range set {
			b[off] = byte(v)
		}
		return b
	}
	call := func(k load.Kind, cmd uint32, ret int64, attr []byte, ex ...ex) *trace.Call {
		c := &trace.Call{ID: trace.CallID{TID: 9, Start: 1000}, TGID: 9, Kind: k, Cmd: cmd, Ret: ret, Attr: attr, FailedInsn: -1,
			Flags: trace.CallFlags{EnterSeen: true, ExitSeen: true}}
		play(c, filter(ex, allHooks))
		return c
	}
	lru := map[int]uint32{0: 9, 4: 4, 8: 8, 12: 16, 16: 1}
	for _, test := range []struct {
		name   string
		call   *trace.Call
		stage  load.Stage
		stages string
	}{
		{"map works", call(load.MapCreate, 0, 3, mapAttr(lru)), "", "request+ permission+ resources+ btf+ install+"},
		{"LRU without preallocation", call(load.MapCreate, 0, -524, mapAttr(lru)), load.Request, "request?"},
		{"map BTF", call(load.MapCreate, 0, -524, mapAttr(map[int]uint32{0: 14, 48: 5, 52: 1, 56: 2})), load.BTF, "request? permission? resources? btf?"},
		{"map capability", call(load.MapCreate, 0, -1, mapAttr(lru), run(load.FnSyscall, -1, capable(39))), load.Permission, "request? permission-1"},
		{"map memory", call(load.MapCreate, 0, -12, mapAttr(lru)), load.Resources, "request? permission? resources?"},
		{"map files", call(load.MapCreate, 0, -24, mapAttr(lru)), load.Install, "request? permission? resources? btf? install?"},
		{"BTF", call(load.BTFLoad, 18, -22, make([]byte, 32)), load.BTF, "request? permission? resources? btf?"},
		{"link", call(load.LinkCreate, 28, -22, make([]byte, 48)), load.Request, "request?"},
		{"kind from the command", call("", 28, -13, make([]byte, 48)), load.Permission, "request? permission?"},
		{"seccomp filter", call(load.Seccomp, 0, -524, nil, run(load.FnSeccomp, -524, unjited(run(load.FnModmem, -1)))), load.JIT,
			"request+ permission+ resources+ verifier+ jit-1"},
		{"seccomp filter, few hooks", call(load.Seccomp, 0, -524, nil, run(load.FnSeccomp, -524)), load.JIT,
			"request? permission? resources? verifier? jit-524"},
		{"socket filter refused", call(load.SocketFilter, 0, -22, nil, run(load.FnSockFilter, -22)), load.Verifier,
			"request? permission? resources? verifier-22"},
		{"socket filter memory", call(load.SocketFilter, 0, -12, nil, run(load.FnSockFilter, -12)), load.Resources,
			"request? permission? resources-12"},
	} {
		t.Run(test.name, func(t *testing.T) {
			hooks := []load.Function{load.FnSyscall, load.FnSeccomp, load.FnSockFilter, load.FnJIT, load.FnModmem, load.FnCapable}
			got := attempts(header("6.12.0", hooks), trace.Record{Call: test.call})
			qt.Assert(t, qt.HasLen(got, 1))
			at := got[0]
			qt.Check(t, qt.Equals(at.FailedStage, test.stage))
			qt.Check(t, qt.Equals(stageLine(at), test.stages))
			if at.Kind == load.MapCreate && test.name != "map BTF" {
				qt.Check(t, qt.DeepEquals(at.Map, &load.Map{Name: `m\x1b[31m`, Type: "lru_hash", KeySize: 4, ValueSize: 8, MaxEntries: 16, Flags: 1}))
			}
		})
	}
}
