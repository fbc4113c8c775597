// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/bpfwhy/bpfwhy/internal/capture"
	"github.com/bpfwhy/bpfwhy/internal/guardian"
	"github.com/bpfwhy/bpfwhy/internal/hardenwindow"
	"github.com/bpfwhy/bpfwhy/internal/interpose"
	"github.com/bpfwhy/bpfwhy/internal/launch"
	"github.com/bpfwhy/bpfwhy/internal/render"
	"github.com/bpfwhy/bpfwhy/internal/rights"
	"github.com/bpfwhy/bpfwhy/internal/threads"
	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

type runOptions struct {
	selection
	user   string
	output string
	repair bool
	window bool
	args   []string
}

func newRun() *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARGUMENT...]",
		Short: "Run a command and explain the loads of it and its children that fail",
		Long: `Run a command, watch it and all its children, and explain on standard error, when it ends, each load that
failed or was not compiled. The command keeps the terminal, its descriptors and its signals; the exit status is
its own (128 + the signal that ended it, 126 not executable, 127 not found). When it cannot be watched, it is not
started and the status is 2.

With --repair, programs that constant blinding would break (net.core.bpf_jit_harden) are loaded in a form in which it does not,
whoever loads them and in whatever language: the command's program loads wait until bpfwhy has looked at them. A
program that is not in danger is left to the kernel, and so is all that is not understood. No setting of the
machine is changed. What cannot be repaired or watched here is said in one line, and the command runs all the same.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("run: no command was given")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			o.args = args
			return run(o)
		},
	}
	o.flags(c)
	c.Flags().StringVar(&o.user, "user", "", "run the command as this user (name or uid), with the user's groups")
	c.Flags().StringVar(&o.output, "output", "", "write the explanations to this file instead, as they come (mode 0600)")
	c.Flags().BoolVar(&o.repair, "repair", false, "load programs that constant blinding breaks in a form in which it does not")
	c.Flags().BoolVar(&o.window, "harden-window", false,
		"with --repair, and only where that is not enough: lower net.core.bpf_jit_harden from 2 to 1 for the moment of a load")
	c.Flags().SetInterspersed(false) // what follows the command's name is the command's
	return c
}

func run(o runOptions) error {
	opts, err := o.options()
	if err != nil {
		return err
	}
	if o.window && !o.repair {
		return errors.New("--harden-window is of use only with --repair")
	}
	if o.window {
		// A window that was killed with its guardian.
		if r, err := guardian.Recover(); err == nil && r != (guardian.Report{}) {
			say("left behind by an earlier run: %s", r)
		}
		if r, err := guardian.Left(); err == nil && r != (guardian.Report{}) {
			say("%s", r.StillThere())
		}
	}
	cmd, err := launch.Find(o.args, o.user)
	if e := new(launch.Error); errors.As(err, &e) {
		return &status{e.Status, err}
	}
	if err != nil {
		return err
	}
	if o.user != "" && !o.repair {
		if err := rights.RunUser.Check(); err != nil {
			return fmt.Errorf("run --user: %w", err)
		}
	}
	out, err := openOutput(o.output)
	if err != nil {
		return err
	}
	defer out.Close()

	defer threads.LimitProcessors()()
	// Signals first: from here on a Ctrl-C is the command's.
	signals := launch.Signals()
	p, fixes, err := start(cmd, &o)
	if err != nil {
		return err
	}
	opts.PIDs = []int{p.PID}
	opts.OnlyFollowed = true
	c, header, err := openRun(opts)
	if err != nil && !o.repair {
		p.Abandon()
		return fmt.Errorf("%w; %s was not started", err, o.args[0])
	}
	if err != nil {
		say("%s runs unwatched: %v", o.args[0], err)
	}
	defer c.Close()
	have, _ := rights.Have()
	if fixes == nil {
		// A binary built with cgo cannot; that is no reason to disturb the command's standard error. Who loads in the place
		// of others needs what they have.
		_ = dropPrivileges()
	}
	s, err := newSession(header, &o.selection, o.sink(out, out.text()))
	if err != nil {
		p.Abandon()
		return err
	}
	if fixes != nil {
		s.others = fixes.take
		s.beside = interpose.Memory
		// Without CAP_SETUID or CAP_SYS_ADMIN, and in a user namespace, not all of this is to be had.
		_ = fixes.proxy.Apart()
		if err := fixes.proxy.Exposed(); err != nil {
			say("a command of the same user may stop or end what repairs its loads, which are left to the kernel then: %v", err)
		}
	}
	if o.output == "" {
		// The command may be what hangs: then nothing else would ever be said.
		s.hung = sayHang
	}
	// A broken pipe is a held process that a signal has ended: then that is the command's status.
	if err := p.Release(); err != nil && !errors.Is(err, unix.EPIPE) {
		p.Abandon()
		return fmt.Errorf("start %s: %w", o.args[0], err)
	}
	done := make(chan struct{})
	var code int
	var waitErr error
	go func() {
		defer close(done)
		code, waitErr = p.Wait(signals)
		if fixes != nil {
			fixes.proxy.Close() // what the command has left running is left to the kernel
		}
	}()
	// The command goes on whatever becomes of the explanations.
	werr := s.live(c, done)
	if werr == nil && !o.json && (s.summary.Attempts > 0 || !s.summary.Whole() || o.output != "") {
		werr = out.text().Summary(&s.summary)
		row := rights.Run
		if o.user != "" {
			row = rights.RunUser
		}
		for _, line := range row.Less(have) {
			fmt.Fprintf(out, "bpfwhy: %s\n", line)
		}
	}
	if werr != nil {
		say("%v", werr)
	}
	<-done
	if fixes != nil {
		if left := fixes.proxy.Left(); left != (interpose.Left{}) {
			say("programs that blinding may break were left to the kernel as they are: %s", left)
		}
		if fixes.untold > 0 {
			say("%d more repairs came too fast to be listed", fixes.untold)
		}
	}
	if err := out.flush(); err != nil {
		say("%v", err)
	}
	if waitErr != nil {
		return waitErr
	}
	if code != 0 {
		return &status{code: code}
	}
	return nil
}

// sayHang says in one line that loads do not come back, or that they have.
func sayHang(h *load.Hang) {
	switch {
	case h.Calls == 0:
		say("the loads that hung have come back, or their threads have ended")
	default:
		say("%s %s ('bpfwhy explain %s')", h.Diagnosis.Cause, strings.Join(h.Diagnosis.Evidence, "; "), h.Diagnosis.Rule)
	}
}

// start starts the held command, with a proxy for its loads when it is to have one and can.
func start(cmd *launch.Command, o *runOptions) (*launch.Process, *repairs, error) {
	if o.repair {
		p, fixes, err := startRepairing(cmd, o.window)
		if err == nil {
			return p, fixes, nil
		}
		say("%s runs without repairs: %v", o.args[0], rights.Repair.Explain(err))
	}
	p, err := cmd.Start()
	return p, nil, err
}

func startRepairing(cmd *launch.Command, window bool) (*launch.Process, *repairs, error) {
	p, listener, err := cmd.StartIntercepted()
	if err != nil {
		return nil, nil, err
	}
	r := &repairs{}
	opts := interpose.Options{Report: r.add}
	if window {
		opts.Window = &hardenwindow.Options{}
	}
	if r.proxy, err = interpose.Start(listener, p.PID, opts); err != nil {
		p.Abandon()
		return nil, nil, err
	}
	return p, r, nil
}

// repairs are a proxy and what it has repaired since it was last asked.
type repairs struct {
	proxy *interpose.Proxy
	mu    sync.Mutex
	list  []*load.Attempt
	// untold are repairs that were dropped from the list.
	untold int
}

// Reports that nobody takes are not kept for ever, and those that are not kept are counted.
const (
	maxRepairs    = 2048
	repairsMemory = maxRepairs * 2 << 10
)

func (r *repairs) add(a *load.Attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) >= maxRepairs {
		r.untold++
		return
	}
	r.list = append(r.list, a)
}

func (r *repairs) take() []*load.Attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.list
	r.list = nil
	return list
}

// openRun opens the capture. The source and header are of use with an error too: they are those of a machine on which nothing is seen.
func openRun(opts capture.Options) (source, trace.Header, error) {
	c, err := openCapture(context.Background(), opts)
	if err != nil {
		return newBlind(), trace.Header{Schema: trace.Schema, Node: *node.Host(), Tool: buildInfo().Version}, err
	}
	return c, c.Header(), nil
}

// blind is a source that sees nothing.
type blind struct {
	once   sync.Once
	closed chan struct{}
}

func newBlind() *blind { return &blind{closed: make(chan struct{})} }

func (b *blind) Read() (trace.Record, error) {
	<-b.closed
	return trace.Record{}, io.EOF
}

func (b *blind) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// Most that is kept for standard error while the command runs.
const heldOutput = 8 << 20

// heldMemory: a buffer that grows is copied into one of twice the size.
const heldMemory = 3 * heldOutput

// output is a file, or standard error once the command has ended: while it runs, standard error is the command's.
type output struct {
	file    *os.File // nil: standard error
	held    bytes.Buffer
	dropped int // bytes
}

func openOutput(path string) (*output, error) {
	if path == "" {
		return &output{}, nil
	}
	f, err := trace.Create(path)
	if err != nil {
		return nil, err
	}
	return &output{file: f}, nil
}

func (o *output) Write(b []byte) (int, error) {
	if o.file != nil {
		return o.file.Write(b)
	}
	if o.dropped > 0 || o.held.Len()+len(b) > heldOutput {
		o.dropped += len(b)
		return len(b), nil
	}
	return o.held.Write(b)
}

func (o *output) text() *render.Text {
	if o.file != nil {
		return render.NewText(o, 0, false)
	}
	width, colour := terminal(os.Stderr)
	return render.NewText(o, width, colour)
}

func (o *output) flush() error {
	if o.file != nil {
		return nil
	}
	_, err := io.Copy(os.Stderr, &o.held)
	if o.dropped > 0 {
		say("more than %d MiB of explanations; the rest, %d bytes, was dropped: use --output FILE", heldOutput>>20, o.dropped)
	}
	return err
}

func (o *output) Close() error {
	if o.file == nil {
		return nil
	}
	return o.file.Close()
}
