// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Uprobes, definitions in tracefs, and who may make perf events.

func uprobeRules() []Rule {
	return []Rule{att110(), att111(), att112(), att113(), att116()}
}

var uprobeReasons = []reason{
	{
		rule: "ATT110", at: atUprobe | atUprobeMulti, errno: []int{abi.ENOENT, abi.ENOTDIR, abi.ELOOP},
		text:  "The file of the uprobe does not exist in the loader's mount namespace.",
		words: lazyregexp.New(`Failed to find the given file`),
		look:  lookFile,
	},
	{
		rule: "ATT110", at: atUprobe, call: probeCalls, errno: []int{abi.ENOENT}, rare: true,
		text:  "The kernel does not find the file where the loader looks, in its own mount namespace, or the symbol's offset in it. Or it has no uprobe_events: tracefs is not mounted, or CONFIG_UPROBE_EVENTS is off.",
		words: lazyregexp.New(`attach u(?:ret)?probe, probe entry may not exist`),
		look:  onlyWords,
	},
	{
		rule: "ATT110", at: atUprobe | atUprobeMulti, errno: []int{abi.ENOENT}, rare: true,
		text:  "The loader did not find the symbol, or the USDT probe, in the file: the file is of another version, was stripped, or has another name for it. The kernel was not asked.",
		tell:  "'nm -D FILE' and 'readelf -n FILE' list what is there.",
		words: lazyregexp.New(`(?i)symbol [^\n]{1,120}not found|failed to find symbol '|no USDTs for|could not (?:determine address of|resolve) (?:symbol|address)|no such symbol`),
		look:  lookSymbol,
	},
	{
		rule: "ATT110", at: atUprobe | atUprobeMulti, errno: []int{abi.EINVAL},
		text:  "The offset is outside the file, the path is not a regular file, or another probe there has another reference counter.",
		tell:  "The offset must be one in the file, not an address.",
		words: lazyregexp.New(`Not a regular file|Invalid uprobe offset`),
		look: func(f *Facts, m *Match) Strength {
			if f.machine() == "aarch64" || f.kind() == load.ProbeDefine || f.places()&atUprobeMulti != 0 {
				return Possible
			}
			return lookFile(f, m)
		},
	},
	{
		rule: "ATT110", at: atUprobeMulti, errno: []int{abi.EBADF}, rare: true,
		text: "The path is not a regular file.",
	},

	{
		rule: "ATT111", at: atKprobe | atUprobe, call: probeDefine, errno: []int{abi.EINVAL, abi.E2BIG}, rare: true,
		text: "tracefs does not take the definition: a name is longer than 63 bytes or has characters other than letters, digits and underscores, or an argument is wrong.",
		tell: "The file error_log in tracefs says which, and where in the line.",
		words: lazyregexp.New(`(?:Event|Group) name (?:is too long|is not specified|must follow)|Argument (?:name|expression) is|Unknown type is specified|` +
			`Invalid (?:fetch argument|register name|\$-variable|argument number|probed address suffix|memory address|maxactive|bitfield|array)|` +
			`Maxactive is|Event too big|\$(?:retval|arg\*|argN|comm)\b[^\n]{0,60}(?:not|only|too)|No argument expression|[Dd]ereference (?:is|needs|brace)|` +
			`Reference counter|Invalid reference counter`),
	},

	{
		rule: "ATT112", at: atUprobe | atUprobeMulti, errno: []int{abi.ENOTSUPP, abi.ENOEXEC},
		text: "The bytes at the offset cannot be probed: a trap, a prefix that is not allowed, or no instruction at all.",
		tell: "objdump -d FILE shows what is there.",
		look: lookOffset,
	},
	{
		rule: "ATT112", at: atUprobe | atUprobeMulti, errno: []int{abi.EINVAL}, rare: true,
		text: "The bytes at the offset cannot be probed (arm64 answers EINVAL).",
		tell: "objdump -d FILE shows what is there.",
		look: func(f *Facts, m *Match) Strength {
			switch f.machine() {
			case "aarch64":
				return lookOffset(f, m)
			case "x86_64":
				return 0
			}
			return m.Strength
		},
	},

	{
		rule: "ATT113", at: atKprobe | atUprobe, call: probeDefine, errno: []int{abi.EEXIST, abi.EBUSY},
		text:  "A probe of that name is defined in tracefs already: a process that was killed left it behind, or another one uses it (EBUSY).",
		tell:  "The files kprobe_events and uprobe_events in tracefs list them.",
		words: lazyregexp.New(`Given group/event name is already used|already the exact same probe|different from existing probe`),
	},
	{at: atUprobe | atUprobeMulti, errno: []int{abi.EIO}, text: "The file system of the file cannot give its pages to a uprobe."},

	{
		rule: "ATT116", at: atKprobe, call: probeCalls, errno: []int{abi.EPERM}, rare: true,
		text:  "lockdown=confidentiality forbids kprobes to everybody.",
		tell:  "/sys/kernel/security/lockdown says whether it is on, and the kernel's log names what it refused.",
		words: lazyregexp.New(`(?i)lockdown: [^\n]{0,80}(?:use of kprobes|use of tracefs|unsafe use of perf)`),
		look:  lookLockdown,
	},
	{
		rule: "ATT116", at: atUprobe, call: probeDefine, errno: []int{abi.EPERM}, rare: true,
		text: "lockdown=confidentiality closes tracefs to everybody.",
		tell: "/sys/kernel/security/lockdown says whether it is on.",
		look: lookLockdown,
	},

	{
		rule: "PERM012", at: atUprobe, call: eventOpen, errno: []int{abi.EACCES},
		text: "A uprobe by perf_event_open(2) needs CAP_SYS_ADMIN on kernels from 6.16 on, and on stable ones since July 2025.",
		tell: "Other kernels want CAP_PERFMON.",
		look: lookUprobeCapability,
	},
	{
		rule: "PERM011", at: byEvent, call: eventOpen, errno: []int{abi.EACCES},
		text: "The loader lacks the capability that the event needs (CAP_PERFMON, CAP_SYS_ADMIN before 5.8), or kernel.perf_event_paranoid closes perf_event_open(2) to it.",
		tell: "The sysctl and the loader's capabilities tell.",
		look: lookParanoid,
	},
	{
		rule: "PERM011", at: byEvent, call: eventOpen, errno: []int{abi.EPERM}, rare: true,
		text: "The loader lacks the capability that the event needs (CAP_PERFMON, CAP_SYS_ADMIN before 5.8), or kernel.perf_event_paranoid closes perf_event_open(2) to it.",
		tell: "The sysctl and the loader's capabilities tell.",
		look: lookParanoid,
	},
}

