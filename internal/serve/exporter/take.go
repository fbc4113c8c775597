// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package exporter

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/hostinfo/audit"
	"github.com/bpfwhy/bpfwhy/internal/serve/metrics"
	"github.com/bpfwhy/bpfwhy/internal/serve/sink"
	"github.com/bpfwhy/bpfwhy/internal/serve/stream"
	"github.com/bpfwhy/bpfwhy/internal/watch/diagnose"
	"github.com/bpfwhy/bpfwhy/internal/watch/enrich"
	"github.com/bpfwhy/bpfwhy/load"
)

// The names under which what is not the kernel's is lost.
const (
	lostRecordings = "recordings of failures that could not be written"
	otherLoss      = "others"
)

// take counts an event and tells of it.
func (e *exporter) take(v diagnose.Event) {
	switch {
	case v.Attempt != nil:
		e.attempt(v)
	case v.Strays != 0:
		e.status.Calls += v.Strays
		e.dirty = true
	case v.Repeats != nil:
		f, _ := e.table.Of(v.Repeats.Group)
		e.put(sink.Item{Failure: &sink.Failure{Failure: f, Repeats: v.Repeats}})
	case v.Lost != nil:
		e.lose(v.Lost.Mechanism, v.Lost.Count)
	case v.Loss != nil:
		e.put(sink.Item{Loss: v.Loss})
	case v.Hang != nil:
		e.hanging, e.dirty = v.Hang.Calls, true
		e.put(sink.Item{Hang: v.Hang})
	}
}

func (e *exporter) attempt(v diagnose.Event) {
	a := v.Attempt
	e.status.Calls += uint64(a.Retries) + 1
	e.dirty = true
	if a.Outcome != load.Loaded || a.FeatureProbe != "" {
		e.metrics.Load(a)
	}
	if e.recent != nil {
		defer e.recent.drop(a)
	}
	if v.Hidden || !a.Finding() || a.Diagnosis == nil {
		e.worked(a)
		return
	}
	w := e.name(workload(&a.Process))
	f, first := e.table.Add(a, w)
	e.metrics.Fail(a, &w)
	e.record(f.ID, a)
	if v.Repeat {
		return
	}
	told := *a
	told.Evidence = load.Evidence{} // of megabytes, which no sink is to hold
	e.put(sink.Item{Failure: &sink.Failure{Failure: f, New: first, Attempt: &told}})
}

// worked notes that a program loads which failed before.
func (e *exporter) worked(a *load.Attempt) {
	if a.Outcome != load.Loaded || a.Kind != load.ProgLoad || a.FeatureProbe != "" || a.Program == nil {
		return
	}
	p := fleet.Program{Name: a.Program.Name, Type: a.Program.Type, Insns: a.Program.Insns}
	e.over(e.table.Works(p, e.name(workload(&a.Process))))
}

func (e *exporter) over(list []nodereport.Failure) {
	for _, f := range list {
		e.dirty = true
		e.put(sink.Item{Failure: &sink.Failure{Failure: f, Over: true}})
	}
}

// record keeps a recording of the first failure of a kind that came whole.
func (e *exporter) record(id string, a *load.Attempt) {
	if e.recent == nil || !e.recorder.wants(id) || !e.recent.has(a) {
		return // a later one may do
	}
	var text bytes.Buffer
	if err := e.recent.write(&text, a); err != nil {
		say("%v", err)
		return
	}
	e.recorder.put(id, text.Bytes())
}

func (e *exporter) put(i sink.Item) {
	for _, q := range e.queues {
		q.Put(i)
	}
}

func (e *exporter) lose(where string, n uint64) {
	if n == 0 {
		return
	}
	e.metrics.Lose(where, n)
	if _, known := e.status.Lost[where]; !known && len(e.status.Lost) >= nodereport.MaxLost && where != nodereport.LostExporter && where != nodereport.LostReader {
		where = otherLoss
	}
	e.status.Lost[where] += n
	e.dirty = true
}

// workload is what the control groups of a process tell.
func workload(p *load.Process) (w nodereport.Workload) {
	for _, version := range []int{2, 1} {
		for _, g := range p.Cgroups {
			if g.Version != version || w != (nodereport.Workload{}) {
				continue
			}
			if c, ok := enrich.Parse(g.Name); ok {
				w.PodUID = c.PodUID
				if c.ID != "" {
					w.Container = c.String()
				}
				continue
			}
			if unit := path.Base(g.Name); strings.HasSuffix(unit, ".service") {
				w.Owner = unit
			}
		}
	}
	return w
}

// learn takes what the reader says of the node.
func (e *exporter) learn(f *stream.Facts, now time.Time) {
	e.facts = *f
	for name, value := range f.Sysctls {
		e.setting(name, value, now)
	}
	loaded := make([]nodereport.Loaded, 0, len(f.Programs))
	for _, p := range f.Programs {
		loaded = append(loaded, nodereport.Loaded{Program: fleet.Program{Name: p.Name, Type: p.Type, Insns: p.Insns}, Count: p.Count})
	}
	if len(loaded) != len(e.status.Loaded) {
		e.dirty = true
	}
	e.status.Loaded = loaded
	if f.Audit != nil && (e.status.Audit == nil || !f.Audit.At.Equal(e.status.Audit.At)) {
		e.status.Audit, e.dirty = f.Audit, true
	}
	e.figures()
}

