// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// secret is in what must not be kept.
const secret = "s3cr3t"

// transfer is a request as curl's configuration has it: a path, and how it is asked for.
type transfer struct{ path, how string }

var transfers = []transfer{
	{"/small", ""},
	{"/small?q=" + secret, `header = "Cookie: c=` + secret + `"`},
	{"/big", ""},
	{"/big", "compressed"},
	{"/big", `range = "100-299"`},
	{"/small", "head"},
	{"/big", "head"},
	{"/missing", ""},
	{"/missing", "head"},
	{"/moved", ""},
	{"/empty", ""},
	{"/error", ""},
	{"/own", ""},
	{"/denied", ""},
	{"/redirect", ""},
	{"/form", `data = "a=1&b=2"`},
	{"/form", "upload-file = www/small"}, // PUT with a length
	{"/form", "upload-file = www/small\nheader = \"Transfer-Encoding: chunked\""},   // and without
	{"/form", "data-binary = @www/small\nheader = \"Expect: 100-continue\""},        // asks first
	{"/error", "data-binary = @www/small\nheader = \"Transfer-Encoding: chunked\""}, // refused before it is all there
	{"/small", "http1.0\nheader = \"Connection: close\""},
	{"/big", "http1.0\nheader = \"Connection: close\""},
	{"/small", `header = "Connection: close"`},
	{"/small", `request = "DELETE"`},
	{"/small", `request = "BREW"`},
	{"/small", `request = "OPTIONS"`},
	{"/small", "header = \"X-Long: " + strings.Repeat("x", 5000) + "\""},
	{"/small", "header = \"If-None-Match: *\""},
}

// uploads are bodies of which only the start of each packet or call is copied. What follows them in
// the same packet may be out of sight.
var uploads = []transfer{
	{"/form", "upload-file = www/upload"},
	{"/small", ""},
	{"/form", "upload-file = www/upload\nheader = \"Transfer-Encoding: chunked\""},
	{"/small", ""},
	{"/form", "data-binary = @www/upload\nheader = \"Expect: 100-continue\""},
	{"/form", "data-binary = @www/upload\nheader = \"Expect:\""},
	{"/error", "data-binary = @www/upload\nheader = \"Transfer-Encoding: chunked\""},
	{"/small", "head"},
}

// curl makes each of some transfers so many times with each of so many processes, and returns how
// many requests that was.
func curl(t testing.TB, s server, transfers []transfer, processes, times int) int {
	t.Helper()
	var config strings.Builder
	n := 0
	for range times {
		for _, x := range transfers {
			if n > 0 {
				config.WriteString("next\n")
			}
			fmt.Fprintf(&config, "url = \"%s%s\"\noutput = /dev/null\nsilent\ninsecure\nmax-time = 60\n%s\n", s.url, x.path, x.how)
			n++
		}
	}
	path := filepath.Join(s.dir, "curl.conf")
	write(t, path, config.String())
	program := find(t, "curl")
	var wg sync.WaitGroup
	for range processes {
		wg.Go(func() {
			c := exec.Command(program, "-q", "-K", path)
			c.Dir = s.dir
			out, err := c.CombinedOutput()
			qt.Check(t, qt.IsNil(err), qt.Commentf("curl: %s", out))
		})
	}
	wg.Wait()
	return processes * n
}

// wrkPaths are what wrk asks for, in turns. It does not understand HEAD.
var wrkPaths = []string{"/small", "/small?q=" + secret, "/missing", "/small", "/moved", "/error", "/empty", "/big", "/small", "/own", "/denied"}

// wrkExactly makes so many requests on each of so many connections. That of each thread is its last
// when it has its response: nothing is on its way when wrk ends.
func wrkExactly(t testing.TB, s server, connections, each int) int {
	t.Helper()
	have := readLog(t, s.log).sum()
	c := wrkCommand(t, s, fmt.Sprintf(`
function response() done = (done or 0) + 1; if done == %d then wrk.thread:stop() end end
`, each), "-t", fmt.Sprint(connections), "-c", fmt.Sprint(connections), "-d", "60s")
	var said strings.Builder
	c.Stdout, c.Stderr = &said, &said
	qt.Assert(t, qt.IsNil(c.Start()))
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for began := time.Now(); time.Since(began) < 45*time.Second; time.Sleep(50 * time.Millisecond) {
		if readLog(t, s.log).sum() >= have+connections*each {
			break
		}
	}
	time.Sleep(50 * time.Millisecond)
	c.Process.Signal(syscall.SIGINT)
	qt.Assert(t, qt.IsNil(<-ended), qt.Commentf("%s", said.String()))
	return connections * each
}

// wrkFor keeps so many connections busy for a while, and leaves in the middle of requests.
func wrkFor(t testing.TB, s server, connections int, seconds int) {
	t.Helper()
	out, err := wrkCommand(t, s, "", "-t", "2", "-c", fmt.Sprint(connections), "-d", fmt.Sprintf("%ds", seconds)).CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
}

func wrkCommand(t testing.TB, s server, more string, args ...string) *exec.Cmd {
	t.Helper()
	var script strings.Builder
	script.WriteString("local all, at = {}, 0\nfunction init()\n")
	for _, path := range wrkPaths {
		fmt.Fprintf(&script, "all[#all+1] = wrk.format('GET', '%s')\n", path)
	}
	script.WriteString("end\nfunction request() at = at + 1; return all[at % #all + 1] end\n" + more)
	path := filepath.Join(s.dir, "wrk.lua")
	write(t, path, script.String())
	c := exec.Command(find(t, "wrk"), append(args, "-s", path, s.url)...)
	c.Dir = s.dir
	return c
}
