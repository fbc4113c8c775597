// SPDX-License-Identifier: Apache-2.0

// Package sources watches the bytes of HTTP connections go by: in system calls ([Syscalls]), in
// packets ([Packets]) and in TLS libraries ([OpenSSL]). Each source loads, fails and is closed on
// its own. Linux 5.10 and later, x86-64. Nothing is written into a process or a packet.
package sources

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/loader"
)

// Options say what to watch; the zero value watches all. Filters are applied in the kernel.
type Options struct {
	// PIDs are processes, with all their threads but without their children, as the caller's pid
	// namespace numbers them. At most 4096. A caller in a pid namespace of its own, such as a
	// container's, can give processes of just that one.
	PIDs []int
	// Ports are those of either end, at most 64. OpenSSL does not know ports and ignores them.
	Ports []uint16
	// Cgroups are folders of the second version of control groups: processes in them and below
	// them. At most 16.
	Cgroups []string
	// RingBytes is the size of the buffer between the kernel and Run, rounded up to a power of two;
	// 0 is 8 MiB.
	RingBytes int
	// Loader loads all programs; nil is a new one. Nobody else may load with it during the call
	// that opens a source.
	Loader *loader.Loader
}

// Program is a program in the kernel.
type Program struct {
	Name     string
	JITed    bool // compiled; false also where this process may not know (no CAP_BPF)
	Repaired bool // by the loader, as loader.Repair says
}

// Source is a running source. Its methods but Run can be called from any goroutine; Close it.
type Source struct {
	name     string
	programs []Program
	stream
}

// Files says what has become of the files that the source probes; nil for a source that probes
// none.
func (s *Source) Files() *Files {
	if p, ok := s.stream.(interface{ files() *Files }); ok {
		return p.files()
	}
	return nil
}

// stream is what differs between sources.
type stream interface {
	run(ctx context.Context, f func(*event.Event)) error
	loss() event.Loss
	mute(c event.Conn) error
	close() error
}

// Name is "syscalls", "packets" or "openssl".
func (s *Source) Name() string { return s.name }

// Programs are the source's programs, by name.
func (s *Source) Programs() []Program { return slices.Clone(s.programs) }

// Run calls f for each event, from one goroutine, until the context ends; then it hands out what
// has come and returns nil. The event and its Data are valid during the call only.
func (s *Source) Run(ctx context.Context, f func(*event.Event)) error { return s.run(ctx, f) }

// Loss is what was lost since the source was opened. It never falls: what the kernel does not tell
// just now is what it told before.
func (s *Source) Loss() event.Loss { return s.loss() }

// Mute says that a connection is of no interest: its events stop, its end is not told. A source
// that has lost sight of the connection does nothing.
func (s *Source) Mute(c event.Conn) error { return s.mute(c) }

// Close detaches the programs and frees the source. Run must have returned.
func (s *Source) Close() error { return s.close() }

// HeapBytes are what all sources together take of the heap: the files that are remembered, those of
// the census, the list of a process's mappings and of a folder's names while they are looked at,
// and the connections of packets. Maps may be half empty.
const HeapBytes = 2*maxUnprobed*(256+2*maxPath+1024) + maxLooked*2*(48+96+56) + 4*maxMapsBytes + maxNames*280 + maxTracked*(192+2*72+2*24)

const (
	defaultRing = 8 << 20
	maxPIDs     = 4096 // of bpf/common.h
	maxPorts    = 64
	maxCgroups  = 16
)

func (o Options) check() error {
	switch {
	case len(o.PIDs) > maxPIDs:
		return fmt.Errorf("%d processes: at most %d", len(o.PIDs), maxPIDs)
	case len(o.Ports) > maxPorts:
		return fmt.Errorf("%d ports: at most %d", len(o.Ports), maxPorts)
	case len(o.Cgroups) > maxCgroups:
		return fmt.Errorf("%d cgroups: at most %d", len(o.Cgroups), maxCgroups)
	case o.RingBytes < 0 || o.RingBytes > 1<<30:
		return fmt.Errorf("buffer of %d bytes: at most %d", o.RingBytes, 1<<30)
	}
	return nil
}

