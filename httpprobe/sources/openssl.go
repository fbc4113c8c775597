// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/internal/tracefs"
)

// OpenSSL watches the plain text that 64-bit processes exchange with OpenSSL, LibreSSL or BoringSSL: in every library, and in every
// executable, that has SSL_write among its symbols. Files are found by the processes that map them, in all containers, now and
// later; and what is probed in a file is seen in every process that maps it. Needs CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON, with CAP_SYS_PTRACE to find
// the libraries of others; and CONFIG_UPROBE_EVENTS. lockdown=confidentiality allows it; processes that change their program are then found a little
// later, tracefs being closed.
//
// A probe stops processes at an instruction of a file, and reads. A process that has made its own file with a symbol that points into the middle of an
// instruction can break itself so, and nobody else.
func OpenSSL(opts Options) (*Source, error) {
	s, err := openOpenSSL(opts)
	if err != nil {
		return nil, fmt.Errorf("watch TLS libraries: %w", err)
	}
	return s, nil
}

// sslProbe is a program on a function.
type sslProbe struct {
	function, program string
	ret               bool
}

// sslProbes, the returns first: a call that is seen from the middle on is none.
var sslProbes = []sslProbe{
	{"SSL_read", "ssl_return", true}, {"SSL_write", "ssl_return", true},
	{"SSL_read_ex", "ssl_return", true}, {"SSL_write_ex", "ssl_return", true},
	{"SSL_write_ex2", "ssl_return", true}, // OpenSSL 3.3
	{"SSL_read_early_data", "ssl_return", true}, {"SSL_write_early_data", "ssl_return", true},
	{"SSL_new", "ssl_new", true}, {"SSL_free", "ssl_free", false},
	{"SSL_read", "ssl_read", false}, {"SSL_write", "ssl_write", false},
	{"SSL_read_ex", "ssl_read_ex", false}, {"SSL_write_ex", "ssl_write_ex", false},
	{"SSL_write_ex2", "ssl_write_ex2", false},
	{"SSL_read_early_data", "ssl_read_ex", false}, {"SSL_write_early_data", "ssl_write_ex", false}, // the arguments and the 1 are the same
}

// maxFiles bounds how many files are probed: each costs up to 16 perf events.
const maxFiles = 256

type sslStream struct {
	*ring
	pmu  pmu
	find *finder
	exec []tracefs.Attached

	mu       sync.Mutex
	attached []tracefs.Attached
	files    int
	skipped  uint64 // files that there was no room for

	stop context.CancelFunc
	done chan struct{}
}

func openOpenSSL(opts Options) (*Source, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	p, err := findPMU()
	if err != nil {
		return nil, err
	}
	spec, err := loadOpenssl()
	if err != nil {
		return nil, err
	}
	if err := opts.configure(spec); err != nil {
		return nil, err
	}
	coll, programs, err := opts.load(spec, nil)
	if err != nil {
		return nil, err
	}
	if err := opts.fillCgroups(coll); err != nil {
		coll.Close()
		return nil, err
	}
	s := &sslStream{pmu: p, done: make(chan struct{})}
	if s.ring, err = newRing(event.OpenSSL, coll); err != nil {
		coll.Close()
		return nil, err
	}
	s.find = newFinder(s.probe)
	s.ring.exec = s.find.executed
	s.attachExec() // without it, processes that change their program are found later
	s.find.scan()
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go func() {
		defer close(s.done)
		s.find.run(ctx)
	}()
	return &Source{name: "openssl", programs: programs, stream: s}, nil
}

func (s *sslStream) attachExec() {
	dir, err := tracefs.Open()
	if err != nil {
		return
	}
	defer dir.Close()
	e, err := dir.Event("sched", "sched_process_exec")
	if err != nil {
		return
	}
	if a, err := e.Attach(s.coll.Programs["process_exec"].FD()); err == nil {
		s.exec = append(s.exec, a)
	}
}

// probe puts the programs on the functions of a file.
func (s *sslStream) probe(file *os.File, functions map[string]uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files >= maxFiles {
		s.skipped++
		return nil
	}
	path := "/proc/self/fd/" + strconv.Itoa(int(file.Fd()))
	var attached []tracefs.Attached
	for _, p := range sslProbes {
		at, ok := functions[p.function]
		if !ok {
			continue
		}
		a, err := s.pmu.attach(path, at, p.ret, s.coll.Programs[p.program])
		if err != nil {
			return errors.Join(fmt.Errorf("probe %s: %w", p.function, err), closeAll(attached))
		}
		attached = append(attached, a)
	}
	s.files++
	s.attached = append(s.attached, attached...)
	return nil
}

func (s *sslStream) loss() (event.Loss, error) {
	l, err := s.ring.loss()
	s.mu.Lock()
	defer s.mu.Unlock()
	l.MapFull += s.skipped
	return l, err
}

func (s *sslStream) mute(c event.Conn) error {
	if c.Source != event.OpenSSL {
		return nil
	}
	if err := s.coll.Maps["mutes"].Put(c.ID, c.Born); err != nil {
		return fmt.Errorf("mute connection: %w", err)
	}
	return nil
}

func (s *sslStream) close() error {
	s.stop()
	<-s.done
	// The kernel takes its time for each, and the same for many at once.
	var wg sync.WaitGroup
	errs := make([]error, len(s.attached))
	for i, a := range s.attached {
		wg.Go(func() { errs[i] = a.Close() })
	}
	wg.Wait()
	return errors.Join(closeAll(s.exec), errors.Join(errs...), s.ring.close())
}

// pmu is the kernel's own way to uprobes (4.17): perf events of a type of their own, which need no tracefs.
type pmu struct {
	kind uint32
	ret  uint64 // the flag for returns
}

func findPMU() (pmu, error) {
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
	return pmu{uint32(kind), 1 << shift}, nil
}

func (p pmu) attach(path string, at uint64, ret bool, program *ebpf.Program) (tracefs.Attached, error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return tracefs.Attached{}, err
	}
	attr := unix.PerfEventAttr{
		Type: p.kind, Size: unix.PERF_ATTR_SIZE_VER1, Sample: 1, Wakeup: 1,
		Ext1: uint64(uintptr(unsafe.Pointer(name))), Ext2: at,
	}
	if ret {
		attr.Config = p.ret
	}
	a, err := tracefs.AttachPerf(attr, program.FD())
	runtime.KeepAlive(name)
	return a, err
}
