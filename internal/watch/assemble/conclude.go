// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"bytes"
	"slices"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/lazyregexp"
	"github.com/bpfwhy/bpfwhy/internal/watch/hook"
	"github.com/bpfwhy/bpfwhy/load"
)

// Where a call failed, if no function was seen to.

// beforeVerification are complaints of bpf_check about BTF and about what a program attaches to.
var beforeVerification = lazyregexp.New(`(?i)\b(func_info|line_info|btf|nr_(func|line)_info|type_id|attach_btf_id|` +
	`attach to|attach target|core[ _]relo|struct_ops|tracing progs)\b|^(subprog|target program) |FENTRY/FEXIT|trampoline`)

// conclusion is the stage that an attempt failed in. seen says that a hook saw it fail.
type conclusion struct {
	stage load.Stage
	errno int
	seen  bool
}

// conclude decides the failed stage from the causal chain, else from what is left: errno, log, and
// the captured program.
//
//revive:disable-next-line:cyclomatic a case for each function that is watched
func (a *Assembler) conclude(f *retryGroup, ch *chain, bl *blindingVerdict) conclusion {
	c := f.last
	if c.rec.Ret >= 0 && !c.unjited() {
		return conclusion{}
	}
	cause := ch.deepest()
	if cause == nil {
		return conclusion{stage: a.infer(f, bl), seen: a.sawRequest(c) || a.sawDenial(c) || c.kind.AttachesOutside()}
	}
	seen := func(s load.Stage) conclusion {
		errno := -cause.Ret
		if errno <= 0 {
			errno = abi.ENOTSUPP // bpf_int_jit_compile gives back the program as it was
		}
		return conclusion{s, errno, true}
	}
	switch cause.Function {
	case load.FnPatch:
		if a.byVerifier(ch.parentOf(cause)) {
			return seen(load.Verifier)
		}
		return seen(load.Blinding)
	case load.FnJIT, load.FnJITSubprogs, load.FnSelect:
		if s := bl.stage(); s == load.Blinding && !a.watched[load.FnBlind] && !a.watched[load.FnPatch] {
			return conclusion{stage: s}
		}
		return seen(load.JIT)
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
			if cause.Ret == -abi.EPERM || cause.Ret == -abi.EACCES {
				return seen(load.Permission)
			}
			return seen(load.Request)
		}
	case load.FnSeccomp, load.FnSockFilter:
		return seen(classicStage(-cause.Ret))
	default:
		if s := hook.Of(cause.Function).Stage; s != "" {
			return seen(s)
		}
	}
	return conclusion{stage: a.infer(f, bl)}
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
	case abi.EPERM, abi.EACCES:
		return load.Permission
	case abi.ENOMEM:
		return load.Resources
	case abi.ENOTSUPP, abi.ENOENT, abi.ESRCH: // what it attaches to
		return load.BTF
	case abi.EINVAL:
		if c.attr.prog().AttachBTFID > maxBTFType {
			return load.BTF
		}
	case abi.EBADF:
		if c.attr.prog().AttachFD != 0 {
			return load.BTF
		}
	}
	return load.Request
}

// afterCheck is the stage of an error of bpf_prog_load after the verifier accepted.
func (a *Assembler) afterCheck(c *call, bl *blindingVerdict) conclusion {
	switch errno := c.errno(); errno {
	case abi.ENFILE, abi.EMFILE, abi.ENOSPC, abi.ENOMEM:
		return conclusion{load.Install, errno, true}
	case abi.ENOTSUPP:
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
	case abi.ENOTSUPP:
		return load.JIT
	case abi.EINVAL:
		return load.Verifier
	case abi.ENOMEM:
		return load.Resources
	case abi.EPERM, abi.EACCES:
		return load.Permission
	}
	return load.Request
}

// words are the last lines of what the verifier is known to have said, whoever read them.
func (f *retryGroup) words() []string {
	if f.log.s != "" && f.trust == fresh {
		return lastLines(f.log.s, logLines)
	}
	return f.said
}

// infer decides the stage without a hook that saw it, and returns "" when the evidence fits
// several.
func (a *Assembler) infer(f *retryGroup, bl *blindingVerdict) load.Stage {
	c := f.last
	errno := c.errno()
	if errno == 0 {
		return bl.stage() // loaded, not compiled
	}
	switch entered := c.rec.Flags.EnterSeen || c.rec.Flags.FromKernel; {
	case c.kind == load.Seccomp, c.kind == load.SocketFilter:
		if errno == abi.EINVAL {
			return "" // the checker's answer, and that to flags and lengths which are wrong
		}
		return classicStage(errno)
	case !entered && (c.kind == load.ProgLoad || !c.kind.AttachesOutside()):
		return a.blocked(f)
	case c.kind != load.ProgLoad:
		return a.inferOther(c)
	case a.sawRequest(c):
		if errno == abi.EPERM || errno == abi.EACCES {
			return load.Permission
		}
		return load.Request
	}
	return inferLoad(f, bl)
}

// inferLoad is infer for a load that reached the kernel's check of its attributes.
func inferLoad(f *retryGroup, bl *blindingVerdict) load.Stage {
	c, errno := f.last, f.last.errno()
	verdict := judge(f.words())
	if s := inferErrno(c, verdict, bl); s != "" {
		return s
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
	if errno == abi.EPERM {
		return load.Permission
	}
	if level, size := c.attr.logSettings(c.kind); errno == abi.EACCES && level != 0 && size != 0 && f.logRead {
		return load.Permission // the verifier never refuses without a word
	}
	return ""
}

// inferErrno is the stage of a load whose errno tells it, "" if it does not.
func inferErrno(c *call, verdict logVerdict, bl *blindingVerdict) load.Stage {
	switch c.errno() {
	case abi.EMFILE, abi.ENFILE:
		return load.Install
	case abi.EAGAIN:
		return load.Verifier
	case abi.ENOSPC:
		if level, _ := c.attr.logSettings(c.kind); level != 0 {
			return load.Verifier
		}
	case abi.E2BIG:
		// What lies behind the fields that a kernel knows must be zero. No kernel knows more than
		// these.
		const fields = 192
		if n := c.attr.prog().InsnCnt; n == 0 || n > 1_000_000 || verdict == logSilent && len(bytes.TrimRight(c.attr, "\x00")) > fields {
			return load.Request
		}
	case abi.ENOMEM:
		if verdict == logSilent {
			return load.Resources
		}
	case abi.ENOTSUPP:
		if verdict != logRefused {
			return bl.stage()
		}
	}
	return ""
}

// blocked judges an end without a beginning: a seccomp policy in front of bpf(2), unless the
// beginning was just missed. The policy itself may have been watched.
func (a *Assembler) blocked(f *retryGroup) load.Stage {
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
	if putsInPlace(c.kind) {
		return c.inferAttach()
	}
	switch errno {
	case abi.EPERM, abi.EACCES:
		return load.Permission
	case abi.ENOMEM:
		return load.Resources
	case abi.EMFILE, abi.ENFILE:
		return load.Install
	}
	switch c.kind {
	case load.BTFLoad:
		return load.BTF
	case load.MapCreate:
		attr := c.attr.mapCreate()
		if (errno == abi.EBADF || errno == abi.EINVAL || errno == abi.ENOTSUPP) && attr.BTFFD|attr.BTFKeyTypeID|attr.BTFValueTypeID != 0 {
			return load.BTF
		}
	}
	return load.Request
}
