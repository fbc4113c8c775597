// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const workPrefix = "bpfwhy-lab-"

// workFolder makes a folder for one machine, some 200 MB. It is locked for as long as its process
// lives or until release, which removes it. Those of processes that were interrupted are removed
// first.
func workFolder() (dir string, release func(), err error) {
	sweep(os.TempDir(), time.Now().Add(-time.Minute))
	if dir, err = os.MkdirTemp("", workPrefix); err != nil {
		return "", nil, err
	}
	lock, err := lockFolder(dir)
	if err != nil {
		os.RemoveAll(dir)
		return "", nil, err
	}
	return dir, func() {
		os.RemoveAll(dir)
		lock.Close()
	}, nil
}

// sweep removes work folders that nobody holds. Younger ones may not be locked yet.
func sweep(parent string, before time.Time) {
	dirs, _ := filepath.Glob(filepath.Join(parent, workPrefix+"*"))
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || info.ModTime().After(before) {
			continue
		}
		if lock, err := lockFolder(dir); err == nil {
			os.RemoveAll(dir)
			lock.Close()
		}
	}
}

// lockFolder fails when somebody else has the lock.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}
