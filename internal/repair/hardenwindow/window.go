// SPDX-License-Identifier: Apache-2.0

// Package hardenwindow makes one program load while net.core.bpf_jit_harden is 1 instead of 2, for
// as short a time as the kernel allows.
//
// At 1 the kernel blinds the programs of loaders without CAP_BPF (up to 6.0: CAP_SYS_ADMIN) and of
// nobody else. It is never set to 0, which would give up the protection against those whom the
// setting is there for. For as long as a window is open, programs that other privileged processes
// load on this machine are not blinded either: Report names them.
//
// From 6.1 on the kernel reads the setting once, when it allocates the program, before it copies
// the instructions. So the instructions lie in memory of which every page is missing (userfaultfd):
// the kernel stops at the first, the setting is put back, and then the page is delivered. The
// window is the time in between, some tens of microseconds. Where a load that stopped so fails all
// the same, the kernel reads the setting later (5.10), and the window is the whole call.
//
// A guardian, a process out of the loader's reach, lowers the setting and puts it back, at the
// latest when the deadline of the window is over, whoever is stopped, hangs or is killed meanwhile.
package hardenwindow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/sys/fdinfo"
)

// Report says what a load in a window exposed.
type Report struct {
	// Latched says that the window was over before the kernel had the instructions.
	Latched bool
	// WholeCall says that a window was open for the whole call: asked for, or since a latched one
	// had no effect.
	WholeCall bool
	// Overdue says that a window was closed by its deadline, with the call still going on.
	Overdue bool
	// Open is how long the setting was 1, over all windows that the load took.
	Open time.Duration
	// Windows is how many that were: 2 where the first, latched, had no effect.
	Windows int
	// Others are the programs that other processes loaded from before the first window until the
	// load had ended, by id. Not each was loaded with the window open.
	Others []uint32
	// Harden is what became of the setting.
	Harden guardian.Report
}

// Options say how to open a window. The zero value is right.
type Options struct {
	// Guardian are the files of the guardian, for tests.
	Guardian guardian.Files
	// WholeCall does without the latch.
	WholeCall bool
	// Limit is the deadline of a window for the whole call, Longest if zero.
	Limit time.Duration
}

const (
	// Longest is how long a window for a whole call, or for several, is open at most.
	Longest = 10 * time.Second
	// LongestLatched is that of a window that ends when the kernel asks for the instructions. It is
	// tried again then.
	LongestLatched = 20 * time.Millisecond
	// Turns is how long to wait for one's turn, by the context: whoever is uid 0 may hold the lock
	// for ever, without any capability.
	Turns = time.Minute
)

// ErrNoWindow is returned where no window can be opened, such as with a /run that is read-only or
// full.
var ErrNoWindow = errors.New("no window can be opened in net.core.bpf_jit_harden")

// ErrNotCompiled is a program that loads in a window and is interpreted all the same.
var ErrNotCompiled = errors.New("load program: it was not compiled at net.core.bpf_jit_harden=1 either")

// A Loader makes the load that is to work.
type Loader struct {
	Code []byte
	// Missing makes size bytes of memory of which every page is missing, in the process that will
	// load. fd is its userfaultfd, nonblocking, which is closed when it is not needed any more.
	// nil: in this process. An error leads to a window for the whole call.
	Missing func(size int) (fd int, address uintptr, err error)
	// Load makes the load, with the instructions at an address in that memory, or in its own for 0.
	// Right before the system call, when all is prepared, the thread that makes it, of this process
	// or another, passes the gate (guardian.Pass), and does not make the call when that fails. The
	// window is closed when nobody has the gate open any more; here it is closed when Load has
	// returned. Load is called once for each window.
	Load func(address uintptr, gate *os.File) (fd int, err error)
	// Works reports whether the program is what was hoped for: compiled. nil: a load without an
	// error works.
	Works func(fd int) bool
}

func (l *Loader) works(fd int, err error) bool { return err == nil && (l.Works == nil || l.Works(fd)) }

// Load makes a load in a window. fd and the error are the loader's own; a program that does not
// work is closed. Windows take turns on the whole machine, so Load may wait for others, at most
// until the context's end. It gives up its turn when its window is closed, whether the load has
// ended or not. Needs CAP_SYS_ADMIN in the first namespaces, and CAP_SYS_PTRACE for the latch
// unless vm.unprivileged_userfaultfd is 1.
func Load(ctx context.Context, l Loader, o Options) (fd int, r Report, err error) {
	before, err := programs()
	if err != nil {
		return -1, r, fmt.Errorf("%w: %w", ErrNoWindow, err)
	}
	w := &window{ctx: ctx, options: o, report: &r}
	defer func() {
		own, _ := programID(fd)
		r.others(before, own)
	}()
	for try := 0; !o.WholeCall && try < 3; try++ {
		fd, met, err := w.latched(&l)
		switch {
		case l.works(fd, err):
			r.Latched = true
			return fd, r, nil
		case err != nil && !errors.Is(err, enotsupp) && !errors.Is(err, errNoLatch):
			return -1, r, err // refused for another reason
		}
		closeProgram(fd)
		if met {
			break // the kernel had its chance, and reads the setting later
		}
	}
	fd, err = w.whole("the call had ended", func(gate *os.File) (int, error) { return l.Load(0, gate) })
	if err == nil && !l.works(fd, err) {
		closeProgram(fd)
		fd, err = -1, ErrNotCompiled
	}
	return fd, r, err
}

