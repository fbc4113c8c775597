// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/output/text"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

// Facts is an attempt, the node it happened on, and what follows from the two
// together. Rules read it and never change it. It is not safe for use by several
// goroutines.
type Facts struct {
	Attempt *load.Attempt
	Node    *node.Profile // never nil

	ev     *load.Evidence
	kernel node.KernelVersion // to be named; what it does is in Node
	// kernelKnown is false when the profile has no release that can be parsed.
	kernelKnown bool
	words       words
	staleLog    string           // why the loader's log is not used, "" where it is
	blinding    *blindingVerdict // nil until it is asked for
	after       *aftermath       // likewise
	// text is set when all of this was read from pasted text.
	text *pasted
	call string // what the text says was called, where it is no kind of attempts
}

func newFacts(a *load.Attempt, n *node.Profile) *Facts {
	if n == nil {
		n = &node.Profile{}
	}
	f := &Facts{Attempt: a, Node: n, ev: &a.Evidence}
	f.kernel, f.kernelKnown = n.Kernel()
	f.words = attemptWords(a)
	f.staleLog = a.Evidence.LogStale
	if f.isLoad() && f.words.said() && !f.words.kernel && f.notReached(load.Verifier) {
		f.words = noWords()
		f.staleLog = "the verifier was watched and was not called: the text in the loader's log buffer is not of this call"
	}
	return f
}

// wordless is the same attempt without the verifier's words.
func (f *Facts) wordless() *Facts {
	g := *f
	g.words, g.blinding = noWords(), nil
	return &g
}

func (f *Facts) kind() load.Kind { return f.Attempt.Kind }

func (f *Facts) errno() int { return f.Attempt.Errno }

func (f *Facts) failed() bool { return f.Attempt.Outcome == load.Failed }

func (f *Facts) unjited() bool { return f.Attempt.Outcome == load.LoadedNotJITed }

// isLoad reports a failed load of an eBPF program.
func (f *Facts) isLoad() bool { return f.kind() == load.ProgLoad && f.failed() }

func (f *Facts) isClassic() bool {
	return f.kind() == load.Seccomp || f.kind() == load.SocketFilter
}

// does and doesNot are both false where it is not known what the kernel does.
func (f *Facts) does(b node.Behaviour) bool    { return f.Node.Does(b) == node.Yes }
func (f *Facts) doesNot(b node.Behaviour) bool { return f.Node.Does(b) == node.No }

// before and since compare the kernel with a release out of a table, such as that of the helpers.
// Both are false where the kernel is not known.
func (f *Facts) before(v insn.Version) bool {
	return f.kernelKnown && !f.kernel.Reached(v.Major, v.Minor)
}

func (f *Facts) since(v insn.Version) bool {
	return f.kernelKnown && f.kernel.Reached(v.Major, v.Minor)
}

// release is a mainline release in a table.
func release(major, minor int) insn.Version { return insn.Version{Major: major, Minor: minor} }

// cause returns the last failing execution of fn that made its parent fail.
func (f *Facts) cause(fn load.Function) *load.Span {
	for i := len(f.ev.Spans) - 1; i >= 0; i-- {
		if s := &f.ev.Spans[i]; s.Function == fn && s.Cause {
			return s
		}
	}
	return nil
}

// failing returns the last failing execution of fn, be it the cause or not.
func (f *Facts) failing(fn load.Function) *load.Span {
	for i := len(f.ev.Spans) - 1; i >= 0; i-- {
		if s := &f.ev.Spans[i]; s.Function == fn {
			return s
		}
	}
	return nil
}

// observed reports whether the hooks in place could see a stage.
func (f *Facts) observed(s load.Stage) bool { return f.ev.Observed[s] }

func (f *Facts) stageOK(s load.Stage) bool {
	r, ok := f.Attempt.Stage(s)
	return ok && r.Result == load.OK
}

// notReached reports that a stage was watched and did not begin.
func (f *Facts) notReached(s load.Stage) bool {
	if !f.observed(s) || f.Attempt.Incomplete {
		return false
	}
	// The buffer of a log is the loader's: what is in it proves no call of the verifier.
	if s == load.Verifier && (f.words.kernel && f.words.said() || f.failing(load.FnCheck) != nil || f.failing(load.FnDoCheck) != nil) {
		return false
	}
	_, listed := f.Attempt.Stage(s)
	return !listed
}

