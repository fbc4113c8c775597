// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
)

// Network devices: XDP and tc.

func netRules() []Rule {
	return []Rule{att301(), att302(), att303(), att304(), att305(), att306(), att307()}
}

var netReasons = []reason{
	{
		rule: "ATT301", at: atXDP, errno: []int{abi.EOPNOTSUPP},
		text:  "The device's driver has no XDP of its own (native mode), or not what the flags ask for.",
		tell:  "'ethtool -i DEVICE' shows the driver. Generic mode works on every device.",
		words: lazyregexp.New(`(?i)(?:does not|doesn't) support (?:native )?XDP(?: in\b| on\b|[.,;:"']|\s*(?:\n|$))|[Nn]ative XDP is not supported`),
		look:  lookNative,
	},
	{
		rule: "ATT302", at: atXDP, rare: true,
		errno: []int{abi.EOPNOTSUPP, abi.EINVAL, abi.EBUSY, abi.ENOSPC, abi.ENOTCONN, abi.ENOMEM},
		text:  "A feature or the setting of the device is in the way of XDP: large receive offload (LRO, GRO_HW, CSUM), header split, the number of queues, a peer that is missing.",
		tell:  "The netlink answer (extack) or the kernel's log names it.",
		words: lazyregexp.New(`(?i)\brequest \d+ queues but max is|\bH?W?-?LRO\b|GRO_HW|HW[-_ ]GRO|any_header_sg|header/data|header[- ]split|(?:rx|tx|TX|RX)[ /]*(?:queues?|rings?|channels?|resources)|` +
			`\b(?:two|enough) TX\b|per CPU pools|memory provider|peer is detached|Setup for XDP failed|\bXDP_SETUP|striding RQ`),
		look: lookOffload,
	},
	{
		rule: "ATT303", at: atXDP, errno: []int{abi.ERANGE},
		text:  "The device's MTU is too large for a program that does not know fragments (xdp.frags).",
		words: lazyregexp.New(`(?i)\bMTU\b|\bjumbo\b|single-buffer XDP|(?:not|without|no)\b[^\n]{0,20}\bXDP[ -]?frag|does not support (?:XDP )?frags|multi[- ]?buffer`),
		look:  lookMTU,
	},
	{
		rule: "ATT303", at: atXDP, errno: []int{abi.EINVAL, abi.EOPNOTSUPP, abi.EBUSY}, rare: true,
		text: "The device's MTU is too large for a program that does not know fragments (xdp.frags); drivers answer differently, with and without a message.",
		tell: "'ip link' shows the MTU.",
		look: lookMTU,
	},
	{
		rule: "ATT304", at: atXDP, errno: []int{abi.EEXIST, abi.EBUSY},
		text: "Another XDP program or link is on the device, in this or another mode, or on a device above it.",
		tell: "'ip -d link show dev DEVICE' and 'bpftool net' show which.",
		words: lazyregexp.New(`Can't replace active (?:BPF )?XDP|XDP program already attached|can't be active at the same time|upper device already has a program|` +
			`Active program does not match expected`),
	},
	{
		rule: "ATT304", at: atTC, errno: []int{abi.EEXIST},
		text:  "The qdisc or a filter with this priority and handle is there already. For clsact itself this is not a failure.",
		tell:  "'tc filter show dev DEVICE ingress' shows what is there.",
		words: lazyregexp.New(`Filter already exists|Exclusivity flag on`),
		look:  lookFilter,
	},
	{
		rule: "ATT305", at: atXDP | atTC | atTCX, errno: []int{abi.ENODEV},
		text:  "There is no device of this number in the loader's network namespace.",
		words: lazyregexp.New(`Cannot find device|Specified device does not exist`),
	},
	{
		rule: "ATT305", at: atXDP, call: linkCreate, errno: []int{abi.EINVAL}, rare: true,
		text: "There is no device of this number in the loader's network namespace (a link says so by EINVAL).",
		tell: "'ip link' in that namespace lists the devices and their numbers.",
		look: lookDevice,
	},
	{
		rule: "ATT306", at: atTC, errno: []int{abi.EINVAL, abi.ENOENT},
		text:  "The device has no clsact qdisc that the filter could be attached to.",
		tell:  "'tc qdisc show dev DEVICE' shows it, or not.",
		words: lazyregexp.New(`Parent Qdisc doesn't exist|Qdisc not classful|Specified class doesn't exist|Class doesn't support blocks|Cannot find specified qdisc`),
		look:  lookClsact,
	},
	{
		rule: "ATT307", at: atTC, errno: []int{abi.ENOENT}, rare: true,
		text:  "The kernel has no classifier of the kind bpf, or no clsact: CONFIG_NET_CLS_BPF or CONFIG_NET_SCH_INGRESS is off, or its module is not there.",
		tell:  "'modinfo cls_bpf sch_ingress' tells.",
		words: lazyregexp.New(`TC classifier not found|Specified qdisc (?:kind )?(?:is unknown|not found)|clsact qdisc[^\n]{0,60}no such file`),
		look:  lookClassifier,
	},
	{
		rule: "ATT307", at: atTC, errno: []int{abi.EOPNOTSUPP}, rare: true,
		text: "The kernel was built without traffic control, or without ingress (CONFIG_NET_SCHED, CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_ACT).",
		tell: "'tc qdisc show' and 'tc filter show' answer the same then.",
		look: lookClassifier,
	},
	{at: atTC, errno: []int{abi.EOPNOTSUPP}, text: "The device or the kernel cannot do what the filter asks for: offload to hardware (skip_sw), or an action without CONFIG_NET_CLS_ACT."},
}

