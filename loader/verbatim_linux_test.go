// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"debug/elf"
	"errors"
	"os"
	"reflect"
	"runtime"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/sys/verbatim"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// Lockdown is for a boot.
func TestKernelsLocked(t *testing.T) {
	vmtest.RunIn(t, vmtest.Sample(), "^TestLocked", vm.Machine{KernelArgs: []string{"lockdown=confidentiality"}})
}

// locked skips a test where the kernel lets programs read its memory.
func locked(t *testing.T) {
	inLab := os.Getenv(wire.KernelEnv) != ""
	if !inLab && os.Getuid() != 0 {
		t.Skip("needs root")
	}
	err := verbatim.Try(asm.FnProbeReadKernel)
	if err == nil && !inLab {
		t.Skip("THIS MACHINE IS NOT LOCKED DOWN: TestKernelsLocked boots one that is")
	}
	qt.Assert(t, qt.ErrorIs(err, unix.EINVAL))
	qt.Assert(t, qt.IsNil(verbatim.Try(asm.FnProbeReadUser)))
}

const regsAX = 80 // of struct pt_regs: Go's first argument

// reader is a collection as of an agent with uprobes: one program reads what the first argument of
// a Go function points to, in a function of its own; another reads nothing; and a map has the first
// as its content.
func reader(kernelToo asm.Instructions) *ebpf.CollectionSpec {
	return &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{
			"seen":  {Name: "seen", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1},
			"tails": {Name: "tails", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1, Contents: []ebpf.MapKV{{Key: uint32(0), Value: "reads"}}},
		},
		Programs: map[string]*ebpf.ProgramSpec{
			"reads": {
				Name: "reads", Type: ebpf.Kprobe, License: "GPL",
				Instructions: append(append(asm.Instructions{
					asm.LoadMem(asm.R6, asm.R1, regsAX, asm.DWord).WithSymbol("reads"),
				}, kernelToo...),
					asm.Mov.Reg(asm.R1, asm.R6),
					asm.Call.Label("store"),
					asm.Mov.Imm(asm.R0, 0),
					asm.Return(),
					// void store(u64 address)
					asm.Mov.Reg(asm.R6, asm.R1).WithSymbol("store"),
					asm.Mov.Imm(asm.R1, 0),
					asm.StoreMem(asm.R10, -16, asm.R1, asm.DWord), // the key
					asm.Mov.Reg(asm.R1, asm.R10),
					asm.Add.Imm(asm.R1, -8),
					asm.Mov.Imm(asm.R2, 8),
					asm.Mov.Reg(asm.R3, asm.R6),
					asm.FnProbeReadUser.Call(),
					asm.LoadMapPtr(asm.R1, 0).WithReference("seen"),
					asm.Mov.Reg(asm.R2, asm.R10),
					asm.Add.Imm(asm.R2, -16),
					asm.Mov.Reg(asm.R3, asm.R10),
					asm.Add.Imm(asm.R3, -8),
					asm.Mov.Imm(asm.R4, 0),
					asm.FnMapUpdateElem.Call(),
					asm.Mov.Imm(asm.R0, 0),
					asm.Return(),
				),
			},
			"idle": {Name: "idle", Type: ebpf.Kprobe, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}},
		},
	}
}

// readsKernel reads 8 bytes of the kernel if register 7 is 1.
func readsKernel(r7 int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R7, r7),
		asm.JNE.Imm(asm.R7, 1, "on"),
		asm.Mov.Reg(asm.R1, asm.R10),
		asm.Add.Imm(asm.R1, -8),
		asm.Mov.Imm(asm.R2, 8),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnProbeReadKernel.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("on"),
	}
}

//go:noinline
func probed(p *uint64) { runtime.KeepAlive(p) }

