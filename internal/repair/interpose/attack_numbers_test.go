// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// Numbers of processes and threads are used again and again: nobody gets another's program.
func TestInGuestAttackNumbers(t *testing.T) {
	vmtest.Guest(t)
	hardened(t)
	t.Run("outcome", testNumberOfOutcome)
	t.Run("memory", testNumberOfMemory)
	t.Run("many", testFewNumbers)
}

// A process loads and is killed. What was made for it waits for it to come back, and then another
// process has its number, and loads as well.
func testNumberOfOutcome(t *testing.T) {
	try := func(t *testing.T, numbers bool) (v victim) {
		meet(t)
		s := renewing(t, "outcome", guards{numbers: numbers, before: at(loading, func() {
			qt.Check(t, qt.IsNil(errors.Join(say("now"), hear("gone"))))
		})})
		eventually(t, "an outcome that waits", func() bool {
			s.proxy.mu.Lock()
			defer s.proxy.mu.Unlock()
			for _, j := range s.proxy.jobs {
				return j.done
			}
			return false
		})
		qt.Check(t, qt.IsNil(say("kept")))
		qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(s.wait(t)), &v)))
		qt.Check(t, qt.IsTrue(v.JITed))
		return v
	}
	qt.Check(t, qt.Equals(try(t, true).Ran, ofFirst), qt.Commentf("the guard is not needed"))
	qt.Check(t, qt.Equals(try(t, false).Ran, ofSecond))
}

// A process is killed before its memory is opened, and then another process has its number, which
// does not load. Its memory is not taken for that of the load, whose log would be written to it.
func testNumberOfMemory(t *testing.T) {
	try := func(t *testing.T, numbers bool) string {
		meet(t)
		opened := make(chan struct{})
		s := renewing(t, "memory", guards{numbers: numbers, before: at(opening, func() {
			qt.Check(t, qt.IsNil(errors.Join(say("now"), hear("done"))))
			close(opened)
		})})
		<-opened
		// All slots are free then, but for the one of who receives.
		eventually(t, "the end of the load", func() bool { return len(s.proxy.slots.free) == maxWaiting-1 })
		qt.Check(t, qt.IsNil(say("answered")))
		return s.wait(t)
	}
	qt.Check(t, qt.Equals(try(t, true), "written true\n"), qt.Commentf("the guard is not needed"))
	qt.Check(t, qt.Equals(try(t, false), "written false\n"))
}

// renewing is renew under a proxy for which a signal cancels a notification.
func renewing(t *testing.T, what string, without guards) *subject {
	s, err := beginWith(Options{without: without}, false, "/proc/self/exe", []string{loaderArgv0, "attack", "renew", what}, nil)
	qt.Assert(t, qt.IsNil(err))
	return s
}

// renew starts a process that loads, kills it when it is told to, and starts another that has its
// number.
func renew(args []string) error {
	first := exec.Command("/proc/self/exe")
	first.Args = []string{loaderArgv0, "attack", "number", args[0], "first"}
	first.Stderr = os.Stderr
	if err := first.Start(); err != nil {
		return err
	}
	err := hear("now")
	_ = first.Process.Kill()
	_ = first.Wait()
	if err != nil {
		return err
	}
	pid := first.Process.Pid
	if err := startWithNumber(pid, loaderArgv0, "attack", "number", args[0], "second"); err != nil {
		return err
	}
	if err := say("gone"); err != nil {
		return err
	}
	var ended unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &ended, 0, nil); err != unix.EINTR {
			break
		}
	}
	if !ended.Exited() || ended.ExitStatus() != 0 {
		return fmt.Errorf("the second process ended with %#x", ended)
	}
	return nil
}

// startWithNumber executes this binary in a process whose number is chosen.
func startWithNumber(pid int, argv ...string) error {
	path, err := syscall.BytePtrFromString("/proc/self/exe")
	if err != nil {
		return err
	}
	args, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return err
	}
	environ, err := syscall.SlicePtrFromStrings(os.Environ())
	if err != nil {
		return err
	}
	number := int32(pid)
	// struct clone_args up to set_tid_size
	clone := [10]uint64{4: uint64(unix.SIGCHLD), 8: uint64(uintptr(unsafe.Pointer(&number))), 9: 1}
	got, errno := cloneAndExec(&clone, path, &args[0], &environ[0])
	runtime.KeepAlive(&number)
	if errno != 0 {
		return fmt.Errorf("start a process with the number %d: %w", pid, errno)
	}
	if int(got) != pid {
		return fmt.Errorf("the process has the number %d, not %d", got, pid)
	}
	return nil
}

