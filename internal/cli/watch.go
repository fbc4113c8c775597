// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/rights"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/sys/privilege"
	"github.com/bpfwhy/bpfwhy/internal/sys/threads"
	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

type watchOptions struct {
	selection
	pids []int
}

func newWatch(io std) *cobra.Command {
	o := watchOptions{selection: selection{std: io}}
	c := &cobra.Command{
		Use:   "watch",
		Short: "Watch every BPF load on this machine until interrupted",
		Long: `Watch every BPF load on this machine until interrupted. Each load is one line.
Below each load that failed or was not compiled there is an explanation. At the
end there is a summary. A failure that repeats is explained once and then
counted.

` + render.Legend,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return watch(c.Context(), o) },
	}
	o.flags(c)
	c.Flags().StringVar(&o.pod, "pod", "", "only the pod of Kubernetes with this uid")
	c.Flags().IntSliceVar(&o.pids, "pid", nil, "only these processes and their children")
	return c
}

func watch(ctx context.Context, o watchOptions) error {
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
	// Who was killed with its guardian may have left a sysctl changed. Or it is the administrator's
	// own value by now: who only watches changes nothing.
	if r, err := guardian.Left(); err == nil && r != (guardian.Report{}) {
		o.say("%s", r.StillThere())
	}
	defer threads.LimitProcessors()()
	ctx = interruptible(ctx)
	c, err := openCapture(ctx, opts)
	if err != nil && ctx.Err() != nil {
		return &status{code: negative, err: errors.New("interrupted before watching began")}
	}
	if err != nil {
		return err
	}
	defer c.Close()
	have, _ := rights.Have()
	if err := dropPrivileges(); err != nil {
		o.say("could not give up capabilities: %v", err)
	}
	s, err := newSession(c.Header(), &o.selection, o.sink(o.out, o.text()))
	if err != nil {
		return err
	}
	o.announce(c.Header())
	for _, line := range rights.Watch.Less(have) {
		o.say("%s", line)
	}
	if err := s.live(c, ctx.Done()); err != nil {
		return err
	}
	if o.json {
		return newText(o.err).Summary(&s.summary)
	}
	return o.text().Summary(&s.summary)
}

// announce is the line that says what is watched by what, and that we are ready.
func (o *watchOptions) announce(h trace.Header) {
	by, missing := coverage(h)
	if len(missing) == 0 {
		o.say("watching %s by %s; every stage is observed", o.words(), by)
		return
	}
	o.say("watching %s by %s; not observed, only concluded: %s ('bpfwhy doctor' says why)", o.words(), by, strings.Join(missing, ", "))
}

// openCapture attaches, if loads come back on this machine.
func openCapture(ctx context.Context, opts capture.Options) (*capture.Capture, error) {
	if err := loadsHang(ctx); err != nil {
		return nil, fmt.Errorf("watch bpf(2): %w", err)
	}
	opts.Node, opts.Tool = *node.Host(), buildInfo().Version
	return capture.Open(ctx, opts)
}

// dropPrivileges gives up what only attaching needs. What is kept: CAP_SYS_ADMIN, without which the
// kernel refuses reads of net.core.bpf_jit_harden and, before 5.19, every bpf(2) on maps that are
// open already, or in its place CAP_BPF for these; CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH for /proc
// of other users; CAP_KILL to pass signals to a command that runs as somebody else.
func dropPrivileges() error {
	keep := []int{unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH, unix.CAP_KILL}
	if have, err := privilege.Effective(); err == nil && !abi.HasCap(have, abi.CapSysAdmin) {
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
