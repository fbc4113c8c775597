// SPDX-License-Identifier: Apache-2.0

// Package metrics are the figures of 'bpfwhy serve' for Prometheus. What others can name, programs
// and processes, is in no label, and what is in one is bounded.
package metrics

import (
	"maps"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/serve/sink"
	"github.com/bpfwhy/bpfwhy/internal/serve/stream"
	"github.com/bpfwhy/bpfwhy/internal/watch/trace"
	"github.com/bpfwhy/bpfwhy/load"
)

// Bounds of series. What is more goes to a workload named Other.
const (
	MaxFailures = 200
	maxFailing  = 200
	maxLosses   = 64
	maxLabel    = 128 // bytes
	Other       = "other"
)

// Failure tells series of failures apart.
type Failure struct{ Rule, Stage, Errno, Namespace, Workload string }

// Failing tells series of what fails now apart.
type Failing struct{ Rule, Namespace, Workload string }

// Node is what the figures say of the node as it is now.
type Node struct {
	Class, Release, Distro, Lockdown, AlwaysOn string
	Header                                     *trace.Header
	Since                                      float64 // seconds since 1970
	Facts                                      stream.Facts
	Failing                                    map[Failing]int
	Hanging                                    int
	Version                                    string
}

// Metrics are the figures. They are safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	sinks    func() []sink.Stats
	making   sync.Mutex // of a page

	mu       sync.Mutex
	node     Node
	loads    map[[2]string]uint64 // by kind and outcome
	failures map[Failure]uint64
	lost     map[string]uint64
}

// New returns figures without any. sinks is asked at each scrape.
func New(sinks func() []sink.Stats) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), sinks: sinks, loads: map[[2]string]uint64{}, failures: map[Failure]uint64{}, lost: map[string]uint64{}}
	m.registry.MustRegister((*collector)(m))
	return m
}

// Add has figures served that another package counts. Their names are its own.
func (m *Metrics) Add(c prometheus.Collector) error { return m.registry.Register(c) }

// Gatherer is what a file of them is written from.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// Load counts an attempt by its outcome. Of those that worked the facts tell.
func (m *Metrics) Load(a *load.Attempt) {
	outcome := string(a.Outcome)
	if a.FeatureProbe != "" {
		outcome = "feature_probe"
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loads[[2]string{string(a.Kind), outcome}]++ // both are of lists in the source
}

// Fail counts a finding.
func (m *Metrics) Fail(a *load.Attempt, w *nodereport.Workload) {
	f := Failure{Rule: label(a.Diagnosis.Rule), Stage: label(string(a.FailedStage)), Errno: label(a.ErrnoName), Namespace: label(w.Namespace), Workload: label(w.Owner)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.failures[f]; !known && len(m.failures) >= MaxFailures-1 {
		f = Failure{Rule: Other, Stage: Other, Errno: Other, Namespace: Other, Workload: Other}
	}
	m.failures[f]++
}

// Lose counts what was lost.
func (m *Metrics) Lose(where string, n uint64) {
	where = label(where)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.lost[where]; !known && len(m.lost) >= maxLosses-1 {
		where = Other
	}
	m.lost[where] += n
}

// Set takes what is known of the node.
func (m *Metrics) Set(n Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.node = n
}

// Fails counts a kind of failures that is not over.
func (n *Node) Fails(f *nodereport.Failure) {
	if n.Failing == nil {
		n.Failing = map[Failing]int{}
	}
	k := Failing{Rule: label(f.Rule), Namespace: label(f.Namespace), Workload: label(f.Owner)}
	if _, known := n.Failing[k]; !known && len(n.Failing) >= maxFailing-1 {
		k = Failing{Rule: Other, Namespace: Other, Workload: Other}
	}
	n.Failing[k]++
}

// label is a text as a label may have it: the client panics at others.
func label(s string) string {
	return strings.Clone(strings.ToValidUTF8(s[:min(len(s), maxLabel)], "\uFFFD"))
}

type collector Metrics

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("bpfwhy_"+name, help, labels, nil)
}

var (
	loads      = desc("loads_total", "Calls that load, create or attach, by how they ended. Of those that worked, program loads alone.", "kind", "outcome")
	worked     = desc("healthy_loads_total", "Program loads that worked.", "type")
	failures   = desc("load_failures_total", "Failures by their cause and whose they are.", "rule", "stage", "errno", "namespace", "workload")
	failing    = desc("failing_programs", "Kinds of failures that are not over.", "rule", "namespace", "workload")
	programs   = desc("programs", "Programs that are loaded now.", "type", "jited")
	audited    = desc("audit_programs", "Programs that are loaded, by what would become of them at a value of net.core.bpf_jit_harden.", "harden", "fate")
	jitMemory  = desc("jit_memory_bytes", "What compiled programs hold.")
	jitLimit   = desc("jit_memory_limit_bytes", "What they may hold without CAP_BPF: net.core.bpf_jit_limit.")
	setting    = desc("sysctl_value", "Settings of the kernel that decide loads.", "name")
	info       = desc("node_info", "What decides loads on this node.", "class", "kernel_release", "distro", "lockdown", "jit_always_on")
	attached   = desc("hook_attached", "1 where a function of the kernel is watched.", "hook", "backend")
	lost       = desc("records_lost_total", "What was lost, by what lost it.", "where")
	hanging    = desc("loads_hanging", "Calls that are in the kernel and do not come back.")
	since      = desc("watching_since_seconds", "When the hooks were attached, in seconds since 1970.")
	items      = desc("sink_items_total", "Items that a sink took, or will never have.", "sink", "result")
	sinkErrors = desc("sink_errors_total", "Times that a sink refused an item.", "sink")
	waiting    = desc("sink_items_waiting", "Items that wait for a sink.", "sink")
	build      = desc("build_info", "The version of bpfwhy.", "version")
)

// Describe lists all that Collect gives.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{loads, worked, failures, failing, programs, audited, jitMemory, jitLimit, setting, info, attached, lost, hanging, since, items, sinkErrors, waiting, build} {
		to <- d
	}
}

