// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"

	"github.com/bpfwhy/bpfwhy/internal/sys/atomicfile"
	"github.com/bpfwhy/bpfwhy/internal/sys/scrape"
)

// Health is what the service says of itself: an error is what is wrong.
type Health struct {
	Healthy func() error // the pipeline works
	Ready   func() error // loads are watched
}

// Serve answers at an address until the listener is closed. Nothing can be started, changed or read
// but the figures and the two answers.
func (m *Metrics) Serve(l net.Listener, h Health) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.Handler())
	mux.Handle("GET /healthz", answer(h.Healthy))
	mux.Handle("GET /readyz", answer(h.Ready))
	return scrape.Server(mux, scrape.WriteTime).Serve(l)
}

// answerPage is an answer that waits to be sent.
type answerPage struct {
	bytes.Buffer
	header http.Header
	status int
}

func (p *answerPage) Header() http.Header    { return p.header }
func (p *answerPage) WriteHeader(status int) { p.status = status }

// Handler serves them. One page is made at a time, and a reader takes it afterwards: one that hangs
// keeps nobody waiting.
func (m *Metrics) Handler() http.Handler {
	figures := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := answerPage{header: w.Header(), status: http.StatusOK}
		m.making.Lock()
		figures.ServeHTTP(&p, r)
		m.making.Unlock()
		w.WriteHeader(p.status)
		_, _ = w.Write(p.Bytes()) // a reader that is gone misses nothing
	})
}

func answer(ask func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := ask(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
}

// WriteFile writes the figures to a file for node_exporter.
func (m *Metrics) WriteFile(path string) error {
	families, err := m.registry.Gather()
	if err != nil {
		return fmt.Errorf("gather metrics: %w", err)
	}
	const readable = 0o644 // node_exporter is another user
	err = atomicfile.Write(path, readable, func(w io.Writer) error {
		for _, f := range families {
			if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	return nil
}
