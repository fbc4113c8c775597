// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/internal/watch/capture"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// session sorts the records of one capture into cases.
//
// Cases run one after the other, and the kernel's buffer keeps the order: the first call of a case
// says that nothing more will come of those before it, and the end of the capture says it of the
// last one.
type session struct {
	opts    Options
	header  trace.Header
	summary Summary

	// The reader's own: what arrived and is not anybody's yet.
	pieces map[trace.CallID][]trace.Record
	shared []trace.Record
	// reached is done when the one mark was.
	reached sync.Once

	mu    sync.Mutex // protects the rest
	cases []*pending
	done  int // of cases
	err   error
}

// pending is a case that was started.
type pending struct {
	c       Case
	pid     int
	skipped string
	result  failing.Result
	err     error // of the load's process
	records []trace.Record
	// marks, unless nil, is closed when a record of this one arrives. It is no case.
	marks chan struct{}
}

func (s *session) add(p *pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cases = append(s.cases, p)
}

func (s *session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = errors.Join(s.err, err)
}

// maxPieces bounds what is held for calls whose end does not come.
const maxPieces = 4096

// read takes the records to the end of the capture.
func (s *session) read(c *capture.Capture) error {
	s.pieces = map[trace.CallID][]trace.Record{}
	for {
		r, err := c.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := s.sort(r); err != nil {
			return err
		}
	}
	if err := s.finish(nil); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *session) sort(r trace.Record) error {
	switch {
	case r.Chunk != nil:
		s.hold(r.Chunk.ID, r)
	case r.Message != nil:
		s.hold(r.Message.ID, r)
	case r.Sysctl != nil:
		s.shared = append(s.shared, r) // it comes right before its call
	case r.Loss != nil:
		if r.Loss.Unknown {
			s.summary.Unknown = append(s.summary.Unknown, r.Loss.Mechanism)
		} else {
			s.summary.Lost[r.Loss.Mechanism] += r.Loss.Count
		}
		s.shared = append(s.shared, r)
	case r.Call != nil:
		records := append(s.pieces[r.Call.ID], s.shared...)
		records = append(records, r)
		delete(s.pieces, r.Call.ID)
		s.shared = nil
		owner := s.owner(r.Call)
		if owner == nil {
			return nil // a process that has got the number of one of ours
		}
		if err := s.finish(owner); err != nil {
			return err
		}
		s.mu.Lock()
		owner.records = append(owner.records, records...)
		s.mu.Unlock()
		if owner.marks != nil {
			s.reached.Do(func() { close(owner.marks) })
		}
	}
	return nil
}

func (s *session) hold(id trace.CallID, r trace.Record) {
	if s.pieces[id] == nil && len(s.pieces) >= maxPieces {
		s.summary.Lost["too many calls without an end"]++
		return
	}
	s.pieces[id] = append(s.pieces[id], r)
}

// owner is the case whose process made a call. Numbers are of our own pid namespace, or of the
// initial one, or both.
func (s *session) owner(c *trace.Call) *pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.cases) - 1; i >= s.done; i-- {
		if p := s.cases[i]; p.pid != 0 && (p.pid == int(c.TGID) || p.pid == int(c.NSPID)) {
			return p
		}
	}
	return nil
}

// finish concludes the cases before one, or all of them.
func (s *session) finish(before *pending) error {
	for {
		s.mu.Lock()
		if s.done == len(s.cases) || s.cases[s.done] == before {
			s.mu.Unlock()
			return nil
		}
		p := *s.cases[s.done]
		s.cases[s.done].records = nil
		s.done++
		s.mu.Unlock()
		if p.marks != nil {
			continue
		}
		if err := s.conclude(&p); err != nil {
			return err
		}
	}
}

func (s *session) conclude(p *pending) error {
	if p.skipped != "" {
		return s.skip(&p.c, p.skipped)
	}
	out := Outcome{Case: p.c, Result: p.result}
	if p.err != nil {
		out.Wrong = append(out.Wrong, fmt.Sprintf("the load could not be made: %v", p.err))
	} else {
		out.Attempt, out.Wrong = p.c.Check(conclude(&s.header, p.records))
		if out.Attempt != nil {
			out.Wrong = append(out.Wrong, told(out.Attempt, &p.result)...)
		}
		if s.opts.Record != nil {
			if err := s.opts.Record(p.c, s.header, p.records); err != nil {
				return fmt.Errorf("record %s: %w", p.c.Name, err)
			}
		}
	}
	if len(out.Wrong) == 0 {
		s.summary.Right++
	} else {
		s.summary.Wrong++
	}
	return s.opts.Each(out)
}

func (s *session) skip(c *Case, why string) error {
	beyond := c.VM() || s.invisible(c) != ""
	out := Outcome{Case: *c, Skipped: why, Demanded: !beyond || len(s.opts.Names) > 0}
	if out.Demanded {
		s.summary.NotRun++
	} else {
		s.summary.Beyond++
	}
	return s.opts.Each(out)
}
