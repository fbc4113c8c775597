// SPDX-License-Identifier: Apache-2.0

package reading

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
)

// clue is what one line tells of a failure.
type clue struct {
	at     int // the line's place in the text
	source string
	role   role
	sure   bool // a sentence that is known, and not a likely reading
	// because: the sentence is the reason, without an errno.
	because bool
	kind    load.Kind
	call    string
	errno   Errno

	program, programType string
	mapName, mapType     string
	place                place
	target               load.AttachTarget
	flags                uint64 // of the call
	said                 string // the kernel's own words
	kernel               bool   // from the kernel's log
	whole                bool   // a record of a logger
	weak                 bool   // the errno stands on a line that may be about something else
	beside, remark       bool   // others say so too, outside of BPF; it counts where nothing else failed

	log []string // the verifier's words, on this line or behind it
	end int      // the last line of them
}

var (
	failureWord = lazyregexp.New(`(?i)\b(?:fail\w*|err(?:or)?s?|errno|cannot|can't|can not|couldn't|could not|unable|denied|reject\w*|refus\w*|not (?:be )?(?:supported|found|permitted|allowed|available|exist)|unsupported|invalid|mismatch|incompatible|exceed\w*|no such|too (?:large|long|many|big)|doesn't|does not|abort\w*|no \w+ found|unexpected|already exists)\b|= -1 E|expects `)
	bpfWords    = lazyregexp.New(`(?i)e?bpf|\bverifier\b|\bxdp|\bbtf\b|k(?:ret)?probe|tracepoint|\bf(?:entry|exit)\b|u(?:ret)?probe|attach_filter|seccomp filter|cgroup.*device|perf[ _]event_open|struct_ops|\bsched_ext\b|/sys/kernel/(?:debug/)?tracing|\bclsact\b`)
	endsInErrno = lazyregexp.New(`[:=(-]\s*-?(?:E[A-Z0-9]{2,12}|\d{1,3})\b`)
	bare524     = lazyregexp.New(`(?i)(?:errno|error|err|code)\W{0,3}524\b|: -524\b`)
	// dockerEnd is what docker and podman put behind the errors of runtimes.
	dockerEnd = lazyregexp.New(`: unknown\.?$|: OCI (?:permission denied|runtime (?:error|attempted|command)[^:]*)$`)
	// otherCall are the errors of other system calls, as Go's library, shells and daemons print
	// them.
	otherCall = lazyregexp.New(`(?i)\b(open|openat|stat|lstat|statfs|mkdir|exec|fork/exec|chmod|chown|unlink|unlinkat|remove|rename|connect|readlink|symlink|mount|umount|chdir|access|execve|read|write|fopen|opening|reading|writing)(?: file| directory| to)? [^:]*/[^:]*: |` +
		`\b(?:dial|listen|read|write|accept) (?:tcp|udp|unix|ip)\S* ?[^:]*:|\bfork: |/bin/\S*: |\b(?:modprobe|insmod|sysctl|iptables|nft): |\bcould not insert |\bconnection refused\b|\bexec(?:ute|ve|v|ing)? ["'\x60]?/\S+|\bbind\(|\b(?:Get|Post|Put) "?https?:|\bno such host\b`)
	// ourPath are files that are BPF's all the same.
	ourPath = lazyregexp.New(`/sys/fs/bpf|/sys/kernel/(?:debug/)?tracing|/sys/kernel/btf|/sys/bus/event_source|[ku]probe_events|perf_event_open|/sys/kernel/security/lsm|\bsxdp\b|\bAF_XDP\b|\.o: operation not permitted|\bevent ['"]?\w+/\w`)
)

