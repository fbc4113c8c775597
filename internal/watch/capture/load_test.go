// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/cilium/ebpf/asm"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

func mustHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// smallProgram is r0 = 0; exit.
var smallProgram = mustHex("b700000000000000" + "9500000000000000")

// bpf makes one bpf(2) of this process and returns a descriptor or a negative errno.
func bpf(cmd int, attr unsafe.Pointer, size uintptr) int {
	// The Go runtime's signal for preemption would end a verification with EAGAIN.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var urgent, before unix.Sigset_t
	urgent.Val[0] = 1 << (unix.SIGURG - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &urgent, &before); err != nil {
		panic(err)
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
	if errno != 0 {
		return -int(errno)
	}
	return int(r)
}

// rawAttr is the part of union bpf_attr that a load of the tests needs (include/uapi/linux/bpf.h).
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

func addr(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// socketFilter is an attr without a licence: the caller keeps one in memory.
func socketFilter(name string, code []byte) *rawAttr {
	a := &rawAttr{progType: 1, insnCnt: uint32(len(code) / 8), insns: addr(code)}
	copy(a.name[:15], name)
	return a
}

// keepLoaded loads a socket filter and returns its descriptor, or a negative errno.
func keepLoaded(name string, code []byte) int {
	var pin runtime.Pinner
	defer pin.Unpin()
	license := []byte("GPL\x00")
	pin.Pin(&code[0])
	pin.Pin(&license[0])
	a := socketFilter(name, code)
	a.license = addr(license)
	return bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(a), unsafe.Sizeof(*a))
}

// rawLoad loads a socket filter, closes it, and says how it went.
func rawLoad(name string, code []byte) int {
	fd := keepLoaded(name, code)
	if fd >= 0 {
		unix.Close(fd)
	}
	return fd
}

// as runs f on a thread of this name.
func as(t *testing.T, name string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the name goes with the thread
		b, err := unix.BytePtrFromString(name)
		if err == nil {
			err = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(b)), 0, 0, 0)
		}
		qt.Check(t, qt.IsNil(err))
		f()
	}()
	<-done
}

// kernelObjects counts the programs and links in the kernel.
func kernelObjects(t *testing.T) (n int) {
	t.Helper()
	for _, cmd := range []int{unix.BPF_PROG_GET_NEXT_ID, unix.BPF_LINK_GET_NEXT_ID} {
		attr := struct{ id, next, flags uint32 }{}
		for bpf(cmd, unsafe.Pointer(&attr), unsafe.Sizeof(attr)) == 0 {
			n++
			attr.id = attr.next
		}
	}
	return n
}

// holdings are the descriptors and goroutines of this process.
func holdings() [2]int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return [2]int{len(entries), runtime.NumGoroutine()}
}

// eventually waits for what the kernel does in its own time.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Error("did not come true in 20 s")
			return
		}
	}
}

// loadInside has a program of type syscall load another one, as light skeletons do, and returns
// what the inner load returned.
func loadInside(t *testing.T, name string, code []byte) int {
	t.Helper()
	// one value: attr, instructions at 512, licence at 1024. Its address is the kernel's.
	const atInsns, atLicense = 512, 1024
	value := make([]byte, 2048)
	inner := *socketFilter(name, code)
	inner.insns, inner.license = 0, 0 // the program fills them in
	copy(value, unsafe.Slice((*byte)(unsafe.Pointer(&inner)), unsafe.Sizeof(inner)))
	copy(value[atInsns:], code)
	copy(value[atLicense:], "GPL")

	mapAttr := struct{ typ, key, value, entries, flags, innerFD, node uint32 }{2, 4, uint32(len(value)), 1, 0, 0, 0}
	m := bpf(unix.BPF_MAP_CREATE, unsafe.Pointer(&mapAttr), unsafe.Sizeof(mapAttr))
	qt.Assert(t, qt.IsTrue(m >= 0), qt.Commentf("%d", m))
	defer unix.Close(m)
	var pin runtime.Pinner
	defer pin.Unpin()
	var key uint32
	pin.Pin(&key)
	pin.Pin(&value[0])
	update := struct {
		fd         uint32
		_          uint32
		key, value uint64
		flags      uint64
	}{fd: uint32(m), key: uint64(uintptr(unsafe.Pointer(&key))), value: addr(value)}
	qt.Assert(t, qt.Equals(bpf(unix.BPF_MAP_UPDATE_ELEM, unsafe.Pointer(&update), unsafe.Sizeof(update)), 0))

	at := func(r asm.Register, off uint32) asm.Instruction { return asm.LoadMapValue(r, m, off) }
	insns := asm.Instructions{
		at(asm.R0, atInsns), at(asm.R1, 8), asm.StoreMem(asm.R1, 0, asm.R0, asm.DWord),
		at(asm.R0, atLicense), at(asm.R1, 16), asm.StoreMem(asm.R1, 0, asm.R0, asm.DWord),
		asm.Mov.Imm(asm.R1, unix.BPF_PROG_LOAD), at(asm.R2, 0), asm.Mov.Imm(asm.R3, int32(unsafe.Sizeof(inner))),
		asm.FnSysBpf.Call(), asm.Return(),
	}
	var buf sliceWriter
	qt.Assert(t, qt.IsNil(insns.Marshal(&buf, binary.LittleEndian)))
	outer := socketFilter("outer", buf)
	outer.progType, outer.flags = 31, unix.BPF_F_SLEEPABLE
	license := []byte("GPL\x00")
	pin.Pin(&buf[0])
	pin.Pin(&license[0])
	outer.license = addr(license)
	fd := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(outer), unsafe.Sizeof(*outer))
	qt.Assert(t, qt.IsTrue(fd >= 0), qt.Commentf("%d", fd))
	defer unix.Close(fd)
	test := struct {
		fd, retval, dataIn, dataOut uint32
		in, out                     uint64
		repeat, duration            uint32
		ctxIn, ctxOut               uint32
		ctx, ctxTo                  uint64
		flags, cpu                  uint32
		batch                       uint32
		_                           uint32
	}{fd: uint32(fd)}
	qt.Assert(t, qt.IsTrue(vmtest.MayRun(false))) // nobody looked whether it is compiled
	qt.Assert(t, qt.Equals(bpf(unix.BPF_PROG_TEST_RUN, unsafe.Pointer(&test), unsafe.Sizeof(test)), 0))
	if got := int(int32(test.retval)); got < 0 {
		return got
	} else {
		unix.Close(got)
		return got
	}
}

type sliceWriter []byte

func (w *sliceWriter) Write(p []byte) (int, error) { *w = append(*w, p...); return len(p), nil }