// verifierOK reports that the verifier accepted the program, seen by a hook or
// by what came after it.
func (f *Facts) verifierOK() bool {
	if f.unjited() {
		return true
	}
	// Without a hook the stage was read off the log, where a complaint counts
	// for more than the statistics behind it.
	return f.stageOK(load.Verifier) && (f.observed(load.Verifier) || f.words.empty())
}

// verifierAccepted adds the log's testimony: statistics and no complaint.
func (f *Facts) verifierAccepted() bool {
	return f.verifierOK() || f.words.clean()
}

// notObserved lists the stages that nobody watched; the one that a diagnosis
// saw failing is not among them.
func (f *Facts) notObserved(seen load.Stage) []load.Stage {
	var stages []load.Stage
	for _, r := range f.Attempt.Stages {
		if r.Result == load.NotObserved && r.Stage != seen {
			stages = append(stages, r.Stage)
		}
	}
	return stages
}

// unlimited is RLIM_INFINITY.
const unlimited = ^uint64(0)

func (f *Facts) hasBit(c int) bool { return f.ev.Caps>>uint(c)&1 == 1 }

// hasCap reports whether the loader holds a capability where bpf(2) looks for
// it: in the initial user namespace, and with CAP_SYS_ADMIN in place of the
// finer ones. known is false when its credentials were not read.
func (f *Facts) hasCap(c int) (has, known bool) {
	if !f.ev.CapsKnown {
		return false, false
	}
	if f.ev.UserNSLevel > 0 {
		return false, true
	}
	if f.hasBit(abi.CapSysAdmin) {
		return true, true
	}
	if f.doesNot(node.SplitsCapabilities) && (c == abi.CapBPF || c == abi.CapPerfmon) {
		return false, true
	}
	return f.hasBit(c), true
}

// missing reports that the loader is known not to hold a capability.
func (f *Facts) missing(c int) bool {
	has, known := f.hasCap(c)
	return known && !has
}

// holds reports that the loader is known to hold a capability.
func (f *Facts) holds(c int) bool {
	has, known := f.hasCap(c)
	return known && has
}

func (f *Facts) capsText() string {
	if !f.ev.CapsKnown {
		return ""
	}
	var names []string
	for _, c := range []int{abi.CapBPF, abi.CapPerfmon, abi.CapNetAdmin, abi.CapSysAdmin} {
		if f.hasBit(c) {
			names = append(names, abi.CapName(c))
		}
	}
	s := fmt.Sprintf("the loader's effective capabilities were %#x", f.ev.Caps)
	switch {
	case f.ev.Caps == 0:
		s = "the loader had no effective capability"
	case len(names) == 0:
		s += fmt.Sprintf(" (%d of them, none of CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_SYS_ADMIN)", bits.OnesCount64(f.ev.Caps))
	default:
		s += fmt.Sprintf(" (with %s)", strings.Join(names, ", "))
	}
	if f.ev.UserNSLevel > 0 {
		s += fmt.Sprintf("; it ran in a user namespace (level %d), where they do not count for bpf(2)", f.ev.UserNSLevel)
	}
	return s
}

// sysctl returns a value as it was near the attempt, or else when the node was
// looked at.
func (f *Facts) sysctl(name string) (int64, bool) {
	if v, ok := f.ev.Sysctls[name]; ok {
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		return n, err == nil
	}
	return f.Node.Sysctl(name)
}

// harden returns net.core.bpf_jit_harden as it was near the attempt.
func (f *Facts) harden() (int, bool) {
	if f.ev.Harden >= 0 {
		return f.ev.Harden, true
	}
	if v, ok := f.sysctl("net.core.bpf_jit_harden"); ok {
		return int(v), true
	}
	return 0, false
}

// spared says whether net.core.bpf_jit_harden=1 spares this loader.
func (f *Facts) spared() node.Answer {
	if !f.ev.CapsKnown {
		return node.Unknown
	}
	return f.Node.Spares(f.holds(abi.CapSysAdmin), f.ev.UserNSLevel <= 0 && f.hasBit(abi.CapBPF))
}

