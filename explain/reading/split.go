// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"cmp"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
)

// How many lines belong together, at most.
const (
	nearFailure = 40   // between two lines about one failure
	sameProgram = 400  // the same, where they name the same program
	nearDetail  = 4    // between a failure and its reason
	nearKernel  = 60   // the same, where the reason is in the kernel's log
	nearAttempt = 2    // between what is done and how it ended
	maxLogHole  = 12   // lines in a log that are not known to be of one
	maxReported = 512  // lines of a report of the verifier
	maxKnown    = 6000 // lines that are compared with the verifier's sentences
	maxRead     = 3000 // lines that are read: a quarter of them at the beginning, the others at the end
	maxGroups   = 256
	maxClues    = 64 // of one failure; further ones say the same
)

// group are the lines that tell of one failure.
type group struct {
	clues  []clue
	log    []string
	source string
	first  int
	last   int
	// spared: the program went on in another way, and succeeded. meant: a test wanted it to fail.
	spared, meant bool
}

// splitter goes through the lines of a text, those of each writer for themselves.
type splitter struct {
	lines   []Line
	table   Table
	budget  int             // of lines that may still be compared with the verifier's sentences
	skipped map[int]bool    // lines that are too many to be read
	told    map[string]clue // by line
	plain   map[string]bool // lines that no loader says, and the others
	groups  []*group
	aside   []clue // noise, and what a program went on without
	kernel  []clue // reasons in the kernel's log
	remarks []clue // what counts where nothing else failed
	current *group
	pending []clue // reasons that stand in front of their failure
	attempt clue
	outcome outcome
}

// split finds the failures that a text tells of, in their order. aside are lines that look like one
// and are none.
func split(lines []Line, table Table) (groups []*group, aside []clue) {
	s := &splitter{lines: lines, table: table, budget: maxKnown, skipped: tooMany(lines), told: map[string]clue{}, plain: map[string]bool{}}
	for _, indices := range bySource(lines) {
		s.one(indices)
	}
	s.fromKernel()
	s.fold()
	s.passOver()
	s.optional()
	s.strangers()
	s.warned()
	if len(s.groups) == 0 && len(s.remarks) > 0 {
		s.pending = nil
		s.begin(s.remarks[0])
	}
	s.lastResort()
	slices.SortStableFunc(s.groups, func(a, b *group) int { return cmp.Compare(a.first, b.first) })
	slices.SortStableFunc(s.aside, func(a, b clue) int { return cmp.Compare(a.at, b.at) })
	return s.groups, s.aside
}

// tooMany are lines in the middle of those that matter, where these are more than can be read.
func tooMany(lines []Line) map[int]bool {
	var some []int
	seen := map[string]bool{}
	for i, l := range lines {
		if m := matter([]byte(l.Text)); (m.topic || m.any()) && !seen[l.Text] {
			seen[l.Text] = true
			some = append(some, i)
		}
	}
	skipped := map[int]bool{}
	if len(some) > maxRead {
		for _, i := range some[maxRead/4 : len(some)-maxRead*3/4] {
			skipped[i] = true
		}
	}
	return skipped
}

// read is what a line tells.
func (s *splitter) read(i int) clue {
	l := s.lines[i]
	if s.skipped[i] {
		return clue{}
	}
	c, ok := s.told[l.Text]
	if !ok {
		c = read(l, s.table)
		s.told[l.Text] = c
	}
	c.at, c.end, c.source, c.kernel, c.whole = i, i, l.Source, l.Kernel, l.Whole
	c.log = slices.Clone(c.log)
	return c
}

// bySource are the places of the lines of each writer, in the order in which they first appear.
// The kernel's own are a writer too.
func bySource(lines []Line) [][]int {
	place := map[string]int{}
	var all [][]int
	for i, l := range lines {
		key := l.Source
		if l.Kernel {
			key = "\x00kernel"
		}
		n, ok := place[key]
		if !ok {
			n = len(all)
			place[key], all = n, append(all, nil)
		}
		all[n] = append(all[n], i)
	}
	return all
}

