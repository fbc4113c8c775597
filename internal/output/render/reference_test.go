// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/load"
)

// The texts of rules have paragraphs; none may reach the reader as an escaped newline.
func TestRuleParagraphs(t *testing.T) {
	paragraphs := 0
	for _, r := range explain.All() {
		var b bytes.Buffer
		qt.Assert(t, qt.IsNil(NewText(&b, 100, false).Rule(&r)))
		qt.Check(t, qt.IsFalse(strings.Contains(b.String(), `\x0a`)), qt.Commentf("%s", b.String()))
		paragraphs += strings.Count(r.Text, "\n\n")
	}
	qt.Check(t, qt.IsTrue(paragraphs > 0))
}

// Of error text nothing was seen, and nothing was captured.
func TestDiagnosisOfText(t *testing.T) {
	var b bytes.Buffer
	qt.Assert(t, qt.IsNil(NewText(&b, 200, false).Diagnosis(&load.Diagnosis{Rule: "VER002", HowKnown: load.Inferred})))
	qt.Check(t, qt.StringContains(b.String(), "from the text alone"))
	qt.Check(t, qt.IsFalse(strings.Contains(b.String(), "captured")))
}
