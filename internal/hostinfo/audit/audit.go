// SPDX-License-Identifier: Apache-2.0

// Package audit looks at every program that is loaded on this node and says what
// net.core.bpf_jit_harden would do to it. It changes nothing.
package audit

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"golang.org/x/sys/unix"
)

// Schema names the JSON form of Report. A change that breaks a reader changes the number.
const Schema = "bpfwhy.audit/v2"

// Report is an audit (docs/schema/audit-v2.schema.json).
type Report struct {
	Schema  string    `json:"schema"`
	Time    time.Time `json:"time"`
	Release string    `json:"release"`
	Harden  *int      `json:"harden,omitempty"` // net.core.bpf_jit_harden, nil: could not be read
	Summary Summary   `json:"summary"`
	// Remedies are the ways out for the programs that break at 2, the best one first.
	Remedies []load.Remedy `json:"remedies,omitempty"`
	Memory   Memory        `json:"jit_memory"`
	Programs []Program     `json:"programs"`
	// Unseen is what could not be looked at, and why.
	Unseen []string `json:"unseen,omitempty"`
}

// Answer says whether every program survives net.core.bpf_jit_harden=2.
type Answer string

// Unsure: none of those that were judged breaks, and others could not be judged. Nothing: no
// program was judged, because hardening can break none of those that are loaded, or none could be
// read.
const (
	Yes     Answer = "yes"
	No      Answer = "no"
	Unsure  Answer = "unsure"
	Nothing Answer = "nothing_to_judge"
)

// Summary counts.
type Summary struct {
	CanHarden Answer          `json:"can_harden"`
	Sentence  string          `json:"sentence"`
	Programs  int             `json:"programs"`
	Judged    int             `json:"judged"` // of those that hardening may break
	JITed     int             `json:"jited"`
	Blinded   int             `json:"blinded"`  // known to be
	At1       map[Outcome]int `json:"harden_1"` // programs by their fate
	At2       map[Outcome]int `json:"harden_2"` //
	// Time is what blinding would add to loading all of them again, roughly; those that are blinded
	// already left out.
	Time     time.Duration `json:"blinding_ns,omitempty"`
	Vanished int           `json:"vanished"`           // unloaded while they were looked at
	Left     int           `json:"left_out,omitempty"` // beyond the most that are listed
}

// Memory is what compiled programs take.
type Memory struct {
	Used     *uint64 `json:"used_bytes,omitempty"`  // of all, at most; nil: could not be read
	Limit    *int64  `json:"limit_bytes,omitempty"` // net.core.bpf_jit_limit: it binds loaders without CAP_BPF
	Programs uint64  `json:"programs_bytes"`        // code of the programs listed; classic filters have no id
	Top      []Share `json:"top_owners"`
}

// Share is the part of one owner: a process, or a container if it runs in one. A program with
// several owners counts for the first.
type Share struct {
	Owner    string `json:"owner"`
	Programs int    `json:"programs"`
	Bytes    uint64 `json:"bytes"`
}

// Program is one loaded program.
type Program struct {
	ID         uint32   `json:"id"`
	Name       string   `json:"name"`
	Type       string   `json:"type"`
	Tag        string   `json:"tag"`
	UID        uint32   `json:"created_by_uid"`
	Insns      int      `json:"insns"` // slots as the kernel has them
	Functions  int      `json:"functions"`
	JITed      bool     `json:"jited"`
	JITedBytes int      `json:"jited_bytes"`
	Blinded    *bool    `json:"blinded,omitempty"` // nil: cannot be told, or it has no constants
	Owners     []Owner  `json:"owners"`
	MoreOwners int      `json:"more_owners,omitempty"`
	Pins       []string `json:"pins,omitempty"`
	Links      []Link   `json:"links,omitempty"`
	At1        Fate     `json:"harden_1"`
	At2        Fate     `json:"harden_2"`
	Unread     string   `json:"unread,omitempty"` // what the kernel kept back, and why
	// Danger says what it may do to the machine as it is now, interpreted. Empty as a rule.
	Danger string `json:"danger,omitempty"`
}

// Most programs that are listed: a leak of a node had 75,000.
const maxPrograms = 1 << 18

