// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/httpprobe/connection"
	"github.com/bpfwhy/bpfwhy/httpprobe/event"
)

// However long it takes to tell an exchange, the table of connections takes events; what there is
// no room for is counted, and what there is room for is told as it was.
func TestExchangesWaitForNobody(t *testing.T) {
	release := make(chan struct{})
	var told []string
	x := newExchanges(func(e *connection.Exchange) {
		<-release
		told = append(told, e.Path)
	})
	connections := connection.New(connection.Options{Emit: x.add})
	const made = maxExchanges + 100
	played := make(chan struct{})
	go func() {
		defer close(played)
		c := conn{take: connections.Event, id: 1, comm: "c"}
		for i := range made {
			c.data(event.In, fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i))
			c.data(event.Out, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}()
	select {
	case <-played:
	case <-time.After(10 * time.Second):
		t.Fatal("the table waits for who tells an exchange")
	}
	qt.Check(t, qt.Equals(connections.Stats(event.Syscalls).Counted, made))
	dropped := x.dropped.Load()
	qt.Check(t, qt.IsTrue(dropped == 99 || dropped == 100), qt.Commentf("%d", dropped)) // one may be in hand
	close(release)
	x.close()
	qt.Check(t, qt.Equals(uint64(len(told))+x.dropped.Load(), made))
	for i, path := range told {
		qt.Assert(t, qt.Equals(path, fmt.Sprintf("/%d", i)))
	}
}

// A source that has no name, or no place in the accounts, would be watched and not counted.
func TestEverySourceIsCounted(t *testing.T) {
	qt.Check(t, qt.HasLen(sourceNames, event.Sources))
	connections := connection.New(connection.Options{})
	for _, name := range sourceNames {
		id := sourceID(name)
		qt.Assert(t, qt.Not(qt.Equals(id, 0)), qt.Commentf("%s", name))
		connections.Event(&event.Event{Kind: event.Data, Conn: event.Conn{Source: id, ID: 1}, Fresh: true, Len: 1, Data: []byte("G")})
		qt.Check(t, qt.Equals(connections.Stats(id).Connections, 1), qt.Commentf("%s", name))
	}
}
