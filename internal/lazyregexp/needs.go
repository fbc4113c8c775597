// SPDX-License-Identifier: Apache-2.0

package lazyregexp

import (
	"regexp/syntax"
	"slices"
	"strings"
	"sync"
)

// Needs returns strings of which every match has at least one, nil if it need not have any. It
// does not compile the expression. Looking for them first takes a hundredth of the time.
func (r *Regexp) Needs() []string { return r.needs() }

// MayMatch reports whether a string has one of the strings that a match needs.
func (r *Regexp) MayMatch(s string) bool {
	needs := r.needs()
	return needs == nil || slices.ContainsFunc(needs, func(n string) bool { return strings.Contains(s, n) })
}

// MayMatchFolded is MayMatch for a string in small letters. It also rules out expressions that
// match letters of any case.
func (r *Regexp) MayMatchFolded(lower string) bool {
	needs := r.folded()
	return needs == nil || slices.ContainsFunc(needs, func(n string) bool { return strings.Contains(lower, n) })
}

// needsOf returns the strings that an expression needs. If fold is set, they are in small letters,
// and those that it matches in letters of any case are among them.
func needsOf(expression string, fold bool) func() []string {
	return sync.OnceValue(func() []string {
		parsed, err := syntax.Parse(expression, syntax.Perl)
		if err != nil {
			panic(err)
		}
		return literals(parsed, fold)
	})
}

func literals(e *syntax.Regexp, fold bool) []string {
	switch e.Op {
	case syntax.OpLiteral:
		switch {
		case fold:
			return []string{strings.ToLower(string(e.Rune))}
		case e.Flags&syntax.FoldCase == 0:
			return []string{string(e.Rune)}
		}
	case syntax.OpCapture, syntax.OpPlus:
		return literals(e.Sub[0], fold)
	case syntax.OpConcat: // the part whose shortest string is the longest
		var best []string
		for _, sub := range e.Sub {
			if l := literals(sub, fold); Shortest(l) > Shortest(best) {
				best = l
			}
		}
		return best
	case syntax.OpAlternate:
		var all []string
		for _, sub := range e.Sub {
			l := literals(sub, fold)
			if l == nil {
				return nil
			}
			all = append(all, l...)
		}
		return all
	}
	return nil
}

// Shortest is the length of the shortest string, 0 of none.
func Shortest(list []string) int {
	if len(list) == 0 {
		return 0
	}
	return len(slices.MinFunc(list, func(a, b string) int { return len(a) - len(b) }))
}
