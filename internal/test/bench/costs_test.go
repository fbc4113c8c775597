// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

const costsFile = "costs.json"

// work is something that is repeated under every variant.
type work struct {
	kind   string
	title  string
	n      int
	rounds int
	harden bool
}

// works are what is measured. In a guest whose clock counts instructions the long ones differ by
// far less than a percent from one time to the next, so that few repetitions do.
func works(guest, quick bool) []work {
	list := []work{
		{"getppid", "getppid", 100000, 3, false},
		{"read", "read of one byte", 20000, 1, false},
		{"connect", "connect, UDP", 20000, 1, false},
		{"socket", "socket, and its close", 5000, 1, false},
		{"perf", "perf_event_open, and its close", 2000, 1, false},
		{"lookup", "bpf(2): map lookup", 20000, 1, false},
		{"update", "bpf(2): map update", 20000, 1, false},
		{"batch", "bpf(2): map update of 64 in a batch", 5000, 1, false},
		{"small", "load of 2 instructions", 300, 3, false},
		{"medium", "load of 3,000 instructions", 20, 3, false},
		{"log", "load of 30,000 instructions, log_level=2", 1, 1, false},
		{"blind", "blinding of 12,000 constants", 1, 1, true},
	}
	for i := range list {
		w := &list[i]
		switch {
		case quick:
			w.n, w.rounds = min(w.n, 20), 1
		case !guest && w.rounds == 3:
			w.n, w.rounds = w.n*5, 7
		case !guest && w.n > 1:
			w.n, w.rounds = w.n*5, 5
		case !guest:
			w.n, w.rounds = 3, 5
		}
	}
	return list
}

// cost is what one repetition cost, in ns.
type cost struct {
	Kind, Variant string
	Call          float64 // median duration of the system call, what runs meanwhile included
	Loader        float64 // processor time of the caller
	Tracer        float64 // processor time of the tool
}

// measured is the costs on one machine.
type measured struct {
	Release string
	Costs   []cost                           // one for each round
	Missing map[string]string                // variants that cannot run there, and why
	Start   map[string][]float64             // seconds from the start of a variant to the first load that it shows
	Hooks   map[string]map[string][]hookCost // by backend and kind of work
}

// measure goes through all variants in each round, so that what changes meanwhile changes for all.
func (p programs) measure(dir string, list []work, harden func(on bool) error) (measured, error) {
	m := measured{Missing: map[string]string{}, Start: map[string][]float64{}}
	rounds := 0
	for _, w := range list {
		rounds = max(rounds, w.rounds)
	}
	for round := range rounds {
		for i := range variants {
			v := variants[(round+i)%len(variants)]
			if m.Missing[v] != "" {
				continue
			}
			if err := p.visit(&m, dir, v, round, list, harden); err != nil {
				return m, fmt.Errorf("%s: %w", v, err)
			}
		}
	}
	return m, nil
}

// visit measures everything of one round under one variant.
func (p programs) visit(m *measured, dir, variant string, round int, list []work, harden func(on bool) error) (err error) {
	var t *tracer
	if variant != untraced {
		t, err = p.start(dir, variant)
		if errors.Is(err, errUnavailable) && round == 0 {
			m.Missing[variant] = err.Error()
			return nil
		}
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, t.stop()) }()
		m.Start[variant] = append(m.Start[variant], t.took.Seconds())
	}
	for _, w := range list {
		if round >= w.rounds {
			continue
		}
		if w.harden {
			if err := harden(true); err != nil {
				return err
			}
		}
		c, err := p.cost(t, w)
		if w.harden {
			err = errors.Join(err, harden(false))
		}
		if err != nil {
			return err
		}
		c.Variant = variant
		m.Costs = append(m.Costs, c)
	}
	return nil
}

// cost runs the loader once.
func (p programs) cost(t *tracer, w work) (cost, error) {
	var before, after time.Duration
	var err error
	if t != nil {
		if _, err = t.settle(); err != nil {
			return cost{}, err
		}
		if before, err = t.cpu(); err != nil {
			return cost{}, err
		}
	}
	cmd := exec.Command(p.loader, "-kind", w.kind, "-n", strconv.Itoa(w.n))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return cost{}, fmt.Errorf("run loader %s: %w", w.kind, err)
	}
	if t != nil {
		// not settle: what the tool does while nothing happens is not the load's
		time.Sleep(100 * time.Millisecond)
		if after, err = t.cpu(); err != nil {
			return cost{}, err
		}
	}
	var r struct{ WallNS, CPUNS int64 }
	if err := json.Unmarshal(out, &r); err != nil {
		return cost{}, fmt.Errorf("read loader's report: %w", err)
	}
	return cost{Kind: w.kind, Call: float64(r.WallNS), Loader: float64(r.CPUNS), Tracer: float64(after-before) / float64(w.n)}, nil
}

// of returns the median over the rounds, and whether there is any.
func (m *measured) of(kind, variant string, what func(cost) float64) (float64, bool) {
	var list []float64
	for _, c := range m.Costs {
		if c.Kind == kind && c.Variant == variant {
			list = append(list, what(c))
		}
	}
	return median(list), len(list) > 0
}

func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/2]
}

func TestGuestCosts(t *testing.T) {
	kernel := wanted(t)
	if !slices.Contains(costKernels, kernel) {
		t.Skipf("costs are measured on %v", costKernels)
	}
	list := works(true, os.Getenv(quickEnv) == "1")
	m, err := inGuest.measure(t.TempDir(), list, func(on bool) error {
		value := "0"
		if on {
			value = "2"
		}
		return os.WriteFile("/proc/sys/net/core/bpf_jit_harden", []byte(value), 0)
	})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(m.Missing, 0)) // every backend works on the lab's kernels
	m.Hooks, err = inGuest.profile(t.TempDir())
	qt.Assert(t, qt.IsNil(err))
	m.Release = release(t)
	b, err := json.Marshal(m)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join("/out", costsFile), b, 0o644)))
}

func release(t *testing.T) string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	qt.Assert(t, qt.IsNil(err))
	return string(b[:len(b)-1])
}
