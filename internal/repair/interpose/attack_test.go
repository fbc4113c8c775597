// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/repair/surrogate"
	"github.com/bpfwhy/bpfwhy/internal/sys/privilege"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
)

// A command under a proxy attacks it. Each attack is shown twice: that it succeeds where one guard
// is left out, and that it does not with all of them. Attacks run in the lab's kernels only.

func TestAttackKernels(t *testing.T) {
	limit, memory := 10*time.Minute, 0
	if vmtest.Long() {
		limit, memory = time.Hour, 2<<10
	}
	vmtest.RunIn(t, vmtest.Oldest(), "^TestInGuestAttack|^TestInGuestBurst", vm.Machine{Timeout: limit, CPUs: 2, MemoryMiB: memory, Sysctls: map[string]string{
		"vm.unprivileged_userfaultfd": "1",
	}})
}

// stretched is far with a result of its own.
func stretched(result int32) []insn.Instruction {
	p := far(-1, farBody)
	p[len(p)-2].Imm = result
	return p
}

// slow has the verifier work out bounds for nearly every slot, so that there is time to look at who
// loads.
func slow(p []insn.Instruction) []insn.Instruction {
	for i, in := range p {
		if in.Code == 0xbf && in.Dst == 9 {
			p[i] = insn.Instruction{Code: 0x0f, Dst: 8, Src: 7}
		}
	}
	return p
}

// attacker is a command that attacks, or does something beside an attack. It ends with the process.
func attacker(args []string) error {
	switch what, rest := args[0], args[1:]; what {
	case "become": // uid, mode...: a process with CAP_BPF alone
		return becomeLoader(rest)
	case "peek":
		return peek()
	case "peek-proxy":
		return peekProxy()
	case "stop":
		return stopAll()
	case "hang":
		return hang(rest)
	case "signal":
		return signalAll()
	case "limit":
		return limitAll()
	case "exec":
		return execInMidAnswer()
	case "look": // what execInMidAnswer becomes
		return lookAtLog()
	case "renew":
		return renew(rest)
	case "number":
		return ofNumber(rest)
	case "change":
		return changeProgram()
	case "beside":
		return beside(rest)
	case "one":
		start := time.Now()
		l := request{name: "one", code: stretched(7)}.load()
		if err := l.ask(-1); err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(victim{l.Errno, l.JITed, l.Ran[0], time.Since(start)})
	case "unique":
		return unique(rest)
	}
	return fmt.Errorf("no attack %q", args[0])
}

type victim struct {
	Errno int
	JITed bool
	Ran   uint32
	Took  time.Duration
}

// becomeLoader executes this binary anew with CAP_BPF alone, as a user.
func becomeLoader(args []string) error {
	uid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if uid == 0 {
		if err := privilege.Drop(unix.CAP_BPF); err != nil {
			return err
		}
		return run(append([]string{"attack"}, args[1:]...))
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{loaderArgv0, "attack"}, args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)},
		AmbientCaps: []uintptr{unix.CAP_BPF}, Pdeathsig: unix.SIGKILL,
	}
	return cmd.Run() // it ends with us
}

// server is the process that starts those that load: of all that have its name the one whose parent
// has not.
func server() (pid int, err error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range files {
		if isServer(name) {
			pid, _ := strconv.Atoi(strings.Split(name, "/")[2])
			if !isServer(fmt.Sprintf("/proc/%d/cmdline", parent(pid))) {
				return pid, nil
			}
		}
	}
	return 0, errors.Join(errors.New("nobody starts processes that load"), err)
}

func isServer(cmdline string) bool {
	b, _ := os.ReadFile(cmdline)
	return string(b) == surrogate.Argv0+"\x00"
}

func parent(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := bytes.Cut(b, []byte(") "))
	fields := strings.Fields(string(rest))
	if len(fields) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(fields[1])
	return n
}