// Run looks at the node. The profile should be fresh, and hold Blinding if that can be had. Package
// rights has what it needs. A node changes meanwhile: what is unloaded is counted as vanished.
func Run(ctx context.Context, p *node.Profile) (*Report, error) {
	r := &Report{Schema: Schema, Time: time.Now(), Release: p.Release, Programs: []Program{}}
	if v, ok := p.Sysctl("net.core.bpf_jit_harden"); ok {
		r.Harden = new(int(v))
	}
	if _, _, err := nextID(abi.CmdProgGetNextID, 0); err != nil {
		return nil, fmt.Errorf("list programs: %w", err)
	}
	h := findHolders(ctx)
	if why := p.Unknown["net.core.bpf_jit_harden"]; why != "" {
		r.Unseen = append(r.Unseen, "net.core.bpf_jit_harden: "+why)
	}
	r.Unseen = append(append(r.Unseen, h.unseen...),
		"classic filters (seccomp, SO_ATTACH_FILTER): they are compiled and blinded too, but have no id to list them by",
		"programs that are not loaded now",
		"other things that keep programs loaded: tc, XDP and control group attachments without a link, tail calls, pins in other mount namespaces")
	k := newKernel(p)
	for id := uint32(0); ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		next, more, err := nextID(abi.CmdProgGetNextID, id)
		if err != nil {
			return nil, fmt.Errorf("list programs: %w", err)
		}
		if !more {
			break
		}
		id = next
		if len(r.Programs) == maxPrograms {
			r.Summary.Left++
			continue
		}
		prog, err := look(id, k, h, p.Machine)
		switch {
		case errors.Is(err, unix.ENOENT):
			r.Summary.Vanished++
		case err != nil:
			r.Programs = append(r.Programs, Program{ID: id, Owners: []Owner{}, Unread: err.Error(),
				At1: Fate{Outcome: Unknown}, At2: Fate{Outcome: Unknown}})
		default:
			r.Programs = append(r.Programs, *prog)
		}
	}
	r.memory(p)
	r.summarize(p)
	return r, nil
}

// look describes one program.
//
//revive:disable-next-line:cyclomatic one question after the other, and each may fail
func look(id uint32, k kernel, h *holders, machine string) (*Program, error) {
	fd, err := byID(abi.CmdProgGetFDByID, id)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	d, err := read(fd)
	if err != nil {
		return nil, err
	}
	c := examine(d, machine)
	c.mapTypes = mapTypes(d.insns)
	p := &Program{ID: id, Name: d.Name.String(), Type: abi.ProgTypeName(d.Type), Tag: hex.EncodeToString(d.Tag[:]), UID: d.CreatedByUID,
		Insns: int(d.XlatedProgLen / 8), Functions: c.number, JITed: c.jited, JITedBytes: int(d.JitedProgLen), Blinded: c.blinded,
		Owners: h.owners[id], MoreOwners: h.more[id], Pins: h.pins[id], Links: h.links[id]}
	if p.Owners == nil {
		p.Owners = []Owner{}
	}
	switch {
	case d.refused:
		p.Unread = "code: the kernel does not show the code of blinded programs here (kernel.kptr_restrict, kernel.perf_event_paranoid, CAP_SYSLOG)"
	case d.XlatedProgLen == 0:
		p.Unread = "code: the kernel tells its length only to processes with CAP_BPF"
	case c.blinded == nil && c.jited && c.number > 1:
		p.Unread = "blinded or not: its compiled code could not be read"
	}
	if !c.jited && c.insns != nil {
		p.Danger = c.danger(k)
		if p.Danger == "" && p.Unread == "" && k.refuses() != node.Yes && (k.alwaysOn == nil || !*k.alwaysOn) && c.callsHidden(k) {
			p.Unread = "calls: it is interpreted, and " + unseenCalls
		}
	}
	p.At2 = harden2(c, k)
	p.At1 = harden1(c, p.At2, loaderRights(d.Type, d.CreatedByUID, p.Owners, k), k)
	p.At1.Rule, p.At2.Rule = p.At1.rule(p.Functions), p.At2.rule(p.Functions)
	return p, nil
}

// label names who holds a program.
func (p *Program) label() string {
	switch {
	case len(p.Owners) > 0 && p.Owners[0].Container != "":
		return p.Owners[0].Comm + " in " + p.Owners[0].Container
	case len(p.Owners) > 0:
		return fmt.Sprintf("%s (pid %d)", p.Owners[0].Comm, p.Owners[0].PID)
	case len(p.Pins) > 0:
		return "pinned, no process"
	case len(p.Links) > 0:
		return "attached by a link, no process"
	}
	return "no process, link or pin"
}

