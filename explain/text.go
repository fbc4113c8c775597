// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/explain/reading"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// maxFindings is how many diagnoses a text gets. Those of the failures at its end come before
// earlier ones.
const maxFindings = 8

// Text explains error text as cilium/ebpf, libbpf, bpftrace, container runtimes, systemd or the
// kernel's log print it. It returns one diagnosis for each failure that it recognises, or else what
// messages that are mere noise mean, and nil for a text in which it finds nothing about BPF. Text
// alone seldom proves a cause: the alternatives matter.
func Text(s string) []load.Diagnosis { return explainLines(reading.Split(s)) }

// TextFrom is Text for what comes from a reader, of any length.
func TextFrom(r io.Reader) ([]load.Diagnosis, error) {
	lines, err := reading.Lines(r)
	if err != nil {
		return nil, err
	}
	return explainLines(lines), nil
}

func explainLines(lines []string) []load.Diagnosis {
	read := reading.Read(lines, wordOf)
	var out []load.Diagnosis
	for _, f := range read.Failures[max(0, len(read.Failures)-maxFindings):] {
		out = tell(out, explainFailure(&f, read.Node))
	}
	for _, f := range read.Spared[max(0, len(read.Spared)-maxFindings):] {
		out = tell(out, explainSpared(&f, read.Node))
	}
	if d := explainIdleLSM(read); len(out) == 0 && d != nil {
		out = append(out, *d)
	}
	if len(read.Failures) == 0 { // beside a failure it only distracts
		out = append(out, explainNoise(slices.Concat(read.Noise, read.Tolerated), read.Node)...)
	}
	return out[:min(len(out), maxFindings)]
}

// ofTheNode are rules that hold for a node, whatever failed on it: one answer is enough.
var ofTheNode = []string{"BTF003", "PERM003", "JIT001", "ATT103"}

// maxQuoted is how many lines of a cause that is told again are quoted.
const maxQuoted = 8

// tell adds a diagnosis, unless one of them says the same already.
func tell(out []load.Diagnosis, d load.Diagnosis) []load.Diagnosis {
	i := slices.IndexFunc(out, func(o load.Diagnosis) bool {
		switch {
		case o.Rule != d.Rule || o.Title != d.Title:
			return false
		case slices.Contains(ofTheNode, d.Rule):
			return true
		}
		return o.Cause == d.Cause && slices.Equal(o.Alternatives, d.Alternatives)
	})
	if i < 0 {
		return append(out, d)
	}
	all := once(append(slices.Clone(out[i].Evidence), d.Evidence...))
	out[i].Evidence = all[:min(len(all), max(maxQuoted, len(out[i].Evidence)))]
	return out
}

// explainNoise says of each kind of noise once that it is none of the failures.
func explainNoise(lines []string, k reading.Node) (out []load.Diagnosis) {
	known := named(k)
	for _, w := range loaderWords {
		if w.tells != reading.Harmless || w.fits != nil && !w.fits(known) {
			continue
		}
		i := lastOf(lines, w)
		if i < 0 || w.rule == "" && !w.alone {
			continue
		}
		d := load.Diagnosis{Rule: Unknown, Title: "Nothing of BPF was refused here", Cause: w.means, HowKnown: load.Inferred,
			Evidence: []string{(&pasted{}).quoteLine(lines[i])}}
		if r, ok := ByID(w.rule); ok {
			d.Rule, d.Title, d.Remedies = r.ID, r.Title, r.Remedies
			d.Cause += " This message is noise."
		}
		out = append(out, d)
	}
	return out
}

// lastOf is the place of the last line with the word: it tells most, -1 for none.
func lastOf(lines []string, w loaderWord) int {
	for i, l := range slices.Backward(lines) {
		if w.in(l) {
			return i
		}
	}
	return -1
}

