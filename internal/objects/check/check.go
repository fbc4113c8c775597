// SPDX-License-Identifier: Apache-2.0

// Package check says of the programs in object files what constant blinding will do to them,
// without a kernel. It is the other way round of explain: before the load instead of after it.
package check

import (
	"cmp"
	"fmt"
	"time"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/objects/jitonly"
	"github.com/bpfwhy/bpfwhy/internal/objects/object"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Schema names the JSON form of a Report: docs/schema/check-v1.schema.json.
const Schema = "bpfwhy.check/v1"

// Verdict is what becomes of a program.
type Verdict string

const (
	// Loads: the kernel compiles it.
	Loads Verdict = "loads"
	// Fails: a jump no longer fits, or may no longer fit: see Confidence. The load fails with 524
	// where the kernel has no interpreter, and the program is interpreted elsewhere.
	Fails Verdict = "fails"
	// Wraps: the kernel compiles something else, or may, and says nothing (before 7.3 and 7.2.10).
	Wraps Verdict = "wraps"
)

// Report is the result for many objects.
type Report struct {
	Schema string `json:"schema"`
	// Harden is the value of net.core.bpf_jit_harden that the verdicts are for.
	Harden int `json:"harden"`
	// Kernel is a release, or "any": the verdicts hold for each kernel from 5.10 to 7.2.
	Kernel string `json:"kernel"`
	// FailOn is how sure it must be that a program does not load, for it to be rejected: Possible,
	// else Likely.
	FailOn Confidence `json:"fail_on,omitempty"`
	// MinMargin is how many slots the tightest jump of a program must have left, for it not to be.
	MinMargin int      `json:"min_margin,omitempty"`
	Objects   []Object `json:"objects"`
	Summary   Summary  `json:"summary"`
}

// Summary counts.
type Summary struct {
	Objects  int `json:"objects"`
	Programs int `json:"programs"`
	Loads    int `json:"loads"`
	Fails    int `json:"fails"`
	Wraps    int `json:"wraps"`
	Bad      int `json:"bad"` // objects that could not be read
	// Skipped counts object files for other machines, found in folders.
	Skipped  int `json:"skipped"`
	Possible int `json:"possible,omitempty"` // of those that fail or wrap, they only may
	Tight    int `json:"tight,omitempty"`
	Rejected int `json:"rejected,omitempty"`
}

// Object is the result for one object: a file, or a part of one.
type Object struct {
	// Path is that of the file. For an object in an executable the offset is behind it.
	Path string `json:"path"`
	// Within is the executable that the object is in, from Offset on. Empty for a file of its own.
	Within   string    `json:"within,omitempty"`
	Offset   int64     `json:"offset,omitempty"`
	Error    string    `json:"error,omitempty"`
	Programs []Program `json:"programs"`
}

// File is the file that it is, or is in.
func (o *Object) File() string { return cmp.Or(o.Within, o.Path) }

// Program is the result for one program, with the functions that it reaches.
type Program struct {
	Name    string  `json:"name"`
	Section string  `json:"section"`
	Verdict Verdict `json:"verdict"`
	// Rule is what 'bpfwhy explain' tells about the failure.
	Rule string `json:"rule,omitempty"`
	// Unprivileged is what becomes of it when a loader without CAP_BPF loads it, where that differs
	// (harden=1).
	Unprivileged Verdict `json:"unprivileged,omitempty"`
	// Rejected programs make 'bpfwhy check' end with 1. Tight ones have less than Report.MinMargin
	// slots left. Report.Count sets both.
	Rejected bool `json:"rejected,omitempty"`
	Tight    bool `json:"tight,omitempty"`
	// Insns and Blinded count slots, before and after blinding. Functions counts the entry too.
	Insns     int `json:"insns"`
	Blinded   int `json:"blinded_insns"`
	Functions int `json:"functions"`
	// Margin is how many slots the tightest jump has to its limit, negative when it is beyond;
	// WorstMargin is what is left when the verifier adds the most that it is known to. Added is how
	// much that is, in slots after blinding.
	Margin      int `json:"margin"`
	WorstMargin int `json:"worst_margin"`
	Added       int `json:"verifier_adds"`
	// Confidence says how far the verdict can be relied on.
	Confidence Confidence `json:"confidence"`
	// BlindingNS is what blinding adds to the time of the load, roughly.
	BlindingNS time.Duration `json:"blinding_ns"`
	// TooFar counts the jumps that do not fit.
	TooFar int `json:"too_far"`
	// Jump is the one that fails first, or the tightest; nil without jumps.
	Jump *Jump `json:"jump,omitempty"`
	// AlsoPossible says what becomes of it instead if the kernel has a fix of which its release
	// does not tell. Empty where it is known.
	AlsoPossible string `json:"also_possible,omitempty"`
	// Danger says what the program may do to the machine where a kernel interprets it because it
	// fails to be blinded. Empty as a rule.
	Danger string `json:"danger,omitempty"`
}

// Jump is a jump of one function; From and To count slots of it.
type Jump struct {
	Function string  `json:"function"`
	From     int     `json:"from"`
	To       int     `json:"to"`
	Insn     string  `json:"insn"`
	Need     int     `json:"need"`
	Limit    int     `json:"limit"`
	Source   *Source `json:"source,omitempty"`
	Target   *Source `json:"target,omitempty"`
}

// Source is a line of source.
type Source struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Text string `json:"text,omitempty"`
}

