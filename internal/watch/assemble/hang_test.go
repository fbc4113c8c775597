// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

func TestHang(t *testing.T) {
	h := trace.Header{Epoch: 1e18}
	call := func(tid uint32, start uint64, functions ...string) trace.HangingCall {
		return trace.HangingCall{ID: trace.CallID{TID: tid, Start: start}, TGID: tid / 10, Comm: "agent\x1b", Kind: load.ProgLoad, Functions: functions, From: "stack"}
	}
	got := Hang(h, &trace.Hang{At: 95e9, After: 30e9, More: 7, Calls: []trace.HangingCall{
		call(100, 5e9, "flush_work", "bpf_prog_pack_alloc", "0xffffffff81234567", "a b"),
		call(110, 6e9, "mutex_lock", "bpf_prog_pack_alloc"), call(111, 7e9, "mutex_lock", "bpf_prog_pack_alloc"), call(120, 8e9, "mutex_lock", "bpf_prog_pack_alloc"),
	}})
	qt.Check(t, qt.Equals(got.Calls, 11))
	qt.Check(t, qt.Equals(got.OldestNS, 90*time.Second))
	qt.Check(t, qt.Equals(got.Since, time.Unix(0, 1e18+5e9).UTC()))
	qt.Assert(t, qt.HasLen(got.Places, 2))
	qt.Check(t, qt.Equals(got.Places[0].Calls, 3))
	qt.Check(t, qt.HasLen(got.Places[0].Processes, 2)) // 111 is of the same process as 110
	qt.Check(t, qt.Equals(got.Places[0].Processes[0].Comm, `agent\x1b`))
	qt.Check(t, qt.DeepEquals(got.Places[1].Functions, []string{"flush_work", "bpf_prog_pack_alloc"}))
	qt.Check(t, qt.Equals(got.Unsure, 0))
	unsure := call(100, 5e9)
	unsure.Unsure = true
	qt.Check(t, qt.Equals(Hang(h, &trace.Hang{At: 95e9, Calls: []trace.HangingCall{unsure}, More: 3}).Unsure, 4))
	qt.Check(t, qt.Equals(Hang(h, &trace.Hang{At: 95e9, Calls: []trace.HangingCall{unsure, call(110, 6e9)}, More: 3}).Unsure, 1))
	none := Hang(h, &trace.Hang{At: 99e9, After: 30e9})
	qt.Check(t, qt.Equals(none.Calls, 0))
	b, err := json.Marshal(none)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.StringContains(string(b), `"places":[]`))
}
