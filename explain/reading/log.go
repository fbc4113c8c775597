// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

var (
	// verifierError is a log in one line, as cilium/ebpf prints its end, and aya all of it.
	verifierError = lazyregexp.New(`(?i)^(.*\bload program: (?:errno \d+|E[A-Z0-9]+|[a-z' ]+?))(?:: (.+)| \((?:\d+ line\(s\) omitted|truncated[^)]*)\).*)$`)
	verifierSays  = lazyregexp.New(`(?i)^(.*?)\b(?:verifier (?:output|error|log|says|message)|kernel (?:verifier )?log)s?\s*[:=]\s*(.*)$`)
	// quotedInsn is a log behind any error.
	quotedInsn  = lazyregexp.New(`^(.*?): ((?:\d+: \([0-9a-f]{2}\) |processed \d+ insns).*)$`)
	lineOmitted = lazyregexp.New(`\s*\((?:truncated|\d+ line\(s\) omitted)[^()]*(?:\d+ line\(s\) omitted)?\)(?:\s*\([^()]*\))*$`)

	insnLine   = lazyregexp.New(`^\d{1,7}: (?:\([0-9a-f]{2}\) |<invalid )`)
	stateOf    = lazyregexp.New(`^(?:from \d+ to \d+[^:]*: ?|\d+: )(?:safe$|(?:frame\d+: ?)?(?:R\d+|fp-?\d+|refs|cb)[\w]*=?)`)
	bareState  = lazyregexp.New(`^(?:frame\d+: ?)?(?:R\d+(?:_\w+)?=\S*|fp-\d+(?:_\w+)?=\S*)(?: (?:R\d+|fp-\d+|refs|cb)\S*)*$`)
	statsLine  = lazyregexp.New(`^processed \d+ insns?\b`)
	afterStats = lazyregexp.New(`^(?:verification time \d+ usec|stack depth [\d+]+|insns processed )`)
	// Further lines of a log, beside verifierlog.Chatter.
	ofLog    = lazyregexp.New(`^(?:\d+: [.\da-z]{6,} \([0-9a-f]{2}\) |BPF program is too large|arg#\d+ )`)
	beginLog = lazyregexp.New(`-- BEGIN (?:PROG LOAD|DUMP) LOG -|^Verifier analysis:$|^Kernel error log:$`)
	endLog   = lazyregexp.New(`-- END (?:PROG LOAD )?LOG -`)
	// Lines about a function that is tried in a way that may fail: what is said later counts.
	trial     = lazyregexp.New(`^reg type unsupported for arg#\d+|^(?:arg#\d+ )?reg type \S+ (?:is )?unsupported`)
	passes    = lazyregexp.New(`(?i)passes invalid args into`)
	typedArg  = lazyregexp.New(`^R\d+ type=\S+ expected=`)
	sourceRow = lazyregexp.New(`^; `)
)

// quotedLog splits a line that quotes the verifier: what the loader says, and what it quotes.
func quotedLog(text string) (loader, log string) {
	if len(text) > maxLine {
		text = text[:maxLine]
	}
	if m := verifierError.FindStringSubmatch(text); m != nil {
		if _, ok := ErrnoOf(m[1]); ok {
			return m[1], m[2]
		}
	}
	if m := verifierSays.FindStringSubmatch(text); m != nil && strings.TrimSpace(m[2]) != "" {
		return m[1], m[2]
	}
	if m := quotedInsn.FindStringSubmatch(text); m != nil && !insnLine.MatchString(text) {
		return m[1], m[2]
	}
	return text, ""
}

