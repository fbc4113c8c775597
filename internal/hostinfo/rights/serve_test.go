// SPDX-License-Identifier: Apache-2.0

package rights_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/bpfwhy/bpfwhy/internal/serve/exporter"
	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// service is what a 'bpfwhy serve' said and did while a load failed.
type service struct {
	said             string
	reader, exporter string // /proc/PID/status of its processes
	failure          load.Attempt
}

// served runs one with some rights, from its start until a failing load is told.
func served(t *testing.T, caps []int) (s service) {
	t.Helper()
	cmd := with(caps, "bpfwhy", "serve", "--log", "--state", filepath.Join(t.TempDir(), "state"))
	stdout, err := cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	qt.Assert(t, qt.IsNil(cmd.Start()))
	defer cmd.Process.Kill()
	pid := child(t, cmd.Process.Pid, exporter.Argv0)
	l, err := self("load", "null-map-value-nolog").CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", l))
	lines := bufio.NewReader(stdout)
	for s.failure.Program == nil || !strings.HasPrefix(s.failure.Program.Name, "null_map") {
		line, err := lines.ReadBytes('\n')
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", &stderr))
		s.failure = load.Attempt{}
		qt.Assert(t, qt.IsNil(json.Unmarshal(line, &s.failure)))
	}
	s.reader, s.exporter = statusOf(cmd.Process.Pid), statusOf(pid)
	qt.Assert(t, qt.IsNil(cmd.Process.Signal(syscall.SIGTERM)))
	_, err = io.Copy(io.Discard, lines)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Wait()), qt.Commentf("%s", &stderr))
	s.said = stderr.String()
	return s
}

func statusOf(pid int) string { return proc.Read(fmt.Sprintf("/proc/%d/status", pid)) }

// TestGuestServe: with what it must have it serves; with one less it does not, and says which; with
// all that it can use it says nothing, and of each of these that it lacks it says so. Its other
// process, which parses and exports, never has a capability, whatever the first one has.
func TestGuestServe(t *testing.T) {
	sampled(t)
	must(t, rights.Serve, "bpfwhy", "serve", "--log")
	all := rights.Serve.Least(true)
	for _, tt := range []struct {
		name string
		caps []int
		lack []int
		kept []int // of the process that reads, once it serves
	}{
		{"least", rights.Serve.Least(false), []int{unix.CAP_SYS_ADMIN, unix.CAP_SYSLOG, unix.CAP_SYS_PTRACE}, []int{unix.CAP_BPF}},
		{"all", all, nil, []int{unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE}},
		{"no CAP_SYS_ADMIN", []int{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYSLOG, unix.CAP_SYS_PTRACE}, []int{unix.CAP_SYS_ADMIN}, []int{unix.CAP_BPF, unix.CAP_SYS_PTRACE}},
		{"no CAP_SYSLOG", less(all, unix.CAP_SYSLOG), []int{unix.CAP_SYSLOG}, []int{unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE}},
		{"no CAP_SYS_PTRACE", less(all, unix.CAP_SYS_PTRACE), []int{unix.CAP_SYS_PTRACE}, []int{unix.CAP_SYS_ADMIN}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := served(t, tt.caps)
			qt.Check(t, qt.Equals(s.failure.Diagnosis.Rule, "VER001"))
			for _, r := range rights.Serve.More {
				line := fmt.Sprintf("bpfwhy: serve: without %s: %s\n", r.Name(), r.For)
				qt.Check(t, qt.Equals(strings.Contains(s.said, line), slices.Contains(tt.lack, r.Cap)), qt.Commentf("%s", s.said))
			}
			qt.Check(t, qt.Equals(proc.Field(s.reader, "CapEff"), fmt.Sprintf("%016x", bits(tt.kept))))
			qt.Check(t, qt.Equals(proc.Field(s.reader, "CapPrm"), fmt.Sprintf("%016x", bits(tt.kept))))
			for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
				qt.Check(t, qt.Equals(proc.Field(s.exporter, set), "0000000000000000"), qt.Commentf("%s", set))
			}
			qt.Check(t, qt.Equals(proc.Field(s.exporter, "NoNewPrivs"), "1"))
		})
	}
	o := finish(t, with(nil, "bpfwhy", "serve", "--check", "--log"))
	qt.Check(t, qt.StringContains(o.stdout, "needs "+rights.Serve.Needs()+" (missing: CAP_BPF and CAP_PERFMON)"))
}

// child waits for the process with a name that another has started.
func child(t *testing.T, parent int, name string) int {
	t.Helper()
	for {
		pids, err := proc.Numbers("/proc")
		qt.Assert(t, qt.IsNil(err))
		for _, pid := range pids {
			if proc.Read(fmt.Sprintf("/proc/%d/cmdline", pid)) == name+"\x00" && proc.Field(statusOf(pid), "PPid") == fmt.Sprint(parent) && proc.Field(statusOf(pid), "NoNewPrivs") == "1" {
				return pid
			}
		}
		_, err = os.Stat(fmt.Sprintf("/proc/%d/exe", parent))
		qt.Assert(t, qt.IsNil(err), qt.Commentf("it has ended"))
		time.Sleep(50 * time.Millisecond)
	}
}
