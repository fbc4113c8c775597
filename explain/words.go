// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/load"
)

// words are the verifier's own: what it complained of at the end of its log.
type words struct {
	complaint []string // last lines that are neither state, instruction nor statistics
	stats     string   // "processed N insns ..."
	insn      int      // the last instruction that was walked, -1 when none is shown
	insnText  string
	source    string // the source line above it
	kernel    bool   // read from the verifier itself: the loader passed no buffer
}

// maxLogTail bounds what is looked at: the reason stands at the end.
const maxLogTail = 64 << 10

var (
	insnLine  = regexp.MustCompile(`^(\d{1,7}): \([0-9a-f]{2}\) (.*)$`)
	stateLine = regexp.MustCompile(`^(?:\d+: (?:R\d|frame\d|safe|\()|from \d+ to \d+|R\d+(?:_[a-z]+)?=|last_idx|regs=|parent |mark_precise|propagating|caller|returning from callee|callee|to caller|Live regs|func#|Validating|arg#\d+ reference type|frame \d+:)`)
	statLine  = regexp.MustCompile(`^(?:verification time|stack depth|insns processed|mark_read|\(\d+ line\(s\) omitted|max_states|peak_states)`)
)

func (w words) empty() bool { return len(w.complaint) == 0 }

// clean reports a log that shows a finished verification without complaint.
func (w words) clean() bool { return w.stats != "" && len(w.complaint) == 0 }

func (w words) last() string {
	if len(w.complaint) == 0 {
		return ""
	}
	return w.complaint[len(w.complaint)-1]
}

// find returns the first line of the complaint that matches.
func (w words) find(re *regexp.Regexp) ([]string, bool) {
	for _, l := range w.complaint {
		if m := re.FindStringSubmatch(l); m != nil {
			return m, true
		}
	}
	return nil, false
}

func attemptWords(a *load.Attempt) words {
	ev := &a.Evidence
	if a.Outcome != load.Failed {
		return words{insn: -1}
	}
	switch {
	case strings.TrimSpace(ev.Log) != "":
		return parseWords(ev.Log)
	case len(ev.Messages) > 0:
		w := parseWords(tailOf(ev.Messages))
		w.kernel = true
		return w
	case len(a.VerifierLog.Lines) > 0:
		w := parseWords(tailOf(a.VerifierLog.Lines))
		w.kernel = a.VerifierLog.Origin == load.LogKernel
		return w
	}
	return words{insn: -1}
}

func tailOf(lines []string) string {
	if len(lines) > 200 {
		lines = lines[len(lines)-200:]
	}
	return strings.Join(lines, "\n")
}

func parseWords(log string) words {
	w := words{insn: -1}
	log = strings.TrimRight(log, "\x00\n ")
	if len(log) > maxLogTail {
		log = log[len(log)-maxLogTail:]
		if i := strings.IndexByte(log, '\n'); i >= 0 {
			log = log[i+1:]
		}
	}
	lines := strings.Split(log, "\n")
	var rev []string
	i := len(lines) - 1
scan:
	for ; i >= 0 && len(rev) < 8; i-- {
		l := strings.TrimRight(lines[i], "\r ")
		switch {
		case strings.TrimSpace(l) == "" || statLine.MatchString(l):
		case strings.HasPrefix(l, "processed "):
			if w.stats == "" && len(rev) == 0 {
				w.stats = printable(l, 160)
			}
		case strings.HasPrefix(l, "; ") || insnLine.MatchString(l) || stateLine.MatchString(l):
			break scan
		default:
			rev = append(rev, printable(l, 300))
		}
	}
	for j := len(rev) - 1; j >= 0; j-- {
		w.complaint = append(w.complaint, rev[j])
	}
	for ; i >= 0; i-- {
		l := strings.TrimRight(lines[i], "\r ")
		if w.insn < 0 {
			if m := insnLine.FindStringSubmatch(l); m != nil {
				w.insn, _ = strconv.Atoi(m[1])
				w.insnText = printable(m[2], 160)
			}
			continue
		}
		if s, ok := strings.CutPrefix(l, "; "); ok {
			w.source = printable(s, 160)
			break
		}
	}
	return w
}
