// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/bpfwhy/bpfwhy/internal/sys/fdinfo"
	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Follow adds a process of our own pid namespace with its existing descendants; children that it
// forks later are followed in the kernel. It may be called while another goroutine reads. A process
// that is gone is no error.
func (c *Capture) Follow(pid int) error {
	seen := map[int]bool{}
	// Parents first, until nobody is new: whoever forks meanwhile is either seen here or followed
	// already.
	for found := []int{pid}; len(found) > 0; {
		for _, p := range found {
			seen[p] = true
			if err := c.followedPIDs.add(c.coll.followedPIDs, p); err != nil {
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

// followedPIDs are the processes that user space asked to follow, by pid, with descriptors that
// tell of their ends: the number of a process that is gone may become a stranger's. It does so at
// the next sweep but one at the earliest, for pids are handed out in turn.
type followedPIDs struct {
	mu    sync.Mutex
	pidfd map[int]int
}

func (a *followedPIDs) add(m *ebpf.Map, pid int) error {
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
func (a *followedPIDs) sweep(m *ebpf.Map) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for pid, fd := range a.pidfd {
		if !fdinfo.Readable(fd, 0) {
			continue
		}
		_ = m.Delete(uint32(pid))
		unix.Close(fd)
		delete(a.pidfd, pid)
	}
}

func (a *followedPIDs) release() {
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
	pids, err := proc.Numbers("/proc")
	if err != nil {
		return nil
	}
	for _, child := range pids {
		if s, ok := proc.ReadStat("/proc/" + strconv.Itoa(child) + "/"); ok {
			parents[s.Parent] = append(parents[s.Parent], child)
		}
	}
	var all []int
	for queue := parents[pid]; len(queue) > 0; queue = queue[1:] {
		all = append(all, queue[0])
		queue = append(queue, parents[queue[0]]...)
	}
	return all
}
