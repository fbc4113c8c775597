// SPDX-License-Identifier: Apache-2.0

//go:build linux

package resident

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
)

// file is how many KiB of files this process has in memory.
func file(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	qt.Assert(t, qt.IsNil(err))
	n, err := strconv.Atoi(strings.TrimSuffix(proc.Field(string(b), "RssFile"), " kB"))
	qt.Assert(t, qt.IsNil(err))
	return n
}

// touch reads all pages of the executable that cannot be written.
func touch(t *testing.T) {
	t.Helper()
	exe, err := os.Readlink("/proc/self/exe")
	qt.Assert(t, qt.IsNil(err))
	maps, err := os.ReadFile("/proc/self/maps")
	qt.Assert(t, qt.IsNil(err))
	mem, err := os.Open("/proc/self/mem")
	qt.Assert(t, qt.IsNil(err))
	defer mem.Close()
	var page [1]byte
	for line := range strings.Lines(string(maps)) {
		if start, end, ok := unwritten(line, exe); ok {
			for at := start; at < end; at += 4096 {
				_, err := mem.ReadAt(page[:], int64(at))
				qt.Assert(t, qt.IsNil(err))
			}
		}
	}
}

// What is released is no longer resident, and the process goes on.
func TestRelease(t *testing.T) {
	touch(t)
	before := file(t)
	qt.Assert(t, qt.IsNil(Release()))
	after := file(t)
	t.Logf("%d KiB, then %d KiB", before, after)
	qt.Check(t, qt.IsTrue(after < before/2))
}

// Only our own file's pages, and none that can be written.
func TestUnwritten(t *testing.T) {
	for line, want := range map[string]bool{
		"00400000-00401000 r-xp 00000000 fe:01 7 /bin/x\n":           true,
		"00400000-00401000 r--p 00000000 fe:01 7 /bin/x\n":           true,
		"00400000-00401000 r-xp 00000000 fe:01 7 /bin/x (deleted)\n": false,
		"00400000-00401000 rw-p 00000000 fe:01 7 /bin/x\n":           false,
		"00400000-00401000 ---p 00000000 fe:01 7 /bin/x\n":           false,
		"00400000-00401000 r-xp 00000000 fe:01 7 /bin/y\n":           false,
		"c000000000-c000400000 rw-p 00000000 00:00 0\n":              false,
		"00401000-00400000 r-xp 00000000 fe:01 7 /bin/x\n":           false,
	} {
		_, _, ok := unwritten(line, "/bin/x")
		qt.Check(t, qt.Equals(ok, want), qt.Commentf("%s", line))
	}
	start, end, _ := unwritten("00400000-00401000 r-xp 00000000 fe:01 7 /a b\n", "/a b")
	qt.Check(t, qt.Equals(start, 0x400000))
	qt.Check(t, qt.Equals(end, 0x401000))
}
