// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
)

// Failures that do no harm: a program went on in another way and succeeded, asked again and was
// answered, or was a test that wanted to fail.

var (
	fallBack = lazyregexp.New(`(?i)\bf[ae]ll(?:ing|s)? back (?:to|on)\b|\bre-?try(?:ing)?\b|\btrying (?:again|once more|another|without|with|the (?:next|other|old|legacy)|legacy)\b|\btry again (?:in|with|without)\b|` +
		`\busing \S.* instead\b|\bwill (?:use|try|retry)\b|\battempt \d`)
	fallsNot = lazyregexp.New(`(?i)\b(?:cannot|could not|unable|refus\w*|no|not|without|disabled?|after|giv\w+ up|exhausted|out of|max\w*|too many) (?:\w+ )?(?:to )?(?:f[ae]ll|re-?tr|attempt)|\bretr(?:y|ies) (?:failed|exhausted)|\bfail\w* to f[ae]ll`)
	success  = lazyregexp.New(`(?i)^success\b|\bsuccessfully\b|\bsucceeded\b|\b(?:loaded|attached|created)\b|\battempt \d+: (?:ok|success)`)
	denied   = lazyregexp.New(`(?i)\b(?:not|never|cannot|n't|no|only|partially|0) (?:be |been |yet )?(?:successfully |\w+ )?(?:loaded|attached|created|succeed\w*)\b|\bif\b`)
)

// outcome is what the lines of one writer tell of how things ended.
type outcome struct {
	source string
	// fell is the last line that tells of another way, -1 for none, and without are the failures
	// after which it was taken.
	fell    int
	without []*group
	// runs are the tests that began, by name; border is where the last test began or ended.
	runs   map[string]int
	border int
}

func newOutcome() outcome { return outcome{fell: -1, runs: map[string]int{}} }

// ended looks at a line for how what failed before it ended.
func (s *splitter) ended(i int) {
	text := s.lines[i].Text
	if s.outcome.source != s.lines[i].Source {
		s.outcome.source, s.outcome.fell, s.outcome.without = s.lines[i].Source, -1, nil
	}
	s.fellBack(i, text)
	s.tested(i, text)
	s.runsAlone(i, text)
	s.calledAgain(i, text)
}

// fellBack notes that a program went on in another way, and forgets the failures before that if it
// then succeeded.
func (s *splitter) fellBack(i int, text string) {
	o := &s.outcome
	switch {
	case o.fell < 0 && !anotherWay(text):
	case o.fell >= 0 && success.MatchString(text) && matter([]byte(text)).topic && !failureWord.MatchString(text) && !denied.MatchString(text):
		for _, g := range o.without {
			g.spared = g.spared || g.last <= o.fell
		}
		o.fell, o.without = -1, nil
	case s.fallsBack(i):
		o.fell, o.without = i, append(o.without, s.current)
		for _, g := range s.groups {
			if g.source == o.source && i-g.last <= nearFailure && strings.Contains(text, "back ") {
				o.without = append(o.without, g) // all of what the first way was
			}
		}
	}
}

// runs tells that an XDP program is on a device, by its id.
var runsNow = lazyregexp.New(`(?i)\b(?:started|attached|loaded|running|installed|active)\b.*\bprog(?:ram)?[ _]?id:? \d+`)

// runsAlone forgets the failures of libxdp's dispatcher if the program then runs: libxdp attaches
// it alone in that case.
func (s *splitter) runsAlone(i int, text string) {
	if !strings.Contains(text, "id") || !runsNow.MatchString(text) || failureWord.MatchString(text) || denied.MatchString(text) {
		return
	}
	for _, g := range s.groups {
		if program, _, _ := g.names(); g.source == s.lines[i].Source && program == "xdp_dispatcher" {
			g.spared = true
		}
	}
	s.current = nil
}

// anotherWay is a first look for the words of fallBack.
func anotherWay(text string) bool {
	return slices.ContainsFunc([]string{"back ", "etry", "e-try", "rying", "try again", "instead", "will ", "ttempt"}, func(w string) bool { return strings.Contains(text, w) })
}

// fallsBack reports whether a line says that the program goes on in another way after the failure
// before the line, or the one that the line itself tells of.
func (s *splitter) fallsBack(i int) bool {
	text := s.lines[i].Text
	if s.current == nil || i-s.current.last > nearFailure || !fallBack.MatchString(text) {
		return false
	}
	return !failureWord.MatchString(text) || s.current.last == i && !fallsNot.MatchString(text)
}

