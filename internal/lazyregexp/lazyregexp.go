// SPDX-License-Identifier: Apache-2.0

// Package lazyregexp has regular expressions that are compiled when they are first used. Hundreds
// of them took half of the time in which a command starts, most of which look at no text at all.
package lazyregexp

import (
	"regexp"
	"sync"
)

// Regexp is a [regexp.Regexp] that may not have been compiled yet.
type Regexp struct {
	compiled func() *regexp.Regexp
	needs    func() []string
	folded   func() []string
}

// New returns an expression, which the first use compiles. What does not compile panics then.
func New(expression string) *Regexp {
	return &Regexp{
		compiled: sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) }),
		needs:    needsOf(expression, false),
		folded:   needsOf(expression, true),
	}
}

// Compiled is for the methods that are not here.
func (r *Regexp) Compiled() *regexp.Regexp { return r.compiled() }

func (r *Regexp) MatchString(s string) bool { return r.compiled().MatchString(s) }

func (r *Regexp) FindStringSubmatch(s string) []string { return r.compiled().FindStringSubmatch(s) }

func (r *Regexp) Match(b []byte) bool { return r.compiled().Match(b) }

func (r *Regexp) FindIndex(b []byte) []int { return r.compiled().FindIndex(b) }

func (r *Regexp) FindSubmatchIndex(b []byte) []int { return r.compiled().FindSubmatchIndex(b) }
