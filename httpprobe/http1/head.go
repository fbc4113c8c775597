// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bufio"
	"bytes"
	"hash/maphash"
	"net/http"
	"strings"
)

// MaxHead is the longest head that is parsed, in bytes.
const MaxHead = 16 << 10

// What an exchange keeps of a request, in bytes.
const (
	MaxMethod = 32 // a longer word is no method
	MaxPath   = 1024
)

// verdict says whether bytes begin something.
type verdict uint8

const (
	no verdict = iota
	undecided
	yes
)

// requestLine looks at the start of a request: yes with the whole first line, undecided while all
// that is there may be one.
func requestLine(b []byte) verdict {
	i := 0
	for i < len(b) && token(b[i]) {
		if i++; i > MaxMethod {
			return no
		}
	}
	if i == len(b) {
		return undecided
	}
	if i == 0 || b[i] != ' ' {
		return no
	}
	i++
	target := i
	for i < len(b) && b[i] > ' ' && b[i] != 0x7f {
		i++
	}
	if i == len(b) {
		return undecided
	}
	if i == target || b[i] != ' ' {
		return no
	}
	return versionLine(b[i+1:], true)
}

// versionLine looks for "HTTP/1.x", which ends a request's line and starts a response's.
func versionLine(b []byte, ends bool) verdict {
	const version = "HTTP/1."
	n := min(len(b), len(version))
	if string(b[:n]) != version[:n] {
		return no
	}
	b = b[n:]
	switch {
	case len(b) == 0:
		return undecided
	case b[0] < '0' || b[0] > '9':
		return no
	case len(b) == 1:
		return undecided
	}
	b = b[1:]
	if !ends {
		if b[0] != ' ' {
			return no
		}
		return yes
	}
	if b[0] == '\r' {
		b = b[1:]
	}
	if len(b) == 0 {
		return undecided
	}
	if b[0] != '\n' {
		return no
	}
	return yes
}

// statusLine looks at the start of a response: yes with version and status.
func statusLine(b []byte) (status int, v verdict) {
	if v := versionLine(b, false); v != yes {
		return 0, v
	}
	b = b[len("HTTP/1.1 "):]
	for i := range 3 {
		if i == len(b) {
			return 0, undecided
		}
		if b[i] < '0' || b[i] > '9' {
			return 0, no
		}
		status = status*10 + int(b[i]-'0')
	}
	switch {
	case len(b) == 3:
		return 0, undecided
	case status < 100 || b[3] != ' ' && b[3] != '\r' && b[3] != '\n':
		return 0, no
	}
	return status, yes
}

// preface looks for the first bytes of HTTP/2 (RFC 9113, section 3.4).
func preface(b []byte) verdict {
	const want = "PRI * HTTP/2.0\r\n"
	n := min(len(b), len(want))
	switch {
	case string(b[:n]) != want[:n]:
		return no
	case n < len(want):
		return undecided
	}
	return yes
}

// settings looks for the frame with which a server of HTTP/2 begins (RFC 9113, section 3.4), before
// or after the client's preface is seen. It never says yes: that is the preface's to say.
func settings(b []byte) verdict {
	const most = 64 // settings
	for i, c := range b[:min(len(b), 9)] {
		switch {
		case i == 1 && c > most*6/256, i == 3 && c != 4, i != 1 && i != 2 && i != 3 && c != 0:
			return no
		}
	}
	return undecided
}

// handshake looks for a TLS record with a handshake in it.
func handshake(b []byte) verdict {
	switch {
	case b[0] != 22:
		return no
	case len(b) == 1:
		return undecided
	case b[1] != 3:
		return no
	}
	return yes
}

// IsToken reports whether a word can be a method.
func IsToken(b []byte) bool {
	for _, c := range b {
		if !token(c) {
			return false
		}
	}
	return len(b) > 0
}

// token reports the characters of which methods are made (RFC 9110, section 5.6.2).
func token(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// headEnd returns the length of the head with which b starts, the empty line included; 0 if it is
// not all there. The first from bytes are known not to hold the end.
func headEnd(b []byte, from int) int {
	for i := max(0, from); ; {
		j := bytes.IndexByte(b[i:], '\n')
		if j < 0 {
			return 0
		}
		i += j + 1
		rest := b[i:]
		if len(rest) > 0 && rest[0] == '\n' {
			return i + 1
		}
		if len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n' {
			return i + 2
		}
	}
}

// heads parses heads with net/http, which sees nothing but their bytes. Most traffic repeats
// itself: what became of a head is remembered by a hash with a secret seed, not by its bytes, which
// may hold cookies.
type heads struct {
	bytes     bytes.Reader
	reader    *bufio.Reader
	seed      maphash.Seed
	requests  map[headKey]requestHead
	responses map[headKey]responseHead
}

type headKey struct {
	hash   uint64
	length int
	kind   byte // of the method that a response answers: HEAD, CONNECT, others
}

type requestHead struct {
	request request
	body    body
	ok      bool
}

type responseHead struct {
	status int
	body   body
	ok     bool
	h2c    bool // HTTP/2 follows
}

// Heads that are remembered, of each kind.
const maxRemembered = 1024

// HeapBytes are what those that share a Config remember, besides what they take of its budget.
const HeapBytes = maxRemembered * (2*(136+56) + MaxPath + MaxMethod + 64)

func (h *heads) key(head []byte) headKey {
	if h.requests == nil {
		h.seed = maphash.MakeSeed()
		h.requests, h.responses = map[headKey]requestHead{}, map[headKey]responseHead{}
	}
	return headKey{hash: maphash.Bytes(h.seed, head), length: len(head)}
}

