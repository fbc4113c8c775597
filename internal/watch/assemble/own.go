// SPDX-License-Identifier: Apache-2.0

package assemble

import (
	"slices"

	"github.com/bpfwhy/bpfwhy/insn"
	"github.com/bpfwhy/bpfwhy/internal/sys/selfprobe"
)

var ownProbes = []programProbe{
	{own: true, by: "bpfwhy", what: "helper", name: selfprobe.Name, insns: selfprobe.Helper(anyCall.Imm)},
	{own: true, by: "bpfwhy", what: "gotol", name: selfprobe.Name, insns: selfprobe.Gotol()},
	{own: true, by: "bpfwhy", what: "movsx", name: selfprobe.Name, insns: selfprobe.Movsx()},
	{own: true, by: "bpfwhy", what: "bounded loops", name: selfprobe.Name, insns: selfprobe.Loop()},
	{own: true, by: "bpfwhy", what: "whether a load works", name: selfprobe.Name, insns: selfprobe.Trivial()},
	{own: true, by: "bpfwhy", what: "whether programs are freed", name: selfprobe.Name, insns: selfprobe.Map(0)},
}

// matchesTag reports whether a tag is that of a row's instructions, whichever helper they call.
func matchesTag(row []insn.Instruction, tag [8]byte) bool {
	at := slices.Index(row, anyCall)
	if at < 0 {
		return insn.MatchesTag(row, tag)
	}
	prog := slices.Clone(row)
	for id := int32(1); ; id++ {
		if _, ok := insn.HelperByID(int(id)); !ok {
			return false
		}
		if prog[at].Imm = id; insn.MatchesTag(prog, tag) {
			return true
		}
	}
}
