// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
)

// The page is made once for all who ask within a while, and kept compressed: whoever reads it
// slowly holds up nobody, and costs little.
const (
	pageAge = 500 * time.Millisecond
	// SeriesBytes is the most that a series, and RestBytes the most that all the rest, takes of the
	// page.
	SeriesBytes = 32 << 10
	RestBytes   = 64 << 10
	// maxLabel is the longest value of a label. Routes that are made of paths are shorter.
	maxLabel = 280
)

// page is the figures as text, compressed.
type page struct {
	gz   []byte
	made time.Time
}

// render returns the page, a new one if the last is too old.
func (m *Metrics) render() ([]byte, error) {
	m.rendering.Lock()
	defer m.rendering.Unlock()
	if m.page.gz != nil && time.Since(m.page.made) < pageAge {
		return m.page.gz, nil
	}
	families, err := m.registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather figures: %w", err)
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	to := expfmt.NewEncoder(z, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := to.Encode(f); err != nil {
			return nil, fmt.Errorf("write figures: %w", err)
		}
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	m.page = page{b.Bytes(), time.Now()}
	return m.page.gz, nil
}

// Handler serves the figures. The server that it is put in sets the deadlines.
func (m *Metrics) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gz, err := m.render()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		h := w.Header()
		h.Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
		h.Set("Vary", "Accept-Encoding")
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			h.Set("Content-Encoding", "gzip")
			_, _ = w.Write(gz) // a reader that is gone misses nothing
			return
		}
		if z, err := gzip.NewReader(bytes.NewReader(gz)); err == nil { // it is ours
			_, _ = io.Copy(w, z)
		}
	})
}
