// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// Bounds of what is read of a pasted text. What is left out lies in its middle.
const (
	maxText      = 256 << 10
	maxTextLines = 2048
	maxTextLine  = 2048
	maxFindings  = 8
)

// Text explains error text as cilium/ebpf, libbpf, bpftrace, container
// runtimes, systemd or the kernel's log print it. It returns one diagnosis for
// each failure that it recognises, messages that are mere noise last, and nil
// for a text in which it finds nothing about BPF. Text alone seldom proves a
// cause: the alternatives matter.
func Text(s string) []load.Diagnosis {
	lines := textLines(s)
	lines, noise := splitNoise(lines)
	var out []load.Diagnosis
	logs, rest := splitLogs(lines)
	for _, l := range logs {
		if d := textDiagnosis(append(slices.Clone(rest[max(0, len(rest)-64):]), l...), l); d != nil {
			out = append(out, *d)
		}
	}
	if len(logs) == 0 {
		if d := textDiagnosis(rest, nil); d != nil {
			out = append(out, *d)
		}
	}
	out = append(out, noise...)
	return out[:min(len(out), maxFindings)]
}

// textLines cuts a text into bounded lines, and undoes the escapes of loggers
// that put all of it on one.
func textLines(s string) []string {
	if len(s) > maxText {
		s = s[:maxText/2] + "\n" + s[len(s)-maxText/2:]
	}
	if strings.Count(s, `\n`) > 2*strings.Count(s, "\n") {
		s = strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\"`, `"`).Replace(s)
	}
	lines := strings.Split(strings.ReplaceAll(s, "\r", ""), "\n")
	if len(lines) > maxTextLines {
		lines = slices.Concat(lines[:maxTextLines/4], lines[len(lines)-maxTextLines*3/4:])
	}
	for i, l := range lines {
		lines[i] = l[:min(len(l), maxTextLine)]
	}
	return lines
}

// splitLogs takes the verifier logs out that libbpf prints between two marks.
func splitLogs(lines []string) (logs [][]string, rest []string) {
	var open []string
	inside := false
	for _, l := range lines {
		switch {
		case strings.Contains(l, "BEGIN PROG LOAD LOG"):
			open, inside = []string{}, true
		case strings.Contains(l, "END PROG LOAD LOG") && inside:
			logs, inside = append(logs, open), false
		case inside:
			open = append(open, l)
		default:
			rest = append(rest, l)
		}
	}
	if inside {
		logs = append(logs, open)
	}
	if len(logs) > maxFindings {
		logs = logs[len(logs)-maxFindings:]
	}
	return logs, rest
}

// A signature is what a program other than the verifier says.
type signature struct {
	says     *regexp.Regexp
	rule     string
	strength Strength
	cause    string
}

// noiseSignatures are messages that look like the error and are not.
var noiseSignatures = []signature{
	{regexp.MustCompile(`failed \((-\d+)\) to create BPF token|failed to create BPF token|BPF token .*optional`), "PERM010", Likely,
		"libbpf tries to get a BPF token at every start and goes on without one. This message is noise; the error is another one."},
	{regexp.MustCompile(`BTF is optional, ignoring`), "BTF002", Likely,
		"The kernel did not take the object's BTF, and the loader goes on without. This message is noise, unless a program needs its BTF."},
	{regexp.MustCompile(`[Rr]etrying without BTF`), "MAP003", Likely,
		"The kernel did not take BTF for this map, and the loader created it without. This message is noise."},
}

func splitNoise(lines []string) (rest []string, noise []load.Diagnosis) {
	var told []string
	for _, l := range lines {
		i := slices.IndexFunc(noiseSignatures, func(s signature) bool { return s.says.MatchString(l) })
		if i < 0 {
			rest = append(rest, l)
			continue
		}
		s := noiseSignatures[i]
		if slices.Contains(told, s.rule) {
			continue
		}
		told = append(told, s.rule)
		r, _ := ByID(s.rule)
		noise = append(noise, load.Diagnosis{Rule: r.ID, Title: r.Title, Cause: s.cause, HowKnown: load.Inferred,
			Evidence: []string{quoteLine(l)}, Remedies: r.Remedies})
	}
	return rest, noise
}

var signatures = []signature{
	{regexp.MustCompile(`(?i)MEMLOCK may be too low|raise (?:the )?memlock|RemoveMemlock|ulimit -l`), "PERM001", Likely,
		"A hint about RLIMIT_MEMLOCK is right before 5.11 only. On newer kernels the loader lacks a capability."},
	{regexp.MustCompile(`(?i)MEMLOCK may be too low|raise (?:the )?memlock|RemoveMemlock|ulimit -l`), "PERM007", Possible,
		"On a kernel before 5.11 the hint is right: RLIMIT_MEMLOCK is too low."},
	{regexp.MustCompile(`(?i)lockdown: .*bpf to read kernel`), "PERM003", Strong,
		"The kernel's log says that lockdown kept BPF from reading kernel memory."},
	{regexp.MustCompile(`(?i)lockdown: .*bpf to write user`), "PERM004", Strong,
		"The kernel's log says that lockdown kept BPF from writing user memory."},
	{regexp.MustCompile(`avc:\s+denied .*tclass=bpf`), "PERM005", Strong, "SELinux denied it, as the audit log says."},
	{regexp.MustCompile(`bpf_jit: (?:unknown|unsupported|multi-func)|\*\*\* NOT YET: opcode|bpf_jit.*(?:unhandled|unsupported) (?:insn|opcode)`), "JIT002", Strong,
		"The JIT of this machine says in the kernel's log what it cannot compile."},
	{regexp.MustCompile(`(?i)no BTF found(?: for kernel)?|failed to find valid kernel BTF|kernel (?:doesn't|does not) (?:support|have) BTF|vmlinux BTF is not found|/sys/kernel/btf/vmlinux.*(?:no such|not found)`), "BTF003", Strong,
		"The loader found no BTF of the running kernel."},
	{regexp.MustCompile(`Unsupported BTF_KIND:|(?i)unknown BTF kind|unsupported BTF kind|unknown kind:? \d+`), "BTF002", Likely,
		"The loader's library does not know a kind of BTF that is newer than itself: the library is old, not the kernel."},
	{regexp.MustCompile(`(?i)error loading \.BTF|BTF_LOAD|load btf(?:: | failed)|btf: (?:invalid|malformed)`), "BTF002", Likely,
		"The kernel does not accept the object's BTF."},
	{regexp.MustCompile(`(?i)bad CO-RE relocation|instruction poisoned by CO-RE|no matching targets|CO-RE relocation.*(?:failed|not found)`), "BTF001", Strong,
		"A CO-RE relocation found nothing to point to in this kernel's BTF."},
	{regexp.MustCompile(`(?i)failed to find kernel BTF type ID|attach.*: target .*not found|couldn't find .*in kernel BTF`), "BTF005", Likely,
		"The function or hook that the program names is not in the kernel's BTF."},
	{regexp.MustCompile(`extern \(func ksym\) .*not found|(?i)kfunc.*not found in|(?i)kernel function .*not found`), "FEAT006", Strong,
		"The kernel function that the program calls was not found in the BTF of the kernel or its modules."},
	{regexp.MustCompile(`(?i)\b(?:perf_)?u(?:ret)?probe\b.*\bperf[_ ]event(?:_open)?\b.*(?:permission denied|\bEACCES\b|-13\b)|` +
		`\bperf[_ ]event(?:_open)?\b.*\bu(?:ret)?probe\b.*(?:permission denied|\bEACCES\b|-13\b)`), "PERM012", Likely,
		"perf_event_open(2) was refused for a uprobe. Kernels from 6.16 on, and stable ones since July 2025, want CAP_SYS_ADMIN for it; others want CAP_PERFMON."},
	{regexp.MustCompile(`(?i)\bperf[_ ]event(?:_open)?\b.*(?:permission denied|operation not permitted)`), "PERM011", Likely,
		"perf_event_open(2), by which kprobes, uprobes and tracepoints are attached on old kernels and by old loaders, was refused to the loader."},
	{regexp.MustCompile(`(?i)\bk(?:ret)?probe\b.*\bperf[_ ]event(?:_open)?\b.*no such file|\bperf[_ ]event(?:_open)?\b.*\bk(?:ret)?probe\b.*no such file`), "BTF005", Likely,
		"The kernel has no function of that name that can be probed: it was renamed, inlined, or belongs to a module that is not loaded."},
	{regexp.MustCompile(`constant blinding may make a jump of the program go to the wrong place`), "BLIND004", Strong,
		"Package loader says that a hardened kernel before 7.1 might compile the program wrongly without a word; it did not load it."},
	{regexp.MustCompile(`bpf_jit_limit|(?i)bpf jit (?:memory )?limit`), "JIT001", Likely,
		"The text speaks of the JIT's memory limit."},
}

var (
	aboutBPF = regexp.MustCompile(`(?i)\be?bpf|\blibbpf|seccomp filter|verifier|\bload program|prog(?:ram)? load|\bxdp\b|btf|kprobe|tracepoint|fentry|uprobe|map create|create map|attach_filter|processed \d+ insns|cgroup.*device|(?:errno|error|err|code)\W{0,3}524\b`)
	// otherCall are the errors of other system calls, as Go's library and shells print them.
	otherCall = regexp.MustCompile(`(?i)\b(?:open|stat|lstat|mkdir|exec|fork/exec|chmod|chown|unlink|unlinkat|remove|rename|connect|readlink|symlink|mount) [^:]*/[^:]*: |` +
		`\b(?:dial|listen|read|write) (?:tcp|udp|unix|ip)\S* [^:]*:|\bfork: |/bin/\S*: `)
	perfEvent    = regexp.MustCompile(`(?i)\bperf[_ ]event(?:_open)?\b`)
	errnoNumber  = regexp.MustCompile(`(?i)(?:\b(?:errno|error|err|code|ret|returned|rc|failed)\b\s*[:=(\[]?\s*|\()-?(\d{1,3})\b`)
	unknownError = regexp.MustCompile(`(?i)unknown error:? (\d{1,3})|\[Errno (\d{1,3})\]`)
	instruction  = regexp.MustCompile(`(?m)^\s*\d{1,7}: \([0-9a-f]{2}\) `)
)

// Words of strerror(3) and of Go, with the errno each stands for. The longer of
// two that overlap comes first.
var errnoPhrases = []struct {
	phrase string
	errno  int
}{
	{"operation not permitted", errEPERM},
	{"permission denied", errEACCES},
	{"argument list too long", errE2BIG},
	{"invalid argument", errEINVAL},
	{"no space left on device", errENOSPC},
	{"too many open files in system", errENFILE},
	{"too many open files", errEMFILE},
	{"cannot allocate memory", errENOMEM},
	{"bad file descriptor", errEBADF},
	{"bad address", errEFAULT},
	{"resource temporarily unavailable", errEAGAIN},
	{"try again", errEAGAIN},
	{"device or resource busy", errEBUSY},
	{"file exists", errEEXIST},
	{"no such process", errESRCH},
	{"no such device", errENODEV},
	{"function not implemented", errENOSYS},
	{"numerical result out of range", errERANGE},
	{"enotsupp", errENOTSUPP},
	{"operation not supported", errEOPNOTSUPP},
	{"not supported", errEOPNOTSUPP},
	{"no such file or directory", errENOENT},
}

func textDiagnosis(lines, log []string) *load.Diagnosis {
	text := strings.Join(lines, "\n")
	if !aboutBPF.MatchString(text) {
		return nil
	}
	kind, explicit := textKind(text)
	errno, line, sure := textErrno(lines, explicit)
	ambiguous := false
	if errno == errEOPNOTSUPP && namedErrno(line) == 0 && (kind == load.ProgLoad || kind == load.Seccomp || kind == load.SocketFilter) {
		errno, ambiguous = errENOTSUPP, true
	}
	a := &load.Attempt{Kind: kind, Outcome: load.Failed, Errno: errno,
		Evidence: load.Evidence{FailedInsn: -1, UserNSLevel: -1, SeccompMode: -1, Harden: -1, EnterSeen: true}}
	f := &Facts{Attempt: a, Node: &node.Profile{}, ev: &a.Evidence, words: textWords(lines, log)}
	f.text = &pasted{}
	if line != "" && f.words.message != printable(strings.TrimSpace(line), 300) {
		f.text.lines = append(f.text.lines, quoteLine(line))
	}
	if ambiguous && kind == load.ProgLoad {
		f.text.lines = append(f.text.lines, "these words stand for EOPNOTSUPP (95), and in Go programs for ENOTSUPP (524) as well")
	}
	if f.words.is(verifierlog.NeedsJIT) && errno == errEOPNOTSUPP {
		a.Errno = errENOTSUPP
	}

	var found []finding
	// perf_event_open is no command of bpf(2), and has errnos of its own.
	if kind != perfEventOpen {
		found = matches(f)
	}
	for _, o := range found {
		o.match.How = load.Inferred // nothing was watched
		if !sure && f.words.empty() {
			o.match.Strength = Possible
		}
	}
	for _, s := range signatures {
		if log != nil && !f.words.empty() {
			break // the verifier's word counts for more
		}
		i := slices.IndexFunc(lines, s.says.MatchString)
		if i < 0 {
			continue
		}
		r, _ := ByID(s.rule)
		found = slices.DeleteFunc(found, func(o finding) bool { return o.rule.ID == s.rule && o.match.Strength <= s.strength })
		if slices.ContainsFunc(found, func(o finding) bool { return o.rule.ID == s.rule }) {
			continue
		}
		found = append(found, finding{r, &Match{Strength: s.strength, How: load.Inferred, Cause: s.cause, Evidence: []string{quoteLine(lines[i])}}})
	}
	if len(found) == 0 && errno == 0 {
		return nil
	}
	slices.SortStableFunc(found, func(a, b finding) int { return cmp.Compare(b.match.Strength, a.match.Strength) })
	d, _ := f.decide(found)
	d.Remedies = append(d.Remedies, watchLoader)
	return d
}

var watchLoader = load.Remedy{
	ID:      "watch-loader",
	Title:   "Run the loader under observation, to know instead of guess",
	Price:   "One more failing start; needs root.",
	Command: "bpfwhy run -- COMMAND",
}

// pasted marks facts that come from text alone.
type pasted struct {
	lines []string // quoted
}

func quoteLine(l string) string {
	return "the text says: " + printable(strings.TrimSpace(l), 300)
}

// perfEventOpen is what text can be about beside the kinds of attempts.
const perfEventOpen load.Kind = "perf_event_open"

// textKind guesses what was attempted; explicit says that the text names it.
func textKind(text string) (kind load.Kind, explicit bool) {
	lower := strings.ToLower(text)
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(lower, p) })
	}
	switch {
	case has("seccomp filter", "seccomp_set_mode_filter", "pr_set_seccomp", "unable to load seccomp", "ssh_sandbox"):
		return load.Seccomp, true
	case has("so_attach_filter", "attach_filter", "attach filter", "pcap_setfilter"):
		return load.SocketFilter, true
	case instruction.MatchString(text) || has("prog load", "load program", "loading program", "load bpf program", "loading bpf program", "program load",
		"bpf_prog_load", "prog_load", "probe_loading"):
		return load.ProgLoad, true
	case has("map create", "create map", "creating map", "map_create", "failed to create map"):
		return load.MapCreate, true
	case has(".btf into kernel", "btf_load", "load btf"):
		return load.BTFLoad, true
	case perfEvent.MatchString(text):
		return perfEventOpen, true
	case has("attach", "bpf_link", "link_create"):
		return load.LinkCreate, true
	case failedProg.MatchString(text):
		return load.ProgLoad, true
	case failedMap.MatchString(text):
		return load.MapCreate, true
	}
	return load.ProgLoad, false
}

