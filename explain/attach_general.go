// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// What can go wrong wherever a program is attached.

func attachRules() []Rule {
	return []Rule{att001(), att002(), att003(), att004(), att005(), att006(), att007()}
}

var (
	attachCalls = []load.Kind{load.LinkCreate, load.ProgAttach}
	eventCalls  = []load.Kind{load.PerfEventSetBPF, load.LinkCreate}
	linkCreate  = []load.Kind{load.LinkCreate}
	progAttach  = []load.Kind{load.ProgAttach}
)

var generalReasons = []reason{
	{
		rule: "ATT001", at: byLink | atLIRC, call: attachCalls, errno: []int{abi.EINVAL}, rare: true,
		text: "The program's type, or the attach type that it was loaded for, is not the one that this place takes.",
		tell: "'bpftool prog show' says what the program is.",
		look: lookMisfit,
	},
	{
		rule: "ATT001", at: byEvent, call: []load.Kind{load.PerfEventSetBPF}, errno: []int{abi.EINVAL}, rare: true,
		text: "The program's type is not that of the event: kprobe for kprobes and uprobes, tracepoint for tracepoints. Or it is sleepable, which is allowed on uprobes only.",
		tell: "'bpftool prog show' says what the program is.",
		look: lookMisfit,
	},
	{
		rule: "ATT001", at: atRawTP | atTrampoline, call: []load.Kind{load.RawTPOpen}, errno: []int{abi.EINVAL}, rare: true,
		text: "The program is not a raw tracepoint program, or it is a tracing program and the call has a name.",
		look: lookMisfit,
	},
	{
		rule: "ATT001", at: atTC, errno: []int{abi.EINVAL}, rare: true, look: lookMisfit,
		text: "The program is not of the type sched_cls (sched_act for an action).",
	},
	{
		rule: "ATT001", at: atXDP, errno: []int{abi.EINVAL}, rare: true, look: lookMisfit,
		text: "The program is not of the type xdp, was loaded for a devmap or a cpumap, or is bound to another device.",
		words: lazyregexp.New(`BPF_XDP_(?:DEVMAP|CPUMAP) programs can not be attached|[Pp]rogram (?:is )?bound to (?:a )?different device|` +
			`Can't attach device-bound programs|[Uu]sing (?:offloaded|device-bound) program without HW_MODE`),
	},
	{
		rule: "ATT001", at: atSocket, errno: []int{abi.EINVAL}, look: lookMisfit,
		text: "The program is not a socket filter, and SO_ATTACH_BPF takes nothing else.",
		tell: "For SO_ATTACH_REUSEPORT_EBPF it may also be of the type sk_reuseport.",
	},

	{
		rule: "ATT002", at: byLink | atLIRC, call: attachCalls, errno: []int{abi.EINVAL}, rare: true,
		text: "This kernel does not know the attach type, or was built without it.",
		tell: "The kernel's release tells.",
		look: lookUnknownType,
	},
	{
		rule: "ATT002", at: atKprobeMulti | atUprobeMulti, call: linkCreate, errno: []int{abi.EOPNOTSUPP},
		text: "The kernel was built without what this link needs (CONFIG_FPROBE, CONFIG_UPROBES).",
		look: lookUnknownType,
	},

	{
		rule: "ATT002", at: atTCX | atCgroup | atNetns | atNetfilter | atIter, call: linkCreate, errno: []int{abi.EOPNOTSUPP}, rare: true,
		text: "This kernel does not have this kind of link, or was built without it. The words are a library's then, which tried it out.",
		tell: "The kernel's release tells.",
		look: func(f *Facts, m *Match) Strength {
			if f.text == nil {
				return 0
			}
			return m.Strength
		},
	},

	{
		rule: "ATT003", at: atCgroup, call: progAttach, errno: []int{abi.EINVAL}, rare: true,
		text: "This program is attached to the control group already.",
		tell: "'bpftool cgroup show PATH' lists what is there.",
	},
	{
		rule: "ATT003", at: atTrampoline, errno: []int{abi.EBUSY}, rare: true,
		text: "This program is attached to the function already, or a function that is replaced (freplace) has other programs.",
		tell: "'bpftool link' lists what is there.",
	},
	{
		rule: "ATT003", at: atTCX | atLIRC, errno: []int{abi.EEXIST},
		text: "This program is attached here already.",
		tell: "'bpftool net' lists what is there.",
	},
	{
		rule: "ATT003", at: byEvent, call: eventCalls, errno: []int{abi.EEXIST},
		text: "The perf event has a program already.",
	},
	{
		rule: "ATT003", at: atNetns | atNetfilter, errno: []int{abi.EEXIST, abi.EBUSY},
		text: "Another program is attached here, and this place takes one: the network namespace has one flow dissector, a netfilter hook one program of each priority, and a program that was attached without a link keeps links out.",
		tell: "'bpftool net' and 'bpftool link' list what is there.",
	},
	{
		rule: "ATT003", at: atSockmap, errno: []int{abi.EBUSY},
		text: "The map has a program of this kind by a link, or the socket is in a map whose programs exclude those of this one.",
		tell: "'bpftool link' lists what is there.",
	},

	{
		rule: "ATT004", at: atTrampoline, errno: []int{abi.E2BIG},
		text: "The function has as many programs as it can take: 38 (40 before 5.12), counting fentry, fexit and fmod_ret together.",
	},
	{
		rule: "ATT004", at: byEvent, call: eventCalls, errno: []int{abi.E2BIG},
		text: "The tracepoint or probe has as many programs as it can take: 64.",
	},
	{
		rule: "ATT004", at: atCgroup | atLIRC, errno: []int{abi.E2BIG},
		text: "The control group has as many programs of this kind as it can take: 64.",
	},
	{
		rule: "ATT004", at: atTCX, errno: []int{abi.ERANGE},
		text: "The device has as many programs in this direction as it can take, 64, or the order that is asked for is not possible.",
	},
	{
		rule: "ATT004", at: atNetns, errno: []int{abi.E2BIG},
		text: "The network namespace has as many programs as it can take: one flow dissector, or 64 of sk_lookup.",
	},

	{
		rule: "ATT005", at: anywhere, errno: []int{abi.EBADF, abi.ENOTTY},
		text: "A file descriptor in the call is not open in this process, or it is of another kind than the call needs (program, link, map, perf event).",
		tell: "strace shows which descriptors the loader passes.",
		look: lookDescriptor,
	},

	{
		rule: "ATT006", at: byEvent | atNetns | atSockmap | atLIRC | atNetfilter | atKprobeMulti | atUprobeMulti | atTCX | atIter, call: attachCalls, errno: []int{abi.EINVAL}, rare: true,
		text: "The call has a flag or an argument that it does not take for this attach type.",
		tell: "strace shows flags and arguments.",
		look: lookFlags,
	},
	{
		rule: "ATT006", at: atCgroup, call: progAttach, errno: []int{abi.EINVAL}, rare: true,
		text: "The flags do not go together, or this kernel does not know one: BPF_F_REPLACE came with 5.6 and needs BPF_F_ALLOW_MULTI, which excludes BPF_F_ALLOW_OVERRIDE.",
		tell: "strace shows the flags.",
		look: lookGroupFlags,
	},
	{
		rule: "ATT006", at: atNetfilter, call: linkCreate, errno: []int{abi.EAFNOSUPPORT, abi.EPROTO, abi.EOPNOTSUPP, abi.ERANGE},
		text: "A netfilter program cannot have this family, hook, flag or priority. The family must be IPv4 or IPv6. The priority may be neither the first nor the last, and must come after defragmentation if that is asked for.",
	},
	{
		rule: "ATT006", at: atXDP, errno: []int{abi.EINVAL}, rare: true,
		text:  "The flags do not go together: one mode at most, and nothing but the mode for a link.",
		words: lazyregexp.New(`Invalid XDP flags for BPF link|Only one XDP mode flag|unset mode is ambiguous|XDP_FLAGS_REPLACE is not specified`),
		look:  lookXDPFlags,
	},

	{
		rule: "ATT007", at: updateable, call: []load.Kind{load.LinkUpdate}, errno: []int{abi.EPERM},
		text: "The link has another program than the one that the call expects to replace.",
		tell: "'bpftool link' shows which.",
	},
	{
		rule: "ATT007", at: updateable, call: []load.Kind{load.LinkUpdate}, errno: []int{abi.ENOLINK},
		text: "What the link was attached to is gone: its control group, network device or namespace. The link is left without it.",
	},
	{
		rule: "ATT007", at: updateable, call: []load.Kind{load.LinkUpdate}, errno: []int{abi.EINVAL, abi.EOPNOTSUPP},
		text: "The new program is of another type than the old one, or links of this kind (of perf events, tracing, netfilter) cannot change their program.",
	},
	{
		rule: "ATT007", at: atCgroup | atTCX, errno: []int{abi.ENOENT}, rare: true,
		text: "The program or link that the call names, to replace it or to stand beside it, is not attached here.",
	},
	{
		rule: "ATT007", at: atTC, errno: []int{abi.ENOENT}, rare: true,
		text:  "The filter of tc that is to be replaced or removed is not there. Loaders look for an older one first, and then this is not a failure.",
		words: lazyregexp.New(`Filter with specified priority/protocol not found|Specified filter handle not found|Cannot find specified filter chain`),
	},
	{
		rule: "ATT007", at: atCgroup | atTCX, errno: []int{abi.ESTALE},
		text: "Somebody else has changed what is attached here since the loader read it (expected_revision).",
	},

	// These have no rule: there is nothing more to say.
	{at: atCgroup, errno: []int{abi.ENOENT, abi.ENODEV}, text: "The control group has been removed."},
	{at: atUprobeMulti, errno: []int{abi.ESRCH}, text: "The process whose uprobes are asked for has ended."},
	{at: atTCX, errno: []int{abi.ENXIO}, text: "The device is not a netkit device."},
	{at: atTCX, errno: []int{abi.EACCES}, text: "The device is the peer of a netkit pair; programs are attached to the primary one."},
	{at: atLIRC, errno: []int{abi.ENODEV}, text: "The infrared device is gone."},
}

