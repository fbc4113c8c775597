// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/httpprobe/exchangejson"
	"github.com/bpfwhy/bpfwhy/httpprobe/sources"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// TestKernels watches a server on each kernel, hardened.
func TestKernels(t *testing.T) {
	vmtest.Need(t)
	vmtest.RunIn(t, vmtest.Sample(), "^TestGuest", vm.Machine{Sysctls: lateSysctls, Files: lateFiles(t), Env: []string{"PATH=/usr/bin"}})
}

// TestGuestServer: what the command counts is what the server says it served, by method, path and
// status, at both ends; and what it does not count it says that it did not. Where bodies are made
// of heads, of which only the start is copied, more may be given up; nothing is wrong.
func TestGuestServer(t *testing.T) {
	vmtest.Sampled(t)
	for _, text := range []string{"x", "GET /500/0/lure HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"} {
		for _, args := range [][]string{nil, {"--sources", "packets"}} {
			if text != "x" && len(args) > 0 {
				continue // of packets all is copied
			}
			log, got, o := watchServer(t, text, args...)
			counted, all, unparsed, lost := 0, 0, 0, 0
			for role, requests := range got {
				for r, n := range requests {
					counted += n
					qt.Check(t, qt.Equals(n, log[r]), qt.Commentf("%v, %s: %s", args, role, r))
				}
			}
			ends := 2 - len(args)/2 // packets show one end
			for _, n := range log {
				all += ends * n
			}
			m := regexp.MustCompile(`(?:syscalls|packets): \d+ requests counted, (\d+) unparsed.*; (\d+) events lost`).FindStringSubmatch(o.stderr)
			qt.Assert(t, qt.HasLen(m, 3), qt.Commentf("%s", o.stderr))
			fmt.Sscan(m[1], &unparsed)
			fmt.Sscan(m[2], &lost)
			t.Logf("%.10q, %v: %d of %d counted, %d unparsed, %d events lost", text, args, counted, all, unparsed, lost)
			switch {
			case lost > 0:
				qt.Check(t, qt.IsTrue(counted+unparsed+lost >= all))
				qt.Check(t, qt.IsTrue(counted >= all/2))
			case len(args) > 0:
				qt.Check(t, qt.Equals(counted, all))
				qt.Check(t, qt.Equals(unparsed, 0))
			case text == "x":
				// Go's server can be seen to read the next request before it is seen to write the
				// response, by two threads on a slow machine. Where the end of the request before
				// that was not copied, the parser does not take sides.
				qt.Check(t, qt.Equals(counted+unparsed, all))
				qt.Check(t, qt.IsTrue(unparsed < all/20))
			default:
				qt.Check(t, qt.IsTrue(counted+unparsed >= all))
				qt.Check(t, qt.IsTrue(counted >= all/2))
			}
		}
	}
}

// watchServer returns what a server says of its requests, and what the command says of them at
// either end.
func watchServer(t *testing.T, text string, args ...string) (log map[string]int, got map[string]map[string]int, o outcome) {
	var mu sync.Mutex
	log = map[string]int{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		var status, size int
		fmt.Sscanf(r.URL.Path, "/%d/%d", &status, &size)
		mu.Lock()
		log[fmt.Sprintf("%s %s %d", r.Method, r.URL.Path, status)]++
		mu.Unlock()
		w.WriteHeader(status)
		for size > 0 { // chunked, if it is much
			n, err := io.WriteString(w, strings.Repeat(text, min(size, 5000)/len(text)+1))
			if err != nil {
				return
			}
			size -= n
		}
	})}
	go s.Serve(l)
	defer s.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())

	o = start(t, func() {
		talk(t, l.Addr().String(), text)
		time.Sleep(time.Second)
	}, append(args, "--json", "--port", port)...)
	qt.Assert(t, qt.Equals(o.status, 0), qt.Commentf("%s", o.stderr))
	got = map[string]map[string]int{"server": {}, "client": {}}
	for line := range strings.Lines(o.stdout) {
		var d exchangejson.Exchange
		qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(line), &d)))
		got[d.Role][fmt.Sprintf("%s %s %d", d.Method, d.Path, d.Status)]++
		qt.Check(t, qt.Equals(fmt.Sprint(d.ServerPort), port))
	}
	return log, got, o
}

