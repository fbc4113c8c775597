// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/explain/reading"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// loaderWord is a sentence that a loader or the kernel's log prints when something failed: what was
// attempted, and what the sentence means. What was attempted is asked of this table only where the
// sentences of package reading do not tell.
type loaderWord struct {
	loader string // who prints it
	// attempted is what was asked of the kernel, "" where nothing was: the loader failed by itself.
	attempted load.Kind
	means, do string
	// rule tells more; strength is how much the sentence speaks for it.
	rule     string
	strength Strength
	errno    int  // that the rule's sentence goes with; 0: any
	unasked  bool // the library answers by itself, and its errno is no answer of the kernel
	instead  bool // the rule's remedies do not fit: only do does
	tells    reading.Telling
	alone    bool // no other word of the line has to tell of a failure
	// besideBPF: others say so too, so that another line has to be about BPF. isRemark: it counts
	// where nothing else failed.
	besideBPF, isRemark bool
	// fits says on which kernels the words speak for the rule, nil: on all.
	fits func(*node.Profile) bool

	words *lazyregexp.Regexp
	// besides are words with which the line means something else, nil: none.
	besides *lazyregexp.Regexp
}

// loaderSays finds the sentence of a loader in a line.
func loaderSays(line string) (loaderWord, bool) {
	line = line[:min(len(line), maxLoaderLine)]
	lower := strings.ToLower(line)
	for i := range loaderWords {
		if w := &loaderWords[i]; w.words.MayMatchFolded(lower) && w.matches(line) {
			return *w, true
		}
	}
	return loaderWord{}, false
}

func (w *loaderWord) in(line string) bool {
	line = line[:min(len(line), maxLoaderLine)]
	return w.words.MayMatch(line) && w.matches(line)
}

// goesWith reports whether the word counts beside an errno, 0 for none.
func (w *loaderWord) goesWith(errno int) bool {
	return w.errno == 0 || w.errno == errno || w.errno == noErrno && errno == 0
}

func (w *loaderWord) matches(line string) bool {
	return w.words.MatchString(line) && (w.besides == nil || !w.besides.MatchString(line))
}

const maxLoaderLine = 2048

// wordOf is loaderSays for package reading.
func wordOf(line string) (reading.Word, bool) {
	w, ok := loaderSays(line)
	return reading.Word{Kind: w.attempted, Tells: w.tells, Alone: w.alone, Beside: w.besideBPF, Remark: w.isRemark}, ok
}

func word(loader string, attempted load.Kind, words, means, do string) loaderWord {
	return loaderWord{loader: loader, attempted: attempted, means: means, do: do, words: lazyregexp.New(words)}
}

// echo is the word of a sentence that gives no reason.
func echo(loader string, attempted load.Kind, words, means string) loaderWord {
	w := word(loader, attempted, words, means, "")
	w.tells = reading.Echo
	return w
}

// sign is the word of a sentence that tells of a failure whatever else the line says, and that
// speaks for a rule.
func sign(loader, rule string, strength Strength, words, means string) loaderWord {
	w := word(loader, own, words, means, "").told(rule, strength)
	w.alone = true
	return w
}

func (w loaderWord) told(rule string, strength Strength) loaderWord {
	w.rule, w.strength = rule, strength
	return w
}

// byItself marks a word whose errno is the library's own.
func (w loaderWord) byItself() loaderWord {
	w.unasked = true
	return w
}

// doing puts what is to be done in the place of the rule's remedies.
func (w loaderWord) doing(do string) loaderWord {
	w.do, w.instead = do, true
	return w
}

// but leaves out lines with other words.
func (w loaderWord) but(besides string) loaderWord {
	w.besides = lazyregexp.New(besides)
	return w
}

// with limits the word to texts with an errno.
func (w loaderWord) with(errno int) loaderWord {
	w.errno = errno
	return w
}

func (w loaderWord) about(kind load.Kind) loaderWord {
	w.attempted = kind
	return w
}

// hint marks a word that may be the reason of a failure that other lines tell.
func (w loaderWord) hint() loaderWord {
	w.tells, w.alone = reading.Hint, true
	return w
}

// only limits what the word says for its rule to kernels with this answer, unless to the others.
func (w loaderWord) only(b node.Behaviour, a node.Answer) loaderWord {
	w.fits = func(p *node.Profile) bool { return p.Does(b) == a }
	return w
}

func (w loaderWord) unless(b node.Behaviour, a node.Answer) loaderWord {
	w.fits = func(p *node.Profile) bool { return p.Does(b) != a }
	return w
}

// goesOn marks what a loader does without. The rule tells more, "" for none.
func (w loaderWord) goesOn(rule string) loaderWord {
	w.tells, w.rule = reading.Harmless, rule
	return w
}

// own is no attempt: the loader did not come to ask the kernel.
const own load.Kind = ""

const (
	rebuildObject = "Rebuild the object with the compiler and the library that are to be used together."
	seeBefore     = "Read the lines before it: they say what failed."
	callInOrder   = "Load first, then attach, and look at the result of each."
)

// memlockHint is what libraries say to EPERM, whether the limit counts or not.
const memlockHint = `(?i)MEMLOCK may be too low|raise (?:the )?memlock|RemoveMemlock|ulimit -l[^\n]`

// wantsRights are the words in which loaders say that they looked at their own rights. They count
// beside a word of BPF.
const wantsRights = `(?:\b(?:requires?|needs?|must|required|only supports?)\b[^:]{0,24}\b(?:root|superuser|CAP_\w+|capabilit\w+|privileges?)\b|` +
	`(?:does not have|doesn't have|lacks?|missing|without|no) CAP_\w+|\b(?:not running|run|running) as (?:non-)?root\b|missing (?:the )?(?:required )?capabilit|capabilit\w+ (?:are |is )?(?:required|missing|not))`

// wantsRoot are those that are about the user, and not about capabilities.
const wantsRoot = `(?:\bgeteuid\b|\b(?:requires?|needs?|must be|must run as|required|only supports?|run|running) (?:(?:as|to|be|the|running|with|started) ){0,4}(?:the )?(?:root|superuser|super-user|sudo)\b(?:[^\w]+(?:user|privileges?|access|rights|permissions?))?)`

// bccKprobe is all that bcc says where its library printed no reason.
const bccKprobe = `Failed to attach BPF (?:program \S+ )?to k(?:ret)?probe(?: \S+)?$|Unable to attach probe: '?k(?:ret)?probe:|Error attaching probe: '?k(?:ret)?probe:`

// noErrno is for words that say something only where the text has no errno.
const noErrno = -1

func aboutBPF(words string) string {
	const subject = `\b(?:e?bpf\w*|xdp|k(?:ret)?probes?|CAP_BPF|CAP_PERFMON)\b`
	return `(?i)` + subject + `.*` + words + `|` + words + `.*` + subject
}

