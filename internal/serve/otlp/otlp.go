// SPDX-License-Identifier: Apache-2.0

// Package otlp sends what 'bpfwhy serve' finds to an OpenTelemetry collector, by HTTP: failures as
// log records, and the figures of /metrics as metrics.
package otlp

import (
	"fmt"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
)

// Options say where to and from whom.
type Options struct {
	Endpoint string            // of the collector, such as http://127.0.0.1:4318
	Headers  map[string]string // sent with each request
	Node     string            // the node's name
	Version  string            // of bpfwhy
	Interval time.Duration     // between two exports of metrics; a minute if zero
}

// timeout limits one request. Who sends tries again later.
const timeout = 10 * time.Second

// url is where one kind of signals goes: the collector's paths are below the endpoint.
func (o Options) url(signal string) (string, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil {
		return "", fmt.Errorf("read the OTLP endpoint: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return "", fmt.Errorf("read the OTLP endpoint: %q is no URL such as http://127.0.0.1:4318", o.Endpoint)
	}
	return u.JoinPath("v1", signal).String(), nil
}

func (o Options) resource() *resource.Resource {
	return resource.NewSchemaless(
		attribute.String("service.name", "bpfwhy"),
		attribute.String("service.version", o.Version),
		attribute.String("service.instance.id", o.Node),
		attribute.String("host.name", o.Node),
	)
}
