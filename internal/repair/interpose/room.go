// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"sync"
	"time"
)

// room is something of which there is only so much: memory, processors. Who waits for it goes on
// waiting as long as others make way, and users take turns: one user's loads do not keep another's
// from it.
type room struct {
	mu      sync.Mutex
	free    int64
	most    int64             // that one user has, unless it is for one load
	held    map[int]int64     // by user
	waiting []*waiter         // by when they came
	last    time.Time         // when somebody made way, or got on
	gotOn   time.Time         // when somebody got on
	madeWay map[int]time.Time // by user that has some, the last time
	served  map[int]int       // by user, since somebody waits: the how manieth to come in, the last time
	entries int
}

// maxQueue is how many loads of one user may wait. There are several times as many slots for
// notifications.
const maxQueue = 1000

type waiter struct {
	user   int
	weight int64
	in     chan struct{} // closed when it has its room
}

func newRoom(size, most int64) *room {
	return &room{free: size, most: most, held: map[int]int64{}, madeWay: map[int]time.Time{}, served: map[int]int{}}
}

// enter reports whether there is room for a weight, which may not be more than the whole. It waits
// until then, but no longer than patience since anybody has last made way, or got on with what he
// does. Who has all that he may have waits for himself: that others make way brings him nothing.
func (r *room) enter(user int, weight int64, patience time.Duration) bool {
	w := &waiter{user, weight, make(chan struct{})}
	came := time.Now()
	r.mu.Lock()
	if r.queued(user) >= maxQueue {
		r.mu.Unlock()
		return false
	}
	r.waiting = append(r.waiting, w)
	r.admit()
	r.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case <-w.in:
			return true
		case <-timer.C:
		}
		r.mu.Lock()
		last := r.last
		if r.hasMost(w) {
			last = r.madeWay[w.user]
			if r.gotOn.After(last) {
				last = r.gotOn
			}
		}
		since := came
		if last.After(came) {
			since = last
		}
		left := patience - time.Since(since)
		if left <= 0 {
			ok := !r.forget(w)
			r.admit() // it may have been in the way of others
			r.mu.Unlock()
			return ok
		}
		r.mu.Unlock()
		timer.Reset(left)
	}
}

// forget takes one who waits out of the queue, and reports false when it is no longer there: it has
// its room.
func (r *room) forget(w *waiter) bool {
	for i, other := range r.waiting {
		if other == w {
			r.waiting = append(r.waiting[:i], r.waiting[i+1:]...)
			return true
		}
	}
	return false
}

func (r *room) queued(user int) (n int) {
	for _, w := range r.waiting {
		if w.user == user {
			n++
		}
	}
	return n
}

// progress says that somebody who is in gets on.
func (r *room) progress() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = time.Now()
	r.gotOn = r.last
}

// hasMost reports whether one who waits does so because his user has all that one may have.
func (r *room) hasMost(w *waiter) bool {
	held := r.held[w.user]
	return held > 0 && held+w.weight > r.most
}

func (r *room) leave(user int, weight int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free += weight
	r.last = time.Now()
	r.madeWay[user] = r.last
	if r.held[user] -= weight; r.held[user] == 0 {
		delete(r.held, user)
		delete(r.madeWay, user)
	}
	r.admit()
}

// admit lets in who comes next: of the users that have not the most already the one that holds
// least, of those that hold the same the one whose turn is the longest ago, and of that one who
// came first. Nobody small passes by somebody big, who would never get in.
func (r *room) admit() {
	for {
		var next *waiter
		for _, w := range r.waiting {
			if !r.hasMost(w) && (next == nil || r.before(w.user, next.user)) {
				next = w
			}
		}
		if next == nil || next.weight > r.free {
			return
		}
		r.forget(next)
		r.free -= next.weight
		r.held[next.user] += next.weight
		if len(r.waiting) == 0 {
			clear(r.served)
		}
		r.entries++
		r.served[next.user] = r.entries
		close(next.in)
	}
}

// before reports whether the next turn is that of one user rather than of another.
func (r *room) before(user, other int) bool {
	if a, b := r.held[user], r.held[other]; a != b {
		return a < b
	}
	return r.served[user] < r.served[other]
}