// OwnError is the diagnosis of an error of this process, nil if the error tells of nothing about
// BPF. What the process knows besides, such as its program, its capabilities and the errno, is in
// an attempt and a profile. Its kind may be empty: then the error says what was attempted.
func OwnError(text string, known *load.Attempt, n *node.Profile) *load.Diagnosis {
	read := reading.Read(reading.Split(text), wordOf)
	failure := reading.Failure{Attempt: &load.Attempt{Kind: known.Kind}, Sure: true, Times: 1, Line: text, Lines: []string{text}}
	switch {
	case len(read.Failures) > 0:
		failure = read.Failures[0]
	case known.Kind == "":
		return nil
	}
	a := *known
	a.Kind, a.Outcome = cmp.Or(known.Kind, failure.Attempt.Kind), load.Failed
	a.Attach, a.Map = failure.Attempt.Attach, failure.Attempt.Map
	if known.Errno != 0 {
		failure.Errno, failure.Sure = reading.Errno{Number: known.Errno}, true
	}
	a.Errno = failure.Errno.Number
	failure.Attempt = &a
	f := newFacts(&a, n)
	f.text = &pasted{own: true}
	if !f.words.said() {
		f.words = textWords(&failure)
	}
	f.quoteText(&failure)
	if f.kernelKnown {
		f.text.lines = append(f.text.lines, fmt.Sprintf("the kernel is %s; the capabilities and settings of this process were looked at", printable(f.Node.Release, 80)))
	}
	return f.explain(&failure)
}

// explainFailure is the diagnosis of a failure that a text tells of.
func explainFailure(read *reading.Failure, k reading.Node) load.Diagnosis {
	return *textFacts(read, k).explain(read)
}

// explainSpared is the diagnosis of a failure that did no harm.
func explainSpared(read *reading.Failure, k reading.Node) load.Diagnosis {
	d := explainFailure(read, k)
	if read.Meant {
		return load.Diagnosis{Rule: Unknown, Title: "A test wanted this to fail, and passed", HowKnown: load.Inferred, Evidence: d.Evidence,
			Cause: fmt.Sprintf("Nothing is to be mended: %s failed inside of a test that passed.", describeAttempt(read))}
	}
	d.Cause = "In the end it worked: after this failure the program went on in another way. " + d.Cause
	if d.Rule == Unknown {
		d.Title, d.Alternatives, d.Remedies = "A failure that did no harm", nil, nil
		d.Cause = fmt.Sprintf("In the end it worked: %s failed, and the program went on in another way.", describeAttempt(read))
	}
	return d
}

func (f *Facts) explain(read *reading.Failure) *load.Diagnosis {
	found := textMatches(f, read)
	d, _ := f.decide(found)
	if d.Rule == Unknown {
		f.sayUnknown(d, read, len(found))
	} else if f.words.empty() {
		f.sayAlso(d, read)
	}
	d.Remedies = append(d.Remedies, watchLoader)
	return d
}

// textFacts are the facts of an attempt of which nothing is known but what a text says.
func textFacts(read *reading.Failure, k reading.Node) *Facts {
	a := read.Attempt
	if read.Errno.Either && (a.Kind == load.ProgLoad || a.Kind == load.Seccomp || a.Kind == load.SocketFilter) {
		a.Errno = abi.ENOTSUPP // loads are not refused with the other one
	}
	a.Evidence = load.Evidence{FailedInsn: -1, UserNSLevel: -1, SeccompMode: -1, Harden: -1, EnterSeen: true}
	f := &Facts{Attempt: a, Node: named(k), ev: &a.Evidence, words: textWords(read), text: &pasted{}, call: read.Call}
	if !f.Node.Backports() {
		f.kernel, f.kernelKnown = f.Node.Kernel()
	}
	f.Node.Lockdown = cmp.Or(lockdownIn(read.Lines), k.Lockdown)
	f.text.node = k
	if k.Memlock > 0 {
		a.Evidence.LimitsKnown, a.Evidence.MemlockLimit = true, k.Memlock
	}
	f.quoteText(read)
	if f.kernelKnown {
		f.text.lines = append(f.text.lines, strings.TrimSpace("the text names the kernel "+printable(k.Release, 80)+" "+k.Machine))
	}
	return f
}

