// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/load"
)

// TestOwnProbing: what bpfwhy tries out is no finding of another bpfwhy. Before they carried their mark, there were 502 of 'node' alone.
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
		if output, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState.ExitCode() > negative {
			t.Skipf("%v: %s", err, output)
		}
		b, err := os.ReadFile(out)
		qt.Assert(t, qt.IsNil(err))
		probes := 0
		for d := json.NewDecoder(bytes.NewReader(b)); ; {
			var a load.Attempt
			err := d.Decode(&a)
			if err == io.EOF {
				break
			}
			qt.Assert(t, qt.IsNil(err))
			switch {
			case a.FeatureProbe != "":
				probes++
			case a.Kind == load.KindSummary, a.Outcome != "" && a.Outcome != load.Loaded:
				t.Errorf("%s: a finding: %s %+v, errno %d", args, a.Kind, a.Program, a.Errno)
			}
		}
		t.Logf("%s: %d of them known", args, probes)
		qt.Check(t, qt.IsTrue(args[0] != "node" || probes > 1000), qt.Commentf("%d", probes))
	}
}
