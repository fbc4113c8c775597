// SPDX-License-Identifier: Apache-2.0

package load

import "time"

// Replay is what became of a captured program that was loaded again, as it was and, where blinding
// may be the reason, repaired. It is made on request only.
type Replay struct {
	Verdict ReplayVerdict `json:"verdict"`
	// Why says, in one line, why it is not reproduced, discarded or refused.
	Why string `json:"why,omitempty"`
	// Kernel is the release on which it was loaded again, Harden its net.core.bpf_jit_harden, -1
	// unknown.
	Kernel string `json:"kernel,omitempty"`
	Harden int    `json:"harden"`
	// Original is what became of the program as it was captured, nil when it was not loaded.
	Original *Trial `json:"original,omitempty"`
	// Repaired is the same program with jump islands, nil when it was not loaded.
	Repaired *Trial `json:"repaired,omitempty"`
	// Notes say in what the second load differed from the recorded one.
	Notes []string `json:"notes,omitempty"`
}

// ReplayVerdict is what a replay showed.
type ReplayVerdict string

// Reproduced is also a HowKnown. NotReproduced: the program ended otherwise here, or it cannot be
// told whether for the same reason. Discarded: it was not or could not be loaded in the same
// surroundings, so that the outcome would say nothing. Refused: it must not be loaded here, or
// cannot be.
const (
	ReplayReproduced    ReplayVerdict = "reproduced"
	ReplayNotReproduced ReplayVerdict = "not_reproduced"
	ReplayDiscarded     ReplayVerdict = "discarded"
	ReplayRefused       ReplayVerdict = "refused"
)

// Trial is one load of a replay.
type Trial struct {
	Outcome    Outcome       `json:"outcome"`
	Errno      int           `json:"errno"` // positive, 0 when loaded
	ErrnoName  string        `json:"errno_name,omitempty"`
	DurationNS time.Duration `json:"duration_ns"`
	Insns      int           `json:"insns"`                 // 8-byte slots submitted
	JITedBytes int           `json:"jited_bytes,omitempty"` // 0: not compiled
	Islands    int           `json:"islands,omitempty"`     // of the repaired program
}
