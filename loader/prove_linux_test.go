// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/sys/freeing"
	"github.com/bpfwhy/bpfwhy/internal/test/randprog"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/rewrite"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// inputs is on how many packets two forms of a program are compared.
const inputs = 100

// trial is one program before the kernel blinds.
type trial struct {
	*randprog.Program
	spec       *ebpf.ProgramSpec
	translated []insn.Instruction // post-verifier
	functions  []insn.Function
	verdict    blinding.Verdict
	prediction blinding.Prediction
	returns    []uint32
}

// optionsOf chooses the programs of a corpus: most within three slots of the
// limit, every fourth rich in what the verifier rewrites.
func optionsOf(seed uint64) randprog.Options {
	o := randprog.Any(seed)
	if seed%4 == 3 {
		o.Rich, o.Several = 250, false
		o.Delta = -rand.New(rand.NewPCG(seed, 3)).IntN(1400)
	}
	if !long() {
		// Emulated kernels take milliseconds for each instruction that grows.
		o.Grown = 40 + int(seed%41)
		if o.Rich > 0 {
			o.Rich, o.Delta = 600, o.Delta/2
		}
	}
	return o
}

// packets are the inputs of a program.
func packets(seed uint64) [][]byte {
	rnd := rand.New(rand.NewPCG(seed, 4))
	list := make([][]byte, inputs)
	for i := range list {
		list[i] = make([]byte, randprog.PacketSize)
		for at := range list[i] {
			if rnd.IntN(4) > 0 { // zeroes, too
				list[i][at] = byte(rnd.IntN(256))
			}
		}
	}
	return list
}

func run(t testing.TB, prog *ebpf.Program, seed uint64) []uint32 {
	t.Helper()
	qt.Assert(t, qt.IsTrue(vmtest.MayRun(!uncompiled(prog))))
	var returns []uint32
	for _, data := range packets(seed) {
		ret, err := prog.Run(&ebpf.RunOptions{Data: data})
		qt.Assert(t, qt.IsNil(err))
		returns = append(returns, ret)
	}
	return returns
}

// values makes the map that programs read.
func values(t testing.TB) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: randprog.ValueSize, MaxEntries: 1})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { m.Close() })
	value := make([]byte, randprog.ValueSize)
	rnd := rand.New(rand.NewPCG(9, 9))
	for i := range value {
		value[i] = byte(rnd.IntN(256))
	}
	qt.Assert(t, qt.IsNil(m.Put(uint32(0), value)))
	return m
}

func specOf(t testing.TB, p *randprog.Program, m *ebpf.Map) *ebpf.ProgramSpec {
	t.Helper()
	prog := slices.Clone(p.Insns)
	for _, at := range p.MapLoads {
		prog[at].Imm = int32(m.FD())
	}
	return &ebpf.ProgramSpec{Name: fmt.Sprintf("p%d", p.Seed), Type: ebpf.SchedCLS, License: "GPL", Instructions: instructions(t, prog)}
}

// plain loads like somebody who asks once and says no more.
func plain(spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	return ebpf.NewProgramWithOptions(spec, ebpf.ProgramOptions{LogDisabled: true})
}

// begin loads a program where nothing is blinded. It returns nil for a program
// that is too long for the verifier's own patches.
func begin(t testing.TB, seed uint64, m *ebpf.Map, k blinding.Kernel) *trial {
	t.Helper()
	tr := &trial{Program: randprog.New(optionsOf(seed))}
	comment := qt.Commentf("%+v", tr.Options)
	tr.spec = specOf(t, tr.Program, m)
	prog, err := plain(tr.spec)
	if err != nil {
		if _, err = ebpf.NewProgram(tr.spec); err != nil && strings.Contains(err.Error(), "cannot be patched due to 16-bit range") {
			return nil
		}
		t.Fatalf("%+v: %v", tr.Options, err)
	}
	defer prog.Close()
	qt.Assert(t, qt.IsFalse(uncompiled(prog)), comment)
	tr.translated = translated(t, prog)
	tr.functions = translatedFunctions(t, tr)
	tr.verdict, err = blinding.CheckFunctions(tr.translated, tr.functions, k)
	qt.Assert(t, qt.IsNil(err), comment)
	tr.prediction, err = blinding.Predict(tr.Insns, tr.Program.Functions, k, blinding.Source{Type: "sched_cls"})
	qt.Assert(t, qt.IsNil(err), comment)
	tr.returns = run(t, prog, seed)
	different := slices.Clone(tr.returns)
	slices.Sort(different)
	if n := len(slices.Compact(different)); n < inputs/2 {
		t.Errorf("%+v: only %d different results", tr.Options, n)
	}
	return tr
}

