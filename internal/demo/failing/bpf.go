// SPDX-License-Identifier: Apache-2.0

package failing

import (
	"bytes"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// Attributes are as long as those of loaders from the time of 5.14: of a load up to fd_array, of a
// map up to its name.
const (
	progLoadSize  = unsafe.Offsetof(abi.ProgLoad{}.CoreRelos)
	mapCreateSize = unsafe.Offsetof(abi.MapCreate{}.BTFFD)
)

// bpf makes one bpf(2). Errors are unix.Errno, ENOTSUPP included.
func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	// The Go runtime's signal for preemption would end a verification with EAGAIN.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var urgent, before unix.Sigset_t
	urgent.Val[0] = 1 << (unix.SIGURG - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &urgent, &before); err != nil {
		return -1, fmt.Errorf("block signals: %w", err)
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

// program is what a raw loader submits.
type program struct {
	name    string
	typ     uint32
	insns   []ins
	license string // "" is GPL
	attach  uint32 // expected_attach_type

	logLevel uint32
	logSize  uint32 // 0 with a level: 1 MiB

	// tweak changes the attr just before the call, for loads that are wrong in it.
	tweak func(*abi.ProgLoad)
}

func addr(pin *runtime.Pinner, b []byte) uint64 {
	if len(b) == 0 {
		return 0
	}
	pin.Pin(&b[0])
	return uint64(uintptr(unsafe.Pointer(&b[0])))
}

// load makes exactly one bpf(2): no retry, no probe.
func (p program) load() Result {
	var pin runtime.Pinner
	defer pin.Unpin()
	if p.license == "" {
		p.license = "GPL"
	}
	attr := &abi.ProgLoad{
		ProgType:           p.typ,
		InsnCnt:            uint32(len(p.insns)),
		Insns:              addr(&pin, encode(p.insns)),
		License:            addr(&pin, append([]byte(p.license), 0)),
		ProgName:           abi.NameOf(p.name),
		ExpectedAttachType: p.attach,
		LogLevel:           p.logLevel,
	}
	var log []byte
	if p.logLevel != 0 {
		if p.logSize == 0 {
			p.logSize = 1 << 20
		}
		log = make([]byte, p.logSize)
		attr.LogSize, attr.LogBuf = p.logSize, addr(&pin, log)
	}
	if p.tweak != nil {
		p.tweak(attr)
	}
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(attr), progLoadSize)
	if i := bytes.IndexByte(log, 0); i >= 0 {
		log = log[:i]
	}
	return newResult(p.name, fd, err, string(log))
}

// newMap creates a map, which must work: the loads here are of programs.
func newMap(name string, mapType, key, value, entries uint32) (int, error) {
	attr := &abi.MapCreate{MapType: mapType, KeySize: key, ValueSize: value, MaxEntries: entries, MapName: abi.NameOf(name)}
	fd, err := bpf(unix.BPF_MAP_CREATE, unsafe.Pointer(attr), mapCreateSize)
	if err != nil {
		return -1, fmt.Errorf("create map %s: %w", name, err)
	}
	return fd, nil
}

func infoByFD(fd int) (abi.ProgInfo, error) {
	var info abi.ProgInfo
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info)
	attr := &abi.ObjInfo{BPFFD: uint32(fd), InfoLen: uint32(unsafe.Sizeof(info)), Info: uint64(uintptr(unsafe.Pointer(&info)))}
	if _, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(attr), unsafe.Sizeof(*attr)); err != nil {
		return info, fmt.Errorf("read program info: %w", err)
	}
	return info, nil
}
