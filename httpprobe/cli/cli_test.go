// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/httpprobe/sources"
	"github.com/bpfwhy/bpfwhy/internal/sys/cgroup"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/bpfwhy/bpfwhy/loader"
)

// fake plays events.
type fake struct {
	name  string
	play  func(func(*event.Event))
	loss  event.Loss
	files *sources.Files
	muted []event.Conn
}

func (f *fake) Name() string { return f.name }
func (f *fake) Programs() []sources.Program {
	return []sources.Program{{Name: "p", JITed: true, Repaired: true}}
}
func (f *fake) Loss() event.Loss        { return f.loss }
func (f *fake) Files() *sources.Files   { return f.files }
func (f *fake) Mute(c event.Conn) error { f.muted = append(f.muted, c); return nil }
func (f *fake) Close() error            { return nil }
func (f *fake) Run(ctx context.Context, take func(*event.Event)) error {
	if f.play != nil {
		f.play(take)
	}
	<-ctx.Done()
	return nil
}

// only opens one fake, and no other source.
func only(f *fake) opener {
	return func(name string, _ sources.Options) (source, error) {
		if name != f.name {
			return nil, errors.New("not in this test")
		}
		return f, nil
	}
}

// outcome is what a run left.
type outcome struct {
	status         int
	stdout, stderr string
}

// probeRun runs the command with sources of its own. while, unless nil, is called as it runs; then,
// or at once, the run is interrupted.
func probeRun(t *testing.T, open opener, while func(), args ...string) outcome {
	t.Helper()
	stdout, err := os.Create(filepath.Join(t.TempDir(), "stdout"))
	qt.Assert(t, qt.IsNil(err))
	defer stdout.Close()
	o := probeRunTo(t, stdout, open, while, args...)
	b, err := os.ReadFile(stdout.Name())
	qt.Assert(t, qt.IsNil(err))
	o.stdout = string(b)
	return o
}

// probeRunTo is probeRun with a standard output of the caller's.
func probeRunTo(t *testing.T, stdout *os.File, open opener, while func(), args ...string) outcome {
	t.Helper()
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	qt.Assert(t, qt.IsNil(err))
	defer stderr.Close()
	status := make(chan int)
	keep := func(...int) error { return nil } // tests that follow have need of them
	go func() { status <- run(args, stdout, stderr, open, keep) }()
	var got int
	if while == nil {
		got = <-status
	} else {
		while()
		qt.Assert(t, qt.IsNil(syscall.Kill(os.Getpid(), syscall.SIGTERM)))
		got = <-status
	}
	b, err := os.ReadFile(stderr.Name())
	qt.Assert(t, qt.IsNil(err))
	return outcome{status: got, stderr: string(b)}
}

func TestBadInput(t *testing.T) {
	tests := [][]string{
		{"--sources", "kernel"}, {"--sources", ""}, {"--sources", "auto,packets"}, {"--nonsense"}, {"argument"},
		{"--listen", "x:y:z"}, {"--listen", "0"}, {"--listen", ":http"}, {"--listen", "70000"}, {"--listen", "no.such.host.invalid:9464"},
		{"--interval", "-1s"}, {"--interval", "1ms"}, {"--interval", "soon"},
		{"--pid", "0"}, {"--pid", "-1"}, {"--pid", "4194304"}, {"--pid", "x"},
		{"--port", "0"}, {"--port", "65536"}, {"--port", "-1"}, {"--port", ""}, {"--pid", ""}, {"--pid", "1,x"}, {"--json=maybe"},
		{"--cgroup", ""}, {"--cgroup", ",/"}, {"--route", ""}, {"--cgroup", "/no/such/group"}, {"--cgroup", "/tmp"}, {"--cgroup", "../../tmp"}, {"--cgroup", "a\nb\x1b[2J"},
		{"--route", "users"}, {"--route", "off,/a"}, {"--route", "/{a"},
		{"--series", "1"}, {"--series", "many"}, {"--ring", "1"}, {"--ring", "9999999999"},
	}
	for _, args := range tests {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			o := probeRun(t, func(string, sources.Options) (source, error) {
				t.Error("a source was opened")
				return nil, errors.New("no")
			}, nil, args...)
			qt.Check(t, qt.Equals(o.status, 2))
			qt.Check(t, qt.Equals(o.stdout, ""))
			qt.Check(t, qt.Matches(o.stderr, `httpprobe: [^\n\x1b]+\n`))
			qt.Check(t, qt.IsFalse(regexp.MustCompile("strconv|parsing|invalid argument|invalid duration").MatchString(o.stderr)), qt.Commentf("%s", o.stderr))
		})
	}
}

