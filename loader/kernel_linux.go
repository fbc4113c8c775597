// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/jitonly"
	"github.com/bpfwhy/bpfwhy/internal/sysctl"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/bpfwhy/bpfwhy/verifierlog"
	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	errPermission = unix.EPERM
	errMemory     = unix.ENOMEM
	errNotSupp    = unix.Errno(524) // of the kernel itself, never meant for user space
)

// isBlinding reports an error that constant blinding may have caused: 524, from
// 7.1 also ENOMEM for a program with functions, and EINVAL where the kernel would
// fall back to its interpreter, had the program not something that is for
// compilers alone: kernel functions, callbacks, tail calls beside functions, on
// 7.2 also per-processor data. The log tells that from other errors, if there is
// one.
func isBlinding(err error) bool {
	if errors.Is(err, errNotSupp) || errors.Is(err, errMemory) {
		return true
	}
	if !errors.Is(err, unix.EINVAL) {
		return false
	}
	var v *ebpf.VerifierError
	const end = 64 // lines: there it says what is wrong, and there can be hundreds of thousands
	return errors.As(err, &v) && (len(v.Log) == 0 || slices.ContainsFunc(v.Log[max(0, len(v.Log)-end):], func(line string) bool {
		switch verifierlog.Classify(line).Kind {
		case verifierlog.PatchRange, verifierlog.NeedsJIT:
			return true
		}
		return false
	}))
}

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
		// Loaders with CAP_BPF are spared; before 5.18 only those with this one.
		return !hasSysAdmin()
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
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, false
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), true
}

func hasSysAdmin() bool {
	mask, known := capabilities()
	if !known || mask&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return false
	}
	// In another user namespace it counts for nothing.
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") == "0 0 4294967295"
}

// thisKernel is how the kernel blinds, by its release.
func thisKernel() blinding.Kernel {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return blinding.Kernel{}
	}
	v, _ := node.ParseKernel(unix.ByteSliceToString(u.Release[:]))
	return blinding.ForVersion(v.Major, v.Minor).On(unix.ByteSliceToString(u.Machine[:]))
}

func profile() *node.Profile { return node.Host() }

// jitOnlyKernel is this kernel, as far as it decides what only its JIT can run.
func jitOnlyKernel() jitonly.Kernel {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return jitonly.Kernel{}
	}
	k := jitonly.Kernel{Machine: unix.ByteSliceToString(u.Machine[:]), JITOff: setting("bpf_jit_enable") == 0}
	if v, ok := node.ParseKernel(unix.ByteSliceToString(u.Release[:])); ok {
		k.Version = insn.Version{Major: v.Major, Minor: v.Minor}
	}
	return k
}

// dump is a program as the verifier has left it, false where the kernel does not show it: that is for loaders with CAP_BPF.
func dump(p *ebpf.Program) ([]insn.Instruction, bool) {
	info, ok := infoOf(p, nil)
	if !ok || info.xlatedLen == 0 {
		return nil, false
	}
	code := make([]byte, info.xlatedLen)
	if info, ok = infoOf(p, code); !ok || info.xlated == 0 {
		return nil, false
	}
	prog, err := insn.Decode(code[:min(int(info.xlatedLen), len(code))])
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
	return ok && info.xlatedLen > 0 && info.jitedLen == 0
}

// progInfo is the beginning of struct bpf_prog_info.
type progInfo struct {
	typ, id             uint32
	tag                 [8]byte
	jitedLen, xlatedLen uint32
	jited, xlated       uint64
}

// infoOf asks the kernel about a program, and for its instructions if there is room for them.
func infoOf(p *ebpf.Program, code []byte) (progInfo, bool) {
	const cmdInfo = 15
	var info progInfo
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info)
	if len(code) > 0 {
		pin.Pin(&code[0])
		info.xlated, info.xlatedLen = uint64(uintptr(unsafe.Pointer(&code[0]))), uint32(len(code))
	}
	attr := struct {
		fd, size uint32
		info     uint64
	}{uint32(p.FD()), uint32(unsafe.Sizeof(info)), uint64(uintptr(unsafe.Pointer(&info)))}
	_, _, errno := unix.Syscall(unix.SYS_BPF, cmdInfo, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(p)
	return info, errno == 0
}