// loaders are the processes that load now.
func loaders(server int) (pids []int) {
	// Each thread has its own, and the one that starts them need not be the first.
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", server))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		children, _ := numbers(string(b))
		pids = append(pids, children...)
	}
	if files != nil {
		return pids
	}
	files, _ = filepath.Glob("/proc/[0-9]*") // without CONFIG_PROC_CHILDREN, as on the lab's own kernel
	for _, dir := range files {
		if pid, _ := strconv.Atoi(filepath.Base(dir)); parent(pid) == server {
			pids = append(pids, pid)
		}
	}
	return pids
}

// findings are the attacks that succeeded, and how many processes were attacked.
type findings struct {
	victim
	Seen int
	Got  map[string]int
}

// userOf is the real user id of a process, -1 when it is gone.
func userOf(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, ids, _ := strings.Cut(string(b), "\nUid:")
	ids, _, _ = strings.Cut(ids, "\n")
	if n, err := numbers(ids); err == nil && len(n) > 0 {
		return n[0]
	}
	return -1
}

// peek loads, and looks at what loads meanwhile.
func peek() error {
	f := findings{Got: map[string]int{}}
	server, err := server()
	if err != nil {
		return err
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		l := request{name: "peek", code: slow(stretched(7))}.load()
		_ = l.ask(-1)
		done <- l
	}()
	seen := map[int]int{}
	for {
		select {
		case l := <-done:
			f.Seen = len(seen)
			f.victim = victim{Errno: l.Errno, JITed: l.JITed, Ran: l.Ran[0]}
			return json.NewEncoder(os.Stdout).Encode(f)
		default:
		}
		time.Sleep(time.Millisecond)
		for _, pid := range loaders(server) {
			if uid := userOf(pid); uid != os.Getuid() {
				continue // it has not taken the ids yet, or it is gone
			}
			seen[pid]++
			for _, what := range invade(pid, memoryOfLoad, seen[pid] == 5) {
				f.Got[what]++
			}
		}
	}
}

