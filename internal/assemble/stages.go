// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"math"
	"regexp"
	"slices"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// maxSpans bounds how many failing executions are looked at; the last ones decide.
const maxSpans = 1024

// evidence functions fail all the time without harm: a loader is asked for one capability and then for another. They
// are the cause only where nothing else is.
func isEvidence(fn load.Function) bool {
	switch fn {
	case load.FnModmem, load.FnCapable, load.FnLockdown, load.FnLSM, load.FnLSMLoad:
		return true
	}
	return false
}

// depth orders functions that contain each other, for times that are equal.
func depth(fn load.Function) int {
	switch fn {
	case load.FnSyscall, load.FnSeccomp, load.FnSockFilter:
		return 0
	case load.FnLoad:
		return 1
	case load.FnCheck, load.FnNewFD:
		return 2
	case load.FnDoCheck, load.FnSelect:
		return 3
	case load.FnJITSubprogs:
		return 4
	case load.FnJIT:
		return 5
	case load.FnBlind:
		return 6
	case load.FnPatch:
		return 7
	}
	return 8
}

// chain is the causal chain of a call: from the function that failed last at the top to the one that made it fail.
type chain struct {
	spans []load.Span
	path  []int // indexes into spans, outermost first
}

// has returns the span of fn in the chain.
func (ch *chain) has(fn load.Function) *load.Span {
	for _, i := range ch.path {
		if ch.spans[i].Function == fn {
			return &ch.spans[i]
		}
	}
	return nil
}

// deepest returns the cause.
func (ch *chain) deepest() *load.Span {
	if len(ch.path) == 0 {
		return nil
	}
	return &ch.spans[ch.path[len(ch.path)-1]]
}

// spanOf is how a span ended, the whole call included.
type end struct {
	fn      load.Function // "" for the whole call
	ret     int
	unjited bool
}

// causes finds the chain. A child is the cause only when it is the last failing child of a parent that failed, or that came
// back un-jited, and when the parent's result follows from it.
func (a *Assembler) causes(c *call) *chain {
	raw := c.rec.Failed
	raw = raw[max(0, len(raw)-maxSpans):]
	ch := &chain{spans: make([]load.Span, len(raw))}
	parent := make([]int, len(raw))
	for i, s := range raw {
		ch.spans[i] = load.Span{
			Function: s.Function,
			Start:    since(c.rec.ID.Start, s.Start),
			Duration: since(s.Start, s.End),
			Ret:      int(s.Ret),
			Arg:      s.Arg,
			Unjited:  s.Unjited,
		}
		parent[i] = -1
		for j := i + 1; j < len(raw); j++ {
			if raw[j].Start <= s.Start && raw[j].End >= s.End && depth(raw[j].Function) < depth(s.Function) && !isEvidence(raw[j].Function) {
				parent[i] = j
				break
			}
		}
	}
	cur, at := -1, end{ret: int(c.rec.Ret), unjited: c.unjited()}
	for {
		next := -1
		for i, s := range raw {
			if parent[i] == cur && !isEvidence(s.Function) {
				next = i
			}
		}
		if next < 0 || !a.follows(c, at, raw[next]) {
			break
		}
		next = ch.notAsked(parent, next)
		ch.path = append(ch.path, next)
		cur, at = next, end{raw[next].Function, int(raw[next].Ret), raw[next].Unjited}
	}
	for i := len(raw) - 1; i >= 0; i-- {
		if parent[i] == cur && isEvidence(raw[i].Function) {
			if a.checkFollows(c, at, raw[i]) {
				ch.path = append(ch.path, i)
			}
			break
		}
	}
	for _, i := range ch.path {
		ch.spans[i].Cause = true
	}
	return ch
}

