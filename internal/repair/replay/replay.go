// SPDX-License-Identifier: Apache-2.0

// Package replay loads a captured program again, and the same program repaired: what fails as it
// was and loads with jump islands failed because of constant blinding. Of other failures it brings
// the verifier's own words, where a trace has none.
//
// The program comes from a trace, and a trace from anybody. It is loaded and never attached or run,
// in a child process of its own, by a thread that has the recorded loader's user and at most its
// capabilities, with stand-ins for its maps and with everything refused that refers to another
// object of the recorded machine. What remains is what any BPF loader does: the kernel's verifier
// reads the program, and the compiler compiles it. A bug in those is within reach of whoever wrote
// the trace.
package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/repair/ladder"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/bpfwhy/bpfwhy/rewrite"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// Options are what an attempt does not say by itself.
type Options struct {
	Recorded *node.Profile // the node of the trace
	Here     *node.Profile // this one
	Maps     *Maps         // other maps that the trace tells of; nil: none
	// Timeout is for one load. The kernel is stopped as soon as it looks: the verifier does, its
	// compiler does not, which is why programs that could take longer than a minute there are
	// refused. 0 is a minute.
	Timeout time.Duration
}

// ErrStuck says that the kernel did not stop loading a program when it was told to.
var ErrStuck = errors.New("the kernel is still busy with the program")

// Prove loads the program of an attempt again and returns what that showed; it also sets a.Replay,
// and where the trace has no words of the verifier's and it failed with the same errno, a's log.
// The caller draws the conclusions anew (explain.Conclude).
//
// It needs CAP_BPF and what the loader had, on Linux 5.10 or later, and Main at the start of the
// executable. The error is the context's, or says that no child could be started or stopped;
// nothing that a trace holds leads to one.
func Prove(ctx context.Context, a *load.Attempt, o Options) (*load.Replay, error) {
	r := &load.Replay{Kernel: o.Here.Release, Harden: -1}
	if h, ok := o.Here.Sysctl("net.core.bpf_jit_harden"); ok {
		r.Harden = int(h)
	}
	a.Replay = r
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	err := prove(ctx, a, &o, r)
	if v := new(verdict); errors.As(err, &v) {
		r.Verdict, r.Why = v.verdict, v.why
		return r, nil
	}
	return r, err
}

func prove(ctx context.Context, a *load.Attempt, o *Options, r *load.Replay) error {
	p, err := prepare(a, o.Recorded, o.Here, o.Maps)
	if err != nil {
		return err
	}
	r.Notes = p.notes
	if !sameKernel(o.Recorded, o.Here) {
		r.Notes = append(r.Notes, fmt.Sprintf("it was recorded on another kernel, %s", cmp.Or(o.Recorded.Release, "of an unknown release")))
	}
	c, got, err := start(ctx, &p.setup, o.Timeout)
	if err != nil {
		return err
	}
	defer c.close()
	if lacks := counts(got.Lacks); len(lacks) > 0 {
		return discard("the loader had %s, which this process has not", strings.Join(lacks, ", "))
	}
	if got.Stronger > 0 {
		r.Notes = append(r.Notes, "maps or BTF that the loader had no right to make were made with ours")
	}
	w := &way{ctx: ctx, client: c, plan: p, timeout: o.Timeout, recorded: a, replay: r, program: &ladder.Program{Insns: p.prog}}
	k := o.Here.Blinds()
	out := ladder.Climb(&ladder.Rules{
		Kernel: k, Limits: rewrite.FewLimits(), Words: true,
		Afford: func(prog []insn.Instruction) error { return p.affordable(prog, k) },
	}, []*ladder.Program{w.program}, w)
	switch {
	case w.err != nil:
		return w.err
	case errors.As(out.Err, new(*verdict)):
		return out.Err
	case r.Repaired == nil && w.program.NoForm() != nil:
		return refuse("%v", w.program.NoForm())
	}
	return assess(a, o, w)
}

