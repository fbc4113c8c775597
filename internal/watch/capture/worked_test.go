// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// Who watches for ever is told of failures at once, and of what works only where something failed
// before: the rest is counted. What a process does after a failure may be its end.
func TestGuestCalm(t *testing.T) {
	vmtest.Sampled(t)
	// Go's collector sends signals, and a load that one interrupts has failed (EAGAIN).
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	fine := slices.Concat(bytes.Repeat(mustHex("b700000000000000"), 5), smallProgram)
	for _, b := range backends {
		t.Run(string(b), func(t *testing.T) {
			w := watch(t, place{Options: Options{Backend: string(b), Calm: true}})
			s := newStage(t)
			for range 20 {
				s.loadCode("calm_fine", abi.ProgTypeSocketFilter, 0, fine)
			}
			s.load("calm_tiny", abi.ProgTypeSocketFilter, 0)
			counted, told := 21, 0
			if b == tpBTF { // whether they were compiled is learnt in user space
				counted, told = 0, 20
			}
			qt.Check(t, qt.Equals(w.ask("what worked"), counted))
			if counted > 0 {
				qt.Check(t, qt.DeepEquals(w.worked, []ProgramCount{{Name: "calm_fine", Type: abi.ProgTypeSocketFilter, Insns: uint32(len(fine) / 8), Count: 20}}))
			}
			time.Sleep(idleAfter + 2*calmPollInterval) // so that nobody looks by himself soon
			failed := time.Now()
			bad := fine[:len(fine)-8] // without an end
			license := []byte("GPL\x00")
			s.pin.Pin(&bad[0])
			s.pin.Pin(&license[0])
			ret := call(abi.CmdProgLoad, &abi.ProgLoad{
				ProgType: abi.ProgTypeSocketFilter, InsnCnt: uint32(len(bad) / 8), Insns: addr(bad), License: addr(license), ProgName: abi.NameOf("calm_bad"),
			})
			qt.Assert(t, qt.IsTrue(ret < 0))
			w.wait(func() bool { return len(seen(w.records).loads("calm_bad")) == 1 })
			qt.Check(t, qt.IsTrue(time.Since(failed) < idlePollInterval/2), qt.Commentf("%v", time.Since(failed)))
			s.loadCode("calm_fine", abi.ProgTypeSocketFilter, 0, fine)
			w.wait(func() bool { return len(seen(w.records).loads("calm_fine")) == told+1 })
			qt.Check(t, qt.Equals(w.ask("what worked"), counted))
			w.stop()
		})
	}
}
