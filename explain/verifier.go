// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// rejectRule is a rule that the verifier's own words give away.
type rejectRule struct {
	Rule
	kinds []verifierlog.Kind
	// says and not narrow a kind down by its message; nil: all of it.
	says, not *lazyregexp.Regexp
	// cause says it for this attempt; nil: the title and the verifier's line.
	cause func(w words) string
	// refine looks further where the same words have several causes.
	refine func(f *Facts, m *Match)
	// suspect looks at the instructions where there are no words, if the errno
	// is silent.
	suspect func(*Facts) *suspicion
	silent  int
}

// verifierReject reports a load that the verifier turned down, or may have.
func (f *Facts) verifierReject() bool {
	return f.isLoad() && !f.verifierOK() && !f.notReached(load.Verifier) && f.signatureOfSeccomp() < Strong
}

// verifierMatch is the match of a rule that rests on the verifier's words. It has a cause and a
// remedy if the sentence has a note.
func (f *Facts) verifierMatch() *Match {
	m := &Match{Strength: Strong, How: load.Observed, Cause: printable(f.words.match.Note.Means, 400), First: f.words.advice()}
	if f.cause(load.FnDoCheck) != nil || f.cause(load.FnCheck) != nil {
		m.Strength = Certain
	}
	who := "the verifier's log says"
	switch {
	case f.text != nil:
		who = "the " + f.text.whose() + " quotes the verifier"
	case f.words.kernel:
		who = "the loader asked for no log; read from the verifier itself"
	case f.words.unproven:
		who = "the log in the loader's buffer, which may be an earlier call's, says"
	}
	for _, l := range f.words.complaint {
		m.Evidence = append(m.Evidence, fmt.Sprintf("%s: %s", who, l))
		who = "and"
	}
	if r := f.words.report; r != nil {
		if r.Reason != "" {
			m.Evidence = append(m.Evidence, "its reason: "+printable(r.Reason, 300))
		}
		if r.Suggestion != "" {
			m.Evidence = append(m.Evidence, "it suggests: "+printable(r.Suggestion, 300))
		}
	}
	if w := f.where(); w != "" {
		m.Evidence = append(m.Evidence, w)
	}
	if s := f.cause(load.FnDoCheck); s != nil {
		m.Evidence = append(m.Evidence, fmt.Sprintf("do_check_common returned %d (%s)", s.Ret, errnoName(-s.Ret)))
	} else if s := f.cause(load.FnCheck); s != nil {
		m.Evidence = append(m.Evidence, fmt.Sprintf("bpf_check returned %d (%s)", s.Ret, errnoName(-s.Ret)))
	}
	return m
}

// where says at which instruction, and which line of source, the verifier
// stopped.
func (f *Facts) where() string {
	switch {
	case f.ev.FailedInsn >= 0 && (f.ev.FailedInsn < len(f.ev.Insns) || f.words.insn < 0) && f.cause(load.FnDoCheck) != nil:
		return "the verifier stopped at " + f.at(f.ev.FailedInsn)
	case f.words.insn >= 0:
		s := fmt.Sprintf("the verifier stopped at instruction %d", f.words.insn)
		if f.words.insnText != "" {
			s += fmt.Sprintf(" (%s)", f.words.insnText)
		}
		if l, ok := f.ev.Source(f.words.insn); ok {
			s += fmt.Sprintf(", %s:%d", printable(l.File, 120), l.Line)
			if t := strings.TrimSpace(l.Text); t != "" {
				s += fmt.Sprintf(" %q", printable(t, 120))
			}
		} else if src := f.words.source; src != nil && src.Text != "" {
			if src.File != "" {
				s += fmt.Sprintf(", %s:%d", printable(src.File, 120), src.Line)
			}
			s += fmt.Sprintf(" %q", printable(src.Text, 120))
		}
		return s
	}
	return ""
}

func (r rejectRule) rule() Rule {
	out := r.Rule
	if out.Class == "" {
		out.Class = "R3"
	}
	if out.Stage == "" {
		out.Stage = load.Verifier
	}
	out.Match = func(f *Facts) *Match {
		if r.suspect != nil && f.silentReject(r.silent) {
			return f.suspect(r.suspect(f))
		}
		if !f.verifierReject() || !f.words.is(r.kinds...) {
			return nil
		}
		if r.says != nil && !r.says.MatchString(f.words.message) || r.not != nil && r.not.MatchString(f.words.message) {
			return nil
		}
		m := f.verifierMatch()
		if m.Cause == "" && r.cause != nil {
			m.Cause = r.cause(f.words)
		}
		if m.Cause == "" {
			m.Cause = fmt.Sprintf("%s: %s.", r.Title, strings.TrimRight(f.words.message, ". !"))
		}
		if r.refine != nil {
			r.refine(f, m)
		}
		return m
	}
	return out
}

var (
	sizeArgument   = lazyregexp.New(`'var &= const'|invalid zero-sized`)
	followsPointer = lazyregexp.New(`invalid mem access`)
)

