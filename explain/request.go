// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

const maxInsns = 1_000_000 // BPF_COMPLEXITY_LIMIT_INSNS

func requestRules() []Rule {
	return []Rule{
		{
			ID:    "REQ001",
			Title: "The program has no instructions, or more than 1,000,000",
			Class: "R4",
			Stage: load.Request,
			Text: `insn_cnt must lie between 1 and 1,000,000. The call ends with E2BIG, "Argument list too long", before the verifier is asked, so that
there is no log.`,
			Kernels: "1,000,000 since 5.2; 4096 before.",
			Remedies: []load.Remedy{
				{
					ID:    "split",
					Title: "Split the program by tail calls, or move tables of constants from code into maps",
					Price: "A change of the design; a tail call costs a few ns.",
				},
				{
					ID:    "check-object",
					Title: "If the count is 0 or absurd, look at how the loader reads the object",
					Price: "Nothing.",
				},
			},
			Match: func(f *Facts) *Match {
				if !f.isLoad() || f.errno() != errE2BIG || len(f.ev.Attr) < attrInsnCnt+4 {
					return nil
				}
				n := f.insnCount()
				if n > 0 && n <= maxInsns {
					return nil
				}
				return &Match{Strength: Strong, How: f.howRequest(),
					Cause:    fmt.Sprintf("The program has %d instructions; the kernel takes 1 to %d.", n, maxInsns),
					Evidence: []string{fmt.Sprintf("insn_cnt was %d", n)}}
			},
		},
		{
			ID:    "REQ002",
			Title: "A map file descriptor in the program is not a map",
			Class: "R6",
			Stage: load.Verifier,
			Text: `Instructions name maps by file descriptor, in the loader's own table of descriptors. The number in one of them is not open
there, or belongs to something else: the map was never created, was closed too early, or the loader submits instructions that were made for another
process. The verifier says so before it walks the program.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:    "keep-map",
					Title: "Create the map before the load, patch its descriptor into the instructions, and keep it open until the load is done",
					Price: "Nothing.",
				},
			},
			Match: matchBadMapFD,
		},
		{
			ID:    "REQ003",
			Title: "The call uses a field that this kernel does not know",
			Class: "R6",
			Stage: load.Request,
			Text: `union bpf_attr grows from kernel to kernel. A loader may pass a longer one than the kernel knows as long as the rest is zero; a field
there that is not zero asks for something that the kernel does not have, and the answer is E2BIG. A size over a page gets the same answer.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:    "probe-feature",
					Title: "Have the loader try the feature first and do without it (new libraries do)",
					Price: "The feature is missing on this kernel.",
				},
				{
					ID:    "newer-kernel",
					Title: "Run on a kernel that has it",
					Price: "A reboot, and another kernel to test.",
				},
			},
			Match: matchAttrTail,
		},
		{
			ID:    "REQ004",
			Title: "The loader's log buffer is too small",
			Class: "R3",
			Stage: load.Verifier,
			Text: `The verifier's log did not fit into the buffer that the loader passed, and the kernel returns ENOSPC in place of its verdict. The
program may be perfectly fine: what failed is the delivery of the log. Loaders usually try again with a larger buffer. Since 6.4 the log
rotates, and the error comes only from loaders that ask for a fixed one.`,
			Kernels: "All; seldom since 6.4, where the kernel keeps the log's end and says how large it was (log_true_size).",
			Remedies: []load.Remedy{
				{
					ID:    "larger-buffer",
					Title: "Pass a larger buffer: double it until it fits, up to 16 MiB before 5.11 and 1 GiB since",
					Price: "Memory while loading, and one more verification per try.",
				},
				{
					ID:    "log-on-failure",
					Title: "Ask for the log only after a load has failed, and only for statistics (log_level 4) otherwise",
					Price: "A failing program is verified twice.",
				},
			},
			Match: matchLogSpace,
		},
		{
			ID:    "REQ005",
			Title: "The kernel could not read what the loader points to",
			Class: "R6",
			Stage: load.Request,
			Text: `The attributes, the instructions, the licence, a name or the log buffer lie at an address that the process has not mapped, or may not
write. It is a bug of the loader: a pointer of the wrong width, memory that was freed, a length that is too large.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:    "fix-pointer",
					Title: "Look at the pointers and lengths that the loader passes",
					Price: "Nothing.",
				},
			},
			Match: matchFault,
		},
		{
			ID:    "REQ006",
			Title: "An instruction that no kernel knows, or with fields set that must be zero",
			Class: "R6",
			Stage: load.Verifier,
			Text: `The opcode does not exist, or a register, an offset or an immediate is set where the instruction has none. Code that was damaged, patched
wrongly or made for another machine's byte order looks so. For instructions that newer kernels know see FEAT008.`,
			Kernels: "All.",
			Remedies: []load.Remedy{
				{
					ID:    "check-object",
					Title: "Compare the submitted instructions with the object (byte order, relocations, patches)",
					Price: "Nothing.",
				},
			},
			Match: matchBadOpcode,
		},
		{
			ID:    "REQ007",
			Title: "The kernel does not accept the load's attributes",
			Class: "R6",
			Stage: load.Request,
			Text: `Before the verifier is asked the kernel checks the request itself: unknown flags, fields set behind the last one that the command has, a
name with odd characters, an expected_attach_type that does not go with the program type, a file descriptor that is not open, a device that takes
no programs. It answers EINVAL or EBADF, and there is no log.`,
			Kernels: "All; flags, fields and attach types were added over time.",
			Remedies: []load.Remedy{
				{
					ID:    "check-attr",
					Title: "Compare flags, attach type and descriptors with what this kernel knows",
					Price: "Nothing.",
				},
				{
					ID:    "probe-feature",
					Title: "Have the loader try the feature first and do without it",
					Price: "The feature is missing on this kernel.",
				},
			},
			Match: matchAttributes,
		},
		{
			ID:    "REQ008",
			Title: "The log's level, size and address do not go together",
			Class: "R6",
			Stage: load.Request,
			Text: `A log level needs a buffer and a size, and the other way round; the size has a lower limit of 128 bytes on older kernels and an upper one;
unknown bits in the level are refused. The answer is EINVAL.`,
			Kernels: "All; 16 MiB at most before 5.11. Since 6.4 a level without a buffer is allowed.",
			Remedies: []load.Remedy{
				{
					ID:    "log-args",
					Title: "Pass all three, level 1 or 2 with a buffer of at least 64 KiB, or none",
					Price: "Nothing.",
				},
			},
			Match: matchLogAttr,
		},
		{
			ID:    "REQ009",
			Title: "The program uses a map that the loader did not create",
			Class: "R6",
			Stage: load.Verifier,
			Text: `The loader was told to leave a map out (autocreate off, an optional feature), and a program that is still loaded refers to it on a path
that is not dead. libbpf puts poison in its place, 2001000000 and up.`,
			Kernels: "All; libbpf 1.0 and newer.",
			Remedies: []load.Remedy{
				{
					ID:    "keep-map",
					Title: "Create the map, leave the program out as well, or guard the access by a constant in .rodata that the verifier can see",
					Price: "Nothing.",
				},
			},
			Match: func(f *Facts) *Match {
				if !f.verifierReject() || f.poison() != poisonMap {
					return nil
				}
				m := f.verifierMatch()
				m.Cause = "The program uses a map that the loader did not create."
				if n := f.words.named("name"); n != "" {
					m.Cause = fmt.Sprintf("The program uses the map %q, which the loader did not create.", printable(n, 80))
				}
				return m
			},
		},
		{
			ID:    "REQ010",
			Title: "The call was cut short before it began",
			Class: "R6",
			Stage: load.Request,
			Text: `A listener on the process's system calls (a container runtime's seccomp agent, a sandbox, bpfwhy run --repair) held bpf(2) back when a
signal came for the thread, or another thread of the process executed a program or ended it. The kernel then ends the system call with ERESTARTSYS, 512, before it has
begun. No process ever sees that number: after a signal the kernel makes the same call again by itself, and what executes or exits ends the
thread. It is no seccomp policy's answer, and no failure of the program's.`,
			Kernels: "All with seccomp listeners (5.0).",
			Remedies: []load.Remedy{
				{
					ID:    "let-finish",
					Title: "Nothing, where the call was made again. Else let the loading thread finish before the process executes another program or exits",
					Price: "The process waits for its own loads.",
				},
			},
			Match: func(f *Facts) *Match {
				if !f.interrupted() {
					return nil
				}
				return &Match{Strength: Certain, How: load.Observed,
					Cause:    "The system call was interrupted while a listener held it: bpf(2) never began, and the process was not told of an error.",
					Evidence: []string{"the end of the system call was seen, and no beginning", fmt.Sprintf("it ended with %s (%d), which the kernel keeps to itself", errnoName(f.errno()), f.errno())}}
			},
		},
	}
}