// logLines makes lines of what stands in one, with ": " between them.
func logLines(quoted string) []string {
	quoted = lineOmitted.Compiled().ReplaceAllString(quoted, "")
	var out []string
	for insnLine.MatchString(quoted) {
		number, rest, _ := strings.Cut(quoted, ": ")
		insn, behind, found := strings.Cut(rest, ": ")
		out = append(out, number+": "+insn)
		if quoted = behind; !found {
			break
		}
	}
	if quoted = strings.TrimSpace(quoted); quoted == "" {
		return out
	}
	// A complaint may have ": " in it. Two sentences have none that is known across their border.
	if first, second, ok := strings.Cut(quoted, ": "); ok && known(first) && known(second) {
		return append(out, first, second)
	}
	return append(out, quoted)
}

// kindOfLog is what the kernel writes such a log about.
func kindOfLog(log []string) load.Kind {
	switch verifierlog.Classify(lastKnown(log)).Kind {
	case verifierlog.BTFData:
		return load.BTFLoad
	case verifierlog.MapAttribute:
		return load.MapCreate
	}
	return load.ProgLoad
}

func known(sentence string) bool { return verifierlog.Classify(sentence).Kind != verifierlog.Unknown }

// beginsLog reports a line that only a verifier's log has.
func beginsLog(text string) bool {
	return logLine(text) && !(chatter(text) && !strings.HasPrefix(text, "func#") && !strings.HasPrefix(text, "Validating ")) && !afterStats.MatchString(text)
}

// chatter reports what only a verifier's log has, beside instructions and states.
func chatter(text string) bool { return verifierlog.Chatter(text) || ofLog.MatchString(text) }

// logLine reports a line that a verifier's log has, and that nothing else has next to one.
func logLine(text string) bool {
	if text == "" {
		return false
	}
	if chatter(text) {
		return true
	}
	switch c := text[0]; {
	case c >= '0' && c <= '9':
		return insnLine.MatchString(text) || stateOf.MatchString(text)
	case c == 'R' || c == 'f':
		return bareState.MatchString(text) || stateOf.MatchString(text)
	case c == 'p':
		return statsLine.MatchString(text)
	}
	return stateOf.MatchString(text) || afterStats.MatchString(text) || trial.MatchString(text) || strings.HasPrefix(text, "Verification failed: ")
}

// tried leaves out what the verifier says about a function that it tries and then takes otherwise,
// if it says more afterwards. The last complaint decides.
func tried(lines []string) []string {
	more := func(i int) bool {
		return slices.ContainsFunc(lines[i+1:], func(l string) bool { return !trial.MatchString(l) && !typedArg.MatchString(l) && known(l) })
	}
	var out []string
	for i, l := range lines {
		next := ""
		if i+1 < len(lines) {
			next = lines[i+1]
		}
		switch {
		case trial.MatchString(l) && more(i):
		case typedArg.MatchString(l) && (passes.MatchString(next) || trial.MatchString(next) && more(i+1)):
		default:
			out = append(out, l)
		}
	}
	return out
}

// unglued takes the statistics off a sentence that the kernel ends without a new line.
func unglued(lines []string) (out []string) {
	for _, l := range lines {
		if at := gluedStats.FindIndex([]byte(l)); at != nil {
			out = append(out, l[:at[0]+1], l[at[0]+1:])
		} else {
			out = append(out, l)
		}
	}
	return out
}

var gluedStats = lazyregexp.New(`\Sprocessed \d+ insns \(limit`)

// logText is a log as the verifier prints it. A line of states begins with a blank there.
func logText(lines []string) string {
	lines = tried(unglued(lines))
	for i, l := range lines {
		if bareState.MatchString(l) {
			lines[i] = " " + l
		}
	}
	return strings.Join(lines, "\n")
}

// cause begins lines that go on with the error before them.
var cause = lazyregexp.New(`^(?:\d{1,2}: |[Cc]aused by:? ?|[Ee]rror: |-> |=> |\\_ |[Rr]eason: |errno\b|E[A-Z0-9]{3,}\b|[Oo]peration not|[Pp]ermission denied|[Ii]nvalid argument|[Nn]o such|[Cc]annot allocate|[Aa]rgument list|\(?os error)`)
