// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/common/expfmt"
	"golang.org/x/net/netutil"

	"github.com/bpfwhy/bpfwhy/internal/sys/atomicfile"
)

// Limits of those who read the figures.
const (
	readTime     = 5 * time.Second
	writeTime    = 10 * time.Second
	idleTime     = time.Minute
	maxHeadBytes = 16 << 10
	maxReaders   = 32
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
	s := &http.Server{Handler: mux, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeadBytes}
	s.SetKeepAlivesEnabled(false) // nobody keeps the place of another
	return s.Serve(netutil.LimitListener(l, maxReaders))
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
