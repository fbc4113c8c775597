// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/watch/diagnose"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/spf13/cobra"
)

// here are the commands that need a kernel that they can watch.
func here(io std) []*cobra.Command {
	return []*cobra.Command{newWatch(io), newServe(io), newRun(io), newDemo(io), newDoctor(io), newNode(io), newAudit(io), newHarden()}
}

// host is the profile of this machine.
func host() (*node.Profile, error) { return node.Host(), nil }

// live tells of a running kernel until the channel stop gives something.
func (s *session) live(c diagnose.Source, stop <-chan struct{}) error {
	defer limitMemory(s.beside)()
	return s.tell(diagnose.Live(c, stop, monotonic))
}

// monotonic is the kernel's clock of the records, in ns.
func monotonic() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano())
}
