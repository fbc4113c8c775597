// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"strconv"

	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
	"github.com/bpfwhy/bpfwhy/internal/watch/enrich"
	"github.com/bpfwhy/bpfwhy/load"
)

// containers remembers which container a process is in. The zero value is ready.
type containers struct {
	processes map[task]string
	groups    map[uint64]string
}

type task struct {
	tgid   uint32
	cgroup uint64
}

// maxContainers is how many answers are remembered.
const maxContainers = 4096

// of returns the container of a process, "" outside of containers and where nothing is known. A
// process that is gone is in the container of others of its control group.
func (c *containers) of(tgid uint32, cgroup uint64) string {
	if tgid == 0 {
		return ""
	}
	k := task{tgid, cgroup}
	if s, ok := c.processes[k]; ok {
		return s
	}
	if c.processes == nil || len(c.processes) >= maxContainers {
		c.processes = map[task]string{}
	}
	if c.groups == nil || len(c.groups) >= maxContainers {
		c.groups = map[uint64]string{}
	}
	b, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(tgid), 10) + "/cgroup")
	if err != nil {
		return c.groups[cgroup]
	}
	s, own := containerOf(string(b))
	c.processes[k] = s
	if own && cgroup != 0 {
		c.groups[cgroup] = s
	}
	return s
}

// containerOf reads /proc/PID/cgroup. own says that the group of version 2 tells processes apart:
// it is not the root.
func containerOf(text string) (container string, own bool) {
	var p load.Process
	p.Cgroups = proc.Cgroups(text)
	for _, g := range p.Cgroups {
		own = own || g.Version == 2 && g.Name != "/"
	}
	enrich.Process(&p)
	return p.Container, own
}
