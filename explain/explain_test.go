// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// A fixture is one attempt and what is to be said about it.
type fixture struct {
	name    string
	attempt *load.Attempt
	node    *node.Profile
	rule    string
	how     load.HowKnown
	stage   load.Stage
	// others are the alternatives, in order; nil: none.
	others   []string
	evidence []string // substrings of evidence or cause
}

const nullLog = `0: R1=ctx() R10=fp0
; struct value *v = bpf_map_lookup_elem(&m, &key);
5: (85) call bpf_map_lookup_elem#1    ; R0=map_value_or_null(id=1,map=m,ks=4,vs=8)
; return v->count;
6: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
`

const cleanLog = "func#0 @0\n0: R1=ctx() R10=fp0\n0: (b7) r0 = 0\n1: (95) exit\nprocessed 19316 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 0\n"

// reject is a verifier log that ends with the given lines.
func reject(lines string) string {
	return "0: R1=ctx() R10=fp0\n0: (b7) r2 = 0\n1: (61) r3 = *(u32 *)(r1 +0)\n" + lines + "\nprocessed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n"
}

func rejected(errno int) []option {
	return []option{
		hooked(load.Verifier, errno, load.Request, load.Permission),
		spans(span(load.FnDoCheck, -errno), span(load.FnCheck, -errno), span(load.FnLoad, -errno)),
	}
}

// early is a reject before do_check.
func early(errno int) []option {
	return []option{
		hooked(load.Verifier, errno, load.Request, load.Permission),
		spans(span(load.FnCheck, -errno), span(load.FnLoad, -errno)),
	}
}

func with(opts []option, more ...option) []option { return append(opts, more...) }

