// SPDX-License-Identifier: Apache-2.0

// Package vmtest runs Go tests inside the lab's kernels.
//
// A package that needs a kernel writes its tests as TestGuestXxx, each
// starting with [Guest], and one test that runs them everywhere:
//
//	func TestKernels(t *testing.T) { vmtest.Run(t, "^TestGuest", vm.Machine{}) }
//
//	func TestGuestLoad(t *testing.T) {
//		vmtest.Guest(t)
//		...
//	}
package vmtest

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
)

// Guest skips a test that does not run inside a lab machine, and returns the
// machine's kernel, as [vm.Kernels] names it.
func Guest(t testing.TB) string {
	t.Helper()
	kernel := os.Getenv(wire.KernelEnv)
	if kernel == "" {
		t.Skip("runs inside the lab's kernels")
	}
	return kernel
}

// MayRun reports whether a test may run a BPF program that it has loaded: on a host only one that
// the kernel has compiled. What the interpreter does not know can crash the machine, or keep it
// busy for good, and such a machine is only lost inside the lab. Whatever runs a program asks this
// first, or [Guest]: a test of the architecture looks.
func MayRun(compiled bool) bool { return compiled || os.Getenv(wire.KernelEnv) != "" }

// Need skips a test that boots machines, unless they are wanted: BPFWHY_LAB=1,
// or CI=true.
func Need(t testing.TB) {
	t.Helper()
	if os.Getenv(wire.KernelEnv) != "" {
		t.Skip("runs on the host of the lab")
	}
	if os.Getenv("BPFWHY_LAB") != "1" && os.Getenv("CI") != "true" {
		t.Skip("boots machines; set BPFWHY_LAB=1")
	}
}

// Long reports whether the long corpora are wanted, on the host and in the
// guests: BPFWHY_LONG=1, which is what `make test-long` sets. Without it a test
// takes a sample that says what it leaves out.
func Long() bool { return os.Getenv(longEnv) == "1" }

const longEnv = "BPFWHY_LONG"

// Sample returns the oldest and the newest kernel, for what those between have
// no say of their own in, and all of them when the long tests are wanted.
func Sample() []string {
	if Long() {
		return allKernels()
	}
	return []string{"5.10", "7"}
}

// Distinct returns the kernels that differ most: the oldest, one that forbids the interpreter, and
// the newest. It returns all of them when the long tests are wanted.
func Distinct() []string {
	if Long() {
		return allKernels()
	}
	return []string{"5.10", "hardened", "7"}
}

// Oldest returns the oldest kernel, for what is about the tool itself and takes an emulated machine
// minutes: the oldest kernel is the fastest. It returns [Sample] when the long tests are wanted.
func Oldest() []string {
	if Long() {
		return Sample()
	}
	return []string{"5.10"}
}

// Sampled is [Guest] for what the kernels between the oldest and the newest have no say of their
// own in: it skips the test there, unless the long tests are wanted.
func Sampled(t testing.TB) string {
	t.Helper()
	kernel := Guest(t)
	if !slices.Contains(Sample(), kernel) {
		t.Skip("on the oldest and the newest kernel; on all with BPFWHY_LONG=1")
	}
	return kernel
}

// Once is [Guest] for what is about the tool and takes an emulated machine long: it skips the test
// on all kernels but the oldest, which is the fastest, unless the long tests are wanted.
func Once(t testing.TB) string {
	t.Helper()
	kernel := Guest(t)
	if !Long() && !slices.Contains(Oldest(), kernel) {
		t.Skip("on the oldest kernel; on all with BPFWHY_LONG=1")
	}
	return kernel
}

