// SPDX-License-Identifier: Apache-2.0

package surrogate

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Memory is shared memory of a size that nobody can change.
func Memory(name string, size int) (*os.File, error) {
	const noexec = 8 // MFD_NOEXEC_SEAL, Linux 6.3
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|noexec)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("make shared memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	err = f.Truncate(int64(size))
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make shared memory: %w", err)
	}
	return f, nil
}
