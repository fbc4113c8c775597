// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"

	"github.com/bpfwhy/bpfwhy/load"
)

// repaired reports that the program was loaded again, ended as recorded, and with jump islands was
// compiled: nothing but blinding makes that difference.
func (f *Facts) repaired() bool {
	r := f.Attempt.Replay
	return r != nil && r.Verdict == load.ReplayReproduced && r.Repaired != nil && r.Repaired.JITedBytes > 0
}

// replayed adds to a diagnosis what a second load of the program showed.
func (f *Facts) replayed(d *load.Diagnosis) {
	r := f.Attempt.Replay
	if r == nil {
		return
	}
	where := fmt.Sprintf("loaded again on %s", printable(r.Kernel, 100))
	if r.Harden >= 0 {
		where += fmt.Sprintf(" with net.core.bpf_jit_harden=%d", r.Harden)
	}
	var say []string
	switch r.Verdict {
	case load.ReplayReproduced:
		s := where + " and with the loader's capabilities, it " + trial(r.Original) + ", as recorded"
		if f.repaired() {
			s += fmt.Sprintf("; with %s it %s", countOf(r.Repaired.Islands, "jump island"), trial(r.Repaired))
		}
		say = append(say, s)
		if d.Rule != Unknown {
			d.HowKnown = load.Reproduced
		}
	case load.ReplayNotReproduced:
		say = append(say, where+", and not reproduced: "+printable(r.Why, 600))
	case load.ReplayDiscarded:
		say = append(say, "loading it again proves nothing: "+printable(r.Why, 600))
	default:
		say = append(say, "not loaded again: "+printable(r.Why, 600))
	}
	if r.Original != nil {
		for _, n := range r.Notes {
			say = append(say, "of the second load: "+printable(n, 300))
		}
	}
	d.Evidence = append(d.Evidence, say...)
	// The words of another load are no observation of this one.
	if f.Attempt.VerifierLog.Origin == load.LogReplay && d.HowKnown == load.Observed {
		d.HowKnown = load.Inferred
	}
}

func trial(t *load.Trial) string {
	switch {
	case t == nil:
		return "ended"
	case t.Outcome == load.Failed:
		return fmt.Sprintf("fails with -%d (%s)", t.Errno, errnoName(t.Errno))
	case t.JITedBytes == 0:
		return "loads and is not compiled"
	}
	return fmt.Sprintf("loads and is compiled (%d bytes)", t.JITedBytes)
}