// translated reads the code of a program as the verifier has left it.
func translated(t testing.TB, prog *ebpf.Program) []insn.Instruction {
	t.Helper()
	list, ok := dump(prog)
	qt.Assert(t, qt.IsTrue(ok))
	return list
}

// translatedFunctions finds the functions of translated code. The distance of a
// call is in its offset once the program is compiled.
func translatedFunctions(t testing.TB, tr *trial) []insn.Function {
	t.Helper()
	all := []insn.Function{{End: len(tr.translated)}}
	if !tr.Sub {
		return all
	}
	at := slices.IndexFunc(tr.translated, insn.Instruction.IsFuncCall)
	start := at + 1 + int(tr.translated[at].Off)
	if tr.Rich == 0 {
		qt.Assert(t, qt.Equals(len(tr.translated)-start, tr.Program.Functions[1].Len()))
	}
	return []insn.Function{{End: start}, {Start: start, End: len(tr.translated)}}
}

// patches watches the kernel's bpf_patch_insn_single fail.
type patches struct{ seen *ebpf.Map }

// watchPatches returns nil where it cannot be watched.
func watchPatches(t testing.TB) *patches {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { m.Close() })
	// Behind the four arguments is what it returned: keep the second one, plus
	// one, when that is an error.
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "patches", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFExit, AttachTo: "bpf_patch_insn_single", License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, 32, asm.DWord),
			asm.LoadMem(asm.R3, asm.R1, 8, asm.DWord),
			asm.LoadMapValue(asm.R4, m.FD(), 0),
			asm.Mov.Imm(asm.R5, -4095), // sign-extended
			asm.JLT.Reg(asm.R2, asm.R5, "fine"),
			asm.Add.Imm(asm.R3, 1),
			asm.StoreMem(asm.R4, 0, asm.R3, asm.DWord),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("fine"),
			asm.Return(),
		},
	})
	if err == nil {
		t.Cleanup(func() { prog.Close() })
		var l link.Link
		if l, err = link.AttachTracing(link.TracingOptions{Program: prog}); err == nil {
			t.Cleanup(func() { l.Close() })
			return &patches{m}
		}
	}
	t.Logf("failing indexes cannot be watched here: %v", err)
	return nil
}

func (p *patches) reset(t testing.TB) { qt.Assert(t, qt.IsNil(p.seen.Put(uint32(0), uint64(0)))) }

// failed is the off argument of the call that failed, -1 if none did.
func (p *patches) failed(t testing.TB) int {
	var off uint64
	qt.Assert(t, qt.IsNil(p.seen.Lookup(uint32(0), &off)))
	return int(uint32(off)) - 1
}

// judge loads a program where everything is blinded, as it is and repaired.
func (c *tally) judge(t testing.TB, tr *trial, watch *patches) {
	t.Helper()
	c.Programs++
	if tr.Rich > 0 {
		c.Rich++
	}
	v := tr.verdict
	switch v.Failure {
	case blinding.None:
		c.Fits++
	case blinding.Patch:
		c.Patches++
	case blinding.RangeCheck:
		c.Checks++
	case blinding.Wrap:
		c.Wraps++
	}
	if grown := v.After - tr.prediction.Verdict.After; !tr.prediction.Verdict.Wraps {
		c.MostGrowth = max(c.MostGrowth, grown)
		c.LeastHeadroom = min(c.LeastHeadroom, tr.prediction.Growth-grown)
		if grown > tr.prediction.Growth {
			c.wrong("%+v: the verifier adds %d slots, and not %d at most", tr.Options, grown, tr.prediction.Growth)
		}
	}

	compiled := true
	if !v.Wraps { // that would lead into memory behind the program
		if watch != nil {
			watch.reset(t)
		}
		prog, err := plain(tr.spec)
		switch {
		case err == nil:
			compiled = !uncompiled(prog)
			prog.Close()
		case errors.Is(err, errNotSupp), errors.Is(err, errMemory), errors.Is(err, unix.EINVAL):
			compiled = false // EINVAL where the interpreter cannot run it
		default:
			c.wrong("%+v: %v", tr.Options, err)
			return
		}
		c.Verdicts++
		if compiled != v.Fits {
			c.wrong("%+v: predicted %v at %d (need %d), and the kernel compiled it: %v (%v)", tr.Options, v.Failure, v.FailIndex, v.Jump.Need, compiled, err)
		}
		if !compiled {
			if err == nil {
				c.Interpreted++
			} else {
				c.Refused++
			}
		}
		if watch != nil {
			c.Indexes++
			if off := watch.failed(t); off != v.FailOff {
				c.wrong("%+v: predicted %v with off %d, and the kernel failed at %d", tr.Options, v.Failure, v.FailOff, off)
			}
		}
	}
	// On submitted code. What wraps is a failure.
	works := v.Fits
	switch tr.prediction.Fate {
	case blinding.Loads:
		c.Loads++
		if !works {
			c.FalseLoads++
			c.wrong("%+v: said to load, and does not", tr.Options)
		}
	case blinding.MayFail:
		c.MayFail++
		if works {
			c.FalseMayFail++
		}
	case blinding.Fails:
		c.Fails++
		if works {
			c.FalseFails++
		}
	}
	if v.Wraps && !tr.prediction.MayWrap && tr.prediction.Fate == blinding.Loads {
		c.wrong("%+v: it wraps, and nobody said so", tr.Options)
	}
	if works && tr.Seed%8 > 0 { // a few of those that fit, too
		return
	}
	c.repair(t, tr)
}

