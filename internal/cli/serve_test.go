// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/fleet/folder"
	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/serve/exporter"
	"github.com/bpfwhy/bpfwhy/internal/serve/stream"
	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/load"
)

// service is a 'bpfwhy serve' that a test has started.
type service struct {
	t              *testing.T
	cmd            *exec.Cmd
	dir            string
	stdout, stderr bytes.Buffer
}

func serving(t *testing.T, dir string, args ...string) *service {
	t.Helper()
	s := &service{t: t, dir: dir, cmd: bpfwhy(append([]string{"serve", "--state", dir}, args...)...)}
	s.cmd.Stdout, s.cmd.Stderr = &s.stdout, &s.stderr
	qt.Assert(t, qt.IsNil(s.cmd.Start()))
	t.Cleanup(func() { _ = s.cmd.Process.Kill() }) // of a test that failed
	began := time.Now()
	within(t, func() bool { r := s.state(); return r != nil && r.Watching.Since.After(began) })
	return s
}

// within waits until something is so: emulated machines take their time.
func within(t *testing.T, so func() bool) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come")
		}
	}
}

// state is what the folder says, nil while it says nothing.
func (s *service) state() *nodereport.Status {
	f, err := os.Open(filepath.Join(s.dir, "node.json"))
	if err != nil {
		return nil
	}
	defer f.Close()
	reports, _, err := nodereport.Decode(f)
	qt.Assert(s.t, qt.IsNil(err)) // whole at any time
	return &reports[0].Status
}

// exporter is the process without rights, 0 while there is none.
func (s *service) exporter() int {
	pids, err := proc.Numbers("/proc")
	qt.Assert(s.t, qt.IsNil(err))
	for _, pid := range pids {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && string(line) == exporter.Argv0+"\x00" {
			return pid
		}
	}
	return 0
}

// end stops the service as an init system does.
func (s *service) end() {
	s.t.Helper()
	qt.Assert(s.t, qt.IsNil(s.cmd.Process.Signal(unix.SIGTERM)))
	qt.Assert(s.t, qt.IsNil(s.cmd.Wait()), qt.Commentf("%s", &s.stderr))
	s.clean()
}

// clean: neither process nor unfinished file is left, and all that arrived is accounted for.
func (s *service) clean() {
	s.t.Helper()
	within(s.t, func() bool { return s.exporter() == 0 })
	var unfinished []string
	err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if strings.HasPrefix(d.Name(), ".") && d.Name() != ".accounts" {
			unfinished = append(unfinished, path)
		}
		return err
	})
	qt.Assert(s.t, qt.IsNil(err))
	qt.Check(s.t, qt.HasLen(unfinished, 0))
	page := s.page()
	defer page.Close()
	qt.Check(s.t, qt.Equals(s.state().Accounted(), page.Arrived()), qt.Commentf("%v", s.state().Lost))
}

// count is how often a program failed, as the folder says.
func count(s *nodereport.Status, program string) (n int) {
	for _, f := range s.Failures {
		if f.Program.Name == program {
			n += f.Count
		}
	}
	return n
}