// one goes through the lines of one writer.
func (s *splitter) one(indices []int) {
	s.current, s.pending, s.attempt, s.outcome = nil, nil, clue{}, newOutcome()
	for at := 0; at < len(indices); {
		i := indices[at]
		if s.lines[i].Gap {
			s.current, s.attempt = nil, clue{}
			s.settle()
			at++
			continue
		}
		if log, next := s.logAt(indices, at); next > at {
			s.put(clue{at: i, end: indices[next-1], role: failure, kind: kindOfLog(log), log: log, source: s.lines[i].Source})
			at = next
			continue
		}
		c := s.read(i)
		at++
		if c.kind == netlinkCall && !s.netlink(&c, indices, at-1) {
			continue
		}
		if s.wrapped(&c, indices, at) {
			at++
		}
		if len(c.log) > 0 { // which the next lines may go on with
			if log, next := s.logBehind(indices, at); next > at {
				c.log, c.end, at = append(c.log, log...), indices[next-1], next
			}
		}
		s.put(c)
		s.ended(i)
	}
	s.settle()
}

// netlink finds out what was asked for by netlink, from the commands next to its answer. False if
// it was nothing of BPF.
func (s *splitter) netlink(c *clue, indices []int, at int) bool {
	for n := max(0, at-nearDetail); n < min(len(indices), at+nearDetail); n++ {
		text := s.lines[indices[n]].Text
		if !netlinkBPF.MatchString(text) {
			continue
		}
		c.kind, c.place = load.TCAttach, tc
		if netlinkXDP.MatchString(namedDevice.Compiled().ReplaceAllString(text, " ")) {
			c.kind, c.place = load.XDPAttach, xdp
		}
		c.refine(text)
		return true
	}
	return false
}

// namedDevice may be called like anything.
var (
	namedDevice = lazyregexp.New(`\bdev(?:ice)? \S+`)
	netlinkXDP  = lazyregexp.New(`\bxdp`)
)

var netlinkBPF = lazyregexp.New(`\bxdp|\bbpf\b|\bclsact\b|\.bpf\.o\b|\bsec(?:tion)? `)

// put sorts a clue in.
func (s *splitter) put(c clue) {
	switch {
	case c.role == nothing || s.loadedLog(c):
		s.after(c)
	case c.role == attempted:
		s.attempt = c
	case c.remark:
		s.remarks = append(s.remarks, c)
	case c.role == noise || c.role == tolerated:
		s.aside = append(s.aside, c)
		s.excuse(c)
	case c.role == detail && c.kernel:
		s.kernel = append(s.kernel, c)
	case c.role == detail:
		s.pending = append(s.pending, c)
	case s.current != nil && s.current.joins(c):
		s.addPending(s.current, c.at)
		s.current.add(c)
	case len(s.groups) < maxGroups:
		s.settleBefore(c.at)
		s.begin(c)
	}
}

// excuse forgets a failure that says no more than that its reason is in the next line, where this
// is nothing that the kernel refused.
func (s *splitter) excuse(c clue) {
	g := s.current
	if g != nil && c.at == g.last+1 && strings.HasSuffix(s.lines[g.last].Text, ":") && !slices.ContainsFunc(g.clues, func(o clue) bool { return !o.bare() }) {
		s.groups = slices.DeleteFunc(s.groups, func(o *group) bool { return o == g })
		s.current = nil
	}
}

func (s *splitter) begin(c clue) *group {
	s.current = &group{source: c.source, first: c.at, last: c.at}
	s.groups = append(s.groups, s.current)
	s.addPending(s.current, c.at)
	s.current.add(c)
	return s.current
}

// after looks at a line that is about nothing in particular: it may say how an attempt ended.
func (s *splitter) after(c clue) {
	l := s.lines[c.at]
	if s.attempt.role != attempted || c.at-s.attempt.at > nearAttempt || l.Kernel || otherCall.MatchString(l.Text) {
		return
	}
	if e, ok := ErrnoOf(l.Text); ok && (s.current == nil || s.current.last < s.attempt.at) {
		f := s.attempt
		f.role, f.end, f.errno, f.weak = failure, c.at, e, !raised.MatchString(l.Text)
		s.begin(f)
	}
	s.attempt = clue{}
}

// raised is how Python ends the trace of the line in front of it.
var raised = lazyregexp.New(`^[\w.]*(?:Error|Exception|error): `)

// addPending gives a failure the reasons right in front of it.
func (s *splitter) addPending(g *group, at int) {
	var rest []clue
	for _, d := range s.pending {
		if at-d.at <= nearDetail && at >= d.at {
			g.add(d)
		} else {
			rest = append(rest, d)
		}
	}
	s.pending = rest
}

