// SPDX-License-Identifier: Apache-2.0

package verifierlog

import (
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/test/cputime"
)

// A log is what a loader put into its buffer: of any content, of any length. It is read in a
// moment.
func TestHostileLog(t *testing.T) {
	long := func(s string) string { return strings.Repeat(s, maxLine/len(s)+1)[:maxLine-8] + "\n" }
	for name, text := range map[string]string{
		"arguments":    strings.Repeat("arg#"+long("R0"), defaultMaxLines),
		"complaints":   strings.Repeat(long("R0 "), defaultMaxLines),
		"registers":    strings.Repeat("0: "+long("R1=ctx "), defaultMaxLines),
		"instructions": strings.Repeat("0: (95) "+long("goto pc+1 "), defaultMaxLines),
		"sources":      strings.Repeat("; "+long("a @ b:1 "), defaultMaxLines),
		"stats":        strings.Repeat(long("processed 1 insns "), defaultMaxLines),
		"report":       strings.Repeat("Verification failed: a: b\nAt:\n"+long(">>> 1 | (95) "), defaultMaxLines/3),
		"sections":     "Verification failed: a: b\n" + strings.Repeat("Causal path:\n"+long("| ^-- a: insn 1 "), defaultMaxLines/2),
		"annotations":  "Verification failed: a: b\nAt:\ninsn 1\n| ^-- a: b\n" + strings.Repeat("|      "+long("x"), defaultMaxLines-8),
		"said late":    "0: (95) exit\nprocessed 1 insns\n" + strings.Repeat(long("R0 "), defaultMaxLines-2),
		"validating":   strings.Repeat("Validating f() func#1\n", 1<<20/22),
		"no lines":     strings.Repeat("x", 64<<20),
		"bare lines":   strings.Repeat("\n", 64<<20),
		"broken":       strings.Repeat("\xff", 16<<20),
	} {
		t.Run(name, func(t *testing.T) {
			took := cputime.Of(func() {
				l := Parse(text, Options{})
				l.History("R0")
			})
			t.Logf("%d bytes in %v", len(text), took)
			qt.Check(t, qt.IsTrue(took < time.Second), qt.Commentf("%v", took))
		})
	}
}

// A message that matches has one of the strings that are looked for first.
func TestNeeds(t *testing.T) {
	without := 0
	for _, w := range wordings {
		if len(w.pattern.Needs()) == 0 {
			without++
		}
		qt.Check(t, qt.IsTrue(w.pattern.MayMatch(w.pattern.Compiled().FindString(w.Sample))), qt.Commentf("%s: %q", w.pattern.Compiled(), w.pattern.Needs()))
	}
	qt.Check(t, qt.IsTrue(without < 5), qt.Commentf("%d of %d", without, len(wordings)))
}

func FuzzClassify(f *testing.F) {
	for _, w := range wordings {
		f.Add(w.Sample)
	}
	f.Fuzz(func(t *testing.T, s string) {
		s = s[:min(len(s), 300)]
		got := Classify(s)
		for _, w := range wordings { // the plain way
			if w.pattern.MatchString(s) {
				if got.Kind != w.Kind && w.refine == nil {
					t.Fatalf("%q is %s, not %s", s, w.Kind, got.Kind)
				}
				return
			}
		}
		if got.Kind != Unknown {
			t.Fatalf("%q is %s", s, got.Kind)
		}
	})
}
