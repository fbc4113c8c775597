// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/audit"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/node"
	"github.com/go-quicktest/qt"
	"github.com/mattn/go-runewidth"
)

// TestAuditStatus: a script that hardens after a status of 0 does so after a yes alone.
func TestAuditStatus(t *testing.T) {
	for a, want := range map[audit.Answer]int{audit.Yes: 0, audit.No: 1, audit.Unsure: 1, audit.Nothing: 3, "": 1} {
		qt.Check(t, qt.Equals(codeOf(auditStatus(a)), want), qt.Commentf("%s", a))
	}
}

// TestPrintAudit: what breaks comes first, and names of programs and processes are harmless.
func TestPrintAudit(t *testing.T) {
	margin, far, no := 120, -3, false
	r := &audit.Report{Remedies: explain.BlindingRemedies(&node.Profile{}, true, true), Summary: audit.Summary{Sentence: "No: \x1b]0;x\a.", Programs: 2, JITed: 2, Vanished: 1},
		Programs: []audit.Program{
			{ID: 3, Name: "healthy", Type: "xdp", Insns: 20, JITed: true, Blinded: &no, Owners: []audit.Owner{{PID: 9, Comm: "agent", Container: "docker://1"}},
				MoreOwners: 2, At1: audit.Fate{Outcome: audit.JITed}, At2: audit.Fate{Outcome: audit.JITed, Margin: &margin}},
			{ID: 4, Name: "\x1b[31mevil", Type: "kprobe", Insns: 30000, JITed: true, Owners: []audit.Owner{}, Pins: []string{"/sys/fs/bpf/\u202e"},
				At1: audit.Fate{Outcome: audit.JITed},
				At2: audit.Fate{Outcome: audit.Fails, Rule: "BLIND001", Margin: &far, Why: "524", Jump: &audit.Jump{From: 1, To: 29000, Need: 32770, Limit: 32767}}},
		}}
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(printAudit(render.NewText(&b, 0, false), r)))
	out := b.String()
	for _, bad := range []string{"\x1b", "\a", "\u202e"} {
		qt.Check(t, qt.IsFalse(strings.Contains(out, bad)), qt.Commentf("%q", bad))
	}
	lines := strings.Split(out, "\n")
	qt.Check(t, qt.Matches(lines[1], ` *4  \\x1b\[31mevil .* FAILS +-3  pin /sys/fs/bpf/.*`))
	qt.Check(t, qt.Matches(lines[2], ` *3  healthy .* no .* jited +120  agent\[9\] and 2 more in docker://1`))
	qt.Check(t, qt.StringContains(out, "the jump from slot 1 to 29000 would need the offset 32770, and the"))
	qt.Check(t, qt.StringContains(out, "1 more were unloaded"))
	for _, way := range []string{"BLIND001, Constant blinding made a jump too long ('bpfwhy explain BLIND001' tells more)", "fixes", "bpfwhy fix prog.o",
		"bpfwhy run --repair -- LOADER", "loader.NewCollection", "net.core.bpf_jit_harden = 1"} {
		qt.Check(t, qt.StringContains(out, way))
	}

	// On a terminal of 80 columns no line of the table is wider, and what decides stays.
	r.Programs[0].At1.Outcome, r.Programs[0].At2.Outcome = audit.FailsOrNotJITed, audit.FailsOrNotJITed
	b.Reset()
	qt.Assert(t, qt.IsNil(printAudit(render.NewText(&b, 80, false), r)))
	for _, line := range strings.Split(b.String(), "\n")[:3] {
		qt.Check(t, qt.IsTrue(runewidth.StringWidth(line) <= 80), qt.Commentf("%s", line))
	}
	qt.Check(t, qt.StringContains(b.String(), "  FAILS or NOT jited     120  agent[9] and 2 m"))

	// A node with a leak does not fill the screen.
	for i := range 3000 {
		r.Programs = append(r.Programs, audit.Program{ID: uint32(100 + i), Name: fmt.Sprint(i), At2: audit.Fate{Outcome: audit.Unknown, Why: "why"}})
	}
	b.Reset()
	qt.Assert(t, qt.IsNil(printAudit(render.NewText(&b, 0, false), r)))
	qt.Check(t, qt.StringContains(b.String(), "2502 more programs; --json has them all"))
	qt.Check(t, qt.IsTrue(strings.Count(b.String(), "\n") < 600))
}

// TestPrintAuditDanger: what may crash the machine comes before all else that is said below the
// table.
func TestPrintAuditDanger(t *testing.T) {
	r := &audit.Report{Summary: audit.Summary{Sentence: "DANGER: one of them may crash the machine when interpreted. No.", Programs: 2}, Programs: []audit.Program{
		{ID: 3, Name: "now", Danger: "It may crash the machine.", At2: audit.Fate{Outcome: audit.NotJITed}},
		{ID: 4, Name: "then", At2: audit.Fate{Outcome: audit.Fails, Danger: "It may not end.", Jump: &audit.Jump{Need: 32770, Limit: 32767}, Why: "524"}},
	}}
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(printAudit(render.NewText(&b, 100, false), r)))
	_, said, ok := strings.Cut(b.String(), "DANGER: one of them")
	qt.Assert(t, qt.IsTrue(ok))
	said = strings.Join(strings.Fields(said), " ")
	qt.Check(t, qt.StringContains(said, "No. DANGER - then (id 4) would be interpreted at 2. It may not end. - now (id 3) is interpreted now. It may crash the machine. harden "))
}