// peekProxy looks at the proxy, which is another process of this binary: its variables are where
// ours are.
func peekProxy() error {
	f := findings{Got: map[string]int{}}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range files {
		b, _ := os.ReadFile(name)
		if what, _, _ := bytes.Cut(b, []byte{0}); string(what) == supervisorArgv0 {
			pid, _ := strconv.Atoi(strings.Split(name, "/")[2])
			f.Seen++
			for _, what := range invade(pid, uintptr(unsafe.Pointer(&small)), true) {
				f.Got[what]++
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(f)
}

const memoryOfLoad = 1 << 36

// invade tries to get at a process, and at some memory of it, and says in which ways it could.
func invade(pid int, address uintptr, trace bool) (got []string) {
	dir := "/proc/" + strconv.Itoa(pid)
	fds := []int{0, 1, 2, surrogate.Object(-2), surrogate.Object(-1), surrogate.Object(0)}
	if m, err := openMemoryOf(pid); err == nil {
		if _, err := m.read(uint64(address), 8); err == nil {
			got = append(got, "mem")
		}
		m.close()
	}
	b := make([]byte, 8)
	local := []unix.Iovec{{Base: &b[0], Len: 8}}
	remote := []unix.RemoteIovec{{Base: address, Len: 8}}
	if n, err := unix.ProcessVMReadv(pid, local, remote, 0); err == nil && n == 8 {
		got = append(got, "process_vm_readv")
		if n, err := unix.ProcessVMWritev(pid, local, remote, 0); err == nil && n == 8 {
			got = append(got, "process_vm_writev")
		}
	}
	for _, fd := range fds {
		if _, err := os.Readlink(dir + "/fd/" + strconv.Itoa(fd)); err == nil {
			got = append(got, "fd")
			break
		}
	}
	// A process that is ending has no memory any more, and then everybody may read that of it.
	if _, err := os.ReadFile(dir + "/environ"); err == nil && hasMemory(pid) {
		got = append(got, "environ")
	}
	if pidfd, err := unix.PidfdOpen(pid, 0); err == nil {
		for _, fd := range fds {
			if stolen, err := unix.PidfdGetfd(pidfd, fd, 0); err == nil {
				unix.Close(stolen)
				got = append(got, "pidfd_getfd")
				break
			}
		}
		unix.Close(pidfd)
	}
	if !trace {
		return got
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const seize = 0x4206
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, seize, uintptr(pid), 0, 0, 0, 0); errno == 0 {
		got = append(got, "ptrace")
		_, _, _ = unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_INTERRUPT, uintptr(pid), 0, 0, 0, 0)
		var ws unix.WaitStatus
		_, _ = unix.Wait4(pid, &ws, unix.WALL, nil)
		_ = unix.PtraceDetach(pid)
	}
	return got
}

func hasMemory(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	return err == nil && !bytes.HasPrefix(b, []byte("0 "))
}

// keepLoading loads in threads over and over, for ever.
func keepLoading(threads int) {
	for i := range threads {
		go func() {
			runtime.LockOSThread()
			for n := 0; ; n++ {
				l := request{name: "attack", code: stretched(int32(1000*i + n))}.load()
				if l.Errno == 0 {
					unix.Close(l.FD)
				}
			}
		}()
	}
}

// stopAll stops whatever loads, as soon as it is seen.
func stopAll() error {
	server, err := server()
	if err != nil {
		return err
	}
	keepLoading(4)
	stopped, said := map[int]bool{}, false
	for {
		for _, pid := range loaders(server) {
			if unix.Kill(pid, unix.SIGSTOP) == nil {
				stopped[pid] = true
			}
		}
		if !said && len(stopped) >= max(2, runtime.NumCPU()) { // all that may be at work
			fmt.Println("ready")
			said = true
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// signalAll reports what could be signalled of all that the proxy depends on.
func signalAll() error {
	_, _ = io.ReadAll(os.Stdin) // until all is ready
	f := findings{Got: map[string]int{}}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range files {
		b, _ := os.ReadFile(name)
		what, _, _ := bytes.Cut(b, []byte{0})
		prefix := ""
		switch string(what) {
		case Argv0, surrogate.Argv0:
		case supervisorArgv0:
			prefix = "proxy "
		default:
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(name, "/")[2])
		if isServer(fmt.Sprintf("/proc/%d/cmdline", parent(pid))) {
			continue // it loads
		}
		f.Seen++
		if unix.Kill(pid, 0) == nil {
			f.Got[prefix+"kill"]++
		}
		for _, resource := range []int{unix.RLIMIT_CPU, unix.RLIMIT_NOFILE} {
			var old unix.Rlimit
			if unix.Prlimit(pid, resource, nil, &old) == nil {
				f.Got[prefix+"prlimit"]++
			}
		}
		if prefix == "" && unix.Setpriority(unix.PRIO_PROCESS, pid, 19) == nil {
			f.Got["setpriority"]++
		}
		if prefix != "" {
			continue // bpfwhy itself can be reached so: TestInGuestStillProxy
		}
		for _, signal := range []syscall.Signal{unix.SIGSTOP, unix.SIGKILL} {
			if vmtest.SIGIO(pid, signal) == nil && vmtest.Struck(pid, time.Second) == nil {
				f.Got["SIGIO "+unix.SignalName(signal)]++
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(f)
}

// limitAll takes from whatever loads, and from who starts that, what they need.
func limitAll() error {
	keepLoading(2)
	said, starter := false, 0
	for {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", starter)); err != nil || starter == 0 {
			if starter, err = server(); err != nil {
				continue
			}
		}
		for _, pid := range append(loaders(starter), starter) {
			for _, resource := range []int{unix.RLIMIT_AS, unix.RLIMIT_NOFILE, unix.RLIMIT_MEMLOCK, unix.RLIMIT_FSIZE, unix.RLIMIT_CPU} {
				if unix.Prlimit(pid, resource, &unix.Rlimit{}, nil) == nil && !said {
					fmt.Println("ready")
					said = true
				}
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// missingPage is a page of our own that does not come until come is called. A process must not end
// before: the kernel may then read the page for others in a loop without end, and so keep the
// process from ending (seen on 6.1: two threads in __get_user_pages, which does not let the memory
// go that userfaultfd_release waits for).
func missingPage() (page uintptr, come func(), err error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno != 0 {
		return 0, nil, fmt.Errorf("userfaultfd: %w", errno)
	}
	ioctl := func(request uintptr, arg unsafe.Pointer) error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(arg)); errno != 0 {
			return fmt.Errorf("userfaultfd: %w", errno)
		}
		return nil
	}
	api := struct{ api, features, ioctls uint64 }{api: 0xaa}
	if err := ioctl(0xc018aa3f, unsafe.Pointer(&api)); err != nil {
		return 0, nil, err
	}
	m, err := unix.Mmap(-1, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, nil, err
	}
	address := uintptr(unsafe.Pointer(&m[0]))
	register := struct{ start, len, mode, ioctls uint64 }{uint64(address), pageSize, 1, 0}
	zero := struct{ start, len, mode, zeroed uint64 }{uint64(address), pageSize, 0, 0}
	come = func() { _ = ioctl(0xc020aa04, unsafe.Pointer(&zero)) }
	return address, come, ioctl(0xc020aa00, unsafe.Pointer(&register))
}

// hang makes many loads whose attributes, instructions or log are in a page that never comes. Of
// those with a log there is but one, since a log takes a whole load: the last thread of ours that
// may be stuck because of one user is stuck with it.
func hang(args []string) error {
	where, threads := args[0], maxUserReaders+8 // more than those of ours that may be stuck because of one user
	if len(args) > 1 {
		var err error
		if threads, err = strconv.Atoi(args[1]); err != nil {
			return err
		}
	}
	if where == "log" {
		threads = maxUserReaders
	}
	var started atomic.Int32
	for i := range threads {
		page, come, err := missingPage()
		if err != nil {
			return err
		}
		defer come()
		go func() {
			runtime.LockOSThread()
			r := request{name: "hang", code: stretched(7)}
			started.Add(1)
			switch {
			case where == "attributes", where == "log" && i > 0:
				_, _, _ = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, page, 144)
				return
			case where == "instructions":
				r.change = func(a *attr) { a.Insns = uint64(page) }
			default:
				r.change = func(a *attr) {
					a.LogLevel = 4
					a.LogSize = 4096
					a.LogBuf = uint64(page)
				}
			}
			r.load()
		}()
	}
	if where == "log" {
		if err := hear("hanging"); err != nil {
			return err
		}
	}
	// All of them wait when nobody else runs.
	for range 500 {
		time.Sleep(10 * time.Millisecond)
		n := 0
		files, _ := filepath.Glob("/proc/self/task/*/status")
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte("State:\tR")) {
				if n++; n > 1 {
					break
				}
			}
		}
		if n <= 1 && int(started.Load()) == threads {
			break
		}
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// beside runs a loader beside an attacker that is at work: uid of the attacker, attack, then for
// how long the loader is waited for. It prints what that said, or "nothing".
func beside(args []string) error {
	uid, attack, patience := args[0], args[1], args[2]
	limit, err := time.ParseDuration(patience)
	if err != nil {
		return err
	}
	stdin, ends, err := os.Pipe() // the attacker lets go when it ends
	if err != nil {
		return err
	}
	defer stdin.Close()
	start := func(args ...string) (*exec.Cmd, *bufio.Reader, error) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = append([]string{loaderArgv0, "attack", "become"}, args...)
		cmd.Stdin, cmd.Stderr = stdin, os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, nil, err
		}
		return cmd, bufio.NewReader(out), cmd.Start()
	}
	bad, out, err := start(append([]string{uid}, strings.Fields(attack)...)...)
	if err != nil {
		return err
	}
	defer func() {
		ends.Close()
		if strings.HasPrefix(attack, "hang") {
			kill := time.AfterFunc(time.Minute, func() { bad.Process.Kill() })
			defer kill.Stop()
		} else {
			bad.Process.Kill()
		}
		_ = bad.Wait()
	}()
	if line, err := out.ReadString('\n'); err != nil || line != "ready\n" {
		return fmt.Errorf("the attacker said %q, %v", line, err)
	}
	good, out, err := start("1001", "one")
	if err != nil {
		return err
	}
	timer := time.AfterFunc(limit, func() { good.Process.Kill() })
	b, err := io.ReadAll(out)
	if !timer.Stop() {
		_ = good.Wait()
		fmt.Println("nothing")
		return nil
	}
	if err := errors.Join(err, good.Wait()); err != nil {
		return err
	}
	_, err = os.Stdout.Write(b)
	return err
}

// rendezvous is the variable that names the folder in which the proxy's test and the attacker tell
// each other how far they are.
const rendezvous = "BPFWHY_TEST_RENDEZVOUS"

// meet makes a folder for a command that is started next. Go's runtime sends it no signals, by
// which a call would start over before 5.19.
func meet(t *testing.T) {
	t.Helper()
	t.Setenv(rendezvous, t.TempDir())
	t.Setenv("GODEBUG", "asyncpreemptoff=1")
}

func say(what string) error {
	return os.WriteFile(filepath.Join(os.Getenv(rendezvous), what), nil, 0o600)
}

// hear waits until the other has said something.
func hear(what string) error {
	for until := time.Now().Add(2 * time.Minute); time.Now().Before(until); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Join(os.Getenv(rendezvous), what)); err == nil {
			return nil
		}
	}
	return fmt.Errorf("nobody said %q", what)
}

// logAt is where memory is in processes that do not know of each other.
const logAt = 1 << 40

func mapLog(size int) ([]byte, error) {
	at, _, errno := unix.Syscall6(unix.SYS_MMAP, logAt, uintptr(size), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, ^uintptr(0), 0)
	if errno != 0 || at != logAt {
		return nil, fmt.Errorf("map memory: %w", errno)
	}
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&at)), size), nil
}

const logSize = 1 << 16

// execInMidAnswer loads in the first thread, while another executes a program when it is told to,
// which has the first one's number then.
func execInMidAnswer() error {
	if unix.Gettid() != unix.Getpid() {
		return errors.New("not the first thread")
	}
	if _, err := mapLog(logSize); err != nil {
		return err
	}
	go func() {
		runtime.LockOSThread()
		err := hear("now")
		if err == nil {
			err = unix.Exec("/proc/self/exe", []string{loaderArgv0, "attack", "look"}, os.Environ())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}()
	l := request{name: "exec", code: stretched(7), change: func(a *attr) {
		a.LogLevel = 4
		a.LogSize = logSize
		a.LogBuf = logAt
	}}.load()
	return fmt.Errorf("the load ended before the exec (errno %d)", l.Errno)
}

// lookAtLog prints whether somebody writes to memory that nobody here knows of.
func lookAtLog() error {
	m, err := mapLog(logSize)
	if err != nil {
		return err
	}
	return written(m)
}

// written prints whether somebody writes to memory before there is an answer.
func written(m []byte) error {
	if err := errors.Join(say("done"), hear("answered")); err != nil {
		return err
	}
	fmt.Println("written", len(bytes.Trim(m, "\x00")) > 0)
	return nil
}

// attack runs an attack under a proxy with some guards left out.
func attack(t *testing.T, o Options, args ...string) (string, *Proxy) {
	t.Helper()
	start := time.Now()
	s, err := beginWith(o, true, "/proc/self/exe", append([]string{loaderArgv0, "attack"}, args...), nil)
	qt.Assert(t, qt.IsNil(err))
	if vmtest.Long() {
		s.patience = 20 * time.Minute
	}
	out := s.wait(t)
	t.Logf("%v: %v", args, time.Since(start).Round(time.Millisecond))
	return out, s.proxy
}

func sysctlFor(t *testing.T, name, value string) bool {
	t.Helper()
	old, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(name, []byte(value), 0)))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(os.WriteFile(name, old, 0))) })
	return true
}

