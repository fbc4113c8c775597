// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package exporter

import (
	"io"
	"sync"
	"sync/atomic"

	"github.com/bpfwhy/bpfwhy/internal/serve/statefolder"
)

// waitingRecordings is how many wait to be written: a disk is slow, and nothing waits for it.
const waitingRecordings = 8

// recorder writes recordings, one after the other.
type recorder struct {
	folder *statefolder.Folder
	list   chan recording
	done   chan struct{}
	lost   atomic.Uint64 // recordings that could not be written

	mu    sync.Mutex
	known map[string]bool // ids that are written, or will be
}

type recording struct {
	id   string
	text []byte
}

func newRecorder(f *statefolder.Folder) *recorder {
	r := &recorder{folder: f, list: make(chan recording, waitingRecordings), done: make(chan struct{}), known: map[string]bool{}}
	go r.run()
	return r
}

func (r *recorder) run() {
	defer close(r.done)
	said := false
	for one := range r.list {
		err := r.folder.Record(one.id, func(w io.Writer) error { _, err := w.Write(one.text); return err })
		if err != nil {
			r.lost.Add(1)
			r.forget(one.id) // a later failure of the kind may find room
		}
		if err != nil && !said {
			say("%v", err)
		}
		said = err != nil
	}
}

// maxKnown bounds the ids that are remembered: beyond, the folder is asked again.
const maxKnown = 4096

// wants reports whether there is no recording of a kind of failures yet, and room for one.
func (r *recorder) wants(id string) bool {
	r.mu.Lock()
	known := r.known[id]
	r.mu.Unlock()
	if known || len(r.list) == cap(r.list) {
		return false
	}
	if r.folder.Has(id) {
		r.know(id)
		return false
	}
	return true
}

func (r *recorder) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, id)
}

func (r *recorder) know(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.known) >= maxKnown {
		clear(r.known)
	}
	r.known[id] = true
}

// put hands a recording over. There is room: nobody else puts any.
func (r *recorder) put(id string, text []byte) {
	r.know(id)
	r.list <- recording{id, text}
}

func (r *recorder) close() {
	close(r.list)
	<-r.done
}
