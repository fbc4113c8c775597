// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/binary"
	"time"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// The attempts below are written by hand from what the kernels were seen to do.

const (
	allCaps     = 1<<41 - 1
	bpfCap      = 1 << abi.CapBPF
	perfmonCap  = 1 << abi.CapPerfmon
	netAdminCap = 1 << abi.CapNetAdmin
)

// Nodes of the lab: no configuration with JIT_ALWAYS_ON, hooks everywhere.
func lab(release string, sysctls ...string) *node.Profile {
	n := &node.Profile{
		Release:  release,
		Machine:  "x86_64",
		Config:   map[string]string{"CONFIG_BPF_JIT": "y", "CONFIG_BPF_JIT_ALWAYS_ON": "n"},
		Lockdown: "none",
		LSMs:     []string{"lockdown", "capability", "yama", "apparmor"},
		BTF:      true,
		Sysctls: map[string]string{
			"net.core.bpf_jit_harden":          "0",
			"net.core.bpf_jit_enable":          "1",
			"kernel.unprivileged_bpf_disabled": "0",
		},
	}
	for i := 0; i+1 < len(sysctls); i += 2 {
		n.Sysctls[sysctls[i]] = sysctls[i+1]
	}
	return n
}

// hardenedHost is the 6.18 machine: no interpreter, neither kprobes nor fentry.
func hardenedHost(sysctls ...string) *node.Profile {
	n := lab("6.18.5", sysctls...)
	n.Config["CONFIG_BPF_JIT_ALWAYS_ON"] = "y"
	return n
}

// option changes an attempt.
type option func(*load.Attempt)

func attempt(kind load.Kind, errno int, opts ...option) *load.Attempt {
	a := &load.Attempt{
		Schema:  load.Schema,
		Kind:    kind,
		Outcome: load.Failed,
		Errno:   errno,
		Process: load.Process{PID: 100, TID: 100, Comm: "loader"},
		Evidence: load.Evidence{
			FailedInsn: -1, UserNSLevel: 0, SeccompMode: 0, EnterSeen: true, Harden: -1,
			Caps: allCaps, CapsKnown: true, Observed: map[load.Stage]bool{},
		},
	}
	if kind == load.ProgLoad {
		a.Program = &load.Program{Name: "prog", Type: "socket_filter", Insns: 2, License: "GPL"}
		a.Evidence.Attr = make([]byte, 148)
		binary.LittleEndian.PutUint32(a.Evidence.Attr[attrProgType:], 1)
		binary.LittleEndian.PutUint32(a.Evidence.Attr[attrInsnCnt:], 2)
	}
	for _, o := range opts {
		o(a)
	}
	return a
}

func progLoad(errno int, opts ...option) *load.Attempt { return attempt(load.ProgLoad, errno, opts...) }

func unjitedLoad(opts ...option) *load.Attempt {
	return progLoad(0, append([]option{func(a *load.Attempt) { a.Outcome = load.LoadedNotJITed }}, opts...)...)
}

// hooked says that every stage was watched, and how far the load came: the
// stages in ok succeeded, failed (if any) did not.
func hooked(failed load.Stage, errno int, ok ...load.Stage) option {
	return func(a *load.Attempt) {
		for _, s := range load.Stages {
			a.Evidence.Observed[s] = true
		}
		for _, s := range ok {
			a.Stages = append(a.Stages, load.StageResult{Stage: s, Result: load.OK, DurationNS: 412 * time.Millisecond})
		}
		if failed != "" {
			a.Stages = append(a.Stages, load.StageResult{Stage: failed, Result: load.StageFailed, Errno: errno})
			a.FailedStage = failed
		}
	}
}

// unhooked says that nothing but the system call was watched.
func unhooked() option {
	return func(a *load.Attempt) {
		a.Stages = append(a.Stages, load.StageResult{Stage: load.Request, Result: load.OK})
		for _, s := range load.Stages[1:] {
			a.Stages = append(a.Stages, load.StageResult{Stage: s, Result: load.NotObserved})
		}
	}
}

// spans are failing executions, innermost first; all of them causal.
func spans(ss ...load.Span) option {
	return func(a *load.Attempt) {
		for _, s := range ss {
			s.Cause = true
			a.Evidence.Spans = append(a.Evidence.Spans, s)
		}
	}
}

// benign are failing executions that did no harm.
func benign(ss ...load.Span) option {
	return func(a *load.Attempt) { a.Evidence.Spans = append(a.Evidence.Spans, ss...) }
}

func span(fn load.Function, ret int) load.Span { return load.Span{Function: fn, Ret: ret} }

func spanArg(fn load.Function, ret int, arg int64) load.Span {
	return load.Span{Function: fn, Ret: ret, Arg: arg}
}

