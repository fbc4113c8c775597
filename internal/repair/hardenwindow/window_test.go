// SPDX-License-Identifier: Apache-2.0

package hardenwindow

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
)

// windowArgv0 makes this test binary a program that opens windows until it is killed.
const windowArgv0 = "hardenwindow-test"

const settingFile = "/proc/sys/net/core/bpf_jit_harden"

func TestMain(m *testing.M) {
	guardian.Main()
	act()
	if os.Args[0] == windowArgv0 {
		for {
			fd, _, err := Load(context.Background(), far(), Options{Guardian: guardian.Files{Lock: os.Args[1], State: os.Args[2]}, WholeCall: os.Args[3] == "whole"})
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			unix.Close(fd)
			fmt.Println("loaded")
		}
	}
	os.Exit(m.Run())
}

// far loads a socket filter whose jump blinding stretches out of reach, by 126 slots. Each constant
// that is blinded costs the kernel a copy of the program, so there are no more of them than that
// takes.
func far() Loader {
	const body, every = 32_700, 512
	code := []insn.Instruction{
		{Code: 0x61, Dst: 2, Src: 1}, // the packet's length
		{Code: 0x15, Dst: 2, Imm: 64, Off: body},
	}
	for i := range body {
		in := insn.Instruction{Code: 0xbf, Dst: 3, Src: 2}
		if i%every == every-1 {
			in = insn.Instruction{Code: 0x07, Dst: 2, Imm: 1}
		}
		code = append(code, in)
	}
	return loader(append(code, insn.Instruction{Code: 0xb7}, insn.Instruction{Code: 0x95}))
}

func loader(code []insn.Instruction) Loader {
	encoded := insn.Encode(code)
	return Loader{
		Code: encoded,
		Load: func(address uintptr, gate *os.File) (int, error) {
			if address == 0 {
				address = uintptr(unsafe.Pointer(&encoded[0]))
			}
			license := [4]byte{'G', 'P', 'L'}
			a := struct {
				typ, count     uint32
				insns, license uint64
				_              [24]byte
			}{typ: 1, count: uint32(len(code)), insns: uint64(address), license: uint64(uintptr(unsafe.Pointer(&license)))}
			// A signal, of Go's scheduler or of a guardian's end, would end the verifier's work.
			defer blockSignals()()
			if gate != nil {
				if err := guardian.Pass(gate); err != nil {
					return -1, err
				}
			}
			fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a))
			if errno != 0 {
				return -1, errno
			}
			return int(fd), nil
		},
		Works: jited,
	}
}

func blockSignals() (back func()) {
	runtime.LockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, &all, &old)
	return func() {
		_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
		runtime.UnlockOSThread()
	}
}

func jited(fd int) bool {
	var info [24]byte
	a := struct {
		fd, len uint32
		info    uint64
	}{uint32(fd), uint32(len(info)), uint64(uintptr(unsafe.Pointer(&info)))}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_OBJ_GET_INFO_BY_FD, uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a))
	return errno == 0 && binary.NativeEndian.Uint32(info[16:]) > 0
}

func inGuest() bool { return os.Getenv(wire.KernelEnv) != "" }

// prepare gives a test net.core.bpf_jit_harden=2, and guardian files of its own where it was a
// guardian who raised it.
func prepare(t *testing.T) Options {
	t.Helper()
	if inGuest() {
		return Options{} // the machine was started so
	}
	if os.Geteuid() != 0 || os.Getenv("BPFWHY_HOST_SYSCTL") != "1" {
		t.Skip("needs root and BPFWHY_HOST_SYSCTL=1: changes net.core.bpf_jit_harden")
	}
	r, err := guardian.RaiseHarden(t.Context(), 2)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() {
		_, err := r.Restore()
		qt.Check(t, qt.IsNil(err))
	})
	dir := t.TempDir()
	return Options{Guardian: guardian.Files{Lock: filepath.Join(dir, "lock"), State: filepath.Join(dir, "run", "state")}}
}

func value(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(settingFile)
	qt.Assert(t, qt.IsNil(err))
	return strings.TrimSpace(string(b))
}

func TestKernels(t *testing.T) {
	limit := 10 * time.Minute
	if vmtest.Long() {
		limit = time.Hour
	}
	vmtest.RunIn(t, vmtest.Sample(), "^TestWindow", vm.Machine{CPUs: 1, Timeout: limit, Sysctls: map[string]string{"net.core.bpf_jit_harden": "2"}})
}

