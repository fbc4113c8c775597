// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/hang/hangtest"
	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/bpfwhy/bpfwhy/internal/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/load"
)

// TestHangNews: a report when the first hangs, one when more do but not too often, and one when all are back.
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

// TestGuestHanging: loads that do not come back are told by every backend, those from before it watched too, with who and where; other loads are told
// as ever; and that they are gone is told as well.
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
