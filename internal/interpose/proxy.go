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
// A guardian process holds the listener too. When the proxy is killed, it leaves all further loads to the kernel, and while the proxy is
// stopped, until it goes on. Only when both are killed do loads fail, with ENOSYS.
//
// Linux 5.10 and later.
package interpose

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/freeing"
	"github.com/bpfwhy/bpfwhy/internal/hardenwindow"
	"github.com/bpfwhy/bpfwhy/internal/surrogate"
	"github.com/bpfwhy/bpfwhy/internal/sysctl"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/bpfwhy/bpfwhy/rewrite"
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
	source    *surrogate.Source
	free      func() error // of a freeing.Bound
	stop      *os.File     // written to by Close
	stopped   *os.File
	done      chan struct{} // closed when nothing is received any more

	we             identity
	release        string // of the kernel
	chargesMemlock bool
	hardened       *setting
	windows        atomic.Int32 // of ours, that are open or about to be
	suidDumpable   *setting
	options        Options
	answering      sync.RWMutex // held for reading from an answer to its report
	reporting      sync.Mutex
	cache          cache
	memory         *room
	parking        *room
	descriptors    *room
	processors     *room // as many at work as there are processors: more would only keep each other from it
	window         *room // for one
	readers        *room // of others' memory
	twoSteps       atomic.Bool
	exposed        error

	mu      sync.Mutex
	flights map[[32]byte]chan struct{} // by content, closed when it is known what helps
	jobs    map[int]*job               // by thread
	missed  map[int]int                // by thread, answers in a row that came too late
	left    Left
}

// Bounds of what is done at a time. A load that finds no room is left to the kernel when nobody has made way for so long.
const (
	maxWeight     = 2_500_000 // of programs in work, in slots
	maxUserWeight = maxWeight / 2
	patience      = 10 * time.Second

	// Memory is what a proxy holds at most, in bytes.
	Memory = maxWeight*slotBytes + maxParked*slotBytes + maxCached*cachedBytes + maxWaiting*waitingBytes
	// waitingBytes are the stack and the rest of a load that waits.
	waitingBytes = 4 << 10
)

// Bounds of how long others may make us wait.
const (
	// moment is for reading and writing the memory of a thread. Pages may come late, or never.
	moment = 2 * time.Second
	// standstill is how long a process that loads may not run before another may, and longStandstill before it is killed.
	standstill     = 300 * time.Millisecond
	longStandstill = 15 * time.Second
	// longTurn is how long it keeps a processor from others who wait for one.
	longTurn    = 10 * time.Second
	longestLoad = 2 * time.Minute
	// Windows take turns on the whole machine: who has his turn may take less time than others.
	longestInWindow    = 30 * time.Second
	standstillInWindow = time.Second
)

// Options say what is done, and whom it is told.
type Options struct {
	// Report is called for each load that was repaired, one after the other.
	Report func(*load.Attempt)
	// Window, unless nil, allows programs that no rewriting helps to be loaded with net.core.bpf_jit_harden lowered from 2 to 1 for
	// a moment (package hardenwindow).
	Window *hardenwindow.Options

	limits []int // nil: rewrite.FewLimits
	// For tests, what guards against something and can be left out.
	without guards
}

// guards are what tests do without, to show what they are good for.
type guards struct {
	hidden   bool   // memory that nobody can look at
	apart    bool   // processes that we depend on are out of reach of signals
	aside    bool   // receiving goes on while the memory of a thread is read
	pages    bool   // nothing is written that the thread could not write
	binding  bool   // memory is that of the address space, whoever has the thread's number
	deadline bool   // nobody waits for ever
	shares   bool   // each user has threads for his own memory: not one pool for all
	prompt   bool   // no page of userfaultfd is waited for
	spared   bool   // windows are opened only for loaders whom 1 spares
	before   func() // called when it is known that the thread waits, and before the log is written
}

