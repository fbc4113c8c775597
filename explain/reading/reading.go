// SPDX-License-Identifier: Apache-2.0

// Package reading reads error text: from what loaders, container runtimes, daemons and the kernel's
// log print to failed attempts, each with the lines that tell of it.
//
// It goes in stages, each in a file of its own. A text of any length becomes the lines that may
// matter ([Lines]); each loses what is around it ([Unwrap]); each tells what it has to tell (read:
// errno, what was attempted, whether it quotes the verifier); lines about one failure come together
// (split); and each of these becomes a [Failure].
//
// Nothing in a text proves anything. What the text does not say stays empty.
package reading

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// Failure is one failure that a text tells of.
type Failure struct {
	// Attempt is what was attempted and how it ended, as far as the text says. Its evidence is
	// empty.
	Attempt *load.Attempt
	// Call names what was called where Attempt.Kind is load.OtherCommand.
	Call string
	// Log are the verifier's words as it prints them, "" without any.
	Log string
	// Sentence says that Log is a single sentence, and no log.
	Sentence bool
	// Errno is what the text names, 0 for none. Sure says that it stands with what was attempted.
	Errno Errno
	Sure  bool
	// Line is where the errno stands, or else the line that tells most of the failure.
	Line string
	// Lines are all that tell of it.
	Lines []string
	// Meant says that it is part of a test that passed.
	Meant bool
	// Times is how often the text tells of the same, at least: of what repeats itself much in a
	// large text some is left out.
	Times int
}

// Text is what was read.
type Text struct {
	Failures []Failure
	Node     Node
	// Spared are failures after which the program went on in another way and succeeded, or that a
	// test wanted.
	Spared []Failure
	// Tolerated are lines about what failed and was done without, Noise those about nothing.
	Tolerated, Noise []string
}

// Word is what a table says of a line that no sentence of this package is about.
type Word struct {
	Kind  load.Kind // what was attempted, "" where the kernel was not asked
	Tells Telling
	// Alone says that the line needs no other sign of a failure.
	Alone bool
	// Beside says that other programs print it too: another line has to be about BPF.
	Beside bool
	// Remark says that the program goes on without: it counts where nothing else failed.
	Remark bool
}

// Telling is what a line tells of a failure.
type Telling int

const (
	Reason   Telling = iota // why it failed
	Echo                    // that it failed, and no more
	Hint                    // what may be the reason of a failure that another line tells
	Harmless                // what failed and is done without
)

// Table finds what a line says beside the sentences of this package.
type Table func(line string) (Word, bool)

// Read reads lines as [Lines] returns them.
func Read(lines []string, table Table) Text {
	unwrapped := Unwrap(lines)
	groups, aside := split(unwrapped, table)
	t := Text{Node: nodeOf(unwrapped)}
	for i, g := range groups {
		until := len(unwrapped)
		if i+1 < len(groups) {
			until = groups[i+1].first
		}
		from := 0
		if i > 0 {
			from = groups[i-1].last + 1
		}
		f := g.failure(unwrapped, from, until)
		switch {
		case g.accepted() && f.Errno.Number == 0:
		case g.spared || g.meant:
			f.Meant = g.meant
			add(&t.Spared, f)
		default:
			add(&t.Failures, f)
		}
	}
	for _, c := range aside {
		if c.role == noise {
			t.Noise = append(t.Noise, unwrapped[c.at].Text)
		} else {
			t.Tolerated = append(t.Tolerated, unwrapped[c.at].Text)
		}
	}
	return t
}

// accepted reports a log that ends with statistics and complains of nothing, and nothing else: what
// a loader prints of a program that was loaded.
func (g *group) accepted() bool {
	ends := false
	for _, l := range g.log {
		ends = ends || statsLine.MatchString(l)
		if l != "" && (known(l) || !logLine(l) && !sourceRow.MatchString(l)) {
			return false // a complaint, and be it one that is not known
		}
	}
	return ends && !slices.ContainsFunc(g.clues, func(c clue) bool { return len(c.log) == 0 || failureWord.MatchString(strings.Join(c.log, " ")) })
}

