// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// Metrics sends the figures of a Prometheus registry, now and then.
type Metrics struct {
	provider *metric.MeterProvider
	counted  *counted
}

// NewMetrics begins to send what g gathers. The values are the same as on /metrics.
func NewMetrics(ctx context.Context, o Options, g prometheus.Gatherer) (*Metrics, error) {
	to, err := o.url("metrics")
	if err != nil {
		return nil, err
	}
	exporter, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(to), otlpmetrichttp.WithHeaders(o.Headers),
		otlpmetrichttp.WithTimeout(timeout), otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{}))
	if err != nil {
		return nil, fmt.Errorf("open the exporter of OTLP metrics: %w", err)
	}
	m := &Metrics{counted: &counted{Exporter: exporter}}
	reader := metric.NewPeriodicReader(m.counted, metric.WithInterval(cmp.Or(o.Interval, time.Minute)), metric.WithTimeout(timeout),
		metric.WithProducer(bridge.NewMetricProducer(bridge.WithGatherer(g))))
	m.provider = metric.NewMeterProvider(metric.WithResource(o.resource()), metric.WithReader(reader))
	return m, nil
}

// Failed is how many exports failed. What they held is in the next one.
func (m *Metrics) Failed() uint64 { return m.counted.failed.Load() }

// Last is the error of the last export, nil if it went well.
func (m *Metrics) Last() error {
	if err := m.counted.last.Load(); err != nil {
		return *err
	}
	return nil
}

// Close sends the last figures.
func (m *Metrics) Close(ctx context.Context) error { return m.provider.Shutdown(ctx) }

type counted struct {
	metric.Exporter
	failed atomic.Uint64
	last   atomic.Pointer[error]
}

func (c *counted) Export(ctx context.Context, data *metricdata.ResourceMetrics) error {
	err := c.Exporter.Export(ctx, data)
	if err != nil {
		c.failed.Add(1)
	}
	c.last.Store(&err)
	return nil // or the SDK prints it
}
