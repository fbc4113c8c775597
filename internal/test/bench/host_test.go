// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/repair/guardian"
	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// hostFigures are what is measured outside the lab, where a nanosecond is one.
type hostFigures struct {
	measured
	cpu   string
	cpus  int
	first []firstEvent
	idle  float64 // processor time that a watch uses while nothing happens, percent of one CPU
	storm stormFigures
}

// firstEvent is one start of `bpfwhy watch` on a machine that loads all the time.
type firstEvent struct{ ready, shown time.Duration }

type stormFigures struct {
	loads   int // failing loads that were made
	took    time.Duration
	peakKiB int
	summary string // what watch said at its end
}

func measureHost(t *testing.T, p programs, quick bool) hostFigures {
	f := hostFigures{cpu: cpuModel(), cpus: runtime.NumCPU()}
	var raised *guardian.Raised
	var err error
	f.measured, err = p.measure(t.TempDir(), works(false, quick), func(on bool) (err error) {
		if on {
			raised, err = guardian.RaiseHarden(t.Context(), 2)
			return err
		}
		_, err = raised.Restore()
		return err
	})
	qt.Assert(t, qt.IsNil(err))
	f.Release = release(t)

	starts := 9
	if quick {
		starts = 2
	}
	for range starts {
		f.first = append(f.first, p.firstEvent(t))
	}
	f.idle = p.idle(t)
	f.storm = p.runStorm(t, quick)
	return f
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

// firstEvent takes the time from the start of a watch to its word that it watches, and to the first
// load that it shows, while a load is made every millisecond.
func (p programs) firstEvent(t *testing.T) firstEvent {
	loader := exec.Command(p.loader, "-n", "1000000", "-pause", "1ms")
	qt.Assert(t, qt.IsNil(loader.Start()))
	defer func() { loader.Process.Kill(); loader.Wait() }()

	watch := exec.Command(p.bpfwhy, "watch")
	stdout, err := watch.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	stderr, err := watch.StderrPipe()
	qt.Assert(t, qt.IsNil(err))
	began := time.Now()
	qt.Assert(t, qt.IsNil(watch.Start()))
	defer func() { watch.Process.Signal(unix.SIGINT); watch.Wait() }()
	ready := make(chan time.Duration, 1)
	go func() {
		bufio.NewReader(stderr).ReadString('\n')
		ready <- time.Since(began)
	}()
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadString('\n')
		qt.Assert(t, qt.IsNil(err))
		if strings.Contains(line, "loader") {
			shown := time.Since(began)
			go lines.WriteTo(discard{})
			return firstEvent{ready: <-ready, shown: shown}
		}
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// idle is the share of a processor that a watch uses while nothing is loaded.
func (p programs) idle(t *testing.T) float64 {
	w, err := p.startCommand(t.TempDir(), []string{p.bpfwhy, "watch"})
	qt.Assert(t, qt.IsNil(err))
	_, err = w.settle()
	qt.Assert(t, qt.IsNil(err))
	const span = 5 * time.Second
	before, err := w.cpu()
	qt.Assert(t, qt.IsNil(err))
	time.Sleep(span)
	after, err := w.cpu()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(w.stop()))
	return 100 * (after - before).Seconds() / span.Seconds()
}

// runStorm lets two loaders fail as fast as they can, with programs of 30,000 instructions, and
// looks at the watch's memory.
func (p programs) runStorm(t *testing.T, quick bool) stormFigures {
	each, limit := 10000, 30*time.Second
	if quick {
		each, limit = 100, 5*time.Second
	}
	w, err := p.startCommand(t.TempDir(), []string{p.bpfwhy, "watch"})
	qt.Assert(t, qt.IsNil(err))
	var s stormFigures
	sample := func() {
		// not getrusage: it counts what the process was before exec, too
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid)); err == nil {
			s.peakKiB = max(s.peakKiB, statusKiB(b, "VmHWM"))
		}
	}
	began := time.Now()
	ended := make(chan error)
	outs := make([]bytes.Buffer, 2)
	for i := range outs {
		c := exec.Command(p.loader, "-kind", "fail", "-n", strconv.Itoa(each), "-for", limit.String())
		c.Stdout, c.Stderr = &outs[i], os.Stderr
		qt.Assert(t, qt.IsNil(c.Start()))
		go func() { ended <- c.Wait() }()
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for left := len(outs); left > 0; {
		select {
		case err := <-ended:
			qt.Assert(t, qt.IsNil(err))
			left--
		case <-tick.C:
			sample()
		}
	}
	s.took = time.Since(began)
	for i := range outs {
		s.loads += decode[struct{ N int }](t, outs[i].Bytes()).N
	}
	_, err = w.settle()
	qt.Assert(t, qt.IsNil(err))
	sample()
	qt.Assert(t, qt.IsNil(w.stop()))
	text, err := os.ReadFile(w.output)
	qt.Assert(t, qt.IsNil(err))
	from := strings.LastIndex(string(text), " loads in ")
	qt.Assert(t, qt.IsTrue(from >= 0))
	s.summary = strings.TrimSpace(string(text[bytes.LastIndexByte(text[:from], '\n')+1:]))
	return s
}

func statusKiB(status []byte, field string) int {
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == field+":" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	return 0
}
