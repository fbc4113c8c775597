// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// raiserArgv0 makes this test binary a program that raises a sysctl and then waits to be killed.
const raiserArgv0 = "guardian-test-raiser"

// openerArgv0 makes it one that opens a window and never closes it.
const (
	openerArgv0 = "guardian-test-opener"
	openerLimit = 500 * time.Millisecond
)

func TestMain(m *testing.M) {
	Main()
	act()
	if os.Args[0] == raiserArgv0 {
		p := paths{sysctl: os.Args[1], lock: os.Args[2], state: os.Args[3]}
		if _, err := raise(context.Background(), p, 2); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("raised")
		select {}
	}
	if os.Args[0] == openerArgv0 {
		r, err := raise(context.Background(), paths{sysctl: os.Args[1], lock: os.Args[2], state: os.Args[3]}, standBy)
		if err == nil {
			var gate *os.File
			if gate, _, err = r.Window(openerLimit, -1); err == nil {
				err = Pass(gate)
			}
		}
		fmt.Println("opened", err)
		select {}
	}
	os.Exit(m.Run())
}

// fake is a sysctl that is a file.
func fake(t *testing.T, value string) paths {
	dir := t.TempDir()
	p := paths{sysctl: filepath.Join(dir, "sysctl"), lock: filepath.Join(dir, "lock"), state: filepath.Join(dir, "run", "state")}
	qt.Assert(t, qt.IsNil(os.WriteFile(p.sysctl, []byte(value+"\n"), 0o600)))
	return p
}

func value(t *testing.T, p paths) int {
	t.Helper()
	v, err := readValue(p.sysctl)
	qt.Assert(t, qt.IsNil(err))
	return v
}

// settled waits up to five seconds, for the sake of busy machines, for the value and for every
// trace of the guardian to go.
func settled(t *testing.T, p paths, want int) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		v, err := readValue(p.sysctl)
		state, stateErr := os.ReadFile(p.state)
		noted := stateErr == nil && !strings.Contains(string(state), `"boot_id":""`) && len(state) > 0
		busy := guardians(t, p)
		if err == nil && v == want && !noted && len(busy) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after five seconds: value %d (%v), want %d; state file: %s; guardians %v", v, err, want, state, busy)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// guardians lists the processes that guard p, by pid.
func guardians(t *testing.T, p paths) []int {
	t.Helper()
	var pids []int
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	qt.Assert(t, qt.IsNil(err))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if args := strings.Split(string(b), "\x00"); args[0] == Argv0 && len(args) > 3 && args[3] == p.lock {
			pid, _ := strconv.Atoi(strings.Split(f, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestRaiseAndRestore(t *testing.T) {
	tests := []struct {
		name       string
		before     string
		meanwhile  string
		wantReport Report
		wantAfter  int
	}{
		{name: "raised", before: "0", wantReport: Report{Old: 0, Set: 2, Now: 0}, wantAfter: 0},
		{name: "raised from one", before: "1", wantReport: Report{Old: 1, Set: 2, Now: 1}, wantAfter: 1},
		{name: "already there", before: "2", wantReport: Report{Old: 2, Set: 2, Now: 2}, wantAfter: 2},
		{name: "changed by another", before: "0", meanwhile: "1", wantReport: Report{Old: 0, Set: 2, Now: 1, Foreign: true}, wantAfter: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := fake(t, tt.before)
			r, err := raise(t.Context(), p, 2)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(value(t, p), 2))
			qt.Check(t, qt.Equals(strconv.Itoa(r.Old()), tt.before))
			if tt.meanwhile != "" {
				qt.Assert(t, qt.IsNil(os.WriteFile(p.sysctl, []byte(tt.meanwhile), 0o600)))
			}
			for range 2 {
				report, err := r.Restore()
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(report, tt.wantReport))
			}
			settled(t, p, tt.wantAfter)
		})
	}
}

func TestNeverLowers(t *testing.T) {
	p := fake(t, "2")
	_, err := raise(t.Context(), p, 1)
	qt.Check(t, qt.ErrorIs(err, ErrLower))
	settled(t, p, 2)
	_, err = RaiseHarden(t.Context(), 0)
	qt.Check(t, qt.ErrorMatches(err, ".*0 is neither 1 nor 2"))
}

func TestContextEnds(t *testing.T) {
	p := fake(t, "0")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := raise(ctx, p, 2)
	qt.Assert(t, qt.IsNil(err))
	cancel()
	settled(t, p, 0)
}

func TestSignals(t *testing.T) {
	p := fake(t, "0")
	r, err := raise(t.Context(), p, 2)
	qt.Assert(t, qt.IsNil(err))
	pids := guardians(t, p)
	qt.Assert(t, qt.HasLen(pids, 1))
	for sig := unix.SIGHUP; sig <= 64; sig++ {
		if sig != unix.SIGKILL && sig != unix.SIGSTOP {
			qt.Assert(t, qt.IsNil(unix.Kill(pids[0], sig)))
		}
	}
	time.Sleep(50 * time.Millisecond)
	qt.Check(t, qt.Equals(value(t, p), 2))
	sid, err := unix.Getsid(pids[0])
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(sid, pids[0]))

	report, err := r.Restore()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(report, Report{Old: 0, Set: 2, Now: 0}))
	settled(t, p, 0)
}

