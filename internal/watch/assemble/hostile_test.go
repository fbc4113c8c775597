// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// check holds what is true of every attempt, whatever the records were.
func check(at *load.Attempt) error {
	switch {
	case at.Schema != load.Schema, at.Kind == "", at.Stages == nil:
		return fmt.Errorf("not filled in: %+v", at)
	case (at.Outcome == load.Failed) != (at.Errno > 0):
		return fmt.Errorf("outcome %s with errno %d", at.Outcome, at.Errno)
	case at.Outcome == load.Loaded && at.FailedStage != "":
		return fmt.Errorf("loaded, and failed in %s", at.FailedStage)
	case at.Kind == load.ProgLoad && at.Program == nil:
		return fmt.Errorf("no program")
	case at.Retries != len(at.Evidence.Calls)-1:
		return fmt.Errorf("%d retries, %d calls", at.Retries, len(at.Evidence.Calls))
	case at.Incomplete != (len(at.IncompleteWhy) > 0):
		return fmt.Errorf("incomplete without a reason")
	case at.DurationNS < 0:
		return fmt.Errorf("duration %d", at.DurationNS)
	}
	order := 0
	for _, s := range at.Stages {
		i := slices.Index(load.Stages[:], s.Stage)
		if i < order {
			return fmt.Errorf("stages out of order: %v", at.Stages)
		}
		order = i + 1
		if (s.Result == load.StageFailed) != (s.Errno > 0) || s.Result == load.StageFailed && s.Stage != at.FailedStage || s.DurationNS < 0 {
			return fmt.Errorf("stage %+v of an attempt that failed in %q", s, at.FailedStage)
		}
	}
	if at.FailedStage != "" {
		if _, ok := at.Stage(at.FailedStage); !ok {
			return fmt.Errorf("failed stage %s is not listed: %v", at.FailedStage, at.Stages)
		}
	}
	for _, s := range append(slices.Clone(at.VerifierLog.Lines), at.Process.Comm, at.Process.Exe) {
		if strings.ContainsAny(s, "\x1b\n\x00\u202e") {
			return fmt.Errorf("control character in %q", s)
		}
	}
	_, err := json.Marshal(at)
	return err
}

// randomRecord makes records that belong together often enough to get far.
func randomRecord(r *rand.Rand) trace.Record {
	n := func() uint64 {
		switch r.IntN(12) {
		case 0:
			return math.MaxUint64 - r.Uint64N(3)
		case 1:
			return r.Uint64()
		}
		return r.Uint64N(2000) * 100_000
	}
	errno := func() int32 {
		list := []int32{0, 0, -1, -7, -11, -12, -13, -22, -24, -28, -34, -524, 3, math.MinInt32, math.MaxInt32}
		return list[r.IntN(len(list))]
	}
	id := trace.CallID{TID: r.Uint32N(4), Start: n()}
	fn := func() load.Function { return allHooks[r.IntN(len(allHooks))] }
	data := func(most int) []byte {
		b := make([]byte, r.IntN(most+1))
		for i := range b {
			b[i] = byte(r.Uint32())
			if r.IntN(3) > 0 {
				b[i] = 0
			}
		}
		return b
	}
	text := func() string {
		list := []string{"", "R%d %s\n", "\x1b[31m", "processed 5 insns", "BTF", "%*d%.*s%p", "\xff\x00", "harden"}
		return list[r.IntN(len(list))]
	}
	switch r.IntN(10) {
	case 0, 1, 2:
		what := []trace.What{trace.Insns, trace.LineInfo, trace.BTF, trace.Log, trace.Translated, trace.Filter, trace.License, trace.BTFLog, "new"}
		c := &trace.Chunk{ID: id, What: what[r.IntN(len(what))], Total: n(), Data: data(200), Errno: int(errno())}
		if r.IntN(2) == 0 {
			c.Offset = n()
		}
		return trace.Record{Chunk: c}
	case 3:
		return trace.Record{Message: &trace.Message{ID: id, Format: text() + text(), Args: [4]uint64{n(), n()}, Strings: [4]string{text(), text()}}}
	case 4:
		return trace.Record{Loss: &trace.Loss{Mechanism: text(), Count: n(), From: n(), To: n()}}
	case 5:
		return trace.Record{Sysctl: &trace.Sysctl{Name: "net.core.bpf_jit_" + text(), Value: []string{"0", "1", "2", "x"}[r.IntN(4)], At: n()}}
	}
	kinds := []load.Kind{load.ProgLoad, load.ProgLoad, load.MapCreate, load.BTFLoad, load.Seccomp, load.SocketFilter, load.OtherCommand, ""}
	c := &trace.Call{ID: id, End: n(), Kind: kinds[r.IntN(len(kinds))], Cmd: r.Uint32N(40), Ret: int64(errno()), TGID: r.Uint32N(3),
		FailedInsn: errno(), Comm: text(), Exe: text(), Attr: data(160),
		Flags: trace.CallFlags{EnterSeen: r.IntN(4) > 0, FromKernel: r.IntN(8) == 0, ExitSeen: true, AttrFault: r.IntN(8) == 0}}
	if r.IntN(20) == 0 {
		c.Ret = math.MinInt64
	}
	for range r.IntN(5) {
		c.Stages = append(c.Stages, trace.Stage{Function: fn(), Calls: r.Uint32N(3), Failed: r.Uint32N(2), First: n(), Total: n(), LastRet: errno()})
	}
	for range r.IntN(8) {
		c.Failed = append(c.Failed, trace.Span{Function: fn(), Start: n(), End: n(), Ret: errno(), Arg: int64(n()), Unjited: r.IntN(3) == 0})
	}
	if r.IntN(2) == 0 {
		c.Prog = &trace.Prog{JITed: r.IntN(2) == 0, Blinded: r.IntN(2) == 0, Tag: data(40)}
		c.Tag = data(9)
	}
	if r.IntN(2) == 0 {
		c.Creds = &trace.Creds{CapEffective: r.Uint64(), UserNSLevel: r.Uint32N(2), SeccompMode: r.Uint32N(3)}
	}
	if r.IntN(4) == 0 {
		c.Maps = []trace.Map{{Name: text()}}
	}
	return trace.Record{Call: c}
}

