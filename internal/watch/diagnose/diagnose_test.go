// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// tally counts what is told.
type tally struct {
	attempts, summaries int
	repeated            uint64
	late                int // the most groups with repeats of which it was not told
	losses              []*load.Loss
	mechanisms          map[string]bool
}

func (c *tally) take(t *testing.T, r *trace.Reader) {
	t.Helper()
	c.mechanisms = map[string]bool{}
	for e, err := range Run(r.Header(), File(r), Options{Count: true}) {
		qt.Assert(t, qt.IsNil(err))
		switch {
		case e.Attempt != nil && !e.Repeat:
			c.attempts++
			c.late = max(c.late, c.attempts-1-c.summaries) // each but this has been repeated
		case e.Repeats != nil:
			c.summaries++
			c.repeated += e.Repeats.Repeats
		case e.Lost != nil:
			c.mechanisms[e.Lost.Mechanism] = true
		case e.Loss != nil:
			c.losses = append(c.losses, e.Loss)
		}
	}
}

// recording is a trace of some calls and losses, ready to be replayed.
func recording(t *testing.T, write func(*trace.Writer)) *trace.Reader {
	t.Helper()
	var file bytes.Buffer
	w, err := trace.NewWriter(&file, trace.Header{Schema: trace.Schema, Levels: 4})
	qt.Assert(t, qt.IsNil(err))
	write(w)
	qt.Assert(t, qt.IsNil(w.Close(trace.End{})))
	r, err := trace.NewReader(&file)
	qt.Assert(t, qt.IsNil(err))
	return r
}

// TestManyGroups: a recording with more kinds of failures than a table holds, each of which
// repeats, is told as it goes, also where its clock stands still because one record is of the far
// future: what is told late is what the table holds, and what one look finds.
func TestManyGroups(t *testing.T) {
	const groups = 2000
	for name, first := range map[string]uint64{"clock": 0, "no clock": 1 << 62} {
		t.Run(name, func(t *testing.T) {
			r := recording(t, func(w *trace.Writer) {
				for i := range 2 * groups {
					at := uint64(time.Hour) + uint64(i)*uint64(time.Second)
					if i == 0 {
						at = max(at, first)
					}
					c := &trace.Call{ID: trace.CallID{TID: uint32(1 + i), Start: at}, End: at + 1, Kind: load.MapCreate, Ret: -22, TGID: uint32(1 + i), Comm: fmt.Sprint("agent", i/2),
						Flags: trace.CallFlags{EnterSeen: true, ExitSeen: true}, Attr: make([]byte, 72)}
					qt.Assert(t, qt.IsNil(w.Write(trace.Record{Call: c})))
				}
			})
			c := &tally{}
			c.take(t, r)
			t.Logf("%d attempts, %d summaries, at most %d late", c.attempts, c.summaries, c.late)
			qt.Check(t, qt.Equals(c.attempts+int(c.repeated), 2*groups))
			qt.Check(t, qt.IsTrue(c.summaries >= groups-2), qt.Commentf("%d", c.summaries))
			qt.Check(t, qt.IsTrue(c.late <= 1024+2*atMost), qt.Commentf("%d", c.late))
		})
	}
}

// TestManyMechanisms: a file may name anything as what lost something.
func TestManyMechanisms(t *testing.T) {
	const names = 10000
	r := recording(t, func(w *trace.Writer) {
		for i := range names {
			name := fmt.Sprint("mechanism ", i)
			if i == 0 {
				name = strings.Repeat("long", 1000)
			}
			qt.Assert(t, qt.IsNil(w.Write(trace.Record{Loss: &trace.Loss{Mechanism: name, Count: 1, Unknown: i%2 == 1, To: 1}})))
		}
	})
	c := &tally{}
	c.take(t, r)
	lost := uint64(0)
	for _, l := range c.losses {
		qt.Check(t, qt.IsTrue(len(l.Events)+len(l.Unknown) <= maxMechanisms+2), qt.Commentf("%d", len(l.Events)))
		for name, n := range l.Events {
			lost += n
			qt.Check(t, qt.IsTrue(len(name) <= maxMechanism))
		}
	}
	qt.Check(t, qt.Equals(lost, names/2))
	qt.Check(t, qt.IsTrue(len(c.mechanisms) <= maxMechanisms+2))
}