// Kernels returns the kernels to test on: all of them. A developer may narrow
// them with BPFWHY_KERNELS_ONLY, such as "5.10,6.1"; in CI that is an error.
func Kernels(t testing.TB) []string {
	t.Helper()
	ids, err := kernels(os.Getenv("BPFWHY_KERNELS_ONLY"), os.Getenv("CI") == "true")
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func allKernels() []string {
	var all []string
	for _, kernel := range vm.Kernels() {
		all = append(all, kernel.ID)
	}
	return all
}

func kernels(only string, ci bool) ([]string, error) {
	all := allKernels()
	if only == "" {
		return all, nil
	}
	if ci {
		return nil, fmt.Errorf("BPFWHY_KERNELS_ONLY=%s: CI tests on every kernel", only)
	}
	wanted := strings.Split(only, ",")
	for _, id := range wanted {
		if !slices.Contains(all, id) {
			return nil, fmt.Errorf("BPFWHY_KERNELS_ONLY=%s: no kernel %q; there are %s", only, id, strings.Join(all, ", "))
		}
	}
	return wanted, nil
}

// Run is [RunIn] in every kernel.
func Run(t *testing.T, pattern string, m vm.Machine, checks ...func(t *testing.T, kernel string, result *vm.Result)) {
	t.Helper()
	RunIn(t, allKernels(), pattern, m, checks...)
}

// RunIn runs those of the calling package's tests that match pattern in some kernels, each as a
// parallel subtest and each guest test as a subtest of that. Commands of m run before the tests and
// have to succeed. The package's testdata folder is in the guest too, below the working directory.
// Each of checks is called with what the machine gave back.
//
// A kernel that cannot be had, and a pattern that no test passes or fails
// under, are failures. A developer may take another pattern with
// BPFWHY_GUEST_RUN; in CI it is not looked at.
func RunIn(t *testing.T, ids []string, pattern string, m vm.Machine, checks ...func(t *testing.T, kernel string, result *vm.Result)) {
	t.Helper()
	Need(t)
	wanted := Kernels(t)
	ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !slices.Contains(wanted, id) })
	if len(ids) == 0 {
		t.Skip("none of its kernels is in BPFWHY_KERNELS_ONLY")
	}
	if only := os.Getenv("BPFWHY_GUEST_RUN"); only != "" && os.Getenv("CI") != "true" {
		pattern = only
	}
	binary := staticBinary(t)
	if m.Timeout == 0 {
		m.Timeout = 5 * time.Minute
	}
	m.Files = maps.Clone(m.Files)
	if m.Files == nil {
		m.Files = map[string]string{}
	}
	const dir = "/test"
	m.Files[dir+"/test"] = binary
	if _, err := os.Stat("testdata"); err == nil {
		m.Files[dir+"/testdata"] = "testdata"
	}
	if m.Dir == "" {
		m.Dir = dir
	}
	m.Env = append(slices.Clone(m.Env), longEnv+"="+os.Getenv(longEnv))
	// The test's own limit comes first, since it tells where it hangs.
	limit := m.Timeout * 3 / 4
	m.Commands = append(slices.Clone(m.Commands), []string{
		dir + "/test", "-test.v", "-test.count=1", "-test.run=" + pattern, "-test.timeout=" + limit.String(),
	})
	for _, id := range ids {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			m := m
			m.Kernel = id
			result, err := Boot(t.Context(), t, m)
			if err != nil {
				if stopped, ok := err.(*vm.MachineError); ok {
					for _, outcome := range stopped.Partial.Commands {
						t.Logf("%s\n%s", outcome.Args[0], outcome.Output)
					}
				}
				t.Fatal(err)
			}
			t.Logf("%s: %v in the machine, %v of a processor", id, result.Duration.Round(time.Second), result.CPU.Round(time.Second))
			report(t, result)
			for _, check := range checks {
				check(t, id, result)
			}
		})
	}
}

// report makes the guest's test results those of t.
func report(t *testing.T, result *vm.Result) {
	last := len(result.Commands) - 1
	for _, setup := range result.Commands[:last] {
		if setup.ExitStatus != 0 {
			t.Fatalf("%s: exit status %d\n%s", strings.Join(setup.Args, " "), setup.ExitStatus, setup.Output)
		}
	}
	tests := result.Commands[last]
	outcomes := parseTests(tests.Stdout)
	ran := false
	for _, outcome := range outcomes {
		t.Run(outcome.name, func(t *testing.T) {
			t.Attr(vm.TookAttr, outcome.took)
			switch outcome.result {
			case "FAIL":
				t.Error("failed in the guest; its output follows")
			case "SKIP":
				t.Skip("skipped in the guest")
			}
		})
		ran = ran || outcome.result != "SKIP"
	}
	switch {
	case tests.ExitStatus != 0:
		t.Errorf("exit status %d\n%s", tests.ExitStatus, ofFailures(tests.Output))
	case !ran:
		t.Errorf("no test ran in the guest\n%s", tests.Output)
	case testing.Verbose():
		t.Logf("%v in the guest\n%s", tests.Duration.Round(time.Millisecond), tests.Output)
	}
}