// machine is the node's, "" where it is not known.
func (f *Facts) machine() string { return f.Node.Machine }

func lookFile(f *Facts, m *Match) Strength {
	t := f.target()
	if t.Path != "" {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the file was %s, the offset %#x", printable(t.Path, 200), t.Offset))
	}
	if f.errno() == abi.ENOENT && f.text == nil {
		return Strong
	}
	return m.Strength
}

func lookOffset(f *Facts, m *Match) Strength {
	if t := f.target(); t.Path != "" {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the file was %s, the offset %#x", printable(t.Path, 200), t.Offset))
		if t.Offset > 0 {
			m.Commands = map[string]string{"right-offset": fmt.Sprintf("objdump -dF FILE | grep -i 'offset: %#x'", t.Offset)}
		}
	}
	return Strong
}

func lookLockdown(f *Facts, m *Match) Strength {
	switch f.Node.Lockdown {
	case "confidentiality":
		m.Evidence = append(m.Evidence, "lockdown is at confidentiality")
		return Strong
	case "":
		return m.Strength
	}
	return 0
}

func lookUprobeCapability(f *Facts, m *Match) Strength {
	needs := f.Node.Does(node.UprobeNeedsSysAdmin)
	f.tellCaps(m)
	switch {
	case needs == node.No, f.holds(abi.CapSysAdmin):
		return 0
	case needs == node.Yes && f.missing(abi.CapSysAdmin):
		m.Evidence = append(m.Evidence, "this kernel wants CAP_SYS_ADMIN for a uprobe (ba677dbe77af)")
		return Strong
	case needs == node.Yes:
		m.Evidence = append(m.Evidence, "this kernel wants CAP_SYS_ADMIN for a uprobe (ba677dbe77af)")
	case f.missing(abi.CapPerfmon):
		return Possible
	}
	return m.Strength
}

