// SPDX-License-Identifier: Apache-2.0

// Package diagnose is the way from records to what is told: attempts with their diagnoses, counts
// of those that are alike, losses, loads that do not come back. A running kernel and a recorded
// file take the same way. It is pure.
package diagnose

import (
	"errors"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/bpfwhy/bpfwhy/explain"
	"github.com/bpfwhy/bpfwhy/internal/watch/assemble"
	"github.com/bpfwhy/bpfwhy/internal/watch/repeat"
	"github.com/bpfwhy/bpfwhy/internal/watch/story"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// An Event is one thing to tell or to count. One of its pointers is set.
type Event struct {
	// Attempt is an attempt with its diagnosis.
	Attempt *load.Attempt
	// Hidden says that the attempt is not one of those that were asked for. It may have no
	// diagnosis then.
	Hidden bool
	// Repeat says that an attempt like it was told, and that a later summary counts this one.
	Repeat bool
	// Repeats counts attempts that were not told one by one.
	Repeats *load.Summary
	// Lost is a loss as it was found, Loss the sum of those since the last one was told.
	Lost *trace.Loss
	Loss *load.Loss
	// Hang are loads that do not come back. None: those that were told of have.
	Hang *load.Hang
	// Story sums up what a process did until it was quiet. Only where the feed holds the healthy
	// calls too.
	Story *load.Story
	// Strays are calls that are in no attempt, since they turned out to be no load. All other calls
	// are one of an attempt's, which are its retries and one more.
	Strays uint64
}

// Options say what is told. The zero value tells every attempt.
type Options struct {
	// Shows says which attempts are asked for; nil: all.
	Shows func(*load.Attempt) bool
	// Count tells findings that are alike once and then counts them, and adds up what was lost.
	Count bool
	// Prove adds to an attempt what comes of loading its program again; nil: nobody asked for it.
	Prove func(*load.Attempt) error
	// Others returns attempts that come from elsewhere than the feed; nil: there are none.
	Others func() []*load.Attempt
}

// Memory bounds the heap that Run takes but for its feed and the attempt that it is at.
const Memory = assemble.Memory + repeat.Memory + story.Memory

// Run takes what a feed gives to its end and yields what there is to tell. An error comes last,
// after what was read before it. The iterator can be used once.
func Run(h trace.Header, feed Feed, o Options) iter.Seq2[Event, error] {
	if o.Shows == nil {
		o.Shows = func(*load.Attempt) bool { return true }
	}
	return func(yield func(Event, error) bool) {
		p := &pipeline{Options: o, header: h, asm: assemble.New(h), repeats: repeat.New(), mechanisms: mechanisms{}}
		if h.All {
			p.stories = story.New(h.Watched)
		}
		p.tell = func(e Event) bool {
			p.stopped = p.stopped || !yield(e, nil)
			return !p.stopped
		}
		if err := p.run(feed); err != nil && !p.stopped {
			yield(Event{}, err)
		}
	}
}

// Attempts are those of a feed, each with its diagnosis.
func Attempts(h trace.Header, feed Feed) iter.Seq2[*load.Attempt, error] {
	return func(yield func(*load.Attempt, error) bool) {
		for e, err := range Run(h, feed, Options{}) {
			if (e.Attempt != nil || err != nil) && !yield(e.Attempt, err) {
				return
			}
		}
	}
}

// Hang is what is said of calls that do not come back.
func Hang(h trace.Header, r *trace.Hang) *load.Hang {
	out := assemble.Hang(h, r)
	explain.Hang(out)
	return out
}

// pipeline is a run under way. Its methods return false when nobody takes any more.
type pipeline struct {
	Options
	header     trace.Header
	asm        *assemble.Assembler
	repeats    *repeat.Table // findings that were told
	stories    *story.Table  // nil where the healthy calls are not known
	lost       losses        // since they were last told
	mechanisms mechanisms
	now        time.Time
	tell       func(Event) bool
	stopped    bool
	err        error // of Prove
}

func (p *pipeline) run(feed Feed) error {
	for s, err := range feed {
		p.now = s.Now
		switch {
		case err != nil:
			p.end()
			return errors.Join(p.err, err)
		case s.Tick && !p.tick(s.Seen), !s.Tick && !p.add(s.Record):
			return p.err
		}
	}
	p.end()
	return p.err
}

// tick lets time pass.
func (p *pipeline) tick(seen uint64) bool {
	return p.others() && (seen == 0 || p.conclude(p.asm.Tick(seen))) && p.counted(p.repeats.Due, p.lost.due) && p.told((*story.Table).Due, p.upTo(seen))
}

func (p *pipeline) add(r trace.Record) bool {
	switch {
	case r.Hang != nil:
		return p.tell(Event{Hang: Hang(p.header, r.Hang)})
	case r.Loss != nil && !p.lose(r.Loss):
		return false
	}
	before := p.asm.Strays()
	attempts := p.asm.Add(r)
	if n := p.asm.Strays() - before; n > 0 && !p.tell(Event{Strays: n}) {
		return false
	}
	return p.conclude(attempts)
}

// end tells what was held back, and what was only counted, due or not.
func (p *pipeline) end() bool {
	if !p.others() || !p.conclude(p.asm.Flush()) {
		return false
	}
	if n := p.asm.DroppedCalls(); n > 0 && !p.lose(&trace.Loss{Mechanism: assemble.Dropped, Count: n}) {
		return false
	}
	return p.counted(p.repeats.Flush, p.lost.take) && p.told((*story.Table).Flush, p.now)
}

// upTo is the time of day up to which everything has come.
func (p *pipeline) upTo(seen uint64) time.Time {
	if seen == 0 {
		return p.now
	}
	return time.Unix(0, p.header.Epoch).Add(time.Duration(min(seen, math.MaxInt64)))
}

// told tells the stories that are over at a time.
func (p *pipeline) told(over func(*story.Table, time.Time) []load.Story, at time.Time) bool {
	if p.stories == nil {
		return true
	}
	list := over(p.stories, at)
	for i := range list {
		if !p.tell(Event{Story: &list[i]}) {
			return false
		}
	}
	return true
}

func (p *pipeline) others() bool {
	return p.Others == nil || p.conclude(slices.Values(p.Others()))
}

// conclude draws the conclusion from each attempt, once more when it has been proved.
func (p *pipeline) conclude(attempts iter.Seq[*load.Attempt]) bool {
	for a := range attempts {
		e := Event{Attempt: a, Hidden: !p.Shows(a)}
		if !e.Hidden || a.Finding() { // feature probes come by thousands
			explain.Conclude(a, &p.header.Node)
		}
		e.Repeat = p.Count && !e.Hidden && a.Finding() && p.repeats.Add(a)
		if p.Prove != nil && !e.Repeat {
			if p.err = p.Prove(a); p.err != nil {
				return false
			}
			explain.Conclude(a, &p.header.Node)
		}
		if p.stories != nil {
			p.stories.Add(a)
		}
		if !p.tell(e) {
			return false
		}
	}
	return true
}

func (p *pipeline) lose(l *trace.Loss) bool {
	l = p.mechanisms.bounded(l)
	p.lost.add(l, p.now)
	return p.tell(Event{Lost: l})
}

// counted tells what was only counted.
func (p *pipeline) counted(repeats func(time.Time) []load.Summary, lost func(time.Time) (*load.Loss, bool)) bool {
	if !p.Count {
		return true
	}
	list := repeats(p.now)
	for i := range list {
		if !p.tell(Event{Repeats: &list[i]}) {
			return false
		}
	}
	l, ok := lost(p.now)
	return !ok || p.tell(Event{Loss: l})
}