// libbpf's last words on a program or a map.
var (
	failedProg = regexp.MustCompile(`(?i)\bprog(?:ram)? '?[^' ]*'?: failed to load`)
	failedMap  = regexp.MustCompile(`(?i)\bmap '?[^' ]*'?: failed to create`)
)

// textErrno finds the errno that a text names, and the line that it stands on. A number beats words, and the last line about
// BPF beats earlier ones. The errno is sure when that line, or one next to it, says what was attempted; one on a line that does not
// speak of BPF never is, and counts only next to such a line.
func textErrno(lines []string, explicit bool) (errno int, line string, sure bool) {
	named := func(i int) bool {
		_, ok := textKind(strings.Join(lines[max(0, i-2):min(len(lines), i+3)], "\n"))
		return ok
	}
	for pass := range 2 {
		if pass == 1 && !explicit {
			break
		}
		for i := len(lines) - 1; i >= 0; i-- {
			l := lines[i]
			about := aboutBPF.MatchString(l)
			if about != (pass == 0) || otherCall.MatchString(l) {
				continue
			}
			n := namedErrno(l)
			if n == 0 {
				n = phraseErrno(l)
			}
			if n != 0 && (about || named(i)) {
				return n, l, about && named(i)
			}
		}
	}
	return 0, "", false
}