// Whoever is uid 0 can lock what windows take turns by, and keep it. Nobody waits for that longer
// than he wants to, and the error says so.
func TestWindowTurnNeverComes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	o := Options{Guardian: guardian.Files{Lock: filepath.Join(dir, "lock"), State: filepath.Join(dir, "state")}}
	lock, err := os.Create(o.Guardian.Lock)
	qt.Assert(t, qt.IsNil(err))
	defer lock.Close()
	qt.Assert(t, qt.IsNil(unix.Flock(int(lock.Fd()), unix.LOCK_EX)))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, _, err = Load(ctx, far(), o)
	qt.Check(t, qt.ErrorIs(err, ErrNoWindow))
	qt.Check(t, qt.ErrorMatches(err, ".*keeps others from theirs.*"))
	qt.Check(t, qt.IsTrue(time.Since(start) < 10*time.Second), qt.Commentf("%v", time.Since(start)))
	before := value(t)
	_, err = Around(ctx, o, func() ([]uint32, error) { return nil, errors.New("called") })
	qt.Check(t, qt.ErrorIs(err, ErrNoWindow))
	qt.Check(t, qt.Equals(value(t), before))
}

// The setting is latched from 6.1 on.
func latches() bool { return os.Getenv(wire.KernelEnv) != "5.10" }

func TestWindow(t *testing.T) {
	o := prepare(t)
	l := far()
	fd, err := l.Load(0, nil)
	if err == nil {
		qt.Assert(t, qt.IsFalse(jited(fd)))
		unix.Close(fd)
	}
	fd, r, err := Load(t.Context(), l, o)
	qt.Assert(t, qt.IsNil(err))
	defer unix.Close(fd)
	t.Logf("%+v", r)
	qt.Check(t, qt.IsTrue(jited(fd)))
	qt.Check(t, qt.Equals(r.Latched, latches()))
	qt.Check(t, qt.Equals(r.WholeCall, !latches()))
	qt.Check(t, qt.IsTrue(r.Open > 0))
	if r.Latched { // on a busy machine the first may close too early, and another follows
		qt.Check(t, qt.IsTrue(r.Windows >= 1 && r.Windows <= 3), qt.Commentf("%d windows", r.Windows))
	}
	qt.Check(t, qt.Equals(value(t), "2"))
	qt.Check(t, qt.Equals(r.Harden, guardian.Report{Old: 2, Set: 1, Now: 2}))
}

// A window for the whole call is told as one, asked for or because the latched one had no effect.
func TestWindowForTheWholeCall(t *testing.T) {
	o := prepare(t)
	for _, o.WholeCall = range []bool{true, false} {
		l := far()
		least := 1
		if !o.WholeCall {
			least = 2
			looks := 0
			l.Works = func(fd int) bool {
				looks++
				return looks > 1 && jited(fd) // what the latched window gave is not good enough
			}
		}
		fd, r, err := Load(t.Context(), l, o)
		qt.Assert(t, qt.IsNil(err))
		t.Logf("%+v", r)
		qt.Check(t, qt.IsTrue(jited(fd)))
		qt.Check(t, qt.IsTrue(r.WholeCall))
		qt.Check(t, qt.IsFalse(r.Latched))
		qt.Check(t, qt.IsTrue(r.Windows >= least && r.Open > 0), qt.Commentf("%+v", r))
		qt.Check(t, qt.Equals(value(t), "2"))
		unix.Close(fd)
	}
}

// A load that fails for a reason of its own ends as it would, and opens no second window.
func TestWindowOfBadProgram(t *testing.T) {
	o := prepare(t)
	l := loader([]insn.Instruction{{Code: 0xbf, Dst: 0, Src: 5}, {Code: 0x95}})
	none := l
	none.Load = func(_ uintptr, gate *os.File) (int, error) { return -1, errors.Join(guardian.Pass(gate), unix.EPERM) }
	for want, l := range map[unix.Errno]Loader{unix.EACCES: l, unix.EPERM: none} {
		_, r, err := Load(t.Context(), l, o)
		qt.Check(t, qt.ErrorIs(err, error(want)))
		qt.Check(t, qt.Equals(r.Windows, 1))
		qt.Check(t, qt.Equals(value(t), "2"))
	}
}

