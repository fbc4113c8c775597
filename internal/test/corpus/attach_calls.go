// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// argv0Attach is the name under which an executable plays one attachment that fails: see Main.
const argv0Attach = "bpfwhy-corpus-attach"

// play makes everything that a failure needs, and then the one call that fails. It returns what the
// call did: a negative errno, or a descriptor.
type play func(s *stage) int

// attaching plays one of them, and says how it ended.
func attaching(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want the name of one attachment, not %q", args)
	}
	p, ok := plays()[args[0]]
	if !ok {
		return fmt.Errorf("no attachment %q", args[0])
	}
	// Namespaces belong to threads, and the runtime's signal for preemption would interrupt the
	// verifier.
	runtime.LockOSThread()
	urgent := unix.Sigset_t{Val: [16]uint64{1 << (unix.SIGURG - 1)}}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &urgent, nil); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	var s stage
	got := p(&s)
	s.clean()
	fmt.Printf("errno %d\n", max(-got, 0))
	return nil
}

// stage has what the plays share. Where it cannot be set up the process ends: no errno is said.
type stage struct {
	pin  runtime.Pinner
	undo []func() // backwards
}

func (s *stage) later(f func()) { s.undo = append(s.undo, f) }

func (s *stage) clean() {
	for i := len(s.undo) - 1; i >= 0; i-- {
		s.undo[i]()
	}
}

// fatal ends a play that could not be set up.
func (s *stage) fatal(what string, err error) {
	s.clean()
	fmt.Fprintf(os.Stderr, "%s: %s: %v\n", argv0Attach, what, err)
	os.Exit(1)
}

// need is the result of a call that must work.
func (s *stage) need(what string, got int) int {
	if got < 0 {
		s.fatal(what, unix.Errno(-got))
	}
	return got
}

func (s *stage) must(what string, err error) {
	if err != nil {
		s.fatal(what, err)
	}
}

func (s *stage) bytes(b []byte) uint64 {
	s.pin.Pin(&b[0])
	return uint64(uintptr(unsafe.Pointer(&b[0])))
}

func (s *stage) text(text string) uint64 { return s.bytes(append([]byte(text), 0)) }

// call makes one bpf(2).
func call[T abi.Attr](cmd int, attr *T) int { return bpf(cmd, attr, unsafe.Sizeof(*attr)) }

func bpf[T abi.Attr](cmd int, attr *T, size uintptr) int {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(unsafe.Pointer(attr)), size)
	if errno != 0 {
		return -int(errno)
	}
	return int(r)
}

// failed is the play's result where a wrapper of the call gives an error.
func (s *stage) failed(err error) int {
	switch errno, ok := err.(unix.Errno); {
	case err == nil:
		return 0
	case ok:
		return -int(errno)
	}
	s.fatal("the call that is to fail", err)
	return 0
}

// prog is a program that is loaded.
type prog struct {
	name   string
	typ    uint32
	attach uint32
	btfID  uint32
	code   asm.Instructions // nil: returns 1
}

func (s *stage) load(p prog) int {
	if p.code == nil {
		p.code = asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}
	}
	var code bytes.Buffer
	s.must("encode "+p.name, p.code.Marshal(&code, binary.LittleEndian))
	return s.need("load "+p.name, bpf(abi.CmdProgLoad, &abi.ProgLoad{
		ProgType: p.typ, InsnCnt: uint32(code.Len() / 8), Insns: s.bytes(code.Bytes()), License: s.text("GPL"), ProgName: abi.NameOf(p.name),
		ExpectedAttachType: p.attach, AttachBTFID: p.btfID,
	}, unsafe.Offsetof(abi.ProgLoad{}.CoreReloCnt)))
}

// reads is a program that reads 8 bytes of its context.
func reads(offset int16) asm.Instructions {
	return asm.Instructions{asm.LoadMem(asm.R0, asm.R1, offset, asm.DWord), asm.Mov.Imm(asm.R0, 0), asm.Return()}
}

// long is a program of n instructions.
func long(n int) asm.Instructions {
	code := make(asm.Instructions, 0, n)
	for range n - 1 {
		code = append(code, asm.Mov.Imm(asm.R0, 1))
	}
	return append(code, asm.Return())
}