// cloneAndExec returns in the parent alone. No call in the child may need the scheduler, grow the
// stack or allocate.
//
//go:nosplit
//go:norace
//go:noinline
func cloneAndExec(clone *[10]uint64, path *byte, argv, environ **byte) (uintptr, unix.Errno) {
	pid, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(clone)), unsafe.Sizeof(*clone), 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(argv)), uintptr(unsafe.Pointer(environ)))
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 99, 0, 0)
	}
}

// What the programs of the two processes return.
const (
	ofFirst  = 8
	ofSecond = 7
)

// ofNumber is one of the processes that have a number one after the other.
func ofNumber(args []string) error {
	what, first := args[0], args[1] == "first"
	switch {
	case what == "memory":
		return withMemory(first)
	case first:
		l := request{name: "first", code: stretched(ofFirst)}.load()
		return fmt.Errorf("the first process was not killed (errno %d)", l.Errno)
	}
	if err := hear("kept"); err != nil {
		return err
	}
	l := request{name: "second", code: stretched(ofSecond)}.load()
	if err := l.ask(-1); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(victim{Errno: l.Errno, JITed: l.JITed, Ran: l.Ran[0]})
}

// withMemory has all that a load is made of, at an address that does not depend on the process, and
// loads if it is the first one.
func withMemory(first bool) error {
	const licenseAt, codeAt, logOffset = 512, pageSize, 1 << 19
	m, err := mapLog(logOffset + logSize)
	if err != nil {
		return err
	}
	code := insn.Encode(stretched(ofFirst))
	copy(m[:licenseAt], abi.Bytes(&attr{
		ProgType: 1, InsnCnt: uint32(len(code) / insn.Size), Insns: logAt + codeAt, License: logAt + licenseAt,
		LogLevel: 4, LogSize: logSize, LogBuf: logAt + logOffset,
	}))
	copy(m[licenseAt:codeAt], "GPL\x00")
	copy(m[codeAt:logOffset], code)
	if !first {
		return written(m[logOffset:])
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, logAt, uintptr(trueSizeAt+4))
	return fmt.Errorf("the first process was not killed: %w", errno)
}

// There are few numbers, and many processes and threads that load, or just use them up.
func testFewNumbers(t *testing.T) {
	n := 12
	if vmtest.Long() {
		n = 100
	}
	qt.Check(t, qt.IsTrue(sysctlFor(t, "/proc/sys/kernel/pid_max", "400")))
	out, proxy := attack(t, Options{}, "unique", strconv.Itoa(n))
	var got map[string]int
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(out), &got)), qt.Commentf("%q", out))
	t.Log(got)
	qt.Check(t, qt.Equals(got["right"]+got["left"], n))
	// Where no number is free for the process that loads, a load may be left to the kernel, and is
	// told.
	qt.Check(t, qt.IsTrue(got["left"] <= n/20), qt.Commentf("%v", got))
	qt.Check(t, qt.Equals(proxy.Unrepaired() != Unrepaired{}, got["left"] > 0))
}

// unique starts processes that load a program of their own each, check that it is theirs, and end,
// so that the few ids that there are are used over and over.
func unique(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if len(args) > 1 { // one of them
		l := request{name: "unique", code: stretched(int32(n))}.load()
		switch {
		case l.Errno == abi.ENOTSUPP:
			fmt.Print("left")
			return nil
		case l.Errno != 0:
			return unix.Errno(l.Errno)
		}
		if err := l.ask(-1); err != nil {
			return err
		}
		switch {
		case l.Ran[0] != uint32(n):
			return fmt.Errorf("program %d gives %d", n, l.Ran[0])
		case !l.JITed:
			fmt.Print("left")
		default:
			fmt.Print("right")
		}
		return nil
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	count := map[string]int{}
	for i := range 4 {
		wg.Go(func() {
			for k := range n / 4 {
				cmd := exec.Command("/proc/self/exe")
				cmd.Args = []string{loaderArgv0, "attack", "unique", strconv.Itoa(1000*i + k + 1), "one"}
				out, err := cmd.CombinedOutput()
				if err != nil {
					fmt.Fprintf(os.Stderr, "%v: %s\n", err, out)
					continue
				}
				mu.Lock()
				count[string(out)]++
				mu.Unlock()
			}
		})
	}
	// Others use up the ids in between.
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = exec.Command("/no/such").Run()
				done := make(chan struct{})
				go func() { runtime.LockOSThread(); close(done) }() // a thread of its own, which ends
				<-done
			}
		}
	}()
	wg.Wait()
	close(stop)
	return json.NewEncoder(os.Stdout).Encode(count)
}
