// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/internal/sys/proc"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
)

// use is what a process has taken.
type use struct {
	cpu      time.Duration
	rss, pss int // KiB
	woken    int // how often its threads had waited
}

func useOf(t *testing.T, pid int) (u use) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	qt.Assert(t, qt.IsNil(err))
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, f := range fields[11:13] { // utime, stime
		ticks, err := strconv.Atoi(f)
		qt.Assert(t, qt.IsNil(err))
		u.cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	qt.Assert(t, qt.IsNil(err))
	for _, task := range tasks {
		status, _ := os.ReadFile(task) // of a thread that has just ended there is none
		n, _ := strconv.Atoi(proc.Field(string(status), "voluntary_ctxt_switches"))
		u.woken += n
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	qt.Assert(t, qt.IsNil(err))
	for line := range strings.Lines(string(maps)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch name {
		case "Rss":
			u.rss = n
		case "Pss":
			u.pss = n
		}
	}
	return u
}

// costs are those of both processes of a service.
type costs struct{ reader, exporter use }

func (s *service) costs() costs {
	return costs{useOf(s.t, s.cmd.Process.Pid), useOf(s.t, s.exporter())}
}

// accounted waits until all that has arrived is accounted for.
func (s *service) accounted(atMost time.Duration) {
	s.t.Helper()
	page := s.page()
	defer page.Close()
	for end := time.Now().Add(atMost); s.state().Accounted() != page.Arrived(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%d calls of %d are accounted for\n%s", s.state().Accounted(), page.Arrived(), &s.stderr)
		}
	}
}

// Most that both processes may have in memory, idle and after a storm, in KiB.
const (
	mostIdle  = 64 << 10
	mostAfter = 112 << 10
)

// TestGuestServeCosts measures what docs/fleet.md says of the costs. A processor of the lab is
// emulated, and ten times slower than a real one.
func TestGuestServeCosts(t *testing.T) {
	if vmtest.Once(t); !vmtest.Long() {
		t.Skip("takes minutes; with BPFWHY_LONG=1")
	}
	const address = "127.0.0.1:19466"
	s := serving(t, filepath.Join(t.TempDir(), "state"), "--listen", address, "--log")
	within(t, func() bool { return s.state().Audit != nil })
	time.Sleep(15 * time.Second) // until nothing that starting did is looked at any more
	const idle = 20 * time.Second
	before := s.costs()
	time.Sleep(idle)
	now := s.costs()
	percent := func(a, b use) float64 { return 100 * float64(b.cpu-a.cpu) / float64(idle) }
	t.Logf("idle: reader %.2f %% and %d KiB (%d where shared is split), exporter %.2f %% and %d KiB (%d)", percent(before.reader, now.reader),
		now.reader.rss, now.reader.pss, percent(before.exporter, now.exporter), now.exporter.rss, now.exporter.pss)
	woken := now.reader.woken - before.reader.woken
	t.Logf("the reader was woken %d times in %s", woken, idle)
	qt.Check(t, qt.IsTrue(now.reader.pss+now.exporter.pss < mostIdle))
	series := func() (lines, size int) {
		page := get(t, "http://"+address+"/metrics")
		for line := range strings.Lines(page) {
			if !strings.HasPrefix(line, "#") {
				lines++
			}
		}
		return lines, len(page)
	}
	lines, size := series()
	t.Logf("%d series, %d bytes", lines, size)

	most := uint64(200)
	if vmtest.Long() {
		most = 100_000
	}
	before = s.costs()
	began, made := time.Now(), uint64(0)
	for made < most {
		b, err := failing.StartBarrage(t.Context())
		qt.Assert(t, qt.IsNil(err))
		counts, err := b.Go(6, time.Second)
		qt.Assert(t, qt.IsNil(err))
		for _, c := range counts {
			made += c.Loads
		}
	}
	took := time.Since(began)
	s.accounted(3 * time.Minute)
	now = s.costs()
	t.Logf("%d failing loads in %s: reader %s and %d KiB (%d), exporter %s and %d KiB (%d)", made, took, now.reader.cpu-before.reader.cpu, now.reader.rss, now.reader.pss,
		now.exporter.cpu-before.exporter.cpu, now.exporter.rss, now.exporter.pss)
	lines, size = series()
	node, err := os.Stat(filepath.Join(s.dir, "node.json"))
	qt.Assert(t, qt.IsNil(err))
	kinds := len(s.state().Failures)
	s.end()
	t.Logf("%d series, %d bytes; node.json %d bytes; log %d bytes in %d lines", lines, size, node.Size(), s.stdout.Len(), bytes.Count(s.stdout.Bytes(), []byte("\n")))
	qt.Check(t, qt.IsTrue(kinds < 32), qt.Commentf("%d", kinds))
	qt.Check(t, qt.IsTrue(now.reader.pss+now.exporter.pss < mostAfter))
	qt.Check(t, qt.IsTrue(s.stdout.Len() < 1<<20), qt.Commentf("%d", s.stdout.Len()))
}
