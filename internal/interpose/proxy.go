// SPDX-License-Identifier: Apache-2.0

// Package interpose loads programs in the place of a process that cannot be changed, so that those which constant blinding breaks load
// repaired.
//
// A seccomp filter with a listener makes each BPF_PROG_LOAD of a command, of its threads and of all its children wait. The proxy looks at the
// program. One that blinding cannot break is left to the kernel, which then does what it would have done without us; so is everything
// that is not understood. What may break is loaded by the proxy as the calling thread: with its ids and no capability that it has
// not, so that nobody gets what the kernel would not have given. When blinding does break it, it is loaded once more with jump
// islands (package rewrite), and the thread gets the descriptor of that.
//
// A guardian process holds the listener too. When the proxy is killed, it leaves all further loads to the kernel. Only when both
// are killed do loads fail, with ENOSYS.
//
// Linux 5.10 and later.
package interpose

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/hardenwindow"
	"github.com/bpfwhy/bpfwhy/internal/sysctl"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/bpfwhy/bpfwhy/rewrite"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

// Proxy answers the loads of a command.
type Proxy struct {
	listener  int
	file      *os.File
	killable  bool
	slots     *slots
	slotsFile *os.File
	guardian  *guardianProcess
	stop      *os.File // written to by Close
	stopped   *os.File
	done      chan struct{}

	we             identity
	chargesMemlock bool
	hardened       *setting
	options        Options
	answering      sync.RWMutex // held for reading from an answer to its report
	reporting      sync.Mutex
	cache          cache
	memory         *semaphore.Weighted
	processors     chan struct{} // as many at work as there are processors: more would only keep each other from it
	twoSteps       atomic.Bool

	mu      sync.Mutex
	flights map[[32]byte]chan struct{} // by content, closed when it is known what helps
	jobs    map[int]*job               // by thread
	missed  map[int]int                // by thread, answers in a row that came too late
}

// Bounds of what is done at a time. A load for which there is no room within patience is left to the kernel.
const (
	maxWeight = 2_500_000 // slots of programs in work; up to some 100 bytes each
	patience  = 10 * time.Second
)

// Options say what is done, and whom it is told.
type Options struct {
	// Report is called for each load that was repaired, one after the other.
	Report func(*load.Attempt)
	// Window, unless nil, allows programs that no rewriting helps to be loaded with net.core.bpf_jit_harden lowered from 2 to 1 for
	// a moment (package hardenwindow).
	Window *hardenwindow.Options

	limits []int // nil: rewrite.FewLimits
}

// Start answers the loads that arrive at the listener, of which it becomes the owner, from now on. pid is the process that sent it. The error says in words for people why nothing can be repaired; the process
// that sent the listener is of no use then, because nobody answers its loads.
func Start(l *Listener, pid int, o Options) (*Proxy, error) {
	if o.limits == nil {
		o.limits = rewrite.FewLimits()
	}
	p := &Proxy{
		listener: int(l.File.Fd()), file: l.File, killable: l.Killable, options: o, done: make(chan struct{}),
		memory: semaphore.NewWeighted(maxWeight), jobs: map[int]*job{}, missed: map[int]int{},
		processors: make(chan struct{}, max(2, runtime.NumCPU())), flights: map[[32]byte]chan struct{}{},
	}
	err := p.prepare(pid)
	if err == nil {
		if p.guardian, err = startGuardian(l.File, p.slotsFile); err == nil {
			go p.receive()
			return p, nil
		}
	}
	l.File.Close()
	return nil, err
}

