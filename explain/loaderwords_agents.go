// SPDX-License-Identifier: Apache-2.0

package explain

import "github.com/bpfwhy/bpfwhy/load"

// Families of words in which agents, tools and small programs of any language say what they found
// out by themselves, before or beside the kernel's answer.

// beside marks what others say too, outside of BPF.
func (w loaderWord) beside() loaderWord {
	w.besideBPF = true
	return w
}

// remark marks what loaders go on without: it counts where nothing else failed.
func (w loaderWord) remark() loaderWord {
	w.isRemark = true
	return w
}

// noDevice are the words for a network device that is not there.
const noDevice = `(?i)\bunknown network interface\b|\bno such network interface\b|^Cannot find device\b|\bLink not found\b|\b(?:interface|device|iface|netdev|NIC) ['"\x60]?[\w.@-]{1,32}['"\x60]?,? (?:was |is )?(?:not found|does(?: not|n't) exist|not exist)|` +
	`\b(?:could ?n[o']t|cannot|can't|failed to|unable to|error) (?:find|finding|get|getting|resolve|look ?up|open) (?:the )?(?:network )?(?:interface|iface|ifindex|link by name|index (?:of|for) (?:interface|device))\b|\binvalid (?:interface name|ifname)\b`

// missingObject is an object file that the loader did not find, and the folder of headers.
const missingObject = `(?i)(?:\b(?:open|load|read|find|stat|access|pars)\w*\b[^:]{0,80}|: ?|')['"\x60\s/=]?[\w./-]+\.(?:bpf|o|obj|elf|bc)\b['"\x60]?[^:]{0,30}[:,] ?(?:(?:error|errno|err)\W{0,3})?(?:open [^:]+: )?(?:no such file|ENOENT|2\b)|(?i)\bopening [^:]{0,80}\.o\b[^:]*: no such file`

// lacksBTF are the words for a kernel without BTF of its own, or a loader that does not see it.
const lacksBTF = `(?i)\b(?:kernel|vmlinux)\b[^.;]{0,40}\bBTF\b[^.;]{0,60}\b(?:not (?:available|enabled|found|supported|present|exist)|unavailable|does(?: not|n't) exist|missing|search failed|disabled)\b|` +
	`\bBTF\b[^.;]{0,60}\b(?:not (?:available|enabled|found|supported|present|exist)|unavailable|does(?: not|n't) exist|missing|required|search failed)\b.*\b(?:kernel|vmlinux|CONFIG_DEBUG_INFO_BTF)\b|\bbtf file does not exist\b|` +
	`\b(?:no|without|missing|lacks?|locate|find|requires?|enable)\b (?:(?:the|valid|native|embedded|usable|any) ){0,2}(?:kernel(?:'s)?|vmlinux) BTF\b|\bkernel\b[^.;]{0,30}\b(?:no|without|lacks?|missing)\b (?:\w+ )?BTF\b|` +
	`\bBTF error: /sys/kernel/btf/vmlinux|/sys/kernel/btf/vmlinux\b.{0,80}(?:no such file|not found|does not exist|os error 2\b)|\bCONFIG_DEBUG_INFO_BTF\b.{0,60}\b(?:required|not (?:set|enabled)|missing|off)\b`

// notOfKernel are words beside BTF that are about something else than the kernel's own.
const notOfKernel = `(?i)\boptional\b|\bmodule\b|\bkmod\b|\.BTF\b|\bskipp|\btypes?\b|\bvariable|\bfunction|\bsymbol|\bkind\b|\bmagic\b|\bfield\b|\bmap\b|\bextern|\bmember\b|\bline info|func_info|=y\b.{0,20}$|\bprogram'?s? (?:does|has)|\bprogram BTF|\bBTF ID\b|\btarget\b|\bload BTF:|^libxdp: |\binformation\b|corrupted`

// tooOld are the words of a loader that wants a newer kernel.
const tooOld = `(?i)\b(?:requires?|required|needs?|minimum|at least|only supports?|must be)\b[^.;:]{0,40}\b(?:linux|kernel)\b[^.;]{0,24}?(?:>=?|v|of|version)? ?[3-7]\.\d{1,2}\b|\bkernel (?:version )?(?:is )?too old\b|\b(?:unsupported|not supported|incompatible) kernel(?: version)?\b|\bkernel version\b[^.;]{0,40}\b(?:not supported|unsupported|too (?:old|low)|less than|lower than|insufficient)`

