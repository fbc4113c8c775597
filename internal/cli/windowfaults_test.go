// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
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

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/repair/hardenwindow"
	"github.com/bpfwhy/bpfwhy/internal/repair/interpose"
	"github.com/bpfwhy/bpfwhy/internal/repair/surrogate"
	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// TestKernelsWindowFaults: a guardian has a processor of its own, as on all but the smallest nodes.
func TestKernelsWindowFaults(t *testing.T) {
	limit := 15 * time.Minute
	if vmtest.Long() {
		limit = 2 * time.Hour
	}
	vmtest.RunIn(t, vmtest.Oldest(), "^TestInGuestWindowFaults$", vm.Machine{
		CPUs: 2, Timeout: limit, Sysctls: map[string]string{"net.core.bpf_jit_harden": "2"},
		Env: []string{faultSeedEnv + "=" + os.Getenv(faultSeedEnv), faultRoundsEnv + "=" + os.Getenv(faultRoundsEnv)},
	})
}

// These repeat a run, and make it shorter or longer.
const (
	faultSeedEnv   = "BPFWHY_FAULT_SEED"
	faultRoundsEnv = "BPFWHY_FAULT_ROUNDS"
)

// The processes of 'bpfwhy run --repair --harden-window'.
const (
	roleProxy            = "bpfwhy"
	roleListenerGuardian = "guardian of the listener"
	roleServer           = "starter of loading processes"
	roleLoading          = "loading process"
	roleGuardian         = "guardian of the setting"
	roleCommand          = "command"
)

var chainRoles = []string{roleProxy, roleListenerGuardian, roleServer, roleLoading, roleGuardian, roleCommand}

// faultLimit is how long the setting may be lowered: the deadline, and a second.
const faultLimit = hardenwindow.Longest + time.Second

// fault is one round: who is struck, how, and what else happens.
type fault struct {
	victims []string
	signal  syscall.Signal
	latched bool   // the window ends when the kernel has the instructions: too short to aim at
	foreign string // what a third party writes meanwhile
	delay   float64
}

func (f fault) String() string {
	who := strings.Join(f.victims, ", ")
	if len(f.victims) > 1 {
		who = "all but the " + roleGuardian
	}
	return fmt.Sprintf("%s to %s, latched %v, foreign %q", unix.SignalName(f.signal), who, f.latched, f.foreign)
}

// faults are the rounds of a run. Each kind comes before one comes again.
func faults(rnd *rand.Rand, rounds int, latches bool) []fault {
	victims := [][]string{slices.DeleteFunc(slices.Clone(chainRoles), func(r string) bool { return r == roleGuardian })}
	for _, r := range chainRoles {
		victims = append(victims, []string{r})
	}
	var list []fault
	for len(list) < rounds {
		from := len(list)
		for _, v := range victims {
			for _, s := range []syscall.Signal{unix.SIGSTOP, unix.SIGKILL} {
				f := fault{victims: v, signal: s, delay: rnd.Float64()}
				f.latched = latches && rnd.IntN(4) == 0
				if rnd.IntN(3) == 0 {
					// A 1 of a third party looks like ours to all but the guardian itself: see
					// docs/hardening.md.
					f.foreign = []string{"0", "1"}[rnd.IntN(2)]
					if slices.Contains(v, roleGuardian) {
						f.foreign = "0"
					}
				}
				list = append(list, f)
			}
		}
		rnd.Shuffle(len(list)-from, func(i, j int) { list[from+i], list[from+j] = list[from+j], list[from+i] })
	}
	return list[:rounds]
}