// interrupted reports a call that ended before it began because something was to be done first: a signal, an exec, an exit. The kernel has
// these numbers for calls that are to be made again and shows them to no process; a policy that answers with one would be absurd.
func (f *Facts) interrupted() bool {
	const restartSys, restartBlock = 512, 516
	return f.failed() && !f.ev.EnterSeen && !f.isClassic() && len(f.ev.Spans) == 0 && f.errno() >= restartSys && f.errno() <= restartBlock
}

// howRequest: what follows from the attributes alone is inferred, unless the
// hooks saw the call end before the verifier.
func (f *Facts) howRequest() load.HowKnown {
	if f.notReached(load.Verifier) {
		return load.Observed
	}
	return load.Inferred
}

func matchBadMapFD(f *Facts) *Match {
	if !f.verifierReject() {
		return nil
	}
	said := f.words.is(verifierlog.BadMapFD)
	if !said && (f.errno() != errEBADF || !f.words.empty()) {
		return nil
	}
	var m *Match
	fd := ""
	switch {
	case said:
		m = f.verifierMatch()
		fd = f.words.arg("fd")
	case f.cause(load.FnCheck) != nil:
		m = f.verifierMatch()
		m.Strength = Strong
	default:
		m = &Match{Strength: Possible, How: load.Inferred, Why: "the program names maps by file descriptor"}
	}
	loads := 0
	for i := 0; i < len(f.ev.Insns); i++ {
		in := f.ev.Insns[i]
		if !in.IsWide() {
			continue
		}
		if in.IsMapLoad() && (in.Src == insn.PseudoMapFD || in.Src == insn.PseudoMapValue) {
			loads++
			if fd == "" || fmt.Sprint(in.Imm) == fd {
				m.Evidence = append(m.Evidence, fmt.Sprintf("%s names file descriptor %d", f.at(i), in.Imm))
				if fd != "" || loads >= 4 {
					break
				}
			}
		}
		i++
	}
	if !said {
		switch {
		case f.wholeProgram() && loads == 0 && !f.usesFDArray():
			return nil
		case m.Strength == Possible && loads > 0:
			m.Strength = Likely
		}
	}
	m.Cause = "The program refers to a map by a file descriptor that is not open in the loader, or is no map."
	if fd != "" {
		m.Cause = fmt.Sprintf("The program refers to a map by file descriptor %s, which is not open in the loader, or is no map.", fd)
	}
	return m
}