func TestOptions(t *testing.T) {
	group, err := cgroup.Root()
	if err != nil {
		t.Skip("no control groups of version 2")
	}
	f := flags{sources: []string{"packets", "openssl", "packets"}, listen: "9464", pids: []int{os.Getpid()}, ports: []uint{80, 8080}, cgroups: []string{"/"},
		routes: []string{"off"}, series: 100, ring: 4096}
	o, err := f.check()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(o.names, []string{"packets", "openssl"}))
	qt.Check(t, qt.Equals(o.listen, "localhost:9464"))
	qt.Check(t, qt.DeepEquals(o.source.PIDs, []int{os.Getpid()}))
	qt.Check(t, qt.DeepEquals(o.source.Ports, []uint16{80, 8080}))
	qt.Check(t, qt.DeepEquals(o.source.Cgroups, []string{group}))
	qt.Check(t, qt.Equals(o.source.RingBytes, 4096))
	for in, want := range map[string]string{":1": "localhost:1", "0.0.0.0:1": "0.0.0.0:1", "[::]:1": "[::]:1", "": ""} {
		got, err := address(in)
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(got, want))
	}
}

// conn plays one connection.
type conn struct {
	take func(*event.Event)
	id   uint64
	pos  [2]uint64
	comm string
	tgid uint32
}

func (c *conn) data(d event.Direction, s string) {
	c.take(&event.Event{Kind: event.Data, Conn: event.Conn{Source: event.Syscalls, ID: c.id}, Dir: d, Fresh: true, Time: monotonic(), TGID: c.tgid, Comm: c.comm,
		CgroupID: 1, LocalPort: 80, RemotePort: 4000, Pos: c.pos[d], Len: uint64(len(s)), Data: []byte(s)})
	c.pos[d] += uint64(len(s))
}

func (c *conn) close() {
	c.take(&event.Event{Kind: event.Close, Conn: event.Conn{Source: event.Syscalls, ID: c.id}, Time: monotonic()})
}

// secret is what must not get out. It is in every place where clients put such things, and in heads
// that are whole, cut, malformed and too long.
const secret = "s3cr3t"

