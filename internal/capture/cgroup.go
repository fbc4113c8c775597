// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// openCgroup opens the directory of a cgroup v2 by its id, which is the directory's inode number. open_by_handle_at would be quicker, and
// not every kernel has it.
func openCgroup(id uint64) (*os.File, error) {
	root, err := Cgroup2Root()
	if err != nil {
		return nil, err
	}
	found := ""
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // a group that has just gone
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil && st.Ino == id {
			found = path
			return fs.SkipAll
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find cgroup %d: %w", id, err)
	}
	if found == "" {
		return nil, fmt.Errorf("find cgroup %d: there is none below %s", id, root)
	}
	return os.Open(found)
}

// Cgroup2Root is where the cgroup v2 hierarchy is mounted.
func Cgroup2Root() (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find cgroup2: %w", err)
	}
	for line := range strings.Lines(string(b)) { // "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
		mount, kind, ok := strings.Cut(line, " - ")
		if fields := strings.Fields(mount); ok && strings.HasPrefix(kind, "cgroup2 ") && len(fields) > 4 {
			return fields[4], nil
		}
	}
	return "", errors.New("find cgroup2: not mounted")
}

// watchCgroup lets through what comes from a cgroup and those below it. Before it is called, nothing is let through.
func (c *collection) watchCgroup(id uint64) error {
	dir, err := openCgroup(id)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := c.maps["cgroups"].Put(uint32(0), uint32(dir.Fd())); err != nil {
		return fmt.Errorf("watch cgroup %d: %w", id, err)
	}
	return nil
}
