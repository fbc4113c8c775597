// SPDX-License-Identifier: Apache-2.0

// Package launch starts a command that waits until it is watched, passes signals to it, and returns
// its status.
package launch

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/bpfwhy/bpfwhy/internal/repair/interpose"
	"golang.org/x/sys/unix"
)

// Argv0 is the argv[0] of this binary executed again as the process that waits until it is watched
// and then becomes the command. So the command has the process, terminal, process group and
// descriptors it would have had, and is watched from its first instruction. Nothing of it is left
// in the command's arguments or environment.
const Argv0 = "bpfwhy-held"

// Main is the held process, when the binary was executed as that: then it does not return. Call it
// first in main.
func Main() {
	if len(os.Args) > 0 && os.Args[0] == Argv0 {
		os.Exit(hold(os.Args[1:]))
	}
}

// Error is a command that cannot be started, with the status that a shell would give it.
type Error struct {
	Status int
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Descriptors of the held process. At the gate it waits: a byte lets it go, end of file means that
// nobody watches. Over the other it sends the listener of its filter, where it has one.
const (
	gate     = 3
	listener = 4
)

// Statuses of a shell for a command that could not be started.
const (
	notExecutable = 126
	notFound      = 127
)

// unwatched is the status of a held process that was never let go. Nobody sees it.
const unwatched = 2

// Command is a program to run, and as whom.
type Command struct {
	path string
	args []string
	env  []string
	as   *account // nil: as ourselves
}

type account struct {
	uid, gid int
	groups   []int
}

// Find finds the program of a command line as a shell would. userName, a name or a uid, may be "":
// as ourselves. A program that cannot be run gives an *Error.
func Find(args []string, userName string) (*Command, error) {
	path, err := exec.LookPath(args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		code := notExecutable
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
			code = notFound
		}
		var e *exec.Error
		if errors.As(err, &e) {
			err = e.Err
		}
		return nil, &Error{code, fmt.Errorf("run %s: %w", args[0], err)}
	}
	c := &Command{path: path, args: args, env: os.Environ()}
	if userName == "" {
		return c, nil
	}
	u, err := lookupUser(userName)
	if err != nil {
		return nil, fmt.Errorf("find user %s: %w", userName, err)
	}
	if c.as, err = newAccount(u); err != nil {
		return nil, err
	}
	c.env = setenv(c.env, "HOME", u.HomeDir)
	if c.as.uid != 0 {
		c.env = setenv(c.env, "USER", u.Username)
		c.env = setenv(c.env, "LOGNAME", u.Username)
	}
	return c, nil
}

func lookupUser(name string) (*user.User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if byID, iderr := user.LookupId(name); iderr == nil {
			return byID, nil
		}
	}
	return u, err
}

func newAccount(u *user.User) (*account, error) {
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("find groups of user %s: %w", u.Username, err)
	}
	a := &account{}
	if a.uid, err = strconv.Atoi(u.Uid); err != nil {
		return nil, fmt.Errorf("read uid of user %s: %w", u.Username, err)
	}
	if a.gid, err = strconv.Atoi(u.Gid); err != nil {
		return nil, fmt.Errorf("read gid of user %s: %w", u.Username, err)
	}
	for _, id := range ids {
		g, err := strconv.Atoi(id)
		if err != nil {
			return nil, fmt.Errorf("read groups of user %s: %w", u.Username, err)
		}
		a.groups = append(a.groups, g)
	}
	return a, nil
}

func setenv(env []string, key, value string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(s string) bool { return strings.HasPrefix(s, key+"=") })
	return append(env, key+"="+value)
}

// Process is a command that waits to be let go, and then runs.
type Process struct {
	PID  int // in our own pid namespace
	gate *os.File
}

// Start creates the held process. It must be called before anything raises our own limits or drops
// our capabilities, because the command inherits what we have now.
func (c *Command) Start() (*Process, error) { return c.start(nil) }

// StartIntercepted is Start for a command whose program loads wait for an answer: see
// interpose.Start. Without that they fail. An error of interpose.Accept means that it cannot be
// done here; nothing was started then.
func (c *Command) StartIntercepted() (*Process, *interpose.Listener, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "listener")
	p, err := c.start(theirs)
	theirs.Close()
	defer unix.Close(pair[0])
	if err != nil {
		return nil, nil, err
	}
	l, err := interpose.Accept(pair[0])
	if err != nil {
		p.Abandon()
		return nil, nil, err
	}
	return p, l, nil
}

func (c *Command) start(socket *os.File) (*Process, error) {
	r, w, err := os.Pipe() // both close on exec; the held process gets a copy of r as descriptor 3
	if err != nil {
		return nil, err
	}
	defer r.Close()
	args := []string{Argv0, "-", "-"}
	files := []uintptr{0, 1, 2, r.Fd()}
	if socket != nil {
		args[2] = "intercept"
		files = append(files, socket.Fd())
	}
	if c.as != nil {
		ids := []string{strconv.Itoa(c.as.uid), strconv.Itoa(c.as.gid)}
		for _, g := range c.as.groups {
			ids = append(ids, strconv.Itoa(g))
		}
		args[1] = strings.Join(ids, ",")
	}
	args = append(append(args, c.path), c.args...)
	pid, err := syscall.ForkExec("/proc/self/exe", args, &syscall.ProcAttr{
		Env:   c.env,
		Files: files,
	})
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("start %s: %w", c.path, err)
	}
	return &Process{pid, w}, nil
}

// Release lets the command start.
func (p *Process) Release() error {
	_, err := p.gate.Write([]byte{1})
	return errors.Join(err, p.gate.Close())
}

// Abandon ends a held process without starting the command.
func (p *Process) Abandon() {
	p.gate.Close()
	_, _ = p.reap()
}

// hold is the held process: it waits at the gate, becomes the user, and then the command.
func hold(args []string) int {
	if len(args) < 4 {
		return unwatched
	}
	unix.CloseOnExec(gate)
	if args[1] == "intercept" {
		// The filter is this thread's, and it is this thread that becomes the command.
		runtime.LockOSThread()
		interpose.Offer(listener)
		unix.Close(listener)
	}
	for {
		var b [1]byte
		n, err := syscall.Read(gate, b[:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return unwatched // nobody watches any more, and somebody else has said why
		}
		break
	}
	fail := func(what string, err error) int {
		fmt.Fprintf(os.Stderr, "bpfwhy: %s: %v\n", what, err)
		if errors.Is(err, os.ErrNotExist) {
			return notFound
		}
		return notExecutable
	}
	if args[0] != "-" {
		if err := become(args[0]); err != nil {
			return fail("become user", rights.RunUser.Explain(err))
		}
	}
	err := syscall.Exec(args[2], args[3:], os.Environ())
	return fail("run "+args[2], err)
}

// become takes "uid,gid,group,group…". Leaving uid 0 clears all effective and permitted
// capabilities.
func become(ids string) error {
	var n []int
	for s := range strings.SplitSeq(ids, ",") {
		i, err := strconv.Atoi(s)
		if err != nil {
			return err
		}
		n = append(n, i)
	}
	if len(n) < 2 {
		return errors.New("no such user")
	}
	if err := syscall.Setgroups(n[2:]); err != nil {
		return fmt.Errorf("set groups: %w", err)
	}
	if err := syscall.Setresgid(n[1], n[1], n[1]); err != nil {
		return fmt.Errorf("set gid: %w", err)
	}
	if err := syscall.Setresuid(n[0], n[0], n[0]); err != nil {
		return fmt.Errorf("set uid: %w", err)
	}
	return nil
}
