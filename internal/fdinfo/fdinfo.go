// SPDX-License-Identifier: Apache-2.0

// Package fdinfo reads what the kernel tells of an open file of ours in /proc/self/fdinfo.
package fdinfo

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// RecursionMisses is how often a program was left out because it, or another one, was running on that CPU already; 0 before 5.12, which does
// not count.
func RecursionMisses(program int) uint64 {
	n, _ := Number(program, "recursion_misses")
	return n
}

// Number reads a field that is a decimal number, such as "prog_id", or "recursion_misses" (5.12). The error says so where the file has no such field.
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
	return 0, fmt.Errorf("file descriptor %d has no %s", fd, field)
}
