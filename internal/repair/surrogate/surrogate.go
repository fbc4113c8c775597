// SPDX-License-Identifier: Apache-2.0

// Package surrogate loads a program in the place of somebody else's thread, in a process of its own
// that is, to the kernel, that thread's equal: with its ids and no capability that it has not.
//
// Whoever has the same ids may do to that process what the kernel allows: send it signals, change
// its limits, and, if it could be traced, read its memory and take its descriptors. So there is
// nothing in it but the load: no memory of the process that asks, no descriptor that the load does
// not name, one thread, no capability that the thread has not; and it cannot be traced by those who
// could not trace a process with more. It makes the system calls of a list that was written
// beforehand (script.go), answers, and ends. It is killed when it does not.
//
// The processes are copies of one that does nothing but start them. That one is an executable of
// Go, started anew, before anybody could be there who attacks it, and out of the reach of signals:
// see Apart.
//
// Linux 5.10 and later.
package surrogate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/sys/fdinfo"
	"github.com/bpfwhy/bpfwhy/internal/sys/privilege"
)

// ErrEnded is a process that ended, or was ended, before it had an answer.
var ErrEnded = errors.New("the process that loads has ended")

// ErrTimeout is a process that had no answer in time, and was killed.
var ErrTimeout = errors.New("the process that loads did not answer in time")

// As is who a load is made as.
type As struct {
	UID, GID [3]int // real, effective, saved
	Groups   []int
	Caps     uint64 // effective and permitted
}

// Load is one load.
type Load struct {
	As   As
	Attr []byte // of union bpf_attr; pointers are filled in
	Code []byte
	// Missing says that the instructions are not to be there: Process.Missing.
	Missing bool
	// Gated makes the process wait before the load: Process.Gate.
	Gated   bool
	Parts   []Part
	LogSize int // room for the verifier's log, 0 for none
	Objects []int
	// Offsets in Attr of the pointers to the instructions and to the log.
	CodeAt, LogAt int

	attr uint64
}

// Part is memory that a pointer in the attributes points to.
type Part struct {
	At    int // of the pointer
	Bytes []byte
}

// guards are what tests do without, to show what they are good for.
type guards struct {
	dumpable bool // the memory is not hidden
	apart    bool // whoever starts the processes has our own ids and pid namespace
	pause    int  // the step before which a process sleeps, so that it can be met there; -1 for none
}

// Source starts processes.
type Source struct {
	o guards

	mu     sync.Mutex
	server *server // nil: none at work
	closed bool

	exposed error
}

// server is the process that starts others.
type server struct {
	cmd    *exec.Cmd
	socket *os.File
	groups []int
}

// patience is how long that process may take for what it does in a moment.
const patience = 5 * time.Second

// Start makes ready. The executable must call Main first in main.
func Start(options ...Option) (*Source, error) {
	o := guards{pause: -1}
	for _, set := range options {
		set(&o)
	}
	return newSource(o)
}

// Option leaves a guard out, for tests that show what it is good for.
type Option func(*guards)

// Without leaves the memory of processes to those who have the same ids, and lets who starts them
// be in reach of signals.
func Without(hidden, apart bool) Option {
	return func(o *guards) { o.dumpable, o.apart = hidden, apart }
}

func newSource(o guards) (*Source, error) {
	server, exposed, err := startServer(o)
	if err != nil {
		return nil, err
	}
	return &Source{o: o, server: server, exposed: exposed}, nil
}

// Exposed says why who starts the processes can be signalled by others, nil when he cannot.
func (s *Source) Exposed() error { return s.exposed }

// Close ends the source, and the processes that are at work with it.
func (s *Source) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.server.close()
	s.server = nil
}

func startServer(o guards) (s *server, exposed, err error) {
	groups, err := unix.Getgroups()
	if err != nil {
		return nil, nil, fmt.Errorf("read groups: %w", err)
	}
	caps, err := privilege.Effective()
	if err != nil {
		return nil, nil, err
	}
	start := func(attr *syscall.SysProcAttr) (err error) {
		if attr.Credential == nil {
			s, err = startServerAs(attr, groups)
			return err
		}
		for c := range 64 {
			if caps&(1<<c) != 0 {
				attr.AmbientCaps = append(attr.AmbientCaps, uintptr(c))
			}
		}
		s, err = startServerAs(attr, nil)
		return err
	}
	if o.apart {
		err = start(&syscall.SysProcAttr{Setsid: true})
		return s, nil, err
	}
	exposed, err = Apart(start)
	return s, exposed, err
}

func startServerAs(attr *syscall.SysProcAttr, groups []int) (*server, error) {
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{Argv0}
	cmd.Env = []string{} // what is in ours is nobody's business
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = attr
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start processes that load: %w", err)
	}
	s := &server{cmd: cmd, socket: ours, groups: groups}
	if n, _, err := receive(ours, make([]byte, 1), time.Now().Add(2*patience)); err != nil || n != 1 {
		s.close()
		return nil, fmt.Errorf("start processes that load: %w", errors.Join(ErrEnded, err))
	}
	return s, nil
}

