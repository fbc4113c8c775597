// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// rawAttr is the part of union bpf_attr that a load here needs (include/uapi/linux/bpf.h).
type rawAttr struct {
	progType, insnCnt  uint32
	insns, license     uint64
	logLevel, logSize  uint32
	logBuf             uint64
	kernVersion, flags uint32
	name               [16]byte
	ifindex            uint32
	expectedAttachType uint32
	btfFD              uint32
	funcInfoRecSize    uint32
	funcInfo           uint64
	funcInfoCnt        uint32
	lineInfoRecSize    uint32
	lineInfo           uint64
	lineInfoCnt        uint32
	attachBTFID        uint32
	attachProgFD       uint32
	pad                uint32
}

// loadRaw loads instructions with no change. Function info goes with them: global functions need it.
func loadRaw(spec *ebpf.ProgramSpec, insns asm.Instructions, attachBTF uint32) (*ebpf.Program, error) {
	var buf bytes.Buffer
	if err := insns.Marshal(&buf, binary.LittleEndian); err != nil { // x86-64
		return nil, fmt.Errorf("encode instructions: %w", err)
	}
	var types btf.Builder
	functions, _, err := btf.MarshalExtInfos(insns, &types)
	if err != nil {
		return nil, fmt.Errorf("encode function info: %w", err)
	}
	btfFD := uint32(0)
	if len(functions) > 0 {
		handle, err := btf.NewHandle(&types)
		if err != nil {
			return nil, fmt.Errorf("load BTF: %w", err)
		}
		defer handle.Close()
		btfFD = uint32(handle.FD())
	}
	license := append([]byte(spec.License), 0)
	code := buf.Bytes()
	attr := rawAttr{
		progType: uint32(spec.Type), insnCnt: uint32(len(code) / 8), insns: addr(code), license: addr(license),
		expectedAttachType: uint32(spec.AttachType), attachBTFID: attachBTF,
		btfFD: btfFD, funcInfo: addr(functions), funcInfoCnt: uint32(len(functions)) / btf.FuncInfoSize, funcInfoRecSize: btf.FuncInfoSize,
	}
	copy(attr.name[:15], spec.Name)
	load := func() (uintptr, unix.Errno) {
		fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		return fd, errno
	}
	fd, errno := load()
	for errno == unix.EAGAIN { // a signal came in the middle: Go sends them
		fd, errno = load()
	}
	why := ""
	if errno != 0 { // what counts is the first answer: the second can be that the log does not fit
		log := make([]byte, 1<<20)
		attr.logLevel, attr.logSize, attr.logBuf = 1, uint32(len(log)), addr(log)
		if fd, again := load(); again == 0 {
			unix.Close(int(fd))
		}
		text, _, _ := bytes.Cut(log, []byte{0})
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		why = lines[max(0, len(lines)-2)]
	}
	runtime.KeepAlive(code)
	runtime.KeepAlive(functions)
	runtime.KeepAlive(license)
	if errno != 0 {
		return nil, fmt.Errorf("bpf(BPF_PROG_LOAD): %w: %s", errno, why)
	}
	unix.CloseOnExec(int(fd))
	return ebpf.NewProgramFromFD(int(fd))
}

func addr(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// textOffset is the distance of a kernel function from _text, for functions whose name is not theirs alone.
func textOffset(symbol string) (uint64, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return 0, fmt.Errorf("read kernel symbols: %w", err)
	}
	defer f.Close()
	var text, at uint64
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 || fields[2] != "_text" && fields[2] != symbol || !strings.ContainsAny(fields[1], "tT") {
			continue
		}
		a, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil {
			continue
		}
		if fields[2] == "_text" {
			text = a
		} else if at == 0 {
			at = a
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("read kernel symbols: %w", err)
	}
	if text == 0 || at <= text {
		return 0, errors.New("kernel addresses are hidden (kptr_restrict), or the symbol does not exist")
	}
	return at - text, nil
}