func att301() Rule {
	return Rule{
		ID:    "ATT301",
		Title: "The driver does not support native XDP",
		Class: "R5",
		Stage: load.Install,
		Text: `In native mode, the driver runs the program before it builds the skb of
the packet. Many drivers cannot do this. The kernel answers EOPNOTSUPP if the flags demand this
mode (XDP_FLAGS_DRV_MODE). If the flags name no mode, the kernel uses the generic mode for such
drivers. Offload to the card (XDP_FLAGS_HW_MODE) works with one driver only.

Some drivers also answer EOPNOTSUPP if an offload is in the way, or if the MTU is too large. The
message in the netlink answer (extack) says which. libbpf prints it as "Kernel error message".`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "generic-mode",
				Title:   "Attach in generic mode (XDP_FLAGS_SKB_MODE), or name no mode",
				Price:   "Slower: the packet already has its skb. No AF_XDP zero-copy.",
				Command: "ip link set dev DEVICE xdpgeneric obj FILE",
			},
			{
				ID:    "tc-instead",
				Title: "Use tc (tcx from 6.6 on) in place of XDP",
				Price: "A change of the program. It runs later on the way of the packet.",
			},
			{
				ID:      "other-driver",
				Title:   "Use a device whose driver supports it",
				Price:   "Other hardware, or another type of virtual card.",
				Command: "ethtool -i DEVICE",
			},
		},
		Match: byReason("ATT301"),
	}
}

// lookFilter names what helps with tc: nobody has to give the device up.
func lookFilter(f *Facts, m *Match) Strength {
	f.tellDevice(m)
	m.First = []load.Remedy{{
		ID:      "replace-filter",
		Title:   "Go on if it is clsact that exists; replace the filter in place of adding it (tc filter replace, NLM_F_REPLACE, BPF_TC_F_REPLACE), or name another priority",
		Price:   "The older filter is gone then: it may be another program's.",
		Command: "tc filter show dev DEVICE ingress; tc filter show dev DEVICE egress",
	}}
	m.Without = []string{"find-holder", "libxdp"}
	return m.Strength
}

func lookNative(f *Facts, m *Match) Strength {
	f.tellDevice(m)
	flags := f.attach().Flags
	if f.kind() != load.XDPAttach && f.kind() != load.LinkCreate {
		return m.Strength
	}
	switch {
	case flags&abi.XDPFlagSKBMode != 0:
		return 0 // generic mode asks no driver
	case flags&abi.XDPFlagHWMode != 0:
		m.Cause = "The device cannot run XDP programs in hardware, which the flags ask for."
		return Likely
	case f.text == nil && flags&abi.XDPFlagDRVMode == 0:
		return Possible // the kernel would have taken generic mode
	}
	return m.Strength
}

