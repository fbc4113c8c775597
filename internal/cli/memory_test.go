// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/repair/interpose"
	"github.com/bpfwhy/bpfwhy/internal/watch/assemble"
	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
	"github.com/bpfwhy/bpfwhy/internal/watch/repeat"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/go-quicktest/qt"
)

// worstCase is a source that gives what makes a session hold most: big programs that fail, each
// another one, in processes of long names, whose loaders may try again; and pieces of calls that
// never end.
type worstCase struct {
	n     int
	calls int
	queue []trace.Record
	done  func() // at the last one
}

func (w *worstCase) Close() error { return nil }

func (w *worstCase) Behind() bool { return false }

func (w *worstCase) Next() (trace.Record, error) {
	if len(w.queue) == 0 {
		if w.n == w.calls {
			w.done()
			return trace.Record{}, io.EOF
		}
		w.queue = w.call(w.n)
		w.n++
	}
	r := w.queue[0]
	w.queue[0] = trace.Record{}
	w.queue = w.queue[1:]
	return r, nil
}

// call is one failing load with all that capture copies of it at most: 2 MiB of instructions in
// every 40th, less in the others.
func (w *worstCase) call(i int) []trace.Record {
	insns := 2000
	if i%40 == 0 {
		insns = (2 << 20) / insn.Size
	}
	now := monotonic()
	id := trace.CallID{TID: uint32(i), Start: now}
	var records []trace.Record
	chunks := func(what trace.What, data []byte) {
		for at := 0; at < len(data); at += 128 << 10 {
			part := append([]byte(nil), data[at:min(at+128<<10, len(data))]...)
			records = append(records, trace.Record{Chunk: &trace.Chunk{ID: id, What: what, Offset: uint64(at), Total: uint64(len(data)), Data: part}})
		}
	}
	prog := make([]insn.Instruction, insns)
	for j := range prog {
		prog[j] = insn.Instruction{Code: insn.ClassALU64 | insn.OpADD, Dst: 1, Imm: int32(i)}
	}
	chunks(trace.Insns, insn.Encode(prog))
	chunks(trace.LineInfo, make([]byte, 8*insns))
	chunks(trace.Log, []byte(strings.Repeat("1: (0f) r1 += r2\n", 4*insns/17)+"R1 !read_ok\n\x00"))
	attr := make([]byte, 128)
	binary.LittleEndian.PutUint32(attr[0:], 1)
	binary.LittleEndian.PutUint32(attr[4:], uint32(insns))
	binary.LittleEndian.PutUint32(attr[24:], 1)
	binary.LittleEndian.PutUint32(attr[28:], 1<<20)
	copy(attr[48:], fmt.Sprintf("p%d", i))
	name := strings.Repeat("x", 4000) + fmt.Sprint(i)
	if i%3 == 0 {
		return records // its end is lost
	}
	return append(records, trace.Record{Begin: &trace.Begin{ID: id, TGID: uint32(i)}}, trace.Record{Call: &trace.Call{
		ID: id, End: now + 1, Kind: load.ProgLoad, Cmd: 5, Ret: -13, Flags: trace.CallFlags{EnterSeen: true, ExitSeen: true}, Attr: attr,
		TGID: uint32(i), Comm: "agent", Exe: name, Cgroup2: &trace.Cgroup{ID: uint64(i), Name: name[:500]}, FailedInsn: -1,
	}})
}

// TestMemory: what the parts promise to hold adds up to the limit that the collector gets, and a
// session at all of its bounds stays below it.
func TestMemory(t *testing.T) {
	qt.Assert(t, qt.IsTrue(sessionMemory >= capture.Memory+assemble.Memory+repeat.Memory+heldMemory+repairsMemory+queueBytes))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
	for beside, want := range map[int64]int64{0: 131, interpose.Memory: 131 + 325} { // as docs/cli.md says
		restore := limitMemory(beside)
		qt.Check(t, qt.Equals(debug.SetMemoryLimit(-1)>>20+1, want))
		restore()
	}
	limit := int64(0)
	source := &worstCase{calls: 1200}
	source.done = func() { limit = debug.SetMemoryLimit(-1) }
	s, err := newSession(trace.Header{Schema: trace.Schema, Node: node.Profile{Release: "6.12.0"}, Hooks: []trace.Hook{{Function: load.FnSyscall, Via: "tracepoint"}}},
		&selection{json: true, schema: "v2"}, jsonSink{io.Discard})
	qt.Assert(t, qt.IsNil(err))
	peak := make(chan uint64, 1)
	stop := make(chan struct{})
	go func() {
		most := uint64(0)
		for {
			select {
			case <-stop:
				peak <- most
				return
			case <-time.After(10 * time.Millisecond):
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				most = max(most, m.Sys-m.HeapReleased)
			}
		}
	}()
	qt.Assert(t, qt.IsNil(s.live(source, nil)))
	close(stop)
	got := <-peak
	t.Logf("%d failures; %d MiB at most, of %d", s.summary.Failed, got>>20, sessionMemory>>20)
	qt.Check(t, qt.Equals(limit, int64(sessionMemory)))
	qt.Check(t, qt.Equals(s.summary.Failed, 800))
	// The collector's limit is one that it may go beyond for a moment; not by much, or the sum
	// would not hold.
	qt.Check(t, qt.IsTrue(got < sessionMemory+sessionMemory/8), qt.Commentf("%d MiB", got>>20))
}