func (f *Facts) usesFDArray() bool {
	for _, in := range f.ev.Insns {
		if in.IsMapLoad() && (in.Src == insn.PseudoMapIdx || in.Src == insn.PseudoMapIdxValue) {
			return true
		}
	}
	return false
}

// Where the fields of union bpf_attr that BPF_PROG_LOAD uses end, by the
// kernel that added them (bytes).
var attrEnds = []struct {
	end          int
	major, minor int
	field        string
}{
	{116, 5, 5, "attach_prog_fd"},
	{128, 5, 14, "fd_array"},
	{140, 5, 17, "core_relos"},
	{144, 6, 4, "log_true_size"},
	{148, 6, 9, "prog_token_fd"},
	{152, 6, 14, "fd_array_cnt"},
	{168, 6, 18, "signature"},
}

const maxAttr = 208 // bytes, with room for kernels to come

// tailByte returns the last byte of the attributes that is not zero, -1 for none.
func (f *Facts) tailByte() int {
	for i := len(f.ev.Attr) - 1; i >= 0; i-- {
		if f.ev.Attr[i] != 0 {
			return i
		}
	}
	return -1
}

func matchAttrTail(f *Facts) *Match {
	if !f.failed() || f.isClassic() || f.errno() != errE2BIG || !f.words.empty() || f.verifierAccepted() {
		return nil
	}
	if f.cause(load.FnDoCheck) != nil || f.cause(load.FnCheck) != nil {
		return nil
	}
	n := f.insnCount()
	if f.kind() == load.ProgLoad && len(f.ev.Attr) >= attrInsnCnt+4 && (n == 0 || n > maxInsns) {
		return nil // REQ001 follows from the count, though the tail is looked at first
	}
	m := &Match{Strength: Possible, How: f.howRequest()}
	m.Cause = "The attributes carry a field that this kernel does not know."
	m.Why = "E2BIG is also what the kernel says to attributes longer than it knows"
	last := f.tailByte()
	switch {
	case len(f.ev.Attr) > 4096:
		m.Strength = Strong
		m.Cause = "The attributes are longer than a page."
	case len(f.ev.Attr) == 0 && f.text == nil:
		m.Strength = Likely
		m.Cause = "The attributes are longer than a page, or carry a field that this kernel does not know."
		m.Evidence = append(m.Evidence, "the attributes were not recorded")
	case f.kind() != load.ProgLoad:
		return f.mapTail(m)
	case f.notReached(load.Verifier) && !(n > 4096 && !f.holds(capBPF)):
		// The only E2BIG that is left in front of the verifier.
		m.Strength = Strong
	case len(f.ev.Attr) > maxAttr:
		m.Strength = Likely
		m.Evidence = append(m.Evidence, fmt.Sprintf("the attributes are at least %d bytes long, more than any kernel known today understands", len(f.ev.Attr)))
	case last < 116:
		return nil
	default:
		for _, e := range attrEnds {
			if last < e.end {
				if f.before(e.major, e.minor) {
					m.Strength = Likely
				}
				break
			}
		}
		if last >= attrEnds[len(attrEnds)-1].end {
			m.Strength = Likely
		}
	}
	if last >= 0 {
		field := "behind all that is known today"
		for _, e := range attrEnds {
			if last < e.end {
				field = fmt.Sprintf("in the field %s or before (%d.%d)", e.field, e.major, e.minor)
				break
			}
		}
		m.Evidence = append(m.Evidence, fmt.Sprintf("the attributes are %d bytes long; the last byte that is not zero is %d, %s", len(f.ev.Attr), last, field))
	}
	if f.kernelKnown {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the kernel is %d.%d", f.kernel.Major, f.kernel.Minor))
	}
	return m
}