// quoteText adds what the text says to the evidence, and to what the rules hear.
func (f *Facts) quoteText(read *reading.Failure) {
	if line := printable(strings.TrimSpace(read.Line), 300); line != f.words.message {
		f.text.lines = append(f.text.lines, f.text.quoteLine(read.Line))
	}
	f.hearLoader(read)
	f.narrow()
	switch {
	case read.Errno.Nameless:
		f.text.lines = append(f.text.lines, "\"No error information\" is what the C library musl prints for an errno that it does not know. ENOTSUPP (524) is the one that these calls end with; strace shows the number")
	case read.Errno.Either && read.Errno.Number == 0:
		f.text.lines = append(f.text.lines, "these words are a Go library's: it has them for EOPNOTSUPP (95), for ENOTSUPP (524), and for what it found to be missing by itself")
	case read.Errno.Either:
		f.text.lines = append(f.text.lines, "these words stand for EOPNOTSUPP (95), and in Go programs for ENOTSUPP (524) as well")
	}
	if read.Times > 1 {
		f.text.lines = append(f.text.lines, "the text tells of it more than once")
	}
}

// hearLoader lets the rules of attaching hear what the loader says beside the kernel.
func (f *Facts) hearLoader(read *reading.Failure) {
	if !f.afterLoad() {
		return
	}
	at := f.attach()
	f.text.kernel = at.Message
	if at.Message != "" && !strings.Contains(read.Line, at.Message) {
		f.text.lines = append(f.text.lines, "the kernel says: "+printable(at.Message, 300))
	}
	at.Message = strings.Join(append([]string{at.Message}, read.Lines...), "\n")
	f.Attempt.Attach = &at
}

// narrow takes a program for one that is attached by a trampoline where the words and the errno
// leave nothing else: libbpf has the same words for these and for kprobe.multi, whose errnos are
// others.
func (f *Facts) narrow() {
	at := f.attach()
	if f.kind() == load.RawTPOpen && f.errno() == abi.ENOENT && f.target().Kind == "function" && f.attached().Type == "" {
		t := f.target() // no trampoline answers so
		t.Kind = "raw_tracepoint"
		at.Target, at.Program = &t, nil
		f.Attempt.Attach = &at
		return
	}
	byTrampoline := slices.Contains([]int{abi.EBUSY, abi.ENOTSUPP, abi.EOPNOTSUPP}, f.errno()) && f.kind() == load.LinkCreate
	if f.target().Kind != "function" || f.attached().Type != "" || !byTrampoline {
		return
	}
	p := f.attached()
	p.Type = "tracing"
	at.Program = &p
	f.Attempt.Attach = &at
}

// textWords are the verifier's words in a text.
func textWords(read *reading.Failure) words {
	if read.Log == "" {
		return noWords()
	}
	w := parseWords(read.Log)
	if w.clean() && read.Errno.Number == abi.EPERM {
		return noWords() // no verifier accepts what is not permitted: the log is another program's
	}
	if w.match.Remark && read.Errno.Number != 0 {
		return noWords() // the complaint itself is not in the text
	}
	if read.Sentence {
		w.complaint = []string{w.message}
	}
	if w.match.Kind == verifierlog.Unknown && w.report == nil && !unheardOf(w) {
		w.complaint, w.message = nil, ""
	}
	return w
}

// unheardOf reports whether what stands where the verifier complains may be a sentence of it that
// nobody knows. In a text, loaders' lines and marks of what was left out stand there too.
func unheardOf(w words) bool {
	_, names := reading.ErrnoOf(w.message)
	return len(w.log.Path) > 0 && !names && threeLetters.MatchString(w.message)
}

var threeLetters = lazyregexp.New(`[A-Za-z]{3}`)