// read says what a line tells, by the sentences that are known, and else by its words.
func read(l Line, table Table) clue {
	c := clue{kernel: l.Kernel}
	text, quoted := quotedLog(dockerEnd.Compiled().ReplaceAllString(l.Text, ""))
	if quoted != "" {
		c.log = logLines(quoted)
	}
	switch m := matter([]byte(text)); {
	case l.Debug && asks.MatchString(text):
		return clue{role: tolerated}
	case !m.topic && !m.any() && quoted == "":
		return clue{}
	}
	whole := text
	if text = withoutOtherCall(text); noFailure.MatchString(text) {
		text = noFailure.Compiled().ReplaceAllString(text, " ")
		whole = text
	}
	var found bool
	if c.errno, found = ErrnoOf(text); !found && quoted != "" {
		c.errno, found = c.behindLog()
	}
	if text != whole && !tells(text) {
		return clue{} // whatever failed, it is the other call's doing
	}
	c.tell(text, found, found || quoted != "" || failureWord.MatchString(text) || lacks(text), table)
	return c.ofDriver(text, found)
}

// ofDriver takes what the kernel's log says of XDP for a driver's reason.
func (c clue) ofDriver(text string, errno bool) clue {
	if c.kernel && c.role == failure && c.place == xdp && !errno {
		c.role, c.said = detail, text
	}
	return c
}

// noFailure denies one.
var noFailure = lazyregexp.New(`(?i)\b(?:without|with no) (?:an |any |a |further )?(?:errors?|failures?|complaints?|problems?)\b(?: messages?)?`)

// lacks reports what libbpf says of an object that lacks something which it cannot do without.
func lacks(text string) bool {
	return strings.HasPrefix(text, "libbpf: ") && lackWord.MatchString(text) && !strings.Contains(text, "skipping")
}

var lackWord = lazyregexp.New(`\bmissing\b|\bnot compatible\b|\bno BTF-based\b`)

// tells reports whether a text says more than that something failed.
func tells(text string) bool {
	return slices.ContainsFunc(readings(sentences, text, true), func(r reading) bool { return r.role != aftermath })
}

// asks is what developers write of a program that finds out what the kernel can do.
var asks = lazyregexp.New(`(?i)\bprob(?:e|es|ed|ing) (?:for|whether|if|of|result|fail)\b|\bfeature[ _-]?(?:prob|detect|check|test)|\b(?:checking|detecting|testing) (?:for|whether|if)\b|\bdetection of\b|\bsupport (?:check|probe|test)`)

// tell finds out what the text of a line is about.
func (c *clue) tell(text string, errno, fails bool, table Table) {
	w, tabled := table(text)
	tabled = tabled && (fails || w.Alone)
	switch {
	case tabled && w.Tells == Harmless:
		c.role, c.kind, c.sure = tolerated, w.Kind, true
	case tabled && w.Remark:
		c.byWord(text, w)
	case c.bySentence(text, fails):
	case tabled:
		c.byWord(text, w)
	case !fails:
		c.tries(text)
	default:
		c.byWords(text, errno)
	}
}

// behindLog takes the errno off that stands behind a log in one line.
func (c *clue) behindLog() (Errno, bool) {
	last := &c.log[len(c.log)-1]
	at := errnoBehind.FindIndex([]byte(*last))
	if at == nil {
		return Errno{}, false
	}
	e, ok := ErrnoOf((*last)[at[0]:])
	*last = (*last)[:at[0]]
	return e, ok
}

var errnoBehind = lazyregexp.New(`: [A-Z][a-z' -]+ \(os error \d{1,4}\)$`)

// withoutOtherCall is a chain of errors up to the error of a call that is not BPF's.
func withoutOtherCall(text string) string {
	at := otherCall.Compiled().FindStringSubmatchIndex(text)
	if at == nil {
		return text
	}
	looks := at[2] >= 0 && slices.Contains([]string{"stat", "lstat", "access", "readlink"}, strings.ToLower(text[at[2]:at[3]]))
	if !looks && ourPath.MatchString(text[at[0]:]) || isSentence(text[at[1]:]) {
		return text
	}
	return text[:at[0]]
}

