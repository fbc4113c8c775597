// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"
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
	)
	for i := range all {
		all[i].Text = reflow(all[i].Text)
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
