// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Follow adds a process of our own pid namespace with its existing descendants; children that it forks later are followed in
// the kernel. It may be called while another goroutine reads. A process that is gone is no error.
func (c *Capture) Follow(pid int) error {
	seen := map[int]bool{}
	// Parents first, until nobody is new: whoever forks meanwhile is either seen here or followed already.
	for found := []int{pid}; len(found) > 0; {
		for _, p := range found {
			seen[p] = true
			if err := c.asked.add(c.coll.asked, p); err != nil {
				return fmt.Errorf("follow process %d: %w", p, err)
			}
		}
		found = nil
		for _, p := range descendants(pid) {
			if !seen[p] {
				found = append(found, p)
			}
		}
	}
	return nil
}

// asked are the processes in the map of that name, by pid, with descriptors that tell of their ends: the number of a process that is
// gone may become a stranger's. It does so at the next sweep but one at the earliest, for pids are handed out in turn.
type asked struct {
	mu    sync.Mutex
	pidfd map[int]int
}

func (a *asked) add(m *ebpf.Map, pid int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err == nil { // else refused by a sandbox: it stays in the map
		if a.pidfd == nil {
			a.pidfd = map[int]int{}
		}
		if old, ok := a.pidfd[pid]; ok {
			unix.Close(old)
		}
		a.pidfd[pid] = fd
	}
	return m.Put(uint32(pid), uint8(1))
}

// sweep takes out who is gone.
func (a *asked) sweep(m *ebpf.Map) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for pid, fd := range a.pidfd {
		ended := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(ended, 0); err != nil || n == 0 {
			continue
		}
		_ = m.Delete(uint32(pid))
		unix.Close(fd)
		delete(a.pidfd, pid)
	}
}

func (a *asked) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, fd := range a.pidfd {
		unix.Close(fd)
	}
	a.pidfd = nil
}

// descendants are the living children of a process, their children, and so on.
func descendants(pid int) []int {
	parents := map[int][]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// the name, in parentheses, may contain anything
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) < 2 {
			continue
		}
		if ppid, err := strconv.Atoi(f[1]); err == nil {
			parents[ppid] = append(parents[ppid], child)
		}
	}
	var all []int
	for queue := parents[pid]; len(queue) > 0; queue = queue[1:] {
		all = append(all, queue[0])
		queue = append(queue, parents[queue[0]]...)
	}
	return all
}