// TestGuestServe: a failing load is in each place where people look, and the process that found out
// why has no right.
func TestGuestServe(t *testing.T) {
	vmtest.Guest(t)
	const address = "127.0.0.1:19465"
	s := serving(t, filepath.Join(t.TempDir(), "state"), "--listen", address, "--log", "--node", "worker-1")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.exporter()))
	qt.Assert(t, qt.IsNil(err))
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
		qt.Check(t, qt.Equals(proc.Field(string(status), set), "0000000000000000"), qt.Commentf("%s", set))
	}
	qt.Check(t, qt.Equals(proc.Field(string(status), "NoNewPrivs"), "1"))

	for range 2 {
		runLoad(t, "null-map-value")
	}
	within(t, func() bool { return count(s.state(), "null_map_value") == 2 })
	page := get(t, "http://"+address+"/metrics")
	qt.Check(t, qt.StringContains(page, `rule="VER001",stage="verifier",workload=""} 2`))
	qt.Check(t, qt.StringContains(page, `bpfwhy_failing_programs{namespace="",rule="VER001",workload=""} 1`))
	qt.Check(t, qt.StringContains(page, `bpfwhy_sysctl_value{name="net.core.bpf_jit_harden"}`))
	qt.Check(t, qt.Equals(get(t, "http://"+address+"/healthz"), "ok\n"))
	// What hardening would do: to these programs of ours nothing.
	within(t, func() bool { return s.state().Audit != nil })
	qt.Check(t, qt.IsTrue(s.state().Audit.Harden2["jited"] > 0), qt.Commentf("%v", s.state().Audit))
	within(t, func() bool {
		return slices.ContainsFunc(s.state().Conditions, func(c nodereport.Condition) bool { return c.Type == "HardeningSafe" && c.Status == "True" })
	})
	qt.Check(t, qt.StringContains(get(t, "http://"+address+"/metrics"), `bpfwhy_audit_programs{fate="jited",harden="2"}`))
	qt.Check(t, qt.Equals(get(t, "http://"+address+"/readyz"), "ok\n"))
	for _, name := range []string{"exporter", "reader"} {
		pid := s.exporter()
		if name == "reader" {
			pid = s.cmd.Process.Pid
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		qt.Assert(t, qt.IsNil(err))
		t.Logf("%s: %s resident", name, proc.Field(string(b), "VmRSS"))
	}
	s.end()

	// The log.
	first, others, _ := bytes.Cut(s.stdout.Bytes(), []byte("\n"))
	attempts := attemptsOf(t, first, "null_map_value")
	qt.Assert(t, qt.HasLen(attempts, 1))
	qt.Check(t, qt.StringContains(string(others), `"repeats":1,`)) // the other is counted
	qt.Check(t, qt.Equals(attempts[0].Diagnosis.Rule, "VER001"))
	// The fleet, with the recording as an example of what was counted.
	all, skipped, err := folder.Read([]string{s.dir})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(skipped, 0))
	qt.Assert(t, qt.HasLen(all.Nodes, 1))
	qt.Check(t, qt.Equals(all.Nodes[0].Name, "worker-1"))
	qt.Assert(t, qt.HasLen(all.Nodes[0].Failures, 1))
	qt.Check(t, qt.Equals(all.Nodes[0].Failures[0].Count, 2))
	recordings, err := filepath.Glob(filepath.Join(s.dir, "failures", "*.bpfwhy"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(recordings, 1))
	out, err := bpfwhy("explain", "--json", recordings[0]).Output()
	qt.Assert(t, qt.IsNil(err))
	explained := attemptsOf(t, out, "null_map_value")
	qt.Assert(t, qt.HasLen(explained, 1))
	explained[0].Group, attempts[0].Group = "", "" // only what is counted has one
	// What hooks missed meanwhile (7.2 preempts them) is of the node, and in no recording.
	for _, a := range []*load.Attempt{&explained[0], &attempts[0]} {
		a.Incomplete, a.IncompleteWhy = false, nil
	}
	was, err := json.Marshal(attempts[0])
	qt.Assert(t, qt.IsNil(err))
	is, err := json.Marshal(explained[0])
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(is), string(was)))
}

func get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	qt.Assert(t, qt.IsNil(err))
	answer, err := http.DefaultClient.Do(r)
	qt.Assert(t, qt.IsNil(err))
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	qt.Assert(t, qt.IsNil(err))
	return string(b)
}

// TestGuestServeKilled: whichever process is killed whenever, nothing is left behind, and what had
// come from the kernel is in the folder or in a loss counter.
func TestGuestServeKilled(t *testing.T) {
	vmtest.Once(t)
	rounds := 2
	if vmtest.Long() {
		rounds = 100
	}
	dir := filepath.Join(t.TempDir(), "state")
	s := serving(t, dir)
	loads := 0
	load := func(n int) {
		for range n {
			runLoad(t, "null-map-value")
		}
		loads += n
	}
	for range rounds / 2 {
		victim := s.exporter()
		kill := time.AfterFunc(random(), func() { _ = unix.Kill(victim, unix.SIGKILL) })
		load(4)
		within(t, func() bool { pid := s.exporter(); return pid != 0 && pid != victim })
		kill.Stop()
	}
	s.end()
	is := s.state()
	counted, lost := count(is, "null_map_value"), is.Lost[nodereport.LostExporter]
	t.Logf("exporter killed: %d loads, %d counted, %d calls, lost: %v", loads, counted, is.Calls, is.Lost)
	qt.Check(t, qt.IsTrue(counted <= loads))
	qt.Check(t, qt.IsTrue(uint64(counted)+lost >= uint64(loads))) // a loader calls more than once

	for range rounds / 2 {
		s = serving(t, dir)
		kill := time.AfterFunc(random(), func() { _ = s.cmd.Process.Kill() })
		load(4)
		_ = s.cmd.Wait()
		kill.Stop()
		s.clean()
	}
	is = s.state()
	counted = count(is, "null_map_value")
	t.Logf("reader killed: %d loads, %d counted, %d calls, lost: %v", loads, counted, is.Calls, is.Lost)
	qt.Check(t, qt.IsTrue(counted <= loads)) // while no reader is there, nobody watches
}

func random() time.Duration { return time.Duration(rand.IntN(1500)) * time.Millisecond }

// page is what reader and exporter share.
func (s *service) page() *stream.Page {
	f, err := os.OpenFile(filepath.Join(s.dir, ".accounts"), os.O_RDWR, 0)
	qt.Assert(s.t, qt.IsNil(err))
	page, err := stream.OpenPage(f)
	qt.Assert(s.t, qt.IsNil(err))
	return page
}