// At another value than 2 nothing is lowered.
func TestWindowElsewhere(t *testing.T) {
	if inGuest() {
		t.Skip("on the host")
	}
	if value(t) == "2" || os.Geteuid() != 0 {
		t.Skip("net.core.bpf_jit_harden is 2")
	}
	before := value(t)
	_, _, err := Load(t.Context(), far(), Options{Guardian: guardian.Files{Lock: filepath.Join(t.TempDir(), "l"), State: filepath.Join(t.TempDir(), "s")}})
	qt.Check(t, qt.ErrorIs(err, guardian.ErrNotTwo))
	qt.Check(t, qt.Equals(value(t), before))
}

// Windows take turns.
func TestWindowsTakeTurns(t *testing.T) {
	o := prepare(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			fd, _, err := Load(t.Context(), far(), o)
			if err != nil {
				t.Error(err)
				return
			}
			unix.Close(fd)
		})
	}
	wg.Wait()
	qt.Check(t, qt.Equals(value(t), "2"))
}

// Killed at random moments, most of them in mid-window, the setting comes back and nothing stays.
func TestWindowKilled(t *testing.T) {
	o := prepare(t)
	if o.Guardian == (guardian.Files{}) {
		o.Guardian = guardian.Files{Lock: "/run/lock/test", State: "/run/test/state"}
	}
	rounds := 20
	if vmtest.Long() {
		rounds = 200
	}
	if inGuest() {
		rounds = 3
	}
	for i := range rounds {
		how := []string{"latched", "whole"}[i%2]
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = []string{windowArgv0, o.Guardian.Lock, o.Guardian.State, how}
		out, err := cmd.StdoutPipe()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(cmd.Start()))
		line, err := bufio.NewReader(out).ReadString('\n')
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(line, "loaded\n"))
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			state, err := os.ReadFile(o.Guardian.State)
			if value(t) == "2" && err == nil && strings.Contains(string(state), `"boot_id":""`) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("round %d: value %s, state file: %s, %v", i, value(t), state, err)
			}
		}
	}
}

// A collection of garbage stops the world: the watcher, who holds on to its processor, and the
// loader must not wait for each other then.
func TestWindowWhileMemoryIsCollected(t *testing.T) {
	o := prepare(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	})
	rounds := 10
	if inGuest() {
		rounds = 1
	}
	for range rounds {
		fd, r, err := Load(t.Context(), far(), o)
		qt.Check(t, qt.IsNil(err))
		unix.Close(fd)
		if latches() {
			qt.Check(t, qt.IsTrue(r.Open < time.Second), qt.Commentf("%v", r.Open))
		}
	}
	close(stop)
	wg.Wait()
}

// TestWindowLength measures, next to what a loader does that writes 0, loads, and writes the old
// value back. BPFWHY_BENCH=1 asks for a thousand.
func TestWindowLength(t *testing.T) {
	o := prepare(t)
	n := 20
	if os.Getenv("BPFWHY_BENCH") == "1" || vmtest.Long() {
		n = 1000
	}
	if inGuest() {
		n = 3
	}
	for name, l := range map[string]Loader{"small": loader([]insn.Instruction{{Code: 0xb7}, {Code: 0x95}}), "32,000 instructions": far()} {
		rounds := n
		if name != "small" {
			rounds = max(1, n/20)
		}
		var open, plain []time.Duration
		for range rounds {
			fd, r, err := Load(t.Context(), l, o)
			qt.Assert(t, qt.IsNil(err))
			unix.Close(fd)
			open = append(open, r.Open)
			plain = append(plain, workaround(t, l))
		}
		t.Logf("%s, %d windows: %s; written 0 and back: %s", name, rounds, figures(open), figures(plain))
	}
}

func figures(d []time.Duration) string {
	slices.Sort(d)
	n := len(d)
	return fmt.Sprintf("best %v, p50 %v, p90 %v, p99 %v, max %v", d[0], d[n/2], d[n*9/10], d[n*99/100], d[n-1])
}

func workaround(t *testing.T, l Loader) time.Duration {
	f, err := os.OpenFile(settingFile, os.O_WRONLY, 0)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	start := time.Now()
	_, err = f.WriteAt([]byte("0\n"), 0)
	fd, loadErr := l.Load(0, nil)
	_, backErr := f.WriteAt([]byte("2\n"), 0)
	took := time.Since(start)
	qt.Assert(t, qt.IsNil(errors.Join(err, loadErr, backErr)))
	unix.Close(fd)
	return took
}