type testOutcome struct{ name, result, took string }

// topLevel is the line that go test -v ends a test with; subtests' are indented.
var topLevel = regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): (\S+) \(([^)]*)`)

func parseTests(output []byte) []testOutcome {
	var outcomes []testOutcome
	for _, match := range topLevel.FindAllSubmatch(output, -1) {
		outcomes = append(outcomes, testOutcome{string(match[2]), string(match[1]), string(match[3])})
	}
	return outcomes
}

// start is the line that go test -v begins a top-level test with.
var start = regexp.MustCompile(`(?m)^=== RUN   [^/\s]+$`)

// marks are the lines of go test -v that only say where it is, of subtests that passed too.
var marks = regexp.MustCompile(`(?m)^(=== (RUN|NAME|PAUSE|CONT) .*|\s+--- (PASS|SKIP): .*)\n`)

// ofFailures is what remains of the output of go test -v, whose tests ran one after the other,
// without the tests that passed: a log is read by people, and CI shows the beginning and the end.
func ofFailures(output []byte) []byte {
	var kept []byte
	for len(output) > 0 {
		end := len(output)
		if first := start.FindIndex(output); first != nil {
			end = first[0]
			if end == 0 {
				end = len(output)
				if next := start.FindIndex(output[first[1]:]); next != nil {
					end = first[1] + next[0]
				}
			}
		}
		part := output[:end]
		output = output[end:]
		if passed(part) {
			continue
		}
		kept = append(kept, marks.ReplaceAll(part, nil)...)
	}
	return kept
}

// passed reports whether a part of the output is that of a test that passed or was skipped, and of
// nothing else.
func passed(part []byte) bool {
	ends := topLevel.FindSubmatchIndex(part)
	if ends == nil || bytes.HasPrefix(part[ends[2]:], []byte("FAIL")) {
		return false
	}
	_, rest, _ := bytes.Cut(part[ends[0]:], []byte("\n"))
	for line := range bytes.Lines(rest) { // its subtests come after it
		if !bytes.HasPrefix(line, []byte("    ")) {
			return false
		}
	}
	return true
}

// staticBinary returns the running test as a program that needs no libraries:
// itself, or one built anew.
func staticBinary(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if isStatic(self) {
		return self
	}
	output := filepath.Join(t.TempDir(), "test")
	build := exec.Command("go", "test", "-c", "-o", output, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the test for guests: %v\n%s", err, bytes.TrimSpace(out))
	}
	return output
}

func isStatic(program string) bool {
	f, err := elf.Open(program)
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// Panics boots one kernel, runs those of the calling package's tests that match pattern, and
// returns the console of the panic that they end in. A machine that comes to its end otherwise is a
// failure.
func Panics(t *testing.T, id, pattern string, m vm.Machine) []byte {
	t.Helper()
	Need(t)
	if !slices.Contains(Kernels(t), id) {
		t.Skip("its kernel is not in BPFWHY_KERNELS_ONLY")
	}
	m.Kernel = id
	m.Files = map[string]string{"/test/test": staticBinary(t)}
	m.Commands = [][]string{{"/test/test", "-test.v", "-test.count=1", "-test.run=" + pattern}}
	result, err := Boot(t.Context(), t, m)
	var stopped *vm.MachineError
	switch {
	case err == nil:
		t.Fatalf("the machine lives\n%s", result.Commands[0].Output)
	case !errors.As(err, &stopped):
		t.Fatal(err)
	}
	if !bytes.Contains(stopped.Console, []byte("Kernel panic")) {
		for _, outcome := range stopped.Partial.Commands {
			t.Logf("%s", outcome.Output)
		}
		t.Fatalf("no panic: %v", err)
	}
	return stopped.Console
}
