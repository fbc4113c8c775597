// SPDX-License-Identifier: Apache-2.0

package patient

import (
	"bytes"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// progLoadAttr is union bpf_attr of BPF_PROG_LOAD, up to fd_array.
type progLoadAttr struct {
	progType           uint32
	insnCnt            uint32
	insns              uint64
	license            uint64
	logLevel           uint32
	logSize            uint32
	logBuf             uint64
	kernVersion        uint32
	progFlags          uint32
	progName           [16]byte
	progIfindex        uint32
	expectedAttachType uint32
	progBTFFD          uint32
	funcInfoRecSize    uint32
	funcInfo           uint64
	funcInfoCnt        uint32
	lineInfoRecSize    uint32
	lineInfo           uint64
	lineInfoCnt        uint32
	attachBTFID        uint32
	attachProgFD       uint32
	pad                uint32
	fdArray            uint64
}

// mapCreateAttr is union bpf_attr of BPF_MAP_CREATE, up to the name.
type mapCreateAttr struct {
	mapType    uint32
	keySize    uint32
	valueSize  uint32
	maxEntries uint32
	mapFlags   uint32
	innerMapFD uint32
	numaNode   uint32
	mapName    [16]byte
	pad        uint32
}

// bpf makes one bpf(2). Errors are unix.Errno, 524 included.
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
	tweak func(*progLoadAttr)
}

func cstr16(s string) (b [16]byte) {
	copy(b[:15], s)
	return b
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
	attr := &progLoadAttr{
		progType:           p.typ,
		insnCnt:            uint32(len(p.insns)),
		insns:              addr(&pin, encode(p.insns)),
		license:            addr(&pin, append([]byte(p.license), 0)),
		progName:           cstr16(p.name),
		expectedAttachType: p.attach,
		logLevel:           p.logLevel,
	}
	var log []byte
	if p.logLevel != 0 {
		if p.logSize == 0 {
			p.logSize = 1 << 20
		}
		log = make([]byte, p.logSize)
		attr.logSize, attr.logBuf = p.logSize, addr(&pin, log)
	}
	if p.tweak != nil {
		p.tweak(attr)
	}
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(attr), unsafe.Sizeof(*attr))
	if i := bytes.IndexByte(log, 0); i >= 0 {
		log = log[:i]
	}
	return newResult(p.name, fd, err, string(log))
}

// newMap creates a map, which must work: patients are about programs.
func newMap(name string, mapType, key, value, entries uint32) (int, error) {
	attr := &mapCreateAttr{mapType: mapType, keySize: key, valueSize: value, maxEntries: entries, mapName: cstr16(name)}
	fd, err := bpf(unix.BPF_MAP_CREATE, unsafe.Pointer(attr), unsafe.Sizeof(*attr))
	if err != nil {
		return -1, fmt.Errorf("create map %s: %w", name, err)
	}
	return fd, nil
}

// progInfo is the start of struct bpf_prog_info.
type progInfo struct {
	typ, id   uint32
	tag       [8]byte
	jitedLen  uint32
	xlatedLen uint32
}

func infoByFD(fd int) (progInfo, error) {
	var info progInfo
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info)
	attr := &struct {
		fd, len uint32
		info    uint64
	}{uint32(fd), uint32(unsafe.Sizeof(info)), uint64(uintptr(unsafe.Pointer(&info)))}
	if _, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(attr), unsafe.Sizeof(*attr)); err != nil {
		return info, fmt.Errorf("read program info: %w", err)
	}
	return info, nil
}
