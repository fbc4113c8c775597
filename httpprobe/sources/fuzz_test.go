// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
)

// What stands in these files of /proc, processes choose: the names of what they map, and with whom
// they talk.
func FuzzProc(f *testing.F) {
	f.Add([]byte("7f2d5c000000-7f2d5c021000 r-xp 00002000 08:01 1234   /usr/lib/libssl.so.3\n7f-8 r-xp 0 0:1 2 /a\\012b (deleted)\n"))
	f.Add([]byte("  sl  local_address\n  0: 0100007F:1F90 00000000:0000 0A 0\n  1: 00000000000000000000000001000000:0050 0:0 0A\n"))
	f.Add([]byte("TlsCurrTxSw 0\nTlsCurrRxDevice                 \t1\n"))
	name := filepath.Join(f.TempDir(), "maps")
	f.Fuzz(func(t *testing.T, text []byte) {
		qt.Assert(t, qt.IsNil(os.WriteFile(name, text, 0o600)))
		seen := map[string]bool{}
		list, err := mappings(name)
		qt.Assert(t, qt.IsNil(err))
		for _, m := range list {
			if !strings.HasPrefix(m.path, "/") || strings.Contains(m.path, "\n") || seen[m.path] {
				t.Fatalf("%+v", m)
			}
			seen[m.path] = true
			mayBeTLS(m.path)
			if strings.HasPrefix(trimZeros(m.addresses), "0") {
				t.Fatalf("%q", trimZeros(m.addresses))
			}
		}
		listeners := map[netip.AddrPort]bool{}
		readListeners(text, listeners)
		if len(listeners) > len(text)/4 {
			t.Fatalf("%d listeners in %d bytes", len(listeners), len(text))
		}
		for a := range listeners {
			if !a.Addr().IsValid() {
				t.Fatalf("%v", a)
			}
		}
		kernelTLS(text)
	})
}

// Records are made by our programs; names and data in them are not.
func FuzzRecord(f *testing.F) {
	const head = int(unsafe.Sizeof(syscallsEvent{}))
	whole := make([]byte, head+5)
	(*syscallsEvent)(unsafe.Pointer(unsafe.SliceData(whole))).Captured = 5
	f.Add(whole)
	f.Add(whole[:head])
	r := &ring{source: event.Syscalls, comms: map[[16]byte]string{}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		aligned := make([]uint64, (len(raw)+7)/8+1)
		sample := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(aligned))), len(aligned)*8)[:len(raw)]
		copy(sample, raw)
		var e event.Event
		if err := r.decode(sample, &e); err != nil {
			if len(raw) >= head && int((*syscallsEvent)(unsafe.Pointer(unsafe.SliceData(sample))).Captured) <= len(raw)-head {
				t.Fatalf("a whole record: %v", err)
			}
			return
		}
		if len(e.Data) > len(raw)-head || len(e.Comm) > 16 || strings.Contains(e.Comm, "\x00") || len(r.comms) > 4096 {
			t.Fatalf("%+v", e)
		}
	})
}

// Segments come from anybody, in any order. What is told of a connection is told once it has
// carried bytes, and ends with its end.
func FuzzTracker(f *testing.F) {
	f.Add([]byte{0, tcpSYN, 0, 0, 0, 0, 1, 0, 1, tcpACK, 0, 0, 1, 0, 5, 0, 1, tcpFIN | tcpACK, 0, 0, 6, 0, 0, 0})
	f.Add([]byte{2, tcpACK, 255, 255, 255, 255, 200, 0, 2, tcpRST, 0, 0, 0, 0, 0, 0, 2, tcpACK, 0, 0, 0, 0, 9, 255})
	f.Fuzz(func(t *testing.T, script []byte) {
		tr := newTracker(func(a netip.Addr) bool { return a == here.Addr() }, func(a netip.AddrPort) bool { return a.Port() == 80 })
		tr.max = 8
		ended := map[event.Conn]bool{}
		told := func(e *event.Event) {
			switch {
			case ended[e.Conn]:
				t.Fatalf("%+v after the end", e)
			case e.Kind == event.Close:
				ended[e.Conn] = true
			case e.Kind == event.Data && (e.Len == 0 || uint64(len(e.Data)) > e.Len || e.Pos+e.Len < e.Pos):
				t.Fatalf("%+v", e)
			}
		}
		now := uint64(0)
		for ; len(script) >= 8; script = script[8:] {
			ends := [2]netip.AddrPort{netip.AddrPortFrom(here.Addr(), 1000+uint16(script[0]>>1)), web}
			s := segment{from: ends[script[0]&1], to: ends[1-script[0]&1], flags: script[1], seq: binary.LittleEndian.Uint32(script[2:]), length: int(script[6])}
			s.data = script[:min(len(script), s.length)]
			now += 1 + uint64(script[7])*second/8 // so that no two connections are born together
			tr.add(&s, now, told)
			n := tr.silent.n + tr.spoken.n + tr.ended.n
			if len(tr.conns) != n || n > tr.max || len(tr.byID) > n {
				t.Fatalf("%d connections, %d by id, %d in queues", len(tr.conns), len(tr.byID), n)
			}
		}
	})
}
