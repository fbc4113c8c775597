// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
)

// What is shown of a log.
const (
	logLines     = 20
	lineBytes    = 1024
	messageLines = 8
)

// text is a loader's log buffer as far as it was copied.
type text struct {
	s     string // control characters visible, "\n" and tabs kept
	whole bool
}

// readLog joins a log buffer. It ends at its first NUL byte; a hole in it is marked.
func readLog(r *bytesOf) text {
	if r == nil {
		return text{whole: true}
	}
	var b strings.Builder
	at, whole, ended := uint64(0), true, false
	for _, s := range r.segments {
		if s.at > at {
			fmt.Fprintf(&b, "\n[… %d bytes of the log were not copied …]\n", s.at-at)
			whole = false
		}
		at = s.end()
		data := s.data
		if i := bytes.IndexByte(data, 0); i >= 0 {
			data, ended = data[:i], true
		}
		for len(data) > 0 {
			line := data
			if i := bytes.IndexByte(data, '\n'); i >= 0 {
				line = data[:i]
			}
			b.WriteString(visible(string(line)))
			data = data[len(line):]
			if len(data) > 0 {
				b.WriteByte('\n')
				data = data[1:]
			}
		}
		if ended {
			break
		}
	}
	if !ended && at < r.total {
		whole = false
	}
	return text{b.String(), whole}
}

// better reports whether t says more than o: whole before cut, then long before short.
func (t text) better(o text) bool {
	switch {
	case t.s == "" || o.s == "":
		return t.s != ""
	case t.whole != o.whole:
		return t.whole
	}
	return len(t.s) >= len(o.s)
}

// lastLines returns the last n lines that are not blank.
func lastLines(s string, n int) []string {
	var rev []string
	for len(s) > 0 && len(rev) < n {
		s = strings.TrimRight(s, "\n")
		i := strings.LastIndexByte(s, '\n')
		if line := strings.TrimRight(s[i+1:], " \t\r"); line != "" {
			rev = append(rev, clip(line, lineBytes))
		}
		s = s[:i+1]
	}
	lines := make([]string, 0, len(rev))
	for i := len(rev) - 1; i >= 0; i-- {
		lines = append(lines, rev[i])
	}
	return lines
}

// lastMessages joins what the verifier said, which may come in parts of lines, into its last lines.
func lastMessages(parts []string) []string {
	var b strings.Builder
	for i, line := range strings.Split(strings.Join(parts, ""), "\n") {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(visible(line))
	}
	return lastLines(b.String(), messageLines)
}

// verifierLog is what is shown of a log, where there is one to show, and else of what the verifier
// was heard to say.
func verifierLog(log string, f *retryGroup) load.VerifierLog {
	switch {
	case log != "":
		return load.VerifierLog{Origin: load.LogLoader, Lines: lastLines(log, logLines), Truncated: !f.log.whole || f.noSpace}
	case len(f.said) > 0:
		return load.VerifierLog{Origin: load.LogKernel, Lines: f.said}
	}
	return load.VerifierLog{Origin: load.LogNone}
}

// logVerdict is what a log's end says of the verifier.
type logVerdict int

const (
	logSilent   logVerdict = iota
	logAccepted            // statistics, and no complaint above them
	logRefused
)

// stateLine recognises what is not a complaint: instructions, registers ("R1_w=…", whereas "R1
// !read_ok" complains), source, the tracking of precision, statistics.
var stateLine = lazyregexp.New(`^\s*(processed |verification time |stack depth |insns processed|;|from \d+ to \d+|\d+: |` +
	`R\d+(_[a-z]+)?[=:]|frame\d+:|last_idx |regs=|mark_precise:|parent |propagating |[Ff]unc#\d|Live regs|Validating |` +
	`caller:|callee:|to caller|returning from callee:|safe$|\[… |arg#\d+ reference type|max_states)`)

// statistics are the lines that follow a verdict. "insns processed" is new in 7.2.
var statistics = lazyregexp.New(`^(processed |verification time |stack depth |insns processed )`)

// judge reads the end of a log.
func judge(lines []string) logVerdict {
	accepted := false
	for i := len(lines) - 1; i >= 0; i-- {
		switch line := lines[i]; {
		case strings.HasPrefix(line, "processed "):
			accepted = true
		case !stateLine.MatchString(line):
			return logRefused
		case accepted && !statistics.MatchString(line):
			return logAccepted // the last line above the statistics is ordinary
		}
	}
	if accepted {
		return logAccepted
	}
	return logSilent
}
