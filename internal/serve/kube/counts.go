// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Counts are what was asked of the API server, and what was not written to it.
type Counts struct {
	mu         sync.Mutex
	requests   map[Request]uint64
	suppressed map[string]uint64
}

// Request is a kind of requests. Code is "error" where there was no answer.
type Request struct{ Verb, Resource, Code string }

// Requests returns how many there were of each kind.
func (c *Counts) Requests() map[Request]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.requests)
}

// Suppressed returns how much was not written, by reason.
func (c *Counts) Suppressed() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.suppressed)
}

func (c *Counts) suppress(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.suppressed == nil {
		c.suppressed = map[string]uint64{}
	}
	c.suppressed[reason]++
}

// What Prometheus is told. Both have a bounded set of series: see resourceOf.
var (
	requestsTotal   = prometheus.NewDesc("bpfwhy_kube_requests_total", "Requests to the API server.", []string{"verb", "resource", "code"}, nil)
	suppressedTotal = prometheus.NewDesc("bpfwhy_kube_suppressed_total", "Events and reports that were not written, by reason.", []string{"reason"}, nil)
)

// Describe is that of prometheus.Collector.
func (c *Counts) Describe(to chan<- *prometheus.Desc) {
	to <- requestsTotal
	to <- suppressedTotal
}

// Collect is that of prometheus.Collector.
func (c *Counts) Collect(to chan<- prometheus.Metric) {
	for r, n := range c.Requests() {
		to <- prometheus.MustNewConstMetric(requestsTotal, prometheus.CounterValue, float64(n), r.Verb, r.Resource, r.Code)
	}
	for reason, n := range c.Suppressed() {
		to <- prometheus.MustNewConstMetric(suppressedTotal, prometheus.CounterValue, float64(n), reason)
	}
}

type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

func (c *Counts) wrap(next http.RoundTripper) http.RoundTripper {
	return transport(func(r *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(r)
		code := "error"
		if err == nil {
			code = strconv.Itoa(response.StatusCode)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.requests == nil {
			c.requests = map[Request]uint64{}
		}
		c.requests[Request{strings.ToLower(r.Method), resourceOf(r.URL.Path), code}]++
		return response, err
	})
}

// resourceOf is the kind of objects that a path is of. The list is fixed, so that the metric has a
// bound.
func resourceOf(path string) string {
	for part := range strings.SplitSeq(path, "/") {
		if slices.Contains([]string{"events", "nodes", "pods", "nodereports", "nodeclasses"}, part) {
			if part == "nodes" && strings.HasSuffix(path, "/status") {
				return "nodes/status"
			}
			return part
		}
	}
	return "other"
}
