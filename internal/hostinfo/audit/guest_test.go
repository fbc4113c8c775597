// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/test/randprog"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// Instructions of the test's programs.
func movX(dst, src uint8) insn.Instruction { return insn.Instruction{Code: 0xbf, Dst: dst, Src: src} }
func movK(dst uint8, imm int32) insn.Instruction {
	return insn.Instruction{Code: 0xb7, Dst: dst, Imm: imm}
}
func addK(dst uint8, imm int32) insn.Instruction {
	return insn.Instruction{Code: 0x07, Dst: dst, Imm: imm}
}
func addX(dst, src uint8) insn.Instruction { return insn.Instruction{Code: 0x0f, Dst: dst, Src: src} }
func divX(dst, src uint8) insn.Instruction { return insn.Instruction{Code: 0x3f, Dst: dst, Src: src} }
func jeqK(dst uint8, imm int32, off int) insn.Instruction {
	return insn.Instruction{Code: 0x15, Dst: dst, Imm: imm, Off: int16(off)}
}
func jeqX(dst, src uint8, off int) insn.Instruction {
	return insn.Instruction{Code: 0x1d, Dst: dst, Src: src, Off: int16(off)}
}
func ja(off int) insn.Instruction      { return insn.Instruction{Code: 0x05, Off: int16(off)} }
func callSub(n int32) insn.Instruction { return insn.Instruction{Code: 0x85, Src: 1, Imm: n} }
func helper(n int32) insn.Instruction  { return insn.Instruction{Code: 0x85, Imm: n} }
func exit() insn.Instruction           { return insn.Instruction{Code: 0x95} }

func join(parts ...[]insn.Instruction) []insn.Instruction { return slices.Concat(parts...) }

// start reads the packet's length, which the verifier knows nothing about, into r2 to r5.
func start() []insn.Instruction {
	return []insn.Instruction{{Code: 0x61, Dst: 2, Src: 1}, movX(3, 2), movX(4, 2), movX(5, 2)}
}

// body is n slots, of which some grow by two.
func body(n, grow int) []insn.Instruction {
	out := make([]insn.Instruction, n)
	for i := range out {
		switch {
		case grow > 0 && i%(n/grow) == 0 && i/(n/grow) < grow:
			out[i] = addK(3, int32(i+1))
		case i%2 == 0:
			out[i] = addX(4, 3)
		default:
			out[i] = movX(5, 4)
		}
	}
	return out
}

var done = []insn.Instruction{movK(0, 0), exit()}

// forward jumps over a body; after blinding the jump needs exactly need.
func forward(need, grow int) []insn.Instruction {
	n := need - 2*grow - len(done)
	return join(start(), []insn.Instruction{jeqK(2, 64, n+len(done))}, body(n, grow), done, done)
}

// backward jumps back over a body, to which a goto leads. The goto needs as much as n and the
// growth.
func backward(n, grow int, jump func(off int) insn.Instruction) []insn.Instruction {
	b := join(body(n-len(done), grow), done)
	return join(start(), []insn.Instruction{ja(len(b))}, b, []insn.Instruction{jump(-len(b) - 1)}, done)
}

// divided jumps over a body in which the verifier puts checks before divisions.
func divided(n int) []insn.Instruction {
	b := body(n, 5)
	for i := range 10 {
		b[i*100+7] = divX(3, 4)
	}
	return join(start(), []insn.Instruction{jeqK(2, 64, len(b)+len(done))}, b, done, done)
}

type testProgram struct {
	name  string
	typ   uint32
	prog  []insn.Instruction
	fate  Outcome // JITed, or Fails for whatever becomes of a program that cannot be blinded, or Miscompiled
	exact bool    // Margin is known by construction
	slots int     // that margin
}

const (
	kprobe   = 2
	schedCLS = 3
	xdp      = 6
)

