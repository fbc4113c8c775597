// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"fmt"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/hostinfo/audit"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
)

// sayNoLoad says that a command made no load, and who else may have made it. newest is the id that
// the newest program of the machine had before the command began.
func (o *runOptions) sayNoLoad(s *render.Summary, newest uint32) {
	command := o.args[0]
	switch {
	case s.Attempts > 0 || !s.Whole():
	case o.failed:
		o.say("no load of %s failed; --failed does not look at others", command)
	case o.comm != "" || o.cgroup != "":
		o.say("no load of %s that --comm and --cgroup select was seen", command)
	case s.FeatureProbe > 0:
		o.say("%s loaded no program: it only tried what this kernel can do (%d feature probes; --all shows them)", command, s.FeatureProbe)
	default:
		o.say("no load of %s or its children was seen: as far as can be seen, none of them called bpf(2) for one. If programs were to be "+
			"loaded, a daemon does it (a service, a container runtime, systemd), perhaps as another user or in another namespace: "+
			"'bpfwhy watch' sees the loads of all.%s", command, loadedMeanwhile(newest))
	}
}

// loadedMeanwhile names the programs that others have loaded since.
func loadedMeanwhile(newest uint32) string {
	names, more := audit.Newer(newest)
	if len(names) == 0 {
		return ""
	}
	if more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf(" Meanwhile others loaded: %s.", strings.Join(names, ", "))
}
