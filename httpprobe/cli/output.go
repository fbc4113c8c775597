// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"
)

// output writes text in the background, so that nobody waits for a reader that has stopped. What
// there is no room for is dropped.
type output struct {
	to   io.Writer
	wake chan struct{}
	done chan struct{}

	mu      sync.Mutex
	waiting []byte // whole lines
	writing []byte // the same, while they are written
	spare   []byte
	dropped uint64 // lines
	err     error  // of the first write that failed: nothing is written after it
}

const (
	maxKept   = 8 << 20     // bytes
	enough    = 64 << 10    // bytes to be written at once; fewer wait for a flush
	lastWrite = time.Second // is how long close waits
)

func newOutput(to io.Writer) *output {
	o := &output{to: to, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		defer close(o.done)
		for range o.wake {
			o.write()
		}
	}()
	return o
}

// write writes what waits.
func (o *output) write() {
	o.mu.Lock()
	b := o.waiting
	o.writing, o.waiting = b, o.spare[:0]
	o.mu.Unlock()
	var err error
	if len(b) > 0 {
		_, err = o.to.Write(b)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil && o.err == nil {
		o.err = writeError(err)
	}
	o.writing, o.spare = nil, b
	if cap(b) > 4*enough {
		o.spare = nil // that was an exception
	}
}

// Write takes whole lines: all or none. It keeps nothing of b, and does not fail.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.err != nil:
	case len(o.writing)+len(o.waiting)+len(b) > maxKept:
		o.dropped += lines(b)
	default:
		if o.waiting = append(o.waiting, b...); len(o.waiting) >= enough {
			o.flush()
		}
	}
	return len(b), nil
}

func lines(b []byte) uint64 { return uint64(bytes.Count(b, []byte("\n"))) }

// flush has everything written soon.
func (o *output) flush() {
	select {
	case o.wake <- struct{}{}:
	default: // it is to be woken already
	}
}

// state returns how many lines were dropped, and why nothing can be written any more.
func (o *output) state() (dropped uint64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dropped, o.err
}

// close writes what is left, for a while; what is not written then is dropped. The output is not
// used after it, but for its state.
func (o *output) close() {
	o.flush()
	close(o.wake)
	select {
	case <-o.done:
	case <-time.After(lastWrite):
		o.mu.Lock()
		defer o.mu.Unlock()
		o.dropped += lines(o.writing) + lines(o.waiting)
	}
}

// writeError leaves out names of files that nobody has typed.
func writeError(err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return fmt.Errorf("write output: %w", err)
}
