// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// callKinds are the system calls that load nothing: what watching loads may cost everybody else.
// getppid is the cheapest: what is added to it is added to all.
var callKinds = []string{"getppid", "read", "connect", "socket", "perf", "lookup", "update", "batch"}

// calls repeats one of them.
func (r *Report) calls() error {
	once, err := newCall(r.Kind)
	if err != nil {
		return fmt.Errorf("prepare %s: %w", r.Kind, err)
	}
	if errno := once(); errno != 0 { // warms up
		return fmt.Errorf("%s: %w", r.Kind, errno)
	}
	cpu, wall := clock(unix.CLOCK_THREAD_CPUTIME_ID), clock(unix.CLOCK_MONOTONIC)
	for range r.N {
		if errno := once(); errno != 0 {
			return fmt.Errorf("%s: %w", r.Kind, errno)
		}
	}
	r.WallNS = (clock(unix.CLOCK_MONOTONIC) - wall) / int64(r.N)
	r.CPUNS = (clock(unix.CLOCK_THREAD_CPUTIME_ID) - cpu) / int64(r.N)
	return nil
}

func newCall(kind string) (func() unix.Errno, error) {
	switch kind {
	case "getppid":
		return func() unix.Errno {
			unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
			return 0
		}, nil
	case "read":
		fd, err := unix.Open("/dev/zero", unix.O_RDONLY, 0)
		var b [1]byte
		return func() unix.Errno {
			return syscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b)), 1)
		}, err
	case "connect":
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		to := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: 0x900, Addr: [4]byte{127, 0, 0, 1}} // discard
		return func() unix.Errno {
			return syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to))
		}, err
	case "socket":
		return func() unix.Errno { return opened(unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM, 0)) }, nil
	case "perf":
		event := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
		return func() unix.Errno {
			const anyCPU, noGroup = ^uintptr(0), ^uintptr(0)
			return opened(unix.RawSyscall6(unix.SYS_PERF_EVENT_OPEN, uintptr(unsafe.Pointer(&event)), 0, anyCPU, noGroup, 0, 0))
		}, nil
	}
	return newMapCall(kind)
}

// opened closes the descriptor that a call returned.
func opened(fd, _ uintptr, errno unix.Errno) unix.Errno {
	if errno == 0 {
		unix.Close(int(fd))
	}
	return errno
}

func syscall(nr, a, b, c uintptr) unix.Errno {
	_, _, errno := unix.RawSyscall(nr, a, b, c)
	return errno
}

// batchSize is how many elements a batch has.
const batchSize = 64

// elements is the memory that a call on a map names.
type elements struct {
	keys   [batchSize]uint32
	values [batchSize]uint64
}

func newMapCall(kind string) (func() unix.Errno, error) {
	create := abi.MapCreate{MapType: abi.MapTypeArray, KeySize: 4, ValueSize: 8, MaxEntries: batchSize}
	fd, _, errno := unix.RawSyscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&create)), unsafe.Sizeof(create))
	if errno != 0 {
		return nil, errno
	}
	memory := &elements{}
	new(runtime.Pinner).Pin(memory) // for as long as the process lives
	for i := range memory.keys {
		memory.keys[i] = uint32(i)
	}
	keys, values := address(&memory.keys[0]), address(&memory.values[0])
	elem := &abi.MapElem{MapFD: uint32(fd), Key: keys, Value: values}
	switch kind {
	case "lookup":
		return func() unix.Errno { return bpf(unix.BPF_MAP_LOOKUP_ELEM, elem) }, nil
	case "update":
		return func() unix.Errno { return bpf(unix.BPF_MAP_UPDATE_ELEM, elem) }, nil
	}
	batch := &abi.MapBatch{Keys: keys, Values: values, MapFD: uint32(fd)}
	return func() unix.Errno {
		batch.Count = batchSize // the kernel writes how many there were
		return bpf(unix.BPF_MAP_UPDATE_BATCH, batch)
	}, nil
}

func address[T any](p *T) uint64 { return uint64(uintptr(unsafe.Pointer(p))) }

func bpf[T abi.Attr](cmd uintptr, attr *T) unix.Errno {
	return syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
}
