// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/load"
)

// Check compares what was concluded from a case's attempts with what is expected. It returns the
// attempt that the case is about, nil if there is none, and what is wrong, nothing if the answer is
// the expected one.
func (c *Case) Check(attempts []*load.Attempt) (*load.Attempt, []string) {
	var found []*load.Attempt
	var wrong []string
	for _, a := range attempts {
		switch {
		case c.about(a):
			found = append(found, a)
		case a.Finding() && !c.filler(a):
			wrong = append(wrong, "something else was reported too: "+describe(a))
		}
	}
	if len(found) != 1 {
		return nil, append(wrong, fmt.Sprintf("the load was seen %d times, not once", len(found)))
	}
	a := found[0]
	if c.unseen(a) {
		return a, wrong
	}
	if !c.expects(a) && !c.undecided(a) {
		var want []string
		for _, e := range c.Expect {
			want = append(want, e.String())
		}
		wrong = append(wrong, fmt.Sprintf("it was said that it %s; expected: %s", describe(a), strings.Join(want, ", or ")))
	}
	if c.Jump != nil {
		wrong = append(wrong, c.Jump.check(a.Jump)...)
	}
	return a, wrong
}

// about reports whether an attempt is the case's own. Of a call that a seccomp policy stopped only
// the end can be seen, which tells neither the command nor the program.
func (c *Case) about(a *load.Attempt) bool {
	if !a.Evidence.EnterSeen && a.Outcome == load.Failed && (a.Program == nil || a.Program.Name == "") {
		return true
	}
	return a.Kind == load.ProgLoad && a.FeatureProbe == "" && a.Program != nil && a.Program.Name == c.Load.Program
}

// filler is one of the loads that use up the JIT's memory, the last of which find none left.
func (c *Case) filler(a *load.Attempt) bool {
	return a.Program != nil && a.Program.Name == failing.FillerProgram
}

func (c *Case) expects(a *load.Attempt) bool {
	rule := ""
	if a.Diagnosis != nil {
		rule = a.Diagnosis.Rule
	}
	for _, e := range c.Expect {
		if a.Outcome == e.Outcome && a.Errno == e.Errno && a.FailedStage == e.Stage && rule == e.Rule {
			return true
		}
	}
	return false
}

// undecided reports whether the answer leaves the cause open, names the true one among the possible
// ones, and may do so: the stage that would tell was not observed. Errno and outcome are known all
// the same.
func (c *Case) undecided(a *load.Attempt) bool {
	if a.Diagnosis == nil || a.Diagnosis.Rule != explain.Unknown {
		return false
	}
	for _, e := range c.Expect {
		named := slices.ContainsFunc(a.Diagnosis.Alternatives, func(o load.Alternative) bool { return o.Rule == e.Rule })
		if named && a.Outcome == e.Outcome && a.Errno == e.Errno && !a.Evidence.Observed[e.Stage] {
			return true
		}
	}
	return false
}

// unseen reports whether a load came back un-jited and nothing could show it: the tp_btf backend
// reads no kernel memory, and the call says no more than that it worked.
func (c *Case) unseen(a *load.Attempt) bool {
	jited := a.Program != nil && a.Program.JITed != nil
	return a.Outcome == load.Loaded && !jited && !a.Evidence.Observed[load.Blinding] && !a.Evidence.Observed[load.JIT] &&
		slices.ContainsFunc(c.Expect, func(e Expect) bool { return e.Outcome == load.LoadedNotJITed })
}

func describe(a *load.Attempt) string {
	e := Expect{Outcome: a.Outcome, Errno: a.Errno, Stage: a.FailedStage}
	if e.Stage == "" {
		e.Stage = "(no stage)"
	}
	if a.Diagnosis != nil {
		e.Rule = a.Diagnosis.Rule
	}
	return e.String()
}

// A jump that was mapped back from the verifier's output may be off by a few slots.
const slack = 8

func (j *Jump) check(got *load.Jump) (wrong []string) {
	if got == nil {
		return []string{"the jump that breaks was not named"}
	}
	allowed := 0
	if got.Approximate {
		allowed = slack
	}
	if abs(got.From-j.From) > allowed || abs(got.To-j.To) > allowed {
		wrong = append(wrong, fmt.Sprintf("the jump was said to go from %d to %d; it goes from %d to %d", got.From, got.To, j.From, j.To))
	}
	// Where the kernel's memory is closed, so are the strings of the program's BTF: the line is
	// known, its file is not.
	file, line, _ := strings.Cut(j.Source, ":")
	gotFile, gotLine, _ := strings.Cut(got.FromSource, ":")
	if gotLine != line || gotFile != "" && path.Base(gotFile) != file {
		wrong = append(wrong, fmt.Sprintf("the jump was said to come from %q; it comes from %s", got.FromSource, j.Source))
	}
	if got.Need <= 32767 || got.Limit != 32767 {
		wrong = append(wrong, fmt.Sprintf("the jump was said to need %d of %d, which is not a failure", got.Need, got.Limit))
	}
	return wrong
}

func abs(n int) int { return max(n, -n) }

// told compares an attempt with what the kernel told the loader.
func told(a *load.Attempt, r *failing.Result) []string {
	switch {
	case a.Errno != r.Errno:
		return []string{fmt.Sprintf("errno was said to be %d; the loader got %d", a.Errno, r.Errno)}
	case a.Program == nil || a.Program.JITed == nil: // not seen
	case r.JITed != nil && *r.JITed != (a.Outcome == load.Loaded):
		return []string{fmt.Sprintf("the outcome was said to be %s; the kernel says jited=%t", a.Outcome, *r.JITed)}
	}
	return nil
}
