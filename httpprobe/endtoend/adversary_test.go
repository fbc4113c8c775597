// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"
)

// A scene is a connection of which both ends are scripted. Each line of the script is what one end
// does:
//
//	"> text"   the client sends text
//	"< text"   the server does
//	">> text"  the client sends it byte by byte; "<<" the server
//	"> FIN", "> RST", "< FIN", "< RST"   an end closes
//
// and the other end has received it all before the next line is done. In texts, ~ is a line's end.
type scene struct {
	name   string
	script []string
	// want are the exchanges by hand: "METHOD PATH STATUS". Each has its own path.
	want     []string
	unparsed map[string]int
}

const ok = "HTTP/1.1 200 OK~Content-Length: 2~~ok"

var scenes = []scene{
	{"pipelined", []string{
		"> GET /p1 HTTP/1.1~Host: h~~GET /p2 HTTP/1.1~Host: h~~HEAD /p3 HTTP/1.1~Host: h~~GET /p4 HTTP/1.1~Host: h~~",
		"< " + ok + "HTTP/1.1 404 No~Content-Length: 3~~abcHTTP/1.1 200 OK~Content-Length: 999~~HTTP/1.1 503 Oh~Content-Length: 0~~",
	}, []string{"GET /p1 200", "GET /p2 404", "HEAD /p3 200", "GET /p4 503"}, nil},
	{"byte by byte", []string{
		">> GET /b1 HTTP/1.1~Host: h~~", "<< HTTP/1.1 202 Accepted~Content-Length: 4~~four",
		">> POST /b2 HTTP/1.1~Host: h~Content-Length: 3~~abc", "<< HTTP/1.1 201 Created~Transfer-Encoding: chunked~~3~abc~0~~",
	}, []string{"GET /b1 202", "POST /b2 201"}, nil},
	{"responses in bodies", []string{
		"> POST /r1 HTTP/1.1~Host: h~Content-Length: 64~~" + "HTTP/1.1 500 Oh~Content-Length: 0~~GET /no HTTP/1.1~Host: h~~.......",
		"< HTTP/1.1 200 OK~Content-Length: 69~~", "< HTTP/1.1 500 Oh~Content-Length: 0~~", "< GET /no HTTP/1.1~Host: h~~.......",
		"> GET /r2 HTTP/1.1~Host: h~~", "< " + ok,
	}, nil, nil}, // lengths and wants are filled in below
	{"100-continue", []string{
		"> PUT /c1 HTTP/1.1~Host: h~Expect: 100-continue~Content-Length: 5~~", "< HTTP/1.1 100 Continue~~", "> hello",
		"< HTTP/1.1 103 Early Hints~Link: x~~", "< HTTP/1.1 204 No Content~~",
		"> GET /c2 HTTP/1.1~Host: h~~", "< " + ok,
	}, []string{"PUT /c1 204", "GET /c2 200"}, nil},
	{"100-continue refused", []string{
		"> PUT /d1 HTTP/1.1~Host: h~Expect: 100-continue~Content-Length: 5~~", "< HTTP/1.1 417 No~Content-Length: 0~Connection: close~~", "< FIN", "> FIN",
	}, []string{"PUT /d1 417"}, nil},
	{"unknown methods", []string{
		"> BREW /m1 HTTP/1.1~Host: h~~", "< HTTP/1.1 418 I'm a teapot~Content-Length: 0~~",
		"> X-y_z!9 /m2 HTTP/1.1~Host: h~~", "< " + ok,
	}, []string{"BREW /m1 418", "X-y_z!9 /m2 200"}, nil},
	{"statuses without bodies", []string{
		"> GET /s1 HTTP/1.1~Host: h~~", "< HTTP/1.1 304 Not Modified~Content-Length: 500~~",
		"> GET /s2 HTTP/1.1~Host: h~~", "< HTTP/1.1 204 No Content~~",
		"> HEAD /s3 HTTP/1.1~Host: h~~", "< HTTP/1.1 200 OK~Transfer-Encoding: chunked~~",
		"> GET /s4 HTTP/1.1~Host: h~~", "< " + ok,
	}, []string{"GET /s1 304", "GET /s2 204", "HEAD /s3 200", "GET /s4 200"}, nil},
	// The request line still counts; where the next request begins is sure again after the
	// response.
	{"a request's head over the cap", []string{
		"> GET /h1 HTTP/1.1~Host: h~X: " + strings.Repeat("x", 900) + "~" + strings.Repeat("Y: "+strings.Repeat("y", 900)+"~", 20) + "~", "< " + ok,
		"> GET /h2 HTTP/1.1~Host: h~~", "< HTTP/1.1 404 No~Content-Length: 0~~",
	}, []string{"GET /h1 200", "GET /h2 404"}, nil},
	{"chunk extensions and trailers", []string{
		"> POST /e1 HTTP/1.1~Host: h~Transfer-Encoding: chunked~~5;a=b;c=\"d\"~hello~20~HTTP/1.1 500 Oh~Content-Length:~0;z~X-Trailer: HTTP/1.1 500 Oh~~",
		"< HTTP/1.1 200 OK~Transfer-Encoding: chunked~Trailer: T~~4;x=y~abcd~00000004~efgh~", "< 0~", "< T: 1~U: 2~", "< ~",
		"> GET /e2 HTTP/1.1~Host: h~~", "< " + ok,
	}, []string{"POST /e1 200", "GET /e2 200"}, nil},
	{"HTTP/1.0 until close", []string{
		"> GET /o1 HTTP/1.0~~", "< HTTP/1.0 200 OK~~some", "< HTTP/1.1 500 Oh~~", "< and more", "< FIN", "> FIN",
	}, []string{"GET /o1 200"}, nil},
	{"101", []string{
		"> GET /u1 HTTP/1.1~Host: h~Connection: Upgrade~Upgrade: echo~~", "< HTTP/1.1 101 Switching Protocols~Connection: Upgrade~Upgrade: echo~~",
		"> GET /no HTTP/1.1~Host: h~~", "< HTTP/1.1 500 Oh~Content-Length: 0~~", "> FIN", "< FIN",
	}, []string{"GET /u1 101"}, nil},
	{"CONNECT", []string{
		"> CONNECT h:1 HTTP/1.1~Host: h~~", "< HTTP/1.1 200 OK~~", "> GET /no HTTP/1.1~Host: h~~", "< HTTP/1.1 500 Oh~Content-Length: 0~~",
	}, []string{"CONNECT h:1 200"}, nil},
	{"a response before the request's end", []string{
		"> POST /a1 HTTP/1.1~Host: h~Content-Length: 10~~12345", "< HTTP/1.1 413 Too Large~Content-Length: 0~~", "> 67890",
		"> GET /a2 HTTP/1.1~Host: h~~", "< " + ok,
	}, []string{"POST /a1 413", "GET /a2 200"}, nil},
	{"a reset in a response", []string{
		"> GET /x1 HTTP/1.1~Host: h~~", "< HTTP/1.1 200 OK~Content-Length: 100~~half", "< RST",
	}, []string{"GET /x1 200"}, nil},
	{"a reset instead of a response", []string{"> GET /y1 HTTP/1.1~Host: h~~", "< RST"}, nil, map[string]int{"unanswered": 1}},
	{"a reset within a request's head", []string{"> GET /z1 HTTP/1.1~Ho", "> RST"}, nil, map[string]int{"truncated": 1}},
	{"a response to nothing", []string{"> FIN", "< HTTP/1.1 408 Request Time-out~Content-Length: 0~~", "< FIN"}, nil, map[string]int{"no_request": 1}},
	{"lengths that disagree", []string{
		"> POST /l1 HTTP/1.1~Host: h~Content-Length: 3~Content-Length: 5~~abcde", "< HTTP/1.1 400 No~Content-Length: 0~Connection: close~~", "< FIN", "> FIN",
	}, nil, map[string]int{"malformed": 1}},
	{"not HTTP", []string{"> SSH-2.0-x~", "< SSH-2.0-y~", "> HTTP/1.1 200 OK~~", "< GET /no HTTP/1.1~~"}, nil, nil},
}

