// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/insn"
	"golang.org/x/sys/unix"
)

// far is a socket filter whose one jump blinding stretches out of reach: a packet of 64 bytes goes by way of it and gives 7, others walk
// through the body, which counts in the map and gives a sum. The body is register-form but for one addition in 64 slots, so that an emulated machine
// is done in a moment.
func far(mapFD int, body int) []insn.Instruction {
	const every = 64
	p := []insn.Instruction{
		{Code: 0xbf, Dst: 6, Src: 1},         // r6 = ctx
		{Code: 0x61, Dst: 2, Src: 6, Off: 0}, // r2 = skb->len
		{Code: 0x15, Dst: 2, Imm: 64, Off: 0},
		{Code: 0xbf, Dst: 7, Src: 2},
		{Code: 0xbf, Dst: 8, Src: 2},
	}
	const jump = 2
	if mapFD >= 0 {
		p = append(p,
			insn.Instruction{Code: 0x62, Dst: 10, Off: -4}, // *(u32 *)(fp-4) = 0
			insn.Instruction{Code: 0xbf, Dst: 2, Src: 10},
			insn.Instruction{Code: 0x07, Dst: 2, Imm: -4},
			insn.Instruction{Code: 0x18, Dst: 1, Src: insn.PseudoMapFD, Imm: int32(mapFD)}, insn.Instruction{},
			insn.Instruction{Code: 0x85, Imm: 1}, // lookup
			insn.Instruction{Code: 0x15, Dst: 0, Off: 3},
			insn.Instruction{Code: 0x79, Dst: 1, Src: 0},
			insn.Instruction{Code: 0x07, Dst: 1, Imm: 1},
			insn.Instruction{Code: 0x7b, Dst: 0, Src: 1},
		)
	}
	for i := range body {
		switch {
		case i%every == every-1:
			p = append(p, insn.Instruction{Code: 0x07, Dst: 7, Imm: int32(i)})
		case i%2 == 0:
			p = append(p, insn.Instruction{Code: 0x0f, Dst: 7, Src: 8})
		default:
			p = append(p, insn.Instruction{Code: 0xaf, Dst: 8, Src: 7})
		}
	}
	p = append(p, insn.Instruction{Code: 0xbc, Dst: 0, Src: 7}, insn.Instruction{Code: 0x95})
	p[jump].Off = int16(len(p) - jump - 1)
	return append(p, insn.Instruction{Code: 0xb7, Dst: 0, Imm: 7}, insn.Instruction{Code: 0x95})
}

// farBody is 32,500 slots as written, for which the jump has room, and a thousand more when blinded.
const farBody = 32_400

// sum is what far returns for a packet that does not jump.
func sum(length uint32, body int) uint32 {
	r7, r8 := uint64(length), uint64(length)
	for i := range body {
		switch {
		case i%64 == 63:
			r7 += uint64(int64(int32(i)))
		case i%2 == 0:
			r7 += r8
		default:
			r8 ^= r7
		}
	}
	return uint32(r7)
}

// result is what a loader says of a load.
type result struct {
	Errno int
	FD    int
	UID   uint32 // of the program
	Name  string
	JITed bool
	Log   string
	True  uint32    // log_true_size
	Ran   [3]uint32 // test runs with 64, 100 and 200 bytes
	Count uint64    // in the map
}

func sysBPF(cmd int, a unsafe.Pointer, size uintptr) (int, unix.Errno) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(a), size)
	return int(r), errno
}

func newMap() (int, unix.Errno) {
	a := struct{ typ, key, value, entries, flags uint32 }{2, 4, 8, 1, 0}
	return sysBPF(unix.BPF_MAP_CREATE, unsafe.Pointer(&a), unsafe.Sizeof(a))
}

// request is a load to make.
type request struct {
	name     string
	code     []insn.Instruction
	logLevel uint32
	logSize  int
	change   func(*attr)
	size     int
}

