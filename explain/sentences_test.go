// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/verifierlog"
)

// Each sentence that the verifier is known to say leads to a rule or to its note, and the answer
// says more than the sentence.
func TestSentences(t *testing.T) {
	for _, w := range verifierlog.Wordings() {
		kind := load.ProgLoad
		switch w.Kind {
		case verifierlog.BTFData:
			kind = load.BTFLoad
		case verifierlog.MapAttribute:
			kind = load.MapCreate
		}
		errno := 22
		switch w.Kind {
		case verifierlog.NeedsJIT:
			errno = 524
		case verifierlog.PatchRange:
			errno = 12
		}
		a := attempt(kind, errno, unhooked(), caps(0), log(w.Sample+"\n"))
		d := Explain(a, lab("6.12.1"))
		note := verifierlog.Classify(w.Sample).Note
		qt.Check(t, qt.Not(qt.Equals(d.Rule, Unknown)), qt.Commentf("%s", w.Sample))
		if d.Rule == "VER099" {
			qt.Check(t, qt.Not(qt.Equals(note.Means, "")), qt.Commentf("%s: %s", w.Sample, d.Cause))
		}
		if note.Means != "" {
			qt.Check(t, qt.IsTrue(d.Cause == note.Means || !strings.Contains(d.Cause, w.Sample)), qt.Commentf("%s: %s: %s", w.Sample, d.Rule, d.Cause))
			qt.Check(t, qt.IsTrue(len(d.Remedies) > 0 && d.Remedies[0].ID == "sentence"), qt.Commentf("%s: %s", w.Sample, d.Rule))
		}
	}
}
