// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/sys/cgroup"
	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
	"github.com/spf13/cobra"
)

// backends in the order in which capture tries them.
var backends = []string{"fentry", "kprobe", "tracepoint", "tp_btf"}

func (s *selection) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.comm, "comm", "", "only threads with this name (as in /proc/PID/comm, at most 15 bytes)")
	f.StringVar(&s.cgroup, "cgroup", "", "only this v2 cgroup and those below it: a path, or an id (its inode number)")
	f.BoolVar(&s.failed, "failed", false, "only loads that fail or are not compiled")
	f.BoolVar(&s.all, "all", false, "also feature probes, and calls for maps, BTF, links and others that succeed")
	f.BoolVar(&s.json, "json", false, "JSON Lines: attempts, summaries of repeats, losses (docs/schema/load-v2.schema.json)")
	s.schema.flag(c)
	f.StringVar(&s.record, "record", "", "write what was captured to this file, for 'bpfwhy explain FILE' (mode 0600)")
	backendFlag(c, &s.backend)
}

func backendFlag(c *cobra.Command, name *string) {
	c.Flags().StringVar(name, "backend", "", "force one kind of hook: "+strings.Join(backends, ", "))
	complete(c, "backend", backends...)
}

// options translates the selection for the kernel side.
func (s *selection) options() (capture.Options, error) {
	o := capture.Options{Backend: s.backend, Comm: s.comm, FailedOnly: s.failed, All: !s.failed} // the stories of loaders need the healthy calls
	if err := s.schema.check(); err != nil {
		return o, err
	}
	if err := checkBackend(s.backend); err != nil {
		return o, err
	}
	if err := checkPod(s.pod); err != nil {
		return o, err
	}
	if len(s.comm) > 15 {
		return o, usage("--comm %q: the kernel keeps 15 bytes of a name, and this one has %d", s.comm, len(s.comm))
	}
	if s.failed && s.all {
		return o, usage("--failed and --all exclude each other")
	}
	if s.cgroup != "" {
		root, err := cgroup.Root()
		if err != nil {
			return o, fmt.Errorf("--cgroup: %w", err)
		}
		g, err := cgroup.Find(s.cgroup, root)
		if err != nil {
			return o, fmt.Errorf("--cgroup: %w", err)
		}
		o.CgroupID = g.ID
	}
	return o, nil
}

func checkBackend(name string) error {
	if name == "" || slices.Contains(backends, name) {
		return nil
	}
	return usage("--backend %q: choose one of %s", name, strings.Join(backends, ", "))
}