const yama, suidDumpable = "/proc/sys/kernel/yama/ptrace_scope", "/proc/sys/fs/suid_dumpable"

func found(t *testing.T, out string) (f findings) {
	t.Helper()
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(out), &f)), qt.Commentf("%q", out))
	return f
}

// peekInto attacks what loads, with all guards, until the attacker has met it: it has the time of a
// load for that.
func peekInto(t *testing.T, uid string, meets bool) (f findings, proxy *Proxy) {
	t.Helper()
	for range 5 {
		var out string
		out, proxy = attack(t, Options{}, "become", uid, "peek")
		f = found(t, out)
		if f.Seen > 0 || !meets {
			break
		}
	}
	return f, proxy
}

// Memory, descriptors, ptrace: of the process that loads as the attacker's thread.
func TestInGuestAttackLoader(t *testing.T) {
	vmtest.Guest(t)
	hardened(t)
	ways := []string{"environ", "fd", "mem", "pidfd_getfd", "process_vm_readv", "process_vm_writev", "ptrace"}
	if sysctlFor(t, yama, "0") {
		t.Log("with Yama, which is told to allow")
	}
	for _, uid := range []string{"0", "1000"} {
		// The attacker has the time of a load, and not every way may get its turn in it.
		got := map[string]int{}
		shown := func(way string) bool { return got[way] > 0 }
		for tries := 0; tries < 5 && !all(ways, shown); tries++ {
			out, _ := attack(t, Options{without: guards{hidden: true}}, "become", uid, "peek")
			for way, n := range found(t, out).Got {
				got[way] += n
			}
		}
		qt.Check(t, qt.IsTrue(all(ways, shown)), qt.Commentf("uid %s: this does not show that the guard is needed for each of %v: %v", uid, ways, got))
		values := []string{"0", "1", "2"}
		if uid != "0" && !vmtest.Long() {
			values = values[2:]
		}
		for _, dumpable := range values {
			sysctlFor(t, suidDumpable, dumpable)
			f, proxy := peekInto(t, uid, dumpable != "1")
			t.Logf("uid %s, fs.suid_dumpable %s: %d attacked, %v", uid, dumpable, f.Seen, f.Got)
			qt.Check(t, qt.Equals(len(f.Got), 0))
			if dumpable == "1" {
				qt.Check(t, qt.Equals(f.Seen, 0))
				qt.Check(t, qt.IsFalse(f.JITed))
				qt.Check(t, qt.Equals(proxy.Unrepaired(), Unrepaired{Dumpable: 1}))
				continue
			}
			qt.Check(t, qt.IsTrue(f.Seen > 0))
			qt.Check(t, qt.IsTrue(f.JITed))
			qt.Check(t, qt.Equals(f.Ran, 7))
		}
	}
	if sysctlFor(t, yama, "1") {
		f, _ := peekInto(t, "0", true)
		qt.Check(t, qt.Equals(len(f.Got), 0))
		qt.Check(t, qt.IsTrue(f.Seen > 0 && f.JITed))
	}
}