// Most owners in the list.
const topOwners = 10

func (r *Report) memory(p *node.Profile) {
	m := &r.Memory
	m.Used, m.Top = p.JITUsed, []Share{}
	if v, ok := p.Sysctl("net.core.bpf_jit_limit"); ok {
		m.Limit = &v
	}
	at := map[string]int{}
	for i := range r.Programs {
		prog := &r.Programs[i]
		m.Programs += uint64(prog.JITedBytes)
		l := prog.label()
		if _, ok := at[l]; !ok {
			at[l] = len(m.Top)
			m.Top = append(m.Top, Share{Owner: l})
		}
		m.Top[at[l]].Programs++
		m.Top[at[l]].Bytes += uint64(prog.JITedBytes)
	}
	slices.SortStableFunc(m.Top, func(a, b Share) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(b.Programs, a.Programs))
	})
	m.Top = m.Top[:min(len(m.Top), topOwners)]
}

// judged reports a program that tells whether the node can be hardened: it is blinded already, or
// it grows by blinding and has jumps, so that it may break.
func (p *Program) judged() bool {
	f := p.At2
	switch {
	case f.Breaks():
		return true
	case f.Outcome != JITed:
		return false
	case p.Blinded != nil && *p.Blinded:
		return true
	}
	return f.After > p.Insns && f.Margin != nil && *f.Margin < blinding.MaxOffset
}

// sorted are the programs of a report by what hardening does to them.
type sorted struct {
	broken, unknown []*Program
	tightest        *Program
	breakAt1        int
	dangers         int
	inGo            bool // a process that holds a broken one is in Go
	unblinded       bool // one of those that were judged is not known to be blinded now
}

// summarize counts, says in one sentence whether the node can be hardened, and names the ways out.
func (r *Report) summarize(p *node.Profile) {
	at := r.count()
	s := &r.Summary
	switch {
	case len(at.broken) > 0:
		s.CanHarden, s.Sentence = No, r.no(at.broken)
		spared := at.breakAt1 == 0 && (r.Harden == nil || *r.Harden != 1)
		r.Remedies = explain.BlindingRemedies(p, at.inGo, spared)
	case s.Judged == 0:
		s.CanHarden, s.Sentence = Nothing, r.nothing(len(at.unknown)+s.Left, p)
	case len(at.unknown) > 0 || s.Left > 0:
		s.CanHarden = Unsure
		s.Sentence = fmt.Sprintf("Not certain: %d of %s could not be judged; none of the others would break under %s.",
			len(at.unknown)+s.Left, programs(s.Programs+s.Left), hardenTo2)
	default:
		s.CanHarden, s.Sentence = Yes, r.yes(&at)
	}
	if at.dangers > 0 {
		s.Sentence = fmt.Sprintf("DANGER: %s may crash the machine when interpreted. ", ofThem(at.dangers)) + s.Sentence
	}
	if (s.CanHarden == No || s.CanHarden == Unsure) && !r.hardened() && at.breakAt1 == 0 {
		s.Sentence += " At 1 all of them would load as now: only loaders " + map[node.Answer]string{
			node.Yes: "without CAP_BPF", node.No: "without CAP_SYS_ADMIN", node.Unknown: "without CAP_BPF (before 6.1: without CAP_SYS_ADMIN)",
		}[p.Does(node.HardenSparesCapBPF)] + " are blinded."
	}
}

const hardenTo2 = "net.core.bpf_jit_harden=2"

func (r *Report) hardened() bool { return r.Harden != nil && *r.Harden >= 2 }

func (r *Report) no(broken []*Program) string {
	which := fmt.Sprintf("%d of %d programs", len(broken), r.Summary.Programs)
	if r.Summary.Programs == 1 {
		which = "the one program"
	}
	if r.hardened() {
		return fmt.Sprintf("It is hardened (%s), at a cost: %s cannot be loaded again as now: %s.", hardenTo2, which, list(broken))
	}
	return fmt.Sprintf("No: %s would not survive %s: %s.", which, hardenTo2, list(broken))
}

