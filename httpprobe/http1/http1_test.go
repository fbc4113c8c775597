// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"
)

// step is something that happens to a connection.
type step func(*Parser, uint64)

func in(s string) step  { return data(event.In, s, 0) }
func out(s string) step { return data(event.Out, s, 0) }

func data(d event.Direction, s string, hidden uint64) step {
	return func(p *Parser, now uint64) {
		p.Data(d, Segment{Time: now, Data: []byte(s), Hidden: hidden})
	}
}

func mid(d event.Direction, s string) step {
	return func(p *Parser, now uint64) { p.Data(d, Segment{Time: now, Data: []byte(s), Mid: true}) }
}

func gap(d event.Direction, n uint64) step { return func(p *Parser, _ uint64) { p.Gap(d, n) } }

var (
	closed   step = func(p *Parser, _ uint64) { p.Close() }
	shutOut  step = func(p *Parser, _ uint64) { p.Shut(event.Out) }
	resolved step = func(p *Parser, _ uint64) { p.Resolve() }
	stopped  step = func(p *Parser, _ uint64) { p.Abandon(Unfinished) }
)

// octets sends a text one byte at a time.
func octets(d event.Direction, s string) step {
	return func(p *Parser, now uint64) {
		for i := range len(s) {
			p.Data(d, Segment{Time: now, Data: []byte(s[i : i+1])})
		}
	}
}

func newConfig(seen *[]string) *Config {
	return &Config{
		Exchange: func(e Exchange) {
			s := fmt.Sprintf("%s %s %d", e.Method, e.Path, e.Status)
			if e.Truncated {
				s += " truncated"
			}
			*seen = append(*seen, s)
		},
		Unparsed: func(r Reason) { *seen = append(*seen, "-"+r.String()) },
		Budget:   Budget{Max: 1 << 20},
	}
}

func play(fresh bool, steps []step) (seen []string, p *Parser) {
	c := newConfig(&seen)
	p = New(c, fresh)
	for i, s := range steps {
		s(p, uint64(1000*(i+1)))
	}
	return seen, p
}

const (
	get   = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
	getB  = "GET /b HTTP/1.1\r\nHost: h\r\n\r\n"
	getC  = "GET /c HTTP/1.1\r\nHost: h\r\n\r\n"
	head  = "HEAD /h HTTP/1.1\r\nHost: h\r\n\r\n"
	ok    = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	gone  = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
	fail  = "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"
	chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
)

