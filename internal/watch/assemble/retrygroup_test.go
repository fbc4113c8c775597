// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

const ms = 1_000_000

// try is one call in a story of several. Times are in ms.
type try struct {
	tid      uint32
	from, to uint64
	ret      int64
	req      req
	log      string
	insns    []insn.Instruction
	change   func(*trace.Call)
}

func (y try) records() []trace.Record {
	c := loadCall(y.req, y.ret)
	c.ID.TID = max(y.tid, 100)
	c.ID.Start, c.End = y.from*ms, y.to*ms
	if y.change != nil {
		y.change(c)
	}
	var recs []trace.Record
	if y.insns != nil {
		recs = append(recs, chunk(c, trace.Insns, insn.Encode(y.insns)))
	}
	if y.log != "" {
		recs = append(recs, logChunk(c, y.log))
	}
	return append(recs, trace.Record{Call: c})
}

// story writes each attempt as "name outcome errno retries".
func story(got []*load.Attempt) []string {
	var lines []string
	for _, at := range got {
		lines = append(lines, fmt.Sprintf("%s %s %d %d", at.Program.Name, at.Outcome, at.Errno, at.Retries))
	}
	return lines
}

func TestRetryGroups(t *testing.T) {
	base := func(level, size uint32) req {
		return req{typ: 1, name: "p", insnCnt: 3, logLevel: level, logSize: size}
	}
	with := func(r req, set map[int]uint32) req {
		r.set = maps.Clone(set)
		return r
	}
	named := func(name string) req { return req{typ: 1, name: name, insnCnt: 3} }
	exit := []insn.Instruction{{Code: insn.OpcodeExit}}
	mov := []insn.Instruction{{Code: insn.ClassALU64 | insn.OpMOV}, {Code: insn.OpcodeExit}}
	for _, test := range []struct {
		name  string
		tries []try
		want  []string
	}{
		{"alone", []try{{from: 1, to: 2, ret: -13, req: base(0, 0)}}, []string{"p failed 13 0"}},
		{"cilium/ebpf grows the log", []try{
			{from: 1, to: 2, ret: -13, req: base(0, 0)},
			{from: 3, to: 4, ret: -28, req: base(1, 64<<10)},
			{from: 5, to: 6, ret: -28, req: base(1, 128<<10)},
			{from: 7, to: 8, ret: -13, req: base(1, 256<<10)},
		}, []string{"p failed 13 3"}},
		{"on another thread each time", []try{
			{tid: 101, from: 1, to: 2, ret: -13, req: base(0, 0)},
			{tid: 102, from: 3, to: 4, ret: -28, req: base(1, 64<<10)},
			{tid: 103, from: 5, to: 6, ret: -13, req: base(1, 128<<10)},
		}, []string{"p failed 13 2"}},
		{"log_true_size written by the kernel", []try{
			{from: 1, to: 2, ret: -28, req: base(1, 64<<10)},
			{from: 3, to: 4, ret: -13, req: with(base(1, 80<<10), map[int]uint32{progLogTrue: 81920})},
		}, []string{"p failed 13 1"}},
		{"memlock raised, then it loads", []try{
			{from: 1, to: 2, ret: -1, req: base(0, 0)},
			{from: 3, to: 4, ret: 5, req: base(0, 0)},
		}, []string{"p loaded 0 1"}},
		{"a signal", []try{
			{tid: 101, from: 1, to: 2, ret: -11, req: base(1, 100)},
			{tid: 102, from: 3, to: 4, ret: -11, req: base(1, 100)},
			{tid: 101, from: 5, to: 6, ret: 5, req: base(1, 100)},
		}, []string{"p loaded 0 2"}},
		{"loads twice", []try{
			{from: 1, to: 2, ret: 5, req: base(0, 0)},
			{from: 3, to: 4, ret: 6, req: base(0, 0)},
		}, []string{"p loaded 0 0", "p loaded 0 0"}},
		{"fails after it loaded", []try{
			{from: 1, to: 2, ret: 5, req: base(0, 0)},
			{from: 3, to: 4, ret: -24, req: base(0, 0)},
		}, []string{"p loaded 0 0", "p failed 24 0"}},
		{"bpftrace's loop around libbpf's", []try{
			{from: 1, to: 2, ret: -13, req: base(0, 0)},
			{from: 3, to: 4, ret: -13, req: base(1, 100)},
			{from: 5, to: 6, ret: -13, req: base(0, 0)},
			{from: 7, to: 8, ret: -13, req: with(base(0, 0), map[int]uint32{progVersion: 0x61229})},
			{from: 9, to: 10, ret: -13, req: with(base(1, 100), map[int]uint32{progVersion: 0x61229})},
		}, []string{"p failed 13 4"}},
		{"another thread begins anew", []try{
			{tid: 101, from: 1, to: 2, ret: -13, req: base(0, 0)},
			{tid: 101, from: 3, to: 4, ret: -13, req: base(1, 100)},
			{tid: 102, from: 5, to: 6, ret: -13, req: base(0, 0)},
			{tid: 102, from: 7, to: 8, ret: -13, req: base(1, 100)},
		}, []string{"p failed 13 1", "p failed 13 1"}},
		{"without the name", []try{
			{from: 1, to: 2, ret: -22, req: named("long-name")},
			{from: 3, to: 4, ret: 5, req: named("")},
		}, []string{" loaded 0 1"}},
		{"without attach type, then without BTF", []try{
			{from: 1, to: 2, ret: -7, req: with(base(0, 0), map[int]uint32{progAttachType: 1, progBTFFD: 4, progFuncRec: 8, 88: 1, progLineRec: 16, progLineCnt: 1})},
			{from: 3, to: 4, ret: -22, req: with(base(0, 0), map[int]uint32{progBTFFD: 4, progFuncRec: 8, 88: 1, progLineRec: 16, progLineCnt: 1})},
			{from: 5, to: 6, ret: 5, req: base(0, 0)},
		}, []string{"p loaded 0 2"}},
		{"an attach type is added", []try{
			{from: 1, to: 2, ret: -22, req: base(0, 0)},
			{from: 3, to: 4, ret: -22, req: with(base(0, 0), map[int]uint32{progAttachType: 1})},
		}, []string{"p failed 22 0", "p failed 22 0"}},
		{"another type", []try{
			{from: 1, to: 2, ret: -22, req: base(0, 0)},
			{from: 3, to: 4, ret: -22, req: with(base(0, 0), map[int]uint32{progType: 2})},
		}, []string{"p failed 22 0", "p failed 22 0"}},
		{"same attr, other instructions in the same buffer", []try{
			{from: 1, to: 2, ret: -22, req: base(0, 0), insns: exit},
			{from: 3, to: 4, ret: -22, req: base(1, 100), insns: mov},
		}, []string{"p failed 22 0", "p failed 22 0"}},
		{"the copy of a retry is missing", []try{
			{from: 1, to: 2, ret: -22, req: base(0, 0), insns: exit},
			{from: 3, to: 4, ret: -22, req: base(1, 100)},
			{from: 5, to: 6, ret: -22, req: base(1, 200), insns: exit},
		}, []string{"p failed 22 2"}},
		{"another process", []try{
			{from: 1, to: 2, ret: -13, req: base(0, 0)},
			{from: 3, to: 4, ret: -13, req: base(1, 100), change: func(c *trace.Call) { c.TGID = 200 }},
		}, []string{"p failed 13 0", "p failed 13 0"}},
		{"too late", []try{
			{from: 1, to: 2, ret: -13, req: base(0, 0)},
			{from: 400, to: 401, ret: -13, req: base(1, 100)},
		}, []string{"p failed 13 0", "p failed 13 0"}},
		{"a slow machine is slow between the calls", []try{
			{from: 0, to: 2000, ret: -524, req: base(0, 0)},
			{from: 2400, to: 6000, ret: -524, req: base(1, 100)},
		}, []string{"p failed 524 1"}},
		{"two threads with one program at once", []try{
			{tid: 101, from: 1, to: 4, ret: -13, req: base(0, 0)},
			{tid: 102, from: 3, to: 5, ret: -13, req: base(0, 0)},
			{tid: 101, from: 6, to: 9, ret: -13, req: base(1, 100)},
			{tid: 102, from: 8, to: 10, ret: -13, req: base(1, 100)},
		}, []string{"p failed 13 1", "p failed 13 1"}},
		{"two threads with one program, by chance one after the other", []try{
			{tid: 101, from: 1, to: 2, ret: -13, req: base(0, 0)},
			{tid: 102, from: 3, to: 4, ret: -13, req: base(0, 0)},
			{tid: 101, from: 5, to: 6, ret: -13, req: base(1, 100)},
			{tid: 102, from: 7, to: 8, ret: -13, req: base(1, 100)},
		}, []string{"p failed 13 1", "p failed 13 1"}},
		{"one works, one fails", []try{
			{tid: 101, from: 1, to: 4, ret: 7, req: base(0, 0)},
			{tid: 102, from: 3, to: 5, ret: -24, req: base(0, 0)},
		}, []string{"p loaded 0 0", "p failed 24 0"}},
		{"threads with programs of their own, interleaved, swapping threads", []try{
			{tid: 101, from: 1, to: 2, ret: -13, req: named("a")},
			{tid: 101, from: 3, to: 4, ret: -22, req: named("b")},
			{tid: 102, from: 5, to: 6, ret: -13, req: req{typ: 1, name: "a", insnCnt: 3, logLevel: 1, logSize: 9}},
			{tid: 101, from: 5, to: 7, ret: -22, req: req{typ: 1, name: "b", insnCnt: 3, logLevel: 1, logSize: 9}},
			{tid: 102, from: 8, to: 9, ret: 5, req: named("c")},
		}, []string{"c loaded 0 0", "a failed 13 1", "b failed 22 1"}},
		{"the same request over and over", slices.Repeat([]try{{from: 1, to: 1, ret: -13, req: base(0, 0)}}, 150),
			[]string{"p failed 13 63", "p failed 13 63", "p failed 13 21"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var recs []trace.Record
			for _, y := range test.tries {
				recs = append(recs, y.records()...)
			}
			qt.Check(t, qt.DeepEquals(story(attempts(header("6.12", classicHooks), recs...)), test.want))
		})
	}
}

