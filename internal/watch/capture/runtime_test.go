// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// TestRuntime: the executable of a process tells, and of one that has ended its file, unless that
// was a container's.
func TestRuntime(t *testing.T) {
	self, err := os.Executable() // in Go
	qt.Assert(t, qt.IsNil(err))
	call := func(pid int, path, comm string) trace.Call {
		return trace.Call{ID: trace.CallID{TID: uint32(pid), Start: monotonic()}, TGID: uint32(pid), NSPID: uint32(pid), Comm: comm, Exe: path}
	}
	comm, err := os.ReadFile("/proc/self/comm")
	qt.Assert(t, qt.IsNil(err))
	mine := call(os.Getpid(), "/no/such/file", strings.TrimSpace(string(comm)))

	sleep := exec.Command("sleep", "60")
	qt.Assert(t, qt.IsNil(sleep.Start()))
	defer func() {
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
	}()
	gone := exec.Command("/proc/self/exe", "-test.run=^$")
	qt.Assert(t, qt.IsNil(gone.Run()))
	ended := call(gone.Process.Pid, self, "gone")
	inside := ended
	inside.Cgroup2 = &trace.Cgroup{Name: "docker-" + strings.Repeat("0a", 32) + ".scope"}
	for name, test := range map[string]struct {
		call trace.Call
		want string
	}{
		"this one": {mine, "go"}, "in C": {call(sleep.Process.Pid, self, "sleep"), ""},
		"ended": {ended, "go"}, "ended in a container": {inside, ""},
		"ended, and its file too":     {call(gone.Process.Pid, "/no/such/file", "gone"), ""},
		"ended, and its file is none": {call(gone.Process.Pid, "/dev/zero", "gone"), ""}, "cut": {call(gone.Process.Pid, "…/x", "gone"), ""},
	} {
		var r runtimes
		qt.Check(t, qt.Equals(r.of(&test.call), test.want), qt.Commentf("%s", name))
	}

	// Who was asked for is remembered; while an answer is awaited, nobody is asked for.
	var r runtimes
	qt.Check(t, qt.Equals(r.of(&mine), "go"))
	r.busy <- struct{}{}
	qt.Check(t, qt.Equals(r.of(&mine), "go"))
	qt.Check(t, qt.Equals(r.of(&ended), ""))
	<-r.busy
	qt.Check(t, qt.Equals(r.of(&ended), "go"))
}
