// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"strings"
	"unicode"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
)

// What the logger of a program puts around its message.

// peelJSON reads a record of a logger, or one of docker's json-file.
func peelJSON(l *layered) {
	at := 0
	if l.rest[0] != '{' && l.rest[0] != '[' {
		// zap's console: the message, and JSON behind it.
		at = max(strings.Index(l.rest, "\t{\""), strings.Index(l.rest, " {\""))
		if at++; at == 0 {
			peelField(l)
			return
		}
	}
	n, rest, ok := parseJSON(l.rest[at:])
	if !ok || strings.TrimSpace(strings.TrimRight(rest, ",;")) != "" && at > 0 && !n.ofLogger() {
		return
	}
	if at == 0 && n.kind == '{' && len(n.list) <= 4 && n.list[0].key == "log" && n.list[0].kind == '"' {
		text := n.list[0].text // docker's; it cuts long lines
		l.rest, l.cut = strings.TrimSuffix(text, "\n"), !strings.HasSuffix(text, "\n") && len(text) > 8<<10
		l.Whole = true
		return
	}
	said := n.messages()
	if before := strings.TrimSpace(l.rest[:at]); strings.ContainsFunc(before, unicode.IsLetter) {
		said = chain([]string{before}, said)
	}
	l.rest, l.Whole = strings.Join(said, "\n"), true
}

var jsonField = lazyregexp.New(`^"([\w@.-]+)"\s*:\s*("(?:[^"\\]|\\.)*"?|-?\d+),?$`)

// peelField reads one line of JSON that is spread over several.
func peelField(l *layered) {
	if l.rest[0] != '"' {
		return
	}
	if m := jsonField.FindStringSubmatch(l.rest); m != nil {
		n, _, _ := parseJSON("{" + strings.TrimSuffix(l.rest, ",") + "}")
		l.rest = strings.Join(n.messages(), "\n")
	}
}

var (
	klogLine   = lazyregexp.New(`^[IWEFD]\d{4}(?:\d{4})? \d\d:\d\d:\d\d\.\d+ +\d+ [\w./-]+:\d+\] `)
	klogQuoted = lazyregexp.New(`^"((?:[^"\\]|\\.)*)"(?: [\w.-]+=|$)`)
)

func peelKlog(l *layered) {
	if c := l.rest[0]; c < 'D' || c > 'W' || l.after(klogLine) == nil {
		return
	}
	l.Whole = true
	if m := klogQuoted.FindStringSubmatch(l.rest); m != nil {
		message := unescape(m[1])
		pairs := parsePairs(l.rest[len(m[1])+2:])
		l.rest = strings.Join(chain([]string{message}, pairs.causes()), "\n")
	}
}

var (
	stamp = lazyregexp.New(`^(?:\[?(?:\d{4}[-/]\d\d?[-/]\d\d?[T ] ?\d{1,2}:\d\d(?::\d\d)?(?:[.,]\d{1,9})?(?: ?(?:Z|UTC|GMT|[+-]\d\d:?\d\d)(?: [A-Z]{2,5})?)?|` +
		months + ` +\d{1,2}(?: \d{4})?,? \d\d:\d\d:\d\d(?:[.,]\d+)?|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? [\w ]{2,12}\d\d:\d\d:\d\d(?: \w{2,5})?(?: \d{4})?|\d{1,2}:\d\d:\d\d(?:[.,]\d{1,9})?|\d{1,2}:\d\d[AP]M|1[67]\d{8}(?:\.\d+)?)\]?)(?:[ \t|:-]+|$)`)
	debugLevel = lazyregexp.New(`(?i)\b(?:level|lvl|severity)"?[=:] ?"?(?:debug|trace)\b|(?-i:\b(?:DEBUG|DEBU|DBUG|DBG|TRACE|TRC)\b)(?:\[\d+\])?[\s|\]:]`)
	warnLevel  = lazyregexp.New(`(?i)\b(?:level|lvl|severity)"?[=:] ?"?warn(?:ing)?\b|(?-i:(?:^|[\s|\[])(?:WARN|WARNING|WRN)(?:\[\d+\])?[\s|\]:])`)
	levels     = lazyregexp.New(`^(?:\[ ?(?i:trace|debug|info|information|notice|warn|warning|err|error|erro|fatal|fata|crit|critical|panic|alert|emerg|trce|debu|dbug|dbg|inf|wrn|ftl|pnc|[tdiwefc]) ?\]|(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERR|ERRO|ERROR|FATAL|FATA|CRIT|CRITICAL|PANIC|ALERT|TRC|DBG|INF|WRN|FTL|PNC)(?:\[\d{1,8}\])?(?:[ \t|:-]|$))[ \t|:-]*`)
)

// peelTime takes a time off that stands alone in front.
func peelTime(l *layered) {
	if c := l.rest[0]; c != '[' && (c < '0' || c > '9') && (c < 'A' || c > 'W') {
		return
	}
	if l.after(stamp) != nil {
		l.Whole = true
	}
}

// peelLevel takes the level off that some loggers put in front. bpftrace's ERROR is one, too;
// "Error: " is what iproute2 puts before the kernel's own words.
func peelLevel(l *layered) {
	if c := l.rest[0]; c == '[' || c >= 'A' && c <= 'W' {
		l.after(levels)
	}
}

var (
	goFile     = lazyregexp.New(`^(?:[\w.@/-]+/)?[\w.-]+\.(?:go|rs|py|c|cc|cpp|h|js|ts|java):\d+(?::\d+)?[\]:]?(?:\s+|$)`)
	rustBegin  = lazyregexp.New(`^\[(?:\d{4}-\d\d-\d\dT[\d:.]+Z )?(?:TRACE|DEBUG|INFO|WARN|ERROR) +([\w:-]+)\] `)
	rustModule = lazyregexp.New(`^(?:[a-z]\w*::)+\w+(?:\{[^}]*\})?: `)
	zapName    = lazyregexp.New(`^[\w./-]+\t(?:[\w./@-]+:\d+\t)?`)
	pyLogger   = lazyregexp.New(`^(?:- )?(?:(?:root|__main__):|[a-z_]\w*(?:\.\w+)* - (?:DEBUG|INFO|WARNING|ERROR|CRITICAL) - )`)
	agentLine  = lazyregexp.New(`^[A-Z][A-Z-]+ \| (?:TRACE|DEBUG|INFO|WARN|ERROR|CRITICAL) \| \([^)]*\) \| `)
	process    = lazyregexp.New(`^[a-z][\w./@-]*\[\d+\]: `)
	threadID   = lazyregexp.New(`^\[(?:\d{1,7}|main|[\w.-]*thread[\w.-]*|tid \d+|pid \d+)\] `)
)

// peelRust takes the brackets of env_logger off.
func peelRust(l *layered) {
	if l.rest[0] == '[' && l.after(rustBegin) != nil {
		l.Whole = true
	}
}

// peelPlace takes off where in its code a program logged.
func peelPlace(l *layered) {
	if l.rest[0] == '[' {
		if l.Whole { // by itself it may be the number of a type
			l.after(threadID)
		}
		return
	}
	switch {
	case l.after(process) != nil:
	case l.after(agentLine) != nil:
	case l.after(goFile) != nil:
	case l.Whole && l.after(rustModule) != nil:
	case l.Whole && strings.Contains(l.rest, "\t") && l.after(zapName) != nil:
	case l.Whole:
		l.after(pyLogger)
	}
}
