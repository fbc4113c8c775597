// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"regexp"
	"strings"
	"unicode"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
)

// Line is a line of text without what a logger, a terminal or a page put around it.
type Line struct {
	Text string
	// Source tells the lines of several writers apart: a service, a container, a process. It is
	// empty for a text of one writer.
	Source string
	// Kernel marks a line of the kernel's log.
	Kernel bool
	// Whole marks a record of a logger: what it tells is complete.
	Whole bool
	// Debug marks what its writer takes for details that only developers look at.
	Debug bool
	// Gap says that lines were left out in front of this one, and Lost that they mattered.
	Gap, Lost bool
}

// Bounds of one line.
const (
	maxLayers = 12   // what is around a line, one thing in the other
	maxParts  = 4096 // lines in one record
)

// Unwrap takes off what is around each line: prefixes of loggers and of what collects logs,
// colours, quotes of a page, JSON. A record with several lines becomes several. Nothing of what is
// taken off is in a Line, but the lines of each writer have the same Source.
func Unwrap(lines []string) []Line {
	u := unwrapper{}
	for _, l := range lines {
		u.add(l)
	}
	u.flush()
	return u.out
}

type unwrapper struct {
	out     []Line
	partial string // of a record that its collector cut
	from    Line
}

// layered is a line on its way: what is left of it, and what was learnt.
type layered struct {
	Line
	rest string
	cut  bool // its collector goes on with it in the next line
}

func (u *unwrapper) add(raw string) {
	if raw == gap || raw == lost {
		u.flush()
		u.out = append(u.out, Line{Gap: true, Lost: raw == lost})
		return
	}
	l := peel(layered{rest: raw})
	l.Debug = debugLevel.MatchString(raw[:min(len(raw), 256)])
	if u.partial != "" || l.cut {
		u.partial += l.rest
		u.from = l.Line
		if !l.cut || len(u.partial) > maxLine {
			u.flush()
		}
		return
	}
	u.put(l)
}

func (u *unwrapper) flush() {
	if u.partial != "" {
		l := peel(layered{Line: u.from, rest: u.partial})
		u.partial = ""
		u.put(l)
	}
}

// put appends a line that was peeled, or its lines.
func (u *unwrapper) put(l layered) {
	l.rest = escapedLines(l.rest)
	if !strings.ContainsRune(l.rest, '\n') {
		l.Text = tidy(l.rest)
		u.out = append(u.out, l.Line)
		return
	}
	parts := strings.SplitN(l.rest, "\n", maxParts)
	for i, part := range parts {
		inner := layered{Line: l.Line, rest: part}
		if strings.TrimSpace(part) != "" && i < maxParts-1 {
			inner = peel(inner)
		}
		for text := range strings.SplitSeq(inner.rest, "\n") {
			inner.Text = tidy(text)
			u.out = append(u.out, inner.Line)
		}
	}
}

// escapedLines undoes the escapes of loggers that put all of a text on one line.
func escapedLines(s string) string {
	if !strings.Contains(s, `\n`) || strings.Contains(s, "printf(") {
		return s
	}
	return strings.NewReplacer(`\n"`, `"`, `\n\"`, `"`, `\n`, "\n", `\t`, "\t", `\"`, `"`, `\r`, "", `\\`, `\`).Replace(s)
}

// tidy takes blanks and quotes off both ends of a line.
func tidy(s string) string {
	s = strings.TrimSpace(s)
	for _, q := range []string{`"`, "'", "`"} {
		if len(s) >= 2 && strings.HasPrefix(s, q) && strings.HasSuffix(s, q) && strings.Count(s, q) == 2 {
			s = strings.TrimSpace(s[1 : len(s)-1])
		}
	}
	return s
}

// peel takes layers off until none is left.
func peel(l layered) layered {
	for range maxLayers {
		l.rest = strings.TrimLeft(plainText(l.rest), " \t")
		before := l.rest
		for _, p := range peelers {
			if l.rest != "" && !l.cut {
				p(&l)
			}
		}
		if l.rest == before || l.cut {
			break
		}
	}
	return l
}

