// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"encoding/binary"
	"errors"
)

// answer gives a thread its program. Whatever goes wrong, there is an answer, unless nobody waits
// any more: errGone.
func (p *Proxy) answer(n *notification, s *snapshot, o *outcome) error {
	if err := p.prepareAnswer(n, s, o); err != nil {
		return p.passThrough(n)
	}
	// From here on nothing waits for the thread.
	if !p.answering.TryRLock() { // Close waits, or has waited
		return p.passThrough(n)
	}
	defer p.answering.RUnlock()
	if !n.claim() {
		return errGone
	}
	err := p.addProgram(n, o)
	if err != nil && !errors.Is(err, errGone) {
		return p.passThroughClaimed(n)
	}
	p.answered(n, err)
	if err == nil && (o.repair != nil || o.window != nil) {
		p.reporting.Lock()
		defer p.reporting.Unlock()
		p.options.Report(attempt(s, o))
	}
	return err
}

// addProgram gives the thread its program as the result of its call. Where a signal cancels the
// call after the thread has got the descriptor, the thread does not know of it. It gets the same
// one when it makes the load again.
func (p *Proxy) addProgram(n *notification, o *outcome) error {
	if !o.given || !hasProgram(n.tid, o.theirs, o.info.id) {
		theirs, err := addFD(p.listener, n.id, o.fd)
		if err != nil {
			return err
		}
		o.given, o.theirs = true, theirs
	}
	return sendFD(p.listener, n.id, o.theirs)
}

var errNothing = errors.New("no program to give")

// prepareAnswer writes the log, since after the answer its buffer may be anything. Where a signal
// can come between, the moment is as short as can be.
func (p *Proxy) prepareAnswer(n *notification, s *snapshot, o *outcome) error {
	if o.fd < 0 {
		return errNothing
	}
	if len(o.log) == 0 && o.trueSize == 0 {
		return nil
	}
	m := n.memory.hold()
	defer m.close()
	err := p.within(n, func() error {
		if !p.options.without.pages {
			spans := []span{{s.attr.LogBuf, len(o.log)}}
			if s.hasTrueSize(o) {
				spans = append(spans, span{n.attr + uint64(trueSizeAt), 4})
			}
			if err := p.allows(n, 'w', spans...); err != nil {
				return err
			}
		}
		return p.writeLog(n, s, m, o)
	})
	if errors.Is(err, errNobody) {
		return nil
	}
	return err
}

// errNobody is a notification that is not valid before its answer, which will say so.
var errNobody = errors.New("nobody waits for the log")

// writeLog writes what the kernel would have written.
func (p *Proxy) writeLog(n *notification, s *snapshot, m *memory, o *outcome) error {
	p.before(writing)
	if p.options.without.binding {
		var err error
		if m, err = openMemoryOf(n.tid); err != nil {
			return err
		}
		defer m.close()
	}
	if err := m.write(s.attr.LogBuf, o.log); err != nil {
		return err
	}
	if !s.hasTrueSize(o) {
		return nil
	}
	return m.write(n.attr+uint64(trueSizeAt), binary.NativeEndian.AppendUint32(nil, o.trueSize))
}

// passThrough leaves a load to the kernel, unless it has an answer.
func (p *Proxy) passThrough(n *notification) error {
	if !n.claim() {
		return errGone
	}
	return p.passThroughClaimed(n)
}

// passThroughFor leaves a load that might have been repaired to the kernel. It is counted where
// that is for want of room, or of knowledge.
func (p *Proxy) passThroughFor(n *notification, err error) {
	switch {
	case wantsRoom(err):
		p.count(func(l *Unrepaired) { l.NoRoom++ })
	case errors.Is(err, errOwn):
		p.count(func(l *Unrepaired) { l.Own++ })
	}
	p.passThrough(n)
}

// passThroughClaimed is passThrough for who has claimed the notification.
func (p *Proxy) passThroughClaimed(n *notification) error {
	err := sendContinue(p.listener, n.id)
	p.answered(n, err)
	return err
}

// answered takes note of an answer. No notification is forgotten without it.
func (p *Proxy) answered(n *notification, err error) {
	p.slots.release(n.slot)
	if n.memory != nil {
		n.memory.close()
	}
	if p.killable {
		return // it is not signals that make answers come too late
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	who := misser{n.tid, n.user}
	if !errors.Is(err, errGone) {
		delete(p.missed, who)
		return
	}
	if len(p.missed) > maxWaiting {
		clear(p.missed)
	}
	if n.user >= 0 {
		p.missed[who]++
	}
}

// misser is whose answers come too late. The next to have a thread's number may be another user.
type misser struct{ tid, user int }

// Signals that come faster than we can read a program would let its load start over for ever, where
// the kernel alone would have been quick enough.
const (
	fewMisses  = 8
	manyMisses = 500 // also when the result is there already
)

func (p *Proxy) throttled(n *notification) bool {
	if p.killable {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	missed := p.missed[misser{n.tid, n.user}]
	return missed >= manyMisses || missed >= fewMisses && p.jobs[n.tid] == nil
}