func (s *stage) createMap(m abi.MapCreate) int {
	return bpf(abi.CmdMapCreate, &m, unsafe.Offsetof(m.BTFFD))
}

func (s *stage) newMap(typ, key, value, entries uint32) int {
	return s.need("create a map", s.createMap(abi.MapCreate{
		MapType: typ, KeySize: key, ValueSize: value, MaxEntries: entries, MapName: abi.NameOf("att_map"),
	}))
}

// put writes one element of 4 bytes under a key of 4 bytes.
func (s *stage) put(m int, key, value uint32) int {
	return call(abi.CmdMapUpdateElem, &abi.MapElem{MapFD: uint32(m), Key: s.word(key), Value: s.word(value)})
}

func (s *stage) word(v uint32) uint64 { return s.bytes(binary.LittleEndian.AppendUint32(nil, v)) }

// folder is a new directory, and its descriptor.
func (s *stage) folder(path string) int {
	s.must("make "+path, os.MkdirAll(path, 0o755))
	s.later(func() { os.Remove(path) })
	return s.open(path)
}

func (s *stage) open(path string) int {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	s.must("open "+path, err)
	return fd
}

const groupPath = "/sys/fs/cgroup/att-corpus"

func (s *stage) group() int { return s.folder(groupPath) }

// notCgroup is a folder of no control group.
const notCgroup = "/tmp/att-corpus"

func (s *stage) attach(target, program int, typ, flags uint32) int {
	return call(abi.CmdProgAttach, &abi.ProgAttach{
		TargetFD: uint32(target), AttachBPFFD: uint32(program), AttachType: typ, AttachFlags: flags,
	})
}

func (s *stage) link(target, program int, typ, flags uint32) int {
	return call(abi.CmdLinkCreate, &abi.LinkCreate{
		ProgFD: uint32(program), TargetFD: uint32(target), AttachType: typ, Flags: flags,
	})
}

// keepCaps leaves the process with these capabilities.
func (s *stage) keepCaps(caps ...int) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for _, c := range caps {
		data[c/32].Effective |= 1 << (c % 32)
		data[c/32].Permitted |= 1 << (c % 32)
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 {
		s.fatal("drop capabilities", errno)
	}
}

// newNetns is a network namespace with nothing but lo, which ends with the process.
func (s *stage) newNetns() { s.must("unshare", unix.Unshare(unix.CLONE_NEWNET)) }

// event opens a perf event on all processes.
func (s *stage) event(attr unix.PerfEventAttr) int {
	attr.Size = uint32(unsafe.Sizeof(attr))
	fd, err := unix.PerfEventOpen(&attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return s.failed(err)
	}
	return fd
}

// pmu is the number of a kind of perf events.
func (s *stage) pmu(name string) uint32 {
	return s.number("/sys/bus/event_source/devices/" + name + "/type")
}

func (s *stage) number(path string) uint32 {
	b, err := os.ReadFile(path)
	s.must("read a number", err)
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	s.must("read "+path, err)
	return uint32(n)
}

func (s *stage) kprobe(function string, offset uint64) int {
	return s.event(unix.PerfEventAttr{Type: s.pmu("kprobe"), Ext1: s.text(function), Ext2: offset})
}

func (s *stage) uprobe(path string, offset uint64) int {
	return s.event(unix.PerfEventAttr{Type: s.pmu("uprobe"), Ext1: s.text(path), Ext2: offset})
}

func (s *stage) tracepoint(name string) int {
	id := s.number("/sys/kernel/tracing/events/" + name + "/id")
	return s.need("open "+name, s.event(unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: uint64(id)}))
}

func (s *stage) setBPF(event, program int) int {
	return s.failed(unix.IoctlSetInt(event, unix.PERF_EVENT_IOC_SET_BPF, program))
}

// define writes a definition of a probe to tracefs.
func (s *stage) define(file, definition string) int {
	fd, err := unix.Open(filepath.Join("/sys/kernel/tracing", file), unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0)
	s.must("open "+file, err)
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(definition)); err != nil {
		return s.failed(err)
	}
	return 0
}

func (s *stage) pinAt(fd int, path string) int {
	return call(abi.CmdObjPin, &abi.ObjPin{Pathname: s.text(path), BPFFD: uint32(fd)})
}
