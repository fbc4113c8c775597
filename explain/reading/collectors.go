// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
)

// What collectors of logs put in front of a line: container runtimes, the kernel, the journal.

var criLine = lazyregexp.New(`^\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d) (?:stdout|stderr) ([FP]) `)

func peelCRI(l *layered) {
	if c := l.rest[0]; c < '0' || c > '9' {
		return
	}
	if m := l.after(criLine); m != nil {
		l.Whole, l.cut = true, m[1] == "P"
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