func (s *server) close() {
	if s == nil {
		return
	}
	s.socket.Close()
	_ = s.cmd.Process.Kill()
	go func() { _ = s.cmd.Wait() }()
}

func socketpair() (ours, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket: %w", err)
	}
	if err := unix.SetNonblock(pair[0], true); err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(pair[0]), "surrogate"), os.NewFile(uintptr(pair[1]), "surrogate"), nil
}

// receive reads a message and at most one descriptor, -1 for none, until a moment.
func receive(socket *os.File, b []byte, until time.Time) (n, fd int, err error) {
	fd = -1
	if err := socket.SetReadDeadline(until); err != nil {
		return 0, -1, err
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, -1, err
	}
	control := make([]byte, unix.CmsgSpace(4))
	var controlLen int
	var recvErr error
	last := false
	err = raw.Read(func(s uintptr) bool {
		for {
			n, controlLen, _, _, recvErr = unix.Recvmsg(int(s), b, control, unix.MSG_CMSG_CLOEXEC)
			// The kernel looks for a message first, and then whether the other end is closed: a
			// message that comes in between, and the end after it, are told as the end
			// (unix_dgram_recvmsg). There can be no other message after the end.
			if n != 0 || recvErr != nil || last {
				break
			}
			last = true
		}
		return recvErr != unix.EAGAIN && recvErr != unix.EINTR
	})
	if err = errors.Join(err, recvErr); err != nil {
		return 0, -1, err
	}
	var fds [MaxObjects + 2]int32
	if received(control[:controlLen], &fds) == 1 {
		fd = int(fds[0])
	}
	return n, fd, nil
}

// Process is a process that makes one load.
type Process struct {
	script *script
	load   *Load
	memory []byte
	socket *os.File
	pidfd  int

	answers int // that came
}

// ready starts the server anew where it is gone. The caller holds the lock.
func (s *Source) ready() (err error) {
	if s.closed {
		return ErrEnded
	}
	if s.server == nil {
		s.server, _, err = startServer(s.o)
	}
	return err
}

// New starts a process, which sets out for the load at once. The descriptors of the load are needed
// no longer when it returns.
func (s *Source) New(l *Load) (*Process, error) {
	if len(l.Objects) > MaxObjects {
		return nil, fmt.Errorf("start a process for a load: %d descriptors", len(l.Objects))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ready(); err != nil {
		return nil, err
	}
	p, err := s.server.new(l, s.o)
	if errors.Is(err, errServer) {
		s.server.close()
		s.server = nil
	}
	return p, err
}

var errServer = errors.New("who starts processes for loads does not answer")

func (s *server) new(l *Load, o guards) (*Process, error) {
	fail := func(err error) (*Process, error) { return nil, fmt.Errorf("start a process for a load: %w", err) }
	p := &Process{script: newScript(l, s.groups, o), load: l, pidfd: -1}
	file, err := Memory("bpfwhy-load", p.script.size)
	if err != nil {
		return fail(err)
	}
	defer file.Close()
	if p.memory, err = unix.Mmap(int(file.Fd()), 0, p.script.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fail(err)
	}
	if err := p.script.writeTo(p.memory); err != nil {
		p.Close()
		return fail(err)
	}
	ours, theirs, err := socketpair()
	if err != nil {
		p.Close()
		return fail(err)
	}
	p.socket = ours
	defer theirs.Close()
	var request [8]byte
	binary.NativeEndian.PutUint64(request[:], uint64(p.script.size))
	fds := append([]int{int(theirs.Fd()), int(file.Fd())}, l.Objects...)
	err = send(s.socket, request[:], unix.UnixRights(fds...))
	n, pidfd := 0, -1
	if err == nil {
		n, pidfd, err = receive(s.socket, request[:], time.Now().Add(patience))
	}
	if err != nil || n != len(request) {
		p.Close()
		return fail(errors.Join(errServer, err))
	}
	p.pidfd = pidfd
	if answer := int64(binary.NativeEndian.Uint64(request[:])); answer > 0 && pidfd >= 0 {
		return p, nil
	} else if answer < 0 {
		err = unix.Errno(-answer)
	}
	p.Close()
	return fail(errors.Join(errors.New("no process"), err))
}

func send(socket *os.File, b, control []byte) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	if err := socket.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var sendErr error
	err = raw.Write(func(s uintptr) bool {
		sendErr = unix.Sendmsg(int(s), b, control, nil, unix.MSG_NOSIGNAL)
		return sendErr != unix.EAGAIN && sendErr != unix.EINTR
	})
	return errors.Join(err, sendErr)
}

// Memory is shared memory of a size that nobody can change.
func Memory(name string, size int) (*os.File, error) {
	const noexec = 8 // MFD_NOEXEC_SEAL, Linux 6.3
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|noexec)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("make shared memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	err = f.Truncate(int64(size))
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make shared memory: %w", err)
	}
	return f, nil
}