func failing(i int) trace.Record {
	at := uint64(i) * uint64(time.Second)
	return trace.Record{Call: &trace.Call{ID: trace.CallID{TID: 1, Start: at}, End: at + 1, Kind: load.MapCreate, Ret: -22, TGID: 1, Comm: fmt.Sprint("agent", i%2),
		Flags: trace.CallFlags{EnterSeen: true, ExitSeen: true}, Attr: make([]byte, 72)}}
}

// TestCut: an error of a file comes after the attempts before it.
func TestCut(t *testing.T) {
	var buf bytes.Buffer
	w, err := trace.NewWriter(&buf, trace.Header{Schema: trace.Schema, Levels: 4})
	qt.Assert(t, qt.IsNil(err))
	for i := range 3 {
		qt.Assert(t, qt.IsNil(w.Write(failing(i))))
	}
	cut := bytes.Clone(buf.Bytes())
	qt.Assert(t, qt.IsNil(w.Close(trace.End{Calls: 3})))
	for want, file := range map[error][]byte{nil: buf.Bytes(), trace.ErrTruncated: cut} {
		r, err := trace.NewReader(bytes.NewReader(file))
		qt.Assert(t, qt.IsNil(err))
		var names []string
		var last error
		for a, err := range Attempts(r.Header(), File(r)) {
			if last = err; err == nil {
				qt.Check(t, qt.IsNotNil(a.Diagnosis))
				names = append(names, a.Process.Comm)
			}
		}
		qt.Check(t, qt.DeepEquals(names, []string{"agent0", "agent1", "agent0"}))
		qt.Check(t, qt.ErrorIs(last, want))
	}
}

// kernel is a source that has seen some calls, and waits for its end.
type kernel struct {
	records []trace.Record
	closed  chan struct{}
	read    atomic.Int64
	behind  atomic.Bool
}

func (k *kernel) Next() (trace.Record, error) {
	if len(k.records) == 0 {
		<-k.closed
		return trace.Record{}, io.EOF
	}
	k.read.Add(1)
	r := k.records[0]
	k.records = k.records[1:]
	return r, nil
}

func (k *kernel) Close() error { close(k.closed); return nil }

func (k *kernel) Behind() bool { return k.behind.Load() }

// slow is a source of which one event takes long to be looked at.
type slow struct {
	*kernel
	at   int
	long time.Duration
}

func (s *slow) Next() (trace.Record, error) {
	if len(s.records) == s.at {
		s.behind.Store(true)
		time.Sleep(s.long)
	}
	s.behind.Store(len(s.records) > 0 && len(s.records) <= s.at)
	return s.kernel.Next()
}

// TestLateStory: a loader that seems quiet, because what it did is still being looked at, is not
// told of by halves: neither while it goes on nor when all ends meanwhile.
func TestLateStory(t *testing.T) {
	for _, end := range []time.Duration{time.Minute, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			told := lateStories(t, end)
			qt.Assert(t, qt.HasLen(told, 1))
			qt.Check(t, qt.Equals(told[0].Maps, load.Tally{OK: 3, Of: 4}))
			qt.Check(t, qt.IsTrue(told[0].Time.Before(told[0].First.Add(20*time.Second)))) // and not at the end alone
		})
	}
}

