// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"
)

// Outcomes that wait for their threads are few, fewer of one user, and none of them waits for room.
func TestParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Proxy{parking: newRoom(maxParked, maxParked/fewParked), jobs: map[int]*job{}}
		tid := 0
		deliver := func(user, slots int) *job {
			s := &snapshot{}
			s.who.uid[0] = user
			s.attr.InsnCnt = uint32(slots)
			tid++
			n := &notification{tid: tid}
			n.claim() // nobody waits
			j := &job{snapshot: s, outcome: passThrough}
			p.deliver(n, j)
			return j
		}
		waiting := 0
		for user := range 10 {
			for range fewParked + 4 {
				if deliver(user, 3000).done {
					waiting++
				}
			}
			qt.Check(t, qt.Equals(waiting, min((user+1)*fewParked, manyParked)))
		}
		qt.Check(t, qt.Equals(len(p.jobs), manyParked))
		time.Sleep(parked)
		synctest.Wait()
		qt.Check(t, qt.Equals(len(p.jobs), 0))
		qt.Check(t, qt.Equals(p.parking.free, maxParked))

		qt.Check(t, qt.IsTrue(deliver(1, 200_000).done)) // one that is big
		qt.Check(t, qt.IsFalse(deliver(1, 3000).done))
		qt.Check(t, qt.IsFalse(deliver(2, 300_000).done)) // and one that is too big
		qt.Check(t, qt.IsTrue(deliver(2, 3000).done))
		p.remove(tid, p.jobs[tid])
		qt.Check(t, qt.Equals(p.parking.free, maxParked-200_000))
	})
}

// Who makes answers come too late has his loads left alone, and not those of another user whose
// thread gets the number afterwards.
func TestThrottled(t *testing.T) {
	slots, file, err := newSlots()
	qt.Assert(t, qt.IsNil(err))
	defer file.Close()
	p := &Proxy{slots: slots, missed: map[misser]int{}}
	of := func(user int) *notification { return &notification{tid: 1, user: user, slot: <-slots.free} }
	for range fewMisses {
		qt.Check(t, qt.IsFalse(p.throttled(of(1))))
		p.answered(of(1), errGone)
	}
	qt.Check(t, qt.IsTrue(p.throttled(of(1))))
	qt.Check(t, qt.IsFalse(p.throttled(of(2))))
	p.answered(of(2), nil)
	qt.Check(t, qt.IsTrue(p.throttled(of(1))))
	p.answered(of(1), nil)
	qt.Check(t, qt.IsFalse(p.throttled(of(1))))
}