// A killed guardian is made good by its parent.
func TestGuardianKilled(t *testing.T) {
	p := fake(t, "0")
	_, err := raise(t.Context(), p, 2)
	qt.Assert(t, qt.IsNil(err))
	pids := guardians(t, p)
	qt.Assert(t, qt.HasLen(pids, 1))
	qt.Assert(t, qt.IsNil(unix.Kill(pids[0], unix.SIGKILL)))
	settled(t, p, 0)
}

func TestRecover(t *testing.T) {
	id, err := bootID()
	qt.Assert(t, qt.IsNil(err))
	tests := []struct {
		name, now, state string
		left, want       Report // want: by RecoverRaised, the way of who asks for it
		wantValue        int
		wantErr          string
	}{
		{name: "left raised", now: "2", state: `{"old":0,"set":2,"boot_id":"` + id + `"}`, left: Report{Set: 2, Now: 2}, want: Report{Set: 2}},
		{name: "never raised", now: "0", state: `{"old":0,"set":2,"boot_id":"` + id + `"}`, want: Report{Set: 2}},
		{name: "changed by another", now: "1", state: `{"old":0,"set":2,"boot_id":"` + id + `"}`, want: Report{Set: 2, Now: 1, Foreign: true}, wantValue: 1},
		{name: "left lowered", now: "1", state: `{"old":2,"set":1,"boot_id":"` + id + `"}`, left: Report{Old: 2, Set: 1, Now: 1}, want: Report{Old: 2, Set: 1, Now: 2}, wantValue: 2},
		{name: "another boot", now: "2", state: `{"old":0,"set":2,"boot_id":"x"}`, wantValue: 2},
		{name: "not ours", now: "2", state: `{"old":2,"set":0}`, wantValue: 2, wantErr: ".*not what a guardian writes.*"},
		{name: "garbage", now: "2", state: `}`, wantValue: 2, wantErr: ".*not what a guardian writes.*"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := fake(t, tt.now)
			qt.Assert(t, qt.IsNil(os.Mkdir(filepath.Dir(p.state), 0o700)))
			qt.Assert(t, qt.IsNil(os.WriteFile(p.state, []byte(tt.state), 0o600)))
			left, err := leftPaths(p)
			qt.Check(t, qt.Equals(err != nil, tt.wantErr != ""))
			qt.Check(t, qt.Equals(left, tt.left))
			now, err := os.ReadFile(p.sysctl)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(string(now), tt.now+"\n"))
			if tt.left.Old < tt.left.Set {
				// What would lower the setting is nobody's but who asks for it: anybody of uid 0
				// may have written it.
				got, err := recoverPaths(p, false)
				qt.Check(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(got, Report{}))
				qt.Check(t, qt.Equals(strconv.Itoa(value(t, p)), tt.now))
				left, err := leftPaths(p)
				qt.Check(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(left, tt.left))
			}
			got, err := recoverPaths(p, tt.left.Old < tt.left.Set)
			qt.Check(t, qt.Equals(value(t, p), tt.wantValue))
			if tt.wantErr != "" {
				qt.Check(t, qt.ErrorMatches(err, tt.wantErr))
				return
			}
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(got, tt.want))
			settled(t, p, tt.wantValue)
		})
	}
}