var (
	colours  = lazyregexp.New("\x1b\\[[0-9;:?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|\x1b[@-Z\\\\-_]|\\^\\[\\[[0-9;]*m|\\[(?:\\d{1,2};){0,3}\\d{1,2}m|(?:\\\\x1b|\\\\033|\\\\u001b|\\\\e)\\[[0-9;]*m|#033\\[[0-9;]*m")
	entities = strings.NewReplacer("&gt;", ">", "&lt;", "<", "&quot;", `"`, "&#34;", `"`, "&#39;", "'", "&#x27;", "'", "&nbsp;", " ", "&amp;", "&")
	spaces   = strings.NewReplacer("\u00a0", " ", "\u2018", "'", "\u2019", "'", "\u201c", `"`, "\u201d", `"`, "\ufeff", "", "\r", "", "\x00", "", "\u200b", "")
)

// plainText takes off colours and what a page puts in the place of plain characters.
func plainText(s string) string {
	if strings.ContainsAny(s, "\x1b^\\#") || strings.Contains(s, "0m") {
		s = colours.Compiled().ReplaceAllString(s, "")
	}
	if strings.ContainsRune(s, '&') {
		s = entities.Replace(s)
	}
	return strings.TrimRight(spaces.Replace(s), " \t")
}

// peelers take one layer each. The order is that in which layers lie in each other as a rule.
var peelers = []func(*layered){
	peelQuote, peelCRI, peelJSON, peelService, peelPod, peelKernelLog, peelJournal, peelSyslog5424, peelKlog, peelRust, peelTime, peelLevel, peelPlace, peelPairs, peelEvent, peelYAML,
}

// after takes the match of an expression at the start of the line off, and returns its groups.
func (l *layered) after(r *lazyregexp.Regexp) []string {
	m := r.FindStringSubmatch(l.rest)
	if m == nil || !strings.HasPrefix(l.rest, m[0]) {
		return nil
	}
	l.rest = l.rest[len(m[0]):]
	return m
}

// from notes who wrote a line.
func (l *layered) from(source string) {
	if source != "" && !strings.Contains(l.Source, source) {
		l.Source += source + " "
	}
}

var (
	quoteMark = lazyregexp.New(`^(?:> ?|[│┃] ?)+`)
	fence     = lazyregexp.New("^(?:```+|~~~+)[\\w-]*$")
	bullet    = lazyregexp.New(`^[*•·-] +`)
	tagMark   = lazyregexp.New(`^</?(?:pre|code|p|br|details|summary|div|span|b)\b[^>]*>`)
)

// peelQuote takes off what mail and pages put in front of a line.
func peelQuote(l *layered) {
	switch c := l.rest[0]; {
	case c == '>' && !strings.HasPrefix(l.rest, ">>> "): // the verifier's report has those
		l.after(quoteMark)
	case (c == '`' || c == '~') && fence.MatchString(l.rest):
		l.rest = ""
	case c == '`' && len(l.rest) > 2 && strings.HasSuffix(l.rest, "`") && strings.Count(l.rest, "`") == 2:
		l.rest = l.rest[1 : len(l.rest)-1]
	case c == '*' || c == '-':
		l.after(bullet)
	case c >= 0x80:
		if l.after(quoteMark) == nil {
			l.after(bullet)
		}
	case c == '<':
		l.after(tagMark)
	}
}

var criLine = lazyregexp.New(`^\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d) (?:stdout|stderr) ([FP]) `)