// TestInGuestWindowFaults: 'bpfwhy run --repair' with a window open. Any one of its processes is
// stopped or killed at a random moment, or all but the guardian together. The setting is never
// below 1, is not lowered for longer than the deadline and a second, and what a third party writes
// meanwhile stays. Afterwards nothing is left.
func TestInGuestWindowFaults(t *testing.T) {
	kernel := vmtest.Guest(t)
	rounds := 4 // of 14 kinds: each of seven, stopped and killed. A window is open for up to its deadline, 10 s
	if vmtest.Long() {
		rounds = 40 // on each of five kernels
	}
	if n, err := strconv.Atoi(os.Getenv(faultRoundsEnv)); err == nil {
		rounds = n
	}
	seed, err := strconv.ParseUint(os.Getenv(faultSeedEnv), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("%s=%d", faultSeedEnv, seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	aimed, open, latched := 0, 0, 0
	var longest time.Duration
	for i, f := range faults(rnd, rounds, kernel != "5.10") {
		began := time.Now()
		s := watchSetting(t)
		struckOpen := f.strike(t, s)
		s.end()
		what := qt.Commentf("round %d: %v", i, f)
		qt.Check(t, qt.IsTrue(s.low >= 1), qt.Commentf("%v: it was %d", what, s.low))
		qt.Check(t, qt.IsTrue(s.longest <= faultLimit), qt.Commentf("%v: 1 for %v", what, s.longest))
		qt.Check(t, qt.Equals(s.overwritten, ""), what)
		t.Logf("round %d: %v: open %v, %d windows, the longest %v; took %v", i, f, struckOpen, s.windows, s.longest.Round(time.Millisecond), time.Since(began).Round(time.Second))
		if longest = max(longest, s.longest); f.latched {
			latched++
			continue
		}
		aimed++
		if struckOpen {
			open++
		}
	}
	t.Logf("%d rounds, %d latched; the window was open in %d of the other %d; the longest %v", rounds, latched, open, aimed, longest)
	qt.Check(t, qt.IsTrue(4*open >= 3*aimed), qt.Commentf("struck with the window open: %d of %d", open, aimed))
}

// strike is one round.
func (f fault) strike(t *testing.T, s *settingWatch) (open bool) {
	t.Helper()
	what := qt.Commentf("%v", f)
	c := startChain(t, f.latched)
	defer c.clean(t, f)
	line, err := c.said.ReadString('\n')
	qt.Assert(t, qt.IsNil(err), what)
	qt.Assert(t, qt.Equals(line, "loaded\n"), what)
	go io.Copy(io.Discard, c.said)

	// The setting has been lowered once, for the first load: that is how long there is to strike.
	length := s.longestSoFar()
	var pids []int
	ready := until(time.Minute, func() bool {
		if settingNow(t) != "1" {
			return false
		}
		lowered := time.Now()
		if pids = c.pids(f.victims); len(pids) < len(f.victims) {
			return false
		}
		if f.latched {
			return true
		}
		time.Sleep(time.Until(lowered.Add(time.Duration(f.delay * float64(length) / 2))))
		return settingNow(t) == "1" // else the next
	})
	qt.Assert(t, qt.IsTrue(ready), what)
	open = settingNow(t) == "1"
	if f.foreign != "" {
		s.third(t, f.foreign)
	}
	for _, pid := range pids {
		_ = unix.Kill(pid, f.signal)
	}
	// Somebody puts it back, in time. What goes on from there may lower it again.
	if f.foreign == "" {
		qt.Check(t, qt.IsTrue(until(faultLimit, func() bool { return settingNow(t) != "1" })), qt.Commentf("%v: not put back", what))
	}
	time.Sleep(300 * time.Millisecond)
	if f.signal == unix.SIGSTOP { // who goes on later does no harm
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGCONT)
		}
		time.Sleep(300 * time.Millisecond)
	}
	return open
}

// chain is bpfwhy with all that it starts.
type chain struct {
	cmd    *exec.Cmd
	said   *bufio.Reader
	out    *os.File
	kernel map[string]bool // threads of the kernel: a look at each takes an emulated machine long
}

