// SPDX-License-Identifier: Apache-2.0

package hang

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/watch/hang/hangtest"
)

func TestMain(m *testing.M) {
	Main()
	hangtest.Main()
	if os.Args[0] == "first" {
		fmt.Print(First(context.Background(), time.Second))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestFunctions(t *testing.T) {
	for in, want := range map[string]string{
		"[<0>] mutex_lock+0x2a/0x30\n[<0>] bpf_prog_pack_alloc.isra.0+0x1f/0x2a0\n[<0>] nf_hook [nf_tables]\n": "mutex_lock bpf_prog_pack_alloc.isra.0 nf_hook",
		"[<ffffffff812b4c40>] mutex_lock+0x2a/0x30\n":                                                          "mutex_lock",
		"[<0>] 0xffffffffc0a51234\n":                                                                           "", // a module that is gone
		"0":                                                                                                    "",
		"do_wait":                                                                                              "do_wait",
	} {
		qt.Check(t, qt.Equals(strings.Join(functions(in), " "), want))
	}
}

func TestParseCall(t *testing.T) {
	for in, want := range map[string]string{
		"321 0x5 0x7ffd0 0x98 0x0 0x0 0x0 0x7ffd8 0x7f12\n": "BPF_PROG_LOAD",
		"321 0x1 0x7ffd0 0x98 0x0 0x0 0x0 0x7ffd8 0x7f12\n": "",
		"317 0x1 0x0 0x7ffd 0x0 0x0 0x0 0x7ffd8 0x7f12\n":   "a seccomp filter",
		"157 0x16 0x2 0x7ffd 0x0 0x0 0x0 0x7ffd8 0x7f12\n":  "a seccomp filter",
		"54 0x3 0x1 0x1a 0x7ff 0x10 0x0 0x7ffd8 0x7f12\n":   "SO_ATTACH_FILTER",
		"0 0x3 0x1 0x1a 0x7ff 0x10 0x0 0x7ffd8 0x7f12\n":    "",
		"running\n": "", "-1 0x7ffd 0x7f\n": "", "": "",
	} {
		c, ok := parseCall(in)
		ok = ok && c.loads()
		qt.Check(t, qt.Equals(ok, want != ""), qt.Commentf("%q", in))
		if ok {
			qt.Check(t, qt.Equals(c.String(), want))
		}
	}
}

// TestFirst: on a machine where nothing hangs.
func TestFirst(t *testing.T) {
	start := time.Now()
	qt.Check(t, qt.IsNil(First(t.Context(), Deadline)))
	t.Logf("%v", time.Since(start))
}

func TestKernels(t *testing.T) { vmtest.RunIn(t, vmtest.Sample(), "^TestGuest", vm.Machine{}) }

// TestGuestHang: a load of another process that hangs is found by a scan, with its place; a load of
// our own that hangs is told in time.
func TestGuestHang(t *testing.T) {
	vmtest.Guest(t)
	cmd := hangtest.Load(t, 2)
	var found []Thread
	for start := time.Now(); len(found) < 2 && time.Since(start) < 20*time.Second; time.Sleep(50 * time.Millisecond) {
		found = Scan() // both have asked for their page; they may not sleep yet
	}
	qt.Assert(t, qt.HasLen(found, 2))
	for _, f := range found {
		qt.Check(t, qt.Equals(f.PID, cmd.Process.Pid))
		qt.Check(t, qt.Equals(f.Call, "BPF_PROG_LOAD"))
	}
	time.Sleep(time.Second)
	still := Still(found)
	qt.Assert(t, qt.HasLen(still, 2))
	p := Of(still[0].TID)
	qt.Check(t, qt.Equals(p.From, "stack"))
	names := strings.Join(p.Functions, " ")
	qt.Check(t, qt.StringContains(names, "handle_userfault"))
	qt.Check(t, qt.StringContains(names, "sys_bpf"))
	t.Logf("%s", names)

	confined := hangtest.Confine("first")
	confined.Stderr = os.Stderr
	start := time.Now()
	said, err := confined.Output()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Matches(string(said), `a load of four instructions has not come back after \d+s: it hangs in .*seccomp.* \('bpfwhy explain HANG002'\)`))
	t.Logf("after %v: %s", time.Since(start), said)

	// What hangs is gone with its process, and does not keep a load of ours.
	qt.Assert(t, qt.IsNil(cmd.Process.Kill()))
	cmd.Wait()
	qt.Check(t, qt.HasLen(Still(found), 0))
	qt.Check(t, qt.IsNil(First(t.Context(), Deadline)))
}
