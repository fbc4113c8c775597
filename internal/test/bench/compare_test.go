// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/internal/test/corpus"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/go-quicktest/qt"
)

const (
	comparisonFile = "comparison.json"
	traceFile      = "trace"
)

// subjects are the loads that both tools watch, by their names in package failing; their fates are
// the corpus's.
var subjects = []string{"ok", "null-map-value", "far-jump", "far-calls", "emfile", "no-capability"}

// comparison is what both tools printed about the same loads on one machine.
type comparison struct {
	Release string
	// By subject.
	Loader map[string]string // what the loader itself saw
	Script map[string]string
	Bpfwhy map[string]string

	attempts []load.Attempt
}

func TestGuestComparison(t *testing.T) {
	wanted(t)
	p, dir := inGuest, t.TempDir()
	c := comparison{Release: release(t), Loader: map[string]string{}}
	var err error

	watch, err := p.startCommand(dir, []string{p.bpfwhy, "watch", "--record", filepath.Join(dir, "trace")})
	qt.Assert(t, qt.IsNil(err))
	c.Bpfwhy = c.watch(t, p, watch)
	trace, err := os.ReadFile(filepath.Join(dir, "trace"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join("/out", traceFile), trace, 0o644)))

	watch, err = p.start(dir, script)
	qt.Assert(t, qt.IsNil(err))
	c.Script = c.watch(t, p, watch)

	b, err := json.Marshal(c)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join("/out", comparisonFile), b, 0o644)))
}

// watch runs the subjects one by one, cuts out what the tool prints about each, and stops the tool.
func (c *comparison) watch(t *testing.T, p programs, by *tracer) map[string]string {
	said := map[string]string{}
	for _, name := range subjects {
		harden := "0"
		if strings.HasPrefix(name, "far-") {
			harden = "2"
		}
		qt.Assert(t, qt.IsNil(os.WriteFile("/proc/sys/net/core/bpf_jit_harden", []byte(harden), 0)))
		from, err := by.settle()
		qt.Assert(t, qt.IsNil(err))
		out, err := exec.Command(p.failing, name).CombinedOutput()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
		to, err := by.settle()
		qt.Assert(t, qt.IsNil(err))
		text, err := os.ReadFile(by.output)
		qt.Assert(t, qt.IsNil(err))
		said[name] = string(text[from:to])
		// the program's id is the only difference between one time and the next
		fate := regexp.MustCompile(`, id \d+`).ReplaceAllString(strings.TrimSpace(string(out)), "")
		if before, ok := c.Loader[name]; ok {
			qt.Assert(t, qt.Equals(fate, before))
		}
		c.Loader[name] = fate
	}
	qt.Assert(t, qt.IsNil(os.WriteFile("/proc/sys/net/core/bpf_jit_harden", []byte("0"), 0)))
	qt.Assert(t, qt.IsNil(by.stop()))
	return said
}

// explainTrace explains a recording on the host.
func explainTrace(t *testing.T, bpfwhy string, trace []byte) []load.Attempt {
	file := filepath.Join(t.TempDir(), "trace")
	qt.Assert(t, qt.IsNil(os.WriteFile(file, trace, 0o600)))
	out, err := exec.Command(bpfwhy, "explain", "--json", file).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("explain: %v: %s", err, exit.Stderr)
	}
	qt.Assert(t, qt.IsNil(err))
	var list []load.Attempt
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var a load.Attempt
		err := d.Decode(&a)
		if err == io.EOF {
			return list
		}
		qt.Assert(t, qt.IsNil(err))
		list = append(list, a)
	}
}

// fate is what becomes of a subject on a kernel, by the kernel's sources.
func fate(t *testing.T, subject, kernel string) corpus.Want {
	cases := corpus.Cases()
	i := slices.IndexFunc(cases, func(c corpus.Case) bool { return c.Name == subject })
	qt.Assert(t, qt.IsTrue(i >= 0))
	if w, ok := cases[i].On[kernel]; ok {
		return w
	}
	return cases[i].Want
}

// told is how much of the truth a tool's words hold.
type told struct {
	outcome, stage, cause mark
	words                 string // what a reader concludes
}

type mark int

const (
	no mark = iota
	partly
	yes
	none // there is nothing to be told
)

func (m mark) String() string { return [...]string{"no", "partly", "yes", "-"}[m] }

// scriptLine is a line of the script's output.
var scriptLine = regexp.MustCompile(`(?m)^(\S+) +\d+: (bpf\(cmd |verifier returned |jited |bpf returned )(-?\d+)`)

// scriptCall is one bpf(2) as the script shows it.
type scriptCall struct {
	cmd      int
	verifier *int
	jited    []int
	ret      *int
}

func parseScript(text, comm string) []scriptCall {
	var calls []scriptCall
	for _, m := range scriptLine.FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(m[3])
		if m[1] != comm || err != nil {
			continue
		}
		if strings.HasPrefix(m[2], "bpf(") {
			calls = append(calls, scriptCall{cmd: n})
			continue
		}
		if len(calls) == 0 {
			continue
		}
		c := &calls[len(calls)-1]
		switch m[2] {
		case "verifier returned ":
			c.verifier = &n
		case "jited ":
			c.jited = append(c.jited, n)
		default:
			c.ret = &n
		}
	}
	return calls
}