// request parses the head of a request.
func (h *heads) request(head []byte) (request, body, bool) {
	k := h.key(head)
	r, known := h.requests[k]
	if !known {
		r = h.readRequest(head)
		if len(h.requests) == maxRemembered {
			clear(h.requests)
		}
		h.requests[k] = r
	}
	return r.request, r.body, r.ok
}

// response parses the head of a response to a request of that method.
func (h *heads) response(head []byte, method string) responseHead {
	k := h.key(head)
	switch method {
	case http.MethodHead:
		k.kind = 'H'
	case http.MethodConnect:
		k.kind = 'C'
	}
	r, known := h.responses[k]
	if !known {
		r = h.readResponse(head, method)
		if len(h.responses) == maxRemembered {
			clear(h.responses)
		}
		h.responses[k] = r
	}
	return r
}

func (h *heads) load(b []byte) *bufio.Reader {
	h.bytes.Reset(b)
	if h.reader == nil {
		h.reader = bufio.NewReaderSize(&h.bytes, len(blank))
	} else {
		h.reader.Reset(&h.bytes)
	}
	return h.reader
}

// clear overwrites what the reader's buffer keeps of a head: cookies and the like.
func (h *heads) clear(n int) {
	n = min(n, len(blank))
	h.bytes.Reset(blank[:n])
	h.reader.Reset(&h.bytes)
	h.reader.Peek(n)
}

// blank is as long as the longest head that net/http is given: a request line, and the empty line
// in place of what was cut.
var blank [MaxHead + len("\r\n")]byte

// leftover reports that net/http saw the head's end elsewhere than we did.
func (h *heads) leftover() bool { return h.reader.Buffered()+h.bytes.Len() > 0 }

func (h *heads) readRequest(head []byte) (r requestHead) {
	if requestLine(head) != yes {
		return r // net/http is more lenient, but a head in pieces was already refused for it
	}
	req, err := http.ReadRequest(h.load(head))
	defer h.clear(len(head))
	if err != nil || h.leftover() || req.ProtoMajor != 1 || len(req.Method) > MaxMethod {
		return r
	}
	r.ok = true
	r.request = request{
		method: strings.Clone(req.Method), path: CleanPath(req.Method, req.RequestURI), proto: protocol(req.ProtoMinor),
		tunnel: req.Method == http.MethodConnect || req.Header.Get("Upgrade") != "",
	}
	switch {
	case chunkedBody(req.TransferEncoding):
		r.body.kind = byChunks
	case req.ContentLength > 0:
		r.body.kind, r.body.left = byLength, uint64(req.ContentLength)
	}
	return r
}

func (h *heads) readResponse(head []byte, method string) (r responseHead) {
	if _, v := statusLine(head); v != yes {
		return r
	}
	res, err := http.ReadResponse(h.load(head), &http.Request{Method: method})
	defer h.clear(len(head))
	if err != nil || h.leftover() || res.ProtoMajor != 1 || res.StatusCode < 100 {
		return r
	}
	r.status, r.ok = res.StatusCode, true
	r.h2c = toHTTP2(res)
	switch {
	case method == http.MethodHead || r.status < 200 || r.status == http.StatusNoContent || r.status == http.StatusNotModified:
	case method == http.MethodConnect && r.status < 300:
	case chunkedBody(res.TransferEncoding):
		r.body.kind = byChunks
	case res.ContentLength > 0:
		r.body.kind, r.body.left = byLength, uint64(res.ContentLength)
	case res.ContentLength < 0:
		r.body.kind = untilClose
	}
	return r
}

// toHTTP2 reports a response after which its server speaks HTTP/2.
func toHTTP2(r *http.Response) bool {
	return r.StatusCode == http.StatusSwitchingProtocols && strings.EqualFold(r.Header.Get("Upgrade"), "h2c")
}

func chunkedBody(te []string) bool { return len(te) > 0 && te[0] == "chunked" }

func protocol(minor int) string {
	if minor == 0 {
		return "HTTP/1.0"
	}
	return "HTTP/1.1"
}

// CleanPath keeps what may be kept of a request's target (RFC 9112, section 3.2): the path, "*",
// and host and port of CONNECT. No query, fragment or user information, no parameters of path
// segments (among them the session identifiers of servlets). Of other forms it keeps nothing: where
// user information is in them is anybody's guess.
func CleanPath(method, target string) string {
	if i := strings.IndexAny(target, "?#"); i >= 0 {
		target = target[:i]
	}
	if !strings.HasPrefix(target, "/") && target != "*" {
		_, rest, _ := strings.Cut(target, ":")
		switch authority, absolute := strings.CutPrefix(rest, "//"); {
		case absolute:
			_, path, _ := strings.Cut(authority, "/")
			target = "/" + path
		case method == http.MethodConnect:
			target = hostPort(target[strings.LastIndexByte(target, '@')+1:])
		default:
			target = ""
		}
	}
	if strings.IndexByte(target, ';') >= 0 {
		segments := strings.Split(target, "/")
		for i, s := range segments {
			segments[i], _, _ = strings.Cut(s, ";")
		}
		target = strings.Join(segments, "/")
	}
	// A copy: what was cut off would stay in memory with the rest.
	return strings.Clone(target[:min(len(target), MaxPath)])
}

// hostPort returns s if it is a host and a port, or else nothing.
func hostPort(s string) string {
	i := strings.LastIndexByte(s, ':')
	if i <= 0 || i == len(s)-1 || strings.Trim(s[i+1:], "0123456789") != "" || strings.IndexByte(s, '/') >= 0 {
		return ""
	}
	return s
}
