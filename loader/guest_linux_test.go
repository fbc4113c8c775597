// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/test/randprog"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"github.com/bpfwhy/bpfwhy/rewrite"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

const errNotSupp = unix.Errno(524)

func TestMain(m *testing.M) {
	guardian.Main()
	os.Exit(m.Run())
}

const tallyFile = "blinding.json"

func TestKernels(t *testing.T) {
	m := vm.Machine{Timeout: 10 * time.Minute, Env: []string{"BPFWHY_PROGRAMS=" + os.Getenv("BPFWHY_PROGRAMS")}}
	if long() {
		m.Env, m.Timeout = append(m.Env, "BPFWHY_LONG=1"), 30*time.Minute
	}
	vmtest.RunIn(t, vmtest.Distinct(), "^TestGuest", m, func(t *testing.T, kernel string, r *vm.Result) {
		record(t, kernel, r.Files[tallyFile])
	})
	if !vmtest.Long() {
		// It alone has instructions that the interpreter does not know, and uses it all the same.
		vmtest.RunIn(t, []string{"6.12"}, "^TestGuestJITOnly$", m)
	}
}

// record keeps the result of a long run for docs/blinding-proof.md.
func record(t *testing.T, name string, text []byte) {
	if !long() || t.Failed() {
		return
	}
	qt.Check(t, qt.IsNil(os.WriteFile(filepath.Join("testdata/proof", name+".json"), append(text, '\n'), 0o644)))
	document, err := proofDocument()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(os.WriteFile(proofFile, []byte(document), 0o644)))
}

// harden changes the sysctl of a lab machine.
func harden(t testing.TB, value string) {
	t.Helper()
	if _, err := os.Stat(wire.SpecPath); err != nil {
		t.Fatal("changes the machine: only in one of the lab")
	}
	qt.Assert(t, qt.IsNil(os.WriteFile("/proc/sys/net/core/bpf_jit_harden", []byte(value), 0)))
}

func TestGuestCorpus(t *testing.T) {
	kernel := vmtest.Guest(t)
	harden(t, "0")
	c := corpus(t, 1000, programs(12, 100), func() { harden(t, "2") })
	harden(t, "0")
	c.Kernel = kernel
	text, err := json.Marshal(c)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(wire.OutDir, tallyFile), text, 0o644)))
}

// guest is where the loader's ways are tried: on the oldest and the newest kernel and the one
// without an interpreter. Those between have their say in TestGuestCorpus and TestGuestWrap, and in
// the long tests.
func guest(t *testing.T) {
	kernel := vmtest.Guest(t)
	if kernel != "hardened" && !slices.Contains(vmtest.Sample(), kernel) {
		t.Skip("set BPFWHY_LONG=1")
	}
}

// TestGuestWrap shows the silent miscompilation, and that nobody loads it.
func TestGuestWrap(t *testing.T) {
	kernel := vmtest.Guest(t)
	m := values(t)
	k := thisKernel()
	o := randprog.Options{Seed: 3, Shape: randprog.Loop, Delta: 1, Grown: 40}
	if !k.RangeCheck {
		o.Tail = 33_000
	}
	p := randprog.New(o)
	v, err := blinding.Check(p.Insns, k)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(v.Jump.Need, -32_769))
	qt.Assert(t, qt.Equals(v.Wraps, !k.RangeCheck))
	qt.Assert(t, qt.Equals(v.Failure, map[bool]blinding.Failure{true: blinding.RangeCheck, false: blinding.Wrap}[k.RangeCheck]))

	spec := specOf(t, p, m)
	harden(t, "0")
	defer harden(t, "0")
	prog, err := plain(spec)
	qt.Assert(t, qt.IsNil(err))
	right := run(t, prog, p.Seed)
	prog.Close()

	harden(t, "2")
	prog, err = plain(spec)
	if v.Wraps {
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsFalse(uncompiled(prog)))
		wrong := run(t, prog, p.Seed)
		t.Logf("%s: loaded, compiled, and %d of %d results are wrong", kernel, differ(right, wrong), inputs)
		qt.Check(t, qt.IsTrue(differ(right, wrong) > inputs/2))
	} else if err == nil {
		qt.Check(t, qt.IsTrue(uncompiled(prog)))
	}
	if err == nil {
		prog.Close()
	}

	if v.Wraps {
		_, err = (&Loader{Off: true}).NewProgram(spec)
		qt.Check(t, qt.ErrorIs(err, ErrMiscompiled))
		t.Logf("%+v", err)
	}
	var repair Repair
	l := Loader{Report: func(r Repair) { repair = r }}
	prog, err = l.NewProgramWithOptions(spec, ebpf.ProgramOptions{LogDisabled: true})
	qt.Assert(t, qt.IsNil(err))
	defer prog.Close()
	qt.Check(t, qt.IsFalse(uncompiled(prog)))
	qt.Check(t, qt.DeepEquals(run(t, prog, p.Seed), right))
	qt.Check(t, qt.Equals(repair.Early, v.Wraps))
}

