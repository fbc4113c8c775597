// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/load"
)

// TestOwnProbing: what bpfwhy tries out is no finding of another bpfwhy. Before they carried their
// mark, there were 502 of 'node' alone. Where the environment asks for the tests that need this
// machine's kernel, a run that fails is a failure, and so is one that loses more than a twentieth.
func TestOwnProbing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	asked := os.Getenv("BPFWHY_LAB") == "1" || os.Getenv("CI") == "true"
	for _, args := range [][]string{{"node"}, {"doctor"}, {"audit"}} {
		probes, lost := 0, 0
		for range 3 { // others on the machine may have filled the buffer
			text, failed := runOwn(t, args)
			if failed != "" && !asked {
				t.Skip(failed)
			}
			qt.Assert(t, qt.Equals(failed, ""))
			if probes, lost = ownFindings(t, args, text); lost == 0 {
				break
			}
		}
		t.Logf("%s: %d of them known, %d incomplete", args, probes, lost)
		qt.Check(t, qt.IsTrue(lost*20 <= probes || !asked), qt.Commentf("%s: of %d nothing is known", args, lost))
		qt.Check(t, qt.IsTrue(args[0] != "node" || probes > 1000), qt.Commentf("%d", probes))
	}
}

// runOwn returns what 'run' tells of another bpfwhy, or else how it failed.
func runOwn(t *testing.T, args []string) (text []byte, failed string) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	cmd := bpfwhy(append([]string{"run", "--json", "--all", "--output", out, "--", "bpfwhy"}, args...)...)
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.Symlink(self, filepath.Join(dir, "bpfwhy"))))
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	if output, err := cmd.CombinedOutput(); err != nil && !slices.Contains([]int{negative, nothing}, cmd.ProcessState.ExitCode()) {
		return nil, fmt.Sprintf("%v: %s", err, output)
	}
	text, err = os.ReadFile(out)
	qt.Assert(t, qt.IsNil(err))
	return text, ""
}

// ownFindings counts the probes, and the attempts of which nothing is known, since their
// instructions were lost. Any other failure is a finding.
func ownFindings(t *testing.T, args []string, text []byte) (probes, lost int) {
	var summaries []string
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		var line json.RawMessage
		err := d.Decode(&line)
		if err == io.EOF {
			break
		}
		qt.Assert(t, qt.IsNil(err))
		var kind struct{ Kind string }
		qt.Assert(t, qt.IsNil(json.Unmarshal(line, &kind)))
		switch kind.Kind {
		case string(load.KindSummary):
			summaries = append(summaries, string(line))
			continue
		case string(load.KindLoss):
			continue
		}
		var a load.Attempt
		qt.Assert(t, qt.IsNil(json.Unmarshal(line, &a)))
		switch {
		case a.FeatureProbe != "":
			probes++
		case a.Incomplete:
			lost++
			qt.Check(t, qt.Not(qt.HasLen(a.IncompleteWhy, 0)))
		case a.Outcome != "" && a.Outcome != load.Loaded:
			t.Errorf("%s: a finding: %s %+v, errno %d", args, a.Kind, a.Program, a.Errno)
		}
	}
	qt.Check(t, qt.IsTrue(lost > 0 || len(summaries) == 0), qt.Commentf("%s", summaries))
	return probes, lost
}