// talk makes requests of many kinds, with bodies made of a text.
func talk(t *testing.T, addr, text string) {
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 50 {
				method := []string{"GET", "HEAD", "POST", "PUT", "BREW"}[i%5]
				status := []int{200, 404, 500, 204, 302, 304}[i%6]
				size := []int{0, 10, 3000, 70000}[(i+w)%4]
				if status == 204 || status == 304 {
					size = 0
				}
				var body io.Reader
				if method == "POST" {
					body = io.MultiReader(strings.NewReader(strings.Repeat(text, 20000/len(text)))) // of unknown length: chunked
				} else if method == "PUT" {
					body = strings.NewReader(strings.Repeat(text, 20000/len(text)))
				}
				r, err := http.NewRequest(method, fmt.Sprintf("http://%s/%d/%d/%d/%d?q=%d", addr, status, size, w, i, i), body)
				if !qt.Check(t, qt.IsNil(err)) {
					return
				}
				if i%7 == 0 {
					r.Header.Set("Cookie", strings.Repeat("c", 4000))
				}
				res, err := c.Do(r)
				if !qt.Check(t, qt.IsNil(err)) {
					return
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		})
	}
	wg.Wait()
	// Pipelined, and byte by byte.
	conn, err := net.Dial("tcp", addr)
	qt.Assert(t, qt.IsNil(err))
	defer conn.Close()
	r := bufio.NewReader(conn)
	fmt.Fprint(conn, "GET /200/5/a HTTP/1.1\r\nHost: h\r\n\r\nGET /404/0/b HTTP/1.1\r\nHost: h\r\n\r\nGET /500/9/c HTTP/1.1\r\nHost: h\r\n\r\n")
	for range 3 {
		res, err := http.ReadResponse(r, nil)
		qt.Assert(t, qt.IsNil(err))
		io.Copy(io.Discard, res.Body)
	}
	for _, b := range []byte("GET /201/5/d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n") {
		conn.Write([]byte{b})
	}
	res, err := http.ReadResponse(r, nil)
	qt.Assert(t, qt.IsNil(err))
	io.Copy(io.Discard, res.Body)
}

// start runs the command as a process of its own, calls while when it watches, and interrupts it.
func start(t *testing.T, while func(), args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), "BPFWHY_TEST_HTTPPROBE=1")
	c.Stdout = &stdout
	words, err := c.StderrPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(c.Start()))
	lines := bufio.NewScanner(words)
	for lines.Scan() {
		fmt.Fprintln(&stderr, lines.Text())
		if strings.Contains(lines.Text(), "watching by") {
			while()
			qt.Check(t, qt.IsNil(c.Process.Signal(syscall.SIGTERM)))
		}
	}
	_ = c.Wait() // its status is looked at
	return outcome{c.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func TestMain(m *testing.M) {
	sources.Main()
	switch os.Getenv("BPFWHY_TEST_HTTPPROBE") {
	case "":
	case "wait":
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	case "container":
		fmt.Println(container(os.Args[1:]))
		os.Exit(1)
	case "unprivileged":
		// Not privilege.Drop, which binaries that use cgo cannot do. Without new privileges, an
		// exec gives root none either.
		runtime.LockOSThread()
		var none [2]unix.CapUserData
		if err := errors.Join(unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]),
			unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Setenv("BPFWHY_TEST_HTTPPROBE", "1")
		fmt.Println(unix.Exec("/proc/self/exe", os.Args, os.Environ()))
		os.Exit(1)
	default:
		var most uint64
		if n, _ := fmt.Sscan(os.Getenv(threadsEnv), &most); n == 1 {
			if err := unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: most, Max: most}); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
		}
		os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}