// tellDevice adds which device it was.
func (f *Facts) tellDevice(m *Match) {
	t := f.target()
	if t.Name != "" {
		m.Evidence = append(m.Evidence, "the device is "+printable(t.Name, 40))
		if plainName.MatchString(t.Name) {
			m.Commands = map[string]string{
				"generic-mode": "ip link set dev " + t.Name + " xdpgeneric obj FILE", "other-driver": "ethtool -i " + t.Name,
				"offloads-off": "ethtool -K " + t.Name + " lro off", "smaller-mtu": "ip link set dev " + t.Name + " mtu 3498",
				"find-holder": "ip -d link show dev " + t.Name + "; bpftool net", "add-clsact": "tc qdisc add dev " + t.Name + " clsact",
			}
		}
	}
}

func att302() Rule {
	return Rule{
		ID:    "ATT302",
		Title: "A setting of the network device prevents XDP (LRO, GRO, queues)",
		Class: "R5",
		Stage: load.Install,
		Text: `A driver that supports XDP can still refuse it because of the device's
settings. Large receive offload or hardware GRO is on. There are too few transmit queues for one
per CPU. Headers and data are in separate buffers. In a virtual machine, the host computes
checksums and merges packets. A veth has no peer. Each driver has its own errno for this. The
reason is in the netlink answer (extack), which libbpf prints as "Kernel error message", or in the
kernel's log.`,
		Kernels: "All. Depends on the driver.",
		Remedies: []load.Remedy{
			{
				ID:      "offloads-off",
				Title:   "Change the setting that the message names: switch the offload off, add or combine queues",
				Price:   "More work for the CPU. Connections may stall for a moment.",
				Command: "ethtool -K DEVICE lro off",
			},
			{
				ID:      "generic-mode",
				Title:   "Attach in generic mode (XDP_FLAGS_SKB_MODE)",
				Price:   "Slower: the packet already has its skb.",
				Command: "ip link set dev DEVICE xdpgeneric obj FILE",
			},
		},
		Match: byReason("ATT302"),
	}
}

func lookOffload(f *Facts, m *Match) Strength {
	f.tellDevice(m)
	if f.attach().Flags&abi.XDPFlagSKBMode != 0 {
		return 0
	}
	f.fitSetting(m)
	switch f.errno() {
	case abi.ENOSPC, abi.ENOTCONN:
		return Likely // a veth, whose message it is in any case
	}
	if f.text == nil && f.said() == "" && f.errno() == abi.ENOMEM {
		return 0 // memory, where no driver says otherwise
	}
	return m.Strength
}

// deviceSetting is a setting of a device that the kernel's words name.
type deviceSetting struct {
	words               *lazyregexp.Regexp
	cause, title, price string
	command             string // behind it stands the device
}

var deviceSettings = []deviceSetting{
	{lazyregexp.New(`(?i)any_header_sg|header/data in single page`),
		"The network card of this virtual machine hands headers and data over in separate pages (an old form of virtio), so that its driver cannot run XDP.",
		"Let the hypervisor give the machine a virtio device of version 1 (QEMU: disable-legacy=on)", "A setting of the host, and a restart of the machine.", ""},
	{lazyregexp.New(`(?i)header[- ]split|\bHDS\b`), "Headers and data are in separate buffers (header split), which XDP cannot work with.",
		"Switch header split off", "More copies for those who use it.", "ethtool -G %s tcp-data-split off"},
	{lazyregexp.New(`(?i)\brequest \d+ queues|\b(?:rx|tx)[ /-]*(?:queues?|rings?|channels?|resources)|\btwo TX\b|\benough TX|per CPU pools`),
		"The device has too few queues or rings for XDP, which needs one more for sending on each CPU or queue.",
		"Use fewer channels, so that half of the rings are left for XDP", "Less parallel work of the card. Connections may stall for a moment.", "ethtool -l %[1]s; ethtool -L %[1]s combined N"},
}

