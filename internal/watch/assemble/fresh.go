// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// freshness says how far the text in a log buffer may be taken for the verifier's words on this
// very call. Who calls owns the buffer: the kernel leaves it as it was when it refuses a call
// before the verifier, with the log of an earlier call in it, or with whatever else the process
// wrote there.
type freshness int

// In the order of trust.
const (
	fresh     freshness = iota
	unproven            // the buffer held text before the call, and nothing shows that it was written anew
	unreached           // the verifier was watched and was not called
	foreign             // the text speaks of other instructions than those submitted
)

// stale says why a log is not used.
func (f freshness) stale() string {
	switch f {
	case unreached:
		return "the verifier was watched and was not called: the text in the loader's log buffer is not of this call"
	case foreign:
		return "the text in the loader's log buffer is about other instructions than those submitted: it is not of this call"
	}
	return ""
}

// freshness judges the log that was copied from a loader's buffer.
func (a *Assembler) freshness(c *call, log text) freshness {
	if log.s == "" {
		return fresh
	}
	if c.kind != load.ProgLoad {
		if c.rec.Flags.LogDirty {
			return unproven // nobody watches what writes to the log of BTF
		}
		return fresh
	}
	if a.watched[load.FnCheck] && !c.ran(load.FnCheck) && c.rec.Ret < 0 {
		return unreached
	}
	if c.contradicts(log) {
		return foreign
	}
	// do_check writes to every log; what fails before it may leave one as it was.
	written := c.ran(load.FnDoCheck) || c.ran(load.FnCheck) && !a.watched[load.FnDoCheck]
	if c.rec.Flags.LogDirty && !written {
		return unproven
	}
	return fresh
}

// maxCompared is how much of a log, in bytes from its end, is compared with the instructions.
const maxCompared = 256 << 10

// contradicts reports a log that walks through instructions that the program does not have. What
// the verifier prints, it prints before it rewrites anything, but for the relocations of CO-RE that
// some loaders leave to the kernel, and what decided knows.
//
//revive:disable-next-line:cyclomatic one comparison of log and program after the other
func (c *call) contradicts(log text) bool {
	if c.attr.prog().CoreReloCnt != 0 {
		return false
	}
	prog, whole := instructions(c.ranges[trace.Insns])
	if len(prog) == 0 {
		return false
	}
	whole = whole && (len(c.attr) == 0 || int(c.attr.prog().InsnCnt) == len(prog))
	s := log.s
	// A buffer that is full holds the end of a longer log.
	_, size := c.attr.logSettings(c.kind)
	cut := !log.whole || len(s)+1 >= int(size)
	if len(s) > maxCompared {
		s, cut = s[len(s)-maxCompared:], true
	}
	for line := range strings.Lines(s) {
		if !strings.HasSuffix(line, "\n") {
			return false // the last line may be half of one
		}
		if cut {
			cut = false // so may the first one
			continue
		}
		if strings.HasPrefix(line, "[… ") {
			cut = true
			continue
		}
		i, code, rest, ok := walked(line)
		if !ok {
			continue
		}
		switch {
		case i >= len(prog):
			if whole {
				return true
			}
		case decided(prog[i], code):
		case code != prog[i].Code, insn.IsSecondHalf(prog, i):
			return true
		case differs(prog[i], rest):
			return true
		}
	}
	return false
}

// decided reports a conditional jump that the verifier prints as a plain one: 7.2 does so where it
// is always taken.
func decided(in insn.Instruction, printed uint8) bool {
	return in.IsJump16() && printed == insn.OpcodeJA
}

// walked reads the line of an instruction, "12: (bf) r6 = r1".
func walked(line string) (slot int, code uint8, rest string, ok bool) {
	digits := 0
	for digits < len(line) && digits < 8 && line[digits] >= '0' && line[digits] <= '9' {
		digits++
	}
	rest = line[digits:]
	if digits == 0 || len(rest) < 6 || rest[:3] != ": (" || rest[5] != ')' {
		return 0, 0, "", false
	}
	slot, _ = strconv.Atoi(line[:digits])
	n, err := strconv.ParseUint(rest[3:5], 16, 8)
	return slot, uint8(n), strings.TrimPrefix(rest[6:], " "), err == nil
}

// differs reports an instruction that the log prints otherwise. Only arithmetic on 64 bits is
// compared: all kernels print it alike, and no name of an object is in it.
func differs(in insn.Instruction, printed string) bool {
	if in.Class() != insn.ClassALU64 || in.Op() == insn.OpEND || in.Op() == insn.OpNEG || in.Off != 0 {
		return false
	}
	want := in.String()
	after, ok := strings.CutPrefix(printed, want)
	return !ok || after != "" && after[0] >= '0' && after[0] <= '9'
}
