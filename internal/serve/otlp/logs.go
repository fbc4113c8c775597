// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	otellog "go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/sdk/log"

	"github.com/bpfwhy/bpfwhy/internal/abi"
	"github.com/bpfwhy/bpfwhy/internal/serve/sink"
	"github.com/bpfwhy/bpfwhy/load"
)

// The names of the records.
const (
	eventFailed   = "bpf.load.failed"
	eventResolved = "bpf.load.resolved"
	eventLost     = "bpf.records.lost"
	eventHangs    = "bpf.loads.hang"
	eventChanged  = "bpf.setting.changed"
)

// Logs is a sink of log records. It sends each at once: it is its queue that waits and tries again.
type Logs struct {
	provider *log.LoggerProvider
	logger   otellog.Logger
	sent     *direct
}

// NewLogs does not reach out to the collector yet.
func NewLogs(ctx context.Context, o Options) (*Logs, error) {
	to, err := o.url("logs")
	if err != nil {
		return nil, err
	}
	exporter, err := otlploghttp.New(ctx, otlploghttp.WithEndpointURL(to), otlploghttp.WithHeaders(o.Headers),
		otlploghttp.WithTimeout(timeout), otlploghttp.WithRetry(otlploghttp.RetryConfig{}))
	if err != nil {
		return nil, fmt.Errorf("open the exporter of OTLP logs: %w", err)
	}
	l := &Logs{sent: &direct{exporter: exporter}}
	l.provider = log.NewLoggerProvider(log.WithResource(o.resource()), log.WithProcessor(l.sent))
	l.logger = l.provider.Logger("github.com/bpfwhy/bpfwhy", otellog.WithInstrumentationVersion(o.Version))
	return l, nil
}

// Name is the sink's.
func (*Logs) Name() string { return "otlp" }

// Put sends an item, if there is something to log in it.
func (l *Logs) Put(ctx context.Context, i sink.Item) error {
	r, ok := record(i)
	if !ok {
		return nil
	}
	l.logger.Emit(ctx, r)
	if l.sent.err != nil {
		return fmt.Errorf("send OTLP logs: %w", l.sent.err)
	}
	return nil
}

// Close ends the exporter. Nothing is held back.
func (l *Logs) Close(ctx context.Context) error { return l.provider.Shutdown(ctx) }

// direct sends a record while it is emitted, and keeps the error for who emits: the SDK does not
// return it.
type direct struct {
	exporter log.Exporter
	err      error
}

func (*direct) Enabled(context.Context, log.EnabledParameters) bool { return true }

func (d *direct) OnEmit(ctx context.Context, r *log.Record) error {
	d.err = d.exporter.Export(ctx, []log.Record{*r})
	return nil
}

func (d *direct) Shutdown(ctx context.Context) error   { return d.exporter.Shutdown(ctx) }
func (d *direct) ForceFlush(ctx context.Context) error { return d.exporter.ForceFlush(ctx) }

// record says an item in the terms of OpenTelemetry. It has no instructions, and nothing of the
// verifier's log but the line that is the cause.
func record(i sink.Item) (r otellog.Record, ok bool) {
	switch {
	case i.Failure != nil:
		failure(&r, i.Failure)
	case i.Change != nil:
		c := i.Change
		fill(&r, eventChanged, otellog.SeverityWarn, c.At, fmt.Sprintf("%s was changed from %s to %s", c.Name, c.From, c.To),
			text("bpf.setting.name", c.Name), text("bpf.setting.from", c.From), text("bpf.setting.to", c.To))
	case i.Loss != nil:
		fill(&r, eventLost, otellog.SeverityWarn, i.Loss.Time, "records of BPF loads were lost", attribute.Int64("bpf.lost.loads", int64(i.Loss.Loads)))
		for what, n := range i.Loss.Events {
			r.AddAttributes(attribute.Int64("bpf.lost.events."+valid(what), int64(n)))
		}
	case i.Hang != nil:
		hang(&r, i.Hang)
	default:
		return r, false
	}
	return r, true
}

func fill(r *otellog.Record, event string, s otellog.Severity, at time.Time, body string, attributes ...attribute.KeyValue) {
	r.SetEventName(event)
	r.SetSeverity(s)
	r.SetSeverityText(s.String())
	r.SetTimestamp(at)
	r.SetObservedTimestamp(time.Now())
	r.SetBody(attribute.StringValue(valid(body)))
	r.AddAttributes(attributes...)
}

func hang(r *otellog.Record, h *load.Hang) {
	body, severity := fmt.Sprintf("%d calls of bpf(2) do not return", h.Calls), otellog.SeverityError
	if h.Calls == 0 {
		body, severity = "the calls of bpf(2) that did not return are over", otellog.SeverityInfo
	}
	fill(r, eventHangs, severity, h.Time, body, attribute.Int("bpf.hang.calls", h.Calls),
		attribute.Float64("bpf.hang.oldest", h.OldestNS.Seconds()))
}

func failure(r *otellog.Record, f *sink.Failure) {
	event, severity := eventFailed, otellog.SeverityError
	if f.Over {
		event, severity = eventResolved, otellog.SeverityInfo
	}
	fill(r, event, severity, f.Last, f.Message,
		attribute.String("bpf.failure.id", f.ID),
		attribute.String("bpf.rule", f.Rule),
		attribute.String("bpf.kind", string(f.Kind)),
		attribute.Int("bpf.failure.count", f.Count),
		attribute.String("bpf.failure.first", f.First.UTC().Format(time.RFC3339Nano)),
		attribute.Bool("bpf.failure.new", f.New))
	for _, a := range []struct{ name, value string }{
		{"bpf.title", f.Title},
		{"bpf.stage", f.Stage},
		{"bpf.errno", errno(f.Errno)},
		{"bpf.program.name", f.Program.Name},
		{"bpf.program.type", f.Program.Type},
		{"bpf.remedy", f.Remedy},
		{"process.command", f.Comm},
		{"k8s.namespace.name", f.Workload.Namespace},
		{"k8s.pod.name", f.Workload.Pod},
		{"k8s.pod.uid", f.Workload.PodUID},
		{"bpf.workload", f.Workload.Owner},
		{"container.name", f.Workload.Container},
		{"container.image.name", f.Workload.Image},
	} {
		if a.value != "" {
			r.AddAttributes(text(a.name, a.value))
		}
	}
}

// text is an attribute with what may come from a traced process.
func text(name, value string) attribute.KeyValue { return attribute.String(name, valid(value)) }

// valid replaces what is no UTF-8: protobuf refuses a message with such a string as a whole.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// errno is the name of an errno, its number where it has none.
func errno(n int) string {
	if n == 0 {
		return ""
	}
	if name := abi.ErrnoName(n); name != "" {
		return name
	}
	return strconv.Itoa(n)
}