// The rows of the table of kernel behaviour (docs/stages.md), kernel by
// kernel.
var kernelRows = []fixture{
	// Blinding overflow, one function.
	{
		name: "blinding, one function, 5.10",
		attempt: unjitedLoad(harden(2), jump(1, 10386, 40000, 32767),
			hooked(load.Blinding, 34, load.Request, load.Permission, load.Verifier),
			spans(span("bpf_adj_branches", -34), spanArg(load.FnPatch, -34, 10385), span(load.FnBlind, -34), load.Span{Function: load.FnJIT, Unjited: true})),
		node: lab("5.10.0-30-cloud-amd64", "net.core.bpf_jit_harden", "2"),
		rule: "BLIND003", how: load.Observed, stage: load.Blinding,
		evidence: []string{"bpf_patch_insn_single(off=10385) returned -34 (ERANGE)", "net.core.bpf_jit_harden was 2", "bpf_check returned 0 after 412 ms: the verifier accepted the program"},
	},
	{
		name: "blinding, one function, 6.1",
		attempt: progLoad(524, harden(2), jump(1, 10386, 40000, 32767),
			hooked(load.Blinding, 34, load.Request, load.Permission, load.Verifier),
			spans(spanArg(load.FnPatch, -34, 10385), span(load.FnBlind, -34), load.Span{Function: load.FnJIT, Unjited: true}, span(load.FnSelect, -524), span(load.FnLoad, -524))),
		node: lab("6.1.0-49-cloud-amd64", "net.core.bpf_jit_harden", "2"),
		rule: "BLIND001", how: load.Observed, stage: load.Blinding,
		evidence: []string{"bpf_patch_insn_single(off=10385) returned -34 (ERANGE)", "bpf_jit_blind_constants returned -34 (ERANGE)", "needs an offset of 40000 after blinding, the limit is 32767"},
	},
	{
		name: "blinding, one function, 6.12",
		attempt: unjitedLoad(harden(2),
			hooked(load.Blinding, 34, load.Request, load.Permission, load.Verifier),
			spans(spanArg(load.FnPatch, -34, 10385), span(load.FnBlind, -34), load.Span{Function: load.FnJIT, Unjited: true})),
		node: lab("6.12.12", "net.core.bpf_jit_harden", "2"),
		rule: "BLIND003", how: load.Observed, stage: load.Blinding,
		evidence: []string{"off=10385"},
	},
	{
		name: "blinding, one function, 7.2: bpf_jit_blind_constants says ENOMEM",
		attempt: unjitedLoad(harden(2),
			hooked(load.Blinding, 12, load.Request, load.Permission, load.Verifier),
			spans(spanArg(load.FnPatch, -34, 10385), span(load.FnBlind, -12))),
		node: lab("7.2.13", "net.core.bpf_jit_harden", "2"),
		rule: "BLIND003", how: load.Observed, stage: load.Blinding,
		evidence: []string{"bpf_jit_blind_constants returned -12 (ENOMEM)"},
	},
	{
		name: "blinding, one function, 7.2, jit required",
		attempt: progLoad(524, harden(2),
			hooked(load.Blinding, 12, load.Request, load.Permission, load.Verifier),
			spans(spanArg(load.FnPatch, -34, 10385), span(load.FnBlind, -12), span(load.FnSelect, -524), span(load.FnCheck, -524), span(load.FnLoad, -524))),
		node: lab("7.2.13", "net.core.bpf_jit_harden", "2"),
		rule: "BLIND001", how: load.Observed, stage: load.Blinding,
	},
	{
		name: "blinding, with calls, 6.1: the interpreter takes over",
		attempt: unjitedLoad(harden(2), insns(selfCall, exit, movR0, exit),
			hooked(load.Blinding, 34, load.Request, load.Permission, load.Verifier),
			spans(spanArg(load.FnPatch, -34, 77), span(load.FnBlind, -34), span(load.FnJITSubprogs, -524))),
		node: lab("6.1.0-49-cloud-amd64", "net.core.bpf_jit_harden", "2"),
		rule: "BLIND003", how: load.Observed, stage: load.Blinding,
	},
	{
		name: "blinding, with calls, 7.2: the fallback hides the cause from the parents",
		attempt: unjitedLoad(harden(2), insns(selfCall, exit, movR0, exit),
			hooked(load.Blinding, 12, load.Request, load.Permission, load.Verifier),
			benign(spanArg(load.FnPatch, -34, 77), span(load.FnBlind, -12), span(load.FnJITSubprogs, -12))),
		node: lab("7.2.13", "net.core.bpf_jit_harden", "2"),
		rule: "BLIND003", how: load.Observed, stage: load.Blinding,
	},
	{
		name: "blinding, with calls, JIT_ALWAYS_ON: bpf_check returns it",
		attempt: progLoad(524, harden(2), insns(selfCall, exit, movR0, exit),
			hooked(load.Blinding, 34, load.Request, load.Permission),
			spans(spanArg(load.FnPatch, -34, 77), span(load.FnBlind, -34), span(load.FnJITSubprogs, -524), span(load.FnCheck, -524), span(load.FnLoad, -524))),
		node: hardenedHost("net.core.bpf_jit_harden", "2"),
		rule: "BLIND002", how: load.Observed, stage: load.Blinding,
	},
	{
		name:    "blinding on the host without hooks: derived from program, sysctl and errno",
		attempt: progLoad(524, harden(2), jump(3, 19300, 38755, 32767), insns(movR0, exit), unhooked(), log(cleanLog)),
		node:    hardenedHost("net.core.bpf_jit_harden", "2"),
		rule:    "BLIND001", how: load.Inferred, stage: load.Blinding,
		evidence: []string{"needs an offset of 38755 after blinding", "the kernel has no interpreter", "the verifier's log ends with", "not observed: permission"},
	},
	{
		name:    "blinding on the host without hooks, with calls",
		attempt: progLoad(524, harden(2), jump(3, 19300, 38755, 32767), insns(selfCall, exit, movR0, exit), unhooked()),
		node:    hardenedHost("net.core.bpf_jit_harden", "2"),
		rule:    "BLIND002", how: load.Inferred, stage: load.Blinding,
	},
	{
		name:    "harden 1 blinds a loader without CAP_BPF, and the JIT limit applies to it as well",
		attempt: progLoad(524, harden(1), caps(0), jump(3, 19300, 38755, 32767), insns(movR0, exit), unhooked()),
		node:    hardenedHost("net.core.bpf_jit_harden", "1"),
		rule:    "BLIND001", how: load.Inferred, stage: load.Blinding,
		others: []string{"JIT001"},
	},

	// JIT memory limit.
	{
		name: "JIT memory limit, unprivileged loader, 5.10",
		attempt: unjitedLoad(caps(0),
			hooked(load.JIT, 1, load.Request, load.Permission, load.Verifier),
			spans(span(load.FnModmem, -1), load.Span{Function: load.FnJIT, Unjited: true})),
		node: lab("5.10.0-30-cloud-amd64"),
		rule: "JIT001", how: load.Observed, stage: load.JIT,
		evidence: []string{"bpf_jit_charge_modmem returned -1 (EPERM)"},
	},
	{
		name: "JIT memory limit, unprivileged loader, 6.1",
		attempt: progLoad(524, caps(0),
			hooked(load.JIT, 524, load.Request, load.Permission, load.Verifier),
			spans(span(load.FnModmem, -1), load.Span{Function: load.FnJIT, Unjited: true}, span(load.FnSelect, -524), span(load.FnLoad, -524))),
		node: lab("6.1.0-49-cloud-amd64"),
		rule: "JIT001", how: load.Observed, stage: load.JIT,
	},
	{
		name: "JIT memory limit, unprivileged loader, 6.12 and 7.2",
		attempt: unjitedLoad(caps(0),
			hooked(load.JIT, 1, load.Request, load.Permission, load.Verifier),
			benign(span(load.FnModmem, -1))),
		node: lab("7.2.13"),
		rule: "JIT001", how: load.Observed, stage: load.JIT,
	},
	{
		name:    "the next container's seccomp filter: no bpf(2), no capability",
		attempt: attempt(load.Seccomp, 524, caps(0), unhooked()),
		node:    hardenedHost("net.core.bpf_jit_limit", "528482304"),
		rule:    "JIT001", how: load.Inferred, stage: load.JIT,
		others:   []string{"JIT002"},
		evidence: []string{"net.core.bpf_jit_limit was 528482304 bytes", "The process that installs the filter is not the cause"},
	},
	{
		name:    "seccomp filter, with the charge seen",
		attempt: attempt(load.Seccomp, 524, caps(0), hooked(load.JIT, 524), spans(span(load.FnModmem, -1), load.Span{Function: load.FnJIT, Unjited: true}, span(load.FnSelect, -524), span(load.FnSeccomp, -524))),
		node:    hardenedHost(),
		rule:    "JIT001", how: load.Observed, stage: load.JIT,
	},

	// Permission.
	{
		name: "no capability, 5.10 to 6.1",
		attempt: progLoad(1, progType("kprobe"), caps(0),
			hooked(load.Permission, 1, load.Request),
			spans(spanArg(load.FnCapable, -1, abi.CapBPF), spanArg(load.FnCapable, -1, abi.CapSysAdmin), span(load.FnLoad, -1))),
		node: lab("6.1.0-49-cloud-amd64"),
		rule: "PERM001", how: load.Observed, stage: load.Permission,
		evidence: []string{"CAP_BPF and CAP_PERFMON", "found that it has not", "the loader had no effective capability", "bpf_check was watched and was not called"},
	},
	{
		name: "CAP_BPF alone is not enough for XDP",
		attempt: progLoad(1, progType("xdp"), caps(bpfCap),
			hooked(load.Permission, 1, load.Request),
			spans(spanArg(load.FnCapable, -1, abi.CapNetAdmin), spanArg(load.FnCapable, -1, abi.CapSysAdmin), span(load.FnLoad, -1))),
		node: lab("6.12.12"),
		rule: "PERM001", how: load.Observed, stage: load.Permission,
		evidence: []string{"needs CAP_NET_ADMIN, which"},
	},
	{
		name: "unprivileged_bpf_disabled, 6.1: bpf_prog_load is not called",
		attempt: progLoad(1, caps(0),
			hooked(load.Permission, 1),
			spans(spanArg(load.FnCapable, -1, abi.CapBPF), spanArg(load.FnCapable, -1, abi.CapSysAdmin))),
		node: lab("6.1.0-49-cloud-amd64", "kernel.unprivileged_bpf_disabled", "2"),
		rule: "PERM002", how: load.Observed, stage: load.Permission,
		evidence: []string{"kernel.unprivileged_bpf_disabled was 2"},
	},
	{
		name: "unprivileged_bpf_disabled, 6.12: looks like the capability case",
		attempt: progLoad(1, caps(0),
			hooked(load.Permission, 1, load.Request),
			spans(spanArg(load.FnCapable, -1, abi.CapBPF), spanArg(load.FnCapable, -1, abi.CapSysAdmin), span(load.FnLoad, -1))),
		node: lab("6.12.12", "kernel.unprivileged_bpf_disabled", "2"),
		rule: "PERM002", how: load.Observed, stage: load.Permission,
	},
	{
		name:    "unprivileged_bpf_disabled without hooks",
		attempt: progLoad(1, caps(0), unhooked()),
		node:    hardenedHost("kernel.unprivileged_bpf_disabled", "2"),
		rule:    "PERM002", how: load.Inferred, stage: load.Permission,
	},
	{
		name:    "no capability without hooks: the type needs it whatever the sysctl says",
		attempt: progLoad(1, caps(0), progType("kprobe"), unhooked()),
		node:    hardenedHost("kernel.unprivileged_bpf_disabled", "2"),
		rule:    "PERM001", how: load.Inferred, stage: load.Permission,
		others: []string{"PERM002"},
	},
	{
		name: "root in a user namespace",
		attempt: progLoad(1, progType("tracepoint"), unhooked(), set(func(a *load.Attempt) {
			a.Evidence.UserNSLevel = 1
		})),
		node: hardenedHost(),
		rule: "PERM001", how: load.Inferred, stage: load.Permission,
		evidence: []string{"its capabilities do not count for bpf(2)"},
	},
	{
		name: "lockdown=confidentiality, 6.1",
		attempt: progLoad(22, with(rejected(22), progType("kprobe"),
			benign(spanArg(load.FnLockdown, -1, 20)), said("unknown func bpf_probe_read_kernel#113"))...),
		node: locked(lab("6.1.0-49-cloud-amd64"), "confidentiality"),
		rule: "PERM003", how: load.Observed, stage: load.Permission,
		evidence: []string{"security_locked_down returned -1 (EPERM)", "hides it from every program"},
	},
	{
		name: "lockdown=confidentiality, 6.12, no hooks",
		attempt: progLoad(22, progType("kprobe"), unhooked(),
			log(reject("program of this type cannot use helper bpf_probe_read_kernel#113"))),
		node: locked(hardenedHost(), "confidentiality"),
		rule: "PERM003", how: load.Inferred, stage: load.Permission,
	},
	{
		name: "lockdown=integrity takes bpf_probe_write_user away",
		attempt: progLoad(22, progType("kprobe"), unhooked(),
			log(reject("unknown func bpf_probe_write_user#36"))),
		node: locked(hardenedHost(), "integrity"),
		rule: "PERM004", how: load.Inferred, stage: load.Permission,
	},
	{
		name: "RLIMIT_MEMLOCK, 5.10, root",
		attempt: progLoad(1,
			hooked(load.Permission, 1, load.Request), spans(span(load.FnLoad, -1)), memlock(64<<10)),
		node: lab("5.10.0-30-cloud-amd64"),
		rule: "PERM007", how: load.Inferred, stage: load.Resources,
		evidence: []string{"RLIMIT_MEMLOCK was 65536 bytes", "the kernel is 5.10, from before 5.11"},
	},
	{
		name:    "RLIMIT_MEMLOCK, 5.10, map",
		attempt: attempt(load.MapCreate, 1, unhooked(), memlock(64<<10)),
		node:    lab("5.10.0-30-cloud-amd64"),
		rule:    "PERM007", how: load.Inferred, stage: load.Resources,
	},
	{
		name: "seccomp policy: an exit without an enter",
		attempt: attempt(load.OtherCommand, 1, set(func(a *load.Attempt) {
			a.Evidence.EnterSeen, a.Evidence.SeccompMode = false, 2
		})),
		node: hardenedHost(),
		rule: "PERM006", how: load.Observed, stage: load.Request,
	},
	{
		name: "a load that an exec cut short while a listener held it: no policy's answer",
		attempt: progLoad(512, unhooked(), set(func(a *load.Attempt) {
			a.Evidence.EnterSeen, a.Evidence.SeccompMode = false, 2
		})),
		node: hardenedHost(),
		rule: "REQ010", how: load.Observed, stage: load.Request,
		evidence: []string{"ERESTARTSYS (512)", "bpf(2) never began"},
	},
	{
		name: "near miss: a real policy, with an errno of its own",
		attempt: progLoad(38, unhooked(), set(func(a *load.Attempt) {
			a.Evidence.EnterSeen, a.Evidence.SeccompMode = false, 2
		})),
		node: hardenedHost(),
		rule: "PERM006", how: load.Observed, stage: load.Request,
	},

	// Request.
	{
		name:    "insn_cnt over a million",
		attempt: progLoad(7, insnCount(1_000_001), hooked(load.Request, 7), spans(span(load.FnLoad, -7))),
		node:    lab("6.12.12"),
		rule:    "REQ001", how: load.Observed, stage: load.Request,
		evidence: []string{"insn_cnt was 1000001"},
	},
	{
		name:    "bad map fd",
		attempt: progLoad(9, with(early(9), insns(mapFD(777), insn.Instruction{}, movR0, exit), said("fd 777 is not pointing to valid bpf_map"))...),
		node:    lab("6.1.0-49-cloud-amd64"),
		rule:    "REQ002", how: load.Observed, stage: load.Verifier,
		evidence: []string{"file descriptor 777", "instruction 0 (r1 = map[fd:777])"},
	},
	{
		name:    "bad map fd, nothing but the errno",
		attempt: progLoad(9, unhooked(), insns(mapFD(777), insn.Instruction{}, movR0, exit)),
		node:    hardenedHost(),
		rule:    "REQ002", how: load.Inferred, stage: load.Verifier,
		others: []string{"REQ007"},
	},
	{
		name:    "bad opcode, before do_check: only the verifier's words say why",
		attempt: progLoad(22, with(early(22), insns(insn.Instruction{Code: 0xff}, exit), said("unknown opcode ff"))...),
		node:    lab("6.12.12"),
		rule:    "REQ006", how: load.Observed, stage: load.Verifier,
	},
	{
		name: "log buffer too small: do_check succeeded",
		attempt: progLoad(28, hooked(load.Verifier, 28, load.Request, load.Permission), spans(span(load.FnCheck, -28), span(load.FnLoad, -28)),
			set(func(a *load.Attempt) { a.Evidence.LogLevel, a.Evidence.LogSize = 2, 256 }), logText("0: R1=ctx() R10=fp0\n0: (b7) r0 = 0")),
		node: lab("6.1.0-49-cloud-amd64"),
		rule: "REQ004", how: load.Observed, stage: load.Verifier,
		evidence: []string{"a buffer of 256 bytes at log level 2", "the program itself was accepted"},
	},
	{
		name:    "EMFILE: verified, compiled, and no descriptor",
		attempt: progLoad(24, hooked(load.Install, 24, load.Request, load.Permission, load.Verifier, load.JIT), nofile(3)),
		node:    lab("6.12.12"),
		rule:    "INST001", how: load.Observed, stage: load.Install,
		evidence: []string{"RLIMIT_NOFILE was 3"},
	},
	{
		name:    "EMFILE without hooks",
		attempt: progLoad(24, unhooked(), nofile(3)),
		node:    hardenedHost(),
		rule:    "INST001", how: load.Inferred, stage: load.Install,
	},
	{
		name:    "a signal interrupts the verifier",
		attempt: progLoad(11, rejected(11)...),
		node:    lab("6.1.0-49-cloud-amd64"),
		rule:    "VER201", how: load.Observed, stage: load.Verifier,
	},

	// The verifier.
	{
		name:    "null map value, with a log and without hooks",
		attempt: progLoad(13, unhooked(), log(nullLog)),
		node:    hardenedHost(),
		rule:    "VER001", how: load.Observed, stage: load.Verifier,
		evidence: []string{"uses R0, a pointer that may be NULL", "stopped at instruction 6 (r0 = *(u64 *)(r0 +0)) \"return v->count;\""},
	},
	{
		name: "null map value, no log buffer: the verifier's own words",
		attempt: progLoad(13, with(rejected(13), said("R0 invalid mem access 'map_value_or_null'"), failedInsn(1),
			insns(movR0, insn.Instruction{Code: insn.ClassLDX | insn.ModeMEM | insn.SizeDW}, exit))...),
		node: lab("5.10.0-30-cloud-amd64"),
		rule: "VER001", how: load.Observed, stage: load.Verifier,
		evidence: []string{"the loader asked for no log; read from the verifier itself: R0 invalid mem access 'map_value_or_null'", "stopped at instruction 1 (r0 = *(u64 *)(r0 +0))", "do_check_common returned -13 (EACCES)"},
	},
	{
		name:    "-mcpu=v4 on 6.1: a sign-extending move",
		attempt: progLoad(22, with(early(22), insns(movsx, exit), said("BPF_MOV uses reserved fields"))...),
		node:    lab("6.1.0-49-cloud-amd64"),
		rule:    "FEAT008", how: load.Observed, stage: load.Verifier,
		evidence: []string{"a sign-extending move (-mcpu=v4, 6.6) at instruction 0"},
	},
	{
		name:    "-mcpu=v4 on 5.10: gotol",
		attempt: progLoad(22, with(rejected(22), insns(gotol, movR0, exit), failedInsn(0), said("unknown opcode 06"))...),
		node:    lab("5.10.0-30-cloud-amd64"),
		rule:    "FEAT008", how: load.Observed, stage: load.Verifier,
		evidence: []string{"gotol (-mcpu=v4, 6.6)"},
	},
	{
		name:    "bad kfunc, before do_check",
		attempt: progLoad(22, with(early(22), insns(kfunc, exit), said("kernel btf_id 0 is not a function"))...),
		node:    lab("6.12.12"),
		rule:    "FEAT006", how: load.Observed, stage: load.Verifier,
	},
}

