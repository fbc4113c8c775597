// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// tally is a sink that counts.
type tally struct {
	attempts, summaries int
	repeated            uint64
	late                int // the most groups with repeats of which it was not told
	losses              []*load.Loss
}

func (c *tally) attempt(*load.Attempt) error {
	c.attempts++
	c.late = max(c.late, c.attempts-1-c.summaries) // each but this has been repeated
	return nil
}

func (c *tally) repeats(r *load.Summary) error {
	c.summaries++
	c.repeated += r.Repeats
	return nil
}

func (c *tally) loss(l *load.Loss) error {
	c.losses = append(c.losses, l)
	return nil
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

// TestReplayManyGroups: a recording with more kinds of failures than a table holds, each of which repeats, is told as it goes, also where its clock
// stands still because one record is of the far future: what is told late is what the table holds, and what one look finds.
func TestReplayManyGroups(t *testing.T) {
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
			s, err := newSession(r.Header(), &selection{}, c)
			qt.Assert(t, qt.IsNil(err))
			s.shows = func(*load.Attempt) bool { return true }
			qt.Assert(t, qt.IsNil(s.replay(r)))
			t.Logf("%d attempts, %d summaries, at most %d late", c.attempts, c.summaries, c.late)
			qt.Check(t, qt.Equals(c.attempts+int(c.repeated), 2*groups))
			qt.Check(t, qt.IsTrue(c.summaries >= groups-2), qt.Commentf("%d", c.summaries))
			qt.Check(t, qt.IsTrue(c.late <= 1024+2*atMost), qt.Commentf("%d", c.late))
		})
	}
}

// TestReplayManyMechanisms: a file may name anything as what lost something.
func TestReplayManyMechanisms(t *testing.T) {
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
	s, err := newSession(r.Header(), &selection{}, c)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(s.replay(r)))
	lost := uint64(0)
	for _, l := range c.losses {
		qt.Check(t, qt.IsTrue(len(l.Events)+len(l.Unknown) <= maxMechanisms+2), qt.Commentf("%d", len(l.Events)))
		for name, n := range l.Events {
			lost += n
			qt.Check(t, qt.IsTrue(len(name) <= maxMechanism))
		}
	}
	qt.Check(t, qt.Equals(lost, names/2))
	qt.Check(t, qt.IsTrue(len(s.summary.Lost)+len(s.summary.Unknown) <= maxMechanisms+2))
}