func secrets(take func(*event.Event)) {
	hide := "Host: h\r\nCookie: " + secret + "=" + secret + "\r\nAuthorization: Bearer " + secret + "\r\nProxy-Authorization: Basic " + secret + "\r\nX-Api-Key: " + secret + "\r\n"
	ok := "HTTP/1.1 200 OK\r\nSet-Cookie: " + secret + "\r\nLocation: /?" + secret + "\r\nContent-Length: 6\r\n\r\n" + secret
	id := uint64(0)
	for _, target := range []string{"/shown?" + secret, "/shown?a=" + secret + "&b", "/shown#" + secret, "http://user:" + secret + "@h/shown?" + secret,
		"http://" + secret + "@h?" + secret, "/shown;jsessionid=" + secret + "?x", "*", "user:" + secret + "@h:80",
		"http:user:" + secret + "@h/p", "https:/user:" + secret + "@h/p", "/shown?" + secret + "\x1b[2J"} {
		for _, requests := range []string{
			"GET " + target + " HTTP/1.1\r\n" + hide + "\r\n",
			"GET " + target + " HTTP/1.1\r\n" + hide,                                                     // cut short
			"GET " + target + " HTTP/1.1\r\n" + hide + "Bad " + secret + "\r\n\r\n",                      // malformed
			"GET " + target + secret,                                                                     // half a line
			"GET " + target + " HTTP/1.1\r\n" + hide + "A: " + strings.Repeat(secret, 4000) + "\r\n\r\n", // too long
			"POST " + target + " HTTP/1.1\r\n" + hide + "Content-Length: 6\r\n\r\n" + secret,
			"CONNECT user:" + secret + "@shown:1 HTTP/1.1\r\n" + hide + "\r\n",
			"connect user:" + secret + "@shown:1 HTTP/1.1\r\n" + hide + "\r\n",
			"MYSTERY " + secret + "\r\n",
		} {
			for _, pieces := range []int{1, 50} {
				id++
				c := conn{take: take, id: id, comm: "shown\x1b[2J\n", tgid: 4_000_000}
				for n := max(len(requests)/pieces, 1); len(requests) > 0; {
					k := min(n, len(requests))
					c.data(event.In, requests[:k])
					requests = requests[k:]
				}
				c.data(event.Out, ok)
				c.close()
			}
		}
	}
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "localhost:0")
	qt.Assert(t, qt.IsNil(err))
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// fetch reads the figures, as soon as there are any.
func fetch(t *testing.T, port string) string {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	c := &http.Client{Transport: tr, Timeout: 10 * time.Second}
	for range 200 {
		r, err := c.Get("http://localhost:" + port + "/metrics")
		if err == nil {
			b, err := io.ReadAll(r.Body)
			r.Body.Close()
			qt.Assert(t, qt.IsNil(err))
			return string(b)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("no figures")
	return ""
}

// Whatever clients and servers say in secret, nothing of it gets out, in any form of output; and
// nothing that a terminal would obey.
func TestSecrets(t *testing.T) {
	for _, args := range [][]string{{"--interval", "100ms"}, {"--json"}, {"--route", "off"}, {"--route", "/{any...}", "--json"}} {
		port := freePort(t)
		played := make(chan struct{})
		f := &fake{name: "syscalls", play: func(take func(*event.Event)) { secrets(take); close(played) }, loss: event.Loss{RingFull: 3}}
		var figures string
		o := probeRun(t, only(f), func() {
			<-played
			figures = fetch(t, port)
			time.Sleep(300 * time.Millisecond) // for a table
		}, append(args, "--listen", port)...)
		qt.Check(t, qt.Equals(o.status, 0), qt.Commentf("%s", o.stderr))
		all := o.stdout + o.stderr + figures
		for _, never := range []string{secret, "\x1b", "jsession", "user:"} {
			if i := strings.Index(all, never); i >= 0 {
				t.Errorf("%v: %q got out: %q", args, never, all[max(0, i-200):min(len(all), i+100)])
			}
		}
		qt.Check(t, qt.IsTrue(strings.Contains(all, "shown")), qt.Commentf("nothing got out"))
		qt.Check(t, qt.IsTrue(strings.Contains(figures, `httpprobe_requests_counted_total{source="syscalls"} `)))
		qt.Check(t, qt.Matches(o.stdout+o.stderr, `(?s).*syscalls: [1-9][0-9]* requests counted, [1-9][0-9]* unparsed \(.*; 3 events lost \(ring_full 3\).*`))
	}
}

func TestJSON(t *testing.T) {
	s, err := jsonschema.NewCompiler().Compile("../../docs/schema/exchange-v1.schema.json")
	qt.Assert(t, qt.IsNil(err))
	played := make(chan struct{})
	f := &fake{name: "syscalls", play: func(take func(*event.Event)) { secrets(take); close(played) }}
	o := probeRun(t, only(f), func() { <-played }, "--json")
	n := 0
	for l := range strings.Lines(o.stdout) {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(l))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsNil(s.Validate(v)), qt.Commentf("%s", l))
		n++
	}
	want := regexp.MustCompile(`syscalls: (\d+) requests counted`).FindStringSubmatch(o.stderr)
	qt.Assert(t, qt.HasLen(want, 2))
	qt.Check(t, qt.Equals(fmt.Sprint(n), want[1]))
	qt.Check(t, qt.IsTrue(n > 20))
}

