// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

// The judge lets nothing pass that a user would be misled by.
func TestJudge(t *testing.T) {
	const says = "R2 !read_ok"
	failing := Case{Name: "c", Want: fails(abi.EACCES, load.Verifier, "VER002"), Says: says}
	quiet := failing
	quiet.Quiet = true
	again := failing
	again.Again = true
	works := Case{Name: "ok", Want: Loads}
	jump := Case{Name: "jump", Want: unjited(load.Blinding, "BLIND003"), Jump: [2]int{2, 9}}

	attempt := func(change func(*load.Attempt)) *load.Attempt {
		a := &load.Attempt{
			Kind: load.ProgLoad, Outcome: load.Failed, Errno: abi.EACCES, FailedStage: load.Verifier,
			VerifierLog: load.VerifierLog{Origin: load.LogLoader, Lines: []string{says}},
			Diagnosis:   &load.Diagnosis{Rule: "VER002"},
		}
		if change != nil {
			change(a)
		}
		return a
	}
	open := func(a *load.Attempt) {
		a.Diagnosis = &load.Diagnosis{Rule: "UNKNOWN", Alternatives: []load.Alternative{{Rule: "VER099"}, {Rule: "VER002"}}}
		a.FailedStage, a.VerifierLog = "", load.VerifierLog{Origin: load.LogNone}
	}
	good := attempt(nil)
	for _, test := range []struct {
		name    string
		c       Case
		kernel  string
		backend string
		errno   int
		got     []*load.Attempt
		want    Judgement
	}{
		{"right", failing, "6.1", "fentry", abi.EACCES, []*load.Attempt{good}, Right},
		{"the loader met another errno", failing, "6.1", "fentry", abi.EINVAL, []*load.Attempt{good}, Wrong},
		{"nothing seen", failing, "6.1", "fentry", abi.EACCES, nil, Wrong},
		{"twice", failing, "6.1", "fentry", abi.EACCES, []*load.Attempt{good, good}, Wrong},
		{"taken for a probe", failing, "6.1", "fentry", abi.EACCES, []*load.Attempt{attempt(func(a *load.Attempt) { a.FeatureProbe = "x" })}, Wrong},
		{"another errno", failing, "6.1", "fentry", abi.EACCES, []*load.Attempt{attempt(func(a *load.Attempt) { a.Errno = abi.EINVAL })}, Wrong},
		{"another stage", failing, "6.1", "fentry", abi.EACCES, []*load.Attempt{attempt(func(a *load.Attempt) { a.FailedStage = load.BTF })}, Wrong},
		{"another rule", failing, "6.1", "fentry", abi.EACCES, []*load.Attempt{attempt(func(a *load.Attempt) { a.Diagnosis.Rule = "VER001" })}, Wrong},
		{"another kind", failing, "6.1", "fentry", abi.EACCES, []*load.Attempt{attempt(func(a *load.Attempt) { a.Kind = load.MapCreate })}, Wrong},
		{"no diagnosis", failing, "6.1", "fentry", abi.EACCES, []*load.Attempt{attempt(func(a *load.Attempt) { a.Diagnosis = nil })}, Wrong},
		{"no message", failing, "6.1", "fentry", abi.EACCES, []*load.Attempt{attempt(func(a *load.Attempt) { a.VerifierLog.Lines = nil })}, Wrong},
		{"the loader's log for the kernel's own", quiet, "6.1", "fentry", abi.EACCES, []*load.Attempt{good}, Wrong},
		{"the kernel's own words", quiet, "6.1", "fentry", abi.EACCES,
			[]*load.Attempt{attempt(func(a *load.Attempt) { a.VerifierLog.Origin = load.LogKernel })}, Right},
		{"not folded", again, "6.1", "fentry", abi.EACCES, []*load.Attempt{good}, Wrong},
		{"folded", again, "6.1", "fentry", abi.EACCES, []*load.Attempt{attempt(func(a *load.Attempt) { a.Retries = 1 })}, Right},
		{"open from inside", quiet, "6.1", "fentry", abi.EACCES, []*load.Attempt{attempt(open)}, Wrong},
		{"open from outside", quiet, "6.1", "tp_btf", abi.EACCES, []*load.Attempt{attempt(open)}, Among},
		{"open from outside, though there is a log", failing, "6.1", "tp_btf", abi.EACCES, []*load.Attempt{attempt(open)}, Wrong},
		{"confidently wrong from outside", quiet, "6.1", "tp_btf", abi.EACCES,
			[]*load.Attempt{attempt(func(a *load.Attempt) { a.Diagnosis.Rule = "VER001" })}, Wrong},
		{"works", works, "6.1", "fentry", 0, []*load.Attempt{attempt(func(a *load.Attempt) { a.Outcome, a.Errno, a.Diagnosis = load.Loaded, 0, nil })}, Right},
		{"works, and a probe fails", works, "6.1", "fentry", 0, []*load.Attempt{attempt(func(a *load.Attempt) { a.FeatureProbe = "x" })}, Right},
		{"works, and a finding", works, "6.1", "fentry", 0, []*load.Attempt{good}, Wrong},
		{"works, and nothing seen", works, "6.1", "fentry", 0, nil, Wrong},
		{"jump", jump, "6.1", "fentry", 0, []*load.Attempt{unjitedAttempt(2, 9)}, Right},
		{"another jump", jump, "6.1", "fentry", 0, []*load.Attempt{unjitedAttempt(3, 9)}, Wrong},
		{"jump from outside too", jump, "6.1", "tracepoint", 0, []*load.Attempt{unjitedAttempt(3, 9)}, Wrong},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, wrong := test.c.Judge(test.kernel, Run{Case: test.c.Name, Backend: test.backend, Errno: test.errno, Attempts: test.got})
			qt.Check(t, qt.Equals(got, test.want), qt.Commentf("%v", wrong))
			qt.Check(t, qt.Equals(len(wrong) > 0, test.want == Wrong))
		})
	}
}

func unjitedAttempt(from, to int) *load.Attempt {
	return &load.Attempt{
		Kind: load.ProgLoad, Outcome: load.LoadedNotJITed, FailedStage: load.Blinding,
		Jump: &load.Jump{From: from, To: to}, Diagnosis: &load.Diagnosis{Rule: "BLIND003"},
	}
}
