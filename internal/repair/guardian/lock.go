// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/bpfwhy/bpfwhy/internal/sys/tracefs"
	"golang.org/x/sys/unix"
)

func openLock(name string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("make folder of lock: %w", err)
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	return f, nil
}

// lockFile locks; how is LOCK_EX, with LOCK_NB to not wait.
func lockFile(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

// openTurns opens what guardians lock that have no file in common, since each sees another /run:
// the root folder of tracefs. A kernel has one tracefs, and the folder is root's alone. (Locks of
// inodes of proc and sysfs hold for one pid and one network namespace each; anybody may bind an
// abstract socket, or lock a namespace's own file.) nil where it cannot be had.
func openTurns() *os.File {
	f, err := tracefs.Folder()
	if err != nil {
		return nil
	}
	return f
}
