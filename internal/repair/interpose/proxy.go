// SPDX-License-Identifier: Apache-2.0

// Package interpose loads programs in the place of a process that cannot be changed, so that those
// which constant blinding breaks load repaired.
//
// A seccomp filter with a listener makes each BPF_PROG_LOAD of a command, of its threads and of all
// its children wait. The proxy looks at the program. One that blinding cannot break is left to the
// kernel, which then does what it would have done without us; so is everything that is not
// understood. What may break is loaded by the proxy as the calling thread: with its ids and no
// capability that it has not, so that nobody gets what the kernel would not have given. When
// blinding does break it, it is loaded once more with jump islands (package rewrite), and the
// thread gets the descriptor of that.
//
// A guardian process holds the listener too. When the proxy is killed, it leaves all further loads
// to the kernel, and while the proxy is stopped, until it goes on. Only when both are killed do
// loads fail, with ENOSYS.
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

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/sysctl"
	"github.com/bpfwhy/bpfwhy/internal/repair/hardenwindow"
	"github.com/bpfwhy/bpfwhy/internal/repair/surrogate"
	"github.com/bpfwhy/bpfwhy/internal/sys/freeing"
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
	exposed        error

	mu         sync.Mutex
	flights    map[[32]byte]chan struct{} // by content, closed when it is known what helps
	jobs       map[int]*job               // by thread
	missed     map[misser]int             // answers in a row that came too late
	unrepaired Unrepaired
}

// Bounds of what is done at a time. A load that finds no room is left to the kernel when nobody has
// made way for so long.
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
	// standstill is how long a process that loads may not run before another may, and
	// longStandstill before it is killed.
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
	// Window, unless nil, allows programs that no rewriting helps to be loaded with
	// net.core.bpf_jit_harden lowered from 2 to 1 for a moment (package hardenwindow).
	Window *hardenwindow.Options

	limits []int // nil: rewrite.FewLimits
	// For tests, what guards against something and can be left out.
	without guards
}

// guards are what tests do without, to show what they are good for.
type guards struct {
	hidden   bool       // memory that nobody can look at
	apart    bool       // processes that we depend on are out of reach of signals
	aside    bool       // receiving goes on while the memory of a thread is read
	pages    bool       // nothing is written that the thread could not write
	binding  bool       // memory is that of the address space, whoever has the thread's number
	numbers  bool       // what is known of a number is of who has it: not of who had it before
	once     bool       // the program that was looked at is loaded: it is read once
	deadline bool       // nobody waits for ever
	pulse    bool       // the guardian stands in for a proxy that is stopped
	shares   bool       // each user has threads for his own memory: not one pool for all
	prompt   bool       // no page of userfaultfd is waited for
	spared   bool       // windows are opened only for loaders whom 1 spares
	before   func(step) // called before each of these steps of a load
}

type step int

const (
	opening step = iota // the memory of a thread is opened, by the thread's number
	loading             // a program is loaded of which it is not known what helps it
	writing             // the log is written: it is known that the thread waits
)

// before is for tests, which have something happen there.
func (p *Proxy) before(s step) {
	if f := p.options.without.before; f != nil {
		f(s)
	}
}

// Start answers the loads that arrive at the listener, of which it becomes the owner, from now on.
// pid is the process that sent it. The error says in words for people why nothing can be repaired;
// the process that sent the listener is of no use then, because nobody answers its loads.
func Start(l *Listener, pid int, o Options) (*Proxy, error) {
	if o.limits == nil {
		o.limits = rewrite.FewLimits()
	}
	processors := int64(max(2, runtime.NumCPU()))
	p := &Proxy{
		listener: int(l.File.Fd()), file: l.File, killable: l.Killable, options: o, done: make(chan struct{}),
		free:    new(freeing.Bound).Closed,
		flights: map[[32]byte]chan struct{}{}, jobs: map[int]*job{}, missed: map[misser]int{},
		memory: newRoom(maxWeight, maxUserWeight), parking: newRoom(maxParked, maxParked/fewParked), descriptors: newDescriptors(),
		readers: newRoom(maxReaders, maxUserReaders), processors: newRoom(processors, processors), window: newRoom(1, 1),
	}
	if o.without.shares {
		p.readers = newRoom(maxUserReaders, maxUserReaders)
	}
	err := p.prepare(pid)
	if err == nil {
		p.slots.pulse().unheeded.Store(o.without.pulse)
		if p.guardian, err = startGuardian(l.File, p.slotsFile, !o.without.apart); err == nil {
			// On 6.6 and later the waiting thread's processor is used for the answer: half the time
			// of a load that is left alone.
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
	p.release = node.Uname().Release
	if p.chargesMemlock = node.Does(p.release, node.ChargesNoMemlock) == node.No; p.chargesMemlock {
		// As loaders do themselves. Those who do not are left alone: their limit is not ours.
		_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
	}
	if p.we, err = readIdentity(unix.Gettid()); err != nil {
		return fmt.Errorf("look at our own process: %w", err)
	}
	if p.we.tgid != os.Getpid() {
		return errors.New("/proc is that of another pid namespace")
	}
	if !abi.HasCap(p.we.caps, abi.CapSysAdmin) && !abi.HasCap(p.we.caps, abi.CapBPF) {
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

// Close leaves all further loads, those in work included, to the guardian, which leaves them to the
// kernel. After it nothing is reported any more. What the proxy holds it keeps to the end of the
// process.
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

// Apart gives this process a real and a saved user id that nobody has, so that nobody without
// CAP_KILL can signal it or change its limits: not a command that runs as the same user. The
// effective user id stays. Call it when all is started that is to have the old ones.
func (p *Proxy) Apart() error {
	if err := syscall.Setresuid(surrogate.Nobody, -1, surrogate.Nobody); err != nil {
		p.exposed = fmt.Errorf("take a user id that nobody has: %w", err)
	}
	return p.exposed
}

// Exposed says why the command may stop or end the processes that help with its loads, which are
// left to the kernel then; nil when it may not. It is for after Apart.
func (p *Proxy) Exposed() error {
	p.guardian.mu.Lock()
	defer p.guardian.mu.Unlock()
	return cmp.Or(p.source.Exposed(), p.guardian.exposed, p.exposed)
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
