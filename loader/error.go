// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/output/text"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// Error is a failure to load with its diagnosis. errors.Is and errors.As find
// what cilium/ebpf returned in it, such as *ebpf.VerifierError.
type Error struct {
	Err error // of cilium/ebpf, ErrMiscompiled, ErrNotJITed, or ErrJITOnly
	// Program is the name of the program that failed, "" when it is not known
	// or no program did.
	Program string
	// Diagnosis says why, and what can be done. It is never nil; its Rule is
	// "UNKNOWN" where nothing is known.
	Diagnosis *load.Diagnosis
	// Tried are the attempts to help that failed.
	Tried []Repair
}

// Unwrap returns the error of cilium/ebpf.
func (e *Error) Unwrap() error { return e.Err }

// Error is the error in one line, with the rule and the cause.
func (e *Error) Error() string {
	s := e.Err.Error()
	if e.Diagnosis.Rule != explain.Unknown {
		s += fmt.Sprintf(" [%s: %s]", e.Diagnosis.Rule, e.Diagnosis.Cause)
	}
	return text.Clean(s)
}

// Format prints Error for %s and %v. For %+v it prints all: the error of
// cilium/ebpf with the verifier's log, and the whole diagnosis. A width, as in
// %+20v, is the number of lines of the log, as for ebpf.VerifierError; %-20v
// prints the last ones.
func (e *Error) Format(f fmt.State, verb rune) {
	if verb != 'v' && verb != 's' {
		fmt.Fprintf(f, "%%!%c(BADVERB)", verb)
		return
	}
	if verb == 's' || !f.Flag('+') && !f.Flag('-') {
		_, _ = io.WriteString(f, e.Error())
		return
	}
	flags := "%+v"
	if f.Flag('-') {
		flags = "%-v"
	}
	if n, ok := f.Width(); ok {
		flags = fmt.Sprintf("%s%dv", flags[:2], n)
	}
	var v *ebpf.VerifierError
	all := e.Err.Error()
	if errors.As(e.Err, &v) {
		// Where it comes from v does not know.
		before, _ := strings.CutSuffix(all, v.Error())
		all = before + fmt.Sprintf(flags, v)
	}
	for line := range strings.Lines(all) {
		line = strings.TrimSuffix(line, "\n")
		words := strings.TrimLeft(line, "\t")
		_, _ = io.WriteString(f, line[:len(line)-len(words)]+text.Clean(words)+"\n")
	}
	_ = render.NewText(f, 0, false).OwnDiagnosis(e.Diagnosis)
	for _, r := range e.Tried {
		fmt.Fprintf(f, "tried: %s with %d islands, no jump longer than %d\n", r.Program, r.Islands, r.Limit)
	}
}

// Explain gives an error of cilium/ebpf its diagnosis, for those who load by
// themselves. It is nil for nil, and err itself if that carries one already. Of
// the program it knows no more than the error says: [ExplainProgram] knows more.
func Explain(err error) error {
	return diagnose(err, nil, nil)
}

// ExplainProgram is Explain for the error of loading one program.
func ExplainProgram(err error, spec *ebpf.ProgramSpec) error {
	return diagnose(err, spec, nil)
}

func diagnose(err error, spec *ebpf.ProgramSpec, c *code) error {
	if err == nil {
		return nil
	}
	var done *Error
	if errors.As(err, &done) {
		return err
	}
	e := &Error{Err: err}
	var v *ebpf.VerifierError
	var errno syscall.Errno
	isLoad := errors.As(err, &v) || strings.Contains(err.Error(), "load program")
	at := failedAttempt(spec, c, 0, v)
	if errors.As(err, &errno) {
		at.Errno = int(errno)
	}
	if isLoad && errno != 0 {
		at.Retries = 1 // cilium/ebpf asks again with a log
		e.Diagnosis = inferred(explain.Explain(at, profile()))
	}
	if e.Diagnosis == nil || e.Diagnosis.Rule == explain.Unknown {
		if !isLoad {
			at.Kind = "" // the error says what it was
		}
		if d := explain.OwnError(err.Error(), at, profile()); d != nil && (e.Diagnosis == nil || d.Rule != explain.Unknown) {
			e.Diagnosis = d
		}
	}
	if e.Diagnosis == nil {
		e.Diagnosis = &load.Diagnosis{
			Rule: explain.Unknown, Title: "No rule knows this error", HowKnown: load.Inferred,
			Cause: "Nothing in the error says why the kernel refused.",
		}
	}
	if spec != nil {
		e.Program = spec.Name
	}
	return e
}

// inferred: this process was not watched, whatever its error and its log say.
func inferred(d *load.Diagnosis) *load.Diagnosis {
	if d != nil && d.HowKnown == load.Observed {
		d.HowKnown = load.Inferred
	}
	return d
}