// notAsked looks behind a call of the JIT that gave its program back at once: when the functions of a program could not be
// compiled, the kernel gives up on compiling, and still passes by here. What failed before it is the reason.
func (ch *chain) notAsked(parent []int, last int) int {
	has := func(i int) bool { return slices.Contains(parent[:i], i) }
	if s := ch.spans[last]; s.Function != load.FnJIT || !s.Unjited || has(last) {
		return last
	}
	for i := last - 1; i >= 0; i-- {
		if parent[i] != parent[last] {
			continue
		}
		switch fn := ch.spans[i].Function; {
		case fn == load.FnJITSubprogs, fn == load.FnBlind, fn == load.FnJIT && has(i):
			return i
		}
	}
	return last
}

func since(from, to uint64) time.Duration { return time.Duration(min(to-min(from, to), math.MaxInt64)) }

// noJIT reports a result that a load has when its program could not be compiled: -524 without an interpreter, -12 from the
// blinding pass of 7.1.
func noJIT(ret int) bool { return ret == -eNOTSUPP || ret == -eNOMEM }

// follows reports whether a parent's end follows from that of its last failing child.
func (a *Assembler) follows(c *call, p end, child trace.Span) bool {
	ret := int(child.Ret)
	switch child.Function {
	case load.FnSyscall, load.FnLoad, load.FnCheck, load.FnNewFD, load.FnSeccomp, load.FnSockFilter:
		return p.ret < 0 && p.ret == ret
	case load.FnDoCheck:
		// A log that does not fit, or that cannot be written, hides the verifier's own errno.
		return p.ret < 0 && (p.ret == ret || p.ret == -eNOSPC || p.ret == -eFAULT)
	case load.FnSelect:
		return p.unjited || p.ret < 0 && (p.ret == ret || noJIT(p.ret) && noJIT(ret))
	case load.FnJITSubprogs:
		// An interpreter takes over, unless the program uses what only compiled code can do: then -22.
		return p.unjited || p.ret == ret || noJIT(p.ret) || p.ret == -eINVAL
	case load.FnJIT, load.FnBlind, load.FnPatch:
		if child.Function == load.FnPatch && a.byVerifier(p.fn) {
			// The verifier's own rewriting ran out of range. It reports -12.
			return p.ret == -eNOMEM
		}
		switch p.fn {
		case load.FnJIT, load.FnBlind, load.FnJITSubprogs:
			return true
		case load.FnCheck:
			return noJIT(p.ret) || p.ret == -eINVAL
		}
		return p.unjited || noJIT(p.ret)
	}
	return p.ret == ret
}

// byVerifier reports that bpf_patch_insn_single failed outside of the blinding pass, which would have been seen.
func (a *Assembler) byVerifier(parent load.Function) bool {
	switch parent {
	case load.FnBlind, load.FnJIT, load.FnJITSubprogs, load.FnSelect:
		return false
	}
	return a.watched[load.FnBlind]
}

// checkFollows is follows for a capability, LSM, lockdown or JIT memory check.
func (a *Assembler) checkFollows(c *call, p end, check trace.Span) bool {
	switch check.Function {
	case load.FnModmem:
		switch p.fn {
		case load.FnJIT, load.FnJITSubprogs, load.FnSelect:
			return true
		}
		return p.unjited || noJIT(p.ret) || p.ret < 0 && p.ret == int(check.Ret)
	case load.FnCapable:
		if c.ran(load.FnCheck) || p.ret != -ePERM {
			return false
		}
		// An unprivileged loader may load these types where the sysctl lets it, and is asked for capabilities all the same.
		const socketFilter, cgroupSKB = 1, 8
		typ := c.attr.u32(progType)
		free, _ := a.sysctl("kernel.unprivileged_bpf_disabled", c.rec.ID.Start)
		return !(c.kind == load.ProgLoad && (typ == socketFilter || typ == cgroupSKB) && free == "0")
	}
	return !c.ran(load.FnCheck) && p.ret < 0 && p.ret == int(check.Ret)
}