func (p *Proxy) prepare(pid int) error {
	if err := sizes(); err != nil {
		return err
	}
	var err error
	if p.chargesMemlock = olderThan(5, 11); p.chargesMemlock {
		// As loaders do themselves. Those who do not are left alone: their limit is not ours.
		_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
	}
	if p.we, err = readIdentity(unix.Gettid()); err != nil {
		return fmt.Errorf("look at our own process: %w", err)
	}
	if p.we.tgid != os.Getpid() {
		return errors.New("/proc is that of another pid namespace")
	}
	if p.we.caps&(1<<unix.CAP_SYS_ADMIN) == 0 && p.we.caps&(1<<unix.CAP_BPF) == 0 {
		return errors.New("needs CAP_SYS_ADMIN or CAP_BPF")
	}
	// Nothing is mapped at 0: EFAULT is the answer of one who may read.
	m := memory{pid}
	if _, err := m.read(0, 1); err != nil && !errors.Is(err, unix.EFAULT) {
		return fmt.Errorf("read the memory of the command (needs CAP_SYS_PTRACE, and kernel.yama.ptrace_scope below 3): %w", err)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open the command: %w", err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, 0, 0)
	if err == nil {
		unix.Close(fd)
	} else if err != unix.EBADF {
		return fmt.Errorf("take descriptors of the command: %w", err)
	}
	p.hardened = openSetting("net.core.bpf_jit_harden")
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	p.stopped, p.stop = r, w
	p.slots, p.slotsFile, err = newSlots()
	return err
}

// Close leaves all further loads, those in work included, to the guardian, which leaves them to the kernel. After it nothing is
// reported any more. What the proxy holds it keeps to the end of the process.
func (p *Proxy) Close() {
	p.answering.Lock() // for good
	p.guardian.takeOver()
	p.stop.Close()
	<-p.done
}

// receive is the loop over all loads. It answers most of them itself.
func (p *Proxy) receive() {
	defer close(p.done)
	// On 6.6 and later the waiting thread's processor is used for the answer: half the time of a load that is left alone.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(p.listener), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	for slot := range p.slots.free {
		alive, err := wait(p.listener, int(p.stopped.Fd()))
		if err != nil || !alive {
			return
		}
		if err := receive(p.listener, p.slots.at(slot)); err != nil {
			p.slots.release(slot)
			if !errors.Is(err, errGone) {
				p.guardian.takeOver()
				return
			}
			continue
		}
		n := parseNotification(slot, p.slots.at(slot))
		if p.hurried(n.tid) {
			p.leave(&n)
			continue
		}
		a, suspect := readAttr(&n)
		if !suspect {
			p.leave(&n)
			continue
		}
		go p.handle(&n, &a)
	}
}

// leave leaves a load to the kernel.
func (p *Proxy) leave(n *notification) error {
	err := sendContinue(p.listener, n.id)
	p.answered(n, err)
	return err
}