// Start answers the loads that arrive at the listener, of which it becomes the owner, from now on. pid is the process that sent it. The error says in words for people why nothing can be repaired; the process
// that sent the listener is of no use then, because nobody answers its loads.
func Start(l *Listener, pid int, o Options) (*Proxy, error) {
	if o.limits == nil {
		o.limits = rewrite.FewLimits()
	}
	processors := int64(max(2, runtime.NumCPU()))
	p := &Proxy{
		listener: int(l.File.Fd()), file: l.File, killable: l.Killable, options: o, done: make(chan struct{}),
		free:    new(freeing.Bound).Closed,
		flights: map[[32]byte]chan struct{}{}, jobs: map[int]*job{}, missed: map[int]int{},
		memory: newRoom(maxWeight, maxUserWeight), parking: newRoom(maxParked, maxParked/fewParked), descriptors: newDescriptors(),
		readers: newRoom(maxReaders, maxUserReaders), processors: newRoom(processors, processors), window: newRoom(1, 1),
	}
	if o.without.shares {
		p.readers = newRoom(maxUserReaders, maxUserReaders)
	}
	err := p.prepare(pid)
	if err == nil {
		if p.guardian, err = startGuardian(l.File, p.slotsFile, !o.without.apart); err == nil {
			// On 6.6 and later the waiting thread's processor is used for the answer: half the time of a load that is left alone.
			_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(p.listener), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
			go p.beat()
			go p.serve()
			return p, nil
		}
		p.source.Close()
	}
	l.File.Close()
	return nil, err
}

func (p *Proxy) prepare(pid int) error {
	if err := sizes(); err != nil {
		return err
	}
	var err error
	p.release = kernelRelease()
	if p.chargesMemlock = olderThan(p.release, 5, 11); p.chargesMemlock {
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
	m, err := openMemoryOf(pid)
	if err != nil {
		return fmt.Errorf("%w (needs CAP_SYS_PTRACE, for other users CAP_DAC_OVERRIDE, and kernel.yama.ptrace_scope below 3)", err)
	}
	m.close()
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
	// Nobody who has our user id reads our memory, or takes our descriptors.
	if !p.options.without.hidden {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			return fmt.Errorf("hide our memory: %w", err)
		}
	}
	p.hardened = openSetting("net.core.bpf_jit_harden")
	p.suidDumpable = openSetting("fs.suid_dumpable")
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	p.stopped, p.stop = r, w
	if p.slots, p.slotsFile, err = newSlots(); err != nil {
		return err
	}
	p.source, err = surrogate.Start(surrogate.Without(p.options.without.hidden, p.options.without.apart))
	return err
}

// Close leaves all further loads, those in work included, to the guardian, which leaves them to the kernel. After it nothing is
// reported any more. What the proxy holds it keeps to the end of the process.
func (p *Proxy) Close() {
	p.answering.Lock() // for good
	p.stop.Close()
	select {
	case <-p.done: // one of the two receives
	case <-time.After(moment):
	}
	p.guardian.takeOver()
	p.source.Close()
}

// turn is how long who receives may look at a load before another receives.
const turn = time.Millisecond

// Apart gives this process a real and a saved user id that nobody has, so that nobody without CAP_KILL can signal it or change its limits: not
// a command that runs as the same user. The effective user id stays. Call it when all is started that is to have the old ones.
func (p *Proxy) Apart() error {
	if err := syscall.Setresuid(surrogate.Nobody, -1, surrogate.Nobody); err != nil {
		p.exposed = fmt.Errorf("take a user id that nobody has: %w", err)
	}
	return p.exposed
}

// Exposed says why the command may stop or end the processes that help with its loads, which are left to the kernel then; nil when it may not. It is for
// after Apart.
func (p *Proxy) Exposed() error {
	p.guardian.mu.Lock()
	defer p.guardian.mu.Unlock()
	return cmp.Or(p.source.Exposed(), p.guardian.exposed, p.exposed)
}

// serve receives loads and answers them. One receives at a time: who has to wait for the memory of a load's thread leaves
// receiving to the next, so that nobody else waits for it.
func (p *Proxy) serve() {
	for {
		n := p.next()
		if n == nil {
			return
		}
		limit := turn
		if p.options.without.aside {
			limit = time.Hour
		}
		next := time.AfterFunc(limit, p.serve)
		p.look(n)
		if !next.Stop() {
			return
		}
	}
}