// Missing waits for the memory in which the instructions are to appear: its userfaultfd, whose
// owner the caller becomes, and its address. An error means that the load is not made.
func (p *Process) Missing(until time.Time) (fd int, address uintptr, err error) {
	fd, err = p.answer(until)
	if err != nil {
		return -1, 0, fmt.Errorf("make memory that is missing: %w", err)
	}
	return fd, missingBase, nil
}

// Gate lets a process make its load when it can read a byte from a file. It has closed the file
// when it ends.
func (p *Process) Gate(gate *os.File) error {
	raw, err := gate.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	if err := raw.Control(func(fd uintptr) { sendErr = send(p.socket, []byte{0}, unix.UnixRights(int(fd))) }); err != nil {
		return err
	}
	return sendErr
}

// Limits are how long a process may take.
type Limits struct {
	Total time.Duration
	// Still is how long it may not run at all, as when somebody has stopped it.
	Still time.Duration
	// MakeWay is called, perhaps more than once, when it has not run for as long as Pause, or is at
	// it for longer than Turn.
	Pause, Turn time.Duration
	MakeWay     func()
	Ran         func() // called from time to time when it has run
}

// Result waits for the program, whose owner the caller becomes. The error is an errno where it is
// the kernel's answer to the load, and ErrTimeout where there was none within the limits; the
// process is killed then.
func (p *Process) Result(l Limits) (fd int, err error) {
	const tick = 100 * time.Millisecond
	began := time.Now()
	ran, since := time.Duration(-1), began
	for {
		fd, err := p.answer(time.Now().Add(tick))
		if !errors.Is(err, ErrTimeout) {
			return fd, err
		}
		if p.ended() { // somebody else has its socket, or there would be the end of it
			if fd, err := p.answer(time.Now().Add(tick)); !errors.Is(err, ErrTimeout) {
				return fd, err
			}
			return -1, p.script.stopped(p.memory)
		}
		if now := p.cpu(); now != ran {
			ran, since = now, time.Now()
			if l.Ran != nil {
				l.Ran()
			}
		}
		still := time.Since(since)
		if l.MakeWay != nil && (still > l.Pause || time.Since(began) > l.Turn) {
			l.MakeWay()
		}
		if still > l.Still || time.Since(began) > l.Total {
			p.kill()
			return -1, ErrTimeout
		}
	}
}

// cpu is how long the process has run.
func (p *Process) cpu() time.Duration {
	const scheduled = 2 // CPUCLOCK_SCHED, include/linux/posix-timers.h
	var t unix.Timespec
	pid := p.PID()
	if pid <= 0 || unix.ClockGettime(int32(^pid<<3|scheduled), &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

func (p *Process) answer(until time.Time) (int, error) {
	var b [2]byte
	n, fd, err := receive(p.socket, b[:], until)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return -1, ErrTimeout
	case err != nil:
		return -1, fmt.Errorf("hear from the process that loads: %w", err)
	case n == 0:
		return -1, p.script.stopped(p.memory)
	case fd < 0:
		return -1, errors.New("hear from the process that loads: no descriptor came")
	}
	if err := p.sent(); err != nil {
		unix.Close(fd)
		p.kill()
		return -1, err
	}
	return fd, nil
}

// sent waits until the process says in its memory that it has sent what came. In the moment of its
// end, when it has no memory any more by which the kernel would guard its descriptors, somebody
// with its ids may take its socket, and send what he likes.
func (p *Process) sent() error {
	step := p.script.step(p.memory, p.script.sends(p.answers))
	p.answers++
	for until := time.Now().Add(patience); ; time.Sleep(100 * time.Microsecond) {
		over := p.ended()
		switch state := atomic.LoadUint32(&step.state); {
		case state == done && step.errno == 0 && step.result == step.want:
			return nil
		case state == done || over:
			return fmt.Errorf("hear from the process that loads: it did not send what came: %w", ErrEnded)
		case time.Now().After(until): // stopped
			return ErrTimeout
		}
	}
}

// ended reports whether the process is no longer there.
func (p *Process) ended() bool { return fdinfo.Readable(p.pidfd, 0) }

// Attr is what the kernel made of the attributes, and Log what it wrote: both until Close.
func (p *Process) Attr() []byte { return p.memory[p.load.attr-base:][:len(p.load.Attr)] }
func (p *Process) Log() []byte  { return p.memory[p.script.log:] }

// PID is the process' number, 0 when it has ended: to look at it. Nothing is done to it by that.
// Who starts the processes knows another, that of his pid namespace.
func (p *Process) PID() int {
	n, err := fdinfo.Number(p.pidfd, "Pid")
	if err != nil { // -1
		return 0
	}
	return int(n)
}

func (p *Process) kill() {
	if p.pidfd >= 0 {
		_ = unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
	}
}

// Close ends the process, if it is still there, and gives back its memory. It does not wait for the
// end.
func (p *Process) Close() {
	p.kill()
	if p.pidfd >= 0 {
		unix.Close(p.pidfd)
	}
	if p.socket != nil {
		p.socket.Close()
	}
	if p.memory != nil {
		_ = unix.Munmap(p.memory)
	}
}
