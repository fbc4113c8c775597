// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package resident keeps a daemon's resident memory to what it needs as it runs. Starting needs
// much more of both heap and executable.
package resident

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Release gives memory back: garbage, and the pages of the executable. Those that are needed come
// again, from the page cache.
func Release() error {
	debug.FreeOSMemory()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("release pages of the executable: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("release pages of the executable: %w", err)
	}
	for line := range strings.Lines(string(maps)) {
		start, end, ok := unwritten(line, exe)
		if !ok {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("release pages of the executable: %w", errno)
		}
	}
	return nil
}

// unwritten is the range of a mapping of a file that nobody writes to: the file has all that is in
// its pages.
func unwritten(line, file string) (start, end uintptr, ok bool) {
	f := strings.Fields(line) // start-end perms offset dev inode path
	if len(f) < 6 || strings.Join(f[5:], " ") != file || !strings.HasPrefix(f[1], "r-") {
		return 0, 0, false
	}
	from, to, _ := strings.Cut(f[0], "-")
	a, err1 := strconv.ParseUint(from, 16, 64)
	b, err2 := strconv.ParseUint(to, 16, 64)
	return uintptr(a), uintptr(b), err1 == nil && err2 == nil && a < b
}