func peelCRI(l *layered) {
	if c := l.rest[0]; c < '0' || c > '9' {
		return
	}
	if m := l.after(criLine); m != nil {
		l.Whole, l.cut = true, m[1] == "P"
	}
}

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
	serviceName = lazyregexp.New(`^([A-Za-z][\w.-]{0,62}) +\| `)
	podName     = lazyregexp.New(`^\[(?:pod/)?([\w.-]+/[\w.-]+|pod/[\w.-]+)\] `)
	// The letters of a generated name: no vowels, no digits that look like one.
	sternName = lazyregexp.New(`^((?:[a-z0-9-]+ )?[a-z][a-z0-9.-]*-[bcdfghjklmnpqrstvwxz2456789]{5}|[a-z][a-z0-9.-]*-\d{1,3}(?: ›))(?: ›)? ([a-z][a-z0-9-]*)(?: \|| ›)? `)
)

// peelService takes docker compose's prefix off.
func peelService(l *layered) {
	if !letter(l.rest[0]) || !strings.Contains(l.rest, "| ") {
		return
	}
	if m := l.after(serviceName); m != nil {
		l.from(m[1])
	}
}

// peelPod takes the prefix of kubectl logs --prefix, and of stern.
func peelPod(l *layered) {
	if l.rest[0] == '[' {
		if m := l.after(podName); m != nil {
			l.from(m[1])
		}
		return
	}
	if c := l.rest[0]; c < 'a' || c > 'z' || !strings.ContainsRune(l.rest, '-') {
		return
	}
	if m := l.after(sternName); m != nil {
		l.from(m[1] + "/" + m[2])
	}
}

var (
	kernelLog  = lazyregexp.New(`^(?:\w+ *: *\w+ *: *)?(?:<\d{1,3}>)?\[ *\d{1,9}\.\d{1,9}\](?:\[ *[TC]\d+\])? ?`)
	kernelDate = lazyregexp.New(`^\[(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d+ [\d:]+ \d{4}\] ?`)
	hostAndTag = lazyregexp.New(`^[\w.-]+ ([\w./@-]+)(?:\[\d+\]: |: )`)
)

// peelKernelLog takes dmesg's time off. journalctl -o short-monotonic looks alike, and goes on with
// a host and a process.
func peelKernelLog(l *layered) {
	if !strings.Contains(l.rest, "[") {
		return
	}
	if l.after(kernelLog) == nil && l.after(kernelDate) == nil {
		return
	}
	l.Kernel, l.Whole = true, true
	if m := hostAndTag.FindStringSubmatch(l.rest); m != nil && (m[1] == "kernel" || strings.HasSuffix(m[0], "]: ")) {
		l.after(hostAndTag)
		if m[1] != "kernel" {
			l.Kernel = false
			l.from(m[1])
		}
	}
}

const months = `(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)`

var (
	journalLine = lazyregexp.New(`^(?:<\d{1,3}>)?(?:[A-Z]\p{L}{2,4}\.? +\d{1,2} \d\d:\d\d:\d\d(?:\.\d+)?|` + months + ` +\d{1,2}|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?) (?:[\w.:<>-]+ )?([\w./@-]+)(\[\d+\]|)(?: \S+)?: `)
	rfc5424     = lazyregexp.New(`^<\d{1,3}>1 \S+ \S+ (\S+) (\S+) \S+ (?:-|\[.*?\]) ?`)
)

// peelJournal takes the prefix of syslog and of the journal off.
func peelJournal(l *layered) {
	m := journalLine.FindStringSubmatch(l.rest)
	if m == nil {
		return
	}
	// A date and a level, as other loggers have them, are no host and process.
	if m[2] == "" && m[1] != "kernel" && (levels.MatchString(m[1]+": ") || !strings.Contains(m[0], " "+m[1]+": ") || isDate(l.rest) && !strings.HasSuffix(m[0], "kernel: ")) {
		return
	}
	l.rest = l.rest[len(m[0]):]
	l.Whole = true
	if m[1] == "kernel" {
		l.Kernel = true
		return
	}
	l.from(m[1] + m[2])
}

func isDate(s string) bool { return len(s) > 4 && s[0] >= '0' && s[0] <= '9' }

