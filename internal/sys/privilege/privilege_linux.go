// SPDX-License-Identifier: Apache-2.0

// Package privilege reads and gives up capabilities.
package privilege

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/node"
	"golang.org/x/sys/unix"
)

// Effective returns the effective capabilities of the calling thread, one bit each.
func Effective() (uint64, error) {
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), nil
}

// ErrCgo is returned where system calls cannot be made in all threads.
var ErrCgo = errors.New("this executable was built with cgo, and can give nothing up; CGO_ENABLED=0 builds one that can")

// Drop gives up, in every thread and for good, each capability that is not in keep. What the
// process does not have is not gained. The bounding set is emptied to keep too where CAP_SETPCAP
// allows it, so that no program started later gets anything back by being root; do not start one
// that should. Binaries that use cgo cannot do it: ErrCgo.
func Drop(keep ...int) error {
	mask := abi.CapSet(keep...)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	if abi.HasCap(uint64(data[0].Effective), abi.CapSetPCap) {
		for c := range 64 {
			if abi.HasCap(mask, c) {
				continue
			}
			_, _, errno := syscall.AllThreadsSyscall6(syscall.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0, 0)
			if errno == unix.ENOTSUP { // syscall.AllThreadsSyscall
				return ErrCgo
			}
			if errno == unix.EINVAL { // beyond the kernel's last capability
				break
			}
			if errno != 0 {
				return fmt.Errorf("drop %s from the bounding set: %w", node.Capability(c), errno)
			}
		}
	}
	for i := range data {
		m := uint32(mask >> (32 * i))
		data[i].Effective &= m
		data[i].Permitted &= m
		data[i].Inheritable &= m
	}
	// header.Pid 0 is the calling thread, whichever that is.
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno == unix.ENOTSUP {
		return ErrCgo
	}
	if errno != 0 {
		return fmt.Errorf("drop capabilities: %w", errno)
	}
	return nil
}
