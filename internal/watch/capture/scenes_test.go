// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"encoding/json"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// A program that reads a value without looking whether there is one, from a loader that asks for no
// log.
func nullMapValue() scene {
	// key 0 on the stack, lookup in the map of descriptor FD, the value read
	const code = "620afcff00000000" + "bfa2000000000000" + "07020000fcffffff" + "18110000FDFDFDFD" + "0000000000000000" +
		"8500000001000000" + "7900000000000000" + "9500000000000000"
	const failing = 6
	var pid int
	return scene{"null map value", func(t *testing.T) { pid, _ = run(t, "null-map-value-nolog") }, func(t *testing.T, v story) {
		c := v.one(t, programOf(t, "null-map-value-nolog"))
		qt.Check(t, qt.Equals(c.Ret, -int64(unix.EACCES)))
		qt.Check(t, qt.Equals(c.Cmd, unix.BPF_PROG_LOAD))
		qt.Check(t, qt.Equals(c.TGID, uint32(pid)))
		qt.Check(t, qt.Equals(c.NSPID, uint32(pid)))
		qt.Check(t, qt.Equals(c.UID, 0))
		qt.Check(t, qt.Equals(c.Comm, "null-map-value-")) // cut by the kernel
		qt.Check(t, qt.Equals(c.Flags, trace.CallFlags{EnterSeen: true, ExitSeen: true}))
		qt.Check(t, qt.IsTrue(c.End > c.ID.Start))
		qt.Check(t, qt.HasLen(c.Attr, 128)) // up to fd_array
		qt.Check(t, qt.IsNotNil(c.Cgroup2))

		got, total := v.bytes(c.ID, trace.Insns)
		qt.Check(t, qt.Equals(total, 64))
		want := mustHex(strings.ReplaceAll(code, "FD", "00"))
		qt.Assert(t, qt.HasLen(got, len(want)))
		withoutFD := slices.Clone(got)
		clear(withoutFD[3*8+4 : 4*8])
		qt.Check(t, qt.IsTrue(bytes.Equal(withoutFD, want)), qt.Commentf("%x", got))
		license, total := v.bytes(c.ID, trace.License)
		qt.Check(t, qt.Equals(string(license), "GPL"))
		qt.Check(t, qt.Equals(total, 3))

		qt.Assert(t, qt.HasLen(c.Maps, 1))
		m := c.Maps[0]
		qt.Check(t, qt.Equals(m.ID != 0, inside(v.backend))) // from outside only what the loader itself said of the map is known
		m.ID = 0
		qt.Check(t, qt.Equals(m, trace.Map{Type: 1, KeySize: 4, ValueSize: 8, MaxEntries: 1, Name: "values"}))

		if v.backend != tpBTF {
			qt.Check(t, qt.Equals(c.Exe, "/test/test"))
			qt.Check(t, qt.Not(qt.Equals(c.Creds.CapEffective, 0)))
		}
		if !inside(v.backend) {
			qt.Check(t, qt.Equals(c.FailedInsn, -1))
			for _, f := range []load.Function{load.FnLoad, load.FnCheck, load.FnVerbose} {
				qt.Check(t, qt.Equals(hookOf(v.header, f).Via, ""))
				qt.Check(t, qt.Not(qt.Equals(hookOf(v.header, f).Why, "")), qt.Commentf("%s", f))
			}
			return
		}
		qt.Check(t, qt.Equals(c.FailedInsn, failing))
		insns, err := insn.Decode(got)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.HasLen(c.Tag, 8))
		qt.Check(t, qt.IsTrue(insn.MatchesTag(insns, [8]byte(c.Tag))), qt.Commentf("%x", c.Tag))
		for _, f := range []load.Function{load.FnLoad, load.FnCheck, load.FnDoCheck} {
			qt.Check(t, qt.Equals(hookOf(v.header, f).Via, string(v.backend)), qt.Commentf("%s", f))
			stage := stageOf(c, f)
			qt.Assert(t, qt.IsNotNil(stage), qt.Commentf("%s", f))
			qt.Check(t, qt.Equals(stage.Calls, 1), qt.Commentf("%s", f))
			qt.Check(t, qt.Equals(stage.Failed, 1), qt.Commentf("%s", f))
			qt.Check(t, qt.Equals(stage.LastRet, -int32(unix.EACCES)), qt.Commentf("%s", f))
			qt.Check(t, qt.IsTrue(stage.First >= c.ID.Start && stage.First+stage.Total <= c.End), qt.Commentf("%s", f))
		}
		qt.Check(t, qt.Equals(hookOf(v.header, load.FnVerbose).Via, "kprobe"))
		qt.Check(t, qt.StringContains(v.messages(c.ID), "invalid mem access"))
	}}
}

