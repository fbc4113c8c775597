// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

const maxInsns = 1_000_000 // BPF_COMPLEXITY_LIMIT_INSNS

func requestRules() []Rule {
	return []Rule{
		req001(),
		req002(),
		req003(),
		req004(),
		req005(),
		req006(),
		req007(),
		req008(),
		req009(),
		req010(),
	}
}

func req001() Rule {
	return Rule{
		ID:    "REQ001",
		Title: "The program has no instructions, or more than 1,000,000",
		Class: "R4",
		Stage: load.Request,
		Text: `A program must have 1 to 1,000,000 instructions (insn_cnt). Otherwise the
kernel answers E2BIG, "Argument list too long". It does so before the verifier runs, so there is
no log.`,
		Kernels: "1,000,000 since 5.2; 4096 before.",
		Remedies: []load.Remedy{
			{
				ID:    "split",
				Title: "Split the program by tail calls, or move tables of constants from code into maps",
				Price: "A change of the design. A tail call costs a few ns.",
			},
			{
				ID:    "check-object",
				Title: "If the count is 0 or absurd, check how the loader reads the object",
				Price: "Nothing.",
			},
		},
		Match: func(f *Facts) *Match {
			if !f.isLoad() || f.errno() != abi.E2BIG || len(f.ev.Attr) < withInsnCnt {
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
	}
}

// interrupted reports a call that ended before it began because something was to be done first: a
// signal, an exec, an exit. The kernel has these numbers for calls that are to be made again and
// shows them to no process; a policy that answers with one would be absurd.
func (f *Facts) interrupted() bool {
	return f.failed() && !f.ev.EnterSeen && !f.isClassic() && len(f.ev.Spans) == 0 &&
		f.errno() >= abi.ERESTARTSYS && f.errno() <= abi.ERESTART_RESTARTBLOCK
}

// howRequest: what follows from the attributes alone is inferred, unless the
// hooks saw the call end before the verifier.
func (f *Facts) howRequest() load.HowKnown {
	if f.notReached(load.Verifier) {
		return load.Observed
	}
	return load.Inferred
}

func req002() Rule {
	return Rule{
		ID:    "REQ002",
		Title: "A map file descriptor in the program is not a map",
		Class: "R6",
		Stage: load.Verifier,
		Text: `Instructions refer to maps by the loader's own file descriptors. One of
these descriptors is not open, or it is not a map. The map was never created, or it was closed too
early, or the instructions were made for another process. The verifier reports this before it
walks the program.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:    "keep-map",
				Title: "Create the map before the load, patch its descriptor into the instructions, and keep it open until the load is done",
				Price: "Nothing.",
			},
		},
		Match: matchBadMapFD,
	}
}

//revive:disable-next-line:cyclomatic by the words, or else by the descriptors of the program
func matchBadMapFD(f *Facts) *Match {
	if !f.verifierReject() {
		return nil
	}
	said := f.words.is(verifierlog.BadMapFD)
	if !said && (f.errno() != abi.EBADF || !f.words.empty()) {
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
	m.Cause = "The program refers to a map by a file descriptor that is not open in the loader, or is not a map."
	if fd != "" {
		m.Cause = fmt.Sprintf("The program refers to a map by file descriptor %s, which is not open in the loader, or is not a map.", fd)
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

func req005() Rule {
	return Rule{
		ID:    "REQ005",
		Title: "Bad address: the kernel could not read what the loader points to",
		Class: "R6",
		Stage: load.Request,
		Text: `The loader passed an address that the process has not mapped, or may not
write. It is the address of the attributes, the instructions, the licence, a name or the log buffer.
This is a bug of the loader: a pointer has the wrong width, its memory was freed, or a length is too
large.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:    "fix-pointer",
				Title: "Check the pointers and lengths that the loader passes",
				Price: "Nothing.",
			},
		},
		Match: matchFault,
	}
}

