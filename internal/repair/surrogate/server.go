// SPDX-License-Identifier: Apache-2.0

package surrogate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/sys/privilege"
)

// server is the process that starts others.
type server struct {
	cmd    *exec.Cmd
	socket *os.File
	groups []int
}

// patience is how long that process may take for what it does in a moment.
const patience = 5 * time.Second

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
	if o.unheard {
		p.kept = theirs
	} else {
		defer theirs.Close()
	}
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