// playing is the test around the scenes: what is to outlive its scene ends with that.
func works(playing *testing.T) scene {
	var pid int
	return scene{"works", func(t *testing.T) {
		pid, _ = run(t, "ok")
		// this one stays: who looks from outside can still look
		fd := keepLoaded("kept", smallProgram)
		qt.Assert(t, qt.IsTrue(fd > 2), qt.Commentf("%d", fd))
		playing.Cleanup(func() { unix.Close(fd) })
	}, func(t *testing.T, v story) {
		c := v.one(t, "ok")
		qt.Check(t, qt.IsTrue(c.Ret > 2), qt.Commentf("%d", c.Ret))
		qt.Check(t, qt.Equals(c.TGID, uint32(pid)))
		qt.Check(t, qt.Equals(c.Comm, "ok"))
		qt.Check(t, qt.HasLen(v.chunks(c.ID, trace.Insns), 0))
		qt.Check(t, qt.HasLen(c.Failed, 0))
		qt.Check(t, qt.HasLen(v.chunks(c.ID, trace.License), 0))
		kept := v.one(t, "kept").Prog
		qt.Assert(t, qt.IsNotNil(kept))
		qt.Check(t, qt.IsTrue(kept.JITed))
		qt.Check(t, qt.Equals(kept.BlindedUnknown, v.backend == tpBTF))
		if v.backend == tpBTF {
			qt.Check(t, qt.IsTrue(c.Prog == nil || c.Prog.JITed)) // its loader may be gone before we look
			return
		}
		p := c.Prog
		qt.Assert(t, qt.IsNotNil(p))
		insns := []insn.Instruction{{Code: 0xb7}, {Code: 0x95}} // r0 = 0; exit
		tag := insn.TagSHA1(insns)
		if v.kernel == "7" {
			tag = insn.TagSHA256(insns)
		}
		qt.Check(t, qt.DeepEquals(p.Tag, tag[:]))
		qt.Check(t, qt.Equals(p.Type, 1))
		qt.Check(t, qt.Equals(p.Name, "ok"))
		qt.Check(t, qt.IsTrue(p.ID > 0))
		qt.Check(t, qt.IsTrue(p.JITed))
		qt.Check(t, qt.IsTrue(p.JITedLen > 0))
		if v.kernel == "5.10" {
			qt.Check(t, qt.IsNil(p.Asked)) // 5.11
		} else {
			qt.Check(t, qt.IsTrue(p.Asked != nil && *p.Asked)) // harden=2
		}
		if inside(v.backend) {
			stage := stageOf(c, load.FnCheck)
			qt.Assert(t, qt.IsNotNil(stage))
			qt.Check(t, qt.Equals(stage.LastRet, 0))
		}
	}}
}

func unprivileged() scene {
	return scene{"unprivileged", func(t *testing.T) { run(t, "unprivileged") }, func(t *testing.T, v story) {
		c := v.one(t, "unprivileged")
		qt.Check(t, qt.Equals(c.Ret, -int64(unix.EPERM)))
		qt.Check(t, qt.Equals(c.UID, 65534))
		qt.Check(t, qt.Equals(c.GID, 65534))
		if v.backend != tpBTF {
			qt.Check(t, qt.Equals(c.Creds.CapEffective, 0))
		}
	}}
}

