// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package exporter

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/bpfwhy/bpfwhy/internal/fleet/nodereport"
	"github.com/bpfwhy/bpfwhy/internal/output/render"
	"github.com/bpfwhy/bpfwhy/internal/serve/config"
	"github.com/bpfwhy/bpfwhy/internal/serve/kube"
	"github.com/bpfwhy/bpfwhy/internal/serve/metrics"
	"github.com/bpfwhy/bpfwhy/internal/serve/otlp"
	"github.com/bpfwhy/bpfwhy/internal/serve/sink"
	"github.com/bpfwhy/bpfwhy/internal/serve/stream"
)

// sinks opens those that a configuration names, but for the state folder. name completes a
// workload, as far as anybody knows its name.
func sinks(s *stream.Start, m *metrics.Metrics) (list []sink.Sink, name func(nodereport.Workload) nodereport.Workload, err error) {
	name = func(w nodereport.Workload) nodereport.Workload { return w }
	if *s.Config.Log {
		list = append(list, logSink{os.Stdout})
	}
	if s.Config.OTLP.Endpoint != "" {
		logs, err := otlp.NewLogs(context.Background(), otlpOptions(s))
		if err != nil {
			return nil, nil, err
		}
		list = append(list, logs)
	}
	if s.Config.InCluster() {
		k, pods, err := kubernetes(&s.Config)
		if err != nil {
			return nil, nil, fmt.Errorf("kubernetes: %w", err)
		}
		if err := m.Add(k.Counts); err != nil {
			return nil, nil, fmt.Errorf("kubernetes: %w", err)
		}
		if pods != nil {
			name = pods.Named
		}
		return append(list, k), name, nil
	}
	return list, name, nil
}

func otlpOptions(s *stream.Start) otlp.Options {
	return otlp.Options{Endpoint: s.Config.OTLP.Endpoint, Headers: s.Config.OTLP.Headers, Node: s.Config.Node, Version: s.Header.Tool}
}

// jitter spreads the reports of a cluster's nodes, which all begin in one rollout.
const jitter = time.Minute

// kubernetes opens the sink of the API server. It asks for nothing yet: that server may be away.
func kubernetes(c *config.Config) (*kube.Sink, *kube.Pods, error) {
	client, err := kube.Client()
	if err != nil {
		return nil, nil, err
	}
	var pods *kube.Pods
	if c.Use("pods") {
		if pods, err = kube.WatchPods(context.Background(), client, c.Node); err != nil {
			return nil, nil, err
		}
	}
	s, err := kube.New(kube.Options{
		Node: c.Node, Config: client, Events: c.Use("events"), Reports: c.Use("reports"), Conditions: c.Use("condition"),
		Pods: pods, Jitter: jitter, Say: say,
	})
	return s, pods, err
}

// logSink writes JSON lines, as 'bpfwhy watch --json --failed' does.
type logSink struct{ w io.Writer }

func (logSink) Name() string { return "log" }

func (l logSink) Put(_ context.Context, i sink.Item) error {
	var line any
	switch {
	case i.Failure != nil && i.Failure.Attempt != nil:
		line = i.Failure.Attempt
	case i.Failure != nil && i.Failure.Repeats != nil:
		line = i.Failure.Repeats
	case i.Loss != nil:
		line = i.Loss
	case i.Hang != nil:
		line = i.Hang
	default:
		return nil
	}
	if err := render.JSON(l.w, line); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

func (logSink) Close(context.Context) error { return nil }
