// SPDX-License-Identifier: Apache-2.0

package exporter

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// recentBytes bounds the lines of calls that are kept until it is known whether they are worth a
// recording.
const recentBytes = 6 << 20

// recent keeps the lines of the last calls, as they came. A call whose lines had to go is not
// recorded.
type recent struct {
	header  trace.Header
	calls   map[uint64]*lines // by their starts
	order   []uint64
	bytes   int
	sysctls map[string][]byte // the last line of each
}

// lines are those of one call. whole: its last one has come, and none was forgotten.
type lines struct {
	list  [][]byte
	bytes int
	whole bool
}

func newRecent(h trace.Header) *recent {
	return &recent{header: h, calls: map[uint64]*lines{}, sysctls: map[string][]byte{}}
}

// add keeps a copy of a line.
func (r *recent) add(rec *trace.Record, line []byte) {
	var start uint64
	switch {
	case rec.Sysctl != nil:
		if _, known := r.sysctls[rec.Sysctl.Name]; known || len(r.sysctls) < 32 {
			r.sysctls[rec.Sysctl.Name] = bytes.Clone(line)
		}
		return
	case rec.Call != nil:
		start = rec.Call.ID.Start
	case rec.Chunk != nil:
		start = rec.Chunk.ID.Start
	case rec.Message != nil:
		start = rec.Message.ID.Start
	default:
		return
	}
	l := r.calls[start]
	if l == nil {
		l = &lines{}
		r.calls[start] = l
		r.order = append(r.order, start)
	}
	l.list = append(l.list, bytes.Clone(line))
	l.bytes += len(line)
	l.whole = l.whole || rec.Call != nil
	r.bytes += len(line)
	for r.bytes > recentBytes && len(r.order) > 0 {
		r.forget(r.order[0])
		r.order = r.order[1:]
	}
}

// drop forgets the calls of an attempt.
func (r *recent) drop(a *load.Attempt) {
	for _, start := range r.starts(a) {
		r.forget(start)
	}
	for len(r.order) > 0 && r.calls[r.order[0]] == nil {
		r.order = r.order[1:]
	}
	if len(r.order) == 0 {
		r.order = nil
	}
}

func (r *recent) forget(start uint64) {
	if l := r.calls[start]; l != nil {
		r.bytes -= l.bytes
		delete(r.calls, start)
	}
}

// starts are those of an attempt's calls, in ns of the kernel's clock.
func (r *recent) starts(a *load.Attempt) (list []uint64) {
	epoch := time.Unix(0, r.header.Epoch)
	for _, c := range a.Evidence.Calls {
		list = append(list, uint64(c.Time.Sub(epoch)))
	}
	return list
}

// has reports whether all lines of an attempt are here.
func (r *recent) has(a *load.Attempt) bool {
	for _, start := range r.starts(a) {
		if l := r.calls[start]; l == nil || !l.whole {
			return false
		}
	}
	return len(a.Evidence.Calls) > 0
}

// write writes a recording of one attempt. Nothing of it is encoded again but the header.
func (r *recent) write(w io.Writer, a *load.Attempt) error {
	gz, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	h := r.header
	h.Schema = trace.Schema
	err = json.NewEncoder(gz).Encode(trace.Record{Header: &h})
	put := func(line []byte) {
		if err == nil {
			_, err = gz.Write(line)
		}
	}
	for _, line := range r.sysctls {
		put(line)
	}
	calls := r.starts(a)
	for _, start := range calls {
		for _, line := range r.calls[start].list {
			put(line)
		}
	}
	if err == nil {
		err = json.NewEncoder(gz).Encode(trace.Record{End: &trace.End{Calls: uint64(len(calls))}})
	}
	if err == nil {
		err = gz.Close()
	}
	if err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	return nil
}
