// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
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

func TestMain(m *testing.M) {
	Main()
	if os.Args[0] == raiserArgv0 {
		p := paths{os.Args[1], os.Args[2], os.Args[3]}
		if _, err := raise(context.Background(), p, 2); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("raised")
		select {}
	}
	os.Exit(m.Run())
}

// fake is a sysctl that is a file.
func fake(t *testing.T, value string) paths {
	dir := t.TempDir()
	p := paths{filepath.Join(dir, "sysctl"), filepath.Join(dir, "lock"), filepath.Join(dir, "run", "state")}
	qt.Assert(t, qt.IsNil(os.WriteFile(p.sysctl, []byte(value+"\n"), 0o600)))
	return p
}

func value(t *testing.T, p paths) int {
	t.Helper()
	v, err := readValue(p.sysctl)
	qt.Assert(t, qt.IsNil(err))
	return v
}

// settled waits up to five seconds, for the sake of busy machines, for the value and for every trace of the guardian to go.
func settled(t *testing.T, p paths, want int) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		v, err := readValue(p.sysctl)
		_, state := os.Stat(p.state)
		busy := guardians(t, p)
		if err == nil && v == want && errors.Is(state, fs.ErrNotExist) && len(busy) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after five seconds: value %d (%v), want %d; state file: %v; guardians %v", v, err, want, state, busy)
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
	for _, sig := range []syscall.Signal{unix.SIGINT, unix.SIGHUP, unix.SIGQUIT} {
		qt.Assert(t, qt.IsNil(unix.Kill(pids[0], sig)))
	}
	time.Sleep(50 * time.Millisecond)
	qt.Check(t, qt.Equals(value(t, p), 2))
	sid, err := unix.Getsid(pids[0])
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(sid, pids[0]))

	qt.Assert(t, qt.IsNil(unix.Kill(pids[0], unix.SIGTERM)))
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
		left, want       Report
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
			got, err := recoverPaths(p)
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

// Who waits says so, and the lock of this machine is out of reach of those who could hold it for ever.
func TestWaits(t *testing.T) {
	p := fake(t, "0")
	lock, err := takeLock(p.lock, unix.LOCK_EX)
	qt.Assert(t, qt.IsNil(err))
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{Argv0, "2", p.sysctl, p.lock, p.state}
	stdin, err := cmd.StdinPipe()
	qt.Assert(t, qt.IsNil(err))
	stderr, err := cmd.StderrPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
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
	for _, f := range []func(paths) (Report, error){recoverPaths, leftPaths} {
		report, err := f(p)
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

// killRaiser starts a program that raises the sysctl, kills it with its whole process group after a delay, and wants the value back.
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
	if _, err := os.Stat(harden.state); err == nil {
		t.Skipf("%s exists: a guardian is at work", harden.state)
	}
	killRounds(t, harden, old)
}

// A guardian that stands by restores what its starter lowered, and nothing else.
func TestStandBy(t *testing.T) {
	p := fake(t, "2")
	r, err := raise(t.Context(), p, standBy)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(value(t, p), 2))
	qt.Assert(t, qt.IsNil(writeValue(p.sysctl, 1)))
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
