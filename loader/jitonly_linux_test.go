// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/probe"
	"github.com/bpfwhy/bpfwhy/internal/objects/jitonly"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/go-quicktest/qt"
)

// beyond is a program that blinding breaks: it does what it is given, and then has a jump over so
// many instructions of which every nth is an addition of an immediate, which blinding makes three
// instructions of. Emulated machines are slow at that.
func beyond(first asm.Instructions, body, nth int) *ebpf.ProgramSpec {
	list := append(asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}, first...)
	list = append(list,
		asm.LoadMem(asm.R2, asm.R6, 0, asm.Word), // skb->len
		asm.JEq.Imm(asm.R2, 1<<20, "end"),
	)
	for i := range body {
		if i%nth == 0 {
			list = append(list, asm.Add.Imm(asm.R2, int32(i)+1))
		} else {
			list = append(list, asm.Xor.Reg(asm.R2, asm.R2))
		}
	}
	return &ebpf.ProgramSpec{
		Name: "beyond", Type: ebpf.SocketFilter, License: "GPL",
		Instructions: append(list, asm.Mov.Imm(asm.R0, 0).WithSymbol("end"), asm.Return()),
	}
}

// sparse is the cheapest such program.
func sparse(first asm.Instructions) *ebpf.ProgramSpec { return beyond(first, 32_600, 128) }

// lookup reads the value of key 0.
func lookup(m *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.StoreImm(asm.R10, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.R10), asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "none"),
		asm.LoadMem(asm.R3, asm.R0, 0, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("none"),
	}
}

func newMap(t *testing.T, typ ebpf.MapType) *ebpf.Map {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "counts", Type: typ, KeySize: 4, ValueSize: 8, MaxEntries: 4})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { m.Close() })
	return m
}

// TestGuestJITOnly loads programs that blinding breaks and that have what only compiled code can
// run, on each kernel, and runs none that is not compiled.
func TestGuestJITOnly(t *testing.T) {
	kernel := vmtest.Guest(t)
	m, plainMap := newMap(t, ebpf.PerCPUArray), newMap(t, ebpf.Array)
	spec := sparse(lookup(m))
	harden(t, "2")
	defer harden(t, "0")

	// What the kernel does with it.
	fates := map[string]string{"5.10": "interpreted", "6.1": "524", "hardened": "524", "6.12": "dangerous", "7": "524"}
	prog, err := plain(spec)
	fate := "524"
	if err == nil {
		qt.Assert(t, qt.IsTrue(uncompiled(prog)))
		fate = "interpreted"
		code, ok := dump(prog)
		qt.Assert(t, qt.IsTrue(ok))
		if slices.ContainsFunc(code, jitonly.IsPerCPUMove) {
			fate = "dangerous"
		}
		prog.Close()
	} else {
		qt.Assert(t, qt.ErrorIs(err, errNotSupp))
	}
	t.Logf("%s: %s", kernel, fate)
	qt.Assert(t, qt.Equals(fate, fates[kernel]))
	// So it is in the kernel's own types.
	host := node.Host()
	probe.Blinding(host)
	qt.Assert(t, qt.IsNotNil(host.Interpreter), qt.Commentf("%s", host.Unknown["interpreter"]))
	qt.Check(t, qt.Equals(host.Interpreter.Refuses, kernel == "7"), qt.Commentf("%s", host.Interpreter.From))

	// Without repair it is refused where it would be dangerous, by each way to load it.
	coll := &ebpf.CollectionSpec{
		Maps:     map[string]*ebpf.MapSpec{"counts": {Name: "counts", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 4}},
		Programs: map[string]*ebpf.ProgramSpec{"beyond": spec.Copy()},
	}
	for i, in := range coll.Programs["beyond"].Instructions {
		if in.IsLoadFromMap() {
			coll.Programs["beyond"].Instructions[i] = asm.LoadMapPtr(asm.R1, 0).WithReference("counts")
		}
	}
	silent := ebpf.ProgramOptions{LogDisabled: true}
	ways := map[string]func(l *Loader) (io.Closer, error){
		"program": func(l *Loader) (io.Closer, error) { return l.NewProgramWithOptions(spec, silent) },
		"collection": func(l *Loader) (io.Closer, error) {
			c, err := l.NewCollectionWithOptions(coll, ebpf.CollectionOptions{Programs: silent})
			if err != nil {
				return nil, err
			}
			return closer(c.Close), nil
		},
		"assign": func(l *Loader) (io.Closer, error) {
			var to struct {
				Beyond *ebpf.Program `ebpf:"beyond"`
			}
			err := l.LoadAndAssign(coll, &to, &ebpf.CollectionOptions{Programs: silent})
			return to.Beyond, err
		},
	}
	for name, load := range ways {
		c, err := load(&Loader{Off: true})
		switch fate {
		case "dangerous":
			qt.Check(t, qt.ErrorIs(err, ErrJITOnly), qt.Commentf("%s", name))
			var e *Error
			qt.Assert(t, qt.ErrorAs(err, &e))
			qt.Check(t, qt.Equals(e.Diagnosis.Rule, "BLIND003"))
			qt.Check(t, qt.IsTrue(strings.HasPrefix(e.Diagnosis.Danger, "It may crash the machine when it runs: instruction ")))
			qt.Check(t, qt.IsTrue(strings.Contains(e.Diagnosis.Danger, "(call bpf_map_lookup_elem#1) looks up in a per-CPU array")))
			qt.Check(t, qt.Equals(e.Diagnosis.Remedies[0].ID, "do-not-run"))
			t.Logf("%s: %v\n%s", name, err, e.Diagnosis.Danger)
		case "524":
			qt.Check(t, qt.ErrorIs(err, errNotSupp), qt.Commentf("%s", name))
		default:
			qt.Check(t, qt.IsNil(err), qt.Commentf("%s", name))
			c.Close()
		}
	}
	if fate == "dangerous" {
		c, err := ways["program"](&Loader{Off: true, AllowJITOnly: true})
		qt.Assert(t, qt.IsNil(err))
		c.Close()
	}
	// Repaired it is compiled, and harmless.
	repaired, err := (&Loader{}).NewProgramWithOptions(spec, silent)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsFalse(uncompiled(repaired)))
	_, _, err = repaired.Test(make([]byte, 64))
	qt.Check(t, qt.IsNil(err))
	repaired.Close()

	// A program without it is interpreted as ever, where the kernel does that.
	c, err := (&Loader{Off: true}).NewProgramWithOptions(sparse(lookup(plainMap)), silent)
	if kernel == "6.1" || kernel == "hardened" {
		qt.Assert(t, qt.ErrorIs(err, errNotSupp))
		return
	}
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(uncompiled(c)))
	_, _, err = c.Test(make([]byte, 64))
	qt.Check(t, qt.IsNil(err))
	c.Close()

	// may_goto is one that 7.2 does not refuse either.
	_, err = (&Loader{Off: true}).NewProgramWithOptions(sparse(endless), silent)
	if kernel == "7" {
		qt.Check(t, qt.ErrorIs(err, ErrJITOnly))
		t.Logf("%v", err)
	} else if kernel == "6.12" {
		qt.Check(t, qt.IsNil(err))
	}
}

