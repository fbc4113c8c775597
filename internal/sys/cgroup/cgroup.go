// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package cgroup finds control groups of version 2 by what people call them.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Root is where the hierarchy of version 2 is mounted.
func Root() (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find cgroup2: %w", err)
	}
	root, ok := parse(string(b))
	if !ok {
		return "", errors.New("find cgroup2: not mounted")
	}
	return root, nil
}

// parse looks through /proc/self/mountinfo: "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw".
// A mount of the whole hierarchy comes before one of a part of it. Fields are separated by spaces
// alone: the kernel leaves other white space in names as it is.
func parse(mountinfo string) (root string, ok bool) {
	for line := range strings.Lines(mountinfo) {
		mount, kind, _ := strings.Cut(line, " - ")
		f := strings.Split(mount, " ")
		if !strings.HasPrefix(kind, "cgroup2 ") || len(f) < 5 {
			continue
		}
		if whole := f[3] == "/"; whole || !ok {
			root, ok = unescape(f[4]), true
			if whole {
				break
			}
		}
	}
	return root, ok
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// Group is a control group.
type Group struct {
	Path string
	ID   uint64 // the inode number of its folder (kernfs, 64-bit kernels since 5.5)
}

// ByPath takes the path of a group's folder, or its path as /proc/PID/cgroup shows it.
func ByPath(s, root string) (Group, error) {
	for _, path := range []string{s, filepath.Join(root, s)} {
		path, err := filepath.Abs(path)
		if err != nil {
			continue
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			continue
		}
		if id, ok := inode(path); ok {
			return Group{path, id}, nil
		}
	}
	return Group{}, fmt.Errorf("%s is not a control group below %s", s, root)
}

// ByID looks for a group by its id. open_by_handle_at would be quicker, and not every kernel has
// it.
func ByID(id uint64, root string) (Group, error) {
	var found Group
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // a group that has just gone
		}
		if n, ok := inode(path); ok && n == id {
			found = Group{path, id}
			return fs.SkipAll
		}
		return nil
	})
	if err != nil {
		return Group{}, fmt.Errorf("find cgroup %d: %w", id, err)
	}
	if found.Path == "" {
		return Group{}, fmt.Errorf("no control group below %s has id %d", root, id)
	}
	return found, nil
}

// Find takes the id of a group too.
func Find(s, root string) (Group, error) {
	if id, err := strconv.ParseUint(s, 10, 64); err == nil {
		return ByID(id, root)
	}
	g, err := ByPath(s, root)
	if err != nil {
		return Group{}, fmt.Errorf("%s is neither an id nor a path of a control group below %s", s, root)
	}
	return g, nil
}

// inode is the number of a folder.
func inode(path string) (uint64, bool) {
	var st syscall.Stat_t
	if syscall.Stat(path, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return 0, false
	}
	return st.Ino, true
}