// sees puts a program on a function of this executable, and calls it.
func sees(t *testing.T, prog *ebpf.Program, seen *ebpf.Map) {
	t.Helper()
	pc := uint64(reflect.ValueOf(probed).Pointer())
	self, err := elf.Open("/proc/self/exe")
	qt.Assert(t, qt.IsNil(err))
	defer self.Close()
	if self.Type != elf.ET_EXEC {
		t.Skip("the executable of the test is not where its file says")
	}
	offset := uint64(0)
	for _, p := range self.Progs {
		if p.Type == elf.PT_LOAD && pc >= p.Vaddr && pc < p.Vaddr+p.Filesz {
			offset = pc - p.Vaddr + p.Off
		}
	}
	exe, err := link.OpenExecutable("/proc/self/exe")
	qt.Assert(t, qt.IsNil(err))
	l, err := exe.Uprobe("probed", prog, &link.UprobeOptions{Address: offset})
	qt.Assert(t, qt.IsNil(err))
	defer l.Close()
	for _, want := range []uint64{0x0123456789abcdef, 42} {
		probed(&want)
		var got uint64
		qt.Assert(t, qt.IsNil(seen.Lookup(uint32(0), &got)))
		qt.Check(t, qt.Equals(got, want))
	}
	qt.Check(t, qt.IsFalse(uncompiled(prog)))
}

func TestLockedPrograms(t *testing.T) {
	locked(t)
	spec := reader(nil)
	var reports []Repair
	l := Loader{RequireJIT: true, Report: func(r Repair) { reports = append(reports, r) }}
	fresh := Repair{Program: "reads", Verbatim: true, Loads: 1}
	known := Repair{Program: "reads", Verbatim: true, Early: true}

	_, err := ebpf.NewCollection(spec)
	qt.Assert(t, qt.ErrorIs(err, unix.EINVAL)) // what this is all about
	_, err = (&Loader{Off: true}).NewCollection(spec)
	qt.Assert(t, qt.ErrorIs(err, unix.EINVAL))

	for _, want := range []Repair{fresh, known} {
		coll, err := l.NewCollection(spec)
		qt.Assert(t, qt.IsNil(err))
		defer coll.Close()
		qt.Check(t, qt.DeepEquals(reports, []Repair{want}))
		sees(t, coll.Programs["reads"], coll.Maps["seen"])
		reports = nil
	}

	for _, want := range []Repair{known, fresh} {
		if !want.Early {
			l.memory = memory{} // as if it were another process
		}
		var to struct {
			Reads *ebpf.Program `ebpf:"reads"`
			Idle  *ebpf.Program `ebpf:"idle"`
			Seen  *ebpf.Map     `ebpf:"seen"`
		}
		qt.Assert(t, qt.IsNil(l.LoadAndAssign(spec, &to, nil)))
		qt.Check(t, qt.DeepEquals(reports, []Repair{want}))
		sees(t, to.Reads, to.Seen)
		qt.Check(t, qt.IsNil(errors.Join(to.Reads.Close(), to.Idle.Close(), to.Seen.Close())))
		reports = nil
	}

	seen, err := ebpf.NewMap(spec.Maps["seen"])
	qt.Assert(t, qt.IsNil(err))
	defer seen.Close()
	single := spec.Programs["reads"].Copy()
	qt.Assert(t, qt.IsNil(single.Instructions.AssociateMap("seen", seen)))
	l.memory = memory{}
	for _, want := range []Repair{fresh, known} {
		prog, err := l.NewProgramWithOptions(single, ebpf.ProgramOptions{LogDisabled: true})
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.DeepEquals(reports, []Repair{want}))
		sees(t, prog, seen)
		qt.Check(t, qt.IsNil(prog.Close()))
		reports = nil
	}
}

// Reads of the kernel's memory are refused as ever, where they are not dead.
func TestLockedKernelReads(t *testing.T) {
	locked(t)
	var reports []Repair
	l := Loader{Report: func(r Repair) { reports = append(reports, r) }}
	_, err := l.NewCollection(reader(readsKernel(1)))
	qt.Assert(t, qt.ErrorIs(err, unix.EINVAL))
	var e *Error
	qt.Assert(t, qt.ErrorAs(err, &e))
	qt.Check(t, qt.Equals(e.Diagnosis.Rule, "PERM003"))
	qt.Check(t, qt.Equals(e.Program, "reads"))
	qt.Check(t, qt.HasLen(reports, 0))
	t.Logf("%v", err)

	coll, err := l.NewCollection(reader(readsKernel(0)))
	qt.Assert(t, qt.IsNil(err))
	defer coll.Close()
	qt.Check(t, qt.DeepEquals(reports, []Repair{{Program: "reads", Verbatim: true, Early: true}}))
	sees(t, coll.Programs["reads"], coll.Maps["seen"])
}