// ran reports that an execution of fn was seen to begin.
func (c *call) ran(fn load.Function) bool {
	s := c.sum(fn)
	return s != nil && (s.Calls > 0 || s.Open)
}

// ended reports that every execution of fn that began was seen to end.
func (c *call) ended(fn load.Function) bool {
	s := c.sum(fn)
	return s == nil || !s.Open
}

// worked reports that fn ran and never failed.
func (c *call) worked(fn load.Function) bool {
	s := c.sum(fn)
	return s != nil && s.Calls > 0 && s.Failed == 0 && !s.Open
}

func (c *call) sum(fn load.Function) *trace.Stage {
	for i := range c.rec.Stages {
		if c.rec.Stages[i].Function == fn {
			return &c.rec.Stages[i]
		}
	}
	return nil
}

// beforeVerification are complaints of bpf_check about BTF and about what a program attaches to.
var beforeVerification = regexp.MustCompile(`(?i)\b(func_info|line_info|btf|nr_(func|line)_info|type_id|attach_btf_id|` +
	`attach to|attach target|core[ _]relo|struct_ops|tracing progs)\b|^(subprog|target program) |FENTRY/FEXIT|trampoline`)

// conclusion is the stage that an attempt failed in. seen says that a hook saw it fail.
type conclusion struct {
	stage load.Stage
	errno int
	seen  bool
}

// conclude decides the failed stage from the causal chain, else from what is left: errno, log, and the captured program.
func (a *Assembler) conclude(f *fold, ch *chain, bl *blindingVerdict) conclusion {
	c := f.last
	if c.rec.Ret >= 0 && !c.unjited() {
		return conclusion{}
	}
	cause := ch.deepest()
	if cause == nil {
		return conclusion{stage: a.infer(f, bl), seen: a.sawRequest(c) || a.sawDenial(c)}
	}
	seen := func(s load.Stage) conclusion {
		errno := -cause.Ret
		if errno <= 0 {
			errno = eNOTSUPP // bpf_int_jit_compile gives back the program as it was
		}
		return conclusion{s, errno, true}
	}
	switch cause.Function {
	case load.FnPatch:
		if a.byVerifier(ch.parentOf(cause)) {
			return seen(load.Verifier)
		}
		return seen(load.Blinding)
	case load.FnBlind:
		return seen(load.Blinding)
	case load.FnModmem:
		return seen(load.JIT)
	case load.FnCapable, load.FnLSM, load.FnLSMLoad, load.FnLockdown:
		return seen(load.Permission)
	case load.FnJIT, load.FnJITSubprogs, load.FnSelect:
		if s := bl.stage(); s == load.Blinding && !a.watched[load.FnBlind] && !a.watched[load.FnPatch] {
			return conclusion{stage: s}
		}
		return seen(load.JIT)
	case load.FnNewFD:
		return seen(load.Install)
	case load.FnDoCheck:
		return seen(load.Verifier)
	case load.FnCheck:
		if a.watched[load.FnDoCheck] && !c.ran(load.FnDoCheck) && slices.ContainsFunc(f.words(), beforeVerification.MatchString) {
			return seen(load.BTF)
		}
		return seen(load.Verifier)
	case load.FnLoad:
		if a.watched[load.FnCheck] && !c.ran(load.FnCheck) {
			return seen(beforeCheck(c, -cause.Ret))
		}
		if a.watched[load.FnCheck] && c.worked(load.FnCheck) {
			return a.afterCheck(c, bl)
		}
	case load.FnSyscall:
		if c.kind == load.ProgLoad && a.watched[load.FnLoad] && !c.ran(load.FnLoad) {
			if cause.Ret == -ePERM || cause.Ret == -eACCES {
				return seen(load.Permission)
			}
			return seen(load.Request)
		}
	case load.FnSeccomp, load.FnSockFilter:
		return seen(classicStage(-cause.Ret))
	}
	return conclusion{stage: a.infer(f, bl)}
}

