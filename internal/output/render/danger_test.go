// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/load"
)

// TestDangerFirst: the danger follows what it is about, and comes before all else. Explain is what
// watch, run and explain print of an attempt, the others what explain prints of a text.
func TestDangerFirst(t *testing.T) {
	d := &load.Diagnosis{
		Rule: "BLIND003", Title: "Loaded but interpreted", Cause: "The kernel fell back.", Danger: "It may crash the machine.",
		Remedies: []load.Remedy{{ID: "do-not-run", Title: "Do not run the program"}},
	}
	for name, a := range attempts() {
		a.Diagnosis = d
		first(t, name, func(text *Text) error { return text.Explain(a) })
	}
	first(t, "text", func(text *Text) error { return text.Diagnosis(d) })
	first(t, "own", func(text *Text) error { return text.OwnDiagnosis(d) })
}

func first(t *testing.T, name string, print func(*Text) error) {
	t.Helper()
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(print(NewText(&b, 100, false))))
	lines := strings.Split(b.String(), "\n")
	at := 1
	for at < len(lines) && strings.HasPrefix(lines[at], "        ") { // of a long headline
		at++
	}
	qt.Assert(t, qt.IsTrue(at < len(lines)), qt.Commentf("%s: %s", name, b.String()))
	qt.Check(t, qt.Matches(lines[at], "  DANGER +It may crash the machine."), qt.Commentf("%s: %s", name, b.String()))
}
