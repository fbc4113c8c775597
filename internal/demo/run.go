// SPDX-License-Identifier: Apache-2.0

// Package demo provokes real load failures, watches them, explains them, and compares each
// explanation with the right one.
//
// Every load is made by a process of its own. The machine is left alone, but for
// net.core.bpf_jit_harden, which is raised for the blinding cases when that is allowed, and put
// back by package guardian.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/sysctl"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/wire"
	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
	"github.com/bpfwhy/bpfwhy/internal/watch/diagnose"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Options say what to run. The zero value runs every case that this machine allows.
type Options struct {
	Names       []string // of cases; none: all
	AllowSysctl bool     // raise net.core.bpf_jit_harden where a case needs it
	Backend     string   // as in capture.Options
	Tool        string   // version, for traces

	// Progress gets a line for people now and then; it may be nil.
	Progress func(string)
	// Watching is called when the kernel is watched and before the first load; it may be nil.
	Watching func(trace.Header)
	// Each is called for every outcome, in order, from another goroutine than Run's. An error of it
	// ends the run.
	Each func(Outcome) error
	// Record gets what was captured of a case that was run; it may be nil.
	Record func(Case, trace.Header, []trace.Record) error
}

// Outcome is how one case went.
type Outcome struct {
	Case Case
	// Skipped says why the case was not run, "" if it was.
	Skipped string
	// Demanded says that a skipped case counts against the run: it was asked for by name, or lacked
	// a permission. One that the hooks cannot show does not, since they say so.
	Demanded bool
	Result   failing.Result // what the kernel told the loader
	Attempt  *load.Attempt  // what was concluded, nil when the load was not seen
	Wrong    []string       // how the conclusion differs from the expected one
}

// OK reports whether the diagnosis is the expected one.
func (o *Outcome) OK() bool { return o.Skipped == "" && len(o.Wrong) == 0 }

// Summary counts outcomes.
type Summary struct {
	Right, Wrong   int
	NotRun, Beyond int               // skipped: for want of a permission, and for being beyond this machine or its hooks
	Lost           map[string]uint64 // events, by mechanism
	Unknown        []string          // mechanisms of which it is not known what they lost
}

// OK reports whether every case that had to be run was run, and explained as expected. Cases for a
// prepared machine, and those that no hook shows, do not have to be unless they were asked for by
// name.
func (s *Summary) OK() bool { return s.Wrong == 0 && s.NotRun == 0 }

// patience is how long one load may take, on an emulated machine too.
const patience = 3 * time.Minute

// Run needs root, and failing.Main and guardian.Main at the start of the executable.
//
// The error is the context's own, and not one that wraps it, when the run was interrupted and
// nothing else went wrong.
//
//revive:disable-next-line:cyclomatic one step after the other, and each may fail
func Run(ctx context.Context, o Options) (Summary, error) {
	cases, err := Find(o.Names)
	if err != nil {
		return Summary{}, err
	}
	interrupted := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &session{opts: o, summary: Summary{Lost: map[string]uint64{}}}
	if report, err := guardian.Recover(); err != nil {
		return s.summary, fmt.Errorf("recover net.core.bpf_jit_harden: %w", err)
	} else if report != (guardian.Report{}) {
		s.progress("left behind by an earlier run: %s", report)
	}
	if left, err := guardian.Left(); err == nil && left != (guardian.Report{}) {
		// Anybody of uid 0 may have noted that down: it is undone when somebody asks for it.
		s.progress("%s", left.StillThere())
	}
	harden, hardenErr := readHarden()
	var ready, raised, skipped []Case
	for _, c := range cases {
		switch {
		case s.unfit(&c, harden, hardenErr) != "":
			skipped = append(skipped, c)
		case c.Harden() > harden || c.Harden() > 0 && o.AllowSysctl:
			// Also where it is high enough: another process may have raised it, for a moment.
			raised = append(raised, c)
		default:
			ready = append(ready, c)
		}
	}
	c, err := capture.Open(ctx, capture.Options{Backend: o.Backend, OnlyFollowed: true, Node: *node.Host(), Tool: o.Tool})
	if err != nil {
		if interrupted.Err() != nil {
			err = interrupted.Err()
		}
		return s.summary, err
	}
	s.header = c.Header()
	if o.Watching != nil {
		o.Watching(s.header)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		if err := s.read(c); err != nil {
			cancel(err)
		}
	}()
	s.raised(ctx, c, raised)
	for i := range ready {
		if why := s.invisible(&ready[i]); why != "" {
			s.add(&pending{c: ready[i], skipped: why})
			continue
		}
		s.provoke(ctx, c, &ready[i])
	}
	err = c.Close()
	<-read
	if ctx.Err() != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		cause := context.Cause(ctx)
		switch {
		case interrupted.Err() == nil:
			return s.summary, errors.Join(cause, err) // the reader's, which has seen s.err
		case s.err == nil && err == nil:
			return s.summary, interrupted.Err()
		}
		return s.summary, errors.Join(interrupted.Err(), s.err, err)
	}
	for i := range skipped {
		if oerr := s.skip(&skipped[i], s.unfit(&skipped[i], harden, hardenErr)); oerr != nil {
			return s.summary, oerr
		}
	}
	return s.summary, err
}

