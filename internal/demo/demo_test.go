// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/test/recording"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

var keep = flag.String("keep", "", "keep every trace of the lab's kernels in this folder")

var update = flag.Bool("update", false, "record the traces of testdata/traces anew, in the lab's kernels")

func TestMain(m *testing.M) {
	guardian.Main()
	failing.Main()
	os.Exit(m.Run())
}

// fate is what a kernel does with a load.
type fate struct {
	outcome load.Outcome
	errno   int
}

var (
	works    = fate{load.Loaded, 0}
	unjited  = fate{load.LoadedNotJITed, 0}
	refused  = fate{load.Failed, abi.ENOTSUPP}
	everyone = []string{"5.10", "6.1", "6.12", "7", "hardened"}
)

// fates are the cases whose end depends on the kernel: kernel-facts, section 2. All other cases
// have one end.
var fates = map[string]map[string]fate{
	"blinding":       {"5.10": unjited, "6.1": refused, "6.12": unjited, "7": unjited, "hardened": refused},
	"blinding-calls": {"5.10": unjited, "6.1": unjited, "6.12": unjited, "7": unjited, "hardened": refused},
	"jit-limit":      {"5.10": unjited, "6.1": refused, "6.12": unjited, "7": unjited, "hardened": refused},
	"memlock":        {"5.10": {load.Failed, abi.EPERM}, "6.1": works, "6.12": works, "7": works, "hardened": works},
}

// on returns the case as one kernel has it, with a single expectation.
func (c Case) on(t testing.TB, kernel string) Case {
	want, ok := fates[c.Name][kernel]
	if !ok {
		qt.Assert(t, qt.HasLen(c.Expect, 1), qt.Commentf("%s: say what %s does", c.Name, kernel))
		return c
	}
	c.Expect = slices.DeleteFunc(slices.Clone(c.Expect), func(e Expect) bool { return fate{e.Outcome, e.Errno} != want })
	qt.Assert(t, qt.HasLen(c.Expect, 1), qt.Commentf("%s: on %s", c.Name, kernel))
	return c
}

// The expectations name rules that exist, and cases have names that can be typed.
func TestCases(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Cases() {
		qt.Check(t, qt.IsFalse(seen[c.Name]), qt.Commentf("%s is there twice", c.Name))
		seen[c.Name] = true
		for _, e := range c.Expect {
			if e.Rule == "" {
				qt.Check(t, qt.Equals(e.Outcome, load.Loaded), qt.Commentf("%s", c.Name))
				continue
			}
			_, ok := explain.ByID(e.Rule)
			qt.Check(t, qt.IsTrue(ok), qt.Commentf("%s: no rule %s", c.Name, e.Rule))
		}
		for _, k := range everyone {
			c.on(t, k)
		}
	}
	for name := range fates {
		qt.Check(t, qt.IsTrue(seen[name]), qt.Commentf("no case %s", name))
	}
}

// A demo that cannot fail proves nothing: each wrong answer is noticed.
func TestCheckNotices(t *testing.T) {
	c, err := Find([]string{"blinding"})
	qt.Assert(t, qt.IsNil(err))
	right := func() *load.Attempt {
		return &load.Attempt{
			Kind: load.ProgLoad, Outcome: load.Failed, Errno: 524, FailedStage: load.Blinding,
			Program:   &load.Program{Name: "far_jump_elf"},
			Diagnosis: &load.Diagnosis{Rule: "BLIND001"},
			Jump:      &load.Jump{From: 2, To: 32282, FromSource: "testdata/far_jump.c:10", Need: 33355, Limit: 32767},
			Evidence:  load.Evidence{EnterSeen: true, Observed: map[load.Stage]bool{load.Blinding: true}},
		}
	}
	_, wrong := c[0].Check([]*load.Attempt{right()})
	qt.Assert(t, qt.HasLen(wrong, 0))
	for name, spoil := range map[string]func(a *load.Attempt){
		"rule":    func(a *load.Attempt) { a.Diagnosis.Rule = "JIT001" },
		"nothing": func(a *load.Attempt) { a.Diagnosis = nil },
		"stage":   func(a *load.Attempt) { a.FailedStage = load.JIT },
		"errno":   func(a *load.Attempt) { a.Errno = 22 },
		"outcome": func(a *load.Attempt) { a.Outcome = load.Loaded },
		"no jump": func(a *load.Attempt) { a.Jump = nil },
		"from":    func(a *load.Attempt) { a.Jump.From = 3 },
		"to":      func(a *load.Attempt) { a.Jump.To = 32283 },
		"far off": func(a *load.Attempt) { a.Jump.From, a.Jump.Approximate = 11, true },
		"source":  func(a *load.Attempt) { a.Jump.FromSource = "testdata/far_jump.c:9" },
		"need":    func(a *load.Attempt) { a.Jump.Need = 32767 },
		"name":    func(a *load.Attempt) { a.Program.Name = "other" },
		"unsure, though the stage was observed": func(a *load.Attempt) {
			a.Diagnosis = &load.Diagnosis{Rule: explain.Unknown, Alternatives: []load.Alternative{{Rule: "BLIND001"}}}
		},
		"unsure, without the true cause": func(a *load.Attempt) {
			a.Diagnosis = &load.Diagnosis{Rule: explain.Unknown, Alternatives: []load.Alternative{{Rule: "JIT001"}}}
			a.Evidence.Observed = nil
		},
	} {
		a := right()
		spoil(a)
		_, wrong := c[0].Check([]*load.Attempt{a})
		qt.Check(t, qt.Not(qt.HasLen(wrong, 0)), qt.Commentf("%s", name))
	}
	open := right() // as where no hook shows blinding
	open.Diagnosis = &load.Diagnosis{Rule: explain.Unknown, Alternatives: []load.Alternative{{Rule: "BLIND001"}}}
	open.Evidence.Observed = nil
	_, wrong = c[0].Check([]*load.Attempt{open})
	qt.Check(t, qt.HasLen(wrong, 0))
	_, wrong = c[0].Check([]*load.Attempt{right(), right()})
	qt.Check(t, qt.Not(qt.HasLen(wrong, 0)), qt.Commentf("twice"))
	_, wrong = c[0].Check(nil)
	qt.Check(t, qt.Not(qt.HasLen(wrong, 0)), qt.Commentf("never"))
}

