// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
)

// hookCost is what one BPF program of the tool does for one repetition of a work.
type hookCost struct {
	Program string
	Runs    float64
	NS      float64 // inside the program: without the kernel's way there and back
}

// profiled are the works of which a profile is worth reading, and the backends that watch
// functions.
var (
	profiled         = []work{{kind: "small", n: 100}, {kind: "medium", n: 3}, {kind: "log", n: 1}}
	profiledBackends = []string{"fentry", "kprobe"}
)

// profile asks the kernel what each BPF program of bpfwhy cost, by backend and kind of work.
func (p programs) profile(dir string) (map[string]map[string][]hookCost, error) {
	const sysctl = "/proc/sys/kernel/bpf_stats_enabled"
	if err := os.WriteFile(sysctl, []byte("1"), 0); err != nil {
		return nil, err
	}
	defer os.WriteFile(sysctl, []byte("0"), 0)
	all := map[string]map[string][]hookCost{}
	for _, backend := range profiledBackends {
		t, err := p.start(dir, backend)
		if err != nil {
			return nil, err
		}
		all[backend] = map[string][]hookCost{}
		for _, w := range profiled {
			if all[backend][w.kind], err = p.profileWork(w); err != nil {
				break
			}
		}
		if err := errors.Join(err, t.stop()); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (p programs) profileWork(w work) ([]hookCost, error) {
	// Reading the counters is watched too: what it costs is measured first, and taken off.
	idle, err := programStats()
	if err != nil {
		return nil, err
	}
	before, err := programStats()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(p.loader, "-kind", w.kind, "-n", strconv.Itoa(w.n))
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run loader %s: %w", w.kind, err)
	}
	after, err := programStats()
	if err != nil {
		return nil, err
	}
	loads := float64(w.n)
	if w.n > 1 {
		loads++ // the loader warms up
	}
	byName := map[string]hookCost{}
	for id, s := range after {
		b, i := before[id], idle[id]
		c := byName[s.name]
		c.Program = s.name
		c.Runs += max(0, float64(s.runs-b.runs)-float64(b.runs-i.runs)) / loads
		c.NS += max(0, float64(s.time-b.time)-float64(b.time-i.time)) / loads
		byName[s.name] = c
	}
	var list []hookCost
	for _, c := range byName {
		if c.Runs > 0 && c.NS > 0 {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b hookCost) int { return cmp.Or(cmp.Compare(b.NS, a.NS), strings.Compare(a.Program, b.Program)) })
	return list, nil
}

type programStat struct {
	name string
	runs uint64
	time time.Duration
}

// programStats reads the counters of all loaded programs.
func programStats() (map[ebpf.ProgramID]programStat, error) {
	all := map[ebpf.ProgramID]programStat{}
	for id := ebpf.ProgramID(0); ; {
		var err error
		if id, err = ebpf.ProgramGetNextID(id); errors.Is(err, os.ErrNotExist) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		prog, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		stat, err := statOf(prog)
		prog.Close()
		if err != nil {
			return nil, err
		}
		all[id] = stat
	}
}

func statOf(prog *ebpf.Program) (programStat, error) {
	info, err := prog.Info()
	if err != nil {
		return programStat{}, err
	}
	stats, err := prog.Stats()
	if err != nil {
		return programStat{}, err
	}
	s := programStat{name: info.Name, runs: stats.RunCount, time: stats.Runtime}
	// the program's name is cut at 15 bytes, its function's is not
	if functions, err := info.FuncInfos(); err == nil && len(functions) > 0 {
		s.name = functions[0].Func.Name
	}
	return s, nil
}