func startChain(t *testing.T, latched bool) *chain {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.Symlink(self, filepath.Join(dir, againArgv0))))
	args := []string{"run", "--repair", "--harden-window", "--backend", "tp_btf", "--output", filepath.Join(dir, "out"), "--", filepath.Join(dir, againArgv0)}
	c := &chain{cmd: bpfwhy(args...), kernel: map[string]bool{}}
	if !latched {
		// Without CAP_SYS_PTRACE there is no latch, as in most containers: the window is the call.
		c.cmd = exec.Command("/proc/self/exe", args...)
		c.cmd.Args[0] = withoutLatchArgv0
	}
	r, w, err := os.Pipe()
	qt.Assert(t, qt.IsNil(err))
	c.cmd.Stdout, c.cmd.Stderr = w, os.Stderr
	qt.Assert(t, qt.IsNil(c.cmd.Start()))
	w.Close()
	c.out, c.said = r, bufio.NewReader(r)
	return c
}

// members are the living processes of the chain by their roles.
func (c *chain) members() map[string][]int {
	members := map[string][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if c.kernel[dir] {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		stat, alive := proc.ReadStat(dir + "/")
		if stat.Parent == 2 { // kthreadd
			c.kernel[dir] = true
			continue
		}
		argv0, _, _ := strings.Cut(proc.Read(dir+"/cmdline"), "\x00")
		role := ""
		switch {
		case !alive || stat.State == 'Z' || stat.State == 'X':
		case pid == c.cmd.Process.Pid:
			role = roleProxy
		case argv0 == interpose.Argv0:
			role = roleListenerGuardian
		case argv0 == surrogate.Argv0 && strings.HasSuffix(proc.Field(proc.Read(dir+"/status"), "NSpid"), "\t1"): // the first of its namespace
			role = roleServer
		case argv0 == surrogate.Argv0:
			role = roleLoading
		case argv0 == guardian.Argv0:
			role = roleGuardian
		case filepath.Base(argv0) == againArgv0:
			role = roleCommand
		}
		if role != "" {
			members[role] = append(members[role], pid)
		}
	}
	return members
}

// pids are those of some roles.
func (c *chain) pids(roles []string) (pids []int) {
	members := c.members()
	for _, r := range roles {
		pids = append(pids, members[r]...)
	}
	return pids
}

// clean ends the command and bpfwhy, and looks at what is left.
func (c *chain) clean(t *testing.T, f fault) {
	t.Helper()
	what := qt.Commentf("%v", f)
	for _, pid := range c.pids([]string{roleProxy, roleCommand}) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	_ = c.cmd.Wait()
	c.out.Close()
	// A call that the kernel is at is ended before its process is.
	gone := until(time.Minute, func() bool { return len(c.members()) == 0 })
	qt.Check(t, qt.IsTrue(gone), qt.Commentf("%v: %v are left", what, c.members()))
	want := "2"
	if f.foreign != "" {
		want = f.foreign
	}
	qt.Check(t, qt.Equals(settingNow(t), want), what)
	// The record says that nothing is changed.
	left, err := guardian.Left()
	qt.Check(t, qt.IsNil(err), what)
	qt.Check(t, qt.Equals(left, guardian.Report{}), what)
	r, err := guardian.Recover()
	qt.Check(t, qt.IsNil(err), what)
	qt.Check(t, qt.Equals(r, guardian.Report{}), what)
	files, err := filepath.Glob("/run/bpfwhy/*")
	qt.Check(t, qt.IsNil(err), what)
	qt.Check(t, qt.DeepEquals(files, []string{"/run/bpfwhy/harden.json", "/run/bpfwhy/harden.lock"}), what)
}

// The names under which the test binary is the command, and bpfwhy without what a latch takes.
const (
	againArgv0        = "load-again"
	withoutLatchArgv0 = "without-latch"
)

// withoutLatch becomes bpfwhy without CAP_SYS_PTRACE.
func withoutLatch(args []string) int {
	runtime.LockOSThread()
	err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_PTRACE, 0, 0, 0)
	if err == nil {
		err = unix.Exec("/proc/self/exe", append([]string{"bpfwhy"}, args...), os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// loadAgain loads a program again and again that only a window helps.
func loadAgain() int {
	code := insn.Encode(onlyInWindow())
	license := []byte("GPL\x00")
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&code[0])
	pin.Pin(&license[0])
	a := abi.ProgLoad{
		ProgType: abi.ProgTypeSocketFilter, InsnCnt: uint32(len(code) / insn.Size), ProgName: abi.NameOf("only_in_window"),
		Insns: uint64(uintptr(unsafe.Pointer(&code[0]))), License: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	for {
		fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&a)), unsafe.Offsetof(a.FDArray))
		switch errno {
		case 0:
			unix.Close(int(fd))
			fmt.Println("loaded")
		default:
			fmt.Println(errno)
		}
	}
}