// A record that says that the setting was raised is no reason for a guardian to lower it, nor does
// it forget what the record says. A record that its own starter finds changed changes nothing
// either.
func TestForgedRecord(t *testing.T) {
	id, err := bootID()
	qt.Assert(t, qt.IsNil(err))
	forged := []byte(`{"old":0,"set":2,"boot_id":"` + id + `"}` + strings.Repeat(" ", recordSize))
	p := fake(t, "2")
	qt.Assert(t, qt.IsNil(os.Mkdir(filepath.Dir(p.state), 0o700)))
	qt.Assert(t, qt.IsNil(os.WriteFile(p.state, forged, 0o600)))
	for _, to := range []int{standBy, 2} {
		r, err := raise(t.Context(), p, to)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(r.Old(), 2))
		if to == standBy {
			gate, closed, err := r.Window(time.Minute, -1)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(Pass(gate)))
			qt.Check(t, qt.Equals(value(t, p), 1))
			gate.Close()
			_, err = closed()
			qt.Check(t, qt.IsNil(err))
		}
		_, err = r.Restore()
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(value(t, p), 2))
		left, err := leftPaths(p)
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(left, Report{Old: 0, Set: 2, Now: 2}))
	}

	p = fake(t, "1")
	r, err := raise(t.Context(), p, 2)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(p.state, forged, 0o600)))
	pids := guardians(t, p)
	qt.Assert(t, qt.HasLen(pids, 1))
	qt.Assert(t, qt.IsNil(unix.Kill(pids[0], unix.SIGKILL)))
	report, err := r.Restore()
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(report, Report{Old: 1, Set: 2, Now: 1}))
	settled(t, p, 1)
}

// Who waits says so, and the lock of this machine is out of reach of those who could hold it for
// ever.
func TestWaits(t *testing.T) {
	p := fake(t, "0")
	lock, err := openLock(p.lock)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(lockFile(lock, unix.LOCK_EX)))
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = p.args(2)
	stdin, theirs, err := socketpair(unix.SOCK_SEQPACKET)
	qt.Assert(t, qt.IsNil(err))
	cmd.Stdin = theirs
	memory, err := os.Create(filepath.Join(t.TempDir(), "lowered"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(memory.Truncate(8)))
	cmd.ExtraFiles = []*os.File{memory}
	stderr, err := cmd.StderrPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	theirs.Close()
	line, err := bufio.NewReader(stderr).ReadString('\n')
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(line, "bpfwhy: waiting for another guardian of sysctl, which holds "+p.lock+"\n"))
	qt.Check(t, qt.Equals(value(t, p), 0))
	lock.Close()
	for end := time.Now().Add(10 * time.Second); value(t, p) != 2 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	qt.Check(t, qt.Equals(value(t, p), 2))
	stdin.Close()
	qt.Check(t, qt.IsNil(cmd.Wait()))
	settled(t, p, 0)
}

func TestLockIsRootsAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	f, err := Lock(unix.LOCK_SH)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	for dir := filepath.Dir(f.Name()); ; dir = filepath.Dir(dir) {
		var st unix.Stat_t
		qt.Assert(t, qt.IsNil(unix.Stat(dir, &st)))
		qt.Check(t, qt.Equals(st.Uid, 0), qt.Commentf("%s", dir))
		qt.Check(t, qt.Equals(st.Mode&0o022, 0), qt.Commentf("%s", dir))
		if dir == "/" {
			return
		}
	}
}

