// SPDX-License-Identifier: Apache-2.0

package buildinfo

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// counted counts what is read of it.
type counted struct {
	io.ReaderAt
	read int
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, off)
	c.read += n
	return n, err
}

// TestIsGo: this test is in Go, and a shell is not. A change in what matters makes it none.
func TestIsGo(t *testing.T) {
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	b, err := os.ReadFile(self)
	qt.Assert(t, qt.IsNil(err))
	c := &counted{ReaderAt: bytes.NewReader(b)}
	qt.Check(t, qt.IsTrue(IsGo(c)))
	qt.Check(t, qt.IsTrue(c.read < 64<<10), qt.Commentf("%d bytes", c.read))
	for at, name := range map[int]string{0: "magic", 4: "class", 5: "byte order", 0x28: "table", 0x3a: "entries", 0x3e: "names"} {
		changed := bytes.Clone(b)
		changed[at] ^= 0xff
		qt.Check(t, qt.IsFalse(IsGo(bytes.NewReader(changed))), qt.Commentf("%s", name))
	}
	qt.Check(t, qt.IsFalse(IsGo(bytes.NewReader(b[:100]))))

	sh, err := os.Open("/bin/sh")
	qt.Assert(t, qt.IsNil(err))
	defer sh.Close()
	qt.Check(t, qt.IsFalse(IsGo(sh)))
}

// TestIsGoFile: a file that never answers is waited for no longer than was said.
func TestIsGoFile(t *testing.T) {
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(IsGoFile(self, time.Minute)))
	qt.Check(t, qt.IsFalse(IsGoFile("/bin/sh", time.Minute)))
	qt.Check(t, qt.IsFalse(IsGoFile(filepath.Join(t.TempDir(), "none"), time.Minute)))
	fifo := filepath.Join(t.TempDir(), "fifo") // opening it waits for a writer
	qt.Assert(t, qt.IsNil(syscall.Mkfifo(fifo, 0o600)))
	qt.Check(t, qt.IsFalse(IsGoFile(fifo, time.Millisecond)))
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	qt.Assert(t, qt.IsNil(err))
	w.Close()
}

// FuzzIsGo: whatever a file says of itself, little of it is read.
func FuzzIsGo(f *testing.F) {
	header := make([]byte, headerSize, 4*headerSize)
	copy(header, "\x7fELF\x02\x01\x01")
	header[0x28], header[0x3a], header[0x3c] = headerSize, sectionSize, 1
	f.Add(append(append(header, make([]byte, 24)...), 128, 0, 0, 0, 0, 0, 0, 0, 16))
	f.Add([]byte("#!/bin/sh"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &counted{ReaderAt: bytes.NewReader(b)}
		if IsGo(c) && !bytes.Contains(b, []byte(goSection)) {
			t.Fatal("a name that is not there")
		}
		if c.read > headerSize+maxSections*sectionSize+maxNames {
			t.Fatalf("%d bytes", c.read)
		}
	})
}