// libbpf and cilium/ebpf ask for a map once more without the BTF of its keys and values.
func TestMapWithoutBTF(t *testing.T) {
	create := func(from uint64, ret int64, set map[int]uint32) trace.Record {
		attr := make([]byte, 72)
		maps.Copy(set, map[int]uint32{mapType: 9, mapKeySize: 4, mapValueSize: 8, mapMaxEntries: 16})
		for off, v := range set {
			binary.LittleEndian.PutUint32(attr[off:], v)
		}
		return trace.Record{Call: &trace.Call{ID: trace.CallID{TID: 100, Start: from * ms}, End: from*ms + 1, TGID: 100, Kind: load.MapCreate,
			Ret: ret, Attr: attr, Flags: trace.CallFlags{EnterSeen: true, ExitSeen: true}, FailedInsn: -1}}
	}
	btf := func() map[int]uint32 { return map[int]uint32{mapBTF: 5, mapBTF + 4: 1, mapBTF + 8: 2} }
	for _, test := range []struct {
		name string
		recs []trace.Record
		want []int // errno and retries of each attempt
	}{
		{"fails again", []trace.Record{create(1, -524, btf()), create(2, -524, map[int]uint32{})}, []int{524, 1}},
		{"works", []trace.Record{create(1, -524, btf()), create(2, 7, map[int]uint32{})}, []int{0, 1}},
		{"another map", []trace.Record{create(1, -524, btf()), create(2, -524, map[int]uint32{16: 1})}, []int{524, 0, 524, 0}},
		{"BTF is added", []trace.Record{create(1, -524, map[int]uint32{}), create(2, -524, btf())}, []int{524, 0, 524, 0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []int
			for _, at := range attempts(header("6.12", classicHooks), test.recs...) {
				got = append(got, at.Errno, at.Retries)
			}
			qt.Check(t, qt.DeepEquals(got, test.want))
		})
	}
}

