// SPDX-License-Identifier: Apache-2.0

package failing

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

const (
	capBPF = unix.CAP_BPF

	nobody = 65534
)

// keepCaps leaves this thread with these capabilities and no others.
func keepCaps(caps ...int) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for _, c := range caps {
		data[c/32].Effective |= 1 << (c % 32)
		data[c/32].Permitted |= 1 << (c % 32)
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// becomeNobody gives up root in all threads of the process.
func becomeNobody() error {
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("drop groups: %w", err)
	}
	if err := syscall.Setgid(nobody); err != nil {
		return fmt.Errorf("change group: %w", err)
	}
	if err := syscall.Setuid(nobody); err != nil {
		return fmt.Errorf("change user: %w", err)
	}
	return nil
}

func notAMap(name string) (Result, error) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		return Result{}, err
	}
	defer f.Close()
	return program{name: name, typ: abi.ProgTypeSocketFilter, logLevel: 1,
		insns: join(mapFD(1, int(f.Fd())), movK(0, 0), exit())}.load(), nil
}

// withoutFDs lowers RLIMIT_NOFILE to the first free descriptor.
func withoutFDs(name string) (Result, error) {
	fd, err := unix.Dup(0)
	if err != nil {
		return Result{}, fmt.Errorf("find a free descriptor: %w", err)
	}
	unix.Close(fd)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		return Result{}, fmt.Errorf("read RLIMIT_NOFILE: %w", err)
	}
	// prlimit and not os: the runtime would raise the limit again for children.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(fd), Max: old.Max}); err != nil {
		return Result{}, fmt.Errorf("lower RLIMIT_NOFILE: %w", err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	return program{name: name, typ: abi.ProgTypeSocketFilter, insns: small()}.load(), nil
}

// Return values of seccomp filters, and classic BPF opcodes.
const (
	retAllow = 0x7fff0000
	retErrno = 0x00050000

	cLdAbsW = 0x20
	cJEqK   = 0x15
	cRetK   = 0x06
	cLdImm  = 0x00
)

// Confine puts a policy on the calling thread, and on what it executes, under which some system
// calls fail with EPERM: that of a container runtime.
func Confine(syscalls ...uint32) error {
	filter := []unix.SockFilter{{Code: cLdAbsW, K: 0}} // seccomp_data.nr
	for _, nr := range syscalls {
		filter = append(filter, unix.SockFilter{Code: cJEqK, K: nr, Jf: 1}, unix.SockFilter{Code: cRetK, K: retErrno | uint32(unix.EPERM)})
	}
	return install(append(filter, unix.SockFilter{Code: cRetK, K: retAllow}))
}

// install puts a seccomp filter on this thread.
func install(filter []unix.SockFilter) error {
	_, err := installFlags(filter, 0)
	return err
}

func installFlags(filter []unix.SockFilter, flags uintptr) (int, error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, fmt.Errorf("set no_new_privs: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

func underSeccomp(name string) (Result, error) {
	if err := Confine(unix.SYS_BPF); err != nil {
		return Result{}, fmt.Errorf("install seccomp filter: %w", err)
	}
	return program{name: name, typ: abi.ProgTypeSocketFilter, insns: small()}.load(), nil
}

// interrupted makes a load that a listener holds, and executes another program meanwhile: the
// thread of the load ends, and so does the system call, with ERESTARTSYS, which nobody is told.
// What is executed tells it in its place.
func interrupted(name string) (Result, error) {
	filter := []unix.SockFilter{
		{Code: cLdAbsW, K: 0}, // seccomp_data.nr
		{Code: cJEqK, K: unix.SYS_BPF, Jf: 1}, {Code: cRetK, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: cRetK, K: retAllow},
	}
	listener, err := installFlags(filter, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	if err != nil {
		return Result{}, fmt.Errorf("install seccomp filter: %w", err)
	}
	failed := make(chan error)
	go func() {
		held := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		for {
			if _, err := unix.Poll(held, -1); err == nil {
				break
			}
		}
		failed <- syscall.Exec("/proc/self/exe", []string{Argv0, wasInterrupted, name}, os.Environ())
	}()
	go func() {
		fmt.Fprintln(os.Stderr, <-failed)
		os.Exit(1)
	}()
	return program{name: name, typ: abi.ProgTypeSocketFilter, insns: small()}.load(), nil
}

const wasInterrupted = "was-interrupted"

// inUserNamespace runs the load in a child that is root of a new user namespace.
func inUserNamespace(name string) (Result, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{Argv0, "in-user-namespace", name}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: nobody, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: nobody, Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := cmd.Output()
	if err != nil {
		return Result{}, fmt.Errorf("run in a user namespace: %w", err)
	}
	var res Result
	if err := json.Unmarshal(out, &res); err != nil {
		return res, fmt.Errorf("read the child's result: %w", err)
	}
	return res, nil
}

func withoutMemlock(name string) (Result, error) {
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 4096, Max: 4096}); err != nil {
		return Result{}, fmt.Errorf("lower RLIMIT_MEMLOCK: %w", err)
	}
	return program{name: name, typ: abi.ProgTypeSocketFilter, insns: longFilter(4000)}.load(), nil
}

// underLockdown makes a load that a locked-down kernel refuses. The machine has to be booted with
// lockdown=level: raising it at run time would last until the next boot, so nothing here does.
func underLockdown(level string) func(string) (Result, error) {
	return func(name string) (Result, error) {
		const file = "/sys/kernel/security/lockdown"
		now, err := os.ReadFile(file)
		if err != nil {
			return Result{}, fmt.Errorf("read lockdown: %w", err)
		}
		if !strings.Contains(string(now), "["+level+"]") {
			return Result{}, fmt.Errorf("%s says %q: boot with lockdown=%s", file, strings.TrimSpace(string(now)), level)
		}
		p := program{name: name, typ: abi.ProgTypeKprobe, logLevel: 1}
		if level == "integrity" {
			p.insns = []ins{movK(1, 0), {op: opStxDW, dst: 10, src: 1, off: -8},
				movX(2, 10), addK(2, -8), movK(3, 8), call(fnProbeWriteUser), movK(0, 0), exit()}
		} else {
			p.insns = []ins{movX(3, 1), movX(1, 10), addK(1, -8), movK(2, 8), call(fnProbeReadKernel), movK(0, 0), exit()}
		}
		return p.load(), nil
	}
}

// requireSysctl is an error unless the machine was given this value. Loads never change the
// machine themselves: run by mistake outside the lab, they refuse.
func requireSysctl(name, value string) error {
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return fmt.Errorf("read sysctl %s: %w", name, err)
	}
	if got := strings.TrimSpace(string(b)); got != value {
		return fmt.Errorf("sysctl %s is %s: needs a lab machine that was started with %s", name, got, value)
	}
	return nil
}

