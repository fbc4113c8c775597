// SPDX-License-Identifier: Apache-2.0

// Package fdinfo asks the kernel about an open file: by /proc/PID/fdinfo, and by poll(2).
package fdinfo

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoField says that this kernel does not tell that of a file.
var ErrNoField = errors.New("no such field")

// RecursionMisses is how often a program was left out because it, or another one, was running on
// that CPU already; 0 before 5.12, which does not count.
func RecursionMisses(program int) uint64 {
	n, _ := Number(program, "recursion_misses")
	return n
}

// Number reads a field that is a decimal number, such as "prog_id", or "recursion_misses" (5.12).
// The error is ErrNoField where the file has none.
func Number(fd int, field string) (uint64, error) { return number("self", fd, field) }

// NumberOf is Number for a file that a process or a thread has open.
func NumberOf(pid, fd int, field string) (uint64, error) {
	return number(strconv.Itoa(pid), fd, field)
}

func number(pid string, fd int, field string) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%s/fdinfo/%d", pid, fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strconv.ParseUint(strings.TrimSpace(v), 10, 64)
		}
	}
	return 0, fmt.Errorf("file descriptor %d has no %s: %w", fd, field, ErrNoField)
}

// Readable reports whether a file can be read, or is at its end, and waits for that for a while.
// A pidfd can be read once its process has ended.
func Readable(fd int, while time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(while.Milliseconds()))
	return err == nil && n > 0
}
