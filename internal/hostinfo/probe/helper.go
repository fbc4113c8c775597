// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/selfprobe"
	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Small programs are loaded with our own bpf(2): cilium/ebpf replaces bpf_probe_read_kernel where
// lockdown refuses it, and with it the answer; and it takes gotol for all of v4.

// target says which types cannot be tried with a program of three instructions: what they may call
// depends on the function that they are attached to.
func target(progType uint32) bool {
	return progType == abi.ProgTypeTracing || progType == abi.ProgTypeStructOps || progType == abi.ProgTypeExt || progType == abi.ProgTypeLSM
}

type answer int

const (
	no answer = iota
	yes
	unclear
)

// helper asks whether a program of a type may call a helper. When it is unclear, why says what the
// kernel said.
func helper(progType uint32, id int32, log []byte) (a answer, why string) {
	at := abi.ProgLoad{ProgType: progType}
	switch progType {
	case abi.ProgTypeCgroupSockAddr:
		at.ExpectedAttachType = abi.AttachCgroupInet4Connect
	case abi.ProgTypeCgroupSockopt:
		at.ExpectedAttachType = abi.AttachCgroupGetsockopt
	case abi.ProgTypeSkLookup:
		at.ExpectedAttachType = abi.AttachSkLookup
	case abi.ProgTypeNetfilter:
		at.ExpectedAttachType = abi.AttachNetfilter
	case abi.ProgTypeSyscall:
		at.ProgFlags = abi.ProgFlagSleepable
	}
	errno := try(at, selfprobe.Helper(id), log)
	if errno == 0 {
		return yes, ""
	}
	said, _, _ := bytes.Cut(log, []byte{0})
	return judge(errno, string(said))
}

// gotol and movsx are what v4 of the instruction set brought. Vendors backport single ones:
// Debian's 6.1 takes gotol, which blinding does not break, and refuses movsx.
func gotol() error {
	return taken(selfprobe.Gotol())
}

func movsx() error { return taken(selfprobe.Movsx()) }

// loops: without CAP_PERFMON the verifier also follows a loop beyond its end, as a processor might
// (Spectre), and some kernels give up on the way. That says nothing of loops.
func loops() error {
	err := taken(selfprobe.Loop())
	if errors.Is(err, unix.E2BIG) {
		return errors.New("the verifier followed the loop beyond its end (E2BIG), as it may without CAP_PERFMON")
	}
	return err
}

// taken loads a socket filter that is right but for an instruction that the kernel may not know.
func taken(prog []insn.Instruction) error {
	switch errno := try(abi.ProgLoad{ProgType: abi.ProgTypeSocketFilter}, prog, nil); errno {
	case 0:
		return nil
	case unix.EINVAL: // "unknown opcode 06", "BPF_MOV uses reserved fields"
		return ebpf.ErrNotSupported
	default:
		return errno
	}
}

// try loads a program, and closes it at once. log may be nil.
func try(at abi.ProgLoad, prog []insn.Instruction, log []byte) unix.Errno {
	fd, errno := open(at, prog, log)
	if errno == 0 {
		unix.Close(fd)
	}
	return errno
}

// open loads a program.
func open(at abi.ProgLoad, prog []insn.Instruction, log []byte) (fd int, errno unix.Errno) {
	code, license := insn.Encode(prog), []byte("GPL\x00")
	at.ProgName = abi.NameOf(selfprobe.Name)
	clear(log)
	var pin runtime.Pinner
	defer pin.Unpin()
	address := func(b []byte) uint64 {
		pin.Pin(&b[0])
		return uint64(uintptr(unsafe.Pointer(&b[0])))
	}
	at.Insns, at.InsnCnt, at.License = address(code), uint32(len(prog)), address(license)
	if log != nil {
		at.LogLevel, at.LogSize, at.LogBuf = 1, uint32(len(log)), address(log)
	}
	for again := 0; ; again++ {
		fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&at)), unsafe.Sizeof(at))
		// The verifier stops for a signal, and Go sends itself many.
		if errno != unix.EAGAIN || again == 30 {
			return int(fd), errno
		}
	}
}

// judge reads the verifier's answer to a call without arguments. It looks for the helper first, and
// complains of the arguments only when the program may call it.
func judge(errno unix.Errno, log string) (answer, string) {
	for _, refusal := range []string{
		"invalid func",                        // no such number
		"unknown func",                        // not for this type, until 6.9
		"program of this type cannot use",     // since
		"helper call is not allowed in probe", // only at some attach points, none of which is given here
		"not supported for program type",
	} {
		if strings.Contains(log, refusal) {
			return no, ""
		}
	}
	switch {
	case errno == unix.EACCES: // R1 !read_ok, and the like
		return yes, ""
	case strings.Contains(log, "might sleep"): // in sleepable programs only
		return yes, ""
	}
	lines := strings.Split(strings.TrimSpace(log), "\n")
	for len(lines) > 1 && strings.HasPrefix(lines[len(lines)-1], "processed ") {
		lines = lines[:len(lines)-1]
	}
	last := lines[len(lines)-1]
	return unclear, strings.TrimSuffix(fmt.Sprintf("%v: %.100s", errno, last), ": ")
}
