// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/explain/reading"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
)

// What is said of a failure whose cause a text leaves open.

// sayUnknown names what failed, where no cause is singled out, and what the loader's words mean.
func (f *Facts) sayUnknown(d *load.Diagnosis, read *reading.Failure, found int) {
	w, worded := meaningOf(read.Lines)
	worded = worded && (found == 0 || f.errno() == 0) && !(found > 0 && w.strength == Possible)
	if !worded {
		w = loaderWord{}
	}
	d.Cause = f.unknownCause(d.Cause, describeAttempt(read), w, found)
	if lack := f.lacking(read); lack.ID != "" {
		d.Remedies = append([]load.Remedy{lack}, d.Remedies...)
	}
	if !worded {
		return
	}
	if w.unasked || w.attempted == own && f.errno() == 0 {
		d.Title = "The loader stopped by itself, before it asked the kernel"
	}
	d.Cause += " " + w.means
	if w.do != "" {
		d.Remedies = append([]load.Remedy{{ID: "words", Title: strings.TrimSuffix(w.do, "."), Price: "Depends on what has to change."}}, d.Remedies...)
	}
}

// sayAlso adds what the loader found out by itself beside the cause: a second reason, such as files
// that are missing.
func (f *Facts) sayAlso(d *load.Diagnosis, read *reading.Failure) {
	for _, l := range read.Lines {
		if w, ok := loaderSays(l); ok && w.unasked && w.rule == "" && w.tells == reading.Reason {
			d.Cause += " Beside that: " + w.means
			return
		}
	}
}

// unknownCause says what is known of a failure without a cause: what failed, and with what errno.
func (f *Facts) unknownCause(cause, what string, w loaderWord, found int) string {
	worded := w.words != nil
	if n := f.errno(); n != 0 {
		ended := fmt.Sprintf("The %s says that %s failed with %s (%d)", f.text.whose(), what, errnoName(n), n)
		switch {
		case w.unasked:
			return ended + ". That is the library's own answer: it did not ask the kernel."
		case worded && len(f.otherMeanings(nil)) == 0:
			return ended + "."
		}
		return ended + ", and not why. " + cause
	}
	ended := fmt.Sprintf("The %s says that %s failed", f.text.whose(), what)
	switch {
	case found > 0:
		return fmt.Sprintf("%s, and names no errno. %s would fit.", ended, upperFirst(countOf(found, "cause")))
	case worded:
		return ended + ". It names no errno."
	}
	return ended + ". It names no errno, and no rule knows its words."
}

var logCut = lazyregexp.New(`\b\d+ line\(s\) omitted\)|\((?:log )?truncated`)

// lacking is what the text would have to hold for a better answer, an empty remedy if nothing.
func (f *Facts) lacking(read *reading.Failure) load.Remedy {
	switch {
	case f.isLoad() && f.words.empty() && slices.ContainsFunc(read.Lines, logCut.MatchString):
		return load.Remedy{
			ID:    "whole-log",
			Title: "Print the verifier's whole log, and paste that: the reason is in the lines that were left out (in Go: fmt.Printf(\"%+v\", err) of the *ebpf.VerifierError)",
			Price: "One more failing start.",
		}
	case f.errno() == 0:
		return load.Remedy{
			ID:    "more-lines",
			Title: "Paste the lines before this one as well, or let the loader print more (debug or verbose): one of them names an errno, or is the verifier's",
			Price: "One more failing start, if they were not printed.",
		}
	}
	return load.Remedy{}
}

// meaningOf is what a loader's words give as the reason.
func meaningOf(lines []string) (loaderWord, bool) {
	for _, l := range lines {
		if w, ok := loaderSays(l); ok && w.tells != reading.Echo && w.tells != reading.Harmless {
			return w, true
		}
	}
	return loaderWord{}, false
}

// describeAttempt names what was attempted, as it goes on after "the text says that".
func describeAttempt(read *reading.Failure) string {
	a := read.Attempt
	object := ""
	switch {
	case a.Program != nil && a.Program.Name != "":
		object = " " + printable(a.Program.Name, 60)
	case a.Map != nil && a.Map.Name != "":
		object = " " + printable(a.Map.Name, 60)
	}
	switch a.Kind {
	case load.ProgLoad:
		return "loading the program" + object
	case load.MapCreate:
		return "creating the map" + object
	case load.MapUpdate:
		return "updating the map" + object
	case load.BTFLoad:
		return "loading BTF"
	case load.ObjPin:
		return "pinning"
	case load.Seccomp, load.SocketFilter, load.TokenCreate:
		return callName(a.Kind)
	case load.OtherCommand:
		return cmp.Or(read.Call, "bpf(2)")
	}
	if a.Kind == load.PerfEventOpen && !aimed(a.Attach) {
		return "opening a perf event"
	}
	return describeAttachment(a.Attach)
}

// aimed reports an attachment to something that has a name of its own: not just a perf event.
func aimed(at *load.Attach) bool {
	return at != nil && at.Target != nil && at.Target.Kind != "" && at.Target.Kind != "perf_event"
}

func describeAttachment(at *load.Attach) string {
	what := "attaching a program"
	if at == nil {
		return what
	}
	if p := at.Program; p != nil && p.Name != "" {
		what = "attaching the program " + printable(p.Name, 60)
	}
	t := at.Target
	if t == nil || t.Kind == "" {
		return what
	}
	where := map[string]string{
		"function": "a function", "uprobe": "a function of a file", "tracepoint": "a tracepoint", "netdev": "a network device", "cgroup": "a control group",
		"netns": "a network namespace", "raw_tracepoint": "a tracepoint", "perf_event": "a perf event", "socket": "a socket", "map": "a map", "program": "a program",
	}[t.Kind]
	what += " to " + cmp.Or(where, printable(t.Kind, 40))
	if n := cmp.Or(t.Path, t.Name); n != "" {
		what += " (" + printable(n, 120) + ")"
	}
	return what
}
