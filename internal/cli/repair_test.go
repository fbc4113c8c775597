// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/go-quicktest/qt"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/sys/unix"
)

func TestGuestRunRepair(t *testing.T) {
	vmtest.Guest(t)
	testRunRepair(t)
}

func TestHostRunRepair(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv("BPFWHY_HOST_SYSCTL") != "1" {
		t.Skip("needs root and BPFWHY_HOST_SYSCTL=1: raises net.core.bpf_jit_harden")
	}
	testRunRepair(t)
}

// testRunRepair: a loader whose program blinding breaks is told of success; its other program is
// left alone; and the repair is told like every other load, and is no finding.
func testRunRepair(t *testing.T) {
	raised, err := guardian.RaiseHarden(context.Background(), 2)
	qt.Assert(t, qt.IsNil(err))
	defer func() {
		_, err := raised.Restore()
		qt.Check(t, qt.IsNil(err))
	}()
	dir := t.TempDir()
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.Symlink(self, filepath.Join(dir, "load"))))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))

	run := func(program string, args ...string) (stdout, stderr string, attempts []load.Attempt) {
		t.Helper()
		out := filepath.Join(dir, "out")
		cmd := bpfwhy(append([]string{"run", "--json", "--output", out}, args...)...)
		var o, e strings.Builder
		cmd.Stdout, cmd.Stderr = &o, &e
		qt.Assert(t, qt.IsNil(cmd.Run()), qt.Commentf("%s", &e))
		b, err := os.ReadFile(out)
		qt.Assert(t, qt.IsNil(err))
		for line := range strings.Lines(string(b)) {
			checkSchema(t, line)
		}
		return o.String(), e.String(), attemptsOf(t, b, program)
	}
	names := []string{"far-jump-nolog", "far-calls-elf"}
	if os.Getenv(wire.KernelEnv) != "" && !vmtest.Long() {
		names = names[1:] // a minute in an emulated machine
	}
	for _, name := range names {
		program := map[string]string{"far-jump-nolog": "far_jump_nl", "far-calls-elf": "far_calls_elf"}[name]
		_, _, attempts := run(program, "--", "load", name)
		qt.Assert(t, qt.HasLen(attempts, 1))
		qt.Check(t, qt.IsTrue(attempts[0].Finding()))

		stdout, stderr, attempts := run(program, "--repair", "--", "load", name)
		qt.Check(t, qt.Matches(stdout, program+`: loaded, jited, id \d+\n`))
		qt.Check(t, qt.Equals(stderr, ""))
		qt.Assert(t, qt.HasLen(attempts, 1))
		a := attempts[0]
		qt.Check(t, qt.IsFalse(a.Finding()))
		qt.Check(t, qt.Equals(a.Backend, "proxy"))
		qt.Check(t, qt.Equals(a.Repair.Applied, load.RepairIslands))
		qt.Check(t, qt.Equals(a.Repair.Islands, 1))
	}
	stdout, _, attempts := run("ok", "--repair", "--", "load", "ok")
	qt.Check(t, qt.Matches(stdout, `ok: loaded, jited, id \d+\n`))
	qt.Assert(t, qt.HasLen(attempts, 1))
	qt.Check(t, qt.IsNil(attempts[0].Repair))
	qt.Check(t, qt.Not(qt.Equals(attempts[0].Backend, "proxy")))
}

func checkSchema(t *testing.T, line string) {
	t.Helper()
	const file = "../../docs/schema/load-v2.schema.json"
	if _, err := os.Stat(file); err != nil && os.Getenv(wire.KernelEnv) != "" {
		return // the guest has no copy
	}
	schema, err := jsonschema.NewCompiler().Compile(file)
	qt.Assert(t, qt.IsNil(err))
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(schema.Validate(v)), qt.Commentf("%s", line))
}

// Where another listener is in force, the command runs as it is.
func TestGuestRunRepairNested(t *testing.T) {
	vmtest.Once(t)
	inner := bpfwhy("run", "--repair", "--output", filepath.Join(t.TempDir(), "out"), "--", "bpfwhy", "run", "--repair", "--", "bpfwhy", "version")
	dir := t.TempDir()
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.Symlink(self, filepath.Join(dir, "bpfwhy"))))
	inner.Env = append(os.Environ(), "PATH="+dir)
	out, err := inner.CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	qt.Check(t, qt.StringContains(string(out), "bpfwhy runs without repairs: somebody listens to the system calls here already"))
	qt.Check(t, qt.StringContains(string(out), "\nbpfwhy "))
}

// confined becomes bpfwhy under the policy of a container, which forbids one system call.
func confined(args []string) int {
	runtime.LockOSThread()
	nr, err := strconv.ParseUint(args[0], 10, 32)
	if err == nil {
		err = failing.Confine(uint32(nr))
	}
	if err == nil {
		err = unix.Exec("/proc/self/exe", append([]string{"bpfwhy"}, args[1:]...), os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func TestGuestConfined(t *testing.T) {
	vmtest.Guest(t)
	testConfined(t)
}

func TestHostConfined(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv(wire.KernelEnv) != "" {
		t.Skip("needs root; guests have TestGuestConfined")
	}
	testConfined(t)
}

// testConfined: what a container's policy forbids is said in a line, and the command runs as it
// would without us.
func testConfined(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.Symlink(self, filepath.Join(dir, "load"))))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	const loaded = `(?m)^ok: loaded, jited, id \d+$`
	type policy struct {
		nr         uint32
		said, does string // regular expressions
	}
	cases := map[string]policy{
		"seccomp":     {unix.SYS_SECCOMP, "bpfwhy: load runs without repairs: .*operation not permitted", loaded},
		"pidfd_getfd": {unix.SYS_PIDFD_GETFD, "bpfwhy: load runs without repairs: .*operation not permitted", loaded},
		"bpf":         {unix.SYS_BPF, "bpfwhy: load runs unwatched: .*operation not permitted", `(?m)^ok: errno 1 \(EPERM\)$`},
	}
	if os.Getenv(wire.KernelEnv) != "" && !vmtest.Long() {
		// Each takes ten seconds in an emulated machine.
		maps.DeleteFunc(cases, func(name string, _ policy) bool { return name != "pidfd_getfd" })
	}
	for name, tt := range cases {
		cmd := exec.Command("/proc/self/exe", strconv.Itoa(int(tt.nr)), "run", "--repair", "--output", filepath.Join(dir, "out"), "--", "load", "ok")
		cmd.Args[0] = "confined"
		out, err := cmd.CombinedOutput()
		qt.Check(t, qt.IsNil(err), qt.Commentf("%s: %s", name, out))
		qt.Check(t, qt.Matches(string(out), "(?s).*"+tt.said+".*"), qt.Commentf("%s", name))
		qt.Check(t, qt.IsTrue(regexp.MustCompile(tt.does).Match(out)), qt.Commentf("%s: %s", name, out))
		qt.Check(t, qt.Equals(strings.Count(string(out), "bpfwhy: "), 1), qt.Commentf("%s: %s", name, out))
	}
}
