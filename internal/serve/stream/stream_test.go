// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// What is written is what is read, and the text of a record is a line of a recording.
func TestRoundTrip(t *testing.T) {
	var pipe bytes.Buffer
	w := NewWriter(&pipe)
	no := false
	sent := []Message{
		{Start: &Start{Arrived: 7, Header: trace.Header{Schema: trace.Schema}}},
		{Record: trace.Record{Chunk: &trace.Chunk{What: trace.Insns, Data: bytes.Repeat([]byte{1}, 200_000)}}},
		{Record: trace.Record{Call: &trace.Call{Ret: -22, Prog: &trace.Prog{Asked: &no}}}},
		{Seen: 5},
		{Facts: &Facts{Loads: map[string]uint64{"xdp": 3}}},
	}
	for _, m := range sent {
		qt.Assert(t, qt.IsNil(w.Write(m)))
	}
	qt.Assert(t, qt.IsNil(w.Flush()))
	r := NewReader(&pipe)
	var text bytes.Buffer
	text.WriteString(`{"header":{"schema":"` + trace.Schema + `"}}` + "\n")
	for i := range sent {
		m, line, err := r.Next()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.DeepEquals(m, sent[i]))
		if m.Call != nil || m.Chunk != nil {
			text.Write(line)
		}
	}
	_, _, err := r.Next()
	qt.Check(t, qt.Equals(err, io.EOF))
	recording, err := trace.NewReader(&text)
	qt.Assert(t, qt.IsNil(err))
	for range 2 {
		_, err := recording.Next()
		qt.Check(t, qt.IsNil(err))
	}
}

// The other process may be killed in the middle of a line, and a line has a bound.
func TestCutAndLong(t *testing.T) {
	_, _, err := NewReader(strings.NewReader(`{"seen":5`)).Next()
	qt.Check(t, qt.Equals(err, io.ErrUnexpectedEOF))
	_, _, err = NewReader(strings.NewReader(strings.Repeat("x", maxLine+1))).Next()
	qt.Check(t, qt.ErrorMatches(err, ".*a line is too long"))
	_, _, err = NewReader(strings.NewReader("nothing\n")).Next()
	qt.Check(t, qt.ErrorMatches(err, "read from the reader: .*"))
	err = NewWriter(io.Discard).Write(Message{Record: trace.Record{Chunk: &trace.Chunk{Data: make([]byte, maxLine)}}})
	qt.Check(t, qt.ErrorMatches(err, ".*a line of .*"))
}

// The page outlives who made it, is one at a time, and is what both see.
func TestPage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "accounts")
	p, err := CreatePage(path)
	qt.Assert(t, qt.IsNil(err))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	qt.Assert(t, qt.IsNil(err))
	other, err := OpenPage(f)
	qt.Assert(t, qt.IsNil(err))
	for range 3 {
		p.Arrive()
	}
	other.Account(2)
	qt.Check(t, qt.Equals(other.Arrived(), 3))
	qt.Check(t, qt.Equals(p.Accounted(), 2))
	qt.Check(t, qt.IsNil(p.Close()))
	qt.Check(t, qt.IsNil(other.Close()))
	again, err := CreatePage(path)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(again.Arrived(), 3))
	qt.Check(t, qt.IsNil(again.Close()))
	info, err := os.Stat(path)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(info.Mode().Perm(), 0o600))
	// A file of something else is not taken for a count.
	qt.Assert(t, qt.IsNil(os.WriteFile(path, bytes.Repeat([]byte("x"), 100), 0o600)))
	fresh, err := CreatePage(path)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(fresh.Arrived(), 0))
	qt.Check(t, qt.IsNil(fresh.Close()))
	memory, err := CreatePage("")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(memory.Close()))
}

// Two services cannot use one page.
func TestPageInUse(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the lock")
	}
	path := filepath.Join(t.TempDir(), "accounts")
	p, err := CreatePage(path)
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	_, err = CreatePage(path)
	qt.Check(t, qt.IsTrue(errors.Is(err, ErrInUse)), qt.Commentf("%v", err))
}

func TestWorked(t *testing.T) {
	ok := &trace.Call{Kind: load.ProgLoad, Ret: 3, Prog: &trace.Prog{JITed: true}}
	qt.Check(t, qt.IsTrue(Worked(ok)))
	for _, c := range []*trace.Call{
		{Kind: load.ProgLoad, Ret: -1}, {Kind: load.ProgLoad, Ret: 3, Prog: &trace.Prog{}}, {Kind: load.MapCreate, Ret: 3},
		{Kind: load.ProgLoad, Ret: 3, Failed: []trace.Span{{}}},
	} {
		qt.Check(t, qt.IsFalse(Worked(c)), qt.Commentf("%v", c))
	}
}
