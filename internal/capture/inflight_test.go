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
