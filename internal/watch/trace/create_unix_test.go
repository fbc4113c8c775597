// SPDX-License-Identifier: Apache-2.0

//go:build unix

package trace

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/go-quicktest/qt"
)

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }

	f, err := Create(at("new"))
	qt.Assert(t, qt.IsNil(err))
	f.Close()
	info, err := os.Stat(at("new"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(info.Mode(), 0o600))

	// An older recording of one's own is replaced, and closed to others.
	qt.Assert(t, qt.IsNil(os.WriteFile(at("old"), []byte("secret"), 0o644)))
	f, err = Create(at("old"))
	qt.Assert(t, qt.IsNil(err))
	f.Close()
	info, err = os.Stat(at("old"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(info.Mode(), 0o600))
	qt.Assert(t, qt.Equals(info.Size(), 0))

	qt.Assert(t, qt.IsNil(os.WriteFile(at("victim"), []byte("keep"), 0o644)))
	qt.Assert(t, qt.IsNil(os.Symlink(at("victim"), at("link"))))
	qt.Assert(t, qt.IsNil(os.Symlink(at("nothing"), at("dangling"))))
	qt.Assert(t, qt.IsNil(os.Link(at("victim"), at("hard"))))
	qt.Assert(t, qt.IsNil(syscall.Mkfifo(at("pipe"), 0o600)))
	for name, want := range map[string]string{
		"link":     "create file: .*/link is a symbolic link",
		"dangling": "create file: .*/dangling is a symbolic link",
		"hard":     "create file: .*/hard exists under another name too",
		"pipe":     "create file: .*(not a regular file|no such device or address)",
		".":        "create file: .*(is a directory|file exists)",
		"no/where": "create file: .*no such file or directory",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Create(at(name))
			qt.Assert(t, qt.ErrorMatches(err, want))
		})
	}
	kept, err := os.ReadFile(at("victim"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(string(kept), "keep"))
	_, err = os.Lstat(at("nothing"))
	qt.Assert(t, qt.ErrorIs(err, os.ErrNotExist))

	if os.Geteuid() == 0 {
		qt.Assert(t, qt.IsNil(os.WriteFile(at("other"), nil, 0o666)))
		qt.Assert(t, qt.IsNil(os.Chown(at("other"), 12345, 12345)))
		_, err := Create(at("other"))
		qt.Assert(t, qt.ErrorMatches(err, "create file: .*/other exists and belongs to another user"))
	}
}
