// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// eventID reads the id of a trace event.
func eventID(tracefs *os.Root, group, name string) (uint64, error) {
	b, err := tracefs.ReadFile("events/" + group + "/" + name + "/id")
	if err != nil {
		return 0, fmt.Errorf("read event %s/%s: %w", group, name, err)
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}

// eventField reads where a field of a trace event is, in bytes.
func eventField(tracefs *os.Root, group, event, field string) (uint32, error) {
	b, err := tracefs.ReadFile("events/" + group + "/" + event + "/format")
	if err != nil {
		return 0, fmt.Errorf("read format of %s/%s: %w", group, event, err)
	}
	for line := range strings.Lines(string(b)) { // "field:pid_t child_pid;	offset:44;	size:4;	signed:1;"
		declaration, rest, ok := strings.Cut(strings.TrimSpace(line), ";")
		if !ok || !strings.HasSuffix(declaration, " "+field) {
			continue
		}
		_, at, _ := strings.Cut(rest, "offset:")
		at, _, _ = strings.Cut(at, ";")
		n, err := strconv.ParseUint(at, 10, 16)
		return uint32(n), err
	}
	return 0, fmt.Errorf("read format of %s/%s: no field %s", group, event, field)
}

// perfEvent is a program on a trace event. Closing it detaches the program.
type perfEvent struct{ fd int }

func (p perfEvent) Close() error { return unix.Close(p.fd) }

// attachEvent attaches a program to a trace event. BPF programs hang on the event itself and run on every CPU, so one perf event
// on CPU 0 is enough (perf_trace_run_bpf_submit).
func attachEvent(id uint64, prog int) (perfEvent, error) {
	attr := unix.PerfEventAttr{
		Type:        unix.PERF_TYPE_TRACEPOINT,
		Size:        unix.PERF_ATTR_SIZE_VER1,
		Config:      id,
		Sample_type: unix.PERF_SAMPLE_RAW,
		Sample:      1,
		Wakeup:      1,
	}
	fd, err := unix.PerfEventOpen(&attr, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return perfEvent{}, fmt.Errorf("open perf event: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, prog); err != nil {
		unix.Close(fd)
		return perfEvent{}, fmt.Errorf("attach program to perf event: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
		unix.Close(fd)
		return perfEvent{}, fmt.Errorf("enable perf event: %w", err)
	}
	return perfEvent{fd}, nil
}

// returnProbe is a kretprobe made through tracefs, which alone can be told how many returns to keep apart: with the default of twice the
// CPUs, fifty loaders on two CPUs lose some.
type returnProbe struct {
	perfEvent
	tracefs *os.Root
	name    string
	symbol  string
}

const (
	probeGroup = "bpfwhy"
	maxActive  = 1024 // calls in flight, as in bpf/state.h
)

func newReturnProbe(tracefs *os.Root, symbol string, prog int) (*returnProbe, error) {
	// One that is being removed has its name for a while yet.
	name := fmt.Sprintf("%s_%x_%d", strings.ReplaceAll(symbol, ".", "_"), monotonic(), os.Getpid())
	line := fmt.Sprintf("r%d:%s/%s %s", maxActive, probeGroup, name, symbol)
	if err := writeProbes(tracefs, line); err != nil {
		return nil, fmt.Errorf("create kretprobe %s: %w", symbol, err)
	}
	p := &returnProbe{perfEvent{-1}, tracefs, name, symbol}
	id, err := eventID(tracefs, probeGroup, name)
	if err == nil {
		p.perfEvent, err = attachEvent(id, prog)
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("attach kretprobe %s: %w", symbol, err)
	}
	return p, nil
}

func (p *returnProbe) Close() error {
	var err error
	if p.fd >= 0 {
		err = p.perfEvent.Close()
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

// kprobeProfile is the number of returns that were not seen, by probe (the last column of kprobe_profile).
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

// removeDeadProbes removes the kretprobes of processes that were killed before they could: the only trace that we
// can leave.
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
