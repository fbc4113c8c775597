// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// Waiting is how many items wait for a sink at most. What comes when it is full is dropped and
// counted: the first failures explain the later ones.
const Waiting = 256

// How long a queue waits before it puts an item again: at first, at most, and how often.
const (
	firstWait = time.Second
	maxWait   = time.Minute
	tries     = 10
	putTime   = 30 * time.Second
)

// Stats are what became of the items of a queue, since its start.
type Stats struct {
	Name    string
	Put     uint64 // taken by the sink
	Failed  uint64 // times that the sink refused one
	Dropped uint64 // items that the sink will never have
	Waiting int
	Last    error // what the sink said last; nil: it took the last item
}

// Queue stands in front of a sink. Its methods never wait for the sink, but for Close.
type Queue struct {
	sink  Sink
	wake  chan struct{}
	stop  chan struct{}   // closed: no more waiting
	ctx   context.Context // of what is being put
	abort context.CancelFunc
	done  chan struct{}

	mu      sync.Mutex
	items   []Item
	state   *State // the last one, which waits beside the others
	closing bool
	stats   Stats
}

// NewQueue starts a queue in front of a sink.
func NewQueue(s Sink) *Queue {
	q := &Queue{sink: s, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}), stats: Stats{Name: s.Name()}}
	q.ctx, q.abort = context.WithCancel(context.Background())
	go q.run()
	return q
}

// Put hands an item over, or drops it.
func (q *Queue) Put(i Item) {
	q.mu.Lock()
	switch {
	case q.closing:
		q.stats.Dropped++
	case i.State != nil:
		q.state = i.State
	case len(q.items) >= Waiting:
		q.stats.Dropped++
	default:
		q.items = append(q.items, i)
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Stats returns what became of the items.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.stats
	s.Waiting = len(q.items)
	if q.state != nil {
		s.Waiting++
	}
	return s
}

// Close gives the sink what waits, tries nothing again, and closes the sink. It takes until ctx
// ends at most.
func (q *Queue) Close(ctx context.Context) error {
	q.mu.Lock()
	q.closing = true
	q.mu.Unlock()
	close(q.stop)
	defer q.abort()
	select {
	case <-q.done:
		return q.sink.Close(ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// run puts items until the queue is closed and empty.
func (q *Queue) run() {
	defer close(q.done)
	for {
		i, ok := q.next()
		if ok {
			q.put(i)
			continue
		}
		select {
		case <-q.wake:
		case <-q.stop:
			if i, ok := q.next(); ok { // it came before the end
				q.put(i)
				continue
			}
			return
		}
	}
}

// next takes the item that is to be put next: the state comes last, since it includes all others.
func (q *Queue) next() (Item, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case len(q.items) > 0:
		i := q.items[0]
		q.items[0] = Item{} // for the collector
		if q.items = q.items[1:]; len(q.items) == 0 {
			q.items = nil
		}
		return i, true
	case q.state != nil:
		i := Item{State: q.state}
		q.state = nil
		return i, true
	}
	return Item{}, false
}

// put gives one item to the sink until that takes it or will not.
func (q *Queue) put(i Item) {
	wait := firstWait
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(q.ctx, putTime)
		err := q.sink.Put(ctx, i)
		cancel()
		q.note(err)
		if err == nil {
			return
		}
		pause := wait/2 + rand.N(wait/2) // nodes of a cluster do not try again together
		if a, told := errors.AsType[after](err); told {
			pause = min(max(a.wait, pause), 10*time.Minute)
		}
		if isPermanent(err) || try == tries || !q.sleep(pause) {
			q.drop()
			return
		}
		if i.State != nil && q.newer() {
			return
		}
		wait = min(2*wait, maxWait)
	}
}

// newer reports that a state waits which replaces the one being put.
func (q *Queue) newer() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.state != nil
}

// sleep returns false when the queue is being closed.
func (q *Queue) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-q.stop:
		return false
	}
}

func (q *Queue) note(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stats.Last = err
	if err == nil {
		q.stats.Put++
	} else {
		q.stats.Failed++
	}
}

func (q *Queue) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stats.Dropped++
}
