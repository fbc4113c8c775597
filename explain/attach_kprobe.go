// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
)

// Kprobes.

func att105() Rule {
	return Rule{
		ID:    "ATT105",
		Title: "Kernel function not found: it was renamed, inlined, or has a suffix",
		Class: "R5",
		Stage: load.Request,
		Text: `A kprobe needs a symbol of the kernel. Kernel releases rename and remove
functions. The compiler inlines functions, and gives the rest a suffix (.isra.0, .constprop.0,
.part.0, .cold). Functions of a module exist only while it is loaded. Since 4.17, functions of
system calls have a prefix: __x64_sys_NAME or __arm64_sys_NAME in place of sys_NAME. Some kernels
(6.1.60 to 6.1.70 among them) find functions of modules only by MODULE:FUNCTION.

The kernel answers ENOENT. kprobe.multi gets ESRCH, also for functions that may not be traced.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:      "find-function",
				Title:   "List the names that exist, with their suffixes",
				Price:   "Nothing. The name differs between builds.",
				Command: "grep -w FUNCTION /proc/kallsyms",
			},
			{
				ID:    "stable-hook",
				Title: "Use a tracepoint, or let the loader try several functions",
				Price: "A change of the program.",
			},
			{
				ID:    "load-module",
				Title: "Load the module first, and write MODULE:FUNCTION",
				Price: "A dependency between units.",
			},
		},
		Match: byReason("ATT105"),
	}
}

func lookFunction(f *Facts, m *Match) Strength {
	m.Commands = map[string]string{"find-function": f.grepKallsyms(`%s(\.|$)`)}
	name := f.named("")
	if name != "" && f.target().Kind == "function" && f.places() != atKprobeMulti {
		m.Cause = fmt.Sprintf("The kernel has no symbol for %s that can be probed: it was renamed or inlined, has a suffix such as .isra.0, or its module is not loaded.", name)
	}
	if f.errno() == abi.ENOENT && f.text == nil && m.Strength == Likely {
		return Strong
	}
	return m.Strength
}

// grepKallsyms is the command that finds a function, by a pattern with %s for its name.
func (f *Facts) grepKallsyms(pattern string) string {
	_, name, ok := strings.Cut(f.target().Name, ":")
	if !ok {
		name = f.target().Name
	}
	name, _, _ = strings.Cut(name, "+")
	if !plainName.MatchString(name) {
		return "grep -w FUNCTION /proc/kallsyms"
	}
	return fmt.Sprintf("grep -E ' "+pattern+"' /proc/kallsyms", regexp.QuoteMeta(name))
}

func att106() Rule {
	return Rule{
		ID:    "ATT106",
		Title: "Several kernel symbols have this name (the symbol is not unique)",
		Class: "R5",
		Stage: load.Request,
		Text: `Static functions of different files, and data, can have the same name. Older kernels
attached the kprobe to one of them, and nobody knew which. Newer kernels refuse the name with
EADDRNOTAVAIL, "Cannot assign requested address". This has nothing to do with networks. tracefs
answers EINVAL, and writes "The symbol is not unique" to its error_log.`,
		Kernels: "Since 6.6, and stable kernels: 6.1.60, 5.10.227 and later.",
		Remedies: []load.Remedy{
			{
				ID:      "by-address",
				Title:   "Probe by address, or by _text and an offset (link.KprobeOptions.Offset in cilium/ebpf)",
				Price:   "The loader must read /proc/kallsyms, which kernel.kptr_restrict may hide.",
				Command: "grep -w FUNCTION /proc/kallsyms",
			},
			{
				ID:    "multi-by-address",
				Title: "Use kprobe.multi with addresses (5.18). It can attach to all of them",
				Price: "A newer kernel.",
			},
			{
				ID:    "module-name",
				Title: "If one of them is in a module, write MODULE:FUNCTION",
				Price: "Nothing.",
			},
		},
		Match: byReason("ATT106"),
	}
}

func att107() Rule {
	return Rule{
		ID:    "ATT107",
		Title: "The function, or the address in it, cannot be probed",
		Class: "R5",
		Stage: load.Install,
		Text: `The kernel does not allow probes in the code that handles probes. These
functions are marked notrace, noinstr or __kprobes, or are on the blacklist (EINVAL). It also
refuses addresses that it patches itself: jump labels, static calls, the inside of an ftrace
location. An offset must be the start of an instruction (EILSEQ), and the kernel must be able to
step over this instruction (EOPNOTSUPP). The kernel's log names functions that are notrace.`,
		Kernels: "All. Which functions are marked differs between builds.",
		Remedies: []load.Remedy{
			{
				ID:      "other-function",
				Title:   "Probe its caller, or a function that it calls",
				Price:   "A change of the program.",
				Command: "cat /sys/kernel/debug/kprobes/blacklist",
			},
			{
				ID:    "function-entry",
				Title: "Do not use an offset. The start of a function can be probed more often than the rest",
				Price: "The program sees that the function is called, but not the place inside.",
			},
		},
		Match: byReason("ATT107"),
	}
}

