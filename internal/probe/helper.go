// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A program of one helper call is loaded with our own bpf(2): cilium/ebpf replaces bpf_probe_read_kernel where lockdown
// refuses it, and with it the answer.

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
	insns := [24]byte{0: 0x85, 8: 0xb7, 16: 0x95} // call id; r0 = 0; exit
	*(*int32)(unsafe.Pointer(&insns[4])) = id
	license := []byte("GPL\x00")
	clear(log)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&insns)
	pin.Pin(&license[0])
	pin.Pin(&log[0])
	at := attr{progType: progType, insnCnt: 3, insns: address(&insns[0]), license: address(&license[0]),
		logLevel: 1, logSize: uint32(len(log)), logBuf: address(&log[0])}
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
	for try := 0; ; try++ {
		fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&at)), unsafe.Sizeof(at))
		if errno == unix.EAGAIN && try < 30 { // the verifier stops for a signal, and Go sends itself many
			continue
		}
		if errno == 0 {
			unix.Close(int(fd))
			return yes, ""
		}
		said, _, _ := bytes.Cut(log, []byte{0})
		return judge(errno, string(said))
	}
}

func address(b *byte) uint64 { return uint64(uintptr(unsafe.Pointer(b))) }

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
