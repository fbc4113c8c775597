// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// cpioWriter writes the "newc" archive that the kernel unpacks as its
// initramfs (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpioWriter struct {
	w       io.Writer
	inode   uint32
	written int64
	folders map[string]bool
}

const (
	cpioFolder  = 0o040000
	cpioFile    = 0o100000
	cpioSymlink = 0o120000
	cpioDevice  = 0o020000 // character device
)

func newCPIOWriter(w io.Writer) *cpioWriter {
	return &cpioWriter{w: w, folders: map[string]bool{}}
}

// folder adds name and the folders above it, each once.
func (c *cpioWriter) folder(name string) error {
	name = strings.Trim(path.Clean(name), "/")
	if name == "" || name == "." || c.folders[name] {
		return nil
	}
	if err := c.folder(path.Dir("/" + name)); err != nil {
		return err
	}
	c.folders[name] = true
	return c.entry(name, cpioFolder|0o755, 0, 0, 0, strings.NewReader(""))
}

func (c *cpioWriter) symlink(name, target string) error {
	if err := c.folder(path.Dir("/" + name)); err != nil {
		return err
	}
	return c.entry(name, cpioSymlink|0o777, int64(len(target)), 0, 0, strings.NewReader(target))
}

// device adds a character device node.
func (c *cpioWriter) device(name string, major, minor uint32) error {
	if err := c.folder(path.Dir("/" + name)); err != nil {
		return err
	}
	return c.entry(name, cpioDevice|0o600, 0, major, minor, strings.NewReader(""))
}

func (c *cpioWriter) file(name string, perm fs.FileMode, size int64, content io.Reader) error {
	if err := c.folder(path.Dir("/" + name)); err != nil {
		return err
	}
	return c.entry(name, cpioFile|uint32(perm.Perm()), size, 0, 0, content)
}

// hostFile adds a copy of a file of the host, or of a whole folder.
func (c *cpioWriter) hostFile(name, host string) error {
	info, err := os.Stat(host)
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		entries, err := os.ReadDir(host)
		if err != nil {
			return err
		}
		if err := c.folder(name); err != nil {
			return err
		}
		for _, entry := range entries {
			if err := c.hostFile(path.Join(name, entry.Name()), host+"/"+entry.Name()); err != nil {
				return err
			}
		}
		return nil
	case info.Mode().IsRegular():
		f, err := os.Open(host)
		if err != nil {
			return err
		}
		defer f.Close()
		return c.file(name, info.Mode(), info.Size(), f)
	default:
		return fmt.Errorf("copy %s: neither a file nor a folder", host)
	}
}

// close writes the trailer.
func (c *cpioWriter) close() error {
	c.inode = 0
	return c.entry("TRAILER!!!", 0, 0, 0, 0, strings.NewReader(""))
}

func (c *cpioWriter) entry(name string, mode uint32, size int64, major, minor uint32, content io.Reader) error {
	name = strings.TrimPrefix(name, "/")
	if size > 0xffffffff {
		return fmt.Errorf("archive %s: %d bytes, at most 4 GiB fit", name, size)
	}
	c.inode++
	links := 1
	// magic, inode, mode, uid, gid, links, mtime, size, device, special
	// device, name length with its NUL, checksum
	header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		c.inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, len(name)+1, 0, name)
	if err := c.write(strings.NewReader(header), int64(len(header))); err != nil {
		return fmt.Errorf("archive %s: %w", name, err)
	}
	if err := c.write(content, size); err != nil {
		return fmt.Errorf("archive %s: %w", name, err)
	}
	return nil
}

// write copies exactly size bytes and pads to a multiple of four.
func (c *cpioWriter) write(r io.Reader, size int64) error {
	n, err := io.CopyN(c.w, r, size)
	c.written += n
	if err != nil {
		return err
	}
	pad := (4 - c.written%4) % 4
	c.written += pad
	_, err = c.w.Write(slices.Repeat([]byte{0}, int(pad)))
	return err
}