func TestRecoverLeavesALiveGuardian(t *testing.T) {
	p := fake(t, "0")
	r, err := raise(t.Context(), p, 2)
	qt.Assert(t, qt.IsNil(err))
	for _, f := range []func() (Report, error){
		func() (Report, error) { return recoverPaths(p, true) }, func() (Report, error) { return leftPaths(p) },
	} {
		report, err := f()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(report, Report{}))
		qt.Check(t, qt.Equals(value(t, p), 2))
	}
	_, err = r.Restore()
	qt.Assert(t, qt.IsNil(err))
}

func TestConcurrentRaisersTakeTurns(t *testing.T) {
	p := fake(t, "0")
	var inside, most atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			r, err := raise(t.Context(), p, 2)
			if err != nil {
				t.Error(err)
				return
			}
			if n := inside.Add(1); n > most.Load() {
				most.Store(n)
			}
			if r.Old() != 0 {
				t.Errorf("old value %d, want 0: the turn began before the last one ended", r.Old())
			}
			time.Sleep(5 * time.Millisecond)
			inside.Add(-1)
			if _, err := r.Restore(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	qt.Check(t, qt.Equals(most.Load(), 1))
	settled(t, p, 0)
}

// killRaiser starts a program that raises the sysctl, kills it with its whole process group after a
// delay, and wants the value back.
func killRaiser(t *testing.T, p paths, delay time.Duration, old int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{raiserArgv0, p.sysctl, p.lock, p.state}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	if delay < 0 { // surely raised
		_, err := out.Read(make([]byte, 16))
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(value(t, p), 2))
	}
	time.Sleep(max(delay, 0))
	qt.Assert(t, qt.IsNil(unix.Kill(-cmd.Process.Pid, unix.SIGKILL)))
	cmd.Wait()
	settled(t, p, old)
}

func killRounds(t *testing.T, p paths, old int) {
	killRaiser(t, p, -1, old)
	for range 20 {
		killRaiser(t, p, time.Duration(rand.IntN(30000))*time.Microsecond, old)
	}
}

func TestParentKilled(t *testing.T) { killRounds(t, fake(t, "0"), 0) }

// The same with the sysctl of this machine.
func TestParentKilledHost(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if testing.Short() {
		t.Skip("changes a sysctl of this machine for a moment")
	}
	old, err := readValue(harden.sysctl)
	if err != nil {
		t.Skip(err)
	}
	if old == 2 {
		t.Skip("net.core.bpf_jit_harden is 2 already")
	}
	lock, err := Lock(unix.LOCK_EX)
	qt.Assert(t, qt.IsNil(err))
	lock.Close()
	killRounds(t, harden, old)
}

// standsBy starts a guardian for windows.
func standsBy(t *testing.T, p paths) *Raised {
	t.Helper()
	r, err := raise(t.Context(), p, standBy)
	qt.Assert(t, qt.IsNil(err))
	return r
}

func TestWindow(t *testing.T) {
	p := fake(t, "2")
	r := standsBy(t, p)
	qt.Check(t, qt.Equals(value(t, p), 2))
	for range 2 {
		gate, closed, err := r.Window(time.Minute, -1)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(value(t, p), 2))
		qt.Assert(t, qt.IsNil(Pass(gate)))
		qt.Check(t, qt.Equals(value(t, p), 1))
		gate.Close()
		w, err := closed()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(w, Window{Open: w.Open}))
		qt.Check(t, qt.IsTrue(w.Open > 0))
		qt.Check(t, qt.Equals(value(t, p), 2))
	}
	report, err := r.Restore()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(report, Report{Old: 2, Set: 1, Now: 2}))
	settled(t, p, 2)

	for before, want := range map[string]int{"0": 0, "1": 1} {
		p := fake(t, before)
		_, err := raise(t.Context(), p, standBy)
		qt.Check(t, qt.ErrorIs(err, ErrNotTwo))
		settled(t, p, want)
	}
}