// fitSetting puts what the words name in the place of what a rule says of any setting.
func (f *Facts) fitSetting(m *Match) {
	heard := f.said()
	if f.text != nil && f.text.kernel != "" {
		heard = f.text.kernel
	}
	i := slices.IndexFunc(deviceSettings, func(d deviceSetting) bool { return d.words.MatchString(heard) })
	if i < 0 {
		return
	}
	d := deviceSettings[i]
	m.Cause = d.cause
	device := "DEVICE"
	if n := f.target().Name; plainName.MatchString(n) {
		device = n
	}
	r := load.Remedy{ID: "device-setting", Title: d.title, Price: d.price}
	if d.command != "" {
		r.Command = fmt.Sprintf(d.command, device)
	}
	m.First = append(m.First, r)
	m.Without = append(m.Without, "offloads-off")
}

func att303() Rule {
	return Rule{
		ID:    "ATT303",
		Title: "The MTU is too large for XDP without fragments (xdp.frags)",
		Class: "R5",
		Stage: load.Install,
		Text: `In native mode, a packet must fit into one page, with some room before and
after it. The exception is a program that handles fragments (SEC("xdp.frags"),
BPF_F_XDP_HAS_FRAGS), if the driver does so too. The limit is about 3,500 bytes, and less with
some drivers. Generic mode has no such limit.

Each driver has its own errno. veth: ERANGE. virtio_net, i40e, ena and xen-netfront: EINVAL. ice,
bnxt, gve, mvneta, hv_netvsc, mana and vmxnet3: EOPNOTSUPP. If the limit comes from header split
(7.2), it is EBUSY.`,
		Kernels: "xdp.frags since 5.18, depending on the driver. virtio_net of 6.1 still refuses because of the MTU.",
		Remedies: []load.Remedy{
			{
				ID:    "xdp-frags",
				Title: "Load the program as xdp.frags, if the driver supports it",
				Price: "The program sees the first fragment directly and the rest by helpers.",
			},
			{
				ID:      "smaller-mtu",
				Title:   "Make the MTU smaller. For a veth, make that of its peer smaller",
				Price:   "More and smaller packets. All machines of the network must use the same MTU.",
				Command: "ip link set dev DEVICE mtu 3498",
			},
			{
				ID:      "generic-mode",
				Title:   "Attach in generic mode (XDP_FLAGS_SKB_MODE)",
				Price:   "Slower: the packet already has its skb.",
				Command: "ip link set dev DEVICE xdpgeneric obj FILE",
			},
		},
		Match: byReason("ATT303"),
	}
}

func lookMTU(f *Facts, m *Match) Strength {
	f.tellDevice(m)
	if f.attach().Flags&abi.XDPFlagSKBMode != 0 {
		return 0
	}
	return m.Strength
}

func att304() Rule {
	return Rule{
		ID:    "ATT304",
		Title: "Already on the device: another XDP program, a tc filter, or the qdisc",
		Class: "R5",
		Stage: load.Install,
		Text: `A device has one XDP program for each mode, and cannot have native and
generic mode at once. A program that was attached by a link can be replaced only through this
link. A program that was attached by netlink cannot be replaced by a link. Both get EBUSY. With
XDP_FLAGS_UPDATE_IF_NOEXIST, any other program gets EBUSY. With XDP_FLAGS_REPLACE, an unexpected
program gets EEXIST. So does a program on the bond above the device. The dispatcher of libxdp is
such a program too.

A filter of tc is identified by its priority and handle. If another filter has them, the kernel
answers EEXIST.`,
		Kernels: "Links since 5.9.",
		Remedies: []load.Remedy{
			{
				ID:      "find-holder",
				Title:   "Find the program and its owner. Let the owner remove it",
				Price:   "The program no longer does its work.",
				Command: "ip -d link show dev DEVICE; bpftool net",
			},
			{
				ID:    "libxdp",
				Title: "Load both programs with libxdp, which runs several programs one after the other",
				Price: "Both loaders must use it.",
			},
			{
				ID:    "tcx",
				Title: "Use tcx (6.6), which takes many programs",
				Price: "A change of the program. It runs later on the way of the packet.",
			},
		},
		Match: byReason("ATT304"),
	}
}

