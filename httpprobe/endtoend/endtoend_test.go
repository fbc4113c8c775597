// SPDX-License-Identifier: Apache-2.0

// Package endtoend compares what httpprobe says with what others know better: servers' own access
// logs, scripted connections, clocks.
package endtoend

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/httpprobe/cli"
	"github.com/bpfwhy/bpfwhy/httpprobe/exchangejson"
	"github.com/bpfwhy/bpfwhy/httpprobe/sources"
	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// The test is also the command.
const (
	commandEnv = "BPFWHY_TEST_HTTPPROBE"
	withoutEnv = "BPFWHY_TEST_WITHOUT" // a source that the command is to be without
)

func TestMain(m *testing.M) {
	guardian.Main()
	sources.Main()
	if os.Getenv(commandEnv) != "" {
		without(os.Getenv(withoutEnv))
		os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// onHost is for tests that need root and other people's servers. They are for the machines that
// have had scripts/install-deps.sh: there, a server that is missing is a failure.
func onHost(t testing.TB) {
	t.Helper()
	vmtest.Need(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// tally counts requests by "METHOD STATUS".
type tally map[string]int

func (a tally) sum() (n int) {
	for _, k := range a {
		n += k
	}
	return n
}

// minus is what a has more than b, or less.
func (a tally) minus(b tally) tally {
	d := tally{}
	for r, n := range a {
		d[r] = n
	}
	for r, n := range b {
		d[r] -= n
	}
	for r, n := range d {
		if n == 0 {
			delete(d, r)
		}
	}
	return d
}

// readLog reads a log whose lines are "METHOD STATUS".
func readLog(t testing.TB, path string) tally {
	t.Helper()
	b, err := os.ReadFile(path)
	if !os.IsNotExist(err) {
		qt.Assert(t, qt.IsNil(err))
	}
	log := tally{}
	for line := range strings.Lines(string(b)) {
		log[strings.TrimSpace(line)]++
	}
	return log
}

// settled waits until a log has so many lines, and returns it.
func settled(t testing.TB, path string, lines int) tally {
	t.Helper()
	for range 500 {
		if log := readLog(t, path); log.sum() >= lines {
			return log
		}
		time.Sleep(20 * time.Millisecond)
	}
	log := readLog(t, path)
	t.Fatalf("%s has %d lines, not %d: %v", path, log.sum(), lines, log)
	return nil
}

// probe is a running command.
type probe struct {
	cmd     *exec.Cmd
	sources []string // that watch
	unjited bool
	stderr  bytes.Buffer
	docs    []exchangejson.Exchange
	read    chan error // of both pipes
}

// account is what the probe says of one source at its end.
type account struct {
	counted, unparsed, lost int
	reasons                 map[string]int // of unparsed
	why                     string         // the line
}

var watching = regexp.MustCompile(`(syscalls|openssl|packets) \(`)

// watch starts the command and returns when it watches.
func watch(t testing.TB, env []string, args ...string) *probe {
	t.Helper()
	p := &probe{read: make(chan error, 2)}
	p.cmd = exec.Command(os.Args[0], append([]string{"--json", "--ring", strconv.Itoa(64 << 20)}, args...)...)
	p.cmd.Env = append(append(os.Environ(), commandEnv+"=1"), env...)
	out, err := p.cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	words, err := p.cmd.StderrPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.cmd.Start()))
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.cmd.Process.Kill()
			p.cmd.Wait()
		}
	})
	go func() {
		d := json.NewDecoder(bufio.NewReaderSize(out, 1<<20))
		for {
			var e exchangejson.Exchange
			if err := d.Decode(&e); err == io.EOF {
				p.read <- nil
				return
			} else if err != nil {
				p.read <- err
				return
			}
			p.docs = append(p.docs, e)
		}
	}()
	ready := make(chan bool, 1)
	go func() {
		s := bufio.NewScanner(words)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			fmt.Fprintln(&p.stderr, s.Text())
			if strings.Contains(s.Text(), "watching by") {
				for _, m := range watching.FindAllStringSubmatch(s.Text(), -1) {
					p.sources = append(p.sources, m[1])
				}
				p.unjited = strings.Contains(s.Text(), "not jited")
				ready <- true
			}
		}
		close(ready)
		p.read <- s.Err()
	}()
	select {
	case ok := <-ready:
		if !ok {
			p.cmd.Wait()
			t.Fatalf("httpprobe: %v\n%s", p.cmd.ProcessState, p.stderr.String())
		}
	case <-time.After(time.Minute):
		t.Fatal("httpprobe does not watch after a minute")
	}
	qt.Check(t, qt.IsFalse(p.unjited))
	return p
}

var accounts = regexp.MustCompile(`(?m)^(syscalls|openssl|packets): (\d+) requests counted, (\d+) unparsed(?: \((.*?)\))?; (\d+) events lost.*$`)

// stop lets the probe see the last of it, ends it and returns what it says of each source.
func (p *probe) stop(t testing.TB) map[string]account {
	t.Helper()
	time.Sleep(600 * time.Millisecond)
	qt.Assert(t, qt.IsNil(p.cmd.Process.Signal(syscall.SIGTERM)))
	qt.Check(t, qt.IsNil(<-p.read))
	qt.Check(t, qt.IsNil(<-p.read))
	qt.Check(t, qt.IsNil(p.cmd.Wait()), qt.Commentf("%s", p.stderr.String()))
	all := accountsIn(p.stderr.String())
	for _, s := range p.sources {
		_, ok := all[s]
		qt.Assert(t, qt.IsTrue(ok), qt.Commentf("no account of %s:\n%s", s, p.stderr.String()))
	}
	return all
}

// accountsIn finds the accounts in what a probe says, by source.
func accountsIn(words string) map[string]account {
	all := map[string]account{}
	for _, m := range accounts.FindAllStringSubmatch(words, -1) {
		var a account
		a.counted, _ = strconv.Atoi(m[2])
		a.unparsed, _ = strconv.Atoi(m[3])
		a.lost, _ = strconv.Atoi(m[5])
		a.reasons = map[string]int{}
		for part := range strings.SplitSeq(m[4], ", ") {
			if reason, n, ok := strings.Cut(part, " "); ok {
				a.reasons[reason], _ = strconv.Atoi(n)
			}
		}
		a.why = m[0]
		all[m[1]] = a
	}
	return all
}

// tally counts those exchanges that are wanted.
func (p *probe) tally(want func(exchangejson.Exchange) bool) tally {
	got := tally{}
	for _, d := range p.docs {
		if want(d) {
			got[fmt.Sprintf("%s %d", d.Method, d.Status)]++
		}
	}
	return got
}

// roles are those that a source sees of a connection within the machine.
func roles(source string) []string {
	if source == "packets" {
		return []string{"server"}
	}
	return []string{"server", "client"}
}

// hostSources are what is tried on a host: packets, which every host allows, and in the long tests
// system calls too, where they are allowed. The lab's kernels have the rest.
func hostSources() string {
	if vmtest.Long() {
		return "syscalls,packets"
	}
	return "packets"
}