type closer func()

func (c closer) Close() error { c(); return nil }

// endless is a loop that may_goto ends.
var endless = asm.Instructions{{OpCode: 0xe5, Offset: 1}, {OpCode: asm.Ja.Op(asm.ImmSource), Offset: -2}}

const panicEnv = "BPFWHY_PANIC"

// runs loads a program as it is, and runs it if the kernel interprets it. It ends the machine.
func runs(t *testing.T, spec *ebpf.ProgramSpec) {
	if vmtest.Guest(t); os.Getenv(panicEnv) != "1" {
		t.Skip("crashes the machine: only in one of its own")
	}
	harden(t, "2")
	prog, err := plain(spec)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(uncompiled(prog)))
	_, _, err = prog.Test(make([]byte, 64))
	t.Logf("the machine lives: %v", err)
}

func TestPanicLookup(t *testing.T) {
	runs(t, beyond(lookup(newMap(t, ebpf.PerCPUArray)), 16_000, 1))
}

func TestPanicMayGoto(t *testing.T) { runs(t, sparse(endless)) }

// TestKernelPanic shows that the warnings are true: the machine dies of one run. A loop of
// may_goto, which ends after a quarter of a second when it is compiled, does not end at all, and no
// kernel up to 7.3 refuses it; the machine is told to take that for a reason to panic.
func TestKernelPanic(t *testing.T) {
	for _, c := range []struct {
		name, kernel, pattern string
		args                  []string
		says                  string
	}{
		{"per-CPU array", "6.12", "^TestPanicLookup$", nil, "RIP: 0010:___bpf_prog_run"},
		{"may_goto", "7", "^TestPanicMayGoto$", []string{"softlockup_panic=1", "watchdog_thresh=2"}, "softlockup: hung tasks"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			console := vmtest.Panics(t, c.kernel, c.pattern, vm.Machine{Env: []string{panicEnv + "=1"}, KernelArgs: c.args})
			qt.Check(t, qt.IsTrue(bytes.Contains(console, []byte(c.says))), qt.Commentf("%s", console))
		})
	}
}
