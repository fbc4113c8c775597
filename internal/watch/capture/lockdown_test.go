// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

func lockdownLevel(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/sys/kernel/security/lockdown")
	qt.Assert(t, qt.IsNil(err))
	_, rest, _ := strings.Cut(string(b), "[")
	level, _, _ := strings.Cut(rest, "]")
	return level
}

// TestLocked runs in a locked-down guest.
func TestLocked(t *testing.T) {
	vmtest.Guest(t)
	switch level := lockdownLevel(t); level {
	case "integrity":
		// what may not be written may still be read: everything as ever
		w, other := watch(t, place{}), watch(t, place{}) // and two of a kind do not disturb each other
		handOut(t, []outcome{{Backend: w.header.Backend, Hooks: w.header.Hooks}})
		run(t, "uninit-register-nolog")
		for _, w := range []*watcher{w, other} {
			qt.Check(t, qt.Equals(w.header.Backend, "fentry"))
			qt.Check(t, qt.Equals(hookOf(w.header, load.FnVerbose).Via, "kprobe"))
			s := w.stop()
			c := s.one(t, programOf(t, "uninit-register-nolog"))
			qt.Check(t, qt.Equals(c.FailedInsn, 0))
			qt.Check(t, qt.StringContains(s.messages(c.ID), "!read_ok"))
		}
	case "confidentiality":
		var outcomes []outcome
		for _, b := range []backend{fentry, kprobe, tracepoint} {
			_, err := tryWatch(t, place{Options: Options{Backend: string(b)}})
			qt.Check(t, qt.ErrorMatches(err, "[^\n]*locked down .confidentiality.[^\n]*"), qt.Commentf("%s", b))
			outcomes = append(outcomes, outcome{Backend: string(b), Error: fmt.Sprint(err)})
		}
		forced := watch(t, place{Options: Options{Backend: "tp_btf"}})
		handOut(t, append(outcomes, outcome{Backend: "tp_btf", Hooks: forced.header.Hooks}))
		w := watch(t, place{})
		run(t, "uninit-register")
		run(t, "ok")
		for _, w := range []*watcher{forced, w} {
			qt.Check(t, qt.Equals(w.header.Backend, "tp_btf"))
			qt.Check(t, qt.Equals(w.header.Node.Lockdown, "confidentiality"))
			qt.Check(t, qt.Not(qt.Equals(hookOf(w.header, load.FnCheck).Why, "")))
			s := w.stop()
			c := s.one(t, "uninit_register")
			qt.Check(t, qt.Equals(c.Ret, -int64(unix.EACCES)))
			qt.Check(t, qt.Equals(c.Flags, trace.CallFlags{EnterSeen: true, ExitSeen: true}))
			code, _ := s.bytes(c.ID, trace.Insns)
			qt.Check(t, qt.DeepEquals(code, mustHex("bf20000000000000"+"9500000000000000")))
			log, total := s.bytes(c.ID, trace.Log)
			qt.Check(t, qt.StringContains(string(log), "R2 !read_ok"))
			qt.Check(t, qt.Equals(total, uint64(len(log))))
			qt.Check(t, qt.IsTrue(s.one(t, "ok").Ret > 2))
		}
		qt.Check(t, qt.StringContains(hookOf(w.header, load.FnCheck).Why, "locked down"))
	default:
		t.Fatalf("lockdown is %q", level)
	}
}
