// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"os"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// Whatever machine this is: something attaches, and it tells of a failing load and of what it does
// not watch; or there is one precise reason why not. Nothing on the machine is changed.
func TestHost(t *testing.T) {
	if os.Getenv(wire.KernelEnv) != "" {
		t.Skip("runs outside the lab")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	start := time.Now()
	w, err := tryWatch(t, place{})
	if err != nil {
		t.Logf("cannot watch here: %v", err)
		qt.Check(t, qt.ErrorMatches(err, "(?s)watch bpf.2.: (fentry|tp_btf|needs root).*"))
		return
	}
	run(t, "uninit-register")
	w.wait(func() bool { return len(seen(w.records).loads("uninit_register")) > 0 })
	total := time.Since(start)
	qt.Check(t, qt.Equals(rawLoad("ours", smallProgram[8:]), -int(unix.EACCES)))
	w.wait(func() bool { return len(seen(w.records).loads("ours")) > 0 })
	s := w.stop()
	// Who stays is described, by whatever way.
	ours := s.one(t, "ours")
	exe, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(ours.Exe, exe))
	c := s.one(t, "uninit_register")
	qt.Check(t, qt.Equals(c.Ret, -int64(unix.EACCES)))
	code, _ := s.bytes(c.ID, trace.Insns)
	qt.Check(t, qt.DeepEquals(code, mustHex("bf20000000000000"+"9500000000000000")))
	log, _ := s.bytes(c.ID, trace.Log)
	qt.Check(t, qt.StringContains(string(log), "R2 !read_ok"))
	for _, h := range w.header.Hooks {
		qt.Check(t, qt.Not(qt.Equals(h.Via+h.Why, "")), qt.Commentf("%s", h.Function))
		t.Logf("%-16s %-8s %s%s", h.Function, h.Via, h.Symbol, h.Why)
	}
	t.Logf("%s: Open %v; from nothing to the first load %v", w.header.Backend, w.first.Took.Round(time.Millisecond), total.Round(time.Millisecond))
}

// Scenes that harm nobody, on whatever machine this is.
func TestHostScenes(t *testing.T) {
	if os.Getenv(wire.KernelEnv) != "" || os.Getuid() != 0 {
		t.Skip("runs outside the lab, and needs root")
	}
	w, err := tryWatch(t, place{})
	if err != nil {
		t.Skipf("cannot watch here: %v", err)
	}
	scenes := []scene{i386Calls(), dirtyLog(saysLogSize(t)), attachScene(t)}
	for _, sc := range scenes {
		t.Run("play "+sc.name, sc.play)
	}
	v := story{"host", backend(w.header.Backend), w.header, w.stop(), false}
	for _, sc := range scenes {
		t.Run(sc.name, func(t *testing.T) { sc.check(t, v) })
	}
}

// The end may come while losses are looked at. What this is about shows under -race.
func TestHostCloseWhilePolling(t *testing.T) {
	if os.Getenv(wire.KernelEnv) != "" || os.Getuid() != 0 {
		t.Skip("runs outside the lab, and needs root")
	}
	c, err := Open(t.Context(), Options{})
	if err != nil {
		t.Skipf("cannot watch here: %v", err)
	}
	var polling sync.WaitGroup
	stop := make(chan struct{})
	polling.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				c.losses.read(false, false)
			}
		}
	})
	qt.Check(t, qt.IsNil(c.Close()))
	close(stop)
	polling.Wait()
	s := drain(t, c)
	qt.Check(t, qt.IsNotNil(s[len(s)-1].End))
}