// add counts a failure that was told before.
func add(list *[]Failure, f Failure) {
	for i := range *list {
		if o := &(*list)[i]; o.key() == f.key() || o.sameLog(&f) {
			o.Times++
			return
		}
	}
	*list = append(*list, f)
}

// sameLog reports a load that two logs tell of, a part and the whole: they end in one complaint.
func (f *Failure) sameLog(o *Failure) bool {
	name := func(a *load.Attempt) string {
		if a.Program == nil {
			return ""
		}
		return a.Program.Name
	}
	if f.Log == "" || o.Log == "" || f.Attempt.Kind != load.ProgLoad || o.Attempt.Kind != load.ProgLoad || name(f.Attempt) != "" && name(o.Attempt) != "" {
		return false
	}
	one, two := verifierlog.Classify(lastKnown(strings.Split(f.Log, "\n"))), verifierlog.Classify(lastKnown(strings.Split(o.Log, "\n")))
	return one.Kind != verifierlog.Unknown && one.Kind == two.Kind && maps.Equal(one.Args, two.Args) && len(one.Args) > 0
}

// key is the same for failures that are alike.
func (f *Failure) key() string {
	a := f.Attempt
	key := fmt.Sprint(a.Kind, f.Call, a.Errno, lastKnown(strings.Split(f.Log, "\n")))
	if a.Program != nil {
		key += "\x00" + a.Program.Name
	}
	if a.Map != nil {
		key += "\x00" + a.Map.Name
	}
	if at := a.Attach; at != nil {
		key += fmt.Sprint("\x00", at.Type, at.Message, at.Program, at.Target)
		if at.Program != nil {
			key += at.Program.Name
		}
		if at.Target != nil {
			key += fmt.Sprint(*at.Target)
		}
	}
	if f.Log != "" && lastKnown(strings.Split(f.Log, "\n")) == "" {
		key += "\x00" + f.Log
	}
	return key
}

// unsupported reports one of the two errnos that Go programs print alike.
func unsupported(n int) bool { return n == abi.EOPNOTSUPP || n == abi.ENOTSUPP }

// failure makes one of a group. Its neighbours are the lines from one place up to another.
func (g *group) failure(lines []Line, from, until int) Failure {
	main := g.main()
	f := Failure{Call: main.call, Times: 1, Log: logText(g.log)}
	f.Sentence = len(g.log) == 1 && known(g.log[0])
	kind, place := g.attempted(main)
	if kind.Attaches() && (place.target == "" || place == device) {
		if near := placeNear(lines[max(from, g.first-nearErrno):min(until, g.last+nearErrno)], g.source); near != nowhere {
			place = near
		}
	}
	f.Attempt = &load.Attempt{Kind: kind, Outcome: load.Failed}
	g.describe(f.Attempt, append([]clue{main}, g.clues...), place)
	f.Errno, f.Sure = g.errno(), true
	f.Line = lines[main.at].Text
	if at := g.errnoAt(); at >= 0 {
		f.Line = lines[at].Text
	} else {
		f.neighbour(g, lines, from, until)
	}
	if f.Errno.Nameless || slices.ContainsFunc(g.clues, func(c clue) bool { return c.weak }) {
		f.Sure = false
	}
	f.Attempt.Errno = f.Errno.Number
	f.Lines = g.lines(lines, f.Line)
	return f
}

// attempted is what the lines of a failure say was attempted, and where.
func (g *group) attempted(main clue) (load.Kind, place) {
	kind, place := main.kind, main.place
	for _, c := range g.clues {
		kind = cmp.Or(kind, c.kind)
		if place.target == "" && (c.kind.Attaches() || c.role != failure) || place == traced && c.place.target == "function" {
			place = c.place
		}
	}
	if !main.sure && kind.Attaches() && main.place == nowhere {
		for _, c := range g.clues {
			if c.kind.Attaches() && c.place != nowhere {
				kind = c.kind
				break
			}
		}
	}
	if main.role == aftermath && place.target != "" {
		kind = cmp.Or(kind, load.LinkCreate)
	}
	return cmp.Or(place.callOf(kind), load.ProgLoad), place
}