// String is the usual file:line.
func (s *Source) String() string { return fmt.Sprintf("%s:%d", s.File, s.Line) }

// Settings say what the verdicts are for.
type Settings struct {
	Harden     int
	KernelName string
	Kernel     blinding.Kernel
	// WrapUnsure: the kernel may have the check that refuses a jump which wraps, and nothing tells.
	WrapUnsure bool
	// JITOnly says which instructions the kernel can only compile, and not interpret. The zero
	// value stands for any kernel.
	JITOnly jitonly.Kernel
}

// ForNode are the settings for a kernel of which a profile is known.
func ForNode(p *node.Profile, name string, harden int) Settings {
	return Settings{Harden: harden, KernelName: name, Kernel: p.Blinds(), JITOnly: jitonly.Kernel{Node: p},
		WrapUnsure: p.Does(node.ChecksWrap) == node.Unknown}
}

// MaxLinked bounds what all programs of one object are together, with the functions that they
// share. The largest real objects have some hundred thousand instructions.
const MaxLinked = 50_000_000

// ErrTooMany says that an object is beyond it.
var ErrTooMany = fmt.Errorf("its programs have more than %d instructions together", MaxLinked)

// File checks one object. An error, which Object.Error holds too, says what is wrong with the file;
// it does not name it.
func File(path string, s Settings) (Object, error) {
	out := Object{Path: path, Programs: []Program{}}
	o, err := object.ReadFile(path)
	if err == nil {
		out.Programs, err = Programs(o, s)
	}
	if err != nil {
		out.Error, out.Programs = err.Error(), []Program{}
	}
	return out, err
}

// Executable checks the objects that an executable carries as data. An error, which is that of an
// object too, says what is wrong with the executable. One without objects is no error.
func Executable(path string, s Settings) (list []Object, err error) {
	for e, err := range object.ReadEmbedded(path) {
		if err != nil {
			return append(list, Object{Path: path, Error: err.Error(), Programs: []Program{}}), err
		}
		out := Object{Path: fmt.Sprintf("%s#%#x", path, e.Offset), Within: path, Offset: e.Offset, Programs: []Program{}}
		o, err := object.Parse(e.Bytes)
		if err == nil {
			out.Programs, err = Programs(o, s)
		}
		if err != nil {
			out.Error, out.Programs = err.Error(), []Program{}
		}
		list = append(list, out)
	}
	return list, nil
}

