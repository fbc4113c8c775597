// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/load"
)

// TestOwnProbing: what bpfwhy tries out is no finding of another bpfwhy. Before they carried their
// mark, there were 502 of 'node' alone.
func TestOwnProbing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, args := range [][]string{{"node"}, {"doctor"}, {"audit"}} {
		out := filepath.Join(t.TempDir(), "out")
		cmd := bpfwhy(append([]string{"run", "--json", "--all", "--output", out, "--", "bpfwhy"}, args...)...)
		dir := t.TempDir()
		self, err := os.Executable()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(os.Symlink(self, filepath.Join(dir, "bpfwhy"))))
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		if output, err := cmd.CombinedOutput(); err != nil && !slices.Contains([]int{negative, nothing}, cmd.ProcessState.ExitCode()) {
			t.Skipf("%v: %s", err, output)
		}
		b, err := os.ReadFile(out)
		qt.Assert(t, qt.IsNil(err))
		probes, lost := 0, 0
		var summaries []string
		for d := json.NewDecoder(bytes.NewReader(b)); ; {
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
				// Its instructions may be what was lost, and nothing is known by its name alone. It
				// says so.
				lost++
				qt.Check(t, qt.Not(qt.HasLen(a.IncompleteWhy, 0)))
			case a.Outcome != "" && a.Outcome != load.Loaded:
				t.Errorf("%s: a finding: %s %+v, errno %d", args, a.Kind, a.Program, a.Errno)
			}
		}
		t.Logf("%s: %d of them known, %d incomplete", args, probes, lost)
		qt.Check(t, qt.IsTrue(lost > 0 || len(summaries) == 0), qt.Commentf("%s", summaries))
		qt.Check(t, qt.IsTrue(args[0] != "node" || probes > 1000), qt.Commentf("%d", probes))
	}
}
