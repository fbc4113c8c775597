// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"github.com/bpfwhy/bpfwhy/internal/watch/hang/hangtest"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// TestHangNews: a report when the first hangs, one when more do but not too often, and one when all
// are back.
func TestHangNews(t *testing.T) {
	f := &inflight{after: 30 * time.Second}
	calls := func(n int) (list []trace.HangingCall) {
		for i := range n {
			list = append(list, trace.HangingCall{ID: trace.CallID{TID: uint32(i), Start: uint64(1000 - i)}})
		}
		return list
	}
	for _, step := range []struct {
		at    time.Duration
		hang  int
		want  int // calls told, -1: nothing
		first uint32
	}{
		{0, 0, -1, 0}, {31 * time.Second, 1, 1, 0}, {36 * time.Second, 1, -1, 0},
		{40 * time.Second, 5, -1, 0}, {62 * time.Second, 5, 5, 4}, {70 * time.Second, 5, -1, 0}, // 30 s of silence, then 60
		{100 * time.Second, 6, -1, 0}, {123 * time.Second, 6, 6, 5}, {130 * time.Second, 3, -1, 0}, // fewer are no news
		{10 * time.Hour, 100, 100, 99}, {10*time.Hour + 3*time.Minute, 101, -1, 0}, {10*time.Hour + 5*time.Minute, 101, 101, 100}, // four minutes by then
		{11 * time.Hour, 0, 0, 0}, {11*time.Hour + time.Second, 0, -1, 0}, {12 * time.Hour, 1, 1, 0}, // back, and anew
	} {
		h := f.news(calls(step.hang), uint64(step.at))
		qt.Assert(t, qt.Equals(h != nil, step.want >= 0), qt.Commentf("%v", step.at))
		if h == nil {
			continue
		}
		qt.Check(t, qt.Equals(len(h.Calls)+h.More, step.want), qt.Commentf("%v", step.at))
		qt.Check(t, qt.IsTrue(len(h.Calls) <= maxHanging))
		if step.want > 0 {
			qt.Check(t, qt.Equals(h.Calls[0].ID.TID, step.first)) // the oldest
		}
	}
}

// hangs are the reports among records.
func (s seen) hangs() (list []*trace.Hang) {
	for _, r := range s {
		if r.Hang != nil {
			list = append(list, r.Hang)
		}
	}
	return list
}

// eachMapOfCalls calls f for the maps of calls of all watchers, and returns how many there are.
func eachMapOfCalls(t *testing.T, f func(*ebpf.Map)) (n int) {
	t.Helper()
	for id := ebpf.MapID(0); ; {
		next, err := ebpf.MapGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return n
		}
		qt.Assert(t, qt.IsNil(err))
		id = next
		m, err := ebpf.NewMapFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		qt.Assert(t, qt.IsNil(err))
		if info, err := m.Info(); err == nil && info.Name == "calls" {
			f(m)
			n++
		}
		m.Close()
	}
}

// leftBehind is what a load of a thread leaves in the map whose end was missed.
func leftBehind(tid uint32) []byte {
	var left coreCallRecord
	left.Call.Head.Type, left.Call.Head.Tid, left.Call.Head.Start = uint32(coreRecordTypeR_CALL), tid, monotonic()
	left.Call.Cmd, left.Call.Uattr = unix.BPF_PROG_LOAD, 0x7ffd0
	return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&left.Call)), unsafe.Sizeof(left.Call)))
}

// TestGuestHanging: loads that do not come back are told by every backend, those from before it
// watched too, with who and where; other loads are told as ever, and one whose end was missed is
// not; and that they are gone is told as well.
func TestGuestHanging(t *testing.T) {
	vmtest.Guest(t)
	const after = 3 * time.Second
	before := hangtest.Load(t, 2)
	var watchers []*watcher
	kinds := []backend{fentry, tpBTF} // each object has its own map, and all kinds of hooks use one of the two
	if vmtest.Long() {
		kinds = backends
	}
	for _, b := range kinds {
		watchers = append(watchers, watch(t, place{Options: Options{Backend: string(b), HangAfter: after}}))
	}
	during := hangtest.Load(t, 3)
	idle := make(chan int)
	go func() {
		runtime.LockOSThread()
		idle <- unix.Gettid()
		<-t.Context().Done()
	}()
	tid := uint32(<-idle)
	n := eachMapOfCalls(t, func(m *ebpf.Map) { qt.Assert(t, qt.IsNil(m.Put(tid, leftBehind(tid)))) })
	qt.Assert(t, qt.Equals(n, len(watchers)))
	for _, w := range watchers {
		w.wait(func() bool {
			list := seen(w.records).hangs()
			return len(list) > 0 && len(list[len(list)-1].Calls) == 5
		})
	}
	qt.Check(t, qt.Equals(rawLoad("meanwhile", smallProgram) > 2, true)) // watching goes on
	for _, w := range watchers {
		w.wait(func() bool { return len(seen(w.records).loads("meanwhile")) == 1 })
	}
	time.Sleep(after) // what was left behind is as old as that by now
	before.Process.Kill()
	during.Process.Kill()
	for i, w := range watchers {
		w.wait(func() bool {
			list := seen(w.records).hangs()
			return len(list[len(list)-1].Calls) == 0
		})
		list := w.stop().hangs()
		t.Run(string(kinds[i]), func(t *testing.T) {
			qt.Check(t, qt.IsTrue(len(list) <= 4), qt.Commentf("%d reports", len(list))) // of the first, of more, of all, of their ends
			all := list[len(list)-2]
			earlier, own := 0, 0
			for _, c := range all.Calls {
				qt.Check(t, qt.Equals(c.Kind, load.ProgLoad))
				qt.Check(t, qt.Equals(c.Comm, "exe"))
				qt.Check(t, qt.IsFalse(c.Unsure))
				qt.Check(t, qt.Equals(c.From, "stack"))
				qt.Check(t, qt.IsTrue(slices.Contains(c.Functions, "handle_userfault")), qt.Commentf("%q", c.Functions))
				qt.Check(t, qt.IsFalse(strings.Contains(strings.Join(c.Functions, ""), "0x")))
				switch {
				case c.Earlier:
					earlier++
					qt.Check(t, qt.Equals(c.TGID, uint32(before.Process.Pid)))
				default:
					own++
					qt.Check(t, qt.Equals(c.TGID, uint32(during.Process.Pid)))
					qt.Check(t, qt.Equals(c.Program, "hangs"))
					qt.Check(t, qt.IsTrue(all.At-c.ID.Start >= uint64(after)))
				}
			}
			qt.Check(t, qt.Equals(earlier, 2))
			qt.Check(t, qt.Equals(own, 3))
		})
	}
}

