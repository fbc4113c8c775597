// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// oracle reads both directions with net/http, as a proxy would: whole messages, one after the
// other.
func oracle(requests, responses []byte) (want []string) {
	in := bufio.NewReaderSize(bytes.NewReader(requests), 1<<16)
	out := bufio.NewReaderSize(bytes.NewReader(responses), 1<<16)
	for len(want) < maxAhead {
		for { // empty lines before a request are nothing (RFC 9112, section 2.2)
			c, err := in.Peek(1)
			if err != nil || c[0] != '\r' && c[0] != '\n' {
				break
			}
			in.Discard(1)
		}
		req, err := http.ReadRequest(in)
		if err != nil || req.ProtoMajor != 1 {
			return want
		}
		_, bodyErr := io.Copy(io.Discard, req.Body)
		var res *http.Response
		for {
			if res, err = http.ReadResponse(out, req); err != nil || res.ProtoMajor != 1 || res.StatusCode < 100 {
				return want
			}
			if res.StatusCode >= 200 || res.StatusCode == 101 {
				break
			}
		}
		s := fmt.Sprintf("%s %s %d", req.Method, CleanPath(req.Method, req.RequestURI), res.StatusCode)
		if res.StatusCode == 101 || req.Method == "CONNECT" && res.StatusCode < 300 {
			return append(want, s)
		}
		_, err = io.Copy(io.Discard, res.Body)
		want = append(want, s)
		if err != nil || bodyErr != nil {
			return want
		}
	}
	return want
}

// parse gives all requests and then all responses to a parser, in pieces.
func parse(requests, responses []byte, cut func(left int) int) (seen []string) {
	c := newConfig(&seen)
	p := New(c, true)
	now := uint64(1)
	for d, b := range [][]byte{requests, responses} {
		for len(b) > 0 {
			n := min(max(cut(len(b)), 1), len(b))
			p.Data(event.Direction(d), Segment{Time: now, Data: b[:n]})
			b, now = b[n:], now+1
		}
	}
	p.Close()
	if c.Budget.Used != 0 {
		seen = append(seen, fmt.Sprintf("%d bytes are not given back", c.Budget.Used))
	}
	return seen
}

func exchanges(seen []string) (e []string) {
	for _, s := range seen {
		if !strings.HasPrefix(s, "-") {
			e = append(e, s)
		}
	}
	return e
}

// longLine is a request with a line of n bytes.
func longLine(n int) string {
	const around = "GET / HTTP/1.1\r\n"
	return "GET /" + strings.Repeat("x", n-len(around)) + around[5:] + "Host: h\r\n\r\n"
}

func whole(left int) int { return left }

// FuzzParser: the same bytes give the same exchanges, however they are split, and those that
// net/http finds; or, with a reason, fewer.
func FuzzParser(f *testing.F) {
	post := "POST /p?q HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: u\r\n\r\n"
	for _, s := range []struct{ requests, responses string }{
		{get, ok},
		{get + getB + getC, ok + gone + fail},
		{post + get, "HTTP/1.1 100 Continue\r\n\r\n" + ok + chunk + "5\r\nabcde\r\n0\r\n\r\n"},
		{head + get, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + gone},
		{"GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nabc"},
		{"CONNECT h:1 HTTP/1.1\r\n\r\n\x16\x03", "HTTP/1.1 200 OK\r\n\r\n\x16\x03"},
		{"GET /w HTTP/1.1\r\nUpgrade: w\r\n\r\nabc", "HTTP/1.1 101 W\r\n\r\nabc"},
		{"\r\n" + get + "\r\n" + getB, gone + "HTTP/1.1 304 N\r\nContent-Length: 9\r\n\r\n" + ok},
		{"POST /a HTTP/1.1\nContent-Length: 3\n\nabc", "HTTP/1.1 204 N\n\n"},
		{"GET http://u:p@h/a;b?c#d HTTP/1.1\r\nA: b\r\n c\r\n\r\n", ok[:30]},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ok},
		{"GET /" + strings.Repeat("x", MaxHead), ok},
		{longLine(MaxHead - 2), ok}, {longLine(MaxHead - 1), ok}, {longLine(MaxHead), ok}, {longLine(MaxHead + 1), ok},
		{get, "HTTP/1.1 200 " + strings.Repeat("x", MaxHead-14) + "\n\n"},
		{get + "\x00", ok + "\x00"},
	} {
		f.Add([]byte(s.requests), []byte(s.responses), uint64(1))
	}
	f.Fuzz(func(t *testing.T, requests, responses []byte, seed uint64) {
		at := parse(requests, responses, whole)
		rng := rand.New(rand.NewPCG(seed, 0))
		for name, cut := range map[string]func(int) int{
			"byte by byte": func(int) int { return 1 },
			"small":        func(int) int { return 1 + rng.IntN(8) },
			"large":        func(left int) int { return 1 + rng.IntN(left) },
		} {
			got := parse(requests, responses, cut)
			if d := cmp.Diff(exchanges(at), exchanges(got)); d != "" {
				t.Fatalf("%s gives other exchanges than the whole (-whole +split):\n%s\n%q\n%q", name, d, requests, responses)
			}
		}
		want, got := oracle(requests, responses), exchanges(at)
		for i := range got { // net/http does not tell a body that is cut from one that is broken
			got[i] = strings.TrimSuffix(got[i], " truncated")
		}
		n := min(len(want), len(got))
		if d := cmp.Diff(want[:n], got[:n], cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("not what net/http finds (-want +got):\n%s\n%q\n%q", d, requests, responses)
		}
		if len(got) < len(want) && len(at) == len(got) {
			t.Fatalf("%d exchanges are missing, without a reason: %v of %v\n%q\n%q", len(want)-len(got), got, want, requests, responses)
		}
	})
}