// Collect gives the figures as they are now.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	o := output{to}
	for _, s := range c.sinks() {
		o.sum(items, float64(s.Put), s.Name, "put")
		o.sum(items, float64(s.Dropped), s.Name, "dropped")
		o.sum(sinkErrors, float64(s.Failed), s.Name)
		o.now(waiting, float64(s.Waiting), s.Name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, n := range c.counted() {
		o.sum(loads, float64(n), k[0], k[1])
	}
	for f, n := range c.failures {
		o.sum(failures, float64(n), f.Rule, f.Stage, f.Errno, f.Namespace, f.Workload)
	}
	for where, n := range c.lost {
		o.sum(lost, float64(n), where)
	}
	o.node(&c.node)
}

// counted are the loads, those that worked among them.
func (c *collector) counted() map[[2]string]uint64 {
	all := maps.Clone(c.loads)
	var sum uint64
	for _, n := range c.node.Facts.Loads {
		sum += n
	}
	all[[2]string{string(load.ProgLoad), string(load.Loaded)}] = sum
	return all
}

type output struct{ to chan<- prometheus.Metric }

func (o output) sum(d *prometheus.Desc, v float64, values ...string) {
	o.to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, values...)
}

func (o output) now(d *prometheus.Desc, v float64, values ...string) {
	o.to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, values...)
}

func (o output) node(n *Node) {
	if n.Header == nil {
		return // nothing is known yet
	}
	for t, v := range n.Facts.Loads {
		o.sum(worked, float64(v), label(t))
	}
	for k, v := range n.Failing {
		o.now(failing, float64(v), k.Rule, k.Namespace, k.Workload)
	}
	for _, p := range n.Facts.Kernel {
		o.now(programs, float64(p.Count), label(p.Type), strconv.FormatBool(p.JITed))
	}
	if a := n.Facts.Audit; a != nil {
		for harden, fates := range map[string]map[string]int{"1": a.Harden1, "2": a.Harden2} {
			for fate, v := range fates {
				o.now(audited, float64(v), harden, label(fate))
			}
		}
	}
	if n.Facts.JITUsed != nil {
		o.now(jitMemory, float64(*n.Facts.JITUsed))
	}
	for name, value := range n.Facts.Sysctls {
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		if name == "net.core.bpf_jit_limit" {
			o.now(jitLimit, v)
		}
		o.now(setting, v, label(name))
	}
	o.now(info, 1, label(n.Class), label(n.Release), label(n.Distro), label(n.Lockdown), label(n.AlwaysOn))
	hooks := map[[2]string]bool{} // a function may be watched in several ways
	for _, h := range n.Header.Hooks {
		hooks[[2]string{label(string(h.Function)), label(h.Via)}] = h.Via != ""
	}
	for h, is := range hooks {
		v := 0.0
		if is {
			v = 1
		}
		o.now(attached, v, h[0], h[1])
	}
	o.now(hanging, float64(n.Hanging))
	o.now(since, n.Since)
	o.now(build, 1, label(n.Version))
}
