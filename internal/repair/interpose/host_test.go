// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/repair/hardenwindow"
	"github.com/bpfwhy/bpfwhy/internal/repair/ladder"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

func inGuest() bool { return os.Getenv(wire.KernelEnv) != "" }

func decode(t testing.TB, output string) (r result) {
	t.Helper()
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(output), &r)), qt.Commentf("%q", output))
	return r
}

// natively runs a loader without a proxy.
func natively(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{loaderArgv0}, args...)
	out, err := cmd.Output()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	return string(out)
}

// loads runs a loader under a proxy.
func loads(t testing.TB, killable bool, args ...string) (string, []*load.Attempt) {
	t.Helper()
	return under(t, killable, "/proc/self/exe", append([]string{loaderArgv0}, args...)...)
}

// both runs a test with the kernel's means and with those of older kernels.
func both(t *testing.T, f func(t *testing.T, killable bool)) {
	if os.Getenv(wire.KernelEnv) != "5.10" { // it is one of them
		t.Run("killable", func(t *testing.T) { f(t, true) })
	}
	t.Run("interruptible", func(t *testing.T) { f(t, false) })
}

// newest is both where there is time for it, and else with the kernel's means.
func newest(t *testing.T, f func(t *testing.T, killable bool)) {
	if inGuest() && !vmtest.Long() {
		f(t, true)
		return
	}
	both(t, f)
}

func repaired(t testing.TB, r result) {
	t.Helper()
	qt.Assert(t, qt.Equals(r.Errno, 0))
	qt.Check(t, qt.IsTrue(r.JITed))
	qt.Check(t, qt.Equals(r.Ran, [3]uint32{7, sum(100, farBody), sum(200, farBody)}))
}

// Everywhere are the tests that hold on the host and on every kernel of the lab, at harden=2.
func everywhere(t *testing.T) {
	hardened(t)
	t.Run("broken without us", testBroken)
	t.Run("far", func(t *testing.T) { both(t, testFar) })
	t.Run("log", testLog)
	t.Run("identity", testIdentity)
	t.Run("no more than natively", testNoMore)
	t.Run("hostile", func(t *testing.T) { newest(t, testHostile) })
	t.Run("hoard", testHoard)
	t.Run("descriptors of its own", testOwnDescriptors)
	t.Run("changing", func(t *testing.T) { newest(t, testChanging) })
	t.Run("many", func(t *testing.T) { newest(t, testMany) })
	t.Run("interrupted", func(t *testing.T) { newest(t, testInterrupted) })
	t.Run("answer under signals", func(t *testing.T) { newest(t, testAnswerUnderSignals) })
	t.Run("answer again", testAnswerAgain)
	t.Run("forks", func(t *testing.T) { newest(t, testForks) })
	t.Run("nested", testNested)
	t.Run("traced", testTraced)
	t.Run("window", testWindow)
	t.Run("vain window", testVain)
}

func TestHost(t *testing.T) { everywhere(t) }

// The programs of these tests are ones that blinding does break.
func testBroken(t *testing.T) {
	r := decode(t, natively(t, "far"))
	qt.Assert(t, qt.IsFalse(r.JITed))
}

func testFar(t *testing.T, killable bool) {
	out, repairs := loads(t, killable, "far")
	r := decode(t, out)
	repaired(t, r)
	qt.Check(t, qt.Equals(r.Count, 2))
	qt.Assert(t, qt.HasLen(repairs, 1))
	a := repairs[0]
	qt.Check(t, qt.Equals(a.Program.Name, "far"))
	qt.Check(t, qt.Equals(a.Program.Type, "socket_filter"))
	qt.Check(t, qt.Equals(a.Program.Insns, farBody+19))
	// One jump is too far: one island, and a goto for the code that would fall into it.
	qt.Check(t, qt.DeepEquals(*a.Repair, load.Repair{Applied: load.RepairIslands, Islands: 1, InsnsAdded: 2}))
	qt.Check(t, qt.Equals(a.Process.Comm, "exe")) // of /proc/self/exe
}