func (ch *chain) parentOf(s *load.Span) load.Function {
	for n, i := range ch.path {
		if &ch.spans[i] == s && n > 0 {
			return ch.spans[ch.path[n-1]].Function
		}
	}
	return ""
}

// sawRequest reports a load that is known to have ended before bpf_prog_load began.
func (a *Assembler) sawRequest(c *call) bool {
	return c.kind == load.ProgLoad && c.ended(load.FnLoad) && a.watched[load.FnSyscall] && a.watched[load.FnLoad] && c.rec.Flags.EnterSeen &&
		!c.rec.Flags.FromKernel && !c.ran(load.FnLoad) && c.rec.Ret < 0
}

// sawDenial reports a call that a seccomp policy was seen to answer.
func (a *Assembler) sawDenial(c *call) bool {
	return a.denials && !c.rec.Flags.EnterSeen && !c.rec.Flags.FromKernel
}

// beforeCheck is the stage of an error of bpf_prog_load itself.
func beforeCheck(c *call, errno int) load.Stage {
	const maxBTFType = 0xfffff
	switch errno {
	case ePERM, eACCES:
		return load.Permission
	case eNOMEM:
		return load.Resources
	case eNOTSUPP, 2, 3: // what it attaches to: ENOENT, ESRCH
		return load.BTF
	case eINVAL:
		if c.attr.u32(progAttachBTF) > maxBTFType {
			return load.BTF
		}
	case eBADF:
		if c.attr.u32(progAttachFD) != 0 {
			return load.BTF
		}
	}
	return load.Request
}

// afterCheck is the stage of an error of bpf_prog_load after the verifier accepted.
func (a *Assembler) afterCheck(c *call, bl *blindingVerdict) conclusion {
	switch errno := c.errno(); errno {
	case eNFILE, eMFILE, eNOSPC, eNOMEM:
		return conclusion{load.Install, errno, true}
	case eNOTSUPP:
		return conclusion{stage: bl.stage()}
	default:
		if a.watched[load.FnSelect] {
			return conclusion{load.Install, errno, true}
		}
		return conclusion{}
	}
}

func classicStage(errno int) load.Stage {
	switch errno {
	case eNOTSUPP:
		return load.JIT
	case eINVAL:
		return load.Verifier
	case eNOMEM:
		return load.Resources
	case ePERM, eACCES:
		return load.Permission
	}
	return load.Request
}

// words are the last lines of what the verifier is known to have said, whoever read them.
func (f *fold) words() []string {
	if f.log.s != "" && f.trust == fresh {
		return lastLines(f.log.s, logLines)
	}
	return f.said
}

// infer decides the stage without a hook that saw it, and returns "" when the evidence fits several.
func (a *Assembler) infer(f *fold, bl *blindingVerdict) load.Stage {
	c := f.last
	errno := c.errno()
	if errno == 0 {
		return bl.stage() // loaded, not compiled
	}
	switch c.kind {
	case load.Seccomp, load.SocketFilter:
		if errno == eINVAL {
			return "" // the checker's answer, and that to flags and lengths which are wrong
		}
		return classicStage(errno)
	case load.ProgLoad:
	default:
		if !c.rec.Flags.EnterSeen && !c.rec.Flags.FromKernel {
			return a.blocked(f)
		}
		return a.inferOther(c)
	}
	if !c.rec.Flags.EnterSeen && !c.rec.Flags.FromKernel {
		return a.blocked(f)
	}
	if a.sawRequest(c) {
		if errno == ePERM || errno == eACCES {
			return load.Permission
		}
		return load.Request
	}
	verdict := judge(f.words())
	switch errno {
	case eMFILE, eNFILE:
		return load.Install
	case eAGAIN:
		return load.Verifier
	case eNOSPC:
		if level, _ := c.attr.logSettings(c.kind); level != 0 {
			return load.Verifier
		}
	case e2BIG:
		// What lies behind the fields that a kernel knows must be zero. No kernel knows more than these.
		const fields = 192
		if n := c.attr.u32(progInsnCnt); n == 0 || n > 1_000_000 || verdict == logSilent && len(c.attr) > fields && c.attr[fields:].without() != "" {
			return load.Request
		}
	case eNOMEM:
		if verdict == logSilent {
			return load.Resources
		}
	case eNOTSUPP:
		if verdict != logRefused {
			return bl.stage()
		}
	}
	switch verdict {
	case logRefused:
		words := f.words()
		if !slices.ContainsFunc(words, stateLine.MatchString) && slices.ContainsFunc(words, beforeVerification.MatchString) {
			return load.BTF
		}
		return load.Verifier
	case logAccepted:
		return "" // something after the verifier: a tail call's program array, an identifier
	}
	if errno == ePERM {
		return load.Permission
	}
	if level, size := c.attr.logSettings(c.kind); errno == eACCES && level != 0 && size != 0 && f.logRead {
		return load.Permission // the verifier never refuses without a word
	}
	return ""
}