func locked(n *node.Profile, mode string) *node.Profile {
	n.Lockdown = mode
	return n
}

func memlock(n uint64) option {
	return func(a *load.Attempt) {
		a.Evidence.MemlockLimit, a.Evidence.NofileLimit, a.Evidence.LimitsKnown = n, 1024, true
	}
}

func nofile(n uint64) option {
	return func(a *load.Attempt) {
		a.Evidence.MemlockLimit, a.Evidence.NofileLimit, a.Evidence.LimitsKnown = unlimited, n, true
	}
}

func logText(s string) option { return func(a *load.Attempt) { a.Evidence.Log = s } }

func attr(off int, v uint32) option {
	return func(a *load.Attempt) {
		if len(a.Evidence.Attr) < off+4 {
			a.Evidence.Attr = append(a.Evidence.Attr, make([]byte, off+4-len(a.Evidence.Attr))...)
		}
		binary.LittleEndian.PutUint32(a.Evidence.Attr[off:], v)
	}
}

func fixtures() []fixture {
	return slices.Concat(kernelRows, verdictFixtures(), nearMisses, btf006Fixtures(), attachFixtures())
}

func TestExplain(t *testing.T) {
	for _, fx := range fixtures() {
		t.Run(fx.name, func(t *testing.T) {
			Conclude(fx.attempt, fx.node)
			d := fx.attempt.Diagnosis
			qt.Assert(t, qt.IsNotNil(d))
			dump := strings.Join(append([]string{d.Rule, d.Cause}, d.Evidence...), "\n")
			qt.Check(t, qt.Equals(d.Rule, fx.rule), qt.Commentf("%s\n%+v", dump, d.Alternatives))
			qt.Check(t, qt.Equals(d.HowKnown, fx.how))
			qt.Check(t, qt.Equals(fx.attempt.FailedStage, fx.stage))
			var others []string
			for _, o := range d.Alternatives {
				qt.Check(t, qt.Not(qt.Equals(o.Why, "")))
				others = append(others, o.Rule)
			}
			qt.Check(t, qt.DeepEquals(others, fx.others))
			for _, want := range fx.evidence {
				qt.Check(t, qt.StringContains(dump, want))
			}
			if fx.rule != Unknown {
				qt.Check(t, qt.Not(qt.HasLen(d.Remedies, 0)))
			}
		})
	}
}