// settleBefore gives the reasons that are left to the failure before them.
func (s *splitter) settleBefore(at int) {
	var near []clue
	rest := s.pending[:0:0]
	for _, d := range s.pending {
		if at-d.at <= nearDetail {
			near = append(near, d)
		} else {
			rest = append(rest, d)
		}
	}
	s.pending = rest
	s.settle()
	s.pending = near
}

func (s *splitter) settle() {
	for _, d := range s.pending {
		if s.current != nil && d.at-s.current.last <= 2*nearDetail && !s.current.looksUp(d) {
			s.current.add(d)
		} else if len(s.groups) < maxGroups {
			was := s.current
			s.pending = nil
			s.begin(d)
			s.current = cmp.Or(was, s.current)
		}
	}
	s.pending = nil
}

// fold puts together what one writer says of a load that failed, and the log that another has of
// it, where there is no other of either.
func (s *splitter) fold() {
	var bare, log *group
	for _, g := range s.groups {
		switch {
		case g.saysOnlyThat() && bare == nil:
			bare = g
		case g.hasOnlyLog() && log == nil:
			log = g
		default:
			return
		}
	}
	if bare == nil || log == nil || bare.last >= log.first || log.first-bare.last > nearFailure {
		return
	}
	for _, c := range bare.clues {
		log.add(c)
	}
	s.groups = slices.DeleteFunc(s.groups, func(g *group) bool { return g == bare })
}

// saysOnlyThat reports a load that failed with an errno, without a program's name and a log.
func (g *group) saysOnlyThat() bool {
	program, _, _ := g.names()
	return g.main().kind == load.ProgLoad && program == "" && len(g.log) == 0 && g.errno() != (Errno{})
}

// hasOnlyLog reports a log of a load, without a program's name and an errno.
func (g *group) hasOnlyLog() bool {
	program, _, _ := g.names()
	return g.main().kind == load.ProgLoad && program == "" && len(g.log) > 0 && g.errno() == (Errno{})
}

// fromKernel gives the reasons in the kernel's log to the failures next to them.
func (s *splitter) fromKernel() {
	for _, d := range s.kernel {
		var best *group
		far := func(g *group) int { return max(d.at-g.last, g.first-d.at, 0) }
		for _, g := range s.groups {
			if far(g) <= nearKernel && g.mayHave(d) && (best == nil || far(g) < far(best)) {
				best = g
			}
		}
		if best != nil {
			best.add(d)
			continue
		}
		if len(s.groups) < maxGroups {
			s.pending = nil
			s.begin(d)
		}
	}
}

// mayHave reports whether a line of the kernel's log may be about this failure.
func (g *group) mayHave(d clue) bool {
	main := g.main()
	if d.kind == load.ProbeDefine {
		return main.kind.Attaches() && (d.place.target == "" || main.place.target == "" || main.place.target == d.place.target)
	}
	if d.kind.Attaches() {
		return main.kind.Attaches() && samePlace(d.place, main.place)
	}
	return main.role == failure
}

func (g *group) add(c clue) {
	if len(g.clues) < maxClues {
		g.clues = append(g.clues, c)
	}
	if len(c.log) > 0 && len(g.log) < len(c.log) && (lastKnown(g.log) == "" || lastKnown(c.log) != "") {
		g.log = c.log
	}
	g.first, g.last = min(g.first, c.at), max(g.last, c.end)
}

// main is the clue that tells most: a sentence that is known, of those that fail.
func (g *group) main() clue {
	rank := func(c clue) int {
		n := int(c.role) * 4
		if c.sure {
			n += 2
		}
		if c.errno.Number != 0 && c.sure || c.because {
			n++
		}
		return n
	}
	best := g.clues[0]
	for _, c := range g.clues[1:] {
		if rank(c) > rank(best) {
			best = c
		}
	}
	return best
}

// bare reports a clue that says that something failed, and nothing of the reason.
func (c *clue) bare() bool {
	return c.errno == (Errno{}) && len(c.log) == 0 && !c.because && c.said == ""
}