// The log of a group is the best of its calls, and its errno and stage those of the last one.
func TestRetryGroupKeepsTheBestLog(t *testing.T) {
	base := func(level, size uint32) req {
		return req{typ: 1, name: "p", insnCnt: 3, logLevel: level, logSize: size}
	}
	prog := []insn.Instruction{{Code: insn.ClassALU64 | insn.OpMOV}, {Code: insn.OpcodeExit}, {Code: insn.OpcodeExit}}
	h := header("6.12", classicHooks)
	h.Epoch = 1_700_000_000_000_000_000
	var recs []trace.Record
	for _, y := range []try{
		{from: 1, to: 2, ret: -13, req: base(0, 0), insns: prog},
		{from: 3, to: 5, ret: -13, req: base(1, 1<<20), log: "R0 !read_ok\nprocessed 1 insns\n"},
		{from: 6, to: 7, ret: -28, req: base(1, 2<<20), log: "R0 !read"},
	} {
		recs = append(recs, y.records()...)
	}
	got := attempts(h, recs...)
	qt.Assert(t, qt.HasLen(got, 1))
	at := got[0]
	qt.Check(t, qt.Equals(at.Errno, 28))
	qt.Check(t, qt.Equals(at.ErrnoName, "ENOSPC"))
	qt.Check(t, qt.Equals(at.Retries, 2))
	qt.Check(t, qt.DeepEquals(at.VerifierLog, load.VerifierLog{Origin: load.LogLoader, Lines: []string{"R0 !read_ok", "processed 1 insns"}}))
	qt.Check(t, qt.Equals(at.Evidence.InsnsState, load.InsnsUnverified))
	qt.Check(t, qt.DeepEquals(at.Evidence.Insns, prog))
	qt.Check(t, qt.Equals(at.Time, time.Unix(1_700_000_000, 1*ms).UTC()))
	qt.Check(t, qt.Equals(at.DurationNS, 6*time.Millisecond))
	qt.Check(t, qt.DeepEquals(at.Evidence.Calls, []load.Call{
		{Time: time.Unix(1_700_000_000, 1*ms).UTC(), Duration: time.Millisecond, Ret: -13},
		{Time: time.Unix(1_700_000_000, 3*ms).UTC(), Duration: 2 * time.Millisecond, Ret: -13, LogLevel: 1, LogSize: 1 << 20},
		{Time: time.Unix(1_700_000_000, 6*ms).UTC(), Duration: time.Millisecond, Ret: -28, LogLevel: 1, LogSize: 2 << 20},
	}))
}

