// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package reader

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/serve/stream"
)

// An audit comes soon after the start, when agents have loaded what they load, and again where
// programs have come or gone since.
const (
	firstAudit    = 30 * time.Second
	auditInterval = 10 * time.Minute
)

// audits asks from time to time, beside the reader.
type audits struct {
	Options
	ctx context.Context

	due  time.Time
	of   string // what was loaded at the last one
	busy sync.WaitGroup

	mu      sync.Mutex
	running bool
	said    bool
	known   *fleet.Audit
}

func newAudits(ctx context.Context, o Options) *audits {
	return &audits{Options: o, ctx: ctx, due: time.Now().Add(firstAudit)}
}

// last returns what the last audit said, nil before the first, and begins another when it is time.
// f says what is loaded now.
func (a *audits) last(now time.Time, f *stream.Facts) *fleet.Audit {
	a.mu.Lock()
	defer a.mu.Unlock()
	if loaded := fmt.Sprint(f.Kernel, f.Loads); !a.running && !now.Before(a.due) && loaded != a.of {
		a.of, a.due, a.running = loaded, now.Add(auditInterval), true
		a.busy.Go(a.run)
	}
	return a.known
}

func (a *audits) run() {
	found, err := a.Audit(a.ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running = false
	if err == nil {
		a.known = found
	}
	if err != nil && a.ctx.Err() == nil && !a.said {
		a.Say("serve: %v", err)
	}
	a.said = err != nil
}

func (a *audits) wait() { a.busy.Wait() }
