// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/assemble"
	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Small programs are loaded with our own bpf(2): cilium/ebpf replaces bpf_probe_read_kernel where lockdown
// refuses it, and with it the answer; and it takes gotol for all of v4.

// attr is union bpf_attr of BPF_PROG_LOAD, up to expected_attach_type.
type attr struct {
	progType, insnCnt  uint32
	insns, license     uint64
	logLevel, logSize  uint32
	logBuf             uint64
	kernVersion, flags uint32
	name               [16]byte
	ifindex, attach    uint32
}

// What programs of some types must have besides (include/uapi/linux/bpf.h).
const (
	typeSocketFilter   = 1
	typeCgroupSockAddr = 18
	typeCgroupSockopt  = 25
	typeTracing        = 26
	typeStructOps      = 27
	typeExt            = 28
	typeLSM            = 29
	typeSkLookup       = 30
	typeSyscall        = 31
	typeNetfilter      = 32

	attachInet4Connect = 10
	attachGetsockopt   = 21
	attachSkLookup     = 36
	attachNetfilter    = 45

	flagSleepable = 1 << 4
)

// target says which types cannot be tried with a program of three instructions: what they may call depends on the function
// that they are attached to.
func target(progType uint32) bool {
	return progType == typeTracing || progType == typeStructOps || progType == typeExt || progType == typeLSM
}

type answer int

const (
	no answer = iota
	yes
	unclear
)

// helper asks whether a program of a type may call a helper. When it is unclear, why says what the kernel said.
func helper(progType uint32, id int32, log []byte) (a answer, why string) {
	at := attr{progType: progType}
	switch progType {
	case typeCgroupSockAddr:
		at.attach = attachInet4Connect
	case typeCgroupSockopt:
		at.attach = attachGetsockopt
	case typeSkLookup:
		at.attach = attachSkLookup
	case typeNetfilter:
		at.attach = attachNetfilter
	case typeSyscall:
		at.flags = flagSleepable
	}
	errno := try(at, assemble.OwnHelper(id), log)
	if errno == 0 {
		return yes, ""
	}
	said, _, _ := bytes.Cut(log, []byte{0})
	return judge(errno, string(said))
}

// gotol and movsx are what v4 of the instruction set brought. Vendors backport single ones: Debian's 6.1 takes gotol, which blinding does
// not break, and refuses movsx.
func gotol() error {
	return taken(assemble.OwnGotol())
}

func movsx() error { return taken(assemble.OwnMovsx()) }

// taken loads a socket filter that is right but for an instruction that the kernel may not know.
func taken(prog []insn.Instruction) error {
	switch errno := try(attr{progType: typeSocketFilter}, prog, nil); errno {
	case 0:
		return nil
	case unix.EINVAL: // "unknown opcode 06", "BPF_MOV uses reserved fields"
		return ebpf.ErrNotSupported
	default:
		return errno
	}
}

// try loads a program, and closes it at once. log may be nil.
func try(at attr, prog []insn.Instruction, log []byte) unix.Errno {
	code, license := insn.Encode(prog), []byte("GPL\x00")
	copy(at.name[:], assemble.OwnName)
	clear(log)
	var pin runtime.Pinner
	defer pin.Unpin()
	address := func(b []byte) uint64 {
		pin.Pin(&b[0])
		return uint64(uintptr(unsafe.Pointer(&b[0])))
	}
	at.insns, at.insnCnt, at.license = address(code), uint32(len(prog)), address(license)
	if log != nil {
		at.logLevel, at.logSize, at.logBuf = 1, uint32(len(log)), address(log)
	}
	for again := 0; ; again++ {
		fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&at)), unsafe.Sizeof(at))
		if errno == 0 {
			unix.Close(int(fd))
		}
		// The verifier stops for a signal, and Go sends itself many.
		if errno != unix.EAGAIN || again == 30 {
			return errno
		}
	}
}

// judge reads the verifier's answer to a call without arguments. It looks for the helper first, and complains of the arguments
// only when the program may call it.
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
