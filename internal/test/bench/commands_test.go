// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// nothing is what the commands are compared to: a program in Go that prints a line.
const nothing = "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"nothing\") }\n"

// TestBenchCommands measures how large the commands are and what their start costs, and writes
// docs/benchmarks-commands.md.
func TestBenchCommands(t *testing.T) {
	if os.Getenv(wantEnv) != "1" {
		t.Skip("a measurement; set " + wantEnv + "=1")
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "nothing.go")
	qt.Assert(t, qt.IsNil(os.WriteFile(source, []byte(nothing), 0o644)))
	commands := []struct{ name, from string }{
		{"nothing", source},
		{"bpfwhy", "github.com/bpfwhy/bpfwhy/cmd/bpfwhy"},
		{"httpprobe", "github.com/bpfwhy/bpfwhy/cmd/httpprobe"},
	}
	size, cost := map[string]int64{}, map[string][]time.Duration{}
	for _, c := range commands {
		out := filepath.Join(dir, c.name)
		goBuild(t, "-tags=grpcnotrace", "-trimpath", "-ldflags=-s -w", "-o", out, c.from)
		info, err := os.Stat(out)
		qt.Assert(t, qt.IsNil(err))
		size[c.name] = info.Size()
	}
	const rounds = 41
	for range rounds { // in turns
		for _, c := range commands {
			run := exec.Command(filepath.Join(dir, c.name), "--help")
			out, err := run.Output()
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsTrue(len(out) > 0))
			cost[c.name] = append(cost[c.name], run.ProcessState.UserTime()+run.ProcessState.SystemTime())
		}
	}
	median := func(name string) time.Duration { return slices.Sorted(slices.Values(cost[name]))[rounds/2] }
	var b strings.Builder
	fmt.Fprintf(&b, `# Size and start of the commands

%s
Beside a Go program that prints one line (`+"`nothing`"+`). Static, without symbols (-trimpath, -s -w), and without
the trace pages of gRPC (-tags grpcnotrace, as in `+"`make build`"+`).
The start is the processor time of `+"`COMMAND --help`"+`, the median of %d runs in turns.

| command | size | beside nothing | start | beside nothing |
|---|---|---|---|---|
`, generated, rounds)
	for _, c := range commands {
		fmt.Fprintf(&b, "| %s | %.1f MB | %.1f | %.1f ms | %.1f |\n", c.name, float64(size[c.name])/1e6, float64(size[c.name])/float64(size["nothing"]),
			float64(median(c.name).Microseconds())/1000, float64(median(c.name))/float64(median("nothing")))
	}
	publish(t, true, "benchmarks-commands.md", b.String())
}