// callOf is the call that attaches there, where it is only known that a program was attached.
func (p place) callOf(kind load.Kind) load.Kind {
	switch {
	case kind != load.ProgAttach:
		return kind
	case p == xdp:
		return load.XDPAttach
	case slices.Contains([]string{"function", "uprobe", "tracepoint"}, p.target):
		return load.LinkCreate
	}
	return kind
}

// placeNear is the kind of places that the lines around a failure speak of, if it is one only.
func placeNear(lines []Line, source string) (found place) {
	for _, l := range lines {
		if l.Source != source || l.Gap {
			continue
		}
		for _, r := range readings(phrasesOf, l.Text, true) {
			switch {
			case r.place.target == "" || r.place == perfEvent || r.place == device:
			case found == nowhere || found.target == r.place.target:
				found = r.place
			default:
				return nowhere
			}
		}
	}
	return found
}

// describe fills in what was loaded, created or attached.
func (g *group) describe(a *load.Attempt, clues []clue, place place) {
	var all clue
	for _, c := range clues {
		all.fill(c)
	}
	switch a.Kind {
	case load.ProgLoad, load.BTFLoad, load.Seccomp, load.SocketFilter:
		if all.program != "" || all.programType != "" {
			a.Program = &load.Program{Name: all.program, Type: all.programType}
		}
		if a.Kind == load.ProgLoad && place.target == "function" && all.target.Name != "" {
			a.Attach = &load.Attach{Target: &load.AttachTarget{Kind: "function", Name: all.target.Name}}
		}
	case load.MapCreate, load.MapUpdate, load.ObjPin:
		if all.mapName != "" || all.mapType != "" {
			a.Map = &load.Map{Name: all.mapName, Type: all.mapType}
		}
		if a.Kind == load.ObjPin && all.target.Path != "" {
			a.Attach = &load.Attach{Target: &load.AttachTarget{Path: all.target.Path}}
		}
	default:
		a.Attach = all.attachment(place)
	}
}

// fill takes what another clue names and this one does not.
func (c *clue) fill(o clue) {
	c.program, c.programType = cmp.Or(c.program, o.program), cmp.Or(c.programType, o.programType)
	c.mapName, c.mapType = cmp.Or(c.mapName, o.mapName), cmp.Or(c.mapType, o.mapType)
	c.target.Name, c.target.Path = cmp.Or(c.target.Name, o.target.Name), cmp.Or(c.target.Path, o.target.Path)
	c.flags |= o.flags
	c.target.ID, c.target.Offset = cmp.Or(c.target.ID, o.target.ID), cmp.Or(c.target.Offset, o.target.Offset)
	if !strings.Contains(c.said, o.said) {
		c.said = strings.TrimPrefix(c.said+"; "+o.said, "; ")
	}
}

// attachment is what was to be attached and where, nil if nothing is known of it.
func (c *clue) attachment(place place) *load.Attach {
	at := load.Attach{Type: place.attachType, Message: c.said}
	if place == xdp {
		at.Flags = c.flags
	}
	if t := cmp.Or(c.programType, place.program); c.program != "" || t != "" {
		at.Program = &load.AttachProgram{Name: c.program, Type: t}
	}
	target := c.target
	target.Kind = place.target
	if target != (load.AttachTarget{}) {
		at.Target = &target
	}
	if at == (load.Attach{}) {
		return nil
	}
	return &at
}

// errnoAt is the line on which the failure's errno stands, -1 if it stands on none.
func (g *group) errnoAt() int {
	e := g.errno()
	for _, c := range g.clues {
		if e != (Errno{}) && c.errno == e {
			return c.at
		}
	}
	return -1
}

