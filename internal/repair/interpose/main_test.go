// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/load"
)

// The names under which this test binary runs as something else.
const (
	heldArgv0       = "interpose-held"   // installs the filter, waits, executes
	loaderArgv0     = "interpose-loader" // see loader_test.go
	nestedArgv0     = "interpose-nested"
	supervisorArgv0 = "interpose-supervisor" // runs a command under a proxy, to be killed
)

func TestMain(m *testing.M) {
	Main()
	guardian.Main()
	failing.Main()
	switch os.Args[0] {
	case heldArgv0:
		os.Exit(held(os.Args[1], os.Args[2], os.Args[3:]))
	case loaderArgv0:
		os.Exit(loader(os.Args[1:]))
	case supervisorArgv0:
		os.Exit(supervisor(os.Args[1:]))
	case ciliumArgv0:
		os.Exit(ciliumLoader(os.Args[1:]))
	case nestedArgv0:
		_, err := begin(true, "/proc/self/exe", []string{loaderArgv0, "small"}, nil)
		fmt.Println(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// heldSocket is the descriptor over which a held process sends its listener and is let go.
const heldSocket = 3

func held(mode, path string, argv []string) int {
	runtime.LockOSThread()
	fd, killable, err := install(mode == "killable")
	offer(heldSocket, fd, killable, err)
	var b [1]byte
	if n, err := unix.Read(heldSocket, b[:]); err != nil || n != 1 {
		return 98
	}
	unix.Close(heldSocket)
	fmt.Fprintln(os.Stderr, "interpose-held:", unix.Exec(path, argv, os.Environ()))
	return 99
}

// subject is a command under a proxy.
type subject struct {
	cmd    *exec.Cmd
	proxy  *Proxy
	stdout bytes.Buffer
	stderr bytes.Buffer
	mu     sync.Mutex
	seen   []*load.Attempt

	patience time.Duration // two minutes if zero
}

// begin starts a held command and its proxy. argv[0] may differ from path.
func begin(killable bool, path string, argv []string, prepare func(*exec.Cmd)) (*subject, error) {
	return beginWith(Options{}, killable, path, argv, prepare)
}

func beginWith(o Options, killable bool, path string, argv []string, prepare func(*exec.Cmd)) (*subject, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	s := &subject{cmd: exec.Command("/proc/self/exe")}
	mode := "any"
	if killable {
		mode = "killable"
	}
	s.cmd.Args = append([]string{heldArgv0, mode, path}, argv...)
	s.cmd.ExtraFiles = []*os.File{theirs}
	s.cmd.Stdin = strings.NewReader("\n")
	s.cmd.Stdout, s.cmd.Stderr = &s.stdout, &s.stderr
	s.cmd.WaitDelay = 10 * time.Second
	if prepare != nil {
		prepare(s.cmd)
	}
	err = s.cmd.Start()
	theirs.Close()
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*subject, error) {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		return nil, err
	}
	l, err := Accept(pair[0])
	if err != nil {
		return fail(err)
	}
	o.Report = func(a *load.Attempt) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.seen = append(s.seen, a)
	}
	s.proxy, err = Start(l, s.cmd.Process.Pid, o)
	if err != nil {
		return fail(err)
	}
	if _, err := unix.Write(pair[0], []byte{1}); err != nil {
		return fail(err)
	}
	return s, nil
}

// wait returns what the command printed.
func (s *subject) wait(t testing.TB) string {
	t.Helper()
	timer := time.AfterFunc(cmp.Or(s.patience, 2*time.Minute), func() {
		t.Log("at the end of patience:\n" + whereabouts())
		s.cmd.Process.Kill()
	})
	err := s.cmd.Wait()
	if !timer.Stop() {
		t.Error("the command did not end: a load hangs")
	}
	s.proxy.Close()
	if err != nil {
		t.Errorf("%s: %v\n%s%s", s.cmd.Args, err, s.stdout.String(), s.stderr.String())
	}
	s.proxy.guardian.ended(t)
	if left := s.proxy.Unrepaired(); left != (Unrepaired{}) {
		t.Log("left to the kernel:", left)
	}
	return s.stdout.String()
}

// whereabouts says of each thread of user space what it waits for in the kernel.
func whereabouts() string {
	var b strings.Builder
	threads, _ := filepath.Glob("/proc/[0-9]*/task/*")
	for _, dir := range threads {
		command, _ := os.ReadFile(dir + "/cmdline")
		if len(command) == 0 {
			continue
		}
		stat, _ := os.ReadFile(dir + "/stat")
		stack, _ := os.ReadFile(dir + "/stack")
		_, state, _ := strings.Cut(string(stat), ") ")
		fmt.Fprintf(&b, "%s %.30s %q\n", dir, state, bytes.ReplaceAll(command, []byte{0}, []byte{' '}))
		for i, line := range strings.Split(string(stack), "\n") {
			if _, function, ok := strings.Cut(line, "] "); ok && i < 6 {
				fmt.Fprintf(&b, "\t%s\n", function)
			}
		}
	}
	return b.String()
}

// ended waits for the guardian, which ends with the last process that has the filter.
func (g *guardianProcess) ended(t testing.TB) {
	t.Helper()
	select {
	case <-g.done:
	case <-time.After(10 * time.Second):
		t.Errorf("the guardian %d is still there", g.pid())
	}
}

// repairs returns what was reported, in order.
func (s *subject) repairs() []*load.Attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// under runs a command under a proxy to its end.
func under(t testing.TB, killable bool, path string, argv ...string) (output string, repairs []*load.Attempt) {
	t.Helper()
	s, err := begin(killable, path, argv, nil)
	qt.Assert(t, qt.IsNil(err))
	output = s.wait(t)
	return output, s.repairs()
}

// hardened raises net.core.bpf_jit_harden for a test.
func hardened(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if os.Getenv("BPFWHY_HOST_SYSCTL") != "1" && !inGuest() {
		t.Skip("needs BPFWHY_HOST_SYSCTL=1: raises net.core.bpf_jit_harden")
	}
	r, err := guardian.RaiseHarden(context.Background(), 2)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() {
		_, err := r.Restore()
		qt.Check(t, qt.IsNil(err))
	})
}

