// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/repair/surrogate"
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

// readIdentity reads that of a thread of ours or another's. The caller then makes sure that the
// thread still waits.
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
	if id.memlock, err = memlock(dir + "/limits"); err != nil {
		return id, err
	}
	id.exe, _ = os.Readlink(dir + "/exe")
	return id, nil
}

// memlock reads the soft limit of locked memory: not by prlimit(2), which needs CAP_SYS_RESOURCE.
func memlock(name string) (soft string, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if limit, ok := strings.CutPrefix(line, "Max locked memory"); ok {
			soft, _, _ = strings.Cut(strings.TrimSpace(limit), " ")
		}
	}
	return soft, nil
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

// label reads the context that a security module gave a task. Kernels without such a module say
// EINVAL, or have no file.
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

// as is who a load for the thread is made as, of ours no more than the thread has.
func (a *identity) as(ours uint64) surrogate.As {
	return surrogate.As{UID: [3]int(a.uid[:3]), GID: [3]int(a.gid[:3]), Groups: a.groups, Caps: a.caps & ours}
}

var errOtherUserNS = errors.New("another user namespace")

func (a *identity) capable(c int) bool { return abi.HasCap(a.caps, c) }

// like reports whether we can load as this thread and the kernel would judge us as it judges the
// thread. A thread that may not load such a program gets the kernel's own answer.
func (a *identity) like(we *identity, chargesMemlock bool) error {
	switch {
	case !a.capable(unix.CAP_BPF) && !a.capable(unix.CAP_SYS_ADMIN):
		return errors.New("may not load a program of this size")
	case a.userNS != we.userNS:
		return errOtherUserNS
	case a.label != we.label:
		return errors.New("another security context")
	case chargesMemlock && a.memlock != we.memlock:
		return errors.New("another limit of locked memory")
	case !we.capable(unix.CAP_KILL) && we.uid[1] != a.uid[0] && we.uid[1] != a.uid[2]:
		return errors.New("a process with these ids could not be killed")
	}
	return nil
}
