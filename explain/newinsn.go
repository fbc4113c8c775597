// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// Instructions that came later.

// newerInsn finds the instruction on which the verifier stopped, if it is one
// of a newer instruction set. Where the log names no place it is the youngest
// one of the program that is newer than the kernel.
func (f *Facts) newerInsn() (found newer, slot int, ok bool) {
	if i := f.failedInsn(); i >= 0 && i < len(f.ev.Insns) {
		n := newerThan(f.ev.Insns[i])
		return n, i, n.name != ""
	}
	for i := 0; i < len(f.ev.Insns); i++ {
		in := f.ev.Insns[i]
		n := newerThan(in)
		wide := in.IsWide()
		if n.name != "" && found.since.Before(n.since) && !f.since(n.since) && wide == f.words.is(verifierlog.BadLoadImm64) {
			found, slot, ok = n, i, true
		}
		if wide {
			i++
		}
	}
	return found, slot, ok
}

// newer is an instruction that not all kernels know.
type newer struct {
	name  string
	since insn.Version // the release that brought it
	set   string       // as node.Features calls what it belongs to, "" for none
}

// newerThan names an instruction that the oldest kernels do not know, the zero value for one that
// all do.
//
//revive:disable-next-line:cyclomatic a case for each newer instruction
func newerThan(in insn.Instruction) newer {
	switch {
	case in.Code == insn.OpcodeGotol:
		return newer{"gotol (-mcpu=v4, 6.6)", release(6, 6), "gotol"}
	case in.IsMovSX():
		return newer{"a sign-extending move (-mcpu=v4, 6.6)", release(6, 6), "v4"}
	case in.IsSignedDiv():
		return newer{"a signed division (-mcpu=v4, 6.6)", release(6, 6), "v4"}
	case in.Class() == insn.ClassALU64 && in.Op() == insn.OpEND:
		return newer{"bswap (-mcpu=v4, 6.6)", release(6, 6), "v4"}
	case in.Class() == insn.ClassLDX && in.Mode() == insn.ModeMEMSX:
		return newer{"a sign-extending load (-mcpu=v4, 6.6)", release(6, 6), "v4"}
	case in.IsAtomic() && (in.Imm == insn.AtomicLoadAcq || in.Imm == insn.AtomicStRel):
		return newer{"a load-acquire or store-release (6.15)", node.LoadAcquire.Since(), ""}
	case in.IsAtomic() && in.Imm != insn.OpADD:
		return newer{"an atomic operation of -mcpu=v3 (5.12)", release(5, 12), "v3"}
	case in.IsMayGoto():
		return newer{"may_goto (6.9)", release(6, 9), ""}
	case in.IsAddrSpaceCast():
		return newer{"an addr_space_cast (6.9)", release(6, 9), ""}
	case in.IsFuncLoad():
		return newer{"the address of a function (a callback, 5.13)", node.AddressOfFunction.Since(), ""}
	case in.IsWide() && (in.Src == insn.PseudoMapIdx || in.Src == insn.PseudoMapIdxValue):
		return newer{"a map by its index (5.14)", release(5, 14), ""}
	case in.Class() == insn.ClassJMP32:
		return newer{"a 32-bit jump (-mcpu=v3, 5.1)", release(5, 1), "v3"}
	}
	return newer{}
}

// NewerInstruction names an instruction that not all kernels know, with the release that brought it
// and what node.Features calls the set that it belongs to, "" for none.
func NewerInstruction(in insn.Instruction) (name, set string, since insn.Version, ok bool) {
	n := newerThan(in)
	return n.name, n.set, n.since, n.name != ""
}

// matchCallback judges a kernel that does not see that the address of a
// function is one, and so counts fewer functions than func_info has.
func matchCallback(f *Facts) *Match {
	i := slices.IndexFunc(f.ev.Insns, insn.Instruction.IsFuncLoad)
	if i < 0 || !strings.Contains(f.words.message, "func_info") {
		return nil
	}
	m := f.verifierMatch()
	m.Cause = fmt.Sprintf("The program takes the address of a function at instruction %d, as callbacks need. This kernel does not know that (5.13), and counts fewer functions than the program says it has.", i)
	m.Evidence = append(m.Evidence, f.at(i), fmt.Sprintf("the kernel is %d.%d", f.kernel.Major, f.kernel.Minor))
	return m
}

func feat008() Rule {
	return Rule{
		ID:    "FEAT008",
		Title: "The program uses instructions that are newer than the kernel",
		Class: "R6",
		Stage: load.Verifier,
		Text: `With -mcpu=v3, clang uses 32-bit jumps and arithmetic, and fetching
atomics (5.1, 5.12). With v4 it uses sign-extending loads and moves, bswap, gotol and signed
division (6.6). clang 20 made v3 the default. A kernel that does not know an instruction reports
an unknown opcode or reserved fields. Distributions backport some of them: Debian's 6.1 knows
gotol, but none of the others.`,
		Kernels: "v3: 5.1 and 5.12; v4: 6.6; load-acquire and store-release: 6.15.",
		Remedies: []load.Remedy{
			{
				ID:      "lower-mcpu",
				Title:   "Build for the oldest kernel that is to be supported",
				Price:   "More instructions for the same work; v2 has no 32-bit arithmetic.",
				Command: "clang -O2 -g -target bpf -mcpu=v2 -c prog.c -o prog.o",
			},
			{
				ID:    "two-objects",
				Title: "Ship the program twice and choose at run time by a test load",
				Price: "A second variant to build and test.",
			},
		},
		Match: matchNewerInsn,
	}
}

//revive:disable-next-line:cyclomatic what the words say, or else the instructions
func matchNewerInsn(f *Facts) *Match {
	if !f.verifierReject() {
		return nil
	}
	said := f.words.is(verifierlog.BadOpcode, verifierlog.ReservedField, verifierlog.BadLoadImm64)
	if f.words.is(verifierlog.BTFInfo) && f.doesNot(node.AddressOfFunction) {
		return matchCallback(f)
	}
	if !said && !f.words.empty() {
		return nil
	}
	n, slot, ok := f.newerInsn()
	if !ok {
		return nil
	}
	if !said {
		// No words: the verifier must have been seen stopping right there.
		if f.cause(load.FnDoCheck) == nil && f.cause(load.FnCheck) == nil || f.errno() != abi.EINVAL {
			if f.errno() != abi.EINVAL || f.observed(load.Verifier) || f.does(node.LoadAcquire) {
				return nil
			}
			return &Match{Strength: Possible, How: load.Inferred, Why: fmt.Sprintf("the program uses %s", n.name)}
		}
	}
	m := f.verifierMatch()
	m.Cause = fmt.Sprintf("The program uses %s at instruction %d, which this kernel does not know.", n.name, slot)
	m.Evidence = append(m.Evidence, f.at(slot))
	if !said {
		m.Strength = Likely
	}
	if f.kernelKnown {
		m.Evidence = append(m.Evidence, fmt.Sprintf("the kernel is %d.%d", f.kernel.Major, f.kernel.Minor))
	}
	return m
}