// run runs cases by one backend and compares each with what this kernel does. It returns the traces
// by case.
func run(t *testing.T, kernel string, o Options) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	began := time.Now()
	o.Progress = func(s string) { t.Logf("%6.2fs %s", time.Since(began).Seconds(), s) }
	o.Watching = func(h trace.Header) {
		t.Logf("watching by %s after %v", h.Backend, time.Since(began).Round(time.Millisecond))
	}
	ran := map[string]bool{}
	var problems []string
	o.Each = func(out Outcome) error {
		c := out.Case
		if out.Skipped != "" {
			if out.Demanded {
				problems = append(problems, fmt.Sprintf("%s: not run: %s", c.Name, out.Skipped))
			}
			return nil
		}
		ran[c.Name] = true
		for _, w := range out.Wrong {
			problems = append(problems, fmt.Sprintf("%s: %s", c.Name, w))
		}
		if out.Attempt == nil || kernel == "" {
			return nil
		}
		c = c.on(t, kernel)
		if !c.expects(out.Attempt) && !c.undecided(out.Attempt) && !c.unseen(out.Attempt) {
			problems = append(problems, fmt.Sprintf("%s: it %s; on this kernel it %s", c.Name, describe(out.Attempt), c.Expect[0]))
		}
		return nil
	}
	sum, err := Run(ctx, o)
	qt.Assert(t, qt.IsNil(err))
	for _, p := range problems {
		t.Errorf("%s", p)
	}
	qt.Check(t, qt.Equals(sum.OK(), len(problems) == 0))
	t.Logf("lost: %v", sum.Lost) // our own polling of the counters, as a rule: each case is accounted for below
	for _, c := range Cases() {
		wanted := slices.Contains(o.Names, c.Name) || len(o.Names) == 0 && !c.VM()
		qt.Check(t, qt.IsTrue(ran[c.Name] || !wanted), qt.Commentf("%s was not run", c.Name))
	}
	t.Logf("%d cases in %v", len(ran), time.Since(began).Round(time.Millisecond))
}

// recorder writes traces to a folder: what the machine brings back.
func recorder(dir string) func(Case, trace.Header, []trace.Record) error {
	return func(c Case, h trace.Header, records []trace.Record) error {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		f, err := os.Create(filepath.Join(dir, c.Name+".trace"))
		if err != nil {
			return err
		}
		defer f.Close()
		return writeTrace(f, h, records)
	}
}

func TestHost(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	o := Options{AllowSysctl: os.Getenv("BPFWHY_HOST_SYSCTL") == "1"}
	if harden, _ := readHarden(); !o.AllowSysctl && harden < 2 {
		t.Log("without the blinding cases; BPFWHY_HOST_SYSCTL=1 allows net.core.bpf_jit_harden to be raised for them")
		for _, c := range Cases() {
			if !c.VM() && c.Harden() == 0 {
				o.Names = append(o.Names, c.Name)
			}
		}
	}
	run(t, "", o)
}

// TestKernels runs what any machine can run, and last what needs sysctls that would spoil the rest.
// By fentry: what the other backends make of the same loads is corpus's matter, and that of the
// long tests.
func TestKernels(t *testing.T) {
	vmtest.RunIn(t, vmtest.Distinct(), "^TestGuestCases$", vm.Machine{Timeout: 6 * time.Minute}, saveTraces)
}