// A loader that asks for a log gets that of its own program.
func testLog(t *testing.T) {
	native, repaired_ := decode(t, natively(t, "far-log")), result{}
	out, _ := loads(t, true, "far-log")
	repaired_ = decode(t, out)
	repaired(t, repaired_)
	qt.Assert(t, qt.Not(qt.Equals(native.Log, "")))
	qt.Check(t, qt.Equals(withoutTimes(repaired_.Log), withoutTimes(native.Log)))
	qt.Check(t, qt.Equals(repaired_.True == 0, native.True == 0))
}

var (
	verificationTime = regexp.MustCompile(`(?m)^verification time \d+ usec$`)
	// lengthWithTime is the size of a log that was not written and has a time in it.
	lengthWithTime = regexp.MustCompile(`("Name":"log in a page that is executed".*?"True":)\d+`)
)

func withoutTimes(log string) string {
	return lengthWithTime.ReplaceAllString(verificationTime.ReplaceAllString(log, ""), "${1}0")
}

const (
	nobody = "65534"
	capBPF = 1 << unix.CAP_BPF
	capNet = 1 << unix.CAP_NET_ADMIN
)

// A program belongs to the user of the thread that wanted it.
func testIdentity(t *testing.T) {
	caps := fmt.Sprintf("%x", uint64(capBPF|capNet|1<<unix.CAP_SYS_ADMIN)) // 5.10 shows programs to CAP_SYS_ADMIN alone
	for _, mode := range []string{"far", "small"} {
		out, repairs := loads(t, true, "as", nobody, caps, mode)
		r := decode(t, out)
		qt.Assert(t, qt.Equals(r.Errno, 0))
		qt.Check(t, qt.IsTrue(r.JITed))
		qt.Check(t, qt.Equals(r.UID, 65534), qt.Commentf(mode))
		if mode == "far" {
			qt.Assert(t, qt.HasLen(repairs, 1))
			qt.Check(t, qt.Equals(repairs[0].Process.UID, 65534))
		} else {
			qt.Check(t, qt.Equals(len(repairs), 0))
		}
	}
}

// Who may not load a program does not get it from us either.
func testNoMore(t *testing.T) {
	const socketFilter, schedCLS, kprobe = "1", "3", "2"
	for _, tt := range []struct {
		name string
		args []string
		want unix.Errno // 0: whatever the kernel says natively
	}{
		{"nobody", []string{"as", nobody, "0", "plain-far", socketFilter}, 0},
		{"nobody with CAP_NET_ADMIN", []string{"as", nobody, fmt.Sprintf("%x", capNet), "plain-far", schedCLS}, 0},
		{"CAP_BPF is not enough for the network", []string{"as", nobody, fmt.Sprintf("%x", capBPF), "plain-far", schedCLS}, unix.EPERM},
		{"CAP_BPF is not enough for the network, as root", []string{"as", "0", fmt.Sprintf("%x", capBPF), "plain-far", schedCLS}, unix.EPERM},
		{"nor for kprobes", []string{"as", "0", fmt.Sprintf("%x", capBPF|capNet), "plain-far", kprobe}, unix.EPERM},
		{"root without capabilities", []string{"as", "0", "0", "plain-far", socketFilter}, 0},
		{"root of a user namespace", []string{"in-user-namespace", "plain-far", schedCLS}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			native := decode(t, natively(t, tt.args...))
			out, repairs := loads(t, true, tt.args...)
			r := decode(t, out)
			qt.Check(t, qt.Not(qt.Equals(native.Errno, 0)))
			qt.Check(t, qt.Equals(r.Errno, native.Errno))
			if tt.want != 0 {
				qt.Check(t, qt.Equals(unix.Errno(r.Errno), tt.want))
			}
			qt.Check(t, qt.Equals(len(repairs), 0))
		})
	}
}

