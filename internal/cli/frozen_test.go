// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/load"
	"github.com/go-quicktest/qt"
)

var update = flag.Bool("update", false, "write the table of answers anew")

// TestFrozenAnswers: what is said of every recorded fixture stays what it was. Each row is a
// fixture, and of each answer the rule, the stage that failed, the jump, how it is known, and the
// exit status. A change of a word changes no row.
func TestFrozenAnswers(t *testing.T) {
	const file = "testdata/answers.tsv"
	var b strings.Builder
	b.WriteString("fixture\trule\tstage\tjump\thow known\texit status\n")
	rows := 0
	add := func(name string, status int, cells ...string) {
		rows++
		fmt.Fprintf(&b, "%s\t%s\t%d\n", name, strings.Join(cells, "\t"), status)
	}
	for _, x := range recordings(t) {
		out, status := said(t, []byte(x.stdin), append(x.args, "--json")...)
		answers(t, x.name, out, status, add)
	}
	for _, x := range objects(t) {
		out, status := said(t, nil, append(x.args, "--format=json")...)
		verdicts(t, x.name, out, status, add)
	}
	qt.Assert(t, qt.IsTrue(rows > 150), qt.Commentf("%d rows", rows))
	if *update {
		qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(b.String()), 0o644)))
	}
	want, err := os.ReadFile(file)
	qt.Assert(t, qt.IsNil(err))
	if b.String() != string(want) {
		was, is := strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")
		for i := range max(len(was), len(is)) {
			if i >= len(was) || i >= len(is) || was[i] != is[i] {
				t.Fatalf("line %d of %s differs. Where that is meant: go test -run TestFrozenAnswers -update\nwas %q\nis  %q", i+1, file, at(was, i), at(is, i))
			}
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

func said(t *testing.T, stdin []byte, args ...string) ([]byte, int) {
	c := bpfwhy(args...)
	c.Stdin = bytes.NewReader(stdin)
	out, err := c.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out, c.ProcessState.ExitCode()
}

func answers(t *testing.T, name string, out []byte, status int, add func(string, int, ...string)) {
	some := false
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var a struct {
			load.Attempt
			load.Diagnosis // of pasted text, which is no attempt
		}
		if err := d.Decode(&a); errors.Is(err, io.EOF) {
			break
		} else {
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%s: %s", name, out))
		}
		g := &a.Diagnosis
		if a.Attempt.Diagnosis != nil {
			g = a.Attempt.Diagnosis
		}
		jump := "-"
		if a.Jump != nil {
			jump = fmt.Sprintf("%d to %d", a.Jump.From, a.Jump.To)
		}
		add(name, status, dash(g.Rule), dash(string(a.FailedStage)), jump, dash(string(g.HowKnown)))
		some = true
	}
	if !some {
		add(name, status, "-", "-", "-", "-")
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// verdicts of programs stand where the stages of attempts do.
func verdicts(t *testing.T, name string, out []byte, status int, add func(string, int, ...string)) {
	var report struct {
		Objects []struct {
			Programs []struct {
				Name, Verdict, Rule, Confidence string
				Jump                            *struct{ From, To int }
			}
		}
	}
	qt.Assert(t, qt.IsNil(json.Unmarshal(out, &report)))
	for _, o := range report.Objects {
		for _, p := range o.Programs {
			jump := "-"
			if p.Jump != nil {
				jump = fmt.Sprintf("%d to %d", p.Jump.From, p.Jump.To)
			}
			add(name+":"+p.Name, status, dash(p.Rule), p.Verdict, jump, p.Confidence)
		}
	}
}