// supervisor runs a command under a proxy and passes its output on. Its first line says who is who.
func supervisor(args []string) int {
	killable, apart, o := args[0] != "any", args[0] == "apart", Options{}
	if args[0] == "shown" || args[0] == "hidden" {
		if err := withoutPtrace(supervisorArgv0, args); err != nil {
			fmt.Fprintln(os.Stderr, "supervisor:", err)
			return 96
		}
		o.without.hidden = args[0] == "shown"
	}
	o.without.pulse = args[0] == "telling alone"
	s, err := beginWith(o, killable, args[1], args[2:], func(c *exec.Cmd) { c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr })
	if err != nil {
		fmt.Fprintln(os.Stderr, "supervisor:", err)
		return 97
	}
	if apart {
		if err := s.proxy.Apart(); err != nil {
			fmt.Fprintln(os.Stderr, "supervisor:", err)
		}
		fmt.Println("apart")
	}
	telling := strings.HasPrefix(args[0], "telling")
	if telling {
		go func() {
			for n := 0; ; time.Sleep(10 * time.Millisecond) {
				for ; n < len(s.repairs()); n++ {
					fmt.Println("repaired")
				}
			}
		}()
	}
	_ = s.cmd.Wait()
	s.proxy.Close()
	if telling {
		fmt.Println("left:", s.proxy.Unrepaired())
	}
	return s.cmd.ProcessState.ExitCode()
}

// withoutPtrace executes this binary anew, unless it was done: it and all that comes from it have
// no CAP_SYS_PTRACE then, as in most containers.
func withoutPtrace(argv0 string, args []string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_PTRACE, 0, 0, 0)
	if err != nil || has == 0 {
		return err
	}
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_PTRACE, 0, 0, 0); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", append([]string{argv0}, args...), os.Environ())
}
