// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/capture"
	"github.com/bpfwhy/bpfwhy/internal/guardian"
	"github.com/bpfwhy/bpfwhy/internal/privilege"
	"github.com/bpfwhy/bpfwhy/internal/render"
	"github.com/bpfwhy/bpfwhy/internal/rights"
	"github.com/bpfwhy/bpfwhy/internal/threads"
	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

type watchOptions struct {
	selection
	pids []int
}

func newWatch() *cobra.Command {
	var o watchOptions
	c := &cobra.Command{
		Use:   "watch",
		Short: "Watch every BPF load on this machine until interrupted",
		Long: `Watch every BPF load on this machine until interrupted: one line for each, an explanation
beneath each that failed or was not compiled, and a summary at the end. Failures that are alike are explained
once and then counted.

` + render.Legend,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return watch(o) },
	}
	o.flags(c)
	c.Flags().IntSliceVar(&o.pids, "pid", nil, "only these processes and their children")
	return c
}

func watch(o watchOptions) error {
	opts, err := o.options()
	if err != nil {
		return err
	}
	for _, pid := range o.pids {
		if pid <= 0 || unix.Kill(pid, 0) == unix.ESRCH {
			return fmt.Errorf("--pid %d: no such process", pid)
		}
	}
	opts.PIDs = o.pids
	// Who was killed with its guardian may have left a sysctl changed. Or it is the administrator's own value by now: who only
	// watches changes nothing.
	if r, err := guardian.Left(); err == nil && r != (guardian.Report{}) {
		say("%s", r.StillThere())
	}
	defer threads.LimitProcessors()()
	ctx := interruptible()
	c, err := openCapture(ctx, opts)
	if err != nil && ctx.Err() != nil {
		return &status{code: negative, err: errors.New("interrupted before anything was watched")}
	}
	if err != nil {
		return err
	}
	defer c.Close()
	have, _ := rights.Have()
	if err := dropPrivileges(); err != nil {
		say("keeps its capabilities: %v", err)
	}
	s, err := newSession(c.Header(), &o.selection, o.sink(os.Stdout, newText(os.Stdout)))
	if err != nil {
		return err
	}
	announce(o.words(), c.Header())
	for _, line := range rights.Watch.Less(have) {
		say("%s", line)
	}
	if err := s.live(c, ctx.Done()); err != nil {
		return err
	}
	if o.json {
		return newText(os.Stderr).Summary(&s.summary)
	}
	return newText(os.Stdout).Summary(&s.summary)
}

// announce is the line that says what is watched by what, and that we are ready.
func announce(what string, h trace.Header) {
	by, missing := coverage(h)
	if len(missing) == 0 {
		say("watching %s by %s; every stage is observed", what, by)
		return
	}
	say("watching %s by %s; not observed but concluded: %s ('bpfwhy doctor' says why)", what, by, strings.Join(missing, ", "))
}

// openCapture attaches, if loads come back on this machine.
func openCapture(ctx context.Context, opts capture.Options) (*capture.Capture, error) {
	if err := loadsHang(ctx); err != nil {
		return nil, fmt.Errorf("watch bpf(2): %w", err)
	}
	opts.Node, opts.Tool = *node.Host(), buildInfo().Version
	return capture.Open(ctx, opts)
}

// dropPrivileges gives up what only attaching needs. What is kept: CAP_SYS_ADMIN, without which the kernel refuses reads of
// net.core.bpf_jit_harden and, before 5.19, every bpf(2) on maps that are open already, or in its place CAP_BPF for these; CAP_SYS_PTRACE
// and CAP_DAC_READ_SEARCH for /proc of other users; CAP_KILL to pass signals to a command that runs as somebody else.
func dropPrivileges() error {
	keep := []int{unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH, unix.CAP_KILL}
	if have, err := privilege.Effective(); err == nil && have&(1<<unix.CAP_SYS_ADMIN) == 0 {
		keep = append(keep, unix.CAP_BPF)
	}
	return privilege.Drop(keep...)
}

// words says what was selected.
func (o *watchOptions) words() string {
	var parts []string
	if len(o.pids) > 0 {
		parts = append(parts, "of pid "+strings.Trim(fmt.Sprint(o.pids), "[]")+" and its children")
	}
	if o.comm != "" {
		parts = append(parts, "of threads named "+o.comm)
	}
	if o.cgroup != "" {
		parts = append(parts, "in control group "+o.cgroup)
	}
	if o.failed {
		parts = append(parts, "that fail")
	}
	if len(parts) == 0 {
		return "every load on this machine"
	}
	return "loads " + strings.Join(parts, ", ")
}