// textMatches are what the rules and the signatures find, strongest first.
func textMatches(f *Facts, read *reading.Failure) []finding {
	found := matches(f)
	if f.call != "" {
		found = f.tabled(nil) // the rules are about attempts
	}
	if w, own := meaningOf(read.Lines); own && w.unasked && !f.words.said() {
		return f.signed(nil, read.Lines) // the errno is the library's
	}
	for _, other := range f.otherErrnos(read) {
		found = stronger(found, matches(other))
	}
	for _, o := range found {
		o.match.How = load.Inferred // nothing was watched
		if !read.Sure && f.words.empty() {
			o.match.Strength = Possible
		}
	}
	if f.words.empty() { // the verifier's word counts for more
		found = f.signed(found, read.Lines)
		likely := slices.ContainsFunc(found, func(o finding) bool { return o.match.Strength >= Likely })
		if !likely && !f.words.said() && !f.afterLoad() {
			found = f.tabled(found)
		}
		if slices.ContainsFunc(found, func(o finding) bool { return !o.rule.generic && o.match.Strength >= Likely }) {
			found = slices.DeleteFunc(found, func(o finding) bool { return o.rule.generic })
		}
	}
	slices.SortStableFunc(found, func(a, b finding) int { return cmp.Compare(b.match.Strength, a.match.Strength) })
	return found
}

// stronger adds findings, of each rule the stronger one.
func stronger(found, more []finding) []finding {
	for _, o := range more {
		if i := slices.IndexFunc(found, func(k finding) bool { return k.rule.ID == o.rule.ID }); i < 0 {
			found = append(found, o)
		} else if o.match.Strength > found[i].match.Strength {
			found[i] = o
		}
	}
	return found
}

// otherErrnos are the facts with each other errno that the text's words stand for.
func (f *Facts) otherErrnos(read *reading.Failure) (others []*Facts) {
	w, own := meaningOf(read.Lines)
	if !read.Errno.Either || f.call != "" || own && w.attempted == "" && w.tells == reading.Reason {
		return nil // the last: the words are the loader's, and no errno of the kernel
	}
	for _, n := range []int{abi.ENOTSUPP, abi.EOPNOTSUPP} {
		if f.isLoad() && n == abi.EOPNOTSUPP || f.errno() == n {
			continue // loads are not refused with it
		}
		g, a := *f, *f.Attempt
		a.Errno, g.after = n, nil
		g.Attempt = &a
		others = append(others, &g)
	}
	return others
}

// signed adds what the words of loaders and of the kernel's log say.
func (f *Facts) signed(found []finding, lines []string) []finding {
	heard := map[string]Strength{} // by rule: of words that say as much the first count
	for _, w := range loaderWords {
		if w.strength <= heard[w.rule] || !w.goesWith(f.errno()) || w.fits != nil && !w.fits(f.Node) {
			continue
		}
		i := slices.IndexFunc(lines, w.in)
		if i < 0 {
			continue
		}
		heard[w.rule] = w.strength
		r, _ := ByID(w.rule)
		found = slices.DeleteFunc(found, func(o finding) bool { return o.rule.ID == w.rule && o.match.Strength <= w.strength })
		if slices.ContainsFunc(found, func(o finding) bool { return o.rule.ID == w.rule }) {
			continue
		}
		m := &Match{Strength: w.strength, How: load.Inferred, Cause: w.means, Evidence: []string{f.text.quoteLine(lines[i])}}
		if w.instead {
			m.First = []load.Remedy{{ID: "words", Title: w.do, Price: "Depends on what has to change."}}
			for _, remedy := range r.Remedies {
				m.Without = append(m.Without, remedy.ID)
			}
		}
		found = append(found, finding{r, m})
	}
	return found
}

var watchLoader = load.Remedy{
	ID:      "watch-loader",
	Title:   "Run the loader under bpfwhy, to see the cause instead of guessing it",
	Price:   "One more failing start. Needs root.",
	Command: "bpfwhy run -- COMMAND",
}

// pasted marks facts that come from text.
type pasted struct {
	lines  []string // quoted
	kernel string   // the kernel's own words
	node   reading.Node
	// own: the text is the error of this process, which knows more than the text says.
	own bool
}

// whose is how the text is called.
func (p *pasted) whose() string {
	if p.own {
		return "error"
	}
	return "text"
}

func (p *pasted) quoteLine(l string) string {
	return "the " + p.whose() + " says: " + printable(strings.TrimSpace(l), 300)
}