// testPrograms have a fate that is known by construction: forward and back, with and without
// functions, at the limit and one beyond.
func testPrograms() []testProgram {
	main := func(calls ...int32) []insn.Instruction { // calls functions that follow, by their distance
		var out []insn.Instruction
		out = append(out, movX(6, 1))
		for _, c := range calls {
			out = append(out, movX(1, 6), callSub(c-int32(len(out))-2))
		}
		return append(out, movK(0, 0), exit())
	}
	small := join([]insn.Instruction{addK(1, 0)}, done)[1:]
	return []testProgram{
		{name: "small", typ: abi.ProgTypeSocketFilter, prog: small, fate: JITed, exact: true, slots: blinding.MaxOffset},
		{name: "consts", typ: xdp, prog: join([]insn.Instruction{movK(1, 7), helper(5), jeqK(0, 1, 1), movK(0, 2)}, done), fate: JITed, exact: true, slots: blinding.MaxOffset - 3},
		{name: "probe", typ: kprobe, prog: join([]insn.Instruction{helper(14), jeqK(0, 9, 2)}, done, done), fate: JITed, exact: true, slots: blinding.MaxOffset - 2},
		{name: "two_funcs", typ: abi.ProgTypeSocketFilter, prog: join(main(5), start(), []insn.Instruction{addK(2, 5)}, done), fate: JITed, exact: true, slots: blinding.MaxOffset},
		{name: "at_limit", typ: abi.ProgTypeSocketFilter, prog: forward(32767, 10), fate: JITed, exact: true, slots: 0},
		{name: "beyond", typ: abi.ProgTypeSocketFilter, prog: forward(32768, 10), fate: Fails, exact: true, slots: -1},
		{name: "back_at_limit", typ: abi.ProgTypeSocketFilter, prog: backward(32767-20, 10, func(off int) insn.Instruction { return jeqX(2, 3, off) }), fate: JITed, exact: true, slots: 0},
		{name: "back_wraps", typ: abi.ProgTypeSocketFilter, prog: backward(32766-20, 10, func(off int) insn.Instruction { return jeqK(2, 64, off) }), fate: Miscompiled, exact: true, slots: -1},
		{name: "func_at_limit", typ: abi.ProgTypeSocketFilter, prog: join(main(5), forward(32767, 10)), fate: JITed, exact: true, slots: 0},
		{name: "func_beyond", typ: abi.ProgTypeSocketFilter, prog: join(main(5), forward(32768, 10)), fate: Fails, exact: true, slots: -1},
		{name: "divided", typ: abi.ProgTypeSocketFilter, prog: divided(2000), fate: JITed},
	}
}

// loadProgram makes one bpf(2).
func loadProgram(t *testing.T, name string, typ uint32, prog []insn.Instruction) (fd int, err error) {
	t.Helper()
	code, license := insn.Encode(prog), []byte("GPL\x00")
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&code[0])
	pin.Pin(&license[0])
	attr := struct {
		typ, count         uint32
		insns, license     uint64
		logLevel, logSize  uint32
		logBuf             uint64
		kernVersion, flags uint32
		name               [16]byte
	}{typ: typ, count: uint32(len(prog)), insns: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	copy(attr.name[:15], name)
	for range 30 {
		if fd, err = bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return fd, err
}

// happened is what became of a load.
func happened(t *testing.T, fd int, err error) Outcome {
	t.Helper()
	if errors.Is(err, unix.Errno(524)) {
		return Fails
	}
	qt.Assert(t, qt.IsNil(err))
	d, err := read(fd)
	qt.Assert(t, qt.IsNil(err))
	if d.JitedProgLen == 0 {
		return NotJITed
	}
	return JITed
}

func sysctl(t *testing.T, name, value string) {
	t.Helper()
	qt.Assert(t, qt.IsNil(os.WriteFile("/proc/sys/"+name, []byte(value), 0)))
}

func loadAll(t *testing.T, all []testProgram) map[string]int {
	t.Helper()
	fds := map[string]int{}
	for _, p := range all {
		fd, err := loadProgram(t, p.name, p.typ, p.prog)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", p.name))
		fds[p.name] = fd
	}
	t.Cleanup(func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	})
	return fds
}

func auditNow(t *testing.T) *Report {
	t.Helper()
	r, err := Run(t.Context(), node.Host())
	qt.Assert(t, qt.IsNil(err))
	return r
}

// mine returns the test's own programs by name, those with the largest id where a name is there
// twice.
func mine(r *Report, p testProgram) *Program {
	for i := len(r.Programs) - 1; i >= 0; i-- {
		if q := &r.Programs[i]; q.Name == p.name && slices.ContainsFunc(q.Owners, func(o Owner) bool { return o.PID == os.Getpid() }) {
			return q
		}
	}
	return nil
}