// neighbour looks for the errno in lines between and next to those of the failure: behind "Caused
// by", on a line of its own.
func (f *Failure) neighbour(g *group, lines []Line, from, until int) {
	var places []int
	for i := g.first; i <= min(g.last+nearErrno, until-1); i++ {
		if i > g.last && prompt.MatchString(lines[i].Text) {
			break // another command
		}
		places = append(places, i)
	}
	for i := g.first - 1; i >= max(from, g.first-2) && !prompt.MatchString(lines[i].Text); i-- {
		places = append(places, i)
	}
	for _, i := range places {
		l := lines[i]
		if l.Gap || l.Kernel || l.Source != g.source || slices.Contains(g.log, l.Text) || !mayNameErrno(l.Text) {
			continue
		}
		if e, ok := ErrnoOf(l.Text); ok {
			f.Errno, f.Line = e, l.Text
			f.Sure = cause.MatchString(l.Text) || i > g.first && i < g.last
			return
		}
	}
}

// mayNameErrno reports a line that may name the errno of another: it is not about another call.
func mayNameErrno(text string) bool {
	return withoutOtherCall(text) == text && (cause.MatchString(text) || !saidByLoader(text))
}

const nearErrno = 6 // lines behind a failure

// prompt is a shell's, with a command behind it.
var prompt = lazyregexp.New(`^(?:[$#❯➜→]|\[?[\w.-]+@[\w.-]+[: ][^\s$#]*\]?[$#]) \S`)

// lines are all that tell of the failure.
func (g *group) lines(all []Line, errnoLine string) []string {
	var out []string
	for _, c := range g.clues {
		for i := c.at; i <= c.end && len(out) < maxGroups; i++ {
			if t := all[i].Text; t != "" && !slices.Contains(out, t) {
				out = append(out, t)
			}
		}
	}
	if errnoLine != "" && !slices.Contains(out, errnoLine) {
		out = append(out, errnoLine)
	}
	return out
}

// What says in words of its own what was attempted, for people and for tests.
func (f *Failure) What() string {
	a := f.Attempt
	switch {
	case strings.HasPrefix(f.Call, "bpf(BPF_PROG_QUERY") || strings.Contains(f.Call, "_GET_NEXT_ID") || strings.Contains(f.Call, "_BY_ID") || strings.Contains(f.Call, "_BY_FD"):
		return "query"
	case f.Call == progDetach:
		return strings.TrimSpace("attach " + f.where())
	case f.Call != "":
		return f.Call
	case a.Kind == load.MapUpdate:
		return "map update"
	case a.Kind == load.PerfEventOpen && f.where() == "", f.where() == "perf_event":
		return "perf_event_open"
	case f.where() == "struct_ops":
		return "struct_ops"
	case a.Kind == load.ObjPin:
		return "pin"
	case a.Kind == load.SocketFilter, a.Kind == load.SocketAttach:
		return "socket filter"
	case !a.Kind.Attaches():
		return string(a.Kind)
	}
	return strings.TrimSpace("attach " + f.where())
}

// where names the kind of place of an attachment as its users do.
func (f *Failure) where() string {
	at := f.Attempt.Attach
	if at == nil {
		return ""
	}
	kind, program := "", ""
	if at.Target != nil {
		kind = at.Target.Kind
	}
	if at.Program != nil {
		program = at.Program.Type
	}
	switch {
	case program == "ext":
		return "freplace"
	case program == "tracing" || program == "lsm" || program == "xdp" || program == "struct_ops":
		return map[string]string{"tracing": "fentry", "lsm": "lsm", "xdp": "xdp", "struct_ops": "struct_ops"}[program]
	case kind == "function" && program == "kprobe":
		return "kprobe"
	case kind == "function":
		return "fentry"
	case kind == "netdev":
		return "tc"
	case kind == "raw_tracepoint":
		return "tracepoint"
	}
	return kind
}