// Programs checks each program of an object. An error says what is wrong with the object.
func Programs(o *object.Object, s Settings) ([]Program, error) {
	list := []Program{}
	linked := 0
	for _, p := range o.Programs {
		l, err := o.Link(p)
		if err != nil {
			return nil, err
		}
		if linked += len(l.Insns); linked > MaxLinked {
			return nil, ErrTooMany
		}
		checked, err := program(p, l, s)
		if err != nil {
			return nil, fmt.Errorf("program %s: %w", p.Name, err)
		}
		list = append(list, checked)
	}
	return list, nil
}

const mayNotice = "the kernel has the fix for this, ad139384ecdd, and notices the jump. Then the load fails with 524, or the program is interpreted"

func program(p object.Program, l *object.Linked, s Settings) (Program, error) {
	predicted, err := blinding.Predict(l.Insns, l.Functions, s.Kernel, blinding.Source{Type: p.Type(), Unprivileged: s.Harden == 1})
	if err != nil {
		return Program{}, err
	}
	v := predicted.Verdict
	if predicted.Fate == blinding.MayFail || !v.Wraps && predicted.MayWrap {
		v = predicted.Worst
	}
	out := Program{
		Name: p.Name, Section: p.Section, Insns: len(l.Insns), Blinded: v.After, Functions: len(l.Functions),
		Margin: predicted.Verdict.Margin, WorstMargin: predicted.Worst.Margin, Added: predicted.Growth, BlindingNS: v.Time(),
		TooFar: v.TooFar, Jump: jump(l, v),
	}
	out.Verdict, out.Confidence = verdict(&predicted)
	if s.Harden == 0 || s.Harden == 1 {
		if s.Harden == 1 && out.Verdict != Loads {
			out.Unprivileged = out.Verdict
		}
		out.Verdict, out.Confidence, out.Blinded, out.BlindingNS = Loads, Certain, out.Insns, 0
	}
	if out.Verdict != Loads {
		out.Rule = rule(out.Verdict, out.Functions)
	}
	if s.WrapUnsure && (out.Verdict == Wraps || out.Unprivileged == Wraps) {
		out.AlsoPossible = mayNotice
	}
	if out.Verdict == Fails || out.Unprivileged == Fails {
		out.Danger = jitonly.Sentence(l.Insns, jitonly.Submitted(l.Insns, l.MapType, s.JITOnly))
	}
	return out, nil
}

// Failure is the rule of the failure that there is, or would be with less room.
func (p *Program) Failure() string { return cmp.Or(p.Rule, rule(Fails, p.Functions)) }

func rule(v Verdict, functions int) string {
	if v == Wraps {
		return explain.BlindingRule(load.Loaded, functions)
	}
	return explain.BlindingRule(load.Failed, functions)
}

// jump describes the jump that decides.
func jump(l *object.Linked, v blinding.Verdict) *Jump {
	if v.Jump == (blinding.Jump{}) {
		return nil
	}
	name, from := l.Where(v.Jump.From)
	_, to := l.Where(v.Jump.To)
	return &Jump{
		Function: name, From: from, To: to, Insn: insn.Disassemble(l.Insns, v.Jump.From), Need: v.Jump.Need, Limit: v.Jump.Limit,
		Source: source(l, v.Jump.From), Target: source(l, v.Jump.To),
	}
}

func source(l *object.Linked, slot int) *Source {
	line, ok := l.Source(slot)
	if !ok {
		return nil
	}
	return &Source{line.File, line.Number, line.Text}
}

// Count judges the programs by what was asked for, and sums up.
func (r *Report) Count() {
	r.Summary = Summary{Objects: len(r.Objects), Skipped: r.Summary.Skipped}
	s := &r.Summary
	for _, o := range r.Objects {
		if o.Error != "" {
			s.Bad++
		}
		for i := range o.Programs {
			p := &o.Programs[i]
			r.judge(p)
			s.Programs++
			switch p.Verdict {
			case Loads:
				s.Loads++
			case Fails:
				s.Fails++
			case Wraps:
				s.Wraps++
			}
			for count, is := range map[*int]bool{&s.Possible: p.MayOnly(), &s.Tight: p.Tight, &s.Rejected: p.Rejected} {
				if is {
					*count++
				}
			}
		}
	}
}
