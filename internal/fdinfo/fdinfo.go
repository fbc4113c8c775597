// SPDX-License-Identifier: Apache-2.0

// Package fdinfo reads what the kernel tells of an open file of ours in /proc/self/fdinfo.
package fdinfo

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ErrNoField says that this kernel does not tell that of a file.
var ErrNoField = errors.New("no such field")

// RecursionMisses is how often a program was left out because it, or another one, was running on that CPU already; 0 before 5.12, which does
// not count.
func RecursionMisses(program int) uint64 {
	n, _ := Number(program, "recursion_misses")
	return n
}

// Number reads a field that is a decimal number, such as "prog_id", or "recursion_misses" (5.12). The error is ErrNoField where the file has none.
func Number(fd int, field string) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
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
