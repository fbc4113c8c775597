// SPDX-License-Identifier: Apache-2.0

// Package atomicfile writes files that are whole at any time: who reads one sees the old contents
// or the new ones, also after a crash of the machine.
package atomicfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Write replaces a file by what write writes, or leaves it as it is. The unfinished file has always
// the same name, so that a process that is killed leaves one at most, which the next Write removes.
// Two may not write the same file at one time.
func Write(path string, mode fs.FileMode, write func(io.Writer) error) error {
	unfinished := Unfinished(path)
	if err := os.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(unfinished, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Chmod(mode) // the umask may have taken some
	}
	if err == nil {
		err = f.Sync() // else a crash could leave an empty file under the name
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(unfinished, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(unfinished))
	}
	return nil
}

// Unfinished is the name of the file while it is being written.
func Unfinished(path string) string {
	dir, base := filepath.Split(path)
	return dir + "." + base + suffix
}

const suffix = ".new"

// Clean removes what writers that were killed left in a folder.
func Clean(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, ".*"+suffix))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}