// blocked judges an end without a beginning: a seccomp policy in front of bpf(2), unless the beginning was just missed. The
// policy itself may have been watched.
func (a *Assembler) blocked(f *fold) load.Stage {
	c := f.last
	if a.denials {
		return load.Request
	}
	if c.rec.Creds != nil && c.rec.Creds.SeccompMode == 2 && !a.lossy(f) {
		return load.Request
	}
	return ""
}

func (a *Assembler) inferOther(c *call) load.Stage {
	errno := c.errno()
	switch errno {
	case ePERM, eACCES:
		return load.Permission
	case eNOMEM:
		return load.Resources
	case eMFILE, eNFILE:
		return load.Install
	}
	const mapBTFFields = 48 // btf_fd, btf_key_type_id, btf_value_type_id
	switch c.kind {
	case load.BTFLoad:
		return load.BTF
	case load.MapCreate:
		if errno == eBADF || (errno == eINVAL || errno == eNOTSUPP) && (c.attr.u64(mapBTFFields)|c.attr.u64(mapBTFFields+4)) != 0 {
			return load.BTF
		}
	}
	return load.Request
}

// observed says which stages the hooks in place can see.
func (a *Assembler) observed(c *call) map[load.Stage]bool {
	w := a.watched
	o := map[load.Stage]bool{
		load.Request:    w[load.FnLoad],
		load.Permission: w[load.FnLoad] && (w[load.FnCapable] || w[load.FnLSM]),
		load.Resources:  w[load.FnLoad] && w[load.FnCheck],
		load.BTF:        w[load.FnCheck] && w[load.FnDoCheck],
		load.Verifier:   w[load.FnCheck],
		load.Blinding:   w[load.FnBlind] || w[load.FnPatch],
		load.JIT:        w[load.FnJIT] || w[load.FnSelect] || c.rec.Prog != nil,
		load.Install:    w[load.FnNewFD] || w[load.FnLoad] && w[load.FnSelect],
	}
	return o
}

// stages lists what is known of each stage. A stage that the attempt did not reach is left out, and so is blinding where
// nothing asked for it.
func (a *Assembler) stages(f *fold, end conclusion, bl *blindingVerdict) []load.StageResult {
	c := f.last
	known := a.passed(f)
	if known[load.JIT] && bl.wanted == yes {
		known[load.Blinding] = true // the JIT compiles nothing that it was to blind and could not
	}
	list := make([]load.StageResult, 0, len(load.Stages))
	over := false
	for _, s := range load.Stages {
		r := load.StageResult{Stage: s, Result: load.NotObserved, DurationNS: c.spent(s)}
		switch {
		case s == end.stage:
			if end.seen {
				r.Result, r.Errno = load.StageFailed, end.errno
				if r.Errno == 0 {
					r.Errno = c.errno()
				}
			}
			over = true
		case over && (c.rec.Ret < 0 || s != load.Install):
			continue
		case s == load.Blinding && bl.wanted == no && c.kind == load.ProgLoad:
			continue
		case known[s]:
			r.Result = load.OK
		case !relevant(c.kind, s):
			continue
		}
		list = append(list, r)
	}
	return list
}

