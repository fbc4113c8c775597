// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/audit"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/output/terminal"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/repair/hardenwindow"
	"github.com/bpfwhy/bpfwhy/internal/repair/interpose"
	"github.com/bpfwhy/bpfwhy/internal/repair/launch"
	"github.com/bpfwhy/bpfwhy/internal/sys/threads"
	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
	"github.com/bpfwhy/bpfwhy/internal/watch/diagnose"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
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
	failOn failOn
	args   []string
}

func newRun(io std) *cobra.Command {
	o := runOptions{selection: selection{std: io}}
	c := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARGUMENT...]",
		Short: "Run a command and explain each BPF load that fails",
		Long: `Run a command and watch it and all its children. When it ends, explain on
standard error each load that failed or was not compiled. The command keeps its
terminal, descriptors and signals. The exit status is the command's own (128 +
the signal that ended it, 126 not executable, 127 not found). If loads cannot be
watched, the command is not started and the status is 2. With --fail-on the
status is 121 when a load was of one of the classes.

With --repair, bpfwhy repairs programs that constant blinding
(net.core.bpf_jit_harden) would break. It works for every loader and language:
each program load of the command waits until bpfwhy has looked at the program.
A broken program is loaded in a form that survives blinding. All other programs
go to the kernel unchanged, and so do those that bpfwhy does not understand. No
setting of the machine is changed. If repairing or watching is not possible
here, one line says so and the command runs anyway.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("run: give a command: bpfwhy run -- COMMAND")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.args = args
			return run(c.Context(), o)
		},
	}
	o.flags(c)
	c.Flags().StringVar(&o.user, "user", "", "run the command as this user (name or uid), with the user's groups")
	c.Flags().StringVar(&o.output, "output", "", "write the explanations to this file as they come (mode 0600)")
	c.Flags().BoolVar(&o.repair, "repair", false, "load programs that constant blinding breaks in a form that survives it")
	c.Flags().BoolVar(&o.window, "harden-window", false,
		"with --repair, where that is not enough: lower net.core.bpf_jit_harden to 1 for the moment of a load")
	c.Flags().StringSliceVar((*[]string)(&o.failOn), "fail-on", nil,
		"exit status 121 if a load is of this class: any, failed, not-jited, unknown, a stage, a rule or its letters")
	_ = c.RegisterFlagCompletionFunc("fail-on", classes) // the error is for a flag that does not exist
	c.Flags().SetInterspersed(false)                     // what follows the command's name is the command's
	return c
}

//revive:disable-next-line:cyclomatic one step after the other, and each may fail
func run(ctx context.Context, o runOptions) error {
	opts, err := o.options()
	if err == nil {
		err = o.failOn.check()
	}
	if err != nil {
		return err
	}
	cmd, err := o.find()
	if err != nil {
		return err
	}
	out, err := openOutput(o.std, o.output)
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
	c, header, err := openRun(ctx, opts)
	watched := err == nil
	if !watched && (!o.repair || len(o.failOn) > 0) {
		p.Abandon()
		return fmt.Errorf("%w; %s was not started", err, o.args[0])
	}
	if !watched {
		o.say("%s runs unwatched: %v", o.args[0], err)
	}
	defer c.Close()
	have, _ := rights.Have()
	if fixes == nil {
		// A binary built with cgo cannot; that is no reason to disturb the command's standard
		// error. Who loads in the place of others needs what they have.
		_ = dropPrivileges()
	}
	s, err := o.session(header, out, fixes)
	if err != nil {
		p.Abandon()
		return err
	}
	newest := audit.Newest()
	// A broken pipe is a held process that a signal has ended: then that is the command's status.
	if err := p.Release(); err != nil && !errors.Is(err, unix.EPIPE) {
		p.Abandon()
		return fmt.Errorf("start %s: %w", o.args[0], err)
	}
	done := make(chan struct{})
	var ended error
	go func() {
		defer close(done)
		ended = wait(p, signals)
		fixes.close() // what the command has left running is left to the kernel
	}()
	// The command goes on whatever becomes of the explanations.
	err = s.live(c, done)
	if err == nil {
		err = o.summarize(s, out, have)
	}
	if err != nil {
		o.say("%v", err)
	}
	<-done
	fixes.tellRest(o.std)
	if err := out.flush(); err != nil {
		o.say("%v", err)
	}
	if watched && err == nil {
		o.sayNoLoad(&s.summary, newest)
	}
	return o.verdict(&s.summary, err, ended)
}

// find finds the command and the user. Where a window is asked for, it puts back first what an
// earlier one left behind.
func (o *runOptions) find() (*launch.Command, error) {
	if o.window && !o.repair {
		return nil, usage("--harden-window needs --repair")
	}
	if o.window {
		// A window that was killed with its guardian.
		if r, err := guardian.Recover(); err == nil && r != (guardian.Report{}) {
			o.say("left behind by an earlier run: %s", r)
		}
		if r, err := guardian.Left(); err == nil && r != (guardian.Report{}) {
			o.say("%s", r.StillThere())
		}
	}
	cmd, err := launch.Find(o.args, o.user)
	if e := new(launch.Error); errors.As(err, &e) {
		return nil, &status{e.Status, err}
	}
	if err != nil {
		return nil, err
	}
	if o.user != "" && !o.repair {
		if err := rights.RunUser.Check(); err != nil {
			return nil, fmt.Errorf("run --user: %w", err)
		}
	}
	return cmd, nil
}

// session is what the command's loads are told by, and those that were repaired, unless fixes is
// nil.
func (o *runOptions) session(header trace.Header, out *output, fixes *repairs) (*session, error) {
	s, err := newSession(header, &o.selection, o.sink(out, out.text()))
	if err != nil {
		return nil, err
	}
	if fixes != nil {
		s.Others = fixes.take
		s.beside = interpose.Memory
		// Without CAP_SETUID or CAP_SYS_ADMIN, and in a user namespace, not all of this is to be
		// had.
		_ = fixes.proxy.Apart()
		if err := fixes.proxy.Exposed(); err != nil {
			o.say("a command of the same user can stop the process that repairs its loads, which then go to the kernel unrepaired: %v", err)
		}
	}
	if o.output == "" {
		// The command may be what hangs: then nothing else would ever be said.
		s.hung = o.sayHang
	}
	return s, nil
}

// wait waits for the command. The error is its exit status, unless that is 0.
func wait(p *launch.Process, signals <-chan os.Signal) error {
	code, err := p.Wait(signals)
	if err == nil && code != 0 {
		return &status{code: code}
	}
	return err
}

// summarize ends the explanations with a sum, if there is anything to sum up.
func (o *runOptions) summarize(s *session, out *output, have uint64) error {
	if o.json || s.summary.Attempts == 0 && s.summary.Whole() && o.output == "" {
		return nil
	}
	err := out.text().Summary(&s.summary)
	row := rights.Run
	if o.user != "" {
		row = rights.RunUser
	}
	for _, line := range row.Less(have) {
		fmt.Fprintf(out, "bpfwhy: %s\n", line)
	}
	return err
}

// start starts the held command, with a proxy for its loads when it is to have one and can.
func start(cmd *launch.Command, o *runOptions) (*launch.Process, *repairs, error) {
	if o.repair {
		p, fixes, err := startRepairing(cmd, o.window)
		if err == nil {
			return p, fixes, nil
		}
		o.say("%s runs without repairs: %v", o.args[0], rights.Repair.Explain(err))
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

// close stops the repairs, if there are any.
func (r *repairs) close() {
	if r != nil {
		r.proxy.Close()
	}
}

// tellRest says what was not repaired, and what was not listed.
func (r *repairs) tellRest(io std) {
	if r == nil {
		return
	}
	if left := r.proxy.Unrepaired(); left != (interpose.Unrepaired{}) {
		io.say("programs that blinding may break went to the kernel unrepaired: %s", left)
	}
	if r.untold > 0 {
		io.say("%d more repairs are not listed, because they came too fast", r.untold)
	}
}

func (r *repairs) take() []*load.Attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.list
	r.list = nil
	return list
}

// openRun opens the capture. The source and header are of use with an error too: they are those of
// a machine on which nothing is seen.
func openRun(ctx context.Context, opts capture.Options) (diagnose.Source, trace.Header, error) {
	c, err := openCapture(ctx, opts)
	if err != nil {
		return newSilent(), trace.Header{Schema: trace.Schema, Node: *node.Host(), Tool: buildInfo().Version}, err
	}
	return c, c.Header(), nil
}

// silent is a source that sees nothing.
type silent struct {
	once   sync.Once
	closed chan struct{}
}

func newSilent() *silent { return &silent{closed: make(chan struct{})} }

func (b *silent) Next() (trace.Record, error) {
	<-b.closed
	return trace.Record{}, io.EOF
}

func (b *silent) Behind() bool { return false }

func (b *silent) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// Most that is kept for standard error while the command runs.
const heldOutput = 8 << 20

// heldMemory: a buffer that grows is copied into one of twice the size.
const heldMemory = 3 * heldOutput

// output is a file, or standard error once the command has ended: while it runs, standard error is
// the command's.
type output struct {
	std     std
	file    *os.File // nil: standard error
	held    bytes.Buffer
	dropped int // bytes
}

func openOutput(to std, path string) (*output, error) {
	if path == "" {
		return &output{std: to}, nil
	}
	f, err := trace.Create(path)
	if err != nil {
		return nil, err
	}
	return &output{std: to, file: f}, nil
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
	width, colour := terminal.Of(o.std.err)
	return render.NewText(o, width, colour)
}

func (o *output) flush() error {
	if o.file != nil {
		return nil
	}
	_, err := io.Copy(o.std.err, &o.held)
	if o.dropped > 0 {
		o.std.say("there were more than %d MiB of explanations; the last %d bytes were dropped: use --output FILE", heldOutput>>20, o.dropped)
	}
	return err
}

func (o *output) Close() error {
	if o.file == nil {
		return nil
	}
	return o.file.Close()
}
