// SPDX-License-Identifier: Apache-2.0

// Package hardenwindow makes one program load while net.core.bpf_jit_harden is 1 instead of 2, for as short a time as the kernel
// allows.
//
// At 1 the kernel blinds the programs of loaders without CAP_BPF (5.10: CAP_SYS_ADMIN) and of nobody else. It is never set to 0, which
// would give up the protection against those whom the setting is there for. For as long as a window is open, programs that other
// privileged processes load on this machine are not blinded either: Report names them.
//
// From 6.1 on the kernel reads the setting once, when it allocates the program, before it copies the instructions. So the instructions lie in
// memory of which every page is missing (userfaultfd): the kernel stops at the first, the setting is put back, and then the page is
// delivered. The window is the time in between, some tens of microseconds. Where a load that stopped so fails all the same, the
// kernel reads the setting later (5.10), and the window is the whole call.
//
// A guardian process puts the setting back when the process is killed in mid-window.
package hardenwindow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/fdinfo"
	"github.com/bpfwhy/bpfwhy/internal/guardian"
	"github.com/bpfwhy/bpfwhy/internal/sysctl"
)

const setting = "net.core.bpf_jit_harden"

// Report says what a load in a window exposed.
type Report struct {
	// Latched says that the window was over before the kernel had the instructions.
	Latched bool
	// Open is how long the setting was 1, over all windows that the load took.
	Open time.Duration
	// Windows is how many that were: 2 where the first, latched, had no effect.
	Windows int
	// Others are the programs that other processes loaded from before the first window until the load had ended, by id. Not each was loaded with the window
	// open.
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
}

// A Loader makes the load that is to work.
type Loader struct {
	Code []byte
	// Load makes it with the instructions at an address, on a thread of its choice. It calls open when all else is prepared, right before the
	// system call, and does not make the call when open fails. Load is called once for each window.
	Load func(code uintptr, open func() error) (fd int, err error)
	// Works reports whether the program is what was hoped for: compiled. nil: a load without an error works.
	Works func(fd int) bool
}

func (l *Loader) works(fd int, err error) bool { return err == nil && (l.Works == nil || l.Works(fd)) }

// Load makes a load in a window. fd and the error are the loader's own; a program that does not work is closed. Windows take turns on the
// whole machine, so Load may wait for others, at most until the context's end. Needs CAP_SYS_ADMIN in the first namespaces,
// and CAP_SYS_PTRACE for the latch unless vm.unprivileged_userfaultfd is 1.
func Load(ctx context.Context, l Loader, o Options) (fd int, r Report, err error) {
	w, end, err := standBy(ctx, o, &r)
	if err != nil {
		return -1, r, err
	}
	w.loader = &l
	defer func() {
		own, _ := programID(fd)
		err = errors.Join(err, end(own))
	}()
	for try := 0; !o.WholeCall && try < 3; try++ {
		fd, met, err := w.latched()
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
	fd, err = w.whole()
	if err == nil && !l.works(fd, err) {
		closeProgram(fd)
		return -1, r, errors.New("load program: it was not compiled at net.core.bpf_jit_harden=1 either")
	}
	return fd, r, err
}

// Around calls load, which makes any number of loads by means that hide the instructions' address, with the window open all the time, and
// returns its error. load returns the ids of the programs that it made. Otherwise it is like Load without a latch.
func Around(ctx context.Context, o Options, load func() (own []uint32, err error)) (r Report, err error) {
	w, end, err := standBy(ctx, o, &r)
	if err != nil {
		return r, err
	}
	var own []uint32
	defer func() { err = errors.Join(err, end(own...)) }()
	if err := w.lower(); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, w.raise()) }() // also when load panics
	own, err = load()
	return r, err
}

// standBy prepares a window and starts its guardian. end, which is to be called when the loads are over and the window is closed, completes the
// report and ends the guardian.
func standBy(ctx context.Context, o Options, r *Report) (w *window, end func(own ...uint32) error, err error) {
	g, err := guardian.StandBy(ctx, o.Guardian)
	if err != nil {
		return nil, nil, err
	}
	restore := func() error {
		var err error
		if r.Harden, err = g.Restore(); err != nil {
			return fmt.Errorf("restore net.core.bpf_jit_harden: %w", err)
		}
		return nil
	}
	f, err := sysctl.OpenFile(setting, os.O_WRONLY)
	if err != nil {
		return nil, nil, errors.Join(err, restore())
	}
	before, err := programs()
	if err != nil {
		f.Close()
		return nil, nil, errors.Join(err, restore())
	}
	return &window{sysctl: int(f.Fd()), guardian: g, report: r}, func(own ...uint32) error {
		f.Close()
		if after, err := programs(); err == nil {
			for _, id := range after {
				if _, known := slices.BinarySearch(before, id); !known && !slices.Contains(own, id) {
					r.Others = append(r.Others, id)
				}
			}
		}
		return restore()
	}, nil
}

func closeProgram(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}