// next waits for a load. nil: there are no more.
func (p *Proxy) next() *notification {
	for {
		select {
		case <-p.done:
			return nil
		default:
		}
		slot := <-p.slots.free
		if what, err := wait(p.listener, int(p.stopped.Fd()), -1); err != nil || what != aLoad {
			p.guardian.takeOver()
			close(p.done)
			return nil
		}
		if err := p.slots.pulse().receive(byProxy, p.listener, p.slots.at(slot)); err != nil {
			p.slots.release(slot)
			if !errors.Is(err, errGone) {
				p.guardian.takeOver()
				close(p.done)
				return nil
			}
			continue
		}
		return parseNotification(slot, p.slots.at(slot))
	}
}

// leave leaves a load to the kernel, unless it has an answer.
func (p *Proxy) leave(n *notification) error {
	if !n.claim() {
		return errGone
	}
	return p.let(n)
}

// leaveFor leaves a load that might have been repaired to the kernel, for want of room if that is why.
func (p *Proxy) leaveFor(n *notification, err error) {
	if wantsRoom(err) {
		p.count(func(l *Left) { l.NoRoom++ })
	}
	p.leave(n)
}

// let is leave for who has claimed the notification.
func (p *Proxy) let(n *notification) error {
	err := sendContinue(p.listener, n.id)
	p.answered(n, err)
	return err
}

