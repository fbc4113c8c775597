// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
)

func TestKernels(t *testing.T) {
	Run(t, "^TestGuest", vm.Machine{
		Sysctls: map[string]string{"net.core.bpf_jit_harden": "2"},
	}, func(t *testing.T, kernel string, result *vm.Result) {
		qt.Check(t, qt.Equals(string(result.Files["kernel"]), kernel))
	})
}

func TestGuestEnvironment(t *testing.T) {
	kernel := Guest(t)
	var name unix.Utsname
	qt.Assert(t, qt.IsNil(unix.Uname(&name)))
	release := unix.ByteSliceToString(name.Release[:])
	want := kernel + "."
	if kernel == "hardened" {
		want = "6.1."
	}
	qt.Check(t, qt.Matches(release, want+`.*`))

	harden, err := os.ReadFile("/proc/sys/net/core/bpf_jit_harden")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(harden), "2\n"))

	var memlock unix.Rlimit
	qt.Assert(t, qt.IsNil(unix.Getrlimit(unix.RLIMIT_MEMLOCK, &memlock)))
	qt.Check(t, qt.Equals(memlock.Cur, uint64(unix.RLIM_INFINITY)))

	for _, path := range []string{
		"/dev/null", "/proc/self", "/sys/kernel/btf/vmlinux", "/sys/kernel/tracing/events",
		"/sys/kernel/security/lsm", "/sys/fs/cgroup/cgroup.controllers", "testdata/here.txt",
	} {
		_, err := os.Stat(path)
		qt.Check(t, qt.IsNil(err))
	}
	var bpffs unix.Statfs_t
	qt.Assert(t, qt.IsNil(unix.Statfs("/sys/fs/bpf", &bpffs)))
	qt.Check(t, qt.Equals(bpffs.Type, int64(unix.BPF_FS_MAGIC)))

	qt.Assert(t, qt.IsNil(os.WriteFile("/out/kernel", []byte(kernel), 0o644)))
}

func TestParseTests(t *testing.T) {
	const output = "=== RUN   TestA\n    --- PASS: TestA/sub (0.00s)\n--- PASS: TestA (0.01s)\n" +
		"--- SKIP: TestB (0.00s)\nsaid --- FAIL: TestNot (0.00s)\n--- FAIL: TestC (1.20s)\nFAIL\n"
	qt.Check(t, qt.CmpEquals(parseTests([]byte(output)), []testOutcome{
		{"TestA", "PASS", "0.01s"}, {"TestB", "SKIP", "0.00s"}, {"TestC", "FAIL", "1.20s"},
	}, cmp.AllowUnexported(testOutcome{})))
}

func TestOfFailures(t *testing.T) {
	const output = `=== RUN   TestA
=== RUN   TestA/sub
    a_test.go:1: fine
--- PASS: TestA (0.01s)
    --- PASS: TestA/sub (0.00s)
=== RUN   TestB
=== RUN   TestB/good
=== RUN   TestB/bad
    b_test.go:2: got 1, want 2
--- FAIL: TestB (0.01s)
    --- PASS: TestB/good (0.00s)
    --- FAIL: TestB/bad (0.00s)
=== RUN   TestC
    c_test.go:3: not here
--- SKIP: TestC (0.00s)
=== RUN   TestD
--- PASS: TestD (0.00s)
panic: after it
=== RUN   TestE
goroutine 1 [running]:
`
	const want = `    b_test.go:2: got 1, want 2
--- FAIL: TestB (0.01s)
    --- FAIL: TestB/bad (0.00s)
--- PASS: TestD (0.00s)
panic: after it
goroutine 1 [running]:
`
	qt.Check(t, qt.Equals(string(ofFailures([]byte(output))), want))
	qt.Check(t, qt.Equals(string(ofFailures([]byte("no test at all\n"))), "no test at all\n"))
}

func TestNarrowing(t *testing.T) {
	all, err := kernels("", true)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(all, []string{"5.10", "6.1", "6.12", "7", "hardened"}))

	some, err := kernels("5.10,hardened", false)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(some, []string{"5.10", "hardened"}))

	_, err = kernels("5.10", true)
	qt.Check(t, qt.ErrorMatches(err, ".*CI tests on every kernel"))
	_, err = kernels("5.10, 6.1", false)
	qt.Check(t, qt.ErrorMatches(err, `.*no kernel " 6.1".*`))
}

func TestSampled(t *testing.T) {
	for _, tt := range []struct {
		kernel, long string
		skips        bool
	}{{"5.10", "", false}, {"6.12", "", true}, {"hardened", "", true}, {"7", "", false}, {"6.12", "1", false}} {
		t.Run(tt.kernel+tt.long, func(t *testing.T) {
			t.Setenv(wire.KernelEnv, tt.kernel)
			t.Setenv(longEnv, tt.long)
			defer func() { qt.Check(t, qt.Equals(t.Skipped(), tt.skips)) }()
			qt.Check(t, qt.Equals(Sampled(t), tt.kernel))
		})
	}
}

// A Go test binary built with cgo does not run in a guest.
func TestIsStatic(t *testing.T) {
	sh, err := filepath.EvalSymlinks("/bin/sh")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsFalse(isStatic(sh)))
	qt.Check(t, qt.IsFalse(isStatic("testdata/here.txt")))
}
