// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"math"
	"slices"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/watch/hook"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// Which of the functions that failed decided the call.

// maxSpans bounds how many failing executions are looked at; the last ones decide.
const maxSpans = 1024

// chain is the causal chain of a call: from the function that failed last at the top to the one
// that made it fail.
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

// causes finds the chain. A child is the cause only when it is the last failing child of a parent
// that failed, or that came back un-jited, and when the parent's result follows from it.
//
//revive:disable-next-line:cyclomatic one walk over the failed functions, innermost first
func (a *Assembler) causes(c *call) *chain {
	raw := c.rec.Failed
	raw = raw[max(0, len(raw)-maxSpans):]
	ch := &chain{spans: make([]load.Span, len(raw))}
	parent := make([]int, len(raw))
	hooks := make([]*hook.Hook, len(raw))
	for i, s := range raw {
		hooks[i] = hook.Of(s.Function)
	}
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
			if raw[j].Start <= s.Start && raw[j].End >= s.End && hooks[j].Depth < hooks[i].Depth && !hooks[j].Evidence {
				parent[i] = j
				break
			}
		}
	}
	cur, at := -1, end{ret: int(c.rec.Ret), unjited: c.unjited()}
	for {
		next := -1
		for i := range raw {
			if parent[i] == cur && !hooks[i].Evidence {
				next = i
			}
		}
		if next < 0 || !a.follows(c, at, raw[next]) {
			break
		}
		next = ch.blindingNotWanted(parent, next)
		ch.path = append(ch.path, next)
		cur, at = next, end{raw[next].Function, int(raw[next].Ret), raw[next].Unjited}
	}
	for i := len(raw) - 1; i >= 0; i-- {
		if parent[i] == cur && hooks[i].Evidence {
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

// blindingNotWanted looks behind a call of the JIT that gave its program back at once: when the
// functions of a program could not be compiled, the kernel gives up on compiling, and still passes
// by here. What failed before it is the reason.
func (ch *chain) blindingNotWanted(parent []int, last int) int {
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

// noJIT reports a result that a load has when its program could not be compiled: -524 without an
// interpreter, -12 from the blinding pass of 7.1.
func noJIT(ret int) bool { return ret == -abi.ENOTSUPP || ret == -abi.ENOMEM }

// follows reports whether a parent's end follows from that of its last failing child.
//
//revive:disable-next-line:cyclomatic a case for each function that is watched
func (a *Assembler) follows(c *call, p end, child trace.Span) bool {
	ret := int(child.Ret)
	switch child.Function {
	case load.FnSyscall, load.FnLoad, load.FnCheck, load.FnNewFD, load.FnSeccomp, load.FnSockFilter:
		return p.ret < 0 && p.ret == ret
	case load.FnDoCheck, load.FnAttach:
		// A log that does not fit, or that cannot be written, hides the verifier's own errno.
		return p.ret < 0 && (p.ret == ret || p.ret == -abi.ENOSPC || p.ret == -abi.EFAULT)
	case load.FnSelect:
		return p.unjited || p.ret < 0 && (p.ret == ret || noJIT(p.ret) && noJIT(ret))
	case load.FnJITSubprogs:
		// An interpreter takes over, unless the program uses what only compiled code can do: then
		// -22.
		return p.unjited || p.ret == ret || noJIT(p.ret) || p.ret == -abi.EINVAL
	case load.FnJIT, load.FnBlind, load.FnPatch:
		if child.Function == load.FnPatch && a.byVerifier(p.fn) {
			// The verifier's own rewriting ran out of range. It reports -12.
			return p.ret == -abi.ENOMEM
		}
		switch p.fn {
		case load.FnJIT, load.FnBlind, load.FnJITSubprogs:
			return true
		case load.FnCheck:
			return noJIT(p.ret) || p.ret == -abi.EINVAL
		}
		return p.unjited || noJIT(p.ret)
	}
	return p.ret == ret
}

// byVerifier reports that bpf_patch_insn_single failed outside of the blinding pass, which would
// have been seen.
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
		if c.refusedSKB(check.Arg) {
			return true
		}
		if c.ran(load.FnCheck) || p.ret != -abi.EPERM {
			return false
		}
		// An unprivileged loader may load these types where the sysctl lets it, and is asked for
		// capabilities all the same.
		typ := c.attr.prog().ProgType
		free, _ := a.sysctl("kernel.unprivileged_bpf_disabled", c.rec.ID.Start)
		return !(c.kind == load.ProgLoad && (typ == abi.ProgTypeSocketFilter || typ == abi.ProgTypeCgroupSKB) && free == "0")
	}
	return !c.ran(load.FnCheck) && p.ret < 0 && p.ret == int(check.Ret)
}

func (ch *chain) parentOf(s *load.Span) load.Function {
	for n, i := range ch.path {
		if &ch.spans[i] == s && n > 0 {
			return ch.spans[ch.path[n-1]].Function
		}
	}
	return ""
}
