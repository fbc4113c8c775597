// SPDX-License-Identifier: Apache-2.0

package interpose

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"
)

// One user's memory that does not come takes a few threads of ours and no more, from the first
// moment on, and nothing from others.
func TestReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Proxy{killable: true, readers: newRoom(maxReaders, maxUserReaders)}
		answered := func(user int) *notification {
			n := &notification{user: user}
			n.claim()
			return n
		}
		const threads = 300
		come := make(chan struct{})
		var running atomic.Int32
		results := make(chan error, threads)
		for range threads {
			go func() {
				results <- p.within(answered(1), func() error {
					running.Add(1)
					<-come
					return nil
				})
			}()
		}
		synctest.Wait()
		qt.Check(t, qt.Equals(running.Load(), maxUserReaders))
		for user := 2; user < 10; user++ {
			start := time.Now()
			qt.Check(t, qt.IsNil(p.within(answered(user), func() error { return nil })))
			qt.Check(t, qt.Equals(time.Since(start), 0))
		}
		// That others come and go does not let him wait any longer.
		for range 5 {
			time.Sleep(moment / 4)
			qt.Check(t, qt.IsNil(p.within(answered(2), func() error { return nil })))
		}
		qt.Check(t, qt.Equals(len(results), threads-maxUserReaders))
		qt.Check(t, qt.Equals(p.unrepaired, Unrepaired{Timeout: threads}))
		close(come)
		for range threads {
			qt.Check(t, qt.ErrorIs(<-results, errTimeout))
		}
		qt.Check(t, qt.Equals(running.Load(), maxUserReaders))
		qt.Check(t, qt.Equals(p.readers.free, maxReaders))
	})
}
