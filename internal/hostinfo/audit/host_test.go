// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	guardian.Main()
	os.Exit(m.Run())
}

// hostPrograms are those that may be loaded on a machine that is not ours: no miscompiled one, and
// no kprobe, which not every host has.
func hostPrograms() []testProgram {
	return slices.DeleteFunc(testPrograms(), func(p testProgram) bool { return p.fate == Miscompiled || p.typ == kprobe })
}

func root(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, _, err := nextID(abi.CmdProgGetNextID, 0); err != nil {
		t.Skipf("loaded programs cannot be listed here: %v", err)
	}
}

// calm waits until nobody has this machine hardened, and keeps it so until the returned function is
// called.
func calm(t *testing.T) (end func()) {
	t.Helper()
	f, err := guardian.Lock(unix.LOCK_SH)
	qt.Assert(t, qt.IsNil(err))
	return func() { f.Close() }
}

// TestHost: our own programs are found, with ourselves as their owner.
func TestHost(t *testing.T) {
	root(t)
	all := hostPrograms()
	defer calm(t)()
	loadAll(t, all)
	r := auditNow(t)
	qt.Check(t, qt.Equals(r.Summary.Programs, len(r.Programs)))
	for _, p := range all {
		q := mine(r, p)
		if !qt.Check(t, qt.IsNotNil(q), qt.Commentf("%s", p.name)) {
			continue
		}
		i := slices.IndexFunc(q.Owners, func(o Owner) bool { return o.PID == os.Getpid() })
		exe, _ := os.Executable()
		qt.Check(t, qt.Equals(filepath.Base(q.Owners[i].Exe), filepath.Base(exe)))
		qt.Check(t, qt.Equals(q.Owners[i].Holds, "program"))
		qt.Check(t, qt.Equals(q.Owners[i].UID, 0))
		qt.Check(t, qt.Equals(q.Owners[i].Runtime, load.RuntimeGo))
		if r.Harden != nil && *r.Harden == 0 && p.exact {
			qt.Check(t, qt.Equals(*q.At2.Margin, p.slots), qt.Commentf("%s", p.name))
			qt.Check(t, qt.Equals(q.At2.Breaks(), p.fate != JITed), qt.Commentf("%s: %+v", p.name, q.At2))
		}
	}
	qt.Check(t, qt.Equals(r.Summary.CanHarden, No))
	qt.Check(t, qt.IsTrue(r.Memory.Programs > 30000))
}

// TestHostHarden hardens this machine for a moment, which a guardian process ends whatever happens
// here.
func TestHostHarden(t *testing.T) {
	root(t)
	if os.Getenv("BPFWHY_HOST_SYSCTL") != "1" {
		t.Skip("raises net.core.bpf_jit_harden; set BPFWHY_HOST_SYSCTL=1")
	}
	end := calm(t)
	if v, ok := node.Host().Sysctl("net.core.bpf_jit_harden"); !ok || v != 0 {
		end()
		t.Skipf("net.core.bpf_jit_harden is %d, not 0", v)
	}
	all := hostPrograms()
	fds := loadAll(t, all)
	r := auditNow(t)
	end()
	said := map[string]Fate{}
	for _, p := range all {
		q := mine(r, p)
		qt.Assert(t, qt.IsNotNil(q), qt.Commentf("%s", p.name))
		said[p.name] = q.At2
	}
	raised, err := guardian.RaiseHarden(t.Context(), 2)
	qt.Assert(t, qt.IsNil(err))
	reload(t, all, fds, 1<<20, func(name string) Fate { return said[name] })
	hardened := auditNow(t)
	report, err := raised.Restore()
	qt.Assert(t, qt.IsNil(err))
	t.Log(report)
	for _, p := range all {
		q := mine(hardened, p)
		if p.fate != JITed || p.name == "small" {
			continue
		}
		qt.Assert(t, qt.IsNotNil(q), qt.Commentf("%s", p.name))
		qt.Check(t, qt.IsTrue(q.Blinded != nil && *q.Blinded), qt.Commentf("%s", p.name))
		qt.Check(t, qt.Equals(q.At2.Outcome, JITed), qt.Commentf("%s", p.name))
	}
}
