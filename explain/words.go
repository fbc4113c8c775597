// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// words are the verifier's own: what it complained of at the end of its log.
type words struct {
	complaint []string // the lines of the complaint
	match     verifierlog.Match
	message   string // the line that match is about
	finished  bool   // the log ends with statistics
	stats     string
	insn      int // the instruction to blame, -1 when the log names none
	insnText  string
	source    *verifierlog.Source
	report    *verifierlog.Report
	kernel    bool // read from the verifier itself: the loader passed no buffer
	log       verifierlog.Log
	unproven  bool // from a buffer that the kernel may not have written to in this call
}

func noWords() words { return words{insn: -1} }

const (
	maxLogTail   = 256 << 10 // the reason stands at the end
	maxComplaint = 8
)

func (w words) empty() bool { return len(w.complaint) == 0 }

// said reports that there is something of the verifier's, be it a complaint or not.
func (w words) said() bool { return w.finished || !w.empty() }

// clean reports a log that shows a finished verification without complaint.
func (w words) clean() bool { return w.finished && w.empty() }

// is reports a complaint of one of the kinds.
func (w words) is(kinds ...verifierlog.Kind) bool {
	return !w.empty() && slices.Contains(kinds, w.match.Kind)
}

func (w words) arg(name string) string { return w.match.Args[name] }

func attemptWords(a *load.Attempt) words {
	ev := &a.Evidence
	if a.Outcome != load.Failed {
		return noWords()
	}
	switch {
	case strings.TrimSpace(ev.Log) != "":
		w := parseWords(ev.Log)
		w.unproven = ev.LogUnproven
		return w
	case len(ev.Messages) > 0:
		w := parseWords(joinTail(ev.Messages))
		w.kernel = true
		return w
	case len(a.VerifierLog.Lines) > 0:
		w := parseWords(joinTail(a.VerifierLog.Lines))
		w.kernel = a.VerifierLog.Origin == load.LogKernel
		return w
	}
	return noWords()
}

func joinTail(lines []string) string {
	return strings.Join(lines[max(0, len(lines)-200):], "\n")
}

func parseWords(log string) words {
	log = strings.TrimRight(log, "\x00\n ")
	truncated := false
	if len(log) > maxLogTail {
		log, truncated = log[len(log)-maxLogTail:], true
		if i := strings.IndexByte(log, '\n'); i >= 0 {
			log = log[i+1:]
		}
	}
	l := verifierlog.Parse(log, verifierlog.Options{Truncated: truncated})
	w := words{match: l.Match, message: printable(l.Message, 300), insn: l.Insn, insnText: printable(l.Instruction, 160), source: l.Source, report: l.Report, log: l}
	for _, c := range l.Messages {
		if strings.HasPrefix(c, "[… ") {
			continue // a hole in the copy of the log
		}
		if len(w.complaint) < maxComplaint {
			w.complaint = append(w.complaint, printable(c, 300))
		}
	}
	if l.Report != nil && w.empty() {
		w.complaint = append(w.complaint, printable(l.Report.Category+": "+l.Report.Problem, 300))
	}
	if l.Stats != nil {
		w.finished = true
		w.stats = fmt.Sprintf("processed %d insns", l.Stats.Processed)
	}
	if w.message == "" && !w.empty() {
		w.message = w.complaint[0]
	}
	return w
}

// named looks through the whole complaint for something that one of its lines
// names.
func (w words) named(arg string) string {
	if v := w.arg(arg); v != "" {
		return v
	}
	for _, c := range w.complaint {
		if v := verifierlog.Classify(c).Args[arg]; v != "" {
			return v
		}
	}
	return ""
}

// advice is what the note on the complaint says to do, nil where it has none.
func (w words) advice() []load.Remedy {
	n := w.match.Note
	if n.Do == "" {
		return nil
	}
	price := n.Price
	if price == "" {
		price = "A change of the program."
	}
	return []load.Remedy{{ID: "sentence", Title: strings.TrimSuffix(printable(n.Do, 400), "."), Price: price}}
}
