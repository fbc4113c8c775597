// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"bufio"
	"context"
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
	"testing"
	"time"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/sys/privilege"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

func TestKernels(t *testing.T) {
	vmtest.RunIn(t, vmtest.Sample(), "^TestGuest", vm.Machine{Sysctls: map[string]string{"net.core.bpf_jit_harden": "2"}})
}

// Roles of the test binary in the guest.
const (
	attackerArgv0  = "guardian-test-attacker"  // PID ATTACK CAPABILITIES
	bystanderArgv0 = "guardian-test-bystander" // uid 0 without capabilities, as it comes
	turnArgv0      = "guardian-test-turn"      // behind mounts of its own
	poorArgv0      = "guardian-test-poor"      // with the CAPABILITIES it is given
	forgerArgv0    = "guardian-test-forger"    // uid 0 without capabilities, writes a RECORD
)

func act() {
	if len(os.Args) == 0 {
		return
	}
	switch os.Args[0] {
	case attackerArgv0:
		pid, _ := strconv.Atoi(os.Args[1])
		var keep []int
		if os.Args[3] == "kill" {
			keep = []int{unix.CAP_KILL}
		}
		err := privilege.Drop(keep...)
		if err == nil {
			err = attacks[os.Args[2]](pid)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case bystanderArgv0:
		if err := privilege.Drop(); err != nil {
			fmt.Println(err)
		}
		fmt.Println("here")
		os.Stdin.Read(make([]byte, 1))
	case forgerArgv0:
		if err := errors.Join(privilege.Drop(), os.MkdirAll(filepath.Dir(harden.state), 0o700),
			os.WriteFile(harden.state, []byte(os.Args[1]), 0o600)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case turnArgv0:
		if err := takeTurns(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case poorArgv0:
		if err := poor(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	default:
		return
	}
	os.Exit(0)
}

// attacks are what a process of uid 0 without capabilities can do to another such process. None
// means that it worked.
var attacks = map[string]func(pid int) error{
	"kill": func(pid int) error {
		return errors.Join(unix.Kill(pid, unix.SIGKILL), vmtest.Struck(pid, 300*time.Millisecond))
	},
	"stop": func(pid int) error {
		return errors.Join(unix.Kill(pid, unix.SIGSTOP), vmtest.Struck(pid, 300*time.Millisecond))
	},
	"SIGIO that is SIGKILL": func(pid int) error {
		return errors.Join(vmtest.SIGIO(pid, unix.SIGKILL), vmtest.Struck(pid, 300*time.Millisecond))
	},
	"SIGIO that is SIGSTOP": func(pid int) error {
		return errors.Join(vmtest.SIGIO(pid, unix.SIGSTOP), vmtest.Struck(pid, 300*time.Millisecond))
	},
	"SIGIO that is SIGSEGV": func(pid int) error {
		return errors.Join(vmtest.SIGIO(pid, unix.SIGSEGV), vmtest.Struck(pid, 300*time.Millisecond))
	},
	"ptrace": func(pid int) error {
		runtime.LockOSThread()
		_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	},
	"memory": func(pid int) error {
		f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		return err
	},
	"descriptors": func(pid int) error { // their numbers are no secret
		_, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/0", pid))
		return err
	},
	"a descriptor": func(pid int) error {
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return err
		}
		_, err = unix.PidfdGetfd(pidfd, 0, 0)
		return err
	},
	"process_vm_readv": func(pid int) error {
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		if err != nil {
			return err
		}
		from, err := strconv.ParseUint(strings.Split(string(maps), "-")[0], 16, 64)
		if err != nil {
			return err
		}
		b := make([]byte, 8)
		_, err = unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &b[0], Len: 8}}, []unix.RemoteIovec{{Base: uintptr(from), Len: 8}}, 0)
		return err
	},
	"limits": func(pid int) error {
		return unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
	},
	"scheduler": func(pid int) error {
		p := struct{ priority int32 }{}
		_, _, errno := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, uintptr(pid), 5 /* SCHED_IDLE */, uintptr(unsafe.Pointer(&p)))
		if errno != 0 {
			return errno
		}
		return nil
	},
	"priority": func(pid int) error { return unix.Setpriority(unix.PRIO_PROCESS, pid, 19) },
	"processors": func(pid int) error {
		var set unix.CPUSet
		set.Set(0)
		return unix.SchedSetaffinity(pid, &set)
	},
}

