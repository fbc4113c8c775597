// SPDX-License-Identifier: Apache-2.0

package verifierlog

import (
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
)

// What the verifier prints beside instructions, states and complaints: what it does.

// aside is how a line of chatter begins. Where other programs print such words as well, alone is
// what tells the verifier's line from theirs, or the line counts inside of a log only.
type aside struct {
	begins string
	alone  *lazyregexp.Regexp
	inside bool
}

var chatter = []aside{
	{begins: "Func#", alone: lazyregexp.New(`^Func#\d+ (?:\('[^']*'\) )?is (?:safe|global)`)},
	{begins: "Validating ", alone: lazyregexp.New(`^Validating \S+\(\) func#\d+`)},
	{begins: "Live regs before insn"},
	{begins: "topo_order", alone: lazyregexp.New(`^topo_order\[`)},
	{begins: "subprog#", alone: lazyregexp.New(`^subprog#\d+:`)},
	{begins: "stack use/def", alone: lazyregexp.New(`^stack use/def `)},
	{begins: "SCC "},
	{begins: "last_idx ", alone: lazyregexp.New(`^last_idx \d+`)},
	{begins: "regs=", alone: lazyregexp.New(`^regs=\w+ stack=`)},
	{begins: "mark_precise:", alone: lazyregexp.New(`^mark_precise: `)},
	{begins: "parent ", alone: lazyregexp.New(`^parent (?:didn't|already) have`)},
	{begins: "propagating "},
	{begins: "caller:"},
	{begins: "callee:"},
	{begins: "returning from callee:"},
	{begins: "to caller at "},
	{begins: "cur state:"},
	{begins: "old state:"},
	{begins: "verification time ", inside: true},
	{begins: "stack depth ", inside: true},
	{begins: "insns processed ", inside: true},
	{begins: "adding "},
	{begins: "insn history"},
	{begins: "Call to "},
	{begins: "frame 0", inside: true},
	{begins: "frame 1", inside: true},
	{begins: "frame 2", inside: true},
	{begins: "libbpf: ", inside: true},
	{begins: "-- BEGIN PROG LOAD LOG --", inside: true},
	{begins: "-- END PROG LOAD LOG --", inside: true},
	{begins: hole, inside: true},
}

// Two complaints begin like chatter.
var unlikeChatter = lazyregexp.New(`^adding tail call poke|^stack depth \d+ exceeds`)

// isChatter reports a line of a log that is neither state nor complaint.
func isChatter(line string) bool {
	for _, c := range chatter {
		if strings.HasPrefix(line, c.begins) {
			return !unlikeChatter.MatchString(line)
		}
	}
	return false
}

// Chatter reports a line that tells what the verifier does, and that nothing but its log has: the
// line need not be known to be part of one.
func Chatter(line string) bool {
	for _, c := range chatter {
		if !c.inside && strings.HasPrefix(line, c.begins) {
			return c.alone == nil || c.alone.MatchString(line)
		}
	}
	return funcLine.MatchString(line)
}
