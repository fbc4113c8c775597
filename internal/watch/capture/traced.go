// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"os"
	"strconv"
	"strings"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/sys/tracefs"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// traced is what tracefs says of failed attachments: the names of events, and why a probe was
// refused.
type traced struct {
	dir    *os.Root
	closed bool // there is none
	events map[uint64]trace.Event
}

// maxEvents bounds what is remembered.
const maxEvents = 256

func (d *traced) open() bool {
	if d.dir == nil && !d.closed {
		var err error
		d.dir, err = tracefs.Root()
		d.closed = err != nil
	}
	return !d.closed
}

func (d *traced) close() error {
	if d.dir == nil {
		return nil
	}
	dir := d.dir
	d.dir, d.closed = nil, true
	return dir.Close()
}

func (d *traced) complete(call *trace.Call) {
	switch a := call.Attach; {
	case a.Event != nil && a.Event.Type == abi.PerfTypeTracepoint:
		d.name(a.Event)
	case call.Kind == load.PerfEventOpen && a.Event != nil && a.Event.Type >= abi.PerfTypeMax:
		nameProbe(a)
	case call.Kind == load.ProbeDefine && a.Message == "":
		a.Message = d.reason(a)
	}
}

// name finds a tracepoint by its number.
func (d *traced) name(e *trace.Event) {
	if known, ok := d.events[e.Config]; ok {
		*e = known
		return
	}
	if !d.open() {
		return
	}
	found, size, err := tracefs.EventByID(d.dir, e.System, e.Config)
	if err != nil {
		return
	}
	e.System, e.Name, e.Size = found.Group, found.Name, size
	if d.events == nil || len(d.events) >= maxEvents {
		d.events = map[uint64]trace.Event{}
	}
	d.events[e.Config] = *e
}

// nameProbe finds out whether an event was to be of a kprobe or of a uprobe. What its caller passed
// means something else to other PMUs.
func nameProbe(a *trace.Attach) {
	for _, pmu := range []string{"kprobe", "uprobe"} {
		b, err := os.ReadFile("/sys/bus/event_source/devices/" + pmu + "/type")
		if err != nil || strings.TrimSpace(string(b)) != strconv.FormatUint(uint64(a.Event.Type), 10) {
			continue
		}
		if a.Event.System = pmu; pmu == "kprobe" {
			a.Function, a.Text = a.Text, ""
		}
		return
	}
	a.Text, a.Offset, a.Addresses, a.Count = "", 0, false, 0
}

// reason is what tracefs's error_log says last of a definition that the kernel refused. Older
// entries of the same text are of earlier attempts, and say the same.
func (d *traced) reason(a *trace.Attach) string {
	if !d.open() {
		return ""
	}
	b, err := d.dir.ReadFile("error_log")
	if err != nil {
		return ""
	}
	return reasonIn(string(b), a.Text)
}

// reasonIn reads error_log: "[   12.345] trace_kprobe: error: Failed to register probe event", the
// line "  Command: p:k/x no_such", and one with a caret.
func reasonIn(log, command string) (reason string) {
	said := ""
	for line := range strings.Lines(log) {
		line = strings.TrimSuffix(line, "\n")
		if text, ok := strings.CutPrefix(line, "  Command: "); ok {
			if said != "" && strings.Join(strings.Fields(text), " ") == strings.Join(strings.Fields(command), " ") {
				reason = said
			}
			said = ""
			continue
		}
		if _, text, ok := strings.Cut(line, "] "); ok && strings.HasPrefix(line, "[") {
			said = text
		}
	}
	return reason
}