// blindingOn says whether constants of this load are blinded; known is false
// when the sysctl, or at 1 the loader's capabilities, could not be read.
func (f *Facts) blindingOn() (on, known bool) {
	// The kernel clears its request when it falls back to the interpreter.
	if asked := f.ev.BlindingAsked; asked != nil && (*asked || !f.unjited()) {
		return *asked, true
	}
	h, ok := f.harden()
	switch {
	case !ok:
		return false, false
	case h <= 0:
		return false, true
	case h >= 2:
		return true, true
	}
	spared := f.spared()
	return spared == node.No, spared != node.Unknown
}

// progAttr and mapAttr are what was asked for, by BPF_PROG_LOAD and
// BPF_MAP_CREATE.
func (f *Facts) progAttr() abi.ProgLoad { return abi.Read[abi.ProgLoad](f.ev.Attr) }

func (f *Facts) mapAttr() abi.MapCreate { return abi.Read[abi.MapCreate](f.ev.Attr) }

// Lengths of attributes that hold a field whole: where the next one begins.
const (
	withInsnCnt  = int(unsafe.Offsetof(abi.ProgLoad{}.Insns))
	withLogBuf   = int(unsafe.Offsetof(abi.ProgLoad{}.KernVersion))
	withMapFlags = int(unsafe.Offsetof(abi.MapCreate{}.InnerMapFD))
)

// insnCount is what the loader said in insn_cnt.
func (f *Facts) insnCount() int {
	if len(f.ev.Attr) >= withInsnCnt {
		return int(f.progAttr().InsnCnt)
	}
	if f.Attempt.Program != nil {
		return f.Attempt.Program.Insns
	}
	return 0
}

func (f *Facts) progType() (string, bool) {
	if f.Attempt.Program == nil || f.Attempt.Program.Type == "" {
		return "", false
	}
	return f.Attempt.Program.Type, true
}

// wholeProgram reports that all submitted instructions are at hand.
func (f *Facts) wholeProgram() bool {
	return len(f.ev.Insns) > 0 && (f.ev.InsnsState == load.InsnsVerified || f.ev.InsnsState == load.InsnsUnverified)
}

// hasCalls reports bpf-to-bpf calls in the submitted program.
func (f *Facts) hasCalls() bool {
	for _, in := range f.ev.Insns {
		if in.IsFuncCall() || in.IsFuncLoad() {
			return true
		}
	}
	return f.failing(load.FnJITSubprogs) != nil
}

func (f *Facts) hasKfuncCalls() bool {
	for _, in := range f.ev.Insns {
		if in.IsKfuncCall() {
			return true
		}
	}
	return false
}

// at prints an instruction of the submitted program, with its source line when
// the program carries one.
func (f *Facts) at(i int) string {
	if i < 0 {
		return ""
	}
	s := fmt.Sprintf("instruction %d", i)
	if i < len(f.ev.Insns) {
		s += fmt.Sprintf(" (%s)", insn.Disassemble(f.ev.Insns, i))
	}
	if l, ok := f.ev.Source(i); ok {
		s += fmt.Sprintf(", %s:%d", printable(l.File, 120), l.Line)
		if t := strings.TrimSpace(l.Text); t != "" {
			s += fmt.Sprintf(" %q", printable(t, 120))
		}
	}
	return s
}

// result says what the call gave back.
func (f *Facts) result() string {
	if f.text != nil {
		if f.errno() == 0 {
			return "the text names no errno"
		}
		return fmt.Sprintf("the text names %s (%d)", errnoName(f.errno()), f.errno())
	}
	if f.unjited() {
		return "the program was loaded but not compiled: it runs in the interpreter"
	}
	return fmt.Sprintf("%s returned -%d (%s)", callName(f.kind()), f.errno(), errnoName(f.errno()))
}

func callName(k load.Kind) string { return cmp.Or(calls[k], "bpf(2)") }

