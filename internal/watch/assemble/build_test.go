// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/watch/hook"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// ex is one execution of a watched function, with what ran inside it in order.
type ex struct {
	fn      load.Function
	ret     int32
	arg     int64
	unjited bool
	in      []ex
}

func run(fn load.Function, ret int32, in ...ex) ex { return ex{fn: fn, ret: ret, in: in} }

func unjited(in ...ex) ex { return ex{fn: load.FnJIT, unjited: true, in: in} }

func patch(off int64) ex { return ex{fn: load.FnPatch, ret: -34, arg: off} }

func capable(c int64) ex { return ex{fn: load.FnCapable, ret: -1, arg: c} }

// allHooks is what fentry gives on 6.12.
var allHooks = func() (list []load.Function) {
	for n := uint32(0); hook.Numbered(n) != nil; n++ {
		list = append(list, hook.Numbered(n).Function)
	}
	return list
}()

// classicHooks is the host: the two tracepoints of the system call.
var classicHooks = []load.Function{load.FnSyscall}

func header(release string, hooks []load.Function, sysctls ...string) trace.Header {
	h := trace.Header{Schema: trace.Schema, Backend: "fentry", Node: node.Profile{Release: release, Sysctls: map[string]string{}}}
	for _, fn := range allHooks {
		hook := trace.Hook{Function: fn, Why: "test"}
		for _, on := range hooks {
			if on == fn {
				hook = trace.Hook{Function: fn, Via: "fentry"}
			}
		}
		h.Hooks = append(h.Hooks, hook)
	}
	for _, s := range sysctls {
		k, v, _ := strings.Cut(s, "=")
		h.Node.Sysctls[k] = v
	}
	return h
}

// filter keeps the executions that hooks see. Capture takes the system call for the call itself and
// not for a span.
func filter(list []ex, hooks []load.Function) (out []ex) {
	for _, e := range list {
		e.in = filter(e.in, hooks)
		keep := false
		for _, h := range hooks {
			keep = keep || h == e.fn && h != load.FnSyscall
		}
		if keep {
			out = append(out, e)
		} else {
			out = append(out, e.in...)
		}
	}
	return out
}

// play gives each execution its times and sums them up as capture does.
func play(c *trace.Call, list []ex) {
	sums := map[load.Function]int{}
	now := c.ID.Start + 100
	var visit func(e ex)
	visit = func(e ex) {
		start := now
		now += 10
		i, ok := sums[e.fn]
		if !ok {
			i = len(c.Stages)
			sums[e.fn] = i
			c.Stages = append(c.Stages, trace.Stage{Function: e.fn, First: start})
		}
		for _, k := range e.in {
			visit(k)
		}
		now += 10
		s := &c.Stages[i]
		s.Calls++
		s.Total += now - start
		s.LastRet = e.ret
		if e.ret < 0 || e.unjited {
			s.Failed++
			c.Failed = append(c.Failed, trace.Span{Function: e.fn, Start: start, End: now, Ret: e.ret, Arg: e.arg, Unjited: e.unjited})
		}
	}
	for _, e := range list {
		visit(e)
	}
	c.End = now + 100
}

// req is the request that most tests make.
type req struct {
	typ      uint32
	name     string
	insns    []insn.Instruction
	insnCnt  uint32
	logLevel uint32
	logSize  uint32
	set      map[int]uint32
}

func (r req) attr() []byte {
	b := make([]byte, 152)
	u32 := func(off int, v uint32) { binary.LittleEndian.PutUint32(b[off:], v) }
	u32(progType, r.typ)
	u32(progInsnCnt, uint32(len(r.insns)))
	if r.insnCnt != 0 {
		u32(progInsnCnt, r.insnCnt)
	}
	u32(progInsns, 0x7f001000)
	u32(progLicense, 0x7f002000)
	u32(progLogLevel, r.logLevel)
	u32(progLogSize, r.logSize)
	if r.logSize > 0 {
		u32(progLogBuf, 0x7f003000)
	}
	copy(b[progName:progName+15], r.name)
	for off, v := range r.set {
		u32(off, v)
	}
	return b
}

// loadCall is a BPF_PROG_LOAD by thread 100 of group 100 at ns 1000.
func loadCall(r req, ret int64, executions ...ex) *trace.Call {
	c := &trace.Call{
		ID: trace.CallID{TID: 100, Start: 1000}, TGID: 100, Kind: load.ProgLoad, Cmd: 5, Ret: ret, FailedInsn: -1,
		Flags: trace.CallFlags{EnterSeen: true, ExitSeen: true}, Attr: r.attr(), Comm: "loader",
		Creds: &trace.Creds{CapEffective: 1<<41 - 1},
	}
	play(c, filter(executions, allHooks))
	return c
}

