// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/load"
)

// A second load counts for as much as it showed, and no more.
func TestReplay(t *testing.T) {
	failed := &load.Trial{Outcome: load.Failed, Errno: 524, ErrnoName: "ENOTSUPP", Insns: 100}
	compiled := &load.Trial{Outcome: load.Loaded, JITedBytes: 4096, Insns: 102, Islands: 2}
	for _, test := range []struct {
		name    string
		attempt *load.Attempt
		replay  load.Replay
		rule    string
		how     load.HowKnown
		says    string
	}{
		// Nothing was seen of how it failed: the repair alone tells.
		{"blinding", progLoad(524), load.Replay{Verdict: load.ReplayReproduced, Kernel: "6.1.0", Harden: 2, Original: failed, Repaired: compiled, Notes: []string{"stand-ins"}},
			"BLIND001", load.Reproduced,
			"loaded again on 6.1.0 with net.core.bpf_jit_harden=2 and with the loader's capabilities, it fails with -524 (ENOTSUPP), as recorded; with two jump islands it loads and is compiled (4096 bytes)"},
		{"a note", progLoad(524), load.Replay{Verdict: load.ReplayReproduced, Harden: -1, Original: failed, Repaired: compiled, Notes: []string{"stand-ins"}},
			"BLIND001", load.Reproduced, "of the second load: stand-ins"},
		{"the islands did not help", progLoad(524), load.Replay{Verdict: load.ReplayNotReproduced, Why: "no", Original: failed, Repaired: failed},
			Unknown, load.Inferred, "and not reproduced: no"},
		{"an unknown cause stays unknown", progLoad(524), load.Replay{Verdict: load.ReplayReproduced, Original: failed},
			Unknown, load.Inferred, "as recorded"},
		{"seen, and not here", progLoad(524, harden(2), spans(spanArg(load.FnPatch, -34, 10), span(load.FnBlind, -34), span(load.FnSelect, -524), span(load.FnLoad, -524))),
			load.Replay{Verdict: load.ReplayNotReproduced, Why: "here it loads"}, "BLIND001", load.Observed, "not reproduced: here it loads"},
		{"discarded", progLoad(524), load.Replay{Verdict: load.ReplayDiscarded, Why: "which maps?"}, Unknown, load.Inferred, "loading it again proves nothing: which maps?"},
		{"refused", progLoad(524), load.Replay{Verdict: load.ReplayRefused, Why: "a \x1b[31mtoken"}, Unknown, load.Inferred, `not loaded again: a \x1b[31mtoken`},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := test.attempt
			a.Replay = &test.replay
			Conclude(a, nil)
			qt.Check(t, qt.Equals(a.Diagnosis.Rule, test.rule))
			qt.Check(t, qt.Equals(a.Diagnosis.HowKnown, test.how))
			qt.Check(t, qt.StringContains(strings.Join(a.Diagnosis.Evidence, "\n"), test.says))
		})
	}
}
