// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"
	"os"

	"github.com/bpfwhy/bpfwhy/internal/sys/cgroup"
)

// watchCgroup lets through what comes from a cgroup and those below it. Before it is called,
// nothing is let through.
func (c *collection) watchCgroup(id uint64) error {
	root, err := cgroup.Root()
	if err != nil {
		return err
	}
	g, err := cgroup.ByID(id, root)
	if err != nil {
		return err
	}
	dir, err := os.Open(g.Path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := c.maps["cgroups"].Put(uint32(0), uint32(dir.Fd())); err != nil {
		return fmt.Errorf("watch cgroup %d: %w", id, err)
	}
	return nil
}
