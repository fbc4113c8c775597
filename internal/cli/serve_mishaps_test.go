// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"

	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/audit"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// plant is all that a service needs and that can fail: a small disk, a log, a collector, an API
// server, a folder for node_exporter.
type plant struct {
	t         *testing.T
	s         *service
	disk      string
	collector remote
	api       remote
	log       *os.File // the end that is read
	read      atomic.Bool
	made      int // failing loads that are seen
	perhaps   int // those made while the service was being killed
}

// remote is a server that can be lost in several ways.
type remote struct {
	*httptest.Server
	state atomic.Int32 // works, refuses, hangs
	asked atomic.Int32
}

const (
	works = iota
	refuses
	hangs
)

func (r *remote) start(t *testing.T) {
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.asked.Add(1)
		_, _ = io.Copy(io.Discard, q.Body)
		switch r.state.Load() {
		case hangs:
			select {
			case <-q.Context().Done():
			case <-time.After(time.Second):
			}
			fallthrough
		case refuses:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(r.Close)
}

func (r *remote) lose() { r.state.Store(int32(1 + rand.IntN(2))) }

func newPlant(t *testing.T) *plant {
	p := &plant{t: t, disk: t.TempDir()}
	qt.Assert(t, qt.IsNil(unix.Mount("disk", p.disk, "tmpfs", 0, "size=512k")))
	t.Cleanup(func() { unix.Unmount(p.disk, unix.MNT_DETACH) })
	qt.Assert(t, qt.IsNil(os.MkdirAll(p.textfiles(), 0o700)))
	p.collector.start(t)
	p.api.start(t)
	p.api.state.Store(refuses) // it is away all the time: what it takes is a matter of package kube
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: k, cluster: {server: %q}}], contexts: [{name: c, context: {cluster: k}}]}", p.api.URL)
	qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(text), 0o600)))
	t.Setenv("KUBECONFIG", file)
	return p
}

func (p *plant) textfiles() string { return filepath.Join(p.disk, "textfiles") }

func (p *plant) start() {
	p.t.Helper()
	theirs := p.openLog()
	defer theirs.Close()
	s := &service{t: p.t, dir: filepath.Join(p.disk, "state")}
	s.cmd = bpfwhy("serve", "--state", s.dir, "--log", "--textfile", filepath.Join(p.textfiles(), "bpfwhy.prom"),
		"--otlp", p.collector.URL, "--kubernetes", "on", "--node", "worker-1")
	s.cmd.Stdout, s.cmd.Stderr = theirs, &s.stderr
	began := time.Now()
	qt.Assert(p.t, qt.IsNil(s.cmd.Start()))
	within(p.t, func() bool { r := s.state(); return r != nil && r.Watching.Since.After(began) })
	p.s = s
}

// openLog makes a pipe that is read as long as the log is not lost.
func (p *plant) openLog() (theirs *os.File) {
	ours, theirs, err := os.Pipe()
	qt.Assert(p.t, qt.IsNil(err))
	p.log = ours
	p.read.Store(true)
	go func() {
		buf := make([]byte, 4096)
		for {
			if !p.read.Load() {
				time.Sleep(20 * time.Millisecond)
			} else if _, err := ours.Read(buf); err != nil {
				return
			}
		}
	}()
	return theirs
}

// load makes failing loads, all of which somebody sees.
func (p *plant) load(n int) {
	for range n {
		runLoad(p.t, "null-map-value")
	}
	p.made += n
}