// When attempts come out.
func TestFinal(t *testing.T) {
	a := New(header("6.12", classicHooks))
	add := func(y try) (n int) {
		for _, r := range y.records() {
			n += len(slices.Collect(a.Add(r)))
		}
		return n
	}
	fails := try{from: 10, to: 20, ret: -13, req: req{typ: 1, name: "p", insnCnt: 3}}
	qt.Check(t, qt.Equals(add(try{from: 1, to: 2, ret: 5, req: req{typ: 1, name: "q"}}), 1), qt.Commentf("a success at once"))
	qt.Check(t, qt.Equals(add(fails), 0))
	qt.Check(t, qt.HasLen(slices.Collect(a.Tick(339*ms)), 0), qt.Commentf("300 ms and twice its own 10 ms"))
	qt.Check(t, qt.HasLen(slices.Collect(a.Tick(341*ms)), 1))
	qt.Check(t, qt.HasLen(slices.Collect(a.Tick(900*ms)), 0))
	qt.Check(t, qt.HasLen(slices.Collect(a.Flush()), 0))

	a = New(header("6.12", classicHooks))
	qt.Check(t, qt.Equals(add(fails), 0))
	qt.Check(t, qt.Equals(add(try{from: 800, to: 801, ret: 5, req: req{typ: 1, name: "q"}}), 2), qt.Commentf("the clock of the records"))

	a = New(header("6.12", classicHooks))
	qt.Check(t, qt.Equals(add(fails), 0))
	qt.Check(t, qt.HasLen(slices.Collect(a.Add(trace.Record{End: &trace.End{}})), 1))
	qt.Check(t, qt.Equals(a.bytes, 0))
	qt.Check(t, qt.Equals(a.open, 0))
	qt.Check(t, qt.HasLen(a.groups, 0))
	qt.Check(t, qt.HasLen(a.due, 0))
}

