// SPDX-License-Identifier: Apache-2.0

// Package corpus holds loads of BPF programs by loaders of different make, each with the fate that
// the kernel gives it, and runs them under observation: what is concluded must be what the kernel
// did. Expectations are written from the kernel's behaviour, and the loaders say themselves which
// errno they met.
package corpus

import (
	"fmt"
	"slices"

	"github.com/bpfwhy/bpfwhy/load"
)

// Loader is the make of a loader.
type Loader string

// Failing is raw bpf(2) from Go, or cilium/ebpf where the name says so: see
// internal/demo/failing.
const (
	Failing  Loader = "failing"
	C        Loader = "c"      // static, no library
	Libbpf   Loader = "libbpf" // 1.1, static
	Cilium   Loader = "cilium" // cilium/ebpf
	Python   Loader = "python" // ctypes
	Bpftrace Loader = "bpftrace"
	Bpftool  Loader = "bpftool"
	// Attach makes raw calls from Go: what comes after the load.
	Attach Loader = "attach"
)

// Case is one run of a loader.
type Case struct {
	Name   string // unique
	Loader Loader
	Args   []string

	// Sysctls hold while it runs. On other machines than those of the lab only
	// net.core.bpf_jit_harden may be set.
	Sysctls map[string]string
	// Lockdown is the mode that the machine must be booted with.
	Lockdown string

	// HostOnly: too much for an emulated machine.
	HostOnly bool

	// Program singles the load out by its program's name, where the loader makes others that fail
	// by design.
	Program string
	// Several: the loader's one failure takes more than one attempt, and each of them must be told
	// as Want says, by one of these rules.
	Several []string
	// Quiet: the loader asked for no log (or none can exist) and for one errno there are many
	// causes. Where only the system call is watched, naming the true cause among the alternatives
	// is all that can be asked for.
	Quiet bool
	// Open: whatever the backend sees, it fits several causes, and the true one must be named among
	// them.
	Open bool
	// Says is a part of the verifier's message. For a quiet case it must be read from the verifier
	// itself.
	Says string

	// Again: the loader tries again, for a log. All of its calls are one attempt.
	Again bool
	// Jump is the jump that blinding breaks, from and to, in slots of the submitted program.
	Jump [2]int

	// Hook is what must be watched for the failure to be seen. A backend without it says so.
	Hook load.Function

	Want Want
	// On holds what differs from Want, by kernel: an ID of the lab, or Host.
	On map[string]Want
	// Except holds places (a kernel, or kernel/backend) where the case is not run or not judged,
	// and why.
	Except map[string]string
}

// Host is the kernel of the machine that runs the tests: its fates are those of 6.14 to 6.18
// without an interpreter.
const Host = "host"

// Want is a load's fate, and what is to be concluded from it. The zero value of Kind is prog_load.
type Want struct {
	Kind    load.Kind
	Outcome load.Outcome
	Errno   int
	Stage   load.Stage
	Rule    string
}

// Loads is the fate of a load that works: it must give no finding.
var Loads = Want{Outcome: load.Loaded}

// fails is the fate of most cases.
func fails(errno int, stage load.Stage, rule string) Want {
	return Want{Kind: load.ProgLoad, Outcome: load.Failed, Errno: errno, Stage: stage, Rule: rule}
}

func (w Want) of(kind load.Kind) Want { w.Kind = kind; return w }

// unjited is the fate of a load that works but for the JIT.
func unjited(stage load.Stage, rule string) Want {
	return Want{Kind: load.ProgLoad, Outcome: load.LoadedNotJITed, Stage: stage, Rule: rule}
}

// On returns the case's fate on a kernel.
func (c *Case) on(kernel string) Want {
	if w, ok := c.On[kernel]; ok {
		return w
	}
	return c.Want
}

// skip says why a case is left out on a kernel, or with a backend there.
func (c *Case) skip(kernel, backend string) string {
	if backend == Following && c.Loader != Attach {
		return "what follows single processes sees no more of a load than fentry does"
	}
	for _, k := range []string{kernel, kernel + "/" + backend, "*/" + backend} {
		if why, ok := c.Except[k]; ok {
			return why
		}
	}
	return ""
}

// inLab reports a case that needs a machine prepared for it.
func (c *Case) inLab() bool {
	for name := range c.Sysctls {
		if name != harden {
			return true
		}
	}
	return c.Lockdown != ""
}

// Blind checks a case that is left out with a backend, since that does not reach what it needs: it
// must say so, and tell nothing.
func (c *Case) Blind(r Run) (wrong []string) {
	if c.Hook == "" {
		return nil
	}
	if !slices.Contains(r.Missing, c.Hook) {
		wrong = append(wrong, fmt.Sprintf("it is held for unseen, but %s is not among what is not watched: %s", c.Hook, r.Missing))
	}
	for _, a := range c.findings(r) {
		wrong = append(wrong, "it is held for unseen, but told: "+describe(a))
	}
	return wrong
}

const harden = "net.core.bpf_jit_harden"

// Judgement is how an observed run compares with its case.
type Judgement int

// Among: the conclusion is open, and the true cause is named among the alternatives.
const (
	Wrong Judgement = iota
	Among
	Right
)