func attack(t *testing.T, what string, pid int, capabilities string) error {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{attackerArgv0, strconv.Itoa(pid), what, capabilities}
	out, err := cmd.CombinedOutput()
	if e := new(exec.ExitError); errors.As(err, &e) && e.ExitCode() == 1 {
		return errors.New(strings.TrimSpace(string(out)))
	}
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s: %s", what, out))
	return nil
}

// The thread that guards runs before others, and waits for none of them: while it did, on the one
// processor here, a guardian took the second that the scheduler makes others wait.
func TestGuestPriority(t *testing.T) {
	vmtest.Guest(t)
	best := time.Hour
	for range 3 {
		start := time.Now()
		r, err := StandBy(t.Context(), Files{})
		qt.Assert(t, qt.IsNil(err))
		best = min(best, time.Since(start))
		how, err := unix.SchedGetAttr(r.process.Pid, 0)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(how.Policy, unix.SCHED_FIFO))
		_, err = r.Restore()
		qt.Assert(t, qt.IsNil(err))
	}
	qt.Check(t, qt.IsTrue(best < 800*time.Millisecond), qt.Commentf("%v", best))
}

// A process of uid 0 with few capabilities can do nothing to a guardian of what it can do to any
// other process of its uid.
func TestGuestAttacks(t *testing.T) {
	vmtest.Guest(t)
	r, err := StandBy(t.Context(), Files{})
	qt.Assert(t, qt.IsNil(err))
	pid := r.process.Pid
	gate, closed, err := r.Window(3*time.Minute, -1)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(Pass(gate)))
	qt.Check(t, qt.Equals(value(t, harden), 1))
	for what := range attacks {
		bystander := exec.Command("/proc/self/exe")
		bystander.Args = []string{bystanderArgv0}
		in, err := bystander.StdinPipe()
		qt.Assert(t, qt.IsNil(err))
		out, err := bystander.StdoutPipe()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(bystander.Start()))
		out.Read(make([]byte, 8))
		// The attack works where nothing guards against it.
		qt.Check(t, qt.IsNil(attack(t, what, bystander.Process.Pid, "")), qt.Commentf("%s, on another process", what))
		in.Close()
		bystander.Process.Kill()
		bystander.Wait()

		err = attack(t, what, pid, "")
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("%s", what))
		t.Logf("%s: %v", what, err)
	}
	for sig := unix.SIGHUP; sig <= 64; sig++ {
		qt.Check(t, qt.IsNil(vmtest.SIGIO(pid, sig))) // with all capabilities even
	}
	qt.Check(t, qt.Equals(value(t, harden), 1))
	gate.Close()
	w, err := closed()
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(w, Window{Open: w.Open}))
	report, err := r.Restore()
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(report, Report{Old: 2, Set: 1, Now: 2}))
}

// A process of uid 0 without capabilities writes down that the setting was raised from 0. Nobody
// lowers it for that: not the next window, not the next start of anything of ours.
func TestGuestForgedRecord(t *testing.T) {
	vmtest.Guest(t)
	id, err := bootID()
	qt.Assert(t, qt.IsNil(err))
	forge := func(record string) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = []string{forgerArgv0, record}
		out, err := cmd.CombinedOutput()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	}
	forge(`{"old":0,"set":2,"boot_id":"` + id + `"}`)
	report, err := Recover()
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(report, Report{}))
	qt.Check(t, qt.Equals(value(t, harden), 2))
	r, err := StandBy(t.Context(), Files{})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(value(t, harden), 2))
	gate, closed, err := r.Window(3*time.Minute, -1)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(Pass(gate)))
	forge(`{"old":0,"set":1,"boot_id":"` + id + `"}`) // while it is 1
	qt.Check(t, qt.IsNil(attack(t, "kill", r.process.Pid, "kill")))
	_, _ = closed()
	gate.Close()
	_, err = r.Restore()
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(value(t, harden) >= 1))
	qt.Assert(t, qt.IsNil(os.WriteFile(harden.sysctl, []byte("2"), 0)))
	forge("")
}

// Who has CAP_KILL kills it. Its starter restores then.
func TestGuestKilledByCapability(t *testing.T) {
	vmtest.Guest(t)
	r, err := StandBy(t.Context(), Files{})
	qt.Assert(t, qt.IsNil(err))
	gate, closed, err := r.Window(3*time.Minute, -1)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(Pass(gate)))
	qt.Check(t, qt.Equals(value(t, harden), 1))
	qt.Check(t, qt.IsNil(attack(t, "kill", r.process.Pid, "kill")))
	_, err = closed()
	qt.Check(t, qt.ErrorMatches(err, ".*has ended"))
	qt.Check(t, qt.Equals(value(t, harden), 2))
	gate.Close()
	report, err := r.Restore()
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(report, Report{Old: 2, Set: 1, Now: 2}))
}

