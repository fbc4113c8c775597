// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
)

// Calls that only look whether something is there. Programs make them at every start, and go on
// whatever the answer is.

// noSuch is the answer of a look-up that found nothing, as strace prints it: a pin, an object of an
// id, or an attach type that this kernel does not know.
var noSuch = lazyregexp.New(`\bbpf\((?:BPF_OBJ_GET, .*= -1 ENOENT|BPF_PROG_QUERY, .*= -1 E(?:INVAL|NOENT)|BPF_\w+_(?:GET_NEXT_ID|GET_FD_BY_ID), .*= -1 (?:ENOENT|EINVAL))\b|\bcan't get next (?:prog|map|link|btf): `)

// passOver puts look-ups that found nothing aside where the text tells of another failure: that one
// ended the program.
func (s *splitter) passOver() {
	other := slices.ContainsFunc(s.groups, func(g *group) bool { return !s.lookedUp(g) && !g.spared && !g.meant && !g.accepted() })
	if !other {
		return
	}
	s.groups = slices.DeleteFunc(s.groups, func(g *group) bool {
		if !s.lookedUp(g) {
			return false
		}
		for _, c := range g.clues {
			c.role = tolerated
			s.aside = append(s.aside, c)
		}
		return true
	})
}

// lookedUp reports a failure of which nothing is told but such an answer.
func (s *splitter) lookedUp(g *group) bool {
	return !slices.ContainsFunc(g.clues, func(c clue) bool { return !noSuch.MatchString(s.lines[c.at].Text) })
}

// looksUp reports a call that asks for what is there, to which a reason for a refused attachment
// does not belong.
func (g *group) looksUp(reason clue) bool {
	main := g.main()
	return reason.kind.Attaches() && main.kind == load.OtherCommand && (strings.Contains(main.call, "_GET_NEXT_ID") || strings.Contains(main.call, "_BY_ID"))
}

// optional puts BTF that the kernel did not take aside where the loader says that it goes on
// without.
func (s *splitter) optional() {
	s.groups = slices.DeleteFunc(s.groups, func(g *group) bool {
		if g.main().kind != load.BTFLoad {
			return false
		}
		goesOn := slices.ContainsFunc(s.aside, func(c clue) bool {
			return c.kind == load.BTFLoad && c.role == tolerated && c.source == g.source && c.at >= g.first-nearFailure && c.at <= g.last+nearFailure
		})
		if goesOn {
			for _, c := range g.clues {
				c.role = tolerated
				s.aside = append(s.aside, c)
			}
		}
		return goesOn
	})
}
