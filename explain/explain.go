// SPDX-License-Identifier: Apache-2.0

// Package explain says why a load attempt ended as it did.
//
// The rules are data: each has a stable id, a text that stands on its own, and a
// function that looks for its signs in an attempt. Every rule is asked; the one
// with the strongest signs becomes the diagnosis, and the others that the same
// evidence fits are named beside it. When the evidence fits several causes and
// singles out none, the answer is UNKNOWN with all of them.
//
// The package is pure: the same attempt and profile give the same diagnosis on
// every machine.
package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Unknown is the id of the diagnosis that names no cause.
const Unknown = "UNKNOWN"

// Rule is one reason for which a load fails. ID is an interface: it never
// changes its meaning.
type Rule struct {
	ID    string
	Title string
	// Text says what happens in the kernel and why.
	Text string
	// Class is the class of field reports, R1 to R12 (docs/rules.md).
	Class string
	// Stage is the stage that the failure is counted under (docs/stages.md).
	Stage load.Stage
	// Kernels says which kernels show it, and how they differ.
	Kernels string
	// Remedies are sorted, the best first. Each has its price.
	Remedies []load.Remedy
	// Match looks for the rule's signs, and returns nil when they are absent
	// or something speaks against the rule.
	Match func(*Facts) *Match

	// grants are the remedies that give the loader capabilities, by id, with these.
	grants map[string][]int
	// generic rules speak only when no rule of better knowledge fits.
	generic bool
}

// Strength says how much an attempt's evidence speaks for a rule.
type Strength int

// Possible: nothing speaks against it. Likely: something speaks for it, without
// proof. Strong: it follows from what was captured. Certain: the kernel was
// seen doing it.
const (
	Possible Strength = iota + 1
	Likely
	Strong
	Certain
)

// Match is what a rule found in one attempt.
type Match struct {
	Strength Strength
	How      load.HowKnown
	// Cause says what happened in this attempt, in one or two sentences. Empty:
	// the rule's title will do.
	Cause string
	// Evidence are facts of this attempt.
	Evidence []string
	// Why says, for an alternative, what speaks for it. Empty: the cause.
	Why string
	// Commands overrides the commands of remedies, by remedy id.
	Commands map[string]string
	// Grants overrides the capabilities that remedies give, by remedy id.
	Grants map[string][]int
	// Instead are remedies as they are on this kernel, in place of those of the rule, by id.
	Instead []load.Remedy
	// First are remedies that this attempt's evidence suggests, before those of the rule.
	First []load.Remedy
	// Without drops remedies that would not help here, by id.
	Without []string

	// guess marks a likely cause that leaves room for any other of the same kind.
	guess bool
}

type finding struct {
	rule  Rule
	match *Match
}

// Explain returns the diagnosis of an attempt, nil for one that simply worked.
// The profile may be nil. The attempt's Jump must have been filled in before.
func Explain(a *load.Attempt, n *node.Profile) *load.Diagnosis {
	d, _ := conclude(a, n)
	return d
}

// Conclude sets the attempt's diagnosis, and the stage that the failure is
// counted under where the diagnosis knows better than the observed stages do.
func Conclude(a *load.Attempt, n *node.Profile) {
	d, stage := conclude(a, n)
	a.Diagnosis = d
	if stage != "" {
		a.FailedStage = stage
	}
}

func conclude(a *load.Attempt, n *node.Profile) (*load.Diagnosis, load.Stage) {
	if a.Outcome == load.Loaded {
		return idle(a, n), ""
	}
	f := newFacts(a, n)
	found := matches(f)
	return f.decide(found)
}

// idle is the diagnosis of a call that succeeded and led to nothing, nil where there is none.
func idle(a *load.Attempt, n *node.Profile) *load.Diagnosis {
	if a.Attach == nil {
		return nil
	}
	f := newFacts(a, n)
	m := matchIdleLSM(f)
	if m == nil {
		return nil
	}
	d, _ := f.decide([]finding{{att501(), m}})
	return d
}

// decide makes the diagnosis from what the rules found.
func (f *Facts) decide(found []finding) (*load.Diagnosis, load.Stage) {
	if len(found) == 0 || found[0].match.Strength == Possible {
		return unknown(f, found), f.fallbackStage()
	}
	best := found[0]
	var saw load.Stage
	if best.match.How == load.Observed {
		saw = best.rule.Stage
	}
	d := &load.Diagnosis{
		Rule:     best.rule.ID,
		Title:    best.rule.Title,
		Cause:    best.match.Cause,
		HowKnown: best.match.How,
		Evidence: once(append(slices.Clone(best.match.Evidence), f.seen(saw)...)),
		Remedies: f.remedies(best),
	}
	if d.Cause == "" {
		d.Cause = fmt.Sprintf("%s.", best.rule.Title)
	}
	f.replayed(d)
	f.warn(d)
	// What was seen happening leaves room for nothing else; what follows from
	// the evidence leaves room for what is likely, and so on down.
	floor := best.match.Strength - 1
	if best.match.Strength == Certain {
		floor = Certain
	}
	for _, o := range found[1:] {
		if o.match.Strength >= floor {
			d.Alternatives = append(d.Alternatives, o.alternative())
		}
	}
	return d, best.rule.Stage
}