// poor opens a window with few capabilities, says who guards it, and waits for its end.
func poor() error {
	var keep []int
	for _, c := range os.Args[1:] {
		n, err := strconv.Atoi(c)
		if err != nil {
			return err
		}
		keep = append(keep, n)
	}
	if err := privilege.Drop(keep...); err != nil {
		return err
	}
	r, err := StandBy(context.Background(), Files{})
	if err != nil {
		return err
	}
	gate, closed, err := r.Window(time.Second, -1)
	if err != nil {
		return err
	}
	if err := Pass(gate); err != nil {
		return err
	}
	fmt.Println(r.process.Pid)
	w, err := closed()
	if err == nil && !w.Overdue {
		err = fmt.Errorf("%+v", w)
	}
	report, restoreErr := r.Restore()
	if restoreErr != nil || report.Now != 2 {
		return errors.Join(err, restoreErr, errors.New(report.String()))
	}
	return err
}

// With less than all capabilities there is a window too, and with it what is documented of the
// guardian's ids. A guardian that is stopped and that its starter may not kill keeps nothing
// lowered.
func TestGuestFewCapabilities(t *testing.T) {
	vmtest.Guest(t)
	for _, tt := range []struct {
		capabilities []int
		uids         string // real, effective, saved
		stop         bool
	}{
		{[]int{unix.CAP_SYS_ADMIN}, "root root root", false},
		{[]int{unix.CAP_SYS_ADMIN, unix.CAP_SETUID, unix.CAP_SETGID}, "own root own", false},
		{[]int{unix.CAP_SYS_ADMIN, unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_NET_ADMIN}, "own own own", false},
		{[]int{unix.CAP_SYS_ADMIN, unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_NET_ADMIN}, "own own own", true},
	} {
		what := qt.Commentf("%v, stopped %v", tt.capabilities, tt.stop)
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = []string{poorArgv0}
		for _, c := range tt.capabilities {
			cmd.Args = append(cmd.Args, strconv.Itoa(c))
		}
		out, err := cmd.StdoutPipe()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(cmd.Start()))
		lines := bufio.NewReader(out)
		line, _ := lines.ReadString('\n')
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		qt.Assert(t, qt.IsNil(err), what)
		qt.Check(t, qt.Equals(value(t, harden), 1), what)
		if tt.stop {
			qt.Assert(t, qt.IsNil(unix.Kill(pid, unix.SIGSTOP)))
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		qt.Assert(t, qt.IsNil(err))
		var uids []string
		for _, uid := range strings.Fields(strings.Split(strings.Split(string(status), "\nUid:")[1], "\n")[0])[:3] {
			who := "own"
			if uid == "0" {
				who = "root"
			}
			uids = append(uids, who)
		}
		qt.Check(t, qt.Equals(strings.Join(uids, " "), tt.uids), what)
		rest, _ := io.ReadAll(lines)
		err = cmd.Wait()
		if tt.stop {
			qt.Check(t, qt.StringContains(string(rest), "did not answer"), what)
		} else {
			qt.Check(t, qt.IsNil(err), qt.Commentf("%v: %s", tt.capabilities, rest))
		}
		qt.Check(t, qt.Equals(value(t, harden), 2), what)
		if tt.stop { // it goes on, finds its time over, and leaves the value alone
			qt.Assert(t, qt.IsNil(unix.Kill(pid, unix.SIGCONT)))
			for end := time.Now().Add(10 * time.Second); len(guardians(t, harden)) > 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			}
			qt.Check(t, qt.HasLen(guardians(t, harden), 0))
			qt.Check(t, qt.Equals(value(t, harden), 2))
		}
	}
}

