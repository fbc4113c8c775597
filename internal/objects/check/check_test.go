// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/objects/jitonly"
	"github.com/bpfwhy/bpfwhy/internal/objects/object"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/node"
)

var update = flag.Bool("update", false, "write the committed table anew")

func TestMain(m *testing.M) {
	guardian.Main()
	os.Exit(m.Run())
}

const (
	folder = "../object/testdata"
	table  = folder + "/http.md"
)

// parsers are the HTTP parser at each -mcpu, with and without BTF, 200 and 270 steps of its loop
// unrolled.
func parsers(t *testing.T) []string {
	list, err := filepath.Glob(folder + "/http_*.o")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(len(list), 12))
	slices.Sort(list)
	return list
}

// TestHTTP: 200 unrolled steps survive hardening at every -mcpu. 270 do not at v2 and v3, and do
// where clang uses gotol for the long jumps. After fix all do.
func TestHTTP(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# What becomes of an HTTP parser with an unrolled loop

` + "`http.bpf.c`" + `, built by the Makefile beside it with clang 19, as ` + "`bpfwhy check`" + ` predicts it for net.core.bpf_jit_harden=2 on any kernel.
TestHTTPOnThisKernel loads each of them hardened and compares (with BPFWHY_HOST_SYSCTL=1).

| steps | -mcpu | BTF | instructions | blinded | margin | jumps too long | verdict | islands of fix | then |
|---|---|---|---|---|---|---|---|---|---|
`)
	for _, path := range parsers(t) {
		f := strings.Split(strings.TrimSuffix(filepath.Base(path), ".o"), "_")
		btf := "no"
		if len(f) == 4 {
			btf = "yes"
		}
		p, islands, after := both(t, path)
		if f[1] == "200" || f[2] == "v4" {
			qt.Check(t, qt.Equals(p.Verdict, Loads), qt.Commentf("%s", path))
		} else {
			qt.Check(t, qt.Equals(p.Verdict, Fails), qt.Commentf("%s", path))
			qt.Check(t, qt.Equals(p.Jump.Source != nil, btf == "yes"))
		}
		qt.Check(t, qt.Equals(after.Verdict, Loads))
		fmt.Fprintf(&b, "| %s | %s | %s | %d | %d | %d | %d | %s, %s | %d | %s, %s |\n", f[1], f[2], btf, p.Insns, p.Blinded, p.Margin, p.TooFar,
			p.Verdict, p.Confidence, islands, after.Verdict, after.Confidence)
	}
	if *update {
		qt.Assert(t, qt.IsNil(os.WriteFile(table, []byte(b.String()), 0o644)))
	}
	want, err := os.ReadFile(table)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(cmp.Diff(string(want), b.String()), ""), qt.Commentf("go test -run TestHTTP ./internal/objects/check -update"))
}

// both checks the one program of an object, and of what fix makes of it.
func both(t *testing.T, path string) (before Program, islands int, after Program) {
	t.Helper()
	settings := Settings{Harden: 2, Kernel: blinding.AnyKernel()}
	o, err := object.ReadFile(path)
	qt.Assert(t, qt.IsNil(err))
	was, err := Programs(o, settings)
	qt.Assert(t, qt.IsNil(err))
	f, err := o.Fix(object.FixOptions{Kernel: blinding.AnyKernel()})
	qt.Assert(t, qt.IsNil(err))
	is, err := Programs(f.Object, settings)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(len(was), 1))
	qt.Assert(t, qt.Equals(len(is), 1))
	for _, fn := range f.Functions {
		islands += fn.Islands
	}
	return was[0], islands, is[0]
}

// TestHTTPOnThisKernel hardens the machine for some seconds and loads each object: what is said to
// load is compiled, what is said to fail is not, and what fix made of it is.
func TestHTTPOnThisKernel(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv("BPFWHY_HOST_SYSCTL") != "1" {
		t.Skip("needs root and BPFWHY_HOST_SYSCTL=1")
	}
	raised, err := guardian.RaiseHarden(context.Background(), 2)
	qt.Assert(t, qt.IsNil(err))
	defer func() {
		_, err := raised.Restore()
		qt.Check(t, qt.IsNil(err))
	}()
	for _, path := range parsers(t) {
		if !strings.HasSuffix(path, "_g.o") && os.Getenv("BPFWHY_LONG") != "1" {
			continue // the same instructions, and each takes a second
		}
		p, _, _ := both(t, path)
		o, err := object.ReadFile(path)
		qt.Assert(t, qt.IsNil(err))
		f, err := o.Fix(object.FixOptions{Kernel: blinding.AnyKernel()})
		qt.Assert(t, qt.IsNil(err))
		original, err := os.ReadFile(path)
		qt.Assert(t, qt.IsNil(err))
		jited, err := compiled(original)
		if errors.Is(err, unix.EINVAL) && strings.Contains(path, "_v4") {
			t.Logf("%s: this kernel does not take -mcpu=v4", path)
			continue
		}
		qt.Check(t, qt.Equals(jited, p.Verdict == Loads), qt.Commentf("%s: %v", path, err))
		if !f.Changed() {
			continue
		}
		jited, err = compiled(f.Bytes)
		qt.Check(t, qt.IsTrue(jited), qt.Commentf("%s, fixed: %v", path, err))
	}
}

// compiled loads the one program of an object and reports whether the kernel compiled it.
func compiled(b []byte) (bool, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(b))
	if err != nil {
		return false, err
	}
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		return false, err
	}
	defer c.Close()
	info, err := c.Programs["http_filter"].Info()
	if err != nil {
		return false, err
	}
	_, err = info.JitedSize() // not supported: interpreted
	return err == nil, err
}

// TestVerdict: it errs to one side.
func TestVerdict(t *testing.T) {
	tests := []struct {
		name       string
		p          blinding.Prediction
		verdict    Verdict
		confidence Confidence
	}{
		{"fits", blinding.Prediction{Fate: blinding.Loads}, Loads, Certain},
		{"fits as it stands", blinding.Prediction{Fate: blinding.MayFail}, Fails, Possible},
		{"does not fit", blinding.Prediction{Fate: blinding.Fails}, Fails, Likely},
		{"wraps", blinding.Prediction{Fate: blinding.Fails, Verdict: blinding.Verdict{Wraps: true}}, Wraps, Likely},
		{"may wrap", blinding.Prediction{Fate: blinding.MayFail, MayWrap: true}, Wraps, Possible},
		{"fails before it could wrap", blinding.Prediction{Fate: blinding.Fails, MayWrap: true}, Fails, Likely},
	}
	for _, test := range tests {
		v, c := verdict(&test.p)
		qt.Check(t, qt.Equals(v, test.verdict), qt.Commentf("%s", test.name))
		qt.Check(t, qt.Equals(c, test.confidence), qt.Commentf("%s", test.name))
	}
}

// Where it is not known whether the kernel notices a jump that wraps, both are said.
func TestWrapUnsure(t *testing.T) {
	o, err := object.ReadFile("testdata/percpu.o")
	qt.Assert(t, qt.IsNil(err))
	l, err := o.Link(o.Programs[0])
	qt.Assert(t, qt.IsNil(err))
	// A jump backwards over a body that grows just beyond its limit.
	l.Insns = append(slices.Repeat([]insn.Instruction{{Code: insn.ClassALU64 | insn.OpMOV, Dst: 3, Imm: 7}}, 10_922),
		insn.Instruction{Code: insn.ClassJMP | insn.OpJEQ, Dst: 3, Off: -10_923}, insn.Instruction{Code: insn.OpcodeExit})
	l.Functions = insn.Functions(l.Insns)
	for _, tt := range []struct {
		harden          int
		unsure, checks  bool
		verdict, others Verdict
		also            bool
	}{
		{2, true, false, Wraps, "", true},
		{1, true, false, Loads, Wraps, true},
		{0, true, false, Loads, "", false},
		{2, false, false, Wraps, "", false},
		{2, true, true, Fails, "", false}, // what cannot wrap
	} {
		p, err := program(o.Programs[0], l, Settings{Harden: tt.harden, WrapUnsure: tt.unsure, Kernel: blinding.Kernel{RangeCheck: tt.checks}})
		qt.Assert(t, qt.IsNil(err))
		c := qt.Commentf("%+v: %+v", tt, p)
		qt.Check(t, qt.Equals(p.Verdict, tt.verdict), c)
		qt.Check(t, qt.Equals(p.Unprivileged, tt.others), c)
		qt.Check(t, qt.Equals(strings.Contains(p.AlsoPossible, "ad139384ecdd"), tt.also), c)
	}
}

// TestRejected: what is only possible rejects a program where that is asked for, and so does too
// little room.
func TestRejected(t *testing.T) {
	near, far := &Jump{Need: 32000}, &Jump{Need: 10}
	programs := map[string]Program{
		"loads": {Verdict: Loads, Confidence: Certain, Margin: 32757, Jump: far}, "no jump": {Verdict: Loads, Confidence: Certain},
		"near": {Verdict: Loads, Confidence: Certain, Margin: 767, Jump: near}, "may": {Verdict: Fails, Confidence: Possible, Margin: 100, Jump: near},
		"may wrap": {Verdict: Wraps, Confidence: Possible, Margin: 100, Jump: near}, "fails": {Verdict: Fails, Confidence: Likely, Margin: -1, Jump: near},
	}
	for _, test := range []struct {
		r    Report
		want []string
	}{
		{Report{Harden: 2}, []string{"fails"}},
		{Report{Harden: 2, FailOn: Likely}, []string{"fails"}},
		{Report{Harden: 2, FailOn: Possible}, []string{"fails", "may", "may wrap"}},
		{Report{Harden: 2, MinMargin: 767}, []string{"fails", "may", "may wrap"}},
		{Report{Harden: 2, MinMargin: 768}, []string{"fails", "may", "may wrap", "near"}},
		{Report{Harden: 0, MinMargin: 768}, []string{"fails"}}, // nothing is blinded
	} {
		var got []string
		for name, p := range programs {
			test.r.Objects = []Object{{Programs: []Program{p}}}
			test.r.Count()
			qt.Check(t, qt.Equals(test.r.Summary.Rejected == 1, test.r.Objects[0].Programs[0].Rejected))
			if test.r.Summary.Rejected > 0 {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		qt.Check(t, qt.DeepEquals(got, test.want), qt.Commentf("%+v", test.r))
	}
}

func TestFile(t *testing.T) {
	o, err := File(filepath.Join(t.TempDir(), "none.o"), Settings{Harden: 2})
	qt.Assert(t, qt.ErrorMatches(err, "no such file or directory"))
	qt.Assert(t, qt.Equals(o.Error, err.Error()))
	qt.Assert(t, qt.IsNotNil(o.Programs))

	o, err = File(folder+"/small.o", Settings{Harden: 2, Kernel: blinding.AnyKernel()})
	qt.Assert(t, qt.IsNil(err))
	r := Report{Objects: []Object{o, {Error: "x"}}, Summary: Summary{Skipped: 3}}
	r.Count()
	qt.Assert(t, qt.Equals(r.Summary, Summary{Objects: 2, Programs: 3, Loads: 3, Bad: 1, Skipped: 3}))
	entry := o.Programs[1]
	qt.Assert(t, qt.Equals(entry.Functions, 5))
	qt.Assert(t, qt.Equals(entry.Insns, 67))
	qt.Assert(t, qt.Equals(entry.Jump.Function, "entry"))
	qt.Assert(t, qt.Equals(entry.Jump.From, 9)) // 13 slots on, over two 64-bit loads and four constants
	qt.Assert(t, qt.Equals(entry.Jump.Need, 13+2*5+4*2))
}

// A program that some kernels interpret when it fails to be blinded, and that they cannot
// interpret.
func TestDanger(t *testing.T) {
	for _, c := range []struct {
		kernel jitonly.Kernel
		harden int
		danger bool
	}{
		{jitonly.Kernel{}, 2, true},
		{jitonly.Kernel{}, 1, true}, // without CAP_BPF
		{jitonly.Kernel{}, 0, false},
		{jitonly.Kernel{Node: &node.Profile{Release: "6.12"}}, 2, true},
		{jitonly.Kernel{Node: &node.Profile{Release: "6.1"}}, 2, false},
		{jitonly.Kernel{Node: &node.Profile{Release: "7.2.13", Machine: "x86_64"}}, 2, false},
	} {
		o, err := File("testdata/percpu.o", Settings{Harden: c.harden, Kernel: blinding.AnyKernel(), JITOnly: c.kernel})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.HasLen(o.Programs, 1))
		got := o.Programs[0].Danger
		qt.Check(t, qt.Equals(strings.Contains(got, "(call bpf_map_lookup_elem#1) looks up in a per-CPU array"), c.danger), qt.Commentf("%+v: %q", c, got))
	}
}