// answered takes note of an answer. No notification is forgotten without it.
func (p *Proxy) answered(n *notification, err error) {
	p.slots.release(n.slot)
	if p.killable {
		return // it is not signals that make answers come too late
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !errors.Is(err, errGone) {
		delete(p.missed, n.tid)
		return
	}
	if len(p.missed) > maxWaiting {
		clear(p.missed)
	}
	p.missed[n.tid]++
}

// Signals that come faster than we can read a program would let its load start over for ever, where the kernel alone would have
// been quick enough.
const (
	fewMisses  = 8
	manyMisses = 500 // also when the result is there already
)

func (p *Proxy) hurried(tid int) bool {
	if p.killable {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.missed[tid]
	return n >= manyMisses || n >= fewMisses && p.jobs[tid] == nil
}

// handle looks at one program and answers.
func (p *Proxy) handle(n *notification, a *attr) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	w := min(weight(a), maxWeight)
	if p.memory.Acquire(ctx, w) != nil {
		p.leave(n)
		return
	}
	defer p.memory.Release(w)
	p.processors <- struct{}{}
	s, h, err := p.examine(n, a)
	<-p.processors
	if err != nil {
		p.leave(n)
		return
	}
	if p.killable {
		o := p.load(s, h)
		h.close()
		p.answer(n, s, &o)
		o.close()
		return
	}
	p.work(n, s, h)
}

var errHealthy = errors.New("nothing to repair")

// examine takes the snapshot of a suspect, and duplicates of its descriptors. An error means that it is to be left alone.
func (p *Proxy) examine(n *notification, a *attr) (*snapshot, handles, error) {
	hardened := p.hardened.read()
	if hardened == 0 {
		return nil, nil, errHealthy
	}
	s, suspect := readProgram(n, a, p.tried(n.tid))
	if !suspect {
		return nil, nil, errHealthy
	}
	var err error
	if s.who, err = readIdentity(n.tid); err != nil {
		return nil, nil, err
	}
	if hardened == 1 && s.who.capable(unix.CAP_SYS_ADMIN) {
		return nil, nil, errHealthy
	}
	if err := s.who.like(&p.we, p.chargesMemlock); err != nil {
		return nil, nil, err
	}
	if err := s.readRest(); err != nil {
		return nil, nil, err
	}
	h, err := s.duplicate(s.descriptors())
	if err != nil {
		return nil, nil, err
	}
	// All of this was read by the number of the thread: was it the thread's?
	if !valid(p.listener, n.id) {
		h.close()
		return nil, nil, errGone
	}
	return s, h, nil
}

// tried is what a thread is loading, or was when a signal came.
func (p *Proxy) tried(tid int) *snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	if j := p.jobs[tid]; j != nil {
		return j.snapshot
	}
	return nil
}

// answer gives a thread its program. Whatever goes wrong, there is an answer, unless nobody waits any more: errGone.
func (p *Proxy) answer(n *notification, s *snapshot, o *outcome) error {
	if !p.answering.TryRLock() { // Close waits, or has waited
		return p.leave(n)
	}
	defer p.answering.RUnlock()
	err := p.give(n, s, o)
	switch {
	case err == nil, errors.Is(err, errGone):
		p.answered(n, err)
	default:
		err = p.leave(n)
		o.close()
	}
	if err == nil && o.fd >= 0 && (o.repair != nil || o.window != nil) {
		p.reporting.Lock()
		defer p.reporting.Unlock()
		p.options.Report(attempt(s, o))
	}
	return err
}

var errNothing = errors.New("no program to give")

func (p *Proxy) give(n *notification, s *snapshot, o *outcome) error {
	if o.fd < 0 {
		return errNothing
	}
	// The log first, since after the answer its buffer may be anything. Where a signal can come between, the moment is as short as can be.
	if len(o.log) > 0 || o.trueSize != 0 {
		if !valid(p.listener, n.id) {
			return errGone
		}
		if err := s.memory.write(s.attr.u64(offLogBuf), o.log); err != nil {
			return err
		}
		if o.trueSize != 0 && s.size >= offLogTrueSize+4 {
			var b attr
			b.putU32(0, o.trueSize)
			if err := s.memory.write(n.attr+offLogTrueSize, b[:4]); err != nil {
				return err
			}
		}
	}
	err := sendFD(p.listener, n.id, o.fd, p.twoSteps.Load())
	if errors.Is(err, unix.EINVAL) && !p.twoSteps.Swap(true) {
		err = sendFD(p.listener, n.id, o.fd, true)
	}
	return err
}

// setting is a small number that is read again and again. nil: it cannot be read.
type setting struct{ *sysctl.Setting }

func openSetting(name string) *setting {
	s, err := sysctl.Open(name)
	if err != nil {
		return nil
	}
	return &setting{s}
}

// read returns -1 when the value is not known.
func (s *setting) read() int {
	if s == nil {
		return -1
	}
	v, err := s.Int()
	if err != nil {
		return -1
	}
	return v
}

// olderThan reports whether the kernel's release is before a version, false when it cannot be told.
func olderThan(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	v, ok := node.ParseKernel(unix.ByteSliceToString(u.Release[:]))
	return ok && v.Before(major, minor)
}
