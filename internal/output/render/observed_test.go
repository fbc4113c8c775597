// SPDX-License-Identifier: Apache-2.0

package render

import (
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/load"
	"github.com/go-quicktest/qt"
)

// A policy that refuses bpf(2) is observed by the end of the call, though the stage has no record:
// the text must not say of the same stage that it was not observed.
func TestObservedFailureIsNotUnobserved(t *testing.T) {
	a := load.Attempt{
		Kind: load.ProgLoad, Outcome: load.Failed, Errno: 1, FailedStage: load.Request,
		Stages:    []load.StageResult{{Stage: load.Request, Result: load.NotObserved}, {Stage: load.Verifier, Result: load.NotObserved}},
		Diagnosis: &load.Diagnosis{Rule: "PERM006", HowKnown: load.Observed},
	}
	text := func() string {
		var b strings.Builder
		qt.Assert(t, qt.IsNil(NewText(&b, 0, false).Explain(&a)))
		return b.String()
	}
	said := text()
	qt.Check(t, qt.StringContains(said, "not observed: verifier\n"))
	qt.Check(t, qt.StringContains(said, "failed in request\n"))

	a.Diagnosis.HowKnown = load.Inferred
	qt.Check(t, qt.StringContains(text(), "not observed: request, verifier\n"))
}