func differ(a, b []uint32) int {
	n := 0
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

// TestGuestTighter: what the verifier adds takes a jump out of reach that was
// left alone, so that the first repair fails.
func TestGuestTighter(t *testing.T) {
	guest(t)
	m := values(t)
	const widest = blinding.MaxOffset
	// A jump that is too long, and another that just is not.
	p := randprog.New(randprog.Options{Seed: 15, Delta: 5, Several: true, Rich: 2000, Grown: 40})
	r, err := rewrite.Rewrite(p.Insns, rewrite.Options{Kernel: thisKernel(), Limit: widest})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(r.Changed() && r.After.Margin < 60))
	spec := specOf(t, p, m)
	harden(t, "0")
	defer harden(t, "0")
	prog, err := plain(spec)
	qt.Assert(t, qt.IsNil(err))
	right := run(t, prog, p.Seed)
	prog.Close()

	harden(t, "2")
	var repair Repair
	l := Loader{Limits: []int{widest, 20_000}, RequireJIT: true, Report: func(r Repair) { repair = r }}
	silent := ebpf.ProgramOptions{LogDisabled: true} // or all is loaded twice
	prog, err = l.NewProgramWithOptions(spec, silent)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(repair.Loads, 2))
	qt.Check(t, qt.Equals(repair.Limit, 20_000))
	qt.Check(t, qt.IsFalse(repair.Early))
	qt.Check(t, qt.IsFalse(uncompiled(prog)))
	qt.Check(t, qt.DeepEquals(run(t, prog, p.Seed), right))
	prog.Close()

	// With the widest alone it is hopeless, and the error says what was tried.
	_, err = (&Loader{Limits: []int{widest}, RequireJIT: true}).NewProgramWithOptions(spec, silent)
	var e *Error
	qt.Assert(t, qt.ErrorAs(err, &e))
	qt.Check(t, qt.Matches(e.Diagnosis.Rule, "BLIND00[123]"))
	qt.Check(t, qt.Equals(e.Program, spec.Name))
	t.Logf("%+v", err)

	// A window in the hardening helps: the program is as it was, and is not blinded.
	l = Loader{Limits: []int{widest}, HardenWindow: true, Report: func(r Repair) { repair = r }}
	prog, err = l.NewProgramWithOptions(spec, silent)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsFalse(uncompiled(prog)))
	qt.Check(t, qt.DeepEquals(run(t, prog, p.Seed), right))
	prog.Close()
	qt.Assert(t, qt.Not(qt.IsNil(repair.Window)))
	qt.Check(t, qt.IsTrue(repair.Window.Open > 0))
	qt.Check(t, qt.HasLen(repair.Window.Others, 0))
	qt.Check(t, qt.Equals(repair.Islands, 0))
	qt.Check(t, qt.Equals(setting("bpf_jit_harden"), 2))
	t.Logf("open for %s", repair.Window.Open)

	// Where none can be opened the loader fares as without, and says so.
	const file = "/proc/sys/net/core/bpf_jit_harden"
	qt.Assert(t, qt.IsNil(unix.Mount(file, file, "", unix.MS_BIND, "")))
	defer unix.Unmount(file, 0)
	qt.Assert(t, qt.IsNil(unix.Mount("", file, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")))
	var why error
	l.NoWindow = func(err error) { why = err }
	if prog, err = l.NewProgramWithOptions(spec, silent); err == nil {
		qt.Check(t, qt.ErrorMatches(why, "no window can be opened .*"))
		qt.Check(t, qt.IsTrue(uncompiled(prog)))
		prog.Close()
		l.RequireJIT = true
		_, err = l.NewProgramWithOptions(spec, silent)
	}
	qt.Assert(t, qt.ErrorAs(err, &e))
	qt.Check(t, qt.Matches(e.Diagnosis.Rule, "BLIND00[123]"))
	qt.Check(t, qt.ErrorIs(err, unix.EROFS))
	t.Logf("%v", err)
}

// TestGuestObject loads an ELF object with a map, functions, CO-RE and line
// information in each of the ways.
func TestGuestObject(t *testing.T) {
	guest(t)
	spec, err := ebpf.LoadCollectionSpec("testdata/sparse.o")
	qt.Assert(t, qt.IsNil(err))
	harden(t, "0")
	defer harden(t, "0")
	var reports []Repair
	l := &Loader{RequireJIT: true, Report: func(r Repair) { reports = append(reports, r) }}
	plain, err := l.NewCollection(spec)
	qt.Assert(t, qt.IsNil(err))
	defer plain.Close()
	qt.Assert(t, qt.HasLen(reports, 0))
	qt.Assert(t, qt.IsNil(plain.Maps["values"].Put(uint32(0), uint64(0x123456789))))

	harden(t, "2")
	// As it is, it fails one way or the other, and says why.
	_, err = (&Loader{Off: true, RequireJIT: true}).NewCollection(spec)
	var e *Error
	qt.Assert(t, qt.ErrorAs(err, &e))
	qt.Check(t, qt.Equals(e.Program, "far"))
	qt.Check(t, qt.Matches(e.Diagnosis.Rule, "BLIND00[23]"))
	t.Logf("%v\n%+v", err, err)

	silent := ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogDisabled: true}} // or all is loaded twice
	coll, err := l.NewCollectionWithOptions(spec, silent)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(reports, 1))
	qt.Check(t, qt.Equals(reports[0].Program, "far"))
	qt.Check(t, qt.Equals(reports[0].Loads, 1))
	compare(t, plain, coll)
	coll.Close()

	var to struct {
		Far    *ebpf.Program `ebpf:"far"`
		Others struct {
			Near   *ebpf.Program `ebpf:"near"`
			Values *ebpf.Map     `ebpf:"values"`
		}
	}
	for _, early := range []bool{true, false} {
		if !early {
			l.memory = memory{} // as if it were another process
		}
		qt.Assert(t, qt.IsNil(l.LoadAndAssign(spec, &to, &silent)))
		last := reports[len(reports)-1]
		qt.Check(t, qt.Equals(last.Early, early))
		qt.Check(t, qt.Equals(last.Loads, map[bool]int{true: 0, false: 1}[early]))
		compare(t, plain, &ebpf.Collection{
			Programs: map[string]*ebpf.Program{"far": to.Far, "near": to.Others.Near},
			Maps:     map[string]*ebpf.Map{"values": to.Others.Values},
		})
		to.Far.Close()
		to.Others.Near.Close()
		to.Others.Values.Close()
	}
	qt.Check(t, qt.HasLen(reports, 3))
}

