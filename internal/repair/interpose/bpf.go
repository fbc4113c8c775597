// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pointer is a field of attributes and what it is to point to.
type pointer struct {
	field *uint64
	to    unsafe.Pointer
}

// bpfWith makes one bpf(2) with attributes that point to memory of Go.
func bpfWith(cmd int, a unsafe.Pointer, size uintptr, pointers ...pointer) (int, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	for _, p := range pointers {
		if p.to != nil {
			pin.Pin(p.to)
		}
		*p.field = uint64(uintptr(p.to))
	}
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(a), size)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}