// A reader that has stopped reading stops nothing: what it does not read is counted, and the end
// comes when it is asked for.
func TestReaderStops(t *testing.T) {
	for _, args := range [][]string{{"--json"}, {"--interval", "100ms"}} {
		r, w, err := os.Pipe()
		qt.Assert(t, qt.IsNil(err))
		defer r.Close()
		defer w.Close()
		const exchanges = 80000
		played := make(chan struct{})
		f := &fake{name: "syscalls", play: func(take func(*event.Event)) {
			defer close(played)
			c := conn{take: take, id: 1, comm: "c"}
			for i := range exchanges {
				c.comm = fmt.Sprint("c", i%200) // for long tables
				c.tgid = uint32(4_000_000 + i%200)
				c.data(event.In, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
				c.data(event.Out, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				if i%1000 == 0 {
					time.Sleep(10 * time.Millisecond) // for the lines to be made, of which the reader reads none
				}
			}
		}}
		port := freePort(t)
		var asked time.Time
		o := probeRunTo(t, w, only(f), func() {
			<-played
			time.Sleep(500 * time.Millisecond)
			dropped := regexp.MustCompile(`\nhttpprobe_output_lines_dropped_total (\S+)\n`).FindStringSubmatch(fetch(t, port))
			qt.Check(t, qt.HasLen(dropped, 2))
			qt.Check(t, qt.Equals(args[0] == "--json", len(dropped) == 2 && dropped[1] != "0"), qt.Commentf("%v", dropped))
			asked = time.Now()
		}, append(args, "--listen", port)...)
		took := time.Since(asked)
		qt.Check(t, qt.IsTrue(took < 2*time.Second), qt.Commentf("%v", took))
		qt.Check(t, qt.Equals(o.status, 0))
		if args[0] == "--json" {
			qt.Check(t, qt.Matches(o.stderr, `(?s).*syscalls: 80000 requests counted, 0 unparsed; .*output: [1-9]\d* lines were dropped, .*`))
		}
	}
}

// Lines arrive whole, in order, and all of them, up to the bound.
func TestOutput(t *testing.T) {
	r, w, err := os.Pipe()
	qt.Assert(t, qt.IsNil(err))
	o := newOutput(w)
	line := strings.Repeat("x", 99) + "\n"
	const n = maxKept/100 + 1000
	for range n {
		o.Write([]byte(line))
	}
	dropped, err := o.state()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(dropped > 0 && dropped <= 1000), qt.Commentf("%d", dropped))
	read := make(chan int)
	go func() {
		b, _ := io.ReadAll(r)
		qt.Check(t, qt.Equals(strings.Count(string(b), line), len(b)/100))
		read <- len(b) / 100
	}()
	o.close()
	w.Close()
	qt.Check(t, qt.Equals(uint64(<-read)+dropped, n))
	_, err = o.state()
	qt.Check(t, qt.IsNil(err))
}

// What cannot be written is an error, of JSON, of tables and of the last one.
func TestFullDisk(t *testing.T) {
	for _, args := range [][]string{{"--json"}, {"--interval", "100ms"}, {"--interval", "0"}} {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		qt.Assert(t, qt.IsNil(err))
		defer full.Close()
		f := &fake{name: "syscalls", play: secrets}
		var while func()
		if args[len(args)-1] == "0" {
			while = func() { time.Sleep(300 * time.Millisecond) }
		}
		o := probeRunTo(t, full, only(f), while, args...)
		qt.Check(t, qt.Equals(o.status, 2), qt.Commentf("%v", args))
		qt.Check(t, qt.Matches(o.stderr, `(?s).*httpprobe: write output: no space left on device\n`))
	}
}

func TestSources(t *testing.T) {
	refused := &loader.Error{Err: errors.New("load program: invalid argument"), Program: "p",
		Diagnosis: &load.Diagnosis{Rule: "BLIND001", Title: "A title", Cause: "The cause.", HowKnown: load.Observed, Evidence: []string{}}}
	tests := map[string]struct {
		args   []string
		works  []string
		status int
		tried  []string
		stderr string
	}{
		"auto":            {nil, []string{"syscalls", "openssl"}, 0, []string{"openssl", "syscalls"}, `httpprobe: watching by syscalls \(1 program, 1 with the loader's help\) and openssl \(1 program, 1 with the loader's help\), after \d+m?s\n.*`},
		"one is refused":  {nil, []string{"syscalls"}, 0, []string{"openssl", "syscalls"}, `httpprobe: without openssl: watch openssl: load program: invalid argument\nBLIND001  A title\n.*The cause\..*\nhttpprobe: watching by syscalls .*`},
		"packets step in": {nil, []string{"openssl", "packets"}, 0, []string{"openssl", "packets", "syscalls"}, `httpprobe: without syscalls: .*watching by openssl .* and packets .*`},
		"none": {nil, nil, 2, []string{"openssl", "packets", "syscalls"}, `httpprobe: without syscalls: watch syscalls: load program: invalid argument\nBLIND001  A title\n.*The cause\..*` +
			`\nhttpprobe: without openssl: watch openssl: load program: invalid argument; BLIND001, as above\n` +
			`httpprobe: without packets: watch packets: load program: invalid argument; BLIND001, as above\nhttpprobe: nothing can be watched\n`},
		"as asked":            {[]string{"--sources", "packets,openssl"}, []string{"openssl", "packets", "syscalls"}, 0, []string{"openssl", "packets"}, `httpprobe: watching by packets .* and openssl .*`},
		"ports":               {[]string{"--port", "80"}, []string{"syscalls", "openssl"}, 0, []string{"syscalls"}, `httpprobe: without openssl: [^\n]*--port[^\n]*\nhttpprobe: watching by syscalls [^\n]*\n`},
		"ports, else":         {[]string{"--port", "80"}, []string{"packets"}, 0, []string{"syscalls", "packets"}, `.*watching by packets .*`},
		"ports, as asked":     {[]string{"--port", "80", "--sources", "openssl"}, []string{"openssl"}, 0, []string{"openssl"}, `httpprobe: openssl does not know ports: [^\n]*\nhttpprobe: watching by openssl [^\n]*\n`},
		"ports, not openssl":  {[]string{"--port", "80", "--sources", "packets"}, []string{"packets"}, 0, []string{"packets"}, `httpprobe: watching by packets [^\n]*\n`},
		"as asked, none else": {[]string{"--sources", "syscalls"}, []string{"packets"}, 2, []string{"syscalls"}, `httpprobe: without syscalls: .*nothing can be watched\n`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tried := make(chan string, 10)
			ready := make(chan struct{}, 10)
			open := func(name string, o sources.Options) (source, error) {
				tried <- name
				qt.Check(t, qt.IsNotNil(o.Loader))
				for _, w := range tt.works {
					if w == name {
						return &fake{name: name, play: func(func(*event.Event)) { ready <- struct{}{} }}, nil
					}
				}
				return nil, fmt.Errorf("watch %s: %w", name, refused)
			}
			var while func()
			if tt.status == 0 {
				while = func() { <-ready }
			}
			o := probeRun(t, open, while, tt.args...)
			close(tried)
			names := map[string]bool{}
			for n := range tried {
				names[n] = true
			}
			want := map[string]bool{}
			for _, n := range tt.tried {
				want[n] = true
			}
			qt.Check(t, qt.DeepEquals(names, want))
			qt.Check(t, qt.Equals(o.status, tt.status))
			words := regexp.MustCompile(`httpprobe: keeps its capabilities.*\n`).ReplaceAllString(o.stderr, "") // this binary may use cgo
			qt.Check(t, qt.Matches(words, `(?s)`+tt.stderr))
		})
	}
}

