// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// TestKernels takes the oldest and the newest kernel: what lies between is the matter of capture's
// own tests.
func TestKernels(t *testing.T) {
	vmtest.RunIn(t, []string{"5.10", "7"}, "^TestGuest", vm.Machine{Timeout: 10 * time.Minute})
}

// bpfwhy is this test binary under the name of the tool.
func bpfwhy(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "bpfwhy"
	return cmd
}

// attemptsOf reads JSON Lines and returns the failing loads.
func attemptsOf(t *testing.T, b []byte, program string) []load.Attempt {
	t.Helper()
	var out []load.Attempt
	d := json.NewDecoder(bytes.NewReader(b))
	for {
		var a load.Attempt
		err := d.Decode(&a)
		if err == io.EOF {
			return out
		}
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", b))
		if a.Kind != load.KindSummary && a.Program != nil && strings.HasPrefix(a.Program.Name, program) {
			out = append(out, a)
		}
	}
}

// watching starts 'bpfwhy watch' on failures, and returns it once it watches. stop ends it, and
// returns what it said afterwards.
func watching(t *testing.T, recording string, stdout io.Writer) (watch *exec.Cmd, stop func() string) {
	t.Helper()
	watch = bpfwhy("watch", "--json", "--failed", "--record", recording)
	watch.Stdout = stdout
	stderr, err := watch.StderrPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(watch.Start()))
	said := bufio.NewReader(stderr)
	ready, err := said.ReadString('\n')
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.StringContains(ready, "watching"))
	return watch, func() string {
		t.Helper()
		qt.Assert(t, qt.IsNil(watch.Process.Signal(unix.SIGINT)))
		rest, err := io.ReadAll(said)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(watch.Wait()), qt.Commentf("%s", rest))
		return string(rest)
	}
}

// runLoad makes a failing load in a process of its own.
func runLoad(t *testing.T, name string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", name)
	cmd.Args[0] = "load"
	out, err := cmd.CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
}

// TestGuestWatch: from the first line to the last on a kernel where everything can be hooked, with
// the capabilities given up meanwhile; and the recording says the same.
func TestGuestWatch(t *testing.T) {
	vmtest.Guest(t)
	recording := filepath.Join(t.TempDir(), "trace")
	var stdout bytes.Buffer
	watch, stop := watching(t, recording, &stdout)

	const kept = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_KILL
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", watch.Process.Pid))
	qt.Assert(t, qt.IsNil(err))
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that has just ended
		}
		qt.Check(t, qt.StringContains(string(b), fmt.Sprintf("CapPrm:\t%016x\n", uint64(kept))))
		qt.Check(t, qt.StringContains(string(b), fmt.Sprintf("CapEff:\t%016x\n", uint64(kept))))
	}

	for _, name := range []string{"null-map-value", "null-map-value-nolog"} {
		runLoad(t, name)
	}
	rest := stop()
	qt.Check(t, qt.StringContains(rest, "VER001 2"))

	attempts := attemptsOf(t, stdout.Bytes(), "null_map")
	qt.Assert(t, qt.HasLen(attempts, 2), qt.Commentf("%s\n%s", stdout.Bytes(), rest))
	for i, a := range attempts {
		verifier, _ := a.Stage(load.Verifier)
		qt.Check(t, qt.Equals(verifier.Result, load.StageFailed))
		qt.Check(t, qt.Equals(a.FailedStage, load.Verifier))
		qt.Check(t, qt.Equals(a.Errno, 13))
		qt.Check(t, qt.Equals(a.Diagnosis.Rule, "VER001"))
		qt.Check(t, qt.Equals(a.Diagnosis.HowKnown, load.Observed))
		qt.Check(t, qt.Equals(a.VerifierLog.Origin, [...]load.LogOrigin{load.LogLoader, load.LogKernel}[i]))
		qt.Check(t, qt.IsFalse(a.Incomplete), qt.Commentf("%s", a.IncompleteWhy))
	}

	explained, err := bpfwhy("explain", "--json", "--failed", recording).Output()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(withoutLosses(explained), withoutLosses(stdout.Bytes())))
}

// withoutLosses are the lines but for those that say when losses were added up.
func withoutLosses(lines []byte) string {
	var b strings.Builder
	for l := range bytes.Lines(lines) {
		if !bytes.Contains(l, []byte(`"kind":"loss"`)) {
			b.Write(l)
		}
	}
	return b.String()
}

// TestGuestRun: the command's output and status are its own, and it is watched from the start.
func TestGuestRun(t *testing.T) {
	vmtest.Guest(t)
	dir := t.TempDir()
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.Symlink(self, filepath.Join(dir, "load"))))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))

	explanations := filepath.Join(dir, "out")
	cmd := bpfwhy("run", "--json", "--output", explanations, "--", "load", "uninit-register")
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	qt.Assert(t, qt.IsNil(cmd.Run()), qt.Commentf("%s", &stderr))
	qt.Check(t, qt.Equals(stdout.String(), "uninit_register: errno 13 (EACCES)\n"))
	qt.Check(t, qt.Equals(stderr.String(), ""))
	b, err := os.ReadFile(explanations)
	qt.Assert(t, qt.IsNil(err))
	attempts := attemptsOf(t, b, "uninit_register")
	qt.Assert(t, qt.HasLen(attempts, 1), qt.Commentf("%s", b))
	qt.Check(t, qt.Equals(attempts[0].Diagnosis.Rule, "VER002"))
	qt.Check(t, qt.Equals(attempts[0].Process.PID, attempts[0].Process.TID))
}