func att001() Rule {
	return Rule{
		ID:    "ATT001",
		Title: "Wrong program type or expected_attach_type for this attach point",
		Class: "R5",
		Stage: load.Request,
		Text: `Each attach point takes programs of one type. Many take only programs that
were loaded for them (expected_attach_type). For example, a program loaded for connect4 cannot be
attached to connect6. A program loaded for kprobe.multi cannot be attached to a perf event. A
program loaded for a devmap cannot be attached to a device. The kernel notices this when the
program is attached, and answers EINVAL.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "right-section",
				Title:   "Load the program for its attach point: change the section name in the source (SEC), or the expected attach type in the loader",
				Price:   "A change of the program or its loader.",
				Command: "bpftool prog show",
			},
		},
		Match: byReason("ATT001"),
	}
}

func lookMisfit(f *Facts, m *Match) Strength {
	if f.text != nil {
		return m.Strength // its type is what the place takes: nothing else is known of it
	}
	p := f.attached()
	if p.Type != "" {
		said := "the program is of the type " + printable(p.Type, 40)
		if _, named := attachTypes[p.AttachType]; named && p.AttachType != "" {
			said += ", loaded for " + printable(p.AttachType, 40)
		}
		m.Evidence = append(m.Evidence, said)
	}
	if t := f.attach().Type; t != "" {
		m.Evidence = append(m.Evidence, "the attach type of the call was "+printable(t, 40))
	}
	switch f.fits() {
	case node.No:
		if f.typeTooNew() {
			return Possible // the kernel did not come so far
		}
		return Strong
	case node.Yes:
		return 0
	}
	return m.Strength
}

func att003() Rule {
	return Rule{
		ID:    "ATT003",
		Title: "Already attached: this program or another one is in the place (EEXIST, EBUSY)",
		Class: "R5",
		Stage: load.Install,
		Text: `Some attach points take one program. A network namespace takes one flow
dissector, and a perf event takes one program. Others take many programs, but each of them only
once. The program of an earlier run may still be there. This happens if it was attached without a
link, or if its link was pinned, and its loader did not detach it. The errno is EEXIST or EBUSY.
For control groups it is EINVAL.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "find-holder",
				Title:   "Find out what is attached and who attached it. Let the owner detach it",
				Price:   "The program no longer does its work.",
				Command: "bpftool net; bpftool link; bpftool cgroup tree",
			},
			{
				ID:    "replace",
				Title: "Replace the program: BPF_LINK_UPDATE, or BPF_F_REPLACE with the old program",
				Price: "A change of the loader.",
			},
		},
		Match: byReason("ATT003"),
	}
}