// reload loads each program again, the larger ones only where they break, and holds what becomes of
// it against what was said.
func reload(t *testing.T, all []testProgram, fds map[string]int, most int, fate func(name string) Fate) {
	t.Helper()
	for _, p := range all {
		if len(p.prog) > most && p.name != "beyond" && p.name != "func_beyond" {
			continue // loading takes an emulated machine its time
		}
		fd, err := loadProgram(t, p.name, p.typ, p.prog)
		got, want := happened(t, fd, err), fate(p.name).Outcome
		c := qt.Commentf("%s: %v", p.name, err)
		switch want {
		case FailsOrNotJITed:
			qt.Check(t, qt.Not(qt.Equals(got, JITed)), c)
		case Miscompiled: // never run; the kernel does not know
			qt.Check(t, qt.Equals(got, JITed), c)
		default:
			qt.Check(t, qt.Equals(got, want), c)
		}
		if fd >= 0 {
			unix.Close(fds[p.name])
			fds[p.name] = fd
		}
	}
}

func TestKernels(t *testing.T) { vmtest.RunIn(t, vmtest.Distinct(), "^TestGuest", vm.Machine{}) }

// TestGuestHarden audits programs at harden=0, hardens the machine, loads each again, and compares
// what was said with what happens.
func TestGuestHarden(t *testing.T) {
	kernel := vmtest.Guest(t)
	const harden = "net/core/bpf_jit_harden"
	sysctl(t, harden, "0")
	sysctl(t, "kernel/kptr_restrict", "0")
	all := testPrograms()
	// A node without programs tells nothing, and neither does one that runs what blinding cannot
	// break.
	answer := func(want Answer, says string, names ...string) {
		t.Helper()
		var fds []int
		for _, p := range all {
			if slices.Contains(names, p.name) {
				fd, err := loadProgram(t, p.name, p.typ, p.prog)
				qt.Assert(t, qt.IsNil(err))
				fds = append(fds, fd)
			}
		}
		r := auditNow(t)
		qt.Check(t, qt.Equals(r.Summary.CanHarden, want))
		qt.Check(t, qt.StringContains(r.Summary.Sentence, says))
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	answer(Nothing, "no program is loaded now")
	answer(Nothing, "hardening cannot break the one program", "small")
	answer(Yes, "Yes: 2 programs would load as now", "small", "consts")
	// divided, longer by what it leaves and by one more: the verifier's additions decide.
	fd, err := loadProgram(t, "divided", abi.ProgTypeSocketFilter, divided(2000))
	qt.Assert(t, qt.IsNil(err))
	d, err := read(fd)
	qt.Assert(t, qt.IsNil(err))
	unix.Close(fd)
	k := newKernel(node.Host())
	left := *harden2(examine(d, "x86_64"), k).Margin
	all = append(all,
		testProgram{name: "divided_fits", typ: abi.ProgTypeSocketFilter, prog: divided(2000 + left), fate: JITed, exact: true, slots: 0},
		testProgram{name: "divided_fails", typ: abi.ProgTypeSocketFilter, prog: divided(2001 + left), fate: Fails, exact: true, slots: -1})

	// The verifier puts an instruction that only compilers know in place of this call, from 6.10
	// on; it is no reason on 6.12 to refuse the interpreter, and one on 7.2.
	all = append(all, testProgram{name: "per_cpu", typ: schedCLS, exact: true, slots: -1,
		prog: join([]insn.Instruction{movX(6, 1), helper(8), movX(1, 6)}, forward(32768, 10))})

	// Random code that the verifier rewrites, with jumps that nobody measured: one further from the
	// limit than the verifier ever adds, one nearer.
	for name, o := range map[string]randprog.Options{
		"random_a": {Seed: 12, Rich: 100, Delta: -3000, Grown: 60, Sub: true},
		"random_b": {Seed: 13, Rich: 100, Delta: -300, Grown: 150, Shape: randprog.ForwardX},
	} {
		all = append(all, testProgram{name: name, typ: schedCLS, prog: randprog.New(o).Insns})
	}

	fds := loadAll(t, all)
	r := auditNow(t)
	qt.Check(t, qt.Equals(*r.Harden, 0))
	qt.Check(t, qt.Equals(r.Summary.CanHarden, No))
	qt.Check(t, qt.StringContains(r.Summary.Sentence, "of "+fmt.Sprint(len(r.Programs))+" programs would not survive"))
	qt.Check(t, qt.StringContains(r.Summary.Sentence, "At 1 all of them would load"))
	qt.Check(t, qt.Equals(r.Summary.Blinded, 0))
	said := map[string]*Program{}
	for _, p := range all {
		q := mine(r, p)
		qt.Assert(t, qt.IsNotNil(q), qt.Commentf("%s", p.name))
		said[p.name] = q
		c := qt.Commentf("%s: %+v", p.name, q.At2)
		qt.Check(t, qt.IsTrue(q.JITed), c)
		if q.Blinded != nil {
			qt.Check(t, qt.IsFalse(*q.Blinded), c)
		}
		if p.exact {
			qt.Assert(t, qt.IsNotNil(q.At2.Margin), c)
			qt.Check(t, qt.Equals(*q.At2.Margin, p.slots), c)
		}
		qt.Check(t, qt.Equals(q.At1.Outcome, JITed), c)
		switch p.fate {
		case "": // whatever is said must come true
		case JITed:
			qt.Check(t, qt.Equals(q.At2.Outcome, JITed), c)
		case Miscompiled:
			if kernel != "7" { // which checks by itself
				qt.Check(t, qt.Equals(q.At2.Outcome, Miscompiled), c)
			}
		default:
			want := NotJITed
			switch {
			case kernel == "hardened":
				want = Fails
			case (kernel == "6.1" || kernel == "6.12") && q.Functions == 1:
				want = FailsOrNotJITed
			}
			qt.Check(t, qt.Equals(q.At2.Outcome, want), c)
			qt.Check(t, qt.Equals(q.At2.Rule, q.At2.rule(q.Functions)), c)
			qt.Check(t, qt.Matches(q.At2.Rule, "BLIND00[123]"), c)
		}
	}
	// We hold them, and are in Go.
	qt.Check(t, qt.IsTrue(slices.ContainsFunc(r.Remedies, func(m load.Remedy) bool { return m.ID == "loader" })))

	sysctl(t, harden, "1")
	reload(t, all, fds, 1000, func(name string) Fate { return said[name].At1 })
	sysctl(t, harden, "2")
	reload(t, all, fds, 1<<20, func(name string) Fate { return said[name].At2 })

	// What is blinded now is seen to be, with the margin that was foretold.
	r = auditNow(t)
	qt.Check(t, qt.StringContains(r.Summary.Sentence, "It is hardened"))
	for _, p := range all {
		q := mine(r, p)
		if q == nil || !q.JITed || said[p.name].At2.Breaks() || p.name == "small" {
			continue // small has nothing to blind; what breaks is there from before, or not at all
		}
		c := qt.Commentf("%s: %+v", p.name, q.At2)
		if qt.Check(t, qt.IsNotNil(q.Blinded), c) {
			qt.Check(t, qt.IsTrue(*q.Blinded), c)
		}
		if p.fate == JITed || p.fate == "" {
			qt.Check(t, qt.Equals(q.At2.Outcome, JITed), c)
			qt.Check(t, qt.Equals(q.At1.Outcome, JITed), c)
			if qt.Check(t, qt.IsNotNil(q.At2.Margin), c) {
				qt.Check(t, qt.Equals(*q.At2.Margin, *said[p.name].At2.Margin), c)
			}
		}
	}

	// Where addresses are hidden, so is the code of blinded programs.
	sysctl(t, "kernel/kptr_restrict", "2")
	sysctl(t, "kernel/perf_event_paranoid", "2")
	r = auditNow(t)
	q := mine(r, testProgram{name: "at_limit"})
	qt.Assert(t, qt.IsNotNil(q))
	qt.Check(t, qt.IsTrue(q.Blinded != nil && *q.Blinded))
	qt.Check(t, qt.IsTrue(q.JITed))
	qt.Check(t, qt.IsTrue(q.JITedBytes > 30000), qt.Commentf("%d", q.JITedBytes))
	qt.Check(t, qt.Equals(q.At2.Outcome, JITed))
	qt.Check(t, qt.IsNil(q.At2.Margin))
	qt.Check(t, qt.StringContains(q.Unread, "does not show"))

	// Without a compiler there is no blinding.
	if kernel != "hardened" {
		sysctl(t, "net/core/bpf_jit_enable", "0")
		r = auditNow(t)
		qt.Check(t, qt.Equals(mine(r, testProgram{name: "at_limit"}).At2.Outcome, NotJITed))
		qt.Check(t, qt.IsFalse(mine(r, testProgram{name: "at_limit"}).At2.Breaks()))
	}
}