func peelSyslog5424(l *layered) {
	if l.rest[0] == '<' {
		if m := l.after(rfc5424); m != nil {
			l.from(m[1] + "[" + m[2] + "]")
		}
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

var (
	// What kubectl describe prints of an event: type, reason, age, and who says it.
	eventLine = lazyregexp.New(`^(?:Warning|Normal) {1,}\w+ {1,}(?:<unknown>|\d+[smhd]\w*(?: ago)?)?(?: \(x\d+ over \w+\))? *(?:[\w-]+(?:, \S+)?|\S+) {2,}`)
	yamlField = lazyregexp.New(`^(?:- )?(?:message|reason|error|msg|stderr|log|exception): +(?:[|>]-?|"|')?`)
)

func peelEvent(l *layered) {
	if c := l.rest[0]; c == 'W' || c == 'N' {
		l.after(eventLine)
	}
}

// peelYAML takes a key off.
func peelYAML(l *layered) {
	if c := l.rest[0]; c == '-' || c >= 'a' && c <= 's' {
		if m := yamlField.FindStringSubmatch(l.rest); m != nil && !strings.HasPrefix(m[0], "error: ") {
			quote := m[0][len(m[0])-1]
			l.after(yamlField)
			if quote == '\'' || quote == '"' {
				l.rest = strings.TrimSuffix(l.rest, string(quote))
			}
		}
	}
}

// pair is a key and its value, as logfmt writes them.
type pair struct{ key, value string }

type pairs []pair

var pairStart = regexp.MustCompile(`(?:^|[\s,])([A-Za-z_@][\w.@/-]*)=`)

// parsePairs reads "key=value key="a value"". A value without quotes goes on to the next key.
func parsePairs(s string) (all pairs) {
	for s != "" && len(all) < 64 {
		m := pairStart.FindStringSubmatchIndex(s)
		if m == nil {
			return all
		}
		key := s[m[2]:m[3]]
		s = s[m[1]:]
		if s != "" && (s[0] == '"' || s[0] == '\'') {
			r := jsonReader{s: s}
			value, _ := r.str()
			all, s = append(all, pair{key, value}), r.s
			continue
		}
		end := len(s)
		if next := pairStart.FindStringIndex(s); next != nil {
			end = next[0]
		}
		all, s = append(all, pair{key, strings.TrimRight(s[:end], " ,")}), s[end:]
	}
	return all
}

// node is the object that the pairs would be in JSON.
func (p pairs) node() node {
	n := node{kind: '{'}
	for _, e := range p {
		kind := byte('"')
		if strings.Trim(e.value, "-0123456789") == "" {
			kind = '0'
		}
		n.list = append(n.list, node{key: e.key, kind: kind, text: e.value})
	}
	return n
}

func (p pairs) has(keys ...string) bool {
	for _, e := range p {
		for _, k := range keys {
			if strings.EqualFold(e.key, k) {
				return true
			}
		}
	}
	return false
}

// causes are what pairs behind a message say of its reason.
func (p pairs) causes() []string { return p.node().messages() }

// peelPairs reads logfmt, and pairs behind a message.
func peelPairs(l *layered) {
	at := pairStart.FindStringIndex(l.rest)
	if at == nil || strings.Contains(l.rest, "msg=audit(") {
		return
	}
	p := parsePairs(l.rest[at[0]:])
	before := strings.TrimSpace(l.rest[:at[0]])
	switch {
	case before == "" && p.has("msg", "message", "err", "error") && p.has("level", "lvl", "time", "ts", "t", "severity", "caller", "logger", "lvl", "component", "source"):
		l.rest = strings.Join(p.node().messages(), "\n")
	case before != "" && strings.ContainsRune(before, ' ') && p.has("err", "error", "reason", "cause") && strings.ContainsAny(l.rest[at[0]:], `"'`):
		l.rest = strings.Join(chain([]string{before}, p.causes()), "\n")
	default:
		return
	}
	l.Whole = true
}