// loaderWords is searched in order; the first that matches counts.
var loaderWords = slices.Concat(agentWords, libraryWords, runtimeWords)

// libraryWords are those of the kernel's log, of libraries and of tools.
var libraryWords = []loaderWord{
	// The kernel's log.
	sign("kernel", "PERM003", Strong, `(?i)lockdown: .*bpf to read kernel`, "The kernel's log says that lockdown kept BPF from reading kernel memory."),
	sign("kernel", "PERM003", Strong, `(?i)lockdown: .*(?:kprobes|tracefs|perf)\b`,
		"The kernel's log says that lockdown in confidentiality mode closed this to everybody, root included."),
	sign("kernel", "ATT303", Strong, `(?i)\bMTU\b.{0,40}\b(?:larger|too (?:big|large)|exceeds?|greater)\b.{0,60}\bXDP\b|\bXDP\b.{0,60}\bMTU\b.{0,40}\b(?:larger|too (?:big|large|high)|exceeds?|not supported)\b`,
		"The kernel's log says that the driver refused a program in native mode, because the MTU of the device is too large for it.").about(load.XDPAttach).hint(),
	sign("kernel", "", 0, `\btrace_(?:k|u)?probe: Event \S+ doesn't exist`,
		"Somebody wanted to remove a probe from tracefs that is not there, as agents do that clear up at their start or end. Nothing was loaded, attached or refused.").goesOn(""),
	sign("kernel", "PERM004", Strong, `(?i)lockdown: .*bpf to write user`, "The kernel's log says that lockdown kept BPF from writing user memory."),
	sign("kernel", "", 0, `(?i)lockdown: .*\brestricted\b`,
		"The kernel is in lockdown, and kept a program from something that is not BPF's. In the mode 'confidentiality' lockdown also closes kprobes, tracefs and the kernel's memory to BPF, in 'integrity' only bpf_probe_write_user: /sys/kernel/security/lockdown says which it is.").goesOn(""),
	sign("kernel", "", 0, `\bfailed to validate module \[[^\]]*\] BTF|^(?:kernel: )?BPF:(?: ?\[\d+\]|\s*$|\s*(?:Invalid|type_id|size|vlen|[A-Z]{3,}|encoding|bits_offset)\b)`,
		"The BTF of a kernel module does not go with that of the kernel: they were built at different times. The module works, if it is loaded all the same; only its types are unknown to BPF, so that programs cannot use them or attach to its functions by fentry. No program was refused. A module of the same build as the kernel mends it.").goesOn(""),
	sign("kernel", "PERM005", Strong, `avc:\s+denied .*tclass=bpf`, "SELinux denied it, as the audit log says."),
	sign("kernel", "PERM005", Strong, `avc:\s+denied .*lockdown_reason="[^"]*\bbpf\b.*tclass=lockdown`,
		"SELinux denied it, as the audit log says: its class 'lockdown' keeps the process from what lockdown would close to everybody."),
	sign("kernel", "PERM006", Strong, reading.SeccompRecord, "A seccomp filter refused bpf(2) itself, as the audit log says."),
	sign("kernel", "PERM006", Strong, reading.SeccompPerfRecord, "A seccomp filter refused perf_event_open(2), as the audit log says.").about(load.PerfEventOpen),
	sign("bpftrace", "PERM003", Strong, `(?i)\bkernel lockdown is enabled\b.*\bconfidentiality\b`,
		"The loader looked at the kernel's lockdown by itself: in the mode 'confidentiality' the kernel keeps its memory, kprobes and tracefs from everybody, root included."),
	sign("any", "", 0, `(?i)\bgot (?:an? |the )?expected (?:error|failure)|\b(?:failed|fails|rejected|refused|error) as expected\b|\bexpected (?:failure|rejection)\b`,
		"A test wanted this to fail, and it did.").goesOn(""),
	sign("any", "", 0, `(?i)\bfeature[ -]?prob(?:e|es|ing)\b|\bprob(?:e|ing) (?:for |the )*(?:kernel|bpf|ebpf) (?:feature|support)|\bdetection of kernel .* support failed`,
		"The loader finds out what this kernel can do, by calls that fail where it cannot. That is no failure by itself.").goesOn(""),
	sign("any", "ATT103", Strong, `(?i)\b(?:debugfs|tracefs)\b.{0,40}\b(?:is )?not mounted\b`,
		"The loader looked for tracefs or debugfs, and did not find it mounted: in a container it has to be mounted or passed in from the host.").about(load.ProbeDefine),
	sign("bpftrace", "ATT110", Strong, `\b(?:u(?:ret)?probe|usdt) target file ['"]?[^'"\s]+['"]? does(?: not|n't) exist`,
		"The file that the probe names does not exist where the loader looks for it: it may be in the file system of another container (/proc/PID/root/PATH), or mistyped. The kernel was not asked.").about(load.PerfEventOpen),
	word("cilium/ebpf", own, `load(?:ing)? BTF (?:for|of) (?:kmod|kernel module|module) \S+`,
		"The library read the BTF of the kernel's modules one by one, and cannot read that of this one: it is damaged or empty, or newer than the library. The program needs nothing of that module, as a rule, and the kernel was not asked.",
		"Update the library (newer ones pass over such a module), or unload the module."),
	sign("kernel", "JIT002", Strong, `bpf_jit: (?:unknown|unsupported|multi-func)|\*\*\* NOT YET: opcode|bpf_jit.*(?:unhandled|unsupported) (?:insn|opcode)|\beBPF filter (?:atomic op|opcode) (?:code )?[0-9a-f]{2,4} \(@\d+\) (?:unsupported|not (?:yet )?supported)`,
		"The JIT of this machine says in the kernel's log what it cannot compile."),
	sign("any", "", 0, `\bopen /sys/kernel/btf/\S+: `,
		"The loader could not open the BTF of the kernel or of a module, which is a file below /sys/kernel/btf. Nothing was asked of bpf(2): look at the rights on the file, and whether the container has /sys.").goesOn(""),
	sign("any", "", 0, `(?i)(?:not permitted|permission denied): '/sys/kernel/(?:debug|tracing)/\S*(?:blacklist|available_\w+)'`,
		"The loader could not read a file of debugfs or tracefs, by which it chooses functions. Nothing was asked of bpf(2). Lockdown in confidentiality mode closes these files to everybody, root included: /sys/kernel/security/lockdown says whether it is on.").goesOn(""),
	sign("libbpf", "", 0, `\belf: failed to open \S+`,
		"The loader could not open its object file. Nothing was asked of the kernel: look at the path, and where the loader runs.").goesOn(""),
	sign("any", "RES002", Strong, `\bnet\.core\.optmem_max\b`, "The text speaks of net.core.optmem_max, which a socket filter has to fit into.").about(load.SocketAttach),
	sign("any", "", 0, `(?i)\b(?:kernel symbols?|kallsyms)\b.{0,60}\b(?:address(?:es)?\b.{0,20}(?:zero|check capabilities|hidden|restricted)|all (?:zeros?|0)|kptr_restrict)`,
		"The loader reads the addresses in /proc/kallsyms, and gets zeros. At kernel.kptr_restrict=2 everybody gets zeros, whatever the capabilities; at 1 whoever has CAP_SYSLOG gets the addresses. Nothing was loaded or attached yet.").goesOn(""),
	sign("any", "PERM001", Possible, unavailable, "Tools say so as well if only a right is missing. If it works with sudo, the kernel can."),
	sign("any", "PERM011", Possible, unavailable, "kernel.perf_event_paranoid at 3, as in Debian, closes perf events to whoever lacks CAP_SYS_ADMIN."),
	word("any", own, `(?i)bpf_jit_limit|bpf jit (?:memory )?limit`, "The text speaks of the JIT's memory limit.", "").told("JIT001", Likely),

	// Whoever loads.
	sign("any", "PERM001", Likely, memlockHint,
		"A hint about RLIMIT_MEMLOCK is right before 5.11 only. On newer kernels a capability is missing, as a rule.").hint().unless(node.ChargesNoMemlock, node.No),
	sign("any", "PERM007", Possible, memlockHint, "On a kernel before 5.11 the hint is right: RLIMIT_MEMLOCK is too low.").hint().unless(node.ChargesNoMemlock, node.Yes),
	sign("any", "PERM007", Likely, memlockHint,
		"This kernel counts programs and maps as locked memory, and the loader's hint says that the limit (RLIMIT_MEMLOCK) may be too low for them.").hint().only(node.ChargesNoMemlock, node.No),
	sign("bcc", "PERM001", Likely, `Need super-user privileges to run`, "The kernel refused the load with EPERM, and bcc found that it is not run by root.").hint(),
	sign("any", "PERM001", Likely, aboutBPF(wantsRoot),
		"The loader checked its own rights: it wants to run as root. The kernel was not asked.").hint().but(`(?i)\bCAP_\w|capabilit`).
		doing("Start it as root: with sudo, in a unit without User=, in a container with runAsUser: 0. This check looks at the user, so that capabilities alone do not help"),
	sign("any", "PERM001", Likely, aboutBPF(wantsRights),
		"The loader checked its own rights, and says that it needs more than it has. The kernel was not asked.").hint(),
	sign("any", "BTF002", Likely, `(?i)unsupported BTF kind|unknown BTF kind|unknown kind:? (?:Unknown \()?\d+`,
		"The loader's library does not know a kind of BTF that is newer than itself: the library is old, not the kernel."),
	sign("any", "BTF002", Likely, `(?i)error loading \.BTF|BTF_LOAD|load btf(?:: | failed)|\bbtf: (?:malformed|invalid (?:BTF|header|magic|type|member|name|string|length|size)\b)`,
		"The kernel does not accept the object's BTF.").with(abi.EINVAL).about(load.BTFLoad),
	sign("any", "BTF003", Strong, `(?i)no BTF found(?: for kernel)?|failed to find valid kernel BTF|kernel (?:doesn't|does not) (?:support|have) BTF(?:[.:;!)]|\s*$| or\b| and\b)|/sys/kernel/btf/vmlinux.*(?:no such|not found)`,
		"The loader found no BTF of the running kernel."),
	sign("libbpf", "BTF003", Strong, `failed to parse target BTF`,
		"The loader could not read the BTF that it was given for this kernel, or the kernel's own: it is damaged, of another form than the library knows, or the file is not there."),
	sign("any", "BTF001", Strong, `(?i)bad CO-RE relocation|instruction poisoned by CO-RE|no matching targets|CO-RE relocation.*(?:failed|not found)`,
		"A CO-RE relocation found nothing to point to in this kernel's BTF."),
	sign("any", "BTF005", Likely, `(?i)attach.*: target .*not found|couldn't find .*in kernel BTF`,
		"The function or hook that the program names is not in the kernel's BTF."),
	sign("any", "FEAT006", Strong, `(?i)kfunc.*not found in|(?i)kernel function .*not found`,
		"The kernel function that the program calls was not found in the BTF of the kernel or its modules."),
	sign("any", "MAP001", Strong, `ring map size \d+ not a (?:multiple|power)`,
		"The size of a ring buffer is a power of two and a multiple of the page size, which is 4, 16 or 64 KiB by machine. The loader says that this one is not.").about(load.MapCreate),
	sign("package loader", "BLIND004", Strong, `constant blinding may make a jump of the program go to the wrong place`,
		"Package loader says that a hardened kernel without ad139384ecdd (7.3, and 7.2.10) might silently compile the program wrongly. It did not load it."),
	sign("libpcap", "CBPF001", Likely, `Kernel filter failed`,
		"libpcap gives the kernel a filter of its own making. The kernel's checker does not accept this one, and libpcap filters by itself.").with(abi.EINVAL).about(load.SocketFilter),

	sign("any", "FEAT004", Likely, `(?i)\b(?:tracing|lsm|struct_ops|\w+) program type is not supported`,
		"The loader tried out whether this kernel has the program type, and says that it has not. Programs of type tracing and lsm also want the kernel's BTF (CONFIG_DEBUG_INFO_BTF) and BPF trampolines, which not every machine has.").but(`errno: (?:1|13)\b`),
	word("libpman", load.MapCreate, `libpman: .*\bmap type is not supported \(errno: (?:1|13)\b`,
		"libpman tries to make such a map, and calls every failure \"not supported\". This errno is no missing support, which is EINVAL.", "").told("PERM005", Possible),
	sign("kernel", "PERM005", Certain, `apparmor="DENIED".*(?:\bbpf|tracefs|debugfs|/sys/kernel/(?:debug|tracing)|capname="(?:bpf|perfmon|sys_admin)")`, "AppArmor denied it, as the audit log says.").
		doing("Run the loader under an AppArmor profile that allows what the line names, in Kubernetes by securityContext.appArmorProfile (Unconfined allows all)"),
	sign("bcc", "ATT105", Likely, `Failed to attach BPF program \S+ to k(?:ret)?probe (?:b?''|b?"")?,`,
		"The name of the function is empty: the tool looked for functions that fit its pattern, and found none.").about(load.ProbeDefine),
	sign("bcc", "ATT105", Possible, bccKprobe, "The kernel has no function of this name that can be probed: it was renamed or inlined, or has a suffix.").about(load.ProbeDefine).with(noErrno),
	sign("bcc", "ATT107", Possible, bccKprobe, "The function exists and may not be probed (notrace, or on the list of functions that kprobes leave alone).").about(load.ProbeDefine).with(noErrno),
	sign("bcc", "ATT103", Possible, bccKprobe, "tracefs or debugfs is not mounted where the loader looks for it.").about(load.ProbeDefine).with(noErrno),
	sign("any", "ATT503", Strong, `(?i)\b(?:another|a different|other) (?:sched_ext|scx) scheduler is (?:already )?running`,
		"Another scheduler of sched_ext runs, and the kernel takes one at a time: the loader looked, and did not ask. /sys/kernel/sched_ext/root/ops names it.").about(load.LinkCreate),
	sign("any", "ATT115", Likely, `(?i)kernel does not support fentry\b.*too old`,
		"The loader found out by itself that this kernel has no fentry: it came with 5.5 on x86-64, and with 6.0 on arm64."),
	word("any", own, `(?i)parsing \.?BTF header|header contains non-zero trailer`,
		"The library could not read BTF: its header is newer than the library, or damaged. The kernel was not asked.",
		"Update the library, or the agent that was built with it: an older kernel works until then.").told("BTF002", Likely).byItself(),
	word("any", own, `(?i)(?:\bbtf\b|\bspec\b|relocations?\b).*\b(?:bad|invalid|unrecogni[sz]ed|unknown|unsupported) (?:magic|header|version)|bad magic number`,
		"The library could not read BTF: that of the kernel, of a module, or of the object. It is damaged, of another byte order, or in a form that is newer than the library.",
		"Update the library. 'bpftool btf dump file /sys/kernel/btf/vmlinux' shows whether the kernel's BTF can be read."),
	word("any", own, `(?i)\bno such (?:k(?:ret)?probe|u(?:ret)?probe|tracepoint|program|section)\b ['"]|\b(?:program|section) ['"]?[\w./]+['"]? (?:was )?not found in (?:the )?(?:object|collection|spec|ELF|file)`,
		"The loader found no program of this name in its object file: the object is of another version than the loader, or the name is mistyped.",
		"Look which programs the object has: llvm-objdump -h FILE. Rebuild both together."),

	// libbpf, and with it bpftool, libbpf-rs, bcc, bpftrace, systemd.
	word("libbpf", own, `object file (?:doesn't|does not) contain any bpf program`,
		"The object file has no BPF program: it was compiled for another target, or its functions stand in no section of their own.",
		"Compile with clang -target bpf -g -O2, and give each program a section: SEC(\"kprobe/...\"). 'llvm-objdump -h FILE' lists the sections."),
	word("libbpf", own, `ARENA map should be explicitly declared`,
		"The object has global variables in an arena, and no map of the type arena that they could lie in.",
		"Declare the map in SEC(\".maps\"), with the type BPF_MAP_TYPE_ARENA."),
	sign("libbpf", "PERM005", Likely, `Couldn't load (?:trivial|basic '[^']*') BPF program`,
		"The program is two instructions that no verifier refuses, and a missing capability would be EPERM: a security module forbids it.").with(abi.EACCES),
	word("libbpf", load.ProgLoad, `Couldn't load trivial BPF program\. Make sure your kernel supports BPF`,
		"Not even a program of two instructions could be loaded, so the program is not to blame: a capability, a policy, or RLIMIT_MEMLOCK before 5.11.",
		"Look at the capabilities and at seccomp of the process."),
	word("libbpf", load.MapCreate, `Couldn't create simple array map`,
		"Not even a small array could be created, so the map is not to blame: a capability, a policy, or RLIMIT_MEMLOCK before 5.11.",
		"Look at the capabilities and at seccomp of the process."),
	word("libbpf", load.MapCreate, `Error in bpf_create_map_xattr\(|Retrying without BTF`,
		"The kernel did not take BTF for this map; the map is created without it.", "").goesOn("MAP003"),
	word("libbpf", load.BTFLoad, `BTF is optional`, "The kernel did not take the object's BTF, and the object does not need it.", "").goesOn("BTF002"),
	word("libbpf", load.BTFLoad, `BTF is mandatory, can't proceed|BTF loading error|-- BEGIN BTF LOAD LOG`,
		"The kernel does not accept the object's BTF, and the object cannot do without (maps with special fields, struct_ops, global functions).",
		"Update the library, or build with an older compiler.").told("BTF002", Likely).with(abi.EINVAL),
	word("libbpf", own, `(?:[Uu]nsupported|unknown) BTF_KIND:\d+|unsupported kind \d+`,
		"The library does not know a kind of BTF that is newer than itself: the library is old, not the kernel.", "Update the library.").told("BTF002", Certain),
	word("libbpf", own, `kernel BTF is missing at|vmlinux BTF is not found|failed to find valid kernel BTF|Error loading vmlinux BTF|failed to read kernel BTF from`,
		"The kernel's own BTF was not found or could not be read.", "Run a kernel with CONFIG_DEBUG_INFO_BTF=y, mount /sys, or give the loader BTF for this kernel.").told("BTF003", Strong),
	word("libbpf", load.TokenCreate, `failed \(\S+\) to create BPF token|BPF token delegation set up|to open BPF FS mount`,
		"The library tries to get a BPF token at every start, and goes on without one.", "").goesOn("PERM010"),
	word("libbpf", own, `Failed to bump RLIMIT_MEMLOCK`, "The library may not raise RLIMIT_MEMLOCK. That matters before 5.11 only.", "Before 5.11 start with a higher limit.").goesOn("PERM007").unless(node.ChargesNoMemlock, node.No),
	sign("libbpf", "PERM001", Strong, `failed to (?:iterate BTF objects|get BTF object #\d+(?: FD| info)?): -1$|target candidate search failed for .*: -1$`,
		"The library wanted to look through the BTF of the kernel's modules, and the kernel refused it: for that a loader needs CAP_SYS_ADMIN, and CAP_BPF is not enough. It looks there for types that the kernel's own BTF does not have."),
	word("libbpf", own, `relo #\d+: no matching targets found`, "A CO-RE relocation found nothing in this kernel's BTF. The instruction is poisoned; it matters if the program comes there.",
		"Guard the access with bpf_core_field_exists or bpf_core_type_exists.").told("BTF001", Strong),
	word("libbpf", own, `relo #\d+: (?:<\w+> \(\d+\) relocation doesn't support|relocation decision ambiguity|field offset ambiguity|insn #\d+ \(LDX/ST/STX\)|unexpected insn|failed to|target candidate search failed|bad|error matching|can't|parsing|unrecognized|trying to|substituting)|relo \d+ at insn #\d+ can't|failed to perform CO-RE relocations|relo for \[\d+\]`,
		"A CO-RE relocation could not be made: the kernel's type differs too much from the program's, or there are several that fit.",
		"Compare the type in vmlinux.h with that of this kernel (bpftool btf dump), and use a flavour (name___suffix) for kernels that differ.").told("BTF001", Strong),
	word("libbpf", own, `extern \(func ksym\) '[^']*': not found in kernel or module BTFs`, "The kernel function that the program calls is not in the BTF of the kernel or its modules.",
		"Load the module that has it, or declare the function __weak and test it with bpf_ksym_exists.").told("FEAT006", Strong),
	word("libbpf", own, `extern \(func ksym\) '[^']*': (?:func_proto|module BTF fd index)|BTF fd off \d+ for kfunc`, "The kernel function exists. Its prototype in the kernel's BTF is another one than the program declares, or too many modules have one. The program is of another version than the kernel, or the kernel's BTF was made by a pahole that is older than the kernel wants.", "").told("FEAT006", Strong).
		doing("Take the declaration from the vmlinux.h of this kernel, or a version of the program for this kernel. Compare with 'bpftool btf dump file /sys/kernel/btf/vmlinux format c': if the kernel's own is malformed, only a kernel that was built with a newer pahole helps"),
	word("libbpf", own, `extern \((?:var )?ksym\) '[^']*': (?:not found|resolution is ambiguous|incompatible types)|extern '[^']*' \(strong\): not resolved`,
		"The kernel's BTF has no variable of this name, or it has another type there. Of variables BTF has only those that lie in per-CPU sections, and these only if the kernel was built so: that the name stands in /proc/kallsyms is not enough.",
		"Look it up: bpftool btf dump file /sys/kernel/btf/vmlinux | grep NAME. Declare it __weak and test its address, or get the value in another way.").byItself(),
	word("libbpf", own, `extern \(kcfg\) |system Kconfig|Kconfig line|in-memory Kconfig`, "A kernel configuration value that the program asks for could not be found or does not fit its type.",
		"Mount /boot or enable CONFIG_IKCONFIG_PROC, or declare the value __weak."),
	word("libbpf", own, `extern '[^']*' \(weak\): not resolved`, "Something optional is not in this kernel.", "").goesOn(""),
	word("libbpf", own, `libbpf: (?:(?:BTF|externs?|failed to find) .*(?:extern|without BTF info)|global '|unrecognized extern section)`, "The object's own externs or globals do not fit together.", rebuildObject),
	word("libbpf", own, `failed to find (?:kernel BTF type ID of|BPF program \(FD \S+\) BTF ID for)|is not found in (?:vmlinux|prog's) BTF`,
		"The function, hook or type that the program attaches to is not in the BTF of the kernel, of its modules or of the other program.",
		"Look the name up: bpftool btf dump file /sys/kernel/btf/vmlinux. It may have been renamed or inlined.").told("BTF005", Likely),
	word("libbpf", own, `The target program doesn't have BTF|failed to get BTF \d* ?of the program|Failed to get BTF \S+ of the program|failed bpf_prog_get_info_by_fd`,
		"The program that is to be traced or replaced has no BTF, or could not be asked.", "Load that program with its BTF.").told("BTF005", Likely),
	echo("libbpf", load.MapCreate, `map '[^']*': failed to create(?: inner map)?`, "The kernel did not create the map."),
	word("libbpf", load.ObjPin, `map '[^']*': (?:error reusing pinned map|failed to auto-pin)|couldn't (?:reuse|retrieve) pinned map|map '[^']*': cannot find pinned map|found no pinned map`,
		"A map could not be pinned, or taken from a pin. A pin with other sizes, flags or another type gives \"parameter mismatch\".",
		"Compare the pinned map (bpftool map show pinned PATH) with the definition; delete the pin or give the map another name."),
	word("libbpf", load.MapUpdate, `map '[^']*': failed to (?:set initial contents|freeze as read-only|initialize slot|mmap arena|re-mmap\(\) contents)|failed to set cpu #\d+|failed to bind map`,
		"The map was created, and could not be filled or mapped.", ""),
	word("libbpf", load.ObjPin, `libbpf: (?:failed to (?:pin|mkdir|statfs) |missing a path to pin|.*couldn't build pin path)|(?:prog|map) '[^']*': failed to pin at|specified path \S+ is not on BPF FS`,
		"A pin could not be made: the path is not on a bpffs, exists already, or a policy denies it.", "Mount a bpffs (mount -t bpf bpf /sys/fs/bpf), and look for an old pin."),
	word("libbpf", own, `libbpf: .*(?:map '[^']*': .+|failed to alloc map|error: (?:inner_map_fd|unsupported map type)|Total maps exceeds|inner def can't be pinned)`,
		"The map's definition in the object is not valid, or the map is used before it exists.", "Mend the definition in SEC(\".maps\"); create the maps before using them."),
	word("libbpf", load.LinkCreate, `prog '[^']*': no BTF-based attach target is specified`, "The program type attaches by BTF, and the target was not named.", "Name it in the section, or by bpf_program__set_attach_target before loading."),
	word("libbpf", load.PerfEventSetBPF, `invalid perf event FD -\d`,
		"The program passes a negative number in the place of a perf event: perf_event_open(2) failed before, and nobody looked at its result. The machine may have no hardware counters (as virtual machines), the attributes may be wrong, or perf_event_paranoid and CAP_PERFMON forbid it.",
		"Print the errno of perf_event_open: ENOENT and EOPNOTSUPP mean no such counter (take the software event PERF_COUNT_SW_CPU_CLOCK), EACCES and EPERM missing rights.").byItself(),
	word("libbpf", own, `prog '[^']*': can't (?:attach|pin|unpin|use|associate) .*|can't associate struct_ops program|can't attach BPF program without FD|invalid perf event FD|target netdevice ifindex cannot be zero|relative_fd and relative_id|user context value is not supported`,
		"The program is used before it was loaded, or after its load failed, or with options that do not go together.", callInOrder).byItself(),
	word("libbpf", load.PerfEventOpen, `failed to (?:create|determine) .*(?:perf event|perf type|retprobe bit|event id)|perf_event_open\(\) failed|failed to (?:add|remove|determine) legacy [ku]probe event|tracepoint \S+ path is too long|failed to determine tracepoint`,
		"The event of a kprobe, uprobe or tracepoint could not be made: no such symbol, file, offset or tracepoint, tracefs is not mounted, or perf_event_paranoid and capabilities forbid it.",
		"The errno tells these apart: ENOENT is a name, EACCES and EPERM are rights."),
	word("libbpf", load.PerfEventSetBPF, `failed to (?:attach to|create BPF link for|enable) perf_event FD|try add PERF_SAMPLE_CALLCHAIN`, "The event exists, and the program could not be attached to it.",
		"EACCES at a tracepoint: the program reads beyond the tracepoint's record."),
	word("libbpf", load.LinkCreate, `libbpf: .*(?:failed to find a unique match for|multi pattern is invalid|session pattern is invalid|kprobe name is invalid|failed to resolve full path for|invalid format of section definition|missing ':function|uretprobes do not support offset|expected SEC\("usdt|invalid section ')`,
		"The target of a probe could not be found, or its pattern or section name is not valid.", "Look the name up in /proc/kallsyms or in the file; it may have a suffix, or several matches."),
	word("libbpf", own, `failed to parse available_filter_functions|failed to (?:read|open) (?:/proc/)?kallsyms`,
		"The library looks the functions up in /proc/kallsyms and in tracefs, and could not read these.", "Mount /proc and tracefs (mount -t tracefs tracefs /sys/kernel/tracing)."),
	word("libbpf", load.LinkCreate, `usdt: `, "A USDT probe could not be attached: the file has no such probe, is of another architecture, or the kernel lacks what it needs.",
		"Look at the file's notes (readelf -n); give the process id for shared libraries on kernels without bpf_get_attach_cookie."),
	word("libbpf", own, `struct_ops \S+: member \S+ not found in kernel, skipping`, "The kernel's struct has no such member. The object leaves it empty, so nothing is lost.", "").goesOn(""),
	word("libbpf", own, `struct_ops init_kern\b.*[Cc]annot find (?:member|type|struct)`,
		"The program fills in a member of the kernel's struct that this kernel does not have: the program is newer than the kernel, or older than a change of the struct.",
		"Run a kernel that has the member, or a version of the program for this kernel. A member that is left zero is skipped.").byItself(),
	word("libbpf", own, `struct_ops init_kern|struct_ops reloc|struct_ops init|struct_ops \S+: member`,
		"The struct_ops definition of the object does not fit the kernel's struct: a member that does not exist here, or has another type.",
		"Leave members out that the kernel lacks (a zero value is skipped), or use a flavour of the struct (name___suffix)."),
	word("libbpf", own, `prog '[^']*': (?:missing BPF prog type|invalid section name|failed to guess)|failed to guess (?:program|attach) type|unrecognized ELF section name`,
		"The section name does not tell the type of the program: this version of libbpf does not know it.", "Use a section name that libbpf knows (connect4 and connect6, say, in place of connect), set the type before loading, or take a libbpf as new as the object.").byItself(),
	word("libbpf", own, `libbpf: .*(?:prog '[^']*': (?:bad|data relo|extern relo|map relo|invalid relo|incorrect bpf_call|missing subprog|no \.text|failed to (?:relocate|realloc|add subprog|perform|prepare|initialize)|error relocating|missing \.BTF|cannot find exception|exception|subprog)|corrupted|relocation against|\.maps relo|relo for)`,
		"The object's code refers to something that the library cannot resolve, or that it does not support.", rebuildObject),
	echo("libbpf", load.ProgLoad, `prog '[^']*': (?:BPF program load failed|failed to load)`, "The kernel did not accept the program."),
	echo("libbpf", load.LinkCreate, `prog '[^']*': failed to (?:auto-)?attach|failed to open link at`, "The program could not be attached."),
	word("libbpf", own, `libbpf: .*(?:load can't be attempted twice|non-native endianness|(?:find|initialize|populate) (?:sub)?skeleton|nr_progs|handler doesn't|map and must be from|exclusive programs must)`, "The object is used in a way that the library does not allow.", callInOrder),
	echo("libbpf", load.ProgLoad, `failed to load object '`, "Some part of the object could not be loaded."),
	echo("libbpf", own, `Kernel error message: `, "The kernel's own words on a request by netlink, such as attaching XDP or tc."),
	word("libbpf", own, `libbpf: .*(?:Netlink error reporting|trailing data in Netlink response|extended error attributes)`, "The answer by netlink could not be read.", ""),
	word("libbpf", own, `libbpf: .*(?:Detection of kernel .* support failed|skipping module BTFs|Kernel doesn't support BTF|API not supported\? Ignoring|failed to iterate BTF objects|failed to get BTF object|failed to load module \[|failed to dup FD|Program (?:unexpectedly|loading))`,
		"The library could not find out all that it wanted about the kernel, and goes on.", "").goesOn(""),
	word("libbpf", own, `libbpf: .*(?:elf: |type \[\d+\], kind|ELF |libelf|BTF\.ext|\.BTF|BTF\b.*(?:header|magic|string|size|layout|dedup|distilled|endianness)|btf_dedup|btf: type|DATASEC|zip: |sec(?:tion)?s? '?[%\w.]+'?:? (?:are|entsize|flags|types|failed|invalid|unexpected)|sec '|section|mismatch in \w+_info|STRTAB|SYMTAB|EHDR|e_shstrndx|symbol|sym name|unexpected error skipping|alloc memory failed|type for map|invalid map pointer|internal error at|dummy_ksym|failed to (?:append|consolidated)|failed to add consolidated)`,
		"The object file could not be read: it is damaged, of another kind, or made by tools that do not go with this library.", rebuildObject),
	word("libbpf", own, `libbpf: .*(?:(?:perf_buffer|ringbuf|user ringbuf): |perf buffer|failed to (?:epoll|create epoll|mmap perf|munmap|allocate (?:buffers|events))|error while processing records|CPU (?:mask|range)|cpu mask|online CPU|failed to open \S+: .*procfs)`,
		"Events could not be read from a ring or perf buffer. The programs were loaded.", ""),
	echo("libbpf", own, `libbpf: .*(?:failed to|couldn't|can't|cannot|error)`, "The library could not do something; its words say what."),

	// libxdp.
	word("libxdp", own, `has no BTF information, so we can't load it as multiprog`,
		"The program has no BTF, so libxdp does without its dispatcher: this program alone can be on the device.", "Build the object with -g, if several programs are to share the device.").goesOn(""),
	word("libxdp", load.XDPAttach, `libxdp: (?:XDP mode not supported|Error attaching XDP program|Existing program is not using a dispatcher|XDP program already loaded in HW mode|Kernel DOES NOT support XDP programs with flag|XDP flag: |Current kernel version does not support XDP device binding|Dispatcher was not bound)`,
		"XDP could not be attached to the device: a program is there already, the driver lacks the mode, or its frames are too large.",
		"Look at what is attached (xdp-loader status, ip link), unload it, or use SKB mode."),
	word("libxdp", load.LinkCreate, `libxdp: (?:Got 'permission denied' error while attaching|Failed to attach (?:program|test program|dispatcher)|Kernel doesn't support re-attaching|Program was already attached|Can't detach link|Failed to set attach target)`,
		"The program could not be attached to libxdp's dispatcher, through which several XDP programs share a device. It takes freplace: kernel 5.10, BTF, and a verified type of the function.",
		"Run on such a kernel, or attach one program alone (XDP_FLAGS without the dispatcher: LIBXDP_SKIP_DISPATCHER=1)."),
	echo("libxdp", load.OtherCommand, `libxdp: Can't get (?:next )?link`, "The links of the device's programs could not be listed."),
	word("libxdp", load.ObjPin, `libxdp: (?:Couldn't pin|Failed to pin)`,
		"libxdp pins the programs of a device in a bpffs, and could not do so.", "Mount a bpffs (mount -t bpf bpf /sys/fs/bpf), writable for this process."),
	word("libxdp", own, `libxdp: (?:.*(?:bpffs|pin_?\w* ?(?:directory|path|progs)|lock directory|flock|mount|Unlink|unlink|fcntl)|Couldn't (?:stat|unlock))`,
		"libxdp keeps its state in a bpffs, and could not use it.", "Mount a bpffs (mount -t bpf bpf /sys/fs/bpf), writable for this process."),
	word("libxdp", own, `libxdp: Couldn't find a BPF file with name`,
		"A compiled object of this name is not in the folders in which libxdp looks. Nothing was asked of the kernel.",
		"Install the objects that belong to the tool (make install, or the distribution's package), or name their folder in LIBXDP_OBJECT_PATH.").byItself(),
	word("libxdp", own, `libxdp: .*(?:BTF|DATASEC|run order struct|xdp program in bpf object|struct '|attr '|Function '|mname|rodata|BPF file|such file)`,
		"The object or the dispatcher's object could not be found or read, or has no BTF.", "Install libxdp's own objects (LIBXDP_OBJECT_PATH), and build the program with -g."),
	word("libxdp", load.ProgLoad, `libxdp: (?:Got 'argument list too long'|Failed to load|Couldn't load|Compatibility check|Can't fall back|Got 'invalid argument'|Program \S+ has no BTF)`,
		"A program of the set, or the dispatcher, could not be loaded.", seeBefore),
	echo("libxdp", own, `libxdp: `, "libxdp could not do something; its words say what."),

	// cilium/ebpf, and what is built on it.
	word("cilium/ebpf", own, `find target for .*\bnot found`, "The function or hook to attach to is not in the kernel's BTF.",
		"Look the name up: bpftool btf dump file /sys/kernel/btf/vmlinux. It may have been renamed or inlined.").told("BTF005", Likely),
	word("cilium/ebpf", own, `multiple candidates for`,
		"The kernel's BTF has more than one function or type of this name, and the library does not choose between them.",
		"Attach to a function whose name is unique, or update the library: newer ones look at the module as well."),
	word("cilium/ebpf", own, `not supported \(requires >= v?\d`,
		"The library tried out what this kernel has, and the program needs what it has not: the error says what, and since which release kernels have it.",
		"Run on such a kernel, or do without what the error names."),
	word("cilium/ebpf", load.ProgLoad, `program created without BTF or unsupported kernel|program type \S+ not supported`,
		"The kernel lacks something that the program needs, or the program has no BTF.", "Look at the errno behind it, and try on a newer kernel."),
	word("cilium/ebpf", load.ObjPin, `map spec is incompatible with existing map`, "The pinned map differs in type, size or flags from the map that the program wants.", "Compare the pin with the definition; the error names what differs since v0.12."),
	echo("cilium/ebpf", load.MapCreate, `\bmap create: |BPF_F_NO_PREALLOC flag may be incompatible`, "The kernel did not create the map."),
	word("cilium/ebpf", load.LinkCreate, `missing (?:kernel )?symbol or prog's AttachType|specified pid not found\?|couldn't find one or more symbols|attaching to ambiguous kernel symbol|possible trap insn|token \S+: (?:not found|offset too big)`,
		"The program could not be attached: no such symbol or offset, or a program of another type.", "Look the symbol up in /proc/kallsyms or in the file, and the program's type and attach type in its section."),
	word("cilium/ebpf", own, `no BTF found for kernel version`, "BTF of the kernel was not found.",
		"Run a kernel with CONFIG_DEBUG_INFO_BTF=y, or give the loader BTF.").told("BTF003", Strong),
	word("cilium/ebpf", own, `kernel is missing symbol: |kfuncs are not supported on this platform`, "A symbol or kernel function that the program names is not in this kernel.", "Declare it __weak, or load the module that has it.").told("FEAT006", Likely),
	word("cilium/ebpf", load.ProgLoad, `insufficient permissions(?:,| or) unsupported kernel`, "The kernel said no to a probe of a feature: rights, an old kernel, or the JIT being off would all look so.", "Look at the capabilities first.").told("PERM001", Possible),

	// aya.
	word("aya", load.ProgLoad, `the BPF_PROG_LOAD syscall failed`, "The kernel did not accept the program; the verifier's words follow.", ""),
	word("aya", load.BTFLoad, `the BPF_BTF_LOAD syscall failed`, "The kernel does not accept the object's BTF; its words follow.", "Update aya, or build with an older compiler.").told("BTF002", Likely).with(abi.EINVAL),
	word("aya", load.MapCreate, "failed to create map `|requested pinning\\. pinning failed", "A map could not be created or pinned.", ""),
	word("aya", own, `[Uu]nknown BTF type|no BTF type found for`, "The function or type that the program names is not in the kernel's BTF.",
		"Look the name up: bpftool btf dump file /sys/kernel/btf/vmlinux. It may have been renamed or inlined.").told("BTF005", Likely),
	word("aya", own, "error relocating (?:function|section|`|\\S+, multiple)|applying relocation `|unsupported relocation target|not found while relocating|was not found while relocating|invalid (?:access string|relocation access string|BTF relocation) |applying relocation #",
		"aya could not resolve what the program's code refers to: a function, a map, a variable, or a field of the kernel. The kernel was not asked.", rebuildObject),
	word("aya", own, "error parsing (?:BPF object|ELF\\b|map `|section with index)|invalid program section `|the map number \\d+ in the `maps`|map for section with index",
		"aya could not read the object file: it is no BPF object, was made by tools that do not go with this version of aya, or has a section that aya does not know.", rebuildObject),
	word("aya", own, `^(?:\d: )?(?:BTF error\b|invalid BTF(?:$| info, | line info, | relocation | string offset| type )|no BTF parsed for object)`,
		"aya could not read the BTF of the object or of the kernel.", "Update aya and bpf-linker together, or build with an older compiler."),
	word("aya", load.XDPAttach, `netlink error while attaching XDP program`, "XDP could not be attached by netlink.", ""),
	word("aya", load.TCAttach, `netlink error while attaching ebpf program to tc`, "The program could not be attached to tc.", "Add the clsact qdisc first (tc::qdisc_add_clsact), unless it is there."),
	word("aya", load.SocketAttach, `setsockopt SO_ATTACH_BPF failed`, "The program could not be attached to the socket.", "ENOMEM: raise net.core.optmem_max. EINVAL: it is no socket filter."),
	word("aya", load.PerfEventOpen, `perf_event_open failed: |PERF_EVENT_IOC_ENABLE failed: |perf_event_open: invalid fd returned`, "A perf event could not be made or enabled.", "EACCES and EPERM are rights, ENOENT is a name."),
	word("aya", load.LinkCreate, `could not resolve uprobe target|mismatched build IDs in main and debug files|tcx links can only be attached|programs loaded via tcx|target BPF program does not have BTF loaded|(?:chained programs|program ids) are not supported by the current kernel`,
		"The program could not be attached to its target.", "Look the target up; newer kinds of links need a newer kernel."),

	// libbpf-rs: the reason stands in libbpf's own words before, or in the errno behind.
	echo("libbpf-rs", load.LinkCreate, `failed to attach (?:BPF program|LSM|USDT|XDP program|cgroup|fentry/fexit|iterator|kprobe|ksyscall|netfilter|network namespace program|perf event|raw tracepoint|struct_ops|tracepoint|uprobe)\b`, "The program could not be attached."),

	// bcc.
	word("bcc", load.ProgLoad, `Failed to load BPF program \S+: `, "The kernel did not accept the program; the verifier's log stands before.", ""),
	word("bcc", own, `Failed to compile BPF module`, "The program could not be compiled: kernel headers are missing or do not fit.", "Install the headers of the running kernel, or CONFIG_IKHEADERS."),
	word("bcc", load.ProbeDefine, `cannot (?:attach|detach) u(?:ret)?probe, `,
		"The uprobe could not be made: the kernel does not find the file where it looks for it, or the offset lies outside of it.",
		"Name the file as the host sees it (/proc/PID/root/PATH), and look the symbol up in it (nm -D)."),
	word("bcc", load.ProbeDefine, `cannot (?:attach|detach) \w+, (?:probe entry may not exist|\S+)|Failed to attach BPF program \S+ to k(?:ret)?probe`,
		"The kprobe could not be made: the function does not exist, was inlined, or may not be probed.",
		"Look it up in /proc/kallsyms and in /sys/kernel/debug/kprobes/blacklist."),
	word("bcc", load.RawTPOpen, `Failed to attach BPF to (?:entry|exit|fmod_ret) kernel func|Failed to attach BPF to raw tracepoint|Failed to attach LSM$`, "The program could not be attached by the kernel's BTF.", ""),
	word("bcc", load.XDPAttach, `(?:attach|detach) BPF (?:to|from) device \S+: |Internal error while attaching BPF to device`, "XDP could not be attached to the device.", ""),
	word("bcc", load.PerfEventSetBPF, `ioctl\(PERF_EVENT_IOC_(?:SET_BPF|ENABLE|DISABLE)\) failed`, "The program could not be attached to its event.", "EACCES at a tracepoint: the program reads beyond its record."),
	word("bcc", load.PerfEventOpen, `bpf_open_perf_event failed|Invalid perf event type \S+ config|^perf_event_open failed|Failed to attach BPF to perf (?:raw )?event|Could not open perf buffer`, "A perf event could not be made.", "EACCES and EPERM are rights, ENOENT is a name."),
	word("bcc", load.SocketAttach, `cannot create raw socket|Failed to open raw device`, "The socket for a filter could not be made.", "It takes CAP_NET_RAW."),
	word("bcc", load.PerfEventOpen, `Failed to attach BPF program \S+ to tracepoint`, "The program could not be attached to a tracepoint.", "ENOENT: it does not exist here, or tracefs is not mounted. EACCES: the program reads beyond its record."),
	echo("bcc", load.LinkCreate, `Failed to (?:attach|detach) BPF (?:to|from|function|program)`, "The program could not be attached or detached."),
	word("bcc", load.MapUpdate, `BPF_MAP_UPDATE_BATCH has failed: `, "A call that writes several elements of a map failed.", ""),
	word("bcc", load.OtherCommand, `BPF_MAP_\w+_BATCH has failed: `, "A call on several elements of a map failed.", ""),

	// bpftrace.
	sign("bpftrace", "", 0, `\bInvalid probe type: \S+`,
		"This bpftrace has no probe type of that name. It stopped over the script, and asked the kernel nothing: 'bpftrace -l' and its manual list the types that it has.").goesOn(""),
	word("bpftrace", load.ProgLoad, `Error loading BPF program for|Unknown BPF object load failure`, "The kernel did not accept the program. With -v bpftrace prints the verifier's log.", "Run with -v or -d libbpf."),
	word("bpftrace", load.LinkCreate, `Unable to attach probe:|Attachment failed for all probes|Failed to attach (?:iter probe|to pid:|usdt probe:)|not traceable \(either non-existing|error finding uprobe target|Failed to create iter probe|Failed to resolve kernel symbol:|^Can't attach to`,
		"The probe could not be attached: the function does not exist, was inlined, or may not be probed.", "List what exists (bpftrace -l 'kprobe:name*')."),
	word("bpftrace", own, `Cannot replace kernel functions`, "The script would override what a kernel function returns, and bpftrace does not do that here.", "Run it with --unsafe, on a kernel with CONFIG_BPF_KPROBE_OVERRIDE=y."),
	word("bpftrace", own, `not available for your kernel version|Missing required kernel feature:`, "The script uses what this kernel does not have, or what this user may not use.", "Run as root, or on a newer kernel."),
	word("bpftrace", own, `BTF: failed to |^No BTF found for|failed to load (?:module|vmlinux) BTF|Failed to get BTF (?:from BPF object|type for section)`, "BTF of the kernel or of the script was not found.", "Run a kernel with CONFIG_DEBUG_INFO_BTF=y.").told("BTF003", Likely),

	// iproute2.
	sign("iproute2", "TAIL001", Strong, `Tail call map owned by prog type`, "The loader says that the prog array belongs to programs of another type than this one."),
	word("iproute2", own, `struct bpf_elf_map|Too many BPF maps in ELF|ELF format error, ELF file not for eBPF|ERROR: opening BPF object file|Failed to parse eBPF program|Couldn't find runtime libbpf version`,
		"tc or ip could not read the object. A build without libbpf knows the old map definitions only.", "Look at ip -V: with libbpf it takes SEC(\".maps\")."),
	word("iproute2", load.ProgLoad, `Failed to load BPF prog: '|Prog section '\S+' rejected`, "The kernel did not accept the program.", "Run with verb, for the verifier's log."),
	sign("iproute2", "PERM001", Strong, `\bmount (?:--bind|--make-\w+|-t bpf) .*(?:failed|error)[^:]*: Operation not permitted`,
		"tc and ip mount a bpffs for their pins if there is none. mount(2) takes CAP_SYS_ADMIN, which containers do not have. They go on without pins.").about(load.ObjPin).
		doing("Mount the bpffs on the host (mount -t bpf bpf /sys/fs/bpf), and pass it into the container; or run this command on the host"),
	word("iproute2", load.ObjPin, `mount -t bpf bpf \S+ failed|mount --(?:bind|make-private) \S+ (?:\S+ )?failed`, "A bpffs could not be mounted.", "Mount it before, or give the process the right."),
}