// What a guardian has: ids of its own, two capabilities in one thread, no signals, no descriptor
// but its own.
func TestGuestConfined(t *testing.T) {
	vmtest.Guest(t)
	leak, err := unix.Open("/dev/null", unix.O_RDONLY, 0) // without O_CLOEXEC
	qt.Assert(t, qt.IsNil(err))
	defer unix.Close(leak)
	r, err := StandBy(t.Context(), Files{})
	qt.Assert(t, qt.IsNil(err))
	dir := fmt.Sprintf("/proc/%d/", r.process.Pid)
	tasks, err := filepath.Glob(dir + "task/*/status")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(len(tasks) > 1))
	var capabilities []string
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		qt.Assert(t, qt.IsNil(err))
		status := map[string]string{}
		for line := range strings.Lines(string(b)) {
			key, v, _ := strings.Cut(strings.TrimSpace(line), ":")
			status[key] = strings.TrimSpace(v)
		}
		for _, ids := range []string{status["Uid"], status["Gid"]} {
			for id := range strings.FieldsSeq(ids) {
				n, err := strconv.ParseUint(id, 10, 32)
				qt.Check(t, qt.IsNil(err))
				qt.Check(t, qt.IsTrue(n >= 1<<31), qt.Commentf("%s", ids))
			}
		}
		qt.Check(t, qt.Equals(status["Groups"], ""))
		qt.Check(t, qt.Equals(status["CapEff"], status["CapPrm"]))
		if status["CapPrm"] != "0000000000000000" {
			capabilities = append(capabilities, status["CapPrm"])
		}
		const all = "fffffffffffbfeff" // but SIGKILL and SIGSTOP
		qt.Check(t, qt.Equals(status["SigIgn"], all))
	}
	qt.Check(t, qt.DeepEquals(capabilities, []string{fmt.Sprintf("%016x", 1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_NET_ADMIN)}))
	var st unix.Stat_t
	qt.Assert(t, qt.IsNil(unix.Stat(dir+"mem", &st)))
	qt.Check(t, qt.Equals(st.Uid, 0)) // as of a process that is not dumpable; of others it is their own uid's
	fds, err := os.ReadDir(dir + "fd")
	qt.Assert(t, qt.IsNil(err))
	var open []string
	for _, fd := range fds {
		to, err := os.Readlink(dir + "fd/" + fd.Name())
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Not(qt.Equals(to, "/dev/null")))
		open = append(open, to)
	}
	t.Logf("descriptors: %q", open)
	for _, needed := range []string{harden.lock, harden.state, harden.sysctl} {
		qt.Check(t, qt.IsTrue(slices.Contains(open, needed)), qt.Commentf("%s", needed))
	}
	environment, err := os.ReadFile(dir + "environ")
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(environment), ""))
	_, err = r.Restore()
	qt.Check(t, qt.IsNil(err))
}

// A third party's value stays, in mid-window too, also when it is the window's own. So it is with
// the kernel's file.
func TestGuestForeign(t *testing.T) {
	vmtest.Guest(t)
	for foreign := range 3 {
		r, err := StandBy(t.Context(), Files{})
		qt.Assert(t, qt.IsNil(err))
		gate, closed, err := r.Window(3*time.Minute, -1)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(Pass(gate)))
		qt.Assert(t, qt.IsNil(os.WriteFile(harden.sysctl, []byte(strconv.Itoa(foreign)), 0)))
		gate.Close()
		w, err := closed()
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.IsTrue(w.Foreign))
		_, err = r.Restore()
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(value(t, harden), foreign))
		qt.Assert(t, qt.IsNil(os.WriteFile(harden.sysctl, []byte("2"), 0)))
	}
}