// attemptOf describes the load of a program by this process. Both arguments may
// be nil.
func attemptOf(spec *ebpf.ProgramSpec, c *code) *load.Attempt {
	at := &load.Attempt{
		Schema:  load.Schema,
		Kind:    load.ProgLoad,
		Process: load.Process{PID: os.Getpid(), TID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid()},
		Program: &load.Program{},
		Evidence: load.Evidence{
			FailedInsn: -1, UserNSLevel: -1, SeccompMode: -1, EnterSeen: true,
			Harden: setting("bpf_jit_harden"), Observed: map[load.Stage]bool{},
		},
	}
	at.Evidence.Caps, at.Evidence.CapsKnown = capabilities()
	if spec == nil {
		return at
	}
	at.Program.Name, at.Program.License = spec.Name, spec.License
	at.Program.Type = abi.ProgTypeName(uint32(spec.Type))
	if c == nil {
		c, _ = codeOf(spec.Instructions)
	}
	if c == nil || len(c.insns) == 0 {
		return at
	}
	at.Program.Insns = len(c.insns)
	at.Evidence.Insns, at.Evidence.InsnsState = c.insns, load.InsnsUnverified
	for i := range spec.Instructions {
		if line, ok := spec.Instructions[i].Source().(*btf.Line); ok {
			at.Evidence.Lines = append(at.Evidence.Lines, load.SourceLine{
				Insn: c.slots[i], File: line.FileName(), Line: int(line.LineNumber()), Text: strings.TrimSpace(line.Line()),
			})
		}
	}
	return at
}

// failedAttempt is attemptOf for a load that failed. v is nil where the verifier
// said nothing.
func failedAttempt(spec *ebpf.ProgramSpec, c *code, errno syscall.Errno, v *ebpf.VerifierError) *load.Attempt {
	at := attemptOf(spec, c)
	at.Outcome, at.Errno = load.Failed, int(errno)
	if v != nil {
		at.Evidence.Log, at.Evidence.LogLevel = strings.Join(v.Log, "\n"), 1
		at.VerifierLog = load.VerifierLog{Origin: load.LogLoader, Lines: v.Log}
	}
	return at
}

// jumpOf describes the jump that blinding breaks.
func jumpOf(at *load.Attempt, v blinding.Verdict) *load.Jump {
	prog := at.Evidence.Insns
	if v.Jump == (blinding.Jump{}) || len(prog) == 0 {
		return nil
	}
	j := &load.Jump{
		From: v.Jump.From, To: v.Jump.To, Insn: insn.Disassemble(prog, v.Jump.From),
		Need: v.Jump.Need, Limit: v.Jump.Limit, Before: v.Before, After: v.After,
	}
	source := func(slot int) (where, text string) {
		if l, ok := at.Evidence.Source(slot); ok {
			return fmt.Sprintf("%s:%d", l.File, l.Line), l.Text
		}
		return "", ""
	}
	j.FromSource, j.FromText = source(j.From)
	j.ToSource, j.ToText = source(j.To)
	return j
}

// explain gives an error of a load its diagnosis.
func (a *attempt) explain(err error) error {
	explained := a.diagnose(err)
	var e *Error
	if note, ok := leftOut(err); ok && errors.As(explained, &e) {
		e.Diagnosis.Evidence = append(e.Diagnosis.Evidence, note)
	}
	return explained
}

func (a *attempt) diagnose(err error) error {
	c := a.blamed(err)
	if c == nil {
		name, _ := a.named(err)
		return diagnose(err, a.specs[name], nil)
	}
	var errno syscall.Errno
	if !isBlinding(err) || !errors.As(err, &errno) {
		return c.with(diagnose(err, c.spec, c.code), a)
	}
	var v *ebpf.VerifierError
	errors.As(err, &v)
	at := failedAttempt(c.spec, c.code, errno, v)
	at.Jump = jumpOf(at, c.Prediction.Verdict)
	return c.with(&Error{Err: err, Diagnosis: inferred(explain.Explain(at, profile()))}, a)
}

func (c *candidate) with(err error, a *attempt) error {
	var e *Error
	if errors.As(err, &e) {
		r := c.repair(a)
		e.Program = r.Program
		if c.Form() != nil {
			e.Tried = append(e.Tried, r)
		}
	}
	return err
}

// unjited is the error for a program that is interpreted.
func (c *candidate) unjited(a *attempt) error {
	at := attemptOf(c.spec, c.code)
	at.Outcome = load.LoadedNotJITed
	at.Jump = jumpOf(at, c.Prediction.Verdict)
	why := ErrNotJITed
	if c.danger != "" {
		why = ErrJITOnly
	}
	err := a.noWindow(fmt.Errorf("load program: program %s: %w", c.repair(a).Program, why))
	d := explain.Explain(at, profile())
	d.Danger = c.danger
	return c.with(&Error{Err: err, Diagnosis: d}, a)
}

// miscompiled is the error for a program that must not be loaded.
func (c *candidate) miscompiled(a *attempt) error {
	at := attemptOf(c.spec, c.code)
	v := c.Prediction.Verdict
	if !v.Wraps && c.Prediction.Worst.Wraps {
		v = c.Prediction.Worst
	}
	d := &load.Diagnosis{
		Rule:     "BLIND004",
		Cause:    "When net.core.bpf_jit_harden blinds constants, a backward jump of the program needs an offset just below -32768. Kernels without ad139384ecdd (7.3, and 7.2.10) let it wrap. They load the program, and it does something else.",
		HowKnown: load.Predicted,
	}
	if r, ok := explain.ByID(d.Rule); ok {
		d.Title, d.Remedies = r.Title, r.Remedies
	}
	if j := jumpOf(at, v); j != nil {
		d.Evidence = append(d.Evidence, fmt.Sprintf("the jump from instruction %d to %d (%s) needs an offset of about %d, and the limit is %d", j.From, j.To, j.Insn, j.Need, j.Limit))
		if j.FromSource != "" {
			d.Evidence = append(d.Evidence, "it is at "+j.FromSource)
		}
	}
	return c.with(&Error{Err: fmt.Errorf("load program: program %s: %w", c.repair(a).Program, ErrMiscompiled), Diagnosis: d}, a)
}
