// SPDX-License-Identifier: Apache-2.0

// Package metrics exports exchanges for Prometheus, under the names that OpenTelemetry gives them,
// and the probe's own accounts.
package metrics

import (
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bpfwhy/bpfwhy/httpprobe/connection"
	"github.com/bpfwhy/bpfwhy/httpprobe/event"
	"github.com/bpfwhy/bpfwhy/httpprobe/http1"
)

// Source is what one source and the connections that it sees have to account for.
type Source struct {
	Name  string
	Up    bool
	Stats connection.Stats
	Loss  event.Loss
	Files *Files // nil: it probes none
}

// Files are those that a source probes.
type Files struct {
	Probed   int
	Unprobed map[string]int    // now, by reason
	Failures map[string]uint64 // since the start, by reason
}

// Accounts are sums since the start; Uncovered is how many processes there are now that cannot be
// seen, by reason.
type Accounts struct {
	Sources   []Source
	Dropped   uint64 // lines of output that nobody read in time
	Untold    uint64 // exchanges that came faster than they could be told
	Uncovered map[string]int
}

// MinSeries is the lowest cap of series.
const MinSeries = 64

// Series that are kept for the overflow: of servers and clients, by class of status and source.
const reserved = 2 * 9 * event.Sources

// HeapBytes are what metrics of so many series take, with the page that is shown and the next one,
// which is being made.
func HeapBytes(most int) int { return most*heapOfSeries + 1<<20 }

const heapOfSeries = 24 << 10

// Metrics are the exported figures. It is safe for concurrent use.
type Metrics struct {
	routes   Routes
	most     int
	accounts func() Accounts
	registry *prometheus.Registry
	duration [2]*prometheus.HistogramVec // of servers, of clients
	first    [2]*prometheus.HistogramVec

	rendering sync.Mutex
	page      page

	mu         sync.Mutex
	series     map[key]series
	overflow   int    // series of them
	overflowed uint64 // exchanges
}

// key is what tells series apart.
type key struct {
	role          http1.Role
	source        event.Source
	status        int
	port          uint16
	method, route string
	version, grpc string
	container     string
	overflow      bool
}

type series struct{ duration, first prometheus.Observer }

var labels = []string{"http_request_method", "http_response_status_code", "http_route", "server_port", "url_scheme", "network_protocol_version", "rpc_grpc_status_code", "container", "source"}

// buckets are those that OpenTelemetry's semantic conventions advise for these names, in seconds.
var buckets = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}

// New returns metrics with at most that many series, each of them a pair of histograms with its own
// labels. accounts is asked at each scrape, from any goroutine.
func New(routes Routes, most int, accounts func() Accounts) *Metrics {
	m := &Metrics{routes: routes, most: max(most, MinSeries) - reserved, accounts: accounts, registry: prometheus.NewRegistry(), series: map[key]series{}}
	for i, role := range []string{"server", "client"} {
		m.duration[i] = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "http_" + role + "_request_duration_seconds",
			Help: "From the first byte of the request to the last of the response.", Buckets: buckets}, labels)
		m.first[i] = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "http_" + role + "_time_to_first_byte_seconds",
			Help: "From the first byte of the request to the first of the response.", Buckets: buckets}, labels)
		m.registry.MustRegister(m.duration[i], m.first[i])
	}
	m.registry.MustRegister((*collector)(m))
	return m
}

// Route is the route of an exchange.
func (m *Metrics) Route(e *connection.Exchange) string {
	if e.GRPCStatus != "" && e.GRPCStatus != http1.Unknown {
		return m.routes.OfGRPC(e.Path, e.Status, e.GRPCStatus)
	}
	return m.routes.Of(e.Path, e.Status)
}

// Observe counts an exchange, in a container or "".
func (m *Metrics) Observe(e *connection.Exchange, container string) {
	if e.Role != http1.Server && e.Role != http1.Client {
		return
	}
	k := key{role: e.Role, source: e.Source, status: e.Status, port: e.ServerPort(), method: Method(e.Method), route: m.Route(e),
		version: version(e.Protocol), grpc: e.GRPCStatus, container: container}
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.series[k]
	if !ok {
		s = m.admit(k)
	}
	s.duration.Observe(float64(e.End-e.Start) / 1e9)
	s.first.Observe(float64(e.FirstByte-e.Start) / 1e9)
}

// admit makes a series, or finds the one for what is too much.
func (m *Metrics) admit(k key) series {
	if len(m.series)-m.overflow >= m.most {
		m.overflowed++
		k = key{role: k.role, source: k.source, status: k.status / 100, overflow: true}
		if s, ok := m.series[k]; ok {
			return s
		}
		m.overflow++
	}
	values := []string{k.method, strconv.Itoa(k.status), k.route, "", scheme(k.source), k.version, k.grpc, k.container, SourceName(k.source)}
	if k.port != 0 {
		values[3] = strconv.Itoa(int(k.port))
	}
	if k.overflow {
		values = []string{"_OTHER", strconv.Itoa(k.status) + "xx", "_overflow", "", scheme(k.source), "", "", "", SourceName(k.source)}
	}
	for i := range values {
		values[i] = strings.ToValidUTF8(values[i][:min(len(values[i]), maxLabel)], "\uFFFD") // the client panics otherwise
	}
	i := 0
	if k.role == http1.Client {
		i = 1
	}
	s := series{m.duration[i].WithLabelValues(values...), m.first[i].WithLabelValues(values...)}
	m.series[k] = s
	return s
}