// Without privileges one line says what is needed, and nothing is tried.
func TestUnprivileged(t *testing.T) {
	const all = "missing: CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_NET_RAW"
	for _, args := range [][]string{nil, {"--sources", "packets"}, {"--port", "80", "--sources", "syscalls"}} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c := exec.CommandContext(ctx, os.Args[0], args...)
		c.Env = append(os.Environ(), "BPFWHY_TEST_HTTPPROBE=unprivileged")
		out, err := c.CombinedOutput()
		qt.Check(t, qt.IsNotNil(err))
		qt.Check(t, qt.Equals(c.ProcessState.ExitCode(), 2))
		qt.Check(t, qt.Equals(string(out), "httpprobe: needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN for syscalls; CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE, or CAP_SYS_ADMIN for the first two for openssl; CAP_NET_RAW for packets ("+all+")\n"))
	}
}

func TestVersion(t *testing.T) {
	o := probeRun(t, only(&fake{}), nil, "--version")
	qt.Check(t, qt.Equals(o.status, 0))
	qt.Check(t, qt.Matches(o.stdout, `httpprobe .*, go1\.\S+ linux/\w+\n`))
}

// ending is a source that looks for figures while it is closed, when its loss is gone.
type ending struct {
	fake
	port  string
	found bool
}

func (e *ending) Close() error {
	c, err := net.Dial("tcp", "localhost:"+e.port)
	if e.found = err == nil; e.found {
		c.Close()
	}
	return nil
}