func progType(t string) option { return func(a *load.Attempt) { a.Program.Type = t } }

func caps(c uint64) option {
	return func(a *load.Attempt) {
		a.Evidence.Caps = c
		a.Process.UID = 1000
	}
}

func capsUnknown() option { return func(a *load.Attempt) { a.Evidence.CapsKnown = false } }

func log(text string) option {
	return func(a *load.Attempt) {
		a.Evidence.Log = text
		a.Evidence.LogLevel = 1
		a.Evidence.LogSize = 1 << 16
		a.VerifierLog.Origin = load.LogLoader
	}
}

// said is what was read from a verifier whose loader asked for no log.
func said(lines ...string) option {
	return func(a *load.Attempt) {
		a.Evidence.Messages = lines
		a.VerifierLog.Origin = load.LogKernel
	}
}

func harden(v int) option { return func(a *load.Attempt) { a.Evidence.Harden = v } }

func failedInsn(i int) option { return func(a *load.Attempt) { a.Evidence.FailedInsn = i } }

func insns(prog ...insn.Instruction) option {
	return func(a *load.Attempt) {
		a.Evidence.Insns = prog
		a.Evidence.InsnsState = load.InsnsVerified
		a.Program.Insns = len(prog)
		binary.LittleEndian.PutUint32(a.Evidence.Attr[attrInsnCnt:], uint32(len(prog)))
	}
}

func insnCount(n int) option {
	return func(a *load.Attempt) {
		a.Program.Insns = n
		binary.LittleEndian.PutUint32(a.Evidence.Attr[attrInsnCnt:], uint32(n))
	}
}

func jump(from, to, need, limit int) option {
	return func(a *load.Attempt) {
		a.Jump = &load.Jump{From: from, To: to, Need: need, Limit: limit, Insn: "if r1 == 0x1 goto pc+10384", Before: 19316, After: 44012}
	}
}

func set(f func(*load.Attempt)) option { return f }

// Instructions.
var (
	movR0    = insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV, Dst: 0}
	exit     = insn.Instruction{Code: insn.OpcodeExit}
	gotol    = insn.Instruction{Code: insn.OpcodeGotol}
	movsx    = insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV | insn.SourceX, Off: 8}
	kfunc    = insn.Instruction{Code: insn.OpcodeCall, Src: insn.PseudoKfuncCall, Imm: 0}
	selfCall = insn.Instruction{Code: insn.OpcodeCall, Src: insn.PseudoCall, Imm: 1}
)

func call(helper int32) insn.Instruction { return insn.Instruction{Code: insn.OpcodeCall, Imm: helper} }

func mapFD(fd int32) insn.Instruction {
	return insn.Instruction{Code: insn.OpcodeLoadImm64, Dst: 1, Src: insn.PseudoMapFD, Imm: fd}
}

func decode(b []byte) []insn.Instruction {
	prog, err := insn.Decode(b[:len(b)/insn.Size*insn.Size])
	if err != nil {
		panic(err)
	}
	return prog
}

func movR0to(reg uint8) insn.Instruction {
	return insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV | insn.SourceX, Dst: reg, Src: 0}
}

// loadVia reads eight bytes into R0.
func loadVia(reg uint8, off int16) insn.Instruction {
	return insn.Instruction{Code: insn.ClassLDX | insn.ModeMEM | insn.SizeDW, Dst: 0, Src: reg, Off: off}
}

func ifR0(off int16) insn.Instruction {
	return insn.Instruction{Code: insn.ClassJMP | insn.OpJEQ, Dst: 0, Off: off}
}

// Offsets in union bpf_attr, for tests that write an attr field by field.
const (
	attrProgType  = int(unsafe.Offsetof(abi.ProgLoad{}.ProgType))
	attrInsnCnt   = int(unsafe.Offsetof(abi.ProgLoad{}.InsnCnt))
	attrLogLevel  = int(unsafe.Offsetof(abi.ProgLoad{}.LogLevel))
	attrProgFlags = int(unsafe.Offsetof(abi.ProgLoad{}.ProgFlags))
	attrMapType   = int(unsafe.Offsetof(abi.MapCreate{}.MapType))
	attrKeySize   = int(unsafe.Offsetof(abi.MapCreate{}.KeySize))
	attrValueSize = int(unsafe.Offsetof(abi.MapCreate{}.ValueSize))
	attrMaxElems  = int(unsafe.Offsetof(abi.MapCreate{}.MaxEntries))
	attrMapFlags  = int(unsafe.Offsetof(abi.MapCreate{}.MapFlags))
	attrMapBTFFD  = int(unsafe.Offsetof(abi.MapCreate{}.BTFFD))
)