func (r *Report) yes(at *sorted) string {
	all := programs(r.Summary.Programs)
	said := fmt.Sprintf("Yes: %s would load as now under %s", all, hardenTo2)
	switch {
	case r.hardened() && at.unblinded:
		said = fmt.Sprintf("It is hardened (%s), and %s would load again as now", hardenTo2, all)
	case r.hardened():
		said = fmt.Sprintf("It is hardened (%s), and %s survived it", hardenTo2, all)
	}
	if at.tightest != nil {
		said += fmt.Sprintf("; the tightest, %s, has %d slots to spare", at.tightest.Title(), *at.tightest.At2.Margin)
	}
	return said + "."
}

// nothing says why no program was judged, and what to do.
func (r *Report) nothing(unread int, p *node.Profile) string {
	known := "So it is not known whether this node can be hardened."
	if r.hardened() {
		known = fmt.Sprintf("The node is hardened (%s), but it is not known what that breaks.", hardenTo2)
	}
	return "Nothing to judge: " + r.unjudged(unread, p) + ". " + known + " Start what the node runs, and repeat the audit. " +
		"'bpfwhy check' judges programs in files, before they are loaded."
}

// count fills in the numbers of the summary.
//
//revive:disable-next-line:cyclomatic a counter for each property of a program
func (r *Report) count() (at sorted) {
	s := &r.Summary
	s.Programs, s.At1, s.At2 = len(r.Programs), map[Outcome]int{}, map[Outcome]int{}
	for i := range r.Programs {
		p := &r.Programs[i]
		blinded := p.Blinded != nil && *p.Blinded
		if p.JITed {
			s.JITed++
		}
		if blinded {
			s.Blinded++
		}
		if p.judged() {
			s.Judged++
			at.unblinded = at.unblinded || !blinded
		}
		s.At1[p.At1.Outcome]++
		s.At2[p.At2.Outcome]++
		s.Time += p.At2.Time
		if p.At1.Breaks() || p.At1.Outcome == Unknown {
			at.breakAt1++
		}
		if p.Danger != "" || p.At2.Danger != "" {
			at.dangers++
		}
		switch {
		case p.At2.Breaks():
			at.broken = append(at.broken, p)
			at.inGo = at.inGo || slices.ContainsFunc(p.Owners, func(o Owner) bool { return o.Runtime == load.RuntimeGo })
		case p.At2.Outcome == Unknown:
			at.unknown = append(at.unknown, p)
		case p.At2.Margin != nil && (at.tightest == nil || *p.At2.Margin < *at.tightest.At2.Margin):
			at.tightest = p
		}
	}
	return at
}

// unjudged says why no program was judged.
func (r *Report) unjudged(unread int, p *node.Profile) string {
	total := r.Summary.Programs + r.Summary.Left
	switch {
	case total == 0:
		return "no program is loaded now"
	case newKernel(p).jitOff:
		return "net.core.bpf_jit_enable is 0, so the kernel compiles no program and blinds none"
	case unread == total:
		return fmt.Sprintf("%s could not be read", programs(total))
	case unread > 0:
		return fmt.Sprintf("%d of %s could not be read, and hardening cannot break the others", unread, programs(total))
	}
	return fmt.Sprintf("hardening cannot break %s. Each of them has no constants to blind or no jumps, or is not compiled now", programs(total))
}

func ofThem(n int) string {
	if n == 1 {
		return "one program"
	}
	return fmt.Sprintf("%d programs", n)
}

func programs(n int) string {
	if n == 1 {
		return "the one program"
	}
	return fmt.Sprintf("%d programs", n)
}

// Title is the name, which need not be the only one of its kind, with the id.
func (p *Program) Title() string { return fmt.Sprintf("%s (id %d)", cmp.Or(p.Name, "(no name)"), p.ID) }

// list names the first few, with what becomes of them.
func list(ps []*Program) string {
	const most = 5
	var out []string
	for _, p := range ps[:min(len(ps), most)] {
		out = append(out, fmt.Sprintf("%s %s (%s)", p.Title(), said[p.At2.Outcome], p.At2.Rule))
	}
	if n := len(ps) - most; n > 0 {
		out = append(out, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(out, ", ")
}

var said = map[Outcome]string{
	NotJITed:        "is left to the interpreter",
	Fails:           "fails to load",
	FailsOrNotJITed: "fails to load, or is left to the interpreter",
	Miscompiled:     "is compiled wrongly",
}