// fill leaves no room on the disk, and returns what makes room again.
func (p *plant) fill() (free func()) {
	path := filepath.Join(p.disk, "ballast")
	f, err := os.Create(path)
	qt.Assert(p.t, qt.IsNil(err))
	for size := 64 << 10; size > 0; size /= 2 {
		for err = error(nil); err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	qt.Assert(p.t, qt.IsNil(f.Close()))
	return func() { qt.Check(p.t, qt.IsNil(os.Remove(path))) }
}

// round does one thing to a running service, while loads fail.
func (p *plant) round(mishap string) {
	p.t.Helper()
	switch mishap {
	case "the exporter is killed":
		victim := p.s.exporter()
		kill := time.AfterFunc(random(), func() { _ = unix.Kill(victim, unix.SIGKILL) })
		p.load(4)
		within(p.t, func() bool { pid := p.s.exporter(); return pid != 0 && pid != victim })
		kill.Stop()
	case "the reader is killed":
		p.settle() // what comes from now on may not be seen
		kill := time.AfterFunc(random(), func() { _ = p.s.cmd.Process.Kill() })
		p.load(4)
		p.made, p.perhaps = p.made-4, p.perhaps+4
		_ = p.s.cmd.Wait()
		kill.Stop()
		p.s.clean()
		p.log.Close()
		p.start()
	case "the disk is full":
		free := p.fill()
		p.load(3)
		time.Sleep(random())
		if rand.IntN(2) == 0 { // and then also this
			victim := p.s.exporter()
			_ = unix.Kill(victim, unix.SIGKILL)
			p.load(1)
			free()
			within(p.t, func() bool { pid := p.s.exporter(); return pid != 0 && pid != victim })
			return
		}
		free()
		p.load(1)
	case "nobody reads the log":
		p.read.Store(false)
		p.load(4)
		p.read.Store(true)
	case "the log is closed":
		p.log.Close()
		p.load(2)
	case "the collector is lost":
		p.collector.lose()
		p.load(4)
		p.collector.state.Store(works)
	case "the folder of textfiles is gone":
		qt.Assert(p.t, qt.IsNil(os.Rename(p.textfiles(), p.textfiles()+"-")))
		p.load(2)
		qt.Assert(p.t, qt.IsNil(os.Rename(p.textfiles()+"-", p.textfiles())))
	}
	p.settle()
}

func (p *plant) arrived() uint64 {
	page := p.s.page()
	defer page.Close()
	return page.Arrived()
}

// settle waits until all that was seen has arrived, and is accounted for on the disk. A loader
// makes other calls that fail, too.
func (p *plant) settle() {
	p.t.Helper()
	var last uint64
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(time.Second) {
		arrived, s := p.arrived(), p.s.state()
		if s != nil && s.Accounted() == arrived && arrived >= uint64(p.made) && arrived == last {
			return
		}
		if last = arrived; time.Now().After(end) {
			p.t.Fatalf("%d loads: %d calls arrived, node.json has %+v\n%s", p.made, arrived, s, &p.s.stderr)
		}
	}
}

// check compares what is in the folder with what was made.
func (p *plant) check() {
	p.t.Helper()
	is := p.s.state()
	counted := count(is, "null_map_value")
	lost := is.Lost[nodereport.LostExporter] + is.Lost[nodereport.LostReader]
	p.t.Logf("%d loads that were seen, and %d that may have been; %d counted, %d calls, lost: %v", p.made, p.perhaps, counted, is.Calls, is.Lost)
	qt.Check(p.t, qt.IsTrue(uint64(counted)+lost >= uint64(p.made)))
	qt.Check(p.t, qt.IsTrue(counted <= p.made+p.perhaps))
	if lost == 0 {
		qt.Check(p.t, qt.Equals(counted, p.made))
	}
}

// loaded counts the programs that are in the kernel.
func loaded(t *testing.T) (n int) {
	kinds, err := audit.Kinds()
	qt.Assert(t, qt.IsNil(err))
	for _, k := range kinds {
		n += k.Programs
	}
	return n
}

// TestKernelsMishaps has a machine of its own: 100 rounds take their time.
func TestKernelsMishaps(t *testing.T) {
	if !vmtest.Long() {
		t.Skip("takes minutes; with BPFWHY_LONG=1")
	}
	vmtest.RunIn(t, vmtest.Oldest(), "^TestInGuestServeMishaps$", vm.Machine{Timeout: 40 * time.Minute})
}

// TestInGuestServeMishaps: whatever is killed, full or lost at whatever moment, each failure whose
// record left the kernel is in the state folder or counted as lost, and nothing is left behind.
func TestInGuestServeMishaps(t *testing.T) {
	vmtest.Guest(t)
	mishaps := []string{
		"the disk is full", "the exporter is killed", "the reader is killed", "nobody reads the log", "the collector is lost",
		"the folder of textfiles is gone", "the log is closed",
	}
	rounds := len(mishaps)
	if vmtest.Long() {
		rounds = 100
	}
	before := loaded(t)
	p := newPlant(t)
	p.start()
	for i := range rounds {
		mishap := mishaps[i%len(mishaps)]
		t.Log(mishap)
		p.round(mishap)
		p.check()
	}
	recordings := func() bool {
		list, err := filepath.Glob(filepath.Join(p.s.dir, "failures", "*.bpfwhy"))
		qt.Assert(t, qt.IsNil(err))
		return len(list) == 1
	}
	p.load(1)
	within(t, recordings) // also where there was no room for the first
	p.settle()
	p.s.end()
	p.check()
	qt.Check(t, qt.IsTrue(p.collector.asked.Load() > 0))
	qt.Check(t, qt.IsTrue(p.api.asked.Load() > 0))
	within(t, func() bool { return loaded(t) == before })
	for _, file := range []string{"kprobe_events", "uprobe_events"} {
		b, err := os.ReadFile("/sys/kernel/tracing/" + file)
		qt.Assert(t, qt.IsNil(err))
		left := slices.DeleteFunc(strings.Split(string(b), "\n"), func(line string) bool { return !strings.Contains(line, "bpfwhy") })
		qt.Check(t, qt.HasLen(left, 0))
	}
}
