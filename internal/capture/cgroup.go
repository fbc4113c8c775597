// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// openCgroup opens the directory of a cgroup v2 by its id, which is the file handle of kernfs (5.5).
func openCgroup(id uint64) (*os.File, error) {
	root, err := cgroup2Root()
	if err != nil {
		return nil, err
	}
	mount, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer mount.Close()
	const fileidKernfs = 0xfe // include/linux/exportfs.h
	handle := unix.NewFileHandle(fileidKernfs, binary.LittleEndian.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(int(mount.Fd()), handle, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %d below %s: %w", id, root, err)
	}
	return os.NewFile(uintptr(fd), root), nil
}

// cgroup2Root is where the cgroup v2 hierarchy is mounted.
func cgroup2Root() (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find cgroup2: %w", err)
	}
	for line := range strings.Lines(string(b)) { // "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
		mount, fs, ok := strings.Cut(line, " - ")
		if fields := strings.Fields(mount); ok && strings.HasPrefix(fs, "cgroup2 ") && len(fields) > 4 {
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
