// SPDX-License-Identifier: Apache-2.0

package insn

import (
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// The tag is compared with that of the kernel on which the test runs.
func TestTagOnThisKernel(t *testing.T) {
	const mapCreate, progLoad, objInfo = 0, 5, 15
	attr := make([]byte, 72)
	binary.LittleEndian.PutUint32(attr[0:], 2) // array
	binary.LittleEndian.PutUint32(attr[4:], 4)
	binary.LittleEndian.PutUint32(attr[8:], 64)
	binary.LittleEndian.PutUint32(attr[12:], 1)
	fd, err := bpf(mapCreate, attr)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Skipf("bpf(2): %v", err)
	}
	qt.Assert(t, qt.IsNil(err))
	defer unix.Close(fd)

	prog := []Instruction{
		{Code: 0x18, Dst: 1, Src: PseudoMapFD, Imm: int32(fd)},
		{},
		{Code: 0x18, Dst: 2, Src: PseudoMapValue, Imm: int32(fd)},
		{Imm: 16},
		{Code: 0x18, Dst: 3, Imm: 0x1234},
		{Imm: 0x5678},
		{Code: 0xb7, Dst: 0, Imm: 7},
		{Code: 0x95},
	}
	code := Encode(prog)
	license := []byte("Apache-2.0\x00")
	attr = make([]byte, 72)
	binary.LittleEndian.PutUint32(attr[0:], 1) // socket filter
	binary.LittleEndian.PutUint32(attr[4:], uint32(len(prog)))
	binary.LittleEndian.PutUint64(attr[8:], uint64(uintptr(unsafe.Pointer(&code[0]))))
	binary.LittleEndian.PutUint64(attr[16:], uint64(uintptr(unsafe.Pointer(&license[0]))))
	progFD, err := bpf(progLoad, attr)
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	if errors.Is(err, unix.EPERM) {
		t.Skipf("bpf(2): %v", err)
	}
	qt.Assert(t, qt.IsNil(err))
	defer unix.Close(progFD)

	info := make([]byte, 224)
	attr = make([]byte, 16)
	binary.LittleEndian.PutUint32(attr[0:], uint32(progFD))
	binary.LittleEndian.PutUint32(attr[4:], uint32(len(info)))
	binary.LittleEndian.PutUint64(attr[8:], uint64(uintptr(unsafe.Pointer(&info[0]))))
	_, err = bpf(objInfo, attr)
	runtime.KeepAlive(info)
	qt.Assert(t, qt.IsNil(err))

	tag := [8]byte(info[8:16])
	t.Logf("tag %x, SHA-1 %x, SHA-256 %x", tag, TagSHA1(prog), TagSHA256(prog))
	qt.Check(t, qt.IsTrue(MatchesTag(prog, tag)))

	// Another descriptor is the same program, another constant is not.
	same := append([]Instruction(nil), prog...)
	same[0].Imm, same[2].Imm, same[3].Imm = 99, 98, 32
	qt.Check(t, qt.IsTrue(MatchesTag(same, tag)))
	same[4].Imm++
	qt.Check(t, qt.IsFalse(MatchesTag(same, tag)))
}

func bpf(cmd uintptr, attr []byte) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr)))
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}