// tellCaps adds what the loader may do.
func (f *Facts) tellCaps(m *Match) {
	if t := f.capsText(); t != "" {
		m.Evidence = append(m.Evidence, t)
	}
}

//revive:disable-next-line:cyclomatic what the loader holds, by what the kernel asks for
func lookParanoid(f *Facts, m *Match) Strength {
	level, known := f.sysctl("kernel.perf_event_paranoid")
	if known {
		m.Evidence = append(m.Evidence, fmt.Sprintf("kernel.perf_event_paranoid was %d", level))
	}
	f.tellCaps(m)
	m.Without = append(m.Without, f.uselessRemedies("grant-perfmon", "no-perf-event")...)
	if f.places() == atUprobe && f.does(node.UprobeNeedsSysAdmin) && f.missing(abi.CapSysAdmin) {
		return 0 // which comes first
	}
	switch {
	case f.holds(abi.CapSysAdmin):
		return 0
	case f.holds(abi.CapPerfmon) && known && level < 3 && f.errno() == abi.EACCES:
		return 0
	case f.holds(abi.CapPerfmon):
		m.Cause = "This kernel closes perf_event_open(2) to everybody without CAP_SYS_ADMIN, whatever CAP_PERFMON says (kernel.perf_event_paranoid at 3 or 4, as Debian and Ubuntu have it)."
		m.Without = append(m.Without, "grant-perfmon")
		return m.Strength
	case f.missing(abi.CapPerfmon) && f.errno() == abi.EACCES:
		return Strong
	case f.missing(abi.CapPerfmon):
		return Likely
	case f.places() == atUprobe && f.Node.Does(node.UprobeNeedsSysAdmin) != node.No:
		return Possible // PERM012 is the commoner one
	}
	return m.Strength
}

var plainPath = lazyregexp.New(`^/[\w./+@-]{1,200}$`)

// lookSymbol: the loader looked the symbol up by itself, and says so.
func lookSymbol(f *Facts, m *Match) Strength {
	file := "FILE"
	if t := f.target(); t.Name != "" && t.Path != "" {
		m.Cause = fmt.Sprintf("The loader did not find %s in %s: the file is of another version, was stripped, or has another name for it. The kernel was not asked.",
			printable(t.Name, 80), printable(t.Path, 120))
		if plainPath.MatchString(t.Path) {
			file = t.Path
		}
	}
	m.First = []load.Remedy{{
		ID:      "list-symbols",
		Title:   "Look which symbols and probes the file has, and name one of these, or attach to whichever of several exists",
		Price:   "None to look; the probe may see less at another place.",
		Command: "nm -D " + file + "; readelf -n " + file,
	}}
	m.Without = []string{"offset-of-symbol"}
	return 0 // unless the words are there
}

func att110() Rule {
	return Rule{
		ID:    "ATT110",
		Title: "Uprobe: the file or the symbol is not there, or the offset is out of bounds",
		Class: "R5",
		Stage: load.Request,
		Text: `A uprobe is a file and an offset in it. The kernel opens the path in the
mount namespace of the loader. If the loader runs in a container, or the probed process does, the
path names another file there, or none (ENOENT).

The offset counts from the start of the file. Symbols have addresses, which are other numbers. An
offset beyond the end of the file, or not aligned, gets EINVAL. A second probe at the same place
with another reference counter (USDT semaphore) gets EINVAL too.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "path-by-pid",
				Title:   "Use the path as the host sees it: /proc/PID/root, followed by the path inside the container",
				Price:   "The process must be alive when the probe is attached.",
				Command: "ls -l /proc/PID/root/PATH",
			},
			{
				ID:      "offset-of-symbol",
				Title:   "Turn the symbol's address into an offset: address - p_vaddr + p_offset of its segment",
				Price:   "A change of the loader. Libraries do it if they get the symbol.",
				Command: "readelf -lW FILE",
			},
		},
		Match: byReason("ATT110"),
	}
}

func att111() Rule {
	return Rule{
		ID:    "ATT111",
		Title: "tracefs rejects the probe definition: name too long, or an invalid character or argument",
		Class: "R5",
		Stage: load.Request,
		Text: `Older ways of attaching write a line to kprobe_events or uprobe_events in
tracefs. The line has a group and a name for the event. Each of them has at most 63 bytes:
letters, digits and underscores. A name made from a long path, from a C++ or Rust symbol, or from
a container's id does not fit. write(2) returns EINVAL. The reason is in the file error_log in
tracefs, and on some kernels in the kernel's log.`,
		Kernels: "All; error_log since 5.2.",
		Remedies: []load.Remedy{
			{
				ID:    "perf-pmu",
				Title: "Attach by the perf events kprobe and uprobe (4.17), or by links. Neither needs a name",
				Price: "A newer library, or a change of the loader.",
			},
			{
				ID:      "short-name",
				Title:   "Shorten the name: use a hash of the symbol",
				Price:   "Nobody can read such a name in a trace.",
				Command: "cat /sys/kernel/tracing/error_log",
			},
		},
		Match: byReason("ATT111"),
	}
}