// A seccomp policy in front of bpf(2): the end without a start, except by kprobes, whose header
// says so.
func denied() scene {
	return scene{"denied by seccomp", func(t *testing.T) { run(t, "seccomp") }, func(t *testing.T, v story) {
		calls := v.calls(func(c *trace.Call) bool { return c.Comm == "seccomp" && !c.Flags.EnterSeen })
		hook := hookOf(v.header, load.FnDenied)
		if v.backend == kprobe {
			qt.Check(t, qt.HasLen(calls, 0))
			qt.Check(t, qt.Equals(hook.Via, ""))
			qt.Check(t, qt.Not(qt.Equals(hook.Why, "")))
			return
		}
		qt.Check(t, qt.Not(qt.Equals(hook.Via, "")))
		qt.Assert(t, qt.HasLen(calls, 1), qt.Commentf("%s", describe(v.seen)))
		qt.Check(t, qt.Equals(calls[0].Ret, -int64(unix.EPERM)))
		qt.Check(t, qt.Equals(calls[0].Flags, trace.CallFlags{ExitSeen: true}))
		qt.Check(t, qt.Equals(progNameOf(calls[0]), "seccomp"))
		if v.backend != tpBTF {
			qt.Check(t, qt.Equals(calls[0].Creds.SeccompMode, 2))
		}
	}}
}

// A load that a listener holds while another thread executes a program: it ends, too, and had not
// begun.
func cutShort() scene {
	return scene{"cut short", func(t *testing.T) { run(t, "interrupted") }, func(t *testing.T, v story) {
		const restart = 512 // ERESTARTSYS
		calls := v.calls(func(c *trace.Call) bool { return c.Ret == -restart })
		if v.backend == kprobe {
			qt.Check(t, qt.HasLen(calls, 0))
			return
		}
		qt.Assert(t, qt.HasLen(calls, 1), qt.Commentf("%s", describe(v.seen)))
		c := calls[0]
		qt.Check(t, qt.Equals(c.Flags, trace.CallFlags{ExitSeen: true}))
		if v.backend != tpBTF {
			qt.Check(t, qt.Equals(c.Creds.SeccompMode, 2))
		}
		record, _ := json.Marshal(c)
		t.Logf("%s", record)
	}}
}

// A program that names an integer to attach to, and asks for no log: only the function that looks
// at its target tells what is wrong.
func noTarget() scene {
	const tracing, fentryAttach, anInteger = 26, 24, 1
	return scene{"no target", func(t *testing.T) {
		var pin runtime.Pinner
		defer pin.Unpin()
		license := []byte("GPL\x00")
		pin.Pin(&license[0])
		a := socketFilter("no_target", smallProgram)
		a.progType, a.expectedAttachType, a.attachBTFID, a.license = tracing, fentryAttach, anInteger, addr(license)
		qt.Assert(t, qt.Equals(bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(a), unsafe.Sizeof(*a)), -int(unix.EINVAL)))
	}, func(t *testing.T, v story) {
		c := v.one(t, "no_target")
		qt.Check(t, qt.Not(qt.StringContains(v.messages(c.ID), "attach"))) // no more than how many instructions were walked
		i := slices.IndexFunc(c.Failed, func(s trace.Span) bool { return s.Function == load.FnAttach })
		qt.Assert(t, qt.Equals(i >= 0, inside(v.backend)), qt.Commentf("%+v", c.Failed))
		if i >= 0 {
			qt.Check(t, qt.Equals(c.Failed[i].Ret, -int32(unix.EINVAL)))
		}
	}}
}