func init() {
	// Lengths by hand are easy to get wrong.
	s := &scenes[2]
	body := strings.ReplaceAll("HTTP/1.1 500 Oh~Content-Length: 0~~GET /no HTTP/1.1~Host: h~~.......", "~", "\r\n")
	s.script[0] = strings.Replace(s.script[0], "64", fmt.Sprint(len(body)), 1)
	s.script[1] = strings.Replace(s.script[1], "69", fmt.Sprint(len(body)), 1)
	s.want = []string{"POST /r1 200", "GET /r2 200"}
}

// TestScenes: right, or unparsed.
func TestScenes(t *testing.T) {
	onHost(t)
	testScenes(t)
}

func testScenes(t *testing.T) {
	want, unparsed := map[string]int{}, map[string]int{}
	var stages []*stage
	var args []string
	for range scenes {
		st := newStage(t)
		stages = append(stages, st)
		args = append(args, "--port", fmt.Sprint(st.port))
	}
	p := watch(t, nil, append(args, "--sources", hostSources())...)
	for i, s := range scenes {
		stages[i].connect(t)
		for _, line := range s.script {
			stages[i].play(t, line)
		}
		stages[i].close()
		t.Logf("%d: %s", stages[i].port, s.name)
		for _, w := range s.want {
			want[fmt.Sprintf("%d %s", stages[i].port, w)]++
		}
		for r, n := range s.unparsed {
			unparsed[r] += n
		}
	}
	all := p.stop(t)
	for _, source := range p.sources {
		for _, role := range roles(source) {
			got := map[string]int{}
			for _, d := range p.docs {
				if d.Source == source && d.Role == role {
					got[fmt.Sprintf("%d %s %s %d", d.ServerPort, d.Method, d.Path, d.Status)]++
				}
			}
			if all[source].lost > 0 {
				for r, n := range got {
					qt.Check(t, qt.Equals(n, want[r]), qt.Commentf("%s as %s: %s", source, role, r))
				}
			} else {
				qt.Check(t, qt.Equals(cmp.Diff(want, got), ""), qt.Commentf("%s as %s", source, role))
			}
			qt.Check(t, qt.IsTrue(len(got) > len(want)/2))
		}
		a := all[source]
		t.Log(a.why)
		if a.lost > 0 {
			continue
		}
		if source == "packets" {
			qt.Check(t, qt.DeepEquals(a.reasons, unparsed), qt.Commentf("%s", a.why))
			continue
		}
		// Older kernels do not tell of every reset: what waits for its response is unfinished then.
		n := 0
		for _, k := range unparsed {
			n += k * len(roles(source))
		}
		qt.Check(t, qt.Equals(a.unparsed, n), qt.Commentf("%s", a.why))
	}
}

