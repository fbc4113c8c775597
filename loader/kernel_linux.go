// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/sysctl"
	"github.com/bpfwhy/bpfwhy/internal/objects/jitonly"
	"github.com/bpfwhy/bpfwhy/internal/sys/privilege"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	errPermission = unix.EPERM
	errMemory     = unix.ENOMEM
)

// mayBeBlinded reports whether the kernel may blind what this process loads: it
// compiles at all, and the sysctl says so or cannot be read.
func mayBeBlinded() bool {
	if setting("bpf_jit_enable") == 0 {
		return false
	}
	switch setting("bpf_jit_harden") {
	case 0:
		return false
	case 1:
		return !spared()
	}
	return true
}

// setting reads a number below net.core, -1 when it cannot be read.
func setting(name string) int {
	v, err := sysctl.Read("net.core." + name)
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		return -1
	}
	return n
}

// capabilities are the effective ones of this thread.
func capabilities() (mask uint64, known bool) {
	mask, err := privilege.Effective()
	return mask, err == nil
}

// spared reports whether this process is certain to be spared at net.core.bpf_jit_harden=1.
func spared() bool {
	mask, known := capabilities()
	if !known || node.Uname().Spares(abi.HasCap(mask, abi.CapSysAdmin), abi.HasCap(mask, abi.CapBPF)) != node.Yes {
		return false
	}
	// In another user namespace they count for nothing.
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") == "0 0 4294967295"
}

// thisKernel is how the kernel blinds, by its release.
func thisKernel() blinding.Kernel { return node.Uname().Blinds() }

func profile() *node.Profile { return node.Host() }

// jitOnlyKernel is what decides which instructions only the JIT of this kernel can run.
func jitOnlyKernel() jitonly.Kernel {
	return jitonly.Kernel{Node: node.Uname(), JITOff: setting("bpf_jit_enable") == 0}
}

// dump is a program as the verifier has left it, false where the kernel does not show it: that is
// for loaders with CAP_BPF.
func dump(p *ebpf.Program) ([]insn.Instruction, bool) {
	info, ok := infoOf(p, nil)
	if !ok || info.XlatedProgLen == 0 {
		return nil, false
	}
	code := make([]byte, info.XlatedProgLen)
	if info, ok = infoOf(p, code); !ok || info.XlatedProgInsns == 0 {
		return nil, false
	}
	prog, err := insn.Decode(code[:min(int(info.XlatedProgLen), len(code))])
	return prog, err == nil
}

// mapTypeOf is the type of the map behind a descriptor.
func mapTypeOf(fd int) (uint32, bool) {
	if fd <= 0 {
		return 0, false
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return 0, false
	}
	m, err := ebpf.NewMapFromFD(own)
	if err != nil {
		return 0, false
	}
	defer m.Close()
	return uint32(m.Type()), true
}

// uncompiled reports a program that the kernel interprets. It is false when that
// cannot be known: the sizes are for loaders with CAP_BPF.
func uncompiled(p *ebpf.Program) bool {
	info, ok := infoOf(p, nil)
	return ok && info.XlatedProgLen > 0 && info.JitedProgLen == 0
}

// infoOf asks the kernel about a program, and for its instructions if there is room for them.
func infoOf(p *ebpf.Program, code []byte) (abi.ProgInfo, bool) {
	var info abi.ProgInfo
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info)
	if len(code) > 0 {
		pin.Pin(&code[0])
		info.XlatedProgInsns, info.XlatedProgLen = uint64(uintptr(unsafe.Pointer(&code[0]))), uint32(len(code))
	}
	attr := abi.ObjInfo{BPFFD: uint32(p.FD()), InfoLen: uint32(unsafe.Sizeof(info)), Info: uint64(uintptr(unsafe.Pointer(&info)))}
	_, _, errno := unix.Syscall(unix.SYS_BPF, abi.CmdObjGetInfoByFD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(p)
	return info, errno == 0
}