// once drops what is said a second time.
func once(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// matches asks every rule, strongest first, in the order of All where equal.
func matches(f *Facts) []finding {
	found := ask(f)
	if f.words.unproven {
		found = doubt(found, ask(f.wordless()))
	}
	known := func(o finding) bool { return !o.rule.generic && o.match.Strength >= Likely }
	switch {
	case slices.ContainsFunc(found, func(o finding) bool { return known(o) && !o.match.guess }):
		found = slices.DeleteFunc(found, func(o finding) bool { return o.rule.generic })
	case slices.ContainsFunc(found, known):
		for _, o := range found {
			if o.rule.generic {
				o.match.Strength = Possible
			}
		}
	}
	slices.SortStableFunc(found, func(a, b finding) int { return int(b.match.Strength - a.match.Strength) })
	return found
}

func ask(f *Facts) []finding {
	var found []finding
	for _, r := range rules {
		if m := r.Match(f); m != nil {
			found = append(found, finding{r, m})
		}
	}
	return found
}

// doubt joins what the rules find with a log that may not be of this call, and what they find
// without it. What rests on that log alone is likely at most, and nothing that was seen.
func doubt(with, without []finding) []finding {
	for i := range with {
		o := &with[i]
		o.match.Strength, o.match.How, o.match.guess = min(o.match.Strength, Likely), load.Inferred, true
		j := slices.IndexFunc(without, func(w finding) bool { return w.rule.ID == o.rule.ID })
		if j < 0 {
			continue
		}
		if without[j].match.Strength >= o.match.Strength {
			*o = without[j]
		}
		without = slices.Delete(without, j, j+1)
	}
	return append(with, without...)
}

func (o finding) alternative() load.Alternative {
	why := o.match.Why
	if why == "" {
		why = o.match.Cause
	}
	if why == "" {
		why = o.rule.Title
	}
	return load.Alternative{Rule: o.rule.ID, Title: o.rule.Title, Why: why}
}

func (f *Facts) remedies(o finding) []load.Remedy {
	rs := slices.Clone(o.match.First)
	for _, r := range o.rule.Remedies {
		if slices.Contains(o.match.Without, r.ID) {
			continue
		}
		if i := slices.IndexFunc(o.match.Instead, func(m load.Remedy) bool { return m.ID == r.ID }); i >= 0 {
			r = o.match.Instead[i]
		}
		r = f.fitted(o, r)
		if c, ok := o.match.Commands[r.ID]; ok {
			r.Command = c
		}
		rs = append(rs, r)
	}
	return rs
}

func unknown(f *Facts, found []finding) *load.Diagnosis {
	d := &load.Diagnosis{
		Rule:     Unknown,
		Title:    "The evidence does not single out a cause",
		HowKnown: load.Inferred,
		Evidence: f.seen(""),
	}
	for _, o := range found {
		d.Alternatives = append(d.Alternatives, o.alternative())
	}
	what := errnoName(f.errno())
	if f.unjited() {
		what = "Being interpreted"
	} else if f.errno() == 0 {
		what = "This"
	}
	switch len(found) {
	case 0:
		d.Cause = fmt.Sprintf("No rule fits what was seen of this %s.", what)
		if f.text != nil {
			d.Cause = fmt.Sprintf("No cause of %s is known for this call.", what)
		}
	case 1:
		d.Cause = fmt.Sprintf("%s fits one known cause here, but no evidence points to it in particular.", what)
	default:
		d.Cause = fmt.Sprintf("%s fits %s here, and the evidence does not decide between them.", what, countOf(len(found), "cause"))
	}
	if more := f.otherMeanings(found); len(more) > 0 && len(found) == 0 {
		d.Cause = fmt.Sprintf("What %s can mean for this call: %s", what, strings.Join(more, " Or: "))
	} else if len(more) > 0 {
		d.Cause += fmt.Sprintf(" What else %s can mean for this call: %s", what, strings.Join(more, " Or: "))
	}
	if !f.isClassic() && slices.ContainsFunc(found, func(o finding) bool { return o.rule.Stage == load.Verifier }) {
		d.Remedies = append(d.Remedies, askForLog)
	}
	if len(f.notObserved("")) > 0 {
		d.Remedies = append(d.Remedies, watchWithHooks)
	}
	f.replayed(d)
	f.warn(d)
	return d
}

// otherMeanings are what the errno means for this call beside what the rules found.
func (f *Facts) otherMeanings(found []finding) []string {
	switch {
	case f.errno() == 0 || f.unjited():
		return nil
	case f.afterLoad():
		return f.aftermath().other
	}
	var texts []string
	for _, m := range f.meanings() {
		if len(found) == 0 || f.text != nil && len(m.Rules) == 0 {
			texts = append(texts, m.Text)
		}
	}
	return texts
}

var (
	askForLog = load.Remedy{
		ID:    "ask-for-log",
		Title: "Load once more with the verifier's log on (log_level 1 and a buffer of 16 MiB)",
		Price: "One more load attempt. The log costs time and memory while the program is verified.",
	}
	watchWithHooks = load.Remedy{
		ID:      "observe-more",
		Title:   "Find out why some stages cannot be watched on this node, and watch again",
		Price:   "It may need more capabilities or another kernel configuration.",
		Command: "bpfwhy doctor",
	}
)