func att108() Rule {
	return Rule{
		ID:    "ATT108",
		Title: "The function does not allow bpf_override_return (error injection)",
		Class: "R5",
		Stage: load.Install,
		Text: `A program that calls bpf_override_return can be attached only to functions
that the kernel's source marks with ALLOW_ERROR_INJECTION, and only at their start. For others the
kernel answers EINVAL. Without CONFIG_BPF_KPROBE_OVERRIDE the helper does not exist, and the load
fails.`,
		Kernels: "Kernels with CONFIG_BPF_KPROBE_OVERRIDE.",
		Remedies: []load.Remedy{
			{
				ID:      "listed-function",
				Title:   "Choose a function of the list. Functions of system calls (__x64_sys_NAME) are on it",
				Price:   "The error is injected in another place.",
				Command: "cat /sys/kernel/debug/error_injection/list",
			},
			{
				ID:    "fmod-ret",
				Title: "Use fmod_ret, which takes the same functions and the LSM hooks",
				Price: "A change of the program. It needs x86-64, or arm64 from 6.4 on.",
			},
		},
		Match: byReason("ATT108"),
	}
}

func att109() Rule {
	return Rule{
		ID:    "ATT109",
		Title: "No perf events for kprobes or uprobes on this kernel",
		Class: "R5",
		Stage: load.Request,
		Text: `Loaders read the type of these perf events from
/sys/bus/event_source/devices/kprobe/type (or uprobe/type). The file is missing before 4.17. It is
also missing if the kernel was built without CONFIG_KPROBES, CONFIG_KPROBE_EVENTS or
CONFIG_UPROBE_EVENTS, and if /sys is not the host's.`,
		Kernels: "Kernels built without them, or older than 4.17.",
		Remedies: []load.Remedy{
			{
				ID:    "other-tracing",
				Title: "Use fentry, tp_btf or tracepoints, which need no kprobes",
				Price: "A change of the program. fentry needs BTF.",
			},
			{
				ID:    "kernel-with-kprobes",
				Title: "Use a kernel that was built with CONFIG_KPROBE_EVENTS",
				Price: "Another kernel to test.",
			},
		},
		Match: byReason("ATT109"),
	}
}

func lookProbePMU(f *Facts, m *Match) Strength {
	option := "CONFIG_KPROBE_EVENTS"
	if f.places() == atUprobe {
		option = "CONFIG_UPROBE_EVENTS"
	}
	switch v := f.Node.Config[option]; {
	case v == "n", option == "CONFIG_KPROBE_EVENTS" && f.Node.Config["CONFIG_KPROBES"] == "n":
		m.Evidence = append(m.Evidence, option+" is off in this kernel")
		return Strong
	case v == "y":
		return 0
	}
	return m.Strength
}

// dataSymbol is the name of a record that the kernel's macros make: data, and no function.
var dataSymbol = lazyregexp.New(`__UNIQUE_ID_|\.__(?:key|already_done|func__)\b|\.__func__|\b__(?:ksymtab|tracepoint|param|event)_|\.descriptor(?:\.|$)`)

// lookData tells a symbol that is no function by its name.
func lookData(f *Facts, m *Match) Strength {
	name := f.target().Name
	if !dataSymbol.MatchString(name) {
		return m.Strength
	}
	m.Cause = "The symbol " + printable(name, 100) + " is no function. By its name it is data that a macro of the kernel made inside of one, as for dynamic debug: there is nothing to probe."
	m.Without = append(m.Without, "other-function", "function-entry")
	m.First = append(m.First, load.Remedy{
		ID: "the-function", Title: "Probe the function itself, by the name in front of the first dot. A loader that looks for suffixes has to take functions only (type t or T in /proc/kallsyms)",
		Price: "A change of the program, or a newer version of it.",
	})
	return m.Strength
}