func att004() Rule {
	return Rule{
		ID:    "ATT004",
		Title: "Too many programs are attached in this place",
		Class: "R5",
		Stage: load.Resources,
		Text: `Each place takes a limited number of programs: 38 on the trampoline of a
function (40 before 5.12), 64 on a tracepoint or probe, 64 of each kind on a control group, and 64
per direction on a device (tcx). Usually a loader attaches a program at every start and never
detaches it. Look for pinned links of earlier versions, and for programs that were attached
without a link.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "remove-old",
				Title:   "List what is attached, and remove what earlier runs left behind",
				Price:   "Do not remove what is still in use.",
				Command: "bpftool link; bpftool cgroup tree; bpftool net",
			},
			{
				ID:    "one-program",
				Title: "Attach one program that does the work of several, or that calls them (tail calls, freplace)",
				Price: "A change of the design.",
			},
		},
		Match: byReason("ATT004"),
	}
}

func att005() Rule {
	return Rule{
		ID:    "ATT005",
		Title: "Bad file descriptor: it is not open, or it is of another kind",
		Class: "R6",
		Stage: load.Request,
		Text: `The call names its program, link, map, target or event by a file
descriptor. EBADF means that one of them is not open in this process, or refers to something else.
In Go, the usual reason is an object that the garbage collector closed. Keep a reference to
programs, maps and links for as long as you use them.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "keep-open",
				Title:   "Keep the objects open until the call has returned. Look for an earlier error too",
				Price:   "A change of the loader.",
				Command: "strace -f -e trace=bpf,close,openat,perf_event_open,ioctl COMMAND",
			},
		},
		Match: byReason("ATT005"),
	}
}

