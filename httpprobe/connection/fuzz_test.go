// SPDX-License-Identifier: Apache-2.0

package connection

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
)

// Sources tell what peers send: bytes and positions of any kind, late, again, and across each
// other. Nothing panics, nothing is kept beyond the bounds, and all that was counted is told.
func FuzzTable(f *testing.F) {
	step := func(kind event.Kind, conn, dir byte, pos uint32, text string) []byte {
		b := []byte{byte(kind), conn, dir, 0, 0, 0, 0, byte(len(text))}
		binary.LittleEndian.PutUint32(b[3:], pos)
		return append(b, text...)
	}
	join := func(steps ...[]byte) (all []byte) {
		for _, s := range steps {
			all = append(all, s...)
		}
		return all
	}
	f.Add(join(step(event.Data, 1, 0, 0, get), step(event.Data, 1, 1, 0, ok), step(event.Close, 1, 0, 0, "")), true)
	f.Add(join(step(event.Data, 2, 0, 28, getB), step(event.Data, 2, 0, 0, get), step(event.Data, 2, 1, 7, ok), step(event.Shut, 2, 1, 900, "")), false)
	f.Fuzz(func(t *testing.T, script []byte, fresh bool) {
		var emitted uint64
		tb := New(Options{Connections: 4, Bytes: 8 << 10, Emit: func(e *Exchange) { emitted++ }, Panicked: func(cause any, at string) { t.Fatalf("%v at %s", cause, at) }})
		now := uint64(0)
		for len(script) >= 8 {
			now += uint64(time.Millisecond) << (script[2] >> 4)
			n := min(int(script[7]), len(script)-8)
			e := event.Event{
				Kind: event.Kind(script[0]), Conn: event.Conn{Source: event.Source(script[1] % 5), ID: uint64(script[1] / 5 % 8)}, Dir: event.Direction(script[2] % 3),
				Fresh: fresh, Time: now, Pos: uint64(binary.LittleEndian.Uint32(script[3:])), Len: uint64(n), Data: script[8 : 8+n],
			}
			if script[0]&0x80 != 0 { // more than was copied, and far away
				e.Kind &= 0x7f
				e.Len += e.Pos << 20
				e.Pos <<= 33
			}
			tb.Event(&e)
			script = script[8+n:]
			if len(tb.conns) > 4 || tb.c.Budget.Used < 0 || tb.c.Budget.Used > tb.c.Budget.Max {
				t.Fatalf("%d connections, %d bytes of %d", len(tb.conns), tb.c.Budget.Used, tb.c.Budget.Max)
			}
		}
		tb.Flush()
		var counted uint64
		for s := event.Syscalls; s <= event.OpenSSL; s++ {
			st := tb.Stats(s)
			counted += st.Counted
		}
		if counted != emitted {
			t.Fatalf("%d counted, %d told", counted, emitted)
		}
	})
}