// TestJoined: connections that are there before the probe. One or two requests are given up, and
// the others are right.
func TestJoined(t *testing.T) {
	onHost(t)
	var stages []*stage
	var args []string
	for range 4 {
		st := newStage(t)
		st.connect(t)
		stages = append(stages, st)
		args = append(args, "--port", fmt.Sprint(st.port))
	}
	// When the probe comes: nothing has been sent; a request is half sent; a response is; a
	// response has ended.
	before := [][]string{
		nil,
		{"> GET /old HTTP/1.1~Ho"},
		{"> GET /old HTTP/1.1~Host: h~~", "< HTTP/1.1 200 OK~Content-Length: 100~~" + strings.Repeat("o", 60)},
		{"> GET /old HTTP/1.1~Host: h~~", "< " + ok},
	}
	after := [][]string{
		nil,
		{"> st: h~~", "< " + ok},
		{"< " + strings.Repeat("o", 40)},
		nil,
	}
	play := func(lines [][]string) {
		for i, st := range stages {
			for _, line := range lines[i] {
				st.play(t, line)
			}
		}
	}
	play(before)
	p := watch(t, nil, append(args, "--sources", hostSources())...)
	play(after)
	const n = 10
	for i := range n {
		for _, st := range stages {
			st.play(t, fmt.Sprintf("> GET /j%d HTTP/1.1~Host: h~~", i))
			st.play(t, fmt.Sprintf("< HTTP/1.1 %d Yes~Content-Length: 2~~ok", 400+i))
		}
	}
	for _, st := range stages {
		st.close()
	}
	all := p.stop(t)
	for _, source := range p.sources {
		for _, role := range roles(source) {
			got := map[uint16]int{}
			for _, d := range p.docs {
				if d.Source != source || d.Role != role {
					continue
				}
				got[d.ServerPort]++
				var i int
				_, err := fmt.Sscanf(d.Path, "/j%d", &i)
				qt.Check(t, qt.IsNil(err), qt.Commentf("%v", d))
				qt.Check(t, qt.Equals(d.Status, 400+i), qt.Commentf("%v", d))
			}
			for _, st := range stages {
				qt.Check(t, qt.IsTrue(got[uint16(st.port)] >= n-2), qt.Commentf("%s as %s: %v; %s", source, role, got, all[source].why))
			}
		}
		qt.Check(t, qt.Equals(all[source].unparsed, all[source].reasons["joined"]), qt.Commentf("%s", all[source].why))
		t.Log(all[source].why)
	}
}

// stage has both ends of a connection.
type stage struct {
	listener net.Listener
	port     int
	ends     map[byte]*net.TCPConn // '>' the client's, '<' the server's
}

func newStage(t testing.TB) *stage {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { l.Close() })
	return &stage{listener: l, port: l.Addr().(*net.TCPAddr).Port}
}

func (s *stage) connect(t testing.TB) {
	t.Helper()
	client, err := net.Dial("tcp", s.listener.Addr().String())
	qt.Assert(t, qt.IsNil(err))
	server, err := s.listener.Accept()
	qt.Assert(t, qt.IsNil(err))
	s.ends = map[byte]*net.TCPConn{'>': client.(*net.TCPConn), '<': server.(*net.TCPConn)}
	t.Cleanup(s.close)
}

func (s *stage) play(t testing.TB, line string) {
	t.Helper()
	from, to := s.ends['>'], s.ends['<']
	if line[0] == '<' {
		from, to = to, from
	}
	to.SetReadDeadline(time.Now().Add(10 * time.Second))
	how, text, _ := strings.Cut(line, " ")
	switch text {
	case "FIN":
		qt.Assert(t, qt.IsNil(from.CloseWrite()))
		_, err := to.Read(make([]byte, 1))
		qt.Assert(t, qt.Equals(err, io.EOF))
		return
	case "RST":
		qt.Assert(t, qt.IsNil(from.SetLinger(0)))
		from.Close()
		to.Read(make([]byte, 1))
		return
	}
	text = strings.ReplaceAll(text, "~", "\r\n")
	step := len(text)
	if len(how) == 2 {
		step = 1
	}
	for i := 0; i < len(text); i += step {
		_, err := io.WriteString(from, text[i:i+step])
		qt.Assert(t, qt.IsNil(err))
		_, err = io.ReadFull(to, make([]byte, step))
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", line))
	}
}

func (s *stage) close() {
	for _, c := range s.ends {
		c.Close()
	}
}
