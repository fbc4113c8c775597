// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"fmt"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
)

// testPackets: over the loopback the local end is the server's.
func testPackets(t *testing.T) {
	start := time.Now()
	s, err := Packets(Options{})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer s.Close()
	t.Logf("up in %v", time.Since(start))
	for _, p := range s.Programs() {
		qt.Check(t, qt.IsTrue(p.JITed), qt.Commentf(p.Name))
	}
	c := collect(t, s)
	tapes := &tapes{ends: map[end]*taped{}}
	url, cl := serve(t, tapes), client(tapes)
	before := monotonic()
	for _, n := range []int{0, 5, 500, 3000, 100_000} {
		get(t, cl, fmt.Sprintf("%s/%d", url, n), 200)
	}
	cl.CloseIdleConnections()
	time.Sleep(100 * time.Millisecond)
	c.stop()
	after := monotonic()

	var own []event.Event // on a host there may be others
	for _, e := range c.events {
		if tapes.ends[end{e.LocalPort, e.RemotePort}] != nil {
			own = append(own, e)
			// the clock on the wall may be corrected meanwhile
			qt.Check(t, qt.IsTrue(e.Time > before-uint64(100*time.Millisecond) && e.Time < after+uint64(100*time.Millisecond)))
		}
	}
	got := flows(t, own)
	qt.Assert(t, qt.HasLen(got, 2))
	for k, f := range got {
		qt.Check(t, qt.IsTrue(f.fresh))
		qt.Check(t, qt.Equals(f.gaps, 0))
		n := compare(t, tapes.ends[k.end], k.dir, f)
		t.Logf("%+v %d: %d bytes, %d captured", k.end, k.dir, len(f.bytes), n)
		qt.Check(t, qt.IsTrue(n >= min(len(f.bytes), 1024)))
		qt.Check(t, qt.Equals(fmt.Sprintf("http://127.0.0.1:%d", k.end.local), url)) // the server's
	}
	kinds := map[event.Kind]int{}
	for _, e := range own {
		kinds[e.Kind]++
	}
	qt.Check(t, qt.Equals(kinds[event.Shut], 2))
	qt.Check(t, qt.Equals(kinds[event.Close], 1))
	loss := s.Loss()
	qt.Check(t, qt.Equals(loss, event.Loss{}))
}
