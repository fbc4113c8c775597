// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/objects/check"
	"github.com/bpfwhy/bpfwhy/internal/objects/object"
)

// Needs are what an agent needs of a node.
type Needs struct {
	list    []need
	objects []Source
}

// need is one of them.
type need struct {
	kind kind
	of   string // a type, a helper, a word
	// progType is that of the programs, "" where any does, or where it is not known.
	progType string
	since    insn.Version // of an instruction
	users    []string
	// doubt says why a node that lacks it may do all the same. Empty as a rule.
	doubt string
}

type kind int

const (
	programType kind = iota
	mapType
	helper
	instruction // that belongs to a set of node.Features, or is told by its release
	word        // of the table
	capabilities
)

// Source is where an object comes from.
type Source struct {
	Path string
	// Label tells its programs from those of others; "" where there are none.
	Label string
	// Embedded: it is in the data of an executable.
	Embedded bool
	Object   *object.Object
}

// add notes a need, once for all programs that have it.
func (n *Needs) add(x need, user string) {
	i := slices.IndexFunc(n.list, func(y need) bool { return x.kind == y.kind && x.of == y.of && x.progType == y.progType })
	if i < 0 {
		i = len(n.list)
		n.list = append(n.list, x)
	}
	have := &n.list[i]
	// A program is looked at as a whole before the next one.
	if k := len(have.users); user != "" && (k == 0 || have.users[k-1] != user) {
		have.users = append(have.users, user)
	}
	if x.doubt == "" {
		have.doubt = "" // somebody needs it without a doubt
	}
	if have.since.Before(x.since) {
		have.since = x.since
	}
}

// AddObject adds what the programs of an object need. An error says what is wrong with the object.
func (n *Needs) AddObject(s Source) error {
	n.objects = append(n.objects, s)
	linked := 0
	for _, p := range s.Object.Programs {
		l, err := s.Object.Link(p)
		if err != nil {
			return err
		}
		if linked += len(l.Insns); linked > check.MaxLinked {
			return check.ErrTooMany
		}
		user := p.Name
		if s.Label != "" {
			user += " of " + s.Label
		}
		n.addProgram(p, l, user)
	}
	return nil
}

// Why a program may do without what it has.
const (
	optional = "its section begins with ?, so it is loaded only if the agent asks for it"
	switched = "the program may switch the code off where the kernel lacks it (CO-RE, .rodata)"
	noLoop   = "a jump that goes back need not be a loop"
)

func (n *Needs) addProgram(p object.Program, l *object.Linked, user string) {
	doubt := ""
	if strings.HasPrefix(p.Section, "?") {
		doubt = optional
	}
	t := p.Type()
	n.add(need{kind: programType, of: t, doubt: doubt}, user)
	n.add(need{kind: capabilities, of: t, doubt: doubt}, user)
	if w := wordOf(p.Section, t); w != "" {
		n.add(need{kind: word, of: w, doubt: doubt}, user)
	}
	if l.NeedsTypes() {
		n.add(need{kind: word, of: "co-re", doubt: doubt}, user)
	}
	if len(l.Insns) > 4096 {
		n.add(need{kind: word, of: "large-programs", doubt: doubt}, user)
	}
	code := doubt
	if code == "" && l.Chooses() {
		code = switched
	}
	for i, in := range l.Insns {
		if !insn.IsSecondHalf(l.Insns, i) {
			n.addInstruction(l, i, in, need{progType: t, doubt: doubt}, code, user)
		}
	}
}

// addInstruction adds what the instruction at slot i needs. of has the type of the program, and why
// a node may do without it; code is why it may do without this code.
func (n *Needs) addInstruction(l *object.Linked, i int, in insn.Instruction, of need, code, user string) {
	switch {
	case in.IsHelperCall():
		n.add(need{kind: helper, of: helperName(in.Imm), progType: of.progType, doubt: code}, user)
	case in.IsKfuncCall():
		n.add(need{kind: word, of: "kfuncs", doubt: code}, user)
	case in.IsMapLoad():
		if m, ok := l.MapType(i); ok {
			n.add(need{kind: mapType, of: abi.MapTypeName(m), doubt: of.doubt}, user)
		}
	}
	if name, set, since, ok := explain.NewerInstruction(in); ok {
		// One line for a set; what came to it later has one of its own.
		if first, ok := firstOf(set); ok && since == first {
			name = set
		}
		n.add(need{kind: instruction, of: name, progType: set, since: since, doubt: of.doubt}, user)
	}
	if to, ok := in.Target(i); ok && to <= i && !in.IsMayGoto() {
		n.add(need{kind: word, of: "bounded-loops", doubt: noLoop}, user)
	}
}

// samples are the oldest instructions of their sets; v3 grew by atomic operations later.
var samples = map[string]insn.Instruction{
	"v3": {Code: insn.ClassJMP32 | insn.OpJEQ}, "v4": {Code: insn.ClassALU64 | insn.OpEND}, "gotol": {Code: insn.OpcodeGotol},
}

// firstOf is the release with which a set of instructions came.
func firstOf(set string) (insn.Version, bool) {
	_, _, since, ok := explain.NewerInstruction(samples[set])
	return since, ok
}

func helperName(id int32) string {
	if h, ok := insn.HelperByID(int(id)); ok {
		return h.Name
	}
	return fmt.Sprintf("number %d", id)
}

// wordOf is what a program needs to be attached.
func wordOf(section, progType string) string {
	name := strings.TrimPrefix(section, "?")
	head, _, _ := strings.Cut(name, "/")
	switch {
	case strings.HasPrefix(head, "kprobe.multi"), strings.HasPrefix(head, "kretprobe.multi"):
		return "kprobe-multi"
	case strings.HasPrefix(head, "uprobe.multi"), strings.HasPrefix(head, "uretprobe.multi"):
		return "uprobe-multi"
	case strings.HasPrefix(head, "uprobe"), strings.HasPrefix(head, "uretprobe"), head == "usdt":
		return "uprobe"
	case strings.HasPrefix(head, "tcx"):
		return "tcx"
	case strings.HasPrefix(head, "netkit"):
		return "netkit"
	}
	switch progType {
	case "kprobe", "tracepoint":
		return progType
	case "lsm":
		return "lsm"
	case "tracing":
		if strings.HasPrefix(head, "iter") || head == "tp_btf" {
			return "kernel-btf"
		}
		return "fentry"
	case "struct_ops":
		return "kernel-btf"
	}
	return ""
}

// HelperTypes are the program types whose helpers the needs ask for, all where one asks for a
// helper of any type. Those of kprobes tell of lockdown.
func (n *Needs) HelperTypes() (types []string, all bool) {
	types = []string{"kprobe"}
	for i := range n.list {
		x := &n.list[i]
		if x.kind != helper {
			continue
		}
		if x.progType == "" {
			return nil, true
		}
		types = append(types, stand(x.progType))
	}
	slices.Sort(types)
	return slices.Compact(types), false
}

// stand is the type whose helpers a program of another one may call, where that cannot be tried
// itself: tracing_prog_func_proto falls back on that of raw tracepoints, and bpf_lsm_func_proto on
// that of tracing programs (kernel/trace/bpf_trace.c, kernel/bpf/bpf_lsm.c).
func stand(progType string) string {
	if progType == "tracing" || progType == "lsm" {
		return "raw_tracepoint"
	}
	return progType
}
