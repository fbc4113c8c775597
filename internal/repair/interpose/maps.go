// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// span is a piece of a thread's memory.
type span struct {
	at uint64
	n  int
}

// skip takes off what lies before an address.
func (s *span) skip(end uint64) {
	k := min(uint64(s.n), end-s.at)
	s.at, s.n = s.at+k, s.n-int(k)
}

// allows gives EFAULT where the thread itself could not read ('r') or write ('w') all of the spans.
// The kernel asks that of what a system call points to, and /proc/TID/mem does not: it writes into
// pages that are read-only, or executed. A thread that changes its pages in the meantime could as
// well have written there itself.
func (p *Proxy) allows(n *notification, what byte, spans ...span) error {
	f, err := os.Open("/proc/" + strconv.Itoa(n.tid) + "/maps")
	if err != nil {
		return err
	}
	defer f.Close()
	if !p.waits(n) { // it was opened by the thread's number, and stays that of the address space
		return errNobody
	}
	return allowed(f, what, spans)
}

// allowed reads lines such as "7f0000000000-7f0000001000 rw-p ...", ascending.
func allowed(maps io.Reader, what byte, spans []span) error {
	empty := func(s span) bool { return s.n == 0 }
	rest := slices.DeleteFunc(slices.Clone(spans), empty)
	lines := bufio.NewScanner(maps)
	for len(rest) > 0 && lines.Scan() {
		var start, end uint64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &start, &end, &mode); err != nil {
			return fmt.Errorf("read the map of memory: %w", err)
		}
		may := len(mode) >= 2 && (mode[0] == what || mode[1] == what)
		for i := range rest {
			s := &rest[i]
			if s.at < start || s.at >= end {
				continue
			}
			if !may {
				return unix.EFAULT
			}
			s.skip(end)
		}
		rest = slices.DeleteFunc(rest, empty)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the map of memory: %w", err)
	}
	if len(rest) > 0 {
		return unix.EFAULT
	}
	return nil
}