// Around calls load, which makes any number of loads by means that hide the instructions' address,
// with the window open all the time, and returns its error. load returns the ids of the programs
// that it made. Otherwise it is like Load without a latch.
func Around(ctx context.Context, o Options, load func() (own []uint32, err error)) (r Report, err error) {
	before, err := programs()
	if err != nil {
		return r, fmt.Errorf("%w: %w", ErrNoWindow, err)
	}
	var own []uint32
	defer func() { r.others(before, own...) }()
	w := &window{ctx: ctx, options: o, report: &r}
	_, err = w.whole("all was loaded", func(gate *os.File) (int, error) {
		if err := guardian.Pass(gate); err != nil {
			return -1, err
		}
		var err error
		own, err = load()
		return -1, err
	})
	return r, err
}

// others completes the report: programs that are new, and not our own, are those of others.
func (r *Report) others(before []uint32, own ...uint32) {
	after, err := programs()
	if err != nil {
		return
	}
	for _, id := range after {
		if _, known := slices.BinarySearch(before, id); !known && !slices.Contains(own, id) {
			r.Others = append(r.Others, id)
		}
	}
}

func closeProgram(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}

// window is opened once or more often, each time by a guardian of its own.
type window struct {
	ctx     context.Context
	options Options
	report  *Report
}

// load is a load in a window. It goes on when the window is closed before it has ended: closed is
// called then.
type load struct {
	latch  func() (int, error)
	make   func(gate *os.File) (fd int, err error)
	closed func(guardian.Window) error
}

func (w *window) open(limit time.Duration, l load) (fd int, err error) {
	g, err := guardian.StandBy(w.ctx, w.options.Guardian)
	if err != nil {
		if errors.Is(w.ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("another has its turn, or keeps others from theirs: %w", err)
		}
		if !errors.Is(w.ctx.Err(), context.Canceled) && !errors.Is(err, guardian.ErrNotTwo) {
			err = fmt.Errorf("%w: %w", ErrNoWindow, err)
		}
		return -1, err
	}
	end := func() error {
		var err error
		if w.report.Harden, err = g.Restore(); err != nil {
			return fmt.Errorf("restore net.core.bpf_jit_harden: %w", err)
		}
		return nil
	}
	latch, err := l.latch()
	if err != nil {
		return -1, errors.Join(err, end())
	}
	gate, wait, err := g.Window(limit, latch)
	if err != nil {
		return -1, errors.Join(err, end())
	}
	over := make(chan error, 1)
	go func() {
		g, err := wait()
		if g.Open > 0 {
			w.report.Windows++
			w.report.Open += g.Open
			w.report.WholeCall = w.report.WholeCall || latch < 0
			w.report.Overdue = w.report.Overdue || g.Overdue && latch < 0
		}
		over <- errors.Join(err, l.closed(g), end())
	}()
	defer func() { // also when the load panics
		gate.Close()
		if windowErr := <-over; windowErr != nil {
			closeProgram(fd)
			fd = -1
			if errors.Is(err, io.EOF) {
				err = nil // the gate was not opened, and this is why
			}
			err = errors.Join(err, windowErr)
		}
	}()
	return l.make(gate)
}

// whole makes a load, or several, with the window open all the time.
func (w *window) whole(until string, make func(gate *os.File) (int, error)) (int, error) {
	limit := cmp.Or(w.options.Limit, Longest)
	fd, err := w.open(limit, load{
		latch:  func() (int, error) { return -1, nil },
		make:   make,
		closed: func(guardian.Window) error { return nil },
	})
	if err != nil && w.report.Overdue {
		err = fmt.Errorf("%w; the window was closed after %v, before %s", err, limit, until)
	}
	return fd, err
}

// enotsupp is the kernel's errno for a program that it must compile and cannot.
const enotsupp = unix.Errno(abi.ENOTSUPP)

var errNoLatch = errors.New("no latch")

// latched has the window closed when the kernel asks for the instructions. met says that it did ask
// while the window was open.
func (w *window) latched(l *Loader) (fd int, met bool, err error) {
	size := (len(l.Code) + os.Getpagesize() - 1) &^ (os.Getpagesize() - 1)
	full := make([]byte, size)
	copy(full, l.Code)
	var page *missing
	defer func() {
		if page != nil {
			page.close()
		}
	}()
	fd, err = w.open(LongestLatched, load{
		latch: func() (int, error) {
			var err error
			if page, err = l.missing(size); err != nil {
				met = true // and will not next time
				return -1, fmt.Errorf("%w: %w", errNoLatch, err)
			}
			return page.fd, nil
		},
		make: func(gate *os.File) (int, error) { return l.Load(page.address, gate) },
		closed: func(g guardian.Window) error {
			met = g.Touched
			// Whatever happened, the kernel must get its pages.
			if err := page.deliver(full); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) { // the process is gone, or its memory
				return err
			}
			return nil
		},
	})
	return fd, met, err
}

func (l *Loader) missing(size int) (*missing, error) {
	if l.Missing == nil {
		return newMissing(size)
	}
	fd, address, err := l.Missing(size)
	if err != nil {
		return nil, err
	}
	return &missing{fd: fd, address: address}, nil
}

// programs lists the ids of all programs, ascending.
func programs() ([]uint32, error) {
	var ids []uint32
	var a abi.ID
	for {
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_GET_NEXT_ID, uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a))
		if errno == unix.ENOENT {
			return ids, nil
		}
		if errno != 0 {
			return nil, fmt.Errorf("list programs: %w", errno)
		}
		ids = append(ids, a.NextID)
		a.StartID = a.NextID
	}
}

// programID is the id of a program of ours, 0 for none.
func programID(fd int) (uint32, error) {
	if fd < 0 {
		return 0, nil
	}
	id, err := fdinfo.Number(fd, "prog_id")
	return uint32(id), err
}
