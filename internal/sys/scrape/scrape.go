// SPDX-License-Identifier: Apache-2.0

// Package scrape is the server from which figures are read. Whoever comes is served: of too many
// connections, those make room that do not get on.
package scrape

import (
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Limits of those who read the figures.
const (
	MaxReaders   = 64               // connections at once: one more ends the oldest
	WriteTime    = 10 * time.Second // for all of the answer: Prometheus does not wait longer
	readTime     = 5 * time.Second  // for a request's head
	idleTime     = time.Minute
	maxHeadBytes = 16 << 10
)

// Server returns a server that gives each answer so much time.
func Server(h http.Handler, within time.Duration) *http.Server {
	r := readers{max: MaxReaders}
	return &http.Server{
		Handler: h, ReadTimeout: readTime, WriteTimeout: within, IdleTimeout: idleTime, MaxHeaderBytes: maxHeadBytes, ConnState: r.changed,
	}
}

// readers are the connections of a server, those that got on the longest ago first.
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
