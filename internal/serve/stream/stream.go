// SPDX-License-Identifier: Apache-2.0

// Package stream is what the process that may read the kernel tells the one that may not: records,
// line by line as in a recording, and a few lines about the node between them. It goes one way.
// Nothing can be asked of the reader.
package stream

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/serve/config"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// Start is the first line.
type Start struct {
	Config config.Config `json:"config"`
	Header trace.Header  `json:"header"`
	// Since is when the hooks were attached.
	Since time.Time `json:"since"`
	// Arrived is how many calls the reader had from the kernel before this stream, of this and
	// earlier services of one state folder.
	Arrived uint64 `json:"arrived"`
	// Less is what is not seen, a sentence each.
	Less []string `json:"less,omitempty"`
}

// Facts are about the node, as the reader sees it now.
type Facts struct {
	Sysctls map[string]string `json:"sysctls,omitempty"`
	JITUsed *uint64           `json:"jit_used,omitempty"`
	// Loads are program loads that worked, since the hooks were attached, by type of program: none
	// of them is a record, unless it matters to a failure.
	Loads map[string]uint64 `json:"loads,omitempty"`
	// Programs are those that loaded, with how often: the first so many.
	Programs []Program `json:"programs,omitempty"`
	// Kernel is what is loaded now.
	Kernel []Loaded `json:"kernel,omitempty"`
	// Audit is what hardening would do to it, as far as is known.
	Audit *fleet.Audit `json:"audit,omitempty"`
}

// Program is a program that loaded.
type Program struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Insns int    `json:"insns"`
	Count int    `json:"count"`
}

// Loaded counts programs of a type that are in the kernel.
type Loaded struct {
	Type  string `json:"type"`
	JITed bool   `json:"jited"`
	Count int    `json:"count"`
}

// Message is one line. One of its fields is set.
type Message struct {
	trace.Record
	Start *Start `json:"start,omitempty"`
	// Seen is the time, in ns of the kernel's monotonic clock, before which all records have come.
	Seen  uint64 `json:"seen,omitempty"`
	Facts *Facts `json:"facts,omitempty"`
}

// maxLine is that of a recording, with room for the facts.
const maxLine = 1 << 20

// Writer writes lines.
type Writer struct {
	w   io.Writer
	buf bytes.Buffer
	enc *json.Encoder
}

// NewWriter returns a writer.
func NewWriter(w io.Writer) *Writer {
	out := &Writer{w: w}
	out.enc = json.NewEncoder(&out.buf)
	out.enc.SetEscapeHTML(false)
	return out
}

// enough is how many bytes of lines are sent at once.
const enough = 32 << 10

// Write adds one line. It is sent with others, or by Flush.
func (w *Writer) Write(m Message) error {
	before := w.buf.Len()
	if err := w.enc.Encode(m); err != nil {
		return fmt.Errorf("write to the exporter: %w", err)
	}
	if n := w.buf.Len() - before; n > maxLine {
		return fmt.Errorf("write to the exporter: a line of %d bytes", n)
	}
	if w.buf.Len() < enough {
		return nil
	}
	return w.Flush()
}

// Flush sends the lines that wait.
func (w *Writer) Flush() error {
	if w.buf.Len() == 0 {
		return nil
	}
	if _, err := w.w.Write(w.buf.Bytes()); err != nil {
		return fmt.Errorf("write to the exporter: %w", err)
	}
	if w.buf.Cap() > 4*enough { // few lines are long
		w.buf = bytes.Buffer{}
	}
	w.buf.Reset()
	return nil
}

// Reader reads lines.
type Reader struct {
	r    *bufio.Reader
	long []byte
}

// NewReader returns a reader.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 16<<10)} }

// Next returns the next line, parsed and as it came. The text is good until the next call. io.EOF:
// the other process ended between two lines.
func (r *Reader) Next() (m Message, line []byte, err error) {
	line, err = r.line()
	if err == io.EOF && len(line) > 0 {
		return m, nil, io.ErrUnexpectedEOF
	}
	if err != nil {
		return m, nil, err
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, nil, fmt.Errorf("read from the reader: %w", err)
	}
	return m, line, nil
}

func (r *Reader) line() ([]byte, error) {
	r.long = r.long[:0]
	if cap(r.long) > 256<<10 {
		r.long = nil
	}
	for {
		part, err := r.r.ReadSlice('\n')
		if err == nil && len(r.long) == 0 {
			return part, nil
		}
		if len(r.long)+len(part) > maxLine {
			return nil, errors.New("read from the reader: a line is too long")
		}
		r.long = append(r.long, part...)
		if err != bufio.ErrBufferFull {
			return r.long, err
		}
	}
}

// Worked reports a program load of which nothing is to be told by itself: it was loaded, and
// compiled as far as is known. Checks inside it may have failed: a process without CAP_PERFMON is
// asked for it at each load.
func Worked(c *trace.Call) bool {
	if c.Kind != load.ProgLoad || c.Ret < 0 {
		return false
	}
	if c.Prog != nil {
		return c.Prog.JITed
	}
	return len(c.Failed) == 0
}
