// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/load"
)

var rules = build()

func build() []Rule {
	all := slices.Concat(
		requestRules(),
		permissionRules(),
		resourceRules(),
		btfRules(),
		featureRules(),
		verifierRules(),
		complexityRules(),
		blindingRules(),
		jitRules(),
		installRules(),
		mapRules(),
		classicRules(),
		hangRules(),
		attachRules(),
		tracingRules(),
		uprobeRules(),
		trampolineRules(),
		cgroupRules(),
		netRules(),
		socketRules(),
		pinRules(),
	)
	nobody := newFacts(&load.Attempt{}, nil)
	for i := range all {
		all[i].Text = reflow(all[i].Text)
		for n, r := range all[i].Remedies {
			all[i].Remedies[n] = nobody.fitted(finding{all[i], &Match{}}, r)
		}
	}
	return all
}

// reflow joins the lines of each paragraph: the source is wrapped for its
// readers, the output for its own.
func reflow(s string) string {
	paragraphs := strings.Split(strings.TrimSpace(s), "\n\n")
	for i, p := range paragraphs {
		paragraphs[i] = strings.Join(strings.Fields(p), " ")
	}
	return strings.Join(paragraphs, "\n\n")
}

// never is the Match of rules that the evidence of an attempt cannot show.
func never(*Facts) *Match { return nil }

// All returns every rule. The order is that of the documentation; where two
// rules fit equally well, the earlier one wins.
func All() []Rule { return slices.Clone(rules) }

// ByID finds a rule by its id, in any case of letters.
func ByID(id string) (Rule, bool) {
	id = strings.ToUpper(strings.TrimSpace(id))
	i := slices.IndexFunc(rules, func(r Rule) bool { return r.ID == id })
	if i < 0 {
		return Rule{}, false
	}
	return rules[i], true
}
