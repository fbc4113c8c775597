// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
)

// FuzzReader: lines are read as they came, in whatever pieces, each within its bound; and what was
// read is the same when it has been written and read again.
func FuzzReader(f *testing.F) {
	var seed bytes.Buffer
	w := NewWriter(&seed)
	for _, m := range []Message{
		{Start: &Start{Arrived: 7, Header: trace.Header{Schema: trace.Schema}}},
		{Record: trace.Record{Call: &trace.Call{Ret: -22, Prog: &trace.Prog{Tag: []byte{1, 2}}}}},
		{Seen: 5}, {Facts: &Facts{Loads: map[string]uint64{"xdp": 3}}},
	} {
		qt.Assert(f, qt.IsNil(w.Write(m)))
	}
	qt.Assert(f, qt.IsNil(w.Flush()))
	f.Add(seed.Bytes(), uint16(0))
	f.Add(seed.Bytes()[:seed.Len()/2], uint16(0))
	f.Add([]byte("{\"seen\":5}\nnothing\n"), uint16(0))
	f.Add([]byte("{}\n"), uint16(20_000)) // longer than the buffer
	f.Add([]byte("\n\n{}"), uint16(1))    // lines of nothing
	f.Fuzz(func(t *testing.T, text []byte, spaces uint16) {
		text = append(bytes.Repeat([]byte(" "), int(spaces)%40_000), text...)
		whole, pieces := NewReader(bytes.NewReader(text)), NewReader(iotest.HalfReader(bytes.NewReader(text)))
		rest := text
		for {
			m, line, err := whole.Next()
			_, other, otherErr := pieces.Next()
			qt.Assert(t, qt.Equals(err == nil, otherErr == nil))
			if err != nil {
				if err == io.EOF {
					qt.Assert(t, qt.HasLen(rest, 0))
				}
				return
			}
			qt.Assert(t, qt.IsTrue(bytes.Equal(line, other)))
			qt.Assert(t, qt.IsTrue(len(line) <= maxLine && line[len(line)-1] == '\n'))
			var ok bool
			rest, ok = bytes.CutPrefix(rest, line)
			qt.Assert(t, qt.IsTrue(ok))
			again(t, m)
		}
	})
}

func again(t *testing.T, m Message) {
	if m.Call != nil {
		qt.Assert(t, qt.IsFalse(Worked(m.Call) && m.Call.Ret < 0))
	}
	first := written(t, m)
	if first == nil {
		return
	}
	same, _, err := NewReader(bytes.NewReader(first)).Next()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(string(written(t, same)), string(first)))
}

// written is a message as a line, nil if that would be too long: escapes make it longer.
func written(t *testing.T, m Message) []byte {
	var b bytes.Buffer
	w := NewWriter(&b)
	if err := w.Write(m); err != nil {
		qt.Assert(t, qt.ErrorMatches(err, ".*a line of .*"))
		return nil
	}
	qt.Assert(t, qt.IsNil(w.Flush()))
	return b.Bytes()
}
