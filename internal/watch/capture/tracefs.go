// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/sys/tracefs"
	"golang.org/x/sys/unix"
)

// returnProbe is a kretprobe made through tracefs, which alone can be told how many returns to keep
// apart: with the default of twice the CPUs, fifty loaders on two CPUs lose some.
type returnProbe struct {
	attached *tracefs.Attached // nil: not yet
	tracefs  *os.Root
	name     string
	symbol   string
}

const (
	probeGroup = "bpfwhy"
	maxActive  = 1024 // calls in flight, as in bpf/state.h
)

func newReturnProbe(dir *os.Root, symbol string, prog int) (*returnProbe, error) {
	// One that is being removed has its name for a while yet.
	name := fmt.Sprintf("%s_%x_%d", strings.ReplaceAll(symbol, ".", "_"), monotonic(), os.Getpid())
	line := fmt.Sprintf("r%d:%s/%s %s", maxActive, probeGroup, name, symbol)
	if err := writeProbes(dir, line); err != nil {
		return nil, fmt.Errorf("create kretprobe %s: %w", symbol, err)
	}
	p := &returnProbe{tracefs: dir, name: name, symbol: symbol}
	a, err := attachEvent(dir, probeGroup, name, prog)
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("attach kretprobe %s: %w", symbol, err)
	}
	p.attached = &a
	return p, nil
}

func attachEvent(dir *os.Root, group, name string, prog int) (tracefs.Attached, error) {
	e, err := tracefs.ReadEvent(dir, group, name)
	if err != nil {
		return tracefs.Attached{}, err
	}
	return e.Attach(prog)
}

func (p *returnProbe) Close() error {
	var err error
	if p.attached != nil {
		err = p.attached.Close()
	}
	removed := writeProbes(p.tracefs, fmt.Sprintf("-:%s/%s", probeGroup, p.name))
	for pause := time.Millisecond; errors.Is(removed, unix.EBUSY) && pause < time.Second; pause *= 2 {
		time.Sleep(pause) // the kernel lets go of the perf event a moment after it was closed
		removed = writeProbes(p.tracefs, fmt.Sprintf("-:%s/%s", probeGroup, p.name))
	}
	if removed != nil {
		removed = fmt.Errorf("remove kretprobe %s: %w", p.symbol, removed)
	}
	return errors.Join(err, removed)
}

// kprobeProfile is the number of returns that were not seen, by probe (the last column of
// kprobe_profile).
func kprobeProfile(tracefs *os.Root) (map[string]uint64, error) {
	if tracefs == nil {
		return nil, errors.New("read kprobe_profile: there is no tracefs")
	}
	b, err := tracefs.ReadFile("kprobe_profile")
	if err != nil {
		return nil, fmt.Errorf("read kprobe_profile: %w", err)
	}
	missed := map[string]uint64{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		if missed[f[0]], err = strconv.ParseUint(f[2], 10, 64); err != nil {
			return nil, fmt.Errorf("read kprobe_profile: %w", err)
		}
	}
	return missed, nil
}

// removeDeadProbes removes the kretprobes of processes that were killed before they could: the only
// trace that we can leave.
func removeDeadProbes(tracefs *os.Root) {
	b, err := tracefs.ReadFile("kprobe_events")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		name, _, _ := strings.Cut(line, " ")
		_, name, ok := strings.Cut(name, ":"+probeGroup+"/")
		if !ok {
			continue
		}
		pid, err := strconv.Atoi(name[strings.LastIndexByte(name, '_')+1:])
		if err != nil || pid == os.Getpid() || unix.Kill(pid, 0) == nil {
			continue
		}
		_ = writeProbes(tracefs, fmt.Sprintf("-:%s/%s", probeGroup, name)) // in use by a process of another pid namespace: left alone
	}
}

func writeProbes(tracefs *os.Root, line string) error {
	f, err := tracefs.OpenFile("kprobe_events", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(line + "\n")
	return err
}