// compare holds a repaired collection against one that was not blinded.
func compare(t *testing.T, plain, repaired *ebpf.Collection) {
	t.Helper()
	qt.Assert(t, qt.IsNil(repaired.Maps["values"].Put(uint32(0), uint64(0x123456789))))
	for name := range plain.Programs {
		qt.Assert(t, qt.IsFalse(uncompiled(repaired.Programs[name])))
		var want, got []uint32
		for _, data := range packets(1) {
			data = append(data, make([]byte, data[0])...)
			for _, result := range []struct {
				prog *ebpf.Program
				to   *[]uint32
			}{{plain.Programs[name], &want}, {repaired.Programs[name], &got}} {
				qt.Assert(t, qt.IsTrue(vmtest.MayRun(!uncompiled(result.prog))))
				ret, err := result.prog.Run(&ebpf.RunOptions{Data: data})
				qt.Assert(t, qt.IsNil(err))
				*result.to = append(*result.to, ret)
			}
		}
		qt.Check(t, qt.DeepEquals(got, want))
	}
}

// TestGuestLines: lines of source and functions go where their instructions
// went, as the kernel has them.
func TestGuestLines(t *testing.T) {
	guest(t)
	harden(t, "0") // blinding moves the lines, too
	spec, err := ebpf.LoadCollectionSpec("testdata/sparse.o")
	qt.Assert(t, qt.IsNil(err))
	coll, err := ebpf.NewCollection(spec)
	qt.Assert(t, qt.IsNil(err))
	defer coll.Close()
	want := lines(t, coll.Programs["far"])
	qt.Assert(t, qt.IsTrue(len(want) > 10))

	c, err := codeOf(spec.Programs["far"].Instructions)
	qt.Assert(t, qt.IsNil(err))
	r, err := rewrite.Rewrite(c.insns, rewrite.Options{Limit: 5000})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(r.Islands > 3))
	changed := rewritten{"far": c.apply(spec.Programs["far"].Instructions, r)}
	again, err := ebpf.NewCollection(changed.collection(spec))
	qt.Assert(t, qt.IsNil(err))
	defer again.Close()
	qt.Check(t, qt.DeepEquals(lines(t, again.Programs["far"]), want))
}

