// SPDX-License-Identifier: Apache-2.0

// Package sysctl reads settings of the kernel, net.core.bpf_jit_* among them, which exist in the
// first network namespace alone: from any other one a thread enters the first for the moment in
// which the file is opened.
//
// It never shows the value of a wrong namespace. The first one is taken from process 1, and only if
// that is the machine's and not that of a container; and where process 1 has left the first network
// namespace, the file is not there either.
package sysctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"golang.org/x/sys/unix"
)

// A Setting is open, to be read as often as one likes. Close it.
type Setting struct {
	name string
	fd   int
}

// Open opens a setting, such as net.core.bpf_jit_harden, for reading.
func Open(name string) (*Setting, error) {
	fd, err := open(name, unix.O_RDONLY)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path(name), Err: err}
	}
	return &Setting{name, fd}, nil
}

// OpenFile opens a setting with flags of open(2). What was opened stays that of the first network
// namespace, whoever reads or writes it.
func OpenFile(name string, flags int) (*os.File, error) {
	fd, err := open(name, flags)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path(name), Err: err}
	}
	return os.NewFile(uintptr(fd), path(name)), nil
}

// Read reads a setting once.
func Read(name string) (string, error) {
	s, err := Open(name)
	if err != nil {
		return "", err
	}
	defer s.Close()
	return s.Read()
}

// Read returns the value as it is now.
func (s *Setting) Read() (string, error) {
	var b [128]byte
	n, err := unix.Pread(s.fd, b[:], 0)
	if err != nil {
		return "", &fs.PathError{Op: "read", Path: path(s.name), Err: named(s.name, err)}
	}
	return strings.TrimSpace(string(b[:n])), nil
}

// Int is Read for a number.
func (s *Setting) Int() (int, error) {
	text, err := s.Read()
	if err != nil {
		return 0, err
	}
	v, err := strconv.Atoi(text)
	if err != nil {
		return 0, &fs.PathError{Op: "read", Path: path(s.name), Err: err}
	}
	return v, nil
}

// Close closes the setting.
func (s *Setting) Close() error { return unix.Close(s.fd) }

// A NamespaceError says why a setting of the first network namespace cannot be had from another
// one.
type NamespaceError struct{ Why string }

func (e *NamespaceError) Error() string { return "in another network namespace, and " + e.Why }

func path(name string) string { return "/proc/sys/" + strings.ReplaceAll(name, ".", "/") }

func open(name string, flags int) (int, error) {
	fd, err := openPath(name, flags)
	// Below net.core each namespace has its own settings; what is missing there belongs to no
	// namespace, and shows in the first one.
	if err != unix.ENOENT || !strings.HasPrefix(name, "net.core.") {
		return fd, named(name, err)
	}
	err = first(func() (err error) {
		fd, err = openPath(name, flags)
		return named(name, err)
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

func openPath(name string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path(name), flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// The capabilities that this package speaks of.
const (
	needsAdmin  = "CAP_SYS_ADMIN"
	needsPtrace = "CAP_SYS_PTRACE"
)

// named adds to a refusal what would have been needed: the settings of the JIT ask for more than
// their file's mode.
func named(name string, err error) error {
	if !strings.HasPrefix(name, "net.core.bpf_jit_") || err != unix.EPERM && err != unix.EACCES {
		return err
	}
	if err == unix.EACCES {
		return fmt.Errorf("%w: needs uid 0 or CAP_NET_ADMIN", err)
	}
	return fmt.Errorf("%w: needs %s", err, needsAdmin)
}

// first calls a function in a thread that is in the first network namespace.
func first(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		back, err := enter()
		if err == nil {
			err = do()
			if errors.Is(err, unix.ENOENT) {
				err = fmt.Errorf("%w, in the network namespace of process 1 neither", err)
			}
			err = errors.Join(err, back())
		}
		done <- err
	}()
	return <-done
}

// enter puts the calling thread, which is locked, into the first network namespace. back puts it
// where it was and unlocks it; a thread that cannot go back stays locked, and ends with its
// goroutine.
func enter() (back func() error, err error) {
	defer func() {
		if err != nil {
			runtime.UnlockOSThread()
		}
	}()
	own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &NamespaceError{fmt.Sprintf("this thread's own cannot be opened: %v", err)}
	}
	there, err := openFirst()
	if err == nil {
		err = refused(unix.Setns(there, unix.CLONE_NEWNET))
		unix.Close(there)
	}
	if err != nil {
		unix.Close(own)
		return nil, err
	}
	return func() error {
		defer unix.Close(own)
		if err := unix.Setns(own, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("leave the first network namespace: %w", err)
		}
		runtime.UnlockOSThread()
		return nil
	}, nil
}

// initialPID is what a process of the first pid namespace is linked to (PROC_PID_INIT_INO,
// include/linux/proc_ns.h).
const initialPID = "pid:[4026531836]"

// openFirst opens the network namespace of the machine's process 1.
func openFirst() (int, error) {
	dir, err := unix.Open("/proc/1", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &NamespaceError{fmt.Sprintf("process 1 cannot be looked at: %v", err)}
	}
	defer unix.Close(dir)
	var b [64]byte
	n, err := unix.Readlinkat(dir, "ns/pid", b[:])
	if n == 0 { // some kernels refuse so
		err = unix.EACCES
	}
	if err != nil {
		return -1, refused(err)
	}
	if string(b[:n]) != initialPID {
		return -1, &NamespaceError{"process 1 is that of another pid namespace, which does not lead to the initial one; give hostNetwork, or hostPID and " +
			needsAdmin + " and " + needsPtrace}
	}
	fd, err := unix.Openat(dir, "ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return fd, refused(err)
}

// refused says what would have let us in.
func refused(err error) error {
	if err == nil {
		return nil
	}
	why := fmt.Sprintf("entering the initial one was refused: %s", abi.ErrnoName(int(err.(unix.Errno))))
	if !initialPIDNamespace() {
		return &NamespaceError{why + "; give hostNetwork, or hostPID and " + needsAdmin + " and " + needsPtrace}
	}
	var missing []string
	var data [2]unix.CapUserData
	if unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]) == nil {
		for _, c := range []struct {
			bit  int
			name string
		}{{unix.CAP_SYS_ADMIN, needsAdmin}, {unix.CAP_SYS_PTRACE, needsPtrace}} {
			if data[0].Effective&(1<<c.bit) == 0 {
				missing = append(missing, c.name)
			}
		}
	}
	if missing == nil { // a user namespace, or a policy
		return &NamespaceError{why + "; give hostNetwork"}
	}
	return &NamespaceError{why + "; give " + strings.Join(missing, " and ") + ", or hostNetwork"}
}

func initialPIDNamespace() bool {
	l, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && l == initialPID
}