// noBPFLSM are the words of a loader that found no BPF among the security modules.
const noBPFLSM = `(?i)\be?BPF[- _]?LSM\b[^.;]{0,40}\b(?:not (?:supported|enabled|available|found|active|present)|unsupported|disabled|unavailable|missing)|\bLSM[- _]BPF\b[^.;]{0,30}\b(?:not|disabled|missing)|\brequires? (?:support for )?e?BPF[- _]?LSM\b|\bbpf\b[^.;]{0,20}\bnot (?:in|among|part of|listed)\b[^.;]{0,40}\b(?:lsms?\b|security/lsm)`

// agentWords come before the others.
var agentWords = []loaderWord{
	sign("any", "ATT305", Strong, noDevice,
		"The loader looked for the network device, and found none of this name in its network namespace: the name is mistyped or another one here, the device is gone, or the loader runs in a container without hostNetwork. The kernel's BPF was not asked.").
		about(load.XDPAttach).beside(),
	word("any", own, missingObject,
		"The loader did not find its object file, or another file that it is made of, where it looks for it: nothing was asked of the kernel. In a container the path counts inside of it.",
		"Look at the path in the message and at the working directory; build or install the file, or name its place.").but(`elf: failed to open`).byItself().beside(),
	sign("any", "BTF003", Strong, lacksBTF,
		"The loader found no BTF of the running kernel: the kernel was built without CONFIG_DEBUG_INFO_BTF, or /sys/kernel/btf/vmlinux is not visible to the loader.").but(notOfKernel),
	word("any", own, tooOld,
		"The loader looked at the kernel's release, and wants a newer one (or one that it knows): it did not ask the kernel.",
		"Run a kernel of that release or later, or a version of the tool for this one.").byItself().beside(),
	sign("any", "ATT501", Likely, noBPFLSM,
		"The loader looked whether programs can be security modules here: bpf is not in the list of active ones (/sys/kernel/security/lsm), or the kernel is built without CONFIG_BPF_LSM.").about(load.LinkCreate).but(`(?i): (?:map|program|prog|load|field)\b|map create|field \w+: `).remark(),
	sign("any", "ATT002", Strong, `(?i)\b(?:tcx|netkit|bpf_?link|perf[_ ]link|k(?:ret)?probe[_. ]multi|u(?:ret)?probe[_. ]multi|links?)\b[^;]*\(?requires >= v?\d`,
		"This kernel does not have this kind of attachment: the library tried it out, and says since which release kernels have it. A newer kernel, or the older way of attaching.").about(load.LinkCreate),
	sign("any", "FEAT005", Strong, `(?i)\bmaps?\b[^;]*requires >= v?\d`,
		"This kernel does not have this kind of map, or a property of it: the library tried it out, and says since which release kernels have it.").about(load.MapCreate),
	sign("any", "FEAT005", Likely, `(?i)\bring ?buf(?:fer)?s?\b[^.;]{0,40}\b(?:not supported|unsupported|not available|unavailable|requires?)\b`,
		"The loader found out that this kernel has no ring buffers: they came with 5.8.").about(load.MapCreate).but(`errno: (?:1|13)\b`),
	sign("any", "ATT103", Strong, `(?i)(?:/sys/kernel/(?:debug/)?tracing/?(?:available_\w+|trace_pipe|trace|README|instances\S*)?['"\x60]?|/sys/kernel/debug/?['"\x60]?)(?::| \() ?(?:open \S+: )?(?:no such file|permission denied|operation not permitted|not a directory)|(?:no such file or directory|permission denied): b?['"]?/sys/kernel/(?:debug/)?tracing|\btracefs\b['"\x60]? not found`,
		"The loader cannot open the files of tracefs: it is not mounted where the loader looks, or closed to it (a container without /sys/kernel/debug or /sys/kernel/tracing, its owner, lockdown).").
		about(load.ProbeDefine).but(`(?i)blacklist|available_filter\S* ?(?:permission|operation)|not permitted: |denied: '`),
	sign("any", "PERM001", Strong, `(?i)\b(?:unable|failed|cannot|could not|error)\b[^.;]{0,24}\bmount(?:ing)?\b[^.;]{0,24}\b(?:bpf ?fs|bpf filesystem|bpf file system|/sys/fs/bpf)\b.{0,60}(?:not permitted|permission denied)|\bmount(?:ing)?\b[^.;]{0,24}\b(?:bpf ?fs|bpf filesystem|/sys/fs/bpf)\b.{0,40}(?:not permitted|permission denied)`,
		"The loader wants to mount a BPF file system, and may not: mount(2) takes CAP_SYS_ADMIN, which containers do not have. No program was refused.").about(load.ObjPin).
		doing("Mount the bpffs on the host (mount -t bpf bpf /sys/fs/bpf), and pass it into the container; or run it privileged"),
	sign("any", "", 0, `(?i)\bmount\b[^.;]{0,60}\bcgroup(?:2|v2)\b.{0,60}\b(?:no such device|unknown filesystem)`,
		"Control groups of version 2 could not be mounted: this kernel has no such file system (4.5, CONFIG_CGROUPS). Programs cannot be attached to control groups then. Nothing of BPF was asked.").goesOn(""),
	sign("any", "ATT110", Likely, `(?i)\bUSDT failed to instrument\b|\bfailed to enable (?:usdt|probe)\b|\b(?:usdt|probe) ['"\x60]?[\w:]+['"\x60]? not found in\b|\bfailed to find usdt\b|\bsymbol [\w.:@<>]+: not found\b|\bsymbol not found\b.{0,60}\b(?:uprobe|executable|binary|library)|\bno usdt\b`,
		"The loader did not find the symbol or the USDT probe in the file: the file is of another version, was stripped, was built without the probes, or is another one than is meant (in a container /proc/PID/root/PATH). The kernel was not asked.").about(load.PerfEventOpen),
	sign("any", "ATT105", Strong, `(?i)\bno symbols found\b|\bksyms?\b[^.;]{0,40}\bnot found\b|\b(?:kernel )?symbol ['"\x60]?\w+['"\x60]? (?:was )?not found in (?:/proc/)?kallsyms|\bkprobe\b.{0,60}\b(?:symbol|function)\b.{0,40}\b(?:not found|does(?: not|n't) exist)`,
		"The loader looked the function up in /proc/kallsyms, and this kernel has none of that name: it was renamed or inlined, has a suffix, or its module is not loaded. The kernel was not asked.").about(load.PerfEventOpen).
		but(`(?i)\bextern\b|uprobe|executable|binary|library|readelf|debug symbols`),
	word("any", own, `(?i)\b(?:can'?t|cannot|could ?n[o']t|failed to|unable to) (?:find|get|get fd for|locate|look ?up) (?:the )?(?:e?bpf )?prog(?:ram)?\b|\bprog(?:ram)? (?:with name |named )?['"\x60]?[\w./-]+['"\x60]? (?:was |is |could )?not (?:be )?found\b|\bprog(?:ram)? cannot be nil\b|\bprog(?:ram)? for section ['"\x60]?[\w./-]+['"\x60]? not found\b|\bno prog(?:ram)? (?:named|with name|called)\b`,
		"The loader found no program of this name in its object: the object is of another version than the loader, was built wrongly or not at all, or the name is mistyped. The kernel was not asked.",
		"Look which programs the object has: llvm-objdump -h FILE. Build or install both together.").but(`(?i)\bpinned\b|\bid \d|\bby id\b|\btag\b|\binfo\b`).byItself().beside(),
	sign("any", "", 0, `(?i): invalid input$|\bunrecogni[sz]ed attach type$`,
		"The loader's library checked what it was called with, and refused it: a program, a target or an attach type that do not go together. The kernel was not asked. It is a fault of the loader, or of its object: use both of one version, and a newer one.").goesOn(""),
	sign("any", "ATT304", Certain, `(?i)\bNetlink-based XDP prog detected\b|\bXDP prog\w* (?:is )?already (?:loaded|attached|running)\b`,
		"Another XDP program is on the device already, attached by netlink. The library does not put a link beside it, and gave up before it asked the kernel: detach the old one first (ip link set dev DEVICE xdp off), or tell the library not to load a program.").about(load.XDPAttach),
	sign("any", "ATT201", Strong, `(?i)\bcan't open cgroup\b|\bcgroup ?(?:v2|2)\b[^.;]{0,40}\b(?:not (?:enabled|mounted|available|found|supported)|is required|isn't|unavailable|missing|disabled)|\b(?:not have|no|without|find|requires?|enable) (?:a )?cgroup ?(?:v2|2)\b`,
		"The loader did not find control groups of version 2 where it looked: the node has version 1 or both (then they are at /sys/fs/cgroup/unified, if at all), the path is another one, or the container does not see it. Nothing was attached.").about(load.ProgAttach).but(`CONFIG_CGROUP|: Read-only`),
	word("libbpf", own, `BTF is required, but is missing or corrupted`,
		"The object has no BTF of its own, or none that can be read, and needs it: its maps are declared by types (SEC(\".maps\")). The kernel was not asked.",
		"Compile with clang -g (10 or later), and do not strip .BTF from the object.").byItself(),
	sign("any", "", 0, `-:(?:[ku]probes/)?\w`,
		"The loader removes probes from tracefs (lines with \"-:\"), and they are not there: agents clear up so at their start or end. Nothing was loaded, attached or refused.").goesOn(""),
	sign("any", "", 0, `(?i)\bwhile guessing\b|\bguess(?:ing)? [^.;]{0,24}(?:offsets?|namespace)\b[^.;]{0,30}\b(?:fail|bail|abort|timeout)`,
		"The tool has no BTF to read and guesses where the fields of the kernel's structs are, by trying. That ended without a result: this kernel is unlike those that it knows. A newer version of the tool, or a kernel that it knows, helps.").beside(),
	word("libbpf", load.ProgLoad, `Kernel verifier blocks program loading|\b4007\b`,
		"The verifier refused the program: 4007 is libbpf's own number for that, and no errno of the kernel. Its log is not in the text.",
		"Print the verifier's log (a debug or verbose option of the tool), and paste that.").told("VER099", Likely),
	word("libbpf", own, `Kernel doesn't support this program type`,
		"libbpf says that this kernel does not have the program type: it is older, or was built without.", "").told("FEAT004", Likely),
	word("libbpf", own, `BPF object format invalid|'version' section incorrect or lost|Incorrect kernel version|Something wrong in libelf`,
		"libbpf could not use the object file: it is of another form, or was made for another kernel. The kernel was not asked.", rebuildObject).byItself(),
	word("clang", own, `(?i)\bBPF stack limit of \d+ bytes (?:is )?exceeded|\bstack limit of 512 bytes\b`,
		"The compiler refused the program: a function's variables do not fit into the 512 bytes of stack that BPF has. Nothing was loaded.",
		"Keep large variables in a per-CPU array with one entry in place of the stack.").byItself(),
	word("bcc", own, `(?i)\bUnable to find kernel headers\b|\bkernel headers\b[^.;]{0,40}\b(?:not found|missing|not available|required)|\bchdir\(/lib/modules/[^)]*\): No such file|modprobe: FATAL: Module kheaders|/lib/modules/\S+/(?:build|source)\b[^.;]*(?:no such file|not found|missing)`,
		"The tool compiles its program at the start, and did not find the headers of the running kernel. Nothing was loaded.",
		"Install the headers of the running kernel (linux-headers-$(uname -r), kernel-devel), pass /lib/modules and /usr/src into the container, or use a kernel with CONFIG_IKHEADERS.").byItself(),
	sign("clang", "", 0, `(?i)\bclang\S*: error: unable to execute command: Killed|\b(?:clang|llc|ecc|bpf-linker)\b[^.;]{0,60}\bsignal: killed|\bcompil\w+\b[^.;]{0,60}\bsignal: killed`,
		"The compiler that builds the program was killed by a signal while it ran: as a rule by the kernel, since memory or the limit of its control group was used up (dmesg says so; in Kubernetes raise the memory limit). No program came to the kernel.").goesOn(""),
	sign("any", "", 0, `/sys/devices/system/cpu/cpu\d+/online['"]?: (?:No such file|no such file)`,
		"The loader looks in /sys which processors are online, and this file is not there: the processor is possible and not present, or cannot be switched off. Nothing of BPF was refused; a newer version of the loader does not stop over it.").goesOn(""),
	sign("seccomp", "PERM006", Likely, `(?i)\b(?:bpf|perf_event_open)\b[^.;]{0,40}\b(?:blocked|denied|forbidden|filtered) by (?:the )?(?:seccomp|container)`,
		"The text says that a seccomp policy forbids the call."),
}
