// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"golang.org/x/sys/unix"
)

func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

// nextID returns the smallest id above one, and false behind the last.
func nextID(cmd int, after uint32) (uint32, bool, error) {
	attr := abi.ID{StartID: after}
	_, err := bpf(cmd, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if errors.Is(err, unix.ENOENT) {
		return 0, false, nil
	}
	return attr.NextID, err == nil, err
}

// Newest is the highest id of a program that is loaded, 0 where none is or none can be seen. Ids
// only grow.
func Newest() (id uint32) {
	for {
		next, more, err := nextID(abi.CmdProgGetNextID, id)
		if err != nil || !more {
			return id
		}
		id = next
	}
}

// Newer names the first few programs that were loaded after the one of an id, and says how many
// more there are. Those that are not loaded any more are not seen.
func Newer(id uint32) (names []string, more int) {
	const most = 5
	for {
		next, found, err := nextID(abi.CmdProgGetNextID, id)
		switch {
		case err != nil || !found:
			return names, more
		case len(names) == most:
			more++
		default:
			names = append(names, nameOf(next))
		}
		id = next
	}
}

func nameOf(id uint32) string {
	p := Program{ID: id}
	if fd, err := byID(abi.CmdProgGetFDByID, id); err == nil {
		defer unix.Close(fd)
		var info abi.ProgInfo
		if infoByFD(fd, unsafe.Pointer(&info), unsafe.Sizeof(info)) == nil {
			p.Name = info.Name.String()
		}
	}
	return p.Title()
}

// byID opens a program or a link. ENOENT: it is gone.
func byID(cmd int, id uint32) (int, error) {
	attr := abi.ID{StartID: id}
	return bpf(cmd, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

func infoByFD(fd int, into unsafe.Pointer, size uintptr) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(into)
	attr := abi.ObjInfo{BPFFD: uint32(fd), InfoLen: uint32(size), Info: uint64(uintptr(into))}
	_, err := bpf(abi.CmdObjGetInfoByFD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// taskFDQuery returns the program behind a perf event of a process (4.18 and later).
func taskFDQuery(pid, fd int) (progID uint32, ok bool) {
	attr := abi.TaskFDQuery{PID: uint32(pid), FD: uint32(fd)}
	_, err := bpf(abi.CmdTaskFDQuery, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return attr.ProgID, err == nil && attr.ProgID != 0
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
	attr := abi.ObjPin{Pathname: uint64(uintptr(unsafe.Pointer(p)))}
	return bpf(abi.CmdObjGet, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

// The longest dump that is read: many times 1,000,000 instructions, the most that a kernel takes.
const maxDump = 256 << 20

// dump is what the kernel gave away of one program.
type dump struct {
	abi.ProgInfo
	insns []insn.Instruction // nil when it was refused
	// refused: the kernel kept the code back. It does so only of blinded programs, and only from
	// those who may not see kernel addresses (bpf_prog_get_info_by_fd in kernel/bpf/syscall.c).
	refused bool
	starts  []int  // of its functions in insns, from func_info; nil without BTF
	code    []byte // compiled, of programs with several functions; nil where refused
}

// read asks for everything about an open program.
//
//revive:disable-next-line:cyclomatic the kernel may leave out any part of its answer
func read(fd int) (*dump, error) {
	d := &dump{}
	// Lengths first: when the code is refused, the kernel stops there and leaves the rest of the
	// answer as it was.
	if err := infoByFD(fd, unsafe.Pointer(&d.ProgInfo), unsafe.Sizeof(d.ProgInfo)); err != nil {
		return nil, fmt.Errorf("read program info: %w", err)
	}
	if d.XlatedProgLen == 0 {
		return d, nil // without CAP_BPF the kernel gives no lengths
	}
	if d.XlatedProgLen > maxDump || d.JitedProgLen > maxDump || uint64(d.NrFuncInfo)*uint64(d.FuncInfoRecSize) > maxDump {
		return nil, fmt.Errorf("read program: %d bytes of code are more than a program can have", max(d.XlatedProgLen, d.JitedProgLen))
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
	ask := abi.ProgInfo{XlatedProgLen: d.XlatedProgLen}
	var xlated, funcInfo []byte
	xlated, ask.XlatedProgInsns = buffer(d.XlatedProgLen)
	if d.NrFuncInfo > 0 && d.FuncInfoRecSize >= 8 {
		funcInfo, ask.FuncInfo = buffer(d.NrFuncInfo * d.FuncInfoRecSize)
		ask.NrFuncInfo, ask.FuncInfoRecSize = d.NrFuncInfo, d.FuncInfoRecSize
	}
	// Of programs with one function the dump tells whether they are blinded.
	if d.NrJitedFuncLens > 1 {
		d.code, ask.JitedProgInsns = buffer(d.JitedProgLen)
		ask.JitedProgLen = d.JitedProgLen
	}
	if err := infoByFD(fd, unsafe.Pointer(&ask), unsafe.Sizeof(ask)); err != nil {
		return nil, fmt.Errorf("read program: %w", err)
	}
	if ask.XlatedProgInsns == 0 {
		d.refused, d.code = true, nil
		return d, nil
	}
	if ask.JitedProgInsns == 0 || ask.JitedProgLen != d.JitedProgLen {
		d.code = nil
	}
	prog, err := insn.Decode(xlated[:min(ask.XlatedProgLen, d.XlatedProgLen)])
	if err != nil {
		return nil, fmt.Errorf("read program: %w", err)
	}
	d.insns = prog
	if ask.NrFuncInfo == d.NrFuncInfo && ask.FuncInfo != 0 {
		for i := range int(d.NrFuncInfo) {
			d.starts = append(d.starts, int(binary.LittleEndian.Uint32(funcInfo[i*int(d.FuncInfoRecSize):])))
		}
	}
	return d, nil
}

// mapTypes are the types of the maps that a dump names, by id, as far as they can be opened.
func mapTypes(prog []insn.Instruction) (types []uint32) {
	seen := map[int32]bool{}
	for i, in := range prog {
		if !in.IsMapLoad() || insn.IsSecondHalf(prog, i) || seen[in.Imm] || in.Imm <= 0 {
			continue
		}
		seen[in.Imm] = true
		fd, err := byID(abi.CmdMapGetFDByID, uint32(in.Imm))
		if err != nil {
			continue // its instructions tell most
		}
		var info abi.MapInfo
		if infoByFD(fd, unsafe.Pointer(&info), unsafe.Sizeof(info)) == nil {
			types = append(types, info.Type)
		}
		unix.Close(fd)
	}
	return types
}
