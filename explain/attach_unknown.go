// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

func att002() Rule {
	return Rule{
		ID:    "ATT002",
		Title: "This kernel does not support this attach type or link",
		Class: "R5",
		Stage: load.Request,
		Text: `Links and attach types were added over time: links in 5.7, XDP links in
5.9, links of perf events in 5.15, kprobe.multi in 5.18, links of fentry by BPF_LINK_CREATE in
5.19, tcx and uprobe.multi in 6.6, netkit in 6.7. An older kernel answers EINVAL, as it does for a
wrong argument. So does a kernel that was built without the feature (CONFIG_CGROUP_BPF,
CONFIG_FPROBE). The program itself may still load.`,
		Kernels: "All before the release that added the attach type.",
		Remedies: []load.Remedy{
			{
				ID:    "older-way",
				Title: "Attach in the older way: BPF_PROG_ATTACH, netlink, a perf event with its ioctl, or BPF_RAW_TRACEPOINT_OPEN",
				Price: "There is no link. Some programs then stay attached when the loader ends. Others are detached when their descriptor is closed.",
			},
			{
				ID:    "newer-kernel",
				Title: "Use a kernel that supports it",
				Price: "A reboot, and another kernel to test.",
			},
		},
		Match: byReason("ATT002"),
	}
}

// optionOf is the option of the kernel's configuration without which a place takes nothing.
var optionOf = map[place]string{
	atCgroup: "CONFIG_CGROUP_BPF", atKprobeMulti: "CONFIG_FPROBE", atUprobeMulti: "CONFIG_UPROBE_EVENTS", atSockmap: "CONFIG_BPF_STREAM_PARSER",
}

func lookUnknownType(f *Facts, m *Match) Strength {
	name := f.attach().Type
	if p := f.attached(); name == "" && (p.Type == "tracing" || p.Type == "lsm") {
		name = p.AttachType
	}
	t, known := attachTypes[name]
	if option := optionOf[f.places()]; option != "" && f.Node.Config[option] == "n" {
		m.Evidence = append(m.Evidence, option+" is off in this kernel")
		return Strong
	}
	since := f.typeCame(t)
	switch {
	case f.errno() == abi.EOPNOTSUPP:
		return m.Strength
	case !known || f.Node.Backports():
		return m.Strength
	case f.since(since):
		return 0
	case f.before(since):
		m.Cause = fmt.Sprintf("This kernel (%d.%d) cannot attach %s in this way: that came with %s.", f.kernel.Major, f.kernel.Minor, printable(name, 40), since)
		m.Evidence = append(m.Evidence, fmt.Sprintf("the kernel is %d.%d", f.kernel.Major, f.kernel.Minor))
		return Strong
	}
	return m.Strength
}

// typeCame is the release that brought the attach type to this call.
func (f *Facts) typeCame(t attachType) insn.Version {
	if f.kind() == load.LinkCreate {
		return latest(t.since, t.link, node.AttachesByLink.Since())
	}
	return t.since
}

// typeTooNew reports an attach type that this kernel does not know.
func (f *Facts) typeTooNew() bool {
	t, known := attachTypes[f.attach().Type]
	return known && !f.Node.Backports() && f.before(f.typeCame(t))
}

// latest is the last of some releases.
func latest(list ...insn.Version) insn.Version {
	last := list[0]
	for _, v := range list {
		if last.Before(v) {
			last = v
		}
	}
	return last
}
