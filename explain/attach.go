// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"math/bits"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/load"
)

// place is a set of kinds of things that programs are attached to. What an errno means depends on
// it. An attempt of which little is known has several.
type place uint32

const (
	atTracepoint  place = 1 << iota // by a perf event
	atKprobe                        // by a perf event or a definition in tracefs
	atUprobe                        // likewise
	atSample                        // any other perf event
	atKprobeMulti                   // by a link, as the rest of the tracing kinds
	atUprobeMulti
	atTrampoline // fentry, fexit, fmod_ret, LSM, freplace
	atRawTP      // raw_tp, tp_btf
	atIter
	atCgroup
	atXDP
	atTC  // a filter of tc, by netlink
	atTCX // and netkit
	atNetns
	atNetfilter
	atSockmap
	atSocket
	atLIRC
	atStructOps
	atMap // no program: an element of a map
	atPin // no program either: a path

	anywhere   = atPin<<1 - 1
	byEvent    = atTracepoint | atKprobe | atUprobe | atSample
	byLink     = anywhere &^ (atTC | atSocket | atLIRC | atMap | atPin)
	byAttach   = atCgroup | atTCX | atNetns | atSockmap | atLIRC
	updateable = atCgroup | atXDP | atTCX | atNetns | atNetfilter | atSockmap | atStructOps
)

// placeNames are as 'bpfwhy explain ERRNO' prints them, in the order of the bits.
var placeNames = [...]string{
	"tracepoint", "kprobe", "uprobe", "perf event", "kprobe.multi", "uprobe.multi", "fentry, fexit, LSM, freplace", "raw tracepoint",
	"iterator", "cgroup", "XDP", "tc", "tcx, netkit", "netns", "netfilter", "sockmap", "socket", "lirc", "struct_ops", "map", "pin",
}

