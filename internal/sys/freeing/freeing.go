// SPDX-License-Identifier: Apache-2.0

// Package freeing bounds how many closed programs are on their way to be freed, for whoever loads
// many.
//
// A closed program is freed by RCU and then by the kernel's common work queue. A load that needs
// memory for compiled code holds a lock that this work needs too, and may itself wait for the
// queue: with a thousand programs on their way the two block each other, and every load of the
// machine hangs until it is restarted.
package freeing

import (
	"errors"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/selfprobe"
)

// Most programs that are on their way, and how long they may take.
const (
	most     = 256
	deadline = 10 * time.Second
)

// ErrStuck says that the kernel does not free what is closed. Whoever gets it loads no more.
var ErrStuck = errors.New("the kernel has not freed the programs that were closed 10 s ago: loading more could stop BPF on this machine")

// Bound counts the closed programs of a process. The zero value is ready, for any number of
// threads.
type Bound struct {
	mu     sync.Mutex
	closed int
	waits  int
	wait   func(time.Duration) error // nil: Wait
}

// Closed is to be called after each program that was closed, or that the kernel refused. Every
// 256th time it waits for the kernel, some tens of milliseconds.
func (b *Bound) Closed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed++; b.closed < most {
		return nil
	}
	b.closed = 0
	b.waits++
	if b.wait != nil {
		return b.wait(deadline)
	}
	return Wait(deadline)
}

// Wait waits until the kernel has freed the programs that this process closed before: those of this
// CPU for certain, those of others most likely. The error is ErrStuck when it takes too long.
func Wait(atMost time.Duration) error {
	// A map that one program alone refers to is freed with it, behind all that wait already. Its
	// number shows when.
	id, err := leaveMap()
	if err != nil {
		return grace()
	}
	start := time.Now()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		fd, err := bpf(unix.BPF_MAP_GET_FD_BY_ID, unsafe.Pointer(&abi.ID{StartID: id}), unsafe.Sizeof(abi.ID{}))
		switch {
		case errors.Is(err, unix.ENOENT):
			return nil
		case err != nil: // numbers are for CAP_SYS_ADMIN only
			return grace()
		}
		unix.Close(fd)
		if time.Since(start) > atMost {
			return ErrStuck
		}
		time.Sleep(pause)
	}
}

// grace waits for the readers of RCU, and a little longer for the queue: there is nothing to see of
// it without rights.
func grace() error {
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0)
	time.Sleep(50 * time.Millisecond)
	return nil
}

// leaveMap loads and closes a program that is the last to refer to a map, and returns the map's
// number.
func leaveMap() (id uint32, err error) {
	array := abi.MapCreate{MapType: abi.MapTypeArray, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	m, err := bpf(unix.BPF_MAP_CREATE, unsafe.Pointer(&array), unsafe.Sizeof(array))
	if err != nil {
		return 0, err
	}
	defer unix.Close(m)
	var info abi.MapInfo
	code := insn.Encode(selfprobe.Map(int32(m)))
	license := []byte("GPL\x00")
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info)
	pin.Pin(&code[0])
	pin.Pin(&license[0])
	ask := abi.ObjInfo{BPFFD: uint32(m), InfoLen: uint32(unsafe.Sizeof(info)), Info: uint64(uintptr(unsafe.Pointer(&info)))}
	if _, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&ask), unsafe.Sizeof(ask)); err != nil {
		return 0, err
	}
	program := abi.ProgLoad{
		ProgType: abi.ProgTypeSocketFilter, InsnCnt: uint32(len(code) / insn.Size), Insns: uint64(uintptr(unsafe.Pointer(&code[0]))),
		License: uint64(uintptr(unsafe.Pointer(&license[0]))), ProgName: abi.NameOf(selfprobe.Name),
	}
	p, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&program), unsafe.Sizeof(program))
	if err != nil {
		return 0, err
	}
	return info.ID, unix.Close(p)
}

// bpf repeats what a signal cuts short: Go sends itself many.
func bpf(cmd uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	for again := 0; ; again++ {
		fd, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
		switch {
		case errno == 0:
			return int(fd), nil
		case errno != unix.EAGAIN && errno != unix.EINTR || again == 30:
			return 0, errno
		}
	}
}
