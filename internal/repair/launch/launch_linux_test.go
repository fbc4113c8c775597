// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/repair/interpose"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Main()
	interpose.Main()
	if len(os.Args) > 2 && (os.Args[1] == "launch" || os.Args[1] == "intercept") {
		os.Exit(launch(os.Args[1], os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "await" {
		os.Exit(await())
	}
	// Whoever started the tests may have started them to ignore signals (nohup, a job in the
	// background of a script). The children are to find the default.
	for _, s := range passed {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	os.Exit(m.Run())
}

// launch is what a caller does, without watching anything; or with a proxy for the command's loads.
func launch(how string, args []string) int {
	c, err := Find(args, "")
	if err != nil {
		return 99
	}
	signals := Signals()
	var p *Process
	if how == "intercept" {
		var l *interpose.Listener
		if p, l, err = c.StartIntercepted(); err == nil {
			_, err = interpose.Start(l, p.PID, interpose.Options{Report: func(*load.Attempt) {}})
		}
	} else {
		p, err = c.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 98
	}
	if p.Release() != nil {
		return 97
	}
	code, err := p.Wait(signals)
	if err != nil {
		return 96
	}
	return code
}

// ways are those in which a command can be started; intercepting needs root.
func ways(t *testing.T, f func(t *testing.T, how string)) {
	t.Run("launch", func(t *testing.T) { f(t, "launch") })
	t.Run("intercept", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root")
		}
		f(t, "intercept")
	})
}

// await is a command that ends with 5 on SIGUSR1. A shell with a loop would not do: between vfork
// and exec of its child, dash does not stop on a Ctrl-Z.
func await() int {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGUSR1)
	fmt.Println("ready", os.Getpid())
	<-c
	return 5
}

// start runs a shell script; its standard output is a file.
func start(t *testing.T, user, script string) (p *Process, output func() string) {
	t.Helper()
	c, err := Find([]string{"sh", "-c", script}, user)
	qt.Assert(t, qt.IsNil(err))
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { out.Close() })
	// The held process takes descriptor 1 as it is at Start.
	saved, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 10)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(unix.Dup3(int(out.Fd()), 1, 0)))
	p, err = c.Start()
	unix.Dup3(saved, 1, 0)
	unix.Close(saved)
	qt.Assert(t, qt.IsNil(err))
	return p, func() string {
		b, err := os.ReadFile(out.Name())
		qt.Assert(t, qt.IsNil(err))
		return string(b)
	}
}

func TestStatus(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -TERM $$": 128 + 15, "kill -KILL $$": 128 + 9, "kill -SEGV $$": 128 + 11} {
		p, _ := start(t, "", script)
		qt.Assert(t, qt.IsNil(p.Release()))
		code, err := p.Wait(nil)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(code, want), qt.Commentf("%s", script))
	}
}

func TestNothingRunsBeforeRelease(t *testing.T) {
	p, output := start(t, "", "echo ran $$")
	time.Sleep(100 * time.Millisecond)
	qt.Assert(t, qt.Equals(output(), ""))
	qt.Assert(t, qt.IsNil(p.Release()))
	_, err := p.Wait(nil)
	qt.Assert(t, qt.IsNil(err))
	// The command is the process that was held.
	qt.Assert(t, qt.Equals(output(), fmt.Sprintf("ran %d\n", p.PID)))

	p, output = start(t, "", "echo ran")
	p.Abandon()
	qt.Assert(t, qt.Equals(output(), ""))
	qt.Assert(t, qt.Equals(unix.Kill(p.PID, 0), error(unix.ESRCH)))
}

// TestInterceptedInherits: what the command finds is what it would have found without us, but for
// the filter.
func TestInterceptedInherits(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const script = `echo "$0 $*"; env | grep -v ^_= | sort; ulimit -n; ulimit -l; ls /proc/self/fd | tr '\n' ' '; while read -r l; do case $l in SigIgn*|SigBlk*|Cap*|NoNewPrivs*|Seccomp:*) echo "$l";; esac; done </proc/$$/status; cut -d' ' -f5,6,7 /proc/$$/stat`
	want, err := exec.Command("sh", "-c", script).Output()
	qt.Assert(t, qt.IsNil(err))
	got, err := exec.Command("/proc/self/exe", "intercept", "sh", "-c", script).Output()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(string(got), strings.Replace(string(want), "Seccomp:\t0", "Seccomp:\t2", 1)))
}

// TestInherits: what the command finds is what it would have found without us. The shell reads its
// status itself: one that has just started a child may still have all signals blocked.
func TestInherits(t *testing.T) {
	t.Setenv("BPFWHY_TEST", "a b")
	const script = `echo "$0 $*"; env | grep -v ^_= | sort; ulimit -n; ulimit -l; ls /proc/self/fd | tr '\n' ' '; while read -r l; do case $l in SigIgn*|SigBlk*|Cap*|NoNewPrivs*|Seccomp:*) echo "$l";; esac; done </proc/$$/status; cut -d' ' -f5,6,7 /proc/$$/stat`
	p, output := start(t, "", script)
	qt.Assert(t, qt.IsNil(p.Release()))
	_, err := p.Wait(nil)
	qt.Assert(t, qt.IsNil(err))
	want, err := exec.Command("sh", "-c", script).Output()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(output(), string(want)))
}

func TestUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	p, output := start(t, "nobody", `id -u; id -g; id -G; grep -E '^Cap(Prm|Eff|Amb)' /proc/$$/status; echo "$USER $LOGNAME $HOME"`)
	qt.Assert(t, qt.IsNil(p.Release()))
	code, err := p.Wait(nil)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(code, 0))
	b, err := exec.Command("sh", "-c", `id -u nobody; id -g nobody; id -G nobody`).Output()
	qt.Assert(t, qt.IsNil(err))
	const none = "\t0000000000000000\n"
	qt.Assert(t, qt.Equals(output(), string(b)+"CapPrm:"+none+"CapEff:"+none+"CapAmb:"+none+"nobody nobody "+home(t, "nobody")+"\n"))

	// By number, as for a user that a container has no name for; and one that is not there.
	_, err = Find([]string{"true"}, "65534")
	qt.Assert(t, qt.IsNil(err))
	_, err = Find([]string{"true"}, "no such user")
	qt.Assert(t, qt.ErrorMatches(err, "find user no such user: .*"))
}

func home(t *testing.T, user string) string {
	b, err := os.ReadFile("/etc/passwd")
	qt.Assert(t, qt.IsNil(err))
	for l := range strings.Lines(string(b)) {
		if f := strings.Split(l, ":"); f[0] == user {
			return f[5]
		}
	}
	t.Fatalf("no %s in /etc/passwd", user)
	return ""
}

func TestFind(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	qt.Assert(t, qt.IsNil(os.WriteFile(plain, nil, 0o644)))
	for name, want := range map[string]int{"no-such-command-at-all": 127, "/no/such/file": 127, plain: 126, t.TempDir(): 126} {
		_, err := Find([]string{name}, "")
		var e *Error
		qt.Assert(t, qt.ErrorAs(err, &e), qt.Commentf("%s", name))
		qt.Check(t, qt.Equals(e.Status, want), qt.Commentf("%s: %v", name, err))
	}
}

// A file that is executable but no program shows only when it is executed.
func TestExecFails(t *testing.T) {
	bogus := filepath.Join(t.TempDir(), "bogus")
	qt.Assert(t, qt.IsNil(os.WriteFile(bogus, []byte("\x7fELFno"), 0o755)))
	c, err := Find([]string{bogus}, "")
	qt.Assert(t, qt.IsNil(err))
	p, err := c.Start()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.Release()))
	code, err := p.Wait(nil)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(code, 126))
}

func TestSignalsArePassedOn(t *testing.T) { ways(t, testSignalsArePassedOn) }

func testSignalsArePassedOn(t *testing.T, how string) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGQUIT, syscall.SIGWINCH} {
		cmd := exec.Command("/proc/self/exe", how, "sh", "-c",
			`for s in TERM HUP INT USR1 QUIT WINCH; do trap "echo got $s; exit 3" $s; done; echo ready; while :; do sleep 0.05; done`)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal: nothing but us tells the command
		out, err := cmd.StdoutPipe()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(cmd.Start()))
		line := make([]byte, 64)
		n, err := out.Read(line)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(string(line[:n]), "ready\n"))
		qt.Assert(t, qt.IsNil(cmd.Process.Signal(sig)))
		rest, _ := io.ReadAll(out)
		err = cmd.Wait()
		var e *exec.ExitError
		qt.Assert(t, qt.IsTrue(errors.As(err, &e)), qt.Commentf("%v: %v", sig, err))
		qt.Check(t, qt.Equals(e.ExitCode(), 3), qt.Commentf("%v", sig))
		qt.Check(t, qt.Equals(string(rest), "got "+strings.TrimPrefix(unix.SignalName(sig), "SIG")+"\n"))
	}
}

// TestOurDeath: the command survives us, and a held process does not.
func TestOurDeath(t *testing.T) { ways(t, testOurDeath) }

func testOurDeath(t *testing.T, how string) {
	cmd := exec.Command("/proc/self/exe", how, "sh", "-c", "echo $$; sleep 60")
	out, err := cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	line := make([]byte, 64)
	n, err := out.Read(line)
	qt.Assert(t, qt.IsNil(err))
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Process.Kill()))
	cmd.Process.Wait()
	time.Sleep(50 * time.Millisecond)
	qt.Assert(t, qt.IsNil(unix.Kill(pid, 0)))
	unix.Kill(pid, unix.SIGKILL)
}