// One function whose blinding fails is refused by 6.1.192 alone; the others hand out a descriptor
// of a program that is interpreted. The hardened kernel has no interpreter.
func farJump() scene {
	var res failing.Result
	return scene{"far jump", func(t *testing.T) { _, res = run(t, "far-jump-nolog") }, func(t *testing.T, v story) {
		c := v.one(t, programOf(t, "far-jump-nolog"))
		refused := v.kernel == "6.1" || v.kernel == "hardened"
		qt.Check(t, qt.Equals(res.Errno == 524, refused))
		if refused {
			qt.Check(t, qt.Equals(c.Ret, -524))
		} else {
			qt.Check(t, qt.IsTrue(c.Ret > 2))
			if v.backend == tpBTF && c.Prog == nil {
				return // its loader was gone before we looked
			}
			qt.Assert(t, qt.IsNotNil(c.Prog))
			qt.Check(t, qt.IsFalse(c.Prog.JITed))
		}
		code, total := v.bytes(c.ID, trace.Insns)
		qt.Check(t, qt.Equals(total, 8*(failing.FarTo+2)))
		qt.Assert(t, qt.Equals(uint64(len(code)), total))
		insns, err := insn.Decode(code)
		qt.Assert(t, qt.IsNil(err))
		jump := insns[failing.FarFrom]
		qt.Check(t, qt.Equals(int(jump.Off), failing.FarOffset))
		if inside(v.backend) || !refused && v.backend == tracepoint {
			qt.Assert(t, qt.HasLen(c.Tag, 8))
			qt.Check(t, qt.IsTrue(insn.MatchesTag(insns, [8]byte(c.Tag))))
		}
		if !inside(v.backend) {
			return
		}
		blind := stageOf(c, load.FnBlind)
		qt.Assert(t, qt.IsNotNil(blind))
		want := -int32(unix.ERANGE)
		if v.kernel == "7" {
			want = -int32(unix.ENOMEM)
		}
		qt.Check(t, qt.Equals(blind.LastRet, want))
		translated, _ := v.bytes(c.ID, trace.Translated)
		qt.Check(t, qt.IsTrue(len(translated) >= len(code)))
		i := slices.IndexFunc(c.Failed, func(s trace.Span) bool { return s.Function == load.FnPatch })
		qt.Assert(t, qt.IsTrue(i >= 0), qt.Commentf("%+v", c.Failed))
		qt.Check(t, qt.Equals(c.Failed[i].Ret, -int32(unix.ERANGE)))
		qt.Check(t, qt.IsTrue(c.Failed[i].Arg > failing.FarFrom && c.Failed[i].Arg < int64(len(translated)/8)))
	}}
}

// A light skeleton: a program loads the program, and what it submits is in the kernel's memory.
func kernelSide() scene {
	bad := slices.Concat(mustHex("bf50000000000000"), smallProgram[8:]) // r0 = r5, which was never written
	played := false
	return scene{"load from inside the kernel", func(t *testing.T) {
		if os.Getenv("BPFWHY_LAB_KERNEL") == "5.10" {
			t.Skip("programs cannot call bpf(2) before 5.14")
		}
		qt.Check(t, qt.IsTrue(loadInside(t, "inner_ok", smallProgram) >= 0))
		qt.Check(t, qt.Equals(loadInside(t, "inner_bad", bad), -int(unix.EACCES)))
		played = true
	}, func(t *testing.T, v story) {
		if !played {
			t.Skip("not played")
		}
		if !inside(v.backend) { // no system call was made for it
			qt.Check(t, qt.HasLen(v.loads("inner_ok"), 0))
			return
		}
		ok := v.one(t, "inner_ok")
		qt.Check(t, qt.Equals(ok.Flags, trace.CallFlags{EnterSeen: true, ExitSeen: true, FromKernel: true}))
		qt.Check(t, qt.IsTrue(ok.Ret > 2))
		qt.Check(t, qt.Equals(ok.TGID, uint32(os.Getpid())))
		c := v.one(t, "inner_bad")
		qt.Check(t, qt.Equals(c.Flags, trace.CallFlags{EnterSeen: true, ExitSeen: true, FromKernel: true}))
		qt.Check(t, qt.Equals(c.Ret, -int64(unix.EACCES)))
		code, _ := v.bytes(c.ID, trace.Insns)
		qt.Check(t, qt.IsTrue(bytes.Equal(code, bad)), qt.Commentf("%x", code))
		license, _ := v.bytes(c.ID, trace.License)
		qt.Check(t, qt.Equals(string(license), "GPL"))
		qt.Check(t, qt.IsFalse(v.loads("outer")[0].Flags.FromKernel)) // that one came from user space
	}}
}