func (r request) load() result {
	var a attr
	var pin runtime.Pinner
	defer pin.Unpin()
	point := func(off int, b []byte) {
		pin.Pin(&b[0])
		a.putU64(off, uint64(uintptr(unsafe.Pointer(&b[0]))))
	}
	a.putU32(offProgType, 1)
	a.putU32(offInsnCnt, uint32(len(r.code)))
	point(offInsns, insn.Encode(r.code))
	point(offLicense, []byte("GPL\x00"))
	copy(a[offProgName:offProgName+15], r.name)
	var log []byte
	if r.logLevel != 0 {
		log = make([]byte, r.logSize)
		a.putU32(offLogLevel, r.logLevel)
		a.putU32(offLogSize, uint32(len(log)))
		point(offLogBuf, log)
	}
	if r.size == 0 {
		r.size = offLogTrueSize // what every kernel of the lab takes without the field
		if r.logLevel != 0 {
			r.size = offFDArray // 5.10
		}
	}
	if r.change != nil {
		r.change(&a)
	}
	pin.Pin(&a)
	fd, errno := sysBPF(unix.BPF_PROG_LOAD, unsafe.Pointer(&a), uintptr(r.size))
	out := result{Errno: int(errno), FD: fd, True: a.u32(offLogTrueSize)}
	if i := indexZero(log); i >= 0 {
		out.Log = string(log[:i])
	}
	return out
}

func indexZero(b []byte) int {
	for i, c := range b {
		if c == 0 {
			return i
		}
	}
	return -1
}

// ask finds out about the program, and runs it.
func (r *result) ask(mapFD int) error {
	if r.Errno != 0 {
		return nil
	}
	var info [232]byte
	a := struct {
		fd, len uint32
		info    uint64
	}{uint32(r.FD), uint32(len(info)), 0}
	if _, err := bpfWith(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&a), unsafe.Sizeof(a), pointer{&a.info, unsafe.Pointer(&info)}); err != nil {
		return err
	}
	r.JITed = binary.NativeEndian.Uint32(info[16:]) > 0
	r.UID = binary.NativeEndian.Uint32(info[48:]) // created_by_uid
	r.Name = string(info[64 : 64+max(0, indexZero(info[64:80]))])
	for i, n := range []int{64, 100, 200} {
		in := make([]byte, 14+n) // a filter does not see the Ethernet header
		t := struct {
			fd, retval, sizeIn, sizeOut uint32
			in, out                     uint64
			repeat, duration            uint32
		}{fd: uint32(r.FD), sizeIn: uint32(len(in))}
		if _, err := bpfWith(unix.BPF_PROG_TEST_RUN, unsafe.Pointer(&t), unsafe.Sizeof(t), pointer{&t.in, unsafe.Pointer(&in[0])}); err != nil {
			return fmt.Errorf("run: %w", err)
		}
		r.Ran[i] = t.retval
	}
	if mapFD < 0 {
		return nil
	}
	var key uint32
	e := struct {
		fd         uint32
		_          uint32
		key, value uint64
		flags      uint64
	}{fd: uint32(mapFD)}
	_, err := bpfWith(unix.BPF_MAP_LOOKUP_ELEM, unsafe.Pointer(&e), unsafe.Sizeof(e), pointer{&e.key, unsafe.Pointer(&key)}, pointer{&e.value, unsafe.Pointer(&r.Count)})
	return err
}

// loader is what the test binary does as a loader. It prints a result in JSON for each load.
func loader(args []string) int {
	if err := load_(args); err != nil {
		fmt.Fprintln(os.Stderr, "loader:", err)
		return 1
	}
	return 0
}

func load_(args []string) error {
	out := json.NewEncoder(os.Stdout)
	switch args[0] {
	case "far":
		m, errno := newMap()
		if errno != 0 {
			return fmt.Errorf("create map: %w", errno)
		}
		r := request{name: "far", code: far(m, farBody)}.load()
		if err := r.ask(m); err != nil {
			return err
		}
		return out.Encode(r)
	}
	return errors.New("no such load")
}