// isSentence reports what a loader says of BPF, and not a word that others say too.
func isSentence(text string) bool {
	return slices.ContainsFunc(readings(sentences, text, true), func(r reading) bool { return !r.word && r.role == failure })
}

// reading is a sentence that matched.
type reading struct {
	*saying
	at     int // where it ends: in a chain of errors the last says what failed
	groups map[string]string
}

func readings(list []saying, text string, fails bool) (all []reading) {
	lower := strings.ToLower(text)
	for i := range list {
		s := &list[i]
		if s.open && !fails {
			continue
		}
		m := s.match(text, lower)
		if m == nil {
			continue
		}
		r := reading{saying: s, at: m[1], groups: map[string]string{}}
		for g, n := range s.says.Compiled().SubexpNames() {
			if n != "" && m[2*g] >= 0 && m[2*g] < m[2*g+1] {
				n = strings.TrimRight(n, "0123456789")
				if r.groups[n] == "" {
					r.groups[n] = text[m[2*g]:m[2*g+1]]
				}
			}
		}
		all = append(all, r)
	}
	return all
}

// bySentence reads a line by the sentences of loaders.
func (c *clue) bySentence(text string, fails bool) bool {
	all := readings(sentences, text, fails)
	if len(all) == 0 {
		return false
	}
	for _, r := range all {
		if r.role == noise || r.role == tolerated {
			c.role, c.kind, c.sure = r.role, r.kind, true
			return true
		}
	}
	// What failed is the last link of the chain; what only follows or explains counts less.
	best := slices.MaxFunc(all, func(a, b reading) int {
		return cmp.Or(cmp.Compare(a.role, b.role), cmp.Compare(a.at, b.at))
	})
	c.role, c.kind, c.call, c.sure, c.because = best.role, best.kind, best.call, true, best.because
	c.take(best)
	for _, r := range all {
		if r.saying != best.saying {
			c.take(r)
		}
	}
	c.refine(text)
	return true
}

// byWord reads a line by a word that the table knows.
func (c *clue) byWord(text string, w Word) {
	c.byWords(text, true)
	if w.Kind == "" && c.kind.Attaches() && !attachWord.MatchString(text) && !probeWord.MatchString(text) && c.place != tcx {
		c.kind, c.place = load.ProgLoad, nowhere // the object, before anything is attached
	}
	c.role, c.sure, c.weak, c.because, c.beside, c.remark = failure, true, false, w.Tells == Reason, w.Beside, w.Remark
	if !(w.Kind.Attaches() && c.kind.Attaches()) { // the words may say more
		c.kind = cmp.Or(w.Kind, c.kind, load.ProgLoad)
	}
	switch w.Tells {
	case Echo:
		c.role = aftermath
	case Hint:
		c.role = detail
	}
}

// tries notes what is done, for the line behind it that says how it ended.
func (c *clue) tries(text string) {
	all := readings(sentences, text, true)
	if len(all) == 0 && bpfWords.MatchString(text) {
		all = readings(phrasesOf, text, true)
	}
	if len(all) > 0 && all[0].role == failure {
		c.role, c.kind, c.call = attempted, all[0].kind, all[0].call
		c.take(all[0])
		c.refine(text)
	}
}

// byWords guesses from what people call things.
func (c *clue) byWords(text string, errno bool) {
	text = otherFile.Compiled().ReplaceAllString(text, " ")
	all := exact(readings(phrasesOf, text, true))
	switch {
	case len(all) > 0:
		c.role, c.kind = failure, likelyKind(all, text)
		for _, r := range all {
			c.take(r)
		}
		c.refine(text)
	case len(c.log) > 0:
		c.role, c.kind = failure, load.ProgLoad
	case errno && (bpfWords.MatchString(text) || bare524.MatchString(text)) && (c.errno.Words || failureWord.MatchString(text) || endsInErrno.MatchString(text)):
		c.role, c.kind, c.weak = failure, load.ProgLoad, true
	}
	if c.role == failure && !errno && len(c.log) == 0 && !bpfWords.MatchString(text) {
		*c = clue{}
	}
}