// Fifty threads at once, each with several calls in a row, every record where its time puts it.
func TestManyThreads(t *testing.T) {
	var tries []try
	want := map[string]int{}
	for th := range uint32(50) {
		name := fmt.Sprintf("p%d", th)
		r := func(level uint32) req {
			return req{typ: 1, name: name, insnCnt: 3, logLevel: level, logSize: level * 100}
		}
		at := uint64(th%7) + 1
		switch th % 3 {
		case 0:
			tries = append(tries, try{tid: 1000 + th, from: at, to: at + 5, ret: 9, req: r(0)})
			want[name+" loaded 0 0"]++
		case 1:
			tries = append(tries,
				try{tid: 1000 + th, from: at, to: at + 5, ret: -13, req: r(0)},
				try{tid: 2000 - th, from: at + 6, to: at + 11, ret: -13, req: r(1)})
			want[name+" failed 13 1"]++
		case 2: // a pair of threads with one program
			for i := range uint32(2) {
				tries = append(tries,
					try{tid: 3000 + 2*th + i, from: at, to: at + 5, ret: -22, req: r(0)},
					try{tid: 3000 + 2*th + i, from: at + 5 + uint64(i), to: at + 20, ret: -28, req: r(1)},
					try{tid: 3000 + 2*th + i, from: at + 20, to: at + 30 + uint64(i), ret: -22, req: r(2)})
				want[name+" failed 22 2"]++
			}
		}
	}
	slices.SortStableFunc(tries, func(x, y try) int { return int(x.to) - int(y.to) })
	var recs []trace.Record
	for _, y := range tries {
		recs = append(recs, y.records()...)
	}
	got := map[string]int{}
	for _, s := range story(attempts(header("6.12", classicHooks), recs...)) {
		got[s]++
	}
	qt.Check(t, qt.CmpEquals(got, want))
}

func TestLosses(t *testing.T) {
	lost := func(from, to uint64) trace.Record {
		return trace.Record{Loss: &trace.Loss{Mechanism: "ring", Count: 2, From: from * ms, To: to * ms}}
	}
	y := try{from: 100, to: 200, ret: -13, req: req{typ: 1, name: "p", insnCnt: 3}}
	for _, test := range []struct {
		name string
		recs []trace.Record
		want bool
	}{
		{"before", append([]trace.Record{lost(0, 99)}, y.records()...), false},
		{"into", append([]trace.Record{lost(0, 100)}, y.records()...), true},
		{"inside, told later", append(y.records(), lost(150, 160)), true},
		{"after", append(y.records(), lost(201, 300)), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := attempts(header("6.12", classicHooks), test.recs...)
			qt.Assert(t, qt.HasLen(got, 1))
			qt.Check(t, qt.Equals(got[0].Incomplete, test.want))
		})
	}
}