func TestGuestCases(t *testing.T) {
	kernel := vmtest.Guest(t)
	// Between the oldest and the newest kernel only what depends on the kernel.
	names := []string{"memlock"}
	for _, c := range Cases() {
		_, depends := fates[c.Name]
		if !c.VM() && (depends || slices.Contains(vmtest.Sample(), kernel)) {
			names = append(names, c.Name)
		}
	}
	backends := []string{"fentry"}
	if vmtest.Long() {
		backends = []string{"fentry", "kprobe", "tracepoint", "tp_btf"}
	}
	for _, b := range backends {
		t.Run(b, func(t *testing.T) { run(t, kernel, guestOptions(b, names)) })
	}
	limited, err := failing.Find("jit-limit")
	qt.Assert(t, qt.IsNil(err))
	for name, value := range limited.Needs.Sysctls {
		setSysctl(t, name, value)
	}
	for _, b := range backends {
		t.Run("jit-limit/"+b, func(t *testing.T) { run(t, kernel, guestOptions(b, []string{"jit-limit"})) })
	}
}

// setSysctl is for a machine of the lab, which ends after the test.
func setSysctl(t *testing.T, name, value string) {
	_, err := os.Stat(wire.SpecPath)
	qt.Assert(t, qt.IsNil(err), qt.Commentf("only in a machine of the lab"))
	qt.Assert(t, qt.Equals(os.Getppid(), 1))
	qt.Assert(t, qt.IsNil(os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0o644)))
}

// TestKernelsLockdown has to find its way by itself: lockdown=confidentiality leaves one backend.
func TestKernelsLockdown(t *testing.T) {
	p, err := failing.Find("lockdown")
	qt.Assert(t, qt.IsNil(err))
	vmtest.RunIn(t, vmtest.Sample(), "^TestGuestLockdown$", vm.Machine{KernelArgs: p.Needs.KernelArgs}, saveTraces)
}

func TestGuestLockdown(t *testing.T) {
	kernel := vmtest.Guest(t)
	run(t, kernel, guestOptions("", []string{"lockdown", "blinding", "ok"}))
}

// guestOptions has everything recorded, in a folder for each backend.
func guestOptions(backend string, names []string) Options {
	return Options{Backend: backend, Names: names, AllowSysctl: true, Tool: "test", Record: func(c Case, h trace.Header, records []trace.Record) error {
		return recorder(filepath.Join("/out", h.Backend))(c, h, records)
	}}
}

// saveTraces makes what a machine recorded by fentry, which shows most, the fixtures when asked to;
// under lockdown, which leaves one backend, the case that is about it.
func saveTraces(t *testing.T, kernel string, result *vm.Result) {
	for name, data := range result.Files {
		if *keep != "" {
			write(t, filepath.Join(*keep, kernel, name), data)
		}
		if *update && (path.Dir(name) == "fentry" || name == "tp_btf/lockdown.trace") {
			write(t, filepath.Join("testdata", "traces", kernel, path.Base(name)), recording.Squeeze(t, data))
		}
	}
}

func write(t *testing.T, name string, data []byte) {
	qt.Assert(t, qt.IsNil(os.MkdirAll(filepath.Dir(name), 0o755)))
	qt.Assert(t, qt.IsNil(os.WriteFile(name, data, 0o644)))
}

// maxFixture is the size of a committed trace, in bytes. The largest hold the 512 KiB that are kept
// of a log of 2.4 MB.
const maxFixture = 300 << 10

// Explaining the recorded traces gives the answer that was given where they were taken, on any
// machine and without root.
func TestTraces(t *testing.T) {
	for _, kernel := range everyone {
		for _, c := range Cases() {
			t.Run(kernel+"/"+c.Name, func(t *testing.T) {
				name := filepath.Join("testdata", "traces", kernel, c.Name+".trace")
				f, err := os.Open(name)
				qt.Assert(t, qt.IsNil(err))
				defer f.Close()
				info, err := f.Stat()
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.IsTrue(info.Size() <= maxFixture), qt.Commentf("%d bytes", info.Size()))
				attempts, err := Explain(f)
				qt.Assert(t, qt.IsNil(err))
				here := c.on(t, kernel)
				a, wrong := here.Check(attempts)
				qt.Assert(t, qt.HasLen(wrong, 0))
				// Traces are taken by fentry, which misses nothing: what can be seen was seen, not
				// concluded.
				if c.Harden() > 0 {
					qt.Check(t, qt.Equals(a.Diagnosis.HowKnown, load.Observed))
					qt.Check(t, qt.IsTrue(strings.HasSuffix(a.Jump.FromSource, c.Jump.Source)))
				}
				qt.Check(t, qt.IsTrue(here.expects(a)))
			})
		}
	}
}