// lines are the lines of a program with the instruction at which each begins,
// without the distance that it jumps, and its functions.
func lines(t *testing.T, prog *ebpf.Program) (list []string) {
	t.Helper()
	info, err := prog.Info()
	qt.Assert(t, qt.IsNil(err))
	code := translated(t, prog)
	infos, err := info.LineInfos()
	qt.Assert(t, qt.IsNil(err))
	for _, l := range infos {
		in := code[l.Offset]
		list = append(list, fmt.Sprintf("%v %d: %02x r%d r%d", l.Line, l.Line.LineNumber(), in.Code, in.Dst, in.Src))
	}
	functions, err := info.FuncInfos()
	qt.Assert(t, qt.IsNil(err))
	for _, f := range functions {
		list = append(list, fmt.Sprintf("%s: %02x", f.Func.Name, code[f.Offset].Code))
	}
	return list
}

// TestGuestErrors: what has nothing to do with blinding is cilium/ebpf's error,
// with a diagnosis.
func TestGuestErrors(t *testing.T) {
	guest(t)
	harden(t, "2")
	defer harden(t, "0")
	spec := &ebpf.ProgramSpec{
		Name: "lost", Type: ebpf.SocketFilter, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Reg(asm.R0, asm.R7), asm.Return()},
	}
	_, err := NewProgram(spec)
	var v *ebpf.VerifierError
	qt.Assert(t, qt.ErrorAs(err, &v))
	qt.Check(t, qt.ErrorIs(err, unix.EACCES))
	var e *Error
	qt.Assert(t, qt.ErrorAs(err, &e))
	qt.Check(t, qt.Matches(e.Diagnosis.Rule, "VER.*"))
	qt.Check(t, qt.Equals(e.Program, "lost"))
	qt.Check(t, qt.IsFalse(strings.Contains(fmt.Sprintf("%v", err), "\n")))
	qt.Check(t, qt.IsTrue(strings.Contains(fmt.Sprintf("%+v", err), "R7 !read_ok")))
	t.Logf("%v\n%+v", err, err)

	_, err = NewCollection(&ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"lost": spec}})
	qt.Assert(t, qt.ErrorAs(err, &e))
	qt.Check(t, qt.Equals(e.Program, "lost"))
	qt.Check(t, qt.Matches(e.Diagnosis.Rule, "VER.*"))
}

// TestHostObject loads a parser as agents have it, which is too dense for
// emulated machines.
func TestHostObject(t *testing.T) {
	onHost(t)
	raiseHarden(t)
	spec, err := ebpf.LoadCollectionSpec("../internal/objects/object/testdata/http_270_v2_g.o")
	qt.Assert(t, qt.IsNil(err))
	var reports []Repair
	l := Loader{RequireJIT: true, Report: func(r Repair) { reports = append(reports, r) }}
	start := time.Now()
	coll, err := l.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogDisabled: true}})
	qt.Assert(t, qt.IsNil(err))
	defer coll.Close()
	qt.Assert(t, qt.HasLen(reports, 1))
	r := reports[0]
	t.Logf("%s: %d far jumps, %d islands, %d slots added, after %v; the model says %v for the load that fails and %v for the other",
		r.Program, r.Before.TooFar, r.Islands, r.Added, time.Since(start).Round(time.Millisecond), r.Before.Time().Round(time.Millisecond), r.After.Time().Round(time.Millisecond))
	qt.Check(t, qt.IsTrue(r.Before.TooFar > 1))
	qt.Check(t, qt.Equals(r.Loads, 1))
	for _, prog := range coll.Programs {
		qt.Check(t, qt.IsFalse(uncompiled(prog)))
	}
}

func onHost(t *testing.T) {
	if os.Getuid() != 0 || os.Getenv("BPFWHY_HOST_SYSCTL") != "1" {
		t.Skip("needs root and BPFWHY_HOST_SYSCTL=1")
	}
}

// raiseHarden blinds what is loaded on this machine until the test ends.
func raiseHarden(t *testing.T) {
	raised, err := guardian.RaiseHarden(context.Background(), 2)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() {
		report, err := raised.Restore()
		qt.Check(t, qt.IsNil(err))
		t.Log(report)
	})
}

// TestHostCorpus blinds what is loaded on this machine for some seconds.
func TestHostCorpus(t *testing.T) {
	onHost(t)
	// Nobody else is to raise it while programs are to be loaded as they are.
	lock, err := guardian.Lock(unix.LOCK_EX)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { lock.Close() })
	if setting("bpf_jit_harden") != 0 {
		t.Skip("this machine is hardened already")
	}
	c := corpus(t, 5000, programs(80, 1000), func() {
		lock.Close()
		raiseHarden(t)
	})
	c.Kernel = "host"
	text, err := json.Marshal(c)
	qt.Assert(t, qt.IsNil(err))
	record(t, c.Kernel, text)
}
