// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bpfwhy/bpfwhy/httpprobe/connection"
	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
	"github.com/go-quicktest/qt"
)

func scrape(m *Metrics) string {
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// has checks for whole lines.
func has(t *testing.T, text string, lines ...string) {
	t.Helper()
	all := strings.Split(text, "\n")
	for _, l := range lines {
		qt.Check(t, qt.IsTrue(slices.Contains(all, l)), qt.Commentf("%s\nis not in\n%s", l, text))
	}
}

func none() Accounts { return Accounts{} }

func exchange(role http1.Role, method, path string, status int) *connection.Exchange {
	return &connection.Exchange{Exchange: http1.Exchange{Role: role, Method: method, Path: path, Protocol: "HTTP/1.1", Status: status, Start: 1e9, FirstByte: 1e9 + 20e6, End: 1e9 + 200e6},
		Source: event.Syscalls, LocalPort: 80, RemotePort: 40000}
}

func quantised(t *testing.T) Routes {
	r, err := ParseRoutes([]string{"quantised"})
	qt.Assert(t, qt.IsNil(err))
	return r
}

func TestNames(t *testing.T) {
	m := New(quantised(t), 100, none)
	m.Observe(exchange(http1.Server, "GET", "/users/42", 200), "docker://1")
	m.Observe(exchange(http1.Server, "GET", "/users/43", 200), "docker://1")
	m.Observe(exchange(http1.Client, "BREW", "*", 503), "")
	unknown := exchange(http1.Server, "PUT", "/", 201)
	unknown.Source, unknown.LocalPort = event.OpenSSL, 0
	m.Observe(unknown, "")
	call := exchange(http1.Server, "POST", "/grpc.health.v1.Health/Check", 200)
	call.Protocol, call.GRPCStatus = "HTTP/2", "14"
	m.Observe(call, "")
	blind := exchange(http1.Server, http1.Unknown, http1.Unknown, 200)
	blind.Protocol, blind.GRPCStatus = "HTTP/2", http1.Unknown
	m.Observe(blind, "")
	server := `{container="docker://1",http_request_method="GET",http_response_status_code="200",http_route="/users/{}",network_protocol_version="1.1",rpc_grpc_status_code="",server_port="80",source="syscalls",url_scheme="http"`
	text := scrape(m)
	has(t, text,
		`http_server_request_duration_seconds_count`+server+`} 2`,
		`http_server_request_duration_seconds_sum`+server+`} 0.4`,
		`http_server_request_duration_seconds_bucket`+server+`,le="0.1"} 0`,
		`http_server_request_duration_seconds_bucket`+server+`,le="0.25"} 2`,
		`http_server_time_to_first_byte_seconds_sum`+server+`} 0.04`,
		`http_client_request_duration_seconds_count{container="",http_request_method="_OTHER",http_response_status_code="503",http_route="",network_protocol_version="1.1",rpc_grpc_status_code="",server_port="40000",source="syscalls",url_scheme="http"} 1`,
		`http_server_request_duration_seconds_count{container="",http_request_method="PUT",http_response_status_code="201",http_route="/",network_protocol_version="1.1",rpc_grpc_status_code="",server_port="",source="openssl",url_scheme="https"} 1`,
		`http_server_request_duration_seconds_count{container="",http_request_method="POST",http_response_status_code="200",http_route="/grpc.health.v1.Health/Check",network_protocol_version="2",rpc_grpc_status_code="14",server_port="80",source="syscalls",url_scheme="http"} 1`,
		`http_server_request_duration_seconds_count{container="",http_request_method="unknown",http_response_status_code="200",http_route="unknown",network_protocol_version="2",rpc_grpc_status_code="unknown",server_port="80",source="syscalls",url_scheme="http"} 1`,
		`httpprobe_series 5`,
		`httpprobe_series_overflow_total 0`,
	)
	qt.Check(t, qt.IsFalse(strings.Contains(text, "BREW")))
}

func TestAccounts(t *testing.T) {
	st := connection.Stats{Counted: 7, Connections: 9, Open: 3}
	st.Unparsed[http1.Gap] = 4
	st.Spoke[http1.TLS] = 5
	m := New(Routes{}, 100, func() Accounts {
		return Accounts{Sources: []Source{{Name: "syscalls", Up: true, Stats: st, Loss: event.Loss{RingFull: 11}}, {Name: "openssl"}}, Uncovered: map[string]int{"java": 2, "\xff": 1}}
	})
	has(t, scrape(m),
		`httpprobe_source_up{source="syscalls"} 1`,
		`httpprobe_source_up{source="openssl"} 0`,
		`httpprobe_requests_counted_total{source="syscalls"} 7`,
		`httpprobe_requests_unparsed_total{reason="gap",source="syscalls"} 4`,
		`httpprobe_requests_unparsed_total{reason="joined",source="syscalls"} 0`,
		`httpprobe_events_lost_total{reason="ring_full",source="syscalls"} 11`,
		`httpprobe_connections_total{protocol="tls",source="syscalls"} 5`,
		`httpprobe_connections_open{source="syscalls"} 3`,
		`httpprobe_blind_processes{reason="java"} 2`,
	)
}

// 100,000 paths, every status and hostile methods do not make more series than asked for, and every
// exchange is in one of them.
func TestCap(t *testing.T) {
	r, err := ParseRoutes([]string{"/{x}"})
	qt.Assert(t, qt.IsNil(err))
	for _, routes := range []Routes{quantised(t), r, {}} {
		const most, n = 200, 100000
		m := New(routes, most, none)
		for i := range n {
			e := exchange(http1.Role(1+i%2), fmt.Sprintf("M%d", i), "/"+strings.Repeat("a", 1+i%20)+string(rune('a'+i/20%26)), 100+i%900)
			e.Source = event.Syscalls + event.Source(i/2%3)
			m.Observe(e, fmt.Sprintf("docker://%d", i%1000))
		}
		text := scrape(m)
		series, requests := 0, 0
		bySource := map[string]int{}
		for l := range strings.Lines(text) {
			if strings.Contains(l, "_request_duration_seconds_count{") {
				series++
				var c int
				fmt.Sscan(l[strings.LastIndexByte(l, ' ')+1:], &c)
				requests += c
				_, source, _ := strings.Cut(l, `source="`)
				source, _, _ = strings.Cut(source, `"`)
				bySource[source] += c
			}
		}
		qt.Check(t, qt.IsTrue(series <= most), qt.Commentf("%d series", series))
		qt.Check(t, qt.IsTrue(series > most/2), qt.Commentf("%d series", series))
		qt.Check(t, qt.Equals(requests, n))
		has(t, text, fmt.Sprintf("httpprobe_series %d", series), fmt.Sprintf("httpprobe_series_overflow_total %d", m.overflowed))
		for role := range 2 {
			for source := range 3 {
				n := bySource[SourceName(event.Syscalls+event.Source(source))]
				qt.Check(t, qt.IsTrue(n > 33000), qt.Commentf("%d", n)) // a third
				for class := 1; class <= 9; class++ {
					line := fmt.Sprintf(`http_%s_request_duration_seconds_count{container="",http_request_method="_OTHER",http_response_status_code="%dxx",http_route="_overflow",network_protocol_version="",rpc_grpc_status_code="",server_port="",source="%s",url_scheme="%s"}`,
						[]string{"server", "client"}[role], class, SourceName(event.Syscalls+event.Source(source)), []string{"http", "http", "https"}[source])
					qt.Check(t, qt.IsTrue(strings.Contains(text, line)), qt.Commentf("%s", line))
				}
			}
		}
	}
}

// longest is one of many exchanges, in a container, whose labels are as long as there are.
func longest(i int) (*connection.Exchange, string) {
	e := exchange(http1.Role(1+i%2), "CONNECTED", fmt.Sprintf("/%c%c", 'a'+i/26%26, 'a'+i%26)+strings.Repeat("/"+strings.Repeat("\u00e9a", 16), 7)+"/x/y", 599)
	e.Protocol, e.GRPCStatus = "HTTP/1.1", http1.Unknown
	if i%3 > 0 {
		e.Path = fmt.Sprintf("/%c%c", 'a'+i/26%26, 'a'+i%26) + strings.Repeat("/"+strings.Repeat("a", 32), 8)
	}
	e.Source, e.LocalPort = event.OpenSSL, 65535
	e.End = 1<<63 + uint64(i)
	return e, fmt.Sprintf("cri-containerd://%s%d", strings.Repeat("\n\"\\", 1000), i)
}

// The page is no larger than it is said to be, whatever comes.
func TestPageSize(t *testing.T) {
	const most = 300
	m := New(quantised(t), most, none)
	for i := range 2 * most {
		m.Observe(longest(i))
	}
	text := scrape(m)
	t.Logf("%d bytes a series", len(text)/most)
	qt.Check(t, qt.IsTrue(len(text) <= most*SeriesBytes+RestBytes), qt.Commentf("%d bytes", len(text)))
	qt.Check(t, qt.IsTrue(len(text) > most*SeriesBytes/4))
}

// Who asks at once gets the same page, and later a new one.
func TestPageAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		m := New(Routes{}, 100, func() Accounts { asked++; return Accounts{Dropped: uint64(asked)} })
		for range 100 {
			has(t, scrape(m), "httpprobe_output_lines_dropped_total 1")
		}
		time.Sleep(pageAge)
		has(t, scrape(m), "httpprobe_output_lines_dropped_total 2")
		qt.Check(t, qt.Equals(asked, 2))
		r := httptest.NewRequest("GET", "/metrics", nil)
		r.Header.Set("Accept-Encoding", "gzip")
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, r)
		qt.Check(t, qt.Equals(w.Header().Get("Content-Encoding"), "gzip"))
		z, err := gzip.NewReader(w.Body)
		qt.Assert(t, qt.IsNil(err))
		b, err := io.ReadAll(z)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(string(b), scrape(m)))
	})
}