// terminal starts a session of its own on a new terminal.
func terminal(t *testing.T, args ...string) (*exec.Cmd, *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs a pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	// Not Fd: it makes the file blocking, and then no deadline ends a read.
	control, err := master.SyscallConn()
	qt.Assert(t, qt.IsNil(err))
	var n int
	var numberErr, unlockErr error
	qt.Assert(t, qt.IsNil(control.Control(func(fd uintptr) {
		n, numberErr = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		unlockErr = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
	})))
	qt.Assert(t, qt.IsNil(numberErr))
	qt.Assert(t, qt.IsNil(unlockErr))
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	qt.Assert(t, qt.IsNil(err))
	defer slave.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	qt.Assert(t, qt.IsNil(cmd.Start()))
	t.Cleanup(func() { cmd.Process.Kill() })
	return cmd, master
}

// expect reads from the terminal until it has seen a word.
func expect(t *testing.T, f *os.File, word string) {
	t.Helper()
	var got []byte
	qt.Assert(t, qt.IsNil(f.SetReadDeadline(time.Now().Add(10*time.Second))))
	for !strings.Contains(string(got), word) {
		b := make([]byte, 256)
		n, err := f.Read(b)
		got = append(got, b[:n]...)
		if err != nil {
			t.Fatalf("wait for %q: %v after %q", word, err, got)
		}
	}
}

// TestTerminal: a Ctrl-C reaches the command once, and we outlive it.
func TestTerminal(t *testing.T) { ways(t, testTerminal) }

func testTerminal(t *testing.T, how string) {
	cmd, tty := terminal(t, "/proc/self/exe", how, "sh", "-c",
		`n=0; trap 'n=$((n+1)); echo int $n' INT; test -t 0 && echo ready; while [ $n = 0 ]; do sleep 0.05; done; sleep 0.2; exit $n`)
	expect(t, tty, "ready")
	_, err := tty.WriteString("\x03")
	qt.Assert(t, qt.IsNil(err))
	expect(t, tty, "int 1")
	err = cmd.Wait()
	var e *exec.ExitError
	qt.Assert(t, qt.IsTrue(errors.As(err, &e)), qt.Commentf("%v", err))
	qt.Assert(t, qt.Equals(e.ExitCode(), 1))
}

// TestJobControl: a Ctrl-Z stops the command and us, so that the shell gets its prompt back, and fg
// continues both.
func TestJobControl(t *testing.T) { ways(t, testJobControl) }

func testJobControl(t *testing.T, how string) {
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	cmd, tty := terminal(t, "sh", "-c",
		`set -m; "$0" `+how+` "$0" await; echo "prompt $?"; fg; echo "status $?"`, self)
	expect(t, tty, "ready ")
	_, err = tty.WriteString("\x1a")
	qt.Assert(t, qt.IsNil(err))
	expect(t, tty, fmt.Sprintf("prompt %d", 128+int(unix.SIGSTOP)))
	time.Sleep(100 * time.Millisecond)
	// Running again, both of them: the signal that ends the command goes through us.
	pids, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
	qt.Assert(t, qt.IsNil(err))
	us, err := strconv.Atoi(strings.Fields(string(pids))[0]) // the shell's only child
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(unix.Kill(us, unix.SIGUSR1)))
	expect(t, tty, "status 5")
	qt.Assert(t, qt.IsNil(cmd.Wait()))
}

// TestFirstProcess: as the first process of a container we reap what loses its parent, and the
// status is the command's.
func TestFirstProcess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cmd := exec.Command("/proc/self/exe", "launch", "sh", "-c", "(sleep 0.1 &); (sleep 0.1 &); echo ready; read -r l; exit 6")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	in, err := cmd.StdinPipe()
	qt.Assert(t, qt.IsNil(err))
	out, err := cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	line := make([]byte, 64)
	_, err = out.Read(line)
	qt.Assert(t, qt.IsNil(err))
	// The command alone is left.
	for deadline := time.Now().Add(10 * time.Second); len(childrenOf(t, cmd.Process.Pid)) != 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("children: %v", childrenOf(t, cmd.Process.Pid))
		}
	}
	_, err = io.WriteString(in, "\n")
	qt.Assert(t, qt.IsNil(err))
	err = cmd.Wait()
	var e *exec.ExitError
	qt.Assert(t, qt.IsTrue(errors.As(err, &e)), qt.Commentf("%v", err))
	qt.Check(t, qt.Equals(e.ExitCode(), 6))
}

// childrenOf lists the children of a process, zombies too.
func childrenOf(t *testing.T, pid int) (children []string) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	qt.Assert(t, qt.IsNil(err))
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err == nil {
			children = append(children, strings.Fields(string(b))...)
		}
	}
	return children
}

// A command that is killed while its stop is being told of still has a status.
func TestKilledWhileStopped(t *testing.T) {
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", "kill -STOP $$"}, &syscall.ProcAttr{})
	qt.Assert(t, qt.IsNil(err))
	p := &Process{PID: pid}
	var info unix.Siginfo
	qt.Assert(t, qt.IsNil(unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WNOWAIT, nil)))
	qt.Assert(t, qt.IsNil(unix.Kill(pid, unix.SIGKILL)))
	qt.Assert(t, qt.IsNil(unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil)))
	p.takeStop()
	code, err := p.reap()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(code, 128+int(unix.SIGKILL)))
}