// The hardening that counts is the one before the attempt, unless what was read right after it is
// stricter.
func TestSysctlInTime(t *testing.T) {
	set := func(v string, at uint64) trace.Record {
		return trace.Record{Sysctl: &trace.Sysctl{Name: "net.core.bpf_jit_harden", Value: v, At: at * ms}}
	}
	y := try{from: 100, to: 101, ret: -13, req: req{typ: 1, name: "p", insnCnt: 3}}
	h := header("6.12", classicHooks, "net.core.bpf_jit_harden=1")
	harden := func(recs ...trace.Record) int { return attempts(h, recs...)[0].Evidence.Harden }
	qt.Check(t, qt.Equals(harden(y.records()...), 1))
	qt.Check(t, qt.Equals(harden(append([]trace.Record{set("0", 10), set("2", 99)}, y.records()...)...), 2))
	qt.Check(t, qt.Equals(harden(append(append([]trace.Record{set("0", 10)}, y.records()...), set("2", 102))...), 2))
	qt.Check(t, qt.Equals(harden(append(append([]trace.Record{set("2", 10)}, y.records()...), set("0", 102))...), 2))
	qt.Check(t, qt.Equals(harden(append([]trace.Record{set("2", 10), set("0", 99)}, y.records()...)...), 0))
	qt.Check(t, qt.Equals(harden(append([]trace.Record{set("nonsense", 99)}, y.records()...)...), -1))
}

// A retry is only seen when it ends, which can be long after the window of the call before it. Its
// beginning keeps the group open.
func TestRetryGroupWaitsForTheRetryUnderWay(t *testing.T) {
	first := try{from: 0, to: 10, ret: -524, req: req{typ: 1, name: "p", insnCnt: 3}}
	second := try{from: 20, to: 6000, ret: -524, req: req{typ: 1, name: "p", insnCnt: 3, logLevel: 1, logSize: 65536}}
	recs := second.records()
	begin := trace.Record{Begin: &trace.Begin{ID: recs[0].Call.ID, TGID: recs[0].Call.TGID}}

	a := New(header("6.12", classicHooks))
	var got []*load.Attempt
	add := func(recs ...trace.Record) {
		for _, r := range recs {
			got = slices.AppendSeq(got, a.Add(r))
		}
	}
	add(first.records()...)
	add(begin)
	got = slices.AppendSeq(got, a.Tick(5000*ms))
	qt.Assert(t, qt.HasLen(got, 0))
	add(recs...)
	got = slices.AppendSeq(got, a.Tick(20000*ms))
	qt.Assert(t, qt.DeepEquals(story(got), []string{"p failed 524 1"}))

	t.Run("its end is lost", func(t *testing.T) {
		a := New(header("6.12", classicHooks))
		var got []*load.Attempt
		for _, r := range append(first.records(), begin) {
			got = slices.AppendSeq(got, a.Add(r))
		}
		got = slices.AppendSeq(got, a.Tick(60000*ms))
		qt.Assert(t, qt.HasLen(got, 0))
		got = slices.AppendSeq(got, a.Tick(200000*ms))
		qt.Assert(t, qt.DeepEquals(story(got), []string{"p failed 524 0"}))
	})
}

// The kernel's refusal of a small buffer cuts the log: a short one that is whole says more.
func TestRetryGroupKeepsTheWholeLog(t *testing.T) {
	long := try{from: 0, to: 10, ret: -28, req: req{typ: 1, name: "p", insnCnt: 3, logLevel: 1, logSize: 64}, log: "0: (b7) r0 = 0\n1: (95) exit\nprocessed 2 in"}
	short := try{from: 20, to: 30, ret: -524, req: req{typ: 1, name: "p", insnCnt: 3, logLevel: 4, logSize: 128}, log: "processed 2 insns\n"}
	a := New(header("6.12", classicHooks))
	for _, r := range append(long.records(), short.records()...) {
		qt.Assert(t, qt.HasLen(slices.Collect(a.Add(r)), 0))
	}
	got := slices.Collect(a.Flush())
	qt.Assert(t, qt.DeepEquals(story(got), []string{"p failed 524 1"}))
	qt.Assert(t, qt.Equals(got[0].Evidence.Log, "processed 2 insns\n"))
}
