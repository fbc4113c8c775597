// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/insn"
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
	kernel node.KernelVersion
	// kernelKnown is false when the profile has no release that can be parsed.
	kernelKnown bool
	words       words
	staleLog    string           // why the loader's log is not used, "" where it is
	blinding    *blindingVerdict // nil until it is asked for
	// text is set when all of this was read from pasted text.
	text *pasted
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

// before is false when the kernel is not known.
func (f *Facts) before(major, minor int) bool {
	return f.kernelKnown && f.kernel.Before(major, minor)
}

// since is false when the kernel is not known.
func (f *Facts) since(major, minor int) bool {
	return f.kernelKnown && !f.kernel.Before(major, minor)
}

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

// Capabilities that bpf(2) asks for, by number.
const (
	capNetAdmin  = 12
	capSysAdmin  = 21
	capPerfmon   = 38
	capBPF       = 39
	unknownLimit = ^uint64(0)
)

var capNames = map[int]string{
	1: "CAP_DAC_OVERRIDE", 2: "CAP_DAC_READ_SEARCH", capNetAdmin: "CAP_NET_ADMIN", 13: "CAP_NET_RAW",
	19: "CAP_SYS_PTRACE", capSysAdmin: "CAP_SYS_ADMIN", 24: "CAP_SYS_RESOURCE", capPerfmon: "CAP_PERFMON", capBPF: "CAP_BPF",
}

func capName(c int) string {
	if n, ok := capNames[c]; ok {
		return n
	}
	return fmt.Sprintf("capability %d", c)
}

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
	if f.hasBit(capSysAdmin) {
		return true, true
	}
	if f.before(5, 8) && (c == capBPF || c == capPerfmon) {
		return false, true
	}
	return f.hasBit(c), true
}

// lacks reports that the loader is known not to hold a capability.
func (f *Facts) lacks(c int) bool {
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
	for _, c := range []int{capBPF, capPerfmon, capNetAdmin, capSysAdmin} {
		if f.hasBit(c) {
			names = append(names, capNames[c])
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
	// 5.10 asks for CAP_SYS_ADMIN here, and later kernels for CAP_BPF.
	c := capBPF
	if f.before(5, 11) {
		c = capSysAdmin
	}
	has, known := f.hasCap(c)
	return !has, known
}

// attrU32 reads a field of union bpf_attr. Fields behind the end are zero, as
// they are for the kernel.
func (f *Facts) attrU32(off int) uint32 {
	if off+4 > len(f.ev.Attr) {
		return 0
	}
	return binary.LittleEndian.Uint32(f.ev.Attr[off:])
}

func (f *Facts) attrU64(off int) uint64 {
	if off+8 > len(f.ev.Attr) {
		return 0
	}
	return binary.LittleEndian.Uint64(f.ev.Attr[off:])
}

// Offsets in union bpf_attr for BPF_PROG_LOAD and BPF_MAP_CREATE.
const (
	attrProgType  = 0
	attrInsnCnt   = 4
	attrLogLevel  = 24
	attrLogSize   = 28
	attrLogBuf    = 32
	attrProgFlags = 44
	attrTokenFD   = 144
	attrFDCnt     = 148

	attrMapType   = 0
	attrKeySize   = 4
	attrValueSize = 8
	attrMaxElems  = 12
	attrMapFlags  = 16
	attrMapBTFFD  = 48
)

// insnCount is what the loader said in insn_cnt.
func (f *Facts) insnCount() int {
	if len(f.ev.Attr) >= attrInsnCnt+4 {
		return int(f.attrU32(attrInsnCnt))
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

func callName(k load.Kind) string {
	switch k {
	case load.ProgLoad:
		return "bpf(BPF_PROG_LOAD)"
	case load.MapCreate:
		return "bpf(BPF_MAP_CREATE)"
	case load.BTFLoad:
		return "bpf(BPF_BTF_LOAD)"
	case load.LinkCreate:
		return "bpf(BPF_LINK_CREATE)"
	case load.ProgAttach:
		return "bpf(BPF_PROG_ATTACH)"
	case load.RawTPOpen:
		return "bpf(BPF_RAW_TRACEPOINT_OPEN)"
	case load.TokenCreate:
		return "bpf(BPF_TOKEN_CREATE)"
	case load.Seccomp:
		return "installing the seccomp filter"
	case load.SocketFilter:
		return "attaching the socket filter"
	}
	return "bpf(2)"
}

// seen are the facts that belong under every diagnosis: how the call ended,
// how far it came, and what nobody watched.
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
	case errEMFILE, errENFILE:
		return load.Install
	case errENOMEM:
		return load.Resources
	case errENOTSUPP:
		if f.kind() == load.ProgLoad || f.isClassic() {
			return load.JIT
		}
	}
	if f.kind() == load.ProgLoad && !f.words.empty() && !f.words.unproven {
		return load.Verifier
	}
	switch f.errno() {
	case errEPERM, errEACCES:
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

// printable cuts a string of the traced side to max bytes and shows control
// characters instead of letting them through.
func printable(s string, max int) string {
	cut := false
	if len(s) > max {
		s, cut = s[:max], true
	}
	s = strings.ToValidUTF8(s, "?")
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\t':
			b.WriteByte(' ')
		case r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff:
			fmt.Fprintf(&b, "\\x%02x", r)
		default:
			b.WriteRune(r)
		}
	}
	if cut {
		b.WriteString("…")
	}
	return b.String()
}
