// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What a process has mapped, and how its files are opened.

// fileID is a file as it was.
type fileID struct {
	dev, ino uint64
	size     int64
	changed  unix.Timespec
}

// mapping is a file that a process may run code of.
type mapping struct {
	addresses    string // as /proc/PID/map_files has them
	device, node string // "08:01", and with the inode
	path         string
}

// mappings reads /proc/PID/maps: "7f2d5c000000-7f2d5c021000 r-xp 00002000 08:01 1234
// /usr/lib/libssl.so.3". One of each file.
func mappings(name string) ([]mapping, error) {
	b, err := readUpTo(name, maxMapsBytes)
	var list []mapping
	seen := map[string]bool{}
	for line := range bytes.Lines(b) {
		f := strings.SplitN(strings.TrimSuffix(string(line), "\n"), " ", 6)
		if len(f) < 6 || !strings.Contains(f[1], "x") || f[4] == "0" {
			continue
		}
		path := strings.TrimLeft(f[5], " ")
		if !strings.HasPrefix(path, "/") || seen[path] {
			continue
		}
		seen[path] = true
		list = append(list, mapping{f[0], f[3], f[3] + " " + f[4], path})
	}
	return list, err
}

// readUpTo reads the first n bytes of a file, or more.
func readUpTo(name string, n int64) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var b bytes.Buffer
	buf := make([]byte, 32<<10)
	for int64(b.Len()) < n {
		k, err := file.Read(buf)
		b.Write(buf[:k])
		if err == io.EOF {
			break
		}
		if err != nil {
			return b.Bytes(), err
		}
	}
	return b.Bytes(), nil
}

// openMapped opens a mapped file: by /proc/PID/map_files, which is the very file, also when another
// one has its name by now (needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE), else by its name: below
// the root of its process, or, if that came later, in ours.
func openMapped(proc string, m mapping) (*os.File, error) {
	fd, err := unix.Open(proc+"/map_files/"+trimZeros(m.addresses), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == nil {
		return reopen(fd, unix.S_IFREG)
	}
	path := m.path
	root, _ := os.Readlink(proc + "/root")
	if rest, ok := strings.CutPrefix(path, root); ok && strings.HasPrefix(rest, "/") {
		path = rest
	}
	file, err := openIn(proc, path, unix.S_IFREG)
	if errors.Is(err, fs.ErrNotExist) && root != "/" && sameMounts(proc) {
		return openIn("/proc/self", m.path, unix.S_IFREG)
	}
	return file, err
}

func sameMounts(proc string) bool {
	own, err := os.Readlink("/proc/self/ns/mnt")
	theirs, _ := os.Readlink(proc + "/ns/mnt")
	return err == nil && own == theirs
}

// openIn opens what a process has under a name. No link leads out of its root.
func openIn(proc, path string, kind uint32) (*os.File, error) {
	root, err := unix.Open(proc+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	return reopen(fd, kind)
}

// reopen opens for reading what is opened by name only, and closes that, if it is of the right
// kind: to open a device or a pipe has effects.
func reopen(fd int, kind uint32) (*os.File, error) {
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != kind {
		return nil, fs.ErrInvalid
	}
	return os.OpenFile("/proc/self/fd/"+strconv.Itoa(fd), os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// trimZeros takes the leading zeros off addresses, as map_files has them.
func trimZeros(addresses string) string {
	from, to, _ := strings.Cut(addresses, "-")
	return strings.TrimLeft(from, "0") + "-" + strings.TrimLeft(to, "0")
}
