// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
)

// Control groups.

func cgroupRules() []Rule {
	return []Rule{att201(), att202(), att203(), att204()}
}

var cgroupReasons = []reason{
	{
		rule: "ATT201", at: atCgroup, call: attachCalls, errno: []int{abi.EBADF},
		text: "What was opened as the control group is not a directory of the hierarchy of version 2: it is one of version 1, a file in it, or another file system.",
		tell: "'stat -f PATH' prints cgroup2fs for a usable directory.",
		look: lookCgroupDescriptor,
	},
	{
		rule: "ATT201", at: atCgroup, call: progAttach, errno: []int{abi.EPERM}, rare: true,
		text: "The path is one of the hierarchy of version 1, and the loader's EPERM may be the return value -1 in words.",
		look: func(f *Facts, m *Match) Strength {
			if f.text == nil || !versionOne.MatchString(f.target().Path) {
				return 0
			}
			return m.Strength
		},
	},
	{
		rule: "ATT202", at: atCgroup, call: linkCreate, errno: []int{abi.EINVAL}, rare: true,
		text: "The link was given flags of BPF_PROG_ATTACH (BPF_F_ALLOW_MULTI, BPF_F_ALLOW_OVERRIDE). Links take none of them. They always allow other programs.",
		tell: "strace shows the flags.",
		look: lookCgroupFlags,
	},
	{
		rule: "ATT203", at: atCgroup, call: progAttach, errno: []int{abi.EINVAL}, rare: true,
		text: "Attaching a cgroup_skb program needs CAP_NET_ADMIN. BPF_PROG_ATTACH answers EINVAL without it.",
		tell: "The loader's capabilities tell.",
		look: lookSKBCapability,
	},
	{
		rule: "ATT203", at: atCgroup, call: linkCreate, errno: []int{abi.EPERM},
		text: "Attaching a cgroup_skb program needs CAP_NET_ADMIN.",
		tell: "The loader's capabilities tell.",
		look: lookSKBCapability,
	},
	{
		rule: "ATT204", at: atCgroup, call: attachCalls, errno: []int{abi.EPERM},
		text: "A program in this control group or in one above it excludes this one: it was attached without BPF_F_ALLOW_MULTI, or with other flags.",
		tell: "'bpftool cgroup tree' shows what is attached, and its flags.",
		look: lookExcluded,
	},
}

func att201() Rule {
	return Rule{
		ID:    "ATT201",
		Title: "Not a cgroup v2 directory (Bad file descriptor)",
		Class: "R5",
		Stage: load.Request,
		Text: `Programs are attached to directories of the cgroup2 file system. The
kernel answers EBADF, "Bad file descriptor", for a directory of version 1
(/sys/fs/cgroup/memory/NAME), for a file such as cgroup.procs, and for a directory of another file
system. The descriptor is open all the same. On hosts with both versions, version 2 is mounted at
/sys/fs/cgroup/unified, or nowhere. In a container, /sys/fs/cgroup may show only the container's
own part.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "cgroup2-path",
				Title:   "Use the directory below the mount point of cgroup2",
				Price:   "On a host with version 1, only systemd's own groups may have processes in version 2.",
				Command: "findmnt -t cgroup2",
			},
			{
				ID:    "unified",
				Title: "Boot the host with version 2 only (systemd.unified_cgroup_hierarchy=1)",
				Price: "A reboot. Old container runtimes do not work with it.",
			},
		},
		Match: byReason("ATT201"),
	}
}

// versionOne are paths where the controllers of version 1 are mounted.
var versionOne = lazyregexp.New(`/sys/fs/cgroup/(?:blkio|cpu|cpuacct|cpu,cpuacct|cpuset|devices|freezer|hugetlb|memory|net_cls|net_prio|net_cls,net_prio|perf_event|pids|rdma|systemd)(?:/|$)`)

func lookCgroupDescriptor(f *Facts, m *Match) Strength {
	t := f.target()
	if t.Path != "" {
		m.Evidence = append(m.Evidence, "the descriptor was of "+printable(t.Path, 200))
	}
	switch {
	case t.Name == load.NotOpen && f.lookedAfter():
		return Likely // it may have been closed since
	case t.Name == load.NotOpen:
		return 0
	case strings.HasPrefix(t.Name, "directory of "), strings.HasPrefix(t.Name, "file of "):
		m.Evidence = append(m.Evidence, "which is a "+printable(t.Name, 60))
		return Strong
	case t.ID != 0:
		return 0 // it is a control group
	case f.attached().ID != 0 && f.places() == atCgroup:
		return Strong // the program's descriptor was good
	case versionOne.MatchString(t.Path):
		m.Evidence = append(m.Evidence, "that is where a controller of version 1 is mounted")
		return Strong
	case f.Node.CgroupV1 && !f.Node.CgroupV2:
		m.Evidence = append(m.Evidence, "no hierarchy of version 2 is mounted on this host")
	}
	return m.Strength
}

func att202() Rule {
	return Rule{
		ID:    "ATT202",
		Title: "A link to a cgroup does not take BPF_F_ALLOW_MULTI or BPF_F_ALLOW_OVERRIDE",
		Class: "R6",
		Stage: load.Request,
		Text: `BPF_PROG_ATTACH has flags that say whether other programs may be attached
too: BPF_F_ALLOW_OVERRIDE, BPF_F_ALLOW_MULTI. A link has no such flags. It always allows other
programs, as with BPF_F_ALLOW_MULTI. The kernel refuses the flags with EINVAL.`,
		Kernels: "Since 5.7. A link takes BPF_F_BEFORE and BPF_F_AFTER since 6.17.",
		Remedies: []load.Remedy{
			{
				ID:    "no-flags",
				Title: "Leave the flags out",
				Price: "Nothing. A link does the same as BPF_F_ALLOW_MULTI.",
			},
		},
		Match: byReason("ATT202"),
	}
}

func lookCgroupFlags(f *Facts, m *Match) Strength {
	const own = abi.AttachFlagOverride | abi.AttachFlagMulti | abi.AttachFlagReplace
	flags := f.attach().Flags
	switch {
	case flags&own != 0:
		m.Evidence = append(m.Evidence, fmt.Sprintf("the flags of the call were %#x", flags))
		return Strong
	case f.text == nil:
		return 0
	}
	return m.Strength
}

func att203() Rule {
	return Rule{
		ID:    "ATT203",
		Title: "Attaching a cgroup_skb program needs CAP_NET_ADMIN",
		Class: "R1",
		Stage: load.Permission,
		Text: `Programs of the type cgroup_skb can be loaded without privilege. So the
kernel asks for CAP_NET_ADMIN when they are attached. CAP_BPF is not enough. BPF_LINK_CREATE
answers EPERM. BPF_PROG_ATTACH answers EINVAL, as if an argument were wrong.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:    "grant-net-admin",
				Title: "Give the loader CAP_NET_ADMIN",
				Price: "The loader may then change the node's network.",
			},
			{
				ID:    "privileged-loader",
				Title: "Let a privileged process attach the program, and pin the link",
				Price: "A second component to run and to secure.",
			},
			delegateToken,
		},
		grants: map[string][]int{"grant-net-admin": {abi.CapBPF, abi.CapNetAdmin}},
		Match:  byReason("ATT203"),
	}
}

