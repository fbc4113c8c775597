// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/rewrite"
)

// dense is a program of n slots of which each that computes carries an immediate: the most that
// there can be to blind.
func dense(n int) []insn.Instruction {
	prog := make([]insn.Instruction, 0, n)
	prog = append(prog, insn.Instruction{Code: insn.ClassALU64 | insn.OpMOV})
	for len(prog) < n-1 {
		prog = append(prog, insn.Instruction{Code: insn.ClassALU64 | insn.OpADD, Imm: int32(len(prog))})
	}
	return append(prog, insn.Instruction{Code: insn.ClassJMP | insn.OpEXIT})
}

// farJumps is a program of n slots with jumps that all go to its end.
func farJumps(n, jumps int) []insn.Instruction {
	prog := dense(n)
	for j := range jumps {
		at := n - 2 - (j+1)*29000/jumps
		prog[at] = insn.Instruction{Code: insn.ClassJMP | insn.OpJEQ, Off: int16(n - 1 - at - 1), Imm: 1}
	}
	return prog
}

// spread is a program of n slots with jumps all over it, each as long as an offset can be.
func spread(n, jumps int) []insn.Instruction {
	prog := dense(n)
	for j := range jumps {
		at := 1 + j*((n-32770)/jumps)
		prog[at] = insn.Instruction{Code: insn.ClassJMP | insn.OpJEQ, Off: blinding.MaxOffset, Imm: 1}
	}
	return prog
}

// typical is the median of several runs of f.
func typical(runs int, f func()) time.Duration {
	took := make([]time.Duration, runs)
	for i := range took {
		start := time.Now()
		f()
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return took[runs/2]
}

// loadTime has the kernel verify, blind and compile a program, and returns the time that took.
func loadTime(t *testing.T, prog []insn.Instruction) time.Duration {
	instructions := make(asm.Instructions, len(prog))
	for i, in := range prog {
		instructions[i] = asm.Instruction{OpCode: asm.OpCode(in.Code), Dst: asm.Register(in.Dst), Src: asm.Register(in.Src), Offset: in.Off, Constant: int64(in.Imm)}
	}
	spec := &ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: instructions}
	start := time.Now()
	p, err := ebpf.NewProgramWithOptions(spec, ebpf.ProgramOptions{LogDisabled: true})
	took := time.Since(start)
	qt.Assert(t, qt.IsNil(err))
	p.Close()
	return took
}

// TestBenchBlinding measures prediction and repair beside the kernel's own pass and writes
// docs/benchmarks-blinding.md.
func TestBenchBlinding(t *testing.T) {
	if os.Getenv(wantEnv) != "1" {
		t.Skip("takes half a minute; set " + wantEnv + "=1")
	}
	quick := os.Getenv(quickEnv) == "1"
	var b strings.Builder
	fmt.Fprintf(&b, blindingPreamble, cpuModel(), runtime.NumCPU(), release(t))

	sizes := []int{5000, 10000, 30000}
	if quick {
		sizes = sizes[:1]
	}
	soft := map[int]time.Duration{}
	for _, n := range sizes {
		soft[n] = typical(5, func() { loadTime(t, dense(n)) })
	}
	raised, err := guardian.RaiseHarden(t.Context(), 2)
	qt.Assert(t, qt.IsNil(err))
	hard := map[int]time.Duration{}
	for _, n := range sizes {
		hard[n] = typical(3, func() { loadTime(t, dense(n)) })
	}
	_, err = raised.Restore()
	qt.Assert(t, qt.IsNil(err))

	b.WriteString("| instructions | load, harden=0 | load, harden=2 | predicted share of blinding | prediction | the kernel's blinding takes |\n| ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, n := range sizes {
		prog := dense(n)
		var p blinding.Prediction
		took := typical(101, func() {
			p, err = blinding.Predict(prog, nil, blinding.Kernel{}, blinding.Source{})
			qt.Assert(t, qt.IsNil(err))
		})
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s times as long |\n", thousands(float64(n)), short(soft[n]), short(hard[n]), short(p.Verdict.Time()), short(took),
			thousands(float64(hard[n]-soft[n])/float64(took)))
	}

	b.WriteString("\nThe same for programs of 30,000 instructions full of jumps, and the repair:\n\n| what | instructions | jumps | islands | time |\n| --- | ---: | ---: | ---: | ---: |\n")
	full := farJumps(30000, 3000)
	took := typical(101, func() { _, err = blinding.Check(full, blinding.Kernel{}) })
	qt.Assert(t, qt.IsNil(err))
	fmt.Fprintf(&b, "| prediction | 30,000 | 3,000 | | %s |\n", short(took))
	for _, size := range []struct{ n, jumps int }{{30000, 3000}, {900000, 20000}} {
		prog := farJumps(size.n, size.jumps)
		if size.n > 100000 {
			prog = spread(size.n, size.jumps)
		}
		var r *rewrite.Result
		took := typical(7, func() {
			r, err = rewrite.Rewrite(prog, rewrite.Options{})
			qt.Assert(t, qt.IsNil(err))
		})
		qt.Assert(t, qt.IsTrue(r.Changed() && r.After.Fits))
		fmt.Fprintf(&b, "| repair | %s | %s | %s | %s |\n", thousands(float64(size.n)), thousands(float64(size.jumps)), thousands(float64(r.Islands)), short(took))
	}

	objects := os.Getenv("BPFWHY_OBJECTS")
	if objects != "" {
		checkCorpus(t, &b, objects)
	}
	publish(t, !quick && objects != "", "benchmarks-blinding.md", b.String())
}

// checkCorpus measures `bpfwhy check` over the kernel's selftests, start to end.
func checkCorpus(t *testing.T, b *strings.Builder, dir string) {
	tool := build(t).bpfwhy
	var report struct {
		Objects []struct{ Programs []struct{} }
	}
	took := typical(5, func() {
		out, err := exec.Command(tool, "check", "--format", "json", dir).Output()
		var e *exec.ExitError
		qt.Assert(t, qt.IsTrue(err == nil || errors.As(err, &e) && e.ExitCode() == 1), qt.Commentf("%v", err))
		qt.Assert(t, qt.IsNil(json.Unmarshal(out, &report)))
	})
	n, programs := len(report.Objects), 0
	for _, o := range report.Objects {
		programs += len(o.Programs)
	}
	qt.Assert(t, qt.IsTrue(n > 100 && programs > n))
	fmt.Fprintf(b, "\n`bpfwhy check` over the %d objects (%d programs) that clang makes of the kernel's selftests ([selftests.md](selftests.md)) takes %s: %s objects a second.\n",
		n, programs, short(took), thousands(float64(n)/took.Seconds()))
}

// short writes a time with three digits.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.3g ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.3g µs", float64(d)/float64(time.Microsecond))
}

const blindingPreamble = `# What prediction and repair take

<!-- Written by ` + "`make bench`" + `. Do not edit. -->

On %s (%d processors), Linux %s. Medians.

Prediction beside the kernel's own pass, for programs of which every instruction carries an immediate. The kernel moves the tail of the
program for each instruction that it blinds, so its time grows with the square of the length; the model does not move anything.

`
