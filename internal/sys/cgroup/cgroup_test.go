// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
)

func TestRoot(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"usual": {"29 23 0:25 / /proc rw - proc proc rw\n30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n", "/sys/fs/cgroup"},
		"beside version 1": {"31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
			"32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/unified"},
		"elsewhere, with a space":    {`30 23 0:26 / /mnt/my\040groups rw - cgroup2 none rw` + "\n", "/mnt/my groups"},
		"a part mounted first":       {"30 23 0:26 /a /tmp/a rw - cgroup2 cgroup2 rw\n31 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup"},
		"in a container, a part":     {"30 23 0:26 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "/sys/fs/cgroup"},
		"not mounted":                {"29 23 0:25 / /proc rw - proc proc rw\n", ""},
		"its name is somewhere else": {"29 23 0:25 / /cgroup2 rw - tmpfs cgroup2 rw\n- cgroup2 \n", ""},
	} {
		got, ok := parse(tt.text)
		qt.Check(t, qt.Equals(got, tt.want), qt.Commentf("%s", name))
		qt.Check(t, qt.Equals(ok, tt.want != ""), qt.Commentf("%s", name))
	}
}

func TestFind(t *testing.T) {
	root := t.TempDir()
	deep := filepath.Join(root, "kubepods.slice", "pod1")
	qt.Assert(t, qt.IsNil(os.MkdirAll(deep, 0o755)))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(root, "cgroup.procs"), nil, 0o644)))
	id, ok := inode(deep)
	qt.Assert(t, qt.IsTrue(ok))
	top, ok := inode(root)
	qt.Assert(t, qt.IsTrue(ok))
	for in, want := range map[string]Group{
		deep:                   {deep, id}, // as a folder
		"/kubepods.slice/pod1": {deep, id}, // as /proc/PID/cgroup shows it
		fmt.Sprint(id):         {deep, id},
		"/":                    {root, top},
		root:                   {root, top},
	} {
		got, err := Find(in, root)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", in))
		qt.Check(t, qt.Equals(got, want), qt.Commentf("%s", in))
	}
	for _, in := range []string{"/etc", "/no/such/group", "18446744073709551615", "0", "..", root + "/../x", "cgroup.procs"} {
		_, err := Find(in, root)
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("%s", in))
	}
}