const progLoad = 5 // BPF_PROG_LOAD

// readScript is what a reader of the script's lines, who knows how the four probes hang together,
// can say of a load.
func readScript(text, comm string, want corpus.Want) told {
	calls := slices.DeleteFunc(parseScript(text, comm), func(c scriptCall) bool { return c.cmd != progLoad })
	if len(calls) != 1 || calls[0].ret == nil {
		return told{words: "nothing"}
	}
	c := calls[0]
	unjited := slices.Contains(c.jited, 0)
	var stage load.Stage // what is told exactly
	near := false        // or roughly
	r := told{}
	switch {
	case c.verifier == nil && *c.ret < 0:
		r.words, near = "died before the verifier", slices.Contains([]load.Stage{load.Request, load.Permission, load.Resources, load.BTF}, want.Stage)
	case *c.ret < 0 && *c.verifier < 0:
		r.words, stage = "the verifier refused it", load.Verifier
	case *c.ret < 0 && unjited:
		r.words, stage, near = "the verifier accepted it, the JIT returned it uncompiled", load.JIT, want.Stage == load.Blinding
	case *c.ret < 0:
		r.words, near = "verified and compiled, and failed after that", want.Stage == load.Install
	case unjited:
		r.words, stage, near = "loaded, but the JIT returned it uncompiled", load.JIT, want.Stage == load.Blinding
	case len(c.jited) == 0:
		r.words = "loaded; nothing about the JIT"
	default:
		r.words = "loaded and compiled"
	}
	switch want.Outcome {
	case load.Failed:
		r.outcome = truth(*c.ret == -want.Errno)
	case load.LoadedNotJITed:
		r.outcome = truth(*c.ret >= 0 && unjited)
	default:
		r.outcome, r.stage, r.cause = truth(*c.ret >= 0 && !unjited), none, none
		return r
	}
	switch {
	case stage == want.Stage:
		r.stage = yes
	case near:
		r.stage = partly
	}
	return r
}

func truth(b bool) mark {
	if b {
		return yes
	}
	return no
}

// readBpfwhy holds an explained load against the truth.
func readBpfwhy(attempts []load.Attempt, comm string, want corpus.Want) told {
	i := slices.IndexFunc(attempts, func(a load.Attempt) bool {
		return a.Process.Comm == comm && a.Kind == load.ProgLoad && a.FeatureProbe == ""
	})
	if i < 0 {
		return told{words: "nothing"}
	}
	a := attempts[i]
	r := told{outcome: truth(a.Outcome == want.Outcome && a.Errno == want.Errno)}
	if want.Outcome == load.Loaded {
		r.stage, r.cause, r.words = none, none, "loaded and compiled"
		return r
	}
	r.stage = truth(a.FailedStage == want.Stage)
	if a.Diagnosis != nil {
		r.cause = truth(a.Diagnosis.Rule == want.Rule)
		r.words = a.Diagnosis.Rule + ", " + string(a.Diagnosis.HowKnown)
	}
	return r
}

func TestReadScript(t *testing.T) {
	cases := []struct {
		text string
		want corpus.Want
		told told
	}{
		{"x 1: bpf(cmd 5)\nx 1: verifier returned 0\nx 1: jited 1\nx 1: bpf returned 3\n",
			corpus.Loads, told{yes, none, none, "loaded and compiled"}},
		{"x 1: bpf(cmd 0)\nx 1: bpf returned 3\nx 1: bpf(cmd 5)\nx 1: verifier returned -13\nx 1: bpf returned -13\n",
			corpus.Want{Outcome: load.Failed, Errno: 13, Stage: load.Verifier}, told{yes, yes, no, "the verifier refused it"}},
		{"x 1: bpf(cmd 5)\ny 2: bpf(cmd 5)\nx 1: verifier returned 0\nx 1: jited 0\nx 1: bpf returned -524\n",
			corpus.Want{Outcome: load.Failed, Errno: 524, Stage: load.Blinding}, told{yes, partly, no, "the verifier accepted it, the JIT returned it uncompiled"}},
		{"x 1: bpf(cmd 5)\nx 1: verifier returned 0\nx 1: bpf returned 3\n",
			corpus.Want{Outcome: load.LoadedNotJITed, Stage: load.Blinding}, told{no, no, no, "loaded; nothing about the JIT"}},
		{"x 1: bpf(cmd 5)\nx 1: bpf returned -1\n",
			corpus.Want{Outcome: load.Failed, Errno: 1, Stage: load.Permission}, told{yes, partly, no, "died before the verifier"}},
		{"x 1: bpf(cmd 5)\nx 1: verifier returned 0\nx 1: jited 1\nx 1: bpf returned -24\n",
			corpus.Want{Outcome: load.Failed, Errno: 24, Stage: load.Install}, told{yes, partly, no, "verified and compiled, and failed after that"}},
		{"y 1: bpf(cmd 5)\n", corpus.Loads, told{words: "nothing"}},
	}
	for _, c := range cases {
		qt.Check(t, qt.Equals(readScript(c.text, "x", c.want), c.told), qt.Commentf("%s", c.text))
	}
}