// What runs tests prints when one begins, passes, or fails: go test, cargo, pytest, googletest,
// TAP, and the kernel's own for BPF.
var (
	testBegins = lazyregexp.New(`^=== (?:RUN|CONT|NAME) +(\S+)|^\[ RUN +\] (\S+)`)
	testPasses = lazyregexp.New(`^--- PASS: (\S+)|^\[ +OK \] (\S+)|^test (\S+) \.\.\. ok$|^#\d+(?:/\d+)? +(\S+):OK$|^ok \d+ - (\S+)|^(\S+::\S+) PASSED\b`)
	testFails  = lazyregexp.New(`^--- (?:FAIL|SKIP): \S+|^\[ +FAILED \] |^test \S+ \.\.\. FAILED|^#\d+(?:/\d+)? +\S+:FAIL$|^not ok \d+|^\S+::\S+ FAILED\b|^ok +\S+\s|^(?:PASS|FAIL)$`)
)

// tested forgets what failed inside of a test that passed: it was meant to.
func (s *splitter) tested(i int, text string) {
	o := &s.outcome
	if text == "" || !strings.ContainsAny(text[:1], "=-[t#onPF") && !strings.Contains(text, " PASSED") {
		return
	}
	named := func(m []string) (name string) {
		for _, g := range m[1:] {
			name += g
		}
		return name
	}
	if m := testBegins.FindStringSubmatch(text); m != nil {
		if len(o.runs) < maxGroups {
			o.runs[named(m)] = i
		}
		o.border = i
	} else if m := testPasses.FindStringSubmatch(text); m != nil {
		from, ok := o.runs[named(m)]
		if !ok {
			from = o.border
		}
		for _, g := range s.groups {
			g.meant = g.meant || g.source == s.lines[i].Source && g.first >= from
		}
		o.border = i
	} else if testFails.MatchString(text) {
		o.border = i
	}
}

// straceCall is a call as strace prints it: its command, its attributes, and what it returned.
var (
	straceCall = lazyregexp.New(`\bbpf\((BPF_\w+), \{?(.*?)\}?(?:, \d+)?\)\s*= (-1 E\w+|\d+)`)
	straceSame = lazyregexp.New(`\b(?:prog_type|insn_cnt|map_type|key_size|value_size|max_entries|btf_size|attach_type|target_fd|prog_name|map_name)=[^,}]*`)
)

const nearCall = 16 // lines between a call and the one that does the same

// calledAgain forgets a call in strace's output that was made again in another form, and worked.
func (s *splitter) calledAgain(i int, text string) {
	if !strings.Contains(text, "bpf(BPF_") {
		return
	}
	again := straceCall.FindStringSubmatch(text)
	if again == nil || strings.HasPrefix(again[3], "-1") {
		return
	}
	for _, g := range slices.Backward(s.groups) {
		if i-g.first > nearCall {
			return
		}
		call := straceCall.FindStringSubmatch(s.lines[g.first].Text)
		if g.source == s.lines[i].Source && call != nil && strings.HasPrefix(call[3], "-1") && call[1] == again[1] && sameRequest(call[2], again[2]) {
			g.spared = true
			s.current = nil
		}
	}
}

// sameRequest reports whether two calls ask for the same: what both name is equal, but for a name,
// which an old kernel does not take.
func sameRequest(a, b string) bool {
	fields := func(attributes string) map[string]string {
		all := map[string]string{}
		for _, f := range straceSame.Compiled().FindAllString(attributes, 16) {
			key, value, _ := strings.Cut(f, "=")
			all[key] = value
		}
		return all
	}
	one, two := fields(a), fields(b)
	if len(one) == 0 {
		return false
	}
	for key, value := range one {
		if other, ok := two[key]; ok && other != value && !strings.HasSuffix(key, "_name") {
			return false
		}
	}
	return true
}

// loaded is what loaders print in front of the log of a program that was loaded.
var loaded = lazyregexp.New(`(?i)\bloaded (?:the )?(?:e?bpf )?prog(?:ram)?\b[^:]*(?::|$)`)

// loadedLog reports a log that complains of nothing, of a program that was loaded by the words in
// front of it.
func (s *splitter) loadedLog(c clue) bool {
	if len(c.log) == 0 || c.errno != (Errno{}) || slices.ContainsFunc(c.log, func(l string) bool { return known(l) || failureWord.MatchString(l) }) {
		return false
	}
	for i := c.at; i >= max(0, c.at-1); i-- {
		l := s.lines[i]
		if l.Source == c.source && loaded.MatchString(l.Text) && !failureWord.MatchString(l.Text) && !denied.MatchString(l.Text) {
			return true
		}
	}
	return false
}
