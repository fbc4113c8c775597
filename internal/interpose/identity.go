// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// identity is all that the kernel looks at to say what a thread may load.
type identity struct {
	tgid   int
	uid    [4]int // real, effective, saved, file system
	gid    [4]int
	groups []int
	caps   uint64 // effective
	userNS nsID
	label  string // of the security module, "" where there is none
	// memlock is the limit of locked memory, which programs count against before 5.11.
	memlock string
	comm    string
	exe     string
}

type nsID struct{ dev, ino uint64 }

func (a *identity) same(b *identity) bool {
	return a.tgid == b.tgid && a.uid == b.uid && a.gid == b.gid && a.caps == b.caps && a.userNS == b.userNS && a.label == b.label &&
		a.memlock == b.memlock && slices.Equal(a.groups, b.groups)
}

// readIdentity reads that of a thread of ours or another's. The caller then makes sure that the thread still waits.
func readIdentity(tid int) (identity, error) {
	var id identity
	dir := "/proc/" + strconv.Itoa(tid)
	b, err := os.ReadFile(dir + "/status")
	if err != nil {
		return id, err
	}
	seen := 0
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Name":
			id.comm = value
			continue
		case "Tgid":
			id.tgid, err = strconv.Atoi(value)
		case "Uid":
			err = four(value, &id.uid)
		case "Gid":
			err = four(value, &id.gid)
		case "Groups":
			id.groups, err = numbers(value)
		case "CapEff":
			id.caps, err = strconv.ParseUint(value, 16, 64)
		default:
			continue
		}
		if err != nil {
			return id, fmt.Errorf("read %s of thread %d: %w", key, tid, err)
		}
		seen++
	}
	if seen != 5 {
		return id, fmt.Errorf("read status of thread %d: it is incomplete", tid)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir+"/ns/user", &st); err != nil {
		return id, err
	}
	id.userNS = nsID{uint64(st.Dev), st.Ino}
	if id.label, err = label(dir + "/attr/current"); err != nil {
		return id, err
	}
	// Not by prlimit(2), which needs CAP_SYS_RESOURCE.
	if b, err = os.ReadFile(dir + "/limits"); err != nil {
		return id, err
	}
	for line := range strings.Lines(string(b)) {
		if limit, ok := strings.CutPrefix(line, "Max locked memory"); ok {
			id.memlock, _, _ = strings.Cut(strings.TrimSpace(limit), " ") // the soft limit
		}
	}
	id.exe, _ = os.Readlink(dir + "/exe")
	return id, nil
}

func four(s string, out *[4]int) error {
	n, err := numbers(s)
	if err == nil && len(n) != len(out) {
		err = errors.New("not four numbers")
	}
	copy(out[:], n)
	return err
}

func numbers(s string) ([]int, error) {
	var out []int
	for f := range strings.FieldsSeq(s) {
		n, err := strconv.Atoi(f)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// label reads the context that a security module gave a task. Kernels without such a module say EINVAL, or have no file.
func label(name string) (string, error) {
	b, err := os.ReadFile(name)
	switch {
	case err == nil:
		return string(bytes.TrimRight(b, "\x00\n")), nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, os.ErrNotExist):
		return "", nil
	}
	return "", err
}

func (a *identity) capable(c int) bool { return a.caps&(1<<c) != 0 }

// like reports whether we can load as this thread and the kernel would judge us as it judges the thread. Who may not load such a program
// anyway is left to the kernel.
func (a *identity) like(we *identity, chargesMemlock bool) error {
	switch {
	case !a.capable(unix.CAP_BPF) && !a.capable(unix.CAP_SYS_ADMIN):
		return errors.New("may not load a program of this size")
	case a.userNS != we.userNS:
		return errors.New("another user namespace")
	case a.label != we.label:
		return errors.New("another security context")
	case chargesMemlock && a.memlock != we.memlock:
		return errors.New("another limit of locked memory")
	}
	return nil
}

// as runs f on a thread of its own that is, to the kernel, the thread of the identity. The thread ends with f. No signal reaches it: one
// would make the verifier give up.
func (a *identity) as(f func()) error {
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread of a process cannot end before the others. It waits, and so the next goroutine gets another.
			defer runtime.UnlockOSThread()
			errc <- a.as(f)
			return
		}
		err := a.become()
		if err == nil {
			f()
		}
		errc <- err // still locked: the thread goes
	}()
	return <-errc
}

// become changes the calling thread, and no other.
func (a *identity) become() error {
	all := ^uint64(0)
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0); errno != 0 {
		return fmt.Errorf("block signals: %w", errno)
	}
	groups := make([]uint32, len(a.groups)+1)
	for i, g := range a.groups {
		groups[i] = uint32(g)
	}
	if ours, err := unix.Getgroups(); err != nil || !slices.Equal(ours, a.groups) {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(a.groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
			return fmt.Errorf("set groups: %w", errno)
		}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(a.gid[0]), uintptr(a.gid[1]), uintptr(a.gid[2])); errno != 0 {
		return fmt.Errorf("set gid: %w", errno)
	}
	// Else leaving uid 0 clears them all.
	if _, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("keep capabilities: %w", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(a.uid[0]), uintptr(a.uid[1]), uintptr(a.uid[2])); errno != 0 {
		return fmt.Errorf("set uid: %w", errno)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		half := uint32(a.caps >> (32 * i))
		data[i] = unix.CapUserData{Effective: half, Permitted: half}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0); errno != 0 {
		return fmt.Errorf("set capabilities: %w", errno)
	}
	runtime.KeepAlive(groups)
	return nil
}
