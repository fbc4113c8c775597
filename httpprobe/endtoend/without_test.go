// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// without takes from the command, which this process is to become, what one of its sources needs.
// Only for machines of the lab.
func without(source string) {
	if source == "" {
		return
	}
	runtime.LockOSThread() // who becomes another program is this thread
	var err error
	switch source {
	case "syscalls": // the kernel's types
		err = hide("/sys/kernel/btf")
	case "openssl": // the libraries that others use
		err = unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_PTRACE, 0, 0, 0)
	case "packets":
		err = unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_NET_RAW, 0, 0, 0)
	default:
		err = fmt.Errorf("no such source")
	}
	if err == nil {
		os.Unsetenv(withoutEnv)
		err = syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	fmt.Fprintf(os.Stderr, "without %s: %v\n", source, err)
	os.Exit(1)
}

// hide puts something empty over folders, for this thread.
func hide(paths ...string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, path := range paths {
		if _, err := os.Stat(path); os.IsNotExist(err) {
			continue
		}
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("hide %s: %w", path, err)
		}
	}
	return nil
}
