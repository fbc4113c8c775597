// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"io"
	"iter"
	"math"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// A Feed gives records in the order of their events. An error ends it, and comes with the time at
// which it came.
type Feed = iter.Seq2[Step, error]

// A Step is one record, or says that time has passed.
type Step struct {
	// Record has no field set where Tick is.
	Record trace.Record
	Tick   bool
	// Seen is the time, in ns of the kernel's monotonic clock, before which everything has come. A
	// tick of a file has none: its calls tell.
	Seen uint64
	// Now is the time of day, in a file that of its recording.
	Now time.Time
}

// Source is a running kernel.
type Source interface {
	Next() (trace.Record, error) // io.EOF after Close
	Close() error
	// Behind reports that events have come, of which Next has not given all records.
	Behind() bool
}

// How often time passes, and by how much the clock is set back for it: what happened before that is
// no longer on its way through the buffers.
const (
	patience = 50 * time.Millisecond
	lateness = 100 * time.Millisecond
)

// queued records wait between the reader of a source and who takes them.
const queued = 16

// Queued is how many records a live feed holds at most: those that wait, the one that was read, and
// the one that was taken.
const Queued = queued + 2

// Live reads from a kernel until the channel stop gives something, and then to the end of what is
// buffered. clock is the kernel's monotonic clock in ns.
func Live(s Source, stop <-chan struct{}, clock func() uint64) Feed {
	return LiveEvery(func(time.Duration) time.Duration { return patience }, s, stop, clock)
}

// LiveEvery is Live for which time passes at other intervals: every says how long until the next
// tick, by how long no record has come.
func LiveEvery(every func(quiet time.Duration) time.Duration, s Source, stop <-chan struct{}, clock func() uint64) Feed {
	return func(yield func(Step, error) bool) {
		type read struct {
			trace.Record
			error
		}
		records := make(chan read, queued)
		done := make(chan struct{})
		defer close(done)
		go func() {
			for {
				r, err := s.Next()
				select {
				case records <- read{r, err}:
				case <-done:
					return
				}
				if err != nil {
					return
				}
			}
		}()
		came := time.Now()
		due := came.Add(every(0))
		tick := time.NewTimer(every(0))
		defer tick.Stop()
		var last uint64 // end of a call
		for stop := stop; ; {
			step := Step{Tick: true}
			var err error
			select {
			case r := <-records:
				step, err = Step{Record: r.Record}, r.error
				came = time.Now()
				if soon := came.Add(every(0)); soon.Before(due) {
					due = soon
					tick.Reset(time.Until(due))
				}
				if r.Call != nil { // a loss is told as it is found
					last = max(last, r.Call.End)
				}
			case now := <-tick.C:
				due = time.Now().Add(every(now.Sub(came)))
				tick.Reset(time.Until(due))
				// What comes late, since another took long to be looked at, is not to be taken for
				// what does not come.
				if step.Seen = clock() - uint64(lateness); s.Behind() || len(records) > 0 {
					step.Seen = min(step.Seen, last)
				}
			case <-stop:
				stop, err = nil, s.Close()
				step.Seen = last
			}
			step.Now = time.Now()
			if !next(yield, step, err) {
				return
			}
		}
	}
}

// atMost is how many records of a file are read before time passes, however little time they are
// of.
const atMost = 256

// File reads a recorded trace to its end.
func File(r *trace.Reader) Feed {
	epoch := time.Unix(0, r.Header().Epoch)
	return func(yield func(Step, error) bool) {
		var clock, ticked uint64
		for unticked := 1; ; unticked++ {
			rec, err := r.Next()
			clock = max(clock, when(&rec))
			now := epoch.Add(time.Duration(min(clock, math.MaxInt64))).UTC()
			if !next(yield, Step{Record: rec, Now: now}, err) {
				return
			}
			if clock-ticked < uint64(patience) && unticked < atMost {
				continue
			}
			ticked, unticked = clock, 0
			if !yield(Step{Tick: true, Now: now}, nil) {
				return
			}
		}
	}
}

// when is the time of a record, in ns of the kernel's monotonic clock; 0 where it has none.
func when(r *trace.Record) uint64 {
	switch {
	case r.Call != nil:
		return r.Call.End
	case r.Loss != nil:
		return r.Loss.To
	case r.Hang != nil:
		return r.Hang.At
	}
	return 0
}

// next yields a step, or the error that ends a feed, and reports whether there is more to come.
func next(yield func(Step, error) bool, s Step, err error) bool {
	return err != io.EOF && yield(s, err) && err == nil
}

// Of gives records that were read before. No time passes in it.
func Of(records []trace.Record) Feed {
	return func(yield func(Step, error) bool) {
		for _, r := range records {
			if !yield(Step{Record: r}, nil) {
				return
			}
		}
	}
}