// Outside reports a backend that watches the system call alone.
func Outside(backend string) bool { return backend == "tracepoint" || backend == "tp_btf" }

// Judge compares what was concluded of a run with the case's fate. Each difference is one line.
//
//revive:disable-next-line:cyclomatic one check for each part of a diagnosis
func (c *Case) Judge(kernel string, r Run) (Judgement, []string) {
	want := c.on(kernel)
	var wrong []string
	differ := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if r.Err != "" {
		differ("the loader did not run: %s", r.Err)
		return Wrong, wrong
	}
	if r.Errno >= 0 && r.Errno != want.Errno {
		differ("the loader itself met errno %d, not %d", r.Errno, want.Errno)
	}
	if r.Backend == "none" {
		return verdict(wrong, Right), wrong
	}
	findings := c.findings(r)
	if want.Outcome == load.Loaded && want.Rule == "" {
		for _, a := range findings {
			differ("a finding where none should be: %s", describe(a))
		}
		if len(r.Attempts) == 0 && want.Kind == "" { // a classic filter that works is not reported
			differ("nothing was seen of it")
		}
		return verdict(wrong, Right), wrong
	}
	switch {
	case len(findings) == 0:
		differ("no finding; want %s", want)
		for _, a := range r.Attempts {
			differ("seen: %s", describe(a))
		}
		return Wrong, wrong
	case len(findings) > 1 && c.Several == nil:
		differ("%d findings for one failure", len(findings))
		for _, a := range findings {
			differ("finding: %s", describe(a))
		}
	}
	lenient := kernel == Host || c.Open || c.Quiet && Outside(r.Backend)
	best := Right
	for _, a := range findings {
		j := c.judgeOne(want, a, lenient, r.Backend, differ)
		best = min(best, j)
	}
	return verdict(wrong, best), wrong
}

func verdict(wrong []string, otherwise Judgement) Judgement {
	if len(wrong) > 0 {
		return Wrong
	}
	return otherwise
}

// findings are the attempts that a user is shown.
func (c *Case) findings(r Run) []*load.Attempt {
	var out []*load.Attempt
	for _, a := range r.Attempts {
		if !a.Finding() || c.Program != "" && (a.Program == nil || a.Program.Name != c.Program) {
			continue
		}
		if c.Program == "" && r.ignored(a) {
			continue
		}
		out = append(out, a)
	}
	return out
}

//revive:disable-next-line:cyclomatic one check for each part of a diagnosis
func (c *Case) judgeOne(want Want, a *load.Attempt, lenient bool, backend string, differ func(string, ...any)) Judgement {
	kind := want.Kind
	if kind == "" {
		kind = load.ProgLoad
	}
	if a.Kind != kind && c.Several == nil {
		differ("kind %s, not %s", a.Kind, kind)
	}
	if a.Outcome != want.Outcome || a.Errno != want.Errno {
		differ("%s with errno %d, not %s with %d", a.Outcome, a.Errno, want.Outcome, want.Errno)
	}
	rules := c.Several
	if rules == nil {
		rules = []string{want.Rule}
	}
	d := a.Diagnosis
	if d == nil {
		differ("no diagnosis")
		return Wrong
	}
	j := Right
	if !slices.Contains(rules, d.Rule) {
		j = Among
		named := slices.ContainsFunc(d.Alternatives, func(o load.Alternative) bool { return slices.Contains(rules, o.Rule) })
		if !lenient || !named {
			differ("rule %s, not %s; alternatives %v", d.Rule, rules, alternatives(d))
		}
	}
	if a.FailedStage != want.Stage && !(j == Among && lenient) {
		differ("stage %q, not %q", a.FailedStage, want.Stage)
	}
	if c.Again && a.Retries == 0 {
		differ("no retries: the loader's calls are not one attempt")
	}
	if c.Jump != [2]int{} {
		if a.Jump == nil {
			differ("the jump is not named")
		} else if got := [2]int{a.Jump.From, a.Jump.To}; got != c.Jump {
			differ("jump from %d to %d, not %d to %d", got[0], got[1], c.Jump[0], c.Jump[1])
		}
	}
	c.judgeWords(a, backend, differ)
	return j
}

// judgeWords checks the verifier's message: it must be there even when the loader asked for none.
func (c *Case) judgeWords(a *load.Attempt, backend string, differ func(string, ...any)) {
	if c.Says == "" || c.Quiet && Outside(backend) {
		return
	}
	origin := load.LogLoader
	if c.Quiet {
		origin = load.LogKernel
	}
	if a.VerifierLog.Origin != origin {
		differ("the verifier's log is from %s, not %s", a.VerifierLog.Origin, origin)
	}
	if !containsPart(a.VerifierLog.Lines, c.Says) {
		differ("%q is not in the verifier's log %q", c.Says, a.VerifierLog.Lines)
	}
}

func (w Want) String() string {
	kind := w.Kind
	if kind == "" {
		kind = load.ProgLoad
	}
	return fmt.Sprintf("%s %s errno %d, stage %s, %s", kind, w.Outcome, w.Errno, w.Stage, w.Rule)
}