func (p place) String() string {
	var names []string
	for i, name := range placeNames {
		if p>>i&1 == 1 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// callPlaces are the places that a call attaches to. A kind that is not among them attaches
// nothing.
var callPlaces = map[load.Kind]place{
	load.PerfEventOpen: byEvent, load.PerfEventSetBPF: byEvent, load.ProbeDefine: atKprobe | atUprobe,
	load.LinkCreate: byLink, load.LinkUpdate: updateable, load.ProgAttach: byAttach, load.RawTPOpen: atRawTP | atTrampoline,
	load.XDPAttach: atXDP, load.TCAttach: atTC, load.SocketAttach: atSocket,
	load.MapUpdate: atMap | atSockmap | atStructOps, load.ObjPin: atPin,
}

// targetPlaces are the places of load.AttachTarget.Kind.
var targetPlaces = map[string]place{
	"cgroup": atCgroup, "netdev": atXDP | atTC | atTCX, "netns": atNetns, "function": atKprobe | atKprobeMulti | atTrampoline,
	"tracepoint": atTracepoint | atRawTP, "raw_tracepoint": atRawTP, "uprobe": atUprobe | atUprobeMulti, "perf_event": byEvent,
	"socket": atSocket, "map": atMap | atSockmap | atStructOps, "program": atTrampoline | atXDP,
	"link": updateable, "pin": atPin, "iterator": atIter, "netfilter": atNetfilter, "file": atLIRC,
}

// programPlaces are the places that programs of a type go to.
var programPlaces = map[string]place{
	"kprobe": atKprobe | atUprobe | atKprobeMulti | atUprobeMulti, "tracepoint": atTracepoint, "perf_event": atSample,
	"raw_tracepoint": atRawTP, "raw_tracepoint_writable": atRawTP, "tracing": atTrampoline | atRawTP | atIter,
	"lsm": atTrampoline | atCgroup, "ext": atTrampoline, "xdp": atXDP, "sched_cls": atTC | atTCX, "sched_act": atTC,
	"socket_filter": atSocket, "sk_reuseport": atSocket, "sk_skb": atSockmap, "sk_msg": atSockmap, "sk_lookup": atNetns,
	"flow_dissector": atNetns, "netfilter": atNetfilter, "lirc_mode2": atLIRC, "struct_ops": atStructOps,
	"cgroup_skb": atCgroup, "cgroup_sock": atCgroup, "cgroup_sock_addr": atCgroup, "cgroup_sockopt": atCgroup,
	"cgroup_sysctl": atCgroup, "cgroup_device": atCgroup, "sock_ops": atCgroup,
}

// afterLoad reports a failed call of those that come after a load. An attempt without a kind that
// names something to attach is one of them: pasted text may say no more.
func (f *Facts) afterLoad() bool {
	if !f.failed() {
		return false
	}
	_, known := callPlaces[f.kind()]
	return known || f.kind() == "" && f.Attempt.Attach != nil
}

func (f *Facts) attach() load.Attach {
	if a := f.Attempt.Attach; a != nil {
		return *a
	}
	return load.Attach{}
}

func (f *Facts) attached() load.AttachProgram {
	if p := f.attach().Program; p != nil {
		return *p
	}
	return load.AttachProgram{}
}

func (f *Facts) target() load.AttachTarget {
	if t := f.attach().Target; t != nil {
		return *t
	}
	return load.AttachTarget{}
}

// places is the set of places that the attempt may be about. What the call and its target are
// counts for more than what the program is: a program may be at the wrong place.
func (f *Facts) places() place {
	all := place(anywhere)
	if f.kind() != "" {
		all = callPlaces[f.kind()]
	}
	target := targetPlaces[f.target().Kind]
	switch {
	case all&target != 0:
		all &= target
	case target != 0 && f.vague():
		all = target
	}
	for _, more := range []place{attachTypes[f.attach().Type].at, f.programPlace(), f.mapPlace()} {
		if all&more != 0 {
			all &= more
		}
	}
	return all
}

// mapPlace is what updating an element of this map attaches to. Few maps attach anything.
func (f *Facts) mapPlace() place {
	if f.kind() != load.MapUpdate {
		return 0
	}
	switch f.mapType() {
	case "struct_ops":
		return atStructOps
	case "sockmap", "sockhash":
		return atSockmap
	case "":
		return atMap | atSockmap // struct_ops are few
	}
	return atMap
}

// mapType is that of the map of an update, "" where it is not known.
func (f *Facts) mapType() string {
	if m := f.Attempt.Map; m != nil && m.Type != "unspec" { // what is not known reads as 0
		return m.Type
	}
	return ""
}

func (f *Facts) programPlace() place {
	p := f.attached()
	if at := attachTypes[p.AttachType]; slices.Contains([]string{"tracing", "lsm", "kprobe"}, p.Type) && at.takes(p.Type) {
		return at.at
	}
	return programPlaces[p.Type]
}

// reason is one row of the table of what an errno means after a load. From it come the rules'
// matches, the meanings that 'bpfwhy explain ERRNO' prints, and those that an UNKNOWN names.
type reason struct {
	rule  string      // "" where no rule tells more
	call  []load.Kind // nil: every call that attaches there
	at    place
	errno []int
	// text says what it means, in a sentence that is also the cause of an attempt. tell says what
	// would tell it from the other meanings.
	text, tell string
	// words, of the kernel or of a loader, leave no doubt, whatever the errno.
	words *lazyregexp.Regexp
	// rare causes are possible and no more, unless look finds something.
	rare bool
	// look finds what speaks for the cause, or against it, which is 0. It may fill in the match.
	look func(*Facts, *Match) Strength
}

// reasons are all rows. The order is that of the documents.
func reasons() []reason { return allReasons }

var allReasons = slices.Concat(
	generalReasons, tracingReasons, uprobeReasons, trampolineReasons, cgroupReasons, netReasons, socketReasons, mapReasons,
)

// callNames are the calls as errno tables name them.
var callNames = map[load.Kind]string{
	load.PerfEventOpen: "perf_event_open(2)", load.PerfEventSetBPF: "PERF_EVENT_IOC_SET_BPF", load.ProbeDefine: "tracefs",
	load.LinkCreate: "BPF_LINK_CREATE", load.LinkUpdate: "BPF_LINK_UPDATE", load.ProgAttach: "BPF_PROG_ATTACH",
	load.RawTPOpen: "BPF_RAW_TRACEPOINT_OPEN", load.MapUpdate: "BPF_MAP_UPDATE_ELEM", load.ObjPin: "BPF_OBJ_PIN",
}

// manyPlaces is how many places are not listed one by one.
const manyPlaces = 6

// command says where the errno comes from, for the meanings of an errno.
func (r reason) command() string {
	call := "attach"
	if len(r.call) == 1 {
		call = callNames[r.call[0]]
	}
	if r.broad() || r.at == atMap || r.at == atPin {
		return call
	}
	return call + ": " + r.at.String()
}

// broad reports a row that says little about any place.
func (r reason) broad() bool { return bits.OnesCount32(uint32(r.at)) >= manyPlaces }

// aftermath is what the table says of one attempt.
type aftermath struct {
	found map[string]*Match // by rule
	other []string          // meanings without a rule
}

// weighed is a row that fits an attempt.
type weighed struct {
	reason
	match  *Match
	called bool // the call is known to be one of the row's
}

// maxMessage bounds the kernel's or the loader's words that are looked at.
const maxMessage = 1024

func (f *Facts) said() string {
	m := f.attach().Message
	return m[:min(len(m), maxMessage)]
}

func (f *Facts) aftermath() *aftermath {
	if f.after != nil {
		return f.after
	}
	f.after = &aftermath{found: map[string]*Match{}}
	if !f.afterLoad() {
		return f.after
	}
	var rows []weighed
	causes, fitting := map[string]bool{}, place(0)
	for _, r := range reasons() {
		if w, ok := f.weigh(r); ok {
			rows = append(rows, w)
			causes[cmp.Or(w.rule, w.text)] = true
			fitting |= w.at & f.places()
		}
	}
	if f.errno() == 0 && len(causes) > maxOpen {
		rows, causes = common(rows)
	}
	for _, w := range rows {
		if !f.judge(w, fitting, len(causes)) {
			continue
		}
		if w.rule == "" {
			f.after.other = append(f.after.other, w.text)
		} else if was := f.after.found[w.rule]; was == nil || was.Strength < w.match.Strength {
			f.after.found[w.rule] = w.match
		}
	}
	return f.after
}

// common are the rows of which one is the cause as a rule, where a text has no errno.
func common(all []weighed) (rows []weighed, causes map[string]bool) {
	causes = map[string]bool{}
	for _, w := range all {
		if w.match.Strength == Certain || !w.reason.rare && w.rule != "" {
			rows = append(rows, w)
			causes[w.rule] = true
		}
	}
	return rows, causes
}

// judge lowers what a row found by what is not known: the errno, the call, the place. fitting are
// the places of all rows that fit, causes is their number.
func (f *Facts) judge(w weighed, fitting place, causes int) bool {
	m := w.match
	switch known := fitting&^w.at == 0; {
	case m.Strength == Certain:
	case f.errno() == 0:
		m.Strength = Possible
		return causes <= maxOpen
	case w.called && known:
	case causes == 1 && !(f.vague() && f.target().Kind == ""):
		m.Strength = min(m.Strength, Likely)
	default: // which place it was, or which call, would have to be known
		m.Strength = Possible
	}
	return true
}

// weigh asks one row.
func (f *Facts) weigh(r reason) (weighed, bool) {
	if f.places()&r.at == 0 {
		return weighed{}, false
	}
	decided := r.words != nil && r.words.MatchString(f.said())
	called := f.kind() != "" && (r.call == nil || slices.Contains(r.call, f.kind()))
	if !decided && !(f.hasErrno(r.errno) && (called || f.mayBe(r.call)) && (f.errno() != 0 || !r.broad())) {
		return weighed{}, false
	}
	m := &Match{Strength: Likely, How: load.Inferred, Cause: r.text, Why: strings.TrimSpace(r.text + " " + r.tell)}
	if r.rare {
		m.Strength = Possible
	}
	f.quote(m)
	if r.look != nil {
		m.Strength = r.look(f, m)
	}
	if decided {
		f.decideBy(r, m)
	} else {
		f.askLog(r, m)
	}
	return weighed{r, m, called}, m.Strength > 0
}

// decideBy makes a match certain by the words of its row, and tells those that are the kernel's.
func (f *Facts) decideBy(r reason, m *Match) {
	m.Strength, m.How = Certain, f.heard()
	if f.text != nil && r.words.MatchString(f.text.kernel) {
		m.Cause += " The kernel says: " + printable(f.text.kernel, 200)
	}
}

// quote adds what the kernel said. Of a text the lines themselves are the evidence.
func (f *Facts) quote(m *Match) {
	if f.text == nil && f.said() != "" {
		m.Evidence = append(m.Evidence, "the kernel said: "+printable(strings.TrimSpace(f.said()), 300))
	}
}

// askLog takes a line of the kernel's log that has a row's words for a strong sign. It was written
// during the attempt, but may be about another.
func (f *Facts) askLog(r reason, m *Match) {
	i := slices.IndexFunc(f.Attempt.KernelLog, func(l string) bool { return r.words != nil && r.words.MatchString(l) })
	if i >= 0 && m.Strength > 0 {
		m.Strength = max(m.Strength, Strong)
		m.Evidence = append(m.Evidence, "the kernel's log of that moment: "+printable(f.Attempt.KernelLog[i], 300))
	}
}

// heard is how the kernel's words are known.
func (f *Facts) heard() load.HowKnown {
	if f.text != nil {
		return load.Inferred
	}
	return load.Observed
}

// vague reports a call that is known as attaching and no more.
func (f *Facts) vague() bool {
	return f.kind() == "" || f.text != nil && (f.kind() == load.LinkCreate || f.kind() == load.ProgAttach)
}

// mayBe reports calls that such an attempt may have been.
func (f *Facts) mayBe(calls []load.Kind) bool {
	attaches := func(k load.Kind) bool { return k != load.LinkUpdate && k != load.MapUpdate && k != load.ObjPin }
	return f.vague() && (f.kind() == "" || calls == nil || slices.ContainsFunc(calls, attaches))
}

// hasErrno also takes EOPNOTSUPP of pasted text for ENOTSUPP: Go programs print the same words for
// both. A text without an errno may be about any.
func (f *Facts) hasErrno(list []int) bool {
	switch {
	case f.text == nil:
	case f.errno() == 0:
		return true
	case f.errno() == abi.EOPNOTSUPP && slices.Contains(list, abi.ENOTSUPP):
		return true
	}
	return slices.Contains(list, f.errno())
}

// maxOpen is how many causes are named where a text has no errno. More would say nothing.
const maxOpen = 8

// byReason is the Match of a rule whose signs are in the table.
func byReason(id string) func(*Facts) *Match {
	return func(f *Facts) *Match {
		m := f.aftermath().found[id]
		if m == nil {
			return nil
		}
		own := *m // what compares matches changes them
		return &own
	}
}

// uselessRemedies are those of a rule about capabilities that would not help this loader: in a user
// namespace a capability of the file or the unit counts for nothing, and elsewhere there is no need
// for a token.
func (f *Facts) uselessRemedies(granting ...string) []string {
	if f.ev.UserNSLevel > 0 {
		return granting
	}
	return []string{delegateToken.ID}
}

var delegateToken = load.Remedy{
	ID:    "delegate-token",
	Title: "Delegate a BPF token to the user namespace (6.9), or run the loader in the initial user namespace: in another one, the capabilities of its file or unit do not count",
	Price: "Root in the container may then do what was delegated on the host's kernel. Only a process with CAP_SYS_ADMIN on the host can make the mount.",
}