// What ends a window: the latch, the deadline, the end of the starter's interest. Who is never
// ready opens none.
func TestWindowEnds(t *testing.T) {
	p := fake(t, "2")
	r := standsBy(t, p)
	latch, touch, err := socketpair(unix.SOCK_STREAM)
	qt.Assert(t, qt.IsNil(err))

	gate, closed, err := r.Window(time.Minute, int(latch.Fd()))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(Pass(gate)))
	touch.Write([]byte{1})
	w, err := closed()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(w, Window{Open: w.Open, Touched: true}))
	qt.Check(t, qt.Equals(value(t, p), 2))
	gate.Close()

	gate, closed, err = r.Window(50*time.Millisecond, -1)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(Pass(gate)))
	w, err = closed()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(w, Window{Open: w.Open, Overdue: true}))
	qt.Check(t, qt.IsTrue(w.Open >= 50*time.Millisecond))
	qt.Check(t, qt.Equals(value(t, p), 2))
	gate.Close()

	gate, closed, err = r.Window(time.Minute, -1)
	qt.Assert(t, qt.IsNil(err))
	gate.Close()
	w, err = closed()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(w, Window{}))

	gate, closed, err = r.Window(time.Minute, -1)
	qt.Assert(t, qt.IsNil(err))
	start := time.Now()
	_, err = closed()
	qt.Check(t, qt.ErrorMatches(err, ".*not ready in time"))
	qt.Check(t, qt.IsTrue(time.Since(start) < ready+late+5*time.Second)) // of a busy machine; the window is of a minute
	gate.Close()

	gate, closed, err = r.Window(time.Minute, -1)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(Pass(gate)))
	qt.Check(t, qt.Equals(value(t, p), 1))
	_, err = r.Restore()
	qt.Assert(t, qt.IsNil(err))
	settled(t, p, 2)
	gate.Close()
	closed()
}

// A third party's value stays, also when it is the one that the window was opened with.
func TestWindowForeign(t *testing.T) {
	for _, foreign := range []int{0, 1, 2} {
		p := fake(t, "2")
		r := standsBy(t, p)
		gate, closed, err := r.Window(time.Minute, -1)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(Pass(gate)))
		qt.Assert(t, qt.IsNil(os.WriteFile(p.sysctl, []byte(strconv.Itoa(foreign)), 0o600)))
		gate.Close()
		w, err := closed()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(w, Window{Open: w.Open, Foreign: true}))
		qt.Check(t, qt.Equals(value(t, p), foreign))
		gate, closed, err = r.Window(time.Minute, -1)
		qt.Assert(t, qt.IsNil(err))
		passErr := Pass(gate)
		gate.Close()
		_, err = closed()
		if foreign == 2 {
			qt.Check(t, qt.IsNil(passErr))
			qt.Check(t, qt.IsNil(err))
		} else {
			qt.Check(t, qt.ErrorMatches(err, ".*is not 2, it is "+strconv.Itoa(foreign)))
		}
		report, err := r.Restore()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(report, Report{Old: 2, Set: 1, Now: foreign, Foreign: foreign != 2}))
		settled(t, p, foreign)
	}
}

// A third party's value stays also when nothing is open, and the guardian is killed.
func TestForeignOutsideOfWindows(t *testing.T) {
	p := fake(t, "2")
	r := standsBy(t, p)
	qt.Assert(t, qt.IsNil(os.WriteFile(p.sysctl, []byte("1"), 0o600)))
	pids := guardians(t, p)
	qt.Assert(t, qt.HasLen(pids, 1))
	qt.Assert(t, qt.IsNil(unix.Kill(pids[0], unix.SIGKILL)))
	_, err := r.Restore()
	qt.Assert(t, qt.IsNil(err))
	settled(t, p, 1)
}