// readHarden returns 0 with an error.
func readHarden() (int, error) {
	v, err := sysctl.Read("net.core.bpf_jit_harden")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(v)
}

// unfit says why a case cannot be run here.
func (s *session) unfit(c *Case, harden int, hardenErr error) string {
	if c.Harden() > harden && hardenErr != nil {
		return fmt.Sprintf("needs net.core.bpf_jit_harden=%d: %v", c.Harden(), hardenErr)
	}
	if c.Harden() > harden && !s.opts.AllowSysctl {
		return fmt.Sprintf("needs net.core.bpf_jit_harden=%d, which is %d: --allow-sysctl lets bpfwhy raise it for a moment and put it back",
			c.Harden(), harden)
	}
	if !c.VM() {
		return ""
	}
	if os.Getenv(wire.KernelEnv) == "" {
		return "only in the lab's virtual machines: it takes more than a host should be asked for"
	}
	for name, want := range c.Load.Needs.Sysctls {
		b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
		if err != nil || strings.TrimSpace(string(b)) != want {
			return fmt.Sprintf("needs a virtual machine that was started with %s=%s", name, want)
		}
	}
	line, _ := os.ReadFile("/proc/cmdline")
	for _, arg := range c.Load.Needs.KernelArgs {
		if !strings.Contains(" "+strings.Join(strings.Fields(string(line)), " ")+" ", " "+arg+" ") {
			return "needs a virtual machine that was booted with " + arg
		}
	}
	return ""
}

// invisible says why nothing that is attached would show a case's load.
func (s *session) invisible(c *Case) string {
	for _, h := range s.header.Hooks {
		if h.Function == c.ShownBy && h.Via == "" {
			return "the hooks that are in place do not show it: " + h.Why
		}
	}
	return ""
}

func (s *session) progress(format string, args ...any) {
	if s.opts.Progress != nil {
		s.opts.Progress(fmt.Sprintf(format, args...))
	}
}

// raised provokes cases while net.core.bpf_jit_harden is raised for them.
func (s *session) raised(ctx context.Context, c *capture.Capture, cases []Case) {
	if len(cases) == 0 || ctx.Err() != nil {
		return
	}
	const to = 2
	r, err := guardian.RaiseHarden(ctx, to)
	if err != nil {
		harden, _ := readHarden()
		for i := range cases {
			if cases[i].Harden() <= harden {
				s.provoke(ctx, c, &cases[i])
				continue
			}
			s.add(&pending{c: cases[i], skipped: err.Error()})
		}
		return
	}
	if r.Old() < to {
		s.progress("net.core.bpf_jit_harden is raised from %d to %d", r.Old(), to)
	}
	for i := range cases {
		s.provoke(ctx, c, &cases[i])
	}
	s.catchUp(ctx, c)
	report, err := r.Restore()
	if err != nil {
		s.fail(fmt.Errorf("restore net.core.bpf_jit_harden: %w", err))
		return
	}
	s.progress("%s", report)
}

// catchUp waits until all that has happened so far was read: capture reads the sysctls again when
// it sees a failed load, and they are to be those of the load. A load that works marks the place.
func (s *session) catchUp(ctx context.Context, c *capture.Capture) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ok, err := failing.Find("ok")
	if err != nil {
		s.fail(err)
		return
	}
	mark := &pending{marks: make(chan struct{})}
	s.start(ctx, c, mark, ok)
	if mark.err != nil {
		if ctx.Err() == nil {
			s.fail(mark.err)
		}
		return
	}
	select {
	case <-mark.marks:
	case <-ctx.Done():
	}
}

// provoke lets one case's process make its load.
func (s *session) provoke(ctx context.Context, c *capture.Capture, cs *Case) {
	if ctx.Err() != nil {
		return
	}
	s.progress("provoking %s: %s", cs.Name, cs.Title)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.start(ctx, c, &pending{c: *cs}, cs.Load)
}

// start runs a load to its end.
func (s *session) start(ctx context.Context, c *capture.Capture, run *pending, what failing.Load) {
	p, err := failing.Start(ctx, what)
	if err == nil {
		if err = c.Follow(p.PID()); err != nil {
			p.Kill()
		}
	}
	if err != nil {
		run.err = err
		s.add(run)
		return
	}
	run.pid = p.PID()
	s.add(run)
	res, err := p.Go()
	s.mu.Lock()
	run.result, run.err = res, err
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		run.skipped = "interrupted"
	}
	s.mu.Unlock()
}

// conclude explains a case's records. It is what becomes of a recorded trace too.
func conclude(h *trace.Header, records []trace.Record) []*load.Attempt {
	var all []*load.Attempt
	for a := range diagnose.Attempts(*h, diagnose.Of(records)) { // which has no errors
		all = append(all, a)
	}
	return all
}

// Explain reads a recorded trace of a case and returns its attempts with their diagnoses. It needs
// no kernel and no root.
func Explain(r io.Reader) ([]*load.Attempt, error) {
	t, err := trace.NewReader(r)
	if err != nil {
		return nil, err
	}
	var all []*load.Attempt
	for a, err := range diagnose.Attempts(t.Header(), diagnose.File(t)) {
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}
