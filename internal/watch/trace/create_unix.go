// SPDX-License-Identifier: Apache-2.0

//go:build unix

package trace

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Create opens a file for a recording or a report, readable by its owner alone: it tells of other
// people's programs. An existing regular file of the caller is emptied. Anything else that has the
// name, a symbolic link, a second name of a file, a pipe, a file of another user, is refused: the
// directory may be /tmp and the caller root.
func Create(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if !errors.Is(err, os.ErrExist) {
		if err != nil {
			return nil, fmt.Errorf("create file: %w", err)
		}
		return f, nil
	}
	// O_NONBLOCK: opening a pipe must not wait for its reader.
	f, err = os.OpenFile(path, os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("create file: %s is a symbolic link", path)
	}
	if err != nil {
		return nil, fmt.Errorf("create file: %w", err)
	}
	if err := reuse(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("create file: %s %w", path, err)
	}
	return f, nil
}

func reuse(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return errors.New("exists and is not a regular file")
	case !ok || int(st.Uid) != os.Geteuid():
		return errors.New("exists and belongs to another user")
	case st.Nlink != 1:
		return errors.New("exists under another name too")
	}
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	return f.Truncate(0)
}
