// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"
	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
)

func testSyscalls(t *testing.T) {
	start := time.Now()
	s, err := Syscalls(Options{PIDs: own()})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer s.Close()
	t.Logf("up in %v", time.Since(start))
	for _, p := range s.Programs() {
		qt.Check(t, qt.IsTrue(p.JITed), qt.Commentf(p.Name))
		qt.Check(t, qt.IsFalse(p.Repaired))
	}
	c := collect(t, s)
	tapes := &tapes{ends: map[end]*taped{}}
	url, cl := serve(t, tapes), client(tapes)
	for _, n := range []int{0, 5, 500, 3000, 100_000} {
		get(t, cl, fmt.Sprintf("%s/%d", url, n), 200)
	}
	get(t, cl, url+"/nothing", 404)
	cl.CloseIdleConnections()
	// Multipath, where the kernel has it: Go's servers take it by themselves.
	multipath := &net.Dialer{}
	multipath.SetMultipathTCP(true)
	cl = clientOf(tapes, multipath)
	get(t, cl, url+"/7", 200)
	cl.CloseIdleConnections()
	time.Sleep(100 * time.Millisecond)
	c.stop()

	got := flows(t, c.events)
	qt.Check(t, qt.HasLen(got, 8))
	for k, f := range got {
		qt.Check(t, qt.IsTrue(f.fresh), qt.Commentf("%+v", k))
		qt.Check(t, qt.Equals(f.gaps, 0))
		p := tapes.ends[k.end]
		qt.Assert(t, qt.IsNotNil(p), qt.Commentf("%+v\n%s", k, eventList(c.events)))
		n := compare(t, p, k.dir, f)
		t.Logf("%+v: %d bytes, %d captured", k.end, len(f.bytes), n)
		qt.Check(t, qt.IsTrue(n >= min(len(f.bytes), 1024)))
	}
	var used bool
	for _, p := range tapes.ends {
		if c, ok := p.Conn.(*net.TCPConn); ok {
			m, _ := c.MultipathTCP()
			used = used || m
		}
	}
	t.Log("multipath:", used)
	ends := map[event.Kind]int{}
	for _, e := range c.events {
		if e.Kind != event.Data {
			ends[e.Kind]++
			continue
		}
		qt.Check(t, qt.Not(qt.Equals(e.TID, 0)))
		qt.Check(t, qt.Equals(e.Conn.Source, event.Syscalls))
	}
	qt.Check(t, qt.Equals(ends[event.Close], 4))
	qt.Check(t, qt.IsTrue(ends[event.Shut] >= 2))
	loss := s.Loss()
	if kernel, err := btf.LoadKernelSpec(); err == nil && isPreempted(kernel) {
		loss.Recursion = 0 // of any calls, also such as were no business of ours
	}
	qt.Check(t, qt.Equals(loss, event.Loss{}))
}

func TestIsLate(t *testing.T) {
	for _, c := range []struct {
		at, shift uint32
		late, ok  bool
	}{
		{8, 0, false, true},
		{12, 0, true, true}, // common_preempt_lazy_count
		{16, 8, false, true},
		{16, 0, false, false},
		{0, 0, false, false},
	} {
		late, err := isLate(c.at, c.shift)
		qt.Check(t, qt.Equals(late, c.late), qt.Commentf("%+v", c))
		qt.Check(t, qt.Equals(err == nil, c.ok), qt.Commentf("%+v: %v", c, err))
	}
}