// lookedAfter reports that the call was watched from outside: its descriptors were looked up after
// it, when the loader may have closed them.
func (f *Facts) lookedAfter() bool {
	return f.Attempt.Backend == "tp_btf" || f.Attempt.Backend == "tracepoint"
}

// lookDescriptor: a control group's descriptor is usually open, and on something else; and a
// program that was found behind its own leaves the control group's.
func lookDescriptor(f *Facts, m *Match) Strength {
	switch {
	case f.target().Name == load.NotOpen && f.lookedAfter():
		m.Cause = "The descriptor of the target was not open in this process when it was looked at, after the call. It may have been closed in between."
		if f.places() == atCgroup {
			return Possible // loaders close it when they fail, and more often it was of another hierarchy
		}
		return Likely
	case f.target().Name == load.NotOpen:
		m.Cause = "The descriptor of the target is not open in this process."
		return Strong
	case f.kind() == load.MapUpdate && f.mapType() == "":
		return Possible // or it is the value
	case f.kind() == load.MapUpdate && slices.Contains(ofDescriptors, f.mapType()):
		return 0 // the map's was good: it is the value that names nothing
	case f.places()&atCgroup == 0:
		return m.Strength
	case f.places() == atCgroup && f.text == nil && f.attached().ID != 0:
		return 0
	}
	return Possible
}

func att007() Rule {
	return Rule{
		ID:    "ATT007",
		Title: "The program or link to be replaced is not there, or cannot be replaced",
		Class: "R5",
		Stage: load.Request,
		Text: `A link stays in its place when its program is replaced, but the kernel
does not accept every replacement. If the caller names the old program, it must be the current one
(EPERM). The target of the link must still exist (ENOLINK). The new program must have the type of
the old one. Links of perf events, tracing programs and netfilter cannot change their program at
all. ENOENT means that the program to be replaced is not attached. ESTALE means that somebody else
changed it first.`,
		Kernels: "Links since 5.7; tcx and expected_revision since 6.6.",
		Remedies: []load.Remedy{
			{
				ID:      "look-again",
				Title:   "Read what is attached now, and replace that",
				Price:   "Nothing.",
				Command: "bpftool link",
			},
			{
				ID:    "new-link",
				Title: "Create a new link, then close the old one",
				Price: "For a moment, both programs run or none does.",
			},
		},
		Match: byReason("ATT007"),
	}
}

// named is what the target is called, or what stands for it where nothing does.
func (f *Facts) named(otherwise string) string {
	t := f.target()
	name := cmp.Or(t.Name, t.Path)
	switch {
	case name == "":
		return otherwise
	case t.Path != "": // then the name says what is at the path
		name = t.Path
	case t.Kind == "function" && strings.ContainsAny(name, " ,"):
		return printable(name, 160) // several
	}
	kind := map[string]string{
		"cgroup": "the control group ", "netdev": "the device ", "function": "the function ", "tracepoint": "the tracepoint ",
		"raw_tracepoint": "the tracepoint ", "uprobe": "", "map": "the map ",
	}[t.Kind]
	return kind + printable(strings.TrimSpace(name), 160)
}