func matchFault(f *Facts) *Match {
	if !f.failed() || f.isClassic() || f.errno() != abi.EFAULT || !f.words.empty() || f.verifierAccepted() {
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
	if f.text != nil {
		f.textFault(m)
	} else if len(f.ev.Attr) == 0 {
		m.Evidence = append(m.Evidence, "the attributes could not be read")
	} else if f.ev.InsnsState == load.InsnsNone && len(f.ev.Insns) == 0 && f.kind() == load.ProgLoad {
		m.Evidence = append(m.Evidence, "the instructions could not be read either, when the call was recorded")
	}
	return m
}

// textFault says what a text leaves open of an address that is not good.
func (f *Facts) textFault(m *Match) {
	switch f.kind() {
	case load.ProgLoad:
		m.Strength = Possible // the verifier has an EFAULT of its own
	case load.MapUpdate:
		m.Cause = "A buffer that the loader passed is shorter than the kernel reads, or is not there. If the map is per-CPU, it takes a value for each possible CPU, rounded up to 8 bytes each, also for those that are not there"
		if n := f.text.node.CPUs; n > 0 {
			m.Cause += fmt.Sprintf(": %d on this machine", n)
			m.Evidence = append(m.Evidence, fmt.Sprintf("the text says that %d CPUs are possible", n))
		}
		m.Cause += "."
	}
}

func req006() Rule {
	return Rule{
		ID:    "REQ006",
		Title: "Unknown opcode, or a reserved field is not zero",
		Class: "R6",
		Stage: load.Verifier,
		Text: `No kernel knows the opcode, or the instruction has a register, an offset
or an immediate where there must be none. The code was damaged, patched wrongly, or built for
another byte order. For instructions of newer kernels, see FEAT008.`,
		Kernels: "All.",
		Remedies: []load.Remedy{
			{
				ID:    "check-object",
				Title: "Compare the submitted instructions with the object (byte order, relocations, patches)",
				Price: "Nothing.",
			},
		},
		Match: matchBadOpcode,
	}
}

func matchBadOpcode(f *Facts) *Match {
	if !f.verifierReject() {
		return nil
	}
	if !f.words.is(verifierlog.BadOpcode, verifierlog.ReservedField, verifierlog.BadRegister, verifierlog.BadLoadImm64) {
		return nil
	}
	if _, _, newer := f.newerInsn(); newer || f.refusesKfuncCall() {
		return nil // FEAT008, FEAT006
	}
	m := f.verifierMatch()
	if m.Cause == "" {
		m.Cause = fmt.Sprintf("The program has an instruction that is not valid: %s.", f.words.message)
	}
	return m
}

func req009() Rule {
	return Rule{
		ID:    "REQ009",
		Title: "The program uses a map that the loader did not create",
		Class: "R6",
		Stage: load.Verifier,
		Text: `The loader was told not to create a map (autocreate off, an optional
feature). But a program that is loaded uses the map, on a path that the verifier does not know to
be dead. libbpf replaces the map by an invalid number, 2001000000 and up.`,
		Kernels: "All. libbpf 1.0 and newer.",
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
	}
}

func req010() Rule {
	return Rule{
		ID:    "REQ010",
		Title: "The call was cut short before it began",
		Class: "R6",
		Stage: load.Request,
		Text: `Something held back the system call of the process: a seccomp agent of a
container runtime, a sandbox, or bpfwhy run --repair. Then the thread got a signal, or another
thread executed a program or ended the process. So the kernel ended bpf(2) with ERESTARTSYS, 512,
before it had begun. No process ever sees this number. After a signal, the kernel makes the same
call again. If the process executes a program or exits, the thread ends. So this is not the answer
of a seccomp policy, and not a failure of the program.`,
		Kernels: "All with seccomp listeners (5.0).",
		Remedies: []load.Remedy{
			{
				ID:    "let-finish",
				Title: "If the call was made again, do nothing. Otherwise let the loading thread finish before the process executes another program or exits",
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
	}
}