// version is what OpenTelemetry calls a version: 1.0, 1.1 or 2.
func version(protocol string) string { return strings.TrimPrefix(protocol, "HTTP/") }

// Method returns the method, or "_OTHER" for those that are not everybody's.
func Method(method string) string {
	switch method {
	case http1.Unknown, "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE":
		return method
	}
	return "_OTHER"
}

// scheme is that of a source's connections: what is plain text on its way, and what OpenSSL made of
// it.
func scheme(s event.Source) string {
	if s == event.OpenSSL {
		return "https"
	}
	return "http"
}

// SourceName is the name of a source as the command line has it.
func SourceName(s event.Source) string {
	switch s {
	case event.Syscalls:
		return "syscalls"
	case event.Packets:
		return "packets"
	case event.OpenSSL:
		return "openssl"
	}
	return ""
}

// collector exports the accounts.
type collector Metrics

var (
	up          = prometheus.NewDesc("httpprobe_source_up", "1 while the source is running and something can be seen by it.", []string{"source"}, nil)
	counted     = prometheus.NewDesc("httpprobe_requests_counted_total", "Requests that were seen with their responses.", []string{"source"}, nil)
	unparsed    = prometheus.NewDesc("httpprobe_requests_unparsed_total", "Requests of which nothing sure can be said, by reason.", []string{"source", "reason"}, nil)
	lost        = prometheus.NewDesc("httpprobe_events_lost_total", "Events that the source knows it lost, by reason.", []string{"source", "reason"}, nil)
	files       = prometheus.NewDesc("httpprobe_files_probed", "Libraries and executables that are probed.", []string{"source"}, nil)
	unprobed    = prometheus.NewDesc("httpprobe_files_unprobed", "Those that should be probed and are not, by reason. They are tried again.", []string{"source", "reason"}, nil)
	failures    = prometheus.NewDesc("httpprobe_probe_failures_total", "Times that one could not be probed, by reason.", []string{"source", "reason"}, nil)
	connections = prometheus.NewDesc("httpprobe_connections_total", "Connections by the protocol they turned out to speak.", []string{"source", "protocol"}, nil)
	open        = prometheus.NewDesc("httpprobe_connections_open", "Connections that are followed.", []string{"source"}, nil)
	uncovered   = prometheus.NewDesc("httpprobe_blind_processes", "Processes whose traffic cannot be seen, or not inside TLS, by reason.", []string{"reason"}, nil)
	seriesNow   = prometheus.NewDesc("httpprobe_series", "Series of the histograms.", nil, nil)
	dropped     = prometheus.NewDesc("httpprobe_output_lines_dropped_total", "Lines of output that nobody read in time.", nil, nil)
	untold      = prometheus.NewDesc("httpprobe_exchanges_dropped_total", "Exchanges that came faster than they could be told, and are in no histogram.", nil, nil)
	overflow    = prometheus.NewDesc("httpprobe_series_overflow_total", "Exchanges that were counted in an overflow series.", nil, nil)
)

func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{up, counted, unparsed, lost, files, unprobed, failures, connections, open, uncovered, dropped, untold, seriesNow, overflow} {
		to <- d
	}
}

func (c *collector) Collect(to chan<- prometheus.Metric) {
	a := c.accounts()
	sum := func(d *prometheus.Desc, v uint64, values ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), values...)
	}
	gauge := func(d *prometheus.Desc, v int, values ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), values...)
	}
	for _, s := range a.Sources {
		running := 0
		if s.Up {
			running = 1
		}
		gauge(up, running, s.Name)
		sum(counted, s.Stats.Counted, s.Name)
		for r := range http1.Reasons {
			sum(unparsed, s.Stats.Unparsed[r], s.Name, r.String())
		}
		for _, l := range Losses(s.Loss) {
			sum(lost, l.Events, s.Name, l.Reason)
		}
		for p := range http1.Protocols {
			sum(connections, s.Stats.Spoke[p], s.Name, p.String())
		}
		gauge(open, s.Stats.Open, s.Name)
		if s.Files == nil {
			continue
		}
		gauge(files, s.Files.Probed, s.Name)
		for reason, n := range s.Files.Unprobed {
			gauge(unprobed, n, s.Name, reason)
		}
		for reason, n := range s.Files.Failures {
			sum(failures, n, s.Name, reason)
		}
	}
	for reason, n := range a.Uncovered {
		gauge(uncovered, n, strings.ToValidUTF8(reason, "\uFFFD"))
	}
	sum(dropped, a.Dropped)
	sum(untold, a.Untold)
	c.mu.Lock()
	defer c.mu.Unlock()
	gauge(seriesNow, len(c.series))
	sum(overflow, c.overflowed)
}

// Lost is a number of lost events.
type Lost struct {
	Reason string
	Events uint64
}

// Losses names what a source lost, zeros included.
func Losses(l event.Loss) []Lost {
	return []Lost{{"ring_full", l.RingFull}, {"map_full", l.MapFull}, {"read_fault", l.ReadFault}, {"recursion", l.Recursion}, {"packet_drop", l.PacketDrop}}
}