// Figures are not served any more when the sources are closed: counters do not fall.
func TestServesNoFallingCounters(t *testing.T) {
	e := &ending{fake: fake{name: "syscalls"}, port: freePort(t)}
	open := func(name string, _ sources.Options) (source, error) {
		if name != "syscalls" {
			return nil, errors.New("not in this test")
		}
		return e, nil
	}
	o := probeRun(t, open, func() { fetch(t, e.port) }, "--listen", e.port)
	qt.Check(t, qt.Equals(o.status, 0))
	qt.Check(t, qt.IsFalse(e.found))
}

// Processes that run our own executable are not named among those that are not seen.
func TestOurs(t *testing.T) {
	other := exec.Command("sleep", "60")
	qt.Assert(t, qt.IsNil(other.Start()))
	defer func() { other.Process.Kill(); other.Wait() }()
	probe := exec.Command(os.Args[0], "-test.run", "^$")
	probe.Env = append(os.Environ(), "BPFWHY_TEST_HTTPPROBE=wait")
	in, err := probe.StdinPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(probe.Start()))
	defer probe.Wait()
	defer in.Close()
	qt.Check(t, qt.IsTrue(ours(os.Getpid())))
	qt.Check(t, qt.IsTrue(ours(probe.Process.Pid)))
	qt.Check(t, qt.IsFalse(ours(other.Process.Pid)))
	qt.Check(t, qt.IsFalse(ours(0)))
}

// A source that sees nothing is not up, however well it runs; what it cannot see is told once while
// it runs, named at the end, and counted by reason.
func TestFilesNotProbed(t *testing.T) {
	denied := sources.Unprobed{Path: "/usr/lib/libssl.so.3\x1b[2J", PID: 42, Reason: sources.Denied, Tries: 2, Err: errors.New("open perf event: permission denied")}
	f := &fake{name: "openssl", files: &sources.Files{Unprobed: []sources.Unprobed{denied, denied, {Path: "/x", Reason: sources.Hangs, Tries: 1, Err: errors.New("late")}},
		Failures: map[sources.FileReason]uint64{sources.Denied: 7}, Unlisted: 3, Unaware: errors.New("no perf events")}}
	port := freePort(t)
	var figures string
	look := func() { figures = fetch(t, port); time.Sleep(1500 * time.Millisecond) }
	o := probeRun(t, only(f), look, "--listen", port)
	qt.Check(t, qt.Equals(o.status, 0))
	for _, line := range []string{`httpprobe_source_up{source="openssl"} 0`, `httpprobe_files_probed{source="openssl"} 0`, `httpprobe_files_unprobed{reason="denied",source="openssl"} 2`,
		`httpprobe_files_unprobed{reason="limit",source="openssl"} 0`, `httpprobe_probe_failures_total{reason="denied",source="openssl"} 7`} {
		qt.Check(t, qt.IsTrue(strings.Contains(figures, line+"\n")), qt.Commentf("%s\n%s", line, figures))
	}
	all := o.stderr + o.stdout
	qt.Check(t, qt.Equals(strings.Count(o.stderr, "openssl cannot see into"), 1))
	for _, want := range []string{`openssl finds libraries later, .*: no perf events`, `openssl cannot see into /usr/lib/libssl.so.3.* of process 42, denied: open perf event: permission denied`,
		`openssl: 0 requests counted, 0 unparsed; 0 events lost; 0 files probed, 7 failures \(denied 7\); 0 connections`,
		`openssl: 2 not probed, denied: /usr/lib/libssl.so.3.* of process 42, .* \(open perf event: permission denied\)`, `openssl: 1 not probed, hangs: /x \(late\)`, `openssl: 3 more failures, whose details were not kept`} {
		qt.Check(t, qt.IsTrue(regexp.MustCompile(want).MatchString(all)), qt.Commentf("%s\n%s", want, all))
	}
	qt.Check(t, qt.IsFalse(strings.Contains(all, "\x1b")))
	f.files = &sources.Files{Probed: 1}
	probeRun(t, only(f), func() { figures = fetch(t, port) }, "--listen", port)
	qt.Check(t, qt.IsTrue(strings.Contains(figures, `httpprobe_source_up{source="openssl"} 1`+"\n")))
}

