// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/demo/failing"
	"github.com/bpfwhy/bpfwhy/internal/test/vm"
	"github.com/bpfwhy/bpfwhy/internal/test/vm/vmtest"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
	"github.com/go-quicktest/qt"
)

// TestKernelsStorm: fifty processes on two processors.
func TestKernelsStorm(t *testing.T) {
	vmtest.RunIn(t, vmtest.Oldest(), "^TestInGuestStorm$", vm.Machine{CPUs: 2, Timeout: 8 * time.Minute})
}

const stormProcesses = 50

// told is what the lines of a session say of a storm.
type told struct {
	attempts, retries, repeats, summaries, incomplete uint64
	lost                                              uint64
	unknown                                           bool
	lines                                             int
	byErrno                                           map[int]uint64
	events                                            map[string]uint64
}

// read takes lines to their end.
func (k *told) read(r io.Reader) error {
	k.byErrno, k.events = map[int]uint64{}, map[string]uint64{}
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		k.lines++
		var line struct {
			load.Summary
			Incomplete any    `json:"incomplete"`
			Loads      uint64 `json:"loads"`
			Unknown    []string
			Events     map[string]uint64
			Probe      string `json:"feature_probe"`
		}
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			return fmt.Errorf("%w in %s", err, in.Bytes())
		}
		switch line.Kind {
		case load.KindLoss:
			k.unknown = k.unknown || slices.Contains(line.Unknown, trace.LostLoads)
			k.lost += line.Loads
			for name, n := range line.Events {
				k.events[name] += n
			}
		case load.KindSummary:
			k.summaries++
			k.repeats += line.Repeats
			k.retries += line.Retries
			k.byErrno[line.Errno] += line.Repeats + line.Retries
			n, _ := line.Incomplete.(float64)
			k.incomplete += uint64(n)
		case load.ProgLoad:
			k.attempts++
			k.retries += line.Retries
			k.byErrno[line.Errno] += 1 + line.Retries
			if line.Incomplete == true {
				k.incomplete++
			}
		}
	}
	return in.Err()
}

// TestInGuestStorm: every failing load of a storm is in an attempt, in a count of repeats, or in a
// counted loss, to the last one; and the memory of who watches stays within its bound.
func TestInGuestStorm(t *testing.T) {
	vmtest.Guest(t)
	during := 6 * time.Second
	if vmtest.Long() {
		during = time.Minute
	}
	r, w, err := os.Pipe()
	qt.Assert(t, qt.IsNil(err))
	watch := bpfwhy("watch", "--json", "--failed")
	watch.Stdout = w
	stderr, err := watch.StderrPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(watch.Start()))
	w.Close()
	said := bufio.NewReader(stderr)
	ready, err := said.ReadString('\n')
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.StringContains(ready, "watching"))
	var got told
	read := make(chan error, 1)
	go func() { read <- got.read(r) }()

	b, err := failing.StartBarrage(t.Context())
	qt.Assert(t, qt.IsNil(err))
	counts, err := b.Go(stormProcesses, during)
	qt.Assert(t, qt.IsNil(err))
	peak := peakMemory(t, watch.Process.Pid)
	qt.Assert(t, qt.IsNil(watch.Process.Signal(os.Interrupt)))
	rest, err := io.ReadAll(said)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(watch.Wait()), qt.Commentf("%s", rest))
	qt.Assert(t, qt.IsNil(<-read))

	made := uint64(0)
	for _, c := range counts {
		t.Logf("%-9s errno %3d: %d loads, %d ended otherwise", c.Program, c.Errno, c.Loads, c.Others)
		qt.Check(t, qt.Equals(c.Others, 0), qt.Commentf("%s", c.Program))
		qt.Check(t, qt.IsTrue(c.Loads > 0), qt.Commentf("%s", c.Program))
		made += c.Loads
	}
	sum := got.attempts + got.retries + got.repeats + got.lost
	t.Logf("made %d; told %d: %d attempts, %d repeats in %d summaries, %d retries, %d lost; %d incomplete; %d lines; events lost %v; by errno %v; peak %d MiB",
		made, sum, got.attempts, got.repeats, got.summaries, got.retries, got.lost, got.incomplete, got.lines, got.events, got.byErrno, peak>>20)
	t.Logf("%s", rest)
	// Nobody else is about who could keep the programs from seeing the end of a call.
	qt.Check(t, qt.IsFalse(got.unknown))
	qt.Check(t, qt.Equals(sum, made))
	qt.Check(t, qt.IsTrue(peak < stormMemory), qt.Commentf("%d MiB", peak>>20))
}

// stormMemory is what docs/cli.md promises, with the ring buffer, which is mapped twice, and the
// program itself, which is all of this test.
const stormMemory = sessionMemory + 2*8<<20 + 40<<20

var highWater = regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB`)

// peakMemory is the most that a process ever had resident, in bytes.
func peakMemory(t *testing.T, pid int) uint64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	qt.Assert(t, qt.IsNil(err))
	m := highWater.FindStringSubmatch(string(b))
	qt.Assert(t, qt.HasLen(m, 2))
	n, err := strconv.ParseUint(strings.TrimSpace(m[1]), 10, 64)
	qt.Assert(t, qt.IsNil(err))
	return n << 10
}