// Names are bytes until somebody shows them.
func controlCharacters() scene {
	const name = "\x1b[2Jred\r\n\u009b"
	return scene{"control characters", func(t *testing.T) {
		as(t, name, func() { rawLoad("control", smallProgram) })
	}, func(t *testing.T, v story) { qt.Check(t, qt.Equals(v.one(t, "control").Comm, name)) }}
}

// A loader that is killed in the middle of its load: it is told, or counted.
func killed() scene {
	var pid int
	return scene{"killed", func(t *testing.T) {
		p, err := failing.Find("far-jump")
		qt.Assert(t, qt.IsNil(err))
		proc, err := failing.Start(t.Context(), p)
		qt.Assert(t, qt.IsNil(err))
		pid = proc.PID()
		time.AfterFunc(300*time.Millisecond, func() { unix.Kill(pid, unix.SIGKILL) })
		_, err = proc.Go()
		qt.Check(t, qt.ErrorMatches(err, "(?s).*(killed|EOF).*"))
	}, func(t *testing.T, v story) {
		told := v.calls(func(c *trace.Call) bool { return c.TGID == uint32(pid) && progNameOf(c) == "far_jump" })
		begun := slices.ContainsFunc(v.seen, func(r trace.Record) bool { return r.Begin != nil && r.Begin.TGID == uint32(pid) })
		qt.Check(t, qt.IsTrue(len(told) == 1 || !begun || v.lost() > 0), qt.Commentf("%s", describe(v.seen)))
	}}
}

// A million instructions and one: the kernel refuses to look, and we copy what the cap allows.
func tooMany() scene {
	return scene{"too many instructions", func(t *testing.T) { run(t, "too-many-insns") }, func(t *testing.T, v story) {
		c := v.one(t, programOf(t, "too-many-insns"))
		qt.Check(t, qt.Equals(c.Ret, -int64(unix.E2BIG)))
		code, total := v.bytes(c.ID, trace.Insns)
		qt.Check(t, qt.Equals(total, 8*1000001))
		qt.Check(t, qt.Equals(len(code), copyMax))
		qt.Check(t, qt.Equals(len(bytes.ReplaceAll(code, mustHex("bf10000000000000"), nil)), 0)) // r0 = r1, over and over
		for _, chunk := range v.chunks(c.ID, trace.Insns) {
			qt.Check(t, qt.Equals(chunk.Errno, 0)) // the cap, and no fault
		}
	}}
}