// mapTail judges E2BIG of commands other than a load: it is as likely to be a
// size that is too large.
func (f *Facts) mapTail(m *Match) *Match {
	last := f.tailByte()
	if last < 72 {
		return nil
	}
	m.Evidence = append(m.Evidence, fmt.Sprintf("the attributes are %d bytes long; the last byte that is not zero is %d", len(f.ev.Attr), last))
	return m
}

func matchLogSpace(f *Facts) *Match {
	if !f.failed() || f.errno() != errENOSPC || f.kind() != load.ProgLoad && f.kind() != load.BTFLoad {
		return nil
	}
	m := &Match{Strength: Likely, How: load.Inferred}
	m.Why = "ENOSPC is what a log buffer that is too small ends with"
	level, size := f.ev.LogLevel, f.ev.LogSize
	if level == 0 && size == 0 {
		if f.cause(load.FnCheck) == nil {
			return nil
		}
	} else {
		m.Strength = Strong
		m.Evidence = append(m.Evidence, fmt.Sprintf("the loader passed a buffer of %d bytes at log level %d", size, level))
	}
	if s := f.cause(load.FnCheck); s != nil {
		m.Strength, m.How = Certain, load.Observed
		m.Evidence = append(m.Evidence, fmt.Sprintf("bpf_check returned %d (%s)", s.Ret, errnoName(-s.Ret)))
		if f.failing(load.FnDoCheck) == nil && f.observed(load.Verifier) {
			m.Evidence = append(m.Evidence, "do_check_common was not seen to fail: the program itself was accepted")
		}
	}
	m.Cause = "The verifier's log did not fit into the loader's buffer, and the kernel reports that in place of its verdict on the program."
	if s := f.failing(load.FnDoCheck); s != nil {
		m.Cause += fmt.Sprintf(" The verdict was a rejection: do_check_common returned %d (%s).", s.Ret, errnoName(-s.Ret))
	}
	return m
}