// assess says what the loads have shown.
func assess(a *load.Attempt, o *Options, w *way) error {
	r := w.replay
	not := func(format string, args ...any) error {
		r.Verdict, r.Why = load.ReplayNotReproduced, fmt.Sprintf(format, args...)
		return nil
	}
	switch {
	case !same(r.Original, a):
		why := "here it " + ends(r.Original) + because(a, o, r)
		if r.Repaired != nil && r.Repaired.JITedBytes > 0 {
			why += fmt.Sprintf("; with %s it is compiled", islands(r.Repaired.Islands))
		}
		return not("%s", why)
	case !notCompiled(a):
		judge(a, w.plan, w.original, r)
		return nil
	case r.Repaired == nil:
		return not("it fails in the same way here, but no jump of it is long enough for blinding to break it: the reason is another")
	case r.Repaired.JITedBytes == 0:
		return not("it fails in the same way here, and with %s it %s", islands(r.Repaired.Islands), ends(r.Repaired))
	}
	// Once more as it was: what failed for want of memory may load by now, with islands or without.
	again, err := w.ask(nil)
	if err != nil {
		return err
	}
	if t := outcome(again, len(w.plan.prog)); !same(t, a) {
		return not("it failed in the same way here, and tried once more it %s: the reason comes and goes", ends(t))
	}
	r.Verdict = load.ReplayReproduced
	return nil
}

// same reports whether a load ended as the recorded one.
func same(t *load.Trial, a *load.Attempt) bool { return t.Outcome == a.Outcome && t.Errno == a.Errno }

// counts names those capabilities of a set that bpf(2) asks for.
func counts(caps uint64) (names []string) {
	for _, c := range [...]int{unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN, unix.CAP_PERFMON, unix.CAP_BPF} {
		if caps>>c&1 != 0 {
			names = append(names, node.Capability(c))
		}
	}
	return names
}

// notCompiled reports an attempt that ended where the program is compiled: a repair can show why.
func notCompiled(a *load.Attempt) bool {
	return a.Outcome == load.LoadedNotJITed || a.Errno == abi.ENOTSUPP || a.FailedStage == load.Blinding
}

func outcome(a *answer, insns int) *load.Trial {
	t := &load.Trial{Outcome: load.Loaded, Errno: a.Errno, ErrnoName: errnoName(a.Errno), DurationNS: a.Took, Insns: insns, JITedBytes: a.JITed}
	switch {
	case a.Errno != 0:
		t.Outcome = load.Failed
	case a.JITed == 0:
		t.Outcome = load.LoadedNotJITed
	}
	return t
}

// judge decides whether a program that failed with the recorded errno failed for the recorded
// reason, and hands its words over where the trace has none.
func judge(a *load.Attempt, p *plan, got *answer, r *load.Replay) {
	then, now := words(recordedLog(a)), words(got.Log)
	r.Verdict = load.ReplayReproduced
	if why := differs(a, p, then, now); why != "" {
		r.Verdict, r.Why = load.ReplayNotReproduced, "it fails with the same errno here, "+why
	}
	if then.Message == "" && now.Message != "" && !elsewhere(a.Evidence.FailedInsn, now.Insn) {
		a.Evidence.Log, a.Evidence.Messages = got.Log, nil
		lines := now.Lines[max(0, len(now.Lines)-200):]
		a.VerifierLog = load.VerifierLog{Origin: load.LogReplay, Lines: lines, Truncated: got.LogCut || len(lines) < len(now.Lines)}
	}
}

// differs says why the verifier's words here may be about another failure than those there, "" if
// they are about the same.
func differs(a *load.Attempt, p *plan, then, now verifierlog.Log) string {
	failed := a.Evidence.FailedInsn
	switch {
	case then.Message == "" && now.Message == "":
		if a.FailedStage == load.Verifier {
			return "and the verifier says nothing of it, there or here: it cannot be told whether for the same reason"
		}
	case now.Message == "":
		return "without a word of the verifier, which had one there"
	case then.Message != "":
		if then.Match.Kind != now.Match.Kind || then.Match.Kind == verifierlog.Unknown && then.Message != now.Message {
			return fmt.Sprintf("but the verifier says %q", now.Message)
		}
		if elsewhere(then.Insn, now.Insn) {
			return fmt.Sprintf("but at instruction %d and not at %d", now.Insn, then.Insn)
		}
	case elsewhere(failed, now.Insn):
		return fmt.Sprintf("but at instruction %d and not at %d", now.Insn, failed)
	case failed >= 0 && now.Insn >= 0:
	case len(p.trial.Refs) > 0 || !p.sameKernel:
		return "but neither the verifier's words nor the place were recorded: it cannot be told whether for the same reason"
	}
	return ""
}

