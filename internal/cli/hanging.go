// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"context"
	"errors"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
	"github.com/bpfwhy/bpfwhy/internal/watch/diagnose"
	"github.com/bpfwhy/bpfwhy/internal/watch/hang"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// unmoved is how long threads must wait in the same load before doctor tells of them. How long they
// have waited before is not to be had.
const unmoved = 2 * time.Second

// waiting are the threads that waited inside a load at one time.
type waiting struct {
	at      uint64 // monotonic ns
	threads []hang.Thread
}

func scanWaiting() waiting { return waiting{monotonic(), hang.Scan()} }

// still returns those that have not moved since, nil when there are none.
func (w waiting) still() *load.Hang {
	if len(w.threads) == 0 {
		return nil
	}
	time.Sleep(unmoved - time.Duration(monotonic()-w.at))
	r := &trace.Hang{After: uint64(unmoved)}
	for _, t := range hang.Still(w.threads) {
		r.Calls = append(r.Calls, capture.Earlier(t, w.at))
	}
	if len(r.Calls) == 0 {
		return nil
	}
	r.At = monotonic()
	return diagnose.Hang(trace.Header{Epoch: time.Now().UnixNano() - int64(r.At)}, r)
}

// loadsHang returns an error when loads do not come back on this machine. That it could not be
// tried is none.
func loadsHang(ctx context.Context) error {
	err := hang.First(ctx, hang.Deadline)
	if errors.As(err, new(*hang.Error)) || ctx.Err() != nil {
		return err
	}
	return nil
}