// A guardian that is stopped in mid-window is replaced by its starter, one that is killed too, also
// when somebody has its lock then.
func TestWindowWithoutGuardian(t *testing.T) {
	for _, signal := range []syscall.Signal{unix.SIGSTOP, unix.SIGKILL} {
		p := fake(t, "2")
		r := standsBy(t, p)
		pids := guardians(t, p)
		qt.Assert(t, qt.HasLen(pids, 1))
		const limit = 100 * time.Millisecond
		lock, err := openLock(p.lock)
		qt.Assert(t, qt.IsNil(err))
		locked := make(chan error, 1)
		go func() { locked <- lockFile(lock, unix.LOCK_EX) }()
		gate, closed, err := r.Window(limit, -1)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(Pass(gate)))
		start := time.Now()
		qt.Assert(t, qt.IsNil(unix.Kill(pids[0], signal)))
		_, err = closed()
		qt.Check(t, qt.ErrorMatches(err, "the guardian of .*"))
		qt.Check(t, qt.Equals(value(t, p), 2))
		qt.Check(t, qt.IsTrue(time.Since(start) < limit+5*time.Second)) // of a busy machine; it would take a minute
		gate.Close()
		_, err = r.Restore()
		qt.Check(t, qt.IsNil(err))
		settled(t, p, 2)
		qt.Check(t, qt.IsNil(<-locked))
		lock.Close()
	}
}

// The starter is stopped, or does nothing about its window: the guardian keeps the deadline.
func TestWindowOfAStoppedStarter(t *testing.T) {
	p := fake(t, "2")
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{openerArgv0, p.sysctl, p.lock, p.state}
	out, err := cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	out.Read(make([]byte, 16))
	qt.Check(t, qt.Equals(value(t, p), 1))
	qt.Assert(t, qt.IsNil(unix.Kill(cmd.Process.Pid, unix.SIGSTOP)))
	start := time.Now()
	for value(t, p) != 2 && time.Since(start) < 5*time.Second {
		time.Sleep(5 * time.Millisecond)
	}
	qt.Check(t, qt.Equals(value(t, p), 2))
	qt.Check(t, qt.IsTrue(time.Since(start) < openerLimit+4*time.Second), qt.Commentf("%v", time.Since(start)))
	cmd.Process.Kill()
	cmd.Wait()
	settled(t, p, 2)
}

// A guardian that is stopped before it is up, when it may still have the ids of who starts it,
// keeps nobody waiting.
func TestStoppedBeforeItIsUp(t *testing.T) {
	p := fake(t, "2")
	lock, err := openLock(p.lock) // so that it is not up
	qt.Assert(t, qt.IsNil(err))
	defer lock.Close()
	qt.Assert(t, qt.IsNil(lockFile(lock, unix.LOCK_EX)))
	done := make(chan error, 1)
	go func() {
		_, err := raise(t.Context(), p, standBy)
		done <- err
	}()
	var pids []int
	for end := time.Now().Add(10 * time.Second); len(pids) == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		pids = guardians(t, p)
	}
	qt.Assert(t, qt.HasLen(pids, 1))
	qt.Assert(t, qt.IsNil(unix.Kill(pids[0], unix.SIGSTOP)))
	select {
	case err := <-done:
		qt.Check(t, qt.IsNotNil(err))
	case <-time.After(20 * time.Second):
		t.Error("its starter still waits")
		_ = unix.Kill(pids[0], unix.SIGKILL)
	}
	settled(t, p, 2)
}

// A guardian that leaves without reading what a loader wrote makes the kernel say ECONNRESET: to
// the loader it is a gate that does not open, as any other.
func TestPassWhoLeaves(t *testing.T) {
	gate, theirs, err := socketpair(unix.SOCK_STREAM)
	qt.Assert(t, qt.IsNil(err))
	defer gate.Close()
	go func() {
		for {
			n, err := unix.IoctlGetInt(int(theirs.Fd()), unix.TIOCINQ)
			if err != nil || n > 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(5 * spin) // Pass waits in another way then
		theirs.Close()
	}()
	qt.Check(t, qt.Equals(Pass(gate), io.EOF))
}
