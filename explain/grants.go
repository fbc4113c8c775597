// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// site is where a loader runs: what gives it rights differs.
type site int

const (
	siteUnknown site = iota
	siteHost
	sitePod
	siteContainer // of Docker or Podman, started by hand
)

// site is where the loader ran, as far as its control groups tell.
func (f *Facts) site() site {
	p := &f.Attempt.Process
	switch runtime, _, _ := strings.Cut(p.Container, "://"); runtime {
	case "docker", "podman":
		return siteContainer
	case "":
		for _, g := range p.Cgroups {
			if g.Name != "" {
				return siteHost
			}
		}
		return siteUnknown
	}
	return sitePod
}

// step is a part of a command, for loaders in some places.
type step struct {
	what string // a comment
	do   string
	in   []site
}

func commandFor(at site, steps []step) string {
	var lines []string
	for _, s := range steps {
		for _, p := range s.in {
			if p == at {
				lines = append(lines, "# "+s.what+":", s.do)
			}
		}
	}
	return strings.Join(lines, "\n")
}

// capabilities are as the three forms write them.
func capabilities(caps []int) (unit, container, file string) {
	for i, c := range caps {
		name := abi.CapName(c)
		if i > 0 {
			unit, container, file = unit+" ", container+" ", file+","
		}
		unit += name
		container += strings.TrimPrefix(name, "CAP_")
		file += strings.ToLower(name)
	}
	return unit, container, file
}

// grantCommand gives capabilities to a loader.
func grantCommand(at site, caps []int) string {
	unit, container, file := capabilities(caps)
	setcap := "setcap " + file + "+ep PROGRAM"
	return commandFor(at, []step{
		{"systemd, in the unit's [Service]", "AmbientCapabilities=" + unit, []site{siteUnknown, siteHost}},
		kubernetes(container),
		docker(container),
		{"or on the loader's file", setcap, []site{siteHost}},
		{"or on the loader's file; without root in a container, on that too", setcap, []site{siteUnknown}},
		{"and without root in the container, on the loader's file in the image", setcap, []site{sitePod, siteContainer}},
	})
}

// containerCommand gives capabilities to a container.
func containerCommand(at site, caps []int) string {
	_, container, _ := capabilities(caps)
	return commandFor(at, []step{kubernetes(container), docker(container)})
}

func kubernetes(caps string) step {
	add := strings.ReplaceAll(caps, " ", ", ")
	return step{"Kubernetes, of the container", "securityContext: {capabilities: {add: [" + add + "]}}", []site{siteUnknown, sitePod}}
}

func docker(caps string) step {
	return step{"Docker, Podman", "docker run --cap-add " + strings.ReplaceAll(caps, " ", " --cap-add ") + " IMAGE", []site{siteContainer}}
}

// profileCommand lets a seccomp policy pass the calls that loaders make.
func profileCommand(at site) string {
	const rule = `{"names": ["bpf", "perf_event_open"], "action": "SCMP_ACT_ALLOW"},`
	return commandFor(at, []step{
		{`first in "syscalls" of a copy of the runtime's default profile, on the nodes as /var/lib/kubelet/seccomp/bpf.json`, rule, []site{siteUnknown, sitePod}},
		{"Kubernetes, of the container", "securityContext: {seccompProfile: {type: Localhost, localhostProfile: bpf.json}}", []site{siteUnknown, sitePod}},
		{`first in "syscalls" of a copy of the runtime's default profile, as bpf.json`, rule, []site{siteContainer}},
		{"Docker, Podman", "docker run --security-opt seccomp=bpf.json IMAGE", []site{siteContainer}},
		{"systemd, in the unit's [Service], behind its other SystemCallFilter lines", "SystemCallFilter=bpf perf_event_open", []site{siteUnknown, siteHost}},
	})
}

// The remedies of a seccomp policy.
const (
	grantContainer = "grant-caps-container"
	seccompProfile = "seccomp-profile"
)

// fitted is a remedy of a rule as it is for this loader: what gives rights depends on where it
// runs, and before 5.8 there is one capability for all.
func (f *Facts) fitted(o finding, r load.Remedy) load.Remedy {
	caps := o.rule.grants[r.ID]
	if own, ok := o.match.Grants[r.ID]; ok {
		caps = own
	}
	if f.doesNot(node.SplitsCapabilities) && slices.ContainsFunc(caps, func(c int) bool { return c == abi.CapBPF || c == abi.CapPerfmon }) {
		caps = []int{abi.CapSysAdmin}
	}
	switch {
	case r.ID == seccompProfile:
		r.Command = profileCommand(f.site())
	case r.ID == grantContainer:
		r.Command = containerCommand(f.site(), caps)
	case len(caps) > 0:
		r.Command = grantCommand(f.site(), caps)
	}
	return r
}
