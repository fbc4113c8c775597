// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Limits of those who read the figures.
const (
	maxReaders   = 64               // connections at once: one more ends the oldest
	readTime     = 5 * time.Second  // for a request's head
	writeTime    = 10 * time.Second // for all of the answer: Prometheus does not wait longer
	idleTime     = time.Minute
	maxHeadBytes = 16 << 10
)

// serve answers Prometheus until the returned function is called, each within a time. failed is
// called if that ends sooner.
func serve(l net.Listener, figures http.Handler, within time.Duration, failed func(error)) (stop func()) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", figures)
	s := &http.Server{Handler: mux, ReadTimeout: readTime, WriteTimeout: within, IdleTimeout: idleTime, MaxHeaderBytes: maxHeadBytes}
	r := readers{max: maxReaders}
	s.ConnState = r.changed
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(l); err != http.ErrServerClosed {
			failed(err)
		}
	}()
	return func() {
		s.Close()
		<-done
	}
}

// readers are the connections of a server, those that got on the longest ago first. Whoever comes
// is served: one that does not get on makes room.
type readers struct {
	max int

	mu   sync.Mutex
	list []net.Conn
}

func (r *readers) changed(c net.Conn, state http.ConnState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = slices.DeleteFunc(r.list, func(other net.Conn) bool { return other == c })
	switch state {
	case http.StateNew:
		if len(r.list) >= r.max {
			r.list[0].Close()
			r.list = slices.Delete(r.list, 0, 1)
		}
		r.list = append(r.list, c)
	case http.StateActive:
		r.list = append(r.list, c)
	case http.StateIdle:
		r.list = slices.Insert(r.list, 0, c) // it has read all: to be closed does it no harm
	}
}