// onlyInWindow has a jump over calls that the verifier makes longer, by constants that blinding
// makes longer still. No rewriting allows for as much: as submitted, nothing is far.
func onlyInWindow() []insn.Instruction {
	const calls, jiffies64 = 4_200, 118 // each is one slot, then three, blinded eight
	p := []insn.Instruction{
		{Code: 0x61, Dst: 2, Src: 1},              // r2 = skb->len
		{Code: 0x15, Dst: 2, Imm: 64, Off: calls}, // if r2 == 64 goto the end
	}
	for range calls {
		p = append(p, insn.Instruction{Code: 0x85, Imm: jiffies64})
	}
	return append(p, insn.Instruction{Code: 0xb7}, insn.Instruction{Code: 0x95})
}

const settingFile = "/proc/sys/net/core/bpf_jit_harden"

func settingNow(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(settingFile)
	qt.Assert(t, qt.IsNil(err))
	return strings.TrimSpace(string(b))
}

// settingWatch reads the setting all the time.
type settingWatch struct {
	low         int           // lowest value that no third party wrote
	windows     int           // times that it became 1
	longest     time.Duration // that it was 1 in one go
	overwritten string        // what became of a third party's value, "" if it stayed

	mu      sync.Mutex
	last    int
	since   time.Time
	foreign atomic.Pointer[string]
	stop    chan struct{}
	done    sync.WaitGroup
}

func watchSetting(t *testing.T) *settingWatch {
	t.Helper()
	f, err := os.Open(settingFile)
	qt.Assert(t, qt.IsNil(err))
	s := &settingWatch{low: 2, last: 2, stop: make(chan struct{})}
	s.done.Go(func() {
		defer f.Close()
		var b [1]byte
		for {
			select {
			case <-s.stop:
				return
			default:
			}
			foreign := s.foreign.Load() // before the value is read
			_, _ = f.ReadAt(b[:], 0)
			s.saw(string(b[:]), foreign)
			time.Sleep(time.Millisecond) // more often, an emulated machine does little else
		}
	})
	return s
}

func (s *settingWatch) saw(value string, foreign *string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if foreign != nil {
		if value != *foreign && s.overwritten == "" {
			s.overwritten = fmt.Sprintf("a third party wrote %s, and it became %s", *foreign, value)
		}
		return
	}
	if s.foreign.Load() != nil {
		return // it may be of the third party, or from before
	}
	v := int(value[0] - '0')
	if v == 1 && s.last != 1 {
		s.since = time.Now()
		s.windows++
	}
	if s.last == 1 {
		s.longest = max(s.longest, time.Since(s.since))
	}
	s.last, s.low = v, min(s.low, v)
}

func (s *settingWatch) longestSoFar() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.longest
}

// third writes as a third party does.
func (s *settingWatch) third(t *testing.T, value string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	qt.Assert(t, qt.IsNil(os.WriteFile(settingFile, []byte(value), 0)))
	s.foreign.Store(&value)
}

// end ends the watch, and puts back what a third party wrote.
func (s *settingWatch) end() {
	close(s.stop)
	s.done.Wait()
	if s.foreign.Load() != nil {
		_ = os.WriteFile(settingFile, []byte("2"), 0)
	}
}

// until waits for a condition.
func until(limit time.Duration, is func() bool) bool {
	for end := time.Now().Add(limit); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			return is()
		}
	}
	return true
}