// otherFile is a file that is no program, whatever it is called.
var otherFile = lazyregexp.New(`[^\s'"=(]*[\w-]\.(?:conf|cfg|ini|ya?ml|toml|json|csv|log|sock|pid|so(?:\.[\w.+-]+)?|plugin|service)\b`)

// exact leaves words out that are part of others: tracepoint beside raw tracepoint.
func exact(all []reading) []reading {
	parts := map[place]place{rawTracepoint: tracepoint, kprobeMulti: kprobe, uprobeMulti: uprobe, tcx: tc}
	for _, r := range slices.Clone(all) {
		if part, ok := parts[r.place]; ok {
			all = slices.DeleteFunc(all, func(o reading) bool { return o.place == part })
		}
	}
	return all
}

// likelyKind is what was attempted by all that the words say: loading and pinning where they are
// named, or else attaching to the place that is named.
func likelyKind(all []reading, text string) load.Kind {
	first := all[0].kind
	if first == load.ObjPin || first == load.ProgLoad && loadWord.MatchString(text) {
		return first
	}
	kind := first
	for _, r := range slices.Backward(all) {
		if r.kind.Attaches() && (attachWord.MatchString(text) || !first.Attaches()) {
			if kind = r.kind; r.place != nowhere {
				break
			}
		}
	}
	return kind
}

var (
	attachWord = lazyregexp.New(`(?i)\battach`)
	probeWord  = lazyregexp.New(`(?i)probe|usdt`)
	loadWord   = lazyregexp.New(`(?i)\bload`)
)

// take fills in what is not known yet.
func (c *clue) take(r reading) {
	g := r.groups
	fill := func(to *string, value string) {
		if *to == "" {
			*to = strings.Trim(value, `'"`+"`")
		}
	}
	fill(&c.program, g["prog"])
	fill(&c.mapName, g["map"])
	fill(&c.said, g["said"])
	if p, ok := placeOf(g["word"]); ok && c.place.target == "" {
		c.place = p
	}
	if c.place == nowhere || c.place == traced && r.place.target == "function" {
		c.place = r.place
	}
	fill(&c.target.Name, g["dev"])
	fill(&c.target.Path, g["path"])
	fill(&c.target.Path, g["cgroup"])
	if n, err := strconv.ParseUint(g["ifindex"], 10, 32); err == nil {
		c.target.ID = n
	}
	if t := g["target"]; t != "" {
		c.aim(t)
	}
}

// aim reads where a program was to be attached.
func (c *clue) aim(target string) {
	if target = strings.Trim(target, `'":.`); slices.Contains(noNames, strings.ToLower(target)) {
		return
	}
	if at := strings.LastIndexAny(target, "+:"); at > 0 {
		if n, err := strconv.ParseUint(target[at+1:], 0, 64); err == nil {
			c.target.Offset, target = n, target[:at]
		}
	}
	switch {
	case c.place.target == "uprobe" && (strings.HasPrefix(target, "/") || strings.HasPrefix(target, "./")):
		if file, symbol, ok := strings.Cut(target, ":"); ok {
			c.target.Path, c.target.Name = file, symbol
			return
		}
		c.target.Path = target
	case strings.HasSuffix(c.place.target, "tracepoint"):
		c.target.Name = strings.Replace(target, ":", "/", 1)
	case c.target.Name == "":
		c.target.Name = target
	}
}