var calls = map[load.Kind]string{
	load.ProgLoad:        "bpf(BPF_PROG_LOAD)",
	load.MapCreate:       "bpf(BPF_MAP_CREATE)",
	load.BTFLoad:         "bpf(BPF_BTF_LOAD)",
	load.LinkCreate:      "bpf(BPF_LINK_CREATE)",
	load.LinkUpdate:      "bpf(BPF_LINK_UPDATE)",
	load.ProgAttach:      "bpf(BPF_PROG_ATTACH)",
	load.RawTPOpen:       "bpf(BPF_RAW_TRACEPOINT_OPEN)",
	load.TokenCreate:     "bpf(BPF_TOKEN_CREATE)",
	load.ObjPin:          "bpf(BPF_OBJ_PIN)",
	load.MapUpdate:       "bpf(BPF_MAP_UPDATE_ELEM)",
	load.PerfEventOpen:   "perf_event_open(2)",
	load.PerfEventSetBPF: "ioctl(PERF_EVENT_IOC_SET_BPF)",
	load.XDPAttach:       "attaching XDP by netlink",
	load.TCAttach:        "attaching to tc by netlink",
	load.SocketAttach:    "setsockopt(SO_ATTACH_BPF)",
	load.ProbeDefine:     "the write to tracefs",
	load.Seccomp:         "installing the seccomp filter",
	load.SocketFilter:    "attaching the socket filter",
}

// seen are the facts that belong under every diagnosis: how the call ended,
// how far it came, and what nobody watched.
//
//revive:disable-next-line:cyclomatic one line for each fact, where it is known
func (f *Facts) seen(stage load.Stage) []string {
	if f.text != nil {
		return f.text.lines
	}
	out := []string{f.result()}
	if f.staleLog != "" {
		out = append(out, f.staleLog)
	}
	if f.words.unproven {
		out = append(out, "the loader's log buffer held text before the call, and nothing shows that the kernel wrote to it: the log may be of an earlier call")
	}
	if r, ok := f.Attempt.Stage(load.Verifier); ok && r.Result == load.OK && f.kind() == load.ProgLoad && f.observed(load.Verifier) {
		took := ""
		if r.DurationNS > 0 {
			took = " after " + duration(r.DurationNS)
		}
		out = append(out, "bpf_check returned 0"+took+": the verifier accepted the program")
	} else if f.words.clean() && !f.words.unproven {
		out = append(out, fmt.Sprintf("the verifier's log ends with %q and has no complaint: the verifier accepted the program", f.words.stats))
	} else if f.kind() == load.ProgLoad && f.failed() && f.verifierOK() {
		out = append(out, "the verifier accepted the program")
	} else if f.kind() == load.ProgLoad && f.notReached(load.Verifier) {
		out = append(out, "bpf_check was watched and was not called: the load ended before the verifier")
	}
	if f.Attempt.Retries > 0 {
		out = append(out, fmt.Sprintf("the loader repeated the call %d more time%s", f.Attempt.Retries, plural(f.Attempt.Retries)))
	}
	if missing := f.notObserved(stage); len(missing) > 0 {
		names := make([]string, len(missing))
		for i, s := range missing {
			names[i] = string(s)
		}
		out = append(out, "not observed: "+strings.Join(names, ", "))
	}
	if f.Attempt.Incomplete {
		out = append(out, "the record of this attempt is incomplete: "+strings.Join(f.Attempt.IncompleteWhy, "; "))
	}
	return out
}

// fallbackStage guesses the stage of an attempt that no rule explains, where
// no hook saw it.
func (f *Facts) fallbackStage() load.Stage {
	if f.Attempt.FailedStage != "" {
		return f.Attempt.FailedStage
	}
	if f.unjited() {
		return load.JIT
	}
	switch f.errno() {
	case abi.EMFILE, abi.ENFILE:
		return load.Install
	case abi.ENOMEM:
		return load.Resources
	case abi.ENOTSUPP:
		if f.kind() == load.ProgLoad || f.isClassic() {
			return load.JIT
		}
	}
	if f.kind() == load.ProgLoad && !f.words.empty() && !f.words.unproven {
		return load.Verifier
	}
	switch f.errno() {
	case abi.EPERM, abi.EACCES:
		return load.Permission
	}
	if f.kind() != load.ProgLoad && !f.isClassic() {
		return load.Request
	}
	return ""
}

func duration(d time.Duration) string {
	switch {
	case d < time.Microsecond:
		return d.String()
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return strings.Replace(d.Round(time.Millisecond/10).String(), "ms", " ms", 1)
	}
	return strings.Replace(d.Round(time.Millisecond).String(), "s", " s", 1)
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

func countOf(n int, noun string) string {
	words := []string{"no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}
	if n < len(words) {
		return words[n] + " " + noun + plural(n)
	}
	return fmt.Sprintf("%d %s%s", n, noun, plural(n))
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// printable is what may be shown of a string of the traced side: its first bytes, at most max.
func printable(s string, max int) string { return text.Cut(s, max) }