// elsewhere reports whether two instructions are known and not the same.
func elsewhere(then, now int) bool { return then >= 0 && now >= 0 && then != now }

func recordedLog(a *load.Attempt) string {
	e := &a.Evidence
	switch {
	case strings.TrimSpace(e.Log) != "":
		return e.Log
	case len(e.Messages) > 0:
		return strings.Join(e.Messages, "\n")
	}
	return strings.Join(a.VerifierLog.Lines, "\n")
}

func words(log string) verifierlog.Log { return verifierlog.Parse(log, verifierlog.Options{}) }

// because says what is different here that such a failure may hang on, after what the program did
// here.
func because(a *load.Attempt, o *Options, r *load.Replay) string {
	var why []string
	compare := func(what, here, there string) {
		if here != there && here != "" && there != "" {
			why = append(why, fmt.Sprintf("%s is %s and was %s", what, here, there))
		}
	}
	sysctl := func(name string) {
		there := o.Recorded.Sysctls[name]
		if v, ok := a.Evidence.Sysctls[name]; ok {
			there = v
		}
		compare(name, o.Here.Sysctls[name], there)
	}
	const alwaysOn = "CONFIG_BPF_JIT_ALWAYS_ON"
	switch {
	case a.FailedStage == load.Permission, r.Original.Errno == int(unix.EPERM):
		sysctl("kernel.unprivileged_bpf_disabled")
		compare("lockdown", o.Here.Lockdown, o.Recorded.Lockdown)
	case notCompiled(a):
		why = append(why, harden(a, o, r)...)
		sysctl("net.core.bpf_jit_enable")
		compare(alwaysOn, o.Here.Config[alwaysOn], o.Recorded.Config[alwaysOn])
		if a.FailedStage == load.JIT {
			sysctl("net.core.bpf_jit_limit")
			why = append(why, "the memory for compiled programs may be less used")
		}
	case a.Errno == int(unix.ENOSPC) && a.Evidence.LogSize > 0:
		why = append(why, fmt.Sprintf("it asked for no log, and the loader's had only %d bytes", a.Evidence.LogSize))
	case a.Errno == int(unix.EMFILE):
		why = append(why, "no descriptor is wanting")
	}
	compare("the kernel", o.Here.Release, o.Recorded.Release)
	if len(why) == 0 {
		return "; nothing that was recorded is different here"
	}
	return ": " + strings.Join(why, "; ")
}

// harden says what is different, or not known, of the setting that blinds.
func harden(a *load.Attempt, o *Options, r *load.Replay) (why []string) {
	if h := a.Evidence.Harden; h >= 0 && r.Harden >= 0 && h != r.Harden {
		why = append(why, fmt.Sprintf("net.core.bpf_jit_harden is %d and was %d", r.Harden, h))
	}
	if unknown := o.Here.Unknown["net.core.bpf_jit_harden"]; r.Harden < 0 && unknown != "" {
		why = append(why, "net.core.bpf_jit_harden is not known here: "+unknown)
	}
	return why
}

// ends says what became of a load.
func ends(t *load.Trial) string {
	switch {
	case t.Errno != 0:
		return fmt.Sprintf("fails with %s (%d)", t.ErrnoName, t.Errno)
	case t.JITedBytes == 0:
		return "loads, and is not compiled"
	}
	return "loads and is compiled"
}

func islands(n int) string {
	if n == 1 {
		return "a jump island"
	}
	return fmt.Sprintf("%d jump islands", n)
}

func errnoName(errno int) string {
	if errno == 0 {
		return ""
	}
	return cmp.Or(abi.ErrnoName(errno), fmt.Sprintf("errno %d", errno))
}
