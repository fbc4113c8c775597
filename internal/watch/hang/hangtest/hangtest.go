// SPDX-License-Identifier: Apache-2.0

// Package hangtest makes loads that do not come back, for tests in guests: nothing is harmed by
// them, and they end with their process.
package hangtest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/abi"
)

// The names under which a test binary hangs, and confines a command.
const (
	loadArgv0    = "hang-load"
	confineArgv0 = "hang-confine"
)

// Main acts if the test binary was started by this package; otherwise it returns at once. It
// belongs into TestMain.
func Main() {
	var err error
	switch os.Args[0] {
	case loadArgv0:
		err = load(os.Args[1:])
	case confineArgv0:
		err = confine(os.Args[1:])
	default:
		return
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
	os.Exit(1)
}

// Load starts a process with a number of threads, each in a load whose instructions lie on a page
// that never comes. It returns the process when all have begun; it ends with the test, or by being
// killed.
func Load(t *testing.T, threads int) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{loadArgv0, strconv.Itoa(threads)}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%s: %q: %v", loadArgv0, line, err)
	}
	return cmd
}

// Confine returns a command of this test binary, under some name, every program load of which waits
// for a listener that never answers. Its other calls of bpf(2) pass, as they do where the JIT
// stands still.
func Confine(argv ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{confineArgv0}, argv...)
	return cmd
}

func load(args []string) error {
	threads, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	fd, err := missing(threads)
	if err != nil {
		return err
	}
	pages := fd.pages
	license := []byte("GPL\x00")
	var pin runtime.Pinner
	defer pin.Unpin() // or the first collection, which comes after two minutes, ends the process
	pin.Pin(&license[0])
	ended := make(chan error)
	for i := range threads {
		go func() {
			runtime.LockOSThread()
			attr := abi.ProgLoad{
				ProgType: abi.ProgTypeSocketFilter, InsnCnt: 2, Insns: uint64(uintptr(unsafe.Pointer(&pages[i*os.Getpagesize()]))),
				License: uint64(uintptr(unsafe.Pointer(&license[0]))), ProgName: abi.NameOf("hangs"),
			}
			_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
			ended <- fmt.Errorf("a load came back: %w", errno)
		}()
	}
	// Each page is asked for once.
	for range threads {
		var message [32]byte
		if _, err := unix.Read(fd.fd, message[:]); err != nil {
			return fmt.Errorf("read what is missing: %w", err)
		}
	}
	fmt.Println("all hang")
	return <-ended
}

type memory struct {
	fd    int
	pages []byte
}

// missing makes pages that nobody will provide (userfaultfd(2)).
func missing(pages int) (memory, error) {
	const (
		api, ioctlAPI, ioctlRegister = 0xaa, 0xc018aa3f, 0xc020aa00
		modeMissing                  = 1
	)
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		return memory{}, fmt.Errorf("userfaultfd: %w", errno)
	}
	hello := struct{ api, features, ioctls uint64 }{api: api}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, ioctlAPI, uintptr(unsafe.Pointer(&hello))); errno != 0 {
		return memory{}, fmt.Errorf("userfaultfd, UFFDIO_API: %w", errno)
	}
	mem, err := unix.Mmap(-1, 0, pages*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return memory{}, fmt.Errorf("map memory: %w", err)
	}
	register := struct{ start, size, mode, ioctls uint64 }{start: uint64(uintptr(unsafe.Pointer(&mem[0]))), size: uint64(len(mem)), mode: modeMissing}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, ioctlRegister, uintptr(unsafe.Pointer(&register))); errno != 0 {
		return memory{}, fmt.Errorf("userfaultfd, UFFDIO_REGISTER: %w", errno)
	}
	return memory{int(fd), mem}, nil
}

// confine becomes a command whose program loads are held for ever.
func confine(args []string) error {
	runtime.LockOSThread() // the filter is this thread's, and so is the exec
	const (
		setModeFilter, newListener = 1, 8
		retNotify, retAllow        = 0x7fc00000, 0x7fff0000
	)
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_BPF, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16}, // the command
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.BPF_PROG_LOAD, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: retNotify},
		{Code: unix.BPF_RET | unix.BPF_K, K: retAllow},
	}
	fprog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	listener, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, newListener, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return fmt.Errorf("install a filter: %w", errno)
	}
	// The command keeps the listener open, and knows nothing of it.
	if _, err := unix.FcntlInt(listener, unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("keep the listener: %w", err)
	}
	return errors.Join(errors.New("become the command"), syscall.Exec("/proc/self/exe", args, os.Environ()))
}