// asNobody runs f on a thread of its own that has given up root; the other threads keep it.
func asNobody(f func()) error {
	errc := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		if errno == 0 {
			_, _, errno = unix.RawSyscall(unix.SYS_SETRESGID, nobody, nobody, nobody)
		}
		if errno == 0 {
			_, _, errno = unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody)
		}
		if errno != 0 {
			errc <- fmt.Errorf("become nobody: %w", errno)
			return
		}
		f()
		errc <- nil
	}()
	return <-errc
}

// FillerProgram is the name of the programs that the jit-limit loads use memory up with.
const FillerProgram = "filler"

// JITLimit is the net.core.bpf_jit_limit of machines for the jit-limit loads, in bytes.
const JITLimit = "4096"

// useUpJIT leaves an ordinary user no memory for compiled programs: what is left of the current
// pack (from 5.18 small programs share 2 MiB that were charged once) is filled, with big programs
// first.
func useUpJIT() error {
	if err := requireSysctl("net.core.bpf_jit_limit", JITLimit); err != nil {
		return err
	}
	if err := requireSysctl("kernel.unprivileged_bpf_disabled", "0"); err != nil {
		return err
	}
	for _, size := range []int{4000, 500, 50} {
		full := false
		for range 500 {
			res, err := loadAsNobody(program{name: FillerProgram, typ: abi.ProgTypeSocketFilter, insns: longFilter(size)})
			if err != nil {
				return err
			}
			if res.Errno != 0 || res.JITed != nil && !*res.JITed {
				full = true
				break
			}
		}
		if !full {
			return fmt.Errorf("use up JIT memory: 500 programs of %d instructions were all compiled", size)
		}
	}
	return nil
}

// loadAsNobody also finds out, as root, whether the program was compiled: an ordinary user is not
// told.
func loadAsNobody(p program) (Result, error) {
	var res Result
	if err := asNobody(func() { res = p.load() }); err != nil {
		return res, err
	}
	res.ask()
	return res, nil
}

func overJITLimit(name string) (Result, error) {
	if err := useUpJIT(); err != nil {
		return Result{}, err
	}
	return loadAsNobody(program{name: name, typ: abi.ProgTypeSocketFilter, insns: longFilter(1000)})
}

// classicFilter allows everything, in n instructions.
func classicFilter(n int) []unix.SockFilter {
	filter := make([]unix.SockFilter, n)
	for i := range filter {
		filter[i] = unix.SockFilter{Code: cLdImm, K: uint32(i)}
	}
	filter[n-1] = unix.SockFilter{Code: cRetK, K: retAllow}
	return filter
}

func seccompOverJITLimit(string) (Result, error) {
	if err := useUpJIT(); err != nil {
		return Result{}, err
	}
	var failed error
	if err := asNobody(func() { failed = install(classicFilter(500)) }); err != nil {
		return Result{}, err
	}
	return newResult("seccomp filter", -1, failed, ""), nil
}

func socketOverJITLimit(string) (Result, error) {
	if err := useUpJIT(); err != nil {
		return Result{}, err
	}
	var failed error
	err := asNobody(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			failed = err
			return
		}
		defer unix.Close(fd)
		filter := classicFilter(500)
		failed = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	})
	if err != nil {
		return Result{}, err
	}
	return newResult("socket filter", -1, failed, ""), nil
}

func unprivilegedLong(name string) (Result, error) {
	if err := requireSysctl("kernel.unprivileged_bpf_disabled", "0"); err != nil {
		return Result{}, err
	}
	return loadAsNobody(program{name: name, typ: abi.ProgTypeSocketFilter, insns: longFilter(5000)})
}
