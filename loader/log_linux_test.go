// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/go-quicktest/qt"
)

// lapped goes round a body of so many instructions, and then reads a register that was never
// written.
func lapped(body, rounds int32) *ebpf.ProgramSpec {
	list := asm.Instructions{asm.Mov.Imm(asm.R1, 0)}
	for i := range body {
		in := asm.Mov.Imm(asm.R0, i)
		if i == 0 {
			in = in.WithSymbol("round")
		}
		list = append(list, in)
	}
	return &ebpf.ProgramSpec{
		Name: "lapped", Type: ebpf.SocketFilter, License: "GPL",
		Instructions: append(list,
			asm.Add.Imm(asm.R1, 1), asm.JLT.Imm(asm.R1, rounds, "round"),
			asm.Mov.Reg(asm.R0, asm.R7), asm.Return()),
	}
}

// cost is what a load takes: calls of bpf(BPF_PROG_LOAD), and how far the memory of this process
// rises.
type cost struct {
	calls int
	peak  int // KiB
	took  time.Duration
}

func (c cost) String() string {
	return fmt.Sprintf("%d loads, %d KiB, %v", c.calls, c.peak, c.took.Round(time.Millisecond))
}

// measure counts loads with the kernel's own trace of system calls, for which it changes the
// machine: in the lab alone. Elsewhere they are not counted, and are -1.
func measure(t *testing.T, f func()) cost {
	t.Helper()
	_, err := os.Stat(wire.SpecPath)
	traced := err == nil
	const dir = "/sys/kernel/tracing/"
	const event = dir + "events/syscalls/sys_enter_bpf/"
	write := func(file, text string) { qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(text), 0))) }
	if traced {
		write(dir+"trace", "")
		write(event+"filter", "cmd == 5")
		write(event+"enable", "1")
		defer write(event+"enable", "0")
	}
	debug.FreeOSMemory()
	write("/proc/self/clear_refs", "5")
	before := peak(t)
	start := time.Now()
	f()
	c := cost{took: time.Since(start), peak: peak(t) - before, calls: -1}
	if traced {
		text, err := os.ReadFile(dir + "trace")
		qt.Assert(t, qt.IsNil(err))
		c.calls = bytes.Count(text, []byte(" sys_bpf(cmd: 5"))
	}
	return c
}

// peak is the most memory that this process has held, in KiB.
func peak(t *testing.T) int {
	status, err := os.ReadFile("/proc/self/status")
	qt.Assert(t, qt.IsNil(err))
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			qt.Assert(t, qt.IsNil(err))
			return n
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

func TestGuestLogCost(t *testing.T) {
	guest(t)
	harden(t, "0")
	logCost(t, 5, vmtest.Long())
}

func TestHostLogCost(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	rounds := int32(6)
	if vmtest.Long() {
		rounds = 33 // as many as the verifier goes through at all
	}
	logCost(t, rounds, true)
}

// logCost shows what a program of 30,000 instructions costs that fails after the verifier has gone
// round it so many times, beside what it costs with cilium/ebpf, and that nothing is missing from
// the log of one that fails early.
func logCost(t *testing.T, rounds int32, compare bool) {
	_, _ = plain(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}}) // cilium/ebpf tries what it needs to know
	big := lapped(30_000, rounds)
	coll := &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"lapped": big}}
	var e *Error
	for name, load := range map[string]func(l *Loader) error{
		"program":    func(l *Loader) error { _, err := l.NewProgram(big); return err },
		"collection": func(l *Loader) error { _, err := l.NewCollection(coll); return err },
	} {
		var err error
		c := measure(t, func() { err = load(&Loader{Off: true}) })
		t.Logf("%s: %s", name, c)
		qt.Check(t, qt.IsTrue(c.calls == 2 || c.calls < 0), qt.Commentf("%s", name))
		// One buffer of the first walk, and as much again that is garbage.
		qt.Check(t, qt.IsTrue(c.peak < 2*walkBuffer>>10), qt.Commentf("%s: %d KiB", name, c.peak))
		qt.Assert(t, qt.ErrorAs(err, &e))
		qt.Check(t, qt.Equals(e.Diagnosis.Rule, "VER002"))
		qt.Check(t, qt.Equals(e.Program, "lapped"))
		qt.Check(t, qt.IsTrue(strings.Contains(strings.Join(e.Diagnosis.Evidence, "\n"), "its walk through them is left out of the log")))
		qt.Check(t, qt.IsTrue(strings.Contains(fmt.Sprintf("%+v", err), "R7 !read_ok")))
		n, ok := examined(err)
		qt.Check(t, qt.IsTrue(ok && n > int(rounds)*30_000))
	}
	if compare {
		var err error
		c := measure(t, func() { _, err = (&Loader{Off: true, WholeLog: true}).NewProgram(big) })
		t.Logf("as cilium/ebpf does: %s", c)
		qt.Check(t, qt.IsTrue((c.calls > 2 || c.calls < 0) && c.peak > 16<<10), qt.Commentf("%s", c))
		qt.Assert(t, qt.ErrorAs(err, &e))
	}

	// Where the walk is short it is there, as cilium/ebpf would have it.
	small := lapped(1000, 1)
	var ours, theirs error
	c := measure(t, func() { _, ours = (&Loader{Off: true}).NewProgram(small) })
	t.Logf("small: %s", c)
	qt.Check(t, qt.IsTrue(c.calls == 3 || c.calls < 0))
	// The buffer may count whole, where the runtime or the kernel clears it in one.
	qt.Check(t, qt.IsTrue(c.peak < 2*walkBuffer>>10), qt.Commentf("%d KiB", c.peak))
	_, theirs = (&Loader{Off: true, WholeLog: true}).NewProgram(small)
	var v, w *ebpf.VerifierError
	qt.Assert(t, qt.ErrorAs(ours, &v))
	qt.Assert(t, qt.ErrorAs(theirs, &w))
	qt.Check(t, qt.DeepEquals(v.Log, w.Log))
	qt.Check(t, qt.Equals(ours.Error(), theirs.Error()))
	_, ours = (&Loader{Off: true}).NewCollection(&ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"lapped": small}})
	_, theirs = (&Loader{Off: true, WholeLog: true}).NewCollection(&ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"lapped": small}})
	qt.Check(t, qt.Equals(ours.Error(), theirs.Error()))
	var to struct {
		Lapped *ebpf.Program `ebpf:"lapped"`
	}
	ours = (&Loader{Off: true}).LoadAndAssign(&ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"lapped": small}}, &to, nil)
	theirs = (&Loader{Off: true, WholeLog: true}).LoadAndAssign(&ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"lapped": small}}, &to, nil)
	qt.Check(t, qt.Equals(ours.Error(), theirs.Error()))
}
