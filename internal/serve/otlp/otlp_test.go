// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/prometheus/client_golang/prometheus"
	collogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/proto"

	"github.com/bpfwhy/bpfwhy/internal/fleet"
	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/serve/sink"
	"github.com/bpfwhy/bpfwhy/load"
)

// collector is the receiving side, as far as a test needs it: it decodes what the protocol defines.
type collector struct {
	*httptest.Server
	logs    chan *collogs.ExportLogsServiceRequest
	metrics chan *colmetrics.ExportMetricsServiceRequest
	status  int // instead of 200
}

func newCollector(t *testing.T) *collector {
	c := &collector{logs: make(chan *collogs.ExportLogsServiceRequest, 9), metrics: make(chan *colmetrics.ExportMetricsServiceRequest, 9)}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(r.Body)
		}
		b, err := io.ReadAll(body)
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(r.Header.Get("Authorization"), "Bearer x"))
		if c.status != 0 {
			w.WriteHeader(c.status)
			return
		}
		switch r.URL.Path {
		case "/base/v1/logs":
			m := &collogs.ExportLogsServiceRequest{}
			qt.Check(t, qt.IsNil(proto.Unmarshal(b, m)))
			c.logs <- m
		case "/base/v1/metrics":
			m := &colmetrics.ExportMetricsServiceRequest{}
			qt.Check(t, qt.IsNil(proto.Unmarshal(b, m)))
			c.metrics <- m
		default:
			t.Errorf("a request for %s", r.URL.Path)
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) options() Options {
	return Options{Endpoint: c.URL + "/base", Headers: map[string]string{"Authorization": "Bearer x"}, Node: "node-7", Version: "v0", Interval: time.Hour}
}

func values(list []*common.KeyValue) map[string]string {
	got := map[string]string{}
	for _, kv := range list {
		got[kv.Key] = kv.Value.GetStringValue()
	}
	return got
}

func TestLogs(t *testing.T) {
	c := newCollector(t)
	l, err := NewLogs(t.Context(), c.options())
	qt.Assert(t, qt.IsNil(err))
	first := time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC)
	f := sink.Item{Failure: &sink.Failure{New: true, Failure: nodereport.Failure{
		Failure: fleet.Failure{
			ID: "0123456789ab", Kind: load.ProgLoad, Rule: "BLIND001", Errno: 524, Count: 3, First: first, Last: first.Add(time.Minute), Comm: "age\xffnt\x1b[31m",
			Message: "blinding grew it \xfe", Program: fleet.Program{Name: "probe", Type: "kprobe"},
		},
		Workload: nodereport.Workload{Namespace: "shop", Pod: "agent-1", PodUID: "u-1", Owner: "DaemonSet/agent"},
	}}}
	qt.Assert(t, qt.IsNil(l.Put(t.Context(), f)))
	got := <-c.logs
	qt.Assert(t, qt.HasLen(got.ResourceLogs, 1))
	qt.Check(t, qt.Equals(values(got.ResourceLogs[0].Resource.Attributes)["host.name"], "node-7"))
	r := got.ResourceLogs[0].ScopeLogs[0].LogRecords[0]
	qt.Check(t, qt.Equals(r.EventName, "bpf.load.failed"))
	qt.Check(t, qt.Equals(r.SeverityText, "ERROR"))
	qt.Check(t, qt.Equals(r.TimeUnixNano, uint64(first.Add(time.Minute).UnixNano())))
	qt.Check(t, qt.Equals(r.Body.GetStringValue(), "blinding grew it \uFFFD"))
	a := values(r.Attributes)
	for name, want := range map[string]string{
		"bpf.rule": "BLIND001", "bpf.errno": "ENOTSUPP", "bpf.program.name": "probe", "k8s.pod.name": "agent-1", "k8s.pod.uid": "u-1",
		"bpf.workload": "DaemonSet/agent", "process.command": "age\uFFFDnt\x1b[31m",
	} {
		qt.Check(t, qt.Equals(a[name], want), qt.Commentf("%s", name))
	}

	// A state is nothing to log: nobody is asked.
	qt.Assert(t, qt.IsNil(l.Put(t.Context(), sink.Item{State: &sink.State{}})))
	qt.Check(t, qt.HasLen(c.logs, 0))

	for _, i := range []sink.Item{
		{Failure: &sink.Failure{Over: true}}, {Change: &nodereport.Change{Name: "net.core.bpf_jit_harden", From: "0", To: "2"}},
		{Loss: &load.Loss{Loads: 4, Events: map[string]uint64{"ring": 9}}}, {Hang: &load.Hang{Calls: 2}}, {Hang: &load.Hang{}},
	} {
		qt.Assert(t, qt.IsNil(l.Put(t.Context(), i)))
	}
	var events []string
	for range 5 {
		events = append(events, (<-c.logs).ResourceLogs[0].ScopeLogs[0].LogRecords[0].EventName)
	}
	qt.Check(t, qt.DeepEquals(events, []string{eventResolved, eventChanged, eventLost, eventHangs, eventHangs}))

	// What the collector refuses is an error of the item, and the next is sent all the same.
	for _, status := range []int{http.StatusServiceUnavailable, http.StatusBadRequest} {
		c.status = status
		qt.Check(t, qt.ErrorMatches(l.Put(t.Context(), f), "send OTLP logs: (?s).*"))
	}
	c.status = 0
	qt.Check(t, qt.IsNil(l.Put(t.Context(), f)))
	qt.Check(t, qt.IsNil(l.Close(t.Context())))
}

// The values are those of Prometheus.
func TestMetrics(t *testing.T) {
	c := newCollector(t)
	registry := prometheus.NewRegistry()
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bpfwhy_load_failures_total", Help: "x"}, []string{"rule"})
	registry.MustRegister(failures)
	failures.WithLabelValues("BLIND001").Add(41)
	m, err := NewMetrics(t.Context(), c.options(), registry)
	qt.Assert(t, qt.IsNil(err))
	c.status = http.StatusServiceUnavailable
	qt.Assert(t, qt.IsNil(m.provider.ForceFlush(t.Context())))
	qt.Check(t, qt.Equals(m.Failed(), 1))
	qt.Check(t, qt.IsNotNil(m.Last()))
	c.status = 0
	failures.WithLabelValues("BLIND001").Add(1)
	qt.Assert(t, qt.IsNil(m.Close(t.Context())))
	qt.Check(t, qt.IsNil(m.Last()))
	got := (<-c.metrics).ResourceMetrics[0]
	qt.Check(t, qt.Equals(values(got.Resource.Attributes)["service.name"], "bpfwhy"))
	one := got.ScopeMetrics[0].Metrics[0]
	qt.Check(t, qt.Equals(one.Name, "bpfwhy_load_failures_total"))
	point := one.GetSum().DataPoints[0]
	qt.Check(t, qt.Equals(point.GetAsDouble(), 42))
	qt.Check(t, qt.Equals(values(point.Attributes)["rule"], "BLIND001"))
}

func TestEndpoint(t *testing.T) {
	for _, bad := range []string{"", "collector:4318", "ftp://x", "http://", "http://[", "unix:///x"} {
		_, err := NewLogs(context.Background(), Options{Endpoint: bad})
		qt.Check(t, qt.ErrorMatches(err, "read the OTLP endpoint: .*"), qt.Commentf("%q", bad))
	}
	_, err := NewLogs(context.Background(), Options{Endpoint: "https://collector.example:4318"})
	qt.Check(t, qt.IsNil(err))
}
