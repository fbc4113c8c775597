// SPDX-License-Identifier: Apache-2.0

package connection

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
)

// talk is one end of HTTP/2: what it sends next.
type talk struct {
	out, block bytes.Buffer
	framer     *http2.Framer
	encoder    *hpack.Encoder
}

func newTalk() *talk {
	k := &talk{}
	k.framer, k.encoder = http2.NewFramer(&k.out, nil), hpack.NewEncoder(&k.block)
	return k
}

func (k *talk) said() string {
	s := k.out.String()
	k.out.Reset()
	return s
}

func (k *talk) headers(id uint32, ends bool, fields ...string) string {
	k.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		k.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	k.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: ends, EndHeaders: true, BlockFragment: k.block.Bytes()})
	return k.said()
}

func (k *talk) get(id uint32, path string) string {
	return k.headers(id, true, ":method", "GET", ":scheme", "http", ":path", path)
}

func (k *talk) settings() string {
	k.framer.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	return k.said()
}

// HTTP/2 is recognised by its preface, whoever speaks first and in whatever pieces, and after an
// upgrade of HTTP/1.1.
func TestHTTP2(t *testing.T) {
	const upgrade = "GET /up?x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
	const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
	exchanges := func(p *tape, client, server *talk) {
		p.in(client.get(3, "/a"))
		p.in(client.get(5, "/b"))
		p.out(server.headers(5, true, ":status", "404"))
		p.out(server.headers(3, true, ":status", "200"))
	}
	both := []string{"GET /b 404", "GET /a 200"}
	tests := map[string]struct {
		play   func(p *tape, client, server *talk)
		want   []string
		unseen map[http1.Reason]uint64
		spoke  [http1.Protocols]uint64
	}{
		"client first": {func(p *tape, client, server *talk) {
			p.in(http2.ClientPreface + client.settings())
			p.out(server.settings())
			exchanges(p, client, server)
		}, both, nil, [http1.Protocols]uint64{http1.HTTP2: 1}},
		"server first": {func(p *tape, client, server *talk) {
			p.out(server.settings())
			p.in(http2.ClientPreface + client.settings())
			exchanges(p, client, server)
		}, both, nil, [http1.Protocols]uint64{http1.HTTP2: 1}},
		"octet by octet": {func(p *tape, client, server *talk) {
			for _, c := range server.settings() {
				p.out(string([]byte{byte(c)}))
			}
			for _, c := range []byte(http2.ClientPreface + client.settings()) {
				p.in(string([]byte{c}))
			}
			exchanges(p, client, server)
		}, both, nil, [http1.Protocols]uint64{http1.HTTP2: 1}},
		"upgraded": {func(p *tape, client, server *talk) {
			p.in(upgrade)
			p.out(switching + server.settings() + server.headers(1, true, ":status", "201"))
			p.in(http2.ClientPreface + client.settings())
			exchanges(p, client, server)
		}, append([]string{"GET /up 201"}, both...), nil, [http1.Protocols]uint64{http1.HTTP1: 1, http1.HTTP2: 1}},
		"upgraded, the response first": {func(p *tape, client, server *talk) {
			p.out(switching)
			p.out(server.settings())
			p.in(upgrade)
			p.in(http2.ClientPreface + client.settings())
			p.out(server.headers(1, true, ":status", "201"))
			exchanges(p, client, server)
		}, nil, map[http1.Reason]uint64{http1.Uncopied: 3}, [http1.Protocols]uint64{http1.HTTP1: 1, http1.HTTP2: 1}},
		"a call that is not copied": {func(p *tape, client, server *talk) {
			p.in(http2.ClientPreface + client.settings())
			p.out(server.settings())
			p.pos[event.Out] += 100
			exchanges(p, client, server)
		}, nil, map[http1.Reason]uint64{http1.Gap: 2}, [http1.Protocols]uint64{http1.HTTP2: 1}},
		"other": {func(p *tape, _, _ *talk) {
			p.out("\x00\x00\x0c\x04\x00\x00\x00\x00\x01 something else")
			p.in("and more")
		}, nil, nil, [http1.Protocols]uint64{http1.Other: 1}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			p := newTape(event.Syscalls, &got)
			tt.play(p, newTalk(), newTalk())
			p.close()
			qt.Check(t, qt.Equals(cmp.Diff(tt.want, got), ""))
			st := p.t.Stats(event.Syscalls)
			var unseen [http1.Reasons]uint64
			for r, n := range tt.unseen {
				unseen[r] = n
			}
			qt.Check(t, qt.Equals(fmt.Sprint(st.Unparsed), fmt.Sprint(unseen)))
			qt.Check(t, qt.Equals(st.Spoke, tt.spoke))
			qt.Check(t, qt.Equals(p.t.c.Budget.Used, 0))
		})
	}
}

// A call of gRPC has its status, which is not that of HTTP.
func TestGRPC(t *testing.T) {
	var got []Exchange
	tb := New(Options{Emit: func(e *Exchange) { got = append(got, *e) }})
	p := &tape{t: tb, conn: event.Conn{Source: event.Packets, ID: 1}, fresh: true}
	client, server := newTalk(), newTalk()
	p.in(http2.ClientPreface + client.settings())
	p.in(client.headers(1, false, ":method", "POST", ":scheme", "http", ":path", "/a.B/C", "content-type", "application/grpc"))
	p.out(server.headers(1, false, ":status", "200", "content-type", "application/grpc"))
	p.out(server.headers(1, true, "grpc-status", "14", "grpc-message", "secret"))
	qt.Assert(t, qt.HasLen(got, 1))
	qt.Check(t, qt.Equals(got[0].GRPCStatus, "14"))
	qt.Check(t, qt.Equals(got[0].Status, 200))
	qt.Check(t, qt.Equals(got[0].Path, "/a.B/C"))
	qt.Check(t, qt.Equals(got[0].Protocol, "HTTP/2"))
	qt.Check(t, qt.Equals(got[0].Role, http1.Server))
}
