// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/node"
)

const uninitLog = "0: R1=ctx() R10=fp0\n0: (bf) r0 = r2\nR2 !read_ok\nprocessed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n"

// The log buffer is the loader's own: what stands in it is the verifier's word only where it is
// known to be of this call.
func TestStaleLog(t *testing.T) {
	unproven := set(func(a *load.Attempt) { a.Evidence.LogUnproven = true })
	for _, test := range []struct {
		name    string
		attempt *load.Attempt
		node    *node.Profile
		rule    string
		how     load.HowKnown
		stage   load.Stage
		others  []string // among them
		says    string
		not     string
	}{
		{
			name: "the buffer was empty before the call", attempt: progLoad(13, unhooked(), log(uninitLog)),
			rule: "VER002", how: load.Observed, stage: load.Verifier, not: "earlier call",
		},
		{
			name: "it was not, EINVAL: of the request or of the verifier", attempt: progLoad(22, unhooked(), log(uninitLog), unproven),
			rule: "VER002", how: load.Inferred, stage: load.Verifier, others: []string{"REQ007", "VER099"},
			says: "held text before the call",
		},
		{
			name: "it was not, and the loader may not load", attempt: progLoad(1, unhooked(), log(uninitLog), unproven, caps(0)),
			node: hardenedHost("kernel.unprivileged_bpf_disabled", "2"),
			rule: "PERM002", how: load.Inferred, stage: load.Permission,
		},
		{
			name: "a good log in it", attempt: progLoad(22, unhooked(), log(cleanLog), unproven),
			rule: Unknown, how: load.Inferred, others: []string{"REQ007", "VER099"}, not: "accepted the program",
		},
		{
			name: "the verifier was watched and did not run", attempt: progLoad(22, hooked(load.Request, 22), spans(span(load.FnLoad, -22)), log(uninitLog)),
			rule: "REQ007", how: load.Observed, stage: load.Request, says: "the text in the loader's log buffer is not of this call", not: "R2",
		},
		{
			name:    "the log was left out before",
			attempt: progLoad(22, unhooked(), set(func(a *load.Attempt) { a.Evidence.LogStale = "the text is about other instructions" })),
			rule:    Unknown, how: load.Inferred, others: []string{"REQ007", "VER099"}, says: "about other instructions",
		},
		{
			name: "the verifier's own words, though its call was missed", attempt: progLoad(22, hooked("", 0), said("R2 !read_ok")),
			rule: "VER002", how: load.Observed, stage: load.Verifier,
		},
		{
			name: "the verifier was seen failing before it could write", attempt: progLoad(22, with(early(22), log(uninitLog), unproven)...),
			rule: "VER002", how: load.Inferred, stage: load.Verifier, others: []string{"VER099"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := test.node
			if n == nil {
				n = lab("6.12.12")
			}
			Conclude(test.attempt, n)
			d := test.attempt.Diagnosis
			dump := strings.Join(append([]string{d.Rule, d.Cause}, d.Evidence...), "\n")
			qt.Check(t, qt.Equals(d.Rule, test.rule), qt.Commentf("%s\n%+v", dump, d.Alternatives))
			qt.Check(t, qt.Equals(d.HowKnown, test.how))
			qt.Check(t, qt.Equals(test.attempt.FailedStage, test.stage))
			for _, want := range test.others {
				qt.Check(t, qt.IsTrue(slices.ContainsFunc(d.Alternatives, func(a load.Alternative) bool { return a.Rule == want })), qt.Commentf("%s: %+v", want, d.Alternatives))
			}
			qt.Check(t, qt.StringContains(dump, test.says))
			if test.not != "" {
				qt.Check(t, qt.IsFalse(strings.Contains(dump, test.not)), qt.Commentf("%s", dump))
			}
		})
	}
}
