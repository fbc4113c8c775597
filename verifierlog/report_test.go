// SPDX-License-Identifier: Apache-2.0

package verifierlog

import (
	"testing"

	"github.com/go-quicktest/qt"
)

func TestReportWithoutSource(t *testing.T) {
	l := Parse(read(t, "report-uninit.log"), Options{})
	qt.Check(t, qt.Equals(l.Message, "R0 !read_ok"))
	qt.Check(t, qt.Equals(l.Match.Kind, UninitRegister))
	qt.Check(t, qt.Equals(l.Insn, 0))
	qt.Check(t, qt.Equals(l.Instruction, "exit"))
	qt.Check(t, qt.IsNil(l.Source))
	qt.Check(t, qt.IsFalse(l.Truncated))
	qt.Check(t, qt.DeepEquals(l.Report, &Report{
		Category:   "Register Type Safety",
		Problem:    "Unreadable register",
		Reason:     "R0 has never been initialized on this path, so the verifier cannot use it as an input.",
		Suggestion: "Initialize R0 on every path before this instruction.",
		Insn:       0,
		At:         []string{"insn 0", "| ^-- error: R0 is not readable", "Instruction context:", ">>> 0 | (95) exit"},
		CausalPath: []string{"no retained diagnostic events on this path"},
	}))
}

func TestReportWithSource(t *testing.T) {
	for _, name := range []string{"report-null.log", "report-null-lanes.log"} {
		l := Parse(read(t, name), Options{})
		c := qt.Commentf("%s", name)
		qt.Check(t, qt.Equals(l.Message, "R0 invalid mem access 'map_value_or_null'"), c)
		qt.Check(t, qt.Equals(l.Insn, 12), c)
		qt.Check(t, qt.DeepEquals(l.Source, &Source{File: "t.bpf.c", Line: 8, Column: 5, Func: "count", Text: "*n += 1;"}), c)
		r := l.Report
		qt.Check(t, qt.Equals(r.Category, "Register Type Safety"), c)
		qt.Check(t, qt.Equals(r.Problem, "Invalid dereference"), c)
		qt.Check(t, qt.Equals(r.Reason, "R0 may be NULL here (a nullable map value pointer). The program could dereference NULL on this path, so the verifier cannot prove this access is safe."), c)
		qt.Check(t, qt.Equals(r.Suggestion, "Check R0 for NULL before dereferencing it."), c)
		qt.Check(t, qt.Equals(r.Insn, 12), c)
		qt.Check(t, qt.DeepEquals(r.Events, []Event{{
			Insn: 11, Source: "count @ t.bpf.c:7:13", Label: "update",
			Text: "R0 changed from uninitialized value to nullable map value from seen at offset 0",
		}}), c)
	}
}

// A buffer that keeps only the tail may have lost the message itself.
func TestReportAlone(t *testing.T) {
	l := Parse("Verification failed: Memory Safety: Access outside bounds\n\nReason:\n  Too far.\n\nAt:\n  insn 7\n", Options{})
	qt.Check(t, qt.Equals(l.Message, "Access outside bounds"))
	qt.Check(t, qt.Equals(l.Insn, 7))
	qt.Check(t, qt.Equals(l.Report.Reason, "Too far."))
}