func first(s string, _ *Proxy) string { return s }

func all[T any](list []T, is func(T) bool) bool {
	return !slices.ContainsFunc(list, func(v T) bool { return !is(v) })
}

// Nor of the proxy: not even where the attacker has its user id and all its capabilities, none of
// which is CAP_SYS_PTRACE.
func TestInGuestAttackProxy(t *testing.T) {
	vmtest.Guest(t)
	hardened(t)
	sysctlFor(t, yama, "0")
	all := map[string]int{"fd": 1, "mem": 1, "pidfd_getfd": 1, "process_vm_readv": 1, "process_vm_writev": 1, "ptrace": 1}
	for _, tt := range []struct {
		mode, dumpable string
		want           map[string]int
	}{
		{"shown", "0", all}, {"hidden", "0", map[string]int{}},
		{"hidden", "1", map[string]int{}}, // what helps takes ids that make memory so
	} {
		sysctlFor(t, suidDumpable, tt.dumpable)
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = []string{supervisorArgv0, tt.mode, "/proc/self/exe", loaderArgv0, "attack", "peek-proxy"}
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		qt.Assert(t, qt.IsNil(err))
		f := found(t, string(out))
		delete(f.Got, "environ") // which newer kernels show to CAP_PERFMON
		qt.Check(t, qt.Equals(f.Seen, 1))
		qt.Check(t, qt.DeepEquals(f.Got, tt.want), qt.Commentf("%s, fs.suid_dumpable %s", tt.mode, tt.dumpable))
	}
}

