// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/selfprobe"
	"github.com/bpfwhy/bpfwhy/internal/sys/threads"
	"github.com/bpfwhy/bpfwhy/internal/sys/tracefs"
	"github.com/bpfwhy/bpfwhy/internal/sys/verbatim"
)

// attacher puts the programs on the functions of a file: on all that it has, or on none. Closing
// all that it returns takes them off.
type attacher interface {
	attach(file *os.File, functions map[string]uint64) ([]io.Closer, error)
}

// magicLink is the very file, whatever its name: all that probes a file wants a path.
func magicLink(file *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(file.Fd())) }

// multi attaches by BPF links (6.6): CAP_BPF and CAP_PERFMON are enough. Its programs are loaded
// with ebpf.AttachTraceUprobeMulti.
type multi struct{ programs map[string]int }

// link puts one program on places of a file.
func (m multi) link(program int, path string, offsets []uint64, ret bool) (fdCloser, error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	attr := abi.LinkCreateUprobeMulti{
		LinkCreate: abi.LinkCreate{ProgFD: uint32(program), AttachType: abi.AttachTraceUprobeMulti},
		Cnt:        uint32(len(offsets)),
		Path:       uint64(uintptr(unsafe.Pointer(name))),
		Offsets:    uint64(uintptr(unsafe.Pointer(unsafe.SliceData(offsets)))),
	}
	if ret {
		attr.MultiFlags = abi.UprobeMultiFlagReturn
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, abi.CmdLinkCreate, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(name)
	runtime.KeepAlive(offsets)
	if errno != 0 {
		return -1, fmt.Errorf("create link: %w", errno)
	}
	return fdCloser(fd), nil
}

// haveMulti tries it: other kernels than 6.6 and its successors may have it. A kernel that has it
// looks at the path first and finds that it is no file; others know nothing of the kind. A bpfwhy
// that watches knows the program as one of ours, and what fails with it as no finding.
func haveMulti() bool {
	own, err := verbatim.Instructions(selfprobe.Trivial())
	if err != nil {
		return false
	}
	p, err := ebpf.NewProgramWithOptions(&ebpf.ProgramSpec{
		Name: selfprobe.Name, Type: ebpf.Kprobe, AttachType: ebpf.AttachTraceUprobeMulti, License: "Dual BSD/GPL", Instructions: own,
	}, ebpf.ProgramOptions{LogDisabled: true})
	if err != nil {
		return false
	}
	defer p.Close()
	link, err := multi{}.link(p.FD(), "/", []uint64{0}, false)
	if err == nil {
		link.Close()
	}
	return err == nil || errors.Is(err, unix.EBADF)
}

func (m multi) attach(file *os.File, functions map[string]uint64) ([]io.Closer, error) {
	var list []io.Closer
	done := map[sslProbe]bool{} // each program gets one link, with all its places
	for _, p := range sslProbes {
		key := sslProbe{program: p.program, ret: p.ret}
		if done[key] {
			continue
		}
		done[key] = true
		var at []uint64
		for _, q := range sslProbes {
			if offset, ok := functions[q.function]; ok && q.program == p.program && q.ret == p.ret {
				at = append(at, offset)
			}
		}
		if len(at) == 0 {
			continue
		}
		link, err := m.link(m.programs[p.program], magicLink(file), at, p.ret)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("probe %s: %w", p.function, err), threads.Close(list))
		}
		list = append(list, link)
	}
	return list, nil
}

// pmu attaches by perf events, the kernel's own way to uprobes (4.17) without tracefs. On kernels
// with ba677dbe77af (6.16, and stable ones since July 2025) it needs CAP_SYS_ADMIN.
type pmu struct {
	kind     uint32
	ret      uint64 // the flag for returns
	programs map[string]int
}

func findPMU(programs map[string]int) (pmu, error) {
	const dir = "/sys/bus/event_source/devices/uprobe/"
	b, err := os.ReadFile(dir + "type")
	if errors.Is(err, os.ErrNotExist) {
		return pmu{}, fmt.Errorf("find uprobes: %w: a kernel without CONFIG_UPROBE_EVENTS, or no sysfs", err)
	}
	if err != nil {
		return pmu{}, fmt.Errorf("find uprobes: %w", err)
	}
	kind, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return pmu{}, fmt.Errorf("find uprobes: %w", err)
	}
	if b, err = os.ReadFile(dir + "format/retprobe"); err != nil { // "config:0"
		return pmu{}, fmt.Errorf("find uprobes: %w", err)
	}
	_, bit, _ := strings.Cut(strings.TrimSpace(string(b)), ":")
	shift, err := strconv.ParseUint(bit, 10, 6)
	if err != nil {
		return pmu{}, fmt.Errorf("find uprobes: format of retprobe: %w", err)
	}
	return pmu{uint32(kind), 1 << shift, programs}, nil
}

// needsSysAdmin reports whether this kernel refuses perf events of uprobes without CAP_SYS_ADMIN.
// It asks for one of no file, on a thread that ends with it: whether one may is looked at first.
func (p pmu) needsSysAdmin() bool {
	refused := make(chan bool)
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread has lost the capability
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&header, &data[0])
		if err == nil {
			data[0].Effective &^= uint32(abi.CapSet(abi.CapSysAdmin))
			err = unix.Capset(&header, &data[0])
		}
		if err == nil {
			var fd int
			attr := unix.PerfEventAttr{Type: p.kind, Size: unix.PERF_ATTR_SIZE_VER1, Sample: 1, Wakeup: 1}
			if fd, err = unix.PerfEventOpen(&attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC); err == nil {
				unix.Close(fd)
			}
		}
		refused <- errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
	}()
	return <-refused
}

func (p pmu) attach(file *os.File, functions map[string]uint64) ([]io.Closer, error) {
	list, err := p.open(file, functions)
	return closers(list), err
}

// open is attach with the descriptors themselves.
func (p pmu) open(file *os.File, functions map[string]uint64) ([]fdCloser, error) {
	var list []fdCloser
	for _, probe := range sslProbes {
		at, ok := functions[probe.function]
		if !ok {
			continue
		}
		fd, err := p.event(magicLink(file), at, probe.ret, p.programs[probe.program])
		if err != nil {
			return nil, errors.Join(fmt.Errorf("probe %s: %w", probe.function, err), threads.Close(list))
		}
		list = append(list, fd)
	}
	return list, nil
}

func (p pmu) event(path string, at uint64, ret bool, program int) (fdCloser, error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	attr := unix.PerfEventAttr{
		Type: p.kind, Size: unix.PERF_ATTR_SIZE_VER1, Sample: 1, Wakeup: 1,
		Ext1: uint64(uintptr(unsafe.Pointer(name))), Ext2: at,
	}
	if ret {
		attr.Config = p.ret
	}
	a, err := tracefs.AttachPerf(attr, program)
	runtime.KeepAlive(name)
	if err != nil {
		return -1, err
	}
	return fdCloser(a.FD()), nil
}

// fdCloser is a descriptor that holds a probe.
type fdCloser int

func (fd fdCloser) Close() error { return unix.Close(int(fd)) }

func closers(list []fdCloser) (out []io.Closer) {
	for _, fd := range list {
		out = append(out, fd)
	}
	return out
}