// Loads that are wrong end as they do natively, to the last byte of the log.
func testHostile(t *testing.T, killable bool) {
	native := natively(t, "hostile")
	out, repairs := loads(t, killable, "hostile")
	qt.Check(t, qt.Equals(withoutTimes(out), withoutTimes(native)))
	qt.Check(t, qt.Equals(len(repairs), 0))
}

// What happens to the memory while we work has no effect but on the load's own outcome.
func testChanging(t *testing.T, killable bool) {
	out, _ := loads(t, killable, "changing")
	repaired(t, decode(t, out))
}

func testMany(t *testing.T, killable bool) {
	threads, each, farEvery := 50, 20, 0 // one by one they are quick
	want := threads * each
	out, _ := loads(t, killable, "many", fmt.Sprint(threads), fmt.Sprint(each), fmt.Sprint(farEvery))
	check := func(out string, want int) {
		t.Helper()
		var got struct {
			Errnos map[int]int
			JITed  int
		}
		qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(out), &got)))
		qt.Check(t, qt.DeepEquals(got.Errnos, map[int]int{0: want}))
		qt.Check(t, qt.Equals(got.JITed, want))
	}
	check(out, want)
	// Identical ones that have to be repaired, all at once.
	if !inGuest() {
		out, repairs := loads(t, killable, "many", "50", "1", "1")
		check(out, 50)
		qt.Check(t, qt.Equals(len(repairs), 50))
		return
	}
	out, repairs := loads(t, killable, "many", "4", "1", "1")
	check(out, 4)
	qt.Check(t, qt.Equals(len(repairs), 4))
}

// Signals that come faster than the load is made do not keep it from ending; and when they leave
// the time to look at the program, it is repaired.
func testInterrupted(t *testing.T, killable bool) {
	hurry := "100us"
	if inGuest() {
		hurry = "5ms"
	}
	for _, period := range []string{hurry, fairPeriod} {
		out, _ := loads(t, killable, "interrupted", period)
		r := decode(t, out)
		if period == hurry && !killable && r.Errno == 524 { // what the kernel says by itself
			continue
		}
		qt.Check(t, qt.Equals(r.Errno, 0), qt.Commentf("every %s", period))
		qt.Check(t, qt.IsTrue(r.JITed || period == hurry && !killable), qt.Commentf("every %s", period))
	}
}

func testForks(t *testing.T, killable bool) {
	n := "64"
	if inGuest() {
		n = "12"
	}
	out, _ := loads(t, killable, "forks", n)
	repaired(t, decode(t, out))
}

// What no rewriting helps is loaded in a window, when that was asked for, and is left to the kernel
// otherwise.
func testWindow(t *testing.T) {
	dir := t.TempDir()
	window := &hardenwindow.Options{Guardian: guardian.Files{Lock: filepath.Join(dir, "lock"), State: filepath.Join(dir, "run", "state")}}
	for _, w := range []*hardenwindow.Options{nil, window} {
		s, err := beginWith(Options{Window: w, limits: []int{}}, true, "/proc/self/exe", []string{loaderArgv0, "far"}, nil)
		qt.Assert(t, qt.IsNil(err))
		r := decode(t, s.wait(t))
		if w == nil {
			qt.Check(t, qt.IsFalse(r.JITed))
			qt.Check(t, qt.Equals(len(s.repairs()), 0))
			continue
		}
		repaired(t, r)
		qt.Assert(t, qt.Equals(len(s.repairs()), 1))
		got := s.repairs()[0].Repair
		qt.Check(t, qt.Equals(got.Applied, load.RepairWindow))
		qt.Check(t, qt.IsTrue(got.WindowNS > 0))
		qt.Check(t, qt.Equals(got.WholeCall, os.Getenv(wire.KernelEnv) == "5.10"))
		t.Log("open for", got.WindowNS)
		harden, err := os.ReadFile("/proc/sys/net/core/bpf_jit_harden")
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(string(harden), "2\n"))
	}
	// While the window of one is open, the setting is 1: the others are not taken for loads that
	// need no help. They wait without a guardian of their own.
	threads, each := 4, 2
	if inGuest() {
		each = 1
	}
	before := len(guardians())
	most := make(chan int)
	stop := make(chan struct{})
	go func() {
		n, pause := 0, 2*time.Millisecond
		for {
			select {
			case <-stop:
				most <- n
				return
			case <-time.After(pause):
				start := time.Now()
				n = max(n, len(guardians()))
				pause = 5 * time.Since(start) // a look at all of /proc takes an emulated machine long
			}
		}
	}()
	s, err := beginWith(Options{Window: window, limits: []int{}}, true, "/proc/self/exe", []string{loaderArgv0, "many", strconv.Itoa(threads), strconv.Itoa(each), "1"}, nil)
	qt.Assert(t, qt.IsNil(err))
	var all struct{ JITed int }
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(s.wait(t)), &all)))
	qt.Check(t, qt.Equals(all.JITed, each*threads))
	qt.Check(t, qt.Equals(len(s.repairs()), each*threads), qt.Commentf("left: %v", s.proxy.Unrepaired()))
	close(stop)
	qt.Check(t, qt.Equals(<-most-before, 1))
}

