// SPDX-License-Identifier: Apache-2.0

package hang

import "github.com/bpfwhy/bpfwhy/explain"

// Rule is the id of the rule that explains a place.
func Rule(p Place) string { return explain.HangRule([][]string{p.Functions}) }
