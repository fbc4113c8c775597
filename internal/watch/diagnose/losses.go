// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// Bounds of the names of what lost something, of which a file may have any.
const (
	maxMechanisms  = 128
	maxMechanism   = 256 // bytes
	otherMechanism = "others"
)

// lossInterval is how long losses are added up before a line tells of them.
const lossInterval = 10 * time.Second

// mechanisms are the names that are told one by one.
type mechanisms map[string]bool

// bounded is the loss as it is told: under its own name while there is room for it.
func (m mechanisms) bounded(l *trace.Loss) *trace.Loss {
	switch {
	case m[l.Mechanism] || l.Mechanism == trace.LostLoads:
		return l
	case len(m) >= maxMechanisms || len(l.Mechanism) > maxMechanism:
		other := *l
		other.Mechanism = otherMechanism
		return &other
	}
	m[strings.Clone(l.Mechanism)] = true
	return l
}

// losses are what was lost since it was last told.
type losses struct {
	trace.Losses
	since time.Time // when the first of them came
}

func (l *losses) add(r *trace.Loss, now time.Time) {
	if l.since.IsZero() {
		l.since = now
	}
	l.Lose(r)
}

// due is what was lost, once it has been added up for long enough.
func (l *losses) due(now time.Time) (*load.Loss, bool) {
	if l.since.IsZero() || now.Sub(l.since) < lossInterval {
		return nil, false
	}
	return l.take(now)
}

// take is what was lost, if anything was.
func (l *losses) take(now time.Time) (*load.Loss, bool) {
	if l.since.IsZero() {
		return nil, false
	}
	was := *l
	*l = losses{}
	out := &load.Loss{Schema: load.Schema, Kind: load.KindLoss, Time: now, Loads: was.LostLoads, Events: was.Lost, Unknown: was.Unknown}
	if out.Events == nil {
		out.Events = map[string]uint64{}
	}
	return out, true
}