func matchFault(f *Facts) *Match {
	if !f.failed() || f.isClassic() || f.errno() != errEFAULT || !f.words.empty() || f.verifierAccepted() {
		return nil
	}
	m := &Match{Strength: Likely, How: load.Inferred}
	m.Cause = "An address that the loader passed cannot be read or written by the kernel."
	if f.notReached(load.Verifier) {
		m.Strength, m.How = Strong, load.Observed
	}
	if f.cause(load.FnDoCheck) != nil {
		return nil // the verifier's own EFAULT
	}
	if s := f.cause(load.FnCheck); s != nil {
		m.Strength = Possible
		m.Why = "bpf_check itself ended with EFAULT: the log buffer, BTF information or an array of descriptors may not be readable"
	}
	if len(f.ev.Attr) == 0 {
		m.Evidence = append(m.Evidence, "the attributes could not be read")
	} else if f.ev.InsnsState == load.InsnsNone && len(f.ev.Insns) == 0 && f.kind() == load.ProgLoad {
		m.Evidence = append(m.Evidence, "the instructions could not be read either, when the call was recorded")
	}
	return m
}

func matchBadOpcode(f *Facts) *Match {
	if !f.verifierReject() {
		return nil
	}
	if !f.words.is(verifierlog.BadOpcode, verifierlog.ReservedField, verifierlog.BadRegister, verifierlog.BadLoadImm64) {
		return nil
	}
	if name, _ := f.newerInsn(); name != "" || f.refusesKfuncCall() {
		return nil // FEAT008, FEAT006
	}
	m := f.verifierMatch()
	m.Cause = fmt.Sprintf("The program has an instruction that is not valid: %s.", f.words.message)
	return m
}

func matchAttributes(f *Facts) *Match {
	if !f.isLoad() || !f.words.empty() || f.verifierAccepted() || f.cause(load.FnCheck) != nil || f.cause(load.FnDoCheck) != nil || f.signatureOfSeccomp() >= Strong {
		return nil
	}
	switch f.errno() {
	case errEINVAL, errEBADF, errENODEV, errENOENT, errEOPNOTSUPP:
	default:
		return nil
	}
	m := &Match{Strength: Possible, How: load.Inferred, Why: fmt.Sprintf("%s is also the answer to a request that is wrong in itself", errnoName(f.errno()))}
	if f.notReached(load.Verifier) {
		m.Strength, m.How = Likely, load.Observed
	}
	if m.Strength == Possible && f.errno() == errEBADF {
		m.Why = "prog_btf_fd, attach_prog_fd or a token may not be open"
	}
	m.Cause = "The kernel turned the request down before it looked at the program."
	if v := f.attrU32(attrProgFlags); v != 0 {
		m.Evidence = append(m.Evidence, fmt.Sprintf("prog_flags were %#x", v))
	}
	if p := f.Attempt.Program; p != nil {
		s := "the program type was " + printable(p.Type, 40)
		if p.AttachType != "" {
			s += ", the expected attach type " + printable(p.AttachType, 40)
		}
		m.Evidence = append(m.Evidence, s)
	}
	if last := f.tailByte(); last >= 116 {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the last byte of the attributes that is not zero is %d", last))
	}
	return m
}

func matchLogAttr(f *Facts) *Match {
	if !f.isLoad() || f.errno() != errEINVAL || !f.words.empty() || f.verifierAccepted() || len(f.ev.Attr) < attrLogBuf+8 {
		return nil
	}
	level, size, buf := f.attrU32(attrLogLevel), f.attrU32(attrLogSize), f.attrU64(attrLogBuf)
	why := ""
	switch {
	case level == 0 && size == 0 && buf == 0:
		return nil
	case level > 0xf:
		why = fmt.Sprintf("log_level %#x has bits that no kernel knows", level)
	case buf == 0 && size != 0 || buf != 0 && size == 0:
		why = fmt.Sprintf("log_buf is %#x and log_size %d", buf, size)
	case level != 0 && buf == 0 && !f.since(6, 4):
		why = fmt.Sprintf("log_level is %d, and there is no buffer", level)
	case level == 0 && buf != 0 && !f.since(6, 4):
		why = fmt.Sprintf("there is a buffer of %d bytes, and log_level is 0", size)
	case size < 128 && !f.since(5, 11):
		why = fmt.Sprintf("log_size is %d, less than 128", size)
	case size > 1<<30, size > 1<<24 && f.before(5, 11):
		why = fmt.Sprintf("log_size is %d, more than the kernel takes", size)
	default:
		return nil
	}
	m := &Match{Strength: Likely, How: load.Inferred, Evidence: []string{why}}
	m.Cause = "The request for a log contradicts itself, and the kernel refuses the whole call: " + why + "."
	return m
}