// setting notes the value of a setting, and tells if somebody changed it.
func (e *exporter) setting(name, value string, now time.Time) {
	was, known := e.profile.Sysctls[name]
	if was == value {
		return
	}
	e.profile.Sysctls[name], e.dirty = value, true
	if !known {
		return
	}
	c := nodereport.Change{At: now.UTC(), Name: name, From: was, To: value}
	e.status.Changes = append(e.status.Changes, c)
	e.status.Changes = slices.Clone(e.status.Changes[max(0, len(e.status.Changes)-nodereport.MaxChanges):])
	e.put(sink.Item{Change: &c})
	say("%s was changed from %s to %s", name, was, value)
}

// look finds failures that are over, and names for pods.
func (e *exporter) look(now time.Time) {
	if e.recorder != nil {
		e.lose(lostRecordings, e.recorder.lost.Swap(0))
	}
	e.over(e.table.Over(now, gone))
	e.table.Name(e.name)
	e.dirty = true // the time until which somebody watched
}

// gone reports that a process of that name has ended. Another of its number, with the same name, is
// taken for it.
func gone(pid int, comm string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err != nil || strings.TrimSuffix(string(b), "\n") != comm
}

// tell gives all sinks the state.
func (e *exporter) tell(now time.Time) {
	e.dirty, e.stated = false, now
	s := e.status
	s.Lost = maps.Clone(s.Lost)
	watching := *s.Watching
	watching.Last = now.UTC()
	s.Watching = &watching
	e.table.Put(&s, e.profile.Sysctls)
	class := nodereport.NewClass(fleet.ClassOf(&e.profile))
	s.Class = class.Metadata.Name
	s.Summary = nodereport.Summary{
		Release: e.profile.Release, Distro: e.profile.Distro, Arch: e.profile.Machine,
		Harden: e.profile.Sysctls["net.core.bpf_jit_harden"], Lockdown: e.profile.Lockdown,
	}
	s.Conditions = e.conditions(&s, now)
	e.status.Conditions, e.status.Class = s.Conditions, s.Class
	e.put(sink.Item{State: &sink.State{Report: nodereport.NewReport(e.start.Config.Node, s), Class: class}})
	if e.folder == nil {
		e.page.Account(s.Accounted())
	}
	e.figures()
}

// figures updates those of the node.
func (e *exporter) figures() {
	n := metrics.Node{
		Class: e.status.Class, Release: e.profile.Release, Distro: e.profile.Distro, Lockdown: e.profile.Lockdown,
		AlwaysOn: cmp.Or(e.profile.Config["CONFIG_BPF_JIT_ALWAYS_ON"], "unknown"), Header: &e.start.Header,
		Since: float64(e.start.Since.UnixMilli()) / 1e3, Facts: e.facts, Hanging: e.hanging, Version: e.start.Header.Tool,
	}
	e.table.Failing(n.Fails)
	e.metrics.Set(n)
}

// hardening says whether the programs that are loaded would load at net.core.bpf_jit_harden=2.
func hardening(a *nodereport.Audit) nodereport.Condition {
	c := nodereport.Condition{Type: "HardeningSafe", Status: "True", Reason: "NothingBreaks", Message: "each program that is loaded would load at net.core.bpf_jit_harden=2"}
	breaks, unknown := 0, a.Harden2[string(audit.Unknown)]
	for _, fate := range []audit.Outcome{audit.Fails, audit.FailsOrNotJITed, audit.Miscompiled, audit.NotJITed} {
		breaks += a.Harden2[string(fate)]
	}
	switch {
	case breaks > 0:
		c.Status, c.Reason, c.Message = "False", "ProgramsBreak", fmt.Sprintf("%d programs would not load, or not be compiled, at net.core.bpf_jit_harden=2", breaks)
	case unknown > 0:
		c.Status, c.Reason, c.Message = "Unknown", "NotJudged", fmt.Sprintf("%d programs could not be judged", unknown)
	}
	return c
}

// conditions are what is true of the node, each with the time since when it is.
func (e *exporter) conditions(s *nodereport.Status, now time.Time) []nodereport.Condition {
	watching := nodereport.Condition{Type: "Watching", Status: "True", Reason: "HooksAttached", Message: "loads are watched since " + e.start.Since.UTC().Format(time.RFC3339)}
	if e.hanging > 0 {
		watching.Status, watching.Reason, watching.Message = "Unknown", "LoadsHang", fmt.Sprintf("%d calls to bpf(2) do not come back", e.hanging)
	}
	loads := nodereport.Condition{Type: "LoadsOK", Status: "True", Reason: "NoFailures", Message: "nothing fails"}
	if s.Failing > 0 {
		loads.Status, loads.Reason, loads.Message = "False", "LoadsFail", fmt.Sprintf("%d kinds of failures", s.Failing)
	}
	list := []nodereport.Condition{watching, loads}
	if s.Audit != nil {
		list = append(list, hardening(s.Audit))
	}
	for i := range list {
		list[i].LastTransitionTime = now.UTC()
		for _, was := range e.status.Conditions {
			if was.Type == list[i].Type && was.Status == list[i].Status {
				list[i].LastTransitionTime = was.LastTransitionTime
			}
		}
	}
	return list
}
