// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

func att006() Rule {
	return Rule{
		ID:    "ATT006",
		Title: "Invalid flag or argument for this way of attaching",
		Class: "R6",
		Stage: load.Request,
		Text: `Each way of attaching has its own flags and arguments, and refuses all
others with EINVAL. Links of perf events, network namespaces and netfilter take no flags. Sockmaps
take no flags of BPF_PROG_ATTACH. kprobe.multi takes names or addresses, not both, and at least
one. XDP takes one mode. The kernel does not say which argument is wrong.`,
		Kernels: "All; flags were added over time.",
		Remedies: []load.Remedy{
			{
				ID:      "arguments",
				Title:   "Compare what the loader passes with its library's manual and with include/uapi/linux/bpf.h",
				Price:   "A change of the loader.",
				Command: "strace -f -v -e trace=bpf COMMAND",
			},
		},
		Match: byReason("ATT006"),
	}
}

// noFlags are places whose links take none.
const noFlags = byEvent | atNetns | atNetfilter | atKprobeMulti | atUprobeMulti | atSockmap | atIter

func lookFlags(f *Facts, m *Match) Strength {
	flags, where := f.attach().Flags, f.places()
	if flags == 0 {
		return m.Strength
	}
	m.Evidence = append(m.Evidence, fmt.Sprintf("the flags of the call were %#x", flags))
	if f.kind() == load.LinkCreate && where&^noFlags == 0 {
		m.Cause = "The call has flags, and a link of this kind takes none."
		return Strong
	}
	return Likely
}

// lookGroupFlags looks at the flags of BPF_PROG_ATTACH to a control group.
func lookGroupFlags(f *Facts, m *Match) Strength {
	const override, multi, replace = abi.AttachFlagOverride, abi.AttachFlagMulti, abi.AttachFlagReplace
	flags := f.attach().Flags
	if flags != 0 {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the flags of the call were %#x", flags))
	}
	switch {
	case flags&(override|multi) == override|multi, flags&(replace|multi) == replace:
		return Strong
	case flags&replace != 0 && f.doesNot(node.ReplacesInCgroups):
		m.Cause = "The flags have BPF_F_REPLACE, which kernels know since 5.6."
		return Strong
	case flags&^(override|multi) != 0, f.text != nil:
		return m.Strength
	}
	return 0
}

func lookXDPFlags(f *Facts, m *Match) Strength {
	const modes = abi.XDPFlagSKBMode | abi.XDPFlagDRVMode | abi.XDPFlagHWMode
	flags := f.attach().Flags
	mode := flags & modes
	switch {
	case flags == 0 && f.text == nil:
		return 0
	case mode&(mode-1) != 0, f.kind() == load.LinkCreate && flags&^modes != 0:
		m.Evidence = append(m.Evidence, fmt.Sprintf("the flags of the call were %#x", flags))
		return Strong
	case flags != 0:
		return 0
	}
	return m.Strength
}
