// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/bpfwhy/bpfwhy/blinding"
	"github.com/bpfwhy/bpfwhy/internal/object"
)

// Confidence says how far a verdict can be relied on. What is blinded is the verifier's output, and an object is its input.
type Confidence string

const (
	// Certain: nothing that the verifier does can change the verdict.
	Certain Confidence = "certain"
	// Likely: the verdict holds if the verifier adds no more than estimated.
	Likely Confidence = "likely"
	// Uncertain: the jump is so near its limit that what the verifier removes or adds may decide.
	Uncertain Confidence = "uncertain"
)

// judgement is a verdict of the model with what is known of the verifier's part.
type judgement struct {
	blinding.Verdict
	verdict    Verdict
	confidence Confidence
	drift      int
	time       time.Duration
}

func judge(l *object.Linked, k blinding.Kernel) (judgement, error) {
	v, err := blinding.CheckFunctions(l.Insns, l.Functions, k)
	if err != nil {
		return judgement{}, err
	}
	j := judgement{Verdict: v, verdict: Loads, confidence: Likely}
	switch {
	case v.Wraps:
		j.verdict = Wraps
	case !v.Fits:
		j.verdict = Fails
	}
	return j, nil
}