// A log of more than a mebibyte: its head and its tail are exact, and the hole between them is no
// secret.
func longLog() scene {
	var log []byte
	return scene{"long log", func(t *testing.T) {
		code := slices.Concat(bytes.Repeat(mustHex("bf10000000000000"), 16000), mustHex("bf50000000000000"), smallProgram[8:])
		buf := make([]byte, 16<<20)
		license := []byte("GPL\x00")
		var pin runtime.Pinner
		defer pin.Unpin()
		pin.Pin(&code[0])
		pin.Pin(&license[0])
		pin.Pin(&buf[0])
		a := socketFilter("long_log", code)
		a.license, a.logLevel, a.logSize, a.logBuf = addr(license), 2, uint32(len(buf)), addr(buf)
		qt.Check(t, qt.Equals(bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(a), unsafe.Sizeof(*a)), -int(unix.EACCES)))
		log, _, _ = bytes.Cut(buf, []byte{0})
		log = slices.Clone(log)
		t.Logf("%d bytes of log", len(log))
		qt.Check(t, qt.IsTrue(len(log) > 1<<20), qt.Commentf("%d", len(log)))
	}, func(t *testing.T, v story) {
		chunks := v.chunks(v.one(t, "long_log").ID, trace.Log)
		head, tail := 0, len(log)
		for i, c := range chunks {
			end := int(c.Offset) + len(c.Data)
			qt.Assert(t, qt.IsTrue(end <= len(log)), qt.Commentf("%d of %d", end, len(log)))
			qt.Check(t, qt.IsTrue(sameButCut(c.Data, log[c.Offset:end])), qt.Commentf("chunk %d: %.40q, %.40q", i, c.Data, log[c.Offset:end]))
			if int(c.Offset) == head {
				head = end
			} else if int(c.Offset) < tail {
				tail = int(c.Offset)
			}
		}
		last := chunks[len(chunks)-1]
		qt.Check(t, qt.Equals(int(last.Offset)+len(last.Data), len(log)))
		qt.Check(t, qt.Equals(last.Total, uint64(len(log))))
		qt.Check(t, qt.IsTrue(head >= logMax-2 && head <= logMax), qt.Commentf("%d", head))
		qt.Check(t, qt.IsTrue(len(log)-tail >= logMax-2 && len(log)-tail <= logMax), qt.Commentf("%d", len(log)-tail))
	}}
}

// sameButCut compares what was captured with what it is of. Digits at either end may be those of an
// address that was cut, and may be starred.
func sameButCut(got, whole []byte) bool {
	const digits = "0123456789abcdef"
	for len(got) > 0 && len(whole) > 0 && got[0] == '*' && strings.ContainsRune(digits, rune(whole[0])) {
		got, whole = got[1:], whole[1:]
	}
	for n, m := len(got)-1, len(whole)-1; n >= 0 && m >= 0 && got[n] == '*' && strings.ContainsRune(digits, rune(whole[m])); n, m = n-1, m-1 {
		got, whole = got[:n], whole[:m]
	}
	return bytes.Equal(got, whole)
}