func lateStories(t *testing.T, end time.Duration) (told []load.Story) {
	began := time.Now()
	call := func(at time.Duration, ret int64) trace.Record {
		return trace.Record{Call: &trace.Call{ID: trace.CallID{TID: 1, Start: uint64(at)}, End: uint64(at) + 1, Kind: load.MapCreate, Ret: ret, TGID: 1, Comm: "agent",
			Flags: trace.CallFlags{EnterSeen: true, ExitSeen: true}, Attr: make([]byte, 72)}}
	}
	records := []trace.Record{call(1e6, 5), call(2e6, 6), call(3e6, 7), {Loss: &trace.Loss{Mechanism: "ring", Count: 1, To: 10e9}}, call(4e6, -22)}
	source := &slow{&kernel{records: records, closed: make(chan struct{})}, 2, 10 * time.Second}
	stop := make(chan struct{})
	time.AfterFunc(end, func() { close(stop) })
	feed := Live(source, stop, func() uint64 { return uint64(time.Since(began)) })
	for e, err := range Run(trace.Header{All: true, Epoch: began.UnixNano()}, feed, Options{Count: true}) {
		qt.Assert(t, qt.IsNil(err))
		if e.Story != nil {
			told = append(told, *e.Story)
		}
	}
	return told
}

// TestLiveAsFile: a kernel is told of as a recording of it is, and to its end.
func TestLiveAsFile(t *testing.T) {
	var records []trace.Record
	for i := range 10 {
		records = append(records, failing(i))
	}
	told := func(feed Feed) (list []string) {
		for e, err := range Run(trace.Header{}, feed, Options{Count: true, Shows: func(a *load.Attempt) bool { return a.Process.Comm == "agent1" }}) {
			qt.Assert(t, qt.IsNil(err))
			switch {
			case e.Attempt != nil:
				list = append(list, fmt.Sprint(e.Attempt.Process.Comm, e.Hidden, e.Repeat, e.Attempt.Diagnosis.Rule))
			case e.Repeats != nil:
				list = append(list, fmt.Sprint(e.Repeats.Process.Comm, e.Repeats.Repeats))
			}
		}
		return list
	}
	file := told(File(recording(t, func(w *trace.Writer) {
		for _, r := range records {
			qt.Assert(t, qt.IsNil(w.Write(r)))
		}
	})))
	stop := make(chan struct{}, 1)
	stop <- struct{}{}
	live := told(Live(&kernel{records: records, closed: make(chan struct{})}, stop, func() uint64 { return 0 }))
	attempts := func(list []string) []string {
		return slices.DeleteFunc(list, func(s string) bool { return !strings.Contains(s, "true") && !strings.Contains(s, "false") })
	}
	qt.Check(t, qt.Equals(live[len(live)-1], "agent14")) // the first was told
	qt.Check(t, qt.HasLen(attempts(file), len(records)))
	qt.Check(t, qt.DeepEquals(attempts(live), attempts(file)))
}

// TestStop: who has heard enough hears no more, the source is not read any further, and nobody
// waits for it.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kernel{records: slices.Repeat([]trace.Record{{Loss: &trace.Loss{Mechanism: "ring", Count: 1}}}, 10000)}
		n := 0
		for range Run(trace.Header{}, Live(k, nil, func() uint64 { return 0 }), Options{Count: true}) {
			if n++; n == 5 {
				break
			}
		}
		qt.Check(t, qt.Equals(n, 5))
		qt.Check(t, qt.IsTrue(k.read.Load() <= 5+Queued), qt.Commentf("%d", k.read.Load()))
	})
}

// TestProve: a proof that cannot be made ends all.
func TestProve(t *testing.T) {
	broken := errors.New("no")
	n := 0
	var last error
	for e, err := range Run(trace.Header{}, Of([]trace.Record{failing(0), failing(1)}), Options{Prove: func(a *load.Attempt) error { n++; return broken }}) {
		qt.Check(t, qt.IsNil(e.Attempt))
		last = err
	}
	qt.Check(t, qt.ErrorIs(last, broken))
	qt.Check(t, qt.Equals(n, 1))
}