func chunk(c *trace.Call, what trace.What, data []byte) trace.Record {
	return trace.Record{Chunk: &trace.Chunk{ID: c.ID, What: what, Total: uint64(len(data)), Data: data}}
}

func logChunk(c *trace.Call, log string) trace.Record {
	return chunk(c, trace.Log, append([]byte(log), 0))
}

func attempts(h trace.Header, recs ...trace.Record) []*load.Attempt {
	a := New(h)
	var out []*load.Attempt
	for _, r := range recs {
		out = slices.AppendSeq(out, a.Add(r))
	}
	return slices.AppendSeq(out, a.Flush())
}

// stageLine writes the stages in one line: + ok, ? not observed, -errno failed.
func stageLine(at *load.Attempt) string {
	var parts []string
	for _, s := range at.Stages {
		mark := map[load.Result]string{load.OK: "+", load.NotObserved: "?", load.StageFailed: fmt.Sprintf("-%d", s.Errno)}[s.Result]
		parts = append(parts, string(s.Stage)+mark)
	}
	return strings.Join(parts, " ")
}

// causeLine names the causal chain, the outermost first.
func causeLine(at *load.Attempt) string {
	var parts []string
	for i := len(at.Evidence.Spans) - 1; i >= 0; i-- {
		if s := at.Evidence.Spans[i]; s.Cause {
			parts = append(parts, string(s.Function))
		}
	}
	return strings.Join(parts, " > ")
}

// overflowing is a program of one function with a forward jump over constants: 3 slots each under
// blinding. The jump at slot 2 goes to the exit; it needs 3*n when blinded.
func overflowing(n int) []insn.Instruction {
	prog := []insn.Instruction{
		{Code: insn.ClassALU64 | insn.OpMOV, Dst: 0, Imm: 0},
		{Code: insn.ClassALU64 | insn.OpMOV | insn.SourceX, Dst: 6, Src: 1},
		{Code: insn.ClassJMP | insn.OpJEQ | insn.SourceX, Dst: 0, Src: 6, Off: int16(n)},
	}
	for range n {
		prog = append(prog, insn.Instruction{Code: insn.ClassALU64 | insn.OpADD, Dst: 0, Imm: 7})
	}
	return append(prog, insn.Instruction{Code: insn.OpcodeExit})
}

// Offsets in union bpf_attr, for tests that write an attr field by field.
const (
	progType       = int(unsafe.Offsetof(abi.ProgLoad{}.ProgType))
	progInsnCnt    = int(unsafe.Offsetof(abi.ProgLoad{}.InsnCnt))
	progInsns      = int(unsafe.Offsetof(abi.ProgLoad{}.Insns))
	progLicense    = int(unsafe.Offsetof(abi.ProgLoad{}.License))
	progLogLevel   = int(unsafe.Offsetof(abi.ProgLoad{}.LogLevel))
	progLogSize    = int(unsafe.Offsetof(abi.ProgLoad{}.LogSize))
	progLogBuf     = int(unsafe.Offsetof(abi.ProgLoad{}.LogBuf))
	progVersion    = int(unsafe.Offsetof(abi.ProgLoad{}.KernVersion))
	progFlags      = int(unsafe.Offsetof(abi.ProgLoad{}.ProgFlags))
	progName       = int(unsafe.Offsetof(abi.ProgLoad{}.ProgName))
	progIfindex    = int(unsafe.Offsetof(abi.ProgLoad{}.ProgIfindex))
	progAttachType = int(unsafe.Offsetof(abi.ProgLoad{}.ExpectedAttachType))
	progBTFFD      = int(unsafe.Offsetof(abi.ProgLoad{}.ProgBTFFD))
	progFuncRec    = int(unsafe.Offsetof(abi.ProgLoad{}.FuncInfoRecSize))
	progLineRec    = int(unsafe.Offsetof(abi.ProgLoad{}.LineInfoRecSize))
	progLineCnt    = int(unsafe.Offsetof(abi.ProgLoad{}.LineInfoCnt))
	progAttachBTF  = int(unsafe.Offsetof(abi.ProgLoad{}.AttachBTFID))
	progAttachFD   = int(unsafe.Offsetof(abi.ProgLoad{}.AttachFD))
	progLogTrue    = int(unsafe.Offsetof(abi.ProgLoad{}.LogTrueSize))
	mapType        = int(unsafe.Offsetof(abi.MapCreate{}.MapType))
	mapKeySize     = int(unsafe.Offsetof(abi.MapCreate{}.KeySize))
	mapValueSize   = int(unsafe.Offsetof(abi.MapCreate{}.ValueSize))
	mapMaxEntries  = int(unsafe.Offsetof(abi.MapCreate{}.MaxEntries))
	mapName        = int(unsafe.Offsetof(abi.MapCreate{}.MapName))
	mapBTF         = int(unsafe.Offsetof(abi.MapCreate{}.BTFFD))
)