// A source that ends on its own is told, and the others go on.
func TestSourceEnds(t *testing.T) {
	open := func(name string, _ sources.Options) (source, error) {
		if name == "openssl" {
			return &dying{fake{name: name}}, nil
		}
		return &fake{name: name}, nil
	}
	o := probeRun(t, open, func() { time.Sleep(200 * time.Millisecond) })
	qt.Check(t, qt.Equals(o.status, 0))
	qt.Check(t, qt.Matches(o.stderr, `(?s).*httpprobe: openssl has ended: ring gone\n.*`))
	o = probeRun(t, open, nil, "--sources", "openssl")
	qt.Check(t, qt.Equals(o.status, 2))
	qt.Check(t, qt.Matches(o.stderr, `(?s).*httpprobe: every source has ended\n`))
}

type dying struct{ fake }

func (*dying) Run(context.Context, func(*event.Event)) error { return errors.New("ring gone") }

// 50,000 connections at once, 100,000 paths, 10,000 short processes: what the probe takes from the
// system stays under 80 MiB, series under their cap, and nothing is left running.
func TestLoad(t *testing.T) {
	// The first use of signals starts a goroutine that never ends.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	signal.Stop(signals)
	before := runtime.NumGoroutine()
	port := freePort(t)
	const connections, paths = 50000, 100000
	played := make(chan struct{})
	ok := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	f := &fake{name: "syscalls", play: func(take func(*event.Event)) {
		defer close(played)
		for round := range paths / connections {
			for i := range uint64(connections) {
				n := uint64(round)*connections + i
				c := conn{take: take, id: i, comm: fmt.Sprint("p", n%10000), tgid: uint32(4_000_000 + n%10000)}
				request := fmt.Sprintf("GET /%x/x HTTP/1.1\r\nHost: h\r\n\r\n", n*2654435761%(1<<31))
				c.pos = [2]uint64{uint64(round) * 1000, uint64(round) * 1000}
				if round > 0 {
					// Where the connection stood.
					c.pos[event.In] = uint64(len(fmt.Sprintf("GET /%x/x HTTP/1.1\r\nHost: h\r\n\r\n", i*2654435761%(1<<31))))
					c.pos[event.Out] = uint64(len(ok))
				}
				c.data(event.In, request)
				c.data(event.Out, ok)
			}
		}
	}}
	var figures string
	var mem runtime.MemStats
	o := probeRun(t, only(f), func() {
		<-played
		figures = fetch(t, port)
		runtime.ReadMemStats(&mem)
	}, "--listen", port, "--interval", "1s", "--series", "500")
	qt.Check(t, qt.Equals(o.status, 0))
	qt.Check(t, qt.Matches(o.stdout, `(?s).*syscalls: 100000 requests counted, 0 unparsed; 0 events lost; 50000 connections.*`))
	series := strings.Count(figures, "\nhttp_server_request_duration_seconds_count{")
	qt.Check(t, qt.IsTrue(series <= 500 && series > 400), qt.Commentf("%d series", series))
	taken := mem.Sys - mem.HeapReleased
	t.Logf("%d series, %d MiB", series, taken>>20)
	// 50,000 connections at 1152 bytes are 55 MiB of it.
	qt.Check(t, qt.IsTrue(taken < 92<<20), qt.Commentf("%d MiB", taken>>20))
	var after int
	for range 100 {
		if after = runtime.NumGoroutine(); after <= before {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if after > before {
		stacks := make([]byte, 1<<16)
		t.Errorf("%d goroutines were left:\n%s", after-before, stacks[:runtime.Stack(stacks, true)])
	}
}

func TestContainerOf(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	tests := []struct {
		text, container string
		own             bool
	}{
		{"0::/\n", "", false},
		{"0::/system.slice/docker-" + id + ".scope\n", "docker://" + id, true},
		{"5:cpu,memory:/docker/" + id + "\n0::/\n", "docker://" + id, false},
		{"5:cpu:/docker/" + id + "\n0::/\n", "", false},
		{"nonsense", "", false},
	}
	for _, tt := range tests {
		c, own := containerOf(tt.text)
		qt.Check(t, qt.Equals(c, tt.container), qt.Commentf("%s", tt.text))
		qt.Check(t, qt.Equals(own, tt.own))
	}
}
