// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"cmp"
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
)

// A text that is about BPF, and in which an error stands by itself: programs that print nothing but
// an errno, and people who say in words of their own what the program did.

var (
	// bareError is an error as runtimes and small programs end with: nothing else is in the line.
	bareError = lazyregexp.New(`(?i)^(?:fatal|panic|(?:unhandled |uncaught )?exception|thread '.*' panicked at .*|terminate called .*|what\(\)|error|err|errno|failed|failure|ret(?:urn(?:ed|s)?)?|result|exit(?:ed)?|caused by|\w*(?:Error|Exception))\b.{0,160}$|^(?:Err\()?(?:System|Os)\b ?[({]|\[Errno \d+\]`)
	// saysBPF is a subject that leaves no doubt what a text is about.
	saysBPF = lazyregexp.New(`(?i)\be?bpf|\b(?:lib)?xdp|\blibbpf|\bxskmap|\bkprobe|\buprobe|\bfentry|\btracepoint/|\bclsact\b|\btc filter .* bpf\b|\bAF_XDP\b|\bxsk_|\bxdpdrv\b|\bBPF_(?:MAP|PROG)_\w+`)
)

// ofErrno is what was attempted, by errnos that one kind of calls has alone.
var ofErrno = map[int]load.Kind{abi.ENOTSOCK: load.MapUpdate}

// aboutBPF reports a text that names BPF anywhere.
func (s *splitter) aboutBPF() bool {
	return slices.ContainsFunc(s.lines, func(l Line) bool { return saysBPF.MatchString(l.Text) })
}

// strangers takes out what other programs print too, where nothing of the text is about BPF.
func (s *splitter) strangers() {
	strange := func(g *group) bool {
		return !slices.ContainsFunc(g.clues, func(c clue) bool { return !c.beside })
	}
	if slices.ContainsFunc(s.groups, strange) && !s.aboutBPF() {
		s.groups = slices.DeleteFunc(s.groups, strange)
	}
}

// warned takes out what its writer takes for a warning and says no reason of, where something else
// failed: the program went on.
func (s *splitter) warned() {
	warning := func(g *group) bool {
		return !slices.ContainsFunc(g.clues, func(c clue) bool { return !s.lines[c.at].Warn || !c.bare() })
	}
	if !slices.ContainsFunc(s.groups, func(g *group) bool { return !warning(g) && !g.accepted() }) {
		return
	}
	s.groups = slices.DeleteFunc(s.groups, warning)
}

// lastResort looks for an error that stands by itself, in a text that is about BPF and in which
// nothing else is a failure. What was attempted is what the lines before it speak of.
func (s *splitter) lastResort() {
	if len(s.groups) > 0 || len(s.aside) > 0 || !s.aboutBPF() {
		return
	}
	var before clue
	for i, l := range s.lines {
		if l.Gap || l.Kernel || len(l.Text) > 1024 || s.skipped[i] {
			continue
		}
		if all := exact(readings(phrasesOf, l.Text, true)); len(all) > 0 {
			before = clue{kind: likelyKind(all, l.Text), place: all[0].place}
		}
		if !bareError.MatchString(l.Text) || withoutOtherCall(l.Text) != l.Text {
			continue
		}
		e, ok := ErrnoOf(l.Text)
		if !ok || e.Number == abi.ENOENT { // of any file
			continue
		}
		s.begin(clue{
			at: i, end: i, role: failure, source: l.Source, errno: e, weak: true,
			kind: cmp.Or(ofErrno[e.Number], before.kind, load.ProgLoad), place: before.place,
		})
		return
	}
}
