// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package reader

import (
	"context"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/serve/stream"
)

// An audit is made when it is time, once for what is loaded, and never twice at a time.
func TestAudits(t *testing.T) {
	made := 0
	o := Options{Audit: func(context.Context) (*fleet.Audit, error) { made++; return &fleet.Audit{}, nil }}
	start := time.Now()
	a := newAudits(t.Context(), o)
	one := &stream.Facts{Loads: map[string]uint64{"xdp": 1}}
	ask := func(after time.Duration, f *stream.Facts) *fleet.Audit {
		known := a.last(start.Add(after), f)
		a.wait()
		return known
	}
	qt.Check(t, qt.IsNil(ask(0, one)))
	qt.Check(t, qt.Equals(made, 0))
	ask(time.Minute, one)
	qt.Check(t, qt.Equals(made, 1))
	qt.Check(t, qt.IsNotNil(ask(time.Hour, one)))
	qt.Check(t, qt.Equals(made, 1), qt.Commentf("nothing has changed"))
	two := &stream.Facts{Loads: map[string]uint64{"xdp": 2}}
	ask(time.Minute+auditInterval/2, two)
	qt.Check(t, qt.Equals(made, 1), qt.Commentf("too soon"))
	ask(2*time.Hour, two)
	qt.Check(t, qt.Equals(made, 2))
}