// Where the old value cannot be noted down nothing is lowered. A file system that fills up later
// does no harm.
func TestGuestNoPlace(t *testing.T) {
	vmtest.Guest(t)
	place := func(flags uintptr, options string, fill func()) error {
		qt.Assert(t, qt.IsNil(unix.Mount("tmpfs", "/run", "tmpfs", flags, options)))
		defer unix.Unmount("/run", unix.MNT_DETACH)
		if fill != nil {
			fill()
		}
		r, err := StandBy(t.Context(), Files{})
		if err != nil {
			qt.Check(t, qt.Equals(value(t, harden), 2))
			return err
		}
		gate, closed, err := r.Window(3*time.Minute, -1)
		qt.Assert(t, qt.IsNil(err))
		passErr := Pass(gate)
		gate.Close()
		_, err = closed()
		qt.Check(t, qt.Equals(value(t, harden), 2))
		_, restoreErr := r.Restore()
		qt.Check(t, qt.IsNil(restoreErr))
		return errors.Join(passErr, err)
	}
	fill := func() {
		f, err := os.Create("/run/full")
		qt.Assert(t, qt.IsNil(err))
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		qt.Assert(t, qt.ErrorIs(err, unix.ENOSPC))
	}
	qt.Check(t, qt.ErrorMatches(place(unix.MS_RDONLY, "", nil), ".*read-only file system"))
	qt.Check(t, qt.ErrorMatches(place(0, "nr_inodes=1", nil), ".*no space left on device"))
	qt.Check(t, qt.ErrorMatches(place(0, "nr_inodes=3", nil), ".*no space left on device")) // for the folder and the lock, and not for the state
	qt.Check(t, qt.ErrorMatches(place(0, "size=16k", fill), ".*no space left on device"))
	qt.Check(t, qt.IsNil(place(0, "size=16k", nil)))
	qt.Check(t, qt.IsNil(place(0, "size=16k", func() {
		r, err := StandBy(t.Context(), Files{})
		qt.Assert(t, qt.IsNil(err))
		_, err = r.Restore()
		qt.Assert(t, qt.IsNil(err))
		fill()
	})))
	// Missing: a folder of that name is made where that is possible.
	qt.Assert(t, qt.IsNil(unix.Unmount("/run", unix.MNT_DETACH)))
	qt.Assert(t, qt.IsNil(os.RemoveAll("/run")))
	r, err := StandBy(t.Context(), Files{})
	qt.Assert(t, qt.IsNil(err))
	_, err = r.Restore()
	qt.Check(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.RemoveAll("/run")))
	qt.Assert(t, qt.IsNil(os.WriteFile("/run", nil, 0o600)))
	_, err = StandBy(t.Context(), Files{})
	qt.Check(t, qt.ErrorMatches(err, ".*make folder of lock.*not a directory"))
	qt.Check(t, qt.Equals(value(t, harden), 2))
	qt.Assert(t, qt.IsNil(os.Remove("/run")))
	qt.Assert(t, qt.IsNil(os.Mkdir("/run", 0o755)))
	qt.Assert(t, qt.IsNil(unix.Mount("tmpfs", "/run", "tmpfs", 0, "")))
}

// turn is one process' use of the setting.
type turn struct {
	Old        int
	Began, End int64
}

// takeTurns raises the setting, from within a mount namespace that has its own /run, and no
// tracefs, in turn with others.
func takeTurns() error {
	runtime.LockOSThread()
	err := errors.Join(
		unix.Unshare(unix.CLONE_NEWNS),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("tmpfs", "/run", "tmpfs", 0, ""))
	if os.Args[1] == "unmounted" {
		err = errors.Join(err, unix.Unmount("/sys/kernel/tracing", unix.MNT_DETACH), unix.Unmount("/sys/kernel/debug", unix.MNT_DETACH))
	}
	if err != nil {
		return err
	}
	for range 3 {
		r, err := RaiseHarden(context.Background(), 2)
		if err != nil {
			return err
		}
		t := turn{Old: r.Old(), Began: monotonic()}
		time.Sleep(20 * time.Millisecond)
		t.End = monotonic()
		if _, err := r.Restore(); err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(t); err != nil {
			return err
		}
	}
	return nil
}

// Guardians take turns that have no file in common, as in two containers, whether they see tracefs
// or not.
func TestGuestTurns(t *testing.T) {
	vmtest.Guest(t)
	qt.Assert(t, qt.IsNil(os.WriteFile(harden.sysctl, []byte("0"), 0)))
	defer os.WriteFile(harden.sysctl, []byte("2"), 0)
	var turns []turn
	outs := make(chan []byte)
	for i := range 4 {
		go func() {
			cmd := exec.Command("/proc/self/exe")
			cmd.Args = []string{turnArgv0, []string{"mounted", "unmounted"}[i%2]}
			out, err := cmd.Output()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
			outs <- out
		}()
	}
	for range 4 {
		out := <-outs
		for line := range strings.Lines(string(out)) {
			var one turn
			qt.Check(t, qt.IsNil(json.Unmarshal([]byte(line), &one)))
			turns = append(turns, one)
		}
	}
	qt.Assert(t, qt.HasLen(turns, 12))
	slices.SortFunc(turns, func(a, b turn) int { return int(a.Began - b.Began) })
	for i, one := range turns {
		qt.Check(t, qt.Equals(one.Old, 0)) // the one before has restored
		qt.Check(t, qt.IsTrue(i == 0 || turns[i-1].End <= one.Began))
	}
	qt.Check(t, qt.Equals(value(t, harden), 0))
	var st unix.Stat_t
	qt.Assert(t, qt.IsNil(unix.Stat("/sys/kernel/tracing", &st)))
	qt.Check(t, qt.Equals(st.Uid, 0))
	qt.Check(t, qt.Equals(st.Mode&0o077, 0)) // nobody else can hold the lock
}
