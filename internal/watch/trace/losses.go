// SPDX-License-Identifier: Apache-2.0

package trace

import "slices"

// Losses adds up what was lost. Its JSON is part of a summary.
type Losses struct {
	Lost      map[string]uint64 `json:"lost"`       // events by mechanism
	LostLoads uint64            `json:"lost_loads"` // failing loads that are in no attempt
	Unknown   []string          `json:"unknown"`    // counters of losses that could not be read
}

// Lose counts a loss.
func (l *Losses) Lose(r *Loss) {
	switch {
	case r.Unknown:
		if !slices.Contains(l.Unknown, r.Mechanism) {
			l.Unknown = append(l.Unknown, r.Mechanism)
		}
	case r.Mechanism == LostLoads:
		l.LostLoads += r.Count
	default:
		if l.Lost == nil {
			l.Lost = map[string]uint64{}
		}
		l.Lost[r.Mechanism] += r.Count
	}
}

// Whole reports whether nothing was lost, as far as is known.
func (l *Losses) Whole() bool { return len(l.Lost) == 0 && l.LostLoads == 0 && len(l.Unknown) == 0 }
