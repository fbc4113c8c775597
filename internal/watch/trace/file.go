// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Limits of a file. A line longer than maxLine, more text than maxTotal once unpacked, more records
// or blank lines is not a trace that Writer wrote, or one of weeks: it is refused before it costs
// memory or hours.
const (
	maxLine    = 1 << 20
	maxTotal   = 4 << 30
	maxRecords = 8 << 20
	maxBlank   = 1000
	// maxData keeps the base64 form of a chunk, and with it the line, well below maxLine.
	maxData = 256 << 10
	// maxList bounds every list inside one record: as many maps, spans or hooks as no kernel gives.
	maxList = 4096
	// maxValues bounds the values of one line, before it is decoded: an empty object of three bytes
	// becomes a struct of a hundred.
	maxValues = 1 << 16
)

// ErrTruncated says that a trace stops before its End record: the recorder was killed, or the file
// was cut. What was read until then is good.
var ErrTruncated = errors.New("trace ends early")

// Writer writes a trace. It is not safe for concurrent use.
type Writer struct {
	gz  *gzip.Writer
	enc *json.Encoder
}

// NewWriter starts a trace with its header. The caller keeps ownership of w.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	gz, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	out := &Writer{gz: gz, enc: json.NewEncoder(gz)}
	out.enc.SetEscapeHTML(false)
	h.Schema = Schema
	if err := out.Write(Record{Header: &h}); err != nil {
		return nil, err
	}
	return out, nil
}

// Write adds a record. The file is readable up to and including the last Call whose Write returned:
// nothing of it waits in this process. A chunk that is too large for one line is split.
func (w *Writer) Write(r Record) error {
	if r.Chunk != nil && len(r.Chunk.Data) > maxData {
		return w.split(r.Chunk)
	}
	if err := w.enc.Encode(r); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	if r.Chunk != nil || r.Message != nil || r.Begin != nil {
		return nil // its Call follows
	}
	if err := w.gz.Flush(); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	return nil
}