// answered takes note of an answer. No notification is forgotten without it.
func (p *Proxy) answered(n *notification, err error) {
	p.slots.release(n.slot)
	if n.memory != nil {
		n.memory.close()
	}
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

// look answers a load that is not suspect, which are most.
func (p *Proxy) look(n *notification) {
	if p.hurried(n.tid) {
		p.leave(n)
		return
	}
	m, err := openMemory(p.listener, n, &p.we)
	if err != nil {
		p.leaveFor(n, err)
		return
	}
	n.memory = m.hold()
	if p.options.without.prompt {
		m.waits = n.tid
	}
	var a attr
	suspect := false
	err = p.within(n, func() error {
		a, suspect = readAttr(n, m)
		return nil
	})
	if err != nil || !suspect {
		p.leave(n)
		m.close()
		return
	}
	go func() {
		defer m.close()
		p.handle(n, m, &a)
	}()
}

// handle looks at the program of a load and answers.
func (p *Proxy) handle(n *notification, m *memory, a *attr) {
	who, err := p.judge(n)
	if err != nil {
		p.leaveFor(n, err)
		return
	}
	// One that weighs more would leave others nothing, for as long as its memory does not come.
	user, w := who.uid[0], weight(a)
	if w > maxUserWeight || !p.memory.enter(user, w, patience) {
		p.leaveFor(n, errRoom)
		return
	}
	defer p.memory.leave(user, w) // when all is let go: one that was late keeps it until then
	s, h, err := p.examine(n, m, a, who)
	if err != nil {
		p.leaveFor(n, err)
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

// hardening is the setting as it is when no window of ours is open.
func (p *Proxy) hardening() int {
	open := p.windows.Load() > 0 // before the setting is read: a window may close meanwhile
	if v := p.hardened.read(); v != 1 || !open {
		return v
	}
	return 2
}

// judge says as whom a suspect would be loaded. An error means that it is to be left alone.
func (p *Proxy) judge(n *notification) (identity, error) {
	hardened := p.hardening()
	if hardened == 0 {
		return identity{}, errHealthy
	}
	who, err := readIdentity(n.tid)
	if err != nil {
		return who, err
	}
	if hardened == 1 && who.capable(unix.CAP_SYS_ADMIN) {
		return who, errHealthy
	}
	if err := who.like(&p.we, p.chargesMemlock); err != nil {
		return who, err
	}
	// A process that takes other ids becomes what this says, if only for a moment.
	if p.suidDumpable.read() == 1 {
		p.count(func(l *Left) { l.Dumpable++ })
		return who, errors.New("fs.suid_dumpable is 1")
	}
	if !valid(p.listener, n.id) { // it was read by the thread's number
		return who, errGone
	}
	return who, nil
}

// examine takes the snapshot of a suspect, and duplicates of its descriptors. An error means that it is to be left alone.
func (p *Proxy) examine(n *notification, m *memory, a *attr, who identity) (*snapshot, *handles, error) {
	var s *snapshot
	err := p.within(n, func() (err error) {
		s, err = readProgram(n, a, m)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	s.who = who
	if !p.processors.enter(s.user(), 1, patience) {
		return nil, nil, errRoom
	}
	suspect := s.predict(p.tried(n.tid))
	p.processors.leave(s.user(), 1)
	if !suspect {
		return nil, nil, errHealthy
	}
	err = p.within(n, func() error {
		spans, err := s.readRest(m)
		if err != nil {
			return err
		}
		return p.allows(n, 'r', spans...)
	})
	if err != nil {
		return nil, nil, err
	}
	fds := s.descriptors()
	makeWay, err := p.enterDescriptors(s, len(fds))
	if err != nil {
		return nil, nil, err
	}
	var h *handles
	err = p.within(n, func() (err error) { // to close what is no object of BPF may take long
		h, err = s.duplicate(fds)
		return err
	})
	if h == nil {
		makeWay()
		return nil, nil, err
	}
	h.room = makeWay
	if err != nil {
		h.close()
		return nil, nil, err
	}
	// The descriptors were taken by the number of the thread: are they the thread's?
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
	if err := p.prepareAnswer(n, s, o); err != nil {
		return p.leave(n)
	}
	// From here on nothing waits for the thread.
	if !p.answering.TryRLock() { // Close waits, or has waited
		return p.leave(n)
	}
	defer p.answering.RUnlock()
	if !n.claim() {
		return errGone
	}
	err := sendFD(p.listener, n.id, o.fd, p.twoSteps.Load())
	if errors.Is(err, unix.EINVAL) && !p.twoSteps.Swap(true) {
		err = sendFD(p.listener, n.id, o.fd, true)
	}
	if err != nil && !errors.Is(err, errGone) {
		return p.let(n)
	}
	p.answered(n, err)
	if err == nil && (o.repair != nil || o.window != nil) {
		p.reporting.Lock()
		defer p.reporting.Unlock()
		p.options.Report(attempt(s, o))
	}
	return err
}

var errNothing = errors.New("no program to give")

// prepareAnswer writes the log, since after the answer its buffer may be anything. Where a signal can come between, the moment is as short as
// can be.
func (p *Proxy) prepareAnswer(n *notification, s *snapshot, o *outcome) error {
	if o.fd < 0 {
		return errNothing
	}
	if len(o.log) == 0 && o.trueSize == 0 {
		return nil
	}
	m := n.memory.hold()
	defer m.close()
	err := p.within(n, func() error {
		if !p.options.without.pages {
			spans := []span{{s.attr.u64(offLogBuf), len(o.log)}}
			if s.hasTrueSize(o) {
				spans = append(spans, span{n.attr + offLogTrueSize, 4})
			}
			if err := p.allows(n, 'w', spans...); err != nil {
				return err
			}
		}
		return p.writeLog(n, s, m, o)
	})
	if errors.Is(err, errNobody) {
		return nil
	}
	return err
}

// errNobody is a notification that is not valid before its answer, which will say so.
var errNobody = errors.New("nobody waits for the log")

// writeLog writes what the kernel would have written.
func (p *Proxy) writeLog(n *notification, s *snapshot, m *memory, o *outcome) error {
	if p.options.without.before != nil {
		p.options.without.before()
	}
	if p.options.without.binding {
		var err error
		if m, err = openMemoryOf(n.tid); err != nil {
			return err
		}
		defer m.close()
	}
	if err := m.write(s.attr.u64(offLogBuf), o.log); err != nil {
		return err
	}
	if !s.hasTrueSize(o) {
		return nil
	}
	var b attr
	b.putU32(0, o.trueSize)
	return m.write(n.attr+offLogTrueSize, b[:4])
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

// kernelRelease is "" when it cannot be told.
func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// olderThan reports whether a kernel's release is before a version, false when it cannot be told.
func olderThan(release string, major, minor int) bool {
	v, ok := node.ParseKernel(release)
	return ok && v.Before(major, minor)
}
