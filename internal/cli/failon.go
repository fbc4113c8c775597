// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/spf13/cobra"
)

// statusFailOn is the exit status of run where a load is of a class of --fail-on. Commands, shells
// and those that run commands have others.
const statusFailOn = 121

// failOn are the classes of --fail-on: "any", "failed", "not-jited", "unknown", a stage, a family
// of rules (the letters of their ids), or a rule.
type failOn []string

// classes are all that there are, each with what it is.
func classes(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	list := []string{"any\ta load that failed, or was not compiled", "failed\ta load that failed", "not-jited\ta load that was not compiled",
		"unknown\tno rule could be singled out"}
	for _, s := range load.Stages {
		list = append(list, string(s)+"\tfailed in this stage")
	}
	for _, r := range explain.All() {
		if f := family(r.ID); !slices.Contains(list, f+"\tthe rules "+f+"...") {
			list = append(list, f+"\tthe rules "+f+"...")
		}
		list = append(list, r.ID+"\t"+r.Title)
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

func family(rule string) string { return strings.TrimRight(rule, "0123456789") }

func (f failOn) check() error {
	all, _ := classes(nil, nil, "")
	for _, class := range f {
		if !slices.ContainsFunc(all, func(c string) bool {
			name, _, _ := strings.Cut(c, "\t")
			return strings.EqualFold(name, class)
		}) {
			return usage("--fail-on %q: neither any, failed, not-jited or unknown, nor a stage such as blinding, nor a rule or its letters, such as PERM001 or PERM", class)
		}
	}
	return nil
}

// takes reports whether a finding of a rule is of a class, as far as the rule tells.
func takes(class, rule string) bool {
	r, _ := explain.ByID(rule)
	return strings.EqualFold(class, rule) || strings.EqualFold(class, family(rule)) || r.Stage != "" && strings.EqualFold(class, string(r.Stage))
}

// met says what is of the classes, nothing where nothing is. What failed and was lost may be of any
// of them.
func (f failOn) met(s *render.Summary) (what []string) {
	all := 0
	for _, n := range s.Rules {
		all += n
	}
	for _, class := range f {
		n, of := 0, ""
		switch strings.ToLower(class) {
		case "any":
			n = all + s.Hanging
		case "failed":
			n = max(0, all-s.NotJITed) + s.Hanging
		case "not-jited":
			n = s.NotJITed
		default:
			var rules []string
			for _, rule := range slices.Sorted(maps.Keys(s.Rules)) {
				if takes(class, rule) {
					n += s.Rules[rule]
					rules = append(rules, rule)
				}
			}
			of = " (" + strings.Join(rules, ", ") + ")"
		}
		if n > 0 {
			what = append(what, fmt.Sprintf("%s: %s%s", class, loads(n), of))
		}
	}
	if s.LostLoads > 0 && slices.ContainsFunc(f, func(class string) bool { return !strings.EqualFold(class, "not-jited") }) {
		what = append(what, fmt.Sprintf("%s failed, of which nothing else is known", loads(int(s.LostLoads))))
	}
	return what
}

func loads(n int) string {
	if n == 1 {
		return "1 load"
	}
	return fmt.Sprintf("%d loads", n)
}

// verdict is how run ends: as its command did, unless a load is of a class of --fail-on.
func (o *runOptions) verdict(s *render.Summary, seen, ended error) error {
	switch {
	case len(o.failOn) == 0:
		return ended
	case seen != nil:
		return fmt.Errorf("--fail-on: the loads of %s were not seen to the end", o.args[0])
	}
	if slices.Contains(s.Unknown, trace.LostLoads) {
		o.say("--fail-on: some failing loads may not have been seen")
	}
	what := o.failOn.met(s)
	if len(what) == 0 {
		return ended
	}
	return &status{statusFailOn, fmt.Errorf("--fail-on %s; %s itself ended with status %d", strings.Join(what, ", "), o.args[0], codeOf(ended))}
}