// FuzzEvents: anything in any order, with gaps and hidden bytes and ends: no panic, and everything
// is given back.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("\x00\x00\x1c"+get+"\x01\x00\x28"+ok), true)
	f.Add([]byte("\x00\x05\x1c"+get+"\x01\x00\x28"+ok+"\x02\x09\x00"+"\x05\x00\x00"), false)
	f.Fuzz(func(t *testing.T, script []byte, fresh bool) {
		var seen []string
		c := newConfig(&seen)
		c.Budget.Max = 4 << 10
		p := New(c, fresh)
		now := uint64(0)
		for len(script) >= 3 {
			op, arg, n := script[0], uint64(script[1]), int(script[2])
			script = script[3:]
			n = min(n, len(script))
			now++
			switch d := event.Direction(op & 1); op % 16 {
			case 2, 3:
				p.Gap(d, arg)
			case 4, 5:
				p.Shut(d)
			case 6, 7:
				p.Resolve()
			case 8, 9:
				p.Data(d, Segment{Time: now, Data: script[:n], Hidden: arg << 40, Mid: true})
				script = script[n:]
			default:
				p.Data(d, Segment{Time: now, Data: script[:n], Hidden: arg})
				script = script[n:]
			}
			if c.Budget.Used < 0 || c.Budget.Used > c.Budget.Max {
				t.Fatalf("%d bytes of %d are in use", c.Budget.Used, c.Budget.Max)
			}
		}
		if len(script) > 0 {
			p.Abandon(Unfinished)
		} else {
			p.Close()
		}
		if c.Budget.Used != 0 {
			t.Fatalf("%d bytes are not given back", c.Budget.Used)
		}
	})
}

// conversation is what two honest ends say to each other, with bodies made to deceive, as calls
// would carry it.
type conversation struct {
	rng   *rand.Rand
	steps []said
	truth map[string]int // status by path
}

// said is what one call carried.
type said struct {
	d    event.Direction
	data []byte
	pos  uint64
}

var lures = []string{get, getB, ok, gone, fail, chunk, "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n" + get}

func (c *conversation) body() string {
	var b strings.Builder
	for range c.rng.IntN(4) {
		b.WriteString(lures[c.rng.IntN(len(lures))])
	}
	return b.String()
}

// message frames a body somehow and cuts the whole into calls; the body begins a call of its own
// often.
func (c *conversation) message(d event.Direction, first string, canChunk bool) {
	body := c.body()
	var calls []string
	switch {
	case body == "" && d == event.In:
		calls = []string{first + "\r\n"}
	case canChunk && c.rng.IntN(2) == 0:
		calls = []string{first + "Transfer-Encoding: chunked\r\n\r\n"}
		for len(body) > 0 {
			n := 1 + c.rng.IntN(len(body))
			calls = append(calls, fmt.Sprintf("%x\r\n%s\r\n", n, body[:n]))
			body = body[n:]
		}
		calls = append(calls, "0\r\n\r\n")
	default:
		calls = []string{fmt.Sprintf("%sContent-Length: %d\r\n\r\n", first, len(body)), body}
	}
	if c.rng.IntN(2) == 0 {
		calls = []string{strings.Join(calls, "")}
	}
	for i, s := range calls {
		for ahead := i == 0 && d == event.In && c.rng.IntN(3) == 0; len(s) > 0; ahead = false {
			n := len(s)
			if ahead { // as Go's server reads
				c.steps = append(c.steps, said{d: d, data: []byte(s[:1])})
				s, n = s[1:], n-1
			}
			if c.rng.IntN(4) == 0 {
				n = 1 + c.rng.IntN(n)
			}
			c.steps = append(c.steps, said{d: d, data: []byte(s[:n])})
			s = s[n:]
		}
	}
}

