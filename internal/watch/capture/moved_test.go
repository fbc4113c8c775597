// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/go-quicktest/qt"
)

// A process that goes on loading in another control group, and then as another executable: it is
// told of as it is, and not as it was.
func moved() scene {
	const group, other = "/sys/fs/cgroup/moved", "/test/moved"
	var pid int
	return scene{"moved", func(t *testing.T) {
		inLab(t)
		self, err := os.Executable()
		qt.Assert(t, qt.IsNil(err))
		if err := os.Link(self, other); !errors.Is(err, os.ErrExist) {
			qt.Assert(t, qt.IsNil(err))
		}
		qt.Assert(t, qt.IsNil(os.MkdirAll(group, 0o755)))
		cmd := exec.Command(self)
		cmd.Args = []string{movedArgv0, group, other}
		cmd.Stderr = os.Stderr
		qt.Assert(t, qt.IsNil(cmd.Run()))
		pid = cmd.Process.Pid
	}, func(t *testing.T, v story) {
		if !inside(v.backend) {
			return // what it was before is not to be had from outside
		}
		for i, want := range []struct{ exe, group string }{{"/test/test", ""}, {"/test/test", ""}, {"/test/test", "moved"}, {other, "moved"}, {other, "moved"}} {
			c := v.one(t, "moved_"+strconv.Itoa(i))
			qt.Check(t, qt.Equals(c.TGID, uint32(pid)))
			qt.Check(t, qt.Equals(c.Exe, want.exe), qt.Commentf("%d", i))
			qt.Assert(t, qt.IsNotNil(c.Cgroup2))
			qt.Check(t, qt.Equals(c.Cgroup2.Name == "moved", want.group == "moved"), qt.Commentf("%d: %q", i, c.Cgroup2.Name))
			qt.Check(t, qt.IsNil(c.Creds)) // nothing failed
		}
	}}
}

const movedArgv0 = "capture-moved"

// movedMain loads twice, moves and loads again, and goes on as another executable.
func movedMain(args []string) error {
	loads := func(from, to int) error {
		for i := from; i < to; i++ {
			if fd := rawLoad("moved_"+strconv.Itoa(i), smallProgram); fd < 0 {
				return syscall.Errno(-fd)
			}
		}
		return nil
	}
	if len(args) == 0 {
		return loads(3, 5)
	}
	if err := loads(0, 2); err != nil {
		return err
	}
	if err := os.WriteFile(args[0]+"/cgroup.procs", []byte("0"), 0); err != nil {
		return err
	}
	if err := loads(2, 3); err != nil {
		return err
	}
	return syscall.Exec(args[1], []string{movedArgv0}, os.Environ())
}