// guardians are those of windows and settings that this process has started.
func guardians() (pids []int) {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		b, _ := os.ReadFile(list)
		children, _ := numbers(string(b))
		for _, pid := range children {
			if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.HasPrefix(string(b), guardian.Argv0+"\x00") {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// Where 1 does not spare the loader no window is opened for it. One that is opened in vain is told,
// and is the last for that program.
func testVain(t *testing.T) {
	if hardenwindow.Spares(node.Uname().Release, capBPF) {
		t.Skip("1 spares loaders with CAP_BPF here")
	}
	dir := t.TempDir()
	window := &hardenwindow.Options{Guardian: guardian.Files{Lock: filepath.Join(dir, "lock"), State: filepath.Join(dir, "run", "state")}}
	for _, without := range []bool{true, false} {
		o := Options{Window: window, limits: []int{}, without: guards{spared: without}}
		s, err := beginWith(o, true, "/proc/self/exe", []string{loaderArgv0, "as", nobody, fmt.Sprintf("%x", capBPF), "plain-far", "1", "again"}, nil)
		qt.Assert(t, qt.IsNil(err))
		s.wait(t)
		qt.Check(t, qt.Equals(len(s.repairs()), 0))
		left := s.proxy.Unrepaired()
		qt.Check(t, qt.Equals(left.Window, 2))
		if !without {
			qt.Check(t, qt.Equals(left.Vain, Vain{}))
			qt.Check(t, qt.ErrorIs(left.WindowErr, ladder.ErrNotSpared))
			continue
		}
		qt.Check(t, qt.IsTrue(left.Vain.Open > 0), qt.Commentf("%v", left))
		// Latched, and then for the whole call. On a busy machine the kernel may come too late for
		// a latched one, of which three are tried.
		qt.Check(t, qt.IsTrue(left.Vain.Windows >= 2 && left.Vain.Windows <= 4), qt.Commentf("%v", left))
		qt.Check(t, qt.Equals(left.Vain.WholeCalls, 1))
	}
}

// A listener in a listener is refused, and says so.
func testNested(t *testing.T) {
	s, err := begin(true, "/proc/self/exe", []string{nestedArgv0}, nil)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Matches(s.wait(t), "somebody listens .*\n"))
}

// A sandbox inside that has its tracer asked about bpf(2) is not asked: the listener outranks it.
// Without us the load fails, as there is no tracer.
func testTraced(t *testing.T) {
	qt.Check(t, qt.Equals(decode(t, natively(t, "traced")).Errno, int(unix.ENOSYS)))
	out, _ := loads(t, true, "traced")
	r := decode(t, out)
	qt.Check(t, qt.Equals(r.Errno, 0))
	qt.Check(t, qt.IsTrue(r.FD >= 0))
}