func att305() Rule {
	return Rule{
		ID:    "ATT305",
		Title: "No such network device in this network namespace",
		Class: "R5",
		Stage: load.Request,
		Text: `Names and numbers (ifindex) of devices belong to a network namespace. A
loader in a container sees the devices of the container. A number from another namespace is wrong
there. So is a number from before the device was deleted and created again. netlink and tcx answer
ENODEV. BPF_LINK_CREATE for XDP answers EINVAL, without any message.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "list-devices",
				Title:   "List the devices in the loader's network namespace",
				Price:   "Nothing.",
				Command: "nsenter -t PID -n ip link",
			},
			{
				ID:    "host-network",
				Title: "Run the loader in the host's network namespace (hostNetwork: true)",
				Price: "The loader can reach the whole network of the node.",
			},
			{
				ID:    "watch-devices",
				Title: "If devices come and go, attach when a device appears (netlink), by its current number",
				Price: "A change of the loader.",
			},
		},
		Match: byReason("ATT305"),
	}
}

// lookDevice: where the kernel was asked for the device's name, none means that there is no device.
func lookDevice(f *Facts, m *Match) Strength {
	t := f.target()
	switch {
	case f.text == nil && (t.Name != "" || f.said() != ""):
		return 0
	case f.text == nil && t.Kind == "netdev" && t.ID != 0:
		m.Evidence = append(m.Evidence, fmt.Sprintf("the device had the number %d, and no name in the loader's network namespace", t.ID))
		return Likely
	}
	return m.Strength
}

func att306() Rule {
	return Rule{
		ID:    "ATT306",
		Title: "The device has no clsact qdisc",
		Class: "R5",
		Stage: load.Request,
		Text: `A filter of tc belongs to a qdisc. For BPF this is clsact, which has an
ingress and an egress side. Somebody must add it to the device first. Without it, the kernel
answers EINVAL ("Parent Qdisc doesn't exists") or ENOENT. tcx needs no qdisc.`,
		Kernels: "clsact since 4.5; tcx since 6.6.",
		Remedies: []load.Remedy{
			{
				ID:      "add-clsact",
				Title:   "Add clsact before the filter (qdisc_add_clsact in aya, bpf_tc_hook_create in libbpf)",
				Price:   "Nothing: an empty clsact changes no packet. If it is there already, EEXIST is not a failure.",
				Command: "tc qdisc add dev DEVICE clsact",
			},
			{
				ID:    "tcx",
				Title: "Use tcx (6.6), which needs no qdisc",
				Price: "A newer kernel.",
			},
		},
		Match: byReason("ATT306"),
	}
}

func lookClsact(f *Facts, m *Match) Strength {
	f.tellDevice(m)
	return m.Strength
}

func att307() Rule {
	return Rule{
		ID:    "ATT307",
		Title: "No cls_bpf or sch_ingress: the kernel has no BPF classifier for tc",
		Class: "R5",
		Stage: load.Request,
		Text: `tc has several kinds of filters. bpf is one of them (CONFIG_NET_CLS_BPF,
module cls_bpf). clsact belongs to CONFIG_NET_SCH_INGRESS (module sch_ingress). The kernel answers
ENOENT if a module is missing, or if it may not be loaded from inside a container.`,
		Kernels: "Kernels without them, or without their modules.",
		Remedies: []load.Remedy{
			{
				ID:      "load-module",
				Title:   "Load the modules on the host before the loader starts",
				Price:   "A line in /etc/modules-load.d.",
				Command: "modprobe -a cls_bpf sch_ingress",
			},
			{
				ID:    "tcx",
				Title: "Use tcx (6.6), which needs neither",
				Price: "A newer kernel.",
			},
		},
		Match: byReason("ATT307"),
	}
}

func lookClassifier(f *Facts, m *Match) Strength {
	if f.Node.Config["CONFIG_NET_CLS_BPF"] == "n" {
		m.Evidence = append(m.Evidence, "CONFIG_NET_CLS_BPF is off in this kernel")
		return Strong
	}
	return m.Strength
}