// Signals and limits reach nothing but the process of one load.
func TestInGuestAttackSignals(t *testing.T) {
	vmtest.Guest(t)
	hardened(t)
	f := found(t, first(attack(t, Options{without: guards{apart: true}}, "become", "0", "signal")))
	qt.Check(t, qt.IsTrue(f.Seen == 2 && f.Got["kill"] == 2 && f.Got["prlimit"] == 4), qt.Commentf("%v", f))
	qt.Check(t, qt.IsTrue(f.Got["SIGIO SIGSTOP"] == 2 && f.Got["SIGIO SIGKILL"] == 2), qt.Commentf("%v", f))
	f = found(t, first(attack(t, Options{}, "become", "0", "signal")))
	qt.Check(t, qt.Equals(f.Seen, 2))
	qt.Check(t, qt.Equals(len(f.Got), 0), qt.Commentf("%v", f))

	// The proxy itself, which runs as the same user: one that did not take an id apart, and one
	// that did.
	for mode, want := range map[string]map[string]int{"killable": {"proxy kill": 1, "proxy prlimit": 2}, "apart": {}} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = []string{supervisorArgv0, mode, "/proc/self/exe", loaderArgv0, "attack", "become", "0", "signal"}
		in, err := cmd.StdinPipe()
		qt.Assert(t, qt.IsNil(err))
		pipe, err := cmd.StdoutPipe()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(cmd.Start()))
		out := bufio.NewReader(pipe)
		if mode == "apart" {
			line, err := out.ReadString('\n')
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(line, "apart\n"))
		}
		in.Close()
		b, err := io.ReadAll(out)
		qt.Assert(t, qt.IsNil(errors.Join(err, cmd.Wait())))
		f := found(t, string(b))
		qt.Check(t, qt.Equals(f.Seen, 3))
		qt.Check(t, qt.DeepEquals(f.Got, want), qt.Commentf(mode))
	}
}