func lookSKBCapability(f *Facts, m *Match) Strength {
	p, typ := f.attached(), f.attach().Type
	if p.Type != "" && p.Type != "cgroup_skb" || typ != "" && typ != "cgroup_inet_ingress" && typ != "cgroup_inet_egress" {
		return 0
	}
	m.Without = append(m.Without, f.uselessRemedies("grant-net-admin")...)
	f.tellCaps(m)
	known := p.Type != "" || typ != ""
	switch seen, saw := f.refusedCap(); {
	case saw && seen == abi.CapNetAdmin:
		m.How = load.Observed
		m.Evidence = append(m.Evidence, "the kernel checked whether the loader has CAP_NET_ADMIN, and found that it has not")
		return Certain
	case f.holds(abi.CapNetAdmin):
		return 0
	case f.missing(abi.CapNetAdmin) && known:
		return Strong
	}
	return m.Strength
}

func att204() Rule {
	return Rule{
		ID:    "ATT204",
		Title: "Another program in this cgroup or above does not allow this one (BPF_F_ALLOW_MULTI)",
		Class: "R5",
		Stage: load.Install,
		Text: `The first program of a kind decides for its control group and for all
groups below. Without a flag, no other program may be attached. With BPF_F_ALLOW_OVERRIDE, a
program further down replaces it. With BPF_F_ALLOW_MULTI, all programs run. Links behave like this
too. A program with other flags gets EPERM, whatever the capabilities.

systemd attaches programs to the groups of units with IPAddressDeny=, DeviceAllow= and similar
settings. Container runtimes attach programs to the groups of containers.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:    "allow-multi",
				Title: "Attach by a link, or with BPF_F_ALLOW_MULTI. This works if the existing program was attached like this. systemd does so for units with Delegate=yes",
				Price: "A change of the loader, or of the unit.",
			},
			{
				ID:      "find-holder",
				Title:   "Find the program that does not allow others. Let its owner attach it with BPF_F_ALLOW_MULTI",
				Price:   "A change of another component.",
				Command: "bpftool cgroup tree",
			},
		},
		Match: byReason("ATT204"),
	}
}

// lookExcluded: the kernel has no other EPERM here for who may attach.
func lookExcluded(f *Facts, m *Match) Strength {
	if seen, saw := f.refusedCap(); saw && seen == abi.CapNetAdmin {
		return 0
	}
	if p := f.attached().Type; f.kind() == load.LinkCreate && (p == "" || p == "cgroup_skb") && !f.holds(abi.CapNetAdmin) {
		return Possible
	}
	if f.text != nil {
		return Possible // a missing capability, of a container above all, is as common
	}
	if f.attach().Flags&abi.AttachFlagMulti != 0 {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the flags of the call were %#x, with BPF_F_ALLOW_MULTI", f.attach().Flags))
	}
	return m.Strength
}