func (w *Writer) split(c *Chunk) error {
	piece := *c
	for data := c.Data; len(data) > 0; data = data[len(piece.Data):] {
		piece.Offset = c.Offset + uint64(len(c.Data)-len(data))
		piece.Data = data[:min(len(data), maxData)]
		if err := w.Write(Record{Chunk: &piece}); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the trace with e. It does not close the underlying writer.
func (w *Writer) Close(e End) error {
	if err := w.Write(Record{End: &e}); err != nil {
		return err
	}
	if err := w.gz.Close(); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	return nil
}

// Reader reads a trace, gzip or plain JSON Lines, and trusts nothing in it.
type Reader struct {
	lines  *bufio.Reader
	header Header
	n      int // records read
	blank  int // lines
	total  int64
	ended  bool
	err    error
}

// Recorded reports whether what follows looks like a trace. It reads nothing.
func Recorded(in *bufio.Reader) bool {
	const plain = `{"header"`
	head, _ := in.Peek(len(plain))
	return bytes.HasPrefix(head, []byte{0x1f, 0x8b}) || bytes.Equal(head, []byte(plain))
}

// NewReader reads the header of a trace.
func NewReader(r io.Reader) (*Reader, error) {
	raw := bufio.NewReader(r)
	out := &Reader{lines: raw}
	magic, err := raw.Peek(2)
	if len(magic) == 0 && (err == nil || err == io.EOF) {
		return nil, errors.New("read trace: the file is empty")
	}
	if len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		gz, err := gzip.NewReader(raw)
		if err != nil {
			return nil, fmt.Errorf("read trace: %w", notEOF(err))
		}
		out.lines = bufio.NewReader(gz)
	}
	first, err := out.next()
	switch {
	case err == io.EOF:
		return nil, errors.New("read trace: the file is empty")
	case err != nil && errors.Is(err, ErrTruncated):
		return nil, err
	case err != nil || first.Header == nil:
		return nil, errors.New("read trace: not a bpfwhy trace: record 1 is not a header")
	case first.Header.Schema != Schema:
		return nil, fmt.Errorf("read trace: schema is %q, this version reads %q", clip(first.Header.Schema), Schema)
	}
	out.header = *first.Header
	return out, nil
}

// Header returns the header of the trace.
func (r *Reader) Header() Header { return r.header }

// Next returns the next record, and io.EOF after the End record. A trace that stops before its End
// gives an error that wraps ErrTruncated, anything else that is wrong an error with the number of
// the record. Every later call returns the same error.
func (r *Reader) Next() (Record, error) {
	if r.err != nil {
		return Record{}, r.err
	}
	rec, err := r.next()
	switch {
	case err == io.EOF && !r.ended:
		err = fmt.Errorf("read trace: %w after record %d: the recorder was stopped, or the file was cut", ErrTruncated, r.n)
	case err == nil && r.ended:
		err = fmt.Errorf("read trace: record %d comes after the end", r.n)
	case err == nil && rec.Header != nil:
		err = fmt.Errorf("read trace: record %d is a second header", r.n)
	}
	if err != nil {
		r.err = err
		return Record{}, err
	}
	r.ended = rec.End != nil
	return rec, nil
}

// next reads one line. io.EOF means a clean end between two lines.
func (r *Reader) next() (Record, error) {
	for {
		line, err := r.line()
		blank := len(bytes.TrimSpace(line)) == 0
		switch {
		case err == io.EOF && blank:
			return Record{}, io.EOF
		case err == io.EOF:
			// A last line without its newline: whole if it parses, else cut.
		case errors.Is(err, io.ErrUnexpectedEOF):
			return Record{}, fmt.Errorf("read trace: %w after record %d: the recorder was stopped, or the file was cut",
				ErrTruncated, r.n)
		case err != nil:
			return Record{}, fmt.Errorf("read trace: record %d: %w", r.n+1, err)
		}
		if blank {
			if r.blank++; r.blank > maxBlank {
				return Record{}, fmt.Errorf("read trace: record %d: more than %d blank lines", r.n+1, maxBlank)
			}
			continue
		}
		if r.n >= maxRecords {
			return Record{}, fmt.Errorf("read trace: more than %d records", maxRecords)
		}
		rec, perr := parse(line)
		if perr != nil && err == io.EOF {
			return Record{}, fmt.Errorf("read trace: %w inside record %d: the recorder was stopped, or the file was cut",
				ErrTruncated, r.n+1)
		}
		if perr != nil {
			return Record{}, fmt.Errorf("read trace: record %d: %w", r.n+1, perr)
		}
		r.n++
		return rec, nil
	}
}

func (r *Reader) line() ([]byte, error) {
	var line []byte
	for {
		part, err := r.lines.ReadSlice('\n')
		r.total += int64(len(part))
		if len(line)+len(part) > maxLine {
			return nil, fmt.Errorf("longer than %d bytes", maxLine)
		}
		if r.total > maxTotal {
			return nil, fmt.Errorf("more than %d GiB of records", maxTotal>>30)
		}
		line = append(line, part...)
		if err != bufio.ErrBufferFull {
			return line, err
		}
	}
}

//revive:disable-next-line:cyclomatic hostile files: each record is checked
func parse(line []byte) (Record, error) {
	if bytes.Count(line, []byte{','}) >= maxValues {
		return Record{}, fmt.Errorf("more than %d values", maxValues)
	}
	var rec Record
	if err := json.Unmarshal(line, &rec); err != nil {
		return Record{}, errors.New("not a JSON record: " + clip(err.Error()))
	}
	set := 0
	for _, on := range []bool{rec.Header != nil, rec.Call != nil, rec.Chunk != nil, rec.Message != nil,
		rec.Loss != nil, rec.Sysctl != nil, rec.Begin != nil, rec.Hang != nil, rec.End != nil} {
		if on {
			set++
		}
	}
	if set != 1 {
		return Record{}, fmt.Errorf("holds %d kinds of record, not one", set)
	}
	if c := rec.Call; c != nil {
		if len(c.Stages) > maxList || len(c.Failed) > maxList || len(c.Maps) > maxList {
			return Record{}, errors.New("a list is too long")
		}
	}
	if h := rec.Hang; h != nil {
		if len(h.Calls) > maxList || h.More < 0 {
			return Record{}, errors.New("a list is too long")
		}
		for _, c := range h.Calls {
			if len(c.Functions) > maxList {
				return Record{}, errors.New("a list is too long")
			}
		}
	}
	if h := rec.Header; h != nil && len(h.Hooks) > maxList {
		return Record{}, errors.New("a list is too long")
	}
	return rec, nil
}

// notEOF keeps io.EOF, which means a good end to callers, out of an error about a broken file.
func notEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// clip bounds foreign text inside an error, in one line.
func clip(s string) string {
	const most = 120
	b := []rune(s)
	if len(b) > most {
		b = append(b[:most], '…')
	}
	for i, c := range b {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			b[i] = '?'
		}
	}
	return string(b)
}