var (
	progType = lazyregexp.New(`\bBPF_PROG_TYPE_(\w+)`)
	goType   = lazyregexp.New(`\b(SchedCLS|SchedACT|CGroupSKB|CGroupSockAddr|CGroupSock|CGroupDevice|SockOps|StructOps|SkLookup|SkMsg|SkSKB|FlowDissector)\b`)
	// goTypes are the names that cilium/ebpf prints.
	goTypes = map[string]string{"SchedCLS": "sched_cls", "SchedACT": "sched_act", "CGroupSKB": "cgroup_skb", "CGroupSockAddr": "cgroup_sock_addr", "CGroupSock": "cgroup_sock", "CGroupDevice": "cgroup_device", "SockOps": "sock_ops", "StructOps": "struct_ops", "SkLookup": "sk_lookup", "SkMsg": "sk_msg", "SkSKB": "sk_skb", "FlowDissector": "flow_dissector"}
	mapType = lazyregexp.New(`\bBPF_MAP_TYPE_(\w+)|\bmap type (\w+)|\bmap\[\w+:(RingBuf|StackTrace|LPMTrie|LRUHash|PerCPUHash|PerCPUArray)\(keySize=`)
	// mapTypes are the names that cilium/ebpf prints.
	mapTypes   = map[string]string{"StackTrace": "stack_trace", "LPMTrie": "lpm_trie", "LRUHash": "lru_hash", "PerCPUHash": "percpu_hash", "PerCPUArray": "percpu_array"}
	attachType = lazyregexp.New(`\b(?:attach_type|attach type)[=: ]+(?:BPF_)?([A-Z]\w+|\d{1,2}\b)`)
	// genericMode says that a program was attached in this mode, and not that it could be.
	genericMode = lazyregexp.New(`(?i)\b(?:with|in|using) (?:the )?(?:SKB|generic|xdpgeneric)\b|\bip link set .*xdpgeneric|-m skb\b|--mode[ =]skb\b`)
	proposal    = lazyregexp.New(`(?i)\b(?:try|consider|use)\b`)
	progName    = lazyregexp.New(`\bprog_name="([^"]*)"`)
	mapNamed    = lazyregexp.New(`\bmap_name="([^"]*)"`)
	targetDev   = lazyregexp.New(`(?i)\b(?:interface|iface|device|dev|netdev)[ =:]+['"]?([a-zA-Z][\w.@-]{0,15})['"]?|\bifindex[ =:]*(\d+)`)
	targetPath  = lazyregexp.New(`(/sys/fs/cgroup[^\s:'"]*|/system\.slice\S*)`)
	targetFunc  = lazyregexp.New(`(?i)\b(?:k(?:ret)?probe|fentry|fexit|fmod_ret|kr?fun?c?t?|lsm)[:/ ]+['"` + "`" + `]?([a-zA-Z_][\w.]{2,})['"` + "`" + `]?|\b(?:symbol|function|func|token)[ =:]+['"` + "`" + `]?([a-zA-Z_][\w.]{2,})['"` + "`" + `]?`)
	targetTP    = lazyregexp.New(`(?i)\btracepoint[:/ ]+['"]?([a-z]\w*[:/]\w+)|\b(?:raw_tp|tp|raw_tracepoint|tp_btf)/(\w+(?:/\w+)?)`)
	targetFile  = lazyregexp.New(`['"` + "`" + `: =](/[\w./+@-]+)(?:['"` + "`" + `:, ]|$)`)
	noNames     = []string{"perf", "event", "events", "program", "programs", "failed", "error", "for", "the", "probe", "not", "multi", "link", "links", "with", "attach", "from", "and", "pmu", "could", "bpf", "could", "does", "may", "func", "is", "was", "cannot", "has", "type", "unable", "invalid", "permission", "operation", "hook", "opening", "setting", "creating", "create", "perf_event_open", "perf_event", "binary", "entry", "entries", "to", "on", "in", "of", "a", "an", "are", "or", "but", "it", "this", "file", "module", "kernel", "attachment", "attaching", "hooks", "this", "that", "using", "via", "because", "returned", "returns", "requires", "needs", "function", "functions", "tcx_ingress", "tcx_egress", "xdp", "xdpdrv", "xdpgeneric", "xdpoffload"}
	// A definition in kprobe_events or uprobe_events: what it is called, and where.
	definition = lazyregexp.New(`["'][pr]\d*:[\w/.-]+ ([^\s"']+)`)
	chainProg  = lazyregexp.New(`\bprogram ['"]?([\w.-]+)['"]?: `)
	chainMap   = lazyregexp.New(`(?:^|: )map ['"]?([\w.-]+)['"]?: `)
)

