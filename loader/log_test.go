// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/go-quicktest/qt"
)

// Which loads a failure takes, on a kernel that the test makes up.
func TestLog(t *testing.T) {
	fails := func(errno syscall.Errno, log ...string) error {
		return fmt.Errorf("program p: %w", fmt.Errorf("load program: %w", &ebpf.VerifierError{Cause: errno, Log: log}))
	}
	first := fails(syscall.EACCES)
	stats := func(n int) string { return fmt.Sprintf("processed %d insns (limit 1000000)", n) }
	for _, c := range []struct {
		name   string
		opts   ebpf.ProgramOptions
		whole  bool
		answer []error // of the loads that are asked for
		levels []ebpf.LogLevel
		lines  int // of the log, -1: it works
	}{
		{"short", ebpf.ProgramOptions{}, false, []error{fails(syscall.EACCES, "R7 !read_ok", stats(walkLimit)), fails(syscall.EACCES, "0: (bf) r0 = r7", "R7 !read_ok", stats(walkLimit))}, []ebpf.LogLevel{ebpf.LogLevelStats, ebpf.LogLevelBranch}, 3},
		{"long", ebpf.ProgramOptions{}, false, []error{fails(syscall.EACCES, "R7 !read_ok", stats(walkLimit+1))}, []ebpf.LogLevel{ebpf.LogLevelStats}, 2},
		{"before the verifier", ebpf.ProgramOptions{}, false, []error{fails(syscall.EPERM)}, []ebpf.LogLevel{ebpf.LogLevelStats}, 0},
		{"the walk does not come", ebpf.ProgramOptions{}, false, []error{fails(syscall.EACCES, "R7 !read_ok", stats(1)), fails(syscall.ENOMEM)}, []ebpf.LogLevel{ebpf.LogLevelStats, ebpf.LogLevelBranch}, 2},
		{"it works after all", ebpf.ProgramOptions{}, false, []error{nil}, []ebpf.LogLevel{ebpf.LogLevelStats}, -1},
		{"no log wanted", ebpf.ProgramOptions{LogDisabled: true}, false, nil, nil, 0},
		{"a log of the caller's own", ebpf.ProgramOptions{LogLevel: ebpf.LogLevelInstruction}, false, nil, nil, 0},
		{"all of it wanted", ebpf.ProgramOptions{}, true, nil, nil, 0},
	} {
		l := &Loader{WholeLog: c.whole}
		var levels []ebpf.LogLevel
		err := l.log(first, c.opts, func(o ebpf.ProgramOptions) error {
			levels = append(levels, o.LogLevel)
			return c.answer[len(levels)-1]
		})
		qt.Check(t, qt.DeepEquals(levels, c.levels), qt.Commentf("%s", c.name))
		qt.Check(t, qt.Equals(l.quiet(c.opts).LogDisabled, len(c.levels) > 0 || c.opts.LogDisabled), qt.Commentf("%s", c.name))
		if c.lines < 0 {
			qt.Check(t, qt.IsNil(err), qt.Commentf("%s", c.name))
			continue
		}
		var v *ebpf.VerifierError
		qt.Assert(t, qt.ErrorAs(err, &v), qt.Commentf("%s", c.name))
		qt.Check(t, qt.HasLen(v.Log, c.lines), qt.Commentf("%s", c.name))
	}
	qt.Check(t, qt.Equals(instead(first, fails(syscall.EINVAL, "x")).Error(), "program p: load program: : invalid argument: x"))
	other := errors.New("another")
	qt.Check(t, qt.Equals(instead(other, first), other))

	_, out := leftOut(fails(syscall.E2BIG, stats(walkLimit+1)))
	qt.Check(t, qt.IsTrue(out))
	for _, err := range []error{fails(syscall.E2BIG, stats(walkLimit)), fails(syscall.E2BIG, "0: (bf) r0 = r7", stats(walkLimit+1)), other} {
		_, out := leftOut(err)
		qt.Check(t, qt.IsFalse(out))
	}
	qt.Check(t, qt.IsTrue(slices.Contains([]int{32768}, walkLimit))) // as Loader.WholeLog says
}