func TestParser(t *testing.T) {
	long := strings.Repeat("x", MaxHead)
	tests := map[string]struct {
		joined bool
		steps  []step
		want   []string
	}{
		"one":                    {steps: []step{in(get), out(ok)}, want: []string{"GET /a 200"}},
		"client":                 {steps: []step{out(get), in(ok)}, want: []string{"GET /a 200"}},
		"keep alive":             {steps: []step{in(get), out(ok), in(getB), out(gone)}, want: []string{"GET /a 200", "GET /b 404"}},
		"pipelined":              {steps: []step{in(get + getB + getC), out(ok + gone), out(fail)}, want: []string{"GET /a 200", "GET /b 404", "GET /c 500"}},
		"byte by byte":           {steps: []step{octets(event.In, get+getB), octets(event.Out, ok+gone)}, want: []string{"GET /a 200", "GET /b 404"}},
		"head in two":            {steps: []step{in(get[:20]), in(get[20:]), out(ok[:11]), out(ok[11:])}, want: []string{"GET /a 200"}},
		"response within a body": {steps: []step{in(get), out("HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n"), out(fail), in(getB), out(ok)}, want: []string{"GET /a 200", "GET /b 200"}},
		"request within a body":  {steps: []step{in("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 28\r\n\r\n"), in(get), out(ok), in(getB), out(gone)}, want: []string{"POST /p 200", "GET /b 404"}},
		"100 continue": {steps: []step{in("PUT /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"),
			out("HTTP/1.1 100 Continue\r\n\r\n"), in("abc"), out(ok)}, want: []string{"PUT /p 200"}},
		"103 and 200 at once": {steps: []step{in(get), out("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ok)}, want: []string{"GET /a 200"}},
		"101": {steps: []step{in("GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
			out("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"), in(get), out(fail), closed}, want: []string{"GET /ws 101"}},
		"upgrade refused":      {steps: []step{in("GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n"), out(gone), in(get), out(ok)}, want: []string{"GET /ws 404", "GET /a 200"}},
		"CONNECT":              {steps: []step{in("CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n"), out("HTTP/1.1 200 Fine\r\n\r\n"), in(get), out(fail), closed}, want: []string{"CONNECT x:443 200"}},
		"CONNECT, hasty":       {steps: []step{in("CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n"), in("\x16\x03\x01"), out("HTTP/1.1 200 Fine\r\n\r\n"), closed}, want: []string{"CONNECT x:443 200"}},
		"CONNECT refused":      {steps: []step{in("CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n"), out("HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"), in(get), out(ok)}, want: []string{"CONNECT x:443 407", "GET /a 200"}},
		"HEAD":                 {steps: []step{in(head), out("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"), in(get), out(ok)}, want: []string{"HEAD /h 200", "GET /a 200"}},
		"HEAD, chunked":        {steps: []step{in(head), out(chunk), in(get), out(ok)}, want: []string{"HEAD /h 200", "GET /a 200"}},
		"304":                  {steps: []step{in(get), out("HTTP/1.1 304 Not Modified\r\nContent-Length: 999\r\n\r\n"), in(getB), out(ok)}, want: []string{"GET /a 304", "GET /b 200"}},
		"204":                  {steps: []step{in(get), out("HTTP/1.1 204 No Content\r\n\r\n"), in(getB), out(ok)}, want: []string{"GET /a 204", "GET /b 200"}},
		"until close":          {steps: []step{in("GET /a HTTP/1.0\r\n\r\n"), out("HTTP/1.0 200 OK\r\n\r\n"), out(fail), closed}, want: []string{"GET /a 200"}},
		"until the end of one": {steps: []step{in(get), out("HTTP/1.1 200 OK\r\n\r\n"), out(fail), shutOut}, want: []string{"GET /a 200"}},
		"chunks": {steps: []step{in(get), out(chunk + "5;ext=\"a;b\"\r\nHTTP/\r\n00a \r\n1.1 500 Oh\r\n0\r\nTrailer: HTTP/1.1 500\r\n\r\n" + gone), in(getB)},
			want: []string{"GET /a 200", "GET /b 404"}},
		"chunked request": {steps: []step{in("POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"), in("1c\r\n" + get + "\r\n"), in("0\r\n\r\n"), out(ok), in(getB), out(gone)},
			want: []string{"POST /p 200", "GET /b 404"}},
		"early response": {steps: []step{in("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 28\r\n\r\n"), out(gone), in(get), in(getB), out(ok)},
			want: []string{"POST /p 404", "GET /b 200"}},
		"early response, reset":      {steps: []step{in("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 28\r\n\r\n"), out(gone), closed}, want: []string{"POST /p 404"}},
		"reset within a body":        {steps: []step{in(get), out(ok[:len(ok)-1]), closed}, want: []string{"GET /a 200 truncated"}},
		"reset within chunks":        {steps: []step{in(get), out(chunk + "5\r\nabc"), closed}, want: []string{"GET /a 200 truncated"}},
		"reset within a head":        {steps: []step{in(get), out(ok[:20]), closed}, want: []string{"-truncated"}},
		"reset without a response":   {steps: []step{in(get), closed}, want: []string{"-unanswered"}},
		"reset within a request":     {steps: []step{in(get), out(ok), in(getB[:20]), closed}, want: []string{"GET /a 200", "-truncated"}},
		"408 to a slow head":         {steps: []step{in(get[:20]), out("HTTP/1.1 408 Slow\r\nContent-Length: 0\r\n\r\n"), closed}, want: []string{"GET /a 408"}},
		"408 to half a line":         {steps: []step{in(get[:5]), out("HTTP/1.1 408 Slow\r\nContent-Length: 0\r\n\r\n"), closed}, want: []string{"-truncated"}},
		"408 to nothing":             {steps: []step{in(get), out(ok), out("HTTP/1.1 408 Slow\r\nContent-Length: 0\r\n\r\n"), closed}, want: []string{"GET /a 200", "-no_request"}},
		"unknown method":             {steps: []step{in("BREW /pot HTTP/1.1\r\nHost: h\r\n\r\n"), out("HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\n\r\n")}, want: []string{"BREW /pot 418"}},
		"bad status":                 {steps: []step{in(get), out("HTTP/1.1 4770 Oh\r\nContent-Length: 0\r\n\r\n"), in(getB), out(ok)}, want: []string{"-malformed", "-malformed"}},
		"bad head":                   {steps: []step{in("GET /a HTTP/1.1\r\nno colon\r\n\r\n"), out("HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n"), closed}, want: []string{"-malformed"}},
		"two lengths":                {steps: []step{in("POST /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), out(gone), closed}, want: []string{"-malformed"}},
		"folded line of blanks":      {steps: []step{in("POST /a HTTP/1.1\r\nA: b\r\n \r\nContent-Length: 28\r\n\r\n" + get + getB), out(ok + gone)}, want: []string{"POST /a 200", "GET /b 404"}},
		"blank first header":         {steps: []step{in("GET /a HTTP/1.1\r\n \r\nHost: h\r\n\r\n"), out(gone), closed}, want: []string{"-malformed"}},
		"garbage after a body":       {steps: []step{in(get), out(ok), in("\x00\x01\x02"), out("HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n"), closed}, want: []string{"GET /a 200", "-malformed"}},
		"end of line too many":       {steps: []step{in("\r\n" + get), out(ok), in("\r\n"), in(getB), out(gone)}, want: []string{"GET /a 200", "GET /b 404"}},
		"head over the cap":          {steps: []step{in("GET /a HTTP/1.1\r\nCookie: " + long), in(long + "\r\n\r\n"), out("HTTP/1.1 431 Big\r\nContent-Length: 0\r\n\r\n"), closed}, want: []string{"GET /a 431"}},
		"head over the cap, goes on": {steps: []step{in("GET /a HTTP/1.1\r\nCookie: " + long), in(long + "\r\n\r\n"), out(ok), in(getB), out(gone)}, want: []string{"GET /a 200", "GET /b 404"}},
		"target over the cap":        {steps: []step{in("GET /" + long), in(long + " HTTP/1.1\r\n\r\n"), out("HTTP/1.1 414 Big\r\nContent-Length: 0\r\n\r\n"), in(getB), out(gone)}, want: []string{"-head_too_big", "GET /b 404"}},
		"response over the cap":      {steps: []step{in(get), out("HTTP/1.1 200 OK\r\nA: " + long + "\r\n\r\n"), in(getB), out(ok)}, want: []string{"-head_too_big", "-head_too_big"}},
		"http2":                      {steps: []step{in("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), out(ok)}},
		"tls":                        {steps: []step{in("\x16\x03\x01\x02\x00"), out("\x16\x03\x03")}},
		"smtp":                       {steps: []step{out("220 mail ESMTP\r\n"), in("EHLO x\r\n"), out(ok), closed}},
		"redis":                      {steps: []step{in("*1\r\n$4\r\nPING\r\n"), out("+PONG\r\n"), in(get), out(ok), closed}},
		"a query":                    {steps: []step{in("SELECT 1 FROM t"), out(ok), closed}},

		// Bodies are copied in part.
		"hidden body":             {steps: []step{in(get), data(event.Out, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nabc", 4997), in(getB), out(gone)}, want: []string{"GET /a 200", "GET /b 404"}},
		"hidden body in calls":    {steps: []step{in(get), out("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"), data(event.Out, fail, 5000-uint64(len(fail))), in(getB), out(gone)}, want: []string{"GET /a 200", "GET /b 404"}},
		"sendfile":                {steps: []step{in(get), out("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"), data(event.Out, "", 5000), in(getB), out(gone)}, want: []string{"GET /a 200", "GET /b 404"}},
		"hidden chunk":            {steps: []step{in(get), data(event.Out, chunk+"1000\r\nabc", 0x1000-3+2), out("0\r\n\r\n"), in(getB), out(gone)}, want: []string{"GET /a 200", "GET /b 404"}},
		"hidden last chunk":       {steps: []step{in(get), data(event.Out, chunk+"1000\r\nabc", 0x1000-3+2+5), in(getB), out(gone)}, want: []string{"GET /a 200", "GET /b 404"}},
		"hidden last chunk, end":  {steps: []step{in(get), data(event.Out, chunk+"1000\r\nabc", 0x1000-3+2+5), closed}, want: []string{"GET /a 200"}},
		"hidden last chunk, stop": {steps: []step{in(get), data(event.Out, chunk+"1000\r\nabc", 0x1000-3+2+5), stopped}, want: []string{"GET /a 200"}},
		"hidden chunks, pipelined": {steps: []step{in(get + getB), data(event.Out, chunk+"1000\r\nabc", 0x1000-3+2+5), out(fail), in(getC), out(ok)},
			want: []string{"-pipelined", "-pipelined", "-pipelined", "-pipelined"}},
		"hidden head":                    {steps: []step{data(event.In, "GET /a HTTP/1.1\r\nCookie: abc", 400), out(ok), in(getB), out(gone)}, want: []string{"GET /a 200", "GET /b 404"}},
		"hidden HEAD":                    {steps: []step{data(event.In, "HEAD /a HTTP/1.1\r\nCookie: abc", 400), out("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), in(getB), out(gone)}, want: []string{"HEAD /a 200", "GET /b 404"}},
		"hidden line":                    {steps: []step{data(event.In, "GET /aaaaaaaaaa", 400), out(ok), in(getB), out(gone)}, want: []string{"-uncopied", "GET /b 404"}},
		"hidden head, then a byte ahead": {steps: []step{data(event.In, "GET /a HTTP/1.1\r\nCookie: abc", 400), in("G"), out(ok), in(getB[1:]), out(gone)}, want: []string{"GET /a 200", "GET /b 404"}},
		"hidden on both ways":            {steps: []step{data(event.In, "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n", 400), data(event.Out, chunk, 100), in("G"), in(getB[1:]), out(gone)}, want: []string{"POST /a 200", "GET /b 404"}},
		"lost on both ways":              {steps: []step{data(event.In, "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n", 400), in(getC), data(event.Out, chunk, 100), in(get), out(ok), in(getB), out(gone)}, want: []string{"-uncopied", "-uncopied", "GET /b 404"}},
		"hidden second request":          {steps: []step{data(event.In, "GET /a HTTP/1.1\r\nCookie: abc", 400), out(ok), out(gone), in(getC), out(ok)}, want: []string{"GET /a 200", "-uncopied", "-uncopied"}},
		"hidden after a request":         {steps: []step{data(event.In, get, 50), out(ok + gone), in(getC), out(ok)}, want: []string{"GET /a 200", "-uncopied", "-uncopied"}},
		"hidden response head":           {steps: []step{in(get), data(event.Out, "HTTP/1.1 200 OK\r\nSet-", 50), in(getB), out(ok), in(getC), out(gone)}, want: []string{"-uncopied", "-uncopied", "GET /c 404"}},

		// Bytes are lost.
		"gap within a body":         {steps: []step{in(get), out("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"), gap(event.Out, 4000), out(strings.Repeat("x", 1000)), in(getB), out(gone)}, want: []string{"GET /a 200", "GET /b 404"}},
		"gap over the end":          {steps: []step{in(get), out("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"), gap(event.Out, 5010), in(getB), out(fail)}, want: []string{"-gap", "-gap"}},
		"gap up to the end":         {steps: []step{in(get), out("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"), gap(event.Out, 5000), in(getB), out(fail)}, want: []string{"-gap", "GET /b 500"}},
		"lost response":             {steps: []step{in(get), in(getB), gap(event.Out, uint64(len(ok))), out(fail), in(getC), out(ok), in(get), out(gone)}, want: []string{"-gap", "-gap", "-gap", "-gap", "GET /a 404"}},
		"lost request":              {steps: []step{in(get), out(ok), out(fail), gap(event.In, 30), in(getC), out(ok), in(getB), out(gone)}, want: []string{"GET /a 200", "-gap", "-gap", "GET /b 404"}},
		"lost request, body":        {steps: []step{in(get), out(ok), gap(event.In, 80), in(getB), out(ok), in(getC), out(gone)}, want: []string{"GET /a 200", "-gap", "GET /c 404"}},
		"gap within a request":      {steps: []step{in(get[:20]), gap(event.In, 80), in("\r\n\r\n"), out(ok), in(getB), out(gone), in(getC), out(fail)}, want: []string{"GET /a 200", "-gap", "GET /c 500"}},
		"gap within a head":         {steps: []step{in(get), out(ok[:20]), gap(event.Out, 10), out("\r\n\r\nok"), in(getB), out(gone), in(getC), out(fail)}, want: []string{"-gap", "-gap", "GET /c 500"}},
		"gap before anything":       {steps: []step{gap(event.In, 10), in(get), out(ok), in(getB), out(gone)}, want: []string{"-gap", "GET /b 404"}},
		"gap after a pipeline":      {steps: []step{in(get + getB), out(ok), out(ok), gap(event.Out, 5), in(getB), out(fail), in(getC), out(ok)}, want: []string{"GET /a 200", "GET /b 200", "-gap", "-gap"}},
		"gap within chunks":         {steps: []step{in(get), out(chunk + "a\r\n"), gap(event.Out, 12), out("0\r\n\r\n"), in(getB), out(gone)}, want: []string{"GET /a 200", "GET /b 404"}},
		"gap over chunks":           {steps: []step{in(get), out(chunk + "a\r\n"), gap(event.Out, 15), out("\r\n"), in(getB), out(gone), in(getC), out(fail)}, want: []string{"-gap", "-gap", "GET /c 500"}},
		"gap while a response came": {steps: []step{in(get), out("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"), gap(event.In, 10), in(getB), out("cd"), out(gone)}, want: []string{"GET /a 200", "-gap"}},

		// The response is seen first: two threads of a client.
		"out of order":             {steps: []step{in(ok), out(get), in(gone), out(getB)}, want: []string{"GET /a 200", "GET /b 404"}},
		"out of order, in pieces":  {steps: []step{in(ok[:30]), in(ok[30:]), out(get), out(getB), in(gone)}, want: []string{"GET /a 200", "GET /b 404"}},
		"response without request": {steps: []step{in(get), out(ok), out(fail), resolved, in(getB), out(ok), in(getC), out(gone)}, want: []string{"GET /a 200", "-no_request", "-no_request", "GET /c 404"}},

		// Joined in the midst of it.
		"joined before a request":  {joined: true, steps: []step{in(get), out(ok), in(getB), out(gone)}, want: []string{"-joined", "GET /b 404"}},
		"joined before a response": {joined: true, steps: []step{out(ok), in(get), out(ok), in(getB), out(gone)}, want: []string{"-joined", "-joined", "GET /b 404"}},
		"joined within a response": {joined: true, steps: []step{out("x"), out("y"), in(get), out(ok), in(getB), out(gone)}, want: []string{"-joined", "-joined", "GET /b 404"}},
		"joined within a request":  {joined: true, steps: []step{in("x"), in(get), in("y"), out(fail), in(getB), out(gone)}, want: []string{"-joined", "GET /b 404"}},
		"joined, one byte ahead":   {joined: true, steps: []step{in("G"), in(get[1:]), out(ok), in("G"), in(getB[1:]), out(gone)}, want: []string{"-joined", "GET /b 404"}},
		"joined, a body's end":     {joined: true, steps: []step{in(get), in("G"), out(ok), in(getB), out(gone), in(getC), out(fail)}, want: []string{"-joined", "GET /b 404", "GET /c 500"}},
		"joined, 100":              {joined: true, steps: []step{in("POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 28\r\n\r\n"), out("HTTP/1.1 100 Continue\r\n\r\n"), in(get), out(fail), in(getB), out(gone)}, want: []string{"-joined", "-joined"}},
		"joined, client":           {joined: true, steps: []step{out(get), in(ok), out(getB), in(gone)}, want: []string{"-joined", "GET /b 404"}},
		"joined, not at a start":   {joined: true, steps: []step{in(get), out(ok), mid(event.In, getB), out(gone)}, want: []string{"-joined", "-joined"}},
		"joined, pipelined":        {joined: true, steps: []step{in(get), in(getB), out(ok), in(getC), out(fail), out(ok), in(get), out(ok)}, want: []string{"-joined", "-joined", "-joined", "-joined"}},
		"joined, a gap between":    {joined: true, steps: []step{in(get), out(ok), gap(event.In, 50), in(getB), out(ok)}, want: []string{"-joined", "-joined"}},
		"joined, tunnel":           {joined: true, steps: []step{in("CONNECT x:1 HTTP/1.1\r\n\r\n"), out("HTTP/1.1 200 OK\r\n\r\n"), in(get), out(ok), in(get), out(ok)}, want: []string{"-joined"}},
		"joined, not http":         {joined: true, steps: []step{in("x"), out("y"), in("z"), closed}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, p := play(!tt.joined, tt.steps)
			qt.Check(t, qt.Equals(cmp.Diff(tt.want, got), ""))
			p.Abandon(Unfinished)
			qt.Check(t, qt.Equals(p.c.Budget.Used, 0))
		})
	}
}

func TestTimesAndSizes(t *testing.T) {
	var got []Exchange
	c := &Config{Exchange: func(e Exchange) { got = append(got, e) }, Unparsed: func(r Reason) { t.Error(r) }, Budget: Budget{Max: 1 << 20}}
	p := New(c, true)
	post := "POST /p?q=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n" // 52 bytes
	p.Data(event.Out, Segment{Time: 10, Data: []byte(post[:2])})
	p.Data(event.Out, Segment{Time: 20, Data: []byte(post[2:] + "abc")})
	p.Data(event.In, Segment{Time: 25, Data: []byte("HTTP/1.1 102 Processing\r\n\r\n")})
	p.Data(event.In, Segment{Time: 30, Data: []byte("H")})
	p.Data(event.In, Segment{Time: 40, Data: []byte("TTP/1.0 201 Created\r\nContent-Length: 5000\r\n\r\n"), Hidden: 100})
	p.Data(event.In, Segment{Time: 50, Hidden: 4900})
	p.Shut(event.In)
	p.Close()
	want := []Exchange{{Role: Client, Method: "POST", Path: "/p", Protocol: "HTTP/1.1", Status: 201, Start: 10, FirstByte: 30, End: 50,
		RequestBytes: 55, ResponseBytes: 46 + 5000}}
	qt.Assert(t, qt.Equals(len(post), 52))
	qt.Assert(t, qt.Equals(cmp.Diff(want, got), ""))
}

// A body that ends with the connection ends with its last byte, however long the connection stays.
func TestUntilCloseEnds(t *testing.T) {
	var got Exchange
	c := &Config{Exchange: func(e Exchange) { got = e }, Budget: Budget{Max: 1 << 20}}
	p := New(c, true)
	p.Data(event.In, Segment{Time: 10, Data: []byte("GET / HTTP/1.0\r\n\r\n")})
	p.Data(event.Out, Segment{Time: 20, Data: []byte("HTTP/1.0 200 OK\r\n\r\n")})
	p.Data(event.Out, Segment{Time: 30, Hidden: 100})
	p.Data(event.In, Segment{Time: 90, Data: []byte("\r\n")})
	p.Close()
	qt.Assert(t, qt.Equals(got.End, 30))
	qt.Assert(t, qt.Equals(got.ResponseBytes, 119))
}

func TestPath(t *testing.T) {
	tests := []struct{ method, target, want string }{
		{"GET", "/", "/"},
		{"GET", "/a/b?token=secret", "/a/b"},
		{"GET", "/a#secret", "/a"},
		{"GET", "/?secret", "/"},
		{"GET", "http://user:secret@host/a/b?secret", "/a/b"},
		{"GET", "http://user:secret@host", "/"},
		{"GET", "http://user:secret@host?secret", "/"},
		{"GET", "http://user:secret@host#secret", "/"},
		{"GET", "/go?to=http://x/y", "/go"},
		{"GET", "/to/http://x/y", "/to/http://x/y"},
		{"GET", "/a;jsessionid=secret/b;v=1?secret", "/a/b"},
		{"GET", "/%3Fa%2f", "/%3Fa%2f"},
		{"OPTIONS", "*", "*"},
		{"CONNECT", "host:443", "host:443"},
		{"CONNECT", "user:secret@host:443", "host:443"},
		{"CONNECT", "[::1]:443", "[::1]:443"},
		{"CONNECT", "/rpc;x=secret", "/rpc"},
		{"CONNECT", "http://user:secret@host:80/a", "/a"},
		{"CONNECT", "host:80/secret", ""},
		{"CONNECT", "host:80@secret", ""},
		{"CONNECT", "user:secret", ""},
		{"CONNECT", ":80", ""},
		{"connect", "user:secret@host:443", ""},
		{"GET", "user:secret@host:80", ""},
		{"GET", "host:80", ""},
		{"GET", "http:user:secret@host/p", ""},
		{"GET", "https:/user:secret@host/p", ""},
		{"GET", "mailto:secret@host", ""},
		{"GET", "user:x://a/secret@host", ""},
		{"GET", "*secret", ""},
		{"GET", "", ""},
		{"GET", "/" + strings.Repeat("x", 2000), "/" + strings.Repeat("x", 1023)},
	}
	for _, tt := range tests {
		qt.Check(t, qt.Equals(CleanPath(tt.method, tt.target), tt.want), qt.Commentf("%s %s", tt.method, tt.target))
	}
}

// A request line that fills what is kept of a head is still a request, however it comes.
func TestLongLine(t *testing.T) {
	for n := MaxHead - 40; n <= MaxHead+2; n++ {
		for _, pieces := range []int{1000, MaxHead - 1, 1 << 20} {
			seen := parse([]byte(longLine(n)), []byte(ok), func(int) int { return pieces })
			want := "GET /" + strings.Repeat("x", MaxPath-1) + " 200"
			if n > MaxHead {
				want = "-head_too_big"
			}
			qt.Check(t, qt.DeepEquals(seen, []string{want}), qt.Commentf("%d bytes, %d at once", n, pieces))
		}
	}
}

// Many connections with pieces of heads share one budget; who finds it used up is unparsed, and
// nobody is wrong.
func TestBudget(t *testing.T) {
	var seen []string
	c := newConfig(&seen)
	c.Budget.Max = 100 << 10
	var all []*Parser
	for range 1000 {
		p := New(c, true)
		p.Data(event.In, Segment{Time: 1, Data: []byte("GET /a HTTP/1.1\r\nCookie: " + strings.Repeat("x", 1000))})
		all = append(all, p)
		qt.Assert(t, qt.IsTrue(c.Budget.Used <= c.Budget.Max))
	}
	for _, p := range all {
		p.Data(event.In, Segment{Time: 2, Data: []byte("\r\n\r\n")})
		p.Data(event.Out, Segment{Time: 3, Data: []byte(ok)})
		p.Close()
	}
	n := map[string]int{}
	for _, s := range seen {
		n[s]++
	}
	qt.Check(t, qt.Equals(n["GET /a 200"]+n["-memory"], len(seen)))
	qt.Check(t, qt.IsTrue(n["GET /a 200"] > 50), qt.Commentf("%v", n))
	qt.Check(t, qt.IsTrue(n["-memory"] > 500), qt.Commentf("%v", n))
	qt.Check(t, qt.Equals(c.Budget.Used, 0))
}

// Requests without end and without responses are given up, and what they took is given back.
func TestTooFarAhead(t *testing.T) {
	var seen []string
	c := newConfig(&seen)
	p := New(c, true)
	for range 10000 {
		p.Data(event.In, Segment{Time: 1, Data: []byte(get)})
	}
	qt.Check(t, qt.Equals(len(seen), maxAhead+1))
	qt.Check(t, qt.Equals(seen[0], "-pipelined"))
	qt.Check(t, qt.Equals(c.Budget.Used, 0))
}