// drain feeds records and checks every attempt, and that nothing stays behind.
func drain(t *testing.T, h trace.Header, recs iterRecords) {
	a := New(h)
	calls, got := 0, 0
	take := func(list iter.Seq[*load.Attempt]) {
		for at := range list {
			got += at.Retries + 1
			if err := check(at); err != nil {
				t.Fatal(err)
			}
		}
	}
	for rec := range recs {
		if rec.Call != nil && !a.stray(rec.Call) {
			calls++
		}
		take(a.Add(rec))
		if a.bytes < 0 || a.bytes > maxBytes+1<<20 {
			t.Fatalf("%d bytes are held", a.bytes)
		}
	}
	take(a.Flush())
	if got != calls {
		t.Fatalf("%d calls went in, %d came out", calls, got)
	}
	for len(a.pending) > 0 {
		a.dropOldest()
	}
	if a.bytes != 0 || a.open != 0 || len(a.groups) != 0 {
		t.Fatalf("left behind: %d bytes, %d groups", a.bytes, a.open)
	}
}

type iterRecords = func(yield func(trace.Record) bool)

func TestAnyRecords(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		h := header([]string{"", "5.10.1", "6.12", "7.2"}[seed%4], allHooks[:r.IntN(len(allHooks)+1)])
		drain(t, h, func(yield func(trace.Record) bool) {
			for range 500 {
				if !yield(randomRecord(r)) {
					return
				}
			}
		})
	}
}

func FuzzAttempts(f *testing.F) {
	c := loadCall(req{typ: 1, insnCnt: 3}, -524, run(load.FnLoad, -524, run(load.FnSelect, -524, unjited(run(load.FnBlind, -34, patch(3))))))
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	for _, r := range []trace.Record{logChunk(c, "R0 !read_ok\n"), {Call: c}} {
		if err := enc.Encode(r); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(buf.Bytes())
	h := header("6.12", allHooks, "net.core.bpf_jit_harden=2")
	f.Fuzz(func(t *testing.T, data []byte) {
		drain(t, h, func(yield func(trace.Record) bool) {
			for _, line := range bytes.Split(data, []byte("\n")) {
				var rec trace.Record
				if json.Unmarshal(line, &rec) != nil || rec.Header != nil {
					continue
				}
				if !yield(rec) {
					return
				}
			}
		})
	})
}

// A storm of failing loads of large programs, each once, none final before its window closes.
func TestStorm(t *testing.T) {
	a := New(header("6.12", classicHooks))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	peak, out, cut := uint64(0), 0, 0
	for i := range uint64(100) {
		c := loadCall(req{typ: 1, name: fmt.Sprint(i), insnCnt: 120_000}, -13)
		c.ID.Start, c.End = 1000*i, 1000*i+500
		data := make([]byte, 960_000)
		collect := func(list iter.Seq[*load.Attempt]) {
			for at := range list {
				out++
				if at.Incomplete {
					cut++
				}
			}
		}
		for off := 0; off < len(data); off += 60_000 {
			collect(a.Add(trace.Record{Chunk: &trace.Chunk{ID: c.ID, What: trace.Insns, Offset: uint64(off), Total: 960_000, Data: data[off : off+60_000]}}))
		}
		collect(a.Add(trace.Record{Call: c}))
		if i%25 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&after)
			peak = max(peak, after.HeapAlloc-min(before.HeapAlloc, after.HeapAlloc))
		}
	}
	out += len(slices.Collect(a.Flush()))
	qt.Check(t, qt.Equals(out, 100))
	qt.Check(t, qt.Equals(cut, 0))
	qt.Check(t, qt.IsTrue(peak < 40<<20), qt.Commentf("%d MiB", peak>>20))
}

// Pieces whose call never comes, and one call that brings too much.
func TestOrphansAndGiants(t *testing.T) {
	a := New(header("6.12", classicHooks))
	for i := range uint64(20_000) {
		a.Add(trace.Record{Chunk: &trace.Chunk{ID: trace.CallID{TID: 1, Start: i}, What: trace.Insns, Total: 8192, Data: make([]byte, 8192)}})
	}
	qt.Check(t, qt.IsTrue(a.bytes <= maxBytes))
	qt.Check(t, qt.IsTrue(len(a.pending) <= maxPending && len(a.oldest) <= 2*maxPending))

	c := loadCall(req{typ: 1, name: "giant", insnCnt: 3}, -13)
	c.ID.TID = 2
	for i := range uint64(40) {
		a.Add(trace.Record{Chunk: &trace.Chunk{ID: c.ID, What: trace.Insns, Offset: i << 20, Total: 40 << 20, Data: make([]byte, 1<<20)}})
	}
	a.Add(trace.Record{Call: c})
	got := slices.Collect(a.Flush())
	qt.Assert(t, qt.HasLen(got, 1))
	qt.Check(t, qt.Equals(got[0].Evidence.InsnsState, load.InsnsTruncated))
	qt.Check(t, qt.DeepEquals(got[0].IncompleteWhy, []string{
		"instructions: 11534336 of 41943040 bytes copied", "30408704 bytes dropped: too much evidence at once"}))
}