func phraseErrno(line string) int {
	lower := strings.ToLower(line)
	for _, p := range errnoPhrases {
		if strings.Contains(lower, p.phrase) {
			return p.errno
		}
	}
	return 0
}

// namedErrno reads an errno that is given as a number. Numbers that are no
// errno of bpf(2) are passed over: they count something else.
func namedErrno(line string) int {
	if m := unknownError.FindStringSubmatch(line); m != nil {
		n, _ := strconv.Atoi(m[1] + m[2])
		return n
	}
	for _, m := range errnoNumber.FindAllStringSubmatch(line, 16) {
		n, _ := strconv.Atoi(m[1])
		if _, ok := ErrnoByNumber(n); ok && n != 0 {
			// -1 is what failed calls return: it names EPERM only as an errno.
			if n == 1 && !strings.Contains(strings.ToLower(line), "errno") {
				continue
			}
			return n
		}
	}
	return 0
}

// textWords finds the verifier's complaint in a log, or in a line that quotes
// it.
func textWords(lines, log []string) words {
	none := words{insn: -1}
	if log != nil {
		return parseWords(strings.Join(log, "\n"))
	}
	text := strings.Join(lines, "\n")
	if w := parseWords(text); w.match.Kind != verifierlog.Unknown {
		if !instruction.MatchString(text) {
			w.complaint = []string{w.message}
		}
		return w
	} else if instruction.MatchString(text) && w.finished {
		return w
	}
	budget := 64 << 10 // bytes; each is compared with every wording
	for i := len(lines) - 1; i >= 0 && budget > 0; i-- {
		budget -= len(lines[i])
		if m := verifierlog.Classify(lines[i]); m.Kind != verifierlog.Unknown {
			msg := printable(strings.TrimSpace(lines[i]), 300)
			return words{match: m, message: msg, complaint: []string{msg}, insn: -1}
		}
	}
	return none
}