// What a hostile loader says of lengths and addresses. The thread's name tells the calls apart.
func lies() []scene {
	const unmapped = 1 << 12
	fault := int(unix.EFAULT)
	type lie struct {
		name  string
		tell  func(a *rawAttr, page []byte) (attr unsafe.Pointer, size uintptr)
		check func(t *testing.T, v story, c *trace.Call)
	}
	in := func(change func(a *rawAttr, page []byte)) func(*rawAttr, []byte) (unsafe.Pointer, uintptr) {
		return func(a *rawAttr, page []byte) (unsafe.Pointer, uintptr) {
			change(a, page)
			return unsafe.Pointer(a), unsafe.Sizeof(*a)
		}
	}
	faulted := func(what trace.What, total uint64) func(*testing.T, story, *trace.Call) {
		return func(t *testing.T, v story, c *trace.Call) {
			chunks := v.chunks(c.ID, what)
			qt.Assert(t, qt.Not(qt.HasLen(chunks, 0)))
			last := chunks[len(chunks)-1]
			qt.Check(t, qt.Equals(last.Total, total))
			qt.Check(t, qt.Equals(last.Errno, fault))
			qt.Check(t, qt.HasLen(last.Data, 0))
		}
	}
	attrLen := func(n int) func(*testing.T, story, *trace.Call) {
		return func(t *testing.T, v story, c *trace.Call) {
			qt.Check(t, qt.HasLen(c.Attr, n))
			qt.Check(t, qt.IsFalse(c.Flags.AttrFault))
		}
	}
	all := []lie{
		{"insn-cnt", in(func(a *rawAttr, page []byte) { a.insns, a.insnCnt = addr(page), 0x1fffffff }), faulted(trace.Insns, 8*0x1fffffff)},
		{"insns-end", in(func(a *rawAttr, page []byte) { a.insns, a.insnCnt = addr(page[8:]), 512 }), faulted(trace.Insns, 4096)},
		{"insns-gone", in(func(a *rawAttr, _ []byte) { a.insns = unmapped }), faulted(trace.Insns, 16)},
		{"license-gone", in(func(a *rawAttr, _ []byte) { a.license = unmapped }), faulted(trace.License, 128)},
		{"line-info", in(func(a *rawAttr, page []byte) {
			a.lineInfo, a.lineInfoCnt, a.lineInfoRecSize = addr(page), 1<<32-1, 1<<32-1
		}), faulted(trace.LineInfo, (1<<32-1)*(1<<32-1))},
		{"log-gone", in(func(a *rawAttr, _ []byte) { a.insnCnt, a.logLevel, a.logSize, a.logBuf = 1, 1, 1<<20, unmapped }), faulted(trace.Log, 1<<20)},
		{"log-end", in(func(a *rawAttr, page []byte) {
			a.insnCnt, a.logLevel, a.logSize, a.logBuf = 1, 1, 1<<28, addr(page) // the text fits, the buffer does not
		}), func(t *testing.T, v story, c *trace.Call) {
			log, total := v.bytes(c.ID, trace.Log)
			qt.Check(t, qt.StringContains(string(log), "\n"))
			qt.Check(t, qt.Equals(total, uint64(len(log))))
		}},
		{"size-none", func(a *rawAttr, _ []byte) (unsafe.Pointer, uintptr) { return unsafe.Pointer(a), 0 }, attrLen(0)},
		{"size-page", func(_ *rawAttr, page []byte) (unsafe.Pointer, uintptr) { return unsafe.Pointer(&page[0]), 4096 }, attrLen(attrMax)},
		{"size-most", func(_ *rawAttr, page []byte) (unsafe.Pointer, uintptr) { return unsafe.Pointer(&page[0]), 1<<32 - 1 }, attrLen(attrMax)},
		{"attr-gone", func(_ *rawAttr, page []byte) (unsafe.Pointer, uintptr) {
			return unsafe.Add(unsafe.Pointer(&page[0]), 4096), 128
		}, func(t *testing.T, v story, c *trace.Call) {
			qt.Check(t, qt.IsTrue(c.Flags.AttrFault))
			qt.Check(t, qt.HasLen(c.Attr, 0))
			qt.Check(t, qt.Equals(c.Ret, -int64(fault)))
		}},
	}
	var scenes []scene
	for _, l := range all {
		ret := 0
		scenes = append(scenes, scene{"lie: " + l.name, func(t *testing.T) {
			// one page of 0xff, and nothing behind it
			mem, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
			qt.Assert(t, qt.IsNil(err))
			defer unix.Munmap(mem)
			page := mem[:4096]
			for i := range page {
				page[i] = 0xff
			}
			qt.Assert(t, qt.IsNil(unix.Mprotect(mem[4096:], unix.PROT_NONE)))
			var pin runtime.Pinner
			defer pin.Unpin()
			license := []byte("GPL\x00")
			pin.Pin(&license[0])
			pin.Pin(&smallProgram[0])
			a := socketFilter("lie", smallProgram)
			a.license = addr(license)
			attr, size := l.tell(a, page)
			as(t, l.name, func() { ret = bpf(unix.BPF_PROG_LOAD, attr, size) })
			runtime.KeepAlive(a)
			qt.Check(t, qt.IsTrue(ret < 0), qt.Commentf("%d", ret))
		}, func(t *testing.T, v story) {
			calls := v.calls(func(c *trace.Call) bool { return c.Comm == l.name })
			qt.Assert(t, qt.HasLen(calls, 1), qt.Commentf("%s", describe(v.seen)))
			qt.Check(t, qt.Equals(calls[0].Ret, int64(ret)))
			l.check(t, v, calls[0])
		}})
	}
	return scenes
}

const attrMax = 256 // ATTR_MAX of bpf/wire.h