// vague reports a clue that may be about an attempt of this kind: programs that cannot start for
// any reason say that they could not load.
func (c *clue) vague(kind load.Kind) bool {
	return c.kind == load.ProgLoad || !c.sure || !differ(family(c.kind), family(kind))
}

// samePlace: libxdp attaches to its dispatcher, and so to the device.
func samePlace(a, b place) bool {
	return !differ(a.target, b.target) || a == xdp && b == freplace || a == freplace && b == xdp
}

// asEvent is a function's name as it stands in the name of an event of tracefs.
func asEvent(name string) string { return strings.NewReplacer(".", "_", "+", "_").Replace(name) }

func differ(a, b string) bool { return a != "" && b != "" && a != b }

// joins reports whether a clue is about the same failure as those before it.
//
//revive:disable-next-line:cyclomatic what speaks against it, one by one
func (g *group) joins(c clue) bool {
	main := g.main()
	program, mapName, target := g.names()
	near := c.at - g.last
	switch {
	case near > sameProgram, near > nearFailure && (program == "" || program != c.program):
		return false
	case len(c.log) > 0 && len(g.log) > 0 && near <= 2 && program != "" && lastKnown(c.log) == "":
		return true // no other complaint
	case len(c.log) > 0 && len(g.log) > 0:
		return lastKnown(c.log) != "" && lastKnown(c.log) == lastKnown(g.log) && !differ(program, c.program)
	case differ(program, c.program), differ(mapName, c.mapName):
		return false
	case c.role == aftermath || main.role < failure:
		return true
	case near <= 3*nearDetail && (c.bare() && c.vague(main.kind) || main.bare() && main.vague(c.kind)) && len(c.log) == 0 && !differ(asEvent(c.target.Name), asEvent(target.Name)) && !differ(c.target.Path, target.Path):
		return true // that something failed, without saying more
	case main.because && c.bare() && near <= 2*nearDetail && !c.kind.Attaches() == !main.kind.Attaches():
		return true // whoever called it says so too
	case main.because && g.errno() == (Errno{}) && near <= 2 && !c.because && (c.kind == load.OtherCommand || !differ(family(c.kind), family(main.kind))) && len(c.log) == 0:
		return true // the errno that the reason is told with
	case len(g.log) > 0 && near <= nearDetail && c.kind == load.ProgLoad && c.program == "" && len(c.log) == 0 && !c.because && g.toldEnd():
		return true // what the loader makes of it, with an errno of its own
	case main.kind == load.ObjPin && c.kind == load.MapCreate && main.because && near <= nearDetail:
		return true // of a pin that was not reused
	case !sameErrno(g.errno(), c.errno):
		return false
	case near <= nearDetail && c.errno.Number != 0 && c.errno == g.errno() && main.kind == load.ProgLoad && c.kind.Attaches():
		return true // the errno of a load, told again by whoever would have attached
	case c.kind.Attaches() && main.kind.Attaches():
		return samePlace(c.place, main.place) && !differ(c.target.Name, target.Name) && !differ(c.target.Path, target.Path)
	case !differ(family(c.kind), family(main.kind)):
		return true
	}
	// In other words, by who is told of it.
	return (!c.sure || !main.sure) && near <= 3*nearDetail && len(c.log) == 0
}

func (g *group) names() (program, mapName string, target load.AttachTarget) {
	for _, c := range g.clues {
		program, mapName = cmp.Or(program, c.program), cmp.Or(mapName, c.mapName)
		target.Name, target.Path = cmp.Or(target.Name, c.target.Name), cmp.Or(target.Path, c.target.Path)
	}
	return program, mapName, target
}

// errno is the first that a line about the failure names.
func (g *group) errno() Errno {
	for _, r := range []role{failure, aftermath, detail} {
		for _, sure := range []bool{true, false} {
			for _, c := range g.clues {
				if c.role == r && c.sure == sure && c.errno != (Errno{}) {
					return c.errno
				}
			}
		}
	}
	return Errno{}
}

func sameErrno(a, b Errno) bool {
	either := func(e Errno, n int) bool { return e.Either && unsupported(n) }
	return a.Number == 0 || b.Number == 0 || a.Number == b.Number || either(a, b.Number) || either(b, a.Number)
}

// lastKnown is the verifier's last sentence in a log.
func lastKnown(log []string) string {
	for _, l := range slices.Backward(log) {
		if known(l) {
			return l
		}
	}
	return ""
}