// refine reads from a line whose meaning is known where, and for which type of program.
func (c *clue) refine(text string) {
	c.programType = cmp.Or(strings.ToLower(nameIn(progType, text)), goTypes[nameIn(goType, text)], c.programType)
	named := nameIn(mapType, text)
	c.mapType = strings.ToLower(cmp.Or(mapTypes[named], named))
	c.program = cmp.Or(c.program, nameIn(progName, text), nameIn(chainProg, text))
	c.mapName = cmp.Or(c.mapName, nameIn(mapNamed, text), nameIn(chainMap, text))
	if !c.kind.Attaches() && c.kind != load.OtherCommand && c.role != aftermath {
		return
	}
	c.locate(text)
	if d := nameIn(definition, text); d != "" {
		c.aim(d)
	}
	c.nameTarget(text)
}

// nameIn is the first name that an expression finds in a text, words that are no names left out.
func nameIn(r *lazyregexp.Regexp, text string) string {
	for _, m := range r.Compiled().FindAllStringSubmatch(text, 4) {
		for _, g := range m[1:] {
			if g != "" && !slices.Contains(noNames, strings.ToLower(g)) {
				return g
			}
		}
	}
	return ""
}

// locate reads what kind of place the program was to be attached to.
func (c *clue) locate(text string) {
	if c.place.target == "" || c.place == traced {
		for _, r := range readings(phrasesOf, text, true) {
			if r.place.target != "" && r.place != perfEvent && (c.place != traced || r.place.target == "function" && r.place.program != "kprobe") {
				c.place = r.place
				break
			}
		}
	}
	if (c.place.target == "" || c.place == cgroup) && strings.Contains(text, "BPF_CGROUP_DEVICE") {
		c.place = cgroupDevice
	}
	if t := nameIn(attachType, text); t != "" {
		c.setAttachType(t)
	}
	if genericMode.MatchString(text) && !proposal.MatchString(text) {
		c.flags = abi.XDPFlagSKBMode
	}
}

func (c *clue) setAttachType(t string) {
	if n, err := strconv.ParseUint(t, 10, 8); err == nil {
		t = abi.AttachTypeName(uint32(n))
	}
	c.place.attachType = strings.ToLower(t)
	if strings.HasPrefix(c.place.attachType, "cgroup") && c.place.target == "" {
		c.place.target = "cgroup"
	}
}

// nameTarget reads which one of the places it was.
func (c *clue) nameTarget(text string) {
	switch c.place.target {
	case "netdev":
		d := nameIn(targetDev, text)
		if d == "" || c.target.Name != "" || c.target.ID != 0 {
			return
		}
		if n, err := strconv.ParseUint(d, 10, 32); err == nil {
			c.target.ID = n
		} else {
			c.target.Name = d
		}
	case "cgroup":
		c.target.Path = cmp.Or(c.target.Path, nameIn(targetPath, text))
	case "function":
		c.target.Name = cmp.Or(c.target.Name, nameIn(targetFunc, text))
	case "tracepoint", "raw_tracepoint":
		c.target.Name = cmp.Or(c.target.Name, strings.Replace(nameIn(targetTP, text), ":", "/", 1))
	case "uprobe":
		if p := nameIn(targetFile, text); c.target.Path == "" && p != "" && !strings.HasPrefix(p, "/sys/") && path.Clean(p) != "/" {
			c.target.Path = p
		}
	}
}

// family puts kinds together that one failure may be told with.
func family(k load.Kind) string {
	if k.Attaches() {
		return "attach"
	}
	return string(k)
}
