// SPDX-License-Identifier: Apache-2.0

// Package check says of the programs in object files what constant blinding will do to them, without a kernel. It is the other
// way round of explain: before the load instead of after it.
package check

import (
	"fmt"
	"time"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/jitonly"
	"github.com/bpfwhy/bpfwhy/internal/object"
)

// Schema names the JSON form of a Report: docs/schema/check-v1.schema.json.
const Schema = "bpfwhy.check/v1"

// Verdict is what becomes of a program.
type Verdict string

const (
	// Loads: the kernel compiles it.
	Loads Verdict = "loads"
	// Fails: a jump no longer fits, or may no longer fit: see Confidence. The load fails with 524 where the kernel has no interpreter, and the program is
	// interpreted elsewhere.
	Fails Verdict = "fails"
	// Wraps: the kernel compiles something else, or may, and says nothing (up to 6.18).
	Wraps Verdict = "wraps"
)

// Report is the result for many objects.
type Report struct {
	Schema string `json:"schema"`
	// Harden is the value of net.core.bpf_jit_harden that the verdicts are for.
	Harden int `json:"harden"`
	// Kernel is a release, or "any": the verdicts hold for each kernel from 5.10 to 7.2.
	Kernel  string   `json:"kernel"`
	Objects []Object `json:"objects"`
	Summary Summary  `json:"summary"`
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
	Skipped int `json:"skipped"`
}

// Object is the result for one file.
type Object struct {
	Path     string    `json:"path"`
	Error    string    `json:"error,omitempty"`
	Programs []Program `json:"programs"`
}

// Program is the result for one program, with the functions that it reaches.
type Program struct {
	Name    string  `json:"name"`
	Section string  `json:"section"`
	Verdict Verdict `json:"verdict"`
	// Rule is what 'bpfwhy explain' tells about the failure.
	Rule string `json:"rule,omitempty"`
	// Unprivileged is what becomes of it when a loader without CAP_BPF loads it, where that differs (harden=1).
	Unprivileged Verdict `json:"unprivileged,omitempty"`
	// Insns and Blinded count slots, before and after blinding. Functions counts the entry too.
	Insns     int `json:"insns"`
	Blinded   int `json:"blinded_insns"`
	Functions int `json:"functions"`
	// Margin is how many slots the tightest jump has to its limit, negative when it is beyond; WorstMargin is what is left when
	// the verifier adds the most that it is known to. Added is how much that is, in slots after blinding.
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
	// Danger says what the program may do to the machine where a kernel interprets it because it fails to be blinded. Empty as a rule.
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
	// JITOnly is the kernel as far as it decides what it can only compile; the zero value stands for any.
	JITOnly jitonly.Kernel
}

// maxLinked bounds what all programs of one object are together, with the functions that they share. The largest real objects
// have some hundred thousand instructions.
const maxLinked = 50_000_000

// File checks one object. An error, which Object.Error holds too, says what is wrong with the file; it does not name it.
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

// Programs checks each program of an object. An error says what is wrong with the object.
func Programs(o *object.Object, s Settings) ([]Program, error) {
	list := []Program{}
	linked := 0
	for _, p := range o.Programs {
		l, err := o.Link(p)
		if err != nil {
			return nil, err
		}
		if linked += len(l.Insns); linked > maxLinked {
			return nil, fmt.Errorf("its programs have more than %d instructions together", maxLinked)
		}
		checked, err := program(p, l, s)
		if err != nil {
			return nil, fmt.Errorf("program %s: %w", p.Name, err)
		}
		list = append(list, checked)
	}
	return list, nil
}

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
	if out.Verdict == Fails || out.Unprivileged == Fails {
		out.Danger = jitonly.Sentence(l.Insns, jitonly.Submitted(l.Insns, l.MapType, s.JITOnly))
	}
	return out, nil
}

func rule(v Verdict, functions int) string {
	switch {
	case v == Wraps:
		return "BLIND004"
	case functions > 1:
		return "BLIND002"
	}
	return "BLIND001"
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

// Count sums a report up.
func (r *Report) Count() {
	skipped := r.Summary.Skipped
	r.Summary = Summary{Objects: len(r.Objects), Skipped: skipped}
	for _, o := range r.Objects {
		if o.Error != "" {
			r.Summary.Bad++
		}
		for _, p := range o.Programs {
			r.Summary.Programs++
			switch p.Verdict {
			case Loads:
				r.Summary.Loads++
			case Fails:
				r.Summary.Fails++
			case Wraps:
				r.Summary.Wraps++
			}
		}
	}
}
