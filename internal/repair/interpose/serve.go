// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// turn is how long who receives may look at a load before another receives.
const turn = time.Millisecond

// serve receives loads and answers them. One receives at a time: who has to wait for the memory of
// a load's thread leaves receiving to the next, so that nobody else waits for it.
func (p *Proxy) serve() {
	for {
		n := p.next()
		if n == nil {
			return
		}
		limit := turn
		if p.options.without.aside {
			limit = time.Hour
		}
		next := time.AfterFunc(limit, p.serve)
		p.look(n)
		if !next.Stop() {
			return
		}
	}
}

// next waits for a load. nil: there are no more.
func (p *Proxy) next() *notification {
	for {
		select {
		case <-p.done:
			return nil
		default:
		}
		slot := <-p.slots.free
		if what, err := wait(p.listener, int(p.stopped.Fd()), -1); err != nil || what != aLoad {
			p.guardian.takeOver()
			close(p.done)
			return nil
		}
		if err := p.slots.pulse().receive(byProxy, p.listener, p.slots.at(slot)); err != nil {
			p.slots.release(slot)
			if !errors.Is(err, errGone) {
				p.guardian.takeOver()
				close(p.done)
				return nil
			}
			continue
		}
		return parseNotification(slot, p.slots.at(slot))
	}
}

// look answers a load that is not suspect, which are most.
func (p *Proxy) look(n *notification) {
	user, ns, err := owner(n.tid)
	if err != nil {
		p.passThrough(n)
		return
	}
	if n.user = user; p.throttled(n) {
		p.passThrough(n)
		return
	}
	m, err := p.openMemory(n, ns)
	if err != nil {
		p.passThroughFor(n, err)
		return
	}
	n.memory = m.hold()
	if p.options.without.prompt {
		m.waits = n.tid
	}
	var a attr
	suspect := false
	err = p.within(n, func() error {
		a, suspect = readAttr(n, m)
		return nil
	})
	if err != nil || !suspect {
		p.passThrough(n)
		m.close()
		return
	}
	go func() {
		defer m.close()
		p.handle(n, m, &a)
	}()
}

// handle looks at the program of a load and answers.
func (p *Proxy) handle(n *notification, m *memory, a *attr) {
	who, err := p.judge(n)
	if err != nil {
		p.passThroughFor(n, err)
		return
	}
	// One that weighs more would leave others nothing, for as long as its memory does not come.
	user, w := who.uid[0], weight(a)
	if w > maxUserWeight || !p.memory.enter(user, w, patience) {
		p.passThroughFor(n, errRoom)
		return
	}
	defer p.memory.leave(user, w) // when all is let go: one that was late keeps it until then
	s, h, err := p.examine(n, m, a, who)
	if err != nil {
		p.passThroughFor(n, err)
		return
	}
	if p.killable {
		o := p.load(s, h)
		h.close()
		p.answer(n, s, &o)
		o.close()
		return
	}
	p.work(n, s, h)
}

var errHealthy = errors.New("nothing to repair")

// hardening is the setting as it is when no window of ours is open.
func (p *Proxy) hardening() int {
	open := p.windows.Load() > 0 // before the setting is read: a window may close meanwhile
	if v := p.hardened.read(); v != 1 || !open {
		return v
	}
	return 2
}

// judge says as whom a suspect would be loaded. An error means that it is to be left alone.
func (p *Proxy) judge(n *notification) (identity, error) {
	hardened := p.hardening()
	if hardened == 0 {
		return identity{}, errHealthy
	}
	who, err := readIdentity(n.tid)
	if err != nil {
		return who, err
	}
	if hardened == 1 && who.capable(unix.CAP_SYS_ADMIN) {
		return who, errHealthy
	}
	if err := who.like(&p.we, p.chargesMemlock); err != nil {
		return who, err
	}
	// A process that takes other ids becomes what this says, if only for a moment.
	if p.suidDumpable.read() == 1 {
		p.count(func(l *Unrepaired) { l.Dumpable++ })
		return who, errors.New("fs.suid_dumpable is 1")
	}
	if !p.waits(n) { // it was read by the thread's number
		return who, errGone
	}
	return who, nil
}

// examine takes the snapshot of a suspect, and duplicates of its descriptors. An error means that
// it is to be left alone.
func (p *Proxy) examine(n *notification, m *memory, a *attr, who identity) (*snapshot, *handles, error) {
	var s *snapshot
	err := p.within(n, func() (err error) {
		s, err = readProgram(n, a, m)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	s.who = who
	if p.options.without.once {
		s.again = m
	}
	if !p.processors.enter(s.user(), 1, patience) {
		return nil, nil, errRoom
	}
	suspect := s.predict(p.tried(n.tid))
	p.processors.leave(s.user(), 1)
	if !suspect {
		return nil, nil, errHealthy
	}
	err = p.within(n, func() error {
		spans, err := s.readRest(m)
		if err != nil {
			return err
		}
		return p.allows(n, 'r', spans...)
	})
	if err != nil {
		return nil, nil, err
	}
	fds := s.descriptors()
	makeWay, err := p.enterDescriptors(s, len(fds))
	if err != nil {
		return nil, nil, err
	}
	var h *handles
	err = p.within(n, func() (err error) { // to close what is no object of BPF may take long
		h, err = s.duplicate(fds)
		return err
	})
	if h == nil {
		makeWay()
		return nil, nil, err
	}
	h.room = makeWay
	if err != nil {
		h.close()
		return nil, nil, err
	}
	// The descriptors were taken by the number of the thread: are they the thread's?
	if !p.waits(n) {
		h.close()
		return nil, nil, errGone
	}
	return s, h, nil
}

// tried is what a thread is loading, or was when a signal came.
func (p *Proxy) tried(tid int) *snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	if j := p.jobs[tid]; j != nil {
		return j.snapshot
	}
	return nil
}
