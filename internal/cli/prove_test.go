// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/go-quicktest/qt"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

const traces = "../demo/testdata/traces/"

// TestGuestProve: recorded here, proved here, with net.core.bpf_jit_harden=2.
func TestGuestProve(t *testing.T) {
	vmtest.Guest(t)
	const harden = "/proc/sys/net/core/bpf_jit_harden"
	old, err := os.ReadFile(harden)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(harden, []byte("2"), 0o644)))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(os.WriteFile(harden, old, 0o644))) })
	recording := filepath.Join(t.TempDir(), "trace")
	_, stop := watching(t, recording, nil)
	for _, name := range []string{"far-calls-elf", "no-capability", "null-map-value-nolog", "bad-map-fd"} {
		runLoad(t, name)
	}
	stop()

	out, err := bpfwhy("explain", "--json", "--failed", "--prove", recording).Output()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	one := func(program string) load.Attempt {
		a := attemptsOf(t, out, program)
		qt.Assert(t, qt.HasLen(a, 1), qt.Commentf("%s", program))
		return a[0]
	}
	// The kernels of this test have an interpreter.
	a := one("far_calls")
	qt.Check(t, qt.Equals(a.Outcome, load.LoadedNotJITed))
	qt.Check(t, qt.Equals(a.Diagnosis.Rule, "BLIND003"))
	qt.Check(t, qt.Equals(a.Diagnosis.HowKnown, load.Reproduced))
	qt.Assert(t, qt.Equals(a.Replay.Verdict, load.ReplayReproduced))
	qt.Check(t, qt.Equals(a.Replay.Harden, 2))
	qt.Check(t, qt.Equals(a.Replay.Original.Outcome, load.LoadedNotJITed))
	qt.Check(t, qt.Equals(a.Replay.Repaired.Outcome, load.Loaded))
	qt.Check(t, qt.IsTrue(a.Replay.Repaired.JITedBytes > 0))

	// Root's replay of a loader without capabilities has none either.
	a = one("no_capability")
	qt.Check(t, qt.Equals(a.Diagnosis.HowKnown, load.Reproduced))
	qt.Check(t, qt.Equals(a.Replay.Original.Errno, 1))

	// The loader asked for no log.
	a = one("null_map")
	qt.Check(t, qt.Equals(a.Replay.Verdict, load.ReplayReproduced))
	qt.Check(t, qt.Equals(a.Diagnosis.Rule, "VER001"))

	a = one("bad_map")
	qt.Check(t, qt.Equals(a.Replay.Verdict, load.ReplayDiscarded))
	qt.Check(t, qt.IsNil(a.Replay.Original))
}

// The JSON of a replay is what the schema says, and people get a line of it.
func TestProveOutput(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	schema, err := jsonschema.NewCompiler().Compile("../../docs/schema/load-v2.schema.json")
	qt.Assert(t, qt.IsNil(err))
	for name, want := range map[string]load.ReplayVerdict{
		"6.12/uninit-register": load.ReplayReproduced,
		"6.12/bad-map-fd":      load.ReplayDiscarded,
		"6.12/lockdown":        load.ReplayRefused, // nothing is known of the loader
		"6.12/emfile":          load.ReplayNotReproduced,
	} {
		file := traces + name + ".trace"
		out, err := bpfwhy("explain", "--json", "--failed", "--prove", file).Output()
		qt.Assert(t, qt.IsNil(err))
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(out))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsNil(schema.Validate(v)))
		var a load.Attempt
		qt.Assert(t, qt.IsNil(json.Unmarshal(out, &a)))
		qt.Check(t, qt.Equals(a.Replay.Verdict, want), qt.Commentf("%s: %s", name, a.Replay.Why))
		text, err := bpfwhy("explain", "--prove", file).Output()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.StringContains(string(text), "\n  proved    "))
		qt.Check(t, qt.Equals(strings.Contains(string(text), "known     reproduced"), want == load.ReplayReproduced), qt.Commentf("%s", text))
	}
	// Without the flag nothing is loaded.
	out, err := bpfwhy("explain", "--json", traces+"6.12/uninit-register.trace").Output()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Not(qt.StringContains(string(out), `"replay"`)))
}

// What is not a whole trace is refused in one line, before anything of it is loaded.
func TestProveBadInput(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	good, err := os.ReadFile(traces + "6.12/uninit-register.trace")
	qt.Assert(t, qt.IsNil(err))
	write := func(name string, b []byte) string {
		name = filepath.Join(dir, name)
		qt.Assert(t, qt.IsNil(os.WriteFile(name, b, 0o600)))
		return name
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 0xff
	for name, test := range map[string]struct{ arg, want string }{
		"a rule":      {"BLIND001", "no such file"},
		"stdin":       {"-", "the trace must be a file"},
		"a folder":    {dir, "is not a regular file"},
		"text":        {write("text", []byte("load program: errno 524\n")), "not a recorded trace"},
		"empty":       {write("empty", nil), "not a recorded trace"},
		"cut":         {write("cut", good[:len(good)-20]), "trace ends early"},
		"flipped":     {write("flipped", flipped), "explain .*flipped: "},
		"gzip of two": {write("two", append(bytes.Clone(good), good...)), "explain .*two: "},
		"json":        {write("json", []byte(`{"header":{"schema":"bpfwhy.trace/v1"}}`+"\n"+`{"call":{"ret":"x"}}`+"\n")), "explain .*json: "},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := bpfwhy("explain", "--prove", test.arg)
			var stdout, stderr strings.Builder
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			e, ok := err.(*exec.ExitError)
			qt.Assert(t, qt.IsTrue(ok), qt.Commentf("%v", err))
			qt.Check(t, qt.Equals(e.ExitCode(), 2))
			qt.Check(t, qt.Equals(stdout.String(), ""))
			qt.Check(t, qt.Matches(stderr.String(), `bpfwhy: [^\n]*`+test.want+`[^\n]*\n`))
		})
	}
}
