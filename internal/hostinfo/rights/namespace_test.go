// SPDX-License-Identifier: Apache-2.0

package rights_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/sysctl"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// reader is the process in another namespace: it is told what to give up or mount first, and prints
// what it reads.
func reader(what string) int {
	if err := prepare(what); err != nil {
		fmt.Println("prepare:", err)
		return 1
	}
	before, _ := os.Readlink("/proc/self/ns/net")
	for _, name := range names {
		v, err := sysctl.Read(name)
		fmt.Printf("%s %q %v\n", name, v, err)
	}
	// No thread stays where it was not.
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		if l, err := os.Readlink("/proc/self/task/" + t.Name() + "/ns/net"); err == nil && l != before {
			fmt.Printf("thread %s is in %s, not in %s\n", t.Name(), l, before)
		}
	}
	return 0
}

var names = []string{"net.core.bpf_jit_harden", "net.core.bpf_jit_enable", "net.core.bpf_jit_limit", "net.core.bpf_jit_kallsyms"}

func prepare(what string) error {
	if what == "proc" { // as in a container: of its own pid namespace
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		return unix.Mount("proc", "/proc", "proc", 0, "")
	}
	if what == "" {
		return nil
	}
	drop, err := strconv.Atoi(what)
	if err != nil {
		return err
	}
	var data [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << drop
	data[0].Permitted &^= 1 << drop
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// elsewhere is what a process of other namespaces reads.
func elsewhere(t *testing.T, flags uintptr, what string) string {
	t.Helper()
	cmd := self("reader", what)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if flags&unix.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	return string(out)
}

// TestGuestFirstNamespace reads from other network namespaces the values of the first one, or says
// why not.
func TestGuestFirstNamespace(t *testing.T) {
	vmtest.Guest(t)
	values := elsewhere(t, 0, "")
	qt.Assert(t, qt.StringContains(values, "net.core.bpf_jit_harden \"2\" <nil>\nnet.core.bpf_jit_enable \"1\" <nil>\n"))
	qt.Check(t, qt.Equals(elsewhere(t, unix.CLONE_NEWNET, ""), values))
	// The machine's own /proc leads there from another pid namespace too.
	qt.Check(t, qt.Equals(elsewhere(t, unix.CLONE_NEWNET|unix.CLONE_NEWPID, ""), values))

	refused := func(flags uintptr, what, why string) {
		t.Helper()
		for line := range strings.Lines(elsewhere(t, flags, what)) {
			name, _, _ := strings.Cut(line, " ")
			qt.Check(t, qt.Equals(line, fmt.Sprintf("%s \"\" open %s: in another network namespace, and %s\n", name, "/proc/sys/"+strings.ReplaceAll(name, ".", "/"), why)))
		}
	}
	refused(unix.CLONE_NEWNET, strconv.Itoa(unix.CAP_SYS_ADMIN), "entering the initial one was refused: EPERM; give CAP_SYS_ADMIN, or hostNetwork")
	refused(unix.CLONE_NEWNET, strconv.Itoa(unix.CAP_SYS_PTRACE), "entering the initial one was refused: EACCES; give CAP_SYS_PTRACE, or hostNetwork")
	refused(unix.CLONE_NEWNET|unix.CLONE_NEWPID|unix.CLONE_NEWNS, "proc",
		"process 1 is that of another pid namespace, which does not lead to the initial one; give hostNetwork, or hostPID and CAP_SYS_ADMIN and CAP_SYS_PTRACE")
	refused(unix.CLONE_NEWNET|unix.CLONE_NEWUSER, "", "entering the initial one was refused: EACCES; give hostNetwork")

	// Where it can be opened, it can still not be read without the capability.
	qt.Check(t, qt.StringContains(elsewhere(t, 0, strconv.Itoa(unix.CAP_SYS_ADMIN)),
		`net.core.bpf_jit_harden "" read /proc/sys/net/core/bpf_jit_harden: operation not permitted: needs CAP_SYS_ADMIN`))
}

// TestGuestSetting: an open setting shows the value as it is, and what the kernel does not have is
// not there.
func TestGuestSetting(t *testing.T) {
	vmtest.Guest(t)
	s, err := sysctl.Open("net.core.bpf_jit_harden")
	qt.Assert(t, qt.IsNil(err))
	defer s.Close()
	const file = "/proc/sys/net/core/bpf_jit_harden"
	for _, want := range []int{1, 2} {
		qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(strconv.Itoa(want)), 0)))
		v, err := s.Int()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(v, want))
	}
	_, err = sysctl.Read("net.core.bpf_jit_nonsense")
	qt.Check(t, qt.IsTrue(errors.Is(err, fs.ErrNotExist)), qt.Commentf("%v", err))
	_, err = sysctl.Read("kernel.nonsense")
	qt.Check(t, qt.IsTrue(errors.Is(err, fs.ErrNotExist)), qt.Commentf("%v", err))
}
