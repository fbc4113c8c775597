// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"
)

// Whoever waits behind progress goes on waiting, and no longer than patience behind none.
func TestRoomPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(2, 2)
		qt.Assert(t, qt.IsTrue(r.enter(0, 2, time.Second)))
		start := time.Now()
		go func() {
			for range 50 {
				time.Sleep(900 * time.Millisecond)
				r.progress()
			}
		}()
		qt.Check(t, qt.IsFalse(r.enter(0, 1, time.Second)))
		qt.Check(t, qt.Equals(time.Since(start), 46*time.Second))
		go func() {
			time.Sleep(500 * time.Millisecond)
			r.leave(0, 2)
		}()
		qt.Check(t, qt.IsTrue(r.enter(0, 1, time.Second)))
		qt.Check(t, qt.Equals(len(r.waiting), 0))
	})
}

// Users take turns, and none has all the memory.
func TestRoomOfUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(10, 5)
		for range 5 {
			qt.Assert(t, qt.IsTrue(r.enter(1, 1, time.Second)))
		}
		qt.Check(t, qt.IsFalse(r.enter(1, 1, time.Second)))
		qt.Check(t, qt.IsTrue(r.enter(2, 5, time.Second)))
		r.leave(2, 5)
		// More than the most is given to who has nothing.
		qt.Check(t, qt.IsFalse(r.enter(2, 10, time.Second)))
		r.leave(1, 5)
		qt.Check(t, qt.IsTrue(r.enter(2, 10, time.Second)))
		order := make(chan int, 20)
		for range 3 {
			go func() { r.enter(1, 5, time.Minute); order <- 1 }()
		}
		synctest.Wait()
		go func() { r.enter(3, 5, time.Minute); order <- 3 }()
		synctest.Wait()
		r.leave(2, 10)
		qt.Check(t, qt.Equals(<-order+<-order, 4)) // one each
		for range 2 {
			r.leave(1, 5)
			qt.Check(t, qt.Equals(<-order, 1))
		}
		qt.Check(t, qt.Equals(len(r.waiting), 0))
	})
}

// A queue has an end for each user.
func TestRoomQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(1, 1)
		qt.Assert(t, qt.IsTrue(r.enter(0, 1, time.Second)))
		for range maxQueue {
			go r.enter(1, 1, time.Minute)
		}
		synctest.Wait()
		start := time.Now()
		qt.Check(t, qt.IsFalse(r.enter(1, 1, time.Minute)))
		qt.Check(t, qt.Equals(time.Since(start), 0))
		qt.Check(t, qt.IsFalse(r.enter(2, 1, time.Second)))
		time.Sleep(time.Hour)
		qt.Check(t, qt.Equals(len(r.waiting), 0))
	})
}

// Users take turns also where there is room for one: many loads of one come no earlier than the
// second of another.
func TestRoomOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(1, 1)
		qt.Assert(t, qt.IsTrue(r.enter(1, 1, time.Second)))
		order := make(chan int, 20)
		for _, user := range []int{1, 1, 1, 1, 2, 2, 3, 3} {
			go func() { r.enter(user, 1, time.Minute); order <- user }()
			synctest.Wait()
		}
		var got []int
		last := 1
		for range 8 {
			r.leave(last, 1)
			last = <-order
			got = append(got, last)
		}
		qt.Check(t, qt.DeepEquals(got, []int{2, 3, 1, 2, 3, 1, 1, 1}))
		r.leave(1, 1)
		qt.Check(t, qt.Equals(r.free, 1))
	})
}
