// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/internal/repair/hardenwindow"
	"github.com/bpfwhy/bpfwhy/internal/repair/ladder"
	"github.com/bpfwhy/bpfwhy/internal/repair/surrogate"
	"golang.org/x/sys/unix"
)

// climb is the way of one program up the ladder.
type climb struct {
	p       *Proxy
	s       *snapshot
	h       *handles
	key     [32]byte
	program *ladder.Program
	log     outcome // of the program as it was submitted: what the verifier said
	outcome outcome
	noted   bool // that no rewriting helps
}

// up goes up the ladder. Whatever is not better than what the kernel would do is left to the
// kernel. hopeless says that it is known that no rewriting helps.
func (c *climb) up(hopeless bool) {
	c.noted = hopeless
	c.program = &ladder.Program{
		Insns: c.s.insns, Type: c.s.programType(), Prediction: c.s.prediction, Hopeless: hopeless,
	}
	// The verdict on a form is a proof; that the kernel compiles it is found out.
	rules := &ladder.Rules{Kernel: blinding.AnyKernel(), Limits: c.p.options.limits, Words: true}
	if c.p.options.Window != nil {
		rules.Window = &ladder.Window{
			Load: c.inWindow, Harden: c.p.hardening,
			Spared: c.p.options.without.spared || hardenwindow.Spares(c.p.release, c.s.who.caps&c.p.we.caps),
		}
	}
	o := ladder.Climb(rules, []*ladder.Program{c.program}, c)
	switch {
	case o.Err == nil && c.program.Rung() == ladder.Rewritten:
		// The log is the one of the program as it was submitted, with its own numbering.
		c.outcome.log, c.outcome.trueSize = c.log.log, c.log.trueSize
		c.p.cache.put(c.key, c.program.Form())
	case c.program.Helpless():
		c.noHelp()
	}
	if errors.Is(o.NoWindow, ladder.ErrNotSpared) {
		c.p.noWindow(o.NoWindow, nil)
	}
}

// noHelp remembers that no rewriting helps: before a window is waited for, since others look when
// it is their turn.
func (c *climb) noHelp() {
	if !c.noted {
		c.p.cache.put(c.key, nil)
		c.noted = true
	}
}

// Load loads the program in its form.
func (c *climb) Load() ladder.Seen {
	form := c.program.Form()
	o, err := c.p.try(c.s, c.h, form, form == nil)
	if form == nil {
		c.log.log, c.log.trueSize = o.log, o.trueSize
	}
	if err != nil {
		return c.failed(err)
	}
	c.outcome = o
	if o.info.jited == 0 {
		return ladder.Seen{Interpreted: []*ladder.Program{c.program}}
	}
	return ladder.Seen{}
}

// failed is an error of the kernel's, or another one: then the load is left to the kernel.
func (c *climb) failed(err error) ladder.Seen {
	errno, ofKernel := err.(unix.Errno)
	return ladder.Seen{Err: err, Program: c.program, Blinding: ofKernel && ladder.IsBlinding(int(errno))}
}

// Drop closes the program that was loaded last.
func (c *climb) Drop() {
	c.outcome.close()
	c.outcome = passThrough
}

// Why no window is opened, beside what the ladder knows.
var (
	errVain = errors.New("the kernel refused the same program in an open window before")
	errLeft = errors.New("the load is left to the kernel")
)

// inWindow loads what no rewriting helps with hardening lowered for a moment.
func (c *climb) inWindow() ladder.Seen {
	p := c.p
	c.noHelp()
	// Each takes a guardian, and windows take turns on the whole machine anyway.
	if !p.window.enter(c.s.user(), 1, hardenwindow.Turns) {
		p.countProcess(errRoom)
		return ladder.Seen{Closed: errRoom}
	}
	defer p.window.leave(c.s.user(), 1)
	if p.cache.vain(c.key) { // found out by one that was before us, perhaps
		p.noWindow(errVain, nil)
		return ladder.Seen{Closed: errVain}
	}
	l, err := p.newLoad(c.s, c.h, nil, true)
	if err != nil || p.closed() != nil {
		return ladder.Seen{Closed: errLeft}
	}
	o, err := p.loadInWindow(c.s, l)
	if err != nil {
		if refusedOpen(err, o.window) {
			p.cache.inVain(c.key)
		}
		p.noWindow(err, o.window)
		return ladder.Seen{Err: err, Program: c.program}
	}
	c.outcome = o
	return ladder.Seen{}
}

// loadInWindow makes a load in a window. The outcome tells of the window also where there is an
// error.
func (p *Proxy) loadInWindow(s *snapshot, l *surrogate.Load) (o outcome, err error) {
	var process *surrogate.Process // that of the window which is open, or was
	defer func() {
		if process != nil {
			process.Close()
		}
	}()
	start := func(missing bool) (err error) {
		if process != nil {
			process.Close()
		}
		l.Gated, l.Missing = true, missing
		process, err = p.source.New(l)
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), hardenwindow.Turns)
	defer cancel()
	p.windows.Add(1)
	defer p.windows.Add(-1)
	o = passThrough
	fd, r, err := hardenwindow.Load(ctx, hardenwindow.Loader{
		Code: l.Code,
		Missing: func(int) (fd int, address uintptr, err error) {
			if err := start(true); err != nil {
				return -1, 0, err
			}
			return process.Missing(time.Now().Add(moment))
		},
		Load: func(address uintptr, gate *os.File) (int, error) {
			if address == 0 {
				if err := start(false); err != nil {
					return -1, err
				}
			}
			err := process.Gate(gate)
			gate.Close() // the process alone has it: a window ends with it, also while we are stopped
			if err != nil {
				return -1, err
			}
			fd, err := process.Result(surrogate.Limits{Total: longestInWindow, Still: standstillInWindow})
			o.takeLog(s, process)
			return fd, err
		},
		Works: func(fd int) bool {
			o := outcome{fd: fd}
			return o.ask() == nil && o.info.jited > 0
		},
	}, *p.options.Window)
	o.fd, o.window = fd, &r
	if err == nil {
		err = o.ask()
	}
	if err != nil {
		o.close()
	}
	return o, err
}

// refusedOpen reports whether the kernel refused a load although a window was open for it.
func refusedOpen(err error, r *hardenwindow.Report) bool {
	if r.Windows == 0 || r.Overdue {
		return false
	}
	errno, ofKernel := err.(unix.Errno)
	return errors.Is(err, hardenwindow.ErrNotCompiled) || ofKernel && errno != unix.EAGAIN && errno != unix.ENOMEM
}

// noWindow takes note of a load that no window helped. r is what was open all the same, if
// anything.
func (p *Proxy) noWindow(err error, r *hardenwindow.Report) {
	p.count(func(l *Unrepaired) {
		if l.Window++; l.WindowErr == nil {
			l.WindowErr = err
		}
		if r != nil && r.Windows > 0 {
			l.Vain.Windows += r.Windows
			l.Vain.Open += r.Open
			if r.WholeCall {
				l.Vain.WholeCalls++
			}
		}
	})
}
