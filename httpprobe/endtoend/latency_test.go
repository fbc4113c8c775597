// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// near is how exact a duration has to be, the median of several: one may fall when the machine does
// something else.
const near = 2 * time.Millisecond

// TestLatency: durations are those of a server that sleeps, and the end of a slow download is its
// last byte's. Server and client measure too, and are not exact themselves on a machine that has
// other work: one time of three will do.
func TestLatency(t *testing.T) {
	onHost(t)
	for try := 1; ; try++ {
		off := testLatency(t, "--sources", hostSources())
		if len(off) == 0 {
			return
		}
		if try == 3 {
			t.Fatal(off)
		}
		t.Log(off)
	}
}

// testLatency returns what is not near enough. Durations that cannot be are failures.
func testLatency(t *testing.T, args ...string) (far []string) {
	const (
		rounds = 7
		size   = 3 << 20
		pieces = 30
		pause  = 20 * time.Millisecond
	)
	// What the server knows: when its handler began, and when it gave away the last byte.
	var mu sync.Mutex
	inner := map[string]time.Duration{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	port := l.Addr().(*net.TCPAddr).Port
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		var ms int
		kind := strings.Split(r.URL.Path, "/")[1]
		if _, err := fmt.Sscan(kind, &ms); err == nil {
			time.Sleep(time.Duration(ms) * time.Millisecond)
			io.WriteString(w, "slept")
		} else {
			c := io.Writer(w)
			if kind == "close" { // until the connection ends, which is a while later
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					return
				}
				defer conn.Close()
				defer time.Sleep(100 * time.Millisecond)
				io.WriteString(conn, "HTTP/1.0 200 OK\r\n\r\n")
				c = conn
			} else if kind == "length" {
				w.Header().Set("Content-Length", fmt.Sprint(size))
			}
			piece := make([]byte, size/pieces)
			for i := range pieces {
				if i > 0 {
					time.Sleep(pause)
				}
				if i == pieces-1 {
					piece = make([]byte, size-(pieces-1)*(size/pieces))
				}
				c.Write(piece)
				if kind != "close" {
					http.NewResponseController(w).Flush()
				}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		inner[r.URL.Path] = time.Since(began)
	})}
	go server.Serve(l)
	defer server.Close()

	p := watch(t, nil, append(args, "--port", fmt.Sprint(port))...)
	kinds := []string{"0", "20", "200", "length", "chunked", "close"}
	// What the client knows: it has not begun, and has it all.
	outer := map[string]time.Duration{}
	for round := range rounds {
		var wg sync.WaitGroup
		for _, kind := range kinds {
			if round >= 3 && size > 0 && len(kind) > 3 {
				continue // three downloads
			}
			path := fmt.Sprintf("/%s/%d", kind, round)
			ask := func() {
				began := time.Now()
				res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
				if !qt.Check(t, qt.IsNil(err)) {
					return
				}
				defer res.Body.Close()
				var last time.Duration
				for b, n := make([]byte, 64<<10), 0; err == nil; {
					if n, err = res.Body.Read(b); n > 0 {
						last = time.Since(began)
					}
				}
				mu.Lock()
				outer[path] = last
				mu.Unlock()
			}
			if len(kind) > 3 {
				wg.Go(ask) // downloads are at the same time
			} else {
				ask()
			}
		}
		wg.Wait()
	}
	all := p.stop(t)
	for _, source := range p.sources {
		if source == "openssl" {
			continue
		}
		for _, role := range roles(source) {
			off := map[string][]time.Duration{} // from what was slept
			for _, d := range p.docs {
				if d.Source != source || d.Role != role {
					continue
				}
				kind := strings.Split(d.Path, "/")[1]
				slept := (pieces - 1) * pause
				var ms int
				if _, err := fmt.Sscan(kind, &ms); err == nil {
					slept = time.Duration(ms) * time.Millisecond
				}
				took := time.Duration(d.DurationNS)
				// Never more than the client knows of. Where it can be told when the server was
				// done, it is not much less than that.
				qt.Check(t, qt.IsTrue(took <= outer[d.Path]+near), qt.Commentf("%s as %s: %s: %v, for the client %v", source, role, d.Path, took, outer[d.Path]))
				qt.Check(t, qt.IsTrue(took >= slept), qt.Commentf("%s as %s: %s: %v, slept %v", source, role, d.Path, took, slept))
				reference := inner[d.Path]
				if kind == "close" || len(kind) > 3 {
					reference = outer[d.Path]
				}
				off[kind] = append(off[kind], (took - reference).Abs())
				if d.ResponseBytes > size {
					qt.Check(t, qt.IsTrue(len(kind) > 3))
				}
			}
			for _, kind := range kinds {
				slices.Sort(off[kind])
				n := rounds
				if len(kind) > 3 {
					n = 3
				}
				qt.Assert(t, qt.HasLen(off[kind], n), qt.Commentf("%s as %s: %s; %s", source, role, kind, all[source].why))
				median := off[kind][n/2]
				t.Logf("%s as %s: %s: off by %v", source, role, kind, median)
				if median > near {
					far = append(far, fmt.Sprintf("%s as %s: %s: off by %v", source, role, kind, off[kind]))
				}
			}
		}
		t.Log(all[source].why)
	}
	return far
}
