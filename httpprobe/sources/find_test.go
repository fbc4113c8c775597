// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/go-quicktest/qt"
)

func TestMappings(t *testing.T) {
	name := filepath.Join(t.TempDir(), "maps")
	qt.Assert(t, qt.IsNil(os.WriteFile(name, []byte(`55d0c0000000-55d0c0001000 r--p 00000000 08:01 10                         /usr/bin/curl
55d0c0001000-55d0c0002000 r-xp 00001000 08:01 10                         /usr/bin/curl
55d0c0002000-55d0c0003000 r-xp 00002000 08:01 10                         /usr/bin/curl
7f0000000000-7f0000001000 r-xp 00000000 08:01 11                         /opt/my libs/libssl.so.3 (deleted)
7f0000002000-7f0000003000 rwxp 00000000 00:00 0                          [heap]
7f0000004000-7f0000005000 r-xp 00000000 00:00 0
7f0000006000-7f0000007000 r-xp 00000000 00:05 12                         anon_inode:x
nonsense
`), 0o600)))
	qt.Check(t, qt.DeepEquals(flat(mappings(name)), []string{
		"55d0c0001000-55d0c0002000 /usr/bin/curl", "7f0000000000-7f0000001000 /opt/my libs/libssl.so.3 (deleted)",
	}))
}

func flat(list []mapping) (s []string) {
	for _, m := range list {
		s = append(s, m.addresses+" "+m.path)
	}
	return s
}

func TestMayBeTLS(t *testing.T) {
	for path, want := range map[string]bool{
		"/usr/lib/libssl.so.3":               true,
		"/usr/lib/libssl.so.3 (deleted)":     true,
		"/x/psycopg2/libssl-3e69114b.so.1.1": true,
		"/usr/lib/libnode.so.108":            true,
		"/usr/lib/libc.so.6":                 false,
		"/ssl/libc.so.6":                     false,
	} {
		qt.Check(t, qt.Equals(mayBeTLS(path), want), qt.Commentf(path))
	}
}

// What a process has under a name is looked for in its own root, and only regular files are opened.
func TestOpenIn(t *testing.T) {
	dir := t.TempDir()
	qt.Assert(t, qt.IsNil(os.MkdirAll(filepath.Join(dir, "root/lib"), 0o755)))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "root/lib/libssl.so.3"), []byte("inside"), 0o600)))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "secret"), []byte("outside"), 0o600)))
	for link, target := range map[string]string{"good": "/lib/libssl.so.3", "up": "../../secret", "far": filepath.Join(dir, "secret"), "magic": "/proc/self/exe"} {
		qt.Assert(t, qt.IsNil(os.Symlink(target, filepath.Join(dir, "root", link))))
	}
	qt.Assert(t, qt.IsNil(syscall.Mkfifo(filepath.Join(dir, "root/fifo"), 0o600)))
	for name, want := range map[string]string{"/lib/libssl.so.3": "inside", "/good": "inside", "/up": "", "/far": "", "/magic": "", "/fifo": "", "/lib": ""} {
		file, err := openIn(dir, name, syscall.S_IFREG)
		if want == "" {
			qt.Check(t, qt.IsNotNil(err), qt.Commentf(name))
			continue
		}
		qt.Assert(t, qt.IsNil(err), qt.Commentf(name))
		b := make([]byte, 16)
		n, _ := file.Read(b)
		qt.Check(t, qt.Equals(string(b[:n]), want))
		file.Close()
	}
}

// A file is probed once, and again when it has changed; what fails is not tried again.
func TestFinderFile(t *testing.T) {
	var probed []map[string]uint64
	f := newFinder(func(_ *os.File, functions map[string]uint64) error {
		probed = append(probed, functions)
		return errors.New("no")
	})
	name := filepath.Join(t.TempDir(), "libssl.so")
	look := func() {
		file, err := os.Open(name)
		qt.Assert(t, qt.IsNil(err))
		defer file.Close()
		_ = f.file(file)
	}
	qt.Assert(t, qt.IsNil(os.WriteFile(name, tinyELF(), 0o600)))
	look()
	look()
	qt.Check(t, qt.DeepEquals(probed, []map[string]uint64{{"SSL_write": 0x1010}}))
	qt.Assert(t, qt.IsNil(os.WriteFile(name, append(tinyELF(), 0), 0o600)))
	look()
	qt.Check(t, qt.HasLen(probed, 2))
	qt.Assert(t, qt.IsNil(os.WriteFile(name, []byte("a script that is called libssl.so\n"), 0o600)))
	look()
	qt.Check(t, qt.HasLen(probed, 2))
}

func TestTrimZeros(t *testing.T) {
	qt.Check(t, qt.Equals(trimZeros("00400000-00401000"), "400000-401000"))
}