func att112() Rule {
	return Rule{
		ID:    "ATT112",
		Title: "Uprobe on an invalid instruction: usually the offset is wrong",
		Class: "R5",
		Stage: load.Install,
		Text: `The kernel decodes the instruction under a uprobe. It refuses traps and
some prefixes (lock, segment prefixes) with ENOTSUPP (524). For bytes that are not an instruction, it answers ENOEXEC, or EINVAL on arm64. Usually the offset is wrong: it is an address, or it comes from another
version of the file, or it points to a jump table.

The kernel checks this only if a process has mapped the file. Otherwise the call succeeds, and the
probe never fires.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "right-offset",
				Title:   "Compute the offset from the same file that the process runs. It must be a file offset, not an address",
				Price:   "A change of the loader.",
				Command: "objdump -dF FILE",
			},
			{
				ID:    "function-start",
				Title: "Probe the start of the function, or another instruction",
				Price: "The probe is in another place.",
			},
		},
		Match: byReason("ATT112"),
	}
}

func att113() Rule {
	return Rule{
		ID:    "ATT113",
		Title: "A probe of this name already exists in tracefs",
		Class: "R5",
		Stage: load.Request,
		Text: `Probes that are defined in tracefs belong to no process. If the process
that defined one is killed, the probe stays. The next process that uses the same group and name
gets EEXIST. Libraries put their process id into the name. In containers, process ids repeat.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "remove-probe",
				Title:   "Remove the definition when nobody uses it",
				Price:   "If a process still uses the probe, the kernel answers EBUSY.",
				Command: "echo '-:GROUP/NAME' >> /sys/kernel/tracing/kprobe_events",
			},
			{
				ID:    "perf-pmu",
				Title: "Attach by the perf events kprobe and uprobe (4.17), or by links. They end with their process",
				Price: "A newer library, or a change of the loader.",
			},
		},
		Match: byReason("ATT113"),
	}
}

func att116() Rule {
	return Rule{
		ID:    "ATT116",
		Title: "Lockdown forbids kprobes and closes tracefs",
		Class: "R1",
		Stage: load.Permission,
		Text: `With lockdown=confidentiality, not even root may read kernel memory. The
kernel refuses kprobes (by perf events and by tracefs), all files of tracefs, and helpers that
read kernel memory. It answers EPERM, whatever capabilities the loader has. lockdown=integrity
allows all of these.`,
		Kernels: "Since 5.4, if the lockdown module is active. Some distributions switch it on with Secure Boot.",
		Remedies: []load.Remedy{
			{
				ID:    "no-kprobes",
				Title: "Use tp_btf (by BPF_RAW_TRACEPOINT_OPEN) and fentry, without helpers that read kernel memory",
				Price: "The program sees less.",
			},
			{
				ID:    "integrity",
				Title: "Boot the node with lockdown=integrity",
				Price: "Root can read kernel memory. It needs a reboot. Some distributions do not allow it with Secure Boot.",
			},
		},
		Match: byReason("ATT116"),
	}
}
