// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// What a loader puts in place of something that it could not resolve.
type poison int

const (
	notPoison poison = iota
	poisonField
	poisonMap
	poisonKfunc

	coreRelocationPoison = 0xbad2310
	absentKfuncPoison    = 0xdedc0de // cilium/ebpf's, for a weak kfunc that the kernel lacks
)

func poisonOf(call int) poison {
	switch {
	case call == coreRelocationPoison:
		return poisonField
	case call >= 2_001_000_000 && call < 2_002_000_000:
		return poisonMap
	case call >= 2_002_000_000 && call < 2_003_000_000, call == absentKfuncPoison:
		return poisonKfunc
	}
	return notPoison
}

// poison says what the verifier stopped at, by its words or by the instruction.
func (f *Facts) poison() poison {
	if !f.words.empty() {
		if !f.words.is(verifierlog.Poison) {
			return notPoison
		}
		if n, err := strconv.Atoi(f.words.arg("poison")); err == nil {
			return poisonOf(n)
		}
		switch {
		case strings.Contains(f.words.message, "CO-RE"):
			return poisonField
		case strings.Contains(f.words.message, "BPF map"):
			return poisonMap
		}
		return poisonKfunc
	}
	i := f.ev.FailedInsn
	if f.cause(load.FnDoCheck) == nil || i < 0 || i >= len(f.ev.Insns) || !f.ev.Insns[i].IsHelperCall() {
		return notPoison
	}
	return poisonOf(int(f.ev.Insns[i].Imm))
}
