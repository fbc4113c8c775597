// SPDX-License-Identifier: Apache-2.0

package check

import "github.com/bpfwhy/bpfwhy/blinding"

// Confidence says how far a verdict can be relied on: an object is what the verifier is given, and
// what it makes of it is blinded.
type Confidence string

const (
	// Certain: it holds also with the most that the verifier is known to add.
	Certain Confidence = "certain"
	// Likely: it is so as the code stands; only code that the verifier finds dead could change it.
	Likely Confidence = "likely"
	// Possible: not as the code stands, but the verifier may add enough.
	Possible Confidence = "possible"
)

// MayOnly reports that it is only possible that a program does not load.
func (p *Program) MayOnly() bool { return p.Verdict != Loads && p.Confidence == Possible }

// judge says whether a program is one to reject. That it possibly does not load is not enough,
// unless that is asked for: the programs of which it is said are many, and most of them load.
func (r *Report) judge(p *Program) {
	p.Tight = r.Harden > 0 && p.Jump != nil && p.Margin >= 0 && p.Margin < r.MinMargin
	p.Rejected = p.Tight || p.Verdict != Loads && (!p.MayOnly() || r.FailOn == Possible)
}

// verdict errs to one side: what is said to load, loads.
func verdict(p *blinding.Prediction) (Verdict, Confidence) {
	switch {
	case p.Verdict.Wraps:
		return Wraps, Likely
	case p.Fate == blinding.Fails:
		return Fails, Likely // before anything can wrap
	case p.MayWrap:
		return Wraps, Possible
	case p.Fate == blinding.MayFail:
		return Fails, Possible
	}
	return Loads, Certain
}
