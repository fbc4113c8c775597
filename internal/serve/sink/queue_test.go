// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/load"
)

// fake is a sink that does as it is told.
type fake struct {
	put    func(ctx context.Context, i Item) error
	got    []Item
	closed bool
}

func (f *fake) Name() string { return "fake" }

func (f *fake) Put(ctx context.Context, i Item) error {
	if f.put != nil {
		if err := f.put(ctx, i); err != nil {
			return err
		}
	}
	f.got = append(f.got, i)
	return nil
}

func (f *fake) Close(context.Context) error { f.closed = true; return nil }

func loss(n uint64) Item { return Item{Loss: &load.Loss{Loads: n}} }

// A sink that hangs holds nobody up, and what does not fit is counted.
func TestHangingSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		slow := &fake{put: func(context.Context, Item) error { <-release; return nil }}
		other := &fake{}
		q, p := NewQueue(slow), NewQueue(other)
		const items = Waiting + 100
		for n := range items {
			q.Put(loss(uint64(n)))
			p.Put(loss(uint64(n)))
			if n%100 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		qt.Check(t, qt.HasLen(other.got, items))
		s := q.Stats()
		qt.Check(t, qt.Equals(s.Waiting, Waiting))
		qt.Check(t, qt.Equals(s.Dropped, items-Waiting-1)) // one is being put
		close(release)
		qt.Check(t, qt.IsNil(q.Close(t.Context())))
		qt.Check(t, qt.IsNil(p.Close(t.Context())))
		s = q.Stats()
		qt.Check(t, qt.Equals(s.Put+s.Dropped, items))
		qt.Check(t, qt.Equals(uint64(len(slow.got)), s.Put))
		qt.Check(t, qt.Equals(slow.got[1].Loss.Loads, 1)) // the first ones are kept, in their order
		qt.Check(t, qt.IsTrue(slow.closed))
	})
}

// A sink that fails for a while gets all it was to get, in order, and is not asked all the time.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, asked := time.Now(), 0
		f := &fake{put: func(context.Context, Item) error {
			if asked++; time.Since(began) < 2*time.Minute {
				return errors.New("no server")
			}
			return nil
		}}
		q := NewQueue(f)
		for n := range 10 {
			q.Put(loss(uint64(n)))
		}
		time.Sleep(10 * time.Minute)
		qt.Assert(t, qt.HasLen(f.got, 10))
		for n, i := range f.got {
			qt.Check(t, qt.Equals(i.Loss.Loads, uint64(n)))
		}
		qt.Check(t, qt.IsTrue(asked < 25), qt.Commentf("%d", asked))
		qt.Check(t, qt.IsNil(q.Close(t.Context())))
	})
}

// What a sink will never take is not put again, and a server's word is obeyed.
func TestPermanentAndAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		began := time.Now()
		f := &fake{put: func(_ context.Context, i Item) error {
			at = append(at, time.Since(began))
			switch {
			case i.Loss.Loads == 0:
				return Permanent(errors.New("too large"))
			case len(at) == 2:
				return After(errors.New("429"), 42*time.Second)
			}
			return nil
		}}
		q := NewQueue(f)
		q.Put(loss(0))
		q.Put(loss(1))
		time.Sleep(time.Hour)
		qt.Check(t, qt.DeepEquals(at, []time.Duration{0, 0, 42 * time.Second}))
		qt.Check(t, qt.Equals(q.Stats().Dropped, 1))
		qt.Check(t, qt.IsNil(q.Close(t.Context())))
	})
}

// Of states only the last one matters, also while an older one cannot be put.
func TestStateReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		f := &fake{put: func(context.Context, Item) error {
			if time.Since(began) < time.Minute {
				return errors.New("no server")
			}
			return nil
		}}
		q := NewQueue(f)
		for n := range 1000 {
			q.Put(Item{State: &State{Report: nodereport.NewReport("a", nodereport.Status{Failing: n})}})
		}
		time.Sleep(10 * time.Minute)
		qt.Assert(t, qt.HasLen(f.got, 1))
		qt.Check(t, qt.Equals(f.got[0].State.Report.Status.Failing, 999))
		qt.Check(t, qt.Equals(q.Stats().Dropped, 0))
		qt.Check(t, qt.IsNil(q.Close(t.Context())))
	})
}

// Close waits for a sink as long as its context says. Each item is tried once more, and none comes
// afterwards.
func TestCloseHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{put: func(ctx context.Context, _ Item) error { <-ctx.Done(); return ctx.Err() }}
		q := NewQueue(f)
		q.Put(loss(1))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		qt.Check(t, qt.ErrorIs(q.Close(ctx), context.DeadlineExceeded))
		qt.Check(t, qt.Equals(time.Since(began), 3*time.Second))
		q.Put(loss(2))
		synctest.Wait()
		s := q.Stats()
		qt.Check(t, qt.Equals(s.Put, 0))
		qt.Check(t, qt.Equals(s.Dropped, 2))
	})
}