// TestGuestFull: where as many calls hang as there is room for, loads that fail are counted, each
// once, by every backend. They are not told as calls that never began.
func TestGuestFull(t *testing.T) {
	vmtest.Once(t)
	var watchers []*watcher
	for _, b := range backends {
		watchers = append(watchers, watch(t, place{Options: Options{Backend: string(b)}}))
	}
	n := eachMapOfCalls(t, func(m *ebpf.Map) {
		for tid := uint32(1 << 28); ; tid++ { // nobody's
			if err := m.Put(tid, leftBehind(tid)); err != nil {
				qt.Assert(t, qt.ErrorIs(err, unix.E2BIG))
				return
			}
		}
	})
	qt.Assert(t, qt.Equals(n, len(watchers)))
	const failing = 20
	for range failing {
		qt.Check(t, qt.IsTrue(rawLoad("refused", smallProgram[8:]) < 0)) // r0 is not set
		qt.Check(t, qt.IsTrue(rawLoad("refused", smallProgram) > 0))
	}
	for i, w := range watchers {
		records := w.stop()
		t.Run(string(backends[i]), func(t *testing.T) {
			counts := map[string]uint64{}
			for _, r := range records {
				if r.Loss != nil {
					counts[r.Loss.Mechanism] += r.Loss.Count
				}
			}
			t.Log(counts)
			// A program that another task is in the middle of does not run: the kernel counts that,
			// and what it would have counted is missing here.
			var missed uint64
			for name, n := range counts {
				if strings.HasPrefix(name, "recursion in ") {
					missed += n
				}
			}
			told := counts[trace.LostLoads]
			qt.Check(t, qt.IsTrue(told <= failing && told+missed >= failing))
			full := counts[lossNames[coreLossL_INFLIGHT]]
			// The updates that found this map and the later ones full are calls that failed, too.
			most := uint64(2*failing + len(watchers) - i)
			qt.Check(t, qt.IsTrue(full <= most && full+missed >= 2*failing))
			qt.Check(t, qt.HasLen(records.calls(func(c *trace.Call) bool { return progNameOf(c) == "refused" || !c.Flags.EnterSeen }), 0))
		})
	}
}

func TestGuestCallsInFlight(t *testing.T) {
	vmtest.Sampled(t)
	testCallsInFlight(t, fentry, tpBTF) // one of each object
}

func TestHostCallsInFlight(t *testing.T) {
	if os.Getenv(wire.KernelEnv) != "" || os.Getuid() != 0 {
		t.Skip("needs root; guests have TestGuestCallsInFlight")
	}
	testCallsInFlight(t, "")
}

// testCallsInFlight: the calls in flight are read without bpf(2), and all of them.
func testCallsInFlight(t *testing.T, backends ...backend) {
	for _, b := range backends {
		c, err := Open(t.Context(), Options{Backend: string(b)})
		qt.Assert(t, qt.IsNil(err))
		defer drain(t, c) // what is not read to its end is held on to
		defer c.Close()
		if TryFentry() == nil { // who refuses that refuses iterators too, and has no kprobes to hide calls from
			qt.Assert(t, qt.IsNotNil(c.hangs.reader), qt.Commentf("%s", c.coll.backend))
		}
		const first, n = 1 << 30, 100 // numbers that no thread has; more than one read gives
		for tid := uint32(first); tid < first+n; tid++ {
			qt.Assert(t, qt.IsNil(c.coll.maps["calls"].Put(tid, leftBehind(tid))))
		}
		got := map[uint32]int{}
		err = c.hangs.each(func(r *coreCallRecord) {
			if r.Call.Head.Tid >= first && r.Call.Cmd == unix.BPF_PROG_LOAD && r.Call.Uattr == 0x7ffd0 {
				got[r.Call.Head.Tid]++
			}
		})
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.HasLen(got, n))
		for tid, times := range got {
			qt.Check(t, qt.Equals(times, 1), qt.Commentf("%d", tid))
		}
	}
}