func verifierRules() []Rule {
	var out []Rule
	for _, r := range slices.Concat(memoryRules, objectRules, programRules) {
		out = append(out, r.rule())
	}
	return slices.Concat(out, []Rule{ver099(), ver201()})
}

func ver099() Rule {
	return Rule{
		ID:    "VER099",
		Title: "The verifier rejects the program",
		Class: "R3",
		Stage: load.Verifier,
		Text: `The verifier walks every path of a program. It refuses the program if it
cannot prove that a path is safe. The last lines of its log, before the statistics, say what it
could not prove. The instruction above them says where. If the loader passed no log buffer, only
the errno is left: usually EACCES for memory, EINVAL for everything else.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			askForLog,
			{
				ID:    "read-upwards",
				Title: "Read the log upwards from the complaint, and follow the register that it names to where it got its value",
				Price: "Time. Build with -g, so that the log has source lines.",
			},
		},
		Match:   matchReject,
		generic: true,
	}
}

//revive:disable-next-line:cyclomatic a case for each place where the words may be missing
func matchReject(f *Facts) *Match {
	if !f.verifierReject() || f.words.clean() || f.text != nil && f.fellBack() {
		return nil // the last: the verifier says what the JIT did
	}
	if !f.words.empty() {
		m := f.verifierMatch()
		if m.Cause == "" {
			m.Cause = fmt.Sprintf("The verifier rejects the program: %s.", strings.TrimRight(f.words.message, ". !"))
		} else {
			m.Without = append(m.Without, askForLog.ID)
		}
		return m
	}
	if s := f.cause(load.FnDoCheck); s != nil {
		m := f.verifierMatch()
		m.Cause = "The verifier rejects the program. The loader asked for no log, so the reason is not known."
		return m
	}
	if s := f.cause(load.FnCheck); s != nil && f.cause(load.FnJITSubprogs) == nil && f.cause(load.FnBlind) == nil && f.cause(load.FnPatch) == nil && f.cause(load.FnModmem) == nil && f.cause(load.FnJIT) == nil {
		if f.errno() == abi.ENOSPC || f.errno() == abi.EAGAIN || f.errno() == abi.ENOMEM {
			return nil
		}
		m := f.verifierMatch()
		m.Cause = "The verifier turned the program down before it walked a single instruction; its reason was not recorded."
		return m
	}
	switch f.errno() {
	case abi.EACCES:
		// Loads are hardly ever refused with EACCES by anything else than the
		// verifier, except under SELinux.
		return &Match{Strength: Likely, How: load.Inferred,
			Cause: "By the errno, the verifier rejects the program. There is no log that says why.",
			Why:   "EACCES is the verifier's usual answer"}
	case abi.EINVAL, abi.EFAULT, abi.E2BIG, abi.EPERM:
		if f.errno() == abi.EPERM && f.refused() {
			return nil
		}
		return &Match{Strength: Possible, How: load.Inferred, Why: fmt.Sprintf("%s is one of the verifier's answers, and there is no log that says more. A load with a log (log_level 1) tells", errnoName(f.errno()))}
	}
	return nil
}

func ver201() Rule {
	return Rule{
		ID:    "VER201",
		Title: "A signal interrupted the verifier",
		Class: "R3",
		Stage: load.Verifier,
		Text: `If a signal is pending, the verifier stops with EAGAIN, so that a long
verification can be killed. Go's runtime sends itself signals all the time (SIGURG to preempt,
SIGPROF while profiling). Profilers send signals too. Loaders repeat the call a few times. If a
timer sends signals often, the verification of a long program never ends.`,
		Kernels: "Since 5.0.",
		Remedies: []load.Remedy{
			{
				ID:    "retry",
				Title: "Repeat the call on EAGAIN, with the thread's signals blocked while it runs (cilium/ebpf does both)",
				Price: "The thread does not react to signals while the program is verified.",
			},
			{
				ID:    "stop-profiler",
				Title: "Do not profile the loader by timer signals while it loads",
				Price: "No profile of the start.",
			},
		},
		Match: func(f *Facts) *Match {
			if !f.isLoad() || f.errno() != abi.EAGAIN && f.errno() != abi.EINTR || f.verifierOK() {
				return nil
			}
			m := &Match{Strength: Likely, How: load.Inferred, Cause: "A signal was pending, and the verifier stopped for it. The program was not judged."}
			m.Why = "EAGAIN comes from a pending signal"
			if s := f.cause(load.FnDoCheck); s != nil {
				m.Strength, m.How = Certain, load.Observed
				m.Evidence = append(m.Evidence, fmt.Sprintf("do_check_common returned %d (%s)", s.Ret, errnoName(-s.Ret)))
			} else if s := f.cause(load.FnCheck); s != nil {
				m.Strength, m.How = Certain, load.Observed
				m.Evidence = append(m.Evidence, fmt.Sprintf("bpf_check returned %d (%s)", s.Ret, errnoName(-s.Ret)))
			}
			return m
		},
	}
}