// ringBytes is a power of two, and whole pages.
func (o Options) ringBytes() uint32 {
	want := uint32(o.RingBytes)
	if want == 0 {
		want = defaultRing
	}
	size := uint32(os.Getpagesize())
	for size < want {
		size *= 2
	}
	return size
}

// load loads the programs of a source. kernel are the kernel's types, nil where the programs need
// none.
func (o Options) load(spec *ebpf.CollectionSpec, kernel *btf.Spec) (*ebpf.Collection, []Program, error) {
	_ = rlimit.RemoveMemlock() // only kernels before 5.11 need it, and they say so themselves at the load
	l := o.Loader
	if l == nil {
		l = &loader.Loader{}
	}
	repaired := map[string]bool{}
	report := l.Report
	l.Report = func(r loader.Repair) {
		repaired[r.Program] = true
		if report != nil {
			report(r)
		}
	}
	defer func() { l.Report = report }()
	coll, err := l.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: kernel}})
	if err != nil {
		return nil, nil, err
	}
	var programs []Program
	for name, p := range coll.Programs {
		info, err := p.Info()
		jited := false
		if err == nil {
			if size, err := info.JitedSize(); err == nil {
				jited = size > 0
			}
		}
		programs = append(programs, Program{Name: name, JITed: jited, Repaired: repaired[name]})
	}
	slices.SortFunc(programs, func(a, b Program) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return coll, programs, nil
}

// initialPIDs is the inode of the first pid namespace (PROC_PID_INIT_INO).
const initialPIDs = 0xeffffffc

// configure sets the variables and maps that all sources with bpf/common.h share.
func (o Options) configure(spec *ebpf.CollectionSpec) error {
	size := o.ringBytes()
	spec.Maps["events"].MaxEntries = size
	var own syscall.Stat_t
	if err := syscall.Stat("/proc/self/ns/pid", &own); err != nil {
		return fmt.Errorf("find own pid namespace: %w", err)
	}
	for _, pid := range o.PIDs {
		if pid <= 0 || pid > 1<<22 {
			return fmt.Errorf("process %d: no such number", pid)
		}
		var st syscall.Stat_t // of a process that is not there, it is left to the programs
		if own.Ino != initialPIDs && syscall.Stat(fmt.Sprintf("/proc/%d/ns/pid", pid), &st) == nil && st.Ino != own.Ino {
			return fmt.Errorf("process %d: in a pid namespace below ours: only a probe outside of all containers can pick it", pid)
		}
		spec.Maps["pids"].Contents = append(spec.Maps["pids"].Contents, ebpf.MapKV{Key: uint32(pid), Value: uint8(1)})
	}
	return setVariables(spec, map[string]any{
		"cfg_wake":       uint64(size / 8),
		"cfg_cgroups":    uint32(len(o.Cgroups)),
		"cfg_pids":       flag(len(o.PIDs) > 0),
		"cfg_ns_dev":     own.Dev,
		"cfg_ns_ino":     own.Ino,
		"cfg_ns_initial": flag(own.Ino == initialPIDs),
	})
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

func setVariables(spec *ebpf.CollectionSpec, values map[string]any) error {
	for name, value := range values {
		v, ok := spec.Variables[name]
		if !ok {
			return fmt.Errorf("set %s: no such variable", name)
		}
		if err := v.Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// fillCgroups puts the cgroups that are asked for where programs look.
func (o Options) fillCgroups(coll *ebpf.Collection) error {
	for i, path := range o.Cgroups {
		dir, err := os.Open(filepath.Clean(path))
		if err != nil {
			return fmt.Errorf("open cgroup: %w", err)
		}
		err = coll.Maps["cgroups"].Put(uint32(i), uint32(dir.Fd()))
		dir.Close()
		if err != nil {
			return fmt.Errorf("watch cgroup %s (is it of version 2?): %w", path, err)
		}
	}
	return nil
}

// closeAll closes in order.
func closeAll[T interface{ Close() error }](list []T) error {
	var errs []error
	for _, c := range list {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
