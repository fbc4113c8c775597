// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
)

var (
	newerKernel     = load.Remedy{ID: "newer-kernel", Title: "Run on a kernel that has it", Price: "A reboot, and another kernel to test. Vendors backport: try it rather than compare versions."}
	optionalFeature = load.Remedy{ID: "probe-feature", Title: "Have the loader try the feature first, and leave the program out or use another where it is missing", Price: "A second variant to build and test."}
)

func featureRules() []Rule {
	return []Rule{feat001(), feat002(), feat003(), feat004(), feat005(), feat006(), feat007(), feat008()}
}

// progTypeSince gives the kernels that brought the younger program types.
var progTypeSince = map[string]insn.Version{
	"lwt_seg6local": release(4, 18), "lirc_mode2": release(4, 18), "sk_reuseport": release(4, 19), "flow_dissector": release(4, 20), "cgroup_sysctl": release(5, 2),
	"raw_tracepoint_writable": release(5, 2), "cgroup_sockopt": release(5, 3), "tracing": release(5, 5), "struct_ops": release(5, 6), "ext": release(5, 6), "lsm": release(5, 7),
	"sk_lookup": release(5, 9), "syscall": release(5, 14), "netfilter": release(6, 4),
}

// ProgramTypeSince is the release that brought a program type, false for the oldest ones.
func ProgramTypeSince(t string) (insn.Version, bool) {
	v, ok := progTypeSince[t]
	return v, ok
}

func feat004() Rule {
	return Rule{
		ID:    "FEAT004",
		Title: "The kernel does not know the program type",
		Class: "R6",
		Stage: load.Request,
		Text: `The program type is newer than the kernel, or its subsystem was not built
in. The kernel answers EINVAL. There is no log, because the verifier did not run.`,
		Kernels:  "All.",
		Remedies: []load.Remedy{optionalFeature, newerKernel},
		Match:    matchProgType,
	}
}

func matchProgType(f *Facts) *Match {
	if !f.isLoad() || f.errno() != abi.EINVAL || !f.words.empty() || f.verifierAccepted() || f.cause(load.FnCheck) != nil || f.cause(load.FnDoCheck) != nil {
		return nil
	}
	m := &Match{Strength: Possible, How: f.howRequest()}
	m.Why = "a program type that was not built into the kernel ends so too"
	t, _ := f.progType()
	m.Cause = fmt.Sprintf("This kernel has no programs of type %s.", printable(t, 40))
	n := int(f.progAttr().ProgType)
	since, dated := progTypeSince[t]
	switch {
	case len(f.ev.Attr) >= 4 && (n == 0 || n > abi.ProgTypes):
		m.Strength = Strong
		m.Cause = fmt.Sprintf("No kernel known today has a program type %d.", n)
		if n == 0 {
			m.Cause = "The program has no type (0): the loader did not set one."
		}
		m.Evidence = append(m.Evidence, fmt.Sprintf("prog_type was %d", n))
	case dated && f.before(since):
		m.Strength = Strong
		m.Evidence = append(m.Evidence, fmt.Sprintf("the type %s came with %s, the kernel is %d.%d", t, since, f.kernel.Major, f.kernel.Minor))
	case t == "" || t == "socket_filter":
		return nil
	}
	return m
}

func feat005() Rule {
	return Rule{
		ID:    "FEAT005",
		Title: "The kernel does not know the map type",
		Class: "R6",
		Stage: load.Request,
		Text: `The map type is newer than the kernel (ring buffers: 5.8), or was not
built in. The kernel answers EINVAL. Loaders often report this as a failure of the program that
uses the map.`,
		Kernels:  "All.",
		Remedies: []load.Remedy{optionalFeature, newerKernel},
		Match:    matchMapType,
	}
}
