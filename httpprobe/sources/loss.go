// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"strings"
	"sync"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/internal/sys/fdinfo"
)

// counters are the kernel's, which only grow. One that cannot be read is what it was: otherwise it
// would fall now, and what it had would be counted again later.
type counters struct {
	mu   sync.Mutex
	last map[string]uint64
}

// read returns a counter as it is, or as it was.
func (c *counters) read(name string, now uint64, err error) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && now > c.last[name] {
		if c.last == nil {
			c.last = map[string]uint64{}
		}
		c.last[name] = now
	}
	return c.last[name]
}

// lossOf adds up what programs with bpf/common.h lost. perCPU are their own counters, or why they
// cannot be read; misses are how often a program was left out.
func (c *counters) lossOf(perCPU []syscallsLosses, err error, programs []string, misses func(program string) (uint64, error)) event.Loss {
	var now event.Loss
	for _, n := range perCPU {
		now.RingFull += n.Ring
		now.MapFull += n.Map
		now.ReadFault += n.Fault
	}
	l := event.Loss{
		RingFull:  c.read("ring", now.RingFull, err),
		MapFull:   c.read("map", now.MapFull, err),
		ReadFault: c.read("fault", now.ReadFault, err),
	}
	missed := map[string]uint64{}
	for _, name := range programs {
		n, err := misses(name)
		missed[name] = c.read("recursion in "+name, n, err)
	}
	for _, name := range programs {
		if strings.HasSuffix(name, reentrantSuffix) {
			continue
		}
		n := missed[name]
		if other, ok := missed[name+reentrantSuffix]; ok {
			n = min(n, other) // lost is what both missed: never more than either did
		}
		l.Recursion += n
	}
	return l
}

// misses are the recursion misses of a program; none before 5.12, which does not count them.
func misses(fd int) (uint64, error) { return fdinfo.Number(fd, "recursion_misses") }