func converse(rng *rand.Rand) *conversation {
	c := &conversation{rng: rng, truth: map[string]int{}}
	pipelines := rng.IntN(4) == 0
	n := 0
	for range 4 + rng.IntN(6) {
		batch := 1
		if pipelines {
			batch = 1 + rng.IntN(3)
		}
		from := len(c.steps)
		var methods []string
		for i := range batch {
			path := fmt.Sprintf("/%d", n+i)
			c.truth[path] = 200 + rng.IntN(300)
			if s := c.truth[path]; s == 204 || s == 304 {
				c.truth[path] = 200
			}
			m := []string{"GET", "POST", "HEAD", "BREW"}[rng.IntN(4)]
			methods = append(methods, m)
			cookie := ""
			if rng.IntN(3) == 0 {
				cookie = "Cookie: " + strings.Repeat("c", rng.IntN(300)) + "\r\n"
			}
			c.message(event.In, m+" "+path+" HTTP/1.1\r\nHost: h\r\n"+cookie, true)
		}
		if pipelines && rng.IntN(2) == 0 { // in one call
			var all []byte
			for _, s := range c.steps[from:] {
				all = append(all, s.data...)
			}
			c.steps = append(c.steps[:from], said{d: event.In, data: all})
		}
		for i := range batch {
			path := fmt.Sprintf("/%d", n+i)
			if rng.IntN(5) == 0 {
				c.steps = append(c.steps, said{d: event.Out, data: []byte("HTTP/1.1 103 Early Hints\r\n\r\n")})
			}
			first := fmt.Sprintf("HTTP/1.1 %d Fine\r\n", c.truth[path])
			if methods[i] == "HEAD" {
				c.steps = append(c.steps, said{d: event.Out, data: []byte(first + "Content-Length: 77\r\n\r\n")})
				continue
			}
			c.message(event.Out, first, true)
		}
		n += batch
	}
	var pos [2]uint64
	for i := range c.steps {
		s := &c.steps[i]
		s.pos = pos[s.d]
		pos[s.d] += uint64(len(s.data))
	}
	return c
}

// play gives a conversation to a parser; some calls are lost, and of long ones only the start is
// copied.
func (c *conversation) play(copied int, loses func() bool, join int, client bool) (seen []string) {
	cfg := newConfig(&seen)
	p := New(cfg, join == 0)
	var next [2]uint64
	known := join == 0
	var knows [2]bool
	for i, s := range c.steps[join:] {
		if loses() {
			continue
		}
		d := s.d
		if client {
			d = 1 - d
		}
		if !known && !knows[d] {
			knows[d], next[d] = true, s.pos
		}
		if s.pos > next[d] {
			p.Gap(d, s.pos-next[d])
		}
		n := min(len(s.data), copied)
		p.Data(d, Segment{Time: uint64(i + 1), Data: s.data[:n], Hidden: uint64(len(s.data) - n)})
		next[d] = s.pos + uint64(len(s.data))
	}
	p.Close()
	return seen
}

// TestNeverWrong: honest ends whose bodies imitate heads at the start of calls. With every byte
// seen each request is an exchange, and whatever is lost or hidden, no status is another request's.
func TestNeverWrong(t *testing.T) {
	rounds := uint64(3000)
	if testing.Short() {
		rounds = 300
	}
	var counted, requests, lossy, lossyCounted int
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(seed, 1))
		c := converse(rng)
		never := func() bool { return false }
		client := rng.IntN(2) == 0
		check := func(what string, seen []string) []string {
			e := exchanges(seen)
			had := map[string]bool{}
			for _, s := range e {
				var method, path string
				var status int
				fmt.Sscanf(s, "%s %s %d", &method, &path, &status)
				if want, ok := c.truth[path]; !ok || want != status || had[path] {
					t.Fatalf("seed %d, %s: %s is wrong: %d\n%v\n%s", seed, what, s, want, seen, c)
				}
				had[path] = true
			}
			return e
		}
		seen := c.play(1<<20, never, 0, client)
		if e := check("everything", seen); len(e) != len(c.truth) || len(seen) != len(e) {
			t.Fatalf("seed %d: %d of %d exchanges\n%v\n%s", seed, len(e), len(c.truth), seen, c)
		}
		seen = c.play(64+rng.IntN(200), never, 0, client)
		e := check("hidden", seen)
		counted, requests = counted+len(e), requests+len(c.truth)
		rate := 1 + rng.IntN(20)
		loses := func() bool { return rng.IntN(20) < rate && rng.IntN(3) == 0 }
		lossy += len(c.truth)
		lossyCounted += len(check("lost", c.play(1<<20, loses, 0, client)))
		check("lost and hidden", c.play(64+rng.IntN(200), loses, 0, client))
		check("joined", c.play(1<<20, never, rng.IntN(len(c.steps)), client))
		check("joined, lost and hidden", c.play(64+rng.IntN(200), loses, rng.IntN(len(c.steps)), client))
	}
	t.Logf("%d requests with hidden bytes: %d counted; %d with losses: %d counted", requests, counted, lossy, lossyCounted)
	if counted < requests/2 || lossyCounted < lossy/20 {
		t.Error("too few are counted: caution is no excuse")
	}
}

func (c *conversation) String() string {
	var b strings.Builder
	for _, s := range c.steps {
		fmt.Fprintf(&b, "%d %6d %q\n", s.d, s.pos, s.data)
	}
	return b.String()
}
