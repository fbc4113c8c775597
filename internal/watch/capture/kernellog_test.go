// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// The kernel says to its log alone why it takes no probe here, and of other failures nothing.
func TestGuestKernelLog(t *testing.T) {
	vmtest.Sampled(t)
	const notrace = "ktime_get_boot_fast_ns"
	w := watch(t, place{Options: Options{Backend: "fentry", PIDs: []int{os.Getpid()}}})
	s := newStage(t)
	probe := func(function string) int {
		return s.openEvent(&unix.PerfEventAttr{Type: s.pmu("kprobe"), Ext1: s.text(function)})
	}
	qt.Check(t, qt.Equals(probe("no_such_function"), -int(unix.ENOENT)))
	qt.Check(t, qt.Equals(probe(notrace), -int(unix.EINVAL)))
	told := w.stop().calls(func(c *trace.Call) bool { return c.Kind == load.PerfEventOpen })
	qt.Assert(t, qt.HasLen(told, 2))
	qt.Check(t, qt.HasLen(told[0].Attach.Lines, 0))
	said := func(line string) bool {
		return strings.Contains(line, "Could not probe notrace function") && strings.Contains(line, notrace)
	}
	qt.Check(t, qt.IsTrue(slices.ContainsFunc(told[1].Attach.Lines, said)), qt.Commentf("%q", told[1].Attach.Lines))
}