// Whatever one user does to what loads for him, another's load is repaired meanwhile.
func TestInGuestAttackOthers(t *testing.T) {
	vmtest.Guest(t)
	hardened(t)
	for _, tt := range []struct {
		attack        string
		without, with guards
		returns       bool // the other's load, without the guards: it is left to the kernel then
		tries         int  // of an attack that is a race, and not won each time; otherwise 0
	}{
		{"stop", guards{deadline: true}, guards{}, true, 0},
		// Pages of userfaultfd stand for those of a file on a server that does not answer.
		// More of them than threads of ours that may be stuck at all.
		{"hang attributes 300", guards{aside: true, deadline: true, prompt: true}, guards{prompt: true}, false, 0},
		{"hang instructions", guards{shares: true, prompt: true}, guards{prompt: true}, true, 0},
		{"hang log", guards{shares: true, prompt: true}, guards{prompt: true}, true, 0},
		{"limit", guards{apart: true}, guards{}, true, 6},
	} {
		t.Run(tt.attack, func(t *testing.T) {
			try := func(without guards, patience time.Duration) (v victim, returned bool) {
				meet(t)
				without.before = at(writing, func() { qt.Check(t, qt.IsNil(say("hanging"))) })
				out, proxy := attack(t, Options{without: without}, "beside", "0", tt.attack, patience.String())
				if out == "nothing\n" {
					return v, false
				}
				qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(out), &v)), qt.Commentf("%q", out))
				t.Logf("the other's load: %+v; left: %v", v, proxy.Unrepaired())
				return v, true
			}
			v, returned := try(tt.with, 90*time.Second)
			qt.Assert(t, qt.IsTrue(returned))
			qt.Check(t, qt.Equals(v.Errno, 0))
			qt.Check(t, qt.IsTrue(v.JITed))
			qt.Check(t, qt.Equals(v.Ran, 7))
			patience := 90 * time.Second
			if !tt.returns {
				patience = max(3*time.Second, 4*v.Took)
			}
			v, returned = try(tt.without, patience)
			for n := 1; v.JITed && n < tt.tries; n++ { // what is limited was started anew meanwhile
				v, returned = try(tt.without, patience)
			}
			qt.Check(t, qt.Equals(returned, tt.returns), qt.Commentf("the guard is not needed"))
			qt.Check(t, qt.IsFalse(v.JITed), qt.Commentf("the guard is not needed"))
		})
	}
}

