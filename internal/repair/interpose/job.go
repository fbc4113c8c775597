// SPDX-License-Identifier: Apache-2.0

package interpose

import "time"

// Where a signal cancels a notification, the kernel starts the call over after the handler, and a
// timer shorter than the load would let that happen for ever. So the load goes on without its
// notification, its outcome is kept, and the same load of the same thread finds it. A thread has
// one load at a time, hence one job.

// job is a load in work, or done and waiting for its thread to come back.
type job struct {
	snapshot *snapshot
	waiting  *notification // the latest; only while in work
	outcome  outcome
	done     bool
	expiry   *time.Timer
	room     func() // gives back that of a parked outcome
}

// parked is how long an outcome waits for its thread.
const parked = 10 * time.Second

// Bounds of what is parked, in slots: that many small ones, and so many of one user, or one that is
// big. A thread whose outcome finds no room loads anew.
const (
	maxParked  = 500_000
	manyParked = 64
	fewParked  = 8
)

// park makes room for an outcome that is to wait. The caller holds the lock.
func (p *Proxy) park(j *job) bool {
	user, w := j.snapshot.user(), max(weight(&j.snapshot.attr), maxParked/manyParked)
	if w > maxParked/2 || !p.parking.enter(user, w, 0) {
		return false
	}
	j.room = func() { p.parking.leave(user, w) }
	return true
}

// work makes the load of a snapshot, or joins the one in work.
func (p *Proxy) work(n *notification, s *snapshot, h *handles) {
	p.mu.Lock()
	j := p.jobs[n.tid]
	if j != nil && (j.snapshot.same(s) || p.options.without.numbers) {
		h.close()
		if !j.done {
			// Its notification was cancelled, or this one would not be here.
			old := j.waiting
			j.waiting = n
			p.mu.Unlock()
			if old.claim() {
				p.answered(old, errGone)
			}
			return
		}
		p.remove(n.tid, j)
		p.mu.Unlock()
		p.deliver(n, j)
		return
	}
	if j != nil {
		done := j.done
		p.remove(n.tid, j) // the thread is past that
		if done {
			j.outcome.close()
		}
	}
	j = &job{snapshot: s, waiting: n}
	p.jobs[n.tid] = j
	p.mu.Unlock()

	j.outcome = p.load(s, h)
	h.close()

	p.mu.Lock()
	n = j.waiting
	current := p.jobs[n.tid] == j
	if current {
		p.remove(n.tid, j)
	}
	p.mu.Unlock()
	if !current {
		j.outcome.close()
		p.passThrough(n) // cancelled, surely; and if not, answered
		return
	}
	p.deliver(n, j)
}

// remove takes a job out before its outcome is delivered: the thread may make the same load again
// at once, and is not to find it. The caller holds the lock.
func (p *Proxy) remove(tid int, j *job) {
	delete(p.jobs, tid)
	if j.done {
		j.expiry.Stop()
		j.room()
		j.done = false
	}
}

// deliver answers, and keeps the outcome when nobody waits for the answer any more.
func (p *Proxy) deliver(n *notification, j *job) {
	if p.answer(n, j.snapshot, &j.outcome) == nil {
		j.outcome.close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.jobs[n.tid] != nil || len(p.jobs) >= maxWaiting || !p.park(j) {
		j.outcome.close() // it is back already, and loads anew
		return
	}
	j.done = true
	p.jobs[n.tid] = j
	j.expiry = time.AfterFunc(parked, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.jobs[n.tid] == j {
			p.remove(n.tid, j)
			j.outcome.close()
		}
	})
}