// relevant reports whether attempts of a kind have a stage.
func relevant(k load.Kind, s load.Stage) bool {
	switch k {
	case load.ProgLoad:
		return true
	case load.Seccomp, load.SocketFilter:
		return s != load.BTF && s != load.Blinding
	case load.MapCreate, load.LinkCreate, load.RawTPOpen, load.ProgAttach:
		return s != load.Verifier && s != load.Blinding && s != load.JIT
	case load.BTFLoad:
		return s == load.Request || s == load.Permission || s == load.Resources || s == load.BTF || s == load.Install
	}
	return s == load.Request || s == load.Permission
}

// passed says which stages are known to have ended well: seen, or followed by one that was seen.
func (a *Assembler) passed(f *fold) map[load.Stage]bool {
	c := f.last
	p := make(map[load.Stage]bool)
	upTo := func(last load.Stage) {
		for _, s := range load.Stages {
			if s == load.Blinding || !relevant(c.kind, s) {
				if s == last {
					return
				}
				continue
			}
			p[s] = true
			if s == last {
				return
			}
		}
	}
	if c.ran(load.FnLoad) {
		upTo(load.Request)
	}
	if c.ran(load.FnCheck) {
		upTo(load.Resources)
	}
	if c.ran(load.FnDoCheck) {
		upTo(load.BTF)
	}
	if c.worked(load.FnCheck) || c.ran(load.FnSelect) || c.ran(load.FnJIT) || c.ran(load.FnBlind) ||
		c.ran(load.FnJITSubprogs) || c.kind == load.ProgLoad && judge(f.words()) == logAccepted {
		upTo(load.Verifier)
	}
	if c.rec.Ret >= 0 {
		upTo(load.Verifier)
		p[load.Install] = true
		if c.kind != load.ProgLoad {
			upTo(load.Install)
		}
	}
	p[load.Blinding] = c.worked(load.FnBlind)
	if c.rec.Prog != nil {
		p[load.Blinding] = p[load.Blinding] || c.rec.Prog.Blinded
		p[load.JIT] = c.rec.Prog.JITed
	} else if c.worked(load.FnJIT) {
		p[load.JIT] = true
	}
	return p
}

// spent is the time that a stage took in the last call, 0 where it was not measured.
func (c *call) spent(s load.Stage) time.Duration {
	total := func(fn load.Function) time.Duration {
		if sum := c.sum(fn); sum != nil {
			return time.Duration(min(sum.Total, c.duration()))
		}
		return 0
	}
	within := func(inner, outer load.Function) bool {
		i, o := c.sum(inner), c.sum(outer)
		return i != nil && o != nil && i.First >= o.First && i.First <= o.First+o.Total
	}
	d := time.Duration(0)
	switch s {
	case load.Request:
		if sum := c.sum(load.FnLoad); sum != nil {
			d = since(c.rec.ID.Start, sum.First)
		}
	case load.Verifier:
		d = total(load.FnCheck)
		for _, fn := range []load.Function{load.FnSelect, load.FnJITSubprogs} {
			// Up to 7.0 the JIT of a program without calls comes after bpf_check, from 7.1 on inside.
			if within(fn, load.FnCheck) {
				d -= total(fn)
			}
		}
	case load.Blinding:
		d = total(load.FnBlind)
	case load.JIT:
		d = total(load.FnJIT)
		if within(load.FnBlind, load.FnJIT) {
			d -= total(load.FnBlind)
		}
	case load.Install:
		d = total(load.FnNewFD)
	}
	return max(d, 0)
}
