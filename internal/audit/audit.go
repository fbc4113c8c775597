// SPDX-License-Identifier: Apache-2.0

// Package audit looks at every program that is loaded on this node and says what net.core.bpf_jit_harden would do to
// it. It changes nothing.
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

	"github.com/bpfwhy/bpfwhy/internal/assemble"
	"github.com/bpfwhy/bpfwhy/node"
	"golang.org/x/sys/unix"
)

// Schema names the JSON form of Report. A change that breaks a reader changes the number.
const Schema = "bpfwhy.audit/v1"

// Report is an audit (docs/schema/audit-v1.schema.json).
type Report struct {
	Schema   string    `json:"schema"`
	Time     time.Time `json:"time"`
	Release  string    `json:"release"`
	Harden   *int      `json:"harden,omitempty"` // net.core.bpf_jit_harden, nil: could not be read
	Summary  Summary   `json:"summary"`
	Memory   Memory    `json:"jit_memory"`
	Programs []Program `json:"programs"`
	// Unseen is what could not be looked at, and why.
	Unseen []string `json:"unseen,omitempty"`
}

// Answer says whether every program survives net.core.bpf_jit_harden=2.
type Answer string

// Unsure: none is known to break, and some could not be judged.
const (
	Yes    Answer = "yes"
	No     Answer = "no"
	Unsure Answer = "unsure"
)

