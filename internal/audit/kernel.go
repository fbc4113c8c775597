// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/insn"
	"golang.org/x/sys/unix"
)

// Commands of bpf(2) that x/sys does not name (include/uapi/linux/bpf.h).
const (
	cmdObjGet         = 7
	cmdProgGetNextID  = 11
	cmdProgGetFDByID  = 13
	cmdMapGetFDByID   = 14
	cmdObjGetInfoByFD = 15
	cmdTaskFDQuery    = 20
	cmdLinkGetFDByID  = 30
	cmdLinkGetNextID  = 31
)

// info is struct bpf_prog_info up to attach_btf_id (5.16 and later fill verified_insns and what follows). Older kernels leave the
// end as it is: zero.
type info struct {
	typ, id             uint32
	tag                 [8]byte
	jitedLen, xlatedLen uint32
	jited, xlated       uint64
	loadTime            uint64
	uid, nrMaps         uint32
	maps                uint64
	name                [16]byte
	ifindex, gpl        uint32
	netnsDev, netnsIno  uint64
	nrKsyms, nrFuncLens uint32
	ksyms, funcLens     uint64
	btfID, funcInfoSize uint32
	funcInfo            uint64
	nrFuncInfo, nrLines uint32
	lines, jitedLines   uint64
	nrJitedLines        uint32
	lineSize, jitedSize uint32
	nrTags              uint32
	tags                uint64
	runTime, runCount   uint64
	misses              uint64
	verified            uint32
	attachObj, attachID uint32
	_                   uint32
}

// linkInfo is the beginning of struct bpf_link_info.
type linkInfo struct {
	typ, id, progID, _ uint32
	_                  [112]byte
}

func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

// nextID returns the smallest id above one, and false behind the last.
func nextID(cmd int, after uint32) (uint32, bool, error) {
	attr := struct{ start, next, flags uint32 }{start: after}
	_, err := bpf(cmd, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if errors.Is(err, unix.ENOENT) {
		return 0, false, nil
	}
	return attr.next, err == nil, err
}

// byID opens a program or a link. ENOENT: it is gone.
func byID(cmd int, id uint32) (int, error) {
	attr := struct{ id, next, flags uint32 }{id: id}
	return bpf(cmd, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

func infoByFD(fd int, into unsafe.Pointer, size uintptr) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(into)
	attr := struct {
		fd, len uint32
		info    uint64
	}{uint32(fd), uint32(size), uint64(uintptr(into))}
	_, err := bpf(cmdObjGetInfoByFD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// taskFDQuery returns the program behind a perf event of a process (4.18 and later).
func taskFDQuery(pid, fd int) (progID uint32, ok bool) {
	attr := struct {
		pid, fd, flags, bufLen uint32
		buf                    uint64
		progID, fdType         uint32
		probeOffset, probeAddr uint64
	}{pid: uint32(pid), fd: uint32(fd)}
	_, err := bpf(cmdTaskFDQuery, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return attr.progID, err == nil && attr.progID != 0
}

// objGet opens what is pinned at a path.
func objGet(path string) (int, error) {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(p)
	attr := struct {
		path      uint64
		fd, flags uint32
	}{path: uint64(uintptr(unsafe.Pointer(p)))}
	return bpf(cmdObjGet, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// The longest dump that is read: many times 1,000,000 instructions, the most that a kernel takes.
const maxDump = 256 << 20

// dump is what the kernel gave away of one program.
type dump struct {
	info
	insns []insn.Instruction // nil when it was refused
	// refused: the kernel kept the code back. It does so only of blinded programs, and only from those who may not see
	// kernel addresses (bpf_prog_get_info_by_fd in kernel/bpf/syscall.c).
	refused bool
	starts  []int  // of its functions in insns, from func_info; nil without BTF
	code    []byte // compiled, of programs with several functions; nil where refused
}

// read asks for everything about an open program.
func read(fd int) (*dump, error) {
	d := &dump{}
	// Lengths first: when the code is refused, the kernel stops there and leaves the rest of the answer as it was.
	if err := infoByFD(fd, unsafe.Pointer(&d.info), unsafe.Sizeof(d.info)); err != nil {
		return nil, fmt.Errorf("read program info: %w", err)
	}
	if d.xlatedLen == 0 {
		return d, nil // without CAP_BPF the kernel gives no lengths
	}
	if d.xlatedLen > maxDump || d.jitedLen > maxDump || uint64(d.nrFuncInfo)*uint64(d.funcInfoSize) > maxDump {
		return nil, fmt.Errorf("read program: %d bytes of code are more than a program can have", max(d.xlatedLen, d.jitedLen))
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	buffer := func(n uint32) ([]byte, uint64) {
		if n == 0 {
			return nil, 0
		}
		b := make([]byte, n)
		pin.Pin(&b[0])
		return b, uint64(uintptr(unsafe.Pointer(&b[0])))
	}
	ask := info{xlatedLen: d.xlatedLen}
	var xlated, funcInfo []byte
	xlated, ask.xlated = buffer(d.xlatedLen)
	if d.nrFuncInfo > 0 && d.funcInfoSize >= 8 {
		funcInfo, ask.funcInfo = buffer(d.nrFuncInfo * d.funcInfoSize)
		ask.nrFuncInfo, ask.funcInfoSize = d.nrFuncInfo, d.funcInfoSize
	}
	// Of programs with one function the dump tells whether they are blinded.
	if d.nrFuncLens > 1 {
		d.code, ask.jited = buffer(d.jitedLen)
		ask.jitedLen = d.jitedLen
	}
	if err := infoByFD(fd, unsafe.Pointer(&ask), unsafe.Sizeof(ask)); err != nil {
		return nil, fmt.Errorf("read program: %w", err)
	}
	if ask.xlated == 0 {
		d.refused, d.code = true, nil
		return d, nil
	}
	if ask.jited == 0 || ask.jitedLen != d.jitedLen {
		d.code = nil
	}
	prog, err := insn.Decode(xlated[:min(ask.xlatedLen, d.xlatedLen)])
	if err != nil {
		return nil, fmt.Errorf("read program: %w", err)
	}
	d.insns = prog
	if ask.nrFuncInfo == d.nrFuncInfo && ask.funcInfo != 0 {
		for i := range int(d.nrFuncInfo) {
			d.starts = append(d.starts, int(binary.LittleEndian.Uint32(funcInfo[i*int(d.funcInfoSize):])))
		}
	}
	return d, nil
}

func (i *info) progName() string {
	name, _, _ := bytes.Cut(i.name[:], []byte{0})
	return string(name)
}

// mapTypes are the types of the maps that a dump names, by id, as far as they can be opened.
func mapTypes(prog []insn.Instruction) (types []uint32) {
	seen := map[int32]bool{}
	for i, in := range prog {
		if !in.IsMapLoad() || insn.IsSecondHalf(prog, i) || seen[in.Imm] || in.Imm <= 0 {
			continue
		}
		seen[in.Imm] = true
		fd, err := byID(cmdMapGetFDByID, uint32(in.Imm))
		if err != nil {
			continue // its instructions tell most
		}
		var info struct{ typ, id uint32 }
		if infoByFD(fd, unsafe.Pointer(&info), unsafe.Sizeof(info)) == nil {
			types = append(types, info.typ)
		}
		unix.Close(fd)
	}
	return types
}
