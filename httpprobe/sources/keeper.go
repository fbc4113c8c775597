// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/sys/privilege"
	"github.com/bpfwhy/bpfwhy/internal/sys/threads"
)

// Before uprobe_multi (6.6), kernels with ba677dbe77af want CAP_SYS_ADMIN for each uprobe. A probe
// that gives it up leaves it to a process of its own, the keeper, that keeps nothing else. It takes
// an open file and hands back what holds the probes. It decides nothing by what it is told: it
// looks itself whether the file is a TLS library, and where its functions are, and it knows the
// programs from its start on.

// keeperArgv0 is the name under which an executable acts as keeper: see Main.
const keeperArgv0 = "httpprobe-uprobes"

// mainCalled is set by Main.
var mainCalled atomic.Bool

// Main acts as keeper, and ends the process, if the executable was started as one (by OpenSSL);
// otherwise it returns at once. It belongs at the very start of main of whoever gives up
// CAP_SYS_ADMIN while a source is open.
func Main() {
	mainCalled.Store(true)
	if os.Args[0] != keeperArgv0 {
		return
	}
	if err := keep(keeperSocket); err != nil {
		fmt.Fprintf(os.Stderr, "httpprobe: keep uprobes: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Descriptors of the keeper: the socket, and the programs in the order of their names.
const (
	keeperSocket  = 3
	keeperProgram = 4
)

// programNames are the names of the programs that are put on functions.
func programNames() []string {
	var names []string
	for _, p := range sslProbes {
		names = append(names, p.program)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// keep serves until the other end is gone.
func keep(socket int) error {
	if err := errors.Join(unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0), unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		privilege.Drop(unix.CAP_SYS_ADMIN)); err != nil {
		return err
	}
	programs := map[string]int{}
	for i, name := range programNames() {
		programs[name] = keeperProgram + i
		unix.CloseOnExec(keeperProgram + i)
	}
	p, err := findPMU(programs)
	if err = errors.Join(reply(socket, nil, err), err); err != nil { // the first one says that it is a keeper at all
		return err
	}
	threads.LimitProcessors()
	for {
		fds, _, err := receive(socket, 1)
		if errors.Is(err, io.EOF) {
			return nil
		}
		var probes []fdCloser
		if err == nil {
			probes, err = p.within(fds)
		}
		if err := errors.Join(reply(socket, probes, err), threads.Close(probes)); err != nil {
			return err
		}
	}
}

// within is guarded, with an end: what hangs, as files of others can, is left to itself.
func (p pmu) within(fds []int) ([]fdCloser, error) {
	type result struct {
		probes []fdCloser
		err    error
	}
	done := make(chan result)
	late := make(chan struct{})
	go func() {
		probes, err := p.guarded(fds)
		select {
		case done <- result{probes, err}:
		case <-late:
			_ = threads.Close(probes) // nobody wants them any more
		}
	}()
	select {
	case r := <-done:
		return r.probes, r.err
	case <-time.After(keeperTime):
		close(late)
		return nil, errHangs
	}
}

// guarded attaches to a file that is a TLS library, and to no other. It closes the file.
func (p pmu) guarded(fds []int) ([]fdCloser, error) {
	if len(fds) != 1 {
		closeFDs(fds)
		return nil, errors.New("want one file")
	}
	file := os.NewFile(uintptr(fds[0]), "library")
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	functions, err := tlsFunctions(file) // the sender must be able to read it: one that is opened by name only cannot be read
	if err != nil {
		return nil, err
	}
	if functions == nil {
		return nil, errors.New("not a TLS library")
	}
	return p.open(file, functions)
}

// Messages are an errno and a text, both empty where all is well, with descriptors.
const maxMessage = 4096

func reply(socket int, probes []fdCloser, err error) error {
	b := make([]byte, 4)
	if err != nil {
		var errno unix.Errno
		if errors.As(err, &errno) {
			binary.NativeEndian.PutUint32(b, uint32(errno))
		}
		text := err.Error()
		b = append(b, text[:min(len(text), maxMessage-4)]...)
	}
	var fds []int
	for _, p := range probes {
		fds = append(fds, int(p))
	}
	return send(socket, b, fds)
}

func send(socket int, b []byte, fds []int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(socket, b, rights, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// receive returns what came with at most so many descriptors: io.EOF when nobody is at the other
// end.
func receive(socket, most int) (fds []int, b []byte, err error) {
	b = make([]byte, maxMessage)
	rights := make([]byte, unix.CmsgSpace(4*most))
	var n, rn, flags int
	for {
		if n, rn, flags, _, err = unix.Recvmsg(socket, b, rights, unix.MSG_CMSG_CLOEXEC); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("receive: %w", err)
	}
	if n == 0 {
		return nil, nil, io.EOF
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rn])
	for i := range messages {
		if got, e := unix.ParseUnixRights(&messages[i]); e == nil {
			fds = append(fds, got...)
		}
	}
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = unix.EMFILE // there was no room for all of them
	}
	if err != nil {
		closeFDs(fds)
		return nil, nil, fmt.Errorf("receive file: %w", err)
	}
	return fds, b[:n], nil
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// keeper is the process, seen from the one that started it. Probes live on when it dies.
type keeper struct {
	mu     sync.Mutex
	socket int // -1 when it is gone
	pid    int
	kill   func() error
	ended  chan struct{}
}

// keeperTime is how long one file may take, and answerTime how long the answer may.
const (
	keeperTime = 15 * time.Second
	answerTime = 30 * time.Second
)

// errKeeper is for files that come when it is gone.
var errKeeper = errors.New("the process that kept CAP_SYS_ADMIN is gone")

func startKeeper(programs map[string]int) (*keeper, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "keeper")
	defer theirs.Close()
	limit := unix.NsecToTimeval(answerTime.Nanoseconds())
	if err := errors.Join(unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)); err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("limit the time of a socket: %w", err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args[0] = keeperArgv0
	cmd.Stderr = os.Stderr
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{theirs}
	for _, name := range programNames() {
		fd, err := unix.FcntlInt(uintptr(programs[name]), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			unix.Close(pair[0])
			return nil, fmt.Errorf("pass program on: %w", err)
		}
		f := os.NewFile(uintptr(fd), name)
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	// Of no session that a terminal interrupts, and with the one capability also where the user is
	// not root.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN}}
	if err := cmd.Start(); err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("start a process of our own: %w", err)
	}
	k := &keeper{socket: pair[0], pid: cmd.Process.Pid, kill: cmd.Process.Kill, ended: make(chan struct{})}
	go func() {
		defer close(k.ended)
		_ = cmd.Wait() // its end shows at the socket
	}()
	if _, b, err := receive(k.socket, 0); err != nil || len(b) != 4 {
		_ = k.kill() // it may be anything
		k.close()
		return nil, fmt.Errorf("hear from it: %w", errKeeper)
	}
	return k, nil
}

func (k *keeper) attach(file *os.File, _ map[string]uint64) ([]io.Closer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.socket < 0 {
		return nil, errKeeper
	}
	if err := send(k.socket, []byte{0}, []int{int(file.Fd())}); err != nil {
		k.leave()
		return nil, errKeeper
	}
	fds, b, err := receive(k.socket, len(sslProbes))
	switch {
	case errors.Is(err, unix.EMFILE):
		return nil, err
	case err != nil || len(b) < 4: // gone, or too late: its answer would be taken for another's
		k.leave()
		return nil, errKeeper
	}
	if text := string(b[4:]); text != "" {
		closeFDs(fds)
		return nil, keeperError{unix.Errno(binary.NativeEndian.Uint32(b)), strings.ToValidUTF8(text, "?")}
	}
	var probes []io.Closer
	for _, fd := range fds {
		probes = append(probes, fdCloser(fd))
	}
	return probes, nil
}

// leave ends it. The lock is held.
func (k *keeper) leave() {
	if k.socket >= 0 {
		unix.Close(k.socket)
		k.socket = -1
	}
}

func (k *keeper) close() {
	if k == nil {
		return
	}
	k.mu.Lock()
	k.leave()
	k.mu.Unlock()
	select {
	case <-k.ended:
	case <-time.After(time.Second):
		_ = k.kill() // it hangs in somebody's file
	}
}

// keeperError is what the keeper says.
type keeperError struct {
	errno unix.Errno
	text  string
}

func (e keeperError) Error() string { return e.text }
func (e keeperError) Unwrap() error { return e.errno }