// repair lets a loader load the program.
func (c *tally) repair(t testing.TB, tr *trial) {
	t.Helper()
	var done *Repair
	l := Loader{RequireJIT: true, Report: func(r Repair) { done = &r }, Gotol: tr.Seed%5 == 4}
	switch tr.Seed % 3 {
	case 1:
		l.Limits = []int{9000 + int(tr.Seed%7)*1000}
	}
	if !long() && tr.Seed%4 > 0 && l.Limits == nil {
		// As it was seen a moment ago: no need to let it fail again.
		if code, err := codeOf(tr.spec.Instructions); err == nil {
			l.memory.learn(code.content(tr.spec.Type), rewrite.DefaultLimit)
		}
	}
	prog, err := l.NewProgramWithOptions(tr.spec, ebpf.ProgramOptions{LogDisabled: true})
	if err != nil {
		c.wrong("%+v: %+v", tr.Options, err)
		return
	}
	defer prog.Close()
	if uncompiled(prog) {
		c.wrong("%+v: not compiled", tr.Options)
	}
	if got := run(t, prog, tr.Seed); !slices.Equal(got, tr.returns) {
		c.wrong("%+v: repaired, it computes something else", tr.Options)
	}
	c.Runs += inputs
	if done == nil {
		if !tr.verdict.Fits {
			c.wrong("%+v: it does not fit, and was loaded as it is", tr.Options)
		}
		return
	}
	c.Repaired++
	c.Islands += done.Islands
	if done.Gotol {
		c.Gotol++
	}
	if done.Early {
		c.Early++
	}
	if done.Loads <= 1 {
		c.First++
	}
	if tr.verdict.Wraps && !done.Early {
		c.wrong("%+v: it wraps, and was loaded all the same", tr.Options)
	}
}

// corpus makes and judges so many programs. raise makes the kernel blind.
func corpus(t *testing.T, first uint64, programs int, raise func()) *tally {
	t.Helper()
	start := time.Now()
	var u unix.Utsname
	qt.Assert(t, qt.IsNil(unix.Uname(&u)))
	c := &tally{Release: unix.ByteSliceToString(u.Release[:]), LeastHeadroom: 1 << 30}
	m := values(t)
	k := thisKernel()
	var trials []*trial
	var closed freeing.Bound
	for n := range programs {
		qt.Assert(t, qt.IsNil(closed.Closed()))
		if tr := begin(t, first+uint64(n), m, k); tr != nil {
			trials = append(trials, tr)
		}
	}
	qt.Assert(t, qt.IsTrue(len(trials) > programs*9/10))
	t.Logf("%d programs loaded and run after %v", programs, time.Since(start).Round(time.Second))
	watch := watchPatches(t)
	raise()
	qt.Assert(t, qt.IsTrue(mayBeBlinded()))
	for _, tr := range trials {
		c.judge(t, tr, watch)
		qt.Assert(t, qt.IsNil(closed.Closed()))
	}
	c.Seconds = time.Since(start).Seconds()
	for _, p := range c.problems {
		t.Error(p)
	}
	text, _ := json.Marshal(c)
	t.Logf("%s", text)
	qt.Check(t, qt.IsTrue(c.Fits > programs/5 && c.Patches+c.Checks+c.Wraps > programs/5))
	qt.Check(t, qt.IsTrue(watch == nil || c.Indexes > programs/2))
	return c
}

// long asks for the corpora whose results are committed.
func long() bool { return os.Getenv("BPFWHY_LONG") == "1" }

// programs is how many a corpus has.
func programs(normal, inLongRun int) int {
	if long() {
		return inLongRun
	}
	if n, err := strconv.Atoi(os.Getenv("BPFWHY_PROGRAMS")); err == nil {
		return n // while developing
	}
	return normal
}
