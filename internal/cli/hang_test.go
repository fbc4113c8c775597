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
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/watch/hang/hangtest"
	"github.com/bpfwhy/bpfwhy/load"
)

// TestGuestHang: loads that do not come back are told by watch, run and doctor, and so is it when a
// load of their own, or of audit, does not.
func TestGuestHang(t *testing.T) {
	vmtest.Once(t)
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	// Whoever is confined can load nothing, and the others can: nothing on the machine hangs yet.
	t.Run("own load", func(t *testing.T) {
		var all sync.WaitGroup
		for _, test := range []struct {
			args   []string
			status int
			stdout bool // where it is said
		}{
			{[]string{"watch"}, 2, false}, {[]string{"run", "--", self}, 2, false}, {[]string{"audit"}, 1, false}, {[]string{"doctor"}, 1, true},
		} {
			all.Go(func() {
				cmd := hangtest.Confine(append([]string{"bpfwhy"}, test.args...)...)
				var stdout, stderr strings.Builder
				cmd.Stdout, cmd.Stderr = &stdout, &stderr
				start := time.Now()
				_ = cmd.Run()
				t.Logf("%s after %v: %s", test.args, time.Since(start).Round(time.Millisecond), stderr.String())
				qt.Check(t, qt.Equals(cmd.ProcessState.ExitCode(), test.status), qt.Commentf("%s", test.args))
				said := stderr.String()
				if test.stdout {
					said = stdout.String()
				} else {
					qt.Check(t, qt.Equals(strings.Count(said, "\n"), 1), qt.Commentf("%s", said))
					qt.Check(t, qt.Equals(stdout.String(), ""))
				}
				said = strings.Join(strings.Fields(said), " ")
				qt.Check(t, qt.StringContains(said, "a load of four instructions has not come back after "), qt.Commentf("%s", test.args))
				qt.Check(t, qt.StringContains(said, "it hangs in seccomp_do_user_notification"), qt.Commentf("%s", test.args))
				qt.Check(t, qt.IsTrue(time.Since(start) < time.Minute), qt.Commentf("%s", test.args)) // of an emulated machine
				qt.Check(t, qt.StringContains(said, "HANG002"))
			})
		}
		all.Wait()
	})

	dir := t.TempDir()
	qt.Assert(t, qt.IsNil(os.Symlink(self, filepath.Join(dir, "hang-load"))))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	recording := filepath.Join(dir, "trace")
	hung := hangtest.Load(t, 2) // before anybody watches

	watch := bpfwhy("watch", "--json", "--record", recording)
	lines, stdin, err := os.Pipe()
	qt.Assert(t, qt.IsNil(err))
	defer lines.Close()
	watch.Stdout = stdin
	said := launched(t, watch)
	stdin.Close()
	watching, err := said.ReadString('\n')
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.StringContains(watching, "watching"))

	run := bpfwhy("run", "--", "hang-load", "1")
	running := launched(t, run)

	out, _ := bpfwhy("doctor", "--json").Output()
	var doctor struct{ Hanging *load.Hang }
	qt.Assert(t, qt.IsNil(json.Unmarshal(out, &doctor)), qt.Commentf("%s", out))
	qt.Assert(t, qt.IsNotNil(doctor.Hanging))
	qt.Check(t, qt.IsTrue(doctor.Hanging.Calls == 2 || doctor.Hanging.Calls == 3), qt.Commentf("%+v", doctor.Hanging)) // run's own is on its way
	qt.Check(t, qt.IsTrue(doctor.Hanging.Earlier))
	qt.Check(t, qt.Equals(doctor.Hanging.Diagnosis.Rule, "HANG002"))

	began := time.Now()
	line, err := running.ReadString('\n')
	qt.Assert(t, qt.IsNil(err))
	t.Logf("after %v: %s", time.Since(began).Round(time.Second), line)
	qt.Check(t, qt.StringContains(line, "One load has not come back, the oldest since "))
	qt.Check(t, qt.StringContains(line, "handle_userfault"))
	qt.Check(t, qt.StringContains(line, "hang-load["))
	qt.Check(t, qt.IsTrue(strings.HasSuffix(line, "('bpfwhy explain HANG002')\n")))
	_, pid, _ := strings.Cut(line, "hang-load[")
	pid, _, _ = strings.Cut(pid, "]")
	command, err := strconv.Atoi(pid)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(unix.Kill(command, unix.SIGKILL)))
	qt.Check(t, qt.IsNotNil(run.Wait()))
	qt.Check(t, qt.Equals(run.ProcessState.ExitCode(), 128+int(unix.SIGKILL)))

	runLoad(t, "null-map-value") // watching goes on
	var h load.Hang
	failed := 0
	for each := bufio.NewScanner(lines); (h.Calls == 0 || failed == 0) && each.Scan(); {
		var kind struct {
			Kind    load.Kind
			Outcome load.Outcome
		}
		qt.Assert(t, qt.IsNil(json.Unmarshal(each.Bytes(), &kind)))
		switch {
		case kind.Kind == load.KindHang:
			var told load.Hang
			qt.Assert(t, qt.IsNil(json.Unmarshal(each.Bytes(), &told)))
			t.Logf("%s", each.Text())
			if told.Calls > 0 {
				h = told
			}
			qt.Check(t, qt.IsFalse(strings.Contains(each.Text(), "0xffff")))
		case kind.Outcome == load.Failed:
			failed++
		}
	}
	qt.Check(t, qt.IsTrue(h.Calls >= 2), qt.Commentf("%+v", h))
	qt.Check(t, qt.IsTrue(h.Earlier))
	qt.Check(t, qt.Equals(h.AfterNS, 30*time.Second))
	qt.Check(t, qt.Equals(h.Diagnosis.Rule, "HANG002"))
	qt.Check(t, qt.Equals(h.Places[0].Processes[0].PID, hung.Process.Pid))
	qt.Check(t, qt.Equals(failed, 1))
	go io.Copy(io.Discard, lines) // the loads of doctor and run are in it too: more than a pipe holds
	qt.Assert(t, qt.IsNil(watch.Process.Signal(unix.SIGINT)))
	rest := new(bytes.Buffer)
	_, err = rest.ReadFrom(said)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(watch.Wait()))
	qt.Check(t, qt.StringContains(rest.String(), "had not returned"))

	explained, err := bpfwhy("explain", recording).Output()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.StringContains(string(explained), "HANGING"))
	qt.Check(t, qt.StringContains(string(explained), fmt.Sprintf("[%d]", hung.Process.Pid)))
}

// launched starts a command and returns what it says.
func launched(t *testing.T, cmd *exec.Cmd) *bufio.Reader {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return bufio.NewReader(stderr)
}