// window opens and closes.
type window struct {
	sysctl   int
	guardian *guardian.Raised
	loader   *Loader
	report   *Report
	opened   time.Time
	open     atomic.Bool
}

var (
	one = [2]byte{'1', '\n'}
	two = [2]byte{'2', '\n'}
)

// lower opens the window. It does so without a detour through the scheduler, as raise does.
func (w *window) lower() error {
	select {
	case <-w.guardian.Ended():
		return errors.New("lower net.core.bpf_jit_harden: its guardian has ended")
	default:
	}
	w.opened = time.Now()
	w.report.Windows++
	if err := pwrite(w.sysctl, &one); err != nil {
		return fmt.Errorf("lower net.core.bpf_jit_harden: %w", err)
	}
	w.open.Store(true)
	return nil
}

// raise closes the window. It may be called more than once.
func (w *window) raise() error {
	if !w.open.CompareAndSwap(true, false) {
		return nil
	}
	err := pwrite(w.sysctl, &two)
	w.report.Open += time.Since(w.opened)
	if err != nil {
		return fmt.Errorf("restore net.core.bpf_jit_harden: %w", err)
	}
	return nil
}

func pwrite(fd int, b *[2]byte) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_PWRITE64, uintptr(fd), uintptr(unsafe.Pointer(b)), uintptr(len(b)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// whole keeps the window open for the whole call.
func (w *window) whole() (int, error) {
	code := slices.Clone(w.loader.Code)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&code[0])
	ask, opened, done := make(chan struct{}), make(chan error), make(chan struct{})
	var fd int
	var err error
	go func() {
		defer close(done)
		fd, err = w.loader.Load(uintptr(unsafe.Pointer(&code[0])), func() error {
			close(ask)
			return <-opened
		})
	}()
	// The loader's thread may not be allowed to write the setting.
	select {
	case <-ask:
		opened <- w.lower()
		<-done
	case <-done:
	}
	if raiseErr := w.raise(); raiseErr != nil {
		closeProgram(fd)
		return -1, errors.Join(err, raiseErr)
	}
	return fd, err
}

// enotsupp is the kernel's errno for a program that it must compile and cannot.
const enotsupp = unix.Errno(524)

var errNoLatch = errors.New("no latch")

// longest is how long a latched window stays open for a load that does not come to its instructions. It is tried again then.
const longest = 20 * time.Millisecond

// latched closes the window when the kernel asks for the instructions. met says that it did ask while the window was open.
func (w *window) latched() (fd int, met bool, err error) {
	size := (len(w.loader.Code) + os.Getpagesize() - 1) &^ (os.Getpagesize() - 1)
	page, err := newMissing(size)
	if err != nil {
		return -1, true, fmt.Errorf("%w: %w", errNoLatch, err) // and will not next time
	}
	defer page.close()
	full := make([]byte, size)
	copy(full, w.loader.Code)

	// The loader and the watcher keep their processors from before the window until after it, and nothing stops the world meanwhile: a
	// collection of garbage would wait for the watcher, which waits for the loader, which the collection has stopped.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2))

	ask, done := make(chan struct{}), make(chan struct{})
	var state atomic.Int32 // 0: not open yet
	const isOpen, failed = 1, 2
	var lowerErr, watchErr error
	watched := make(chan struct{})
	var ended atomic.Bool
	go func() {
		defer close(watched)
		runtime.LockOSThread() // and not unlocked: what it is scheduled as ends with it
		select {
		case <-ask:
		case <-done:
			return
		}
		realTime()
		if lowerErr = w.lower(); lowerErr != nil {
			state.Store(failed)
			return
		}
		state.Store(isOpen)
		met = page.wait(&ended, longest)
		watchErr = w.raise()
		// Whatever happened, the kernel must get its page.
		if met || page.wait(&ended, 0) {
			watchErr = errors.Join(watchErr, page.deliver(full))
		}
	}()
	fd, err = w.loader.Load(page.address(), func() error {
		close(ask)
		for n := 0; state.Load() == 0; n++ {
			if n%100_000 == 99_999 {
				runtime.Gosched()
			}
		}
		if state.Load() == failed {
			return lowerErr
		}
		return nil
	})
	ended.Store(true)
	close(done)
	<-watched
	if watchErr != nil {
		closeProgram(fd)
		return -1, met, watchErr
	}
	return fd, met, err
}

// realTime makes the calling thread run before others, where it may.
func realTime() {
	p := struct{ priority int32 }{1}
	_, _, _ = unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_FIFO|unix.SCHED_RESET_ON_FORK, uintptr(unsafe.Pointer(&p)))
}

// programs lists the ids of all programs, ascending.
func programs() ([]uint32, error) {
	var ids []uint32
	a := struct{ start, next, flags uint32 }{}
	for {
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_GET_NEXT_ID, uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a))
		if errno == unix.ENOENT {
			return ids, nil
		}
		if errno != 0 {
			return nil, fmt.Errorf("list programs: %w", errno)
		}
		ids = append(ids, a.next)
		a.start = a.next
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
