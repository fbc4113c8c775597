// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"sync/atomic"
	"time"

	"github.com/bpfwhy/bpfwhy/httpprobe/connection"
)

// exchanges takes finished exchanges to one goroutine, which tells them: that reads files and
// encodes JSON, and the table of connections is locked while it hands an exchange over. What there
// is no room for is dropped and counted.
type exchanges struct {
	queue   chan connection.Exchange
	done    chan struct{}
	dropped atomic.Uint64
}

// maxExchanges is how many wait at most.
const maxExchanges = 4096

func newExchanges(tell func(*connection.Exchange)) *exchanges {
	x := &exchanges{queue: make(chan connection.Exchange, maxExchanges), done: make(chan struct{})}
	go func() {
		defer close(x.done)
		for e := range x.queue {
			tell(&e)
		}
	}()
	return x
}

// add takes an exchange and does not wait.
func (x *exchanges) add(e *connection.Exchange) {
	select {
	case x.queue <- *e:
	default:
		x.dropped.Add(1)
	}
}

// close has what waits told, for a while; what is not told then is dropped. Nothing is added after
// it.
func (x *exchanges) close() {
	close(x.queue)
	select {
	case <-x.done:
	case <-time.After(lastWrite):
		x.dropped.Add(uint64(len(x.queue)))
	}
}