// Bytes that are no UTF-8 would make the client library panic.
func TestHostile(t *testing.T) {
	m := New(quantised(t), 100, none)
	m.Observe(exchange(http1.Server, "\xff\xfe", "/\xff/\x1b[2J\n\"", 200), "docker://\xff")
	text := scrape(m)
	qt.Check(t, qt.IsTrue(strings.Contains(text, `http_route="/{}/{}"`)), qt.Commentf("%s", text))
	qt.Check(t, qt.IsFalse(strings.Contains(text, "\x1b")))
}

func TestRoutes(t *testing.T) {
	tests := []struct {
		routes []string
		path   string
		want   string
	}{
		{[]string{"off"}, "/a/b", ""},
		{[]string{"quantised"}, "/", "/"},
		{[]string{"quantised"}, "/api/v1/users/123/posts", "/api/v1/users/{}/posts"},
		{[]string{"quantised"}, "/o/3f2b8c1e-0000-4000-8000-1234567890ab", "/o/{}"},
		{[]string{"quantised"}, "/static/app.3f9a8c1b.js", "/static/{}"},
		{[]string{"quantised"}, "/index.html", "/index.html"},
		{[]string{"quantised"}, "/a%20b/a@b/é", "/{}/{}/{}"},
		{[]string{"quantised"}, "/1/2/3/4/5/6/7/8/9/10", "/{}/{}/{}/{}/{}/{}/{}/{}/{...}"},
		{[]string{"quantised"}, "/" + strings.Repeat("a", 33), "/{}"},
		{[]string{"quantised"}, "host:443", ""},
		{[]string{"quantised"}, "*", ""},
		{[]string{"quantised"}, http1.Unknown, "unknown"},
		{[]string{"off"}, http1.Unknown, ""},
		{[]string{"/users/{id}", "/static/{rest...}", "/{any}"}, "/users/7", "/users/{id}"},
		{[]string{"/users/{id}", "/static/{rest...}", "/{any}"}, "/users/", ""},
		{[]string{"/users/{id}", "/static/{rest...}", "/{any}"}, "/users/7/8", ""},
		{[]string{"/users/{id}", "/static/{rest...}", "/{any}"}, "/static/a/b/c", "/static/{rest...}"},
		{[]string{"/users/{id}", "/static/{rest...}", "/{any}"}, "/x", "/{any}"},
		{[]string{"/a"}, "/a", "/a"},
		{[]string{"/a"}, "/b", ""},
	}
	for _, tt := range tests {
		r, err := ParseRoutes(tt.routes)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(r.Of(tt.path, 200), tt.want), qt.Commentf("%v %s", tt.routes, tt.path))
	}
	for _, tt := range []struct {
		routes []string
		status int
		want   string
	}{
		{[]string{"quantised"}, 404, ""},
		{[]string{"quantised"}, 405, ""},
		{[]string{"quantised"}, 403, "/users/{}"},
		{[]string{"quantised"}, 410, "/users/{}"},
		{[]string{"/users/{id}"}, 404, "/users/{id}"},
		{[]string{"/users/{id}"}, 405, "/users/{id}"},
		{[]string{"off"}, 404, ""},
	} {
		r, err := ParseRoutes(tt.routes)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(r.Of("/users/7", tt.status), tt.want), qt.Commentf("%v %d", tt.routes, tt.status))
	}
	for _, tt := range []struct{ route, path, grpc, want string }{
		{"quantised", "/grpc.health.v1.Health/Check", "0", "/grpc.health.v1.Health/Check"},
		{"quantised", "/grpc.health.v1.Health/Check", "none", "/grpc.health.v1.Health/Check"},
		{"quantised", "/scan.of.Weaknesses1/" + "Call", "12", ""},
		{"quantised", "/a.B/c d1234567", "0", "/a.B/{}"},
		{"quantised", "/a.B1234567/C/D", "0", "/{}/C/D"},
		{"quantised", "unknown", "0", "unknown"},
		{"/a.B/{any}", "/a.B/C", "0", "/a.B/{any}"},
		{"off", "/a.B/C", "0", ""},
	} {
		r, err := ParseRoutes([]string{tt.route})
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(r.OfGRPC(tt.path, 200, tt.grpc), tt.want), qt.Commentf("%v", tt))
	}
	for _, bad := range [][]string{{"on"}, {"off", "/a"}, {"quantised", "off"}, {"/a{b}"}, {"/{a"}, {"/{a...}/b"}, {"/{a{b}}"}, {""}} {
		_, err := ParseRoutes(bad)
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("%v", bad))
	}
}

func BenchmarkObserve(b *testing.B) {
	r, _ := ParseRoutes([]string{"quantised"})
	m := New(r, 2000, none)
	e := exchange(http1.Server, "GET", "/users/42", 200)
	b.ReportAllocs()
	for b.Loop() {
		m.Observe(e, "docker://1")
	}
}

// What the series and a page of them take is no more than it is said to be.
func TestHeap(t *testing.T) {
	const most = 500
	var before, kept, page runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	m := New(quantised(t), most, none)
	for i := range 2 * most {
		m.Observe(longest(i))
	}
	runtime.GC()
	runtime.ReadMemStats(&kept)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	gz, err := m.render()
	qt.Assert(t, qt.IsNil(err))
	runtime.ReadMemStats(&page)
	t.Logf("a series: %d bytes, with a page %d, of which %d compressed", (kept.HeapAlloc-before.HeapAlloc)/most, (page.HeapAlloc-before.HeapAlloc)/most, len(gz)/most)
	qt.Check(t, qt.IsTrue(page.HeapAlloc-before.HeapAlloc <= uint64(HeapBytes(most))), qt.Commentf("%d of %d", page.HeapAlloc-before.HeapAlloc, HeapBytes(most)))
	runtime.KeepAlive(m)
}