// The log of a load is not written into the program that another thread of the process executes
// meanwhile.
func TestInGuestAttackExec(t *testing.T) {
	vmtest.Guest(t)
	hardened(t)
	try := func(t *testing.T, binding bool) string {
		meet(t)
		out, _ := attack(t, Options{without: guards{binding: binding, before: at(writing, func() {
			qt.Check(t, qt.IsNil(errors.Join(say("now"), hear("done"))))
			time.AfterFunc(200*time.Millisecond, func() { _ = say("answered") })
		})}}, "exec")
		return out
	}
	qt.Check(t, qt.Equals(try(t, true), "written true\n"), qt.Commentf("the guard is not needed"))
	rounds := 3
	if vmtest.Long() {
		rounds = 20
	}
	for range rounds {
		qt.Check(t, qt.Equals(try(t, false), "written false\n"))
	}
}

// at is what happens before one step, the first time.
func at(when step, f func()) func(step) {
	f = sync.OnceFunc(f)
	return func(s step) {
		if s == when {
			f()
		}
	}
}

// Threads that all load the same program at once all get it, jited, and each one of its own. The
// time is told beside that of the same loads where nothing is hardened.
func TestInGuestBurst(t *testing.T) {
	vmtest.Guest(t)
	threads, parts := "24", 1
	if vmtest.Long() {
		threads, parts = "300", 12 // of 300 verifications at once 7.2 needs more than 6 GiB
	}
	n, _ := strconv.Atoi(threads)
	start := time.Now()
	for range parts {
		natively(t, "many", strconv.Itoa(n/parts), "1", "1")
	}
	t.Logf("%s threads: %v unhardened", threads, time.Since(start))
	hardened(t)
	start = time.Now()
	s, err := begin(os.Getenv(wire.KernelEnv) != "5.10", "/proc/self/exe", []string{loaderArgv0, "many", threads, "1", "1"}, nil)
	qt.Assert(t, qt.IsNil(err))
	s.patience = 20 * time.Minute
	out := s.wait(t)
	t.Logf("%s threads: %v repaired", threads, time.Since(start))
	var got struct {
		Errnos map[string]int
		JITed  int
	}
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(out), &got)))
	qt.Check(t, qt.DeepEquals(got.Errnos, map[string]int{"0": n}))
	qt.Check(t, qt.Equals(got.JITed, n))
	qt.Check(t, qt.Equals(s.proxy.Unrepaired(), Unrepaired{}))
	ids := map[int]bool{}
	for _, a := range s.repairs() {
		ids[a.Program.ID] = true
	}
	qt.Check(t, qt.Equals(len(ids), n))
}