// Summary counts.
type Summary struct {
	CanHarden Answer          `json:"can_harden"`
	Sentence  string          `json:"sentence"`
	Programs  int             `json:"programs"`
	JITed     int             `json:"jited"`
	Blinded   int             `json:"blinded"`  // known to be
	At1       map[Outcome]int `json:"harden_1"` // programs by their fate
	At2       map[Outcome]int `json:"harden_2"` //
	// Time is what blinding would add to loading all of them again, roughly; those that are blinded already left out.
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

// Share is the part of one owner: a process, or a container if it runs in one. A program with several owners counts for the first.
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

// Run looks at the node. The profile should be fresh, and hold Blinding if that can be had. Package rights has what it needs. A node changes meanwhile: what is unloaded is counted as vanished.
func Run(ctx context.Context, p *node.Profile) (*Report, error) {
	r := &Report{Schema: Schema, Time: time.Now(), Release: p.Release, Programs: []Program{}}
	if v, ok := p.Sysctl("net.core.bpf_jit_harden"); ok {
		r.Harden = new(int(v))
	}
	if _, _, err := nextID(cmdProgGetNextID, 0); err != nil {
		return nil, fmt.Errorf("list programs: %w", err)
	}
	h := findHolders(ctx)
	if why := p.Unknown["net.core.bpf_jit_harden"]; why != "" {
		r.Unseen = append(r.Unseen, "net.core.bpf_jit_harden: "+why)
	}
	r.Unseen = append(append(r.Unseen, h.unseen...),
		"classic filters (seccomp, SO_ATTACH_FILTER): they have no id, and are compiled and blinded too",
		"programs that are not loaded now",
		"what else keeps programs loaded: tc, XDP and control groups attached without a link, tail calls, other mount namespaces' pins")
	k := newKernel(p)
	for id := uint32(0); ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		next, more, err := nextID(cmdProgGetNextID, id)
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
	r.summarize()
	return r, nil
}

// look describes one program.
func look(id uint32, k kernel, h *holders, machine string) (*Program, error) {
	fd, err := byID(cmdProgGetFDByID, id)
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
	p := &Program{ID: id, Name: d.progName(), Type: assemble.ProgramType(d.typ), Tag: hex.EncodeToString(d.tag[:]), UID: d.uid,
		Insns: int(d.xlatedLen / 8), Functions: c.number, JITed: c.jited, JITedBytes: int(d.jitedLen), Blinded: c.blinded,
		Owners: h.owners[id], MoreOwners: h.more[id], Pins: h.pins[id], Links: h.links[id]}
	if p.Owners == nil {
		p.Owners = []Owner{}
	}
	switch {
	case d.refused:
		p.Unread = "code: the kernel does not show that of blinded programs here (kernel.kptr_restrict, kernel.perf_event_paranoid, CAP_SYSLOG)"
	case d.xlatedLen == 0:
		p.Unread = "code: the kernel gives its length to CAP_BPF only"
	case c.blinded == nil && c.jited && c.number > 1:
		p.Unread = "blinded or not: its compiled code could not be looked at"
	}
	if !c.jited && c.insns != nil {
		p.Danger = c.danger(k)
		if p.Danger == "" && p.Unread == "" && !k.refuses && (k.alwaysOn == nil || !*k.alwaysOn) && c.callsHidden(k) {
			p.Unread = "calls: it is interpreted, and " + unseenCalls
		}
	}
	p.At2 = harden2(c, k)
	p.At1 = harden1(c, p.At2, loaderRights(d.typ, d.uid, p.Owners, k), k)
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

// summarize counts, and says in one sentence whether the node can be hardened.
func (r *Report) summarize() {
	s := &r.Summary
	s.Programs, s.At1, s.At2 = len(r.Programs), map[Outcome]int{}, map[Outcome]int{}
	var broken, unknown []*Program
	var tightest *Program
	breaks1 := 0
	for i := range r.Programs {
		p := &r.Programs[i]
		if p.JITed {
			s.JITed++
		}
		if p.Blinded != nil && *p.Blinded {
			s.Blinded++
		}
		s.At1[p.At1.Outcome]++
		s.At2[p.At2.Outcome]++
		s.Time += p.At2.Time
		if p.At1.Breaks() || p.At1.Outcome == Unknown {
			breaks1++
		}
		switch {
		case p.At2.Breaks():
			broken = append(broken, p)
		case p.At2.Outcome == Unknown:
			unknown = append(unknown, p)
		case p.At2.Margin != nil && (tightest == nil || *p.At2.Margin < *tightest.At2.Margin):
			tightest = p
		}
	}
	const at2 = "net.core.bpf_jit_harden=2"
	hardened := r.Harden != nil && *r.Harden >= 2
	switch {
	case len(broken) > 0:
		s.CanHarden = No
		s.Sentence = fmt.Sprintf("No: %d of %s would not survive %s: %s.", len(broken), programs(s.Programs), at2, list(broken))
		if hardened {
			s.Sentence = fmt.Sprintf("It is hardened (%s), at a price: %d of %s do not survive it: %s.", at2, len(broken), programs(s.Programs), list(broken))
		}
	case len(unknown) > 0 || s.Left > 0:
		s.CanHarden = Unsure
		s.Sentence = fmt.Sprintf("Not certain: %d of %s could not be judged; none of the others would break under %s.", len(unknown)+s.Left, programs(s.Programs+s.Left), at2)
	default:
		s.CanHarden = Yes
		s.Sentence = fmt.Sprintf("Yes: %s would load as now under %s", programs(s.Programs), at2)
		switch {
		case s.Programs == 0:
			s.Sentence = "Yes, as far as can be seen: no program is loaded now"
		case hardened:
			s.Sentence = fmt.Sprintf("It is hardened (%s), and %s survived it", at2, programs(s.Programs))
		}
		if tightest != nil {
			s.Sentence += fmt.Sprintf("; the tightest, %s, has %d slots to spare", tightest.Title(), *tightest.At2.Margin)
		}
		s.Sentence += "."
	}
	dangers := 0
	for i := range r.Programs {
		if p := &r.Programs[i]; p.Danger != "" || p.At2.Danger != "" {
			dangers++
		}
	}
	if dangers > 0 {
		s.Sentence = fmt.Sprintf("DANGER: %s may crash the machine when interpreted. ", ofThem(dangers)) + s.Sentence
	}
	if s.CanHarden != Yes && !hardened && breaks1 == 0 {
		s.Sentence += " At 1 all of them would load as now: only loaders without CAP_BPF are blinded."
	}
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
		out = append(out, p.Title()+" "+said[p.At2.Outcome])
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
